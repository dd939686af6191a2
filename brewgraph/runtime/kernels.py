"""Kernels for matrix products in fp32 on a CPU, chosen by measurement once per process.

torch sends `linear` to the BLAS library that it was built with. On many processors oneDNN computes the same product
faster, to the same precision. `BREWGRAPH_KERNELS=off` keeps torch's choice.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

WORTHWHILE = 1.2
"""How many times as fast oneDNN has to be."""
_SMALL = 1 << 20
"""Products of fewer multiplications stay with torch: calling costs more than computing."""
_PLAIN = (Tensor, torch.nn.Parameter)


def fast_linear() -> AbstractContextManager[Any]:
    """Inside, `linear` runs on the faster kernel; backward passes of what was computed there do, too.

    Not under a mode that looks at torch's own operations, as fake tensors and counters of FLOPs do.
    """
    plain = _get_current_dispatch_mode() is None
    return OneDnnLinear() if plain and _onednn_is_faster() else nullcontext()


class OneDnnLinear(TorchFunctionMode):
    """Sends large products of fp32 tensors on a CPU to oneDNN, and leaves every other call alone."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and _fits(*args):
            return linear(*args)
        return func(*args, **(kwargs or {}))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b by oneDNN: x (…, K), weight (N, K), bias (N)."""
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        product: Tensor = _Linear.apply(x, weight, bias)
        return product
    return _product(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        g_MN, x_MK = gradients[0].flatten(0, -2), x.flatten(0, -2)
        return (
            _product(g_MN, weight.t(), None).view_as(x) if to_x else None,
            _product(g_MN.t(), x_MK.t(), None) if to_weight else None,
            g_MN.sum(0) if to_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _fits(x: Any, weight: Any, bias: Any = None) -> bool:
    """Whether these are plain fp32 tensors on a CPU whose product is large, outside of autocast."""
    return (
        type(x) in _PLAIN
        and type(weight) in _PLAIN
        and x.dim() > 1
        and weight.dim() == 2
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() * weight.shape[0] >= _SMALL
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _onednn_is_faster() -> bool:
    """One product of a usual size on both kernels in turn: the values agree, and oneDNN is faster by `WORTHWHILE`."""
    if os.environ.get("BREWGRAPH_KERNELS") == "off" or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator) for size in ((512, 768), (768, 768)))
    kernels: tuple[Callable[..., Tensor], ...] = (F.linear, _product)
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        one, other = (kernel(x, weight, None) for kernel in kernels)
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-4):
            return False
        for _ in range(7):
            for kernel, spent in zip(kernels, times, strict=True):
                start = time.perf_counter()
                kernel(x, weight, None)
                spent.append(time.perf_counter() - start)
    return statistics.median(a / b for a, b in zip(*times, strict=True)) >= WORTHWHILE
