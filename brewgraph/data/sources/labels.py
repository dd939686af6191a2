"""Labels, weights and other columns as numbers: the classes of a column, one or several per row, and their faults."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import datasets
from datasets.features.features import FeatureType

from brewgraph.data.sources.rows import Split, value_text
from brewgraph.diagnostics import MOST_NAMES, SourceFault, few, listing, shortened, suggest
from brewgraph.recipe.label_types import Form, LabelType
from brewgraph.recipe.settings.data_sources import DataSource

Label = str | int | float
"""A label as its source holds it; truth values are `int`."""

_MOST = 1_000_000
"""Classes that a column of numbers may make; more are no classes but identifiers."""
_LARGEST = 3.4028234663852886e38
"""The largest number of 32 bits, in which labels and weights are computed with."""
LONGEST_NAME = 1_000
"""Characters of the name of a class."""
NO_LABELS = "; `label=none` where there are no labels"
"""What a spec can say of data without labels, added to the help on missing labels."""
_NUMBERS = (
    "or the numbers of classes, whole numbers from 0 on and each once; or 0 or 1 for each class, equally many in "
    "every row"
)


@dataclass(frozen=True)
class Labelling:
    """The labels of every split as numbers, with their feature; no values for a source without labels. `marks` is as in
    `Examples`.
    """

    classes: tuple[str, ...]
    values: Mapping[str, list[int] | list[float] | list[list[float]]]
    feature: FeatureType = None
    notes: tuple[str, ...] = ()
    marks: bool | None = None

    def numbers(self, split: str) -> list[int]:
        """The number of each row's class, where rows have one."""
        return [value for value in self.values.get(split, ()) if isinstance(value, int)]


@dataclass(frozen=True)
class Classes:
    """The classes in the order of their numbers; with `by_name` labels are looked up among `names`.

    Otherwise a label is a number and counts them. With `marks` a label is a list of 0 and 1, one per class.
    """

    names: tuple[str, ...]
    by_name: bool
    marks: bool = False

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each class."""
        return places_of(self.names)

    def place(self, value: Label, feature: FeatureType, number: Label | None = None) -> int | None:
        """The place of a label; None where it is none of them."""
        if self.by_name:
            return place_of(value, feature, self.places, number)
        return int(value) if not isinstance(value, str) and value < len(self.names) else None


def encode_labels(
    label_type: LabelType,
    splits: Mapping[str, Split],
    columns: Sequence[str],
    asked: Sequence[str] | None = None,
    marks: bool | None = None,
) -> Labelling:
    """The labels in the `columns` of every split; `asked` are the classes of the spec. Raises `SourceFault` B403."""
    if not columns:
        return Labelling((), {})
    train = splits["train"]
    if label_type.form is Form.NUMBER:
        values = {
            field: read_numbers(split, columns[0], "B403", "label", f"the label in row {{row}} of {split.place}")
            for field, split in splits.items()
        }
        return Labelling((), values, datasets.Value("float32"))
    if label_type.form is Form.CLASSES:
        several = _find_several(train, columns, asked, marks)
        rows = {field: _encode_several(split, columns, several) for field, split in splits.items()}
        notes: tuple[str, ...] = ()
        # no list says 0 or 1 twice: each could have both classes
        lists = _lists(train, columns[0]) if marks is None and several.marks else []
        if lists and all(sorted(row) == [0, 1] and type(row[0]) is int for row in lists):
            forms = f"every label in {train.place} is [0, 1] or [1, 0]"
            notes = (f"{forms}: read as 0 or 1 for each of two classes, not as the numbers of both",)
        feature = datasets.List(datasets.Value("float32"))
        return Labelling(several.names, rows, feature, notes, None if several.by_name else several.marks)
    classes = _find_classes(train, columns[0], asked)
    numbers = {field: _encode_single(split, columns[0], classes) for field, split in splits.items()}
    return Labelling(classes.names, numbers, datasets.Value("int64"))


def _find_classes(train: Split, column: str, asked: Sequence[str] | None) -> Classes:
    """The classes of the training rows: text in alphabetical order, numbers from 0 to the largest.

    Numbers take their names from the data's own list (`datasets.ClassLabel`), else `0`, `1`, … `asked` are the classes
    of the spec, in its order. Where they hold every label in its written form (`100`, `-1`, `true`, a name of the
    data's list), labels are looked up by that; otherwise numbers count them from 0. Raises `SourceFault` B403.
    """
    feature = train.rows.features[column]
    values = _present(train, column)
    numbers = _numbers(train, values)
    places = places_of(asked or ())
    if asked is not None and all(
        place_of(value, feature, places, numbers.get(value)) is not None for value in dict.fromkeys(values)
    ):
        return Classes(tuple(asked), by_name=True)
    checked = _checked(train, values, by_name=not isinstance(feature, datasets.ClassLabel))
    return _classes_of(train, [[value] for value in checked], feature, asked)


def _find_several(train: Split, columns: Sequence[str], asked: Sequence[str] | None, marks: bool | None) -> Classes:
    """The classes of examples that may have several: those in one column's lists, or one for each of several columns.

    Lists of one length of two or more that hold only 0 and 1 are marks, one for each class, and so are truth values and
    fractions; where the spec names its classes (`asked`), only lists of that length. Other numbers are those of
    classes. `marks` decides for 0 and 1 where it is already known; all rows may then be without a class. Raises
    `SourceFault` B403.
    """
    if len(columns) > 1:
        return Classes(tuple(columns), by_name=True)
    rows = _lists(train, columns[0])
    values = [value for row in rows for value in row]
    if not values and asked is not None and marks is not None:
        return Classes(tuple(asked), by_name=False, marks=marks)
    if not values:
        raise label_fault(train, 1, "an empty list, as are all others", "some training row has a class")
    feature = _member_feature(train, columns[0])
    listed = isinstance(feature, datasets.ClassLabel)
    if not listed and not isinstance(values[0], str) and _are_marks(rows, asked, marks):
        names = tuple(map(str, range(len(rows[0])))) if asked is None else tuple(asked)
        classes = Classes(names, by_name=False, marks=True)
        _encode_several(train, columns, classes)  # every list of the same length
        return classes
    places = places_of(asked or ())
    if asked is not None and all(place_of(value, feature, places) is not None for value in set(values)):
        return Classes(tuple(asked), by_name=True)
    if not isinstance(values[0], str):
        for row, numbers in enumerate(rows, 1):
            _check_numbers(train, row, numbers)
    return _classes_of(train, rows, feature, asked)


def _classes_of(
    train: Split, rows: Sequence[Sequence[Label]], feature: FeatureType, asked: Sequence[str] | None
) -> Classes:
    """The classes of checked labels, those of each row in a list."""
    values = [value for row in rows for value in row]
    numbers = [value for value in values if isinstance(value, int)]
    if not numbers:
        return put_in_order(Classes(tuple(sorted({str(value) for value in values})), by_name=True), asked)
    if isinstance(feature, datasets.ClassLabel):
        return put_in_order(Classes(tuple(feature.names), by_name=False), asked)
    if isinstance(values[0], bool):
        return put_in_order(Classes(("false", "true"), by_name=False), asked)
    if asked is not None:
        _check_count(train, numbers, asked)
        return Classes(tuple(asked), by_name=False)
    largest = max(numbers)
    if largest >= _MOST:
        row = next(row for row, labels in enumerate(rows, 1) if largest in labels)
        help = "is this a column of identifiers?"
        raise label_fault(train, row, f"{largest}, which makes {largest + 1} classes", help)
    return Classes(tuple(str(number) for number in range(largest + 1)), by_name=False)


def put_in_order(classes: Classes, asked: Sequence[str] | None) -> Classes:
    """The classes in the order of a spec, which may name more than the data has. Numbers 0, 1, … take names in turn.

    Raises `SourceFault` B403 where one of the data's is left out.
    """
    if asked is None:
        return classes
    if classes.by_name:
        missing = [name for name in classes.names if name not in asked]
    else:
        missing = list(classes.names[len(asked) :])
    if missing:
        raise _left_out(missing, classes.names)
    return Classes(tuple(asked), classes.by_name)


def _left_out(missing: Sequence[str], names: Sequence[str]) -> SourceFault:
    message = f"`classes` leaves out {listing(missing, MOST_NAMES)}, which training rows have"
    help = f"name every class; the data's are {listing(names, MOST_NAMES)}"
    return SourceFault("B403", message, help=help, field="classes")


def _check_count(train: Split, numbers: Sequence[int], asked: Sequence[str]) -> None:
    """Raise B403 where numbers that count the classes from 0 go beyond those that a spec names."""
    distinct = sorted(set(numbers))
    if distinct[-1] < len(asked):
        return
    texts = [str(number) for number in distinct]
    missing = [text for text in texts if text not in asked]
    if len(missing) < len(texts):
        raise _left_out(missing, texts)
    counted = f"{len(asked)}, counted from 0 to {len(asked) - 1}"
    message = f"{train.place} has the label {distinct[-1]}, and `classes` names {counted}"
    help = f"where labels count from {distinct[0]}, subtract {distinct[0]} from each; or " if distinct[0] else ""
    help += f"name the labels as they are written: classes=[{_quoted(texts)}]"
    raise SourceFault("B403", message, help=help, field="classes")


def _encode_single(split: Split, column: str, classes: Classes) -> list[int]:
    """The number of each row's class. Raises `SourceFault` B403 for a label that is not among `classes`."""
    feature = split.rows.features[column]
    values: Sequence[Label] = _present(split, column)
    if not classes.by_name:
        values = _checked(split, values)
    numbers = _numbers(split, values) if classes.by_name else {}
    places: dict[Label, int | None] = {}
    for row, value in enumerate(values, 1):
        if value not in places:
            places[value] = classes.place(value, feature, numbers.get(value))
        if places[value] is not None:
            continue
        text = isinstance(value, str)
        if not classes.by_name if text else any(isinstance(_as_numbers([name])[0], str) for name in classes.names):
            what = f"{value_text(value)} where the training rows have {'numbers' if text else 'text'}"
            raise label_fault(split, row, what, "write the labels of all splits in the same way")
        raise unknown_class(f"the label in row {row} of {split.place}", value, classes.names)
    return [number for value in values if (number := places[value]) is not None]


def _encode_several(split: Split, columns: Sequence[str], classes: Classes) -> list[list[float]]:
    """For each row a 1 or a 0 for each class. Raises `SourceFault` B403."""
    if len(columns) > 1:
        return [list(row) for row in zip(*(_column_of_marks(split, column) for column in columns), strict=True)]
    feature = _member_feature(split, columns[0])
    encoded = []
    for row, values in enumerate(_lists(split, columns[0]), 1):
        if classes.marks:
            encoded.append(_marks(split, row, values, len(classes.names)))
            continue
        if not all(isinstance(value, str) for value in values):
            _check_numbers(split, row, values, below=not classes.by_name)
        marks = [0.0] * len(classes.names)
        for value in values:
            place = classes.place(value, feature)
            if place is None:
                raise unknown_class(f"a label in row {row} of {split.place}", value, classes.names)
            marks[place] = 1.0
        encoded.append(marks)
    return encoded


def place_of(value: Label, feature: FeatureType, places: Mapping[str, int], number: Label | None = None) -> int | None:
    """The place of a label by its written form, given that of each name; None where it is none of them.

    A truth value is written `true` or `false`, a whole number without a point, a number of the data's own list by its
    name there. A text of a column that holds numbers may also be named by its `number`: `1.0` by `1`.
    """
    if isinstance(feature, datasets.ClassLabel) and isinstance(value, int):
        forms = [feature.names[value]] if 0 <= value < len(feature.names) else []
    elif isinstance(value, bool):
        forms = [str(value).lower()]
    elif isinstance(value, str):
        forms = [value] if number is None else [value, str(number)]
    else:
        forms = [str(int(value) if value == int(value) else value)] if math.isfinite(value) else []
    return next((places[form] for form in forms if form in places), None)


def places_of(names: Sequence[str]) -> dict[str, int]:
    """The place of each name."""
    return {name: place for place, name in enumerate(names)}


def _quoted(names: Sequence[str]) -> str:
    return few((f'"{shortened(name)}"' for name in names), MOST_NAMES)


def unknown_class(what: str, value: object, classes: Sequence[str], field: str = "label") -> SourceFault:
    """The fault of a label that no training row has; `what` names its place."""
    guess = suggest(value, classes) if isinstance(value, str) else ""
    help = f"{guess} the classes are {listing(classes, MOST_NAMES)}".strip()
    return SourceFault("B403", f"{what} is {value_text(value)}, which no training row has", help=help, field=field)


def label_fault(split: Split, row: int, what: str, help: str) -> SourceFault:
    """The fault of one label; `what` describes it."""
    return SourceFault("B403", f"the label in row {row} of {split.place} is {what}", help=help, field="label")


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_numbers(split: Split, column: str, code: str, field: str | None, what: str) -> list[float]:
    """A column of finite numbers; numbers written as text count where the format has no types.

    `what` names the value in a fault, with `{row}` in place of its row.
    """
    numbers = []
    for row, value in enumerate(split.rows[column][:], 1):
        number = None
        try:
            if value is None or value == "" or (isinstance(value, str) and split.typed):
                raise ValueError
            number = float(value)
            if not abs(number) <= _LARGEST:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            fault = "missing" if value is None or value == "" else f"{value_text(value)}, and no finite number"
            fault += (
                f" of 32 bits (at most {_LARGEST:.1e})" if isinstance(number, float) and math.isfinite(number) else ""
            )
            help = "write a number, or remove the row"
            if isinstance(value, list) and field == "label":
                help = "a regression predicts one number for each row: name a column of single numbers"
            raise SourceFault(code, f"{what.format(row=row)} is {fault}", help=help, field=field) from None
        numbers.append(number)
    return numbers


# ── one class ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _present(split: Split, column: str) -> list[Label]:
    """A column of labels, texts or numbers, none of them missing."""
    values: list[Label] = split.rows[column][:]
    for row, value in enumerate(values, 1):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise label_fault(split, row, "missing", f"fill it in or remove the row{NO_LABELS}")
        if not isinstance(value, str | int | float):
            several = '; of several at once: problem_type="multi_label"' if isinstance(value, list) else ""
            raise label_fault(split, row, value_text(value), f"a label is a text or a whole number from 0 on{several}")
        if isinstance(value, str) and len(value) > LONGEST_NAME:
            what, help = f"a text of {len(value):,} characters", "a class has a name: name another column with `label=`"
            raise label_fault(split, row, what, help)
    return values


def _checked(split: Split, values: Sequence[Label], *, by_name: bool = False) -> list[str] | list[int]:
    """Labels that are all text, or all whole numbers from 0 on.

    Where the format has no types, texts that are all written as numbers are numbers. `by_name` tells whether a spec may
    name them instead.
    """
    values = values if split.typed else _as_numbers([str(value) for value in values])
    numbers = []
    for row, value in enumerate(values, 1):
        if isinstance(value, str) != isinstance(values[0], str):
            what = f"{value_text(value)} where row 1 has {value_text(values[0])}"
            raise label_fault(split, row, what, "labels are all text or all numbers")
        if isinstance(value, str):
            continue
        if not _is_whole(value) or value < 0:
            finite = [x for x in values if not isinstance(x, str) and math.isfinite(x)]
            help = "a label that is a number is whole, and counts classes from 0 on"
            if by_name and len(finite) == len(values) and all(map(_is_whole, finite)):
                names = _quoted([str(x) for x in sorted({int(x) for x in finite})])
                help += f"; or name the labels as they are written: classes=[{names}]"
            elif not all(map(_is_whole, finite)):
                help = f'write problem_type="regression" where labels are quantities to predict; for classes, {help}'
            raise label_fault(split, row, value_text(value), help)
        numbers.append(int(value) if isinstance(value, float) else value)
    return numbers or [str(value) for value in values]


def _is_whole(value: float) -> bool:
    return math.isfinite(value) and value == int(value)


def _as_numbers(values: Sequence[str]) -> Sequence[Label]:
    """Labels of a format without types: numbers where every one is written as programs write a number, all of them
    whole (`0`, `12`, `-1`) or all with a point (`0.0`, `2.5`). Else text, so that no two labels become one: `01`, `+1`,
    ` 1`, `1e3`, `1.0` beside `1`.
    """
    for number in (int, float):
        try:
            numbers = [number(value) for value in values]
            exact = all(math.isfinite(x) and str(x) == value for x, value in zip(numbers, values, strict=True))
        except (ValueError, OverflowError):
            continue
        if exact and not any("e" in value or value == "-0.0" for value in values):
            return [int(x) if x == int(x) else x for x in numbers]
    return values


def _numbers(split: Split, values: Sequence[Label]) -> Mapping[Label, Label]:
    """The number that each text of a column is, where the format has no types and the column holds numbers."""
    if split.typed:
        return {}
    texts = [str(value) for value in values]
    return {text: x for text, x in zip(texts, _as_numbers(texts), strict=True) if not isinstance(x, str)}


# ── several classes ──────────────────────────────────────────────────────────────────────────────────────────────────


def _member_feature(split: Split, column: str) -> FeatureType:
    """The feature of the members of a column's lists."""
    return getattr(split.rows.features[column], "feature", None)


def _lists(split: Split, column: str) -> list[list[Label]]:
    """The lists of a column, each of texts or of numbers."""
    kinds: set[type] = set()
    rows: list[list[Label]] = split.rows[column][:]
    for row, value in enumerate(rows, 1):
        if not isinstance(value, list):
            what = "missing" if value is None else f"{value_text(value)}, and no list"
            help = "write a list of classes in json or jsonl, or name a column of 0 and 1 for each class: "
            raise label_fault(split, row, what, help + "`label=[first, second]`")
        kinds |= {type(x) for x in value}
        if not all(isinstance(x, str | int | float) for x in value) or len(kinds) > 1:
            raise label_fault(split, row, value_text(value), f"a list holds names of classes; {_NUMBERS}")
    return rows


def _are_marks(rows: Sequence[Sequence[Label]], asked: Sequence[str] | None, decided: bool | None) -> bool:
    """Whether lists of numbers say of each class whether it is right, instead of numbering the classes that are.

    Truth values and fractions do; for other numbers it may be `decided`.
    """
    values = [value for row in rows for value in row]
    if not isinstance(values[0], int) or any(isinstance(value, bool) for value in values):
        return True
    if decided is not None:
        return decided
    widths = {len(row) for row in rows}
    width = widths.pop()
    even = not widths and width > 1 and all(value in (0, 1) for value in values)
    return even and (asked is None or width == len(asked))


def _marks(split: Split, row: int, values: Sequence[Label], count: int) -> list[float]:
    if len(values) != count:
        help = "write as many numbers in every row, each 0 or 1; `classes` names as many"
        raise label_fault(split, row, f"{values!r}, and not 0 or 1 for each of {count} classes", help)
    if any(isinstance(x, str) or x not in (0, 1) for x in values):
        help = "fractions are 1 where a class is right, else 0; numbers of classes are whole"
        raise label_fault(split, row, f"{values!r}", help)
    return [float(x) for x in values]


def _check_numbers(split: Split, row: int, values: Sequence[Label], *, below: bool = True) -> None:
    """Raise B403 for labels that do not number classes; with `below`, negative numbers do not."""
    whole = all(isinstance(x, int) and not isinstance(x, bool) and not (below and x < 0) for x in values)
    if not whole or len(set(values)) < len(values):
        raise label_fault(split, row, f"{values!r}", f"a list holds names of classes; {_NUMBERS}")


def _column_of_marks(split: Split, column: str) -> list[float]:
    """A column of 0 and 1."""
    values = split.rows[column][:]
    for row, value in enumerate(values, 1):
        if value not in (0, 1, "0", "1", "0.0", "1.0"):
            what = "missing" if value in (None, "") else value_text(value)
            message = f"`{column}` in row {row} of {split.place} is {what}"
            raise SourceFault("B403", message, help="a column of one class of several holds 0 or 1", field="label")
    return [float(value) for value in values]


# ── weights, and other columns that a spec names ─────────────────────────────────────────────────────────────────────


_RESERVED = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "index", "offsets", "words", "start", "end", "null", "first"}
)
"""The names of a batch's own tensors, which no column can have."""


def weights_of_classes(source: DataSource, train: Sequence[int], classes: Sequence[str]) -> list[float] | None:
    """A weight for each class, or None. `balanced` is rows / (classes x rows of the class), as scikit-learn has it.

    A class without a training row weighs 1. Raises `SourceFault` B403 for a list of another length.
    """
    asked: Literal["balanced"] | tuple[float, ...] | None = getattr(source, "class_weights", None)
    if asked is None:
        return None
    if asked == "balanced":
        counts = Counter(train)
        return [len(train) / (len(classes) * counts[n]) if counts[n] else 1.0 for n in range(len(classes))]
    if len(asked) != len(classes):
        message = f"there are {len(asked)} weights for {len(classes)} classes"
        help = f"one for each, in the order {listing(classes, MOST_NAMES)}"
        raise SourceFault("B403", message, help=help, field="class_weights")
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

    A row weighs what its column says times what its class weighs, by the class's number (`numbers`). Only training rows
    need the column: others weigh 1 without it. Raises `SourceFault` B402, B403 and B404.
    """
    if source.weighted:
        weights = [1.0] * len(rows)
        column: str | None = getattr(source, "weight", None)
        if column is not None and (field == "train" or column in split.rows.column_names):
            split.require(column, "weight")
            weights = read_numbers(split, column, "B403", "weight", f"the weight in row {{row}} of {split.place}")
            for row, weight in enumerate(weights, 1):
                if weight < 0:
                    message = f"the weight in row {row} of {split.place} is {weight:g}"
                    raise SourceFault("B403", message, help="a weight is zero or above", field="weight")
        if of_classes is not None:
            weights = [weight * of_classes[number] for weight, number in zip(weights, numbers, strict=True)]
        rows = rows.add_column("weights", weights, feature=datasets.Value("float32"))
    for name in columns:
        values, feature = _read_column(split, name)
        rows = rows.add_column(f"column/{name}", values, feature=feature)
    return rows


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
                what = "missing" if value is None else value_text(value)
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
