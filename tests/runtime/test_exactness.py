"""Every operation, transform and temperature through the runtime: gradients, padding, and inputs at the edge.

The cases are written from the registries; what is newly registered is tested, or fails here for want of a way to
write it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from brewgraph.ops import OPERATIONS, TEMPERATURES, TRANSFORMS
from brewgraph.ops.alone import ALONE
from brewgraph.runtime.layouts import Padded
from tests.runtime.given import LENGTHS, Bench, Case, Values, batch_of, cases, draw, lay_out, own, said

CASES = cases()
PADDING = {1e30: 1, -math.inf: 2, math.nan: 0}
"""What padding is made to hold, and how much more of it there is then."""


def test_everything_registered_has_a_case() -> None:
    """Operations with all that they take, transforms with all that they take, temperatures, functions of one value."""
    about = {case.about for case in CASES}
    names = {x.name for registry in (OPERATIONS, TRANSFORMS, TEMPERATURES) for x in own(registry)}
    assert about == names | ALONE.keys()
    taken = sum(len(x.takes) for x in own(OPERATIONS)) + sum(len(x.takes) for x in own(TRANSFORMS))
    assert len(CASES) > taken


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_padding_holds_has_no_part(case: Case) -> None:
    """Neither in the loss nor in a gradient: large numbers, infinities, none at all; nor has how much there is."""
    bench = lay_out(case)
    values = draw(bench, batch_of(case))
    loss, gradients = bench.gradients(values, batch_of(case))
    assert any(g.abs().max() > 1e-6 for g in gradients.values())
    for value, more in PADDING.items():
        other, others = bench.gradients(bench.padded(values, value, more), batch_of(case, longest=max(LENGTHS) + more))
        torch.testing.assert_close(other, loss, msg=said(f"{value}, {more} more"))
        expected = bench.padded(gradients, 0.0, more)
        torch.testing.assert_close(others, expected, msg=said(f"{value}, {more} more"))


@pytest.mark.parametrize("case", [case for case in CASES if case.about not in TEMPERATURES], ids=str)
def test_gradients_against_finite_differences(case: Case) -> None:
    """Central ones, of ragged, masked examples in double precision, along random directions of every feature.

    Differences fail where there is no derivative, and such inputs are left out: `shift` jumps where two logits tie for
    the highest, the plan of `emd` where two plans cost the same, distances have a corner where two examples are one;
    random numbers do none of that. What is stopped has no gradient by intent, and a temperature of each example's own
    is a constant: the next test is about that.
    """
    bench, batch = lay_out(case), batch_of(case)
    values = draw(bench, batch)
    _, gradients = bench.gradients(values, batch)
    assert gradients.keys() == {key for key in values if not (case.about == "stop" and key[0] == "big")}
    generator = torch.Generator().manual_seed(1)
    for key, gradient in gradients.items():
        for _ in range(3):
            way = 1e-5 * torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            ahead, behind = (bench.run(values | {key: values[key] + sign * way}, batch) for sign in (1, -1))
            expected = (ahead - behind) / 2
            torch.testing.assert_close((gradient * way).sum(), expected, rtol=1e-6, atol=1e-15, msg=said(f"{key}"))


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("name", [x.name for x in own(TEMPERATURES)])
def test_a_temperature_of_its_own_is_a_constant(name: str, per_token: bool) -> None:
    """The gradient is that of the loss at the temperatures which these logits have."""
    case = Case(name, f"kd(big.logits -> tiny.logits, T={name}(4))", "tags" if per_token else "class", per_token)
    bench, batch = lay_out(case), batch_of(case)
    loss, gradients = bench.gradients(values := draw(bench, batch), batch)
    source, target = (values[model, "logits"] for model in ("big", "tiny"))
    layout = Padded(batch["attention_mask"].bool() if per_token else None)
    fixed = TEMPERATURES[name].function(source, target, 4.0, layout=layout)
    assert fixed.max() - fixed.min() > 0.1
    leaves = [x.clone().requires_grad_() for x in (source, target)]
    unit = "token" if per_token else "example"
    expected = layout.mean(OPERATIONS["kd"].function(*leaves, T=fixed), unit)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    for model, leaf in zip(("big", "tiny"), leaves, strict=True):
        torch.testing.assert_close(gradients[model, "logits"], leaf.grad)


# ── the edges ────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_finite(bench: Bench, values: Values, batch: dict[str, Any]) -> bool:
    """Whether the loss and all its gradients are numbers."""
    loss, gradients = bench.gradients(values, batch)
    assert gradients
    return bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in gradients.values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_edges_are_finite(case: Case) -> None:
    """In single precision, with an example that has no token: zeros, numbers all alike, numbers of size 10⁴."""
    bench, batch = lay_out(case), batch_of(case, (3, 0, 2))
    values = draw(bench, batch, torch.float32)
    zero = {key: torch.zeros_like(x) for key, x in values.items()}
    large = {key: x if key[1].startswith("attention") else 1e4 * x for key, x in values.items()}
    edges = {
        "as they are": values,
        "zeros": zero,
        "zeros on the left": values | {key: x for key, x in zero.items() if key[0] == "big"},
        "zeros on the right": values | {key: x for key, x in zero.items() if key[0] == "tiny"},
        "alike": {key: torch.full_like(x, 0.5) for key, x in values.items()},
        "large": large,
        "large and opposed": {key: x.abs() if key[0] == "big" else -x.abs() for key, x in large.items()},
    }
    assert [name for name, given in edges.items() if not is_finite(bench, given, batch)] == []
    assert is_finite(bench, values, batch_of(case, (0, 0, 0), longest=3)), "no token at all"


COLD = [replace(case, loss=case.loss.replace("T=2", "T=0.01")) for case in CASES if "T=2" in case.loss]


@pytest.mark.parametrize("case", COLD, ids=str)
def test_cold_losses_of_large_logits_are_finite(case: Case) -> None:
    """A temperature of 0.01 and logits of size 10⁴: a softmax of 10⁶ has zeros, whose logarithm must not show."""
    bench, batch = lay_out(case), batch_of(case)
    values = draw(bench, batch, torch.float32)
    assert is_finite(bench, {key: 1e4 * x for key, x in values.items()}, batch)
