"""What is known of a data set before its rows are prepared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFacts:
    """What a check needs: the classes in the order of the labels, the source's columns, and the rows of each split.

    `rows` holds what is known without preparing the data, and may be empty.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: dict[str, int]
