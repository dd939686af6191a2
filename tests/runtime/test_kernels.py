"""Kernels: the same numbers as torch's own, wherever they take part."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from brewgraph.models.capture import attention
from brewgraph.models.capture.attention import keep_mask
from brewgraph.paths import FACTS
from brewgraph.runtime import kernels
from brewgraph.runtime.kernels import FastKernels, fast_kernels

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what was sent to oneDNN."""
    shapes: list[tuple[int, ...]] = []
    linear = kernels.linear

    def note(x: Tensor, *rest: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return linear(x, *rest)

    monkeypatch.setattr(kernels, "linear", note)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "out"),
    [((96, 160), 128), ((4, 24, 160), 128), ((2, 3, 16, 160), 128), ((300, 64), 256), ((20, 64), 1024)],
)
def test_values_and_gradients_are_torchs(
    shape: tuple[int, ...], out: int, bias: bool, sent: list[tuple[int, ...]]
) -> None:
    """Forward and backward, against the same layer in double precision, whichever operand of the weight's gradient is
    transposed.
    """
    torch.manual_seed(0)
    layer = nn.Linear(shape[-1], out, bias=bias)
    x, upstream = torch.randn(shape, requires_grad=True), torch.randn(*shape[:-1], out)
    with FastKernels():
        layer(x).backward(upstream)
    exact = nn.Linear(shape[-1], out, bias=bias).double()
    exact.load_state_dict(layer.state_dict())
    y = x.detach().double().requires_grad_()
    exact(y).backward(upstream.double())
    assert sent == [shape]
    found = {"x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    wanted = {"x": y.grad, **{name: p.grad for name, p in exact.named_parameters()}}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.double(), wanted[name], rtol=1e-4, atol=1e-4, msg=name)
    with FastKernels(), torch.no_grad():
        torch.testing.assert_close(layer(x).double(), exact(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mm", [True, False])
def test_rows_that_lie_apart(mm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tokens of examples, as a pooler takes them: the gradient is torch's, and oneDNN gets dense operands,
    for transposed rows with gaps between them it takes a thousand times as long."""
    torch.manual_seed(0)
    layer, states = nn.Linear(256, 256), torch.randn(64, 9, 256, requires_grad=True)
    layer(states[:, 0]).square().sum().backward()
    wanted = [states.grad, layer.weight.grad, layer.bias.grad]
    states.grad = layer.weight.grad = layer.bias.grad = None
    product, gaps = kernels._product, []

    def note(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        gaps.extend(not (y.is_contiguous() or y.t().is_contiguous()) for y in (x, weight) if y.stride(-1) != 1)
        return product(x, weight, bias)

    monkeypatch.setattr(kernels, "_product", note)
    monkeypatch.setattr(kernels, "_mm_takes_onednn", lambda: mm)
    with FastKernels():
        layer(states[:, 0]).square().sum().backward()
    torch.testing.assert_close([states.grad, layer.weight.grad, layer.bias.grad], wanted, rtol=1e-4, atol=1e-4)
    assert len(gaps) == (1 if mm else 3)
    assert not any(gaps)


@pytest.mark.parametrize("mm", [True, False])
@pytest.mark.parametrize(("rows", "n", "k"), [(96, 160, 128), (131, 64, 300), (40, 300, 64)])
def test_products_over_rows_are_of_fp32(rows: int, n: int, k: int, mm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a weight is exact to fp32, under autocast too, and torch's setting is as it was."""
    if mm and not kernels._mm_takes_onednn():
        pytest.skip("oneDNN computes products of `mm` in lower precision on this processor")
    monkeypatch.setattr(kernels, "_mm_takes_onednn", lambda: mm)
    g_MN, x_MK = torch.randn(rows, n), torch.randn(rows, k)
    former = torch.backends.mkldnn.matmul.fp32_precision
    with torch.autocast("cpu", torch.bfloat16):
        product = kernels._product_over_rows(g_MN, x_MK)
    torch.testing.assert_close(product.double(), g_MN.double().t() @ x_MK.double(), rtol=1e-5, atol=1e-4)
    assert torch.backends.mkldnn.matmul.fp32_precision == former


def test_the_measurement_does_not_ask_for_autocast() -> None:
    """A run in bf16 begins inside of autocast: kernels are compared in fp32 all the same."""
    kernels._onednn_is_faster.cache_clear()
    with torch.autocast("cpu", torch.bfloat16), fast_kernels():
        pass
    assert isinstance(kernels._onednn_is_faster(), bool)


def test_the_choice_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once for a processor, a number of threads and a version of torch; a damaged file is written again."""
    measured: list[bool] = []

    def measure(choice: bool) -> None:
        """The next process, whose measurement would say this."""
        kernels._onednn_is_faster.cache_clear()
        monkeypatch.setattr(kernels, "_measured", lambda: measured.append(choice) or choice)

    monkeypatch.setenv(FACTS, str(tmp_path / "facts"))
    try:
        measure(True)
        assert kernels._onednn_is_faster()
        measure(False)
        assert kernels._onednn_is_faster()
        assert measured == [True]
        (file,) = (tmp_path / "facts").iterdir()
        for damaged in (b"", b'{"onednn"', b"[]", b'{"onednn": 1}', b"\xff\xfe", b"[" * 100_000):
            file.write_bytes(damaged)
            measure(False)
            assert not kernels._onednn_is_faster()
            assert json.loads(file.read_text())["onednn"] is False
        assert len(measured) == 7
        monkeypatch.setattr(torch, "__version__", "another")
        measure(True)
        assert kernels._onednn_is_faster()
        assert len(list((tmp_path / "facts").iterdir())) == 2
        monkeypatch.setenv(FACTS, "off")
        measure(False)
        assert not kernels._onednn_is_faster()
        assert len(list((tmp_path / "facts").iterdir())) == 2
        (tmp_path / "a file").touch()
        monkeypatch.setenv(FACTS, str(tmp_path / "a file"))
        measure(True)
        assert kernels._onednn_is_faster()
    finally:
        kernels._onednn_is_faster.cache_clear()


@pytest.mark.parametrize("padding", [None, 2, -1])
def test_the_gradient_of_an_embedding_keeps_its_memory(padding: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are torch's, of ids that occur twice, of padding, of micro-batches; each step's gradient begins with zeros
    in the memory of the one before, unless something still holds that.
    """
    monkeypatch.setattr(kernels, "_KEPT", 1)
    torch.manual_seed(0)
    layer = nn.Embedding(7, 5, padding_idx=padding)
    plain = nn.Embedding(7, 5, padding_idx=padding)
    plain.load_state_dict(layer.state_dict())
    places, held = [], []
    for step, ids in enumerate([[0, 2, 2], [6, 1], [2, 6], [4, 4], [0]]):
        layer.weight.grad = plain.weight.grad = None
        for part in (torch.tensor([ids]), torch.tensor([[3, 3]]))[: 1 + (step == 1)]:
            upstream = torch.randn(*part.shape, 5)
            with FastKernels():
                layer(part).backward(upstream)
            plain(part).backward(upstream)
        assert torch.equal(layer.weight.grad, plain.weight.grad)
        places.append(layer.weight.grad.untyped_storage().data_ptr())
        if step == 2:
            held.append((layer.weight.grad, layer.weight.grad.clone()))
    assert places[0] == places[1] == places[2] != places[3]
    assert places[4] != places[2]
    assert all(torch.equal(one, copy) for one, copy in held)


def test_only_what_needs_it_gets_a_gradient() -> None:
    """A frozen layer passes a gradient on and keeps none."""
    layer = nn.Linear(256, 256).requires_grad_(False)
    x = torch.randn(64, 256, requires_grad=True)
    with FastKernels():
        layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x))


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.zeros(4, 16), torch.zeros(16, 16)),
        (torch.zeros(256, 256, dtype=torch.float64), torch.zeros(256, 256, dtype=torch.float64)),
        (torch.zeros(256, 256, dtype=torch.bfloat16), torch.zeros(256, 256, dtype=torch.bfloat16)),
        (torch.zeros(1 << 14), torch.zeros(256, 1 << 14)),
        (torch.zeros(256, 256, device="meta"), torch.zeros(256, 256, device="meta")),
    ],
    ids=["small", "double", "bf16", "a vector", "meta"],
)
def test_everything_else_stays_with_torch(x: Tensor, weight: Tensor, sent: list[tuple[int, ...]]) -> None:
    """Sizes, number formats and devices that oneDNN is not meant for here."""
    with FastKernels():
        F.linear(x, weight)
    assert sent == []


def test_autocast_and_counters_see_torchs_operations(sent: list[tuple[int, ...]]) -> None:
    """Under autocast a product is torch's, in bf16; a counter of FLOPs counts it."""
    layer, x = nn.Linear(256, 256), torch.randn(256, 256)
    with FastKernels(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with FlopCounterMode(display=False) as counter, fast_kernels():
        layer(x)
    assert counter.get_total_flops() == 2 * 256**3
    assert sent == []


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_is_torchs_distribution(rate: float) -> None:
    """The share that is kept, the factor of what is kept, a gradient through the same mask, a seed that repeats it."""
    x = torch.ones(400, 500, requires_grad=True)
    torch.manual_seed(3)
    with FastKernels():
        dropped = F.dropout(x, rate)
    dropped.sum().backward()
    assert dropped.detach().unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
    kept = float((dropped > 0).float().mean())
    deviation = (rate * (1 - rate) / x.numel()) ** 0.5
    assert abs(kept - (1 - rate)) < 5 * deviation
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())
    torch.manual_seed(3)
    with FastKernels():
        assert torch.equal(F.dropout(x, rate), dropped)


def test_neighbours_are_drawn_apart() -> None:
    """Four chances come from one random number, and know nothing of each other."""
    torch.manual_seed(4)
    kept = keep_mask(torch.Size([200_000]), 0.3).view(-1, 4).float()
    correlations = torch.corrcoef(kept.T) - torch.eye(4)
    assert float(correlations.abs().max()) < 5 / 50_000**0.5


@pytest.mark.parametrize("call", [{"training": False}, {"p": 0.0}, {"inplace": True}], ids=str)
def test_dropouts_of_another_kind_are_torchs(call: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation, without a rate, in place; and those of few numbers."""
    monkeypatch.setattr(kernels, "dropout", lambda *_, **__: pytest.fail("sent to the fast kernel"))
    with FastKernels():
        F.dropout(torch.ones(400, 500), **({"p": 0.5} | call))
        F.dropout(torch.ones(10, 10), 0.5)


def test_packed_attention_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd through softmax and the same dropout, example by example, in double precision."""
    lengths, rate, scale = [5, 1, 9], 0.3, 0.4
    generator = torch.Generator().manual_seed(5)
    masks = {n: torch.rand(2, n, n, generator=generator) > rate for n in lengths}
    flat = torch.cat([masks[n].flatten() for n in lengths])
    monkeypatch.setattr(attention, "keep_mask", lambda *_: flat)
    given = [torch.randn(15, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(15, 2, 4, generator=generator, dtype=torch.float64)

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        outputs = []
        for q, k, v in zip(*(x.transpose(0, 1).split(lengths, 1) for x in (query, key, value)), strict=True):
            weights = torch.softmax(q @ k.transpose(1, 2) * scale, -1)
            outputs.append(weights * masks[q.shape[1]] / (1 - rate) @ v)
        return torch.cat(outputs, 1).transpose(0, 1)

    expected = torch.autograd.grad(plain(*given), given, upstream)
    found = attention.PackedAttention.apply(*given, lengths, scale, rate)
    torch.testing.assert_close(found, plain(*given))
    for one, other in zip(torch.autograd.grad(found, given, upstream), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BREWGRAPH_KERNELS=off` keeps torch's kernels; else the faster one is measured, once."""
    monkeypatch.setenv("BREWGRAPH_KERNELS", "off")
    kernels._onednn_is_faster.cache_clear()
    assert isinstance(fast_kernels(), nullcontext)
    assert not attention.fast_kernels_are_on()
    monkeypatch.setenv("BREWGRAPH_KERNELS", "on")
    kernels._onednn_is_faster.cache_clear()
    chosen = {fast_kernels().products for _ in range(3)}
    assert len(chosen) == 1
    kernels._onednn_is_faster.cache_clear()


MAPPED = """
import ctypes, torch
from brewgraph.runtime.kernels import fast_kernels
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = type("Info", (ctypes.Structure,), {"_fields_": [(f"x{i}", ctypes.c_size_t) for i in range(10)]})
with fast_kernels():
    before = mallinfo().x4
    block = torch.ones(31 << 18)
    print((mallinfo().x4 - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only malloc of glibc is set")
@pytest.mark.parametrize("kept", [{}, {"BREWGRAPH_KERNELS": "off"}, {"MALLOC_ARENA_MAX": "2"}])
def test_freed_memory_stays_with_the_process(kept: dict[str, str]) -> None:
    """A block of 31 MiB lies on the heap, which the process keeps; it is mapped, and given back when it is freed, where
    kernels are off or the environment tunes malloc.
    """
    usual = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", MAPPED], env={**usual, **kept}, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) == (31 if kept else 0)
