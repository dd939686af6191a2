"""Where a cursor stands in a spec that is being written: in which statement, call and argument, or inside a string."""

from __future__ import annotations

from dataclasses import dataclass

from brewgraph.syntax.logical_lines import Lexeme, lexemes
from brewgraph.syntax.mistakes import opens_mapping


@dataclass(frozen=True)
class Context:
    """What stands before a cursor.

    `prefix` is the beginning of a word or of the text of a string, which starts at `start`. `statement` are the lexemes
    of the statement before it, without white space; `blocks` the lexemes before each brace of a block around it, the
    outermost first.
    """

    prefix: str
    start: int
    statement: tuple[Lexeme, ...]
    blocks: tuple[tuple[Lexeme, ...], ...]
    opened: tuple[int, ...] = ()
    """Where in `statement` brackets are open, the outermost first."""
    in_string: bool = False
    in_comment: bool = False

    @property
    def keyword(self) -> str:
        """The first word of the statement."""
        return self.statement[0].text if self.statement else ""

    @property
    def last(self) -> str:
        return self.statement[-1].text if self.statement else ""

    @property
    def block(self) -> str:
        """The keyword of the innermost block: `train`, `task`, `stage`, `student`; empty outside of blocks."""
        return self.blocks[-1][0].text if self.blocks and self.blocks[-1] else ""

    @property
    def inner(self) -> tuple[Lexeme, ...]:
        """The lexemes since the innermost open bracket, or since the statement's `=`."""
        if self.opened:
            return self.statement[self.opened[-1] + 1 :]
        at = next((i for i, x in enumerate(self.statement) if x.text == "="), -1)
        return self.statement[at + 1 :]

    @property
    def argument(self) -> tuple[Lexeme, ...]:
        """The lexemes of the argument that is being written."""
        words = self.inner
        since = next((i for i, x in enumerate(reversed(self._level)) if x is None), len(words))
        return words[len(words) - since :]

    @property
    def _level(self) -> list[Lexeme | None]:
        """The lexemes of `inner`, None for a comma outside of brackets."""
        depth, level = 0, list[Lexeme | None]()
        for x in self.inner:
            depth += (x.kind == "open") - (x.kind == "close")
            level.append(None if x.text == "," and depth == 0 else x)
        return level

    @property
    def argument_name(self) -> str:
        """The name of the argument whose value is being written; empty before its `=`."""
        words = self.argument
        return words[0].text if len(words) > 1 and words[1].text == "=" and self.opened else ""

    @property
    def argument_place(self) -> int:
        """How many arguments stand before."""
        return sum(x is None for x in self._level)

    @property
    def callees(self) -> tuple[str, ...]:
        """The names of the calls around the cursor, the outermost first; empty for other brackets."""
        names = []
        for at in self.opened:
            before = self.statement[at - 1] if at else None
            named = self.statement[at].text == "(" and before is not None and before.kind == "word"
            names.append(before.text if named and before is not None else "")
        return tuple(names)

    @property
    def callee(self) -> str:
        return self.callees[-1] if self.callees else ""

    @property
    def role(self) -> str:
        """What the value is for, by which the registry of a call follows: a keyword, a setting, or an argument."""
        outer = self.opened[:-1] if self.opened else ()
        for at in reversed(outer):
            # `augment=[masking(` and `adapter=lora(`: the argument of the call around this one
            words = self.statement[at + 1 : self.opened[-1]]
            name = next((words[i - 1].text for i in range(len(words) - 1, 0, -1) if words[i].text == "="), "")
            if name:
                return name
        return self.keyword

    @property
    def receiver(self) -> tuple[str, ...]:
        """The names before the `.` behind which the cursor stands: `("tiny", "ner")`, calls and indices left out."""
        names: list[str] = []
        at = len(self.statement) - 1
        while at >= 0 and self.statement[at].text == ".":
            at -= 1
            depth = 0
            while at >= 0 and (depth or self.statement[at].kind == "close"):
                depth += (self.statement[at].kind == "close") - (self.statement[at].kind == "open")
                at -= 1
            if at < 0 or self.statement[at].kind != "word":
                return ()
            names.insert(0, self.statement[at].text)
            at -= 1
        return tuple(names)


def context_at(text: str, offset: int) -> Context:
    """The context of an offset, whatever stands behind it."""
    pieces, _ = lexemes(text, 0, offset)
    blocks: list[tuple[Lexeme, ...]] = []
    opened: list[int] = []
    statement: list[Lexeme] = []
    kinds: list[str] = []  # of the open brackets: `{` for that of a block
    for piece in pieces:
        if piece.is_blank:
            if piece.breaks and not opened:
                statement = []
            continue
        if piece.text == ";" and not opened:
            statement = []
        elif piece.text == "{" and not opened and not opens_mapping(statement):
            kinds.append("{")
            blocks.append(tuple(statement))
            statement = []
        elif piece.text == "}" and not opened and kinds:
            kinds.pop()
            statement = list(blocks.pop())
            statement.append(piece)
        else:
            if piece.kind == "open":
                opened.append(len(statement))
            elif piece.kind == "close" and opened:
                opened.pop()
            statement.append(piece)
    last = pieces[-1] if pieces else None
    prefix, start = "", offset
    if last is not None and last.kind == "comment":
        return Context(last.text, last.start, tuple(statement), tuple(blocks), tuple(opened), in_comment=True)
    if last is not None and last.kind == "string" and (len(last.text) == 1 or not last.text.endswith('"')):
        return Context(
            last.text[1:], last.start + 1, tuple(statement[:-1]), tuple(blocks), tuple(opened), in_string=True
        )
    if last is not None and last.kind == "word" and statement:
        prefix, start = last.text, last.start
        statement.pop()
    return Context(prefix, start, tuple(statement), tuple(blocks), tuple(opened))


def word_at(text: str, offset: int) -> tuple[int, int]:
    """The word that an offset touches; an empty stretch if there is none."""
    start = end = offset
    while start > 0 and _is_word(text[start - 1]):
        start -= 1
    while end < len(text) and _is_word(text[end]):
        end += 1
    return start, end


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")
