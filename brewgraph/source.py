"""Text and places in it: the ground every other room stands on. Data only."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

MOST_BYTES = 1 << 23
"""As much of a file as is read: far more than a spec may have, and not all of /dev/zero."""


@dataclass(frozen=True)
class Source:
    """One spec's text and the name it is shown under (a path as the user typed it, or `<string>`). A relative name is
    one in the folder `home`, by default the working directory, whatever that is later.
    """

    text: str
    name: str = "<string>"
    home: Path = field(default=Path(), repr=False, compare=False)

    @classmethod
    def read(cls, path: str | Path) -> Source:
        """Read a UTF-8 file. `OSError` and `EncodingError` are the caller's to explain."""
        # not to wait for somebody to write a pipe: one without a writer is empty
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(descriptor, True)
        with open(descriptor, "rb") as file:
            return cls.of(file.read(MOST_BYTES), str(path), f"`{path}`")

    @classmethod
    def of(cls, raw: bytes, name: str, shown: str) -> Source:
        """A spec's bytes, line ends as `\\n`; `shown` is its name in messages. Raises `EncodingError`."""
        return cls(decode(raw, shown).replace("\r\n", "\n").replace("\r", "\n"), name)

    @property
    def folder(self) -> Path:
        """The folder that relative paths inside the spec start from."""
        return self.home / Path(self.name).parent if self.name != "<string>" else self.home

    def settled(self) -> Source:
        """The same with the present working directory as its home, for programs that may change that."""
        return replace(self, home=Path.cwd() / self.home)

    @property
    def end(self) -> Span:
        """The last character that is not blank."""
        end = len(self.text.rstrip())
        return Span(self, max(0, end - 1), end)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(line_break.end() for line_break in re.finditer("\n", self.text))]

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


_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_SAMPLE = 4096


def likely_encoding(raw: bytes) -> str:
    """The encoding that bytes which are not UTF-8 are probably in, as `iconv` names it; empty where nothing tells.

    A byte order mark tells, or zeros at every other byte. Western text has its high bytes one by one, and only Windows
    puts letters and quotes between 0x80 and 0x9f; Chinese has them in long runs of pairs.
    """
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            return name
    if b"\0" in raw[:_SAMPLE]:
        lanes = [raw[k:_SAMPLE:2] for k in (0, 1)]
        zeros = [2 * lane.count(0) > len(lane) for lane in lanes]
        plain = re.fullmatch(rb"[\t\n\r\x20-\xff]*", lanes[zeros[0]]) is not None
        return ("UTF-16BE" if zeros[0] else "UTF-16LE") if plain and zeros[0] != zeros[1] else ""
    runs = re.findall(rb"[\x80-\xff]+", raw)
    if sum(map(len, runs)) > 3 * len(runs):
        pairs = 2 * sum(len(run) % 2 == 0 for run in runs) > len(runs)
        return "GB18030" if pairs and _decodes(raw, "gb18030") else ""
    if re.search(rb"[\x80-\x9f]", raw) is None:
        return "ISO-8859-1"
    return "CP1252" if _decodes(raw, "cp1252") else ""


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


class EncodingError(ValueError):
    """A file is not UTF-8. `help` is the remedy."""

    def __init__(self, message: str, help: str):
        self.message, self.help = message, help
        super().__init__(f"{message}; {help}")


def decode(raw: bytes, name: str) -> str:
    """Bytes as UTF-8 text. Raises `EncodingError` with line and byte in the file `name`, and the likely encoding."""
    at = raw.find(b"\0", 0, _SAMPLE) if likely_encoding(raw[:_SAMPLE]) in ("UTF-16LE", "UTF-16BE") else -1
    if at < 0:  # ASCII in two bytes each is UTF-8, too
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            at = error.start
    line, begin = raw.count(b"\n", 0, at) + 1, raw.rfind(b"\n", 0, at) + 1
    message = f"line {line} of {name} is not UTF-8: byte {at - begin + 1} is 0x{raw[at]:02X}"
    lenient, encoding = raw.decode("utf-8", "replace"), likely_encoding(raw)
    if sum(not c.isascii() for c in lenient) > 2 * lenient.count("\ufffd") > 0:
        raise EncodingError(message, "the rest of the file is UTF-8: fix this byte")
    if not encoding:
        raise EncodingError(message, "save the file as UTF-8" + ("; it may not be a text file" if b"\0" in raw else ""))
    raise EncodingError(
        f"{message}, and the file is probably {encoding}",
        f"save the file as UTF-8: `iconv -f {encoding} -t UTF-8 OLD > NEW`",
    )


_HIDDEN = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **dict.fromkeys([*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F], "\ufffd"),
    **dict.fromkeys([*range(0x2028, 0x202F), *range(0x2066, 0x206A)], "\ufffd"),
}  # fmt: skip
"""Characters that a terminal obeys, or that reorder a line, and what is shown in place of each."""


def visible(text: str) -> str:
    """A text, as long as before, in which no character commands a terminal: ESC is shown as `␛`."""
    return text.translate(_HIDDEN)


def is_call(text: str) -> bool:
    """Whether a text that may name something is a call instead, as `hf("folder")`: no name has brackets."""
    return re.match(r"\s*[A-Za-z_]\w*\s*\(", text) is not None
