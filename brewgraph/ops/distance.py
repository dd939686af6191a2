"""Losses on features: squared and cosine distances, of features and of what a regression predicts."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import operation
from brewgraph.ops.tensors import directions, one_per_example, per_item


@operation(
    takes={
        "logits -> logits": "position",
        "hidden -> hidden": "token",
        "attention -> attention": "pair",
        "scores -> scores": "pair",
        "vector -> vector": "example",
        "probabilities -> probabilities": "position",
        "targets -> logits": "example",
    },
    same=("classes", "width", "heads"),
    source="Ba, Caruana 2014, arXiv:1312.6184, eq. 1 (logits); "
    "Jiao et al. 2020, arXiv:1909.10351, eq. 7 and 8 (attention, hidden); targets: the usual regression",
    T=("temperature", "temperature: both sides are divided by it (logits)"),
)
def mse(source: Any, target: Any, *, T: Any = 1.0) -> Any:
    """Mean squared error: over classes or width per position; over heads per pair of tokens for attention.

    A regression's target is one number per example beside one output, or as many as there are outputs.
    """
    if source.dim() == 4:
        return (source - target).square().mean(1)
    if source.dim() < target.dim():
        source = source.unsqueeze(-1)
    difference_X_H = source - target
    if not (isinstance(T, float) and T == 1.0):
        difference_X_H = difference_X_H / per_item(T, difference_X_H)
    return difference_X_H.square().mean(-1)


@operation(
    takes={"hidden -> hidden": "token", "vector -> vector": "example"},
    same=("width",),
    least={"width": 2},
    source="Sanh et al. 2019, arXiv:1910.01108, section 3: the cosine embedding loss",
)
def cos(source: Any, target: Any) -> Any:
    """One minus the cosine of the two vectors, per token or per example.

    A zero vector has no direction: its cosine is zero, and no gradient reaches it.
    """
    return 1 - (directions(source) * directions(target)).sum(-1)


@operation(
    takes={"hidden -> hidden": "example", "vector -> vector": "example"},
    same=("width",),
    least={"width": 2},
    source="Sun et al. 2019, arXiv:1908.09355: the loss of patient knowledge distillation",
)
def pkd(source: Any, target: Any, *, layout: Any = None) -> Any:
    """Patient distillation: squared distance of the first tokens' directions, each brought to length one.

    Of hidden states the first token that is no padding counts, of one vector per example that vector. A zero vector has
    no direction: it stays zero, and no gradient reaches it.
    """
    source_BH, target_BH = one_per_example(source, layout), one_per_example(target, layout)
    return (directions(source_BH) - directions(target_BH)).square().sum(-1)
