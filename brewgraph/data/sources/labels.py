"""Labels as numbers: which classes a column of labels holds, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from brewgraph.data.sources.rows import Split
from brewgraph.diagnostics import SourceFault, listing, suggest

_SHOWN = 12
"""How many classes a help text lists at most."""

MOST = 1_000_000
"""Classes that a column of numbers may make; more are no classes but identifiers."""
IDENTIFIERS = "is this a column of identifiers?"
NO_LABELS = "; `label=none` where there are no labels"
"""What a spec can say of data without labels, behind the help on labels that are missing."""


@dataclass(frozen=True)
class Classes:
    """The classes in the order of their numbers; `named` tells whether labels are found by their text among `names`.

    Where they are not, a label is a number and counts them. With `marks` a label is a list of 0 and 1, one per class.
    """

    names: tuple[str, ...]
    named: bool
    marks: bool = False


def find_classes(train: Split, column: str, said: Sequence[str] | None = None) -> Classes:
    """The classes of the training rows: text in alphabetical order, numbers from 0 to the largest.

    Numbers take their names from the data's own list (`datasets.ClassLabel`), else `0`, `1`, … `said` are those of the
    spec, in its order. Where they hold every label as it is written (`100`, `-1`, `true`, a name of the data's list),
    labels are found by that; else numbers count them from 0. Raises `SourceFault` B403.
    """
    feature = train.rows.features[column]
    values = _present(train, column)
    numbers = _numbers(train, values)
    if said is not None and all(
        place_of(value, feature, said, numbers.get(value)) is not None for value in dict.fromkeys(values)
    ):
        return Classes(tuple(said), named=True)
    values = _checked(train, values, by_name=not isinstance(feature, datasets.ClassLabel))
    if isinstance(values[0], str):
        return put_in_order(Classes(tuple(sorted(set(values))), named=True), said)
    if isinstance(feature, datasets.ClassLabel):
        return put_in_order(Classes(tuple(feature.names), named=False), said)
    if isinstance(values[0], bool):
        return put_in_order(Classes(("false", "true"), named=False), said)
    if said is not None:
        check_count(train, values, said)
        return Classes(tuple(said), named=False)
    largest = max(values)
    if largest >= MOST:
        row = values.index(largest) + 1
        raise label_fault(train, row, f"{largest}, which makes {largest + 1} classes", IDENTIFIERS)
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
        raise SourceFault("B403", message, help=f"name every class; the data's are {_some(found.names)}",
                          field="classes")  # fmt: skip
    return Classes(tuple(said), found.named)


def check_count(train: Split, numbers: Sequence[int], said: Sequence[str]) -> None:
    """Raise B403 where numbers that count the classes from 0 go beyond those that a spec names."""
    there = sorted(set(numbers))
    if there[-1] < len(said):
        return
    written = [number for number in there if str(number) not in said]
    if len(written) < len(there):
        message = (
            f"`classes` leaves out {listing([str(number) for number in written[:_SHOWN]])}, which training rows have"
        )
        help = f"name every class; the data's are {_some([str(number) for number in there])}"
    else:
        counted = f"{len(said)}, counted from 0 to {len(said) - 1}"
        message = f"{train.place} has the label {there[-1]}, and `classes` names {counted}"
        help = f"where labels count from {there[0]}, subtract {there[0]} from each; or " if there[0] else ""
        help += f"name the labels as they are written: classes=[{_quoted([str(n) for n in there])}]"
    raise SourceFault("B403", message, help=help, field="classes")


def encode_labels(split: Split, column: str, classes: Classes) -> list[int]:
    """The number of each row's class. Raises `SourceFault` B403 for a label that is not among `classes`."""
    feature = split.rows.features[column]
    values = _present(split, column)
    if not classes.named:
        values = _checked(split, values)
    numbers = _numbers(split, values) if classes.named else {}
    places: dict[Any, int | None] = {}
    for row, value in enumerate(values, 1):
        if value not in places:
            places[value] = (
                place_of(value, feature, classes.names, numbers.get(value))
                if classes.named
                else count_of(value, classes)
            )
        if places[value] is not None:
            continue
        text = isinstance(value, str)
        if not classes.named if text else not all(map(_reads_as_number, classes.names)):
            raise label_fault(
                split, row, f"{value!r} where the training rows have {'numbers' if text else 'text'}",
                "write the labels of all splits in the same way",
            )  # fmt: skip
        raise unknown_class(f"the label in row {row} of {split.place}", value, classes.names)
    return [number for value in values if (number := places[value]) is not None]


def place_of(value: Any, feature: Any, names: Sequence[str], number: Any = None) -> int | None:
    """The place of a label among names, as it is written; None where it is none of them.

    A truth value is written `true` or `false`, a whole number without a point, a number of the data's own list by its
    name there. A text of a column that holds numbers may be found by its `number`, too: `1.0` by `1`.
    """
    written = [value]
    if isinstance(feature, datasets.ClassLabel) and isinstance(value, int):
        written = [feature.names[value]] if 0 <= value < len(feature.names) else []
    elif isinstance(value, bool):
        written = [str(value).lower()]
    elif isinstance(value, str):
        written += [str(number)] if number is not None else []
    elif math.isfinite(value):
        written = [str(int(value) if value == int(value) else value)]
    return next((names.index(text) for text in written if text in names), None)


def count_of(value: Any, classes: Classes) -> int | None:
    """The place of a label that counts the classes from 0; None where it counts beyond them, or is text."""
    return int(value) if not isinstance(value, str) and value < len(classes.names) else None


def _reads_as_number(name: str) -> bool:
    return not isinstance(_as_numbers([name])[0], str)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return listing(list(names[:_SHOWN])) + more


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def unknown_class(what: str, value: Any, classes: Sequence[str], field: str = "label") -> SourceFault:
    """The fault of a label that no training row has; `what` says where it stands."""
    guess = suggest(value, classes) if isinstance(value, str) else ""
    help = f"{guess} the classes are {_some(classes)}".strip()
    return SourceFault("B403", f"{what} is {value!r}, which no training row has", help=help, field=field)


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
            if isinstance(value, list) and field == "label":
                help = "a regression predicts one number for each row: name a column of single numbers"
            raise SourceFault(code, f"{what.format(row=row)} is {said}", help=help, field=field) from None
        found.append(number)
    return found


# ── one class ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _present(split: Split, column: str) -> list[Any]:
    """A column of labels as they stand there, texts or numbers, none of them missing."""
    values: list[Any] = split.rows[column][:]
    for row, value in enumerate(values, 1):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise label_fault(split, row, "missing", f"fill it in or leave the row out{NO_LABELS}")
        if not isinstance(value, str | int | float):
            several = '; of several at once: problem_type="multi_label"' if isinstance(value, list) else ""
            raise label_fault(split, row, f"{value!r}", f"a label is a text or a whole number from 0 on{several}")
    return values


def _checked(split: Split, values: Sequence[Any], *, by_name: bool = False) -> list[Any]:
    """Labels, each checked by itself: all text, or all whole numbers from 0 on.

    Where the format has no types, labels that are all written as numbers are such. `by_name` tells whether a spec may
    name them instead.
    """
    values = list(values) if split.typed else _as_numbers(values)
    text = isinstance(values[0], str)
    for row, value in enumerate(values, 1):
        if isinstance(value, str) is not text:
            raise label_fault(
                split,
                row,
                f"{value!r} where row 1 has {values[0]!r}",
                "labels are all text or all numbers",
            )
        if not text and (not math.isfinite(value) or value != int(value) or value < 0):
            help = "a label that is a number is whole, and counts classes from 0 on"
            if by_name and all(isinstance(x, int | float) and math.isfinite(x) and x == int(x) for x in values):
                there = _quoted([str(x) for x in sorted({int(x) for x in values})])
                help += f"; or name the labels as they are written: classes=[{there}]"
            elif any(isinstance(x, float) and math.isfinite(x) and x != int(x) for x in values):
                help = f'write problem_type="regression" where labels are quantities to predict; for classes, {help}'
            raise label_fault(split, row, f"{value!r}", help)
    return [int(value) if isinstance(value, float) else value for value in values]


def _as_numbers(values: Sequence[str]) -> list[Any]:
    """Labels of a format without types: numbers where every one is written as programs write a number, all of them
    whole (`0`, `12`, `-1`) or all with a point (`0.0`, `2.5`). Else text, so that no two labels become one: `01`, `+1`,
    ` 1`, `1e3`, `1.0` beside `1`.
    """
    for number in (int, float):
        try:
            numbers = [number(value) for value in values]
            plain = all(math.isfinite(x) and str(x) == value for x, value in zip(numbers, values, strict=True))
        except (ValueError, OverflowError):
            continue
        if plain and not any("e" in value or value == "-0.0" for value in values):
            return [int(x) if x == int(x) else x for x in numbers]
    return list(values)


def _numbers(split: Split, values: Sequence[Any]) -> dict[Any, Any]:
    """The number that each text of a column is, where the format has no types and the column holds numbers."""
    if split.typed:
        return {}
    return {text: x for text, x in zip(values, _as_numbers(values), strict=True) if not isinstance(x, str)}


def label_fault(split: Split, row: int, what: str, help: str) -> SourceFault:
    """The fault of one label; `what` says what it is."""
    return SourceFault("B403", f"the label in row {row} of {split.place} is {what}", help=help, field="label")
