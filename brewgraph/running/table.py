"""The closing table of a run: every model that can be scored, on the same examples, and timed on the same batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, cast

import datasets
import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PreTrainedModel

from brewgraph.checking.check import Checked
from brewgraph.data.batching.order import BatchOrder, loader
from brewgraph.data.encoding.encode import Encoding, row_lengths
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.display.cost import megabytes
from brewgraph.display.lines import number
from brewgraph.models.fake.reach import evaluating
from brewgraph.models.fake.shapes import count_parameters
from brewgraph.models.heads import HeadedModel
from brewgraph.recipe.label_types import LABEL_TYPES, NONE, LabelType
from brewgraph.recipe.recipe import Task
from brewgraph.recipe.settings.metric_names import keyed, metric_words
from brewgraph.recipe.settings.sources import Batches, Ema
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.running.data_cache import DataCache, head_of
from brewgraph.running.dev_losses import losses_on
from brewgraph.running.spec_builder import SpecBuilder, closing_split, models_of
from brewgraph.running.speed import Work, measure, spread
from brewgraph.training.evaluation import Scores, evaluate, model_inputs, own_view
from brewgraph.training.evaluation import scores as can_score
from brewgraph.training.processes import own_share, this_process

_BATCH = 64
_TIMED = 4
"""Batches of a task that models are timed on."""


@dataclass(frozen=True)
class ScoreRow:
    """A line of the table: all `scores` by name (`accuracy`; `ner/f1` where tasks have names).

    `tasks` are the label types by task name, "" without tasks; the type "" is that of losses in place of scores.
    `splits` are the splits that tasks were scored on. `size` counts bytes of weights, a shared trunk once. `seconds`
    are seconds per sentence in each round of `speed.measure`, whose rounds are those of the other rows; `per_second` is
    sentences per second at their median.
    """

    name: str
    scores: Mapping[str, float]
    tasks: Mapping[str, str]
    parameters: int
    size: int
    per_second: float
    seconds: Sequence[float] = ()
    splits: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # read from a file, tuples are lists, and what is not a number is null
        object.__setattr__(self, "seconds", tuple(self.seconds))
        scores = {name: math.nan if value is None else value for name, value in self.scores.items()}
        object.__setattr__(self, "scores", scores)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the scores that the table shows, task after task."""
        return tuple(
            name
            for task, kind in self.tasks.items()
            for name in (self._there(task, *LABEL_TYPES[kind].shown) if kind else self._losses(task))
        )

    @property
    def main(self) -> tuple[str, ...]:
        """The names of the scores that a model is judged by, one for each task."""
        return tuple(name for task, kind in self.tasks.items() for name in self._there(task, LABEL_TYPES[kind].main))

    def _losses(self, task: str) -> list[str]:
        """The loss of a task and its terms."""
        return [name for name in self.scores if not task or name.startswith(f"{task}/")]

    def _there(self, task: str, *metrics: str) -> list[str]:
        return [name for name in keyed(task, dict.fromkeys(metrics, 0.0)) if name in self.scores]


def cells_of(rows: Sequence[ScoreRow]) -> list[tuple[str, ...]]:
    """The table as text, cell by cell: a header, then each model's scores, parameters, bytes and speed."""
    columns = list(dict.fromkeys(name for row in rows for name in row.columns))
    header = ("model", *map(metric_words, columns), "parameters", "size", "sentences/s")
    return [header] + [
        (
            row.name,
            *(number(row.scores[name]) if name in row.scores else "-" for name in columns),
            f"{row.parameters:,}",
            megabytes(row.size),
            _pace(row),
        )
        for row in rows
    ]


def _pace(row: ScoreRow) -> str:
    """Sentences per second and half of their spread: `1,204 ±3%`; nothing where that is half of the value or more."""
    if not row.per_second or spread(row.seconds) >= 1:
        return "-"
    half = f" ±{spread(row.seconds) / 2:.0%}" if len(row.seconds) > 1 else ""
    return f"{row.per_second:,.0f}{half}"


@dataclass(frozen=True)
class Trained:
    """A model that a run trained, and the folder where it was saved."""

    module: nn.Module
    folder: Path


def compare(data_cache: DataCache, trained: Mapping[str, Trained], say: Callable[[str], None]) -> tuple[ScoreRow, ...]:
    """Score the teachers of a run that had them, and the students that were trained, on each task's test split, or on
    dev where there is no test; then time them on rows of the same split. In a task that cannot score the student its
    losses stand for scores.

    A task that stands in several stages counts once, as it is in the last of them: a teacher of an earlier one is
    scored where that is on the same data, else `say` is told that it is not. Models that no task can score have no row.
    """
    builder, checked, recipe = data_cache.builder, data_cache.builder.checked, data_cache.recipe
    stages = {task.name: (stage, task) for stage, task in recipe.tasks}
    teachers = {
        m.name: Trained(builder.model(m.name), Path())
        for m in recipe.teachers
        if m.name in builder.models or (recipe.student.name in trained and _is_read(builder, m))
    }
    made: dict[str, dict[str, Any]] = {}
    works: dict[str, list[Work]] = {}
    with ExitStack() as modes:
        for name, model in {**teachers, **trained}.items():
            own = name if name in teachers else recipe.student.name
            values: dict[str, float] = {}
            kinds: dict[str, str] = {}
            splits: dict[str, str] = {}
            for task_name, (stage, task) in stages.items():
                read = {other.data[0] for other in _tasks_of(checked, own) if other.name == task_name}
                if task.data[0] not in read:
                    if read:
                        where = f"a teacher on {min(read)}, and the last stage is on {task.data[0]}"
                        say(f"{own} has no score in the table: it is {where}")
                    continue
                closing = _Closing.of(data_cache, checked, task, own, model.module)
                if closing is None:
                    continue
                found: Mapping[str, float] | None = None
                if closing.label_type:
                    found = closing.score().as_dict()
                elif name == recipe.student.name:
                    builder.models[name] = model.module
                    found = losses_on(data_cache, checked, stage, task, closing.of_losses, model.folder)
                if not found:
                    continue
                values |= keyed(task_name, found)
                kinds[task_name], splits[task_name] = closing.label_type, closing.split
                if this_process().is_main_process and closing.runs_alone:
                    works.setdefault(name, []).extend(closing.works())
            if values:
                modes.enter_context(evaluating(model.module))
                size = _size(model.module, model.folder / "student" if name in trained else None)
                parameters = count_parameters(model.module)
                made[name] = {
                    "scores": values, "tasks": kinds, "parameters": parameters, "size": size, "splits": splits,
                }  # fmt: skip
        times = _from_main(measure(works))
    return tuple(ScoreRow(name, **content, **_speed(times.get(name, ()))) for name, content in made.items())


def _speed(seconds: Sequence[float]) -> dict[str, Any]:
    return {"seconds": seconds, "per_second": 1 / max(median(seconds), 1e-9) if seconds else 0.0}


def _from_main(times: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """The times of the first process, which alone measures while the others wait."""
    if this_process().num_processes == 1:
        return times
    return cast(dict[str, tuple[float, ...]], broadcast_object_list([times])[0])


def _tasks_of(checked: Checked, model: str) -> list[Task]:
    """The tasks, stage after stage, whose loss reads a model."""
    return [task for stage, task in checked.recipe.tasks if model in models_of(checked.graphs[stage.name, task.name])]


def _is_read(builder: SpecBuilder, teacher: ModelDeclaration) -> bool:
    """Whether some stage had this teacher.

    Not one whose terms all have a weight of zero, which was never loaded, nor an average of the student, which is at
    hand only where it was made.
    """
    read = {model for graph in builder.optimized().values() for model in models_of(graph)}
    return teacher.name in read and not isinstance(teacher.source, Ema)


@dataclass(frozen=True)
class _Closing:
    """A model on a task's closing split: `rows` are its examples. `label_type` is `NONE` where they cannot score it."""

    data_cache: DataCache
    data: str
    own: str
    module: nn.Module
    head: str
    split: str
    rows: Any
    classes: Sequence[str]
    label_type: LabelType

    @classmethod
    def of(cls, data_cache: DataCache, checked: Checked, task: Task, own: str, module: nn.Module) -> _Closing | None:
        """None where there is no such split."""
        data = task.data[0]
        source = data_cache.recipe.data[data].source
        if isinstance(source, Batches):
            ready = data_cache.builder.ready(data)
            return cls(data_cache, data, own, module, "", "dev", ready, (), NONE) if ready.dev else None
        examples = data_cache.builder.examples(data)
        split = closing_split(examples.splits)
        if split is None:
            return None
        head = (head_of(checked, task, data) or "") if own == data_cache.recipe.student.name else ""
        scored = can_score(module, source.label_type, examples.classes, head)
        kind = source.label_type if scored else NONE
        return cls(data_cache, data, own, module, head, split, examples.splits[split], examples.classes, kind)

    def score(self) -> Scores:
        """The scores over all ranks, each of which takes its share of the rows."""
        return evaluate(
            self.module,
            self.own,
            self._batches(self._encoded, share=True, by_length=True),
            label_type=self.label_type,
            classes=self.classes,
            examples=self.rows,
            head=self.head,
            null_threshold=self.data_cache.builder.null_threshold(self.data),
            device=self._device,
        )

    @property
    def runs_alone(self) -> bool:
        """Whether a plain call runs the model on these rows; what an encoder-decoder decodes, only a loss says."""
        module = self.module
        plain = isinstance(module, PreTrainedModel) and not module.config.is_encoder_decoder
        return bool(self.label_type) or (plain and not isinstance(self.rows, ReadyBatches))

    def works(self) -> list[Work]:
        """Batches of the split's first rows to time the model on: the same rows whatever the model and tokenizer."""
        module = cast(Mapping[str, nn.Module], self.module.heads)[self.head] if self.head else self.module
        chosen = self.rows.select(range(min(len(self.rows), _TIMED * _BATCH)))
        order = sorted(range(len(chosen)), key=lambda i: len(str(chosen[i])))  # little padding
        encoded = self._encoded
        places: dict[int, list[int]] = {}
        for place, index in enumerate(encoded["index"][:]):
            places.setdefault(index, []).append(place)
        parts = [[chosen[i]["index"] for i in order[at : at + _BATCH]] for at in range(0, len(order), _BATCH)]
        return [
            self._work(module, encoded.select([p for index in part for p in places.get(index, ())]), len(part))
            for part in parts
            if any(index in places for index in part)  # of plain text there are fewer blocks than lines
        ]

    def _work(self, module: nn.Module, encoded: datasets.Dataset, sentences: int) -> Work:
        device = self._device
        inputs = [
            model_inputs(module, own_view(self.own, batch), device)
            for batch in self._batches(encoded, share=False, by_length=False)
        ]

        @torch.no_grad()
        def run() -> None:
            for batch in inputs:
                module(**batch)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)

        return Work(sentences, run)

    @property
    def of_losses(self) -> Any:
        """What losses are evaluated on: the split, or ready batches."""
        return self.rows if isinstance(self.rows, ReadyBatches) else self.split

    @cached_property
    def _encodings(self) -> list[Encoding]:
        return self.data_cache.encodings(self.data, [self.own], {self.own: self.module})[0]

    @cached_property
    def _encoded(self) -> datasets.Dataset:
        return self.data_cache.split(self.data, self.split, self._encodings)

    def _batches(self, encoded: datasets.Dataset, *, share: bool, by_length: bool) -> Any:
        encoded = own_share(encoded) if share else encoded
        lengths = row_lengths(encoded) if by_length else None
        order = BatchOrder(len(encoded), _BATCH, shuffle=False, lengths=lengths)
        return loader(encoded, order, self.data_cache.collator(self.data, self._encodings, training=False))

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device


def _size(module: nn.Module, folder: Path | None) -> int:
    """Bytes of the tensors in a folder; without one, or where its heads share a trunk, of those in memory, each once.

    A model with heads lies on disk as a whole model per head, which says how it is handed over, not how large it is.
    An adapter that is saved beside the merged weights is part of them already.
    """
    if folder is not None and folder.is_dir() and not isinstance(module, HeadedModel):
        return sum(map(_tensor_bytes, folder.glob("*.safetensors")))
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _tensor_bytes(path: Path) -> int:
    """Bytes of a safetensors file without its header, whose length its first 8 bytes say."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    return path.stat().st_size - 8 - header
