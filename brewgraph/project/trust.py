"""Teachers on trial: on some labelled rows, before training, does each number its classes as the data does?"""

from __future__ import annotations

import torch
from torch import nn

from brewgraph.data.batches import BatchOrder, derive_seed, loader
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.graph import nodes as n
from brewgraph.graph.passes import node
from brewgraph.models.label_order import check_label_order
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


def check_teachers_agree(pantry: Pantry, checked: Checked, reporter: Reporter) -> None:
    """Stop where another order of a teacher's classes fits the labels far better; say so where it only guesses.

    Raises `SpecError` B332 at the teacher. Only teachers whose logits a loss needs are tried, on classes: where they
    have a weight of zero they teach nothing, and the head may not even be loaded.
    """
    tried: set[tuple[str, str]] = set()
    for stage, task in checked.recipe.tasks:
        for model in _graders(pantry, checked, stage, task):
            if (model.name, task.data[0]) not in tried:
                tried.add((model.name, task.data[0]))
                _try(pantry, model, task.data[0], reporter)


def _graders(pantry: Pantry, checked: Checked, stage: Stage, task: Task) -> list[ModelDeclaration]:
    """The teachers whose logits a task's loss needs."""
    graph = pantry.workshop.optimized(checked)[stage.name, task.name]
    taps = (x for key in graph if isinstance(x := node(graph, key), n.Tap))
    read = {x.model for x in taps if x.feature.name == "logits"}
    return [m for m in checked.recipe.teachers if m.name in read and not isinstance(m.source, Ema)]


def _try(pantry: Pantry, model: ModelDeclaration, data: str, reporter: Reporter) -> None:
    source = pantry.recipe.data[data].source
    if isinstance(source, Batches) or source.label_type != "class":
        return
    examples, module = pantry.workshop.examples(data), pantry.workshop.model(model.name)
    if not can_score(module, "class", examples.classes):
        return
    train = examples.splits["train"]
    order = BatchOrder(len(train), min(ROWS, len(train)), seed=derive_seed(pantry.recipe.train.seed, "trial"))
    chosen = train.select(next(iter(order)))
    encodings, _ = pantry.encodings(data, [model.name])
    encoded = pantry.encode(data, chosen, encodings)
    collator = pantry.collator(data, encodings, training=False)
    said, true = [], []
    with evaluating(module), torch.no_grad():
        for batch in loader(encoded, BatchOrder(len(encoded), 64, shuffle=False), collator):
            said.append(_guesses(module, model.name, batch))
            true.append(batch["labels"])
    found = check_label_order(torch.cat(said), torch.cat(true), examples.classes, f"the teacher `{model.name}`")
    if found.verdict == "permuted":
        raise SpecError([Diagnostic("B332", found.message, model.span, found.help)])
    if found.verdict == "chance":
        reporter.say(f"warning: {found.message}; {found.help}")


def _guesses(module: nn.Module, name: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    device = next(module.parameters()).device
    inputs = model_inputs(module, own_view(name, batch), device)
    guesses: torch.Tensor = logits_of(module, inputs, "class").argmax(-1).cpu()
    return guesses
