"""Losses on relations: inside an example between its tokens, whose widths may differ, or between channels of layers;
between the examples of a batch, one value per batch, which cannot be split.
"""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import operation
from brewgraph.ops.tensors import directions, one_per_example

_TAKES = {"hidden -> hidden": "pair", "(hidden, hidden) -> (hidden, hidden)": "pair"}
_SOURCE = (
    "Huang, Wang 2017, arXiv:1707.01219, eq. 7: neuron selectivity transfer, with the squared inner product as kernel"
)

_BATCHES = {"hidden -> hidden": "batch", "vector -> vector": "batch"}


@operation(takes=_TAKES, source=_SOURCE, also=("mmd",))
def nst(source: Any, target: Any, *, layout: Any) -> Any:
    """Squared distance of the two sides' Gram matrices over tokens, each divided by its width, per pair.

        (A_ij - B_ij)²,  A = x xᵀ / H_x,  B = y yᵀ / H_y,  x = from,  y = to

    Of two layers per side, `nst((a, b) -> (c, d))`, the Gram matrix is that of one with the other.
    """
    return (_gram(source, layout) / _width(source) - _gram(target, layout) / _width(target)).square()


@operation(takes=_TAKES, source=f"{_SOURCE}; divided as in TextBrewer's packaged release")
def nst_by_length(source: Any, target: Any, *, layout: Any) -> Any:
    """As `nst`, the Gram matrices divided by the number of real tokens of the example instead of by the width.

        (A_ij - B_ij)²,  A = x xᵀ / length,  B = y yᵀ / length,  x = from,  y = to

    TextBrewer's packaged release divides by the padded length where it has a mask, so that its loss changes with the
    padding, and by the width where it has none.
    """
    first = source[0] if isinstance(source, tuple) else source
    length_B11 = layout.lengths(first)[:, None, None]
    return ((_gram(source, layout) - _gram(target, layout)) / length_B11).square()


@operation(
    takes={"(hidden, hidden) -> (hidden, hidden)": "example"},
    same=("width",),
    source="Yim et al. 2017, A Gift from Knowledge Distillation, eq. 1 and 2: flow of the solution procedure",
    also=("gram",),
)
def fsp(source: Any, target: Any, *, layout: Any) -> Any:
    """Squared distance of the two sides' matrices between two layers, the mean over their entries.

        mean_ij (A_ij - B_ij)²,  A = aᵀ b / length,  B = cᵀ d / length

    `fsp((a, b) -> (c, d))`; the sum runs over the real tokens of an example. `(a, a)` is one layer with itself.
    """
    return (layout.cross(*source) - layout.cross(*target)).square().mean((-1, -2))


def _gram(side: Any, layout: Any) -> Any:
    return layout.gram(*side) if isinstance(side, tuple) else layout.gram(side)


def _width(side: Any) -> int:
    width: int = (side[0] if isinstance(side, tuple) else side).shape[-1]
    return width


@operation(
    takes=_BATCHES,
    source="Park et al. 2019, arXiv:1904.05068: the distance-wise loss of relational distillation",
    least={"batch": 3},
    gathers="first",
)
def rkd_distance(source: Any, target: Any, *, layout: Any = None) -> Any:
    """Huber's loss on the distances of all pairs of examples, each side's divided by their mean.

        mean_{i < j} huber(d_ij / mean(d) - e_ij / mean(e)),  d_ij = ‖from_i - from_j‖,  e_ij = ‖to_i - to_j‖

    Of hidden states the first real token stands for the example. A batch of less than three has a loss
    of zero: the only distance of two is its own mean.
    """
    from torch.nn import functional as F

    source_P, target_P = (_distances(one_per_example(x, layout)) for x in (source, target))
    return F.smooth_l1_loss(target_P, source_P, reduction="sum") / max(len(source_P), 1)


@operation(
    takes=_BATCHES,
    source="Park et al. 2019, arXiv:1904.05068: the angle-wise loss of relational distillation",
    least={"batch": 3},
    gathers="first",
)
def rkd_angle(source: Any, target: Any, *, layout: Any = None) -> Any:
    """Huber's loss on the cosines of the angles that all triples of examples form.

        mean_ijk huber(a_ijk - b_ijk),
        a_ijk = (x_j - x_i) · (x_k - x_i) / (‖x_j - x_i‖ ‖x_k - x_i‖),  x = from,
        b_ijk = (y_j - y_i) · (y_k - y_i) / (‖y_j - y_i‖ ‖y_k - y_i‖),  y = to

    Of hidden states the first real token stands for the example. A batch of less than three has a loss of zero.
    """
    import torch
    from torch.nn import functional as F

    source_BBB, target_BBB = (_angles(one_per_example(x, layout)) for x in (source, target))
    same = torch.eye(len(source_BBB), dtype=torch.bool, device=source_BBB.device)
    # the corner is the first axis; an example forms no angle with itself
    some_BBB = ~(same[:, :, None] | same[:, None, :] | same[None, :, :])
    loss_BBB = F.smooth_l1_loss(target_BBB, source_BBB, reduction="none")
    return torch.where(some_BBB, loss_BBB, 0).sum() / some_BBB.sum().clamp_min(1)


@operation(
    takes=_BATCHES,
    same=("width",),
    least={"width": 2, "batch": 2},
    gathers="first",
    source="van den Oord et al. 2018, arXiv:1807.03748, eq. 4; between two models as in Tian et al. 2020, "
    "arXiv:1910.10699, with the other examples of the batch in place of a memory",
    T=("number", "temperature: cosines are divided by it"),
)
def infonce(source: Any, target: Any, *, T: Any = 0.05, layout: Any = None) -> Any:
    """Contrastive: each example of the second side has to find itself among the examples of the first.

        -mean_i log(exp(c_ii / T) / Σ_j exp(c_ij / T)),  c_ij = to_i · from_j / (‖to_i‖ ‖from_j‖)

    Cross-entropy of a softmax over the batch of cosines / T. Of hidden states the first real token stands for the
    example.
    """
    import torch
    from torch.nn import functional as F

    source_BH, target_BH = (directions(one_per_example(x, layout)) for x in (source, target))
    cosines_BB = target_BH @ source_BH.transpose(0, 1)
    return F.cross_entropy(cosines_BB / T, torch.arange(len(cosines_BB), device=cosines_BB.device))


def _distances(x_BH: Any) -> Any:
    """Distances of the B (B - 1) / 2 pairs, divided by their mean."""
    import torch

    first, second = torch.triu_indices(len(x_BH), len(x_BH), 1, device=x_BH.device)
    # the norm has no gradient at zero, where two examples are the same: torch takes it to be zero
    distance_P = (x_BH[first] - x_BH[second]).norm(dim=-1)
    return distance_P / distance_P.mean().clamp_min(1e-12) if len(distance_P) else distance_P


def _angles(x_BH: Any) -> Any:
    """Cosine of the angle at each example (first axis) between two others."""
    sides_BBH = directions(x_BH[None, :, :] - x_BH[:, None, :])
    return sides_BBH @ sides_BBH.transpose(-1, -2)
