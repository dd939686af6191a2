"""The canonical layout of a spec: the same lexemes with different white space, so comments survive.

First the text is cut into rows (a printed line: its tokens and its trailing comment); then rows are indented, spaced
and aligned. Line breaks stay as written, except around the braces of a multi-line block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from brewgraph.diagnostics import Collector
from brewgraph.source import Source
from brewgraph.syntax.logical_lines import Lexeme, lexemes
from brewgraph.syntax.parser import KEYWORDS, parse

INDENT = 4
TAB = 8
_CLAUSES = frozenset(("via", "for", "at", "as"))
_TIGHT_AFTER = frozenset(("open", "unary", "dot", "named", "slice"))
_TIGHT_BEFORE = frozenset(("close", "comma", "dot", "named", "slice", "colon", "semicolon"))
_BEFORE_A_VALUE = ("equals", "named", "binary", "unary", "comma", "colon", "open", "clause")
_MARKS = {",": "comma", ".": "dot", ";": "semicolon"}


@dataclass(frozen=True)
class Token:
    """A lexeme and its role: `begins` if it starts a statement, `ends` if it can end an operand."""

    lexeme: Lexeme
    role: str
    begins: bool = False

    @property
    def text(self) -> str:
        return self.lexeme.text

    @property
    def ends(self) -> bool:
        return self.role in ("operand", "close")


@dataclass
class FormatRow:
    """One output line. Columns are those of the input, from 0, with tabs of width `TAB`."""

    tokens: list[Token] = field(default_factory=list)
    comment: str = ""
    comment_column: int = 0
    code_end: int = 0
    equals_column: int = 0
    indent: int = 0
    inside: int = 0  # where a comment line before this row goes: beside what a closing bracket closes
    alone: bool = False  # one whole statement, and nothing else
    code: str = ""
    equals: int | None = None  # offset in `code` of the statement's own `=`

    @property
    def empty(self) -> bool:
        return not self.tokens and not self.comment

    @property
    def goes_on(self) -> bool:
        """Whether the row continues the statement of the row before."""
        return bool(self.tokens) and not self.tokens[0].begins and self.tokens[0].text != "}"


def format_source(source: Source) -> str:
    """The spec in its canonical layout, idempotent. Raises `SpecError` if it does not parse."""
    collector = Collector()
    parse(source, collector)
    collector.raise_errors()
    pieces, _ = lexemes(source.text)
    rows = _drop_blank_rows(_cut(source.text, pieces))
    _indent(rows)
    for row in rows:
        row.code = " " * row.indent + (_spaced(row.tokens) if row.tokens else row.comment)
    _align_equals(rows)
    _align_comments(rows)
    return "".join(row.code.rstrip() + "\n" for row in rows)


def on_one_line(text: str) -> str:
    """An expression in the canonical spacing, on one line and without comments: equal tokens give equal texts."""
    pieces, _ = lexemes(text)
    return _spaced([token for token in with_roles(pieces) if token.role not in ("comment", "newline")])


# ── from lexemes to rows ─────────────────────────────────────────────────────────────────────────────────────────────


def with_roles(pieces: list[Lexeme]) -> Iterator[Token]:
    """The tokens without spaces, of any text; comments and line breaks keep their kind as role."""
    opened: list[str] = []
    before = Token(Lexeme("newline", "\n", 0), "newline")
    begins = True
    for piece in pieces:
        if piece.kind == "space":
            continue
        if piece.kind in ("comment", "newline"):
            begins = begins or piece.breaks
            yield Token(piece, piece.kind)
            continue
        token = Token(piece, _role(piece, before, begins, opened), begins and piece.text not in ";}")
        if piece.kind == "open":
            opened.append("(" if token.role == "open" and piece.text == "{" else piece.text)
        elif piece.kind == "close" and opened:
            opened.pop()
        begins = token.role == "brace" or piece.text == ";"
        before = token
        yield token


def _role(piece: Lexeme, before: Token, begins: bool, opened: list[str]) -> str:
    """The role of a lexeme after the token `before`, inside the brackets `opened`."""
    text, innermost = piece.text, opened[-1] if opened else ""
    sampled = before.role == "keyword" and before.text == "sample"  # a list of tasks follows, no block
    opens_mapping = text == "{" and (before.role in _BEFORE_A_VALUE or sampled)
    if text in "{}" and not opens_mapping and all(x == "{" for x in opened):
        return "brace"
    if piece.kind in ("open", "close"):
        return piece.kind
    if text in _MARKS:
        return _MARKS[text]
    if text == ":":
        return "slice" if innermost == "[" else "colon"
    if text == "=":
        return "named" if innermost == "(" else "equals"
    if piece.kind == "operator":
        return "unary" if text == "-" and not before.ends else "binary"
    if begins and text in KEYWORDS:
        return "keyword"
    if not begins and ((before.ends and text in _CLAUSES) or (before.text == "@" and text == "input")):
        return "clause"
    return "operand"


def _cut(text: str, pieces: list[Lexeme]) -> list[FormatRow]:
    """The author's lines, with the braces of multi-line blocks on lines of their own and without redundant `;`."""
    tokens = list(with_roles(pieces))
    wide = _wide_braces(tokens)
    rows = [FormatRow()]
    waiting: Token | None = None  # a `;` that is printed only if a statement follows on the same row

    at = reached = 0

    def column(offset: int) -> int:
        """The column of an offset behind the last one that was asked for."""
        nonlocal at, reached
        _, newline, piece = text[at:offset].rpartition("\n")
        begin = 0 if newline else reached
        at, reached = offset, begin - begin % TAB + len((" " * (begin % TAB) + piece).expandtabs(TAB))
        return reached

    for token in tokens:
        row, lexeme = rows[-1], token.lexeme
        if token.role == "newline":
            rows.append(FormatRow())
            waiting = None
        elif token.role == "comment":
            above = rows[-2].tokens[-1].lexeme if row.empty and len(rows) > 1 and rows[-2].tokens else None
            if above and above.text == "{" and above.start in wide and "\n" not in text[above.end : lexeme.start]:
                rows.pop()
                row = rows[-1]
            row.comment, row.comment_column = lexeme.text.rstrip(), column(lexeme.start)
        elif token.role == "semicolon":
            waiting = token if row.tokens and row.tokens[-1].text != "{" else None
            row.code_end = column(lexeme.end)
        else:
            if token.text == "}" and lexeme.start in wide and row.tokens:
                rows.append(row := FormatRow())
            elif waiting and token.text != "}":
                row.tokens.append(waiting)
            waiting = None
            row.tokens.append(token)
            if token.role == "equals":
                row.equals_column = row.equals_column or column(lexeme.start)
            row.code_end = column(lexeme.end)
            if token.text == "{" and lexeme.start in wide:
                rows.append(FormatRow())
    return rows


def _wide_braces(tokens: list[Token]) -> set[int]:
    """Offsets of the opening and closing braces of blocks (not mappings) that contain a line break."""
    wide: set[int] = set()
    opened: list[tuple[int, int]] = []
    breaks = 0
    for token in tokens:
        breaks += token.role == "newline"
        if token.role == "brace" and token.text == "{":
            opened.append((token.lexeme.start, breaks))
        elif token.role == "brace":
            start, earlier = opened.pop()
            if breaks > earlier:
                wide |= {start, token.lexeme.start}
    return wide


def _drop_blank_rows(rows: list[FormatRow]) -> list[FormatRow]:
    """Keep single blank rows between statements, none at the edges of a file or block or inside a statement."""
    kept: list[FormatRow] = []
    following: FormatRow | None = None  # the next row that holds code
    for row in reversed(rows):
        if not row.empty:
            kept.append(row)
            following = row if row.tokens else following
        elif kept and not kept[-1].empty and not (following and following.goes_on) and not _closes(kept[-1]):
            kept.append(row)
    kept.reverse()
    return [
        row
        for before, row in pairwise([FormatRow(), *kept])
        if not (row.empty and (before.empty or (before.tokens and before.tokens[-1].text == "{")))
    ]


def _closes(row: FormatRow) -> bool:
    return bool(row.tokens) and row.tokens[0].text == "}"


# ── indentation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _indent(rows: list[FormatRow]) -> None:
    """Set each row's indentation from the brackets open at its start."""
    opened: list[tuple[str, int, int]] = []  # bracket, indentation of the row that opened it, of what it holds
    for row in rows:
        if not row.tokens:
            continue
        base = next((inside for bracket, _, inside in reversed(opened) if bracket == "{"), 0)
        row.indent = row.inside = base
        if row.goes_on:
            inner = opened[-1] if opened and opened[-1][0] != "{" else None
            row.indent = row.inside = inner[2] if inner else base + INDENT
        closing = next((i for i, token in enumerate(row.tokens) if token.role != "close"), len(row.tokens))
        if closing or _closes(row):
            row.indent = opened[-max(closing, 1)][1]
        for token in row.tokens:
            if token.lexeme.kind == "open":
                around = opened[-1][2] if opened and opened[-1][0] != "{" else 0
                is_block = token.role == "brace"
                held = base + INDENT if is_block else max(around, row.indent) + INDENT
                opened.append(("{" if is_block else "(", base if is_block else row.indent, held))
            elif token.lexeme.kind == "close":
                opened.pop()
    below: FormatRow | None = None
    for row in reversed(rows):
        if row.tokens:
            is_whole = row.tokens[-1].text != "{" and all(token.role != "semicolon" for token in _own(row.tokens))
            row.alone = row.tokens[0].begins and not (below and below.goes_on) and is_whole
            below = row
        elif row.comment:
            row.indent = below.inside if below else 0


def _own(tokens: list[Token]) -> Iterator[Token]:
    """The tokens of a row outside its brackets."""
    depth = 0
    for token in tokens:
        depth -= token.lexeme.kind == "close"
        if depth == 0:
            yield token
        depth += token.lexeme.kind == "open"


def _blank(left: Token, right: Token) -> bool:
    """Whether a space separates two neighbours on a row."""
    if left.role in _TIGHT_AFTER:
        return False
    if right.role in _TIGHT_BEFORE:
        return right.role == "dot" and left.lexeme.kind == "number"  # `3 .x` is an attribute, `3.x` a broken number
    if right.role == "open":
        return not left.ends  # after an operand it calls or indexes
    return left.text + right.text != "{}"


def _spaced(tokens: list[Token]) -> str:
    if all(token.role == "unary" for token in tokens):
        return " ".join(token.text for token in tokens)  # a line `--` is a comment of another language
    return tokens[0].text + "".join(
        (" " if _blank(left, right) else "") + right.text for left, right in pairwise(tokens)
    )


# ── alignment ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _groups(rows: list[FormatRow], column: Callable[[FormatRow], int | None]) -> Iterator[list[FormatRow]]:
    """Runs of neighbouring rows that share an input column; rows without one stand between runs."""
    return (list(run) for place, run in groupby(rows, column) if place is not None)


def _align_equals(rows: list[FormatRow]) -> None:
    """Neighbours that had `=` in one column get the smallest column that fits all."""
    for row in rows:
        if row.alone and row.tokens[0].text != "sample":
            at = next((i for i, token in enumerate(row.tokens) if token.role == "equals"), None)
            if at is not None and row.tokens[at] in _own(row.tokens):
                row.equals = row.indent + len(_spaced(row.tokens[:at])) + 1
    for group in _groups(rows, lambda row: None if row.equals is None else row.equals_column):
        widest = max(_width(row.code[: row.equals or 0]) for row in group)
        for row in group:
            at = row.equals or 0
            row.code = row.code[:at] + " " * (widest - _width(row.code[:at])) + row.code[at:]


def _align_comments(rows: list[FormatRow]) -> None:
    """Trailing comments that shared a column still do; the longest row keeps its gap, at least two spaces."""
    for group in _groups(rows, lambda row: row.comment_column if row.comment and row.tokens else None):
        gap = max(2, min(row.comment_column - row.code_end for row in group))
        place = max(_width(row.code) for row in group) + gap
        for row in group:
            row.code += " " * (place - _width(row.code)) + row.comment


def _width(code: str) -> int:
    """The columns that a row's code takes, with the tabs in its strings."""
    return len(code.expandtabs(TAB))
