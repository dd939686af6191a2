"""What is trained: stages with their settings, the data of their tasks, and how tasks are drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from brewgraph.data.batching.order import derive_seed
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.diagnostics import RunError, UsageError
from brewgraph.recipe.label_types import CLASS, LabelType
from brewgraph.recipe.length import Length
from brewgraph.recipe.settings.train import Train
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.feeds import Feed, order_seed, place, steps_of_epoch
from brewgraph.training.freezing import Freeze


@dataclass(frozen=True)
class Draw:
    """Which task an optimizer step trains: a function of seed, stage and step, so that ranks and resumed runs agree.

    Tasks are drawn at random in proportion to `weights`, or in a repeated `order`. The order of `weights` decides which
    task a random number means. `floor` is a lower bound for each probability. A task is drawn for all micro-batches of
    an optimizer step, because a loss is a mean over the whole step. To draw by micro-batch, as TextBrewer does, leave
    `accumulate` at 1.
    """

    weights: Mapping[str, float]
    floor: float = 0.0
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.order) - self.weights.keys():
            raise RunError(f"the order of tasks names `{min(unknown)}`, which is not a task")
        if not self.weights or any(not math.isfinite(w) or w < 0 for w in self.weights.values()):
            raise RunError("the weights of tasks must be finite and not negative")
        if not self.order and sum(self.weights.values()) <= 0:
            raise RunError("every task has weight zero; at least one must be above zero")
        if not 0 <= self.floor * len(self.weights) <= 1:
            raise RunError(f"{len(self.weights)} tasks cannot all have a probability of {self.floor:g} or more")

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each task, or its share of the `order`.

        Tasks below the floor are raised to it; the others share the rest in proportion to their weights.
        """
        if self.order:
            return {task: self.order.count(task) / len(self.order) for task in self.weights}
        lifted: set[str] = set()
        while True:
            rest = {task: weight for task, weight in self.weights.items() if task not in lifted}
            left, total = 1.0 - self.floor * len(lifted), sum(rest.values())
            shares = {task: left * weight / total if total else left / len(rest) for task, weight in rest.items()}
            below = {task for task, share in shares.items() if share < self.floor}
            if not below or below == rest.keys():
                return {task: shares.get(task, self.floor) for task in self.weights}
            lifted |= below

    def task(self, seed: int, stage: int, step: int) -> str:
        """The task of a step of a stage, both counted from 0."""
        if self.order:
            return self.order[step % len(self.order)]
        at, chosen = derive_seed(seed, "task", stage, step) / 2**63, ""
        for task, probability in self.probabilities.items():
            if probability <= 0:
                continue
            chosen = task  # rounding may leave the sum a little below one: then it is the last
            if at < probability:
                break
            at -= probability
        return chosen

    def drawn(self, seed: int, stage: int, steps: int) -> dict[str, int]:
        """How often each task is drawn in a stage's first `steps` steps."""
        counts = Counter(self.task(seed, stage, step) for step in range(steps))
        return {task: counts[task] for task in self.weights}


@dataclass(frozen=True)
class Material:
    """What a task is trained and evaluated on.

    `feeds` are its data sets by name, the first of which defines epochs. `dev` holds the rows to evaluate on in batches
    of `batch` rows or tokens, made by `collator`, or batches of tensors; its labels are of the type `label_type` and
    belong to `classes`; `examples` are its rows before encoding, which some metrics need. `name` is the data set that
    `dev` belongs to. `head` is the student's head for this task, "" without heads. `null_threshold` is the margin by
    which "no answer" must beat the best answer, None if every question has an answer.
    """

    feeds: Mapping[str, Feed]
    dev: datasets.Dataset | ReadyBatches | None = None
    collator: Any = None
    batch: int | Length = 1
    classes: tuple[str, ...] = ()
    name: str = ""
    label_type: LabelType = CLASS
    examples: Any = None
    head: str = ""
    null_threshold: float | None = None

    @property
    def has_losses(self) -> bool:
        """Whether there are rows to evaluate the loss on: not if it reads several data sets, each with its own."""
        return len(self.feeds) == 1 and self.dev is not None and bool(len(self.dev))


@dataclass(frozen=True)
class StageWork:
    """One stage. `make` builds the loss around the current student; `materials` are those of its tasks.

    `identity` is a hash of what the stage computes; a checkpoint can be resumed only if that of every stage matches. A
    stage with one task needs no `draw`.
    """

    name: str
    make: Callable[[], Distiller]
    materials: Mapping[str, Material]
    settings: Train
    draw: Draw | None = None
    freeze: tuple[Freeze, ...] = ()
    identity: str = ""

    def __post_init__(self) -> None:
        if not self.materials:
            raise UsageError(f"stage `{self.name}` has nothing to train on")
        if self.draw is None and len(self.materials) > 1:
            raise UsageError(f"stage `{self.name}` has several tasks but no draw of tasks")
        if self.draw is not None and self.draw.weights.keys() != self.materials.keys():
            raise UsageError(f"the draw of stage `{self.name}` does not match its tasks")

    def task(self, stage: int, step: int) -> str:
        """The task of an optimizer step; `stage` is the stage's index."""
        return next(iter(self.materials)) if self.draw is None else self.draw.task(self.settings.seed, stage, step)

    def drawn(self, stage: int, steps: int) -> dict[str, int]:
        """How many of the first steps train each task."""
        if self.draw is None:
            return {next(iter(self.materials)): steps}
        return self.draw.drawn(self.settings.seed, stage, steps)


@dataclass(frozen=True)
class StageLength:
    """The length of a stage in optimizer steps."""

    steps: int
    per_epoch: int


@dataclass(frozen=True)
class Placed:
    """A stage as one rank runs it: its index, its feeds by task, and its length."""

    index: int
    work: StageWork
    feeds: Mapping[str, Mapping[str, Feed]]
    length: StageLength

    def fingerprint(self) -> tuple[Any, ...]:
        """What must match for a checkpoint to be resumed."""
        settings, draw = self.work.settings, self.work.draw
        sizes = [(task, name, feed.rows, len(feed)) for task, own in self.feeds.items() for name, feed in own.items()]
        order = (settings.group_by_length, settings.accumulate, settings.normalise, settings.seed)
        batches = [(task, material.batch) for task, material in self.work.materials.items()]
        how = None if draw is None else (sorted(draw.probabilities.items()), draw.order)
        frozen = [(one.kind, one.name, one.path) for one in self.work.freeze]
        return (self.work.name, self.work.identity, self.length, sizes, batches, order, how, frozen)


def place_stage(index: int, work: StageWork, rank: int, world: int) -> Placed:
    """A stage with a rank's feeds and its length. An epoch of several tasks is as long as all of theirs."""
    settings = work.settings
    places = {task: i for i, task in enumerate(work.draw.weights if work.draw is not None else work.materials)}
    feeds = {
        task: {
            name: place(
                feed,
                order_seed(settings.seed, index, places[task], j),
                rank,
                world,
                group_by_length=settings.group_by_length,
            )
            for j, (name, feed) in enumerate(material.feeds.items())
        }
        for task, material in work.materials.items()
    }
    per_epoch = sum(steps_of_epoch(own, settings.accumulate) for own in feeds.values())
    return Placed(index, work, feeds, StageLength(settings.total_steps(per_epoch), per_epoch))
