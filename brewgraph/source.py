"""Text and places in it: the ground every other room stands on. Data only."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """One spec's text and the name it is shown under (a path as the user typed it, or `<string>`)."""

    text: str
    name: str = "<string>"

    @classmethod
    def read(cls, path: str | Path) -> Source:
        """Read a UTF-8 file. `OSError` and `UnicodeDecodeError` are the caller's to explain."""
        return cls(Path(path).read_text(encoding="utf-8"), str(path))

    @property
    def folder(self) -> Path:
        """The folder that relative paths inside the spec start from."""
        return Path(self.name).parent if self.name != "<string>" else Path(".")

    @cached_property
    def _starts(self) -> list[int]:
        return [0] + [i + 1 for i, c in enumerate(self.text) if c == "\n"]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both counted from 1."""
        row = bisect_right(self._starts, offset) - 1
        return row + 1, offset - self._starts[row] + 1

    def line(self, number: int) -> str:
        """The text of line `number` (from 1), without its line break."""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@dataclass(frozen=True)
class Span:
    """A stretch of a source: offsets `start` (included) to `end` (excluded)."""

    source: Source = field(repr=False)
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def position(self) -> tuple[int, int]:
        """Line and column of the first character, from 1."""
        return self.source.position(self.start)

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.source, self.start, max(self.end, other.end))


def line_at_fault(error: UnicodeDecodeError) -> int:
    """The line, from 1, of the first byte that is not UTF-8."""
    return error.object.count(b"\n", 0, error.start) + 1


def is_call(text: str) -> bool:
    """Whether a text that may name something is a call instead, as `hf("folder")`: no name has brackets."""
    return re.match(r"\s*[A-Za-z_]\w*\s*\(", text) is not None
