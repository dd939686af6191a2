"""The syntax tree: one frozen node per construct of `brew 1`, each with its span.

Two nodes are equal when they say the same; where they stand does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from brewgraph.source import Span


@dataclass(frozen=True)
class Node:
    """Base of every node."""

    span: Span = field(compare=False, repr=False, kw_only=True)

    def children(self) -> Iterator[Node]:
        """The nodes directly below, in the order of the text."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            for member in value if isinstance(value, tuple) else (value,):
                if isinstance(member, Node):
                    yield member

    def walk(self) -> Iterator[Node]:
        """This node and every node below it, parents first."""
        yield self
        for child in self.children():
            yield from child.walk()


# ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Expression(Node):
    pass


@dataclass(frozen=True)
class Constant(Expression):
    """A number, `true`, `false` or `none`."""

    value: int | float | bool | None


@dataclass(frozen=True)
class String(Expression):
    """The text between the quotes, `{name}` not yet filled in."""

    value: str


@dataclass(frozen=True)
class Percent(Expression):
    """`30%`: a share of the stage's steps."""

    value: float


@dataclass(frozen=True)
class Duration(Expression):
    """`1000 steps`, `3 epochs`."""

    value: float
    unit: str


@dataclass(frozen=True)
class Name(Expression):
    id: str


@dataclass(frozen=True)
class Attribute(Expression):
    value: Expression
    name: str


@dataclass(frozen=True)
class Argument(Node):
    """What stands between the brackets of a call: `x`, `name=x`, or `key: x`."""

    value: Expression
    name: str | None = None
    key: Expression | None = None
    name_span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Call(Expression):
    function: Expression
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Slice(Node):
    start: Expression | None
    stop: Expression | None
    step: Expression | None


@dataclass(frozen=True)
class Index(Expression):
    value: Expression
    items: tuple[Expression | Slice, ...]


@dataclass(frozen=True)
class At(Expression):
    """`bert @ "path"`: a module's output; with `input`, what it is given."""

    model: Expression
    path: String
    input: bool


@dataclass(frozen=True)
class List(Expression):
    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Tuple(Expression):
    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Pairing(Node):
    """`key: value` between the braces of a mapping."""

    key: Expression
    value: Expression


@dataclass(frozen=True)
class Mapping(Expression):
    """`{input_ids: column}`."""

    items: tuple[Pairing, ...]


@dataclass(frozen=True)
class Negative(Expression):
    operand: Expression


@dataclass(frozen=True)
class Binary(Expression):
    """`left operator right`; operators are `+ - * / **`."""

    left: Expression
    operator: str
    right: Expression


@dataclass(frozen=True)
class Via(Expression):
    value: Expression
    projection: Expression


@dataclass(frozen=True)
class Arrow(Expression):
    source: Expression
    target: Expression


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Statement(Node):
    pass


@dataclass(frozen=True)
class Version(Statement):
    number: int


@dataclass(frozen=True)
class Named(Statement):
    """A statement that introduces a name; `name_span` is where the name stands."""

    name: str
    name_span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Import(Named):
    """`target` is a path (`is_spec`) or a dotted module name; `name` is what it is called here."""

    target: str
    is_spec: bool


@dataclass(frozen=True)
class Param(Named):
    type: str | None
    default: Expression | None


@dataclass(frozen=True)
class Let(Named):
    value: Expression


@dataclass(frozen=True)
class Block(Node):
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Model(Named):
    """`teacher` or `student` (`role`)."""

    role: str
    source: Expression
    block: Block | None


@dataclass(frozen=True)
class Head(Named):
    source: Expression


@dataclass(frozen=True)
class Data(Named):
    source: Expression


@dataclass(frozen=True)
class Tap(Named):
    value: Expression


@dataclass(frozen=True)
class Proj(Named):
    value: Expression


@dataclass(frozen=True)
class Cache(Named):
    value: Expression
    path: String


@dataclass(frozen=True)
class Equation(Named):
    value: Expression


@dataclass(frozen=True)
class Parameter(Named):
    default: Expression | None


@dataclass(frozen=True)
class Function(Named):
    parameters: tuple[Parameter, ...]
    value: Expression


@dataclass(frozen=True)
class Task(Named):
    block: Block


@dataclass(frozen=True)
class Stage(Named):
    length: Expression | None
    block: Block


@dataclass(frozen=True)
class Sample(Statement):
    tasks: Expression
    law: Expression | None
    options: tuple[Argument, ...]


@dataclass(frozen=True)
class Train(Statement):
    block: Block


@dataclass(frozen=True)
class Spec(Node):
    """A whole file."""

    statements: tuple[Statement, ...]
