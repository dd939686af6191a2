"""Losses on how the examples of a batch lie to each other: one value per batch, which cannot be split."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import operation
from brewgraph.ops.tensors import directions, one_per_example

_TAKES = {"hidden -> hidden": "batch", "vector -> vector": "batch"}


@operation(
    takes=_TAKES,
    source="Park et al. 2019, arXiv:1904.05068: the distance-wise loss of relational distillation",
    least={"batch": 3},
)
def rkd_distance(source: Any, target: Any, *, layout: Any = None) -> Any:
    """Huber's loss on the distances of all pairs of examples, each side's divided by their mean.

    Of hidden states the first real token stands for the example. A batch of less than three has a loss
    of zero: the only distance of two is its own mean.
    """
    from torch.nn import functional as F

    source_P, target_P = (_distances(one_per_example(x, layout)) for x in (source, target))
    return F.smooth_l1_loss(target_P, source_P, reduction="sum") / max(len(source_P), 1)


@operation(
    takes=_TAKES,
    source="Park et al. 2019, arXiv:1904.05068: the angle-wise loss of relational distillation",
    least={"batch": 3},
)
def rkd_angle(source: Any, target: Any, *, layout: Any = None) -> Any:
    """Huber's loss on the cosines of the angles that all triples of examples form.

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
    takes=_TAKES,
    same=("width",),
    least={"width": 2, "batch": 2},
    source="van den Oord et al. 2018, arXiv:1807.03748, eq. 4; between two models as in Tian et al. 2020, "
    "arXiv:1910.10699, with the other examples of the batch in place of a memory",
    T=("number", "temperature: cosines are divided by it"),
)
def infonce(source: Any, target: Any, *, T: Any = 0.05, layout: Any = None) -> Any:
    """Contrastive: each example of the second side has to find itself among the examples of the first.

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
