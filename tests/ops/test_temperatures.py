"""Temperatures for each example or token."""

from __future__ import annotations

import math

import pytest
import torch

from brewgraph.ops import KINDS, TEMPERATURES
from brewgraph.ops.temperatures import FLOOR
from brewgraph.runtime.layouts import Padded
from tests.ops import naive
from tests.ops.test_ops import MASK, MASK_ROWS, random

FLSW, CWSM = TEMPERATURES["flsw"].function, TEMPERATURES["cwsm"].function


def weight(name: str, source: list[float], target: list[float], gamma: float) -> float:
    """What lowers a temperature: (1 - cosine)^γ, or one over the student's highest probability."""
    if name == "cwsm":
        return 1 / (max(naive.softmax(target, 1.0)) + 1e-3)
    long, wide = (math.sqrt(sum(a * a for a in x)) + 1e-4 for x in (source, target))
    return float((1 - sum(a * b for a, b in zip(source, target, strict=True)) / long / wide) ** gamma)


@pytest.mark.parametrize("name", TEMPERATURES)
def test_every_temperature_is_documented(name: str) -> None:
    """A summary, a source, words for every option; both look at the whole batch."""
    found = TEMPERATURES[name]
    assert found.summary.endswith((".", "γ.", ")."))
    assert found.source
    assert all(option.text and option.kind in KINDS for option in found.options)
    assert found.couples_batch


@pytest.mark.parametrize(("name", "gamma"), [("flsw", 1.0), ("flsw", 2.0), ("cwsm", 1.0)])
def test_temperatures_of_examples(name: str, gamma: float) -> None:
    """base + β (mean - w); the mean of the batch stays the base."""
    source, target = random(4, 5, seed=1), random(4, 5, seed=2)
    weights = [weight(name, s, t, gamma) for s, t in zip(source.tolist(), target.tolist(), strict=True)]
    expected = [4.0 + 0.5 * (sum(weights) / 4 - w) for w in weights]
    options = {"gamma": gamma} if name == "flsw" else {}
    found = TEMPERATURES[name].function(source, target, 4.0, beta=0.5, **options)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert math.isclose(float(found.mean()), 4.0)


@pytest.mark.parametrize("name", TEMPERATURES)
@pytest.mark.parametrize("value", [0.0, 1e30, math.nan])
def test_temperatures_of_tokens(name: str, value: float) -> None:
    """The mean is that of the real tokens, whatever padding holds; padding gets the base."""
    source, target = (random(3, 4, 5, seed=i).masked_fill(~MASK[..., None], value) for i in (1, 2))
    found = TEMPERATURES[name].function(source, target, 4.0, layout=Padded(MASK))
    weights = {
        (b, i): weight(name, source[b, i].tolist(), target[b, i].tolist(), 1.0)
        for b, row in enumerate(MASK_ROWS)
        for i, real in enumerate(row)
        if real
    }
    mean = sum(weights.values()) / len(weights)
    expected = torch.full((3, 4), 4.0, dtype=torch.float64)
    for (b, i), w in weights.items():
        expected[b, i] = 4.0 + mean - w
    torch.testing.assert_close(found, expected)


def test_no_temperature_turns_negative() -> None:
    """TextBrewer's would here, and so invert the targets; those above the floor are what they would be."""
    source = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    target = source.clone()
    target[0] = -target[0]
    found = FLSW(source, target, 1.0, beta=1.0, gamma=2.0)
    assert float(found[0]) == FLOOR > 0
    plain = [weight("flsw", s, t, 2.0) for s, t in zip(source.tolist(), target.tolist(), strict=True)]
    assert 1.0 + sum(plain) / 6 - plain[0] < -1
    torch.testing.assert_close(
        found[1:], torch.tensor([1.0 + sum(plain) / 6 - w for w in plain[1:]], dtype=torch.float64)
    )
    assert float(CWSM(source, random(6, 3) * 9, 1.0, beta=50.0).min()) == FLOOR


def test_temperatures_have_no_gradient() -> None:
    """They weigh the targets; nothing is learned through them."""
    source, target = random(4, 5, seed=1), random(4, 5, seed=2, grad=True)
    assert not FLSW(source, target, 4.0).requires_grad
    assert not CWSM(source, target, 4.0).requires_grad


def test_logits_of_zero_have_a_temperature() -> None:
    """Their cosine with anything is taken to be zero."""
    found = FLSW(torch.zeros(2, 3), torch.ones(2, 3), 4.0)
    torch.testing.assert_close(found, torch.full((2,), 4.0))


def test_the_base_may_change_with_training() -> None:
    """It is a number, or a tensor of one."""
    source, target = random(4, 5, seed=1), random(4, 5, seed=2)
    torch.testing.assert_close(FLSW(source, target, torch.tensor(4.0)), FLSW(source, target, 4.0))


@pytest.mark.parametrize("classes", [2, 5, 6, 1000])
@pytest.mark.parametrize("beta", [0.5, 1.0, -2.0])
def test_how_far_an_unsure_student_takes_a_temperature(classes: int, beta: float) -> None:
    """As far as W209 says, where all but one example are at the other end of what a softmax can be; then the floor."""
    unsure, certain = torch.zeros(1, classes), torch.eye(classes)[:1] * 1e4
    one, rest = (unsure, certain) if beta > 0 else (certain, unsure)
    logits = torch.cat([one, rest.repeat(9999, 1)]).double()
    fall = TEMPERATURES["cwsm"].fall(classes, beta=beta)
    assert fall is not None
    for base in (0.5, 4.0, fall + 1):
        assert float(CWSM(logits, logits, base, beta=beta).min()) == pytest.approx(max(FLOOR, base - fall), rel=0.1)
