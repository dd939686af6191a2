"""A run that has ended, found again by its folder: its spec as it was run, its classes, its student. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from brewgraph.diagnostics import UsageError
from brewgraph.project.check import check_names
from brewgraph.recipe.elaborate import Recipe
from brewgraph.recipe.values import DataDeclaration
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """`recipe` is that of the spec as it was run, its paths those of the place where it was run; `classes` are those of
    its data, in the order of the logits."""

    folder: RunFolder
    recipe: Recipe
    classes: tuple[str, ...]

    @property
    def data(self) -> DataDeclaration:
        """The data set that the student was trained on."""
        return next(iter(self.recipe.data.values()))


def open_run(path: Path) -> FinishedRun:
    """The run in a folder. Raises `UsageError` where there is none, or one that has not ended."""
    folder = RunFolder(path)
    spec, resolved = path / "spec.brew", folder.resolved
    if not path.is_dir():
        raise UsageError(f"there is no folder `{path}`{_nearby(path)}")
    if resolved is None or not spec.is_file():
        raise UsageError(f"`{path}` holds no run{_nearby(path / 'x')}: name the folder that `brewgraph run` made")
    if folder.finished is None or not folder.student.is_dir():
        raise UsageError(f"the run in `{path}` is not finished: give its `brewgraph run` again to go on with it")
    missing = {"folder", "params", "classes"} - resolved.keys()
    if missing:
        raise UsageError(f"`{path}` was made by another version of brewgraph: run it again with --force")
    source = Source(spec.read_text(encoding="utf-8"), str(Path(resolved["folder"]) / spec.name))
    recipe = check_names(source, resolved["params"])
    classes = resolved["classes"][next(iter(recipe.data))]
    return FinishedRun(folder, recipe, tuple(classes))


def _nearby(path: Path) -> str:
    """Runs that lie beside a folder which is none."""
    runs = sorted(found.parent.name for found in path.parent.glob("*/resolved.json"))[:5]
    return f" (in {path.parent} there is {', '.join(runs)})" if runs else ""
