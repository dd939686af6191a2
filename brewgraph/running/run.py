"""`run`: train teachers that other specs describe, then the student; save and compare. A hash finds finished runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from importlib.metadata import version
from pathlib import Path

from accelerate.utils import broadcast_object_list

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import UsageError
from brewgraph.display.lines import html_table, table
from brewgraph.graph.container import info
from brewgraph.running.data_cache import DataCache, head_of
from brewgraph.running.run_faults import explained
from brewgraph.running.run_identity import Identity, folder_of_teacher, identify
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.running.table import ScoreRow, Trained, cells_of, compare
from brewgraph.running.teacher_check import check_teachers_agree, report_rounding
from brewgraph.training.checkpoint import load_student, save_projections, save_student
from brewgraph.training.folder import RunFolder, display_path, folder_size, runs_folder, teacher_folder
from brewgraph.training.loop import train
from brewgraph.training.processes import on_main_process, this_process
from brewgraph.training.reporter import Reporter


@dataclass(frozen=True)
class RunResult:
    """The folder of a run and its table of models. `fresh` is False for a run that was finished before."""

    folder: Path
    table: tuple[ScoreRow, ...]
    fresh: bool

    def __str__(self) -> str:
        """The table and the path of the student."""
        cells = cells_of(self.table)
        text = table(cells, right=range(1, len(cells[0]))) if self.table else "no model has scores"
        return f"{text}\n\n{self._place()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = cells_of(self.table)
        html = html_table(cells, right=range(1, len(cells[0]))) if self.table else "no model has scores"
        return f"<div>{html}<p>{escape(self._place())}</p></div>"

    def _place(self) -> str:
        if self.folder == Path():
            return "a dry run: nothing is kept"
        return f"the student is in {display_path(self.folder / 'student')}" + (
            "" if self.fresh else ", finished before"
        )


@dataclass(frozen=True)
class Options:
    """How to run a spec. `runs` is the folder of all runs (None: beside each spec); `skip` names passes to skip."""

    out: Path | None = None
    runs: Path | None = None
    force: bool = False
    dry_run: bool = False
    without_teacher: bool = False
    allow_python: bool = False
    skip: tuple[str, ...] = ()


def run_checked(checked: Checked, options: Options, reporter: Reporter) -> RunResult:
    """Run a checked spec, or return its finished run unless forced. Raises `SpecError`, `UsageError` or `RunError`."""
    reporter = reporter if this_process().is_main_process else Reporter()
    if options.dry_run:
        with scratch_folder() as scratch:
            folder, rows = _one_step(checked, options, scratch)
            size = folder_size(folder.student)
        reporter.say(f"one step, one evaluation and one save succeeded; the student takes {size:,} bytes")
        return RunResult(Path(), rows, fresh=True)
    return _run(SpecBuilder(checked, allow_python=options.allow_python, skip=options.skip), options, reporter)


def _run(builder: SpecBuilder, options: Options, reporter: Reporter, near: tuple[Path, ...] | None = None) -> RunResult:
    """Run a spec. For a teacher, `near` are the folders of the runs that it is trained for."""
    # everything that needs no training comes first, then teachers that must be trained
    checked = builder.checked
    identity = identify(builder, "alone" if options.without_teacher else "")
    home = runs_folder(checked.folder, options.runs)
    if near is None:
        folder = RunFolder(options.out or home / identity.folder_name)
    else:
        folder = teacher_folder(identity.folder_name, checked.folder, options.runs, near)
    with_baseline = checked.recipe.has_baseline and not options.without_teacher
    rows = _finished(folder, identity.hash, options)
    if rows is not None and (not with_baseline or folder.baseline.finished is not None):
        again = "; --force runs it again" if len(checked.parents) == 1 else ""  # which teachers do not
        reporter.say(f"{display_path(folder.path)} is already finished{again}")
        return RunResult(folder.path, rows, fresh=False)
    resume = folder.resolved is not None and not options.force
    for note in builder.notes():
        reporter.say(note)
    on_main_process(lambda: folder.prepare("--out" if options.out else "--runs"))
    below = replace(options, out=None, force=False, without_teacher=False)
    for name, other in checked.others.items():
        reporter.say(f"teacher {name}: {Path(other.recipe.source.name).name}")
        result = _run(builder.other(name), below, reporter, (*(near or ()), home))
        builder.teachers[name] = result.folder / "student"
        builder.drop_other(name)
    if not resume:
        on_main_process(folder.clear)
    on_main_process(lambda: _write_resolved(folder, checked, identity, builder))
    try:
        with explained(folder):
            rows = _train(builder, folder, options.without_teacher, reporter, resume=resume)
    except KeyboardInterrupt:
        saved = folder.complete_checkpoints() or folder.baseline.complete_checkpoints()
        resumes = "it resumes from the last checkpoint"
        raise KeyboardInterrupt(resumes if saved else "no checkpoint exists yet, so training starts anew") from None
    content = {"hash": identity.hash, "table": [vars(row) for row in rows]}
    on_main_process(lambda: folder.write_json("finished.json", content))
    for path in (folder.checkpoints, folder.baseline.checkpoints):
        on_main_process(partial(shutil.rmtree, path, ignore_errors=True))
    return RunResult(folder.path, rows, fresh=True)


# ── parts of a run ───────────────────────────────────────────────────────────────────────────────────────────────────


def _train(
    builder: SpecBuilder, folder: RunFolder, alone: bool, reporter: Reporter, *, resume: bool
) -> tuple[ScoreRow, ...]:
    """Train the student, and with `baseline = true` the same student without its teacher; then compare the models."""
    data_cache, recipe = DataCache(builder), builder.recipe
    checked, student, name = builder.checked, recipe.student.name, Path(recipe.source.name).stem
    trained: dict[str, Trained] = {}

    def train_one(what: Checked, at: RunFolder, title: str, *, finished: bool) -> Trained:
        """Train a new student through all stages and save it, or load a finished one."""
        builder.forget_student()
        if finished:
            return Trained(load_student(builder.model(student), at.student), at.path)
        distiller = train(data_cache.stages(what), student, at, reporter, name=title, resume=resume).distiller

        def save() -> None:
            tokenizer = None if builder.reads_tensors_only(student) else builder.tokenizer(student)
            save_student(distiller.student, at.student, tokenizer)
            save_projections(distiller, at.path / "projections.safetensors")

        on_main_process(save)
        return Trained(distiller.student, at.path)

    if not alone:
        check_teachers_agree(data_cache, checked, reporter)
        report_rounding(data_cache, reporter)
    if recipe.has_baseline and not alone:
        baseline, title = folder.baseline, f"{name} without its teacher"
        on_main_process(baseline.prepare)
        finished = baseline.finished is not None
        trained[f"{student} alone"] = train_one(checked.without_teachers(), baseline, title, finished=finished)
        on_main_process(lambda: baseline.write_json("finished.json", {"part of": folder.path.name}))
    what = checked.without_teachers() if alone else checked
    finished = resume and folder.finished is not None  # then only the baseline is missing
    trained[f"{student} alone" if alone else student] = train_one(what, folder, name, finished=finished)
    return compare(data_cache, trained, reporter.say)


# ── a dry run ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _one_step(
    checked: Checked, options: Options, scratch: Path, near: tuple[Path, ...] = ()
) -> tuple[RunFolder, tuple[ScoreRow, ...]]:
    """Train for one step in the scratch folder; untrained teachers get one step, too."""
    builder = short_builder(checked, 1, options, scratch, near)
    folder = RunFolder(scratch / "run")
    on_main_process(folder.prepare)
    return folder, _train(builder, folder, options.without_teacher, Reporter(), resume=False)


def short_builder(
    checked: Checked, steps: int, options: Options, scratch: Path, near: tuple[Path, ...] = ()
) -> SpecBuilder:
    """The builder of a spec that trains for so many steps. Untrained teachers are trained for one, in the scratch
    folder.
    """
    short = {"epochs": None, "steps": steps, "baseline": False}
    stages = tuple(replace(s, train=s.train.model_copy(update=short)) for s in checked.recipe.stages)
    train_ = checked.recipe.train.model_copy(update=short)
    checked = replace(checked, recipe=replace(checked.recipe, train=train_, stages=stages))
    builder = SpecBuilder(checked, allow_python=options.allow_python, skip=options.skip)
    near = (*near, runs_folder(checked.folder, options.runs))
    for name, other in checked.others.items():
        folder = folder_of_teacher(builder.other(name), options.runs, near)
        builder.drop_other(name)
        if folder.finished is None:
            folder, _ = _one_step(other, replace(options, without_teacher=False), scratch / name, near)
        builder.teachers[name] = folder.student
    return builder


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for all ranks."""
    path = Path(str(broadcast_object_list([on_main_process(lambda: tempfile.mkdtemp(prefix="brewgraph-"))])[0]))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _finished(folder: RunFolder, run_hash: str, options: Options) -> tuple[ScoreRow, ...] | None:
    """The table of a finished run of the same hash. Raises `UsageError` for a folder with anything else in it."""
    if options.force:
        return None
    resolved, finished = folder.resolved, folder.finished
    what = ""
    if resolved is not None and resolved.get("hash") != run_hash:
        what = f"holds another run (hash {resolved.get('hash')})"
    elif resolved is None and options.out is not None and folder.path.is_dir() and any(folder.path.iterdir()):
        what = "is not empty and holds no run"
    if what:
        raise UsageError(f"{display_path(folder.path)} {what}; choose another --out, or --force")
    return None if finished is None else tuple(ScoreRow(**row) for row in finished["table"])


def _write_resolved(folder: RunFolder, checked: Checked, identity: Identity, builder: SpecBuilder) -> None:
    recipe = checked.recipe
    (folder.path / "spec.brew").write_text(recipe.source.text, encoding="utf-8")
    tasks = {
        task.name: {
            "data": task.data[0],
            "head": head_of(checked, task, task.data[0]),
            "classes": list(builder.classes(task.data[0])),
            "null_threshold": builder.null_threshold(task.data[0]),
            "marks": builder.marks(task.data[0]),
        }
        for _, task in recipe.tasks
    }
    folder.write_json(
        "resolved.json",
        {
            "hash": identity.hash,
            "spec": checked.spec_hash,
            "graphs": {"/".join(filter(None, name)): info(g).objective for name, g in checked.graphs.items()},
            "folder": str(checked.folder.resolve()),
            "params": dict(recipe.params),
            "stages": {stage.name: stage.train.model_dump(mode="json") for stage in recipe.stages},
            "models": {name: model.source.model_dump(mode="json") for name, model in recipe.models.items()},
            "data": {name: d.source.model_dump(mode="json", serialize_as_any=True) for name, d in recipe.data.items()},
            "tasks": tasks,
            "fingerprints": dict(identity.prints),
            "versions": {
                name: version(name) for name in ("brewgraph", "torch", "transformers", "accelerate", "datasets")
            },
        },
    )
