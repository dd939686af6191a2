"""The input and output of every module in a forward, and the symbols that their sizes follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.features import Shape


class Sizes(NamedTuple):
    """The sizes that vary between the two forwards that shapes are inferred from; small enough for every model."""

    batch: int
    length: int
    decoder_length: int


SIZES = (Sizes(2, 5, 3), Sizes(5, 7, 8))
"""The two forwards. No multiple of one size is another, nor a small step away from one, so that symbols are certain."""


@dataclass(frozen=True)
class ModuleValue:
    """A module's input or output: one tensor with its `shape`, `elements` of a tuple, or of a mapping with `names`.

    `kind` is `tensor`, `tuple`, `None`, or the name of a class. A size that follows no known symbol is `?`.
    """

    kind: str
    shape: Shape | None = None
    elements: tuple[ModuleValue, ...] = ()
    names: tuple[str, ...] = ()

    def element(self, item: int | None, what: str) -> ModuleValue:
        """The one tensor that a tap means. SourceFault B305 as for `tensor_place`."""
        place = tensor_place(self, item, what)
        return self if place is None else self.elements[place]


@dataclass(frozen=True)
class Module:
    """A module in a forward: its class, and its first argument and output in each of its calls.

    `order` holds the places of its calls among all calls of the forward, `also` its other paths.
    """

    path: str
    kind: str
    takes: tuple[ModuleValue, ...] = ()
    gives: tuple[ModuleValue, ...] = ()
    order: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    can_run: bool = True

    @property
    def calls(self) -> int:
        return len(self.gives)


def show(value: ModuleValue) -> str:
    """A value in a few words: its shape, the elements of a tuple with their places, or its class."""
    if value.kind == "tensor":
        return f"({', '.join(map(str, value.shape))})" if value.shape is not None else "(?)"
    if not value.elements:
        return value.kind
    names = value.names or [f"[{i}]" for i in range(len(value.elements))]
    return ", ".join(f"{name} {show(element)}" for name, element in zip(names, value.elements, strict=True))


def tensor_place(value: ModuleValue, item: int | None, what: str) -> int | None:
    """The place of the one tensor of a value that a tap means, None for the value itself.

    SourceFault B305 where no tensor is there, or several are.
    """
    tensors = [i for i, element in enumerate(value.elements) if element.kind == "tensor"]
    choice = f"add {' or '.join(f'[{i}]' for i in tensors)} to the path"
    shown = show(value)

    def fault(message: str, help: str = choice) -> SourceFault:
        return SourceFault("B305", f"{what} {message}", help=help)

    if value.kind == "tensor":
        if item is not None:
            raise fault(f"is one tensor {shown}", f"remove [{item}]")
        return None
    if not tensors:
        raise fault(f"is not a tensor but {shown}", "tap another module: `brewgraph taps` lists the output of each")
    if item is None:
        if len(tensors) > 1:
            raise fault(f"holds several tensors: {shown}")
        return tensors[0]
    if not -len(value.elements) <= item < len(value.elements):
        raise fault(f"has no element [{item}]: {shown}")
    kind = value.elements[item].kind
    if kind == "None":
        weights = "attention modules return no weights unless they run eagerly: use the feature `attention[i]`"
        raise fault(f"is None at [{item}]: {shown}", f"{weights}; or {choice}")
    if kind != "tensor":
        raise fault(f"is not a tensor at [{item}]: {shown}")
    return item


def simple_shape(value: ModuleValue, what: str) -> Shape:
    """The shape of a tensor. SourceFault B305 where batch or length is part of a product or a sum."""
    if value.shape is None or not all(isinstance(size, int) or size in Sizes._fields for size in value.shape):
        message = f"{what} has the shape {show(value)}, in which batch and length are not axes of their own"
        raise SourceFault("B305", message, help="tap a module before or after the reshaping")
    return value.shape


def symbols(one: Shape, other: Shape) -> Shape | None:
    """The sizes of two forwards as one shape; None where they have different numbers of axes."""
    if len(one) != len(other):
        return None
    return tuple(a if a == b else _SYMBOLS.get((a, b), "?") for a, b in zip(one, other, strict=True))


def _size_symbols() -> dict[tuple[int | str, int | str], str]:
    """The symbol of each pair of sizes of both forwards: what varies, its products, and a step from a length."""
    first, second = SIZES
    names: dict[tuple[int | str, int | str], str] = {}

    def add(a: int, b: int, name: str) -> None:
        names.setdefault((a, b), name)

    for name in Sizes._fields:
        add(getattr(first, name), getattr(second, name), name)
    for name in ("length", "decoder_length"):
        a, b = getattr(first, name), getattr(second, name)
        add(a - 1, b - 1, f"{name} - 1")
        add(a + 1, b + 1, f"{name} + 1")
        add(2 * a, 2 * b, f"2 * {name}")
        add(2 * a - 1, 2 * b - 1, f"2 * {name} - 1")
        for factor in range(1, 129):
            prefix = f"{factor} * " if factor > 1 else ""
            add(factor * first.batch * a, factor * second.batch * b, f"{prefix}batch * {name}")
    for factor in range(2, 129):
        add(factor * first.batch, factor * second.batch, f"{factor} * batch")
    return names


_SYMBOLS = _size_symbols()
