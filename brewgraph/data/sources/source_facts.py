"""The facts of a data set before its rows are prepared, and a stamp of the files that they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DataFacts:
    """What a check needs: the classes in the order of the labels, the source's columns, and the rows of each split.

    `rows` may be empty, where only preparing the data tells them. `twice` are columns whose name occurs twice in the
    training file, `seen` the classes of training rows (None: unknown); `alike` means that there are several rows, all
    with one label. `unanswerable` counts the questions of each split without an answer.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: dict[str, int]
    twice: tuple[str, ...] = ()
    seen: tuple[str, ...] | None = None
    alike: bool = False
    unanswerable: dict[str, int] = field(default_factory=dict)


def stamp(files: Iterable[Path]) -> object:
    """A value that changes when one of the files does, to tell whether a cached reading is still valid."""
    stats = ((str(file), file.stat()) for file in files)
    return tuple((name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size) for name, stat in stats)
