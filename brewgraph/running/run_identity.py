"""What a run is: a hash of its spec, data and models, known before training; and how finished runs are found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import UsageError
from brewgraph.digest import digest
from brewgraph.facts.memory import print_of_weights
from brewgraph.ops.python_files import module_print
from brewgraph.paths import locate
from brewgraph.recipe.settings.model_sources import Python
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.folder import RunFolder, display_path, runs_folder, teacher_folder


@dataclass(frozen=True)
class Identity:
    """The hash of a run over spec, data and models, and the prints that it is made from."""

    hash: str
    prints: Mapping[str, str]
    folder_name: str


def identify(builder: SpecBuilder, purpose: str = "") -> Identity:
    """The identity of a run."""
    checked = builder.checked
    others = {
        f"{position}": identify(builder.other(name)).hash
        for position, name in enumerate(checked.recipe.models)
        if name in checked.others
    }
    return identity_of(checked, {**builder.fingerprints(), **others}, purpose)


def identity_of(checked: Checked, prints: Mapping[str, str], purpose: str = "") -> Identity:
    """The identity of a run whose data and other specs have these prints."""
    modules = {
        f"module {position}": module_print(module, checked.folder)
        for position, module in enumerate(checked.recipe.modules)
    }
    prints = {**prints, **_model_prints(checked), **modules}
    run_hash = digest(checked.spec_hash, sorted(prints.items()), purpose)
    parts = [Path(checked.recipe.source.name).stem.strip("<>"), purpose, run_hash[:8]]
    return Identity(run_hash, prints, "-".join(part for part in parts if part))


def _model_prints(checked: Checked) -> dict[str, str]:
    """Prints of model content that no other spec describes: the files of local folders, the text of Python modules."""
    prints = {}
    for position, model in enumerate(checked.recipe.models.values()):
        source = model.source
        if isinstance(source, Python):
            prints[f"{position}"] = module_print(source.target.partition(":")[0], checked.folder)
        elif source.has_configuration:
            tokenizer = source.tokenizer_name if source.tokenizer_name not in checked.recipe.models else None
            for name in (source.checkpoint, tokenizer):
                if name and (place := locate(name, checked.folder)).is_dir():
                    prints[f"{position}/{name}"] = str(print_of_weights(str(place)))
    return prints


def folder_of_teacher(other: SpecBuilder, runs: Path | None, near: tuple[Path, ...]) -> RunFolder:
    """The run of another spec to learn from; `near` are the folders of the runs that learn from it."""
    return teacher_folder(identify(other).folder_name, other.checked.folder, runs, near)


def finished_teachers(
    checked: Checked, replaced: Collection[str], runs: Path | None = None, *, option: str, allow_python: bool = False
) -> dict[str, Path]:
    """The folders of the students that `brew(...)` models stand for, but of those `replaced` by the caller's modules.
    Raises `UsageError` for the first whose run is not finished; it says with which `option`, if any, the caller names
    the folder of runs.
    """
    folders = {}
    home = runs_folder(checked.folder, runs)
    for name, other in checked.others.items():
        if name in replaced:
            continue
        folder = folder_of_teacher(SpecBuilder(other, allow_python=allow_python), runs, (home,))
        if folder.finished is None:
            params = checked.recipe.models[name].source.spec_params
            spec = display_path(Path(other.recipe.source.name))
            command = " ".join(["brewgraph run", spec, *(f"--set {param}={value}" for param, value in params.items())])
            raise UsageError(
                f"`{name}` is not trained yet: run `{command}` first; no finished run of it is in "
                f"{display_path(folder.path.parent)}" + (f"; `{option}` names another folder" if option else "")
            )
        folders[name] = folder.student
    return folders
