"""What a model scores on held-out examples, alone: captures disarmed, no teacher, no loss."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import nn

from brewgraph.models.fake.reach import evaluating
from brewgraph.models.padding import moved, moved_inputs, padding_shift, padding_side
from brewgraph.recipe.label_types import VALUE, LabelType
from brewgraph.runtime.program import NOT_INPUTS
from brewgraph.training.metrics import Metric, make_metric
from brewgraph.training.processes import this_process

_REFERENCE = ("labels", "index", "offsets", "null", "words", "first")
"""What of a batch metrics read beside the logits."""


@dataclass(frozen=True)
class Scores:
    """The values of a label type's metrics by name, over `examples`."""

    values: Mapping[str, float]
    examples: int

    def as_dict(self) -> dict[str, float]:
        return dict(self.values)


def scores(module: nn.Module, label_type: LabelType, classes: Sequence[str], head: str = "") -> bool:
    """Whether a model has a head for labels of this type and these classes: only then is there something to score.

    `head` names one of a model with several, each of which is a whole model (`module.heads[head]`).
    """
    if head:
        heads = getattr(module, "heads", {})
        return head in heads and scores(heads[head], label_type, classes)
    if not type(module).__name__.endswith(label_type.ends):
        return False
    wanted = len(classes) if label_type.per_class else 1 if label_type == VALUE else None
    return wanted is None or getattr(getattr(module, "config", None), "num_labels", 0) == wanted


@torch.no_grad()
def evaluate(
    model: nn.Module,
    name: str,
    batches: Iterable[Mapping[str, Any]],
    *,
    label_type: LabelType,
    classes: Sequence[str],
    device: Any,
    examples: Any = None,
    head: str = "",
    null_threshold: float | None = None,
) -> Scores:
    """Score the model `name` on batches of labelled examples.

    `examples` are the rows of the split, in which the tags of whole sentences and answers are looked up. For answers
    `null_threshold` is by how much none must exceed the best one, None where every question has one. `head` names
    one of a model with several. Where ranks hold different batches, every one of them gets the scores over all; what
    goes between them is what metrics keep, never logits.
    """
    metric = make_metric(label_type, classes, examples, null_threshold)
    seen: set[int] = set()  # an example may be several rows, windows of one long text
    if head:
        model = cast(Mapping[str, nn.Module], model.heads)[head]
    with evaluating(model):
        for batch in batches:
            view = own_view(name, batch)
            inputs = model_inputs(model, view, device)
            reference = {key: view[key].to(device) for key in _REFERENCE if key in view}
            reduced = metric.reduce(logits_of(model, inputs, label_type), reference)
            metric.update(*(part.cpu() for part in reduced))
            seen.update(view["index"].tolist())
    _join_ranks(metric, seen)
    return Scores(metric.compute(), len(seen))


def _join_ranks(metric: Metric, seen: set[int]) -> None:
    """Take in what the other ranks have seen."""
    process = this_process()
    if process.num_processes == 1:
        return
    found = gather_object([(process.process_index, metric.state(), sorted(seen))])
    for rank, state, indices in found:
        if rank != process.process_index:
            metric.merge(*state)
            seen.update(indices)


def logits_of(model: nn.Module, inputs: Mapping[str, torch.Tensor], label_type: LabelType) -> Any:
    """The logits of a forward; of answers' starts and ends a pair. Padding stands where the model expects it, and
    logits of tokens where `inputs` have the tokens.
    """
    shift_B = padding_shift(inputs, padding_side(model))
    outputs = model(**(inputs if shift_B is None else moved_inputs(inputs, shift_B)))
    found: list[Any] = [getattr(outputs, name) for name in label_type.logits]
    if shift_B is not None and label_type.aligned:
        found = [moved(x, -shift_B, (1,)) for x in found]
    return tuple(found) if len(found) > 1 else found[0]


def own_view(name: str, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch as one model sees it: what is its own encoding's lies at the top too."""
    own = batch.get(name)
    return {**batch, **own} if isinstance(own, Mapping) else batch


def model_inputs(model: nn.Module, view: Mapping[str, Any], device: Any) -> dict[str, torch.Tensor]:
    """What of a batch a model's forward names."""
    names = inspect.signature(model.forward).parameters
    return {
        key: value.to(device)
        for key, value in view.items()
        if key in names and key not in NOT_INPUTS and isinstance(value, torch.Tensor)
    }
