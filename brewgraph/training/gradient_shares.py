"""How much each term of a loss moves the student: the norm of its gradient, and where that points.

The gradient of a loss that is a weighted sum is the sum of those of its weighted terms. The forward of a step runs once
more for it, and a backward pass for each term and one for the loss; neither `.grad` nor a running mean is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from brewgraph.recipe.label_types import LOSS
from brewgraph.runtime.distiller import Distiller


@dataclass(frozen=True)
class GradientShares:
    """The gradients of the loss and of its weighted terms on the trained parameters of the student, by name.

    `norms` are Euclidean, `loss` among them; `shares` are those of the terms, divided by their sum; `cosines` are
    between the gradient of a term and that of the loss, NaN if one of the two is zero.
    """

    norms: Mapping[str, float]
    shares: Mapping[str, float]
    cosines: Mapping[str, float]

    @property
    def content(self) -> dict[str, Mapping[str, float]]:
        """Their part of a line of metrics.jsonl."""
        return {"gradient_norms": self.norms, "gradient_shares": self.shares, "gradient_cosines": self.cosines}


def measure_gradients(
    distiller: Distiller,
    task: str,
    batches: Sequence[Any],
    counts: Tensor | None,
    share: float,
    accelerator: Accelerator,
    *,
    gather: bool,
) -> GradientShares:
    """The gradients of one step on its micro-batches, over all ranks, which call it together.

    `counts` divide the sums of losses, `share` is what each micro-batch counts, `gather` is that of the forward. One
    micro-batch takes the memory of two more gradients; several take one for each term.
    """
    student = distiller.student
    parameters = [p for p in student.parameters() if p.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in student.buffers()]
    scaler = accelerator.scaler
    scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
    weights = {LOSS: 1.0, **distiller.weights(task)}
    sums: dict[str, list[Tensor]] = {}
    products: dict[str, Tensor] = {}
    for number, batch in enumerate(batches):
        with accelerator.autocast():
            output = distiller(batch, counts, task=task, gather=gather)
        # the loss first: the gradients of terms are compared with its own
        values = {LOSS: output.loss, **output.terms}
        for name in list(values):
            gradient = _gradient(values.pop(name), parameters, weights[name] * share, scale, last=not values)
            sums[name] = [one + more for one, more in zip(sums[name], gradient, strict=True)] if number else gradient
            if number == len(batches) - 1:
                whole = [_over_ranks(x, accelerator) for x in sums.pop(name)]
                sums.setdefault(LOSS, whole)
                products[name] = _products(whole, sums[LOSS])
    with torch.no_grad():
        for buffer, before in buffers:  # running means, as of batch norms
            buffer.copy_(before)
    squares, dots = torch.stack(list(products.values())).cpu().unbind(1)
    norms = dict(zip(products, squares.sqrt().tolist(), strict=True))
    total = sum(norm for name, norm in norms.items() if name != LOSS)
    terms = [name for name in norms if name != LOSS]
    angles = (dots / (squares.sqrt() * squares[0].sqrt())).clamp(-1, 1).tolist()
    cosines = dict(zip(norms, angles, strict=True))
    return GradientShares(
        norms,
        {name: norms[name] / total if total else 0.0 for name in terms},
        {name: cosines[name] for name in terms},
    )


def _gradient(value: Tensor, parameters: Sequence[Tensor], weight: float, scale: float, *, last: bool) -> list[Tensor]:
    """The gradient of a value times its weight; zero where it does not reach. `scale` keeps fp16 from underflow."""
    if not value.requires_grad or not parameters:
        return [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    made = torch.autograd.grad(
        value * scale, parameters, retain_graph=not last, allow_unused=True, materialize_grads=True
    )
    return [x.float() * (weight / scale) for x in made]


def _over_ranks(x: Tensor, accelerator: Accelerator) -> Tensor:
    """The sum over ranks, each of which holds its share."""
    if accelerator.num_processes == 1:
        return x
    reduced: Tensor = accelerator.reduce(x, "sum")
    return reduced


def _products(gradient: Sequence[Tensor], of_loss: Sequence[Tensor]) -> Tensor:
    """The products of a gradient with itself, and with that of the loss: (2), in double precision."""
    pairs = [
        torch.stack([one.square().sum(dtype=torch.float64), (one * other).sum(dtype=torch.float64)])
        for one, other in zip(gradient, of_loss, strict=True)
    ]
    return torch.stack(pairs).sum(0) if pairs else torch.zeros(2, dtype=torch.float64)
