"""Kernels for fp32 on a CPU: matrix products, chosen by measurement once per machine, dropout and embeddings.

torch sends `linear` to the BLAS library that it was built with. On many processors oneDNN computes the same product
faster, to the same precision. The choice is kept with the facts on disk, by processor, number of threads and version of
torch. Dropout draws four chances from each random number. Freed memory stays with the process, and the gradient of a
large embedding keeps its memory from step to step: the system takes longer to clear new pages than the sums take.
`BREWGRAPH_KERNELS=off` keeps torch's kernels and the allocator's defaults.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.weak import WeakTensorKeyDictionary

from brewgraph.digest import digest
from brewgraph.models.capture.attention import fast_kernels_are_on, keep_mask
from brewgraph.paths import facts_folder, keep_fact, read_json

WORTHWHILE = 1.2
"""How many times as fast oneDNN has to be."""
_SMALL = 1 << 20
"""Products of fewer multiplications stay with torch: calling costs more than computing."""
_FEW = 1 << 14
"""Dropouts of fewer numbers stay with torch."""
_KEPT = 1 << 23
"""Numbers of a gradient up to which `keep_freed_memory` keeps its memory: malloc maps what has more than 32 MiB."""
_PLAIN = (Tensor, torch.nn.Parameter)


def fast_kernels() -> AbstractContextManager[Any]:
    """Inside, `linear` and `dropout` run on faster kernels; backward passes of what was computed there do, too.

    Not under a mode that looks at torch's own operations, as fake tensors and counters of FLOPs do.
    """
    if not fast_kernels_are_on() or _get_current_dispatch_mode() is not None:
        return nullcontext()
    keep_freed_memory()
    return FastKernels(products=_onednn_is_faster())


class FastKernels(TorchFunctionMode):
    """Sends large products, dropouts and embeddings of fp32 tensors on a CPU to faster kernels, and no other call."""

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
        if func is F.embedding and _is_large(*args, **(kwargs or {})):
            return embedding(*args, **(kwargs or {}))
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
            _product_over_rows(g_MN, x_MK) if to_weight else None,
            g_MN.sum(0) if to_bias else None,
        )


def _product_over_rows(g_MN: Tensor, x_MK: Tensor) -> Tensor:
    """gᵀ x. `mm` takes transposed operands as they are. Without it oneDNN copies a transposed first operand: the other
    one comes first, and the result is transposed, if that copies less.
    """
    (rows, n), k = g_MN.shape, x_MK.shape[1]
    if _mm_takes_onednn():
        with _mm_by_onednn():  # into a result of its own, as autocast changes no such product
            return torch.mm(g_MN.t(), x_MK, out=g_MN.new_empty(n, k))
    if rows * n > rows * k + n * k:
        return _product(x_MK.t(), g_MN.t(), None).t().contiguous()
    return _product(g_MN.t(), x_MK.t(), None)


@contextmanager
def _mm_by_onednn() -> Iterator[None]:
    """fp32 products of `mm` on oneDNN, which torch asks only where lower precision is allowed."""
    settings = cast(Any, torch.backends.mkldnn).matmul
    former, settings.fp32_precision = settings.fp32_precision, "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = former


@cache
def _mm_takes_onednn() -> bool:
    """Whether oneDNN computes fp32 products of `mm` in fp32 where lower precision is allowed: without AMX it does."""
    if torch.cpu._is_amx_tile_supported():
        return False
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(512, size, generator=generator) for size in (768, 256))
    expected = x.double().t() @ y.double()
    with _mm_by_onednn():
        product = torch.mm(x.t(), y, out=torch.empty(768, 256))
    return torch.allclose(product.double(), expected, rtol=1e-4, atol=1e-3)


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
        return _dropped_out(x, mask, rate)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return _dropped_out(gradients[0], mask, ctx.rate), None


def _dropped_out(x: Tensor, mask: Tensor, rate: float) -> Tensor:
    """`x` where the mask is true, divided by 1 - `rate`; zeros elsewhere."""
    return (x * mask.view(torch.uint8)).mul_(1 / (1 - rate))  # bytes are multiplied faster than truth values


def _drops(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    """Whether this is a dropout of many fp32 numbers on a CPU."""
    plain = type(x) in _PLAIN and x.dtype == torch.float32 and x.device.type == "cpu"
    return plain and training and not inplace and 0 < p < 1 and x.numel() >= _FEW


def embedding(ids: Tensor, weight: Tensor, padding_idx: int | None = None, *usual: Any, **more: Any) -> Tensor:
    """Rows of `weight` (V, H), whose gradient leaves out the row `padding_idx`."""
    padding = None if padding_idx is None else padding_idx % len(weight)
    rows: Tensor = _Embedding.apply(ids, weight, padding)
    return rows


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return torch.embedding(weight, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        rows, places = ids.unique(return_inverse=True)
        to_weight = _zeros_like(ctx.weight)
        to_weight[rows] = torch.ops.aten.embedding_dense_backward(gradients[0], places, len(rows), -1, False)
        if ctx.padding is not None:
            to_weight[ctx.padding] = 0
        return None, to_weight, None


_memory_of: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""The memory of the last gradient of each weight."""


def _zeros_like(weight: Tensor) -> Tensor:
    """Zeros for a gradient, in the memory of the last one if nothing holds that any more."""
    memory = _memory_of.get(weight)
    if memory is None:
        zeros = torch.zeros_like(weight)
        _memory_of[weight] = zeros.untyped_storage()
        return zeros
    if torch._C._storage_Use_Count(memory._cdata) > 1:
        return torch.zeros_like(weight)
    return weight.new_empty(0).set_(memory, 0, weight.shape, weight.stride()).zero_()


def _is_large(
    ids: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> bool:
    """Whether this looks up a large trained fp32 weight on a CPU, in the usual way."""
    plain = type(weight) in _PLAIN and weight.dtype == torch.float32 and weight.device.type == "cpu"
    trained = plain and weight.requires_grad and torch.is_grad_enabled() and weight.is_contiguous()
    return trained and weight.numel() >= _KEPT and max_norm is None and not scale_grad_by_freq and not sparse


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
def keep_freed_memory() -> None:
    """Has glibc's malloc keep freed blocks of up to 32 MiB, the most it allows, for the next step.

    By default it returns them to the system after each step, which clears each page before it hands it out again. The
    memory of the process stays at its peak. An environment that tunes malloc itself is left as it is.
    """
    tuned = "malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(x.startswith("MALLOC_") for x in os.environ)
    if platform.libc_ver()[0] == "glibc" and not tuned:
        mallopt, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = ctypes.CDLL(None).mallopt, -1, -3
        mallopt(M_MMAP_THRESHOLD, _KEPT * 4)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@cache
def _onednn_is_faster() -> bool:
    """Whether oneDNN is to compute the products: measured on this machine, or read from disk where that was done."""
    if not torch.backends.mkldnn.is_available():
        return False
    folder, machine = facts_folder(), (_processor(), torch.get_num_threads(), torch.__version__, WORTHWHILE)
    if folder is None:
        return _measured()
    path = folder / f"kernels-{digest(*machine)}.json"
    with suppress(OSError, ValueError):
        known = read_json(path)
        if isinstance(known, dict) and isinstance(known.get("onednn"), bool):
            return cast(bool, known["onednn"])
    choice = _measured()
    keep_fact(path, json.dumps({"onednn": choice, "machine": machine}))
    return choice


def _processor() -> str:
    """The model of this machine's processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _measured() -> bool:
    """One product of a usual size on both kernels in turn: the values agree, and oneDNN is faster by `WORTHWHILE`."""
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
