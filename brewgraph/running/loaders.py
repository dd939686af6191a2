"""The batches of a run for a loop of your own: one `DataLoader` for each split, with the rows, order and seeds that the
run has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Sampler

from brewgraph.data.batching.order import BatchOrder, loader
from brewgraph.data.encoding.encode import Collator
from brewgraph.diagnostics import UsageError, listing
from brewgraph.recipe.recipe import Stage, Task
from brewgraph.running.data_cache import DataCache, graphs_of
from brewgraph.running.spec_builder import data_of, find_stage
from brewgraph.training.work import Feed, RowFeed, in_order, micro_batches, place_stage, steps_of_epoch


class EpochOrder(Sampler[list[int]]):
    """The row numbers of each batch of one epoch; each iteration is the next epoch, as `set_epoch` counts them from 0.

    The collator draws masks and augmentation of the same epoch.
    """

    def __init__(self, order: BatchOrder, collator: Collator):
        self.order, self.collator, self.epoch = order, collator, 0

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, counted from 0, at the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        self.order.set_epoch(epoch)
        self.collator.set_epoch(epoch)
        yield from self.order


class EpochBatches(IterableDataset[Mapping[str, Any]]):
    """The batches of one epoch where rows are not collated one data set at a time: batches of tensors, and several data
    sets side by side. Each iteration is the next epoch.
    """

    def __init__(self, feeds: Mapping[str, Feed]):
        self.feeds, self.count, self.epoch = feeds, steps_of_epoch(feeds, 1), 0

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, counted from 0, at the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for (batch,) in islice(micro_batches(self.feeds, 1, epoch * self.count), self.count):
            yield batch


def dataloaders(data_cache: DataCache, stage: str | None, task: str | None) -> dict[str, DataLoader[Any]]:
    """`train`, shuffled as the run shuffles it, and the other splits in their order, by name.

    A task that reads several data sets has `train` alone: no batches of the other splits hold all of them.
    """
    checked = data_cache.builder.checked
    work = data_cache.stage(checked, chosen := find_stage(checked, stage))
    of = find_task(chosen, task)
    feeds = place_stage(checked.recipe.stages.index(chosen), work, rank=0, world=1).feeds[of.name]
    name, first = next(iter(feeds.items()))
    if len(feeds) > 1 or not isinstance(first, RowFeed):
        loaders = {"train": DataLoader(EpochBatches(feeds), batch_size=None)}
        if len(feeds) == 1 and (batches := data_cache.builder.tensor_batches(name)).dev:
            loaders["dev"] = DataLoader(batches.dev, batch_size=None)  # type: ignore[arg-type]
        return loaders
    loaders = {"train": loader(first.dataset, EpochOrder(first.order(), first.collator), first.collator)}
    encodings, keys = data_cache.encodings(name, data_cache.readers(graphs_of(checked, chosen, of), name))
    for split in data_cache.builder.examples(name).splits:
        if split != "train":
            collator = data_cache.collator(name, encodings, keys, training=False)
            loaders[split] = in_order(data_cache.split(name, split, encodings), collator, first.batch)
    return loaders


def collator(
    data_cache: DataCache, stage: str | None, task: str | None, data: str | None, *, training: bool
) -> Collator:
    """What makes the batches of a task's data set, by default its first. Raises `UsageError` for batches of tensors."""
    checked = data_cache.builder.checked
    of = find_task(chosen := find_stage(checked, stage), task)
    graphs = graphs_of(checked, chosen, of)
    names = [name for name in of.data if any(name in data_of(graph) for graph in graphs)]
    name = names[0] if data is None else data
    if name not in names:
        raise UsageError(f"the loss reads no data `{name}`: it reads {listing(names)}")
    if data_cache.recipe.data[name].source.holds_tensors:
        raise UsageError(
            f"`{name}` holds batches of tensors, which need no collator: `recipe.dataloaders()` gives them"
        )
    encodings, keys = data_cache.encodings(name, data_cache.readers(graphs, name))
    return data_cache.collator(name, encodings, keys, training=training)


def find_task(stage: Stage, name: str | None) -> Task:
    """A task of a stage by its name, or its only one. Raises `UsageError`."""
    tasks = {task.name: task for task in stage.tasks}
    if name is None and len(tasks) == 1:
        return stage.tasks[0]
    if name not in tasks:
        there = [task for task in tasks if task]
        raise UsageError(
            f"name a task: `task=…`; there are {listing(there)}"
            if there
            else f"the spec has no task `{name}`: it has none; leave `task` out"
        )
    return tasks[name]
