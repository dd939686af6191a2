"""Examples that may have several classes: lists of classes, lists of 0 and 1, or a column of 0 and 1 for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from brewgraph.data.sources.labels import (
    IDENTIFIERS,
    MOST,
    Classes,
    check_count,
    count_of,
    label_fault,
    place_of,
    put_in_order,
    unknown_class,
)
from brewgraph.data.sources.rows import Split
from brewgraph.diagnostics import SourceFault

_NUMBERS = (
    "or the numbers of classes, whole numbers from 0 on and each once; or 0 or 1 for each class, equally many in "
    "every row"
)


def find_several(
    train: Split, columns: Sequence[str], said: Sequence[str] | None = None, marks: bool | None = None
) -> Classes:
    """The classes of examples that may have several: those in one column's lists, or one for each of several columns.

    Lists of one length of two or more that hold 0 and 1 alone are marks, one for each class, as truth values and
    fractions are; where a spec names its classes (`said`), only lists of as many. Other numbers are those of classes.
    `marks` decides for 0 and 1, and rows may all be without a class: for rows like others that are known. Raises
    `SourceFault` B403.
    """
    if len(columns) > 1:
        return Classes(tuple(columns), named=True)
    rows = _lists(train, columns[0])
    values = [value for row in rows for value in row]
    if not values and said is not None and marks is not None:
        return Classes(tuple(said), named=False, marks=marks)
    if not values:
        raise label_fault(train, 1, "an empty list, as are all others", "some training row has a class")
    feature = _feature(train, columns[0])
    listed = isinstance(feature, datasets.ClassLabel)
    if not listed and not isinstance(values[0], str) and _are_marks(rows, said, marks):
        names = tuple(map(str, range(len(rows[0])))) if said is None else tuple(said)
        classes = Classes(names, named=False, marks=True)
        encode_several(train, columns, classes)  # every list of the same length
        return classes
    if said is not None and all(place_of(value, feature, said) is not None for value in set(values)):
        return Classes(tuple(said), named=True)
    if isinstance(values[0], str):
        return put_in_order(Classes(tuple(sorted(set(values))), named=True), said)
    for row, numbers in enumerate(rows, 1):
        _check_numbers(train, row, numbers)
    if isinstance(feature, datasets.ClassLabel):
        return put_in_order(Classes(tuple(feature.names), named=False), said)
    if said is not None:
        check_count(train, values, said)
        return Classes(tuple(said), named=False)
    if max(values) >= MOST:
        raise label_fault(train, 1, f"a list, and some list has {max(values)}", IDENTIFIERS)
    return Classes(tuple(str(number) for number in range(max(values) + 1)), named=False)


def encode_several(split: Split, columns: Sequence[str], classes: Classes) -> list[list[float]]:
    """For each row a 1 or a 0 for each class. Raises `SourceFault` B403."""
    if len(columns) > 1:
        return [list(row) for row in zip(*(_column_of_marks(split, column) for column in columns), strict=True)]
    feature = _feature(split, columns[0])
    found = []
    for row, values in enumerate(_lists(split, columns[0]), 1):
        if classes.marks:
            found.append(_marks(split, row, values, len(classes.names)))
            continue
        if not all(isinstance(value, str) for value in values):
            _check_numbers(split, row, values, below=not classes.named)
        marks = [0.0] * len(classes.names)
        for value in values:
            place = place_of(value, feature, classes.names) if classes.named else count_of(value, classes)
            if place is None:
                raise unknown_class(f"a label in row {row} of {split.place}", value, classes.names)
            marks[place] = 1.0
        found.append(marks)
    return found


def is_open(train: Split, columns: Sequence[str], classes: Classes) -> bool:
    """Whether marks could be numbers of classes: no list says 0 or 1 twice, and each would have both classes."""
    return classes.marks and all(
        sorted(row) == [0, 1] and isinstance(row[0], int) and not isinstance(row[0], bool)
        for row in _lists(train, columns[0])
    )


def _feature(split: Split, column: str) -> Any:
    """What the data says of the members of a column's lists."""
    return getattr(split.rows.features[column], "feature", None)


def _lists(split: Split, column: str) -> list[list[Any]]:
    """The lists of a column, each of texts or of numbers."""
    kinds: set[type] = set()
    rows: list[list[Any]] = split.rows[column][:]
    for row, value in enumerate(rows, 1):
        if not isinstance(value, list):
            raise label_fault(
                split, row, "missing" if value is None else f"{value!r}, and no list",
                "write a list of classes in json or jsonl, or name a column of 0 and 1 for each class: "
                "`label=[first, second]`",
            )  # fmt: skip
        kinds |= {type(x) for x in value}
        if not all(isinstance(x, str | int | float) for x in value) or len(kinds) > 1:
            raise label_fault(split, row, f"{value!r}", f"a list holds names of classes; {_NUMBERS}")
    return rows


def _are_marks(rows: Sequence[Sequence[Any]], said: Sequence[str] | None, known: bool | None) -> bool:
    """Whether lists of numbers say of each class whether it is right, and do not number the classes that are.

    Truth values and fractions do; of other numbers it may be `known`.
    """
    if not isinstance(next(value for row in rows for value in row), int) or any(
        isinstance(value, bool) for row in rows for value in row
    ):
        return True
    if known is not None:
        return known
    widths = {len(row) for row in rows}
    width = widths.pop()
    even = not widths and width > 1 and all(value in (0, 1) for row in rows for value in row)
    return even and (said is None or width == len(said))


def _marks(split: Split, row: int, values: Sequence[Any], count: int) -> list[float]:
    if len(values) != count:
        help = "write as many numbers in every row, each 0 or 1; `classes` names as many"
        raise label_fault(split, row, f"{values!r}, and not 0 or 1 for each of {count} classes", help)
    if any(isinstance(x, str) or x not in (0, 1) for x in values):
        raise label_fault(
            split, row, f"{values!r}", "fractions are 1 where a class is right, else 0; numbers of classes are whole"
        )
    return [float(x) for x in values]


def _check_numbers(split: Split, row: int, values: Sequence[Any], *, below: bool = True) -> None:
    """Raise B403 for what does not number classes, from 0 on unless they are named as they are written."""
    whole = all(isinstance(x, int) and not isinstance(x, bool) and not (below and x < 0) for x in values)
    if not whole or len(set(values)) < len(values):
        raise label_fault(split, row, f"{values!r}", f"a list holds names of classes; {_NUMBERS}")


def _column_of_marks(split: Split, column: str) -> list[float]:
    """A column of 0 and 1."""
    values = split.rows[column][:]
    for row, value in enumerate(values, 1):
        if value not in (0, 1, "0", "1", "0.0", "1.0"):
            said = "missing" if value is None or value == "" else repr(value)
            raise SourceFault(
                "B403",
                f"`{column}` in row {row} of {split.place} is {said}",
                help="a column of one class of several holds 0 or 1",
                field="label",
            )
    return [float(value) for value in values]
