"""Writes a new spec, and whatever it needs beside it: looked at before, checked after, and all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from brewgraph.checking.check import check
from brewgraph.diagnostics import Diagnostic, SpecError, UsageError
from brewgraph.paths import check_writable
from brewgraph.recipe.label_types import CLASS, Form, LabelType
from brewgraph.source import Source
from brewgraph.starters.data import GUESS, SeenData, in_order_of, lengths, look_at_data
from brewgraph.starters.held_out import hold_out
from brewgraph.starters.models import SeenModel, WishFault, look_at_model
from brewgraph.starters.text import Draft, student_text, teacher_text

LAYERS = 6
"""The layers of a student whose teacher cannot be reached."""


@dataclass(frozen=True)
class Wishes:
    """What the user wants, as the options of `brewgraph new` say it. Paths are relative to the working directory.

    `labels` are the teacher's classes in the order of its logits. Without `student` and `layers` the student has half
    of the teacher's layers.
    """

    teacher: str
    data: str
    dev: str | None = None
    task: LabelType | None = None
    text: tuple[str, ...] = ()
    label: str | tuple[str, ...] | None = GUESS
    labels: tuple[str, ...] = ()
    student: str | None = None
    layers: int | None = None


@dataclass(frozen=True)
class Started:
    """The files of a new spec, its own first, with what is to be said about it, and the warnings of its check."""

    spec: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]


def start(wishes: Wishes, path: Path) -> Started:
    """Write the spec that fulfils these wishes, in a folder or as a `.brew` file, and check it.

    Where data have no dev part, a tenth of the training rows becomes one. A teacher without a head for the labels gets
    a spec of its own, which trains it first. Raises `UsageError`, and leaves nothing behind, if the wishes cannot be
    fulfilled.
    """
    spec = spec_in(path)
    teacher, data = look_at(wishes)
    notes = list(data.notes)
    if not teacher.known:
        notes.append(f"`{teacher.name}` cannot be reached: its layers, classes and tokens are unchecked")
    return _write(_draft(wishes, teacher, data, spec.parent, notes), spec, notes)


def spec_in(path: Path) -> Path:
    """The spec that is meant by a folder, or by a file itself."""
    return path if path.suffix == ".brew" else path / "student.brew"


def half_of(teacher: SeenModel) -> int:
    """The layers of a student that nobody said the size of."""
    return max(1, teacher.layers // 2) if teacher.layers is not None else LAYERS


def look_at(wishes: Wishes) -> tuple[SeenModel, SeenData]:
    """The teacher and the data, which agree on classes. Raises `WishFault`."""
    teacher = look_at_model(wishes.teacher, "--teacher")
    if wishes.labels:
        if teacher.outputs is not None and teacher.outputs != len(wishes.labels):
            counted = f"{len(wishes.labels)} classes, and `{teacher.name}` has {teacher.outputs}"
            raise WishFault("--labels", f"it names {counted}: name each once, in the order of its logits")
        if len(set(wishes.labels)) < len(wishes.labels):
            raise WishFault("--labels", "it names a class twice: name each once, in the order of the teacher's logits")
        teacher = replace(teacher, classes=wishes.labels)
    data = look_at_data(wishes.data, wishes.dev, teacher, task=wishes.task, text=wishes.text, label=wishes.label)
    return teacher, in_order_of(data, teacher)


def _draft(wishes: Wishes, teacher: SeenModel, data: SeenData, folder: Path, notes: list[str]) -> Draft:
    student = look_at_model(wishes.student, "--student") if wishes.student is not None else None
    layers = wishes.layers or half_of(teacher)
    if student is None and teacher.known and teacher.layers is None:
        why = f"`{teacher.name}` has no single row of layers to keep some of"
        raise WishFault("--student", f"{why}: name the folder of a smaller model to train")
    if student is None and teacher.layers is not None and layers > teacher.layers:
        raise WishFault("--layers", f"`{teacher.name}` has {teacher.layers} layers: write a smaller number")
    if student is None and wishes.layers is None:
        of = f" of {teacher.layers}" if teacher.layers is not None else ""
        notes.append(f"the student has {layers}{of} layers: --layers says how many, --student names another model")
    trains = teacher.known and not _fits(teacher, data)
    if trains and (_of_pretraining(data.label_type) or not _of_pretraining(teacher.label_type)):
        learns = f"has a head for `{teacher.label_type}`" if teacher.label_type else "has no head"
        help = "name a model that is trained for the task" + (", or data with labels" if not data.label_type else "")
        need = (
            f"need one for `{data.label_type}`" if data.label_type else "without labels need one of classes or values"
        )
        raise WishFault("--teacher", f"`{teacher.name}` {learns}, and the data {need}: {help}")
    labels = wishes.labels
    if not trains and not labels and teacher.outputs is not None and not teacher.classes and data.classes:
        labels = data.classes
        shown = ",".join(labels[:4]) + (",…" if len(labels) > 4 else "")
        notes.append(f"takes the teacher's classes in the order {shown}: it names none; --labels gives another order")
    if trains:
        notes.append(f"`{teacher.name}` has no head for the labels: teacher.brew trains it first")
    cut = data.label_type.is_cut
    tokens = lengths(data, teacher) if teacher.known and not cut else None
    draft = Draft(folder, teacher, student, layers, data, tokens, labels, trains)
    if student is not None and not student.known:
        notes.append(f"`{student.name}` cannot be reached: its layers, width and tokens are unchecked")
    elif teacher.known and not draft.shares_tokens and cut:
        raise WishFault(
            "--student", "its tokenizer is not the teacher's, so tokens do not pair: name one with the same"
        )
    if tokens is None and data.contents is not None and not cut:
        notes.append("the texts' tokens could not be counted: look at `max_length` in the spec")
    return draft


def _fits(teacher: SeenModel, data: SeenData) -> bool:
    """Whether the teacher's head predicts labels of this type: several classes share the head of one, a value does
    not.
    """
    head, labels = teacher.label_type, data.label_type
    if not labels:
        return head.task == CLASS.task
    return head.task == labels.task and (head.form is Form.NUMBER) == (labels.form is Form.NUMBER)


def _of_pretraining(kind: LabelType) -> bool:
    """Whether labels are words of the text, as in pretraining, or there are none: a head that a task replaces."""
    return kind.over_vocabulary or not kind


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Files:
    """Files that are written together; `undo` removes them, and the folders that were made for them."""

    written: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def make_room(self, path: Path) -> Path:
        """A path that may be written, in a folder that is there."""
        check_writable(path)
        self.folders += [x for x in reversed(path.parents) if not x.exists() and x not in self.folders]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written.append(path)
        return path

    def undo(self) -> None:
        with suppress(OSError):
            for path in self.written:
                path.unlink(missing_ok=True)
            for folder in reversed(self.folders):
                folder.rmdir()


@contextmanager
def _all_or_nothing() -> Iterator[_Files]:
    files = _Files()
    try:
        yield files
    except BaseException:
        files.undo()
        raise


def _write(draft: Draft, spec: Path, notes: list[str]) -> Started:
    """Write everything, then check it; without hidden states where the models' do not fit."""
    teacher = spec.with_name("teacher.brew")
    parts = hold_out(draft.data) if not draft.data.has_dev else None
    if draft.trains_teacher and spec == teacher:
        raise UsageError(f"`{teacher.name}` is the name of the teacher's spec beside it; name another file")
    names = _parts(spec, parts.suffix) if parts is not None else {}
    wanted = [spec, *([teacher] if draft.trains_teacher else []), *names.values()]
    if taken := next((x for x in wanted if x.exists()), None):
        raise UsageError(f"`{taken}` exists already; name another file")
    with _all_or_nothing() as files:
        if parts is not None:
            for split, path in names.items():
                parts.write[split](files.make_room(path))
            source = draft.data.source.model_copy(update={x: str(path) for x, path in names.items()})
            draft = replace(draft, data=replace(draft.data, source=source))
            seen = "" if draft.trains_teacher else ", which the teacher may have learnt from"
            counts = f"{parts.rows['dev']:,} of {sum(parts.rows.values()):,} training {parts.what}"
            notes.append(f"holds out {counts} for dev{seen}: --dev names others")
        if draft.trains_teacher:
            files.make_room(teacher).write_text(teacher_text(draft), encoding="utf-8")
        files.make_room(spec)
        warnings = _checked(draft, spec, notes)
    return Started(spec, tuple(wanted), tuple(notes), warnings)


def _parts(spec: Path, suffix: str) -> dict[str, Path]:
    """The files of both parts of the data beside a spec: with its name, unless it has the folder for itself."""
    plain = {split: spec.with_name(f"{split}{suffix}") for split in ("train", "dev")}
    if spec.name == "student.brew" and not any(path.exists() for path in plain.values()):
        return plain
    return {split: spec.with_name(f"{spec.stem}-{split}{suffix}") for split in plain}


def _checked(draft: Draft, spec: Path, notes: list[str]) -> tuple[Diagnostic, ...]:
    """Write the spec and check it; gives its warnings. Raises `UsageError` for a spec that is at fault."""
    text = student_text(draft)
    spec.write_text(text, encoding="utf-8")
    try:
        return check(Source(text, str(spec)), {}).warnings
    except SpecError as error:
        errors = [x for x in error.diagnostics if x.severity == "error"]
        lines = text.splitlines()
        touched = {
            lines[x.span.position[0] - 1].split("=")[0].strip() for x in errors if x.span.source.name == str(spec)
        }
        if draft.hidden and touched <= {"hidden", "let map"}:
            notes.append(f"hidden states are not matched: {errors[0].message}")
            return _checked(replace(draft, hidden=False), spec, notes)
        first = errors[0]
        raise UsageError(f"the new spec is at fault: {first.message}: {first.help or first.code}") from error
