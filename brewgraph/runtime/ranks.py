"""The processes that take a step together, and how a loss that compares the examples of a batch gets those of all.

A batch is the shares of all ranks, one behind the other. A share that was borrowed (`is_idle`) is no part of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_ALIGNED = 16
"""Each tensor begins at a multiple of so many bytes of what a rank sends."""


@lru_cache(maxsize=1)
def cpu_group(world: distributed.ProcessGroup) -> distributed.ProcessGroup:
    """A group of all ranks that exchanges tensors of the CPU."""
    return world if distributed.get_backend(world) == "gloo" else distributed.new_group(backend="gloo")


def several_ranks() -> bool:
    """Whether this process belongs to a group of several."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def is_first_rank() -> bool:
    """Whether this process is the first of its group."""
    return distributed.get_rank() == 0


class Ranks:
    """All ranks of the default process group, in one forward that each runs on its share of a batch.

    Every rank makes the same calls in the same order. `idle` says for each place of the counts whether this rank's rows
    were borrowed; `busy` counts for each place the ranks that have rows of their own, of which the first is one.
    """

    def __init__(self, idle: Sequence[bool]):
        self.world, self.rank = distributed.get_world_size(), distributed.get_rank()
        self.idle = idle
        self.busy = self._on_cpu(torch.tensor([not x for x in idle], dtype=torch.int64)).sum(0).tolist()
        self.gathered: dict[Hashable, Tensor] = {}
        """What `Share.gather` has brought together in this forward."""

    def at(self, place: int) -> Share:
        """This rank's share of the batch whose count is at a place."""
        return Share(self, self.idle[place], self.busy[place])

    def bring(self, values: Sequence[tuple[Tensor, float]], share: Share) -> Iterator[Tensor]:
        """Each value of all ranks, and nothing that an idle one holds. See `Share.gather`."""
        sizes = [torch.tensor([0 if share.idle else len(x), *x.shape[1:]]) for x, _ in values]
        of_each = self._on_cpu(torch.cat(sizes)).split([len(size) for size in sizes], 1)
        sent = [
            _lengthened(x.detach()[:0] if share.idle else x.detach(), size.amax(0).tolist(), fill)
            for (x, fill), size in zip(values, of_each, strict=True)
        ]
        for (x, _), every, size in zip(values, self._exchange(sent), of_each, strict=True):
            rows: list[int] = size[:, 0].tolist()
            whole = torch.cat([part[:n] for part, n in zip(every, rows, strict=True)])
            if x.requires_grad and torch.is_grad_enabled():
                whole = _OwnRows.apply(x, whole, sum(rows[: self.rank]), rows[self.rank], share.busy)
            yield whole

    def _on_cpu(self, numbers: Tensor) -> Tensor:
        """Some numbers of every rank, (N) to (ranks, N)."""
        every = numbers.new_empty(self.world, len(numbers))
        distributed.all_gather(list(every), numbers, group=cpu_group(distributed.group.WORLD))
        return every

    def _exchange(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of the same shapes on all ranks, each with an axis of ranks in front."""
        flat = [x.reshape(-1).view(torch.uint8) for x in values]
        mine = torch.cat([F.pad(x, (0, -len(x) % _ALIGNED)) for x in flat])
        every = mine.new_empty(self.world * len(mine))
        distributed.all_gather_into_tensor(every, mine)
        parts = every.view(self.world, -1).split([len(x) + -len(x) % _ALIGNED for x in flat], 1)
        return [
            part[:, : len(own)].contiguous().view(x.dtype).view(self.world, *x.shape)
            for part, own, x in zip(parts, flat, values, strict=True)
        ]


@dataclass(frozen=True)
class Share:
    """The rows of one rank in a batch that `busy` ranks have rows of; an `idle` rank has none."""

    ranks: Ranks
    idle: bool
    busy: int

    def gather(self, values: Mapping[Hashable, tuple[Tensor, float]]) -> dict[Hashable, Tensor]:
        """Each value (b, …) of all ranks behind each other, (B, …), by its name. A number comes with each, to lengthen
        its other axes where a rank has longer ones.

        What was gathered under a name before is not sent again in this forward. The rest travels in one collective, as
        bytes, after a small one on the CPU for the sizes, so that no accelerator is waited for.

        Every rank computes the same loss from the whole, so the gradient that it has for its own rows is the gradient
        of that loss, and none is sent. It is multiplied by the number of busy ranks: for a loss that is divided by
        it, or averaged over them.
        """
        known = self.ranks.gathered
        new = {name: x for name, x in values.items() if name not in known}
        if new:
            known |= zip(new, self.ranks.bring(list(new.values()), self), strict=True)
        return {name: known[name] for name in values}

    def sum(self, x: Tensor) -> Tensor:
        """The sum of a tensor over the busy ranks, added in their order; gradients as for `gather`."""
        return next(self.ranks.bring([(x[None], 0.0)], self)).sum(0)


def _lengthened(x: Tensor, shape: Sequence[int], fill: float) -> Tensor:
    """A tensor with longer axes, `fill` in what is new."""
    if tuple(x.shape) == tuple(shape):
        return x
    longer = x.new_full(shape, fill)
    longer[tuple(slice(size) for size in x.shape)] = x
    return longer


class _OwnRows(torch.autograd.Function):
    """The rows of all ranks, `whole`, as a function of this rank's `x`: `count` rows from `begin` on.

    The gradient is that of these rows, multiplied by `busy`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, whole: Tensor, begin: int, count: int, busy: int) -> Tensor:
        ctx.shape, ctx.rows, ctx.busy = x.shape, slice(begin, begin + count), busy
        return whole.view_as(whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        own = gradients[0][(ctx.rows, *map(slice, ctx.shape[1:]))]
        return own * ctx.busy if len(own) else own.new_zeros(ctx.shape), None, None, None, None
