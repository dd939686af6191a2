"""Whether a teacher numbers its classes as the data does: the permutation that fits its predictions best.

A teacher fine-tuned elsewhere may call `entailment` 2 where the data calls it 0. Its classes are then as many and as
named, every shape fits, and distillation teaches the student a wrong order in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

GAIN = 0.2
"""By how much another order must be better before it is taken for the true one."""
LEAST = 0.5
"""What tags, several labels and answers must come to in another order: an untrained model may fit one by luck."""
FEWEST = 64
"""Labelled rows below which nothing is said: any order could be luck."""


@dataclass(frozen=True)
class LabelOrder:
    """What a sample of predictions tells of a model's classes.

    `ok`; `permuted`: another order is at least 20 points better; `chance`: predictions and labels agree no more often
    than unrelated ones would. `order[i]` is the data's class that the model's class i means in the best order.
    `accuracy` is as it stands, `best` in that order, both shares of `rows` (or what else is compared). `message` and
    `help` say it in sentences, empty where all is well.
    """

    verdict: Literal["ok", "permuted", "chance"]
    accuracy: float
    best: float
    rows: int
    order: tuple[int, ...]
    message: str = ""
    help: str = ""


def check_label_order(
    predictions: Any, labels: Any, names: Sequence[str], model: str = "the teacher", places: Sequence[int] = ()
) -> LabelOrder:
    """Compare predicted classes (N,) with labels (N,), integers below C = len(names); labels of -100 are skipped.

    The best order is that of the largest sum over the confusion matrix (the assignment problem, Kuhn 1955). As the best
    of C! orders always looks better than it is, its gain is measured on rows that it was not found on. Chance is the
    agreement that both frequencies alone explain (Cohen 1960, equation 1), with two standard errors.

    `places` are those of the model's classes in its own head where they were put in another order, for the remedy.
    """
    said, true = _labelled(predictions, labels)
    rows = len(true)

    def fit(kept: Any) -> Any:
        return _confusion(said[kept], true[kept], len(names)) / max(1, kept.sum())

    found = _compare(fit, np.arange(rows) % 2)
    if rows < FEWEST or len(np.unique(true)) < 2:
        return LabelOrder("ok", found.own, found.best, rows, found.order)
    what = f"{found.own:.0%} of {rows} labelled examples right"
    if found.gain >= GAIN:
        return _permuted(found, rows, names, places, f"{model} gets {what}, and {found.best:.0%}")
    return _by_chance(found, said, true, names, f"{model} gets {what}")


def check_tag_order(
    predictions: Any,
    labels: Any,
    tokens: Any,
    names: Sequence[str],
    model: str = "the teacher",
    places: Sequence[int] = (),
) -> LabelOrder:
    """The same for tags of words, (N,) each; `tokens` are the words' first tokens.

    Most words have the same tag, so that each tag that occurs counts alike: what is compared is the mean share of words
    that are right, over tags. Gains are measured on other words than those that an order was found on: a model that
    knows nothing says the same of a word wherever it stands, which looks like an order of its own. In that order
    `LEAST` must be right, and the more the fewer different words there are.
    """
    said, true = _labelled(predictions, labels)
    words = np.asarray(tokens, dtype=np.int64).reshape(-1)[np.asarray(labels).reshape(-1) != -100]

    def fit(kept: Any) -> Any:
        counts = _confusion(said[kept], true[kept], len(names))
        there = counts.sum(0)
        return counts / np.maximum(1, there) / max(1, (there > 0).sum())

    found, rows = _compare(fit, words % 2), len(true)
    if rows < FEWEST or len(np.unique(true)) < 2:
        return LabelOrder("ok", found.own, found.best, rows, found.order)
    if found.gain >= GAIN and found.best >= LEAST + 1 / math.sqrt(len(np.unique(words))):
        what = f"{model} gets {found.own:.0%} of a tag's words right, the mean over tags and {rows} words"
        return _permuted(found, rows, names, places, f"{what}, and {found.best:.0%}")
    right = float((said == true).mean())
    return _by_chance(found, said, true, names, f"{model} gets {right:.0%} of {rows} labelled words right")


def check_labels_order(
    probabilities: Any, labels: Any, names: Sequence[str], model: str = "the teacher", places: Sequence[int] = ()
) -> LabelOrder:
    """The same where an example has any number of labels: probabilities and labels, (N, C) each.

    What is compared is the mean correlation of a class's probability with its label, over the classes that some
    examples have and others have not. In another order it must be at least `LEAST`, and the more the fewer
    examples there are.
    """
    said, true = (np.asarray(x, dtype=np.float64).reshape(-1, len(names)) for x in (probabilities, labels))
    rows = len(true)
    varied = true.std(0) > 0

    def fit(kept: Any) -> Any:
        return _correlations(said[kept], true[kept]) * varied / max(1, varied.sum())

    found = _compare(fit, np.arange(rows) % 2)
    if rows < FEWEST or varied.sum() < 2:
        return LabelOrder("ok", found.own, found.best, rows, found.order)
    what = f"the probabilities of {model} correlate with {rows} labelled examples by {found.own:.2f}"
    if found.gain >= GAIN and found.best >= LEAST + 1 / math.sqrt(rows):
        return _permuted(found, rows, names, places, f"{what}, and by {found.best:.2f}")
    if found.own <= 2 / math.sqrt(rows * max(1, varied.sum())):
        return LabelOrder(
            "chance", found.own, found.best, rows, found.order, f"{what}, no better than chance", _UNTAUGHT
        )
    return LabelOrder("ok", found.own, found.best, rows, found.order)


def check_span_order(predictions: Any, labels: Any, model: str = "the teacher") -> LabelOrder:
    """Whether a model's starts are the ends of answers, and its ends the starts: tokens, (N, 2) each.

    Only answers of several tokens tell; labels of -100 are skipped. `order` is (1, 0) where they are swapped: right in
    at least `LEAST` of both, and better by `GAIN` than as they are.
    """
    said, true = (np.asarray(x, dtype=np.int64).reshape(-1, 2) for x in (predictions, labels))
    tells = (true[:, 0] != true[:, 1]) & (true[:, 0] != -100)
    said, true, rows = said[tells], true[tells], int(tells.sum())
    if rows < FEWEST:
        return LabelOrder("ok", 0.0, 0.0, rows, (0, 1))
    own, swapped = (said == true).mean(0), (said == true[:, ::-1]).mean(0)
    if swapped.mean() - own.mean() < GAIN or swapped.min() < LEAST:
        return LabelOrder("ok", float(own.mean()), float(max(own.mean(), swapped.mean())), rows, (0, 1))
    message = (
        f"{model} finds {own.mean():.0%} of the starts and ends of {rows} answers, "
        f"and {swapped.mean():.0%} with its starts and ends swapped"
    )
    return LabelOrder("permuted", float(own.mean()), float(swapped.mean()), rows, (1, 0), message)


@dataclass(frozen=True)
class _Compared:
    """The best order, how well the classes fit as they are and in it, and what of that holds on other rows, too."""

    order: tuple[int, ...]
    own: float
    best: float
    gain: float


def _compare(fit: Callable[[Any], Any], half: Any) -> _Compared:
    """Find the best order of all rows, and measure that of each half on the other. `fit` gives for a choice of rows how
    well each of the model's classes (row) fits each of the data's (column), (C, C).
    """
    whole = fit(np.ones(len(half), dtype=bool))
    order = _best_order(whole)
    halves = [fit(half == number) for number in (0, 1)]
    gains = [_sum(seen, _best_order(other)) - _sum(seen) for seen, other in zip(halves, reversed(halves), strict=True)]
    own, best = _sum(whole), _sum(whole, order)
    return _Compared(order, own, best, min(best - own, sum(gains) / 2))


def _permuted(found: _Compared, rows: int, names: Sequence[str], places: Sequence[int], what: str) -> LabelOrder:
    order = found.order
    moved = ", ".join(f"its `{names[i]}` is the data's `{names[j]}`" for i, j in enumerate(order) if i != j)
    listed = {place: names[j] for place, j in zip(places or range(len(order)), order, strict=True)}
    shown = ", ".join(json.dumps(listed[i], ensure_ascii=False) for i in sorted(listed))
    help = f"say what its classes are: labels=[{shown}]"
    message = f"{what} with its classes in another order: {moved}"
    return LabelOrder("permuted", found.own, found.best, rows, order, message, help)


def _by_chance(found: _Compared, said: Any, true: Any, names: Sequence[str], what: str) -> LabelOrder:
    rows, whole = len(true), _confusion(said, true, len(names))
    chance = float((whole.sum(0) * whole.sum(1)).sum()) / rows**2
    if float((said == true).mean()) > chance + 2 * math.sqrt(chance * (1 - chance) / rows):
        return LabelOrder("ok", found.own, found.best, rows, found.order)
    message = f"{what}, no better than chance with its predictions ({chance:.0%})"
    return LabelOrder("chance", found.own, found.best, rows, found.order, message, _UNTAUGHT)


_UNTAUGHT = "fine-tune it for these classes first; where it is, check what its classes mean: labels=[…]"


def _labelled(predictions: Any, labels: Any) -> tuple[Any, Any]:
    said, true = (np.asarray(x, dtype=np.int64).reshape(-1) for x in (predictions, labels))
    return said[true != -100], true[true != -100]


def _confusion(said: Any, true: Any, count: int) -> Any:
    """How often each class (row) was predicted where each class (column) was right, (C, C)."""
    found = np.zeros((count, count), dtype=np.int64)
    np.add.at(found, (said, true), 1)
    return found


def _correlations(one: Any, other: Any) -> Any:
    """Pearson's correlation of each column of one (row) with each column of the other (column); 0 of constants."""
    parts = [(x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), np.inf) if len(x) else x for x in (one, other)]
    return parts[0].T @ parts[1] / max(1, len(one))


def _best_order(fits: Any) -> tuple[int, ...]:
    """The permutation that fits best; among equals one that leaves classes where they are."""
    return tuple(int(i) for i in linear_sum_assignment(fits + 1e-9 * np.eye(len(fits)), maximize=True)[1])


def _sum(fits: Any, order: Sequence[int] | None = None) -> float:
    """How well the classes fit in this order."""
    return float(fits[range(len(fits)), list(range(len(fits)) if order is None else order)].sum())
