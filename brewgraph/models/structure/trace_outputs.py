"""The origins of the states that a model returns: the module call that gave each, from one forward.

A class that records nothing returns its hidden states and attentions at the end, on request. Taken from the modules
that give them, they are available once their layer has run, and later layers need neither run nor be loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import Node
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd

FLAGS = {"hidden_states": "output_hidden_states", "attentions": "output_attentions"}
"""Fields that a model returns only on request, with the argument that requests them."""


@dataclass(frozen=True)
class OutputOrigin:
    """The output of one call of a module, or its element `item`; the model returns it with its axes permuted by
    `axes`, if any.
    """

    path: str
    call: int
    item: int | None
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Returned:
    """For each requested field the origin of each of its tensors; a field is missing if one of them is no module's
    output. `layers` are the paths of the layers, empty if no list of modules has as many members.
    """

    places: dict[str, tuple[OutputOrigin, ...]]
    layers: tuple[str, ...]


def find_returned(model: nn.Module, at: str, fields: Sequence[str], count: int) -> Returned:
    """Run a model of `count` layers on fake tensors and follow its outputs back to the modules that gave them.

    Their paths begin with the model's own path, `at`. It runs in training mode, and with dropout wherever a module may
    have it, so that the input of dropout is not mistaken for its output. Random generators and the model are restored.
    The result is empty for a model that does not run on tensors without values.
    """
    modules = {f"{at}.{path}" if at else path: module for path, module in model.named_modules() if path}
    request = (tuple(fields), count, tuple(modules))
    cached = _cache.get(model)
    if cached is None or cached[0] != request:
        cached = _cache[model] = (request, _run(model, modules, fields, count))
    return cached[1]


_cache: WeakKeyDictionary[nn.Module, tuple[object, Returned]] = WeakKeyDictionary()
"""Results by model, valid while the model has the same modules."""


def _run(model: nn.Module, modules: Mapping[str, nn.Module], fields: Sequence[str], count: int) -> Returned:
    notes = _Notes()
    flags = {FLAGS[name]: True for name in fields}
    try:
        with (
            notes.taken(modules),
            _training(model),
            torch.random.fork_rng(devices=()),
            torch.enable_grad(),
            FakeTensorMode(allow_non_fake_inputs=True),
        ):
            ids = torch.ones(2, 5, dtype=torch.long)
            output = functional_call(model, empty_state(model), (ids,), {"attention_mask": ids, **flags})
        traced = {name: [_traced(tensor, notes.made) for tensor in getattr(output, name)] for name in fields}
    except Exception:  # whatever a model's own code may raise, or a field that is not what its name says
        return Returned({}, ())
    places = {name: tuple(p for p in row if p is not None) for name, row in traced.items()}
    whole = {name: row for name, row in places.items() if len(set(row)) == len(traced[name])}
    return Returned(whole, _layers(modules, notes.calls, count))


_Key = tuple[Node | None, int]
"""A tensor as autograd identifies it: the step that made it, and its place among the step's results."""


class _Notes:
    """The origin of each tensor of one forward, and the number of calls of each module.

    If modules pass a tensor on unchanged, the last of them counts, except a module inside one that began when the
    tensor existed already: it uses the tensor for a purpose of its own.
    """

    def __init__(self) -> None:
        self.made: dict[_Key, OutputOrigin] = {}
        self.calls: Counter[str] = Counter()
        self._born: dict[_Key, int] = {}
        self._open: list[int] = []
        self._clock = 0

    @contextmanager
    def taken(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Takes notes while the block runs."""
        hooks = [module.register_forward_pre_hook(self._enter) for module in modules.values()]
        hooks += [module.register_forward_hook(self._leaving(path)) for path, module in modules.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module: nn.Module, args: object) -> None:
        self._clock += 1
        self._open.append(self._clock)

    def _leaving(self, path: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: object, output: object) -> None:
            self._open.pop()
            self._clock += 1
            call = self.calls[path]
            self.calls[path] += 1
            for item, value in enumerate(output) if isinstance(output, tuple | list) else [(None, output)]:
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    key = (value.grad_fn, value.output_nr)
                    born = self._born.setdefault(key, self._clock)
                    if not self._open or self._open[-1] < born:
                        self.made[key] = OutputOrigin(path, call, item)

        return leave


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Puts a model into training mode, with dropout in each of its modules that could have it."""
    modes = [(module, module.training) for module in model.modules()]
    rates = [(module, module.p) for module in model.modules() if isinstance(module, _DropoutNd)]
    model.train()
    for dropout, _ in rates:
        dropout.p = 0.5
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for dropout, rate in rates:
            dropout.p = rate


def empty_state(model: nn.Module, device: str = "cpu") -> dict[str, Tensor]:
    """Parameters and buffers of a model without values, on `meta` or in the current fake mode."""
    return {
        name: torch.empty(x.shape, dtype=x.dtype, device=device).requires_grad_(isinstance(x, nn.Parameter))
        for name, x in chain(model.named_parameters(), model.named_buffers())
    }


def _traced(tensor: Tensor, seen: dict[_Key, OutputOrigin]) -> OutputOrigin | None:
    """The origin of a tensor from which at most the order of its axes differs."""
    key: _Key = (tensor.grad_fn, tensor.output_nr)
    axes = tuple(range(tensor.dim()))
    while key not in seen:
        step: Any = key[0]
        match step.name() if step is not None else "":
            case "PermuteBackward0":
                dims = [_axis(d, len(axes)) for d in step._saved_dims]
            case "TransposeBackward0":
                dims = list(range(len(axes)))
                one, other = (_axis(d, len(axes)) for d in (step._saved_dim0, step._saved_dim1))
                dims[one], dims[other] = other, one
            case "CloneBackward0":
                dims = list(range(len(axes)))
            case "ViewBackward0" | "UnsafeViewBackward0" if _keeps_shape(step, tensor, axes):
                dims = list(range(len(axes)))
            case _:
                return None
        axes = tuple(dims[axis] for axis in axes)
        key = step.next_functions[0]
    place = seen[key]
    return place if axes == tuple(range(len(axes))) else OutputOrigin(place.path, place.call, place.item, axes)


def _axis(number: int, count: int) -> int:
    """One of `count` axes as autograd saves it: negative numbers as unsigned numbers of 64 bits."""
    return (number - 2**64 if number >= 2**63 else number) % count


def _keeps_shape(step: Any, tensor: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether a view keeps the shape of its input."""
    sizes = step._saved_self_sym_sizes
    return len(sizes) == len(axes) and [sizes[axis] for axis in axes] == list(tensor.shape)


def _layers(modules: Mapping[str, nn.Module], calls: Counter[str], count: int) -> tuple[str, ...]:
    """The outermost list of as many modules as there are layers, each of them called."""
    for path, module in modules.items():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            layers = tuple(f"{path}.{name}" for name in module._modules)
            if all(calls[layer] for layer in layers):
                return layers
    return ()
