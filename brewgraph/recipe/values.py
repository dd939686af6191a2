"""What the expressions of a spec evaluate to: immutable, with lists spelled out and layer maps applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from brewgraph.recipe.features import Feature
from brewgraph.recipe.sources import DataSource, ModelSource
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
    """A model or a data set of the spec. `places` maps each argument that was written to where it stands."""

    name: str
    span: Span = field(compare=False, repr=False, kw_only=True)
    places: Mapping[str, Span] = field(compare=False, repr=False, kw_only=True)

    def place(self, argument: str | None) -> Span:
        """Where an argument stands; the whole source where it was not written."""
        return self.places.get(argument or "", self.span)


@dataclass(frozen=True)
class ModelDeclaration(Declaration):
    role: str
    source: ModelSource


@dataclass(frozen=True)
class DataDeclaration(Declaration):
    source: DataSource


@dataclass(frozen=True)
class LayerMap:
    """`[0, 4] -> [0, 1]`: which layers of the one side belong to which of the other."""

    left: tuple[int, ...]
    right: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A value that training computes. `kind` is one of `brewgraph.ops.KINDS`."""

    kind: str
    span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Take(Value):
    """A feature of a model's forward on a data set."""

    model: str
    data: str
    feature: Feature


@dataclass(frozen=True)
class Row:
    """A row of a model's features, not yet indexed: `bert.hidden`."""

    take: Take


@dataclass(frozen=True)
class Labels(Value):
    """The labels of a data set."""

    data: str


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


@dataclass(frozen=True)
class Project(Value):
    value: Value
    projector: Projector


@dataclass(frozen=True)
class Apply(Value):
    """A loss between two values. `mask` is None where the kind chooses it."""

    operation: str
    source: Value
    target: Value
    options: tuple[tuple[str, Number | Scheduled | Combine], ...]
    mask: str | None


@dataclass(frozen=True)
class Number(Value):
    value: float


@dataclass(frozen=True)
class Scheduled(Value):
    """A schedule by its name in the registry, and its numbers."""

    name: str
    arguments: tuple[float, ...]


@dataclass(frozen=True)
class Combine(Value):
    """Arithmetic: `operator` is one of `+ - * / ** mean`, over one or more operands."""

    operator: str
    operands: tuple[Value, ...]


@dataclass(frozen=True)
class Group:
    """A list of values. `items` is None where its length is not known yet (a slice, before configurations are read)."""

    items: tuple[Any, ...] | None
    span: Span = field(compare=False, repr=False, kw_only=True)
    kind: str = "tensor"
    """Kind of the members where they are not known yet."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items or ())

    def map(self, function: Callable[[Any], Any]) -> Group | Fault:
        """The same list with the function applied to each member; a fault where one of the results is."""
        if self.items is None:
            return self
        items = tuple(function(x) for x in self.items)
        return FAULT if FAULT in items else Group(items, span=self.span)


@dataclass(frozen=True)
class Match:
    """Two sides joined by an arrow, not yet in an operation."""

    source: Any
    target: Any
    span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Fault:
    """A value that could not be made; its diagnostic has been given. It spreads silently."""


FAULT = Fault()


def leaves(value: Any) -> Iterator[Any]:
    """Whatever stands in a list of any depth: values, and plain numbers and strings too."""
    for item in value if isinstance(value, Group | tuple) else (value,):
        if isinstance(item, Group | tuple):
            yield from leaves(item)
        else:
            yield item


def members(value: Any) -> Iterator[Value]:
    """The single values in a value or a list of any depth."""
    if isinstance(value, Group):
        for item in value:
            yield from members(item)
    elif isinstance(value, Value):
        yield value


def walk(value: Value) -> Iterator[Value]:
    """A value and everything that it is made from."""
    yield value
    below: tuple[Value, ...] = ()
    if isinstance(value, Project):
        below = (value.value,)
    elif isinstance(value, Apply):
        below = (value.source, value.target, *(option for _, option in value.options))
    elif isinstance(value, Combine):
        below = value.operands
    for part in below:
        yield from walk(part)
