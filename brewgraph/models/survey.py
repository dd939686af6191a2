"""What every module of a model takes and gives in a forward: sizes seen twice, and the symbols that they follow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor, nn

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
class Value:
    """What a module takes or gives: one tensor with its `shape`, `elements` of a tuple, or of a mapping with `names`.

    `kind` says in one word what it is: `tensor`, `tuple`, `None`, or a class. A size that follows none of what varies
    is `?` in the shape.
    """

    kind: str
    shape: Shape | None = None
    elements: tuple[Value, ...] = ()
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
    takes: tuple[Value, ...] = ()
    gives: tuple[Value, ...] = ()
    order: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    can_run: bool = True

    @property
    def calls(self) -> int:
        return len(self.gives)


@dataclass(frozen=True)
class Raw:
    """A value of one forward, with its sizes as they were."""

    kind: str
    sizes: tuple[int, ...] | None = None
    elements: tuple[Raw, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any) -> Raw:
        if isinstance(value, Tensor):
            return cls("tensor", tuple(value.shape))
        if value is None:
            return cls("None")
        if isinstance(value, Mapping):
            elements = tuple(cls.of(element) for element in value.values())
            return cls(type(value).__name__, None, elements, tuple(map(str, value)))
        if isinstance(value, tuple | list):
            return cls("tuple", None, tuple(cls.of(element) for element in value))
        return cls(type(value).__name__)


@dataclass(frozen=True)
class Forward:
    """One forward as it was watched: each module's calls by path, what went in and what came out; their order."""

    calls: Mapping[str, list[tuple[Raw, Raw]]]
    order: list[str]


@contextmanager
def watched(model: nn.Module) -> Iterator[Forward]:
    """Notes what each module below the model takes and gives while the block runs."""
    found = Forward({path: [] for path, _ in model.named_modules() if path}, [])
    hooks = [
        module.register_forward_hook(_noting(module, path, found), with_kwargs=True)
        for path, module in model.named_modules()
        if path
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _noting(module: nn.Module, path: str, into: Forward) -> Callable[..., None]:
    first = first_argument(module)

    def note(called: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        into.order.append(path)
        into.calls[path].append((Raw.of(args[0] if args else kwargs.get(first)), Raw.of(output)))

    return note


def first_argument(module: nn.Module) -> str:
    """The name of what a module's forward takes first; its input, as taps understand it."""
    return _first_argument(type(module).forward)


@lru_cache(maxsize=256)
def _first_argument(function: Any) -> str:
    return next(iter(list(inspect.signature(function).parameters)[1:]), "")


def survey(model: nn.Module, one: Forward, other: Forward) -> dict[str, Module]:
    """Every module below the model by its path, in the order of the model, from what two forwards showed."""
    places: dict[str, list[int]] = {}
    for i, path in enumerate(one.order):
        places.setdefault(path, []).append(i)
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    found: dict[str, Module] = {}
    for path, module in model.named_modules():
        if not path:
            continue
        pairs = list(zip(one.calls[path], other.calls[path], strict=False))
        found[path] = Module(
            path,
            type(module).__name__,
            tuple(_merged(a[0], b[0]) for a, b in pairs),
            tuple(_merged(a[1], b[1]) for a, b in pairs),
            tuple(places.get(path, ())),
            tuple(other for other in paths[id(module)] if other != path),
            type(module).forward is not nn.Module.forward,
        )
    return found


def show(value: Value) -> str:
    """A value in a few words: its shape, the elements of a tuple with their places, or what it is instead."""
    if value.kind == "tensor":
        return f"({', '.join(map(str, value.shape))})" if value.shape is not None else "(?)"
    if not value.elements:
        return value.kind
    names = value.names or [f"[{i}]" for i in range(len(value.elements))]
    return ", ".join(f"{name} {show(element)}" for name, element in zip(names, value.elements, strict=True))


def pick(value: Value, item: int | None, what: str) -> Value:
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


def _merged(one: Raw, other: Raw) -> Value:
    shape = symbols(one.sizes, other.sizes) if one.sizes is not None and other.sizes is not None else None
    kind = one.kind if one.kind == other.kind and len(one.elements) == len(other.elements) else "varies"
    elements = tuple(_merged(a, b) for a, b in zip(one.elements, other.elements, strict=False))
    return Value(kind, shape, elements, one.names)


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
