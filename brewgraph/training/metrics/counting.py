"""Metrics that are ratios of counts: classes, several labels at once, tokens of a language model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of what is not counted."""


def ratio(over: Tensor, under: Tensor) -> Tensor:
    """A quotient in double precision, 0 where there is nothing to divide by."""
    over, under = over.double(), under.double()
    return torch.where(under > 0, over / under.clamp(min=1e-300), torch.zeros_like(over))


class ClassMetrics:
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
        # per class: guessed rightly, guessed, labelled: enough for every metric here, and no C x C matrix
        self.counts_3C = torch.zeros(3, classes, dtype=torch.int64)

    @staticmethod
    def reduce(logits_BC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The most likely class of each example, and its label."""
        return logits_BC.argmax(-1), batch["labels"]

    def update(self, guess_B: Tensor, labels_B: Tensor) -> None:
        counted = labels_B != IGNORED
        guess, labels = guess_B[counted], labels_B[counted]
        size = self.counts_3C.shape[1]
        for row, found in enumerate((labels[guess == labels], guess, labels)):
            self.counts_3C[row] += torch.bincount(found.cpu(), minlength=size)

    def state(self) -> tuple[Tensor, ...]:
        return (self.counts_3C,)

    def merge(self, counts_3C: Tensor) -> None:
        self.counts_3C = self.counts_3C + counts_3C

    def compute(self) -> dict[str, float]:
        right, guessed, labelled = self.counts_3C.double()
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


class LabelsMetrics:
    """F1 and exact matches where each example has any number of labels; those of a probability above 0.5 are guessed.

    `macro_f1` is the mean over all classes, 0 for one that neither occurs nor is guessed; `exact_match` is the share of
    examples of which every label is right.
    """

    def __init__(self, classes: int):
        self.counts_3C = torch.zeros(3, classes, dtype=torch.int64)
        self.examples_2 = torch.zeros(2, dtype=torch.int64)

    @staticmethod
    def reduce(logits_BC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Which labels each example is given, and which it has: a logit above 0 is a probability above a half."""
        return logits_BC > 0, batch["labels"] > 0.5

    def update(self, guess_BC: Tensor, labels_BC: Tensor) -> None:
        guess, labels = guess_BC.bool().cpu(), labels_BC.bool().cpu()
        self.counts_3C += torch.stack([(guess & labels).sum(0), guess.sum(0), labels.sum(0)])
        self.examples_2 += torch.tensor([int((guess == labels).all(-1).sum()), len(labels)])

    def state(self) -> tuple[Tensor, ...]:
        return self.counts_3C, self.examples_2

    def merge(self, counts_3C: Tensor, examples_2: Tensor) -> None:
        self.counts_3C, self.examples_2 = self.counts_3C + counts_3C, self.examples_2 + examples_2

    def compute(self) -> dict[str, float]:
        right, guessed, labelled = self.counts_3C.double()
        f1 = ratio(2 * right, guessed + labelled)
        return {
            "micro_f1": float(ratio(2 * right.sum(), guessed.sum() + labelled.sum())),
            "macro_f1": float(f1.mean()) if len(f1) else 0.0,
            "exact_match": float(ratio(*self.examples_2)),
        }


class TokenMetrics:
    """Perplexity and accuracy of a language model over the tokens that have a label.

    `perplexity` is exp of the mean negative log-likelihood over all of them, not a mean over batches or texts. It is
    infinite where it exceeds what a float holds.
    """

    def __init__(self) -> None:
        self.sums_3 = torch.zeros(3, dtype=torch.float64)

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
        self.sums_3 += torch.stack([x.detach().cpu().double() for x in (loss, right, tokens)])

    def state(self) -> tuple[Tensor, ...]:
        return (self.sums_3,)

    def merge(self, sums_3: Tensor) -> None:
        self.sums_3 = self.sums_3 + sums_3

    def compute(self) -> dict[str, float]:
        loss, right, tokens = self.sums_3.tolist()
        mean = loss / tokens if tokens else math.nan
        try:
            perplexity = math.exp(mean)
        except OverflowError:
            perplexity = math.inf
        return {"perplexity": perplexity, "token_accuracy": right / tokens if tokens else math.nan}
