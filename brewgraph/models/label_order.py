"""Whether a teacher numbers its classes as the data does: the permutation that fits its predictions best.

A teacher fine-tuned elsewhere may call `entailment` 2 where the data calls it 0. Its classes are then as many and as
named, every shape fits, and distillation teaches the student a wrong order in silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

GAIN = 0.2
"""By how much accuracy another order must be better before it is taken for the true one."""
FEWEST = 64
"""Labelled rows below which nothing is said: any order could be luck."""


@dataclass(frozen=True)
class LabelOrder:
    """What a sample of predictions tells of a model's classes.

    `ok`; `permuted`: another order is at least 20 points better; `chance`: predictions and labels agree no more often
    than unrelated ones would. `order[i]` is the data's class that the model's class i means in the best order.
    `accuracy` is as it stands, `best` in that order, both shares of `rows`. `message` and `help` say it in sentences,
    empty where all is well.
    """

    verdict: Literal["ok", "permuted", "chance"]
    accuracy: float
    best: float
    rows: int
    order: tuple[int, ...]
    message: str = ""
    help: str = ""


def check_label_order(predictions: Any, labels: Any, names: Sequence[str], model: str = "the teacher") -> LabelOrder:
    """Compare predicted classes (N,) with labels (N,), integers below C = len(names); labels of -100 are skipped.

    The best order is that of the largest sum over the confusion matrix (the assignment problem, Kuhn 1955). As the best
    of C! orders always looks better than it is, its gain is measured on rows that it was not found on. Chance is the
    agreement that both frequencies alone explain (Cohen 1960, equation 1), with two standard errors.
    """
    said, true = (np.asarray(x, dtype=np.int64).reshape(-1) for x in (predictions, labels))
    said, true = said[true != -100], true[true != -100]
    rows = len(true)
    whole = _confusion(said, true, len(names))
    order = _best_order(whole)
    accuracy, best = _agreement(whole), _agreement(whole, order)
    if rows < FEWEST or len(np.unique(true)) < 2:
        return LabelOrder("ok", accuracy, best, rows, order)
    halves = [_confusion(said[i::2], true[i::2], len(names)) for i in (0, 1)]
    gains = [
        _agreement(seen, _best_order(other)) - _agreement(seen)
        for seen, other in zip(halves, reversed(halves), strict=True)
    ]
    if min(best - accuracy, sum(gains) / 2) >= GAIN:
        moved = ", ".join(f"its `{names[i]}` is the data's `{names[j]}`" for i, j in enumerate(order) if i != j)
        message = (
            f"{model} gets {accuracy:.0%} of {rows} labelled examples right, "
            f"and {best:.0%} with its classes in another order: {moved}"
        )
        listed = ", ".join(f'"{names[j]}"' for j in order)
        help = f"say what its classes are: labels=[{listed}]"
        return LabelOrder("permuted", accuracy, best, rows, order, message, help)
    chance = float((whole.sum(0) * whole.sum(1)).sum()) / rows**2
    if accuracy <= chance + 2 * math.sqrt(chance * (1 - chance) / rows):
        message = (
            f"{model} gets {accuracy:.0%} of {rows} labelled examples right, "
            f"no better than chance with its predictions ({chance:.0%})"
        )
        help = "fine-tune it for these classes first; where it is, check what its classes mean: labels=[…]"
        return LabelOrder("chance", accuracy, best, rows, order, message, help)
    return LabelOrder("ok", accuracy, best, rows, order)


def _confusion(said: Any, true: Any, count: int) -> Any:
    """How often each class (row) was predicted where each class (column) was right, (C, C)."""
    found = np.zeros((count, count), dtype=np.int64)
    np.add.at(found, (said, true), 1)
    return found


def _best_order(confusion: Any) -> tuple[int, ...]:
    """The permutation with the most agreement; among equals one that leaves classes where they are."""
    count = len(confusion)
    scores = confusion * (count + 1) + np.eye(count, dtype=np.int64)
    return tuple(int(i) for i in linear_sum_assignment(scores, maximize=True)[1])


def _agreement(confusion: Any, order: Sequence[int] | None = None) -> float:
    """The share of rows that are right, with the predicted classes read in this order; 0 without rows."""
    count = len(confusion)
    columns = range(count) if order is None else order
    return float(confusion[range(count), list(columns)].sum()) / max(1, int(confusion.sum()))
