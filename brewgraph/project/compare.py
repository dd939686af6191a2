"""The closing table of a run: every model that can be scored, in one go on the same examples and machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from brewgraph.data.batches import BatchOrder, loader
from brewgraph.data.encoding import Collator, encode
from brewgraph.models.shapes import count_parameters
from brewgraph.project.build import Workshop
from brewgraph.recipe.metrics import keyed, main_metric, shown_metrics
from brewgraph.training.evaluate import evaluate
from brewgraph.training.evaluate import scores as can_score
from brewgraph.training.processes import own_share

_BATCH = 64


@dataclass(frozen=True)
class Row:
    """A line of the table: all `scores` by name (`accuracy`; `ner/f1` where tasks have names).

    `tasks` are the label types by task name, "" without tasks. `size` counts bytes of weights on disk; `per_second` is
    examples in one pass.
    """

    name: str
    scores: Mapping[str, float]
    tasks: Mapping[str, str]
    parameters: int
    size: int
    per_second: float

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the scores that the table shows, task after task."""
        return tuple(name for task, kind in self.tasks.items() for name in self._there(task, *shown_metrics(kind)))

    @property
    def main(self) -> tuple[str, ...]:
        """The names of the scores that a model is judged by, one for each task."""
        return tuple(name for task, kind in self.tasks.items() for name in self._there(task, main_metric(kind)))

    def _there(self, task: str, *metrics: str) -> list[str]:
        return [name for name in keyed(task, dict.fromkeys(metrics, 0.0)) if name in self.scores]


@dataclass(frozen=True)
class Trained:
    """A model that a run trained, and the folder where it was saved."""

    module: nn.Module
    folder: Path


def compare(workshop: Workshop, trained: Mapping[str, Trained]) -> tuple[Row, ...]:
    """Score the teachers that are loaded and the students that were trained on the dev split; empty without one."""
    dev, classes = workshop.examples.splits.get("dev"), workshop.examples.classes
    label_type = next(iter(workshop.recipe.data.values())).source.label_type
    if dev is None or not label_type:
        return ()
    recipe = workshop.recipe
    teachers = {m.name: Trained(workshop.models[m.name], Path()) for m in recipe.teachers if m.name in workshop.models}
    rows = []
    for name, model in {**teachers, **trained}.items():
        module, own = model.module, name if name in teachers else recipe.student.name
        if not can_score(module, label_type, classes):
            continue
        encodings, _ = workshop.encodings([own], {own: module})
        share = own_share(encode(dev, encodings))
        found = evaluate(
            module,
            own,
            loader(share, BatchOrder(len(share), _BATCH, seed=0, shuffle=False), Collator(encodings)),
            label_type=label_type,
            classes=classes,
            examples=dev,
            device=next(module.parameters()).device,
        )
        size = _size(module, model.folder / "student" if name in trained else None)
        rows.append(Row(name, found.as_dict(), {"": label_type}, count_parameters(module), size, found.per_second))
    return tuple(rows)


def _size(module: nn.Module, folder: Path | None) -> int:
    """Bytes of weights in a folder; for a model without one, what its parameters take."""
    if folder is not None and folder.is_dir():
        return sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    return sum(p.numel() * p.element_size() for p in module.parameters())
