"""The examples of a data source: checked texts, labels as numbers, the same columns for every source."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy

from brewgraph.data.sources import conll, python_docs, squad, tables  # noqa: F401  they register their readers
from brewgraph.data.sources.reader import Contents, DataFacts, facts, read, unanswerable
from brewgraph.data.sources.rows import quiet
from brewgraph.diagnostics import SourceFault, listing
from brewgraph.recipe.settings.data_sources import DataSource, Join


@dataclass(frozen=True)
class Examples:
    """What a data source holds.

    `splits` maps `train`, and `dev` and `test` if the source has them, to data sets with `index` (int64, the row's
    number in its split from 0) and those of these columns that the source has:

    text_0, text_1   texts; of `squad` the question and its context, of `text` a line
    words            a list of texts, of `conll`
    label            int64 for one class, a list of 0 and 1 (float32, one per class) for several, float32 for a number
    tags             a list of int64, one for each word
    answers          {text: list of texts, start: list of int64}, characters of the context; empty lists for no answer
    id               the question's name
    weights          float32, how much the row counts
    column/NAME      each column that was requested

    `classes` are the names in the order of the labels. `fingerprint` is a sha256 in hex of texts, labels and classes,
    whatever the folder of the files. `notes` say what reading changed. `marks` tells of labels that are lists of
    numbers whether these are 0 or 1 for each class, or the numbers of classes; None for other labels.
    """

    splits: Mapping[str, datasets.Dataset]
    classes: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    marks: bool | None = None

    @property
    def has_unanswerable(self) -> bool:
        """Whether some question to train or evaluate on has no answer, so that no answer is one, as in SQuAD 2.0."""
        return any(unanswerable(self.splits[field]) for field in ("train", "dev") if field in self.splits)


def open_examples(source: DataSource, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Examples:
    """Read and check everything that `source` names; relative paths start at `folder`.

    `columns` are kept as `column/NAME`: numbers, truth values, or lists of them. `marks` is that of `Examples` to read
    these alike. Raises `SourceFault`: B401 a missing file, folder or split; B402 a column or subset; B403 labels; B404
    what cannot be read or is no text; B405 the hub; B406 too little text on this machine; B408 data that cannot be
    joined.
    """
    if isinstance(source, Join):
        return join_examples([open_examples(part, folder, columns) for part in source.parts])
    if columns and source.no_columns:
        what = f"`{type(source).__name__.lower()}` has no column `{columns[0]}`: {source.no_columns}"
        help = "columns come with rows: `files(…)`, `hub(…)`, `glue(…)`, `conll(…)`, `squad(…)`"
        raise SourceFault("B402", what, help=help)
    return _examples(read(source, folder, columns, marks))


def join_examples(parts: Sequence[Examples]) -> Examples:
    """Data sets one after the other: `dev` and `test` of those that have one, classes united by name.

    Raises `SourceFault` B408 where classes are numbers and differ, or columns do: pairs and single texts, labels of
    several kinds. Where some have weights, the rows of others weigh 1.
    """
    classes = unite_classes([part.classes for part in parts])
    splits = join_splits([(part.splits, part.classes) for part in parts], classes)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return _examples(Contents(splits, classes, notes=notes, marks=parts[0].marks))


@facts.register
def _joined_facts(source: Join, folder: Path) -> DataFacts:
    parts = [facts(part, folder) for part in source.parts]
    columns = [column for column in parts[0].columns if all(column in part.columns for part in parts)]
    fields = dict.fromkeys(field for part in parts for field in part.rows)
    rows = {field: sum(part.rows.get(field, 0) for part in parts) for field in fields if all(x.rows for x in parts)}
    classes = unite_classes([part.classes for part in parts])
    every = [part.seen for part in parts]
    seen = None if None in every else tuple(c for c in classes if any(c in (names or ()) for names in every))
    alike = seen is not None and len(set(every)) == 1 and all(part.alike for part in parts)
    twice = dict.fromkeys(column for part in parts for column in part.twice)
    counts = {field: sum(part.unanswerable.get(field, 0) for part in parts) for field in fields}
    lost = {field: count for field, count in counts.items() if count}
    longest = max(part.words for part in parts)
    return DataFacts(classes, tuple(columns), rows, tuple(twice), seen, alike, lost, longest)


def texts(examples: Examples) -> list[str]:
    """The training texts, to train a tokenizer on: each context once, the words of a sentence joined."""
    train = examples.splits["train"]
    if "words" in train.column_names:
        return [" ".join(words) for words in train["words"][:]]
    every = [text for column in train.column_names if column.startswith("text_") for text in train[column][:]]
    return list(dict.fromkeys(every)) if "answers" in train.column_names else every


def _examples(whole: Contents) -> Examples:
    numbered = {
        field: rows.add_column("index", numpy.arange(len(rows), dtype=numpy.int64))
        for field, rows in whole.splits.items()
    }
    return Examples(numbered, whole.classes, _fingerprint(numbered, whole.classes), whole.notes, whole.marks)


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


# ── joining ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
            for n, piece in enumerate(pieces):
                if "weights" not in piece.column_names:
                    pieces[n] = piece.add_column("weights", [1.0] * len(piece), feature=datasets.Value("float32"))
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
    place_of = {name: place for place, name in enumerate(classes)}
    places = numpy.array([place_of[name] for name in names], dtype=numpy.int64)
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
