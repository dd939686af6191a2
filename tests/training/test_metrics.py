"""Metrics that count, and those of numbers: equal to torchmetrics, in one piece or in several."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy import stats
from sklearn.metrics import matthews_corrcoef
from torch.nn import functional
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from torchmetrics.functional import mean_squared_error, pearson_corrcoef, spearman_corrcoef
from torchmetrics.text import Perplexity

import brewgraph.training.metrics as package
from brewgraph.recipe.label_types import CLASS, LABEL_TYPES, SPANS
from brewgraph.recipe.settings.metric_names import metric_names
from brewgraph.training.metrics import (
    METRICS,
    ClassMetrics,
    LabelsMetrics,
    Metric,
    TokenMetrics,
    ValueMetrics,
    make_metric,
    ranks,
)


def in_parts(make: Any, batches: Sequence[tuple[Any, dict[str, Any]]]) -> dict[str, float]:
    """The values over all batches by one metric, which have to be those that two ranks come to, each of the two."""
    whole, first, second = make(), make(), make()
    for number, (logits, batch) in enumerate(batches):
        reduced = whole.reduce(logits, batch)
        whole.update(*reduced)
        (first if number < len(batches) // 2 else second).update(*reduced)
    states = [first.state(), second.state()]
    assert all(part.device.type == "cpu" for state in states for part in state)
    first.merge(*states[1])
    second.merge(*states[0])
    values: dict[str, float] = whole.compute()
    assert first.compute() == pytest.approx(values, nan_ok=True)
    assert second.compute() == pytest.approx(values, nan_ok=True)
    return values


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_classes_equal_torchmetrics(classes: int, seed: int) -> None:
    """Accuracy, macro F1, F1 of class 1 and Matthews on random guesses, some classes never there."""
    torch.manual_seed(seed)
    logits = [torch.randn(n, classes) for n in (5, 1, 8)]
    labels = [torch.randint(0, classes - (classes == 7), (len(x),)) for x in logits]
    found = in_parts(lambda: ClassMetrics(classes), [(x, {"labels": y}) for x, y in zip(logits, labels, strict=True)])
    guess, right = torch.cat(logits).argmax(-1), torch.cat(labels)
    expected = {
        "accuracy": MulticlassAccuracy(classes, average="micro")(guess, right),
        "macro_f1": MulticlassF1Score(classes, average="macro")(guess, right),
        "matthews": MulticlassMatthewsCorrCoef(classes)(guess, right),
        **({"f1": BinaryF1Score()(guess, right)} if classes == 2 else {}),
    }
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)
    assert set(found) == set(metric_names(CLASS, [str(n) for n in range(classes)]))


def test_classes_by_hand() -> None:
    """Four examples whose scores are easily counted; labels of -100 are no examples; one class alone has no Matthews."""
    metric = ClassMetrics(2)
    metric.update(torch.tensor([0, 1, 1, 1, 0]), torch.tensor([0, 0, 1, 1, -100]))
    expected = {"accuracy": 0.75, "macro_f1": (2 / 3 + 4 / 5) / 2, "f1": 4 / 5, "matthews": 1 / math.sqrt(3)}
    assert metric.compute() == pytest.approx(expected)
    metric = ClassMetrics(3)
    metric.update(torch.tensor([1, 1]), torch.tensor([1, 1]))
    assert metric.compute() == {"accuracy": 1.0, "macro_f1": 1.0, "matthews": 0.0}


@pytest.mark.parametrize("seed", range(5))
def test_several_labels_equal_torchmetrics(seed: int) -> None:
    """Micro and macro F1 and exact matches; one class is never there."""
    torch.manual_seed(seed)
    logits = [torch.randn(n, 4) - 0.5 for n in (6, 3, 7)]
    labels = [(torch.rand(len(x), 4) > 0.6).float() for x in logits]
    for x, y in zip(logits, labels, strict=True):
        x[:, 3], y[:, 3] = -1.0, 0.0
        y[:2] = (x[:2] > 0).float()
    found = in_parts(lambda: LabelsMetrics(4), [(x, {"labels": y}) for x, y in zip(logits, labels, strict=True)])
    guess, right = torch.cat(logits).sigmoid(), torch.cat(labels).long()
    expected = {
        "micro_f1": MultilabelF1Score(4, average="micro")(guess, right),
        "macro_f1": MultilabelF1Score(4, average="macro")(guess, right),
        "exact_match": MultilabelExactMatch(4)(guess, right),
    }
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)
    assert found["exact_match"] > 0


def test_several_labels_by_hand() -> None:
    """Two of three labels found, one guessed that is not there; no labels at all is a match too."""
    metric = LabelsMetrics(2)
    metric.update(torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([[1, 1], [0, 1], [0, 0]]))
    assert metric.compute() == pytest.approx({"micro_f1": 2 / 3, "macro_f1": 2 / 3, "exact_match": 1 / 3})


@pytest.mark.parametrize("seed", range(5))
def test_numbers_equal_torchmetrics(seed: int) -> None:
    """Pearson, Spearman with many ties, squared error."""
    torch.manual_seed(seed)
    labels = [torch.randint(0, 5, (n,)).float() for n in (9, 4, 1, 6)]
    logits = [(y + torch.randn_like(y)).mul(2).round().div(2)[:, None] for y in labels]
    found = in_parts(ValueMetrics, [(x, {"labels": y}) for x, y in zip(logits, labels, strict=True)])
    guess, right = torch.cat(logits)[:, 0].double(), torch.cat(labels).double()
    expected = {
        "spearman": spearman_corrcoef(guess, right),
        "pearson": pearson_corrcoef(guess, right),
        "mse": mean_squared_error(guess, right),
    }
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)


def test_numbers_by_hand() -> None:
    """Ranks with ties; a monotone relation has Spearman 1 where Pearson is less."""
    assert ranks(torch.tensor([5.0, 1.0, 5.0, 0.0])).tolist() == [3.5, 2.0, 3.5, 1.0]
    metric = ValueMetrics()
    metric.update(torch.tensor([1.0, 10.0, 100.0]), torch.tensor([1.0, 2.0, 3.0]))
    values = metric.compute()
    assert values["spearman"] == pytest.approx(1.0)
    assert values["pearson"] == pytest.approx(99 / (5994 * 2) ** 0.5)
    assert values["mse"] == pytest.approx((64 + 97**2) / 3)


@pytest.mark.parametrize(
    ("guess", "labels"),
    [
        ([0.1] * 7, list(range(7))),
        (list(range(7)), [0.1] * 7),
        ([0.1] * 3, [2.0] * 3),
        ([0.5], [0.5]),
        ([1.0, 2.0], [3.0, 5.0]),
        ([1e-9, 2e-9, 0.0], [1.0, 2.0, 3.0]),
    ],
)
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_correlations_that_are_not_defined_are_those_of_scipy(guess: list, labels: list) -> None:
    """Of what does not vary, and of a single example, there is none: not a number, and not zero, which is a value."""
    metric = ValueMetrics()
    metric.update(torch.tensor(guess, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64))
    found = metric.compute()
    wanted = [stats.pearsonr, stats.spearmanr] if len(guess) > 1 else []  # of one pair scipy has an error of its own
    for name, of in zip(("pearson", "spearman"), wanted, strict=False):
        assert found[name] == pytest.approx(float(of(guess, labels).statistic), nan_ok=True)
    assert (
        math.isnan(found["pearson"]) == math.isnan(found["spearman"]) == (len(set(guess)) == 1 or len(set(labels)) == 1)
    )


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_matthews_of_one_class_is_zero_as_in_scikit_learn() -> None:
    """GLUE's CoLA has it so: all guesses alike, all labels alike, one example."""
    for guess, labels in (([1, 1, 1], [0, 1, 1]), ([0, 1], [1, 1]), ([0], [1]), ([1], [1])):
        metric = ClassMetrics(2)
        metric.update(torch.tensor(guess), torch.tensor(labels))
        assert metric.compute()["matthews"] == matthews_corrcoef(labels, guess) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_perplexity_equals_torchmetrics(seed: int) -> None:
    """The mean is over tokens, of batches with very different numbers of them."""
    torch.manual_seed(seed)
    logits = [torch.randn(b, n, 11) * 3 for b, n in ((3, 7), (1, 2), (2, 5))]
    labels = [torch.randint(0, 11, x.shape[:2]) for x in logits]
    labels[0][:, 1:] = -100
    found = in_parts(TokenMetrics, [(x, {"labels": y}) for x, y in zip(logits, labels, strict=True)])
    expected = Perplexity(ignore_index=-100)
    right = total = 0
    for x, y in zip(logits, labels, strict=True):
        expected.update(x, y)
        right += int((x.argmax(-1) == y).sum())
        total += int((y != -100).sum())
    assert found["perplexity"] == pytest.approx(float(expected.compute()), rel=1e-5)
    assert found["token_accuracy"] == right / total


def test_perplexity_by_hand() -> None:
    """Even odds among four have a perplexity of 4; what is sure and wrong an infinite one; no labels none."""
    metric = TokenMetrics()
    labels = torch.tensor([[1, -100, 0]])
    metric.update(*metric.reduce(torch.zeros(1, 3, 4), {"labels": labels}))
    assert metric.compute() == pytest.approx({"perplexity": 4.0, "token_accuracy": 0.5})
    metric.update(*metric.reduce(functional.one_hot(torch.tensor([[2, 2, 2]]), 4) * 1e4, {"labels": labels}))
    assert metric.compute()["perplexity"] == math.inf
    assert math.isnan(TokenMetrics().compute()["perplexity"])


def test_every_type_of_labels_has_a_metric() -> None:
    assert set(METRICS) == {name for name in LABEL_TYPES if name}


@pytest.mark.parametrize("name", [name for name in LABEL_TYPES if name])
def test_every_metric_gives_the_names_that_are_promised(name: str) -> None:
    """`metrics` of a label type is what `compute` gives, with two classes, tags of entities and a question that has no answer."""
    classes, label_type = ["O", "B-X"], LABEL_TYPES[name]
    asked = [{"index": n, "text_1": "a b", "answers": {"text": ["b"] * n}} for n in range(2)]
    metric: Metric = make_metric(label_type, classes, asked, null_threshold=0.0)
    if label_type == SPANS:
        metric.update(torch.arange(2), *torch.ones(4, 2, dtype=torch.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = metric.compute()
    assert set(values) == set(label_type.metrics) == set(metric_names(label_type, classes))


def test_examples_in_docstrings_are_true() -> None:
    """What the docstrings show comes out."""
    results = doctest.testmod(package)
    assert results.attempted
    assert results.failed == 0
