"""Losses on features: squared and cosine distances, and the earth mover's distance between whole stacks of layers."""

from __future__ import annotations

from typing import Any

from brewgraph.diagnostics import RunError
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

        mean_h ((from_h - to_h) / T)²

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

        1 - from · to / (‖from‖ ‖to‖)

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

        ‖u - v‖²,  u = from / ‖from‖,  v = to / ‖to‖

    Of hidden states the first token that is no padding counts, of one vector per example that vector. A zero vector has
    no direction: it stays zero, and no gradient reaches it.
    """
    source_BH, target_BH = one_per_example(source, layout), one_per_example(target, layout)
    return (directions(source_BH) - directions(target_BH)).square().sum(-1)


@operation(
    takes={"hidden... -> hidden...": "batch"},
    same=("width",),
    gathers="sums",
    source="Li et al. 2020, arXiv:2010.06133 (BERT-EMD): many-to-many layer mapping; uniform weights",
)
def emd(source: Any, target: Any, *, layout: Any) -> Any:
    """What it costs to move one row of layers to the other: flow times distance over all pairs of layers.

        Σ_ij f_ij d_ij,  d_ij = mean (from_i - to_j)²

    Distances are mean squared errors over real tokens; every layer of a side weighs the same; the flow is the cheapest
    one for this batch, and a constant for the gradient. Distances are means over the whole batch before the flow is
    found, over all ranks. A batch in pieces, by `accumulate`, has a flow for each piece, and another loss: the check
    warns of that (W212). It needs the extra `emd`.
    """
    distance_ST = layout.distances(source, target)
    return (_flow(distance_ST) * distance_ST).sum()


def _flow(distance_ST: Any) -> Any:
    """The cheapest flow between uniform weights, by network simplex."""
    import torch

    try:
        import ot
    except ImportError as error:
        raise RunError("`emd` needs the package POT: pip install 'brewgraph[emd]'") from error
    cost = distance_ST.detach().double().cpu().numpy()
    rows, columns = cost.shape
    # distances that are no numbers have no cheapest flow; an even one lets the loss show them
    flow = ot.emd(ot.unif(rows), ot.unif(columns), cost) if bool((cost == cost).all()) else 1 / (rows * columns)
    return torch.as_tensor(flow, dtype=distance_ST.dtype, device=distance_ST.device)
