"""Places in a text as editors count them, and as offsets; and where a place is after an edit."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

UNITS = {"utf-8": 1, "utf-16": 2, "utf-32": 4}
"""The units in which an editor may count columns, with their bytes. `utf-16` is what every editor knows."""


@dataclass(frozen=True)
class Text:
    """A text whose lines and columns count from 0, columns in `unit`. A line ends with `\\n` or `\\r\\n`."""

    text: str
    unit: str = "utf-16"

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(line_break.end() for line_break in re.finditer("\n", self.text))]

    def _line(self, row: int) -> str:
        """A line without its end."""
        last = row + 1 == len(self._starts)
        return self.text[self._starts[row] : len(self.text) if last else self._starts[row + 1] - 1].removesuffix("\r")

    def _columns(self, text: str) -> int:
        return (
            len(text)
            if text.isascii()
            else len(text.encode(f"{self.unit}-le".replace("8-le", "8"))) // UNITS[self.unit]
        )

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset."""
        row = bisect_right(self._starts, offset) - 1
        return row, self._columns(self.text[self._starts[row] : offset])

    def offset(self, row: int, column: int) -> int:
        """The offset of a line and a column; the nearest one for a place that the text does not have."""
        if row >= len(self._starts):
            return len(self.text)
        line = self._line(max(0, row))
        if line.isascii():
            return self._starts[max(0, row)] + min(max(0, column), len(line))
        count = 0
        for i, c in enumerate(line):
            if count >= column:
                return self._starts[row] + i
            count += self._columns(c)
        return self._starts[row] + len(line)

    def around(self, offset: int) -> tuple[int, int]:
        """The line of an offset, from its first character to its end without the line break."""
        start = self._starts[bisect_right(self._starts, offset) - 1]
        end = self.text.find("\n", offset)
        return start, len(self.text) if end < 0 else end


@dataclass(frozen=True)
class Change:
    """The one stretch in which two texts differ: `start` to `end` of the old one is `length` characters now."""

    start: int
    end: int
    length: int

    @classmethod
    def between(cls, old: str, new: str) -> Change:
        start = _common(old, new)
        most = min(len(old), len(new)) - start
        same = _common(old[len(old) - most :][::-1], new[len(new) - most :][::-1])
        return cls(start, len(old) - same, len(new) - same - start)

    def carry(self, start: int, end: int) -> tuple[int, int] | None:
        """Where a stretch of the old text is in the new one; None if the change touches it."""
        if end < self.start or (end == self.start and start < end):
            return start, end
        moved = self.length - (self.end - self.start)
        return (start + moved, end + moved) if start >= self.end else None

    def back(self, offset: int) -> int:
        """The offset in the old text of an offset in the new one; inside the change its beginning."""
        if offset <= self.start:
            return offset
        moved = offset - self.length + (self.end - self.start)
        return max(self.start, moved) if offset >= self.start + self.length else self.start


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
