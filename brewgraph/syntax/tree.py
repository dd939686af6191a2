"""The syntax tree: one frozen node per construct of `brew 1`, each with its span.

Equality ignores spans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import ClassVar, dataclass_transform

from brewgraph.source import Span


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
@dataclass(frozen=True)
class Node:
    """Base of every node: each subclass is a frozen dataclass."""

    span: Span = field(compare=False, repr=False, kw_only=True)
    _parts: ClassVar[tuple[str, ...]] = ()
    """The fields that are no spans."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)
        cls._parts = tuple(part.name for part in fields(cls) if part.compare)

    def children(self) -> list[Node]:
        """The nodes directly below, in the order of the text."""
        found: list[Node] = []
        for name in self._parts:
            value = getattr(self, name)
            if isinstance(value, Node):
                found.append(value)
            elif isinstance(value, tuple):
                found += [member for member in value if isinstance(member, Node)]
        return found

    def walk(self) -> Iterator[Node]:
        """This node and every node below it, parents first."""
        waiting: list[Node] = [self]
        while waiting:
            yield (node := waiting.pop())
            waiting += reversed(node.children())


# ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Expression(Node):
    pass


class Constant(Expression):
    """A number, `true`, `false` or `none`."""

    value: int | float | bool | None


class String(Expression):
    """The text between the quotes, `{name}` not yet filled in."""

    value: str


class Percent(Expression):
    """`30%`: a share of the stage's steps."""

    value: float


class Duration(Expression):
    """`1000 steps`, `3 epochs`, `4096 tokens`."""

    value: float
    unit: str


class Name(Expression):
    id: str


class Attribute(Expression):
    value: Expression
    name: str

    @property
    def name_span(self) -> Span:
        return Span(self.span.source, self.span.end - len(self.name), self.span.end)


class Argument(Node):
    """An argument of a call: `x`, `name=x`, or `key: x`."""

    value: Expression
    name: str | None = None
    key: Expression | None = None
    name_span: Span | None = field(default=None, compare=False, repr=False)

    @property
    def is_plain(self) -> bool:
        """Whether it has neither a name nor a key."""
        return self.name is None and self.key is None

    @property
    def place(self) -> Span:
        """Its name, else all of it."""
        return self.name_span or self.span


class Call(Expression):
    function: Expression
    arguments: tuple[Argument, ...]


class Slice(Node):
    start: Expression | None
    stop: Expression | None
    step: Expression | None


class Index(Expression):
    value: Expression
    items: tuple[Expression | Slice, ...]


class At(Expression):
    """`bert @ "path"`: a module's output; with `input`, what it is given."""

    model: Expression
    path: String
    input: bool


class List(Expression):
    items: tuple[Expression, ...]


class Tuple(Expression):
    items: tuple[Expression, ...]


class Pairing(Node):
    """`key: value` between the braces of a mapping."""

    key: Expression
    value: Expression


class Mapping(Expression):
    """`{input_ids: column}`."""

    items: tuple[Pairing, ...]


class Negative(Expression):
    operand: Expression


class Binary(Expression):
    """`left operator right`; operators are `+ - * / **`."""

    left: Expression
    operator: str
    right: Expression


class Via(Expression):
    value: Expression
    projection: Expression


class Arrow(Expression):
    source: Expression
    target: Expression


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Statement(Node):
    pass


class Version(Statement):
    number: int


class Named(Statement):
    """A statement that introduces a name; `name_span` is where the name stands."""

    name: str
    name_span: Span = field(compare=False, repr=False, kw_only=True)


class Import(Named):
    """`target` is a path (`is_spec`) or a dotted module name; `name` is what it is called here."""

    target: str
    is_spec: bool


class Param(Named):
    type: str | None
    default: Expression | None


class Let(Named):
    value: Expression


class Block(Node):
    statements: tuple[Statement, ...]


class Model(Named):
    """`teacher` or `student` (`role`)."""

    role: str
    source: Expression
    block: Block | None


class Head(Named):
    source: Expression


class Data(Named):
    source: Expression


class Tap(Named):
    value: Expression


class Proj(Named):
    value: Expression


class Size(Expression):
    """`20 GB`, in bytes."""

    value: int


class Cache(Named):
    """`dtype` is the name behind `as`; both clauses may be missing."""

    value: Expression
    path: String
    dtype: Name | None
    limit: Size | None


class AutoCache(Statement):
    """`cache auto at "folder"`; `word` is the name behind `cache`, which must be `auto`."""

    word: Name
    path: String
    dtype: Name | None
    limit: Size | None


class Equation(Named):
    value: Expression


class Parameter(Named):
    default: Expression | None


class Function(Named):
    parameters: tuple[Parameter, ...]
    value: Expression


class Task(Named):
    block: Block


class Stage(Named):
    length: Expression | None
    block: Block


class Sample(Statement):
    tasks: Expression
    law: Expression | None
    options: tuple[Argument, ...]


class Train(Statement):
    block: Block


class Spec(Node):
    """A whole file."""

    statements: tuple[Statement, ...]
