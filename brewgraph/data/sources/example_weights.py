"""Weights of examples, and other columns of numbers that a spec names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from datasets.features.features import FeatureType

from brewgraph.data.sources.labels import read_numbers
from brewgraph.data.sources.rows import Split
from brewgraph.data.sources.source_facts import DataFacts
from brewgraph.diagnostics import SourceFault, listing
from brewgraph.recipe.settings.data_sources import Conll, DataSource, Files, Hub, Squad

_RESERVED = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "index", "offsets", "words", "start", "end", "null", "first"}
)
"""The names of a batch's own tensors, which no column can have."""


def weights_of_classes(source: Files | Hub, train: Sequence[int], classes: Sequence[str]) -> list[float] | None:
    """A weight for each class, or None. `balanced` is rows / (classes x rows of the class), as scikit-learn has it.

    A class without a training row weighs 1. Raises `SourceFault` B403 for a list of another length.
    """
    asked = source.class_weights
    if asked is None:
        return None
    if asked == "balanced":
        counts = Counter(train)
        return [len(train) / (len(classes) * counts[n]) if counts[n] else 1.0 for n in range(len(classes))]
    if len(asked) != len(classes):
        message = f"there are {len(asked)} weights for {len(classes)} classes"
        raise SourceFault("B403", message, help=f"one for each, in the order {listing(classes)}", field="class_weights")
    return list(asked)


def add_columns(
    rows: datasets.Dataset,
    split: Split,
    field: str,
    source: DataSource,
    columns: Sequence[str],
    of_classes: Sequence[float] | None = None,
    numbers: Sequence[int] = (),
) -> datasets.Dataset:
    """The rows with `weights`, if their source has weights, and `column/NAME` for each requested column.

    `numbers` are those of the rows' classes. Raises `SourceFault` B402, B403 and B404.
    """
    if source.weighted:
        weights = weigh(getattr(source, "weight", None), split, field, of_classes, numbers)
        rows = rows.add_column("weights", weights, feature=datasets.Value("float32"))
    for name in columns:
        values, feature = _read_column(split, name)
        rows = rows.add_column(f"column/{name}", values, feature=feature)
    return rows


def facts_beside(
    source: Conll | Squad, columns: tuple[str, ...], classes: tuple[str, ...], splits: Mapping[str, Split]
) -> DataFacts:
    """The facts of sentences or questions from the columns beside them, whose weights are checked."""
    if source.weighted:
        for field, split in splits.items():
            weigh(source.weight, split, field)
    more = (name for name in splits["train"].rows.column_names if name not in columns)
    return DataFacts(classes, (*columns, *more), {field: len(split.rows) for field, split in splits.items()})


def weigh(
    column: str | None,
    split: Split,
    field: str,
    of_classes: Sequence[float] | None = None,
    numbers: Sequence[int] = (),
) -> list[float]:
    """The weight of each row: that of its column times that of its class, by the class's number.

    Only training rows need the column: others weigh 1 without it. Raises `SourceFault` B402 and B403.
    """
    weights = [1.0] * len(split.rows)
    if column is not None and (field == "train" or column in split.rows.column_names):
        split.require(column, "weight")
        weights = read_numbers(split, column, "B403", "weight", f"the weight in row {{row}} of {split.place}")
        for row, weight in enumerate(weights, 1):
            if weight < 0:
                message = f"the weight in row {row} of {split.place} is {weight:g}"
                raise SourceFault("B403", message, help="a weight is zero or above", field="weight")
    if of_classes is not None:
        weights = [weight * of_classes[number] for weight, number in zip(weights, numbers, strict=True)]
    return weights


def _read_column(split: Split, column: str) -> tuple[list[Any], FeatureType]:
    """Values and feature of a column of numbers, truth values, or lists of them.

    Raises `SourceFault` B402 for a column that is missing or whose name is taken, B411 for one whose name occurs twice,
    B404 for other values.
    """
    split.require(column)
    if column in _RESERVED:
        raise SourceFault("B402", f"batches already have a tensor called `{column}`", help="rename the column")
    values = split.rows[column][:]
    if values and isinstance(values[0], list):
        for row, value in enumerate(values, 1):
            if not isinstance(value, list) or not all(isinstance(x, int | float) for x in value):
                what = "missing" if value is None else f"{value!r}"
                help = "it is a list of numbers in every row, or a number in every row"
                raise SourceFault("B404", f"`{column}` in row {row} of {split.place} is {what}", help=help)
        kinds = {type(x) for value in values for x in value}
        kind = "bool" if kinds == {bool} else "int64" if kinds <= {int, bool} else "float32"
        return values, datasets.List(datasets.Value(kind))
    if all(isinstance(value, bool) for value in values):
        return values, datasets.Value("bool")
    whole = all(isinstance(value, int) for value in values)
    numbers = read_numbers(split, column, "B404", None, f"`{column}` in row {{row}} of {split.place}")
    if whole or (not split.typed and all(number.is_integer() for number in numbers)):
        return [int(value) for value in values] if whole else [int(n) for n in numbers], datasets.Value("int64")
    return numbers, datasets.Value("float32")
