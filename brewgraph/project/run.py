"""`run`: check, build teachers that other specs describe, train, save, compare. A finished run is found again by its hash."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from brewgraph.diagnostics import UsageError
from brewgraph.graph.passes import digest
from brewgraph.project.build import Workshop
from brewgraph.project.check import Checked, check, check_other, reduced
from brewgraph.project.compare import Row, Trained, compare
from brewgraph.recipe.sources import Brew, Hf
from brewgraph.source import Source
from brewgraph.training.checkpoint import save_projections, save_student
from brewgraph.training.folder import RunFolder, folder_size
from brewgraph.training.loop import make_accelerator, train
from brewgraph.training.reporter import Reporter


@dataclass(frozen=True)
class RunResult:
    """What a run left: its folder and the table of the models it compared. `fresh` is False for one found finished."""

    folder: Path
    table: tuple[Row, ...]
    fresh: bool


@dataclass(frozen=True)
class Options:
    """How to run, apart from what the spec says."""

    out: Path | None = None
    runs: Path = Path("runs")
    force: bool = False
    dry_run: bool = False
    without_teacher: bool = False
    allow_python: bool = False


def run(source: Source, params: Mapping[str, Any], options: Options, reporter: Reporter) -> RunResult:
    """Run a spec. Raises `SpecError`, `UsageError` or `RunError`; a finished run is returned as it is, unless forced."""
    return _run(check(source, params), options, reporter)


def _run(checked: Checked, options: Options, reporter: Reporter) -> RunResult:
    # what can be known without training comes first, teachers that have to be trained next
    workshop = Workshop(checked, allow_python=options.allow_python)
    examples = workshop.examples
    teacher_runs = _teacher_runs(checked, options, reporter)
    workshop.teachers = {name: path / "student" for name, path in teacher_runs.items()}
    purpose = "alone" if options.without_teacher else ""
    identity = identify(checked, examples.fingerprint, teacher_runs, purpose)
    folder = RunFolder(options.out or options.runs / identity.folder_name)
    if options.dry_run:
        return _dry_run(checked, workshop, reporter)
    if (finished := _finished(folder, identity.hash, options)) is not None:
        reporter.say(f"{folder.path} is finished already; --force runs it again")
        return RunResult(folder.path, finished, fresh=False)
    folder.prepare()
    resume = folder.resolved is not None and not options.force
    if not resume:
        folder.clear()
    _write_resolved(folder, checked, identity)
    trained = _train(checked, workshop, folder, options.without_teacher, reporter, resume=resume)
    table = compare(workshop, trained)
    folder.write_json("finished.json", {"hash": identity.hash, "table": [vars(row) for row in table]})
    return RunResult(folder.path, table, fresh=True)


# ── parts of a run ───────────────────────────────────────────────────────────────────────────────────────────────────


def _teacher_runs(checked: Checked, options: Options, reporter: Reporter) -> dict[str, Path]:
    """The folders of `brew(...)` models, trained first where no finished run of the same hash is there."""
    found = {}
    for model in checked.recipe.models.values():
        if isinstance(model.source, Brew):
            other = check_other(model, checked.recipe.source, checked.parents)
            below = replace(options, out=None, force=False, without_teacher=False, dry_run=False)
            reporter.say(f"teacher {model.name}: {model.source.path}")
            found[model.name] = _run(other, below, reporter).folder
    return found


def _train(
    checked: Checked, workshop: Workshop, folder: RunFolder, alone: bool, reporter: Reporter, *, resume: bool
) -> dict[str, Trained]:
    """Train the student, and where the spec asks for it the same student without its teacher. Models by their row's name."""
    recipe = checked.recipe
    student, name = recipe.student.name, Path(recipe.source.name).stem
    trained: dict[str, Trained] = {}
    if recipe.train.baseline and recipe.teachers and not alone:
        path = RunFolder(folder.path / "alone")
        path.prepare()
        if not resume:
            path.clear()
        if path.finished is None:
            module = _train_one(reduced(checked), workshop, path, f"{name} without its teacher", reporter, resume)
            path.write_json("finished.json", {"part of": folder.path.name})
        else:
            module = _load_student(workshop, path)
        trained[f"{student} alone"] = Trained(module, path.path)
    what = reduced(checked) if alone else checked
    module = _train_one(what, workshop, folder, name, reporter, resume)
    trained[f"{student} alone" if alone else student] = Trained(module, folder.path)
    return trained


def _train_one(
    checked: Checked, workshop: Workshop, folder: RunFolder, name: str, reporter: Reporter, resume: bool
) -> nn.Module:
    """One training of a student of its own, saved and returned."""
    workshop.forget_student()
    distiller = workshop.distiller(checked)
    student = workshop.recipe.student.name
    material = workshop.material(distiller)
    settings = checked.recipe.train
    accelerator = make_accelerator(settings)
    train(distiller, student, material, settings, folder, reporter, name=name, accelerator=accelerator, resume=resume)
    distiller.release()
    if accelerator.is_main_process:
        save_student(distiller.student, folder.student, workshop.tokenizer(student))
        save_projections(distiller, folder.path / "projections.safetensors")
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    accelerator.wait_for_everyone()
    return distiller.student


def _load_student(workshop: Workshop, folder: RunFolder) -> nn.Module:
    blueprint = workshop.blueprint(workshop.recipe.student.name)
    assert blueprint is not None
    model: nn.Module = blueprint.model_class.from_pretrained(folder.student)
    return model


def _dry_run(checked: Checked, workshop: Workshop, reporter: Reporter) -> RunResult:
    """Everything loaded, one step, one evaluation, one save, nothing kept."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch))
        recipe = replace(
            checked.recipe,
            train=checked.recipe.train.model_copy(update={"epochs": None, "steps": 1, "baseline": False}),
        )
        short = replace(checked, recipe=recipe)
        own = Workshop(short, allow_python=workshop.allow_python, teachers=workshop.teachers)
        trained = _train(short, own, folder, False, reporter, resume=False)
        table = compare(own, trained)
        reporter.say(
            f"one step, one evaluation and one save went through; the student takes {folder_size(folder.student):,} bytes"
        )
    return RunResult(Path(), table, fresh=True)


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Identity:
    """What a run is: the hash over spec, data and models, and the prints it is made from."""

    hash: str
    prints: Mapping[str, str]
    folder_name: str


def identify(checked: Checked, data: str, teacher_runs: Mapping[str, Path], purpose: str = "") -> Identity:
    """The identity of a run on data of this fingerprint, with these runs as teachers."""
    prints = {"data": data, **_model_prints(checked, teacher_runs)}
    run_hash = digest(checked.spec_hash, sorted(prints.items()), purpose)
    parts = [Path(checked.recipe.source.name).stem.strip("<>"), purpose, run_hash[:8]]
    return Identity(run_hash, prints, "-".join(part for part in parts if part))


def _finished(folder: RunFolder, run_hash: str, options: Options) -> tuple[Row, ...] | None:
    """The table of a finished run of the same hash; a folder that holds another run is refused."""
    said = folder.resolved
    if said is not None and said.get("hash") != run_hash and not options.force:
        raise UsageError(f"{folder.path} holds another run (hash {said.get('hash')}); choose another --out, or --force")
    if (
        said is None
        and options.out is not None
        and not options.force
        and folder.path.is_dir()
        and any(folder.path.iterdir())
    ):
        raise UsageError(f"{folder.path} is not empty and holds no run; choose another --out, or --force")
    finished = folder.finished
    if options.force or finished is None:
        return None
    return tuple(Row(**row) for row in finished["table"])


def _model_prints(checked: Checked, teacher_runs: Mapping[str, Path]) -> dict[str, str]:
    """What the content of each model is: of local folders the files, of other specs their run."""
    found = {}
    for position, model in enumerate(checked.recipe.models.values()):
        facts = checked.facts(model)
        if model.name in teacher_runs:
            said = RunFolder(teacher_runs[model.name]).resolved or {}
            found[f"{position}"] = str(said.get("hash"))
        elif isinstance(model.source, Hf) and facts is not None and model.source.name:
            path = checked.folder / model.source.name
            if path.is_dir():
                found[f"{position}"] = _folder_hash(path)
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


def _write_resolved(folder: RunFolder, checked: Checked, identity: Identity) -> None:
    recipe = checked.recipe
    (folder.path / "spec.brew").write_text(recipe.source.text, encoding="utf-8")
    folder.write_json(
        "resolved.json",
        {
            "hash": identity.hash,
            "spec": checked.spec_hash,
            "graph": checked.graph.graph["objective"] if checked.graph is not None else None,
            "params": dict(recipe.params),
            "train": recipe.train.model_dump(mode="json"),
            "models": {name: model.source.model_dump(mode="json") for name, model in recipe.models.items()},
            "data": {name: d.source.model_dump(mode="json") for name, d in recipe.data.items()},
            "fingerprints": dict(identity.prints),
            "versions": {
                name: version(name) for name in ("brewgraph", "torch", "transformers", "accelerate", "datasets")
            },
        },
    )


def finished_teachers(checked: Checked, given: Mapping[str, Any], runs: Path = Path("runs")) -> dict[str, Path]:
    """The run folders that `brew(...)` models stand for; a `UsageError` names the first that is not finished."""
    found = {}
    for model in checked.recipe.models.values():
        if isinstance(model.source, Brew) and model.name not in given:
            other = check_other(model, checked.recipe.source, checked.parents)
            identity = identify(other, Workshop(other).examples.fingerprint, finished_teachers(other, {}, runs))
            path = runs / identity.folder_name
            if RunFolder(path).finished is None:
                raise UsageError(
                    f"`{model.name}` is not trained yet: run `brewgraph run {other.recipe.source.name}` first"
                )
            found[model.name] = path
    return found
