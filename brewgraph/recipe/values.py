"""What the expressions of a spec evaluate to: immutable, with lists spelled out and layer maps applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeGuard, dataclass_transform

from brewgraph.ops import DeclaredTransform, Operation
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.sources import DataSource, Join, Layers, ModelSource, Settings
from brewgraph.source import Span


@dataclass(frozen=True)
class Length:
    """A stretch of training: `30%` (unit `share`, value 0.3), `1000 steps`, `3 epochs` (units `step`, `epoch`)."""

    value: float
    unit: str

    def steps(self, total: int, per_epoch: int) -> int:
        """The same in optimizer steps."""
        factor = {"share": total, "step": 1, "epoch": per_epoch}[self.unit]
        return round(self.value * factor)

    def __str__(self) -> str:
        plural = "" if self.value == 1 else "s"
        return f"{self.value * 100:g}%" if self.unit == "share" else f"{self.value:g} {self.unit}{plural}"


@dataclass(frozen=True)
class Declaration:
    """A model or a data set of the spec. `places` maps each argument that was written to where it stands, and `head
    NAME` to the name of a model's own head; `params` maps arguments to the params that they come from.

    `name` says it in full: what a task declares is called `ner.docs`.
    """

    name: str
    span: Span = field(compare=False, repr=False, kw_only=True)
    places: Mapping[str, Span] = field(compare=False, repr=False, kw_only=True)
    params: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False, repr=False, kw_only=True)

    def place(self, argument: str | None) -> Span:
        """Where an argument stands; the whole source where it was not written."""
        return self.places.get(argument or "", self.span)

    def remedy(self, help: str, argument: str | None) -> str:
        """What to do about an argument, and from the command line where its value comes from a param."""
        settings = (f"`--set {name}=…` gives another" for name in sorted(self.params.get(argument or "", ())))
        return "; ".join(x for x in (help, *settings) if x)


@dataclass(frozen=True)
class ModelDeclaration(Declaration):
    """`heads` maps the names of a model's own heads to what they are; without any, the model has the one it needs."""

    role: str
    source: ModelSource
    heads: Mapping[str, Settings] = field(default_factory=dict)


@dataclass(frozen=True)
class DataDeclaration(Declaration):
    """A data set; `a + b` is one whose `source` is a `Join`. One that is not `known` stands for a source at fault."""

    source: DataSource | Join
    known: bool = True


@dataclass(frozen=True)
class Forwarded:
    """`bert(mnli, pass=2)`: a model on an input, from which features are taken; `head` where one was named."""

    model: ModelDeclaration
    data: str
    passing: int = 1
    head: str | None = None


@dataclass(frozen=True)
class LayerMap:
    """`[0, 4] -> [0, 1]`: which layers of the one side belong to which of the other."""

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


class Take(Value):
    """A feature of a model's forward on a data set; `passing` tells several forwards on one input apart."""

    model: str
    data: str
    feature: Feature
    passing: int = 1


@dataclass(frozen=True)
class Row:
    """A row of a model's features, not yet indexed: `bert.hidden`."""

    take: Take


class Column(Value):
    """What a data set says of its examples: `labels`, `start`, `end`, `weights`, or a column by its name."""

    data: str
    column: str


@dataclass(frozen=True)
class Projector:
    """A projection module. `name` is that of the `proj` statement, or None where it stands inline (`via linear`).

    `into` and `out` are widths, None where an arrow fixes them. `options` are its optimizer settings (`lr`, …).
    """

    name: str | None
    activation: str
    into: int | None
    out: int | None
    options: tuple[tuple[str, float], ...]
    site: str
    """Where it stands in the spec, spelled so that two places never share a module: the key of its parameters."""
    span: Span = field(compare=False, repr=False, kw_only=True)


class Project(Value):
    value: Value
    projector: Projector


class Bundle(Value):
    """Several values as one argument: a tuple, of a kind such as `(hidden, hidden)`, or a whole row: `hidden...`.

    A row whose length is not known yet has no `items`.
    """

    items: tuple[Value, ...]


class Transform(Value):
    """A value made from others: one of `ops.TRANSFORMS`, or `stop`, `words`, `token_mean`, `batch_mean`.

    `mask` is `none` where padding is to be treated like real tokens, else None.
    """

    name: str
    values: tuple[Value, ...]
    options: tuple[tuple[str, Option], ...] = ()
    mask: str | None = None
    written: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """The options that the spec writes; the others have their default."""
    declared: DeclaredTransform = field(compare=False, repr=False, kw_only=True)


class Cached(Value):
    """A value that is kept on disk in the folder `path`, computed once for each example: `cache NAME = … at "path"`.

    `name` is that of its statement, `place` where the folder stands in it.
    """

    value: Value
    name: str
    path: str
    place: Span = field(compare=False, repr=False, kw_only=True)


class Apply(Value):
    """A loss between two values. `mask` is None where the kind chooses it, or a column of the data.

    `reduced` is false under `reduce="none"`: then it is one number per unit, of the kind `values`.
    """

    operation: str
    source: Value
    target: Value
    options: tuple[tuple[str, Option], ...]
    mask: str | Column | None
    reduced: bool = True
    written: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """The options that the spec writes; the others have their default."""
    declared: Operation = field(compare=False, repr=False, kw_only=True)
    """The operation as declared; its function is None where an imported module was only read."""


class Temperature(Value):
    """A temperature of each example's own, from the logits that it stands beside: `flsw(4, beta=1, gamma=2)`."""

    name: str
    base: float
    options: tuple[tuple[str, float], ...]


class Number(Value):
    value: float


class Scheduled(Value):
    """A schedule by its name in the registry, its numbers, and the lengths that only a run turns into shares."""

    name: str
    arguments: tuple[float | Length, ...]


class Symbol(Value):
    """`size` or `batches` of a task, in the law by which tasks are drawn."""

    name: str


class Combine(Value):
    """Arithmetic: `operator` is one of `+ - * / ** mean max softmax`, over one or more operands.

    `position` says which share of a softmax this is.
    """

    operator: str
    operands: tuple[Value, ...]
    position: int | None = None


Option = Number | Scheduled | Combine | Temperature | str
"""What a keyword argument of an operation may be."""


@dataclass(frozen=True)
class Axis:
    """What a list runs over. `key` tells axes apart; `name` is that of its `let`, empty without one.

    `kind`: `models`, a list of models; `row`, layers or modules that were picked; `list`, members written out.
    """

    name: str
    kind: str
    key: str


@dataclass(frozen=True)
class Group:
    """A list of values. `items` is None where its length is not known yet (a slice, before configurations are read)."""

    items: tuple[Evaluated, ...] | None
    span: Span = field(compare=False, repr=False, kw_only=True)
    kind: str = "tensor"
    """Kind of the members where they are not known yet."""
    axis: Axis = field(default=Axis("", "list", ""), compare=False)

    def __iter__(self) -> Iterator[Evaluated]:
        return iter(self.items or ())

    def map(self, function: Callable[[Evaluated], Evaluated]) -> Group | Fault:
        """The same list with the function applied to each member; a fault where one of the results is."""
        if self.items is None:
            return self
        items = tuple(function(x) for x in self.items)
        return FAULT if FAULT in items else replace(self, items=items)

    def map_values(self, function: Callable[[Evaluated], Evaluated]) -> Group | Fault:
        """The same for a function of values, which also tells the kind of members that are not known yet."""
        if self.items is not None or self.kind == "tensor":
            return self.map(function)
        like = function(Value(self.kind, span=self.span))
        return replace(self, kind=like.kind) if isinstance(like, Value) else FAULT

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of a list of lists, the outermost first."""
        inner = next((x for x in self if isinstance(x, Group)), None)
        return (self.axis, *(inner.axes if inner is not None else ()))


@dataclass(frozen=True)
class Match:
    """Two sides joined by an arrow, not yet in an operation."""

    source: Evaluated
    target: Evaluated
    span: Span = field(compare=False, repr=False, kw_only=True)


class Namespace:
    """A body of statements as a value, `ner` in `ner.kd`. `kind` is `task`, `stage`, or another for an import."""

    kind: str


class Fault(Enum):
    """A value that could not be made; its diagnostic was reported. It spreads silently."""

    FAULT = "fault"


FAULT: Final = Fault.FAULT

Plain = int | float | str | bool | None
# fmt: off
Evaluated = (
    Plain | tuple[Plain, ...] | Length | Value | Row | Group | Match | LayerMap | Layers | Projector | ModelDeclaration
    | DataDeclaration | Forwarded | Namespace | Fault
)
# fmt: on
"""Whatever an expression evaluates to."""


def leaves(value: Evaluated) -> Iterator[Evaluated]:
    """Whatever stands in a list of any depth: values, and plain numbers and strings too."""
    for item in value if isinstance(value, Group | tuple) else (value,):
        if isinstance(item, Group | tuple):
            yield from leaves(item)
        else:
            yield item


def members(value: Evaluated) -> Iterator[Value]:
    """The single values in a value or a list of any depth."""
    if isinstance(value, Group):
        for item in value:
            yield from members(item)
    elif isinstance(value, Value):
        yield value


def walk(value: Value) -> Iterator[Value]:
    """A value and everything that it is made from."""
    yield value
    for part in parts(value):
        yield from walk(part)


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
    """A plain number as a value; None for what training cannot compute with."""
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
