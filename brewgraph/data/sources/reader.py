"""Readers of data: one per kind of source, registered by its settings.

    @read.register
    def read_lines(source: Lines, folder, columns, marks): ...

Adding a source is a settings class in `recipe/settings/data_sources.py` and a file beside this one that registers its
reader; `facts` has a reading of its own where facts are known without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.base import Settings
from brewgraph.recipe.settings.data_sources import Batches

if TYPE_CHECKING:
    import datasets


_WORD = r"[^\s]*[A-Za-z0-9][^\s]*"


@dataclass(frozen=True)
class Contents:
    """What a source holds: `splits` with the columns of `Examples` but `index`, the class names in the order of the
    labels, notes on what reading changed, and whether lists of 0 and 1 are marks. `columns` are those of the source by
    its own names, `twice` the names that occur twice among them.
    """

    splits: Mapping[str, datasets.Dataset]
    classes: tuple[str, ...] = ()
    _: KW_ONLY
    notes: tuple[str, ...] = ()
    marks: bool | None = None
    columns: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """What a check needs: the classes in the order of the labels, the source's columns, and the rows of each split.

    `rows` may be empty, where only preparing the data tells them. `twice` are columns whose name occurs twice in the
    training file, `seen` the classes of training rows (None: unknown); `alike` means that there are several rows, all
    with one label. `unanswerable` counts the questions of each split without an answer. `words` are those of the
    longest training example, 0 where only preparing the data tells them: its tokens are at least as many.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: dict[str, int]
    twice: tuple[str, ...] = ()
    seen: tuple[str, ...] | None = None
    alike: bool = False
    unanswerable: dict[str, int] = field(default_factory=dict)
    words: int = 0


@singledispatch
def read(source: Settings, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    """Read and check a source; arguments and faults as of `open_examples`."""
    raise TypeError(f"no reader is registered for {type(source).__name__}")


@read.register
def _read_batches(source: Batches, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    raise SourceFault("B408", "ready tensors cannot be joined with other data", help="write a task for each")


def facts_by_reading(source: Settings, folder: Path) -> DataFacts:
    """The facts of a source, by reading it whole."""
    whole = read(source, folder)
    train = whole.splits["train"]
    column = next((name for name in ("label", "tags") if name in train.column_names), None)
    labels = list(train[column][:]) if column is not None else []
    if column == "tags":
        labels = [tag for tags in labels for tag in tags]
    marked = ([n for n, mark in enumerate(label) if mark] if isinstance(label, list) else [label] for label in labels)
    numbers = {number for row in marked for number in row}
    return DataFacts(
        whole.classes,
        whole.columns or tuple(train.column_names),
        {split: len(rows) for split, rows in whole.splits.items()},
        whole.twice,
        seen=tuple(name for number, name in enumerate(whole.classes) if number in numbers) or None,
        alike=len(labels) > 1 and all(label == labels[0] for label in labels),
        unanswerable={split: count for split, rows in whole.splits.items() if (count := unanswerable(rows))},
        words=_longest(train),
    )


def _longest(train: datasets.Dataset) -> int:
    """The words of the longest example, of a question those of its context; a word has a letter or a digit."""
    import pyarrow.compute

    texts = [name for name in ("text_0", "text_1") if name in train.column_names]
    names = texts[-1:] if "answers" in train.column_names else texts or ["words"]
    table = train.select_columns(names).with_format("arrow")[:]
    if names == ["words"]:
        counts = [pyarrow.compute.list_value_length(table["words"])]
    else:
        counts = [pyarrow.compute.count_substring_regex(table[name], _WORD) for name in names]
    total = counts[0] if len(counts) == 1 else pyarrow.compute.add(*counts)
    return int(pyarrow.compute.max(total).as_py() or 0)


facts = singledispatch(facts_by_reading)
"""The facts of a source; a source whose facts are known without its rows registers a function of its own."""


def unanswerable(split: datasets.Dataset) -> int:
    """How many questions of a split have no answer; 0 where its rows are no questions."""
    return sum(not answers["start"] for answers in split["answers"][:]) if "answers" in split.column_names else 0


def stamp(files: Iterable[Path]) -> object:
    """A value that changes when one of the files does, to tell whether a cached reading is still valid."""
    stats = ((str(file), file.stat()) for file in files)
    return tuple((name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size) for name, stat in stats)
