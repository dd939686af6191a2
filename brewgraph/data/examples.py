"""Examples as a spec's data source means them: checked texts, labels as numbers, the same columns from everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy

from brewgraph.data.labels import Classes, encode_labels, find_classes
from brewgraph.data.python_docs import LABELS, builtin
from brewgraph.data.reading import Split, hub_info, no_rows, read_file, read_hub
from brewgraph.diagnostics import SourceFault, listing, suggest
from brewgraph.recipe.sources import Builtin, DataSource, Files, Glue, Hub


@dataclass(frozen=True)
class Examples:
    """What a data source holds.

    `splits` maps `train`, and `dev` and `test` where there are such, to data sets with the columns `text_0`, for pairs
    `text_1`, `label` (int64; absent where the source has no labels) and `index` (int64, the row's number in its split
    from 0). `classes` are the names in the order of the labels. `fingerprint` is a sha256 in hex of texts, labels and
    classes: it stays the same wherever the files lie.
    """

    splits: Mapping[str, datasets.Dataset]
    classes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class DataFacts:
    """What a check needs: the classes in the order of the labels, the source's columns, and the rows of each split.

    `rows` holds what is known without preparing the data, and may be empty.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: dict[str, int]


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
    "mnli": _GlueTask(
        ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), 392702, 9815, "validation_matched"
    ),
    "qnli": _GlueTask(("question", "sentence"), ("entailment", "not_entailment"), 104743, 5463),
    "rte": _GlueTask(("sentence1", "sentence2"), ("entailment", "not_entailment"), 2490, 277),
    "wnli": _GlueTask(("sentence1", "sentence2"), ("not_entailment", "entailment"), 635, 71),
}
"""Columns, classes and rows of each task; its test split has no labels and is left alone."""


def texts(examples):
    train = examples.splits["train"]
    return [t for c in train.column_names if c.startswith("text_") for t in train[c]]


def open_examples(source: DataSource, folder: Path, columns=()) -> Examples:
    """Read and check everything that `source` names; relative paths start at `folder`.

    Raises `SourceFault`: B401 a file, folder or split that is not there; B402 a column or subset; B403 labels; B404
    what cannot be read or is no text; B405 the hub; B406 too little text on this machine.
    """
    if isinstance(source, Builtin):
        return _builtin_examples(source)
    splits = _read(source, folder)
    text, label = _columns(source)
    classes = _classes(source, splits["train"], label)
    made = {}
    for field, split in splits.items():
        _check_columns(split, text, label)
        _check_texts(split, text)
        rows = split.rows.select_columns(list(text))
        rows = rows.rename_columns({column: f"text_{n}" for n, column in enumerate(text)})
        if label is not None:
            rows = rows.add_column("label", numpy.array(encode_labels(split, label, classes), dtype=numpy.int64))
        made[field] = _numbered(rows)
    return _examples(made, classes.names)


def facts(source: DataSource, folder: Path) -> DataFacts:
    """Classes, columns and sizes of `source`, with as little reading as its kind allows; raises like `open_examples`.

    Built-in data and GLUE are known beforehand; a data set of the hub tells them without its rows where it can; files
    are read, their labels checked and their texts not.
    """
    if isinstance(source, Builtin):
        return DataFacts(LABELS, ("text", "label"), {})
    if isinstance(source, Glue):
        task = _GLUE_TASKS[source.task]
        rows = {"train": task.train, "dev": task.dev}
        return DataFacts(task.classes, (*task.text, "label"), rows)
    text, label = _columns(source)
    if isinstance(source, Hub):
        known = _hub_facts(source, folder, text, label)
        if known is not None:
            return known
    splits = _read(source, folder)
    train = splits["train"]
    for split in splits.values():
        _check_columns(split, text, label)
    classes = _classes(source, train, label)
    if label is not None:
        for split in splits.values():
            encode_labels(split, label, classes)  # now, not once teachers are trained
    sizes = {field: len(split.rows) for field, split in splits.items()}
    return DataFacts(classes.names, tuple(train.rows.column_names), sizes)


def _columns(source: Files | Glue | Hub) -> tuple[tuple[str, ...], str | None]:
    """The text columns and the label's column of a source."""
    if isinstance(source, Glue):
        return _GLUE_TASKS[source.task].text, "label"
    if len(set(source.text)) < len(source.text):
        raise SourceFault("B402", f"`{source.text[0]}` is named twice", help="name two columns, or one", field="text")
    return source.text, source.label


def _read(source: Files | Glue | Hub, folder: Path) -> dict[str, Split]:
    """The splits as they stand in the source, none of them empty, `train` first."""
    if isinstance(source, Files):
        named = {"train": source.train, "dev": source.dev, "test": source.test}
        splits = {field: read_file(name, folder, field) for field, name in named.items() if name is not None}
    elif isinstance(source, Glue):
        wanted = {"train": "train", "dev": _GLUE_TASKS[source.task].dev_split}
        try:
            splits = read_hub(GLUE, source.task, None, wanted, folder, frozenset())
        except SourceFault as fault:  # the spec names a task; where it is kept is no argument of its own
            raise SourceFault(fault.code, fault.message, help=fault.help, field="task") from fault
    else:
        given = {"train": source.train, "dev": source.dev, "test": source.test}
        wanted = {field: name for field, name in given.items() if name is not None}
        optional = frozenset({"dev"}) - source.model_fields_set  # nobody asked for the default by name
        splits = read_hub(source.name, source.subset, source.revision, wanted, folder, optional)
    for field, split in splits.items():
        if len(split.rows) == 0:
            raise no_rows(split.place, field)
    return splits


def _classes(source: Files | Glue | Hub, train: Split, label: str | None) -> Classes:
    if label is None:
        return Classes((), named=False)
    _check_columns(train, (), label)
    found = find_classes(train, label)
    if isinstance(source, Glue) and not found.named:
        return Classes(_GLUE_TASKS[source.task].classes, named=False)
    return found


def _hub_facts(source: Hub, folder: Path, text: tuple[str, ...], label: str | None) -> DataFacts | None:
    """What a hub's data set says of itself, or None where that is not enough."""
    info = hub_info(source.name, source.subset, source.revision, folder)
    if not info.features or not info.splits or (label is not None and label not in info.features):
        return None
    feature = info.features[label] if label is not None else None
    named = {"train": source.train, "dev": source.dev, "test": source.test}
    asked = {
        field: name
        for field, name in named.items()
        if name is not None and field in {"train", *source.model_fields_set}
    }
    if set(asked.values()) - set(info.splits) or set(text) - set(info.features):
        return None  # a fault or a slice: reading tells which
    if label is not None and not isinstance(feature, datasets.ClassLabel):
        return None
    rows = {field: info.splits[name].num_examples for field, name in named.items() if name in info.splits}
    classes = tuple(feature.names) if feature is not None else ()
    return DataFacts(classes, tuple(info.features), rows)


def _check_columns(split: Split, text: Sequence[str], label: str | None) -> None:
    """Raise B402 for the first column that is named and not there."""
    there = split.rows.column_names
    for field, column in [*(("text", column) for column in text), *([("label", label)] if label is not None else [])]:
        if column not in there:
            remedy = "; `label=none` where there are no labels" if field == "label" else ""
            raise SourceFault(
                "B402",
                f"{split.place} has no column `{column}`",
                help=f"{suggest(column, there)} the columns are {listing(there)}{remedy}".strip(),
                field=field,
            )


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


def _builtin_examples(source: Builtin) -> Examples:
    numbers = {label: number for number, label in enumerate(LABELS)}
    made = {
        field: _numbered(
            datasets.Dataset.from_dict(
                {"text_0": [p.text for p in paragraphs], "label": [numbers[p.label] for p in paragraphs]}
            )
        )
        for field, paragraphs in builtin(source.name).items()
    }
    return _examples(made, LABELS)


def _numbered(rows: datasets.Dataset) -> datasets.Dataset:
    return rows.add_column("index", numpy.arange(len(rows), dtype=numpy.int64))


def _examples(splits: dict[str, datasets.Dataset], classes: tuple[str, ...]) -> Examples:
    return Examples(splits, classes, _fingerprint(splits, classes))


def _fingerprint(splits: Mapping[str, datasets.Dataset], classes: tuple[str, ...]) -> str:
    """A sha256 of all that is learnt from. Each piece goes in with its length: no two contents read the same."""
    digest = hashlib.sha256()

    def add(piece: str) -> None:
        data = piece.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)

    add(repr(classes))
    for field, rows in splits.items():
        columns = [column for column in rows.column_names if column != "index"]
        add(f"{field} {columns} {len(rows)}")
        for column in columns:
            for value in rows[column][:]:
                add(str(value))
    return digest.hexdigest()
