"""`batch=4096 tokens`: batches of about as many tokens each, equally many in every epoch."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import brewgraph as bg
from brewgraph.data.batching.order import BatchOrder
from brewgraph.diagnostics import RunError, SpecError
from brewgraph.recipe.length import Length, fewest_tokens
from tests.small import metrics, rows, write_pair, write_rows


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a teacher and a student."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    return tmp_path


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=80),
    more=st.integers(0, 300),
    seed=st.integers(0, 5),
    by_length=st.booleans(),
    world=st.integers(1, 3),
)
def test_each_row_once_and_never_too_many_tokens(
    lengths: list[int], more: int, seed: int, by_length: bool, world: int
) -> None:
    """Over all ranks; no batch is empty, none has more tokens than allowed, and epochs have equally many."""
    batch = Length(fewest_tokens(max(lengths)) + more, "token")
    ranks = [
        BatchOrder(len(lengths), batch, seed=seed, lengths=lengths, by_length=by_length, rank=r, world=world)
        for r in range(world)
    ]
    counts = set()
    for epoch in range(2):
        for order in ranks:
            order.set_epoch(epoch)
        shares = [[[] if order.idle(k) else share for k, share in enumerate(order)] for order in ranks]
        batches = [[*chain(*parts)] for parts in zip(*shares, strict=True)]
        assert sorted(chain(*batches)) == list(range(len(lengths)))
        assert all(0 < sum(lengths[i] for i in batch_rows) <= batch.value for batch_rows in batches)
        counts.add(len(batches))
    assert counts == {len(ranks[0])}


def test_batches_are_full() -> None:
    """With rows much shorter than a batch little of the budget is left over, and rows of like length stand together."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 60, (4000,), generator=draw).tolist()
    batch = Length(4096, "token")
    for by_length in (False, True):
        batches = list(BatchOrder(4000, batch, seed=1, lengths=lengths, by_length=by_length))
        used = [sum(lengths[i] for i in x) for x in batches]
        assert min(used) > 0.95 * 4096
        padded = [max(lengths[i] for i in x) * len(x) for x in batches]
        assert (sum(used) / sum(padded) > 0.9) == by_length


def test_an_epoch_that_goes_on() -> None:
    """From the batch at which a run stopped; another epoch has other batches."""
    lengths = [3, 9, 5, 2, 8, 4, 7]
    order = BatchOrder(7, Length(17, "token"), lengths=lengths)
    whole = list(order)
    order.start_at(2)
    assert list(order) == whole[2:]
    order.set_epoch(1)
    assert list(order) != whole


def test_a_batch_that_the_longest_row_exceeds() -> None:
    """The error says how many tokens it needs at least."""
    with pytest.raises(RunError, match="longest example has 9 tokens.*at least 17"):
        BatchOrder(2, Length(16, "token"), lengths=[9, 1])


def spec(world: Path, batch: str, more: str = "") -> Path:
    """A spec with batches of this size."""
    path = world / "spec.brew"
    path.write_text(
        f'teacher bert = hf("bert")\nstudent tiny = hf("tiny")\ndata d = files(train="train.jsonl", dev="dev.jsonl", '
        f"batch={batch}, max_length=32)\nloss = kd(bert.logits -> tiny.logits)\n"
        f"train {{ epochs = 2; optimizer = adamw(lr=1e-3); logging_steps = 1{more} }}\n"
    )
    return path


@pytest.mark.parametrize("more", ["", "; group_by_length = true; accumulate = 2"])
def test_a_run(world: Path, more: str) -> None:
    """Trains and evaluates; a batch of that many tokens is another spec."""
    write_rows(world / "train.jsonl", rows(60))
    folder = bg.run(spec(world, "64 tokens", more)).folder
    lines = [line for line in metrics(folder) if "loss" in line]
    tokens = [len(x["text"].split()) + 2 for x in rows(60)]
    assert len(lines) >= 2 * sum(tokens) / 64 / (2 if more else 1)
    assert "64 tokens per batch" in str(bg.load(world / "spec.brew").plan())


@pytest.mark.parametrize(
    ("batch", "code", "words"),
    [
        ("8 tokens", "B413", "is too small"),
        ("3 epochs", "B122", "a batch is a number of examples, or of tokens"),
        ("1.5 tokens", "B122", "a batch is a number of examples, or of tokens"),
        ("0", "B122", "`batch`"),
    ],
)
def test_a_batch_that_cannot_be(world: Path, batch: str, code: str, words: str) -> None:
    """Each is a diagnostic at the argument."""
    with pytest.raises(SpecError) as error:
        bg.run(spec(world, batch))
    (found,) = error.value.diagnostics
    assert found.code == code
    assert words in found.message


@pytest.mark.parametrize(("length", "batch", "fewest"), [("", "20 tokens", 23), (", max_length=9", "16 tokens", 17)])
def test_a_check_finds_a_batch_that_an_example_exceeds(world: Path, length: str, batch: str, fewest: int) -> None:
    """As far as words tell: the longest of the data has 12, with or without a `max_length`; a length that cuts every
    example short enough is none.
    """
    path = spec(world, batch)
    path.write_text(path.read_text().replace(", max_length=32", length))
    (found,) = bg.check(path)
    assert (found.code, found.span.text) == ("B413", batch)
    assert found.message.startswith(f"the longest example has at least {(fewest + 1) // 2} tokens, and batches are cut")
    assert found.help == f"use `batch={fewest} tokens` or more, or a smaller `max_length`"
    path.write_text(path.read_text().replace(f"batch={batch}{length}", f"batch={batch}, max_length=8"))
    assert bg.check(path) == ()
    assert bg.run(path).fresh


def test_a_run_counts_tokens_before_it_trains(world: Path) -> None:
    """Words that fall into many tokens: only encoding them tells, for the model's own limit, too."""
    write_rows(world / "train.jsonl", [{"text": "a-" * 60, "label": "good"}, *rows(9)])
    for length, longest in ((", max_length=32", 32), ("", 40)):  # the tiny models have 40 positions
        path = spec(world, "60 tokens")
        path.write_text(path.read_text().replace(", max_length=32", length))
        assert bg.check(path) == ()
        with pytest.raises(SpecError) as error:
            bg.run(path)
        (found,) = error.value.diagnostics
        assert found.code == "B413"
        assert found.message.startswith(f"the longest example has {longest} tokens")
        assert found.help == f"use `batch={2 * longest - 1} tokens` or more, or a smaller `max_length`"


@pytest.mark.parametrize("change", ["save_steps = 40 tokens", "epochs = 40 tokens"])
def test_tokens_are_no_length_of_training(world: Path, change: str) -> None:
    """Neither in settings, nor in schedules."""
    path = spec(world, "4")
    path.write_text(path.read_text().replace("epochs = 2", change))
    with pytest.raises(SpecError):
        bg.load(path)
    path = spec(world, "4")
    path.write_text(path.read_text().replace("= kd(", "= after(40 tokens) * kd("))
    with pytest.raises(SpecError, match="`after` takes a length of training"):
        bg.load(path)
