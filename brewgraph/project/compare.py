"""The closing table of a run: every model that can be scored, in one go on the same examples and machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from brewgraph.data.batches import BatchOrder, loader
from brewgraph.data.encoding import row_lengths
from brewgraph.graph.costs import megabytes
from brewgraph.graph.lines import number
from brewgraph.models.heads import HeadedModel
from brewgraph.models.shapes import count_parameters
from brewgraph.project.build import Workshop, models_of
from brewgraph.project.check import Checked
from brewgraph.project.materials import Pantry, head_of
from brewgraph.recipe.metrics import keyed, main_metric, metric_words, shown_metrics
from brewgraph.recipe.recipe import Task
from brewgraph.recipe.sources import Batches, Ema
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.training.evaluate import Scores, evaluate
from brewgraph.training.evaluate import scores as can_score
from brewgraph.training.processes import own_share

_BATCH = 64


@dataclass(frozen=True)
class Row:
    """A line of the table: all `scores` by name (`accuracy`; `ner/f1` where tasks have names).

    `tasks` are the label types by task name, "" without tasks. `size` counts bytes of weights, a shared trunk
    once; `per_second` is examples in one pass.
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


def cells_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table as text, cell by cell: a header, then each model's scores, parameters, bytes and speed."""
    columns = list(dict.fromkeys(name for row in rows for name in row.columns))
    header = ("model", *map(metric_words, columns), "parameters", "size", "sentences/s")
    return [header] + [
        (
            row.name,
            *(number(row.scores[name]) if name in row.scores else "-" for name in columns),
            f"{row.parameters:,}",
            megabytes(row.size),
            f"{row.per_second:,.0f}",
        )
        for row in rows
    ]


@dataclass(frozen=True)
class Trained:
    """A model that a run trained, and the folder where it was saved."""

    module: nn.Module
    folder: Path


def compare(workshop: Workshop, trained: Mapping[str, Trained], say: Callable[[str], None]) -> tuple[Row, ...]:
    """Score the teachers of a run that had them, and the students that were trained, on each task's dev split.

    A task that stands in several stages counts once, as it is in the last of them: a teacher of an earlier one is
    scored where that is on the same data, else `say` is told that it is not. Models that no task can score have no row.
    """
    checked, recipe, pantry = workshop.checked, workshop.recipe, Pantry(workshop)
    tasks = {task.name: task for _, task in recipe.tasks}
    teachers = {
        m.name: Trained(workshop.model(m.name), Path())
        for m in recipe.teachers
        if m.name in workshop.models or (recipe.student.name in trained and _is_read(workshop, m))
    }
    rows = []
    for name, model in {**teachers, **trained}.items():
        own = name if name in teachers else recipe.student.name
        values: dict[str, float] = {}
        kinds: dict[str, str] = {}
        speeds: list[float] = []
        for task_name, task in tasks.items():
            read = {other.data[0] for other in _tasks_of(checked, own) if other.name == task_name}
            if task.data[0] not in read:
                if read:
                    where = f"a teacher on {min(read)}, and the last stage is on {task.data[0]}"
                    say(f"{own} has no score in the table: it is {where}")
                continue
            found = _score(pantry, checked, task, own, model.module)
            if found is not None:
                values |= keyed(task_name, found.as_dict())
                kinds[task_name] = recipe.data[task.data[0]].source.label_type
                speeds.append(found.per_second)
        if values:
            size = _size(model.module, model.folder / "student" if name in trained else None)
            speed = sum(speeds) / len(speeds)
            rows.append(Row(name, values, kinds, count_parameters(model.module), size, speed))
    return tuple(rows)


def _tasks_of(checked: Checked, model: str) -> list[Task]:
    """The tasks, stage after stage, whose loss reads a model."""
    return [task for stage, task in checked.recipe.tasks if model in models_of(checked.graphs[stage.name, task.name])]


def _is_read(workshop: Workshop, teacher: ModelDeclaration) -> bool:
    """Whether some stage had this teacher.

    Not one whose terms all have a weight of zero, which was never loaded, nor an average of the student, which is at
    hand only where it was made.
    """
    read = {model for graph in workshop.optimized().values() for model in models_of(graph)}
    return teacher.name in read and not isinstance(teacher.source, Ema)


def _score(pantry: Pantry, checked: Checked, task: Task, own: str, module: nn.Module) -> Scores | None:
    """The scores of a model on a task's dev split; None where there is none, or nothing to score it by."""
    data = task.data[0]
    source = pantry.recipe.data[data].source
    if isinstance(source, Batches) or not source.label_type:
        return None
    examples = pantry.workshop.examples(data)
    dev = examples.splits.get("dev")
    is_student = own == pantry.recipe.student.name
    head = (head_of(checked, task, data) or "") if is_student else ""
    if dev is None or not can_score(module, source.label_type, examples.classes, head):
        return None
    encodings, _ = pantry.encodings(data, [own], {own: module})
    share = own_share(pantry.encode(data, dev, encodings, whole=True))
    order = BatchOrder(len(share), _BATCH, shuffle=False, lengths=row_lengths(share))
    batches = loader(share, order, pantry.collator(data, encodings, training=False))
    return evaluate(
        module,
        own,
        batches,
        label_type=source.label_type,
        classes=examples.classes,
        examples=dev,
        head=head,
        null_threshold=pantry.workshop.null_threshold(data),
        device=next(module.parameters()).device,
    )


def _size(module: nn.Module, folder: Path | None) -> int:
    """Bytes of weights in a folder; without one, or where its heads share a trunk, what the distinct tensors take.

    A model with heads lies on disk as a whole model per head, which says how it is handed over, not how large it is.
    An adapter that is saved beside the merged weights is part of them already.
    """
    if folder is not None and folder.is_dir() and not isinstance(module, HeadedModel):
        return sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    return sum(p.numel() * p.element_size() for p in module.parameters())
