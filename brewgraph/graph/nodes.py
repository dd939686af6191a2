"""The nodes of a graph: what each one is, what it is computed from, and what makes two of them the same.

Keys of `inputs` name other nodes. `content()` is what a node's hash stands on: never a name that the user chose freely,
never a place in the text, so that renaming and reordering leave it alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from brewgraph.ops.alone import BUILT_IN
from brewgraph.recipe.features import Feature, Shape
from brewgraph.recipe.numbers import COMMUTES
from brewgraph.recipe.values import Length
from brewgraph.source import Span

MASKS = {"token": ("tokens", "labels"), "pair": ("pairs",), "label": ("labels",), "word": ("words",)}
"""The masks that can choose among the units of a loss; `none` always can."""
DEFAULT_MASKS = {unit: masks[0] for unit, masks in MASKS.items()}
"""The mask of a loss that names none."""


@dataclass(frozen=True)
class Node:
    """Base of every node. `shape` is None where it is not known before the model is there.

    `inputs` are all its operands in one order; who asks for one of them asks by its name (`loss.source`).
    """

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
class Column(Node):
    """What a data set says of its examples: its labels, weights, or another column.

    Labels that lie along the tokens have the `Input` of a model as their one input, whose tokens they are aligned to.
    """

    data: str
    column: str
    identity: str

    def content(self) -> tuple[Any, ...]:
        return (self.column, self.identity)

    def label(self) -> str:
        return f"{self.data}.{self.column}"


@dataclass(frozen=True)
class Mask(Node):
    """Which units of its input count: `tokens`, `pairs`, `labels`, `words`, `column`, or `none` for all of them.

    `words` counts those that every input has kept; `column` those of the first input that the second one marks.
    """

    which: str

    @property
    def column(self) -> str | None:
        """The column that marks what counts."""
        return self.inputs[-1] if self.which == "column" else None

    def content(self) -> tuple[Any, ...]:
        return (self.which,)

    def label(self) -> str:
        return f"mask: {self.which}"


@dataclass(frozen=True)
class Forward(Node):
    """One forward of a model; a teacher's runs without gradients. `passing` tells forwards on one input apart.

    `columns` are arguments of the forward that come from columns of the data. One that `stops` ends behind the last
    module that a feature is taken from; in a `narrow` one attention runs eagerly only in layers whose attention is
    taken. Both say how it runs, not what it gives, and are no part of its content.
    """

    model: str
    role: str
    identity: str
    passing: int = 1
    columns: tuple[tuple[str, str], ...] = ()
    stops: bool = False
    narrow: bool = False

    @property
    def entry(self) -> str:
        """The `Input` that it runs on."""
        return self.inputs[0]

    def content(self) -> tuple[Any, ...]:
        return (self.role, self.identity, self.passing, self.columns)

    def label(self) -> str:
        return f"{self.role} {self.model}" + (f" (pass {self.passing})" if self.passing > 1 else "")


@dataclass(frozen=True)
class Tap(Node):
    """A feature of a forward. Of scores over positions those of padding are very low, unless `padding` is to count."""

    model: str
    feature: Feature
    padding: bool = False

    @property
    def forward(self) -> str:
        """The `Forward` that gives it."""
        return self.inputs[0]

    def content(self) -> tuple[Any, ...]:
        return (repr(self.feature), self.padding) if self.padding else (repr(self.feature),)

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

    @property
    def value(self) -> str:
        """What is projected."""
        return self.inputs[0]

    def content(self) -> tuple[Any, ...]:
        return (self.activation, self.into, self.out, self.options, self.seed)

    def label(self) -> str:
        return f"{self.activation or 'linear'} {self.into or '?'} -> {self.out or '?'}"


@dataclass(frozen=True)
class Bundle(Node):
    """Several values as one argument of an operation."""

    def content(self) -> tuple[Any, ...]:
        return ()

    def label(self) -> str:
        return "tuple"


@dataclass(frozen=True)
class Transform(Node):
    """A value made from others: inputs are the values, then the mask where there is one, then the options' values.

    `words` are the options that are words. What is on words has the `Input` that knows them as its last input.
    """

    name: str
    masked: bool
    options: tuple[str, ...]
    words: tuple[tuple[str, str], ...] = ()
    written: frozenset[str] = field(default=frozenset(), kw_only=True, compare=False, repr=False)
    """The options that the spec writes, to be shown; no part of the hash."""

    @property
    def values(self) -> tuple[str, ...]:
        """What it is made from."""
        return self.inputs[: len(self.inputs) - len(self.options) - self.masked - self._on_words]

    @property
    def mask(self) -> str | None:
        """The `Mask` of the tokens that count."""
        return self.inputs[len(self.values)] if self.masked else None

    @property
    def entry(self) -> str | None:
        """The `Input` that knows where words begin."""
        return self.inputs[-1] if self._on_words else None

    @property
    def stops(self) -> bool:
        """Whether no gradient comes through."""
        return self.name in BUILT_IN and BUILT_IN[self.name].stops

    @property
    def _on_words(self) -> bool:
        return self.name in BUILT_IN and BUILT_IN[self.name].on_words

    @property
    def arguments(self) -> dict[str, str]:
        """The options' values, by name."""
        return dict(zip(self.options, self.inputs[len(self.inputs) - len(self.options) :], strict=True))

    def content(self) -> tuple[Any, ...]:
        return (self.name, self.masked, self.options, self.words)

    def label(self) -> str:
        return self.name


@dataclass(frozen=True)
class Loss(Node):
    """An operation on two values: inputs are from, to, then the mask where there is one, then the options' values.

    It gives one scalar: the sum over its units, divided by how many of them the global batch holds. Where it is not
    `reduced` it gives one number per unit. `data` is the data set whose units they are. `least` is how
    many examples of a batch it compares at least.
    """

    operation: str
    unit: str
    masked: bool
    options: tuple[str, ...]
    words: tuple[tuple[str, str], ...] = ()
    reduced: bool = True
    data: str = ""
    kinds: tuple[str, str] = ("", "")
    least: int = 1
    written: frozenset[str] = field(default=frozenset(), kw_only=True, compare=False, repr=False)
    """The options that the spec writes, to be shown; no part of the hash."""

    @property
    def source(self) -> str:
        """The side that is compared with: a teacher's value, or labels."""
        return self.inputs[0]

    @property
    def target(self) -> str:
        """The side that learns."""
        return self.inputs[1]

    @property
    def mask(self) -> str | None:
        """The `Mask` of the units that count."""
        return self.inputs[2] if self.masked else None

    @property
    def arguments(self) -> dict[str, str]:
        """The options' values, by name: `T`, the temperature, and the like."""
        return dict(zip(self.options, self.inputs[len(self.inputs) - len(self.options) :], strict=True))

    def content(self) -> tuple[Any, ...]:
        return (self.operation, self.unit, self.masked, self.options, self.words, self.reduced, self.kinds)

    def label(self) -> str:
        return self.operation


@dataclass(frozen=True)
class Mean(Node):
    """The mean over a batch of one number per unit: inputs are the numbers, then the mask where there is one."""

    unit: str
    masked: bool
    data: str

    @property
    def value(self) -> str:
        """The numbers that it is the mean of."""
        return self.inputs[0]

    @property
    def mask(self) -> str | None:
        """The `Mask` of the units that count."""
        return self.inputs[1] if self.masked else None

    def content(self) -> tuple[Any, ...]:
        return (self.unit, self.masked)

    def label(self) -> str:
        return "batch_mean"


@dataclass(frozen=True)
class Temperature(Node):
    """A temperature of each example's own, computed from the logits of the loss that it belongs to."""

    name: str
    base: float
    options: tuple[tuple[str, float], ...]

    def content(self) -> tuple[Any, ...]:
        return (self.name, self.base, self.options)

    def label(self) -> str:
        options = "".join(f", {name}={value:g}" for name, value in self.options)
        return f"{self.name}({self.base:g}{options})"


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
    arguments: tuple[float | Length, ...]

    def content(self) -> tuple[Any, ...]:
        return (self.name, tuple(repr(a) for a in self.arguments))

    def label(self) -> str:
        said = [str(a) if isinstance(a, Length) else f"{a:g}" for a in self.arguments]
        if self.name == "piecewise":
            points = [f"{at}: {value}" for at, value in zip(said[::2], said[1::2], strict=True)]
            return f"piecewise({', '.join(points)})"
        return f"{self.name}({' -> '.join(said)})"


@dataclass(frozen=True)
class Combine(Node):
    """Arithmetic over its inputs: `+ - * / ** mean max`, or the share at `position` of a `softmax`."""

    operator: str
    position: int | None = None

    @property
    def commutes(self) -> bool:
        """Whether its inputs count in no order."""
        return self.operator in COMMUTES

    def content(self) -> tuple[Any, ...]:
        return (self.operator, self.position)

    def label(self) -> str:
        return self.operator if self.position is None else f"{self.operator}[{self.position}]"
