"""The rows of each batch: a pure function of seed, epoch and position, the same on any number of ranks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import datasets
import numpy
import torch
from torch.utils.data import DataLoader, Sampler

from brewgraph.diagnostics import RunError
from brewgraph.recipe.length import Length, fewest_tokens, too_few_tokens


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

    A `batch` that is a length, `4096 tokens`, is the most tokens of a batch, padding not counted; `lengths`, one per
    row, say how many a row has. Every epoch has as many batches, of about as many tokens each.

    With `by_length` shuffled batches hold rows of like length, so that little of them is padding: the rows are
    shuffled, each stretch of 50 batches is sorted by length and cut, and the batches are shuffled again.

    With `shuffle` the order is drawn anew in every epoch; without, it is that of the rows, as for evaluation, and with
    `by_length` from the longest row to the shortest. Nothing is taken from a global generator. Raises `RunError` where
    a batch cannot be shared by that many ranks, or is shorter than `fewest_tokens`.
    """

    def __init__(
        self,
        rows: int,
        batch: int | Length,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
        lengths: Sequence[int] | numpy.ndarray | None = None,
        by_length: bool = False,
    ):
        if rows < 0 or not 0 <= rank < world or (isinstance(batch, int) and batch < 1):
            raise ValueError(f"no order of batches with {rows=}, {batch=}, {rank=}, {world=}")
        if isinstance(batch, int) and batch < world:
            raise RunError(f"a batch of {batch} cannot be shared by {world} processes: use batch={world} or more")
        self.rows, self.seed, self.shuffle, self.drop_last = rows, seed, shuffle, drop_last
        self.rank, self.world, self.by_length = rank, world, by_length
        self.lengths = numpy.zeros(rows, int) if lengths is None else numpy.asarray(lengths)
        if isinstance(batch, int):
            self.batch, self.tokens = batch, None
            whole, tail = divmod(rows, batch)
            self.count = whole + (tail > 0 and not drop_last)
        else:
            self.tokens, longest = int(batch.value), int(self.lengths.max(initial=1))
            if self.tokens < fewest_tokens(longest):
                raise RunError(
                    f"{too_few_tokens(self.tokens, str(longest))}, it needs at least {fewest_tokens(longest)}"
                )
            # cut between rows, a batch of this share of all tokens has at most `tokens`
            self.count = math.ceil(int(self.lengths.sum()) / (self.tokens - longest + 1))
            self.batch = math.ceil(rows / max(1, self.count))
        self.epoch = 0
        self.start = 0
        self._cut: tuple[int, list[numpy.ndarray]] | None = None

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
        return self.count

    def idle(self, number: int) -> bool:
        """Whether none of the rows of an epoch's batch of this number belongs to this rank."""
        return len(self._batches()[number]) <= self.rank

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        for number in range(self.start, len(self)):
            chosen = batches[number]
            mine = chosen[:1] if self.idle(number) else numpy.array_split(chosen, self.world)[self.rank]
            yield mine.tolist()

    def _batches(self) -> list[numpy.ndarray]:
        """The rows of each batch of the epoch."""
        if self._cut is None or self._cut[0] != self.epoch:
            self._cut = self.epoch, self._cut_rows()
        return self._cut[1]

    def _cut_rows(self) -> list[numpy.ndarray]:
        if not self.shuffle:
            order = numpy.argsort(-self.lengths, kind="stable") if self.by_length else numpy.arange(self.rows)
            return self._cut_order(order)
        generator = numpy.random.default_rng(derive_seed(self.seed, self.epoch))
        order = generator.permutation(self.rows)
        if not self.by_length:
            return self._cut_order(order)
        stretch = _STRETCH * self.batch
        parts = (order[i : i + stretch] for i in range(0, self.rows, stretch))
        sort = [part[numpy.argsort(-self.lengths[part], kind="stable")] for part in parts]
        batches = self._cut_order(numpy.concatenate([order[:0], *sort]))
        # the last batch may be smaller and stays at the end
        whole = len(batches) if self.tokens is not None else self.rows // self.batch
        return [batches[i] for i in generator.permutation(whole)] + batches[whole:]

    def _cut_order(self, order: numpy.ndarray) -> list[numpy.ndarray]:
        if self.tokens is None:
            return [order[i * self.batch : (i + 1) * self.batch] for i in range(self.count)]
        lengths = self.lengths[order]
        begins = numpy.cumsum(lengths) - lengths
        shares = numpy.arange(1, self.count) * int(lengths.sum()) // max(1, self.count)
        cuts = numpy.searchsorted(begins, shares)
        # a share in which no row begins takes one from its neighbour
        number = numpy.arange(1, self.count)
        cuts = numpy.maximum.accumulate(cuts - number) + number
        cuts = numpy.minimum(numpy.maximum(cuts, number), self.rows - self.count + number)
        return numpy.split(order, cuts)


def loader(
    dataset: datasets.Dataset, order: Sampler[list[int]], collator: Callable[[list[Any]], Any]
) -> DataLoader[Any]:
    """Batches of `dataset` in that `order`, made by `collator` in this process; pinned memory where there is a GPU."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collator,
        num_workers=0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # each iteration draws a number from it, by default from torch's global one
    )
