"""Whether a teacher numbers its classes as the data does: the permutation that fits its predictions best.

A teacher fine-tuned elsewhere may call `entailment` 2 where the data calls it 0. Its classes are then as many and as
named, every shape fits, and distillation teaches the student a wrong order in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

GAIN = 0.2
"""By how much accuracy another order must be better before it is taken for the true one."""


@dataclass(frozen=True)
class LabelOrder:
    """What a sample of predictions tells of a model's classes.

    `ok`; `permuted`: another order is at least 20 points better, `order[i]` being the data's class that the model's
    class i means; `chance`: no better than always naming the most frequent class or guessing. `accuracy` is as it
    stands, `best` in the best order, both shares of `rows`. `message` and `help` say so in sentences, empty where all
    is well.
    """

    verdict: Literal["ok", "permuted", "chance"]
    accuracy: float
    best: float
    rows: int
    order: tuple[int, ...]
    message: str = ""
    help: str = ""


def check_label_order(predictions: Any, labels: Any, names: Sequence[str], model: str = "the teacher") -> LabelOrder:
    """Compare predicted classes (N,) with labels (N,), both integers below C = len(names); rows of label -100 are skipped.

    The best permutation is that of the largest sum over the confusion matrix (assignment problem, Kuhn 1955).
    """
    said, true = np.asarray(predictions).reshape(-1), np.asarray(labels).reshape(-1)
    kept = true != -100
    said, true = said[kept], true[kept]
    count, rows = len(names), len(true)
    identity = tuple(range(count))
    if not rows:
        return LabelOrder("ok", 0.0, 0.0, 0, identity)
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (said, true), 1)
    # Rows of classes that the sample never shows are all zero: a small bonus on the diagonal leaves them where they are.
    scores = confusion * (count + 1) + np.eye(count, dtype=np.int64)
    order = tuple(int(i) for i in linear_sum_assignment(scores, maximize=True)[1])
    accuracy = float(np.trace(confusion)) / rows
    best = float(confusion[range(count), order].sum()) / rows
    # nothing is told by a gain that a handful of rows could give by luck
    if best - accuracy >= GAIN and best - accuracy > 2 * _noise(rows):
        moved = ", ".join(f"its `{names[i]}` is the data's `{names[j]}`" for i, j in enumerate(order) if i != j)
        message = (
            f"{model} gets {accuracy:.0%} of {rows} labelled examples right, and {best:.0%} with its classes in another "
            f"order: {moved}"
        )
        listed = ", ".join(f'"{names[j]}"' for j in order)
        return LabelOrder(
            "permuted", accuracy, best, rows, order, message, f"tell it their true names: labels=[{listed}]"
        )
    frequent = float(np.bincount(true, minlength=count).max()) / rows
    guessing = max(1 / count, frequent)
    if count > 1 and accuracy <= guessing + (_noise(rows) if accuracy < frequent else 0.0):
        message = (
            f"{model} gets {accuracy:.0%} of {rows} labelled examples right, no more than always naming the most "
            f"frequent class would ({guessing:.0%})"
        )
        help = "is it trained for these classes? fine-tune it first, or give their order: labels=[…]"
        return LabelOrder("chance", accuracy, best, rows, identity, message, help)
    return LabelOrder("ok", accuracy, best, rows, identity)


def _noise(rows: int) -> float:
    """The largest standard error that a share of so many rows can have."""
    return 0.5 / float(np.sqrt(rows))
