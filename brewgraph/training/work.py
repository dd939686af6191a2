"""What is trained: stages one after the other, each with the data of its tasks and settings of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.diagnostics import UsageError
from brewgraph.recipe.label_types import CLASS, LabelType
from brewgraph.recipe.settings.train import Train
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.draws import Draw
from brewgraph.training.feeds import Feed, order_seed, place, steps_of_epoch
from brewgraph.training.freezing import Freeze


@dataclass(frozen=True)
class Material:
    """What a task is trained and evaluated on.

    `feeds` are its data sets by name, the first of which makes the epochs. `dev` is evaluated on in batches of `batch`
    rows, made by `collator`, or is ready batches; its labels are of the type `label_type` and belong to `classes`;
    `examples` are its rows before they were encoded, which some metrics need. `name` is the data set that `dev` is a
    part of. `head` is the student's head for this task, "" for a student that is all there is. `null_threshold` is by
    how much no answer must exceed the best one, None where every question has an answer.
    """

    feeds: Mapping[str, Feed]
    dev: datasets.Dataset | ReadyBatches | None = None
    collator: Any = None
    batch: int = 1
    classes: tuple[str, ...] = ()
    name: str = ""
    label_type: LabelType = CLASS
    examples: Any = None
    head: str = ""
    null_threshold: float | None = None

    @property
    def has_losses(self) -> bool:
        """Whether there are rows to evaluate the loss on: not for a loss of several data sets, each with its own."""
        return len(self.feeds) == 1 and self.dev is not None and bool(len(self.dev))


@dataclass(frozen=True)
class StageWork:
    """One stage. `make` builds the loss around the student as it is by then; `materials` are those of its tasks.

    `identity` tells this stage from one of another meaning; a checkpoint goes on only where that of every stage fits.
    A stage of one task needs no `draw`.
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
            raise UsageError(f"stage `{self.name}` has several tasks, and no draw says whose turn it is")
        if self.draw is not None and self.draw.weights.keys() != self.materials.keys():
            raise UsageError(f"the draw of stage `{self.name}` is not over its tasks")

    def task(self, stage: int, step: int) -> str:
        """The task of an optimizer step, given the stage's place."""
        return next(iter(self.materials)) if self.draw is None else self.draw.task(self.settings.seed, stage, step)

    def drawn(self, stage: int, steps: int) -> dict[str, int]:
        """How many of the first steps went to each task."""
        if self.draw is None:
            return {next(iter(self.materials)): steps}
        return self.draw.drawn(self.settings.seed, stage, steps)


@dataclass(frozen=True)
class StageLength:
    """How long a stage goes on, in optimizer steps."""

    steps: int
    per_epoch: int


@dataclass(frozen=True)
class Placed:
    """A stage as one rank runs it: its place among the stages, its feeds by task, and its length."""

    index: int
    work: StageWork
    feeds: Mapping[str, Mapping[str, Feed]]
    length: StageLength

    def fingerprint(self) -> tuple[Any, ...]:
        """What has to be the same for a checkpoint to go on."""
        settings, draw = self.work.settings, self.work.draw
        sizes = [(task, name, feed.rows, len(feed)) for task, own in self.feeds.items() for name, feed in own.items()]
        order = (settings.group_by_length, settings.accumulate, settings.normalise, settings.seed)
        batches = [(task, material.batch) for task, material in self.work.materials.items()]
        how = None if draw is None else (sorted(draw.probabilities.items()), draw.order)
        frozen = [(one.kind, one.name, one.path) for one in self.work.freeze]
        return (self.work.name, self.work.identity, self.length, sizes, batches, order, how, frozen)


def place_stage(index: int, work: StageWork, rank: int, world: int) -> Placed:
    """The feeds of a stage for a rank, and its length. An epoch of several tasks is as long as theirs together."""
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
