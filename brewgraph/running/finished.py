"""A finished run, opened by its folder: its spec as it was run, its tasks, its student. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import RunError, SpecError, UsageError, listing, suggest
from brewgraph.models.export_record import read_record, unreadable
from brewgraph.paths import EXPORT_RECORD, is_file
from brewgraph.recipe.label_types import NONE, LabelType
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.values import DataDeclaration
from brewgraph.running.damage import ANEW, refuse_damage
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder, display_path, named_run, runs_folder

SPLITS = ("train", "dev", "test")
"""The splits of a data set that `--data` can name."""
_NAME_IT = "name the folder that `brewgraph run` made"


@dataclass(frozen=True)
class FinishedTask:
    """What a student has learnt: the data of a task, and the `classes` of its labels in the order of the logits.

    `name` is "" if the spec has no tasks, `head` if the student has no heads, `label_type` if there are no labels. The
    student is in the folder `student`; the spec calls it `key`. Paths of the data are relative to `folder`, where the
    spec was. `null_threshold` is the margin by which "no answer" must beat the best answer, None if every question has
    an answer. `marks` tells what labels mean that are lists of numbers, as in `Examples`.
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
        """The folder that plain transformers loads: the student's, or that of its head."""
        return self.student / self.head


@dataclass(frozen=True)
class FinishedRun:
    """`recipe` is that of the spec as it was run. `exported`: the folder holds an exported student, and not the run."""

    folder: RunFolder
    recipe: Recipe
    tasks: Mapping[str, FinishedTask]
    exported: bool = False

    def task(self, name: str | None) -> FinishedTask:
        """A task by its name; the only task without one. Raises `UsageError`."""
        if name is None and len(self.tasks) == 1:
            return next(iter(self.tasks.values()))
        names = [task or '""' for task in self.tasks]  # a stage without tasks has one of no name
        if name is None:
            raise UsageError(f"the run has several tasks: choose one by --task, {listing(names)}")
        if name not in self.tasks:
            there = f"it has {listing(names)}" if any(self.tasks) else "its spec has no tasks"
            raise UsageError(f"the run has no task `{name}`: {suggest(name, self.tasks) or there}")
        return self.tasks[name]


def open_run(target: str | Path) -> FinishedRun:
    """The run that `named_run` finds, or its baseline, with the same tasks; also the run whose exported student is in
    the folder, with that student. Raises `UsageError` if not finished, `RunError` where its files cannot be read.
    """
    folder = named_run(target)
    if (record := read_record(folder.path)) is not None:
        try:
            return _opened(folder, record.run["spec"], record.run, folder.path, exported=True)
        except (SpecError, KeyError, TypeError, AttributeError):
            raise unreadable(folder.path / EXPORT_RECORD) from None
    path, spec, resolved = folder.path, folder.whole.path / "spec.brew", folder.whole.resolved
    if not path.is_dir():
        what = f"`{path}` is a file" if path.exists() else f"there is no folder `{path}`"
        raise UsageError(f"{what}{_nearby(path)}: {_NAME_IT}")
    refuse_damage(folder.whole, ANEW)
    if resolved is None or not is_file(spec):
        raise UsageError(f"`{path}` holds no run{_nearby(path / 'x')}: {_NAME_IT}")
    if folder.finished is None or not folder.student.is_dir():
        raise UsageError(f"the run in `{path}` is not finished: repeat its `brewgraph run` command to resume it")
    if {"folder", "params", "tasks"} - resolved.keys():
        raise UsageError(f"`{path}` was made by another version of brewgraph: run it again with --force")
    try:
        return _opened(folder, spec.read_text(encoding="utf-8"), resolved, folder.student)
    except (SpecError, UnicodeDecodeError, KeyError) as error:
        why = error.diagnostics[0].message if isinstance(error, SpecError) else "it is not the spec of the run"
        raise RunError(f"{display_path(spec)} cannot be read: {why}; restore it, or begin anew {ANEW}") from error


def _opened(
    folder: RunFolder, spec: str, resolved: Mapping[str, Any], student: Path, *, exported: bool = False
) -> FinishedRun:
    """A run by the text of its spec and what it wrote down, with the student in a folder."""
    source = Source(spec, str(Path(resolved["folder"]) / "spec.brew"))
    recipe = check_names(source, resolved["params"])
    tasks = {
        name: FinishedTask(
            name,
            recipe.data[task["data"]],
            tuple(task["classes"]),
            task["head"],
            student,
            recipe.student.name,
            source.folder,
            recipe.data[task["data"]].source.label_type,
            task.get("null_threshold"),
            task.get("marks"),
        )
        for name, task in resolved["tasks"].items()
    }
    return FinishedRun(folder, recipe, tasks, exported)


def _nearby(path: Path) -> str:
    """Runs beside a folder that holds none, or where runs usually are."""
    for folder in (path.parent, path.parent / "runs", runs_folder(Path())):
        if runs := sorted(file.parent.name for file in folder.glob("*/resolved.json"))[:5]:
            return f" (in {folder} there is {', '.join(runs)})"
    return ""
