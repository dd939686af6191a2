"""`run`: train teachers that other specs describe, then the student; save and compare. A hash finds finished runs."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from threading import RLock
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import BrewError, RunError, UsageError
from brewgraph.display.lines import html_table, table
from brewgraph.graph.container import info
from brewgraph.running.changes import changes_of_circumstances, changes_of_habits, changes_since, circumstances
from brewgraph.running.damage import refuse_damage, rows_of
from brewgraph.running.data_cache import DataCache, head_of
from brewgraph.running.run_faults import explained
from brewgraph.running.run_identity import Identity, folder_of_teacher, identify
from brewgraph.running.scores import ScoreRow, cells_of
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.running.table import Trained, compare
from brewgraph.running.teacher_check import check_teachers_agree, report_rounding
from brewgraph.training.callbacks import Callback, Callbacks, EndedByCallback, StopRun
from brewgraph.training.checkpoint import load_student, save_projections, save_student
from brewgraph.training.folder import (
    RunFolder,
    display_path,
    folder_size,
    json_text,
    runs_folder,
    teacher_folder,
    write_text,
)
from brewgraph.training.lock import is_owned, locked
from brewgraph.training.loop import train
from brewgraph.training.processes import hardware, on_main_process, this_process
from brewgraph.training.reporter import Reporter
from brewgraph.training.signals import INTERRUPTIONS
from brewgraph.training.trackers import Trackers, check_trackers, flat, trackers_of


@dataclass(frozen=True)
class RunResult:
    """The folder of a run and its table of models. `fresh` is False for a run that was finished before. `stopped` is
    the reason of a callback that ended the run, which has no table then and which the same call resumes; else None.
    """

    folder: Path
    table: tuple[ScoreRow, ...]
    fresh: bool
    stopped: str | None = None

    def __str__(self) -> str:
        """The table and the path of the student."""
        if self.stopped is not None:
            return self._place()
        cells = cells_of(self.table)
        text = table(cells, right=range(1, len(cells[0]))) if self.table else "no model has scores"
        return f"{text}\n\n{self._place()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if self.stopped is not None:
            return f"<p>{escape(self._place())}</p>"
        cells = cells_of(self.table)
        html = html_table(cells, right=range(1, len(cells[0]))) if self.table else "no model has scores"
        return f"<div>{html}<p>{escape(self._place())}</p></div>"

    def _place(self) -> str:
        if self.folder == Path():
            return "a dry run: nothing is kept"
        if self.stopped is not None:
            reason = f": {self.stopped}" if self.stopped else ""
            return f"a callback stopped the run in {display_path(self.folder)}{reason}; the same call resumes it"
        return f"the student is in {display_path(self.folder / 'student')}" + (
            "" if self.fresh else ", finished before"
        )


_PROCESS = RLock()
"""Held while a spec runs in this process."""


@dataclass(frozen=True)
class Options:
    """How to run a spec. `runs` is the folder of all runs (None: beside each spec); `skip` names passes to skip; with
    `wait` a run that another process of this machine is at, and a teacher's, is waited for. `report` writes the report
    of a finished run and returns its path; trackers keep it with the tracked run.
    """

    out: Path | None = None
    runs: Path | None = None
    force: bool = False
    dry_run: bool = False
    without_teacher: bool = False
    allow_python: bool = False
    skip: tuple[str, ...] = ()
    wait: bool = False
    callbacks: tuple[Callback, ...] = ()
    report: Callable[[RunFolder], Path] | None = None


def run_checked(checked: Checked, options: Options, reporter: Reporter) -> RunResult:
    """Run a checked spec, or return its finished run unless forced. Raises `SpecError`, `UsageError` or `RunError`.

    Seeds, precision and devices belong to a process: of threads that run specs one at a time does.
    """
    reporter = reporter if this_process().is_main_process else Reporter()
    if not _PROCESS.acquire(blocking=False):
        reporter.say("another thread of this program runs a spec: waiting for it")
        _PROCESS.acquire()
    try:
        return _run_alone(checked, options, reporter)
    finally:
        _PROCESS.release()


def _run_alone(checked: Checked, options: Options, reporter: Reporter) -> RunResult:
    """Run a checked spec, while no other thread does."""
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
    if len(set(gather_object([identity.hash]))) > 1:
        raise RunError(
            "the processes of this run read different data or models: files of them changed while it began; run it "
            "again, once nothing writes them"
        )
    builder.prints = identity.prints
    home = runs_folder(checked.folder, options.runs)
    if near is None:
        folder = RunFolder(options.out or home / identity.folder_name)
    else:
        folder = teacher_folder(identity.folder_name, checked.folder, options.runs, near)
    if (rows := _finished(folder, builder, identity, options)) is None:
        on_main_process(lambda: folder.prepare("--out" if options.out else "--runs"))
        # ranks that stand still for long would end the run
        wait = options.wait and this_process().num_processes == 1
        with locked(folder.path, reporter.say, wait=wait) if this_process().is_main_process else nullcontext():
            # what another process may have done since
            since = on_main_process(lambda: _finished(folder, builder, identity, options))
            rows = broadcast_object_list([since])[0]
            if rows is None:
                try:
                    return _run_owned(builder, folder, identity, options, reporter, (*(near or ()), home))
                except StopRun as stop:
                    if near is not None:
                        raise  # the run that this teacher is for ends, too
                    return RunResult(folder.path, (), fresh=True, stopped=str(stop))
    if this_process().is_main_process:
        _remove_leftovers(folder)
    # which is an option of neither teachers nor sweeps
    again = "; --force runs it again" if len(checked.parents) == 1 and not options.wait else ""
    reporter.say(f"{display_path(folder.path)} is already finished{again}")
    return RunResult(folder.path, rows, fresh=False)


def _run_owned(
    builder: SpecBuilder,
    folder: RunFolder,
    identity: Identity,
    options: Options,
    reporter: Reporter,
    near: tuple[Path, ...],
) -> RunResult:
    """Run a spec in a folder that this process owns: its teachers first, which look for their runs in `near`, too."""
    checked = builder.checked
    builder.check_machine()
    check_trackers(trackers_of(checked.recipe.train))
    resume = folder.begun and not options.force and folder.has_progress
    if resume:
        _say_changes(folder, builder, reporter)
    elif options.out is None and this_process().is_main_process:
        _say_left_behind(folder, builder, identity, reporter)
    for note in builder.notes():
        reporter.say(note)
    below = replace(options, out=None, force=False, without_teacher=False)
    for name, other in checked.others.items():
        reporter.say(f"teacher {name}: {Path(other.recipe.source.name).name}")
        result = _run(builder.other(name), below, reporter, near)
        builder.teachers[name] = result.folder / "student"
        builder.drop_other(name)
    if not resume:
        on_main_process(lambda: folder.clear(identity.hash))
    on_main_process(folder.forget_failure)
    began, resolved = time.monotonic(), _resolved(checked, identity, builder)
    trackers = _trackers(checked, resolved, reporter)
    error: Exception | SystemExit | None
    try:
        on_main_process(lambda: _write_resolved(folder, checked, resolved))
        with explained(folder):
            callbacks = Callbacks(options.callbacks, main=this_process().is_main_process)
            try:
                rows = _train(
                    builder, folder, options.without_teacher, reporter, trackers, resume=resume, callbacks=callbacks
                )
            except BaseException:
                trackers.end(finished=False)
                raise
    except EndedByCallback as ended:
        error = ended.error
    except INTERRUPTIONS as interruption:
        same = f"run the same command again{', without --force' if options.force else ''}"
        raise type(interruption)(f"{same}: {_what_follows(folder, Path(checked.recipe.source.name).stem)}") from None
    except Exception as failure:
        if this_process().is_main_process:
            folder.record_failure(failure)
        raise
    else:
        error = None
    if error is not None:  # here, so that it keeps the context that it was raised in
        error.add_note(_what_follows(folder, Path(checked.recipe.source.name).stem))
        raise error
    # how long a run took is not known of one that was interrupted
    took = {"seconds": None if resume else round(time.monotonic() - began, 1), "hardware": hardware()}
    content = {"hash": identity.hash, "table": [vars(row) for row in rows], "took": took}
    on_main_process(lambda: folder.write_json("finished.json", content))
    if trackers.attaches and trackers.folder == folder and options.report is not None:
        try:
            trackers.attach(options.report(folder))
        except BrewError as error:
            reporter.say(f"no report is kept with the tracked run: {error}")
    trackers.end(finished=True)
    for path in folder.all_checkpoints:
        on_main_process(partial(shutil.rmtree, path, ignore_errors=True))
    return RunResult(folder.path, rows, fresh=True)


def _say_changes(folder: RunFolder, builder: SpecBuilder, reporter: Reporter) -> None:
    """Report settings that changed since the run was interrupted and train nothing else. Raises `UsageError` for what
    changed and could change its numbers.
    """
    where = display_path(folder.path)
    if changes := list(changes_of_circumstances(folder, builder.recipe, builder.skip)):
        anew = "with --force" if len(builder.checked.parents) == 1 else f"by deleting {where}"
        raise UsageError(
            f"the run in {where} was interrupted, and would not continue exactly:\n"
            + "".join(f"  ~ {change}\n" for change in changes)
            + f"restore that, or begin anew {anew}"
        )
    for change in changes_of_habits(folder, builder.checked):
        reporter.say(f"since {where} was interrupted: {change}, which changes nothing that is trained")


def _say_left_behind(folder: RunFolder, builder: SpecBuilder, identity: Identity, reporter: Reporter) -> None:
    """Report the last interrupted run of an earlier state of this spec with the same params, and what changed since."""
    stem, checked = identity.folder_name.rpartition("-")[0], builder.checked
    about = {"folder": str(checked.folder.resolve()), "params": json.loads(json_text(dict(checked.recipe.params)))}
    others = []
    for path in folder.path.parent.glob("*/resolved.json"):
        other = RunFolder(path.parent)
        if other.path.name.rpartition("-")[0] != stem or other.path == folder.path or other.finished is not None:
            continue
        content = other.resolved or {}
        if all(content.get(key) == value for key, value in about.items()) and other.has_progress:
            others.append((path.stat().st_mtime, other))
    if not others or is_owned((left := max(others, key=lambda pair: pair[0])[1]).path):
        return
    if changes := list(changes_since(left, checked, identity.prints)):
        lines = "".join(f"\n  {change}" for change in changes)
        reporter.say(f"{display_path(left.path)} was interrupted, and is not continued, because this changed:{lines}")


def _remove_leftovers(folder: RunFolder) -> None:
    """Remove checkpoints of a finished run that was ended before it could, unless another process uses the folder."""
    if any(path.exists() for path in folder.all_checkpoints):
        with suppress(RunError, OSError), locked(folder.path, lambda text: None):
            for path in folder.all_checkpoints:
                shutil.rmtree(path, ignore_errors=True)


def _what_follows(folder: RunFolder, name: str) -> str:
    """What the same command does after an interruption."""
    for part, title in ((folder, name), (folder.baseline, f"{name} without its teacher")):
        if checkpoints := part.complete_checkpoints():
            return f"{title} resumes at step {checkpoints[-1][0]:,}"
    return "no checkpoint exists yet, so training starts anew"


# ── parts of a run ───────────────────────────────────────────────────────────────────────────────────────────────────


def _train(
    builder: SpecBuilder,
    folder: RunFolder,
    alone: bool,
    reporter: Reporter,
    trackers: Trackers,
    *,
    resume: bool,
    callbacks: Callbacks | None = None,
) -> tuple[ScoreRow, ...]:
    """Train the student, and with `baseline = true` the same student without its teacher; then compare the models.

    Each of both is a tracked run of its own; the first begins before any weight is loaded.
    """
    data_cache, recipe = DataCache(builder, reporter.say), builder.recipe
    checked, student, name = builder.checked, recipe.student.name, Path(recipe.source.name).stem
    trained: dict[str, Trained] = {}
    baseline = folder.baseline if recipe.has_baseline and not alone else None
    track_baseline = baseline is not None and baseline.finished is None
    trackers.begin(folder.baseline if track_baseline else folder)

    def train_one(what: Checked, at: RunFolder, title: str, *, finished: bool) -> Trained:
        """Train a new student through all stages and save it, or load a finished one."""
        builder.forget_student()
        if finished:
            return Trained(load_student(builder.model(student), at.student), at.path)
        trackers.begin(at)
        stages = data_cache.stages(what)
        outcome = train(
            stages, student, at, reporter, name=title, resume=resume, callbacks=callbacks, trackers=trackers
        )
        distiller = outcome.distiller

        def save() -> None:
            tokenizer = None if builder.reads_tensors_only(student) else builder.tokenizer(student)
            save_student(distiller.student, at.student, tokenizer)
            save_projections(distiller, at.path / "projections.safetensors")

        on_main_process(save)
        return Trained(distiller.student, at.path)

    if not alone:
        check_teachers_agree(data_cache, checked, reporter)
        report_rounding(data_cache, reporter)
    if baseline is not None:
        title = f"{name} without its teacher"
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
    return folder, _train(builder, folder, options.without_teacher, Reporter(), Trackers(), resume=False)


def short_builder(
    checked: Checked, steps: int, options: Options, scratch: Path, near: tuple[Path, ...] = ()
) -> SpecBuilder:
    """The builder of a spec that trains for so many steps. Untrained teachers are trained for one, in the scratch
    folder.
    """
    short = {"epochs": None, "steps": steps, "baseline": False, "trackers": ()}
    stages = tuple(replace(s, train=s.train.model_copy(update=short)) for s in checked.recipe.stages)
    train_ = checked.recipe.train.model_copy(update=short)
    checked = replace(checked, recipe=replace(checked.recipe, train=train_, stages=stages))
    builder = SpecBuilder(checked, allow_python=options.allow_python, skip=options.skip)
    builder.check_machine()
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


def _finished(
    folder: RunFolder, builder: SpecBuilder, identity: Identity, options: Options
) -> tuple[ScoreRow, ...] | None:
    """The table of a finished run of the same hash.

    Raises `UsageError` for a folder with anything else in it, `RunError` where its files cannot be read.
    """
    if options.force:
        return None
    anew = "with --force" if len(builder.checked.parents) == 1 else f"by deleting {display_path(folder.path)}"
    refuse_damage(folder, anew)
    resolved, finished = folder.resolved, folder.finished
    what = ""
    if resolved is not None and resolved.get("hash") != identity.hash:
        changes = [f"\n  {change}" for change in changes_since(folder, builder.checked, identity.prints)]
        what = f"holds another run (hash {resolved.get('hash')}){':' if changes else ''}{''.join(changes)}"
        what += "\n" if changes else "; "
    elif resolved is None and options.out is not None and folder.holds_anything:
        what = "is not empty and holds no run; "
    if what:
        raise UsageError(f"{display_path(folder.path)} {what}choose another --out, or --force")
    with_baseline = builder.recipe.has_baseline and not options.without_teacher
    if finished is None or (with_baseline and folder.baseline.finished is None):
        return None
    return rows_of(finished)


def _trackers(checked: Checked, resolved: Mapping[str, Any], reporter: Reporter) -> Trackers:
    """The trackers of a run, in its first process; their configuration is what its folder has, but for the folder."""
    if not this_process().is_main_process:
        return Trackers()
    config = flat({key: value for key, value in resolved.items() if key != "folder"})
    project = Path(checked.recipe.source.name).stem
    return Trackers(trackers_of(checked.recipe.train), project, config, reporter.say)


def _write_resolved(folder: RunFolder, checked: Checked, resolved: dict[str, Any]) -> None:
    write_text(folder.path / "spec.brew", checked.recipe.source.text)
    folder.write_json("resolved.json", resolved)


def _resolved(checked: Checked, identity: Identity, builder: SpecBuilder) -> dict[str, Any]:
    """What a spec came to, as JSON: its params, settings, models, data and prints."""
    recipe = checked.recipe
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
    return {
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
        "circumstances": circumstances(recipe, builder.skip),
    }
