"""Evaluation on held-out examples: a model's scores, without teacher and loss; and in training also its losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, reduce, send_to_device
from torch import Tensor, nn

from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.models.heads import evaluating
from brewgraph.models.padding import moved, moved_inputs, padding_shift, padding_side
from brewgraph.recipe.label_types import LOSS, Form, LabelType
from brewgraph.runtime.distiller import Distiller
from brewgraph.runtime.instructions import first_tensor
from brewgraph.runtime.program import NOT_INPUTS
from brewgraph.training.metrics import make_metric
from brewgraph.training.processes import largest_of_ranks, own_share, this_process
from brewgraph.training.work import Material, in_order

_REFERENCE = ("labels", "index", "offsets", "null", "words", "first")
"""What metrics read of a batch beside the logits."""


@dataclass(frozen=True)
class Scores:
    """The values of a label type's metrics by name, over `examples`."""

    values: Mapping[str, float]
    examples: int


def can_score(module: nn.Module, label_type: LabelType, classes: Sequence[str], head: str = "") -> bool:
    """Whether a model, or one of its heads (`module.heads[head]`), predicts labels of this type and these classes."""
    if head:
        heads = getattr(module, "heads", {})
        return head in heads and can_score(heads[head], label_type, classes)
    if not type(module).__name__.endswith(label_type.ends):
        return False
    wanted = len(classes) if label_type.per_class else 1 if label_type.form is Form.NUMBER else None
    return wanted is None or getattr(getattr(module, "config", None), "num_labels", 0) == wanted


@torch.no_grad()
def evaluate(model: nn.Module, name: str, batches: Iterable[Mapping[str, Any]], material: Material) -> Scores:
    """Score the model `name`, or the material's head of it, on batches of the material's labelled examples.

    If ranks hold different batches, each gets the scores over all of them; ranks exchange the state of metrics, never
    logits.
    """
    label_type = material.label_type
    metric = make_metric(label_type, material.classes, material.examples, material.null_threshold)
    seen: set[int] = set()  # an example may be several rows, windows of one long text
    if material.head:
        model = cast(Mapping[str, nn.Module], model.heads)[material.head]
    device = next(model.parameters(), torch.empty(0)).device
    with evaluating(model):
        for batch in batches:
            view = own_view(name, batch)
            inputs = model_inputs(model, view, device)
            reference = {key: view[key].to(device) for key in _REFERENCE if key in view}
            reduced = metric.reduce(logits_of(model, inputs, label_type), reference)
            metric.update(*(part.cpu() for part in reduced))
            seen.update(view["index"].tolist())
    process = this_process()
    if process.num_processes > 1:
        for rank, state, indices in gather_object([(process.process_index, metric.state(), sorted(seen))]):
            if rank != process.process_index:
                metric.merge(*state)
                seen.update(indices)
    return Scores(metric.compute(), len(seen))


def logits_of(model: nn.Module, inputs: Mapping[str, Tensor], label_type: LabelType) -> Any:
    """The logits of a forward; for answers the pair of starts and ends. Padding is moved to where the model expects it,
    and logits of tokens back to the tokens of `inputs`.
    """
    shift_B = padding_shift(inputs, padding_side(model))
    outputs = model(**(inputs if shift_B is None else moved_inputs(inputs, shift_B)))
    logits: list[Any] = [getattr(outputs, name) for name in label_type.logits]
    if shift_B is not None and label_type.aligned:
        logits = [moved(x, -shift_B, (1,)) for x in logits]
    return tuple(logits) if len(logits) > 1 else logits[0]


def own_view(name: str, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch as one model reads it: with the fields of its own encoding at the top."""
    own = batch.get(name)
    return {**batch, **own} if isinstance(own, Mapping) else batch


def model_inputs(model: nn.Module, view: Mapping[str, Any], device: Any) -> dict[str, Tensor]:
    """The fields of a batch that a model's forward names."""
    names = inspect.signature(model.forward).parameters
    return {
        key: value.to(device)
        for key, value in view.items()
        if key in names and key not in NOT_INPUTS and isinstance(value, Tensor)
    }


# ── evaluation in training ───────────────────────────────────────────────────────────────────────────────────────────


def is_scored(student: nn.Module, material: Material) -> bool:
    """Whether the dev split has labels, and the student a head for them."""
    if material.dev is None or isinstance(material.dev, ReadyBatches):
        return False
    return can_score(student, material.label_type, material.classes, material.head)


def score(model: nn.Module, name: str, material: Material) -> Mapping[str, float]:
    """The scores of a model on the dev split over all ranks, by metric."""
    return evaluate(model, name, _dev_batches(material, by_length=True), material).values


def _dev_batches(material: Material, *, whole: bool = False, by_length: bool = False) -> Iterator[Any]:
    """This rank's rows of the dev split, or all of them, `in_order`."""
    dev = material.dev
    assert dev is not None
    if isinstance(dev, ReadyBatches):
        yield from dev.dev
    else:
        yield from in_order(dev if whole else own_share(dev), material.collator, material.batch, by_length=by_length)


@torch.no_grad()
def losses_on_dev(
    distiller: Distiller, task: str, material: Material, accelerator: Accelerator, *, in_step: bool = False
) -> dict[str, float]:
    """The loss and its terms on the dev split in eval mode, as one batch of all its rows gives them, `loss` first.

    Every sum is divided by the units of the whole split, so that neither batches nor ranks change it. What compares the
    examples of a batch is the mean over batches of the spec's size. Weights are those of the stage's end, so that its
    evaluations are comparable; a term whose weight is zero then is left out. With `in_step` all ranks run as many
    forwards.
    """
    before, distiller.progress = distiller.progress, 1.0
    try:
        counted = _sums_on_dev(distiller, task, material, accelerator, lambda batch: {"": distiller.count(batch, task)})
        counts = counted[""].float()

        def losses(batch: Any) -> dict[str, Tensor]:
            output = distiller(batch, counts, task)
            return {LOSS: output.loss, **output.terms}

        sums = _sums_on_dev(distiller, task, material, accelerator, losses, in_step=in_step)
        return {name: float(value) for name, value in sums.items()}
    finally:
        distiller.progress = before


@torch.no_grad()
def report_on_dev(
    distiller: Distiller, task: str, material: Material, accelerator: Accelerator, *, in_step: bool = False
) -> dict[str, float]:
    """The reported values beside the loss's terms on the dev split in eval mode: means over batches, weighted by rows.

    A task that reads several data sets has no such values: there are no dev batches of all of them.
    """
    if not material.has_losses:
        return {}

    def values(batch: Any) -> dict[str, Tensor]:
        first = first_tensor(batch)
        reported = {name: value.float() * len(first) for name, value in distiller.report(batch, task).items()}
        return {**reported, "": torch.tensor(len(first), device=first.device)}

    sums = _sums_on_dev(distiller, task, material, accelerator, values, in_step=in_step)
    rows = sums.pop("")
    return {name: float(value / rows) for name, value in sums.items()}


def _sums_on_dev(
    distiller: Distiller,
    task: str,
    material: Material,
    accelerator: Accelerator,
    values_of: Callable[[Any], Mapping[str, Tensor]],
    *,
    in_step: bool = False,
) -> dict[str, Tensor]:
    """The values of all dev batches in eval mode, added up in double precision over batches and ranks."""
    sums: dict[str, Tensor] = {}
    # each rank takes rows of its own if all have some: a rank without rows would not know which sums there are; and
    # all rows where examples of a batch are compared, which would not meet the same ones
    world = this_process().num_processes
    shared = world > 1 and not isinstance(material.dev, ReadyBatches) and len(material.dev or ()) >= world
    shared &= not distiller.compares_examples(task)
    with evaluating(distiller):
        batches = _dev_batches(material, whole=not shared)
        for batch, counts in _in_step(batches) if shared and in_step else zip(batches, repeat(True), strict=False):
            with accelerator.autocast():
                values = values_of(send_to_device(batch, accelerator.device))
            for name, value in values.items() if counts else ():
                sums[name] = sums.get(name, 0.0) + value.detach().double()
    return cast(dict[str, Tensor], reduce(sums, "sum")) if shared else sums


def _in_step(batches: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """The batches of this rank, each with True, then its last one with False until all ranks have had theirs: a sharded
    teacher runs on all ranks or on none. Every rank has a batch.
    """
    batch = next(batches)
    counts = True
    while largest_of_ranks(int(counts)):
        yield batch, counts
        following = next(batches, None)
        batch, counts = (batch, False) if following is None else (following, True)
