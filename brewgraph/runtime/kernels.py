"""Kernels for fp32 on a CPU: matrix products and memory, chosen by measurement once per machine, and dropout.

torch sends `linear` to the BLAS library that it was built with. On many processors oneDNN computes the same product
faster, to the same precision. Large blocks of memory go back to the system when they are freed, and where the system
takes long to clear them again, the process keeps them. The choices are kept with the facts on disk, by processor,
number of threads and version of torch. Dropout draws four chances from each random number. `BREWGRAPH_KERNELS=off`
keeps torch's kernels and memory as it is.
"""

from __future__ import annotations

import ctypes
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from brewgraph.digest import digest
from brewgraph.models.capture.attention import dropped_out, fast_kernels_are_on, keep_mask
from brewgraph.paths import facts_folder, keep_fact, read_json

WORTHWHILE = 1.2
"""How many times as fast oneDNN has to be."""
_SMALL = 1 << 20
"""Products of fewer multiplications stay with torch: calling costs more than computing."""
_FEW = 1 << 14
"""Dropouts of fewer numbers stay with torch."""
_BLOCK = 64 << 20
"""Bytes of a block that is measured: as word embeddings have, and more than glibc keeps by itself (32 MiB)."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""
_PLAIN = (Tensor, torch.nn.Parameter)


def fast_kernels() -> AbstractContextManager[Any]:
    """Inside, `linear` and `dropout` run on faster kernels; backward passes of what was computed there do, too.

    Not under a mode that looks at torch's own operations, as fake tensors and counters of FLOPs do.
    """
    on = fast_kernels_are_on() and _get_current_dispatch_mode() is None
    return FastKernels(products=_choices().onednn) if on else nullcontext()


class FastKernels(TorchFunctionMode):
    """Sends large products and dropouts of fp32 tensors on a CPU to faster kernels; leaves every other call alone."""

    def __init__(self, *, products: bool = True):
        super().__init__()
        self.products = products

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and self.products and not kwargs and _fits(*args):
            return linear(*args)
        if func is F.dropout and _drops(*args, **(kwargs or {})):
            return dropout(*args, **(kwargs or {}))
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
        # rows that lie apart, as a pooler's first tokens, take oneDNN a thousand times as long once they are transposed
        g_MN, x_MK = (y.flatten(0, -2).contiguous() for y in (gradients[0], x))
        return (
            _product(g_MN, weight.t(), None).view_as(x) if to_x else None,
            _product(g_MN.t(), x_MK.t(), None) if to_weight else None,
            g_MN.sum(0) if to_bias else None,
        )


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`x` with zeros at the rate `p`, the rest divided by 1 - p."""
    dropped: Tensor = _Dropout.apply(x, p)
    return dropped


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        mask = keep_mask(x.shape, rate)
        ctx.save_for_backward(mask)
        ctx.rate = rate
        return dropped_out(x, mask, rate)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return dropped_out(gradients[0], mask, ctx.rate), None


def _drops(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    """Whether this is a dropout of many fp32 numbers on a CPU."""
    plain = type(x) in _PLAIN and x.dtype == torch.float32 and x.device.type == "cpu"
    return plain and training and not inplace and 0 < p < 1 and x.numel() >= _FEW


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


@dataclass(frozen=True)
class Choices:
    """What is worthwhile on a machine."""

    onednn: bool
    """oneDNN for products."""
    keeps_memory: bool
    """Freed memory stays with the process."""


@cache
def _choices() -> Choices:
    """What to do on this machine: measured, or read from disk where that was done. Put into effect once."""
    folder, machine = facts_folder(), (_processor(), torch.get_num_threads(), torch.__version__, WORTHWHILE)
    choices = None if folder is None else _kept_choices(path := folder / f"kernels-{digest(*machine)}.json")
    if choices is None:
        choices = Choices(onednn=_onednn_is_faster(), keeps_memory=_clearing_takes_long())
        if folder is not None:
            keep_fact(path, json.dumps(asdict(choices) | {"machine": machine}))
    if choices.keeps_memory:
        _keep_freed_memory()
    return choices


def _kept_choices(path: Path) -> Choices | None:
    """The choices in a file, if it holds them whole."""
    with suppress(OSError, ValueError):
        known = read_json(path)
        if isinstance(known, dict):
            choices = {x.name: known[x.name] for x in fields(Choices) if type(known.get(x.name)) is bool}
            return Choices(**choices) if len(choices) == len(fields(Choices)) else None
    return None


def _processor() -> str:
    """The model of this machine's processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _onednn_is_faster() -> bool:
    """One product of a usual size on both kernels in turn: the values agree, and oneDNN is faster by `WORTHWHILE`."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator) for size in ((512, 768), (768, 768)))
    kernels: tuple[Callable[..., Tensor], ...] = (F.linear, _product)
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        one, other = (kernel(x, weight, None) for kernel in kernels)
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-4):
            return False
        for _ in range(7):
            for kernel, spent in zip(kernels, times, strict=True):
                start = time.perf_counter()
                kernel(x, weight, None)
                spent.append(time.perf_counter() - start)
    return statistics.median(a / b for a, b in zip(*times, strict=True)) >= WORTHWHILE


def _clearing_takes_long() -> bool:
    """Whether a new block of memory takes `WORTHWHILE` times as long to fill as one that is there: the system clears
    its pages at their first use.
    """
    ratios = []
    for _ in range(3):
        seconds = []
        block = torch.empty(_BLOCK, dtype=torch.uint8)
        for _ in range(2):
            start = time.perf_counter()
            block.zero_()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
        del block
    return statistics.median(ratios) >= WORTHWHILE


def _keep_freed_memory() -> None:
    """Tell glibc to take large blocks from the memory that the process keeps. Other C libraries have no such call."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, size in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(option, size)
