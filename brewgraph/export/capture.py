"""A student as a program of torch.export with batch and length open, and which of its modules prevent that."""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError
from brewgraph.models.exported import first_line, taking

_CAPTURE = "torch.export"
_SHOWN = 3
"""Modules that a message names."""


class _Named(nn.Module):
    """A model that takes its inputs by name and gives the tensors of these names, floats in fp32."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], outputs: Sequence[str]):
        super().__init__()
        self.model = model
        # a cache of keys and values is no tensor, and a text is read once
        fixed = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}

        def forward(**tensors: Tensor) -> tuple[Tensor, ...]:
            result = self.model(**tensors, **fixed)
            values = (getattr(result, name) for name in outputs)
            return tuple(x.float() if x.is_floating_point() else x for x in values)

        self.forward = taking(inputs, forward)


class _Call(nn.Module):
    """A module on the arguments of one call, whose tensors it takes by name."""

    def __init__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]):
        super().__init__()
        self.module = module
        leaves, structure = pytree.tree_flatten((args, dict(kwargs)))
        self.tensors = {f"tensor_{i}": x for i, x in enumerate(leaves) if isinstance(x, Tensor)}

        def forward(**tensors: Tensor) -> Any:
            filled = [tensors.get(f"tensor_{i}", x) for i, x in enumerate(leaves)]
            args, kwargs = pytree.tree_unflatten(filled, structure)
            return self.module(*args, **kwargs)

        self.forward = taking(list(self.tensors), forward)


def capture(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dtype: torch.dtype = torch.float32,
    *,
    eager: bool = False,
) -> ExportedProgram:
    """The program that computes `outputs` from `inputs` (B, L), for any B and L that the model allows, in `dtype`.

    `eager` computes attention by plain products, in place of the kernel that the model chose. The example has B >= 2
    and L >= 2. Raises `RunError`, which names the modules that torch cannot capture.
    """
    plain = copy.deepcopy(model).cpu().to(dtype).eval()
    if eager and isinstance(plain, PreTrainedModel):
        plain.set_attn_implementation("eager")
    example = {name: x.cpu() for name, x in inputs.items()}
    try:
        sizes = {size for x in example.values() for size in x.shape}
        return _program(_Named(plain, list(example), outputs), example, sizes)
    except Exception as error:
        raise inexpressible(_CAPTURE, plain, example, error, lambda program: None) from error


def inexpressible(
    target: str,
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    error: Exception,
    express: Callable[[ExportedProgram], object],
) -> RunError:
    """The fault of a model that a target cannot express, by the innermost modules that `express` fails for."""
    modules = _culprits(model, inputs, express)
    named = [f"`{path}` ({type(module).__name__}: {reason})" for path, module, reason in modules[:_SHOWN]]
    more = f" and {len(modules) - _SHOWN} more" if len(modules) > _SHOWN else ""
    what = f"{', '.join(named)}{more}" if named else f"the student ({_reason(error)})"
    if target == _CAPTURE:
        return RunError(f"{target}, which every export needs, cannot express {what}: train another architecture")
    return RunError(f"{target} cannot express {what}: choose another `--to`, or train another architecture")


def _program(module: nn.Module, tensors: Mapping[str, Tensor], sizes: Collection[int]) -> ExportedProgram:
    """The program of a module, with the axes of tensors open that have one of these sizes."""
    shapes = {
        name: {i: Dim.DYNAMIC for i, size in enumerate(x.shape) if size in sizes and size > 1}
        for name, x in tensors.items()
    }
    with quiet(), torch.no_grad():
        return torch.export.export(module, (), dict(tensors), dynamic_shapes=shapes)


# ── which modules are at fault ───────────────────────────────────────────────────────────────────────────────────────


def _culprits(
    model: nn.Module, inputs: Mapping[str, Tensor], express: Callable[[ExportedProgram], object]
) -> list[tuple[str, nn.Module, str]]:
    """The innermost modules that cannot be expressed on the arguments they have in a forward: path, module, reason.

    Modules of one class are tried once.
    """
    inputs = _distinct(model, inputs)
    calls: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.setdefault(module, (args, kwargs))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    open_sizes = {size for x in inputs.values() for size in x.shape[:2]}  # which no other axis has
    verdicts: dict[type[nn.Module], str] = {}

    def verdict(module: nn.Module) -> str:
        """Why a module cannot be expressed; empty if it can."""
        if type(module) not in verdicts:
            args, kwargs = calls[module]
            try:
                call = _Call(module, args, kwargs)
                express(_program(call, call.tensors, open_sizes))
                verdicts[type(module)] = ""
            except Exception as error:
                verdicts[type(module)] = _reason(error)
        return verdicts[type(module)]

    def search(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
        called = module in calls
        reason = verdict(module) if called else ""
        if called and not reason:
            return
        inside = [x for name, child in module.named_children() for x in search(f"{path}.{name}".lstrip("."), child)]
        if inside:
            yield from inside
        elif called:
            yield path, module, reason

    return [x for name, child in model.named_children() for x in search(name, child)]


def _distinct(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first rows and tokens of inputs, fewer by those that make an axis as long as one of the model's own."""
    own = {size for parameter in model.parameters() for size in parameter.shape}
    cut = [
        next((size for size in range(longest, 1, -1) if size not in own), longest)
        for longest in next(iter(inputs.values())).shape[:2]
    ]
    return {name: x[: cut[0], : cut[1]] for name, x in inputs.items()}


def _reason(error: Exception) -> str:
    """An exporter's error as a clause."""
    cause = error.__cause__ or error
    if "specialized" in str(cause) or "Constraints violated" in str(cause):
        return "its computation is fixed to one length or batch size"
    return first_line(cause)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporters, which warn of what they do themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
