"""What a model scores on held-out examples, alone: captures disarmed, no teacher, no loss."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from brewgraph.runtime.program import NOT_INPUTS


@dataclass(frozen=True)
class Scores:
    """Accuracy and macro F1, both in [0, 1], over `examples`; `per_second` examples in this one pass."""

    accuracy: float
    macro_f1: float
    examples: int
    per_second: float

    def as_dict(self) -> dict[str, float]:
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1}


def classifies(module: nn.Module, classes: int) -> bool:
    """Whether a model has a head for these classes, one label per text: only then is there something to score."""
    config = getattr(module, "config", None)
    return type(module).__name__.endswith("SequenceClassification") and getattr(config, "num_labels", 0) == classes


@torch.no_grad()
def evaluate(model: nn.Module, name: str, batches: Iterable[Mapping[str, Any]], classes: int, device: Any) -> Scores:
    """Score a classifier. Where ranks hold different batches, the counts of all of them are added up."""
    accuracy = MulticlassAccuracy(num_classes=classes, average="micro").to(device)
    f1 = MulticlassF1Score(num_classes=classes, average="macro").to(device)
    was_training = model.training
    model.eval()
    rows, seconds = 0, 0.0
    try:
        for batch in batches:
            labels = batch["labels"].to(device)
            inputs = model_inputs(model, name, batch, device)
            begin = time.perf_counter()
            guess = model(**inputs).logits.argmax(-1)
            seconds += time.perf_counter() - begin
            rows += len(labels)
            accuracy.update(guess, labels)
            f1.update(guess, labels)
    finally:
        model.train(was_training)
    return Scores(float(accuracy.compute()), float(f1.compute()), rows, rows / max(seconds, 1e-9))


def model_inputs(model: nn.Module, name: str, batch: Mapping[str, Any], device: Any) -> dict[str, torch.Tensor]:
    """What of a batch a model's forward names, from its own encoding where it has one."""
    own = batch.get(name)
    encoding = own if isinstance(own, Mapping) else batch
    names = inspect.signature(model.forward).parameters
    return {
        key: value.to(device)
        for key, value in encoding.items()
        if key in names and key not in NOT_INPUTS and isinstance(value, torch.Tensor)
    }
