"""What is known of a data set before its rows are prepared, and whether its files are still those that told it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DataFacts:
    """What a check needs: the classes in the order of the labels, the source's columns, and the rows of each split.

    `rows` holds what is known without preparing the data, and may be empty. `twice` are columns whose name stands twice
    in the training file, `seen` the classes that training rows have (None: not known); `alike` tells that there are
    several, all with one label. `unanswerable` counts the questions of each split that have no answer.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: dict[str, int]
    twice: tuple[str, ...] = ()
    seen: tuple[str, ...] | None = None
    alike: bool = False
    unanswerable: dict[str, int] = field(default_factory=dict)


def stamp(files: Iterable[Path]) -> object:
    """What changes when one of the files does: what was read before is not taken for what stands there now."""
    stats = ((str(file), file.stat()) for file in files)
    return tuple((name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size) for name, stat in stats)
