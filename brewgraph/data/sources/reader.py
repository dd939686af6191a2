"""Readers of data: one per kind of source, registered by its settings.

    @read.register
    def read_lines(source: Lines, folder, columns, marks): ...

Adding a source is a settings class in `recipe/settings/data_sources.py` and a file beside this one that registers its
reader; `facts` has a reading of its own where facts are known without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path

import datasets

from brewgraph.data.sources.source_facts import DataFacts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.base import Settings
from brewgraph.recipe.settings.data_sources import Batches


@dataclass(frozen=True)
class Contents:
    """What a source holds: `splits` with the columns of `Examples` but `index`, the class names in the order of the
    labels, notes on what reading changed, and whether lists of 0 and 1 are marks.
    """

    splits: Mapping[str, datasets.Dataset]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    marks: bool | None = field(default=None, kw_only=True)


@singledispatch
def read(source: Settings, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    """Read and check a source; arguments and faults as of `open_examples`."""
    raise TypeError(f"no reader is registered for {type(source).__name__}")


@singledispatch
def facts(source: Settings, folder: Path) -> DataFacts:
    """The facts of a source, by reading it whole."""
    whole = read(source, folder)
    train = whole.splits["train"]
    return DataFacts(whole.classes, tuple(train.column_names), {name: len(rows) for name, rows in whole.splits.items()})


@read.register
def _read_batches(source: Batches, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    raise SourceFault("B408", "ready tensors cannot be joined with other data", help="write a task for each")
