"""Functions from values to a value: relations of states, probabilities, corrected teachers, heads taken together."""

from __future__ import annotations

import math
from typing import Any

from brewgraph.diagnostics import SourceFault
from brewgraph.ops.registry import Shape, transform
from brewgraph.ops.tensors import per_item, same_shape, softmax_over_keys


def _relation_shape(shapes: tuple[Shape, ...], *, heads: Any = 0) -> Shape:
    """(batch, relation heads, length, length); a `SourceFault` where the heads do not divide the width."""
    shape = shapes[0]
    if len(shape) == 4:
        batch, known, length, size = shape
        width = known * size if isinstance(known, int) and isinstance(size, int) else None
    else:
        (batch, length, width), known = shape, 1  # type: ignore[assignment]
    if heads and (heads < 0 or heads != int(heads) or (isinstance(width, int) and width % int(heads))):
        whole = [n for n in range(1, width + 1) if width % n == 0] if isinstance(width, int) else []
        near = [n for n in whole if n < heads][-1:] + [n for n in whole if n > heads][:1]
        raise SourceFault(
            "B219",
            f"{heads:g} relation heads do not divide a width of {width}",
            field="heads",
            help=f"write heads={' or '.join(map(str, near)) or '12'}, or remove it",
        )
    return (batch, int(heads) if heads else known, length, length)


@transform(
    takes={"states": "attention", "hidden": "attention"},
    shape=_relation_shape,
    source="Wang et al. 2021, arXiv:2012.15828: MiniLM v2's multi-head self-attention relations",
    heads=("integer", "relation heads into which the width is grouped anew; 0: as they are"),
)
def relation(x: Any, *, heads: Any = 0, layout: Any = None) -> Any:
    """How much each token's state resembles the others', over the tokens that are no padding.

        softmax(x xᵀ / √d)

    States of models with other heads compare once both are grouped into as many relation heads. Hidden states have one.
    """
    x_BLH = x.transpose(1, 2).flatten(2) if x.dim() == 4 else x
    count = int(heads) or (x.shape[1] if x.dim() == 4 else 1)
    if layout is not None:
        x_BLH = layout.clean(x_BLH)
    x_BNLD = x_BLH.unflatten(-1, (count, -1)).transpose(1, 2)
    scores_BNLL = x_BNLD @ x_BNLD.transpose(-1, -2) / math.sqrt(x_BNLD.shape[-1])
    return softmax_over_keys(scores_BNLL, layout)


@transform(
    takes={
        "logits": "probabilities",
        "positions": "places",
        "scores": "attention",
        "attention": "attention",
    },
    shape=same_shape,
    least={"classes": 2},
    source="Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 1",
    T=("number", "temperature: what goes in is divided by it"),
)
def probabilities(x: Any, *, T: Any = 1.0, layout: Any = None) -> Any:
    """Softmax over the last axis: classes, or the keys of attention that are no padding.

        softmax(x / T)

    Of attention that is already a distribution it makes a flatter one, as TextBrewer's attention losses do.
    """
    import torch

    scaled = x / per_item(T, x)
    return softmax_over_keys(scaled, layout) if x.dim() == 4 else torch.softmax(scaled, dim=-1)


@transform(
    takes={"logits, labels": "logits", "positions, labels": "positions"},
    shape=same_shape,
    least={"classes": 2},
    source="Wen, Lai, Qian 2019, arXiv:1911.07471: probability shift",
)
def shift(logits: Any, labels: Any) -> Any:
    """A teacher's logits put right: the label's and the highest one change places.

        x_label ↔ x_m,  m = argmax x

    Labels below zero change nothing.
    """
    import torch

    label_X_1 = labels.clamp_min(0).unsqueeze(-1)
    highest_X_1 = logits.argmax(-1, keepdim=True)
    own, most = logits.gather(-1, label_X_1), logits.gather(-1, highest_X_1)
    shifted = logits.scatter(-1, highest_X_1, own).scatter(-1, label_X_1, most)
    return torch.where((labels >= 0).unsqueeze(-1), shifted, logits)


def _one_head(shapes: tuple[Shape, ...]) -> Shape:
    """(batch, 1, length, length)."""
    batch, _, *lengths = shapes[0]
    return (batch, 1, *lengths)


@transform(
    takes={"attention": "attention", "scores": "scores"},
    shape=_one_head,
    source="TextBrewer (Yang et al. 2020, arXiv:2002.12620): attention_mse_sum compares sums over heads",
)
def head_sum(x_BNLL: Any) -> Any:
    """The sum over attention's heads, as one head.

        Σ_n x_n

    Models with different numbers of heads can be compared by it.
    """
    return x_BNLL.sum(1, keepdim=True)


@transform(
    takes={"attention": "attention", "scores": "scores"},
    shape=_one_head,
    source="TextBrewer (Yang et al. 2020, arXiv:2002.12620): attention_ce_mean compares means over heads",
)
def head_mean(x_BNLL: Any) -> Any:
    """The mean over attention's heads, as one head.

        mean_n x_n

    Models with different numbers of heads can be compared by it.
    """
    return x_BNLL.mean(1, keepdim=True)
