"""Optimizers against their formulas, and layers that learn at rates of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from brewgraph.diagnostics import RunError
from brewgraph.recipe.settings.train import Adamw, Slanted, Train
from brewgraph.recipe.values import Length
from brewgraph.training.optimizer import BertAdamw, build_optimizer, build_schedule, layer_depths, slanted
from tests.small import classifier


def test_berts_adam_by_hand() -> None:
    """Three steps of the formula of BERT's own optimizer, on one number, to 1e-7."""
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer = BertAdamw([p], lr=0.1, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01)
    x, m, v = 2.0, 0.0, 0.0
    for gradient in (1.0, -0.5, 3.0):
        p.grad = torch.tensor([gradient])
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x -= 0.1 * (m / (v**0.5 + 1e-6) + 0.01 * x)
        assert float(p.detach()) == pytest.approx(x, abs=1e-6)


def test_its_state_comes_back() -> None:
    """Saved and loaded between two steps, as a checkpoint does."""
    ends = []
    for reload in (False, True):
        p = nn.Parameter(torch.tensor([2.0, -1.0]))
        optimizer = BertAdamw([p], lr=0.1, betas=(0.9, 0.999), eps=1e-6)
        for gradient in (1.0, 2.0):
            p.grad = torch.tensor([gradient, -gradient])
            optimizer.step()
            if reload:
                state = optimizer.state_dict()
                optimizer = BertAdamw([p], lr=0.1, betas=(0.9, 0.999), eps=1e-6)
                optimizer.load_state_dict(state)
        ends.append(p.detach())
    assert torch.equal(*ends)


def test_one_pass_over_each_parameter_is_torchs_adamw() -> None:
    """On a CPU the fused kernel runs: eight clipped steps with decay end within float32 rounding of the plain one's."""
    ends = []
    for fused in (None, True, False):
        settings = Train(optimizer=Adamw(lr=0.01, weight_decay=0.1, fused=fused))
        model = nn.ModuleDict({"student": classifier("bert")}).train(False)
        optimizer = build_optimizer(model, settings, {})
        assert optimizer.defaults["fused"] is (fused is not False)
        parameters = [p for name, p in model.named_parameters() if "key.bias" not in name]
        generator = torch.Generator().manual_seed(0)
        for _ in range(8):
            # gradients of all sizes, some so small that eps counts
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=generator) * 10 ** torch.empty(p.shape).uniform_(
                    -9, 1, generator=generator
                )
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
        ends.append([p.detach() for p in parameters])
    start = nn.ModuleDict({"student": classifier("bert")})
    moved = [p.detach() for name, p in start.named_parameters() if "key.bias" not in name]
    for default, one, other, before in zip(*ends, moved, strict=True):
        assert torch.equal(default, one)
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
        assert float((one - before).abs().max()) > 0.01


def test_kernels_that_do_not_exist() -> None:
    """Named before the first step for a device, when the spec is read for an optimizer; no hash depends on the kernel."""
    module = nn.ModuleDict({"student": nn.Linear(2, 2, device="meta")})
    assert build_optimizer(module, Train(optimizer=Adamw()), {}).defaults["fused"] is None  # torch decides
    with pytest.raises(RunError, match="no fused kernel on the device `meta`: remove `fused=true`"):
        build_optimizer(module, Train(optimizer=Adamw(fused=True)), {})
    with pytest.raises(ValueError, match=r"fused=true does not go with correct_bias=false"):
        Adamw(fused=True, correct_bias=False)
    assert repr(Adamw(fused=True)) == repr(Adamw())


@pytest.mark.parametrize("optimizer", [Adamw(lr=0.1), Adamw(lr=0.1, correct_bias=False)])
@pytest.mark.parametrize("everything", [False, True])
def test_what_decays(optimizer: Adamw, everything: bool) -> None:
    """Biases and norms are spared, those of projections too, unless all are to decay; a projection's own setting counts
    for its weights, and then for its biases."""
    module = nn.ModuleDict(
        {
            "student": nn.ModuleDict({"linear": nn.Linear(2, 2), "norm": nn.LayerNorm(2)}),
            "projections": nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}),
        }
    )
    settings = Train(optimizer=optimizer.model_copy(update={"weight_decay": 0.2, "decay_all": everything}))
    built = build_optimizer(module, settings, {"projections.b.": {"weight_decay": 0.5}})
    decays = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    found = {name: decays[id(p)] for name, p in module.named_parameters()}
    one, other = (0.2, 0.5) if everything else (0.0, 0.0)
    assert found == {
        "student.linear.weight": 0.2, "student.linear.bias": one, "student.norm.weight": one, "student.norm.bias": one,
        "projections.a.weight": 0.2, "projections.a.bias": one, "projections.b.weight": 0.5, "projections.b.bias": other,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert", "gpt2"])
def test_rates_shrink_towards_the_embeddings(kind: str) -> None:
    """Two layers: the head learns at the whole rate, the second layer at half of it, the first at a quarter, the
    embeddings at an eighth; projections at the whole, or at their own."""
    module = nn.ModuleDict(
        {"student": classifier(kind), "projections": nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})}
    )
    settings = Train(optimizer=Adamw(lr=0.8, layerwise_decay=0.5))
    optimizer = build_optimizer(module, settings, {"projections.b.": {"lr": 0.3}})
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found: dict[str, set[float]] = {"embedding": set(), "0": set(), "1": set(), "head": set()}
    for name, parameter in module["student"].named_parameters():
        parts = name.split(".")
        layer = next((part for part in parts if part in ("0", "1")), None)
        embedding = any("embed" in part or part in ("wte", "wpe") for part in parts)
        found[layer or ("embedding" if embedding else "head")].add(rates[id(parameter)])
    assert found == {"embedding": {0.1}, "0": {0.2}, "1": {0.4}, "head": {0.8}}
    assert {rates[id(p)] for p in module["projections"]["a"].parameters()} == {0.8}
    assert {rates[id(p)] for p in module["projections"]["b"].parameters()} == {0.3}


def test_a_model_without_layers_has_one_rate() -> None:
    """Nothing to tell apart."""
    assert set(layer_depths(nn.Sequential(nn.Linear(2, 2))).values()) == {1}


def test_a_slanted_triangle() -> None:
    """A 30th of the rate at both ends, all of it where the warm-up ends, straight lines between; ratio 1 is constant."""
    found = [slanted(step, 10, 100, 30) for step in (0, 5, 10, 55, 100)]
    half = (1 + 0.5 * 29) / 30
    assert found == pytest.approx([1 / 30, half, 1, half, 1 / 30])
    assert [slanted(step, 10, 100, 1) for step in (0, 5, 10, 55, 100)] == [1] * 5
    assert slanted(0, 0, 4, 2) == 1


def test_its_rates_in_training() -> None:
    """Of each group its own share, from the first step on."""
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.3, 0.1)]
    optimizer = torch.optim.SGD(groups)
    schedule = build_schedule(optimizer, Train(schedule=Slanted(warmup=Length(2, "step"), ratio=3)), 4, 4)
    rates = [schedule.get_last_lr()]
    for _ in range(4):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr())
    assert rates == [pytest.approx([0.3 * share, 0.1 * share]) for share in (1 / 3, 2 / 3, 1, 2 / 3, 1 / 3)]
