"""Losses on logits over a vocabulary, a chunk of tokens at a time, with the last linear layer inside.

Logits of a whole batch, (B L, V), take gigabytes, and losses hold several tensors of that size. Here a chunk of tokens
goes through the last linear layer, the losses, and back to the gradients of hidden states and weights, before the next
one begins. Every loss runs by its own maths; the gradient G of the logits gives dX = G W, dW = Gᵀ X, db = Σ G.

Shapes: N tokens that count, H width, V classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from brewgraph.runtime.instructions import Instruction, Step
from brewgraph.runtime.kernels import fast_kernels
from brewgraph.runtime.layouts import Padded, Slots, SplitLogits

CHUNK = 1 << 22
"""The most logits of a model that are held at once."""

Head: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
"""What logits are computed from: hidden states (N, H), weights (V, H), bias (V)."""


def chunked(
    instructions: Sequence[Instruction],
    values: Collection[int],
    masks: Collection[int],
    scalars: Collection[int],
    losses: Sequence[int],
) -> Instruction:
    """The call of a group of losses, and of what lies between them and logits: `instructions` in their order.

    `values` are the slots of what they read along the tokens, (B, L, …), split logits among them; `masks` those of the
    tokens that count, `scalars` those of numbers; `losses` the slots that they fill. Where something of a model that
    learns is there as a whole, they run as they are.
    """

    def run(step: Step) -> None:
        raw = {slot: step.slots.raw(slot) for slot in values}
        split = {slot: x for slot, x in raw.items() if isinstance(x, SplitLogits)}
        if not split or any(isinstance(x, Tensor) and x.requires_grad for x in raw.values()):
            for instruction in instructions:
                instruction(step)
            return
        slots = Slots([None] * len(step.slots))
        for slot in scalars:
            slots[slot] = step.slots[slot]
        whole = {slot: step.slots[slot].flatten(0, 1) for slot in raw if slot not in split}
        chosen = {slot: step.slots[slot] for slot in masks}
        job = _Job.of(replace(step, slots=slots), instructions, split, whole, chosen, losses)
        heads = [job.head(logits) for logits in split.values()]
        for slot, loss in zip(losses, _Chunked.apply(job, torch.is_grad_enabled(), *chain(*heads)), strict=True):
            step.slots[slot] = loss

    return run


@dataclass(frozen=True)
class _Job:
    """The losses of one batch. `step` holds what is the same for all tokens, and no value of a model; `places_N` are
    the tokens that count for any loss, None for all. `low` is the number format of products, None for that of weights.
    """

    step: Step
    instructions: Sequence[Instruction]
    split: Mapping[int, SplitLogits]
    whole: Mapping[int, Tensor]
    masks: Mapping[int, Padded]
    losses: Sequence[int]
    places_N: Tensor | None
    low: torch.dtype | None

    @classmethod
    def of(
        cls,
        step: Step,
        instructions: Sequence[Instruction],
        split: Mapping[int, SplitLogits],
        whole: Mapping[int, Tensor],
        masks: Mapping[int, Padded],
        losses: Sequence[int],
    ) -> _Job:
        device = next(iter(split.values())).hidden_BLH.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        # without the layers, whose weights autograd holds, and hidden states, of which only some tokens are needed
        bare = {slot: replace(x, hidden_BLH=x.hidden_BLH.new_empty(0)) for slot, x in split.items()}
        return cls(step, instructions, bare, whole, masks, losses, _places(masks.values()), low)

    def head(self, logits: SplitLogits) -> Head:
        """The hidden states of the tokens that count, with the layer that they go through."""
        rows = logits.hidden_BLH.flatten(0, 1)
        rows = rows if self.places_N is None else rows.index_select(0, self.places_N)
        return rows, logits.layer.weight, logits.layer.bias

    def run(
        self, heads: Sequence[Head], learning: Sequence[tuple[bool, ...]], weights: Sequence[Tensor | float] | None
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """The losses, and with `weights` the gradients of their weighted sum: for each head those of hidden states,
        weights and bias, None for what is not `learning`.
        """
        first = heads[0][0]
        totals = [first.new_zeros((), dtype=torch.promote_types(first.dtype, torch.float32))] * len(self.losses)
        made = [_zeros(head, which) for head, which in zip(heads, learning, strict=True)]
        cast = [tuple(self._cast(x) for x in head) for head in heads]
        size = max(1, CHUNK // max(len(weight) for _, weight, _ in heads))
        for begin in range(0, len(first), size):
            part = slice(begin, begin + size)
            step, leaves = self._chunk(part), list[Tensor | None]()
            for (slot, logits), (rows, weight, bias), which in zip(self.split.items(), cast, learning, strict=True):
                product = F.linear(rows[part], weight, bias)
                learns = weights is not None and any(which)
                leaves.append(product.requires_grad_() if learns else None)
                with torch.set_grad_enabled(learns):
                    step.slots[slot] = logits.of(product)[None]
            with torch.set_grad_enabled(weights is not None):
                for instruction in self.instructions:
                    instruction(step)
                found = [step.slots[slot] for slot in self.losses]
                totals = [total + loss.detach() for total, loss in zip(totals, found, strict=True)]
                if weights is None:
                    continue
                sum_ = sum(loss * weight for loss, weight in zip(found, weights, strict=True) if loss.requires_grad)
                inputs = [leaf for leaf in leaves if leaf is not None]
                flows = isinstance(sum_, Tensor)
                grads = iter(torch.autograd.grad(sum_, inputs, allow_unused=True) if flows else [None] * len(inputs))
            for leaf, head, sums in zip(leaves, cast, made, strict=True):
                g_NV = next(grads) if leaf is not None else None
                if g_NV is not None:
                    _add_gradients(g_NV, head, part, sums)
        return totals, [x for sums in made for x in sums]

    def _chunk(self, part: slice) -> Step:
        """The step of these tokens alone, as one example."""
        slots = Slots(self.step.slots)
        places = part if self.places_N is None else self.places_N[part]
        for slot, x in self.whole.items():
            slots[slot] = x[places][None]
        for slot, mask in self.masks.items():
            slots[slot] = Padded(None if mask.mask_BL is None else mask.mask_BL.flatten()[places][None], mask.which)
        return replace(self.step, slots=slots)

    def _cast(self, x: Tensor | None) -> Any:
        """What a product reads, in the number format of autocast."""
        return x if x is None or self.low is None or x.dtype == torch.float64 else x.to(self.low)


def _places(masks: Collection[Padded]) -> Tensor | None:
    """The tokens that count for any loss, by their places in a batch; None for all."""
    if any(mask.mask_BL is None or isinstance(mask.mask_BL, FakeTensor) for mask in masks) or not masks:
        return None
    counts_M = torch.stack([mask.mask_BL.flatten() for mask in masks if mask.mask_BL is not None]).any(0)
    places_N = counts_M.nonzero().squeeze(1)
    return None if len(places_N) == len(counts_M) else places_N


def _zeros(head: Head, learning: Sequence[bool]) -> list[Tensor | None]:
    """Sums of gradients before the first chunk, in fp32 at least."""
    return [
        torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) if learns and x is not None else None
        for x, learns in zip(head, learning, strict=True)
    ]


def _add_gradients(g_NV: Tensor, head: tuple[Any, ...], part: slice, sums: Sequence[Tensor | None]) -> None:
    """Add what the gradient of a chunk's logits gives."""
    rows, weight, _ = head
    to_rows, to_weight, to_bias = sums
    if to_rows is not None:
        to_rows[part] = F.linear(g_NV, weight.t())
    if to_weight is not None and to_weight.dtype == g_NV.dtype:
        to_weight.addmm_(g_NV.t(), rows[part])
    elif to_weight is not None:
        to_weight.add_(F.linear(g_NV.t(), rows[part].t()))
    if to_bias is not None:
        to_bias.add_(g_NV.sum(0))


class _Chunked(torch.autograd.Function):
    """The losses of a job. One loss is differentiated with its value: its gradient only waits for a factor. Of several
    the factors are known in the backward pass, which computes the logits again.
    """

    @staticmethod
    def forward(ctx: Any, job: _Job, grad: bool, *tensors: Any) -> tuple[Tensor, ...]:
        heads, needed = _by_three(tensors), _by_three(ctx.needs_input_grad[2:])
        learning = [tuple(grad and learns for learns in which) for which in needed]
        at_once = grad and len(job.losses) == 1 and job.low != torch.float16 and any(map(any, learning))
        losses, gradients = job.run(heads, learning, [1.0] if at_once else None)
        ctx.save_for_backward(*tensors)
        ctx.job, ctx.learning, ctx.gradients = job, learning, gradients if at_once else None
        return tuple(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        tensors, gradients = ctx.saved_tensors, ctx.gradients
        if gradients is None:  # several losses, or the second pass through a graph that was kept
            with fast_kernels():
                _, gradients = ctx.job.run(_by_three(tensors), ctx.learning, weights)
        else:
            ctx.gradients = None
            gradients = [None if x is None else x.mul_(weights[0]) for x in gradients]
        return None, None, *(None if g is None else g.to(x.dtype) for g, x in zip(gradients, tensors, strict=True))


def _by_three(values: Sequence[Any]) -> list[Any]:
    """The parts of heads, one after the other, by head."""
    return list(zip(values[::3], values[1::3], values[2::3], strict=True))
