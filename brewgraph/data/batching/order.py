"""The rows of each batch: a pure function of seed, epoch and position, the same on any number of ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import datasets
import numpy
import torch
from torch.utils.data import DataLoader, Sampler

from brewgraph.diagnostics import RunError


def derive_seed(*parts: str | float) -> int:
    """A seed from 0 to 2**63 - 1 that depends on all parts, in their order: `1` and `"1"` differ, processes do not."""
    forms = [repr(int(part) if isinstance(part, Integral) else part) for part in parts]  # numpy's integers too
    text = "".join(f"{len(form)}:{form}" for form in forms)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


_IDLE = "brewgraph/idle"


def mark_idle(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Mark a batch without a row for this rank: it runs, so that ranks stay together, with weight zero."""
    return {**batch, _IDLE: True}


def is_idle(batch: Mapping[str, Any]) -> bool:
    """Whether `mark_idle` marked a batch."""
    return _IDLE in batch


_STRETCH = 50
"""Batches whose rows are sorted by length together."""


class BatchOrder(Sampler[list[int]]):
    """A batch sampler: lists of row numbers, one for each global batch of an epoch, holding this rank's share of it.

    `batch` counts rows over all ranks. Batch k of an epoch consists of the same rows whatever `world` is; each rank
    gets a contiguous share, and where it does not divide evenly the first ranks get one row more. The last batch may be
    smaller, and is left out with `drop_last`. Where it has fewer rows than there are ranks, a rank without a row gets
    the batch's first one, and `idle` says so: every rank yields equally many batches and none of them is empty.

    With `lengths`, one per row, shuffled batches hold rows of like length, so that little of them is padding: the rows
    are shuffled, each stretch of 50 batches is sorted by length and cut, and the batches are shuffled again.

    With `shuffle` the order is drawn anew in every epoch; without, it is that of the rows, as for evaluation, and with
    `lengths` from the longest row to the shortest. Nothing is taken from a global generator. Raises `RunError` where a
    batch cannot be shared by that many ranks.
    """

    def __init__(
        self,
        rows: int,
        batch: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
        lengths: Sequence[int] | None = None,
    ):
        if rows < 0 or batch < 1 or not 0 <= rank < world:
            raise ValueError(f"no order of batches with {rows=}, {batch=}, {rank=}, {world=}")
        if batch < world:
            raise RunError(f"a batch of {batch} cannot be shared by {world} processes: use batch={world} or more")
        self.rows, self.batch, self.seed = rows, batch, seed
        self.shuffle, self.drop_last, self.rank, self.world = shuffle, drop_last, rank, world
        self.lengths = None if lengths is None else numpy.asarray(lengths)
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, counted from 0."""
        self.epoch, self.start = epoch, 0

    def start_at(self, batch_index: int) -> None:
        """Leave out the epoch's first `batch_index` batches, to go on where a run stopped, until `set_epoch`."""
        if batch_index < 0:
            raise ValueError(f"an epoch has no batch {batch_index}")
        self.start = batch_index

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever it starts."""
        whole, tail = divmod(self.rows, self.batch)
        return whole + (tail > 0 and not self.drop_last)

    def idle(self, number: int) -> bool:
        """Whether none of the rows of an epoch's batch of this number belongs to this rank."""
        return min(self.batch, self.rows - number * self.batch) <= self.rank

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for number in range(self.start, len(self)):
            chosen = order[number * self.batch : (number + 1) * self.batch]
            mine = chosen[:1] if self.idle(number) else numpy.array_split(chosen, self.world)[self.rank]
            yield mine.tolist()

    def _order(self) -> numpy.ndarray:
        if not self.shuffle:
            return numpy.arange(self.rows) if self.lengths is None else numpy.argsort(-self.lengths, kind="stable")
        generator = numpy.random.default_rng(derive_seed(self.seed, self.epoch))
        order = generator.permutation(self.rows)
        if self.lengths is None:
            return order
        stretch = _STRETCH * self.batch
        parts = (order[i : i + stretch] for i in range(0, self.rows, stretch))
        order = numpy.concatenate([part[numpy.argsort(-self.lengths[part], kind="stable")] for part in parts])
        # the last batch may be smaller and stays at the end
        whole = self.rows // self.batch
        batches = order[: whole * self.batch].reshape(whole, self.batch)
        return numpy.concatenate([generator.permutation(batches).ravel(), order[whole * self.batch :]])


def loader(dataset: datasets.Dataset, order: BatchOrder, collator: Callable[[list[Any]], Any]) -> DataLoader[Any]:
    """Batches of `dataset` in that `order`, made by `collator` in this process; pinned memory where there is a GPU."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collator,
        num_workers=0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # each iteration draws a number from it, by default from torch's global one
    )
