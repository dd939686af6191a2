"""Examples from tables: files, GLUE and the hub. Texts are checked, labels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets

from brewgraph.data.sources.labels import NO_LABELS, add_columns, encode_labels, weights_of_classes
from brewgraph.data.sources.reader import Contents, DataFacts, facts, facts_by_reading, read
from brewgraph.data.sources.rows import (
    LONGEST_TEXT,
    Split,
    hub_info,
    named_splits,
    no_rows,
    read_each,
    read_hub,
    read_table,
    value_text,
)
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import CLASS, VALUE, Form
from brewgraph.recipe.settings.data_sources import Files, Glue, Hub

Table = Files | Hub


@dataclass(frozen=True)
class _GlueTask:
    text: tuple[str, ...]
    classes: tuple[str, ...]
    train: int
    dev: int
    dev_split: str = "validation"


GLUE = "nyu-mll/glue"
"""The hub's name of the GLUE benchmark."""

_GLUE_TASKS = {
    "cola": _GlueTask(("sentence",), ("unacceptable", "acceptable"), 8551, 1043),
    "sst2": _GlueTask(("sentence",), ("negative", "positive"), 67349, 872),
    "mrpc": _GlueTask(("sentence1", "sentence2"), ("not_equivalent", "equivalent"), 3668, 408),
    "qqp": _GlueTask(("question1", "question2"), ("not_duplicate", "duplicate"), 363846, 40430),
    "stsb": _GlueTask(("sentence1", "sentence2"), (), 5749, 1500),
    "mnli": _GlueTask(
        ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), 392702, 9815, "validation_matched"
    ),
    "qnli": _GlueTask(("question", "sentence"), ("entailment", "not_entailment"), 104743, 5463),
    "rte": _GlueTask(("sentence1", "sentence2"), ("entailment", "not_entailment"), 2490, 277),
    "wnli": _GlueTask(("sentence1", "sentence2"), ("not_entailment", "entailment"), 635, 71),
}
"""Columns, classes and rows of each task; its test split has no labels and is left alone."""


@read.register
def _glue(source: Glue, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    task = _GLUE_TASKS[source.task]
    table = Hub(
        name=GLUE,
        subset=source.task,
        text=task.text,
        dev=task.dev_split,
        problem_type=(CLASS if task.classes else VALUE).problem,
        classes=task.classes or None,
    )
    try:
        return _examples(table, folder, columns, marks)
    except SourceFault as fault:  # the spec names a task; where it is kept is no argument of its own
        raise SourceFault(fault.code, fault.message, help=fault.help, field="task") from fault


@read.register(Files)
@read.register(Hub)
def _examples(source: Table, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    text, label = _columns(source)
    splits = _read(source, folder, text, label)
    labelling = encode_labels(source.label_type, splits, label, source.classes, marks)
    of_classes = weights_of_classes(source, labelling.numbers("train"), labelling.classes)
    made = {}
    for field, split in splits.items():
        _check_texts(split, text)
        rows = split.rows.select_columns(list(text))
        rows = rows.rename_columns({column: f"text_{n}" for n, column in enumerate(text)})
        labels = labelling.values.get(field)
        if labels is not None:
            rows = rows.add_column("label", labels, feature=labelling.feature)
        made[field] = add_columns(rows, split, field, source, columns, of_classes, labelling.numbers(field))
    train = splits["train"]
    return Contents(
        made,
        labelling.classes,
        notes=labelling.notes,
        marks=labelling.marks,
        columns=tuple(train.rows.column_names),
        twice=train.twice,
    )


@facts.register
def _glue_facts(source: Glue, folder: Path) -> DataFacts:
    task = _GLUE_TASKS[source.task]
    return DataFacts(task.classes, (*task.text, "label"), {"train": task.train, "dev": task.dev})


@facts.register
def _hub_facts(source: Hub, folder: Path) -> DataFacts:
    """Without the rows where the data set describes itself."""
    text, label = _columns(source)
    described = None
    if source.label_type.form in (Form.CLASS, Form.NONE) and not (source.weighted or source.classes):
        described = _described(source, folder, text, label[0] if label else None)
    return described or facts_by_reading(source, folder)


def _columns(source: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The text columns and the columns of the label: none, one, or one for each class."""
    label = (source.label,) if isinstance(source.label, str) else source.label or ()
    for field, columns in (("text", source.text), ("label", label)):
        twice = [column for n, column in enumerate(columns) if column in columns[:n]]
        if twice:
            help = "name two columns, or one" if field == "text" else "name each class once"
            raise SourceFault("B402", f"`{twice[0]}` is named twice", help=help, field=field)
    return source.text, label


def _read(source: Table, folder: Path, text: Sequence[str], label: Sequence[str]) -> dict[str, Split]:
    """The unchecked splits of a source, `train` first, each with rows and the text and label columns.

    Raises B402 for a missing column, B411 for one whose name occurs twice, B404 for a split without rows.
    """
    if isinstance(source, Files):
        splits = read_each(source, folder, partial(read_table, source.quoting))
    else:
        splits = read_hub(source, folder)
    for field, split in splits.items():
        if len(split.rows) == 0:
            raise no_rows(split.place, field)
    for split in splits.values():
        for column in text:
            split.require(column, "text")
        for column in label:
            split.require(column, "label", NO_LABELS)
    return splits


def _described(source: Hub, folder: Path, text: tuple[str, ...], label: str | None) -> DataFacts | None:
    """What a hub's data set says of itself, or None where that is not enough."""
    info = hub_info(source, folder)
    if not info.features or not info.splits or (label is not None and label not in info.features):
        return None
    feature = info.features[label] if label is not None else None
    splits = named_splits(source)
    asked = {name for field, name in splits.items() if field in {"train", *source.model_fields_set}}
    if asked - set(info.splits) or set(text) - set(info.features):
        return None  # a fault or a slice: reading tells which
    if label is not None and not isinstance(feature, datasets.ClassLabel):
        return None
    rows = {field: info.splits[name].num_examples for field, name in splits.items() if name in info.splits}
    classes = tuple(feature.names) if feature is not None else ()
    return DataFacts(classes, tuple(info.features), rows)


def _check_texts(split: Split, text: Sequence[str]) -> None:
    """Raise B404 for the first value of a text column that is not text, or longer than any tokenizer should read."""
    for column in text:
        for row, value in enumerate(split.rows[column][:], 1):
            what, help = "", "write it as text, remove the row, or name another column with `text=`"
            if not isinstance(value, str):
                what = "missing" if value is None else f"no text: {value_text(value)}"
            elif len(value) > LONGEST_TEXT:
                what, help = f"longer than {LONGEST_TEXT:,} characters", "split it, or remove the row"
            if what:
                message = f"`{column}` in row {row} of {split.place} is {what}"
                raise SourceFault("B404", message, help=help, field="text")
