"""Projections: what `via` and `proj` may name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProjectionKind:
    """A linear map with bias, and the activation behind it (a name in torch.nn.functional, or empty)."""

    name: str
    activation: str
    summary: str


PROJECTIONS = {
    p.name: p
    for p in (
        ProjectionKind("linear", "", "a linear map with bias"),
        ProjectionKind("relu", "relu", "a linear map with bias, then relu"),
        ProjectionKind("tanh", "tanh", "a linear map with bias, then tanh"),
    )
}
"""Weights begin at N(0, 0.02), biases at zero, as in TextBrewer."""
