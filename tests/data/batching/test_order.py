"""The order of batches: the same on any number of ranks, other in every epoch, and able to go on in the middle."""

from __future__ import annotations

import itertools
import subprocess
import sys

import datasets
import numpy
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from brewgraph.data.batching.order import BatchOrder, derive_seed, loader
from brewgraph.diagnostics import RunError

rows = st.integers(0, 200)
batches = st.integers(1, 40)
seeds = st.integers(0, 2**63)
epochs = st.integers(0, 50)


@given(rows, batches, seeds, epochs, st.integers(1, 6), st.booleans(), st.booleans())
def test_ranks_share_the_batch_of_one(
    rows: int, batch: int, seed: int, epoch: int, world: int, shuffle: bool, drop_last: bool
) -> None:
    """Joined in the order of ranks the shares are the batch of a single process, but for the row that an idle rank
    borrows; none is empty, sizes differ by one."""
    assume(batch >= world)

    def order(rank: int, world: int) -> BatchOrder:
        made = BatchOrder(rows, batch, seed=seed, shuffle=shuffle, drop_last=drop_last, rank=rank, world=world)
        made.set_epoch(epoch)
        return made

    alone = list(order(0, 1))
    shares = [list(order(rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)} == {len(order(0, world))}
    for number, (whole, parts) in enumerate(zip(alone, zip(*shares, strict=True), strict=True)):
        idle = [order(rank, world).idle(number) for rank in range(world)]
        assert sum(idle) == max(0, world - len(whole))
        assert [row for part, borrowed in zip(parts, idle, strict=True) for row in part if not borrowed] == whole
        assert all(part == whole[:1] for part, borrowed in zip(parts, idle, strict=True) if borrowed)
        sizes = [len(part) for part in parts]
        assert 0 < max(sizes) <= min(sizes) + 1


@given(rows, batches, seeds, epochs)
def test_an_epoch_has_every_row_once(rows: int, batch: int, seed: int, epoch: int) -> None:
    """On one rank nothing is left out, and all batches but the last are full."""
    order = BatchOrder(rows, batch, seed=seed)
    order.set_epoch(epoch)
    made = list(order)
    assert sorted(row for part in made for row in part) == list(range(rows))
    assert all(len(part) == batch for part in made[:-1])
    assert len(made) == len(order) == -(-rows // batch)
    full = list(BatchOrder(rows, batch, seed=seed, drop_last=True))
    assert len(full) == rows // batch
    assert all(len(part) == batch for part in full)


@given(rows, batches, seeds, epochs, st.integers(0, 60), st.integers(1, 3))
def test_start_at_is_skipping(rows: int, batch: int, seed: int, epoch: int, start: int, world: int) -> None:
    """A run that goes on in the middle meets what it would have met; the next epoch is whole; the length stays."""
    assume(batch >= world)
    order, other = (BatchOrder(rows, batch, seed=seed, world=world) for _ in range(2))
    order.set_epoch(epoch)
    other.set_epoch(epoch)
    other.start_at(start)
    assert list(other) == list(order)[start:]
    assert len(other) == len(order)
    order.set_epoch(epoch + 1)
    other.set_epoch(epoch + 1)
    assert list(other) == list(order)


@given(st.integers(50, 200), batches, seeds, epochs)
def test_epochs_and_seeds_differ(rows: int, batch: int, seed: int, epoch: int) -> None:
    """The same seed and epoch give the same order, however often; another of either gives another."""
    first, again = BatchOrder(rows, batch, seed=seed), BatchOrder(rows, batch, seed=seed)
    first.set_epoch(epoch)
    again.set_epoch(epoch + 1)
    assert list(first) != list(again)
    again.set_epoch(epoch)
    assert list(first) == list(first) == list(again)
    other = BatchOrder(rows, batch, seed=seed + 1)
    other.set_epoch(epoch)
    assert list(first) != list(other)


def test_evaluation_keeps_the_order() -> None:
    """Without shuffling the rows come as they are, in every epoch."""
    order = BatchOrder(7, 3, shuffle=False)
    assert list(order) == [[0, 1, 2], [3, 4, 5], [6]]
    order.set_epoch(5)
    assert list(order) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchOrder(7, 3, shuffle=False, rank=0, world=2)) == [[0, 1], [3, 4], [6]]
    assert list(BatchOrder(7, 3, shuffle=False, rank=1, world=2)) == [[2], [5], [6]]


def test_evaluation_by_length_begins_with_the_longest() -> None:
    """With lengths rows come from the longest to the shortest, equal ones in their order, in every epoch."""
    order = BatchOrder(5, 2, shuffle=False, lengths=[3, 9, 5, 9, 1], by_length=True)
    assert list(order) == [[1, 3], [2, 0], [4]]
    order.set_epoch(4)
    assert list(order) == [[1, 3], [2, 0], [4]]


def test_global_generators_are_left_alone() -> None:
    """Neither torch's nor numpy's generator moves, in the order or in the loader."""
    split = datasets.Dataset.from_dict({"index": list(range(10))})
    states = torch.get_rng_state().clone(), numpy.random.get_state()[1].copy()
    made = list(loader(split, BatchOrder(10, 4, seed=1), list))
    assert len(made) == 3
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (numpy.random.get_state()[1] == states[1]).all()


def test_loader_follows_the_order() -> None:
    """The collator gets the rows of each batch; a loader lives through several epochs."""
    split = datasets.Dataset.from_dict({"index": list(range(10)), "label": [0, 1] * 5})
    order = BatchOrder(10, 4, seed=3)
    made = loader(split, order, lambda rows: [row["index"] for row in rows])
    assert list(made) == list(order)
    assert len(made) == 3
    first = list(made)
    order.set_epoch(1)
    order.start_at(1)
    assert list(made) == list(order)
    assert len(list(made)) == 2
    assert list(made) != first[1:]


@pytest.mark.parametrize(("rows", "batch", "rank", "world"), [(-1, 1, 0, 1), (5, 0, 0, 1), (5, 4, 2, 2), (5, 4, -1, 2)])
def test_impossible_orders(rows: int, batch: int, rank: int, world: int) -> None:
    """A mistake of the calling program is a ValueError with its numbers."""
    with pytest.raises(ValueError, match=f"rows={rows}, batch={batch}, rank={rank}, world={world}"):
        BatchOrder(rows, batch, rank=rank, world=world)
    with pytest.raises(ValueError, match="an epoch has no batch -1"):
        BatchOrder(5, 2).start_at(-1)


def test_a_batch_smaller_than_the_world() -> None:
    """The user's choice of ranks and batch can not go on, and the least batch that would is named."""
    with pytest.raises(RunError, match="a batch of 2 cannot be shared by 4 processes: use batch=4 or more"):
        BatchOrder(100, 2, world=4)


def test_derived_seeds() -> None:
    """63 bits, each part and its type count, and neither the process nor numpy's own integers matter."""
    assert derive_seed(1, "stage", 0) == derive_seed(numpy.int64(1), "stage", numpy.int32(0))
    several = [derive_seed(*parts) for parts in [(), (1,), ("1",), (1.0,), (1, 2), (2, 1), (12,), ("1", "2"), ("12",)]]
    assert len(set(several)) == len(several)
    assert all(0 <= derive_seed(number) < 2**63 for number in range(500))
    assert max(derive_seed(number) for number in range(500)) > 2**62
    code = "from brewgraph.data.batching.order import derive_seed; print(derive_seed(7, 'mask', 0.5))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive_seed(7, "mask", 0.5)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=300), batch=st.integers(1, 7), epoch=st.integers(0, 3))
def test_batches_of_like_length(lengths: list[int], batch: int, epoch: int) -> None:
    """Every row once, whole batches but the last, and never more padding than the same rows sorted over the whole."""
    order = BatchOrder(len(lengths), batch, seed=1, lengths=lengths, by_length=True)
    order.set_epoch(epoch)
    batches = list(order)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == batch for rows in batches[:-1])
    if len(lengths) <= 50 * batch:
        spans = [(min(lengths[row] for row in rows), max(lengths[row] for row in rows)) for rows in batches]
        ordered = sorted(spans)
        assert all(low[1] <= high[0] for low, high in itertools.pairwise(ordered) if low != high)


def test_the_order_by_length_changes_with_the_epoch() -> None:
    """Batches are shuffled, so that training does not go from long to short, and anew in every epoch."""
    lengths = list(range(200))
    order = BatchOrder(200, 4, seed=0, lengths=lengths, by_length=True)
    first = list(order)
    order.set_epoch(1)
    assert list(order) != first
    assert [rows[0] for rows in first] != sorted((rows[0] for rows in first), reverse=True)
