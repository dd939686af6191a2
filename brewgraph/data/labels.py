"""Labels as numbers: which classes a column of labels holds, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from brewgraph.data.reading import Split
from brewgraph.diagnostics import SourceFault, listing, suggest

_SHOWN = 12
"""How many classes a help text lists at most."""

_MOST = 1_000_000
"""Classes that a column of numbers may make; more are no classes but identifiers."""


@dataclass(frozen=True)
class Classes:
    """The classes in the order of their numbers; `named` tells whether the data has them as text."""

    names: tuple[str, ...]
    named: bool


def find_classes(train: Split, column: str) -> Classes:
    """The classes of the training rows: text in alphabetical order, numbers from 0 to the largest.

    Numbers take their names from the data's own list (`datasets.ClassLabel`), else `0`, `1`, … Raises `SourceFault`
    B403.
    """
    values = _values(train, column)
    if isinstance(values[0], str):
        return Classes(tuple(sorted(set(values))), named=True)
    feature = train.rows.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return Classes(tuple(feature.names), named=False)
    if isinstance(values[0], bool):
        return Classes(("false", "true"), named=False)
    largest = max(values)
    if largest >= _MOST:
        row = values.index(largest) + 1
        raise _fault(train, row, f"{largest}, which makes {largest + 1} classes", "is this a column of identifiers?")
    return Classes(tuple(str(number) for number in range(largest + 1)), named=False)


def encode_labels(split: Split, column: str, classes: Classes) -> list[int]:
    """The number of each row's class. Raises `SourceFault` B403 for a label that is not among `classes`."""
    values = _values(split, column, named=classes.named)
    numbers = {name: number for number, name in enumerate(classes.names)}
    for row, value in enumerate(values, 1):
        if isinstance(value, str) is not classes.named:
            raise _fault(
                split, row, f"{value!r} where the training rows have {'text' if classes.named else 'numbers'}",
                "write the labels of all splits in the same way",
            )  # fmt: skip
        if value not in numbers if classes.named else value >= len(numbers):
            names = classes.names[:_SHOWN]
            more = f" and {len(classes.names) - _SHOWN} more" if len(classes.names) > _SHOWN else ""
            guess = suggest(value, classes.names) if classes.named else ""
            raise _fault(
                split,
                row,
                f"{value!r}, which no training row has",
                f"{guess} the classes are {listing(names)}{more}".strip(),
            )
    return [numbers[value] for value in values] if classes.named else [int(value) for value in values]


def _values(split: Split, column: str, *, named: bool = False) -> list[Any]:
    """A column of labels, each checked by itself: all text, or all whole numbers from 0 on.

    Where the format has no types, labels that all read as numbers are such, unless the classes are `named`.
    """
    values: list[Any] = split.rows[column][:]
    for row, value in enumerate(values, 1):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise _fault(split, row, "missing", "fill it in or leave the row out; `label=none` where no row has one")
        if not isinstance(value, str | int | float):
            raise _fault(split, row, f"{value!r}", "a label is a text or a whole number from 0 on")
    if not split.typed and not named:
        values = _as_numbers(values)
    text = isinstance(values[0], str)
    for row, value in enumerate(values, 1):
        if isinstance(value, str) is not text:
            raise _fault(
                split,
                row,
                f"{value!r} where row 1 has {values[0]!r}",
                "labels are all text or all numbers",
            )
        if not text and (not math.isfinite(value) or value != int(value) or value < 0):
            raise _fault(split, row, f"{value!r}", "a label that is a number is whole, and counts classes from 0 on")
    return [int(value) if isinstance(value, float) else value for value in values]


def _as_numbers(values: Sequence[str]) -> list[Any]:
    """Labels of a format without types: numbers where every one of them reads as a finite number, else text."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return list(values)
    if not all(math.isfinite(number) for number in numbers):
        return list(values)
    return [int(number) if number.is_integer() else number for number in numbers]


def _fault(split: Split, row: int, what: str, help: str) -> SourceFault:
    return SourceFault("B403", f"the label in row {row} of {split.place} is {what}", help=help, field="label")
