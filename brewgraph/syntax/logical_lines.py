"""Where logical lines end, and whether brackets and quotes close: everything about a spec that is not grammar.

A line continues inside ( ) and [ ], after an operator, `=`, `,` or `->`, and before a line that starts with
`+ - * / ->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_LEXEME = re.compile(
    r"""
      (?P<string>"[^"\n]*"?)
    | (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<space>[ \t\f\r]+)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<number>(?:[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?%?)
    | (?P<word>[A-Za-z_][A-Za-z_0-9]*)
    | (?P<operator>->|\*\*|[-+*/~@=,])
    | (?P<mark>[.:;])
    | (?P<other>.)
    """,
    re.VERBOSE,
)
PARTNER = {"(": ")", "[": "]", "{": "}"}
_BLANKS = frozenset(("space", "comment", "newline"))
_ALONE = frozenset(("space", "word", "operator", "mark", "number", "comment", "other"))
"""Kinds of lexemes that concern no others."""
_BRACKET = re.compile(r'"[^"\n]*"?|#[^\n]*|(?P<open>[(\[{])|(?P<close>[)\]}])')
"""A bracket, or what may hold one that does not count."""
_BLANK = re.compile(r"(?:[ \t\f\r\n]+|#[^\n]*\n)*")
"""What stands before the next line that holds code."""
MOST_LEXEMES, LONGEST, DEEPEST = 40_000, 1_000_000, 64
"""The most lexemes (white space apart) and characters of a spec, and the most brackets inside each other."""


class Lexeme(NamedTuple):
    """A piece of text: its kind (a group of `_LEXEME`) and offsets; a line break that ends a statement `breaks`."""

    kind: str
    text: str
    start: int
    breaks: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def is_blank(self) -> bool:
        """Whether the grammar does not see it: white space, a comment, a line break."""
        return self.kind in _BLANKS


@dataclass(frozen=True)
class BracketFault:
    """A bracket or a quote without its partner: `kind` is `unclosed`, `stray`, `mismatch` or `quote`."""

    kind: str
    start: int
    end: int
    opened: int | None = None


def lexemes(text: str, start: int = 0, end: int | None = None) -> tuple[list[Lexeme], list[BracketFault]]:
    """Cut text into lexemes, marking the line breaks that end statements; also the bracket faults."""
    stop = len(text) if end is None else end
    result: list[Lexeme] = []
    faults: list[BracketFault] = []
    opened: list[Lexeme] = []
    previous = ""
    blank_until = -1
    for match in _LEXEME.finditer(text, start, stop):
        kind = match.lastgroup or "other"
        lexeme = Lexeme(kind, match[0], match.start())
        if kind in _ALONE:
            pass
        elif kind == "open":
            opened.append(lexeme)
        elif kind == "close":
            if not opened:
                faults.append(BracketFault("stray", lexeme.start, lexeme.end))
            elif lexeme.text in [PARTNER[x.text] for x in opened]:
                while PARTNER[(inner := opened.pop()).text] != lexeme.text:  # what was opened since is at fault
                    faults.append(BracketFault("unclosed", inner.start, inner.end))
            else:
                faults.append(BracketFault("mismatch", lexeme.start, lexeme.end, opened[-1].start))
                opened.pop()
        elif kind == "string" and (len(lexeme.text) == 1 or not lexeme.text.endswith('"')):
            faults.append(BracketFault("quote", lexeme.start, lexeme.end))
        elif kind == "newline":
            inside = bool(opened) and opened[-1].text != "{"
            after = previous == "operator"
            if lexeme.end > blank_until:  # once for all line breaks before the next line with code
                blank_until = _BLANK.match(text, lexeme.end, stop).end()  # type: ignore[union-attr]  # matches nothing, too
            goes_on = blank_until < stop and text[blank_until] in "-+*/"
            lexeme = lexeme._replace(breaks=not (inside or after or goes_on))
        result.append(lexeme)
        if kind not in _BLANKS:
            previous = kind
    faults += [BracketFault("unclosed", x.start, x.end) for x in opened]
    return result, faults


def too_large(text: str) -> tuple[str, int] | None:
    """What is beyond the limits of a spec, and where: `long` or `deep`. None for a spec within them."""
    if len(text) > LONGEST:
        return "long", LONGEST
    count, last = 0, len(text)
    for match in _LEXEME.finditer(text) if len(text) > MOST_LEXEMES else ():
        count += match.lastgroup != "space"
        if count > MOST_LEXEMES:
            last = match.start()
            break
    depth = 0
    for match in _BRACKET.finditer(text, 0, last):
        if match.lastgroup == "open":
            depth += 1
            if depth > DEEPEST:
                return "deep", match.start()
        elif match.lastgroup == "close":
            depth = max(0, depth - 1)
    return ("long", last) if count > MOST_LEXEMES else None


def blank(pieces: list[Lexeme]) -> str:
    """The text at the same length, with comments and non-ending line breaks replaced by spaces."""
    keep = [x.text if x.kind != "comment" and (x.kind != "newline" or x.breaks) else " " * len(x.text) for x in pieces]
    return "".join(keep)


def split(pieces: list[Lexeme]) -> Iterator[tuple[int, int]]:
    """Offsets of the top-level statements, including their braces."""
    depth, start, end = 0, None, 0
    for x in pieces:
        if x.kind in ("open", "close"):
            depth = max(0, depth + (1 if x.kind == "open" else -1))
        if depth == 0 and (x.breaks or x.text == ";"):
            if start is not None:
                yield start, end
            start = None
        elif not x.is_blank:
            start, end = (x.start if start is None else start), x.end
    if start is not None:
        yield start, end


def resplit(text: str, start: int, end: int, keywords: frozenset[str]) -> list[tuple[int, int]]:
    """Cut a stretch with an unclosed bracket at lines that look like the beginning of a statement.

    Such a line is indented no deeper than the first and begins with `name =` or with a keyword and a name.
    """
    first = text.rfind("\n", 0, start) + 1
    indent = start - first
    word = "|".join(sorted(keywords))
    begins = re.compile(
        rf"^[ \t]{{0,{indent}}}(?:(?:{word})[ \t]+[A-Za-z_{{\"\[]|(?:train)[ \t]*{{|[A-Za-z_]\w*[ \t]*=(?!=))",
        re.MULTILINE,
    )
    cuts = [m.start() for m in begins.finditer(text, start + 1, end)]
    edges = [start, *cuts, end]
    return [(b - len(text[a:b].lstrip()), a + len(text[a:b].rstrip())) for a, b in pairwise(edges) if text[a:b].strip()]
