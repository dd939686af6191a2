"""The earth mover's distance between whole stacks of layers."""

from __future__ import annotations

from typing import Any

from brewgraph.diagnostics import RunError
from brewgraph.ops.registry import operation


@operation(
    takes={"hidden... -> hidden...": "batch"},
    same=("width",),
    source="Li et al. 2020, arXiv:2010.06133 (BERT-EMD): many-to-many layer mapping; uniform weights",
)
def emd(source: Any, target: Any, *, layout: Any) -> Any:
    """What it costs to move one row of layers to the other: Σ flow · distance over all pairs of layers.

    Distances are mean squared errors over real tokens; every layer of a side weighs the same; the flow is the cheapest
    one for this batch, and a constant for the gradient. Distances are means over the whole batch before the flow is
    found, so that a batch in pieces, by `accumulate` or over ranks, has a flow for each piece, and another loss: the
    check warns of that (W212). It needs the extra `emd`.
    """
    import torch

    distance_ST = torch.stack(
        [torch.stack([layout.mean((a - b).square().mean(-1), "token") for b in target]) for a in source]
    )
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
