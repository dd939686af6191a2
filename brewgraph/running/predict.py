"""A finished run's student at work: scored on labelled rows, or telling what it takes other rows for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig

from brewgraph.data.batching.order import BatchOrder, loader
from brewgraph.data.encoding.encode import Collator, Encoding, encode
from brewgraph.data.sources.examples import facts, open_examples
from brewgraph.data.sources.labels import NO_LABELS
from brewgraph.diagnostics import SourceFault, UsageError, listing, suggest
from brewgraph.models.fake.reach import evaluating
from brewgraph.models.loading import quiet_transformers
from brewgraph.models.task_heads import label_type_of
from brewgraph.models.tokenization import load_tokenizer
from brewgraph.recipe.label_types import CLASS, CLASSES, SPANS, TAGS, VALUE, LabelType, of_architecture
from brewgraph.recipe.settings.sources import Builtin, DataSource, Files, Glue, Hub, Join, Squad
from brewgraph.running.data_cache import token_limit
from brewgraph.running.finished import SPLITS, FinishedTask
from brewgraph.running.spec_builder import blaming
from brewgraph.training.evaluation import Scores, evaluate, logits_of, model_inputs, own_view
from brewgraph.training.evaluation import scores as can_score
from brewgraph.training.metrics.spans import BestAnswers
from brewgraph.training.processes import this_process

_BATCH = 64

Prediction = dict[str, Any]


@dataclass(frozen=True)
class Student:
    """A run's student for one task with its encoding, on the device where it works."""

    task: FinishedTask
    model: nn.Module
    encoding: Encoding
    device: torch.device

    def batches(self, rows: datasets.Dataset) -> Any:
        """The rows in their order."""
        source = self.task.data.source
        encoded = encode(rows, [self.encoding], source=source, whole=True)
        collator = Collator([self.encoding], source=source)
        return loader(encoded, BatchOrder(len(encoded), _BATCH, shuffle=False), collator)


def load_student(task: FinishedTask) -> Student:
    """The student from its folder, without the models that it was trained beside.

    One that was trained without labels to classify texts tells its classes itself. Raises `UsageError` where it is no
    model that gives what the labels are.
    """
    task, folder = _told_by_student(task), task.model
    label_type = task.label_type
    if not (folder / "config.json").is_file():
        raise UsageError(f"the student in `{folder}` is a module of its own, which only its own code can run")
    if not label_type:
        kind = _kind(folder)
        loader_class = of_architecture(kind).auto_class
        raise UsageError(
            f"the data `{task.data.name}` has no labels, so the student in `{folder}`, a {kind}, has no predictions "
            f"here; load it with `transformers.{loader_class}.from_pretrained({str(folder)!r})`"
        )
    with quiet_transformers():
        # a head that the folder does not hold would begin at random, in silence
        holds = is_scored(task)
        model = getattr(transformers, label_type.auto_class).from_pretrained(folder) if holds else None
    if model is None or not can_score(model, label_type, task.classes):
        raise UsageError(f"the student in `{folder}` has no head for the labels of `{task.data.name}`")
    tokenizer = load_tokenizer(str(task.student))
    encoding = Encoding(task.key, tokenizer, token_limit(tokenizer, model, task.data.source.max_length))
    device = this_process().device
    return Student(task, model.to(device).eval(), encoding, device)


def is_scored(task: FinishedTask) -> bool:
    """Whether the student has a head for the labels of its data; without one there are its losses to evaluate."""
    if not task.label_type or not (task.model / "config.json").is_file():
        return False
    return _kind(task.model).endswith(task.label_type.ends)


def _kind(folder: Path) -> str:
    """The class of the model in a folder."""
    with quiet_transformers():
        return str(next(iter(AutoConfig.from_pretrained(folder).architectures or ()), "model"))


def _told_by_student(task: FinishedTask) -> FinishedTask:
    """The task with the classes of a student that learnt them from its teacher alone, as its configuration has them."""
    if task.label_type or not (task.model / "config.json").is_file() or not _kind(task.model).endswith(CLASS.ends):
        return task
    with quiet_transformers():
        config = AutoConfig.from_pretrained(task.model)
    classes = tuple(config.id2label[i] for i in range(config.num_labels))
    return replace(task, label_type=label_type_of(config) or CLASS, classes=classes)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def labelled_rows(task: FinishedTask, what: str) -> datasets.Dataset:
    """The rows to score a student on: a split of the task's data by name, or a file laid out like that data.

    Raises `UsageError` for a split or a file that is not there, and for labels that the run does not know.
    """
    source, folder = task.data.source, task.folder
    if what not in SPLITS and what.isidentifier() and not Path(what).exists():
        help = suggest(what, SPLITS) or f"splits are {listing(SPLITS)}"
        raise UsageError(f"there is no split and no file `{what}`: {help}")
    if what not in SPLITS:
        return read_like(task, Path(what), labelled=True)
    with blaming(task.data):
        splits = open_examples(source, folder).splits
    if what not in splits:
        raise UsageError(f"the data of the run has no split `{what}`: it has {listing(splits)}; or name a file")
    return splits[what]


def unlabelled_rows(task: FinishedTask, path: Path) -> datasets.Dataset:
    """The rows of a file laid out like the task's data; labels need not be there. Raises `UsageError`."""
    return read_like(task, path, labelled=False)


def text_columns(task: FinishedTask) -> tuple[str, ...]:
    """What the texts of an example are called: the columns of the data, `question` and `context`, or `text`."""
    source = task.data.source
    if isinstance(source, Join):
        source = source.parts[0]
    if isinstance(source, Files | Hub):
        return source.text
    if isinstance(source, Squad):
        return "question", "context"
    return facts(source, task.folder).columns[:-1] if isinstance(source, Glue | Builtin) else ("text",)


def read_like(task: FinishedTask, path: Path, *, labelled: bool, more: Sequence[str] = ()) -> datasets.Dataset:
    """The rows of another file under the columns of a task's data, its labels as numbers of the task's classes, and
    `more` columns of it.
    """
    if not path.is_file():
        near = [found.name for found in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"there is no file `{path}`; {suggest(path.name, near)}".rstrip("; "))
    # weights are for training, and need not be there; nor need labels, where none are asked for
    given: dict[str, Any] = {"train": str(path), "dev": None, "test": None, "weight": None, "class_weights": None}
    source = task.data.source
    if isinstance(source, Join):  # a file is laid out like the first of what was joined
        source = source.parts[0]
    # which classes there are, and what a label means, the run knows: a file may hold some of them alone
    columns = isinstance(getattr(source, "label", None), tuple)
    given["classes"] = task.classes if labelled and task.classes and not columns else None
    if not labelled:
        given |= {"label": None, "tags": None}
    if isinstance(source, Glue | Builtin):
        *text, label = facts(source, task.folder).columns
        kind: dict[str, Any] = {"label": label if labelled else None, "classes": given["classes"]}
        if labelled and source.label_type == VALUE:
            kind["problem_type"] = VALUE.problem_type
        other: DataSource = Files(train=str(path), text=tuple(text), **kind)
    elif not isinstance(source, Hub):
        other = source.model_copy(update={k: v for k, v in given.items() if k in type(source).model_fields})
    else:
        kind = {"label": None}
        if labelled:
            kind = {"label": source.label, "problem_type": source.problem_type, "classes": given["classes"]}
        other = Files(train=str(path), text=source.text, **kind)
    try:
        return open_examples(other, Path(), more, marks=task.marks).splits["train"]
    except SourceFault as fault:
        if fault.field == "classes":
            raise UsageError(_unknown_label(other, task.classes)) from fault
        if not labelled:
            raise UsageError(str(fault)) from fault
        read_like(task, path, labelled=False)  # where it is not the labels that are at fault, this says what is
        what = ", and so no labels to score the student on" if fault.code == "B402" else ""
        help = f"{fault.help.removesuffix(NO_LABELS)}; `brewgraph predict` needs no labels"
        raise UsageError(f"{fault.message}{what} ({help})") from fault


def _unknown_label(source: DataSource, classes: Sequence[str]) -> str:
    """What to say of a file with a label that is none of these classes."""
    path = getattr(source, "train", "")
    try:
        names = open_examples(source.model_copy(update={"classes": None}), Path()).classes
    except SourceFault:  # labels that only names of classes explain
        names = ()
    counted = not set(names) & set(classes) and all(name.isdigit() for name in names)
    known = list(map(str, range(len(classes)))) if counted else classes
    unknown = next((name for name in names if name not in known), None)
    what = "labels" if unknown is None else f"a label `{unknown}`"
    help = suggest(unknown or "", classes) or f"its classes are {listing(classes)}"
    return f"`{path}` has {what}{' that' if unknown is None else ', which'} the run does not know: {help}"


# ── scores and predictions ───────────────────────────────────────────────────────────────────────────────────────────


def score(student: Student, rows: datasets.Dataset) -> Scores:
    """How the student does on labelled rows."""
    return evaluate(
        student.model,
        student.encoding.key,
        student.batches(rows),
        label_type=student.task.label_type,
        classes=student.task.classes,
        examples=rows,
        null_threshold=student.task.null_threshold,
        device=student.device,
    )


@torch.no_grad()
def predict(student: Student, rows: datasets.Dataset) -> Iterator[Prediction]:
    """What the student takes each row for, in their order: `index`, the row's number from 0, `id` where it has one, and

    class   label, probabilities by class       classes   labels, probabilities by class      value   value
    tags    words, tags (null for a word that the tokenizer leaves without a token)
    spans   answer, score (the sum of its logits), start and end in the context; of data in which questions may have no
            answer also null_score, that of no answer: where that wins, the answer is "" and has no start and end

    Raises `UsageError` for a language model, which has no predictions of its own.
    """
    label_type = student.task.label_type
    if label_type.over_vocabulary:
        raise UsageError("a language model has no predictions to write; `brewgraph eval` scores it")
    answers = BestAnswers()
    waiting: tuple[int, Prediction] | None = None
    with evaluating(student.model):
        for batch in student.batches(rows):
            view = own_view(student.encoding.key, batch)
            inputs = model_inputs(student.model, view, student.device)
            logits = logits_of(student.model, inputs, label_type)
            if label_type == SPANS:
                reference = {key: view[key].to(student.device) for key in ("index", "offsets", "null")}
                answers.update(*answers.reduce(logits, reference))
                continue
            found = read_logits(label_type, logits.float().cpu(), view, student.task.classes)
            for index, prediction in zip(view["index"].tolist(), found, strict=True):
                if waiting is not None and waiting[0] == index:  # the next window of one sentence
                    waiting = index, _joined(waiting[1], prediction)
                    continue
                if waiting is not None:
                    yield _described(rows[waiting[0]], waiting[1])
                waiting = index, prediction
    if waiting is not None:
        yield _described(rows[waiting[0]], waiting[1])
    threshold = student.task.null_threshold
    for index, answer in sorted(answers.found.items()):
        scored = answer.score if math.isfinite(answer.score) else None
        found_here: Prediction = {"score": scored, "start": answer.begin, "end": answer.end}
        if threshold is not None:
            found_here |= {"null_score": answer.null_score}
            found_here |= {"start": None, "end": None} if answer.is_null(threshold) else {}
        text = answer.text(rows[index]["text_1"], threshold)
        yield _described(rows[index], {"answer": text, **found_here})


def read_logits(
    label_type: LabelType, logits: Tensor, view: Mapping[str, Any], classes: Sequence[str]
) -> Iterator[Prediction]:
    """What the logits of a batch say of each row, for every label type but `spans`.

    `logits` are (B, C), for `tags` (B, L, C); `view["words"]` (B, W) holds the place of each word's first token, -1
    where there is none, and `view["first"]` (B) how many words of a sentence stand before those of its row.
    """
    if label_type == VALUE:
        yield from ({"value": value} for value in logits.reshape(len(logits)).tolist())
    elif label_type == TAGS:
        for row_L, words_W, first in zip(logits.argmax(-1), view["words"].cpu(), view["first"].tolist(), strict=True):
            tags = [classes[row_L[place]] if place >= 0 else None for place in words_W.tolist()]
            yield {"tags": [None] * first + tags}
    elif label_type == CLASSES:
        for row in logits.sigmoid().tolist():
            labels = [name for name, p in zip(classes, row, strict=True) if p > 0.5]
            yield {"labels": labels, "probabilities": dict(zip(classes, row, strict=True))}
    else:
        for row, best in zip(logits.softmax(-1).tolist(), logits.argmax(-1).tolist(), strict=True):
            yield {"label": classes[best], "probabilities": dict(zip(classes, row, strict=True))}


def _joined(one: Prediction, other: Prediction) -> Prediction:
    """The tags of two windows of one sentence, of which each word is tagged in one."""
    pairs = zip_longest(one["tags"], other["tags"])
    return {"tags": [first if first is not None else second for first, second in pairs]}


def _described(row: Mapping[str, Any], prediction: Prediction) -> Prediction:
    """A prediction with what tells its row; tags stand beside their words, as many as there are."""
    told = {"index": row["index"], **({"id": row["id"]} if "id" in row else {})}
    if "tags" in prediction:
        count = len(row["words"])
        tags = (prediction["tags"] + [None] * count)[:count]
        return {**told, "words": row["words"], "tags": tags}
    return {**told, **prediction}
