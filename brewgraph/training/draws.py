"""Which task an optimizer step trains: a function of seed, stage and step, so that ranks and resumed runs agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from brewgraph.data.batching.order import derive_seed
from brewgraph.diagnostics import RunError


@dataclass(frozen=True)
class Draw:
    """How tasks take turns: at random by `weights`, or in a given `order` that is gone through again and again.

    `weights` has a number for each task, none of them negative, in proportion to which tasks are drawn (sizes to some
    power); their order decides which task a random number stands for. `floor` is a probability that none of them falls
    below. A task is drawn for an optimizer step and holds for all of its micro-batches: a loss is a mean over the whole
    step, which micro-batches of two tasks do not have. To train with `order` by micro-batch, as TextBrewer draws, leave
    `accumulate` at 1.
    """

    weights: Mapping[str, float]
    floor: float = 0.0
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.order) - self.weights.keys():
            raise RunError(f"the order of tasks names `{min(unknown)}`, which is none of the tasks")
        if not self.weights or any(not math.isfinite(w) or w < 0 for w in self.weights.values()):
            raise RunError("the weights that tasks are drawn by are numbers from zero up")
        if not self.order and sum(self.weights.values()) <= 0:
            raise RunError("every task is drawn with weight zero: one at least is above it")
        if not 0 <= self.floor * len(self.weights) <= 1:
            raise RunError(f"{len(self.weights)} tasks cannot all have a probability of {self.floor:g} or more")

    @property
    def probabilities(self) -> dict[str, float]:
        """How likely each task is; in an `order`, the share of it that it has.

        Tasks below the floor are lifted to it, and the others share what is left in proportion to their weights.
        """
        if self.order:
            return {task: self.order.count(task) / len(self.order) for task in self.weights}
        lifted: set[str] = set()
        while True:
            rest = {task: weight for task, weight in self.weights.items() if task not in lifted}
            left, total = 1.0 - self.floor * len(lifted), sum(rest.values())
            found = {task: left * weight / total if total else left / len(rest) for task, weight in rest.items()}
            below = {task for task, probability in found.items() if probability < self.floor}
            if not below or below == rest.keys():
                return {task: found.get(task, self.floor) for task in self.weights}
            lifted |= below

    def task(self, seed: int, stage: int, step: int) -> str:
        """The task of a step of a stage, both counted from 0."""
        if self.order:
            return self.order[step % len(self.order)]
        at, chosen = derive_seed(seed, "task", stage, step) / 2**63, ""
        for task, probability in self.probabilities.items():
            if probability <= 0:
                continue
            chosen = task  # rounding may leave the sum a little below one: the last one stands
            if at < probability:
                break
            at -= probability
        return chosen

    def drawn(self, seed: int, stage: int, steps: int) -> dict[str, int]:
        """How often each task was drawn in a stage's first `steps` steps."""
        found = dict.fromkeys(self.weights, 0)
        for step in range(steps):
            found[self.task(seed, stage, step)] += 1
        return found
