"""Temperatures of their own for each example or token: what `T=` of a loss on logits may be, beside a number."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import temperature

FLOOR = 0.1
"""No temperature falls below this, where the formulas of the paper would turn negative and invert the targets."""

_BETA = ("number", "how far temperatures spread around the base")


def _fall_of_flsw(classes: int | None, *, beta: float, gamma: float) -> float:
    """Of an example whose two models are opposed, among others that agree."""
    return abs(beta) * 2**gamma


@temperature(
    source="Wen, Lai, Qian 2019, arXiv:1911.07471: focal loss style weights, adapted as in TextBrewer",
    couples_batch=True,
    fall=_fall_of_flsw,
    beta=_BETA,
    gamma=("number", "the power of the weights: higher ones spread the hard examples more"),
)
def flsw(source: Any, target: Any, base: Any, *, beta: Any = 1.0, gamma: Any = 1.0, layout: Any = None) -> Any:
    """Lower temperatures where the two models disagree, by the cosine of their logits.

        max(0.1, base + β (mean w - w)),  w = (1 - from · to / (‖from‖ ‖to‖))^γ

    The mean is that of the batch, so what one example gets depends on the others. Never below 0.1. The cosine divides
    by the logits' lengths plus 0.0001, so that logits of zero have one.
    """
    import torch

    with torch.no_grad():
        one_X_C, other_X_C = (x / (x.norm(dim=-1, keepdim=True) + 1e-4) for x in (source, target))
        return _around(base, beta, (1 - (one_X_C * other_X_C).sum(-1)).clamp_min(0) ** gamma, layout)


def _fall_of_cwsm(classes: int | None, *, beta: float) -> float | None:
    """Of an example on which the student is wholly unsure, among others of which it is certain."""
    return abs(beta) * (1 / (1 / classes + 1e-3) - 1 / (1 + 1e-3)) if classes is not None else None


@temperature(
    source="Wen, Lai, Qian 2019, arXiv:1911.07471: confidence weights by the highest probability, "
    "adapted as in TextBrewer",
    couples_batch=True,
    fall=_fall_of_cwsm,
    beta=_BETA,
)
def cwsm(source: Any, target: Any, base: Any, *, beta: Any = 1.0, layout: Any = None) -> Any:
    """Lower temperatures where the student is unsure, by its highest probability.

        max(0.1, base + β (mean w - w)),  w = 1 / (max q + 0.001),  q = softmax(to)

    The mean is that of the batch, so what one example gets depends on the others. Never below 0.1.
    """
    import torch

    with torch.no_grad():
        return _around(base, beta, 1 / (target.softmax(-1).amax(-1) + 1e-3), layout)


def _around(base: Any, beta: Any, weight_X: Any, layout: Any) -> Any:
    """The temperatures of weights; padding, where there is a layout, has no part in their mean and gets the base."""
    if layout is None:
        return (base + beta * (weight_X.mean() - weight_X)).clamp_min(FLOOR)
    unit = "token" if weight_X.dim() == 2 else "example"
    spread_X = layout.mean(weight_X, unit) - weight_X
    return (base + beta * (layout.clean(spread_X) if unit == "token" else spread_X)).clamp_min(FLOOR)
