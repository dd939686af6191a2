"""Text to tree. Statements are parsed one by one, so that ten faults give ten diagnostics."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

from lark import ParseTree, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from brewgraph.diagnostics import Collector, Label
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.comments import find_ignores, without_foreign_comments
from brewgraph.syntax.foreign import instead
from brewgraph.syntax.grammar import grammar
from brewgraph.syntax.logical_lines import (
    LONGEST,
    MOST_LEXEMES,
    BracketFault,
    Lexeme,
    blank,
    lexemes,
    resplit,
    split,
    too_large,
)
from brewgraph.syntax.mistakes import FORMS, explain, opens_mapping

KEYWORDS = frozenset(FORMS)


class ParsedStatements:
    """Lark's trees of the statements of one spec, by their text.

    A spec that is parsed after each keystroke is parsed only where it changed. Trees that a whole parse does not ask
    for are forgotten.
    """

    def __init__(self) -> None:
        self._trees: dict[str, ParseTree] = {}
        self._asked: dict[str, ParseTree] = {}

    def begin(self) -> None:
        """Forget what the last parse did not ask for."""
        self._trees, self._asked = self._asked, {}

    def parse(self, text: str) -> ParseTree:
        """The tree of one statement, or of several. Raises lark's `UnexpectedInput`."""
        if text not in self._asked:
            self._asked[text] = self._trees[text] if text in self._trees else grammar().parse(text)
        return self._asked[text]


def parse(source: Source, collector: Collector, known: ParsedStatements | None = None) -> t.Spec:
    """Parse a whole spec. Faults go to `collector`; the tree holds the valid statements.

    With `known` statements that were parsed before are taken from there, and new ones are kept there.
    """
    whole = Span(source, 0, len(source.text))
    if (beyond := too_large(source.text)) is not None:
        _report_too_large(source, *beyond, collector)
        return t.Spec((), span=whole)
    source = without_foreign_comments(source, collector)
    pieces, faults = lexemes(source.text)
    find_ignores(source, pieces, collector)
    whole = Span(source, 0, len(source.text))
    statements: list[t.Statement] = []
    if not faults:
        chunks = [(0, len(source.text))] if known is None else list(split(pieces))
        known = known or ParsedStatements()
        known.begin()
        text = blank(pieces)
        try:
            for start, end in chunks:
                statements += _Builder(source, start).nodes(known.parse(text[start:end]).children)
            return t.Spec(tuple(statements), span=whole)
        except (UnexpectedInput, RecursionError, _TooLong):
            statements.clear()  # once more, statement by statement, to find every fault
    else:
        known = known or ParsedStatements()
        known.begin()
    for start, end in split(pieces):
        if collector.is_full:
            break
        try:
            statements += _parse_chunk(source, start, end, collector, known)
        except RecursionError:
            collector.add("B012", "nested too deeply", Span(source, start, end), help="split it into several equations")
    return t.Spec(tuple(statements), span=whole)


def _report_too_large(source: Source, what: str, at: int, collector: Collector) -> None:
    span = Span(source, at, min(at + 1, len(source.text)))
    if what == "deep":
        collector.add("B012", "nested too deeply", span, help="split it into several equations")
        return
    message = f"the spec is too long: at most {LONGEST:,} characters, and {MOST_LEXEMES:,} words, signs and lines"
    collector.add("B014", message, span, help="move parts into specs of their own and `import` them")


def _parse_chunk(
    source: Source, start: int, end: int, collector: Collector, known: ParsedStatements
) -> list[t.Statement]:
    pieces, faults = lexemes(source.text, start, end)
    if any(fault.kind == "unclosed" for fault in faults):
        parts = resplit(source.text, start, end, KEYWORDS)
        if len(parts) > 1:
            return [s for a, b in parts for s in _parse_chunk(source, a, b, collector, known)]
    if faults:
        quotes = [fault for fault in faults if fault.kind == "quote"]
        for fault in quotes or faults:  # a string without its end swallows the brackets behind it
            _report_bracket(source, fault, collector)
        return []
    try:
        return list(_Builder(source, start).nodes(known.parse(blank(pieces)).children))
    except _TooLong as error:
        collector.add("B013", "this number is too long", error.span, help="a whole number has at most 18 digits")
        return []
    except UnexpectedInput as error:
        opening, closing = _braces(pieces)
        if not opening < _offset(error) + start <= closing:
            _report_syntax(source, error, start, end, collector)
            return []
        # the fault is inside the braces: each statement in them on its own
        inside = [x for x in pieces if opening < x.start < closing]
        count = len(collector.diagnostics)
        for a, b in split(inside):
            _parse_chunk(source, a, b, collector, known)
        if len(collector.diagnostics) == count:
            _report_syntax(source, error, start, end, collector)
        return []


def _braces(pieces: list[Lexeme]) -> tuple[int, int]:
    """Offsets of a block's opening and closing braces, -1 without a block; mappings do not count."""
    depth, opening, inside, mapping = 0, -1, 0, False
    before: list[Lexeme] = []
    for piece in pieces:
        inside += (piece.text in "([") - (piece.text in ")]") if piece.kind in ("open", "close") else 0
        if piece.text == "{" and depth == 0 and not inside:
            mapping = opens_mapping(before)
        if not piece.is_blank:
            before.append(piece)
        if mapping:
            mapping = piece.text != "}"
            continue
        if inside:
            continue
        if piece.text == "{":
            opening = piece.start if depth == 0 else opening
            depth += 1
        elif piece.text == "}":
            depth -= 1
            if depth == 0:
                return opening, piece.start
    return -1, -1


def _offset(error: UnexpectedInput) -> int:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return int(error.token.end_pos or 0)
    return int(error.pos_in_stream or 0)


def _report_bracket(source: Source, fault: BracketFault, collector: Collector) -> None:
    span = Span(source, fault.start, fault.end)
    if fault.opened is not None:
        opened = Span(source, fault.opened, fault.opened + 1)
        message, labels = f"`{span.text}` cannot close `{opened.text}`", (Label(opened, "opened here"),)
        collector.add("B002", message, span, labels=labels, help="close the inner bracket first")
        return
    code, message, help = {
        "unclosed": ("B001", f"unclosed `{span.text}`", "add the closing bracket"),
        "stray": ("B002", f"unmatched `{span.text}`", "remove it, or add the opening bracket"),
        "quote": ("B003", "unclosed string", 'end it with `"` on the same line'),
    }[fault.kind]
    collector.add(code, message, span, help=help)


def _report_syntax(source: Source, error: UnexpectedInput, start: int, end: int, collector: Collector) -> None:
    """One syntax fault, with what is known about it."""
    if isinstance(error, UnexpectedCharacters):
        begin, finish, message, help = _explain_character(source.text, start + int(error.pos_in_stream or 0))
        collector.add("B011", message, Span(source, begin, finish), help=help)
        return
    assert isinstance(error, UnexpectedToken)
    token = error.token
    if token.start_pos is None:
        span = Span(source, max(start, end - 1), end)
    else:  # the end of the text borrows the place of the last token
        span = Span(source, start + int(token.start_pos), start + int(token.end_pos or token.start_pos + 1))
    message, help = explain(grammar(), error, span, source, start)
    collector.add("B010", message, span, help=help)


def _explain_character(text: str, at: int) -> tuple[int, int, str, str]:
    """Start, end, message and help for an invalid character."""
    if number := re.compile(r"[0-9][0-9.]*(\w*)%?").match(text, at):
        unit = number[1]
        fits = unit in ("step", "steps", "epoch", "epochs")
        help = f"put a space before the unit: `{number[0].removesuffix(unit)} {unit}`" if fits else ""
        help = help or "numbers are written 3, 0.5, 1e-4, 30%, `3 epochs`"
        return at, number.end(), f"`{number[0]}` is not a number", help
    character = text[at]
    if character == ">" and text[at - 1 : at] == "-":
        return at - 1, at + 1, "expected an expression before `->`", "an arrow joins two sides: `teacher -> student`"
    shown = f"`{character}`" if character.isprintable() else f"the character U+{ord(character):04X}"
    help = instead("character", character)
    if not help and unicodedata.category(character)[0] in "ZC":
        help = "replace it with a plain space"
    help = help or "only ASCII is allowed outside strings and comments; names are letters, digits and `_`"
    return at, at + 1, f"{shown} is not valid here", help


# ── lark's tree to ours ──────────────────────────────────────────────────────────────────────────────────────────────


class _TooLong(Exception):
    """An integer with too many digits."""

    def __init__(self, span: Span):
        self.span = span


_DIRECT: dict[str, type[t.Node]] = {
    "param": t.Param, "let": t.Let, "head": t.Head, "data": t.Data, "tap": t.Tap, "proj": t.Proj, "task": t.Task,
    "stage": t.Stage, "train": t.Train, "equation": t.Equation, "parameter": t.Parameter, "arrow": t.Arrow,
    "via": t.Via, "binary": t.Binary, "attribute": t.Attribute, "pairing": t.Pairing,
}  # fmt: skip
"""Rules whose parts are the fields of their node, in order."""
_SEVERAL = {"list": t.List, "tuple": t.Tuple, "mapping": t.Mapping, "block": t.Block}
"""Rules whose parts are the members of the one field of their node."""
_TOKENS: dict[str, Callable[[str, Span], t.Expression]] = {
    "float": lambda text, span: t.Constant(float(text), span=span),
    "percent": lambda text, span: t.Percent(float(text[:-1]), span=span),
    "duration": lambda text, span: t.Duration(float(text.split()[0]), text.split()[1].rstrip("s"), span=span),
    "string": lambda text, span: t.String(text[1:-1], span=span),
}
"""Rules that hold a single token."""


class _Builder:
    """Turns lark's trees into nodes, by one of the tables above or a method for the rule or alias of the grammar."""

    def __init__(self, source: Source, offset: int):
        self.source, self.offset = source, offset

    def node(self, tree: Any) -> Any:
        if tree is None:
            return None
        if tree.data == "binary":
            return self._binary(tree)
        span, children = self.span(tree.meta), tree.children
        if tree.data in _SEVERAL:
            return _SEVERAL[tree.data](self.nodes(children), span=span)
        if tree.data in _TOKENS:
            return _TOKENS[tree.data](str(children[0]), span)
        if tree.data not in _DIRECT:
            return getattr(self, "on_" + tree.data)(children, span)
        kind = _DIRECT[tree.data]
        parts = [str(x) if isinstance(x, Token) else self.node(x) for x in children]
        if issubclass(kind, t.Named):
            return kind(*parts, name_span=self.token(children[0]), span=span)
        return kind(*parts, span=span)

    def _binary(self, tree: Any) -> t.Expression:
        """A chain of operators, however long: its left sides stand in each other."""
        chain = []
        while isinstance(tree, Tree) and tree.data == "binary":
            chain.append(tree)
            tree = tree.children[0]
        left: t.Expression = self.node(tree)
        for one in reversed(chain):
            _, operator, right = one.children
            left = t.Binary(left, str(operator), self.node(right), span=self.span(one.meta))
        return left

    def nodes(self, trees: list[Any]) -> tuple[Any, ...]:
        return tuple(self.node(x) for x in trees if x is not None)

    def span(self, meta: Any) -> Span:
        return Span(self.source, self.offset + meta.start_pos, self.offset + meta.end_pos)

    def token(self, token: Token) -> Span:
        return Span(self.source, self.offset + (token.start_pos or 0), self.offset + (token.end_pos or 0))

    def named(self, token: Token) -> dict[str, Any]:
        return {"name": str(token), "name_span": self.token(token)}

    def text(self, token: Token) -> t.String:
        return t.String(str(token)[1:-1], span=self.token(token))

    def name(self, token: Token) -> t.Name:
        return t.Name(str(token), span=self.token(token))

    def place_on_disk(self, path: Token, dtype: Token | None, limit: Token | None) -> dict[str, Any]:
        return {
            "path": self.text(path),
            "dtype": None if dtype is None else self.name(dtype),
            "limit": None if limit is None else self.size(limit),
        }

    def size(self, token: Token) -> t.Size:
        number, unit = str(token)[:-2], str(token)[-2:]
        return t.Size(round(float(number) * 1000 ** (1 + "KMGT".index(unit[0].upper()))), span=self.token(token))

    def whole(self, token: Token) -> int:
        if len(token) > 18:
            raise _TooLong(self.token(token))
        return int(token)

    # statements
    def on_version(self, c: list[Any], span: Span) -> t.Version:
        return t.Version(self.whole(c[0]), span=span)

    def on_import_(self, c: list[Any], span: Span) -> t.Import:
        target, name = c
        is_spec = isinstance(target, Token)
        words = str(target)[1:-1] if is_spec else ".".join(str(x) for x in target.children)
        if name is not None:
            return t.Import(**self.named(name), target=words, is_spec=is_spec, span=span)
        implied = Path(words).stem.replace("-", "_") if is_spec else words.rsplit(".", 1)[-1]
        place = self.token(target) if is_spec else self.span(target.meta)
        return t.Import(name=implied, name_span=place, target=words, is_spec=is_spec, span=span)

    def _model(self, role: str, c: list[Any], span: Span) -> t.Model:
        return t.Model(**self.named(c[0]), role=role, source=self.node(c[1]), block=self.node(c[2]), span=span)

    on_teacher = partialmethod(_model, "teacher")
    on_student = partialmethod(_model, "student")

    def on_cache(self, c: list[Any], span: Span) -> t.Cache:
        return t.Cache(**self.named(c[0]), value=self.node(c[1]), **self.place_on_disk(*c[2:]), span=span)

    def on_auto_cache(self, c: list[Any], span: Span) -> t.AutoCache:
        return t.AutoCache(self.name(c[0]), **self.place_on_disk(*c[1:]), span=span)

    def on_sample(self, c: list[Any], span: Span) -> t.Sample:
        return t.Sample(self.node(c[0]), self.node(c[1]), self.nodes(c[2:]), span=span)

    def on_function(self, c: list[Any], span: Span) -> t.Function:
        return t.Function(**self.named(c[0]), parameters=self.nodes(c[1:-1]), value=self.node(c[-1]), span=span)

    # expressions
    def on_negative(self, c: list[Any], span: Span) -> t.Negative:
        return t.Negative(self.node(c[-1]), span=span)

    def on_call(self, c: list[Any], span: Span) -> t.Call:
        arguments = [self.node(x) for x in c[1:] if x is not None]
        wrapped = (x if isinstance(x, t.Argument) else t.Argument(x, span=x.span) for x in arguments)
        return t.Call(self.node(c[0]), tuple(wrapped), span=span)

    def on_named(self, c: list[Any], span: Span) -> t.Argument:
        return t.Argument(self.node(c[1]), name=str(c[0]), name_span=self.token(c[0]), span=span)

    def on_pair(self, c: list[Any], span: Span) -> t.Argument:
        return t.Argument(self.node(c[1]), key=self.node(c[0]), span=span)

    def on_index(self, c: list[Any], span: Span) -> t.Index:
        return t.Index(self.node(c[0]), self.nodes(c[1:]), span=span)

    def on_slice(self, c: list[Any], span: Span) -> t.Slice:
        part = {x.data: self.node(x.children[0]) for x in c if x is not None}
        return t.Slice(part.get("from"), part.get("to"), part.get("by"), span=span)

    def on_at(self, c: list[Any], span: Span) -> t.At:
        return t.At(self.node(c[0]), self.text(c[-1]), len(c) == 3, span=span)

    def on_name(self, c: list[Any], span: Span) -> t.Expression:
        words: dict[str, bool | None] = {"true": True, "false": False, "none": None}
        word = str(c[0])
        return t.Constant(words[word], span=span) if word in words else t.Name(word, span=span)

    def on_int(self, c: list[Any], span: Span) -> t.Constant:
        return t.Constant(self.whole(c[0]), span=span)
