"""The models behind whatever a user names: a folder, a hub name, a run, a spec. None of their weights is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import RunError, SourceFault, UsageError, listing, suggest
from brewgraph.facts.model import UnbuiltModelFacts
from brewgraph.running.run_folders import named_run

if TYPE_CHECKING:
    from torch import nn


def named_folders(target: str) -> tuple[str, ...]:
    """The folders or hub names with a model each that `target` means: its own, that of a run's student, or one for each
    of its heads. UsageError where there is none.
    """
    run = named_run(target)
    folder = run.path
    if not folder.is_dir():
        return (target,)
    if run.whole.resolved is not None:
        folder = run.student
        if not folder.is_dir():
            raise UsageError(f"the run in `{target}` is not finished: give its `brewgraph run` again to go on with it")
    if any((folder / name).is_file() for name in ("config.json", "model.safetensors")):
        return (str(folder),)
    heads = sorted(path for path in folder.iterdir() if (path / "config.json").is_file())
    if not heads:
        raise UsageError(f"the folder `{target}` holds no model: it needs config.json or model.safetensors")
    return tuple(map(str, heads))


def named_model(name: str, revision: str | None = None) -> nn.Module:
    """The model that a configuration names as its own, of fake tensors. UsageError where there is none."""
    from brewgraph.models.description import read_config
    from brewgraph.models.fake.parameter_tree import configured_model

    try:
        return configured_model(read_config(name, revision))
    except SourceFault as fault:
        raise UsageError(str(fault)) from fault


def spec_models(checked: Checked, name: str | None = None) -> dict[str, UnbuiltModelFacts]:
    """What is known of a spec's models, or of the one that is named, by what they are called.

    Raises `UsageError` for a name that it lacks, `RunError` where nothing is known of any of them before it is loaded.
    """
    models = checked.recipe.models
    if name is not None and name not in models:
        raise UsageError(f"there is no model `{name}`: {suggest(name, models) or f'the spec has {listing(models)}'}")
    found: dict[str, UnbuiltModelFacts] = {}
    for model in models.values() if name is None else [models[name]]:
        facts = checked.facts(model)
        if facts is not None:
            found[f"{model.role} {model.name}"] = facts
    if not found:
        what = f"`{name}`" if name is not None else "the models"
        raise RunError(f"nothing is known of {what} before the weights are loaded: name a folder or a configuration")
    return found
