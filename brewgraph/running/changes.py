"""What changed since a run began: its spec in meaning, its data and models by content, passes and versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brewgraph.checking.check import Checked, check, check_names
from brewgraph.diagnostics import BrewError, UsageError
from brewgraph.display.diff import SIGNS, Side, compare
from brewgraph.graph.identity import QUIET
from brewgraph.paths import is_file
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.settings.base import setting_text
from brewgraph.recipe.settings.train import Train
from brewgraph.running.damage import ANEW, refuse_damage
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder, display_path

_LIBRARIES = ("brewgraph", "torch", "transformers", "accelerate", "datasets")


def circumstances(recipe: Recipe, skip: Collection[str]) -> dict[str, str]:
    """What changes the last bits of a run and not its hash: the versions of libraries, skipped passes, and the settings
    that choose devices and kernels.
    """
    devices = [f"{x.name} on {x.source.device}" for x in recipe.teachers if x.source.device is not None]
    return {
        **{name: version(name) for name in _LIBRARIES},
        "skipped passes": ", ".join(sorted(skip)) or "none",
        "devices": ", ".join(devices) or "none",
        "compile": _by_stage(recipe, lambda train: train.compile),
        "fused": _by_stage(recipe, lambda train: getattr(train.optimizer, "fused", None)),
    }


def _by_stage(recipe: Recipe, setting: Callable[[Train], bool | None]) -> str:
    """A setting in the words of a spec, of each stage that has a name."""
    values = ((stage.name, str(setting(stage.train)).lower()) for stage in recipe.stages)
    return ", ".join(f"{name} {value}" if name else value for name, value in values)


def changes_of_circumstances(folder: RunFolder, recipe: Recipe, skip: Collection[str]) -> Iterator[str]:
    """What changed of the circumstances since the run in a folder began, a line for each."""
    before = (folder.resolved or {}).get("circumstances", {})
    for name, now in circumstances(recipe, skip).items():
        if before.get(name) != now:
            yield f"{name} {before.get(name, 'unknown')} -> {now}"


def changes_since(folder: RunFolder, checked: Checked, prints: Mapping[str, str]) -> Iterator[str]:
    """What differs between the run in a folder and a spec whose data and models have these prints, a line for each;
    nothing if the spec of the run can no longer be read. Of equal specs only one may learn without its teacher.
    """
    try:
        source, params = spec_of(folder, Path(checked.recipe.source.name).name)
        before = check_names(source, params)
    except (OSError, KeyError, ValueError, BrewError):
        return
    with suppress(BrewError):  # a model of it may be gone
        then = check(source, params)
        if then.graphs and checked.graphs:
            yield from (f"{SIGNS[change.how]} {change.text}" for change in compare(then.side, checked.side).changes)
    yield from _changes_of_content((before, (folder.resolved or {}).get("fingerprints", {})), (checked.recipe, prints))


def changes_between(one: RunFolder, other: RunFolder) -> Iterator[str]:
    """What differs between two runs: their specs in meaning, else in params; data and models by content; circumstances.

    Raises `UsageError` for a folder whose spec can no longer be read, `RunError` for one whose other files cannot.
    """
    recipes: list[Recipe] = []
    sides: list[Side] = []
    for folder in (one, other):
        refuse_damage(folder, ANEW)
        try:
            source, params = spec_of(folder, "spec.brew")
            recipes.append(check_names(source, params))
        except (OSError, KeyError, ValueError, BrewError) as error:
            where = display_path(folder.path)
            raise UsageError(f"the spec of `{where}` can no longer be read: make the run again with --force") from error
        with suppress(BrewError):  # a model of it may be gone
            if (checked := check(source, params)).graphs:
                sides.append(checked.side)
    if len(sides) == 2:
        yield from (f"{SIGNS[change.how]} {change.text}" for change in compare(*sides).changes)
    else:
        yield "  the models of the specs cannot be reached: params are compared in place of losses and settings"
        before, after = (recipe.params for recipe in recipes)
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"~ param {name}: {setting_text(before.get(name))} -> {setting_text(after.get(name))}"
    contents = [folder.resolved or {} for folder in (one, other)]
    prints = [content.get("fingerprints", {}) for content in contents]
    yield from _changes_of_content(*zip(recipes, prints, strict=True))
    around = [content.get("circumstances", {}) for content in contents]
    for name in dict.fromkeys([*around[0], *around[1]]):
        if around[0].get(name) != around[1].get(name):
            yield f"~ {name} {around[0].get(name, 'unknown')} -> {around[1].get(name, 'unknown')}"


def spec_of(folder: RunFolder, name: str) -> tuple[Source, Mapping[str, Any]]:
    """The spec of a run, in the folder where it was and under this name there, and its params. Raises `OSError`,
    `KeyError` or `ValueError` for a folder without one.
    """
    resolved = folder.resolved or {}
    if not is_file(path := folder.path / "spec.brew"):
        raise FileNotFoundError(path)
    text = path.read_text(encoding="utf-8")
    params: Mapping[str, Any] = resolved["params"]
    return Source(text, name, Path(resolved["folder"])), params


def _changes_of_content(
    one: tuple[Recipe, Mapping[str, str]], other: tuple[Recipe, Mapping[str, str]]
) -> Iterator[str]:
    """The data and models of the first recipe whose prints are others in the second."""
    before, after = ({_subject(recipe, key): value for key, value in of.items()} for recipe, of in (one, other))
    for name, value in before.items():
        if after.get(name, value) != value:
            yield f"~ {name}: content"


def changes_of_habits(folder: RunFolder, checked: Checked) -> Iterator[str]:
    """Settings that change nothing that is trained, and differ from those of the run in a folder."""
    stages, known = (folder.resolved or {}).get("stages", {}), circumstances(checked.recipe, ()).keys()
    for stage in checked.recipe.stages:
        before, now = stages.get(stage.name, {}), stage.train.model_dump(mode="json")
        for name in sorted(QUIET & before.keys() - known):
            if before[name] != now[name]:
                yield f"{name} {before[name]} -> {now[name]}"


def _subject(recipe: Recipe, key: str) -> str:
    """What a print in `Identity` is of: `data d`, `teacher bert`, `student tiny`, `module losses`."""
    match = re.match(r"(data |module |)(\d+)", key)
    assert match is not None
    kind, position = match.groups()
    if kind == "module ":
        return f"module {recipe.modules[int(position)]}"
    if kind == "data ":
        return f"data {list(recipe.data)[int(position)]}"
    model = list(recipe.models.values())[int(position)]
    return f"{model.role} {model.name}"
