"""The closing table of a run: scores of every model on the same examples, and its speed on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import cast

import datasets
import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PreTrainedModel

from brewgraph.checking.check import Checked
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.models.fake.shapes import count_parameters
from brewgraph.models.heads import HeadedModel, evaluating
from brewgraph.models.standby import awake
from brewgraph.recipe.label_types import NONE
from brewgraph.recipe.recipe import Task
from brewgraph.recipe.settings.metric_names import keyed
from brewgraph.running.data_cache import DataCache, head_of
from brewgraph.running.predict import losses_on
from brewgraph.running.scores import ScoreRow
from brewgraph.running.spec_builder import closing_split, models_of
from brewgraph.running.timing import TimedBatch, measure
from brewgraph.runtime.count_cost import LiveBytes
from brewgraph.training.evaluation import can_score, model_inputs, own_view, score
from brewgraph.training.processes import this_process
from brewgraph.training.work import Material, in_order

_BATCH = 64
_TIMED = 4
"""Batches of a task that models are timed on."""


@dataclass(frozen=True)
class Trained:
    """A model that a run trained, and the folder where it is saved."""

    module: nn.Module
    folder: Path


def compare(data_cache: DataCache, trained: Mapping[str, Trained], say: Callable[[str], None]) -> tuple[ScoreRow, ...]:
    """Score the teachers that a run had and the students that it trained on each task's test split, else dev; then time
    them on rows of the same split. A task that cannot score the student reports its losses.

    A task of several stages counts as it is in the last one: a teacher of an earlier stage is scored if that had the
    same data; otherwise `say` reports that it is not. Models that no task can score have no row.
    """
    builder, checked, recipe = data_cache.builder, data_cache.builder.checked, data_cache.recipe
    stages = {task.name: (stage, task) for stage, task in recipe.tasks}
    # of a finished run those that some stage had; an average of the student exists only in the builder that made it
    graphs = builder.optimized().values() if recipe.student.name in trained else ()
    used = {model for graph in graphs for model in models_of(graph) if not recipe.models[model].source.averaged}
    teachers = {
        m.name: Trained(builder.model(m.name), Path())
        for m in recipe.teachers
        if m.name in builder.models or m.name in used
    }
    rows: list[ScoreRow] = []
    batches: dict[str, list[TimedBatch]] = {}
    with ExitStack() as modes:
        for name, model in {**teachers, **trained}.items():
            declared = name if name in teachers else recipe.student.name
            values: dict[str, float] = {}
            kinds: dict[str, str] = {}
            splits: dict[str, str] = {}
            for task_name, (stage, task) in stages.items():
                read = {
                    other.data[0]
                    for at, other in recipe.tasks
                    if other.name == task_name and declared in models_of(checked.graphs[at.name, other.name])
                }
                if task.data[0] not in read:
                    if read:
                        where = f"it teaches on {min(read)}, but the last stage is on {task.data[0]}"
                        say(f"{declared} has no score in the table: {where}")
                    continue
                closing = _material(data_cache, checked, task, declared, model.module)
                if closing is None:
                    continue
                split, material = closing
                scores: Mapping[str, float] | None = None
                if material.label_type:
                    scores = score(awake(model.module), declared, material)
                elif name == recipe.student.name:
                    builder.models[name] = model.module
                    examples = material.dev if isinstance(material.dev, ReadyBatches) else split
                    scores = losses_on(data_cache, checked, stage, task, examples, model.folder)
                if not scores:
                    continue
                values |= keyed(task_name, scores)
                kinds[task_name], splits[task_name] = material.label_type, split
                if this_process().is_main_process and material.collator is not None:
                    batches.setdefault(name, []).extend(_timed_batches(declared, model.module, material))
            if values:
                modes.enter_context(evaluating(model.module))
                size = _size(model.module, model.folder / "student" if name in trained else None)
                rows.append(ScoreRow(name, values, kinds, count_parameters(model.module), size, 0.0, splits=splits))
        held = {name: peak for name, own in batches.items() if own and (peak := held_bytes(own[-1].run))}
        times = measure(batches)
    if this_process().num_processes > 1:  # the first process alone measures while the others wait
        times, held = broadcast_object_list([times, held])
    speeds = {name: 1 / max(median(seconds), 1e-9) for name, seconds in times.items() if seconds}
    memory = {row.name: row.size + held[row.name] for row in rows if row.name in held}
    return tuple(
        replace(
            row,
            seconds=times.get(row.name, ()),
            per_second=speeds.get(row.name, 0.0),
            memory=memory.get(row.name, 0),
        )
        for row in rows
    )


def _material(
    data_cache: DataCache, checked: Checked, task: Task, name: str, module: nn.Module
) -> tuple[str, Material] | None:
    """A task's closing split for a model that the spec calls `name`; None if there is no such split.

    The label type is NONE if the split cannot score the model. It is encoded, with a collator, if it can, or if the
    student runs on it without a loss: an encoder-decoder has nothing to decode.
    """
    builder, data = data_cache.builder, task.data[0]
    source = data_cache.recipe.data[data].source
    if source.holds_tensors:
        batches = builder.tensor_batches(data)
        return ("dev", Material({}, batches, label_type=NONE)) if batches.dev else None
    examples = builder.examples(data)
    split = closing_split(examples.splits)
    if split is None:
        return None
    head = head_of(checked, task, data) if name == data_cache.recipe.student.name else ""
    scored = can_score(module, source.label_type, examples.classes, head)
    material = Material(
        {},
        batch=_BATCH,
        classes=examples.classes,
        label_type=source.label_type if scored else NONE,
        examples=examples.splits[split],
        head=head,
        null_threshold=builder.null_threshold(data),
    )
    alone = isinstance(module, PreTrainedModel) and not module.config.is_encoder_decoder
    if scored or (alone and name == data_cache.recipe.student.name):
        encodings, _ = data_cache.encodings(data, [name], {name: module})
        rows, collator = data_cache.split(data, split, encodings), data_cache.collator(data, encodings, training=False)
        material = replace(material, dev=rows, collator=collator)
    return split, material


def _timed_batches(name: str, module: nn.Module, material: Material) -> Iterator[TimedBatch]:
    """Batches of the split's first rows to time a model on; the rows depend on no model and tokenizer."""
    if material.head:
        module = cast(Mapping[str, nn.Module], module.heads)[material.head]
    device = next(module.parameters()).device
    chosen = material.examples.select(range(min(len(material.examples), _TIMED * _BATCH)))
    order = sorted(range(len(chosen)), key=lambda i: len(str(chosen[i])))  # little padding
    encoded = cast(datasets.Dataset, material.dev)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(encoded["index"][:]):
        places.setdefault(index, []).append(place)

    @torch.no_grad()
    def run(inputs: Sequence[Mapping[str, torch.Tensor]]) -> None:
        for batch in inputs:
            module(**batch)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    for at in range(0, len(order), _BATCH):
        part = [chosen[i]["index"] for i in order[at : at + _BATCH]]
        if rows := [place for index in part for place in places.get(index, ())]:  # plain text: fewer blocks than lines
            batches = in_order(encoded.select(rows), material.collator, _BATCH)
            inputs = [model_inputs(module, own_view(name, batch), device) for batch in batches]
            yield TimedBatch(len(part), partial(run, inputs))


def _size(module: nn.Module, folder: Path | None) -> int:
    """Bytes of the tensors in a folder; without one, or for heads that share a trunk, of those in memory, each once.

    On disk a model with heads is a whole model per head, which is larger. An adapter that is saved beside the merged
    weights is part of them.
    """
    if folder is not None and folder.is_dir() and not isinstance(module, HeadedModel):
        return sum(map(_tensor_bytes, folder.glob("*.safetensors")))
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _tensor_bytes(path: Path) -> int:
    """Bytes of a safetensors file without its header, whose length is in the first 8 bytes."""
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    return path.stat().st_size - 8 - header


def held_bytes(run: Callable[[], object]) -> int:
    """The most bytes of tensors that a forward holds at once beside its weights, as counted from its operations, on any
    device. 0 for a model whose tensors do not tell their bytes, as some quantized ones.
    """
    with LiveBytes() as live:
        try:
            run()
        except (RuntimeError, NotImplementedError, TypeError, AttributeError):
            return 0
    held: int = live.peak.total()
    return held
