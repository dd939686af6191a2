"""Losses on features: squared and cosine distances."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import operation


@operation(
    takes={
        "logits -> logits": "position",
        "hidden -> hidden": "token",
        "attention -> attention": "pair",
        "scores -> scores": "pair",
        "vector -> vector": "example",
    },
    same=("classes", "width", "heads"),
    source="Ba, Caruana 2014, arXiv:1312.6184, eq. 1 (logits); "
    "Jiao et al. 2020, arXiv:1909.10351, eq. 7 and 8 (attention, hidden)",
    T=("number", "temperature: both sides are divided by it (logits)"),
)
def mse(source: Any, target: Any, *, T: Any = 1.0) -> Any:
    """Mean squared error: over classes or width per position; over heads per pair of tokens for attention."""
    if source.dim() == 4:
        return (source - target).square().mean(1)
    difference_X_H = source - target if isinstance(T, float) and T == 1.0 else (source - target) / T
    return difference_X_H.square().mean(-1)


@operation(
    takes={"hidden -> hidden": "token", "vector -> vector": "example"},
    same=("width",),
    source="Sanh et al. 2019, arXiv:1910.01108, section 3: the cosine embedding loss",
)
def cos(source: Any, target: Any) -> Any:
    """One minus the cosine of the two vectors, per token or per example."""
    from torch.nn import functional as F

    return 1 - F.cosine_similarity(source, target, dim=-1)
