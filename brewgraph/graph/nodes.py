"""The nodes of a graph: what each one is, what it is computed from, and what makes two of them the same.

Keys of `inputs` name other nodes. A node's hash is made of its `content()`: never a name that the user chose, never a
place in the text, so that renaming and reordering change no hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, dataclass_transform

from brewgraph.ops import TEMPERATURES
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


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
@dataclass(frozen=True)
class Node:
    """Base of every node: each subclass is a frozen dataclass, with the fields that are its `content` and its `label`.

    `inputs` are all its operands in a fixed order; ask for one of them by its name (`loss.source`). `shape` is None
    where only the built model tells it.
    """

    CONTENT: ClassVar[tuple[str, ...]]
    LABEL: ClassVar[str]

    inputs: tuple[str, ...]
    shape: Shape | None = field(kw_only=True)
    span: Span = field(kw_only=True, compare=False, repr=False)

    def __init_subclass__(cls, content: tuple[str, ...] = (), label: str = "") -> None:
        cls.CONTENT, cls.LABEL = content, label
        dataclass(frozen=True)(cls)

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()

    def content(self) -> Content:
        """What the node is, without its inputs."""
        return tuple(getattr(self, name) for name in self.CONTENT)

    def label(self) -> str:
        """The node in a few words."""
        return self.LABEL.format(self)


class Operand:
    """One of a node's inputs, by its place."""

    def __init__(self, place: int):
        self.place = place

    def __get__(self, node: Node, _: type) -> str:
        return node.inputs[self.place]


class Input(Node, content=("identity",), label="{0.data} for {0.model}"):
    """A data set, encoded for a model."""

    data: str
    model: str
    identity: str


class Column(Node, content=("column", "identity"), label="{0.data}.{0.column}"):
    """A column of a data set: labels, weights, or another one.

    Labels of tokens have one input: the `Input` of the model whose tokens they are aligned to.
    """

    data: str
    column: str
    identity: str


class Mask(Node, content=("which",), label="mask: {0.which}"):
    """Which units of its input count: `tokens`, `pairs`, `labels`, `words`, `column`, or `none` for all of them.

    `words` counts the words that every input kept; `column` those units of the first input that the second one marks.
    """

    which: str

    @property
    def column(self) -> str | None:
        """The column that marks what counts."""
        return self.inputs[-1] if self.which == "column" else None


class Forward(Node, content=("role", "identity", "passing", "columns")):
    """One forward of a model; a teacher's runs without gradients. `passing` tells forwards on one input apart.

    `columns` are arguments of the forward that come from columns of the data. A forward that `stops` ends after the
    last module that gives a feature; a `narrow` one runs attention eagerly only in layers whose attention is taken.
    A `packed` one runs the layers on real tokens alone. This is how it runs, not what it gives, and is no part of its
    content.
    """

    model: str
    role: str
    identity: str
    passing: int = 1
    columns: tuple[tuple[str, str], ...] = ()
    stops: bool = False
    narrow: bool = False
    packed: bool = False

    entry = Operand(0)
    """The `Input` that it runs on."""

    def label(self) -> str:
        return f"{self.role} {self.model}" + (f" (pass {self.passing})" if self.passing > 1 else "")


class Tap(Node):
    """A feature of a forward. Scores over positions are very low at padding, unless `padding` counts.

    Logits that are `split` are computed a chunk of tokens at a time, inside the losses that read them. This is how they
    are computed, and no part of the content.
    """

    model: str
    feature: Feature
    padding: bool = False
    split: bool = False

    forward = Operand(0)
    """The `Forward` that gives it."""

    def content(self) -> Content:
        return (repr(self.feature), *((self.padding,) if self.padding else ()))

    def label(self) -> str:
        return f"{self.model}.{self.feature}" if self.feature.name != "tap" else f"{self.model} {self.feature}"


class Projection(Node, content=("activation", "into", "out", "options", "seed")):
    """A learned projection. `site` names its parameters; their `seed` follows from what they project to what."""

    site: str
    activation: str
    into: int | None
    out: int | None
    options: tuple[tuple[str, float], ...]
    seed: str

    value = Operand(0)
    """What is projected."""

    @property
    def parameters(self) -> int | None:
        """The number of weights and biases; None while a width is unknown."""
        return (self.into + 1) * self.out if self.into and self.out else None

    def label(self) -> str:
        return f"{self.activation or 'linear'} {self.into or '?'} -> {self.out or '?'}"


class Bundle(Node, label="tuple"):
    """Several values as one argument of an operation."""


class Called(Node):
    """A function of values: inputs are these, then the mask if any, then the options' values."""

    masked: bool = field(default=False, kw_only=True)
    options: tuple[str, ...] = field(default=(), kw_only=True)
    words: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    """The options that are words."""
    written: frozenset[str] = field(default=frozenset(), kw_only=True, compare=False, repr=False)
    """The options that the spec writes, to be shown; no part of the hash."""

    @property
    def arguments(self) -> dict[str, str]:
        """The options' values, by name: `T`, the temperature, and the like."""
        return dict(zip(self.options, self.inputs[len(self.inputs) - len(self.options) :], strict=True))


class Transform(Called, content=("name", "masked", "options", "words"), label="{0.name}"):
    """A value made from others. A transform to words has the `Input` that knows them as its last input."""

    name: str
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


class Loss(
    Called, content=("operation", "unit", "masked", "options", "words", "reduced", "kinds"), label="{0.operation}"
):
    """An operation on two values, from and to.

    It gives one scalar: the sum over its units, divided by the number of them in the global batch; one number per unit
    where it is not `reduced`. `data` is the data set of these units, `least` the fewest examples that it can compare.
    """

    operation: str
    unit: str
    reduced: bool
    data: str
    kinds: tuple[str, str]
    least: int

    source = Operand(0)
    """The left side: a teacher's value, or labels."""
    target = Operand(1)
    """The right side, which learns."""

    @property
    def mask(self) -> str | None:
        """The `Mask` of the units that count."""
        return self.inputs[2] if self.masked else None


class Mean(Node, content=("unit", "masked"), label="batch_mean"):
    """The mean over a batch of one number per unit: inputs are the numbers, then the mask if any."""

    unit: str
    masked: bool
    data: str

    value = Operand(0)
    """The numbers to average."""

    @property
    def mask(self) -> str | None:
        """The `Mask` of the units that count."""
        return self.inputs[1] if self.masked else None


class Temperature(Node, content=("name", "base", "options")):
    """A temperature per example, computed from the logits of the loss that it belongs to."""

    name: str
    base: float
    options: tuple[tuple[str, float], ...]

    def label(self) -> str:
        options = "".join(f", {name}={value:g}" for name, value in self.options)
        return f"{self.name}({self.base:g}{options})"


class Number(Node, content=("value",), label="{0.value:g}"):
    """A number that never changes."""

    value: float


class Schedule(Node):
    """A number that changes with progress."""

    name: str
    arguments: tuple[float | Length, ...]

    def content(self) -> Content:
        return (self.name, tuple(repr(a) for a in self.arguments))

    def label(self) -> str:
        arguments = [str(a) if isinstance(a, Length) else f"{a:g}" for a in self.arguments]
        return f"{self.name}({spell_arguments(self.name, arguments)})"


class Combine(Node, content=("operator", "position")):
    """Arithmetic over its inputs: `+ - * / ** mean max`, or the share at `position` of a `softmax`."""

    operator: str
    position: int | None = None

    @property
    def commutes(self) -> bool:
        """Whether the order of its inputs does not matter."""
        return self.operator in COMMUTES

    def label(self) -> str:
        return self.operator if self.position is None else f"{self.operator}[{self.position}]"


def compares_examples(x: Node) -> str | None:
    """The name of a loss or temperature that compares the examples of a batch; None for other nodes."""
    if isinstance(x, Loss) and x.unit == "batch":
        return x.operation
    if isinstance(x, Temperature) and x.name in TEMPERATURES and TEMPERATURES[x.name].couples_batch:
        return x.name
    return None
