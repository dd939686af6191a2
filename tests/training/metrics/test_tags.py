"""Entities: equal to seqeval, on sequences that are valid and on those that are not."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Entities

from brewgraph.training.metrics.tags import TagMetrics, entities

CLASSES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.mark.parametrize(
    ("tags", "default", "strict"),
    [
        ("O O", set(), set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}, {("PER", 0, 1), ("LOC", 3, 3)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}, {("PER", 0, 0), ("PER", 1, 1)}),
        ("I-PER I-PER O", {("PER", 0, 1)}, set()),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}, {("PER", 0, 0)}),
        ("O I-LOC B-LOC", {("LOC", 1, 1), ("LOC", 2, 2)}, {("LOC", 2, 2)}),
        ("B-PER O I-PER", {("PER", 0, 0), ("PER", 2, 2)}, {("PER", 0, 0)}),
        ("B I O I", {("_", 0, 1), ("_", 3, 3)}, {("_", 0, 1)}),
        ("B-a-b I-a-b I-a", {("a-b", 0, 1), ("a", 2, 2)}, {("a-b", 0, 1)}),
        ("", set(), set()),
    ],
)
def test_entities_by_hand(tags: str, default: set[object], strict: set[object]) -> None:
    """Where they begin and end, in both readings."""
    assert entities(tags.split()) == default
    assert entities(tags.split(), strict=True) == strict


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
def test_entities_equal_seqeval(prefixes: str) -> None:
    """Three thousand random sequences, most of them invalid."""
    chance = random.Random(0)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("X", "Y"))]
    for _ in range(3000):
        row = chance.choices(tags, k=chance.randint(0, 9))
        assert entities(row) == set(get_entities(row)), row
        if prefixes == "BI":
            expected = {(found.tag, found.start, found.end - 1) for found in Entities([row], IOB2).entities[0]}
            assert entities(row, strict=True) == expected, row


def random_tags(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels with words of several tokens and padding, and guesses that are right in two of three."""
    torch.manual_seed(seed)
    labels = torch.randint(0, 5, (8, 12))
    guess = torch.where(torch.rand(8, 12) < 0.66, labels, torch.randint(0, 5, (8, 12)))
    labels[torch.rand(8, 12) < 0.3] = -100
    labels[:, -1] = -100
    return guess, labels


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_seqeval(seed: int) -> None:
    """Precision, recall, F1 and strict F1 over two batches; words are the tokens with a label, and no others."""
    guess, labels = random_tags(seed)
    metric, other = TagMetrics(CLASSES), TagMetrics(CLASSES)
    metric.update(guess[:3], labels[:3])
    other.update(guess[3:], labels[3:])
    metric.merge(*other.state())
    rows = [
        [[CLASSES[i] for i in row[mask != -100].tolist()] for row, mask in zip(numbers, labels, strict=True)]
        for numbers in (labels, guess)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's complaints of what seqeval does with it
        expected = {
            "precision": precision_score(*rows),
            "recall": recall_score(*rows),
            "f1": f1_score(*rows),
            "strict_f1": f1_score(*rows, mode="strict", scheme=IOB2),
        }
    values = metric.compute()
    right = sum(a == b for one, two in zip(*rows, strict=True) for a, b in zip(one, two, strict=True))
    assert values == pytest.approx({**expected, "token_accuracy": right / sum(map(len, rows[0]))})
    assert 0 < values["strict_f1"] != values["f1"] < 1


def test_logits_become_tags() -> None:
    """The likeliest class per token; a perfect tagger scores 1 everywhere, one that finds nothing 0."""
    labels = torch.tensor([[-100, 1, 2, -100, 0], [3, -100, 4, -100, -100]])
    right = torch.nn.functional.one_hot(labels.clamp(min=0), 5).float()
    metric = TagMetrics(CLASSES)
    metric.update(*metric.reduce(right, {"labels": labels}))
    assert set(metric.compute().values()) == {1.0}
    metric = TagMetrics(CLASSES)
    metric.update(torch.zeros_like(labels), labels)
    assert metric.compute() == {"f1": 0, "precision": 0, "recall": 0, "strict_f1": 0, "token_accuracy": 1 / 5}


def test_tags_that_mark_no_entities() -> None:
    """Parts of speech are right or wrong one by one."""
    metric = TagMetrics(("NOUN", "VERB"))
    metric.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, -100]]))
    assert metric.compute() == {"token_accuracy": 0.5}
