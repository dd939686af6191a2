"""Labels as numbers: which classes a column of labels holds, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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


def put_in_order(found: Classes, said: Sequence[str] | None) -> Classes:
    """The classes as a spec orders them; it may name more than the data has. Numbers 0, 1, … take the names in turn.

    Raises `SourceFault` B403 where one of the data's is left out.
    """
    if said is None:
        return found
    missing = [name for name in found.names if name not in said] if found.named else list(found.names[len(said) :])
    if missing:
        message = f"`classes` leaves out {listing(missing[:_SHOWN])}, which training rows have"
        raise SourceFault("B403", message, help=f"name every class; the data's are {listing(found.names[:_SHOWN])}",
                          field="classes")  # fmt: skip
    return Classes(tuple(said), found.named)


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
            raise unknown_class(f"the label in row {row} of {split.place}", value, classes.names)
    return [numbers[value] for value in values] if classes.named else [int(value) for value in values]


def unknown_class(what: str, value: Any, classes: Sequence[str], field: str = "label") -> SourceFault:
    """The fault of a label that no training row has; `what` says where it stands."""
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    guess = suggest(value, classes) if isinstance(value, str) else ""
    help = f"{guess} the classes are {listing(classes[:_SHOWN])}{more}".strip()
    return SourceFault("B403", f"{what} is {value!r}, which no training row has", help=help, field=field)


# ── several classes ──────────────────────────────────────────────────────────────────────────────────────────────────


def find_several(train: Split, columns: Sequence[str]) -> Classes:
    """The classes of examples that may have several: those in one column's lists, or one for each of several columns.

    Raises `SourceFault` B403.
    """
    if len(columns) > 1:
        return Classes(tuple(columns), named=True)
    values = [value for row in _lists(train, columns[0]) for value in row]
    if not values:
        raise _fault(train, 1, "an empty list, as are all others", "some training row has a class")
    if isinstance(values[0], str):
        return Classes(tuple(sorted(set(values))), named=True)
    feature = getattr(train.rows.features[columns[0]], "feature", None)
    if isinstance(feature, datasets.ClassLabel):
        return Classes(tuple(feature.names), named=False)
    if max(values) >= _MOST:
        raise _fault(train, 1, f"a list, and some list has {max(values)}", "is this a column of identifiers?")
    return Classes(tuple(str(number) for number in range(max(values) + 1)), named=False)


def encode_several(split: Split, columns: Sequence[str], classes: Classes) -> list[list[float]]:
    """For each row a 1 or a 0 for each class. Raises `SourceFault` B403."""
    if len(columns) > 1:
        return [list(row) for row in zip(*(_marks(split, column) for column in columns), strict=True)]
    numbers: dict[Any, int] = {name if classes.named else n: n for n, name in enumerate(classes.names)}
    found = []
    for row, values in enumerate(_lists(split, columns[0]), 1):
        marks = [0.0] * len(classes.names)
        for value in values:
            if value not in numbers:
                raise unknown_class(f"a label in row {row} of {split.place}", value, classes.names)
            marks[numbers[value]] = 1.0
        found.append(marks)
    return found


def _lists(split: Split, column: str) -> Iterator[list[Any]]:
    """The lists of a column, each of texts or of whole numbers from 0 on."""
    kinds: set[type] = set()
    for row, value in enumerate(split.rows[column][:], 1):
        if not isinstance(value, list):
            raise _fault(
                split, row, "missing" if value is None else f"{value!r}, and no list",
                "write a list of classes in json or jsonl, or name a column of 0 and 1 for each class: "
                "`label=[first, second]`",
            )  # fmt: skip
        kinds |= {type(x) for x in value}
        sound = all(isinstance(x, str) or (isinstance(x, int) and not isinstance(x, bool) and x >= 0) for x in value)
        if not sound or len(kinds) > 1:
            raise _fault(split, row, f"{value!r}", "a list holds names of classes, or whole numbers from 0 on")
        yield value


def _marks(split: Split, column: str) -> list[float]:
    """A column of 0 and 1."""
    values = split.rows[column][:]
    for row, value in enumerate(values, 1):
        if value not in (0, 1, "0", "1"):
            said = "missing" if value is None or value == "" else repr(value)
            raise SourceFault(
                "B403",
                f"`{column}` in row {row} of {split.place} is {said}",
                help="a column of one class of several holds 0 or 1",
                field="label",
            )
    return [float(value) for value in values]


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def encode_numbers(split: Split, column: str) -> list[float]:
    """The labels of a regression. Raises `SourceFault` B403 for what is no finite number."""
    return read_numbers(split, column, "B403", "label", f"the label in row {{row}} of {split.place}")


def read_numbers(split: Split, column: str, code: str, field: str | None, what: str) -> list[float]:
    """A column of finite numbers; numbers written as text count where the format has no types.

    `what` says whose value is at fault, with the place of its `{row}`.
    """
    found = []
    for row, value in enumerate(split.rows[column][:], 1):
        try:
            if value is None or value == "" or (isinstance(value, str) and split.typed):
                raise ValueError
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
        except (TypeError, ValueError):
            said = "missing" if value is None or value == "" else f"{value!r}, and no finite number"
            help = "write a number, or leave the row out"
            raise SourceFault(code, f"{what.format(row=row)} is {said}", help=help, field=field) from None
        found.append(number)
    return found


# ── one class ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _values(split: Split, column: str, *, named: bool = False) -> list[Any]:
    """A column of labels, each checked by itself: all text, or all whole numbers from 0 on.

    Where the format has no types, labels that all read as numbers are such, unless the classes are `named`.
    """
    values: list[Any] = split.rows[column][:]
    for row, value in enumerate(values, 1):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise _fault(split, row, "missing", "fill it in or leave the row out; `label=none` where no row has one")
        if not isinstance(value, str | int | float):
            several = '; of several at once: problem_type="multi_label"' if isinstance(value, list) else ""
            raise _fault(split, row, f"{value!r}", f"a label is a text or a whole number from 0 on{several}")
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
