"""Kernels of matrix products: the same numbers as torch's own, wherever they take part."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from brewgraph.runtime import kernels
from brewgraph.runtime.kernels import OneDnnLinear, fast_linear

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
@pytest.mark.parametrize("shape", [(96, 160), (4, 24, 160), (2, 3, 16, 160)])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], bias: bool, sent: list[tuple[int, ...]]) -> None:
    """Forward and backward, against the same layer in double precision."""
    torch.manual_seed(0)
    layer = nn.Linear(160, 128, bias=bias)
    x, upstream = torch.randn(shape, requires_grad=True), torch.randn(*shape[:-1], 128)
    with OneDnnLinear():
        layer(x).backward(upstream)
    exact = nn.Linear(160, 128, bias=bias).double()
    exact.load_state_dict(layer.state_dict())
    y = x.detach().double().requires_grad_()
    exact(y).backward(upstream.double())
    assert sent == [shape]
    found = {"x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    wanted = {"x": y.grad, **{name: p.grad for name, p in exact.named_parameters()}}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.double(), wanted[name], rtol=1e-4, atol=1e-4, msg=name)
    with OneDnnLinear(), torch.no_grad():
        torch.testing.assert_close(layer(x).double(), exact(y), rtol=1e-5, atol=1e-5)


def test_only_what_needs_it_gets_a_gradient() -> None:
    """A frozen layer passes a gradient on and keeps none."""
    layer = nn.Linear(256, 256).requires_grad_(False)
    x = torch.randn(64, 256, requires_grad=True)
    with OneDnnLinear():
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
    with OneDnnLinear():
        F.linear(x, weight)
    assert sent == []


def test_autocast_and_counters_see_torchs_operations(sent: list[tuple[int, ...]]) -> None:
    """Under autocast a product is torch's, in bf16; a counter of FLOPs counts it."""
    layer, x = nn.Linear(256, 256), torch.randn(256, 256)
    with OneDnnLinear(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with FlopCounterMode(display=False) as counter, fast_linear():
        layer(x)
    assert counter.get_total_flops() == 2 * 256**3
    assert sent == []


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BREWGRAPH_KERNELS=off` keeps torch's kernels; else the faster one is measured, once."""
    monkeypatch.setenv("BREWGRAPH_KERNELS", "off")
    kernels._onednn_is_faster.cache_clear()
    assert isinstance(fast_linear(), nullcontext)
    monkeypatch.setenv("BREWGRAPH_KERNELS", "on")
    kernels._onednn_is_faster.cache_clear()
    chosen = [type(fast_linear()) for _ in range(3)]
    assert len(set(chosen)) == 1
    kernels._onednn_is_faster.cache_clear()
