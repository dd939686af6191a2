"""`export`: a run's student as a folder for another runtime, compared with the student before it is put in place."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.export import ExportedProgram

from brewgraph.diagnostics import RunError, UsageError, listing
from brewgraph.export import onnx_file, openvino_file
from brewgraph.export.capture import capture, inexpressible, quiet
from brewgraph.models.export_record import PRECISIONS, ExportRecord
from brewgraph.models.exported import load_exported
from brewgraph.models.loading import quiet_transformers
from brewgraph.models.padding import moved_inputs, padding_shift, padding_side
from brewgraph.models.tokenization import as_loaded, load_tokenizer
from brewgraph.paths import EXPORT_RECORD, at_home, check_writable, is_file
from brewgraph.recipe.label_types import LabelType
from brewgraph.running.finished import SPLITS, FinishedRun, FinishedTask
from brewgraph.running.predict import (
    Student,
    is_scored,
    labelled_rows,
    load_student,
    load_unscored_student,
    read_like,
    score,
    student_of,
)
from brewgraph.running.run_faults import unwritten
from brewgraph.training.evaluation import model_inputs, own_view
from brewgraph.training.folder import LOCK, display_path, json_text, places_beside, replacing, write_text
from brewgraph.training.lock import is_owned, locked

_SCRATCH = ".export-"
FILES = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
"""The name of a target's file."""
_LIBRARIES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "nncf"), "torch": ()}
_WRITTEN = (EXPORT_RECORD, "README.md", "config.json", "model.*", "*token*", "vocab*", "merges.txt", "chat_template*")
"""Names of the files in an exported folder, beside those of the student's."""
_EXAMPLE = 3
"""Rows of the example that a model is captured with: more than one, so that the number stays open."""
_BATCH = 16
"""Rows of a batch that calibrates."""


@dataclass(frozen=True)
class Options:
    """What to export: a student to `target` in each of the `precisions`, compared on `data`. `calibration` is the split
    or file of the rows for `int8-static`, of which `calibration_rows` are taken. `out` is the folder, None for one in
    the run's.
    """

    target: str
    precisions: tuple[str, ...] = ("fp32",)
    data: str = "dev"
    calibration: str = "train"
    calibration_rows: int = 256
    out: Path | None = None


@dataclass(frozen=True)
class Exported:
    """An exported folder, its record, and the bytes of its model files."""

    folder: Path
    record: ExportRecord
    size: int


def export_student(
    run: FinishedRun, task: FinishedTask, options: Options, say: Callable[[str], None] = lambda text: None
) -> Iterator[Exported]:
    """Export a task's student in each precision, one after the other; each folder is whole once it is yielded.

    Raises `UsageError` for what cannot be exported, `RunError` for a target that cannot express the student, and where
    the disk is full. Then nothing has changed in the folder.
    """
    folders = _check(run, task, options)
    student = load_student(task) if is_scored(task) else load_unscored_student(task)
    rows = rows_of(student.task, options.data)
    if not len(rows):
        raise UsageError(f"`{options.data}` has no rows to compare the export on: name others with --data")
    calibrating = "int8-static" in options.precisions
    calibration = _calibration(student, options) if calibrating else ()
    before = dict(score(student, rows).values) if student.task.label_type else {}
    parent = next(iter(folders.values())).parent
    with _explained(parent), _scratch(parent) as scratch:
        source = _Source(student, rows, scratch)
        for precision, folder in folders.items():
            static = precision == "int8-static"
            count = sum(len(next(iter(batch.values()))) for batch in calibration) if static else 0
            ranges = f" with the ranges of {count} rows of {options.calibration}" if static else ""
            say(f"writing {options.target} {precision}{ranges}, and comparing it on {options.data}")
            with _explained(folder.parent), _replaced(folder) as temporary:
                opset = _write(source, options.target, precision, calibration, temporary)
                record = ExportRecord(
                    target=options.target,
                    precision=precision,
                    file=FILES[options.target],
                    opset=opset,
                    inputs=tuple(source.example),
                    outputs=source.outputs,
                    padding=padding_side(student.model),
                    label_type=student.task.label_type.name,
                    labels=student.task.classes,
                    data=options.data,
                    examples=len(rows),
                    difference=0.0,
                    scores={},
                    calibration=count,
                    versions=_versions(options.target),
                    task=task.name,
                    run=_origin(run, task),
                    max_length=student.encoding.max_length,
                )
                size = sum(x.stat().st_size for x in temporary.glob("model.*"))
                _write_beside(task, temporary)
                record = _compared(student, record, temporary, rows, before)
                write_text(temporary / "README.md", _readme(record))
                write_text(temporary / EXPORT_RECORD, json_text(asdict(record), indent=1) + "\n")
            yield Exported(folder, record, size)


def rows_of(task: FinishedTask, data: str) -> datasets.Dataset:
    """The rows of a split or a file, with labels if the task has any."""
    if task.label_type or data in SPLITS:
        return labelled_rows(task, data)
    return read_like(task, Path(data), labelled=False)


# ── what can be exported ─────────────────────────────────────────────────────────────────────────────────────────────


def _check(run: FinishedRun, task: FinishedTask, options: Options) -> dict[str, Path]:
    """The folder of each precision. Raises `UsageError` for what cannot be exported, before anything is loaded."""
    if run.exported:
        raise UsageError(f"`{run.folder.path}` is an exported model already: name the run that it comes from")
    if task.data.source.holds_tensors:
        raise UsageError(
            f"`{task.data.name}` holds batches of tensors, and an export is compared on texts: export "
            f"`{task.student}` by torch's own exporter"
        )
    possible = PRECISIONS[options.target]
    for precision in options.precisions:
        if precision not in possible:
            others = [target for target, known in PRECISIONS.items() if precision in known]
            raise UsageError(
                f"`--to {options.target}` has no {precision}: it has {listing(possible)}; "
                f"{precision} needs `--to {' or '.join(others)}`"
            )
    if options.target != "torch":
        onnx_file.check_installed()
    if options.target == "openvino":
        for precision in options.precisions:
            openvino_file.check_installed(precision)
    else:
        _check_runtime(options.target)
    if options.out is None:
        names = {x: "-".join(filter(None, (options.target, x, task.name))) for x in options.precisions}
        check_writable(
            run.folder.exports / next(iter(names.values())) / EXPORT_RECORD, "choose another folder with --out"
        )
        return {precision: run.folder.exports / name for precision, name in names.items()}
    if len(options.precisions) > 1:
        raise UsageError("--out names one folder: export one precision at a time, or leave --out out")
    return {options.precisions[0]: _checked_out(at_home(options.out), task)}


def _checked_out(out: Path, task: FinishedTask) -> Path:
    """The folder that an export replaces. Raises `UsageError` if it cannot, or if something else would be lost."""
    check_writable(out / EXPORT_RECORD, "choose another --out")
    out = out.resolve() if out.is_symlink() else out
    if out.is_mount() or out.absolute() == Path.cwd():
        what = "a mounted disk" if out.is_mount() else "the working directory"
        raise UsageError(f"`{out}` is {what}, which cannot be replaced: name a folder in it with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return out
    if not is_file(out / EXPORT_RECORD):
        raise UsageError(f"`{out}` is not empty and holds no exported model: choose another --out")
    known = {path.name for path in task.student.iterdir() if path.is_file()}
    names = (path.name for path in out.iterdir())
    foreign = sorted(x for x in names if x not in known and not any(fnmatch(x, pattern) for pattern in _WRITTEN))
    if foreign:
        raise UsageError(
            f"`{out}` also holds {listing(foreign)}, which would be lost: move that, or choose another --out"
        )
    return out


def _check_runtime(target: str) -> None:
    """Raise `UsageError` if what runs and quantizes ONNX models is missing."""
    if target == "onnx":
        try:
            import onnxruntime  # noqa: F401
        except ImportError:
            raise onnx_file.missing("onnxruntime, which runs ONNX models,", "export") from None


def _calibration(student: Student, options: Options) -> onnx_file.Calibration:
    """The inputs of the rows that calibrate, taken from the whole split at equal distances, as arrays."""
    task, data = student.task, options.calibration
    rows = labelled_rows(task, data) if data in SPLITS else read_like(task, Path(data), labelled=False)
    if not len(rows):
        raise UsageError(f"`{data}` has no rows to calibrate int8-static on: name others with --calibration")
    count = min(options.calibration_rows, len(rows))
    chosen = rows.select([i * len(rows) // count for i in range(count)])
    return [
        {name: x.numpy() for name, x in part.items()}
        for batch in student.batches(chosen)
        for part in _parts(inputs_of(student, batch), _BATCH)
    ]


def _parts(inputs: Mapping[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    for begin in range(0, len(next(iter(inputs.values()))), size):
        yield {name: x[begin : begin + size] for name, x in inputs.items()}


def inputs_of(student: Student, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inputs of a batch as the student takes them, padded on its side, on the CPU."""
    inputs = model_inputs(student.model, own_view(student.encoding.key, batch), "cpu")
    shift_B = padding_shift(inputs, padding_side(student.model))
    return inputs if shift_B is None else moved_inputs(inputs, shift_B)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Source:
    """A student's example, its program and its ONNX file, each made once. `folder` holds files until the end."""

    student: Student
    rows: datasets.Dataset
    folder: Path

    @cached_property
    def example(self) -> dict[str, Tensor]:
        """The inputs of some rows."""
        batch = next(iter(self.student.batches(self.rows.select(range(min(_EXAMPLE, len(self.rows)))))))
        inputs = {name: x[:_EXAMPLE] for name, x in inputs_of(self.student, batch).items()}
        if len(next(iter(inputs.values()))) < 2:
            inputs = {name: torch.cat([x, x]) for name, x in inputs.items()}
        if inputs["input_ids"].shape[1] < 2:
            inputs = {name: torch.cat([x, x], 1) for name, x in inputs.items()}
        return inputs

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of what the student gives: its logits, without labels all tensors of its output."""
        if label_type := self.student.task.label_type:
            return label_type.logits
        device = self.student.device
        with torch.no_grad():
            result = self.student.model(**{name: x.to(device) for name, x in self.example.items()})
        return tuple(name for name, value in result.items() if isinstance(value, Tensor))

    def program(self, dtype: torch.dtype, *, eager: bool = False) -> ExportedProgram:
        return capture(self.student.model, self.example, self.outputs, dtype, eager=eager)

    def onnx(self, path: Path, dtype: torch.dtype = torch.float32) -> int:
        """Write the student as ONNX; the version of its operators."""

        def express(program: ExportedProgram) -> object:
            return torch.onnx.export(program, (), dynamo=True, verbose=False)

        def made_of(program: ExportedProgram) -> Any:
            return onnx_file.to_onnx(program, tuple(self.example), self.outputs)

        program = self.program(dtype)
        try:
            made = made_of(program)
        except torch.onnx.errors.OnnxExporterError as error:
            try:  # T5's fused attention is laid out in a way that the exporter refuses
                made = made_of(self.program(dtype, eager=True))
            except torch.onnx.errors.OnnxExporterError:
                raise inexpressible("onnx", self.student.model.cpu(), self.example, error, express) from error
        onnx_file.write_onnx(made, path)
        return onnx_file.opset_of(made)

    @cached_property
    def plain(self) -> tuple[Path, int]:
        """The file in fp32, and the version of its operators."""
        path = self.folder / "model.onnx"
        return path, self.onnx(path)


def _write(
    source: _Source, target: str, precision: str, calibration: onnx_file.Calibration, folder: Path
) -> int | None:
    """Write the model's file; the version of ONNX's operators, if it has one."""
    path = folder / FILES[target]
    dtype = torch.float16 if precision == "fp16" else torch.float32
    if target == "torch":
        program = source.program(dtype)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        whole = io.BytesIO()  # on a full disk the writer of torch would end the process
        with quiet():
            torch.export.save(program, whole)
        path.write_bytes(whole.getbuffer())
        return None
    if target == "openvino":
        openvino_file.write_openvino(source.plain[0], path, precision, calibration)
        return None
    if precision == "fp16":
        return source.onnx(path, dtype)
    plain, opset = source.plain
    if precision == "int8-static":
        onnx_file.quantize_static(plain, path, calibration)
    elif precision == "int8-dynamic":
        onnx_file.quantize_dynamic(plain, path)
    else:
        for file in plain.parent.glob(f"{plain.name}*"):
            shutil.copyfile(file, folder / file.name)
    return opset


def _write_beside(task: FinishedTask, folder: Path) -> None:
    """The student's configuration and tokenizer."""
    shutil.copyfile(task.model / "config.json", folder / "config.json")
    with quiet_transformers():
        as_loaded(load_tokenizer(str(task.student))).save_pretrained(folder)


def _origin(run: FinishedRun, task: FinishedTask) -> dict[str, Any]:
    """What `open_run` reads of a run, for one task; a head is a model of its own here."""
    resolved = run.folder.whole.resolved or {}
    return {
        "name": run.folder.path.name,
        "hash": resolved.get("hash"),
        "spec": run.recipe.source.text,
        "folder": resolved["folder"],
        "params": resolved["params"],
        "tasks": {task.name: {**resolved["tasks"][task.name], "head": ""}},
    }


def _versions(target: str) -> dict[str, str]:
    versions = {}
    for package in ("brewgraph", "torch", "transformers", *_LIBRARIES[target]):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _readme(record: ExportRecord) -> str:
    """How to run the model without brewgraph."""
    tensors = "pt" if record.target == "torch" else "np"
    code = {
        "onnx": f'session = onnxruntime.InferenceSession("{record.file}")\nouts = session.run(None, inputs)',
        "openvino": f'model = openvino.compile_model("{record.file}")\nouts = model(inputs)',
        "torch": f'model = torch.export.load("{record.file}").module()\nouts = model(**inputs)',
    }[record.target]
    module = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}[record.target]
    names = ", ".join(f'"{name}"' for name in record.inputs)
    texts = (
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        f'cut = {{"truncation": True, "max_length": {record.max_length}}}\n'
        f'encoded = tokenizer(["a text"], return_tensors="{tensors}", **cut)\n'
        f"inputs = {{name: encoded[name] for name in ({names},)}}"
    )
    labels = f"\nThe last axis of `logits` follows the labels {listing(record.labels)}.\n" if record.labels else ""
    return (
        f"# {record.run['name']}: {record.target}, {record.precision}\n\n"
        f"```python\nimport {module}\nfrom transformers import AutoTokenizer\n\n{texts}\n{code}\n```\n\n"
        f"Inputs: {listing(record.inputs)}, int64 of (batch, length). Outputs: {listing(record.outputs)}.\n{labels}\n"
        f"`export.json` has the versions, the scores before and after, and the largest difference of an output. "
        f"`brewgraph eval`, `predict` and `bench` take this folder as a model.\n"
    )


# ── comparing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compared(
    student: Student, record: ExportRecord, folder: Path, rows: datasets.Dataset, before: Mapping[str, float]
) -> ExportRecord:
    """The record with what the written model gives on the rows, beside what the student gives."""
    exported = student_of(student.task, load_exported(folder, record))
    largest = 0.0

    def note(module: Any, args: Any, inputs: Mapping[str, Tensor], output: Any) -> None:
        nonlocal largest
        with torch.no_grad():
            expected = student.model(**{name: x.to(student.device) for name, x in inputs.items()})
        for name in record.outputs:
            one, other = getattr(output, name), getattr(expected, name).float().cpu()
            largest = max(largest, difference(one, other, inputs.get("attention_mask"), student.task.label_type))

    hook = exported.model.register_forward_hook(note, with_kwargs=True)
    try:
        if student.task.label_type:
            result = score(exported, rows)
            return replace(
                record,
                difference=largest,
                examples=result.examples,
                scores={"before": before, "after": dict(result.values)},
            )
        for batch in exported.batches(rows):
            exported.model(**inputs_of(exported, batch))
        return replace(record, difference=largest)
    finally:
        hook.remove()


def difference(one: Tensor, other: Tensor, mask_BL: Tensor | None, label_type: LabelType) -> float:
    """The largest absolute difference of an output, at real tokens if it lies along them; infinite for NaN."""
    # logits of places that cannot be an answer may be -inf in both
    apart = torch.where(one == other, 0.0, (one.float() - other.float()).abs())
    aligned = label_type.aligned if label_type else apart.dim() == 3
    if aligned and mask_BL is not None and mask_BL.shape == apart.shape[:2]:
        apart = apart[mask_BL.bool()]
    worst = float(apart.max()) if apart.numel() else 0.0
    return float("inf") if worst != worst else worst


# ── where it is written ──────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder in `parent` for the files of a call, also for those of libraries: other disks may be smaller. Those that
    killed processes left there are removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_SCRATCH}*"):
        if is_file(left / LOCK) and not is_owned(left):
            shutil.rmtree(left, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent) as folder,
        locked(Path(folder), lambda text: None),
    ):
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """`replacing`, without the unfinished folder after an error. Raises `RunError` if another process writes there."""
    unfinished, _ = places_beside(folder)
    if is_owned(unfinished):
        where = display_path(folder)
        raise RunError(f"another process is writing `{where}`: wait for it, or choose another folder with --out")
    try:
        with replacing(folder) as temporary, locked(temporary, lambda text: None):
            yield temporary
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns a disk that is full, or cannot be written, into a `RunError` of one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = unwritten(error, folder)
        if reason is None:
            raise
        free = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB are free" if folder.is_dir() else ""
        raise RunError(
            f"`{display_path(folder)}` cannot be written: {reason}{f' ({free})' if free else ''}; make room, or choose "
            "another disk with --out; nothing of the run or of earlier exports has changed"
        ) from error
