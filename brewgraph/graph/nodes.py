"""The nodes of a graph: what each one is, what it is computed from, and what makes two of them the same.

Keys of `inputs` name other nodes. A node's hash is made of its `content()`: never a name that the user chose, never a
place in the text, so that renaming and reordering change no hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from brewgraph.ops.alone import BUILT_IN
from brewgraph.ops.schedules import spell_arguments
from brewgraph.recipe.features import Feature, Shape
from brewgraph.recipe.numbers import COMMUTES
from brewgraph.recipe.values import Length
from brewgraph.source import Span

Content: TypeAlias = tuple[object, ...]
MASKS = {"token": ("tokens", "labels"), "pair": ("pairs",), "label": ("labels",), "word": ("words",)}
"""The masks that can choose among the units of a loss; `none` always can."""
DEFAULT_MASKS = {unit: masks[0] for unit, masks in MASKS.items()}
"""The mask of a loss that names none."""


def show_shape(shape: Shape | None) -> str:
    """`(batch, length, 768)`; `(?)` where it is not known yet."""
    return f"({', '.join(map(str, shape))})" if shape is not None else "(?)"


@dataclass(frozen=True)
class Node:
    """Base of every node. `shape` is None where only the built model tells it.

    `inputs` are all its operands in a fixed order; ask for one of them by its name (`loss.source`).
    """

    CONTENT: ClassVar[tuple[str, ...]] = ()
    """The fields that `content()` holds."""

    inputs: tuple[str, ...]
    shape: Shape | None = field(kw_only=True)
    span: Span = field(kw_only=True, compare=False, repr=False)

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()

    def content(self) -> Content:
        """What the node is, without its inputs."""
        return tuple(getattr(self, name) for name in self.CONTENT)

    def label(self) -> str:
        """The node in a few words."""
        raise NotImplementedError


@dataclass(frozen=True)
class Input(Node):
    """A data set, encoded for a model."""

    CONTENT = ("identity",)

    data: str
    model: str
    identity: str

    def label(self) -> str:
        return f"{self.data} for {self.model}"


@dataclass(frozen=True)
class Column(Node):
    """A column of a data set: labels, weights, or another one.

    Labels of tokens have one input: the `Input` of the model whose tokens they are aligned to.
    """

    CONTENT = ("column", "identity")

    data: str
    column: str
    identity: str

    def label(self) -> str:
        return f"{self.data}.{self.column}"


@dataclass(frozen=True)
class Mask(Node):
    """Which units of its input count: `tokens`, `pairs`, `labels`, `words`, `column`, or `none` for all of them.

    `words` counts the words that every input kept; `column` those units of the first input that the second one marks.
    """

    CONTENT = ("which",)

    which: str

    @property
    def column(self) -> str | None:
        """The column that marks what counts."""
        return self.inputs[-1] if self.which == "column" else None

    def label(self) -> str:
        return f"mask: {self.which}"


@dataclass(frozen=True)
class Forward(Node):
    """One forward of a model; a teacher's runs without gradients. `passing` tells forwards on one input apart.

    `columns` are arguments of the forward that come from columns of the data. A forward that `stops` ends after the
    last module that gives a feature; a `narrow` one runs attention eagerly only in layers whose attention is taken.
    A `packed` one runs the layers on real tokens alone. This is how it runs, not what it gives, and is no part of its
    content.
    """

    CONTENT = ("role", "identity", "passing", "columns")

    model: str
    role: str
    identity: str
    passing: int = 1
    columns: tuple[tuple[str, str], ...] = ()
    stops: bool = False
    narrow: bool = False
    packed: bool = False

    @property
    def entry(self) -> str:
        """The `Input` that it runs on."""
        return self.inputs[0]

    def label(self) -> str:
        return f"{self.role} {self.model}" + (f" (pass {self.passing})" if self.passing > 1 else "")


@dataclass(frozen=True)
class Tap(Node):
    """A feature of a forward. Scores over positions are very low at padding, unless `padding` counts."""

    model: str
    feature: Feature
    padding: bool = False

    @property
    def forward(self) -> str:
        """The `Forward` that gives it."""
        return self.inputs[0]

    def content(self) -> Content:
        return (repr(self.feature), *((self.padding,) if self.padding else ()))

    def label(self) -> str:
        return f"{self.model}.{self.feature}" if self.feature.name != "tap" else f"{self.model} {self.feature}"


@dataclass(frozen=True)
class Projection(Node):
    """A learned projection. `site` names its parameters; their `seed` follows from what they project to what."""

    CONTENT = ("activation", "into", "out", "options", "seed")

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

    @property
    def parameters(self) -> int | None:
        """The number of weights and biases; None while a width is unknown."""
        return (self.into + 1) * self.out if self.into and self.out else None

    def label(self) -> str:
        return f"{self.activation or 'linear'} {self.into or '?'} -> {self.out or '?'}"


@dataclass(frozen=True)
class Bundle(Node):
    """Several values as one argument of an operation."""

    def label(self) -> str:
        return "tuple"


@dataclass(frozen=True)
class Transform(Node):
    """A value made from others: inputs are the values, then the mask if any, then the options' values.

    `words` are the options that are words. A transform to words has the `Input` that knows them as its last input.
    """

    CONTENT = ("name", "masked", "options", "words")

    name: str
    masked: bool
    options: tuple[str, ...]
    words: tuple[tuple[str, str], ...] = ()
    written: frozenset[str] = field(default=frozenset(), kw_only=True, compare=False, repr=False)
    """The options that the spec writes, to be shown; no part of the hash."""
    mixes: bool = field(default=False, kw_only=True, compare=False, repr=False)
    """Whether the value of one token depends on others, so that a mask has a say; follows from `name`."""

    @property
    def values(self) -> tuple[str, ...]:
        """The values that it is made from."""
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
        """Whether no gradient passes through it."""
        return self.name in BUILT_IN and BUILT_IN[self.name].stops

    @property
    def _on_words(self) -> bool:
        return self.name in BUILT_IN and BUILT_IN[self.name].on_words

    @property
    def arguments(self) -> dict[str, str]:
        """The options' values, by name."""
        return dict(zip(self.options, self.inputs[len(self.inputs) - len(self.options) :], strict=True))

    def label(self) -> str:
        return self.name


@dataclass(frozen=True)
class Loss(Node):
    """An operation on two values: inputs are from, to, then the mask if any, then the options' values.

    It gives one scalar: the sum over its units, divided by the number of them in the global batch; one number per unit
    where it is not `reduced`. `data` is the data set of these units, `least` the fewest examples that it can compare.
    """

    CONTENT = ("operation", "unit", "masked", "options", "words", "reduced", "kinds")

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
        """The left side: a teacher's value, or labels."""
        return self.inputs[0]

    @property
    def target(self) -> str:
        """The right side, which learns."""
        return self.inputs[1]

    @property
    def mask(self) -> str | None:
        """The `Mask` of the units that count."""
        return self.inputs[2] if self.masked else None

    @property
    def arguments(self) -> dict[str, str]:
        """The options' values, by name: `T`, the temperature, and the like."""
        return dict(zip(self.options, self.inputs[len(self.inputs) - len(self.options) :], strict=True))

    def label(self) -> str:
        return self.operation


@dataclass(frozen=True)
class Mean(Node):
    """The mean over a batch of one number per unit: inputs are the numbers, then the mask if any."""

    CONTENT = ("unit", "masked")

    unit: str
    masked: bool
    data: str

    @property
    def value(self) -> str:
        """The numbers to average."""
        return self.inputs[0]

    @property
    def mask(self) -> str | None:
        """The `Mask` of the units that count."""
        return self.inputs[1] if self.masked else None

    def label(self) -> str:
        return "batch_mean"


@dataclass(frozen=True)
class Temperature(Node):
    """A temperature per example, computed from the logits of the loss that it belongs to."""

    CONTENT = ("name", "base", "options")

    name: str
    base: float
    options: tuple[tuple[str, float], ...]

    def label(self) -> str:
        options = "".join(f", {name}={value:g}" for name, value in self.options)
        return f"{self.name}({self.base:g}{options})"


@dataclass(frozen=True)
class Number(Node):
    """A number that never changes."""

    CONTENT = ("value",)

    value: float

    def label(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True)
class Schedule(Node):
    """A number that changes with progress."""

    name: str
    arguments: tuple[float | Length, ...]

    def content(self) -> Content:
        return (self.name, tuple(repr(a) for a in self.arguments))

    def label(self) -> str:
        arguments = [str(a) if isinstance(a, Length) else f"{a:g}" for a in self.arguments]
        return f"{self.name}({spell_arguments(self.name, arguments)})"


@dataclass(frozen=True)
class Combine(Node):
    """Arithmetic over its inputs: `+ - * / ** mean max`, or the share at `position` of a `softmax`."""

    CONTENT = ("operator", "position")

    operator: str
    position: int | None = None

    @property
    def commutes(self) -> bool:
        """Whether the order of its inputs does not matter."""
        return self.operator in COMMUTES

    def label(self) -> str:
        return self.operator if self.position is None else f"{self.operator}[{self.position}]"
