"""`run`: check, train teachers that other specs describe, train, save, compare. A finished run is found by its hash."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import nn

from brewgraph.checking.check import Checked, reduced
from brewgraph.diagnostics import UsageError
from brewgraph.digest import digest
from brewgraph.display.lines import html_table, table
from brewgraph.graph.container import info
from brewgraph.ops.python_files import module_print
from brewgraph.paths import locate
from brewgraph.recipe.settings.sources import Python
from brewgraph.running.data_cache import DataCache, head_of
from brewgraph.running.run_folders import runs_folder, teacher_folder
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.running.table import ScoreRow, Trained, cells_of, compare
from brewgraph.running.teacher_check import check_teachers_agree
from brewgraph.training.checkpoint import load_student, save_projections, save_student
from brewgraph.training.folder import RunFolder, folder_size, shown
from brewgraph.training.loop import train
from brewgraph.training.processes import main_process_alone, this_process
from brewgraph.training.reporter import Reporter


@dataclass(frozen=True)
class RunResult:
    """What a run left: its folder and the table of the models it compared. `fresh` is False for one found finished."""

    folder: Path
    table: tuple[ScoreRow, ...]
    fresh: bool

    def __str__(self) -> str:
        """The table, and where the student is."""
        cells = cells_of(self.table)
        shown_table = table(cells, right=range(1, len(cells[0]))) if self.table else "no model has scores"
        return f"{shown_table}\n\n{self._place()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = cells_of(self.table)
        shown_table = html_table(cells, right=range(1, len(cells[0]))) if self.table else "no model has scores"
        return f"<div>{shown_table}<p>{escape(self._place())}</p></div>"

    def _place(self) -> str:
        if self.folder == Path():
            return "a dry run: nothing is kept"
        return f"the student is in {shown(self.folder / 'student')}" + ("" if self.fresh else ", finished before")


@dataclass(frozen=True)
class Options:
    """How to run, apart from what the spec says. `runs` is the folder of all runs, None for those beside each spec;
    `skip` are passes that are left out, by name: no number changes.
    """

    out: Path | None = None
    runs: Path | None = None
    force: bool = False
    dry_run: bool = False
    without_teacher: bool = False
    allow_python: bool = False
    skip: tuple[str, ...] = ()


def run_checked(checked: Checked, options: Options, reporter: Reporter) -> RunResult:
    """Run a checked spec; a finished run is returned as it is, unless forced. Raises `SpecError`, `UsageError` or
    `RunError`.
    """
    reporter = reporter if this_process().is_main_process else Reporter()
    if options.dry_run:
        with _scratch() as scratch:
            return _rehearse(checked, options, reporter, scratch)
    return _run(SpecBuilder(checked, allow_python=options.allow_python, skip=options.skip), options, reporter)


def _run(builder: SpecBuilder, options: Options, reporter: Reporter, near: tuple[Path, ...] | None = None) -> RunResult:
    """Run a spec; of a teacher `near` are the folders of the runs that it is trained for."""
    # what can be known without training comes first, teachers that have to be trained next
    checked = builder.checked
    identity = identify(builder, "alone" if options.without_teacher else "")
    home = runs_folder(checked.folder, options.runs)
    if near is None:
        folder = RunFolder(options.out or home / identity.folder_name)
    else:
        folder = teacher_folder(identity.folder_name, checked.folder, options.runs, near)
    wanted = checked.recipe.has_baseline and not options.without_teacher
    baseline = folder.baseline if wanted else None
    finished = _finished(folder, identity.hash, options)
    if finished is not None and (baseline is None or baseline.finished is not None):
        again = "; --force runs it again"  # which is about the spec that was named, not about its teachers
        reporter.say(f"{shown(folder.path)} is finished already" + (again if len(checked.parents) == 1 else ""))
        return RunResult(folder.path, finished, fresh=False)
    resume = folder.resolved is not None and not options.force
    for note in builder.notes():
        reporter.say(note)
    with main_process_alone() as main:
        if main:
            folder.prepare("--out" if options.out else "--runs")
    below = replace(options, out=None, force=False, without_teacher=False)
    for name, other in checked.others.items():
        reporter.say(f"teacher {name}: {Path(other.recipe.source.name).name}")
        result = _run(builder.other(name), below, reporter, (*(near or ()), home))
        builder.teachers[name] = result.folder / "student"
        builder.drop_other(name)
    with main_process_alone() as main:
        if main and not resume:
            folder.clear()
        if main:
            _write_resolved(folder, checked, identity, builder)
    data_cache = DataCache(builder)
    with _telling_of_checkpoints(folder):
        trained = _train(data_cache, folder, options.without_teacher, reporter, resume=resume)
        rows = compare(data_cache, trained, reporter.say)
    with main_process_alone() as main:
        if main:
            folder.write_json("finished.json", {"hash": identity.hash, "table": [vars(row) for row in rows]})
            for path in (folder.checkpoints, folder.baseline.checkpoints):
                shutil.rmtree(path, ignore_errors=True)
    return RunResult(folder.path, rows, fresh=True)


@contextmanager
def _telling_of_checkpoints(folder: RunFolder) -> Iterator[None]:
    """Let an interrupt say whether the next run finds a checkpoint."""
    try:
        yield
    except KeyboardInterrupt:
        there = folder.complete_checkpoints() or folder.baseline.complete_checkpoints()
        said = "it resumes from the last checkpoint" if there else "no checkpoint exists yet, so training starts anew"
        raise KeyboardInterrupt(said) from None


# ── parts of a run ───────────────────────────────────────────────────────────────────────────────────────────────────


def _train(
    data_cache: DataCache, folder: RunFolder, alone: bool, reporter: Reporter, *, resume: bool
) -> dict[str, Trained]:
    """Train the student, and where the spec asks for it the same student without its teacher. Keys are rows' names."""
    builder, checked, recipe = data_cache.builder, data_cache.builder.checked, data_cache.recipe
    student, name = recipe.student.name, Path(recipe.source.name).stem
    trained: dict[str, Trained] = {}
    if not alone:
        check_teachers_agree(data_cache, checked, reporter)
    if recipe.has_baseline and not alone:
        path = folder.baseline
        with main_process_alone() as main:
            if main:
                path.prepare()
        if path.finished is None:
            module = _train_one(reduced(checked), data_cache, path, f"{name} without its teacher", reporter, resume)
            with main_process_alone() as main:
                if main:
                    path.write_json("finished.json", {"part of": folder.path.name})
        else:
            builder.forget_student()
            module = load_student(builder.model(student), path.student)
        trained[f"{student} alone"] = Trained(module, path.path)
    if resume and folder.finished is not None:  # the baseline alone was asked for later
        builder.forget_student()
        module = load_student(builder.model(student), folder.student)
    else:
        what = reduced(checked) if alone else checked
        module = _train_one(what, data_cache, folder, name, reporter, resume)
    trained[f"{student} alone" if alone else student] = Trained(module, folder.path)
    return trained


def _train_one(
    checked: Checked, data_cache: DataCache, folder: RunFolder, name: str, reporter: Reporter, resume: bool
) -> nn.Module:
    """One training of a student of its own, through all stages, saved and returned."""
    builder, student = data_cache.builder, data_cache.recipe.student.name
    builder.forget_student()
    outcome = train(data_cache.stages(checked), student, folder, reporter, name=name, resume=resume)
    with main_process_alone() as main:
        if main:
            tokenizer = None if builder.reads_tensors_only(student) else builder.tokenizer(student)
            save_student(outcome.distiller.student, folder.student, tokenizer)
            save_projections(outcome.distiller, folder.path / "projections.safetensors")
    return outcome.distiller.student


# ── a run that leaves nothing ────────────────────────────────────────────────────────────────────────────────────────


def _rehearse(checked: Checked, options: Options, reporter: Reporter, scratch: Path) -> RunResult:
    """Everything loaded, one step, one evaluation, one save, nothing kept."""
    folder, rows = _one_step(checked, options, Reporter(), scratch)
    size = folder_size(folder.student)
    reporter.say(f"one step, one evaluation and one save went through; the student takes {size:,} bytes")
    return RunResult(Path(), rows, fresh=True)


def _one_step(
    checked: Checked, options: Options, reporter: Reporter, scratch: Path, near: tuple[Path, ...] = ()
) -> tuple[RunFolder, tuple[ScoreRow, ...]]:
    """Train for one step in the scratch folder; a teacher that is not trained yet gets no more than that either."""
    short = {"epochs": None, "steps": 1, "baseline": False}
    stages = tuple(replace(s, train=s.train.model_copy(update=short)) for s in checked.recipe.stages)
    train_ = checked.recipe.train.model_copy(update=short)
    checked = replace(checked, recipe=replace(checked.recipe, train=train_, stages=stages))
    builder = SpecBuilder(checked, allow_python=options.allow_python, skip=options.skip)
    near = (*near, runs_folder(checked.folder, options.runs))
    for name, other in checked.others.items():
        folder = _folder_of_teacher(builder.other(name), options.runs, near)
        builder.drop_other(name)
        if folder.finished is None:
            below = replace(options, without_teacher=False)
            folder, _ = _one_step(other, below, reporter, scratch / name, near)
        builder.teachers[name] = folder.student
    folder = RunFolder(scratch / "run")
    with main_process_alone() as main:
        if main:
            folder.prepare()
    data_cache = DataCache(builder)
    trained = _train(data_cache, folder, options.without_teacher, reporter, resume=False)
    return folder, compare(data_cache, trained, reporter.say)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for all ranks that is gone afterwards."""
    with main_process_alone() as main:
        made = [tempfile.mkdtemp(prefix="brewgraph-") if main else None]
    path = Path(str(broadcast_object_list(made)[0]))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Identity:
    """What a run is: the hash over spec, data and models, and the prints it is made from."""

    hash: str
    prints: Mapping[str, str]
    folder_name: str


def identify(builder: SpecBuilder, purpose: str = "") -> Identity:
    """The identity of a run, by its spec, data and models: known before it or its teachers are trained."""
    checked = builder.checked
    others = {
        f"{position}": identify(builder.other(name)).hash
        for position, name in enumerate(checked.recipe.models)
        if name in checked.others
    }
    return identity_of(checked, {**builder.fingerprints(), **others}, purpose)


def identity_of(checked: Checked, given: Mapping[str, str], purpose: str = "") -> Identity:
    """The identity of a run whose data and other specs have these prints."""
    modules = {
        f"module {position}": module_print(module, checked.folder)
        for position, module in enumerate(checked.recipe.modules)
    }
    prints = {**given, **_model_prints(checked), **modules}
    run_hash = digest(checked.spec_hash, sorted(prints.items()), purpose)
    parts = [Path(checked.recipe.source.name).stem.strip("<>"), purpose, run_hash[:8]]
    return Identity(run_hash, prints, "-".join(part for part in parts if part))


def _finished(folder: RunFolder, run_hash: str, options: Options) -> tuple[ScoreRow, ...] | None:
    """The table of a finished run of the same hash; a folder that holds another run is refused."""
    said = folder.resolved
    if said is not None and said.get("hash") != run_hash and not options.force:
        what = f"{shown(folder.path)} holds another run (hash {said.get('hash')})"
        raise UsageError(f"{what}; choose another --out, or --force")
    if (
        said is None
        and options.out is not None
        and not options.force
        and folder.path.is_dir()
        and any(folder.path.iterdir())
    ):
        raise UsageError(f"{shown(folder.path)} is not empty and holds no run; choose another --out, or --force")
    finished = folder.finished
    if options.force or finished is None:
        return None
    return tuple(ScoreRow(**row) for row in finished["table"])


def _model_prints(checked: Checked) -> dict[str, str]:
    """What the content of a model is that no other spec describes: of a local folder its files, of Python its text."""
    found = {}
    for position, model in enumerate(checked.recipe.models.values()):
        source = model.source
        if isinstance(source, Python):
            found[f"{position}"] = module_print(source.target.partition(":")[0], checked.folder)
        elif source.has_configuration:
            tokenizer = source.tokenizer_name if source.tokenizer_name not in checked.recipe.models else None
            for name in (source.checkpoint, tokenizer):
                if name and (place := locate(name, checked.folder)).is_dir():
                    found[f"{position}/{name}"] = _folder_hash(place)
    return found


def _folder_hash(path: Path) -> str:
    """A hash of a model folder's configuration, weights and vocabulary."""
    total = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            total.update(file.name.encode())
            with open(file, "rb") as handle:
                total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()[:16]


def _write_resolved(folder: RunFolder, checked: Checked, identity: Identity, builder: SpecBuilder) -> None:
    recipe = checked.recipe
    (folder.path / "spec.brew").write_text(recipe.source.text, encoding="utf-8")
    tasks = {
        task.name: {
            "data": task.data[0],
            "head": head_of(checked, task, task.data[0]) or "",
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


def finished_teachers(
    checked: Checked, given: Mapping[str, Any], runs: Path | None = None, *, allow_python: bool = False
) -> dict[str, Path]:
    """The run folders that `brew(...)` models stand for; a `UsageError` names the first that is not finished."""
    found = {}
    home = runs_folder(checked.folder, runs)
    for name, other in checked.others.items():
        model = checked.recipe.models[name]
        if name not in given:
            folder = _folder_of_teacher(SpecBuilder(other, allow_python=allow_python), runs, (home,))
            if folder.finished is None:
                spec = shown(Path(other.recipe.source.name))
                sets = "".join(f" --set {name}={value}" for name, value in model.source.spec_params.items())
                raise UsageError(
                    f"`{model.name}` is not trained yet: run `brewgraph run {spec}{sets}` first; "
                    f"no finished run of it is in {shown(folder.path.parent)}; `build(runs=…)` names another folder"
                )
            found[model.name] = folder.path
    return found


def _folder_of_teacher(other: SpecBuilder, runs: Path | None, near: tuple[Path, ...]) -> RunFolder:
    return teacher_folder(identify(other).folder_name, other.checked.folder, runs, near)
