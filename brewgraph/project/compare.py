"""The closing table of a run: every model that classifies, scored in one go on the same examples and machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from brewgraph.data.batches import BatchOrder, loader
from brewgraph.data.encoding import Collator, encode
from brewgraph.models.shapes import count_parameters
from brewgraph.project.build import Workshop
from brewgraph.training.evaluate import classifies, evaluate

_BATCH = 64


@dataclass(frozen=True)
class Row:
    """A line of the table. `size` counts bytes of weights on disk; `per_second` is examples in one pass."""

    name: str
    accuracy: float
    macro_f1: float
    parameters: int
    size: int
    per_second: float


@dataclass(frozen=True)
class Trained:
    """A model that a run trained, and the folder where it was saved."""

    module: nn.Module
    folder: Path


def compare(workshop: Workshop, trained: Mapping[str, Trained]) -> tuple[Row, ...]:
    """Score the teachers that are loaded and the students that were trained on the dev split; empty without one."""
    dev, classes = workshop.examples.splits.get("dev"), workshop.examples.classes
    if dev is None or not classes:
        return ()
    recipe = workshop.recipe
    teachers = {m.name: Trained(workshop.models[m.name], Path()) for m in recipe.teachers if m.name in workshop.models}
    rows = []
    for name, model in {**teachers, **trained}.items():
        module, own = model.module, name if name in teachers else recipe.student.name
        if not classifies(module, len(classes)):
            continue
        encodings, _ = workshop.encodings([own], {own: module})
        encoded = encode(dev, encodings)
        batches = loader(encoded, BatchOrder(len(encoded), _BATCH, seed=0, shuffle=False), Collator(encodings))
        scores = evaluate(module, own, batches, len(classes), next(module.parameters()).device)
        size = _size(module, model.folder / "student" if name in trained else None)
        rows.append(Row(name, scores.accuracy, scores.macro_f1, count_parameters(module), size, scores.per_second))
    return tuple(rows)


def _size(module: nn.Module, folder: Path | None) -> int:
    """Bytes of weights in a folder; for a model without one, what its parameters take."""
    if folder is not None and folder.is_dir():
        return sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    return sum(p.numel() * p.element_size() for p in module.parameters())
