"""Whether a model's classes stand in the data's order: found from predictions, never from luck."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from brewgraph.models.label_order import check_label_order

NAMES = ("entailment", "neutral", "contradiction")


def sample(count: int, rows: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and predictions of which a share is right and the rest random."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, count, rows)
    guesses = generator.integers(0, count, rows)
    return np.where(generator.random(rows) < right, labels, guesses), labels


def test_a_good_teacher_is_as_it_should_be():
    """Nothing to say, and the accuracy is the plain one."""
    said, true = sample(3, 512, 0.8)
    found = check_label_order(said, true, NAMES)
    assert (found.verdict, found.order, found.message, found.help) == ("ok", (0, 1, 2), "", "")
    assert found.accuracy == found.best == pytest.approx((said == true).mean())
    assert found.rows == 512


@pytest.mark.parametrize("order", [p for p in itertools.permutations(range(3)) if p != (0, 1, 2)])
def test_every_permutation_is_found(order):
    """The model's class i means the data's class order[i]: said by names, with the labels to write."""
    said, true = sample(3, 512, 0.8)
    backwards = np.argsort(order)
    found = check_label_order(backwards[said], true, NAMES, "`bert`")
    assert (found.verdict, found.order) == ("permuted", order)
    assert found.best == pytest.approx((said == true).mean())
    assert found.accuracy == pytest.approx((backwards[said] == true).mean())
    moved = [f"its `{NAMES[i]}` is the data's `{NAMES[j]}`" for i, j in enumerate(order) if i != j]
    assert found.message.endswith(": " + ", ".join(moved))
    assert found.message.startswith(f"`bert` gets {found.accuracy:.0%} of 512 labelled examples right")
    assert found.help == "say what its classes are: labels=[" + ", ".join(f'"{NAMES[j]}"' for j in order) + "]"


def test_best_order_against_every_order():
    """The assignment is the best of all permutations, tried one by one."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        said, true = generator.integers(0, 4, 40), generator.integers(0, 4, 40)
        found = check_label_order(said, true, "abcd")
        best = max((np.asarray(p)[said] == true).mean() for p in itertools.permutations(range(4)))
        assert found.best == pytest.approx(best)


@pytest.mark.parametrize("count", [2, 3, 9, 100])
def test_a_random_teacher_is_chance(count):
    """Unrelated predictions: even among a hundred classes, where some order always looks far better."""
    verdicts = [check_label_order(*sample(count, 512, 0.0, seed), range(count)).verdict for seed in range(20)]
    assert "permuted" not in verdicts
    assert verdicts.count("chance") >= 17


def test_naming_one_class_always_is_chance():
    """Nine in ten right, and yet nothing was learned."""
    true = np.repeat([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 20)
    found = check_label_order(np.zeros_like(true), true, ("O", "B"))
    assert (found.verdict, found.accuracy) == ("chance", 0.9)
    assert "90%" in found.message
    assert "labels=[…]" in found.help
    good = true.copy()
    good[:5] = 1
    assert check_label_order(good, true, ("O", "B")).verdict == "ok"


def test_less_than_twenty_points_is_no_permutation():
    """A weak teacher that mixes up two classes now and then stays as it is."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, 2, 512)
    said = np.where(generator.random(512) < 0.43, true, 1 - true)
    found = check_label_order(said, true, ("no", "yes"))
    assert 0.05 < found.best - found.accuracy < 0.2
    assert found.verdict == "chance"


def test_rows_that_tell_nothing():
    """Ignored labels, no rows, few rows, one class: no verdict."""
    said, true = sample(3, 200, 0.9)
    padded = np.concatenate([true, np.full(300, -100)])
    found = check_label_order(np.concatenate([said, np.zeros(300, dtype=int)]), padded, NAMES)
    assert found == check_label_order(said, true, NAMES)
    assert check_label_order([], [], NAMES).verdict == "ok"
    assert check_label_order([1, 0] * 31, [0, 1] * 31, ("a", "b")).verdict == "ok"
    assert check_label_order([1, 0] * 32, [0, 1] * 32, ("a", "b")).verdict == "permuted"
    assert check_label_order([1] * 100, [1] * 100, NAMES).verdict == "ok"


def test_classes_without_rows_stay_in_place():
    """A sample that shows two of four classes swaps these alone."""
    true = np.tile([0, 1], 50)
    assert check_label_order(1 - true, true, "abcd").order == (1, 0, 2, 3)
