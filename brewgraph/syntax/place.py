"""The place where a statement breaks: what stands before the culprit, in which brackets, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brewgraph.syntax.logical_lines import Lexeme


@dataclass(frozen=True)
class Place:
    """Where a statement breaks: the lexemes before the culprit, the culprit (empty at the end), the line behind it."""

    before: tuple[Lexeme, ...]
    here: str
    kind: str
    behind: str

    @property
    def first(self) -> str:
        return self.before[0].text if self.before else ""

    @property
    def last(self) -> str:
        return self.before[-1].text if self.before else ""

    @property
    def shown(self) -> str:
        return f"before `{self.here}`" if self.here else f"after `{self.last}`"

    @property
    def opened(self) -> list[int]:
        """Indices in `before` of the brackets that are open here."""
        stack: list[int] = []
        for i, piece in enumerate(self.before):
            if piece.kind == "open":
                stack.append(i)
            elif piece.kind == "close" and stack:
                stack.pop()
        return stack

    @property
    def bracket(self) -> str:
        return self.before[self.opened[-1]].text if self.opened else ""

    @property
    def level(self) -> tuple[Lexeme, ...]:
        """What stands before, in the same brackets, since the last comma."""
        found: list[Lexeme] = []
        depth = 0
        for piece in reversed(self.before):
            depth += piece.kind == "close"
            if depth == 0 and (piece.kind == "open" or piece.text == ","):
                break
            found += [piece] if depth == 0 else []
            depth -= piece.kind == "open"
        return tuple(found)

    @property
    def indexes(self) -> bool:
        """Whether the innermost bracket picks from something, rather than being a list."""
        at = self.opened[-1] if self.bracket == "[" else 0
        return at > 0 and ends(self.before[at - 1]) and not (at == 1 and self.first == "sample")

    @property
    def maps(self) -> bool:
        """Whether the innermost bracket is the brace of a mapping, not of a block."""
        return self.bracket == "{" and opens_mapping(self.before[: self.opened[-1]])


def ends(piece: Lexeme) -> bool:
    """Whether a piece can end a value."""
    return piece.kind in ("word", "number", "string", "close")


def opens_mapping(before: Sequence[Lexeme]) -> bool:
    """Whether a brace behind these pieces opens a mapping: a block stands behind a name, a value or a keyword."""
    if not before:
        return False
    if before[-1].text == "for" and len(before) > 2 and before[0].text == "stage":
        return True
    return not ends(before[-1])
