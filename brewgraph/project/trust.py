"""Teachers on trial: on some labelled rows, before training, does each number its classes as the data does?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx
import torch
from torch import nn

from brewgraph.data.batches import BatchOrder, derive_seed, loader
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.graph import nodes as n
from brewgraph.graph.passes import node
from brewgraph.models.label_order import (
    LabelOrder,
    check_label_order,
    check_labels_order,
    check_span_order,
    check_tag_order,
)
from brewgraph.models.modes import evaluating
from brewgraph.project.check import Checked
from brewgraph.project.materials import Pantry
from brewgraph.recipe.recipe import Stage, Task
from brewgraph.recipe.sources import Batches, Ema
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.training.evaluate import logits_of, model_inputs, own_view
from brewgraph.training.evaluate import scores as can_score
from brewgraph.training.reporter import Reporter

ROWS = 512
"""Labelled rows that a teacher is tried on, at most."""
_TRIED = ("class", "classes", "tags", "spans")
"""Types of labels whose order a teacher may have otherwise. Numbers have none, tokens that of the vocabulary."""
_FEATURES = ("logits", "start", "end")


def check_teachers_agree(pantry: Pantry, checked: Checked, reporter: Reporter) -> None:
    """Stop where another order of a teacher's classes fits the labels far better; say so where it only guesses.

    Raises `SpecError` B332 at the teacher, B341 where its starts of answers are their ends. Only teachers whose logits
    a loss needs are tried: where they have a weight of zero they teach nothing, and the head may not even be loaded.
    """
    tried: set[tuple[str, str]] = set()
    for stage, task in checked.recipe.tasks:
        for model, data in _graders(pantry, checked, stage, task):
            if (model.name, data) not in tried:
                tried.add((model.name, data))
                _try(pantry, model, data, reporter)


def _graders(pantry: Pantry, checked: Checked, stage: Stage, task: Task) -> Iterator[tuple[ModelDeclaration, str]]:
    """The teachers whose logits a task's loss needs, and the data that they see there."""
    graph = pantry.workshop.optimized(checked)[stage.name, task.name]
    nodes = [node(graph, key) for key in graph]
    read = {x.model for x in nodes if isinstance(x, n.Tap) and x.feature.name in _FEATURES}
    for model in checked.recipe.teachers:
        if model.name in read and not isinstance(model.source, Ema) and not _is_crossed(checked, stage, task, model):
            yield from ((model, x.data) for x in nodes if isinstance(x, n.Input) and x.model == model.name)


def _is_crossed(checked: Checked, stage: Stage, task: Task, model: ModelDeclaration) -> bool:
    """Whether each of a teacher's starts and ends is matched with the student's other one, as B341 advises."""
    graph, student, pairs = checked.graphs[stage.name, task.name], checked.recipe.student.name, []
    for key in graph:
        if isinstance(node(graph, key), n.Loss):
            taps = [x for above in nx.ancestors(graph, key) if isinstance(x := node(graph, above), n.Tap)]
            own = [{x.feature.name for x in taps if x.model == name} for name in (model.name, student)]
            pairs.append([names & {"start", "end"} for names in own])
    matched = [(one, other) for one, other in pairs if one and other]
    return bool(matched) and all(one.isdisjoint(other) for one, other in matched)


def _try(pantry: Pantry, model: ModelDeclaration, data: str, reporter: Reporter) -> None:
    source = pantry.recipe.data[data].source
    if isinstance(source, Batches) or source.label_type not in _TRIED:
        return
    examples, module = pantry.workshop.examples(data), pantry.workshop.model(model.name)
    if not can_score(module, source.label_type, examples.classes):
        return
    train = examples.splits["train"]
    order = BatchOrder(len(train), min(ROWS, len(train)), seed=derive_seed(pantry.recipe.train.seed, "trial"))
    chosen = train.select(next(iter(order)))
    encodings, _ = pantry.encodings(data, [model.name])
    encoded = pantry.encode(data, chosen, encodings)
    collator = pantry.collator(data, encodings, training=False)
    seen: dict[str, list[torch.Tensor]] = {}
    with evaluating(module), torch.no_grad():
        for batch in loader(encoded, BatchOrder(len(encoded), 64, shuffle=False), collator):
            for name, values in _said(module, source.label_type, own_view(model.name, batch)).items():
                seen.setdefault(name, []).append(values)
    found = _judge(source.label_type, {name: torch.cat(x) for name, x in seen.items()}, examples.classes, model, module)
    if found.verdict == "permuted" and source.label_type == "spans":
        name = model.name
        help = f"match them crosswise: `{name}.end` with the student's `start`, and `{name}.start` with its `end`"
        raise SpecError([Diagnostic("B341", found.message, model.span, help)])
    if found.verdict == "permuted":
        raise SpecError([Diagnostic("B332", found.message, model.span, found.help)])
    if found.verdict == "chance":
        reporter.say(f"warning: {found.message}; {found.help}")


def _said(module: nn.Module, label_type: str, view: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a model says of a batch, and what is right: rows, or for tags the words that have one."""
    logits = logits_of(module, model_inputs(module, view, next(module.parameters()).device), label_type)
    if label_type == "spans":
        guesses = torch.stack([part.argmax(-1).cpu() for part in logits], -1)
        return {"said": guesses, "true": torch.stack([view["start"], view["end"]], -1)}
    if label_type == "classes":
        return {"said": logits.float().sigmoid().cpu(), "true": view["labels"]}
    guesses, labels = logits.argmax(-1).cpu(), view["labels"]
    if label_type == "class":
        return {"said": guesses, "true": labels}
    kept = labels >= 0
    return {"said": guesses[kept], "true": labels[kept], "tokens": view["input_ids"][kept]}


def _judge(
    label_type: str,
    seen: Mapping[str, torch.Tensor],
    classes: tuple[str, ...],
    model: ModelDeclaration,
    module: nn.Module,
) -> LabelOrder:
    said, true, name = seen["said"], seen["true"], f"the teacher `{model.name}`"
    places = getattr(getattr(module, "config", None), "class_order", ())
    match label_type:
        case "spans":
            return check_span_order(said, true, name)
        case "tags":
            return check_tag_order(said, true, seen["tokens"], classes, name, places)
        case "classes":
            return check_labels_order(said, true, classes, name, places)
    return check_label_order(said, true, classes, name, places)
