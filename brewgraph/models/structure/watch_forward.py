"""Watching a forward: what goes into every module, what comes out, and in which order they run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from brewgraph.models.structure.module_io import Module, ModuleValue, symbols


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
class WatchedForward:
    """One forward as it was watched: each module's calls by path, what went in and what came out; their order."""

    calls: Mapping[str, list[tuple[Raw, Raw]]]
    order: list[str]


@contextmanager
def watched(model: nn.Module) -> Iterator[WatchedForward]:
    """Notes what each module below the model takes and gives while the block runs."""
    found = WatchedForward({path: [] for path, _ in model.named_modules() if path}, [])
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


def _noting(module: nn.Module, path: str, into: WatchedForward) -> Callable[..., None]:
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


def read_modules(model: nn.Module, one: WatchedForward, other: WatchedForward) -> dict[str, Module]:
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


def _merged(one: Raw, other: Raw) -> ModuleValue:
    shape = symbols(one.sizes, other.sizes) if one.sizes is not None and other.sizes is not None else None
    kind = one.kind if one.kind == other.kind and len(one.elements) == len(other.elements) else "varies"
    elements = tuple(_merged(a, b) for a, b in zip(one.elements, other.elements, strict=False))
    return ModuleValue(kind, shape, elements, one.names)
