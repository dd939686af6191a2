"""Metrics that are ratios of counts: classes, several labels at once, tokens of a language model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of positions that do not count."""


def ratio(over: Tensor, under: Tensor) -> Tensor:
    """A quotient in double precision, 0 for a divisor of 0."""
    over, under = over.double(), under.double()
    return torch.where(under > 0, over / under.clamp(min=1e-300), torch.zeros_like(over))


class SummedMetric:
    """A metric whose state are sums, which those of other ranks are added to."""

    def __init__(self, *sums: Tensor):
        self.sums = sums

    def add(self, *sums: Tensor) -> None:
        self.sums = tuple(old + new for old, new in zip(self.sums, sums, strict=True))

    merge = add

    def state(self) -> tuple[Tensor, ...]:
        return self.sums


class ClassMetrics(SummedMetric):
    """Accuracy, F1 and Matthews' correlation of one label per example.

    `macro_f1` is the mean over the classes that occur, as labels or as guesses; `f1`, of two classes alone, is that of
    class 1. `matthews` is the generalisation to several classes (Gorodkin 2004, "Comparing two K-category assignments
    by a K-category correlation coefficient", eq. 8), 0 where labels or guesses are all of one class.

    >>> metric = ClassMetrics(2)
    >>> metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    >>> metric.compute()["accuracy"]
    0.75
    """

    def __init__(self, classes: int):
        # per class: guessed rightly, guessed, labelled: enough for every metric here, without a C x C matrix
        super().__init__(torch.zeros(3, classes, dtype=torch.int64))

    @staticmethod
    def reduce(logits_BC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The most likely class of each example, and its label."""
        return logits_BC.argmax(-1), batch["labels"]

    def update(self, guess_B: Tensor, labels_B: Tensor) -> None:
        counted = labels_B != IGNORED
        guess, labels = guess_B[counted], labels_B[counted]
        size = self.sums[0].shape[1]
        members = (labels[guess == labels], guess, labels)
        self.add(torch.stack([torch.bincount(x.cpu(), minlength=size) for x in members]))

    def compute(self) -> dict[str, float]:
        right, guessed, labelled = self.sums[0].double()
        total, correct = labelled.sum(), right.sum()
        f1 = ratio(2 * right, guessed + labelled)
        occurs = guessed + labelled > 0
        values = {
            "accuracy": float(ratio(correct, total)),
            "macro_f1": float(ratio(f1.sum(), occurs.sum())),
        }
        if len(f1) == 2:
            values["f1"] = float(f1[1])
        covariance = correct * total - guessed @ labelled
        spread = (total**2 - guessed @ guessed) * (total**2 - labelled @ labelled)
        return {**values, "matthews": float(ratio(covariance, spread.sqrt()))}


class LabelsMetrics(SummedMetric):
    """F1 and exact matches of any number of labels per example; a label is guessed at a probability above 0.5.

    `macro_f1` is the mean over all classes, 0 for one that neither occurs nor is guessed; `exact_match` is the share of
    examples of which every label is right.
    """

    def __init__(self, classes: int):
        super().__init__(torch.zeros(3, classes, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))

    @staticmethod
    def reduce(logits_BC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Which labels each example is given, and which it has: a logit above 0 is a probability above a half."""
        return logits_BC > 0, batch["labels"] > 0.5

    def update(self, guess_BC: Tensor, labels_BC: Tensor) -> None:
        guess, labels = guess_BC.bool().cpu(), labels_BC.bool().cpu()
        counts_3C = torch.stack([(guess & labels).sum(0), guess.sum(0), labels.sum(0)])
        self.add(counts_3C, torch.tensor([int((guess == labels).all(-1).sum()), len(labels)]))

    def compute(self) -> dict[str, float]:
        right, guessed, labelled = self.sums[0].double()
        f1 = ratio(2 * right, guessed + labelled)
        return {
            "micro_f1": float(ratio(2 * right.sum(), guessed.sum() + labelled.sum())),
            "macro_f1": float(f1.mean()) if len(f1) else 0.0,
            "exact_match": float(ratio(*self.sums[1])),
        }


class TokenMetrics(SummedMetric):
    """Perplexity and accuracy of a language model over the tokens that have a label.

    `perplexity` is exp of the mean negative log-likelihood over all of them, not a mean over batches or texts; infinite
    if it exceeds the range of a float.
    """

    def __init__(self) -> None:
        super().__init__(torch.zeros(3, dtype=torch.float64))

    @staticmethod
    def reduce(logits_BLV: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Over the labelled tokens: the sum of their negative log-likelihoods in nats, how many are guessed, how many
        there are. Labels stand at the logits that they belong to."""
        labels_BL = batch["labels"]
        counted = labels_BL != IGNORED
        logits, labels = logits_BLV[counted], labels_BL[counted]  # first, for with masks few tokens have a label
        loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
        return loss, (logits.argmax(-1) == labels).sum(), counted.sum()

    def update(self, loss: Tensor, right: Tensor, tokens: Tensor) -> None:
        self.add(torch.stack([x.detach().cpu().double() for x in (loss, right, tokens)]))

    def compute(self) -> dict[str, float]:
        loss, right, tokens = self.sums[0].tolist()
        mean = loss / tokens if tokens else math.nan
        try:
            perplexity = math.exp(mean)
        except OverflowError:
            perplexity = math.inf
        return {"perplexity": perplexity, "token_accuracy": right / tokens if tokens else math.nan}
