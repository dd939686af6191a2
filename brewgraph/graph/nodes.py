"""The nodes of a graph: what each one is, what it is computed from, and what makes two of them the same.

Keys of `inputs` name other nodes. `content()` is what a node's hash stands on: never a name that the user chose freely,
never a place in the text, so that renaming and reordering leave it alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from brewgraph.recipe.features import Feature, Shape
from brewgraph.source import Span


@dataclass(frozen=True)
class Node:
    """Base of every node. `shape` is None where it is not known before the model is there."""

    inputs: tuple[str, ...]
    shape: Shape | None = field(kw_only=True)
    span: Span = field(kw_only=True, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()

    def content(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def label(self) -> str:
        """The node in a few words, for people."""
        raise NotImplementedError


@dataclass(frozen=True)
class Input(Node):
    """A data set, encoded for a model."""

    data: str
    model: str
    identity: str

    def content(self) -> tuple[Any, ...]:
        return (self.identity,)

    def label(self) -> str:
        return f"{self.data} for {self.model}"


@dataclass(frozen=True)
class Labels(Node):
    """The labels of a data set."""

    data: str
    identity: str

    def content(self) -> tuple[Any, ...]:
        return (self.identity,)

    def label(self) -> str:
        return f"{self.data}.labels"


@dataclass(frozen=True)
class Mask(Node):
    """Which units of its input count: `tokens`, `pairs`, `labels`, or `none` for all of them."""

    which: str

    def content(self) -> tuple[Any, ...]:
        return (self.which,)

    def label(self) -> str:
        return f"mask: {self.which}"


@dataclass(frozen=True)
class Forward(Node):
    """One forward of a model; a teacher's runs without gradients."""

    model: str
    role: str
    identity: str

    def content(self) -> tuple[Any, ...]:
        return (self.role, self.identity)

    def label(self) -> str:
        return f"{self.role} {self.model}"


@dataclass(frozen=True)
class Tap(Node):
    """A feature of a forward."""

    model: str
    feature: Feature

    def content(self) -> tuple[Any, ...]:
        return (repr(self.feature),)

    def label(self) -> str:
        return f"{self.model}.{self.feature}" if self.feature.name != "tap" else f"{self.model} {self.feature}"


@dataclass(frozen=True)
class Projection(Node):
    """A learned projection. `site` names its parameters; `seed` tells them apart, by what they project to what."""

    site: str
    activation: str
    into: int | None
    out: int | None
    options: tuple[tuple[str, float], ...]
    seed: str

    def content(self) -> tuple[Any, ...]:
        return (self.activation, self.into, self.out, self.options, self.seed)

    def label(self) -> str:
        return f"{self.activation or 'linear'} {self.into or '?'} -> {self.out or '?'}"


@dataclass(frozen=True)
class Loss(Node):
    """An operation on two values: inputs are from, to, then the mask where there is one, then the options' values.

    It gives one scalar: the sum over its units, divided by how many of them the global batch holds.
    """

    operation: str
    unit: str
    masked: bool
    options: tuple[str, ...]

    def content(self) -> tuple[Any, ...]:
        return (self.operation, self.unit, self.masked, self.options)

    def label(self) -> str:
        return self.operation


@dataclass(frozen=True)
class Number(Node):
    value: float

    def content(self) -> tuple[Any, ...]:
        return (self.value,)

    def label(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True)
class Schedule(Node):
    """A number that changes with progress."""

    name: str
    arguments: tuple[float, ...]

    def content(self) -> tuple[Any, ...]:
        return (self.name, self.arguments)

    def label(self) -> str:
        return f"{self.name}({' -> '.join(f'{a:g}' for a in self.arguments)})"


@dataclass(frozen=True)
class Combine(Node):
    """Arithmetic over its inputs: `+ - * / **` or `mean`."""

    operator: str

    def content(self) -> tuple[Any, ...]:
        return (self.operator,)

    def label(self) -> str:
        return self.operator


COMMUTES = frozenset({"+", "*", "mean"})
