"""Evaluation between steps: the student's scores on each task's dev split, its losses and reported values there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import reduce, send_to_device
from torch import nn

from brewgraph.data.batching.order import BatchOrder, loader
from brewgraph.data.encoding.encode import row_lengths
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.models.fake.reach import evaluating
from brewgraph.recipe.settings.metric_names import LOSS
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.evaluation import evaluate, scores
from brewgraph.training.feeds import at_epoch
from brewgraph.training.processes import piece, this_process
from brewgraph.training.work import Material


def is_scored(student: nn.Module, material: Material) -> bool:
    """Whether there are labels to score this student by, and a head to do it with."""
    if material.dev is None or isinstance(material.dev, ReadyBatches):
        return False
    return scores(student, material.label_type, material.classes, material.head)


def score(student: nn.Module, name: str, material: Material) -> dict[str, float]:
    """The scores of the student over all ranks, by metric."""
    found = evaluate(
        student,
        name,
        dev_batches(material, by_length=True),
        label_type=material.label_type,
        classes=material.classes,
        examples=material.examples,
        head=material.head,
        null_threshold=material.null_threshold,
        device=this_process().device,
    )
    return found.as_dict()


def dev_batches(material: Material, *, whole: bool = False, by_length: bool = False) -> Iterator[Any]:
    """This rank's rows of the dev split, or all, in their order or `by_length`, which leaves little padding; masks and
    the like are those of epoch 0.
    """
    dev, process = material.dev, this_process()
    assert dev is not None
    if isinstance(dev, ReadyBatches):
        yield from dev.evaluation()
        return
    share = dev if whole else piece(dev, process.num_processes, process.process_index)
    lengths = row_lengths(share) if by_length else None
    order = BatchOrder(len(share), material.batch, shuffle=False, lengths=lengths or None)
    yield from loader(share, order, at_epoch(material.collator, 0))


@torch.no_grad()
def losses_on_dev(distiller: Distiller, task: str, material: Material, accelerator: Accelerator) -> dict[str, float]:
    """The loss and its terms on the dev split, in eval mode: what one batch of all its rows gives, `loss` first.

    Every sum is divided by the units of the whole split, so that neither batches nor ranks change it; a loss of unit
    `batch` is the mean over batches of the size that the spec names. Weights are those of the end of the stage, which
    makes all evaluations of it comparable; a term whose weight is zero then is left out.
    """
    device, sums = accelerator.device, dict[str, Any]()
    before, distiller.progress = distiller.progress, 1.0
    try:
        with evaluating(distiller):
            counts = torch.stack([distiller.count(batch, task) for batch in _moved(material, device)]).sum(0)
            counts = _over_ranks(counts, material)
            for batch in _moved(material, device):
                with accelerator.autocast():
                    output = distiller(batch, counts, task)
                for name, value in {LOSS: output.loss, **output.terms}.items():
                    sums[name] = sums.get(name, 0.0) + value.detach().double()
    finally:
        distiller.progress = before
    return {name: float(value) for name, value in _over_ranks(sums, material).items()}


@torch.no_grad()
def report_on_dev(distiller: Distiller, task: str, material: Material, accelerator: Accelerator) -> dict[str, float]:
    """The values that are reported beside the loss's terms, on the dev split: means over batches by their rows.

    In eval mode, without augmentation. A task that reads several data sets has no dev batches of all of them, and none
    of these values.
    """
    if not material.has_losses:
        return {}
    device = accelerator.device
    sums: dict[str, Any] = {}
    rows = torch.zeros((), device=device)
    with evaluating(distiller):
        for batch in _moved(material, device):
            count = rows_of(batch)
            rows += count
            with accelerator.autocast():
                found = distiller.report(batch, task)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() * count
    sums, rows = _over_ranks(sums, material), _over_ranks(rows, material)
    return {name: float(value / rows) for name, value in sums.items()}


def _moved(material: Material, device: torch.device) -> Iterator[Any]:
    """The batches that losses are evaluated on, on the device: those of this rank's rows, or all."""
    return (send_to_device(batch, device) for batch in dev_batches(material, whole=not _is_shared(material)))


def _is_shared(material: Material) -> bool:
    """Whether each rank takes rows of its own: a rank without rows would not know what to sum up."""
    world = this_process().num_processes
    return world > 1 and not isinstance(material.dev, ReadyBatches) and len(material.dev or ()) >= world


def _over_ranks(values: Any, material: Material) -> Any:
    """Sums of all ranks."""
    return reduce(values, "sum") if _is_shared(material) else values


def rows_of(batch: Any) -> int:
    """Examples of a batch: the length of its first tensor."""
    for value in batch.values() if isinstance(batch, Mapping) else ():
        found = rows_of(value) if isinstance(value, Mapping) else len(value) if torch.is_tensor(value) else 0
        if found:
            return found
    return 0
