"""The best student of a stage so far, and when to stop looking for a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from brewgraph.recipe.settings.train import Train


@dataclass
class Progress:
    """How a stage's scores went: the best one and its step in the run, and how many evaluations since were no better.

    A score is the best where it is strictly better, so that of equal ones the earliest stays. Patience, as in
    transformers, begins anew only where it is better by more than the threshold.
    """

    score: float | None = None
    step: int = 0
    misses: int = 0
    scores: dict[str, float] = field(default_factory=dict)

    def take(self, value: float, step: int, scores: dict[str, float], settings: Train) -> bool:
        """Note an evaluation; whether it is the best so far. A score that is no number is never one."""
        gain = math.inf if self.score is None else value - self.score
        if self.score is not None and not settings.greater_is_better:
            gain = -gain
        better = not math.isnan(value) and gain > 0
        self.misses = 0 if better and gain > settings.early_stopping_threshold else self.misses + 1
        if better:
            self.score, self.step, self.scores = value, step, scores
        return better

    def exhausted(self, settings: Train) -> bool:
        """Whether the stage is over before its time."""
        patience = settings.early_stopping_patience
        return patience is not None and self.misses >= patience
