"""Examples from tables: files, GLUE and the hub. Texts are checked, labels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from brewgraph.data.sources.example_weights import add_columns, weigh, weights_of_classes
from brewgraph.data.sources.labels import (
    NO_LABELS,
    Classes,
    encode_labels,
    encode_numbers,
    find_classes,
)
from brewgraph.data.sources.multi_label import encode_several, find_several, is_open
from brewgraph.data.sources.rows import Repository, Split, hub_info, named_splits, no_rows, read_file, read_hub
from brewgraph.data.sources.source_facts import DataFacts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import CLASS, CLASSES, NONE, VALUE
from brewgraph.recipe.settings.sources import Files, Glue, Hub

Table = Files | Glue | Hub


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


@dataclass(frozen=True)
class Labelling:
    """The labels of every split as numbers, with their feature; no values where the source has none. `marks` is that of
    `Examples`.
    """

    classes: tuple[str, ...]
    values: dict[str, list[Any]]
    feature: Any = None
    notes: tuple[str, ...] = ()
    marks: bool | None = None


_MARKS = (
    "every label in {place} is [0, 1] or [1, 0]: read as 0 or 1 for each of two classes, not as the numbers of both"
)


def open_table(
    source: Table, folder: Path, columns: Sequence[str] = (), marks: bool | None = None
) -> tuple[dict[str, datasets.Dataset], Labelling]:
    """The splits of a source, with `text_0`, for pairs `text_1`, `label`, `weights`, `column/NAME`; their labels.

    `marks` tells of lists of 0 and 1 what they are, where it is known.
    """
    splits = _read(source, folder)
    text, label = _columns(source)
    labelling = _labels(source, splits, label, marks)
    of_classes = _class_weights(source, labelling)
    made = {}
    for field, split in splits.items():
        _check_columns(split, text, ())
        _check_texts(split, text)
        rows = split.rows.select_columns(list(text))
        rows = rows.rename_columns({column: f"text_{n}" for n, column in enumerate(text)})
        labels = labelling.values.get(field)
        if labels is not None:
            rows = rows.add_column("label", labels, feature=labelling.feature)
        made[field] = add_columns(rows, split, field, source, columns, of_classes, labels)
    return made, labelling


def table_facts(source: Table, folder: Path) -> DataFacts:
    """Classes, columns and rows of each split; labels and weights are checked, texts are not.

    GLUE is known beforehand; a data set of the hub tells them without its rows where it can.
    """
    text, label = _columns(source)
    if isinstance(source, Glue):
        task = _GLUE_TASKS[source.task]
        return DataFacts(task.classes, (*task.text, "label"), {"train": task.train, "dev": task.dev})
    if isinstance(source, Hub) and source.label_type in (CLASS, NONE) and not (source.weighted or source.classes):
        known = _hub_facts(source, folder, text, label[0] if label else None)
        if known is not None:
            return known
    splits = _read(source, folder)
    for split in splits.values():
        _check_columns(split, text, label)
    labelling = _labels(source, splits, label)  # now, not once teachers are trained
    of_classes = _class_weights(source, labelling)
    if source.weighted:
        for field, split in splits.items():
            weigh(source.weight, split, field, of_classes, labelling.values.get(field))
    sizes = {field: len(split.rows) for field, split in splits.items()}
    train = splits["train"]
    seen, labels = None, labelling.values.get("train", [])
    if source.label_type == CLASS:
        seen = tuple(labelling.classes[number] for number in sorted(set(labels)))
    elif source.label_type == CLASSES:
        seen = tuple(
            name for name, marks in zip(labelling.classes, zip(*labels, strict=True), strict=True) if any(marks)
        )
    alike = len(labels) > 1 and all(label == labels[0] for label in labels)
    return DataFacts(labelling.classes, tuple(train.rows.column_names), sizes, train.twice, seen, alike)


def _columns(source: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The text columns and the columns of the label: none, one, or one for each class."""
    if isinstance(source, Glue):
        return _GLUE_TASKS[source.task].text, ("label",)
    label = (source.label,) if isinstance(source.label, str) else source.label or ()
    for field, named in (("text", source.text), ("label", label)):
        twice = [column for n, column in enumerate(named) if column in named[:n]]
        if twice:
            help = "name two columns, or one" if field == "text" else "name each class once"
            raise SourceFault("B402", f"`{twice[0]}` is named twice", help=help, field=field)
    return source.text, label


def _labels(source: Table, splits: dict[str, Split], label: tuple[str, ...], marks: bool | None = None) -> Labelling:
    """The labels of every split. Raises `SourceFault` B402 and B403."""
    if not label:
        return Labelling((), {})
    for split in splits.values():
        _check_columns(split, (), label)
    train = splits["train"]
    if source.label_type == VALUE:
        values = {field: encode_numbers(split, label[0]) for field, split in splits.items()}
        return Labelling((), values, datasets.Value("float32"))
    if source.label_type == CLASSES:
        several = find_several(train, label, None if isinstance(source, Glue) else source.classes, marks)
        found = {field: encode_several(split, label, several) for field, split in splits.items()}
        notes = (_MARKS.format(place=train.place),) if marks is None and is_open(train, label, several) else ()
        known = None if several.named else several.marks
        return Labelling(several.names, found, datasets.List(datasets.Value("float32")), notes, known)
    classes = find_classes(train, label[0], None if isinstance(source, Glue) else source.classes)
    if isinstance(source, Glue) and not classes.named:
        classes = Classes(_GLUE_TASKS[source.task].classes, named=False)
    numbers = {field: encode_labels(split, label[0], classes) for field, split in splits.items()}
    return Labelling(classes.names, numbers, datasets.Value("int64"))


def _class_weights(source: Table, labelling: Labelling) -> list[float] | None:
    if isinstance(source, Glue) or source.class_weights is None:
        return None
    return weights_of_classes(source, labelling.values["train"], labelling.classes)


def _read(source: Table, folder: Path) -> dict[str, Split]:
    """The splits as they stand in the source, none of them empty, `train` first."""
    if isinstance(source, Files):
        splits = {field: read_file(name, folder, field, source.quoting) for field, name in named_splits(source).items()}
    elif isinstance(source, Glue):
        wanted = {"train": "train", "dev": _GLUE_TASKS[source.task].dev_split}
        try:
            splits = read_hub(Repository(GLUE, source.task, None, folder), wanted)
        except SourceFault as fault:  # the spec names a task; where it is kept is no argument of its own
            raise SourceFault(fault.code, fault.message, help=fault.help, field="task") from fault
    else:
        optional = frozenset({"dev"}) - source.model_fields_set  # nobody asked for the default by name
        splits = read_hub(_repository(source, folder), named_splits(source), optional)
    for field, split in splits.items():
        if len(split.rows) == 0:
            raise no_rows(split.place, field)
    return splits


def _repository(source: Hub, folder: Path) -> Repository:
    return Repository(source.name, source.subset, source.revision, folder)


def _hub_facts(source: Hub, folder: Path, text: tuple[str, ...], label: str | None) -> DataFacts | None:
    """What a hub's data set says of itself, or None where that is not enough."""
    info = hub_info(_repository(source, folder))
    if not info.features or not info.splits or (label is not None and label not in info.features):
        return None
    feature = info.features[label] if label is not None else None
    named = named_splits(source)
    asked = {name for field, name in named.items() if field in {"train", *source.model_fields_set}}
    if asked - set(info.splits) or set(text) - set(info.features):
        return None  # a fault or a slice: reading tells which
    if label is not None and not isinstance(feature, datasets.ClassLabel):
        return None
    rows = {field: info.splits[name].num_examples for field, name in named.items() if name in info.splits}
    classes = tuple(feature.names) if feature is not None else ()
    return DataFacts(classes, tuple(info.features), rows)


def _check_columns(split: Split, text: Sequence[str], label: Sequence[str]) -> None:
    """Raise B402 for the first column that is named and not there, B411 for one that is there twice."""
    for column in text:
        split.require(column, "text")
    for column in label:
        split.require(column, "label", NO_LABELS)


def _check_texts(split: Split, text: Sequence[str]) -> None:
    """Raise B404 for the first value of a text column that is no text."""
    for column in text:
        for row, value in enumerate(split.rows[column][:], 1):
            if not isinstance(value, str):
                said = "missing" if value is None else f"no text: {value!r}"
                raise SourceFault(
                    "B404",
                    f"`{column}` in row {row} of {split.place} is {said}",
                    help="write it as text, leave the row out, or name another column with `text=`",
                    field="text",
                )
