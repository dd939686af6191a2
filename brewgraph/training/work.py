"""What is trained: stages with their settings, the batches of their tasks, how tasks are drawn, what is frozen."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import datasets
import numpy
import torch
from torch import nn

from brewgraph.data.batching.order import BatchOrder, derive_seed, loader, mark_idle
from brewgraph.data.encoding.encode import row_lengths
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.diagnostics import RunError, suggest
from brewgraph.recipe.label_types import CLASS, LabelType
from brewgraph.recipe.length import Length, fewest_tokens
from brewgraph.recipe.recipe import Frozen
from brewgraph.recipe.settings.train import Train
from brewgraph.runtime.distiller import Distiller, parameter_name
from brewgraph.runtime.instructions import first_tensor


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
        if not self.weights or any(not math.isfinite(w) or w < 0 for w in self.weights.values()):
            raise RunError("the weights of tasks must be finite and not negative")
        if not self.order and sum(self.weights.values()) <= 0:
            raise RunError("every task has weight zero; at least one must be above zero")

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
    freeze: tuple[Frozen, ...] = ()
    identity: str = ""

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


# ── feeds ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class RowFeed:
    """Rows of an encoded split, shuffled in every epoch and batched by `collator`.

    `batch` counts rows, or tokens, over all ranks, of which this feed gives one rank's share. A collator with
    `set_epoch` gets the epoch before each batch, because another feed may have used it in between.
    """

    dataset: datasets.Dataset
    collator: Any
    batch: int | Length
    seed: int = 0
    rank: int = 0
    world: int = 1
    group_by_length: bool = False

    @property
    def rows(self) -> int:
        return len(self.dataset)

    def __len__(self) -> int:
        return len(self.order())

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        order = self.order()
        order.set_epoch(epoch)
        order.start_at(start)
        for number, batch in enumerate(loader(self.dataset, order, at_epoch(self.collator, epoch)), start):
            yield mark_idle(batch) if order.idle(number) else batch

    def order(self) -> BatchOrder:
        """The rows of each batch, at the beginning of epoch 0."""
        return BatchOrder(
            self.rows,
            self.batch,
            seed=self.seed,
            rank=self.rank,
            world=self.world,
            lengths=self._lengths,
            by_length=self.group_by_length,
        )

    @cached_property
    def _lengths(self) -> numpy.ndarray | None:
        return row_lengths(self.dataset) if self.group_by_length or not isinstance(self.batch, int) else None


@dataclass(frozen=True)
class TensorFeed:
    """One rank's rows of batches of tensors: a share of each, the first ranks one row more if it does not divide.

    A rank without a row of a batch gets its first row, marked as idle.
    """

    whole: ReadyBatches
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def rows(self) -> int:
        return sum(len(batch["index"]) for batch in self.whole.train)

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        for batch in self.whole.epoch(epoch, seed=self.seed, start=start):
            idle = len(first_tensor(batch)) <= self.rank
            yield mark_idle(self._share(batch, idle)) if idle else self._share(batch, idle)

    def _share(self, content: Any, idle: bool) -> Any:
        if isinstance(content, Mapping):
            return {key: self._share(value, idle) for key, value in content.items()}
        return content[:1] if idle else torch.tensor_split(content, self.world)[self.rank]


Feed: TypeAlias = RowFeed | TensorFeed
"""The batches of a data set, epoch after epoch, the same on every call: `rows` are the examples of an epoch, `len` its
batches; `batches(epoch, start)` counts both from 0.
"""


def in_order(rows: datasets.Dataset, collator: Any, batch: int | Length, *, by_length: bool = False) -> Any:
    """Batches of rows in order, or sorted by length, which needs little padding; random masks are those of epoch 0.
    A batch of tokens is made larger where a row needs it.
    """
    lengths = row_lengths(rows) if by_length or isinstance(batch, Length) else None
    if isinstance(batch, Length):
        assert lengths is not None
        batch = replace(batch, value=max(batch.value, fewest_tokens(int(lengths.max(initial=1)))))
    order = BatchOrder(len(rows), batch, shuffle=False, lengths=lengths, by_length=by_length)
    return loader(rows, order, at_epoch(collator, 0))


def at_epoch(collator: Any, epoch: int) -> Any:
    """A collator that gets the epoch, if it has `set_epoch`."""
    if not hasattr(collator, "set_epoch"):
        return collator

    def collate(rows: list[Any]) -> Any:
        collator.set_epoch(epoch)
        return collator(rows)

    return collate


def place(feed: Feed, seed: int, rank: int, world: int, *, group_by_length: bool = False) -> Feed:
    """A rank's share of a feed, shuffled by `seed`."""
    if isinstance(feed, RowFeed):
        return replace(feed, seed=seed, rank=rank, world=world, group_by_length=group_by_length)
    return replace(feed, rank=rank, world=world)


def order_seed(seed: int, stage: int, task: int, data: int) -> int:
    """The seed for the order of a data set's rows, different for each stage, task and data set, which count from 0."""
    return derive_seed(seed, "order", *((stage, task, data) if stage or task or data else ()))


def steps_of_epoch(feeds: Mapping[str, Feed], accumulate: int) -> int:
    """Optimizer steps in an epoch of the first data set; the last one may have fewer micro-batches.

    Raises `RunError` if a data set has no batch.
    """
    for feed in feeds.values():
        if not len(feed):
            raise RunError("there is no batch to train on: the data has no rows")
    return math.ceil(len(next(iter(feeds.values()))) / accumulate)


def micro_batches(feeds: Mapping[str, Feed], accumulate: int, done: int) -> Iterator[list[Any]]:
    """The micro-batches of each optimizer step, without end, after `done` steps.

    For one data set they are its batches, for several dictionaries by their names. The first data set defines epochs;
    the others go through epochs of their own.
    """
    (_, first), *others = feeds.items()
    epoch, in_epoch = divmod(done, steps_of_epoch(feeds, accumulate))
    start = in_epoch * accumulate
    beside = {name: _without_end(feed, epoch * len(first) + start) for name, feed in others}
    name = next(iter(feeds))
    while True:
        parts: list[Any] = []
        for batch in first.batches(epoch, start):
            parts.append({name: batch, **{key: next(more) for key, more in beside.items()}} if beside else batch)
            if len(parts) == accumulate:
                yield parts
                parts = []
        if parts:
            yield parts
        epoch, start = epoch + 1, 0


def _without_end(feed: Feed, done: int) -> Iterator[Any]:
    epoch, start = divmod(done, len(feed))
    while True:
        yield from feed.batches(epoch, start)
        epoch, start = epoch + 1, 0


# ── parameters that a stage does not train ────────────────────────────────────────────────────────────────────────────


def frozen(distiller: Distiller, what: Sequence[Frozen], student: str) -> AbstractContextManager[None]:
    """Freeze parameters within the context. Raises `RunError` for what freezes nothing, or everything.

    Frozen parts stay in train mode: their dropout belongs to what is trained above them.
    """
    chosen = {id(p): p for one in what for p in _parameters(distiller, one, student)}
    return _frozen(distiller, chosen.values(), "every parameter of student and projections is frozen")


def unreached_frozen(distiller: Distiller) -> AbstractContextManager[None]:
    """Freeze within the context what no term of this stage reaches.

    It has no gradient anyway; frozen, it costs optimizer and ranks nothing.
    """
    return _frozen(distiller, distiller.unreached(), "everything that this stage's loss reaches is frozen")


@contextmanager
def _frozen(distiller: Distiller, parameters: Iterable[nn.Parameter], if_nothing_is_left: str) -> Iterator[None]:
    before = [(p, p.requires_grad) for p in parameters]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in distiller.parameters()):
            raise RunError(f"there is nothing to train: {if_nothing_is_left}")
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


def _parameters(distiller: Distiller, one: Frozen, student: str) -> list[nn.Parameter]:
    if one.kind == "projection":
        key = parameter_name(one.name)
        if key not in distiller.projections:
            raise RunError(f"freeze: no projection `{one.name}` is used here; {_hint(one.name, distiller.projections)}")
        return list(distiller.projections[key].parameters())
    if one.name != student:
        raise RunError(f"freeze: `{one.name}` is never trained; the student is `{student}`")
    if chosen := parameters_at(distiller.student, one.path if one.kind == "module" else ""):
        return chosen
    modules = [name for name, module in distiller.student.named_modules() if name and list(module.parameters())]
    raise RunError(f"freeze: `{one.name}` has no parameters at `{one.path}`; {_hint(one.path, modules)}")


def parameters_at(student: nn.Module, path: str) -> list[nn.Parameter]:
    """The parameters at a path, all of the student's for an empty one.

    The path names a module or parameter, as it is or below the model's base (`encoder.layer.0` of a classifier means
    `bert.encoder.layer.0`); `*` matches one part of it.
    """
    parameters = list(student.named_parameters(remove_duplicate=False))
    if not path:
        return [p for _, p in parameters]
    base = getattr(student, "base_model_prefix", "")
    for full_path in (path, f"{base}.{path}"):
        parts = (r"[^.]+" if part == "*" else re.escape(part) for part in full_path.split("."))
        pattern = re.compile(rf"{'[.]'.join(parts)}([.]|$)")
        if chosen := [p for name, p in parameters if pattern.match(name)]:
            return chosen
    return []


def _hint(name: str, there: Sequence[str] | nn.ModuleDict) -> str:
    names = list(there)
    return suggest(name, names) or (f"there is `{names[0]}`, for example" if names else "there are none")
