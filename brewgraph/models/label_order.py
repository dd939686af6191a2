"""Whether a teacher numbers its classes as the data does: the permutation that fits its predictions best.

A teacher fine-tuned elsewhere may call `entailment` 2 where the data calls it 0. Number and names of the classes agree,
every shape fits, and distillation silently teaches the student a wrong order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from brewgraph.diagnostics import few, listing, shortened

Array = np.ndarray

GAIN = 0.2
"""How much better another order must be to count as the true one."""
LEARNT = 0.3
"""The share of what chance leaves wrong that this order must get right (Cohen's kappa), for one label per text: with
two classes, an untrained model is often worse than chance.
"""
LEAST = 0.5
"""The least figure of tags, several labels and answers in another order: an untrained model may fit one by luck."""
FEWEST = 64
"""The least number of distinct labelled texts (words, answers) for a verdict: with fewer, any order could be luck."""
CLEARLY = 1.5
"""How many times more a moved class must correlate with its true class than with any other."""
ERRORS = 4.0
"""By how many standard errors that must exceed the correlation as it stands, where two classes change places."""


@dataclass(frozen=True)
class LabelOrder:
    """What a sample of predictions tells of a model's classes.

    `verdict`: `ok`; `permuted`: another order is at least 20 points better, or some classes clearly changed places;
    `chance`: predictions and labels agree no more often than unrelated ones would. `order[i]` is the data's class that
    the model's class i means in the best order. `accuracy` is the share of `rows` (or another figure) as they are,
    `best` in that order. `unsure` are classes that may have changed places, on too few rows to tell. `message` and
    `help` are sentences, empty where all is well.
    """

    verdict: Literal["ok", "permuted", "chance"]
    accuracy: float
    best: float
    rows: int
    order: tuple[int, ...]
    message: str = ""
    help: str = ""
    unsure: tuple[int, ...] = ()


@dataclass(frozen=True)
class OrderCheck:
    """Checks the classes of a model against those of the data, `names`.

    `places` are the model's own class numbers where its classes were reordered, for the remedy.
    """

    names: Sequence[str]
    model: str = "the teacher"
    places: Sequence[int] = ()

    def labels(self, predictions: ArrayLike, labels: ArrayLike, texts: ArrayLike | None = None) -> LabelOrder:
        """Compare predicted classes (N,) with labels (N,), integers below C = len(names); labels of -100 are skipped.

        The best order has the largest sum over the confusion matrix (the assignment problem, Kuhn 1955). As the best of
        C! orders always looks better than it is, its gain is measured on rows that it was not fitted to. Chance is the
        agreement that both frequencies alone explain (Cohen 1960, equation 1), with two standard errors. A few of many
        classes gain little in all: these are searched one by one (`_moved`). `texts` (N,) numbers the texts, of which
        equal ones count once there; without it, all differ.
        """
        predicted, true, texts = _labelled(predictions, labels, texts)
        count = len(self.names)
        as_is, gain = _compare(lambda kept: _confusion(predicted[kept], true[kept], count) / max(1, kept.sum()), texts)
        if len(np.unique(texts)) < FEWEST or len(np.unique(true)) < 2:
            return as_is
        chance = _chance(np.asarray(as_is.order)[predicted], true, count)
        if gain >= GAIN and as_is.best - chance >= LEARNT * (1 - chance):
            what = f"{self.model} gets {as_is.accuracy:.0%} of {len(true)} labelled examples right"
            return self._permuted(as_is, f"{what}, and {as_is.best:.0%}")
        return self._one_by_one(as_is, predicted, true, texts, "labelled examples")

    def tags(self, predictions: ArrayLike, labels: ArrayLike, tokens: ArrayLike) -> LabelOrder:
        """The same for tags of words, (N,) each; `tokens` are the words' first tokens.

        Most words have the same tag, so the figure compared is the share of words that are right, averaged over the
        tags that occur. Gains are measured on words other than those an order was fitted to: an untrained model gives a
        word the same tag everywhere, which looks like an order of its own. In the best order at least `LEAST` must be
        right, and more with fewer distinct words.
        """
        predicted, true, words = _labelled(predictions, labels, tokens)

        def fit(kept: Array) -> Array:
            counts = _confusion(predicted[kept], true[kept], len(self.names))
            per_tag = counts.sum(0)
            shares: Array = counts / np.maximum(1, per_tag) / max(1, (per_tag > 0).sum())
            return shares

        as_is, gain = _compare(fit, words)
        if len(true) < FEWEST or len(np.unique(true)) < 2:
            return as_is
        if gain >= GAIN and as_is.best >= LEAST + 1 / math.sqrt(len(np.unique(words))):
            what = f"{self.model} gets {as_is.accuracy:.0%} of a tag's words right, the mean over tags"
            return self._permuted(as_is, f"{what} and {len(true)} words, and {as_is.best:.0%}")
        return self._one_by_one(as_is, predicted, true, words, "labelled words")

    def several(self, probabilities: ArrayLike, labels: ArrayLike, texts: ArrayLike | None = None) -> LabelOrder:
        """The same where an example has any number of labels: probabilities and labels, (N, C) each.

        The figure compared is the correlation of a class's probability with its label, averaged over the classes that
        some examples have and others have not. In the best order it must be at least `LEAST`, and more with fewer
        examples.
        """
        count = len(self.names)
        predicted, true = (np.asarray(x, dtype=np.float64).reshape(-1, count) for x in (probabilities, labels))
        rows = len(true)
        groups = np.arange(rows) if texts is None else np.asarray(texts).reshape(-1)
        varied = true.std(0) > 0
        columns = max(1, varied.sum())
        as_is, gain = _compare(lambda kept: _correlations(predicted[kept], true[kept]) * varied / columns, groups)
        if len(np.unique(groups)) < FEWEST or columns < 2:
            return as_is
        what = f"the probabilities of {self.model} correlate with {rows} labelled examples"
        if gain >= GAIN and as_is.best >= LEAST + 1 / math.sqrt(rows):
            return self._permuted(as_is, f"{what} by {as_is.accuracy:.2f}, and by {as_is.best:.2f}")
        order, moved, unsure = _moved(predicted, true, groups)
        if moved:
            fits = _correlations(predicted, true)
            before, best = (float(np.mean([fits[i, to[i]] for i in moved])) for to in (range(count), order))
            what += f" in {self._listed(moved)} by {before:.2f}, and by {best:.2f}"
            return self._permuted(LabelOrder("permuted", before, best, rows, order), what)
        chance = f"{what} by {as_is.accuracy:.2f}, no better than chance"
        return _unmoved(as_is, unsure, "" if as_is.accuracy > 2 / math.sqrt(rows * columns) else chance)

    def _one_by_one(self, as_is: LabelOrder, predicted: Array, true: Array, groups: Array, kind: str) -> LabelOrder:
        """The verdict on single classes where no whole order is better: some are moved, all is well, or chance."""
        classes, rows = np.eye(len(self.names)), len(true)
        order, moved, unsure = _moved(classes[predicted], classes[true], groups)
        if moved:
            of = np.isin(true, moved)
            orders = np.arange(len(order)), np.asarray(order)
            before, best = (float((to[predicted[of]] == true[of]).mean()) for to in orders)
            what = f"{self.model} gets {before:.0%} of the {of.sum()} {kind} of {self._listed(moved)} right"
            return self._permuted(LabelOrder("permuted", before, best, rows, order), f"{what}, and {best:.0%}")
        right, chance = float((predicted == true).mean()), _chance(predicted, true, len(self.names))
        message = f"{self.model} gets {right:.0%} of {rows} {kind} right, no better than chance"
        learnt = right > chance + 2 * math.sqrt(chance * (1 - chance) / rows)
        return _unmoved(as_is, unsure, "" if learnt else f"{message} with its predictions ({chance:.0%})")

    def _permuted(self, best: LabelOrder, what: str) -> LabelOrder:
        names = self.names
        pairs = ((shortened(names[i]), shortened(names[j])) for i, j in enumerate(best.order) if i != j)
        moved = few((f"its `{one}` is the data's `{other}`" for one, other in pairs), _SHOWN)
        listed = dict(zip(self.places or range(len(names)), (names[j] for j in best.order), strict=True))
        shown = ", ".join(json.dumps(listed[i], ensure_ascii=False) for i in sorted(listed))
        message = f"{what} with its classes in another order: {moved}"
        return replace(best, verdict="permuted", message=message, help=f"name its classes: labels=[{shown}]")

    def _listed(self, classes: Sequence[int]) -> str:
        shown, more = [self.names[i] for i in classes[:_SHOWN]], len(classes) - _SHOWN
        return f"{listing(shown)} and {more} other classes" if more > 0 else listing(shown)


_SHOWN = 6
"""Classes that a sentence names."""

_UNTAUGHT = "fine-tune it for these classes first; if it is fine-tuned, check what its classes mean: labels=[…]"


def _unmoved(as_is: LabelOrder, unsure: tuple[int, ...], chance: str) -> LabelOrder:
    """The verdict where no class clearly moved; `chance` is the message of predictions that are no better."""
    checked = replace(as_is, unsure=unsure)
    return replace(checked, verdict="chance", message=chance, help=_UNTAUGHT) if chance else checked


def check_span_order(predictions: ArrayLike, labels: ArrayLike, model: str = "the teacher") -> LabelOrder:
    """Whether a model's starts are the ends of answers, and its ends the starts: tokens, (N, 2) each.

    Only answers of several tokens count; labels of -100 are skipped. `order` is (1, 0) where they are swapped: right in
    at least `LEAST` of both, and better by `GAIN` than as they are.
    """
    predicted, true = (np.asarray(x, dtype=np.int64).reshape(-1, 2) for x in (predictions, labels))
    long = (true[:, 0] != true[:, 1]) & (true[:, 0] != -100)
    predicted, true, rows = predicted[long], true[long], int(long.sum())
    if rows < FEWEST:
        return LabelOrder("ok", 0.0, 0.0, rows, (0, 1))
    halves = (predicted == true[:, ::-1]).mean(0)
    right, swapped = float((predicted == true).mean()), float(halves.mean())
    if swapped - right < GAIN or halves.min() < LEAST:
        return LabelOrder("ok", right, max(right, swapped), rows, (0, 1))
    message = (
        f"{model} finds {right:.0%} of the starts and ends of {rows} answers, "
        f"and {swapped:.0%} with its starts and ends swapped"
    )
    return LabelOrder("permuted", right, swapped, rows, (1, 0), message)


def _compare(fit: Callable[[Array], Array], groups: Array) -> tuple[LabelOrder, float]:
    """The best order of all rows, and its gain as measured on each half of the groups with the order of the other half.

    `fit` gives for a choice of rows how well each class of the model (row) fits each of the data (column), (C, C).
    """
    whole = fit(np.ones(len(groups), dtype=bool))
    one, other = (fit(groups % 2 == number) for number in (0, 1))
    order = _best_order(whole)
    gains = [_sum(half, _best_order(fitted)) - _sum(half) for half, fitted in ((one, other), (other, one))]
    accuracy, best = _sum(whole), _sum(whole, order)
    return LabelOrder("ok", accuracy, best, len(groups), order), min(best - accuracy, sum(gains) / 2)


def _chance(predicted: Array, true: Array, count: int) -> float:
    """The share of rows that frequencies alone would get right."""
    whole = _confusion(predicted, true, count)
    return float((whole.sum(0) * whole.sum(1)).sum()) / max(1, len(true)) ** 2


def _moved(predicted: Array, true: Array, groups: Array) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The best order of the classes that clearly changed places, these classes, and those that only may have.

    `predicted` and `true` (N, C) are compared by the correlations of their columns; rows of one of the `groups` (N,)
    count as one, and so do their errors. In the best order classes change places in circles. With an untrained model
    some class of each circle loses: a circle counts only where every class in it gains by `ERRORS` standard errors
    (fewer in longer circles), and correlates `CLEARLY` times more with its new class than either with any other.
    """
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    weight = 1 / size[group] / len(size)
    one, other = (_standard(x, weight) for x in (predicted, true))
    fits = (one * weight[:, None]).T @ other
    best, order = _best_order(fits), list(range(len(fits)))
    moved: list[int] = []
    unsure: list[int] = []
    circles = (circle for circle in nx.connected_components(nx.Graph(enumerate(best))) if len(circle) > 1)
    for circle in circles:
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


def _labelled(predictions: ArrayLike, labels: ArrayLike, groups: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Predictions, labels and groups (N,) of the rows with a label; without groups each row is one of its own."""
    predicted, true = (np.asarray(x, dtype=np.int64).reshape(-1) for x in (predictions, labels))
    labelled = true != -100
    numbers = np.arange(labelled.sum()) if groups is None else np.asarray(groups, dtype=np.int64).reshape(-1)[labelled]
    return predicted[labelled], true[labelled], numbers


def _confusion(predicted: Array, true: Array, count: int) -> Array:
    """How often each class (row) was predicted where each class (column) was right, (C, C)."""
    return np.bincount(predicted * count + true, minlength=count**2).reshape(count, count)


def _correlations(one: Array, other: Array) -> Array:
    """Pearson's correlation of each column of one (row) with each column of the other (column); 0 of constants."""
    if not len(one):
        return np.zeros((one.shape[1], other.shape[1]))
    parts = [_standard(x, np.full(len(x), 1 / len(x))) for x in (one, other)]
    correlations: Array = parts[0].T @ parts[1] / len(one)
    return correlations


def _standard(x: Array, weight: Array) -> Array:
    """Columns of mean 0 and variance 1 over rows of these weights; constants become 0."""
    x = x - weight @ x
    spread = np.sqrt(weight @ x**2)
    scaled: Array = x / np.where(spread > 1e-9, spread, np.inf)
    return scaled


def _best_order(fits: Array) -> tuple[int, ...]:
    """The permutation that fits best; among equals one that leaves classes where they are."""
    return tuple(int(i) for i in linear_sum_assignment(fits + 1e-9 * np.eye(len(fits)), maximize=True)[1])


def _sum(fits: Array, order: Sequence[int] | None = None) -> float:
    """How well the classes fit in this order."""
    return float(fits[range(len(fits)), list(range(len(fits)) if order is None else order)].sum())
