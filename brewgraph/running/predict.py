"""The student of a finished run: loaded, scored on labelled rows or by its losses, used to predict others."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby, zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from brewgraph.checking.check import Checked, check
from brewgraph.data.encoding.encode import Collator, Encoding, encode
from brewgraph.data.sources.examples import Examples, facts, open_examples
from brewgraph.data.sources.labels import NO_LABELS
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.diagnostics import MOST_NAMES, SourceFault, SpecError, UsageError, listing, suggest
from brewgraph.graph.scalars import Horizon
from brewgraph.models.export_record import restoring
from brewgraph.models.exported import ExportedModel, load_exported, read_config, readable
from brewgraph.models.heads import evaluating
from brewgraph.models.loading import quiet_transformers
from brewgraph.models.task_heads import label_type_of
from brewgraph.models.tokenization import load_tokenizer
from brewgraph.paths import EXPORT_RECORD
from brewgraph.recipe.label_types import CLASS, NONE, Form, LabelType, of_architecture
from brewgraph.recipe.recipe import Stage, Task, columns_used
from brewgraph.recipe.settings.data_sources import Conll, DataSource, Squad
from brewgraph.running.data_cache import DataCache, graphs_of, token_limit
from brewgraph.running.finished import SPLITS, FinishedRun, FinishedTask
from brewgraph.running.run_identity import finished_teachers
from brewgraph.running.spec_builder import SpecBuilder, blaming
from brewgraph.source import EncodingError, decode
from brewgraph.training.checkpoint import load_student as load_weights
from brewgraph.training.evaluation import Scores, can_score, evaluate, logits_of, losses_on_dev, model_inputs, own_view
from brewgraph.training.metrics import BestAnswers
from brewgraph.training.processes import make_accelerator, this_process
from brewgraph.training.work import Material, in_order, place_stage

_BATCH = 64

Prediction = dict[str, Any]
Rows: TypeAlias = datasets.Dataset | ReadyBatches


@dataclass(frozen=True)
class Student:
    """A run's student for one task with its encoding, on its device."""

    task: FinishedTask
    model: nn.Module
    encoding: Encoding
    device: torch.device

    def batches(self, rows: datasets.Dataset) -> Any:
        """The rows in order."""
        source = self.task.data.source
        encoded = encode(rows, [self.encoding], source=source, whole=True)
        return in_order(encoded, Collator([self.encoding], source=source), _BATCH)


def load_student(task: FinishedTask) -> Student:
    """The student from its folder, without the models that it was trained beside; or the exported one there.

    The classes of a text classifier that was trained without labels come from its configuration. Raises `UsageError` if
    the student does not predict labels of the task's type.
    """
    task, folder = _with_classes_of_student(task), task.model
    label_type = task.label_type
    _check_plain(folder)
    if not label_type:
        kind = _kind(_config(folder))
        loader_class = of_architecture(kind).auto_class
        raise UsageError(
            f"the data `{task.data.name}` has no labels, so the student in `{folder}`, a {kind}, has no predictions "
            f"here; load it with `transformers.{loader_class}.from_pretrained({str(folder)!r})`"
        )
    model = None
    if is_scored(task):  # transformers would silently give a missing head random weights
        model = _load(folder, label_type.auto_class)
    if model is None or not (isinstance(model, ExportedModel) or can_score(model, label_type, task.classes)):
        raise UsageError(f"the student in `{folder}` has no head for the labels of `{task.data.name}`")
    return student_of(task, model)


def load_unscored_student(task: FinishedTask) -> Student:
    """The student of a task whose labels it does not predict, as whatever model it is. Raises `UsageError`."""
    _check_plain(task.model)
    kind = of_architecture(_kind(_config(task.model)))
    return student_of(replace(task, label_type=NONE), _load(task.model, kind.auto_class))


def student_of(task: FinishedTask, model: nn.Module, device: torch.device | None = None) -> Student:
    """A model in the place of a task's student, with its tokenizer, on a device (by default that of this process)."""
    try:
        tokenizer = load_tokenizer(str(task.student))
    except SourceFault as fault:
        raise UsageError(f"{fault.message}: {restoring(task.student)}") from fault
    encoding = Encoding(task.key, tokenizer, token_limit(tokenizer, model, task.data.source.max_length))
    device = torch.device("cpu") if isinstance(model, ExportedModel) else device or this_process().device
    return Student(task, model.to(device).eval(), encoding, device)


def _load(folder: Path, auto_class: str) -> nn.Module:
    if (folder / EXPORT_RECORD).is_file():
        return load_exported(folder)
    with readable(folder / "model.safetensors"), quiet_transformers():
        model: nn.Module = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=False)
    return model


def _check_plain(folder: Path) -> None:
    """Raise `UsageError` for a custom module."""
    if _config(folder) is None:
        raise UsageError(f"the student in `{folder}` is a custom module, which only its own code can run")


def is_scored(task: FinishedTask) -> bool:
    """Whether the student has a head for the labels of its texts; otherwise only its losses can be evaluated."""
    if task.data.source.holds_tensors:
        return False
    return bool(task.label_type) and _kind(_config(task.model)).endswith(task.label_type.ends)


def _config(folder: Path) -> Any:
    """The configuration of the model in a folder; None for a custom module."""
    return read_config(folder) if (folder / "config.json").is_file() else None


def _kind(config: Any) -> str:
    """The class of a model."""
    return str(next(iter(getattr(config, "architectures", None) or ()), "model"))


def _with_classes_of_student(task: FinishedTask) -> FinishedTask:
    """The task of a student that learnt its classes from its teacher alone, with those of its configuration."""
    config = _config(task.model)
    if task.label_type or config is None or not _kind(config).endswith(CLASS.ends):
        return task
    classes = tuple(config.id2label[i] for i in range(config.num_labels))
    return replace(task, label_type=label_type_of(config) or CLASS, classes=classes)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def labelled_rows(task: FinishedTask, source: str) -> datasets.Dataset:
    """The rows to score a student on: a split of the task's data by name, or a file laid out like that data.

    Raises `UsageError` for a missing split or file, and for labels that the run does not know.
    """
    if source not in SPLITS and source.isidentifier() and not Path(source).exists():
        help = suggest(source, SPLITS) or f"splits are {listing(SPLITS)}"
        raise UsageError(f"there is no split and no file `{source}`: {help}")
    if source not in SPLITS:
        return read_like(task, Path(source), labelled=True)
    try:
        with blaming(task.data):
            return split_rows(open_examples(task.data.source, task.folder), source)
    except SpecError as error:
        if task.folder.is_dir():
            raise
        moved = f"the data of the run were in `{task.folder}`, which is no longer there"
        raise UsageError(f"{moved}: put that folder back, or name a file with --data") from error


def split_rows(examples: Examples, split: str) -> datasets.Dataset:
    """The rows of a split. Raises `UsageError` if the data has no such split."""
    if split not in examples.splits:
        there = listing(examples.splits)
        raise UsageError(f"the data of the run has no split `{split}`: it has {there}; or name a file")
    return examples.splits[split]


def text_columns(task: FinishedTask) -> tuple[str, ...]:
    """The names of an example's texts: the columns of the data, `question` and `context`, or `text`."""
    source = _source_of_texts(task)
    return source.text_columns or facts(source, task.folder).columns[:-1]


def _source_of_texts(task: FinishedTask) -> DataSource:
    """The source that other texts are laid out like: the first of joined data sets."""
    if task.data.source.holds_tensors:
        raise UsageError(
            f"`{task.data.name}` holds batches of tensors, and `predict` reads texts: load the student in "
            f"`{task.student}` with transformers, and run it on your tensors"
        )
    return task.data.source.sources[0]


def read_like(task: FinishedTask, path: Path, *, labelled: bool, more: Sequence[str] = ()) -> datasets.Dataset:
    """Rows of another file in the columns of a task's data, labels as indices of its classes, and `more` columns."""
    if not path.is_file():
        near = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"there is no file `{path}`; {suggest(path.name, near)}".rstrip("; "))
    source = _source_of_texts(task)
    columns = source.text_columns or facts(source, task.folder).columns
    like = source.of_file(str(path), columns, task.classes, labelled=labelled)
    try:
        return open_examples(like, Path(), more, marks=task.marks).splits["train"]
    except SourceFault as fault:
        if fault.field == "classes":
            raise UsageError(_unknown_label(like, task.classes)) from fault
        if not labelled:
            raise UsageError(str(fault)) from fault
        read_like(task, path, labelled=False)  # reports any other fault than that of the labels
        what = ", so no labels to score the student on" if fault.code == "B402" else ""
        help = f"{fault.help.removesuffix(NO_LABELS)}; `brewgraph predict` needs no labels"
        raise UsageError(f"{fault.message}{what} ({help})") from fault


def _unknown_label(source: DataSource, classes: Sequence[str]) -> str:
    """The message for a file with a label that is none of these classes."""
    path = getattr(source, "train", "")
    try:
        names = open_examples(source.model_copy(update={"classes": None}), Path()).classes
    except SourceFault:  # labels that need names of classes
        names = ()
    counted = not set(names) & set(classes) and all(name.isdigit() for name in names)
    known = list(map(str, range(len(classes)))) if counted else classes
    unknown = next((name for name in names if name not in known), None)
    what = "labels" if unknown is None else f"a label `{unknown}`"
    help = suggest(unknown or "", classes) or f"its classes are {listing(classes, MOST_NAMES)}"
    return f"`{path}` has {what}{' that' if unknown is None else ', which'} the run does not know: {help}"


# ── rows that are typed or piped ─────────────────────────────────────────────────────────────────────────────────────


def typed_rows(task: FinishedTask, texts: Sequence[str]) -> datasets.Dataset:
    """Rows of typed texts: one text each, or two for pairs; spaces separate tagged words. Raises `UsageError`."""
    names = text_columns(task)
    if len(texts) % len(names):
        raise UsageError(f"an example of this run has {listing(names)}: repeat `--text` for each of them")
    rows = [texts[start : start + len(names)] for start in range(0, len(texts), len(names))]
    return _read(task, *_laid_out(task, names, rows), "--text")


def piped_rows(task: FinishedTask, content: bytes) -> datasets.Dataset:
    """The rows of piped content: in the format of the run's files, as JSON lines, as csv or tsv with the columns of
    texts in its header, or plain, one text per line. Raises `UsageError`.
    """
    try:
        text = decode(content, "standard input").removeprefix("\ufeff").replace("\r\n", "\n")
    except EncodingError as error:
        raise UsageError(str(error)) from error
    filled = [line for line in text.split("\n") if line.strip()]
    if not filled:
        raise UsageError("standard input holds no rows")
    names = text_columns(task)
    if isinstance(task.data.source.sources[0], Conll):
        columns = {len(line.split()) for line in filled if not line.startswith("#")}
        # plain sentences differ in their number of words, lines of columns do not
        suffix = "" if len(columns) > 1 or (len(filled) == 1 and max(columns, default=1) > 1) else ".conll"
    else:
        suffix = _suffix(text, filled[0], names)
    if suffix:
        return _read(task, text, suffix, "standard input")
    if len(names) > 1:
        raise UsageError(f"standard input has no {listing(names)}: pipe JSON lines, or csv with a header")
    return _read(task, *_laid_out(task, names, [[line] for line in filled]), "standard input")


def _suffix(text: str, first: str, names: Sequence[str]) -> str:
    """The suffix of a file with this content and first line; empty for plain text."""
    if text.lstrip()[:1] in ("{", "["):
        return ".json"
    for suffix, sign in ((".csv", ","), (".tsv", "\t")):
        if set(names) <= set(next(csv.reader([first], delimiter=sign))):
            return suffix
    return ""


def _laid_out(task: FinishedTask, names: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, str]:
    """The content and the suffix of a file of these texts."""
    source = task.data.source.sources[0]
    if isinstance(source, Conll):
        sign = "\t" if source.separator == "tab" else " "
        before = sign.join(["_"] * max(0, source.words)) + sign * (source.words > 0)
        after = (sign + "_") * (-1 - source.words if source.words < 0 else 0)
        return "\n\n".join("\n".join(f"{before}{word}{after}" for word in text.split()) for (text,) in rows), ".conll"
    if isinstance(source, Squad):
        asked = [
            {"context": context, "qas": [{"id": str(number), "question": question, "answers": []}]}
            for number, (question, context) in enumerate(rows)
        ]
        return json.dumps({"data": [{"title": "", "paragraphs": asked}]}), ".json"
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows), ".jsonl"


def _read(task: FinishedTask, content: str, suffix: str, title: str) -> datasets.Dataset:
    with tempfile.TemporaryDirectory(prefix="brewgraph-") as folder:
        path = Path(folder) / f"typed{suffix}"
        path.write_text(content, encoding="utf-8")
        try:
            return read_like(task, path, labelled=False)
        except UsageError as error:
            raise UsageError(str(error).replace(f"`{path}`", title)) from error


# ── scores and predictions ───────────────────────────────────────────────────────────────────────────────────────────


def score(student: Student, rows: datasets.Dataset) -> Scores:
    """The student's scores on labelled rows."""
    task = student.task
    material = Material(
        {}, classes=task.classes, label_type=task.label_type, examples=rows, null_threshold=task.null_threshold
    )
    return evaluate(student.model, student.encoding.key, student.batches(rows), material)


def predict(student: Student, rows: datasets.Dataset) -> Iterator[Prediction]:
    """The student's prediction for each row, as `predictions` gives it. Raises `UsageError` for a language model."""
    task = student.task
    if task.label_type.over_vocabulary:
        raise UsageError("a language model predicts no labels; `brewgraph eval` scores it")
    batches = student.batches(rows)
    yield from predictions(
        student.model, student.encoding.key, batches, rows, task.label_type, task.classes, task.null_threshold
    )


@torch.no_grad()
def predictions(
    model: nn.Module,
    name: str,
    batches: Iterable[Mapping[str, Any]],
    rows: datasets.Dataset,
    label_type: LabelType,
    classes: Sequence[str],
    null_threshold: float | None,
) -> Iterator[Prediction]:
    """What the model `name` predicts for each of the rows, in order: `index`, the row's number from 0, `id` if it has
    one, and by the form of the labels

    class   label, probabilities by class       classes   labels, probabilities by class      number  value
    tags    words, tags (null for a word that the tokenizer gives no token)
    spans   answer, score (the sum of its logits), start and end in the context; if questions may have no answer also
            null_score, that of no answer: if that wins, the answer is "" and has no start and end

    `batches` are those of the rows' windows, in order.
    """
    answers = BestAnswers()
    device = next(model.parameters(), torch.empty(0)).device

    def windows() -> Iterator[tuple[int, Prediction]]:
        """The predictions of windows with the indices of their rows; answers are collected beside."""
        for batch in batches:
            view = own_view(name, batch)
            inputs = model_inputs(model, view, device)
            logits = logits_of(model, inputs, label_type)
            if label_type.form is Form.SPANS:
                reference = {key: view[key].to(device) for key in ("index", "offsets", "null")}
                answers.update(*answers.reduce(logits, reference))
                continue
            read = read_logits(label_type, logits.float().cpu(), view, classes)
            yield from zip(view["index"].tolist(), read, strict=True)

    with evaluating(model):
        for index, of_row in groupby(windows(), key=itemgetter(0)):
            yield _described(rows[index], reduce(_joined, (prediction for _, prediction in of_row)))
    for index, answer in sorted(answers.best.items()):
        prediction = {
            "answer": answer.text(rows[index]["text_1"], null_threshold),
            "score": answer.score if math.isfinite(answer.score) else None,
            "start": answer.begin,
            "end": answer.end,
        }
        if null_threshold is not None:
            prediction["null_score"] = answer.null_score
            prediction |= {"start": None, "end": None} if answer.is_null(null_threshold) else {}
        yield _described(rows[index], prediction)


def read_logits(
    label_type: LabelType, logits: Tensor, view: Mapping[str, Any], classes: Sequence[str]
) -> Iterator[Prediction]:
    """The prediction of each row from the logits of a batch, for every form of labels but `spans`.

    `logits` are (B, C), for `tags` (B, L, C). `view["words"]` (B, W) holds the position of each word's first token, -1
    without one, and `view["first"]` (B) the number of words of a sentence before those of its row.
    """
    if label_type.form is Form.NUMBER:
        yield from ({"value": value} for value in logits.reshape(len(logits)).tolist())
    elif label_type.form is Form.TAGS:
        for row_L, words_W, first in zip(logits.argmax(-1), view["words"].cpu(), view["first"].tolist(), strict=True):
            tags = [classes[row_L[place]] if place >= 0 else None for place in words_W.tolist()]
            yield {"tags": [None] * first + tags}
    elif label_type.form is Form.CLASSES:
        for row in logits.sigmoid().tolist():
            labels = [name for name, p in zip(classes, row, strict=True) if p > 0.5]
            yield {"labels": labels, "probabilities": dict(zip(classes, row, strict=True))}
    else:
        for row, best in zip(logits.softmax(-1).tolist(), logits.argmax(-1).tolist(), strict=True):
            yield {"label": classes[best], "probabilities": dict(zip(classes, row, strict=True))}


def _joined(one: Prediction, other: Prediction) -> Prediction:
    """The tags of two windows of one sentence; each word is tagged in one of them."""
    pairs = zip_longest(one["tags"], other["tags"])
    return {"tags": [first if first is not None else second for first, second in pairs]}


def _described(row: Mapping[str, Any], prediction: Prediction) -> Prediction:
    """A prediction with the index and id of its row; with tags also the words, a tag or None for each."""
    if "tags" in prediction:
        count = len(row["words"])
        prediction = {"words": row["words"], "tags": (prediction["tags"] + [None] * count)[:count]}
    return {"index": row["index"], **({"id": row["id"]} if "id" in row else {}), **prediction}


# ── losses, of students that no labels can score ──────────────────────────────────────────────────────────────────────


def losses_on(
    data_cache: DataCache, checked: Checked, stage: Stage, task: Task, rows: Rows | str, folder: Path
) -> dict[str, float] | None:
    """The loss and its terms on some rows, with the weights of the stage's end; None for a loss of several data sets.

    The student is the builder's, its projections are those that its run saved in `folder`. `rows` are the name of a
    split of the task's data, other examples like them, or batches of tensors.
    """
    work = next(work for work in data_cache.stages(checked) if work.name == stage.name)
    material = work.materials[task.name]
    if not isinstance(rows, ReadyBatches):
        data = material.name
        encodings, _ = data_cache.encodings(data, data_cache.readers(graphs_of(checked, stage, task), data))
        if isinstance(rows, str):
            rows = data_cache.split(data, rows, encodings)
        else:
            rows = data_cache.encode(data, rows, encodings, whole=True)
    material = replace(material, dev=rows)
    if not material.has_losses:
        return None
    process = this_process()
    length = place_stage(0, work, process.process_index, process.num_processes).length
    accelerator = make_accelerator(stage.train)
    distiller = work.make()
    try:
        distiller.to(accelerator.device)
        distiller.horizon = Horizon(length.steps, length.per_epoch)
        if (saved := folder / "projections.safetensors").is_file():
            distiller.projections.load_state_dict(load_file(saved))
        return losses_on_dev(distiller, task.name, material, accelerator)
    finally:
        distiller.release()


def rebuilt(run: FinishedRun, *, allow_python: bool, scored: bool) -> tuple[Checked, SpecBuilder]:
    """The spec of a finished run, checked again, and its builder, with the students that stand for `brew(…)` models.
    Raises `SpecError` or `UsageError` if a model or the data is gone.
    """
    checked = check(run.recipe.source, run.recipe.params)
    home = run.folder.whole.path.parent
    teachers = finished_teachers(checked, (), home, option="", allow_python=allow_python)
    return checked, SpecBuilder(checked, teachers=teachers, allow_python=allow_python, scored=scored)


class RebuiltLoss:
    """The loss of a finished run, built again around its trained student: for students that no labels can score.

    Raises `UsageError` if a model that the loss needs is gone: the files of a teacher, an average of the student,
    Python code that may not run.
    """

    def __init__(self, run: FinishedRun, *, allow_python: bool = False):
        if run.exported:
            raise UsageError(f"`{run.folder.path}` has no labels to score it by, and an exported model has no losses")
        self.run = run
        needs = f"`{run.folder.path}` has no labels to score it by, and its losses need what it was trained with: "
        try:
            self.checked, self.builder = rebuilt(run, allow_python=allow_python, scored=False)
            needed = {m for m in self.checked.recipe.models if self.builder.runs(m)}
            if gone := [m for m in needed if self.checked.recipe.models[m].source.averaged is not None]:
                raise UsageError(f"{listing(gone)} followed the student in training, and is not kept")
            for model in needed:
                self.builder.model(model)
        except SpecError as error:
            first = error.diagnostics[0]
            raise UsageError(f"{needs}{first.message}" + (f"; {first.help}" if first.help else "")) from error
        except UsageError as error:
            raise UsageError(f"{needs}{error}") from error
        name = self.checked.recipe.student.name
        self.data_cache = DataCache(self.builder)
        self.builder.models[name] = load_weights(self.builder.model(name), run.folder.student)

    def losses(self, task: FinishedTask, source: str) -> tuple[dict[str, float], int]:
        """The loss of a task and its terms on a split, or on a file laid out like its data; and how many examples.

        Raises `UsageError` for a missing split or file, and for a loss of several data sets.
        """
        stage, declared = next((s, t) for s, t in reversed(self.checked.recipe.tasks) if t.name == task.name)
        rows = self._rows(task, source)
        values = losses_on(self.data_cache, self.checked, stage, declared, rows, self.run.folder.path)
        if values is None:
            raise UsageError(f"a loss that reads several data sets ({listing(declared.data)}) cannot be evaluated")
        return values, sum(len(b["index"]) for b in rows.dev) if isinstance(rows, ReadyBatches) else len(rows)

    def _rows(self, task: FinishedTask, source: str) -> Rows:
        name = task.data.name
        if task.data.source.holds_tensors:
            batches = self.builder.tensor_batches(name)
            if source != "dev" or not batches.dev:
                raise UsageError(f"`{name}` holds batches of tensors: its loss is evaluated on dev.safetensors only")
            return batches
        if source in SPLITS:
            return split_rows(self.builder.examples(name), source)
        if task.label_type:
            return labelled_rows(task, source)
        return read_like(task, Path(source), labelled=False, more=columns_used(self.checked.recipe)[name])
