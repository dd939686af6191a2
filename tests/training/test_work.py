"""Batches of one data set and of several, from rows and ready-made, for one rank and for two."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import torch

from brewgraph.data.batching.order import is_idle
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.training.work import RowFeed, TensorFeed, micro_batches, order_seed, place
from tests.training.toy import collate, table

BATCHES = [{"index": torch.arange(3 * i, 3 * i + 3), "own": {"x": torch.ones(3, 2) * i}} for i in range(5)]


class Numbered(ReadyBatches):
    """Batches that hold the number of their epoch."""

    def epoch(self, epoch: int, *, seed: int = 0, start: int = 0) -> Iterator[dict[str, Any]]:
        return ({**batch, "epoch": torch.full((3,), epoch)} for batch in super().epoch(epoch, seed=seed, start=start))


def ready() -> TensorFeed:
    """Five batches of three rows made beforehand, in their order in every epoch."""
    return TensorFeed(Numbered(tuple(BATCHES), (), False, frozenset({"own"}), ""), seed=3)


def indices(feed: Any, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch["index"].tolist() for batch in feed.batches(epoch, start)]


def test_an_epoch_holds_every_row_once_and_can_begin_anywhere() -> None:
    """Another epoch has another order; a later start leaves the first batches out."""
    feed = place(RowFeed(table(10), collate, 4), seed=7, rank=0, world=1)
    assert (len(feed), feed.rows) == (3, 10)
    whole = indices(feed, 0)
    assert sorted(chain(*whole)) == list(range(10))
    assert indices(feed, 0, start=1) == whole[1:]
    assert indices(feed, 1) != whole


def test_no_stage_task_or_data_set_replays_the_order_of_another() -> None:
    """Nor does an epoch; the first stage's first data set has the order of a spec without stages."""
    places = [(stage, task, data) for stage in range(3) for task in range(2) for data in range(2)]
    rows = RowFeed(table(40), collate, 40)
    orders = [
        tuple(indices(place(rows, order_seed(0, *where), 0, 1), epoch)[0]) for where in places for epoch in range(3)
    ]
    assert len(set(orders)) == len(orders) == 36


def test_ranks_share_batches() -> None:
    """Both kinds of feed: the ranks' pieces, put together, are the batch."""
    for feed in (RowFeed(table(10), collate, 4), ready()):
        whole = indices(place(feed, 3, 0, 1), 0)
        parts = [place(feed, 3, rank, 2) for rank in range(2)]
        assert [len(part) for part in parts] == [len(whole)] * 2
        assert [a + b for a, b in zip(*(indices(part, 0) for part in parts), strict=True)] == whole
    second = next(iter(place(ready(), 3, 1, 2).batches(2)))
    assert second["own"]["x"].shape == (1, 2)
    assert second["epoch"].tolist() == [2]
    four = [next(iter(place(ready(), 3, rank, 4).batches(0))) for rank in range(4)]
    assert [is_idle(batch) for batch in four] == [False, False, False, True]
    assert [batch["index"].tolist() for batch in four] == [[0], [1], [2], [0]]
    assert four[3]["own"]["x"].shape == (1, 2)


def test_steps_take_micro_batches_and_go_on_where_they_were() -> None:
    """Five batches in steps of two: an epoch's last step has one. Any number of steps can be left out."""
    steps = [[b["index"][0].item() // 3 for b in parts] for parts in islice(micro_batches({"d": ready()}, 2, 0), 7)]
    assert steps == [[0, 1], [2, 3], [4], [0, 1], [2, 3], [4], [0, 1]]
    for done in range(6):
        found = islice(micro_batches({"d": ready()}, 2, done), 7 - done)
        assert [[b["index"][0].item() // 3 for b in parts] for parts in found] == steps[done:]


def test_several_data_sets_give_one_batch_by_name() -> None:
    """The first makes the epochs; the other goes on through its own, also where the first begins again."""
    feeds = {"few": place(RowFeed(table(4), collate, 2), 1, 0, 1), "many": ready()}

    def numbers(done: int, steps: int) -> list[list[tuple[int, int]]]:
        return [
            [
                (len(b["few"]["index"]), b["many"]["index"][0].item() // 3 + 5 * b["many"]["epoch"][0].item())
                for b in parts
            ]
            for parts in islice(micro_batches(feeds, 1, done), steps)
        ]

    whole = numbers(0, 12)
    assert whole == [[(2, n)] for n in range(12)]
    assert numbers(7, 5) == whole[7:]


def test_a_collator_is_told_the_epoch_before_each_batch() -> None:
    """Two feeds with one collator, in different epochs, do not mislead each other."""

    class Telling:
        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __call__(self, rows: Any) -> int:
            return self.epoch

    collator = Telling()
    feeds = [RowFeed(table(6), collator, 2, seed=seed) for seed in range(2)]
    pairs = zip(feeds[0].batches(4), feeds[1].batches(9), strict=True)
    assert list(pairs) == [(4, 9)] * 3
