"""The sources of a task's batches: rows of a data set, or batches of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import datasets
import torch

from brewgraph.data.batching.order import BatchOrder, derive_seed, fewest_tokens, loader, mark_idle
from brewgraph.data.encoding.encode import row_lengths
from brewgraph.diagnostics import RunError
from brewgraph.recipe.length import Length
from brewgraph.runtime.instructions import first_tensor


class Feed(Protocol):
    """The batches of a data set, epoch after epoch; the same on every call."""

    @property
    def rows(self) -> int:
        """Examples in an epoch."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, counted from 0, starting with index `start`."""


@dataclass(frozen=True)
class RowFeed:
    """Rows of an encoded split, shuffled in every epoch and batched by `collator`.

    `batch` counts rows, or tokens, over all ranks, of which this feed gives one rank's share. A collator with
    `set_epoch` gets the epoch before each batch, because another feed may have used it in between.
    """

    dataset: datasets.Dataset
    collator: Any
    batch: int | Length
    seed: int = 0
    rank: int = 0
    world: int = 1
    group_by_length: bool = False

    @property
    def rows(self) -> int:
        return len(self.dataset)

    def __len__(self) -> int:
        return len(self._order())

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        order = self._order()
        order.set_epoch(epoch)
        order.start_at(start)
        for number, batch in enumerate(loader(self.dataset, order, at_epoch(self.collator, epoch)), start):
            yield mark_idle(batch) if order.idle(number) else batch

    def _order(self) -> BatchOrder:
        return BatchOrder(
            self.rows,
            self.batch,
            seed=self.seed,
            rank=self.rank,
            world=self.world,
            lengths=self._lengths,
            by_length=self.group_by_length,
        )

    @cached_property
    def _lengths(self) -> list[int] | None:
        return row_lengths(self.dataset) if self.group_by_length or not isinstance(self.batch, int) else None


@dataclass(frozen=True)
class Part:
    """One rank's rows of batches of tensors: a share of each, the first ranks one row more if it does not divide.

    A rank without a row of a batch gets its first row, marked as idle.
    """

    whole: Feed
    rank: int
    world: int

    @property
    def rows(self) -> int:
        return self.whole.rows

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        for batch in self.whole.batches(epoch, start):
            idle = len(first_tensor(batch)) <= self.rank
            yield mark_idle(self._own(batch, idle)) if idle else self._own(batch, idle)

    def _own(self, content: Any, idle: bool) -> Any:
        if isinstance(content, Mapping):
            return {key: self._own(value, idle) for key, value in content.items()}
        if not isinstance(content, torch.Tensor):
            return content
        return content[:1] if idle else torch.tensor_split(content, self.world)[self.rank]


def in_order(rows: datasets.Dataset, collator: Any, batch: int | Length, *, by_length: bool = False) -> Any:
    """Batches of rows in order, or sorted by length, which needs little padding; random masks are those of epoch 0.
    A batch of tokens is made larger where a row needs it.
    """
    lengths = row_lengths(rows) if by_length or isinstance(batch, Length) else None
    if isinstance(batch, Length):
        batch = replace(batch, value=max(batch.value, fewest_tokens(max(lengths or [1]))))
    order = BatchOrder(len(rows), batch, shuffle=False, lengths=lengths or None, by_length=by_length)
    return loader(rows, order, at_epoch(collator, 0))


def at_epoch(collator: Any, epoch: int) -> Any:
    """A collator that gets the epoch, if it has `set_epoch`."""
    if not hasattr(collator, "set_epoch"):
        return collator

    def collate(rows: list[Any]) -> Any:
        collator.set_epoch(epoch)
        return collator(rows)

    return collate


def place(feed: Feed, seed: int, rank: int, world: int, *, group_by_length: bool = False) -> Feed:
    """A rank's share of a feed, shuffled by `seed`."""
    if isinstance(feed, RowFeed):
        return replace(feed, seed=seed, rank=rank, world=world, group_by_length=group_by_length)
    return feed if world == 1 else Part(feed, rank, world)


def order_seed(seed: int, stage: int, task: int, data: int) -> int:
    """The seed for the order of a data set's rows, different for each stage, task and data set, which count from 0."""
    return derive_seed(seed, "order", *((stage, task, data) if stage or task or data else ()))


def steps_of_epoch(feeds: Mapping[str, Feed], accumulate: int) -> int:
    """Optimizer steps in an epoch of the first data set; the last one may have fewer micro-batches.

    Raises `RunError` if a data set has no batch.
    """
    for feed in feeds.values():
        if not len(feed):
            raise RunError("there is no batch to train on: the data has no rows")
    return math.ceil(len(next(iter(feeds.values()))) / accumulate)


def micro_batches(feeds: Mapping[str, Feed], accumulate: int, done: int) -> Iterator[list[Any]]:
    """The micro-batches of each optimizer step, without end, after `done` steps.

    For one data set they are its batches, for several dictionaries by their names. The first data set defines epochs;
    the others go through epochs of their own.
    """
    (_, first), *others = feeds.items()
    epoch, in_epoch = divmod(done, steps_of_epoch(feeds, accumulate))
    start = in_epoch * accumulate
    beside = {name: _without_end(feed, epoch * len(first) + start) for name, feed in others}
    name = next(iter(feeds))
    while True:
        parts: list[Any] = []
        for batch in first.batches(epoch, start):
            parts.append({name: batch, **{key: next(more) for key, more in beside.items()}} if beside else batch)
            if len(parts) == accumulate:
                yield parts
                parts = []
        if parts:
            yield parts
        epoch, start = epoch + 1, 0


def _without_end(feed: Feed, done: int) -> Iterator[Any]:
    epoch, start = divmod(done, len(feed))
    while True:
        yield from feed.batches(epoch, start)
        epoch, start = epoch + 1, 0
