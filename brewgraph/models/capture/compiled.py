"""Layers whose forward torch compiles, each by itself, so that hooks at their borders stay outside of what is compiled.

A layer with a tap inside runs as it is. Equal layers share their code. It is compiled for batches of any size at once,
so that what a batch gives does not depend on those before it; only for batches of one example, and for those without
padding, which have no mask, it is compiled again. Compiled layers stay padded: packed tokens would be traced anew for
the lengths of each batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from brewgraph.diagnostics import RunError

_MARK = "brewgraph_compiled"
_VERSIONS = 64
"""How often a layer's code may be compiled. All models of an architecture share it; beyond 8 torch would run the rest
as it is, without a word."""


def compile_layers(model: nn.Module, paths: Collection[str], tapped: Collection[str] = ()) -> Callable[[], None]:
    """Compile the layers at these paths, without those that hold one of the modules `tapped`; returns the function that
    ends it. They are compiled at their first call, which raises RunError if this machine has no compiler.
    """
    layers = [model.get_submodule(path) for path in paths if not any(inner.startswith(f"{path}.") for inner in tapped)]
    layers = [layer for layer in dict.fromkeys(layers) if "forward" not in vars(layer)]
    for layer in layers:
        layer.forward = _compiled(layer.forward)

    def end() -> None:
        while layers:
            del layers.pop().forward

    return end


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, or one of its modules, is compiled, here or by its owner."""
    return any(hasattr(module, "_orig_mod") or hasattr(module.forward, _MARK) for module in model.modules())


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    takes_limit = "recompile_limit" in inspect.signature(torch.compile).parameters  # since torch 2.12
    limit: dict[str, Any] = {"recompile_limit": _VERSIONS} if takes_limit else {}
    traced = torch.compile(forward, dynamic=True, **limit)

    def run(*args: Any, **kwargs: Any) -> Any:
        if _get_current_dispatch_mode() is not None:  # fake tensors have no memory for compiled code to read
            return forward(*args, **kwargs)
        try:
            with torch._C.DisableTorchFunction():  # kernels of this package are no part of what is compiled
                return traced(*args, **kwargs)
        except Exception as error:
            if _is_of_compiler(error):
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise RunError(
                    f"torch cannot compile on this machine ({first[:120]}): install a C++ compiler, and for a GPU "
                    "`pip install triton`; or remove `compile = true`"
                ) from error
            raise

    setattr(run, _MARK, True)
    return run


def _is_of_compiler(error: BaseException) -> bool:
    """Whether an error comes from torch's compiler, not from what it compiled."""
    return type(error).__module__.startswith(("torch._inductor", "torch._dynamo"))
