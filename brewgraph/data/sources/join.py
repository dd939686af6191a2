"""Data sets one after the other: classes united, splits joined; the caller numbers the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import datasets
import numpy

from brewgraph.data.sources.rows import quiet
from brewgraph.diagnostics import SourceFault, listing

Splits = Mapping[str, datasets.Dataset]


def unite_classes(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The classes of joined data: those of the first in their order, then what others name beside them.

    Raises `SourceFault` B408 where classes that are mere numbers are not as many everywhere, or are names elsewhere.
    """
    numbered = [names == tuple(map(str, range(len(names)))) for names in parts]
    if any(numbered) and len(set(parts)) > 1:
        kinds = " and ".join(
            f"{len(names)} that are numbers" if is_numbered else f"names like {listing(names[:3])}"
            for names, is_numbered in zip(parts, numbered, strict=True)
        )
        help = "write the labels as names, then they are brought together, or join data with the same classes"
        raise SourceFault("B408", f"the joined data sets have different classes: {kinds}", help=help)
    return tuple(dict.fromkeys(name for names in parts for name in names))


def join_splits(
    parts: Sequence[tuple[Splits, tuple[str, ...]]], classes: tuple[str, ...]
) -> dict[str, datasets.Dataset]:
    """Each split of those that have it, with labels as numbers of `classes`; without `index`.

    Raises `SourceFault` B408 where the columns differ: pairs and single texts, labels of several kinds.
    """
    joined = {}
    for field in ("train", "dev", "test"):
        pieces = [_prepared(splits[field], names, classes) for splits, names in parts if field in splits]
        if not pieces:
            continue
        if any("weights" in piece.column_names for piece in pieces):
            pieces = [_with_weights(piece) for piece in pieces]
        columns = [sorted(piece.column_names) for piece in pieces]
        other = next((names for names in columns if names != columns[0]), None)
        if other is not None:
            odd = sorted(set(other) ^ set(columns[0]))
            help = "join data with as many texts and labels of one kind; for several kinds, write tasks"
            raise SourceFault("B408", f"only some of the joined data have {_described(odd[0])}", help=help)
        features = _common(pieces)
        with quiet():
            joined[field] = datasets.concatenate_datasets(
                [piece.select_columns(list(features)).cast(features, keep_in_memory=True) for piece in pieces]
            )
    return joined


def _prepared(rows: datasets.Dataset, names: tuple[str, ...], classes: tuple[str, ...]) -> datasets.Dataset:
    rows = rows.remove_columns("index")
    if names == classes:
        return rows
    places = numpy.array([classes.index(name) for name in names], dtype=numpy.int64)
    if "tags" in rows.column_names:
        return _replaced(rows, "tags", [places[tags].tolist() for tags in rows["tags"][:]])
    if isinstance(rows.features["label"], datasets.Value):
        return _replaced(rows, "label", places[rows["label"][:]].tolist())
    marks = numpy.zeros((len(rows), len(classes)), dtype=numpy.float32)
    marks[:, places] = numpy.array(rows["label"][:], dtype=numpy.float32)
    return _replaced(rows, "label", marks.tolist())


def _replaced(
    rows: datasets.Dataset, column: str, values: list[int] | list[list[int]] | list[list[float]]
) -> datasets.Dataset:
    feature = rows.features[column]
    return rows.remove_columns(column).add_column(column, values, feature=feature)


def _with_weights(rows: datasets.Dataset) -> datasets.Dataset:
    if "weights" in rows.column_names:
        return rows
    return rows.add_column("weights", [1.0] * len(rows), feature=datasets.Value("float32"))


def _common(pieces: Sequence[datasets.Dataset]) -> datasets.Features:
    """Features that hold the values of all pieces: those of the first, numbers as fractions where kinds differ."""
    features = dict(pieces[0].features)
    for column, feature in features.items():
        if column.startswith("text_"):
            features[column] = datasets.Value("string")
        elif any(piece.features[column] != feature for piece in pieces):
            number = datasets.Value("float32")
            features[column] = datasets.List(number) if isinstance(feature, datasets.List) else number
    return datasets.Features(features)


def _described(column: str) -> str:
    names = {"text_1": "a second text", "label": "labels of this kind", "tags": "tags", "answers": "answers"}
    return names.get(column, f"a column `{column.removeprefix('column/')}`")
