"""Evaluation between steps: the student alone on each task's dev split, and reported values on the same batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn

from brewgraph.data.batches import BatchOrder, loader
from brewgraph.data.encoding import row_lengths
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.evaluate import evaluate, scores
from brewgraph.training.feeds import at_epoch
from brewgraph.training.processes import piece
from brewgraph.training.work import Material


def is_scored(student: nn.Module, material: Material) -> bool:
    """Whether there is something to evaluate this student on, and a head to do it with."""
    return material.dev is not None and scores(student, material.label_type, material.classes, material.head)


def score(student: nn.Module, name: str, material: Material, accelerator: Accelerator) -> dict[str, float]:
    """The scores of the student over all ranks, by metric."""
    batches = dev_batches(material, accelerator, by_length=True)
    found = evaluate(
        student,
        name,
        batches,
        label_type=material.label_type,
        classes=material.classes,
        examples=material.examples,
        head=material.head,
        null_threshold=material.null_threshold,
        device=accelerator.device,
    )
    return found.as_dict()


def dev_batches(
    material: Material, accelerator: Accelerator, *, whole: bool = False, by_length: bool = False
) -> Iterator[Any]:
    """This rank's rows of the dev split, or all, in their order or `by_length`, which leaves little padding; masks and
    the like are those of epoch 0.
    """
    dev, world = material.dev, 1 if whole else accelerator.num_processes
    assert dev is not None
    share = piece(dev, world, accelerator.process_index)
    lengths = row_lengths(share) if by_length else None
    order = BatchOrder(len(share), material.batch, shuffle=False, lengths=lengths or None)
    yield from loader(share, order, at_epoch(material.collator, 0))


@torch.no_grad()
def report_on_dev(distiller: Distiller, task: str, material: Material, accelerator: Accelerator) -> dict[str, float]:
    """The values that are reported beside the loss's terms, on the dev split: means over batches by their rows.

    In eval mode, without augmentation. A task that reads several data sets has no dev batches of all of them, and none
    of these values.
    """
    if len(material.feeds) > 1 or material.dev is None or not len(material.dev):
        return {}
    alone = len(material.dev) < accelerator.num_processes  # a rank without rows would not know what to report
    modes = [(module, module.training) for module in distiller.modules()]
    distiller.eval()
    sums: dict[str, Any] = {}
    rows = torch.zeros((), device=accelerator.device)
    try:
        for batch in dev_batches(material, accelerator, whole=alone):
            batch = send_to_device(batch, accelerator.device)
            count = rows_of(batch)
            rows += count
            with accelerator.autocast():
                found = distiller.report(batch, task)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() * count
    finally:
        for module, training in modes:
            module.training = training
    if accelerator.num_processes > 1 and not alone:
        sums, rows = accelerator.reduce(sums, "sum"), accelerator.reduce(rows, "sum")
    return {name: float(value / rows) for name, value in sums.items()}


def rows_of(batch: Any) -> int:
    """Examples of a batch: the length of its first tensor."""
    for value in batch.values() if isinstance(batch, Mapping) else ():
        found = rows_of(value) if isinstance(value, Mapping) else len(value) if torch.is_tensor(value) else 0
        if found:
            return found
    return 0
