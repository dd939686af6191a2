"""A TextBrewer configuration as people keep it, to plain values and where each of them stands. Nothing is executed.

A file is JSON, or Python: a literal alone, or a module in which literals have names (`matches.py` of TextBrewer's
examples) and calls of `DistillationConfig(…)` and `TrainingConfig(…)` say their arguments (`scripts`).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from brewgraph.convert.scripts import (
    CONFIGS,
    Names,
    assigned,
    called,
    changed_configurations,
    configurations,
    names_of,
)
from brewgraph.diagnostics import Collector
from brewgraph.source import Source, Span

Path = tuple[str | int, ...]
"""Keys and positions, from the outside in."""

_CALLS = (*CONFIGS, "dict")
_PLACES = ("output_dir", "log_dir", "device", "local_rank")
"""Settings that have no counterpart in a spec, so that what a script computes for them need not be known."""
_JSON_WORDS = {"true": True, "false": False, "null": None}
_SAMPLE = 'write `{"temperature": 8, "intermediate_matches": […]}`, as JSON or as a Python literal'


@dataclass(frozen=True)
class Read:
    """A value of a file. `values` and `keys` are the places of what lies in it, by its path; the value's own is ()."""

    value: Any
    values: Mapping[Path, Span]
    keys: Mapping[Path, Span]
    name: str = ""
    """Of the variable or the call that it was given to; empty where the file is nothing but this value."""

    def place(self, path: Path) -> Span:
        """Where the value at a path stands, or else what it would stand in."""
        while path not in self.values:
            path = path[:-1]
        return self.values[path]

    def key(self, path: Path) -> Span:
        """Where the key stands that a path ends in."""
        return self.keys.get(path) or self.place(path)

    def part(self, *path: str | int) -> Read:
        """What lies at a path, as a value of its own."""
        value = self.value
        for step in path:
            value = value[step]
        inner = len(path)

        def below(places: Mapping[Path, Span]) -> dict[Path, Span]:
            return {at[inner:]: span for at, span in places.items() if at[:inner] == path}

        return Read(value, below(self.values), below(self.keys), str(path[-1]))


def read_values(source: Source, collector: Collector) -> tuple[Read, ...]:
    """The values of a file, each with its name; none, and diagnostics, where it cannot be read."""
    whole = Span(source, 0, len(source.text.rstrip()))
    if not source.text.strip():
        collector.add("B020", "the file is empty", Span(source, 0, 1), help=_SAMPLE)
        return ()
    try:
        value = json.loads(source.text)
    except json.JSONDecodeError as error:
        if source.name.endswith(".json") and _module(source) is None:
            place = Span(source, error.pos, error.pos + 1)
            help = "a comma or a quotation mark is missing, or one too many: correct it, or write a Python literal"
            if source.text[error.pos : error.pos + 2] in ("//", "/*"):
                help = "JSON has no comments: remove it"
            collector.add("B020", f"this is no JSON: {error.msg}", place, help=help)
            return ()
        return _read_python(source, whole, collector)
    reader = _Reader(source, Names({}), Collector())
    try:
        # brackets let the text begin with blanks; the reader takes them off the places
        node = ast.parse(f"({source.text})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return (Read(value, {(): whole}, {}),)
    reader.before = 1
    reader.read(node, ())
    collector.diagnostics += [d for d in reader.collector.diagnostics if d.code == "B125"]
    return (Read(value, {(): whole} | reader.values, reader.keys),)


def _module(source: Source) -> ast.Module | None:
    try:
        return ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _read_python(source: Source, whole: Span, collector: Collector) -> tuple[Read, ...]:
    try:
        module = ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = min(getattr(error, "lineno", None) or 1, source.text.count("\n") + 1)
        start = _start_of(source.text, line) + max(0, (getattr(error, "offset", None) or 1) - 1)
        help = f"correct it; {_SAMPLE}"
        message = f"this is neither JSON nor Python: {getattr(error, 'msg', error)}"
        collector.add("B020", message, Span(source, start, start + 1), help=help)
        return ()
    names = names_of(module)
    at = _Reader(source, names, collector)
    for place in changed_configurations(module):
        message = f"`{at.span(place).text}` changes a configuration after it was made, and nothing is executed here"
        help = "write the value into the call that makes it"
        collector.add("B122", message, at.span(place), help=help)
    found = list(_literals(module, names))
    if not found:
        message = "the file has no configuration in it"
        collector.add("B020", message, Span(source, 0, max(1, whole.end)), help=_SAMPLE)
    read = []
    for name, node in found:
        reader, before = _Reader(source, names, collector), len(collector.diagnostics)
        value = reader.read(node, ())
        if value is not None or len(collector.diagnostics) == before:
            read.append(Read(value, reader.values, reader.keys, name))
    return tuple(read)


def _start_of(text: str, line: int) -> int:
    """The offset at which a line begins, counted from 1."""
    start = 0
    for _ in range(line - 1):
        start = text.index("\n", start) + 1
    return start


def _literals(module: ast.Module, names: Names) -> Iterator[tuple[str, ast.expr]]:
    """What a module says of a configuration: a literal alone, its calls of the two classes, or else what has a name."""
    if len(module.body) == 1 and isinstance(alone := module.body[0], ast.Expr) and not any(configurations(module)):
        yield ("", alone.value)
        return
    calls = list(configurations(module))
    yield from calls
    used = {name.id for _, call in calls for name in ast.walk(call) if isinstance(name, ast.Name)}
    named = {name: (node, value) for node in module.body for name, value in assigned(node)}
    for name, (node, value) in named.items():
        if name not in used and isinstance(value, ast.Dict | ast.List | ast.BinOp):
            yield (name, ast.copy_location(ast.Name(name), node) if name in names.changed else value)


class _Reader:
    """Reads one value: its structure node by node, and what is no structure as a literal."""

    def __init__(self, source: Source, names: Names, collector: Collector):
        self.source, self.names, self.collector = source, names, collector
        self.values: dict[Path, Span] = {}
        self.keys: dict[Path, Span] = {}
        self.before = 0
        """Signs before the text on its first line."""
        self._following: list[str] = []

    def read(self, node: ast.expr, path: Path) -> Any:
        """The value of a node; None, with a diagnostic, for what is no literal."""
        self.values.setdefault(path, self.span(node))
        match node:
            case ast.Dict():
                return self._mapping([(key, value) for key, value in zip(node.keys, node.values, strict=True)], path)
            case ast.Call() if called(node) in _CALLS and not node.args:
                return self._mapping([(k, k.value) for k in node.keywords], path)
            case ast.List():
                return [self.read(item, (*path, i)) for i, item in enumerate(node.elts)]
            case ast.Tuple():
                return tuple(self.read(item, (*path, i)) for i, item in enumerate(node.elts))
            case ast.Name() if node.id in _JSON_WORDS:
                return _JSON_WORDS[node.id]
            case ast.Name() if node.id in self.names.values and node.id not in self._following:
                self._following.append(node.id)
                value = self.read(self.names.values[node.id], path)
                self._following.pop()
                return value
            case ast.Name() if node.id in self.names.changed:
                message = f"`{node.id}` has several values in this file, or is changed, and nothing is executed here"
                help = "write the value itself where the configuration is made"
                self.collector.add("B122", message, self.span(node), help=help)
                return None
            case ast.BinOp(op=ast.Add()):
                return self._joined(node, path)
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            if path and path[-1] in _PLACES:
                return self.span(node).text
            message = f"`{self.span(node).text}` is not a literal, and nothing is executed here"
            help = "write the value itself: a number, a text in quotes, true or false, a list"
            self.collector.add("B122", message, self.span(node), help=help)
            return None

    def _mapping(self, items: list[tuple[ast.expr | ast.keyword | None, ast.expr]], path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            name = key.arg if isinstance(key, ast.keyword) else getattr(key, "value", None)
            if key is None or not isinstance(name, str):
                place = self.span(key if key is not None else value)
                help = 'write `"temperature": 8`'
                self.collector.add("B122", "a key is a text in quotes", place, help=help)
                continue
            at = (*path, name)
            if name in found:
                help = "remove one of them"
                self.collector.add("B125", f"`{name}` is given twice", self.span(key), help=help)
            width = len(name) if isinstance(key, ast.keyword) else None
            self.keys[at] = self.span(key, width)
            found[name] = self.read(value, at)
        return found

    def _joined(self, node: ast.BinOp, path: Path) -> Any:
        """Two lists as one; the members of the second keep their places."""
        left = self.read(node.left, path)
        first = len(left) if isinstance(left, list) else 0
        other = _Reader(self.source, self.names, self.collector)
        right = other.read(node.right, ())
        if not isinstance(left, list) or not isinstance(right, list):
            message = "only lists are joined by `+`"
            self.collector.add("B122", message, self.span(node), help="write the value itself")
            return None
        for mine, theirs in ((self.values, other.values), (self.keys, other.keys)):
            for at, span in theirs.items():
                if at and isinstance(at[0], int):
                    mine[(*path, at[0] + first, *at[1:])] = span
        return left + right

    def span(self, node: ast.expr | ast.keyword, width: int | None = None) -> Span:
        """Where a node stands."""
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
        return Span(self.source, start, end if width is None else start + width)

    def _offset(self, line: int, column: int) -> int:
        """A place in the text from Python's: lines from 1, columns in bytes of UTF-8."""
        before = self.before if line == 1 else 0
        start = _start_of(self.source.text, line)
        text = self.source.line(line).encode()
        return start + len(text[: column - before].decode(errors="ignore"))
