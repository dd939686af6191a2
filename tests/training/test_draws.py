"""Whose turn it is: by chance or in an order, and always a function of seed, stage and step."""

from __future__ import annotations

import math

import pytest

from brewgraph.diagnostics import RunError
from brewgraph.recipe.numbers import at_progress
from brewgraph.recipe.values import Combine, Symbol
from brewgraph.source import Source, Span
from brewgraph.training.work import Draw

SIZES = {"mnli": 392_702, "rte": 2_490, "qnli": 104_743}


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_frequencies_follow_size_to_a_power(power: float) -> None:
    """Over 10,000 steps each task comes as often as size ** power says, to three standard deviations."""
    draw = Draw({task: size**power for task, size in SIZES.items()})
    total = sum(size**power for size in SIZES.values())
    found = draw.drawn(seed=0, stage=0, steps=10_000)
    assert sum(found.values()) == 10_000
    for task, size in SIZES.items():
        p = size**power / total
        assert abs(found[task] - 10_000 * p) < 3 * math.sqrt(10_000 * p * (1 - p)) + 1, task


def test_a_task_follows_from_seed_stage_and_step() -> None:
    """Asked in any order the answers are the same; another seed or stage draws otherwise."""
    draw = Draw(SIZES)
    forward = [draw.task(3, 1, step) for step in range(200)]
    assert [draw.task(3, 1, step) for step in reversed(range(200))] == forward[::-1]
    assert [draw.task(4, 1, step) for step in range(200)] != forward != [draw.task(3, 2, step) for step in range(200)]
    assert draw.drawn(3, 1, 200) == {task: forward.count(task) for task in SIZES}


def test_an_order_is_gone_through_again_and_again() -> None:
    """Whatever the weights are."""
    draw = Draw({"ner": 0.0, "qa": 0.0}, order=("ner", "qa", "qa"))
    assert [draw.task(0, 0, step) for step in range(7)] == ["ner", "qa", "qa", "ner", "qa", "qa", "ner"]
    assert draw.drawn(0, 0, 7) == {"ner": 3, "qa": 4}
    assert draw.probabilities == {"ner": 1 / 3, "qa": 2 / 3}


def test_a_floor_lifts_the_rare_and_keeps_proportions_above_it() -> None:
    """Below it tasks get the floor; the others share what is left as their weights say."""
    assert Draw({"a": 80.0, "b": 19.0, "c": 1.0}).probabilities == pytest.approx({"a": 0.8, "b": 0.19, "c": 0.01})
    found = Draw({"a": 80.0, "b": 19.0, "c": 1.0}, floor=0.1).probabilities
    assert found == pytest.approx({"a": 0.9 * 80 / 99, "b": 0.9 * 19 / 99, "c": 0.1})
    assert Draw({"a": 98.0, "b": 1.0, "c": 1.0}, floor=0.25).probabilities == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert Draw({"a": 9.0, "b": 1.0}, floor=0.5).probabilities == {"a": 0.5, "b": 0.5}


def test_a_task_of_weight_zero_is_never_drawn() -> None:
    """Not even by rounding."""
    assert Draw({"a": 0.0, "b": 1.0, "c": 0.0}).drawn(0, 0, 500) == {"a": 0, "b": 500, "c": 0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Draw({"a": 0.0, "b": 0.0}), "every task has weight zero"),
        (lambda: Draw({"a": -1.0}), "must be finite and not negative"),
        (lambda: Draw({"a": math.nan}), "must be finite and not negative"),
        (lambda: Draw({}), "must be finite and not negative"),
    ],
)
def test_draws_that_cannot_be(make: object, message: str) -> None:
    """Said when the draw is made."""
    with pytest.raises(RunError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [("mean", 4.0), ("max", 6.0), ("+", 8.0), ("softmax", math.exp(2) / (math.exp(2) + math.exp(6)))],
)
def test_a_law_may_go_across_a_list(operator: str, expected: float) -> None:
    """`~ mean([size, batches])` is one number for a task, as Python computes it."""
    span = Span(Source("", ""), 0, 0)
    operands = (Symbol("number", "batches", span=span), Symbol("number", "size", span=span))
    law = Combine("number", operator, operands, 0, span=span)
    assert at_progress(law, 0.0, {"size": 6.0, "batches": 2.0}) == pytest.approx(expected)
