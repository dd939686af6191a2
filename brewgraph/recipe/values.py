"""What the expressions of a spec evaluate to: immutable, with lists spelled out and layer maps applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, TypeGuard, TypeVar, dataclass_transform

from brewgraph.ops import DeclaredTransform, Operation
from brewgraph.recipe.features import Feature
from brewgraph.recipe.length import Length as Length
from brewgraph.recipe.settings.base import Settings
from brewgraph.recipe.settings.data_sources import DataSource, Join
from brewgraph.recipe.settings.model_sources import Layers, ModelSource
from brewgraph.source import Span

T = TypeVar("T")


@dataclass(frozen=True)
class Declaration:
    """A model or a data set. `name` is the full name: `ner.docs` in a task. `places` maps each argument, and `head
    NAME`, to its place; `params` maps arguments to the params that they use.
    """

    name: str
    span: Span = field(compare=False, repr=False, kw_only=True)
    places: Mapping[str, Span] = field(compare=False, repr=False, kw_only=True)
    params: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False, repr=False, kw_only=True)

    def place(self, argument: str | None) -> Span:
        """The place of an argument; the whole source if it is not written."""
        return self.places.get(argument or "", self.span)

    def remedy(self, help: str, argument: str | None) -> str:
        """The remedy for an argument, including `--set` if its value comes from a param."""
        settings = (f"`--set {name}=…` gives another" for name in sorted(self.params.get(argument or "", ())))
        return "; ".join(x for x in (help, *settings) if x)


@dataclass(frozen=True)
class ModelDeclaration(Declaration):
    """`heads` maps names to heads; without any, the model has the one it needs."""

    role: str
    source: ModelSource
    heads: Mapping[str, Settings] = field(default_factory=dict)


@dataclass(frozen=True)
class DataDeclaration(Declaration):
    """A data set; the `source` of `a + b` is a `Join`. If not `known`, it replaces a faulty source."""

    source: DataSource | Join
    known: bool = True


@dataclass(frozen=True)
class Forwarded:
    """`bert(mnli, pass=2)`: a model on an input, and the head if one is named."""

    model: ModelDeclaration
    data: str
    passing: int = 1
    head: str | None = None


@dataclass(frozen=True)
class LayerMap:
    """`[0, 4] -> [0, 1]`: pairs of layers."""

    left: tuple[int, ...]
    right: tuple[int, ...]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
@dataclass(frozen=True)
class Value:
    """A value that training computes; each subclass is a frozen dataclass. `kind` is one of `brewgraph.ops.KINDS`."""

    kind: str
    span: Span = field(compare=False, repr=False, kw_only=True)

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    size: ClassVar[int] = 1
    """The number of values that `walk` gives."""
    height: ClassVar[int] = 1
    """How many values stand inside each other."""

    def __post_init__(self) -> None:
        if inside := parts(self):
            object.__setattr__(self, "size", 1 + sum(part.size for part in inside))
            object.__setattr__(self, "height", 1 + max(part.height for part in inside))


class Take(Value):
    """A feature of a model's forward on a data set; `passing` distinguishes forwards on the same input."""

    model: str
    data: str
    feature: Feature
    passing: int = 1


@dataclass(frozen=True)
class Row:
    """A row of a model's features, not yet indexed: `bert.hidden`."""

    take: Take


class Column(Value):
    """A column of a data set: `labels`, `start`, `end`, `weights`, or one by its name."""

    data: str
    column: str


@dataclass(frozen=True)
class Projector:
    """A projection module. `name` is that of the `proj` statement, None if inline (`via linear`). `into` and `out` are
    widths, None if an arrow fixes them. `options` are optimizer settings (`lr`, …).
    """

    name: str | None
    activation: str
    into: int | None
    out: int | None
    options: tuple[tuple[str, float], ...]
    site: str
    """Its place in the spec as a unique key of its parameters."""
    span: Span = field(compare=False, repr=False, kw_only=True)


class Project(Value):
    value: Value
    projector: Projector


class Bundle(Value):
    """Several values as one argument: a tuple of kind `(hidden, hidden)`, or a whole row of kind `hidden...`, without
    `items` while its length is unknown.
    """

    items: tuple[Value, ...]


class Transform(Value):
    """A value made from others by one of `ops.TRANSFORMS` or `ALONE`. `mask` is `none` if padding counts like real
    tokens, else None.
    """

    name: str
    values: tuple[Value, ...]
    options: tuple[tuple[str, Option], ...] = ()
    mask: str | None = None
    written: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """The options that the spec sets."""
    declared: DeclaredTransform = field(compare=False, repr=False, kw_only=True)


class Cached(Value):
    """A value cached in the folder `path`, computed once per example. `name` is that of its statement, `place` that of
    the path. `dtype` is the number format on disk, None for that in which it is computed; the folder stays within
    `limit` bytes.
    """

    value: Value
    name: str
    path: str
    dtype: str | None = None
    limit: int | None = None
    place: Span = field(compare=False, repr=False, kw_only=True)


class Apply(Value):
    """A loss between two values. `mask` is a name, a column of the data, or None if the kind chooses it. Under
    `reduce="none"` it is not `reduced`: one number per unit, of kind `values`.
    """

    operation: str
    source: Value
    target: Value
    options: tuple[tuple[str, Option], ...]
    mask: str | Column | None
    reduced: bool = True
    written: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """The options that the spec sets."""
    declared: Operation = field(compare=False, repr=False, kw_only=True)
    """The operation as declared; its function is None where an imported module was only read."""


class Temperature(Value):
    """A temperature per example, computed from the logits of the loss: `flsw(4, beta=1, gamma=2)`."""

    name: str
    base: float
    options: tuple[tuple[str, float], ...]


class Number(Value):
    value: float


class Scheduled(Value):
    """A schedule: its name in the registry, its numbers, and its lengths."""

    name: str
    arguments: tuple[float | Length, ...]


class Symbol(Value):
    """`size` or `batches` of a task, in the law of `sample`."""

    name: str


class Combine(Value):
    """Arithmetic: `operator` is one of `+ - * / ** mean max softmax`; `position` is the share of a softmax."""

    operator: str
    operands: tuple[Value, ...]
    position: int | None = None


Option = Number | Scheduled | Combine | Temperature | str
"""The value of a keyword argument of an operation."""


@dataclass(frozen=True)
class Axis:
    """What a list runs over. `key` identifies it; `name` is that of its `let`, or empty. `kind`: `models`; `row`,
    layers or modules; `list`, a literal list.
    """

    name: str
    kind: str
    key: str


@dataclass(frozen=True)
class Group:
    """A list of values. `items` is None while its length is unknown (a slice, before configurations are read)."""

    items: tuple[Evaluated, ...] | None
    span: Span = field(compare=False, repr=False, kw_only=True)
    kind: str = "tensor"
    """Kind of the members while they are unknown."""
    axis: Axis = field(default=Axis("", "list", ""), compare=False)

    def __iter__(self) -> Iterator[Evaluated]:
        return iter(self.items or ())

    @cached_property
    def size(self) -> int:
        """The number of members of all lists inside, and of their parts."""
        return 1 + sum(map(size_of, self))

    def map(self, function: Callable[[Evaluated], Evaluated]) -> Group:
        """The function applied to each member."""
        return self if self.items is None else replace(self, items=each(function, self.items))

    def map_values(self, function: Callable[[Evaluated], Evaluated]) -> Group:
        """`map` for a function of values, which also gives the kind of unknown members."""
        if self.items is not None or self.kind == "tensor":
            return self.map(function)
        like = function(Value(self.kind, span=self.span))
        assert isinstance(like, Value)
        return replace(self, kind=like.kind)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of a list of lists, the outermost first."""
        inner = next((x for x in self if isinstance(x, Group)), None)
        return (self.axis, *(inner.axes if inner is not None else ()))


@dataclass(frozen=True)
class Match:
    """Two sides of an arrow, outside an operation."""

    source: Evaluated
    target: Evaluated
    span: Span = field(compare=False, repr=False, kw_only=True)


class Namespace:
    """A body of statements as a value, `ner` in `ner.kd`. `kind` is `task`, `stage`, or another for an import."""

    kind: str


class Faulty(Exception):
    """There is no value, and its diagnostic was reported."""


def each(function: Callable[..., T], *rows: Iterable[object]) -> tuple[T, ...]:
    """The function of each member, called for all of them before a `Faulty` is raised, so that all faults are found."""
    results: list[T] = []
    faulty: list[Faulty] = []
    for arguments in zip(*rows, strict=True):
        try:
            results.append(function(*arguments))
        except Faulty as fault:
            faulty.append(fault)
    if faulty:
        raise faulty[0]
    return tuple(results)


Plain = int | float | str | bool | None
# fmt: off
Evaluated = (
    Plain | tuple[Plain, ...] | Length | Value | Row | Group | Match | LayerMap | Layers | Projector | ModelDeclaration
    | DataDeclaration | Forwarded | Namespace
)
# fmt: on
"""Whatever an expression evaluates to."""


MOST_PARTS, HIGHEST = 50_000, 250
"""The most members and parts of a value, where those that occur several times count each time, and the most that stand
inside each other.
"""


def size_of(value: object) -> int:
    """The number of members and parts of a value, those that occur several times counted each time."""
    if isinstance(value, Value | Group):
        return value.size
    return len(value) if isinstance(value, tuple) else 1


def leaves(value: Evaluated) -> Iterator[Evaluated]:
    """The members of a list of any depth: values, numbers and strings."""
    for item in value if isinstance(value, Group | tuple) else (value,):
        if isinstance(item, Group | tuple):
            yield from leaves(item)
        else:
            yield item


def members(value: Evaluated) -> Iterator[Value]:
    """The values in a value or a list of any depth."""
    if isinstance(value, Group):
        for item in value:
            yield from members(item)
    elif isinstance(value, Value):
        yield value


def walk(value: Value) -> Iterator[Value]:
    """A value and everything that it is made from, itself first, then its parts one after the other."""
    waiting = [value]
    while waiting:
        yield (part := waiting.pop())
        waiting.extend(reversed(parts(part)))


def takes_in(*values: Value) -> list[Take]:
    """The features that values are made from, in the order of the text."""
    return [part for value in values for part in walk(value) if isinstance(part, Take)]


def parts(value: Value) -> tuple[Value, ...]:
    """The values that a value is made from directly."""
    match value:
        case Project() | Cached():
            return (value.value,)
        case Apply():
            options = tuple(option for _, option in value.options if isinstance(option, Value))
            mask = (value.mask,) if isinstance(value.mask, Column) else ()
            return (value.source, value.target, *mask, *options)
        case Combine():
            return value.operands
        case Bundle():
            return value.items
        case Transform():
            return (*value.values, *(option for _, option in value.options if isinstance(option, Value)))
    return ()


# ── values in messages, and small questions about them ───────────────────────────────────────────────────────────────


_KINDS = {
    "loss": "a loss",
    "labels": "labels",
    "logits": "logits",
    "hidden": "hidden states",
    "attention": "attention probabilities",
    "scores": "attention scores",
    "states": "queries, keys or values",
    "positions": "scores over tokens",
    "targets": "labels that are numbers",
    "values": "one number per example or token",
    "probabilities": "probabilities of classes",
    "places": "probabilities of tokens",
}


def describe(x: object) -> str:
    """What a value is, in the words of a message."""
    if isinstance(x, Scheduled):
        return "a schedule"
    if isinstance(x, Bundle):
        return "a tuple" if x.kind.startswith("(") else "a row of features"
    if isinstance(x, Forwarded) and x.head is not None:
        return "a head of a model"
    if isinstance(x, Namespace):
        return f"a {x.kind}" if x.kind in ("task", "stage") else "an imported spec"
    if isinstance(x, Value):
        return _KINDS.get(x.kind, f"a {x.kind}")
    named: dict[type, str] = {
        Group: "a list", Row: "a row of features", LayerMap: "a layer map", Match: "a match", Length: "a length",
        ModelDeclaration: "a model", Forwarded: "a model on an input", DataDeclaration: "a data set",
        tuple: "a list", str: "a string",
        bool: "a truth value", int: "a number", float: "a number", type(None): "none", Layers: "layers of a model",
        Projector: "a projection",
    }  # fmt: skip
    return next((words for kind, words in named.items() if isinstance(x, kind)), type(x).__name__)


def as_value(x: Evaluated, place: Span) -> Value | None:
    """A number or value as a value; None for anything else."""
    if is_number(x):
        return Number("number", float(x), span=place)
    return x if isinstance(x, Value) else None


def is_number(x: object) -> TypeGuard[int | float]:
    return isinstance(x, int | float) and not isinstance(x, bool)


def is_whole(x: object) -> TypeGuard[int]:
    return isinstance(x, int) and not isinstance(x, bool)


def is_constant(x: object) -> TypeGuard[Plain | tuple[Plain, ...]]:
    """Whether a value is a number, a string, true, false, none, or a list of such."""
    return all(map(is_constant, x)) if isinstance(x, tuple) else x is None or isinstance(x, int | float | str)


def are_numbers(items: tuple[Evaluated, ...]) -> TypeGuard[tuple[int | float, ...]]:
    return all(map(is_number, items))


def are_plain(items: tuple[Evaluated, ...]) -> TypeGuard[tuple[int | float | str, ...]]:
    """Whether all members of a list are numbers, strings, or truth values."""
    return all(isinstance(x, int | float | str) for x in items)


def are_layers(x: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(x, tuple) and bool(x) and all(map(is_whole, x))
