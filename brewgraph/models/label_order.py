"""Whether a teacher numbers its classes as the data does: the permutation that fits its predictions best.

A teacher fine-tuned elsewhere may call `entailment` 2 where the data calls it 0. Its classes are then as many and as
named, every shape fits, and distillation teaches the student a wrong order in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from brewgraph.diagnostics import listing

GAIN = 0.2
"""By how much another order must be better before it is taken for the true one."""
LEARNT = 0.3
"""Which share of what chance leaves wrong that order must get right (Cohen's kappa), of one label for each text: of two
classes, an untrained model is often worse than chance.
"""
LEAST = 0.5
"""What tags, several labels and answers must come to in another order: an untrained model may fit one by luck."""
FEWEST = 64
"""Different labelled texts (words, answers) below which nothing is said: any order could be luck."""
CLEARLY = 1.5
"""How many times as much as with any other a class that was moved must correlate with the one that it is."""
ERRORS = 4.0
"""By how many standard errors that must exceed the correlation as it stands, where two classes change places."""


@dataclass(frozen=True)
class LabelOrder:
    """What a sample of predictions tells of a model's classes.

    `ok`; `permuted`: another order is at least 20 points better, or some classes are clearly others; `chance`:
    predictions and labels agree no more often than unrelated ones would. `order[i]` is the data's class that the
    model's class i means in the best order. `accuracy` is as it stands, `best` in that order, both shares of `rows` (or
    what else is compared). `unsure` are classes that seem to be others, on too few rows to tell. `message` and `help`
    say it in sentences, empty where all is well.
    """

    verdict: Literal["ok", "permuted", "chance"]
    accuracy: float
    best: float
    rows: int
    order: tuple[int, ...]
    message: str = ""
    help: str = ""
    unsure: tuple[int, ...] = ()


def check_label_order(
    predictions: Any,
    labels: Any,
    names: Sequence[str],
    model: str = "the teacher",
    places: Sequence[int] = (),
    texts: Any = None,
) -> LabelOrder:
    """Compare predicted classes (N,) with labels (N,), integers below C = len(names); labels of -100 are skipped.

    The best order is that of the largest sum over the confusion matrix (the assignment problem, Kuhn 1955). As the best
    of C! orders always looks better than it is, its gain is measured on rows that it was not found on. Chance is the
    agreement that both frequencies alone explain (Cohen 1960, equation 1), with two standard errors. A few of many
    classes gain little in all: these are found one by one (`_moved`). `texts` (N,) numbers the texts, of which equal
    ones count once there; left out, all differ.

    `places` are those of the model's classes in its own head where they were put in another order, for the remedy.
    """
    said, true = _labelled(predictions, labels)
    rows = len(true)
    own = np.arange(rows) if texts is None else np.asarray(texts).reshape(-1)[np.asarray(labels).reshape(-1) != -100]

    def fit(kept: Any) -> Any:
        return _confusion(said[kept], true[kept], len(names)) / max(1, kept.sum())

    found = _compare(fit, own % 2)
    if len(np.unique(own)) < FEWEST or len(np.unique(true)) < 2:
        return LabelOrder("ok", found.own, found.best, rows, found.order)
    what = f"{found.own:.0%} of {rows} labelled examples right"
    chance = _by_luck(np.asarray(found.order)[said], true, len(names))
    if found.gain >= GAIN and found.best - chance >= LEARNT * (1 - chance):
        return _permuted(found, rows, names, places, f"{model} gets {what}, and {found.best:.0%}")
    return _by_chance(found, said, true, own, names, model, places, "labelled examples")


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
    return _by_chance(found, said, true, words, names, model, places, "labelled words")


def check_labels_order(
    probabilities: Any,
    labels: Any,
    names: Sequence[str],
    model: str = "the teacher",
    places: Sequence[int] = (),
    texts: Any = None,
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

    own = np.arange(rows) if texts is None else np.asarray(texts).reshape(-1)
    found = _compare(fit, own % 2)
    if len(np.unique(own)) < FEWEST or varied.sum() < 2:
        return LabelOrder("ok", found.own, found.best, rows, found.order)
    what = f"the probabilities of {model} correlate with {rows} labelled examples by {found.own:.2f}"
    if found.gain >= GAIN and found.best >= LEAST + 1 / math.sqrt(rows):
        return _permuted(found, rows, names, places, f"{what}, and by {found.best:.2f}")
    order, moved, unsure = _moved(said, true, own)
    if moved:
        fits = _correlations(said, true)
        was, best = (float(np.mean([fits[i, to[i]] for i in moved])) for to in (range(len(names)), order))
        what = f"the probabilities of {model} correlate with {rows} labelled examples"
        what += f" in {_listed(moved, names)} by {was:.2f}, and by {best:.2f}"
        return _permuted(_Compared(order, was, best, best - was), rows, names, places, what)
    if found.own <= 2 / math.sqrt(rows * max(1, varied.sum())):
        return LabelOrder(
            "chance", found.own, found.best, rows, found.order, f"{what}, no better than chance", _UNTAUGHT, unsure
        )
    return LabelOrder("ok", found.own, found.best, rows, found.order, unsure=unsure)


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


def _by_chance(
    found: _Compared,
    said: Any,
    true: Any,
    groups: Any,
    names: Sequence[str],
    model: str,
    places: Sequence[int],
    kind: str,
) -> LabelOrder:
    """The verdict on classes, one each, of which no whole order is better: some are moved, all is well, or chance."""
    rows, classes = len(true), np.eye(len(names))
    order, moved, unsure = _moved(classes[said], classes[true], groups)
    if moved:
        of = np.isin(true, moved)
        own, best = (float((np.asarray(to)[said[of]] == true[of]).mean()) for to in (range(len(names)), order))
        what = f"{model} gets {own:.0%} of the {of.sum()} {kind} of {_listed(moved, names)} right, and {best:.0%}"
        return _permuted(_Compared(order, own, best, best - own), rows, names, places, what)
    right, chance = float((said == true).mean()), _by_luck(said, true, len(names))
    if right > chance + 2 * math.sqrt(chance * (1 - chance) / rows):
        return LabelOrder("ok", found.own, found.best, rows, found.order, unsure=unsure)
    message = f"{model} gets {right:.0%} of {rows} {kind} right, no better than chance with its predictions"
    message += f" ({chance:.0%})"
    return LabelOrder("chance", found.own, found.best, rows, found.order, message, _UNTAUGHT, unsure)


def _by_luck(said: Any, true: Any, count: int) -> float:
    """The share of rows that frequencies alone would get right."""
    whole = _confusion(said, true, count)
    return float((whole.sum(0) * whole.sum(1)).sum()) / max(1, len(true)) ** 2


def _moved(said: Any, true: Any, groups: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The best order of the classes that are clearly others, these classes, and those that only seem to be.

    `said` and `true` (N, C) are compared by the correlations of their columns; rows of one of the `groups` (N,) count
    as one, and so do their errors. In the best order classes change places in circles. Of a model that knows nothing
    some class of each circle loses, by whatever its predictions go: a circle counts only where every class in it gains
    by `ERRORS` (the fewer, the more there are in it), and correlates `CLEARLY` more with the one that it is than either
    of them with any other.
    """
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    weight = 1 / size[group] / len(size)
    one, other = (_standard(x, weight) for x in (said, true))
    fits = (one * weight[:, None]).T @ other
    best, order = _best_order(fits), list(range(len(fits)))
    moved: list[int] = []
    unsure: list[int] = []
    for circle in _circles(best):
        clear, errors = True, ERRORS / math.sqrt(len(circle) / 2)
        for i in circle:
            j = best[i]
            others = np.abs(np.concatenate([np.delete(fits[i], j), np.delete(fits[:, j], i)]))
            gains = np.bincount(group, (one[:, i] - one[:, j]) * other[:, j] * weight)
            surely = gains.sum() >= errors * math.sqrt((gains**2).sum())
            clear &= bool(fits[i, j] > 0 and fits[i, j] >= CLEARLY * others.max() and surely)
        if clear:
            moved += circle
            for i in circle:
                order[i] = best[i]
        elif all(fits[i, best[i]] > max(0, fits[best[i], best[i]]) for i in circle):
            unsure += circle
    return tuple(order), tuple(sorted(moved)), tuple(sorted(unsure))


def _circles(order: Sequence[int]) -> Iterator[list[int]]:
    """The classes that change places with each other in an order."""
    seen: set[int] = set()
    for start in range(len(order)):
        circle, i = [], start
        while i not in seen:
            seen.add(i)
            circle.append(i)
            i = order[i]
        if len(circle) > 1:
            yield circle


def _listed(classes: Sequence[int], names: Sequence[str]) -> str:
    shown = [names[i] for i in classes[:_SHOWN]]
    return listing(shown) if len(classes) <= _SHOWN else f"{listing(shown)} and {len(classes) - _SHOWN} other classes"


_SHOWN = 6
"""Classes that a sentence names."""

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
    if not len(one):
        return np.zeros((one.shape[1], other.shape[1]))
    parts = [_standard(x, np.full(len(x), 1 / len(x))) for x in (one, other)]
    return parts[0].T @ parts[1] / len(one)


def _standard(x: Any, weight: Any) -> Any:
    """Columns of mean 0 and variance 1 over rows of these weights; constants become 0."""
    x = x - weight @ x
    spread = np.sqrt(weight @ x**2)
    return x / np.where(spread > 1e-9, spread, np.inf)


def _best_order(fits: Any) -> tuple[int, ...]:
    """The permutation that fits best; among equals one that leaves classes where they are."""
    return tuple(int(i) for i in linear_sum_assignment(fits + 1e-9 * np.eye(len(fits)), maximize=True)[1])


def _sum(fits: Any, order: Sequence[int] | None = None) -> float:
    """How well the classes fit in this order."""
    return float(fits[range(len(fits)), list(range(len(fits)) if order is None else order)].sum())
