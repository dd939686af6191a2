"""Metrics of numbers: correlations and the squared error, over all pairs of a guess and a label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ValueMetrics:
    """Pearson's and Spearman's correlation, and the mean squared error.

    Correlations of constant values, as of a single example, are NaN, as in scipy.

    >>> metric = ValueMetrics()
    >>> metric.update(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
    >>> round(metric.compute()["spearman"], 6)
    1.0
    """

    def __init__(self) -> None:
        self.pairs: list[Tensor] = []

    @staticmethod
    def reduce(logits: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The number of each example (logits are (B, 1), or (B,)), and its label."""
        return logits.reshape(len(logits)), batch["labels"]

    def update(self, guess_B: Tensor, labels_B: Tensor) -> None:
        self.pairs.append(torch.stack([guess_B.detach().cpu().double(), labels_B.cpu().double()]))

    def state(self) -> tuple[Tensor, ...]:
        return (self._pairs_2N(),)

    def merge(self, pairs_2N: Tensor) -> None:
        self.pairs.append(pairs_2N)

    def _pairs_2N(self) -> Tensor:
        return torch.cat(self.pairs, dim=1) if self.pairs else torch.zeros(2, 0, dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        guess, labels = self._pairs_2N()
        error = float(((guess - labels) ** 2).mean())  # NaN without pairs
        return {
            "spearman": correlation(ranks(guess), ranks(labels)),
            "pearson": correlation(guess, labels),
            "mse": error,
        }


def correlation(one_N: Tensor, other_N: Tensor) -> float:
    """Pearson's correlation; NaN if one of the two is constant."""
    one, other = one_N - one_N.mean(), other_N - other_N.mean()
    spread = one.norm() * other.norm()
    # rounding leaves a constant column with a small spread
    small = 1e-12 * (one_N.norm() * other_N.norm())
    return float((one @ other / spread).clamp(-1, 1)) if len(one) > 1 and spread > small else math.nan


def ranks(values_N: Tensor) -> Tensor:
    """The rank of each value from 1; equal values share the mean of their ranks."""
    _, inverse, counts = values_N.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean: Tensor = (last - (counts - 1) / 2)[inverse]
    return mean
