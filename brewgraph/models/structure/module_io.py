"""What every module of a model takes and gives in a forward: sizes seen twice, and the symbols that they follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.features import Shape


class Sizes(NamedTuple):
    """What varies between the forwards that shapes are inferred from. Small, so that they fit every model."""

    batch: int
    length: int
    decoder_length: int


SIZES = (Sizes(2, 5, 3), Sizes(5, 7, 8))
"""The two forwards. No multiple of one size is another, nor a small step away from one, so that symbols are certain."""


@dataclass(frozen=True)
class ModuleValue:
    """What a module takes or gives: one tensor with its `shape`, `elements` of a tuple, or of a mapping with `names`.

    `kind` says in one word what it is: `tensor`, `tuple`, `None`, or a class. A size that follows none of what varies
    is `?` in the shape.
    """

    kind: str
    shape: Shape | None = None
    elements: tuple[ModuleValue, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is a tensor whose sizes are numbers and what varies as such: not a product, not a part of it."""
        return self.shape is not None and all(isinstance(s, int) or s in PLAIN for s in self.shape)


PLAIN = frozenset({"batch", "length", "decoder_length"})


@dataclass(frozen=True)
class Module:
    """A module in a forward: its class, and for each of its calls what its first argument is and what it gives.

    `order` are the places of its calls among all calls of the forward. `also` are its other paths.
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
    """A value in a few words: its shape, the elements of a tuple with their places, or what it is instead."""
    if value.kind == "tensor":
        return f"({', '.join(map(str, value.shape))})" if value.shape is not None else "(?)"
    if not value.elements:
        return value.kind
    names = value.names or [f"[{i}]" for i in range(len(value.elements))]
    return ", ".join(f"{name} {show(element)}" for name, element in zip(names, value.elements, strict=True))


def pick(value: ModuleValue, item: int | None, what: str) -> ModuleValue:
    """The one tensor of a value that a tap means. SourceFault B305 where there is none, or where several are."""
    tensors = [i for i, element in enumerate(value.elements) if element.kind == "tensor"]
    choice = f"behind the path write {' or '.join(f'[{i}]' for i in tensors)}"
    shown = show(value)

    def fault(message: str, help: str = choice) -> SourceFault:
        return SourceFault("B305", f"{what} {message}", help=help)

    if value.kind == "tensor":
        if item is not None:
            raise fault(f"is one tensor {shown}", f"leave out [{item}]")
        return value
    if not tensors:
        raise fault(f"is no tensor but {shown}", "tap another module: `brewgraph taps` lists what every one gives")
    if item is None:
        if len(tensors) > 1:
            raise fault(f"holds several tensors: {shown}")
        return value.elements[tensors[0]]
    if not -len(value.elements) <= item < len(value.elements):
        raise fault(f"has no element [{item}]: {shown}")
    found = value.elements[item]
    if found.kind == "None":
        weights = "attention weights are, unless attention runs eagerly: take the feature `attention[i]`"
        raise fault(f"is None at [{item}]: {shown}", f"{weights}; or {choice}")
    if found.kind != "tensor":
        raise fault(f"is no tensor at [{item}]: {shown}")
    return found


def symbols(one: Sequence[int], other: Sequence[int]) -> Shape | None:
    """The sizes of two forwards as one shape; None where they have different numbers of axes."""
    if len(one) != len(other):
        return None
    return tuple(a if a == b else _symbol(a, b) for a, b in zip(one, other, strict=True))


def _symbol(one: int, other: int) -> str:
    return _SYMBOLS.get((one, other), "?")


def _known_symbols() -> dict[tuple[int, int], str]:
    """Sizes of both forwards, and the symbol of each: what varies, its products, and a step from a length."""
    first, second = SIZES
    found: dict[tuple[int, int], str] = {}

    def add(a: int, b: int, name: str) -> None:
        found.setdefault((a, b), name)

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
    return found


_SYMBOLS = _known_symbols()
