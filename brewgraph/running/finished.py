"""A run that has ended, found again by its folder: its spec as it was run, its tasks, its student. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import UsageError, listing, suggest
from brewgraph.recipe.label_types import NONE, LabelType
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.values import DataDeclaration
from brewgraph.running.run_folders import named_run, runs_folder
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder

SPLITS = ("train", "dev", "test")
"""The parts of a data set, by the names that `--data` knows them by."""


@dataclass(frozen=True)
class FinishedTask:
    """What a student has learnt: the data of a task, and the `classes` of its labels in the order of the logits.

    `name` is "" where the spec has no tasks, `head` where the student has no heads, `label_type` where there are no
    labels. The student lies in the folder `student`, under the name `key` in the spec; paths of the data begin at
    `folder`, where the spec was. `null_threshold` is by how much no answer must exceed the best one, None where every
    question has an answer. `marks` tells of labels that are lists of numbers what these are, as `Examples` has it.
    """

    name: str
    data: DataDeclaration
    classes: tuple[str, ...]
    head: str
    student: Path
    key: str
    folder: Path
    label_type: LabelType = NONE
    null_threshold: float | None = None
    marks: bool | None = None

    @property
    def model(self) -> Path:
        """The folder of the model: in it, or one for each head below it, is what plain transformers loads."""
        return self.student / self.head


@dataclass(frozen=True)
class FinishedRun:
    """`recipe` is that of the spec as it was run."""

    folder: RunFolder
    recipe: Recipe
    tasks: Mapping[str, FinishedTask]

    def task(self, name: str | None) -> FinishedTask:
        """A task by its name, which may be left out where there is one. Raises `UsageError`."""
        if name is None and len(self.tasks) == 1:
            return next(iter(self.tasks.values()))
        if name is None:
            raise UsageError(f"the run has several tasks: choose one by --task, {listing(self.tasks)}")
        if name not in self.tasks:
            there = f"it has {listing(self.tasks)}" if any(self.tasks) else "its spec has no tasks"
            raise UsageError(f"the run has no task `{name}`: {suggest(name, self.tasks) or there}")
        return self.tasks[name]


def open_run(target: str | Path) -> FinishedRun:
    """The run in a folder, or a run's baseline, as `named_run` finds it: the same tasks, the student of `alone`.

    Raises `UsageError` where there is none, or one that has not ended.
    """
    folder = named_run(target)
    path, spec, resolved = folder.path, folder.whole.path / "spec.brew", folder.whole.resolved
    if not path.is_dir():
        raise UsageError(f"there is no folder `{path}`{_nearby(path)}")
    if resolved is None or not spec.is_file():
        raise UsageError(f"`{path}` holds no run{_nearby(path / 'x')}: name the folder that `brewgraph run` made")
    if folder.finished is None or not folder.student.is_dir():
        raise UsageError(f"the run in `{path}` is not finished: give its `brewgraph run` again to go on with it")
    if {"folder", "params", "tasks"} - resolved.keys():
        raise UsageError(f"`{path}` was made by another version of brewgraph: run it again with --force")
    source = Source(spec.read_text(encoding="utf-8"), str(Path(resolved["folder"]) / spec.name))
    recipe = check_names(source, resolved["params"])
    tasks = {
        name: FinishedTask(
            name,
            recipe.data[said["data"]],
            tuple(said["classes"]),
            said["head"],
            folder.student,
            recipe.student.name,
            source.folder,
            recipe.data[said["data"]].source.label_type,
            said.get("null_threshold"),
            said.get("marks"),
        )
        for name, said in resolved["tasks"].items()
    }
    return FinishedRun(folder, recipe, tasks)


def _nearby(path: Path) -> str:
    """Runs that lie beside a folder which is none, or where runs usually lie."""
    for folder in (path.parent, path.parent / "runs", runs_folder(Path())):
        if runs := sorted(found.parent.name for found in folder.glob("*/resolved.json"))[:5]:
            return f" (in {folder} there is {', '.join(runs)})"
    return ""
