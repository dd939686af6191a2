"""What each task of a checked spec costs per batch, before any weight is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import networkx as nx
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from brewgraph.checking.check import Checked
from brewgraph.data.sources.tensor_batches import largest_batch
from brewgraph.display.cost import Cost
from brewgraph.graph.container import info
from brewgraph.models.fake.shapes import empty_model
from brewgraph.recipe.length import Length
from brewgraph.recipe.settings.data_sources import Batches
from brewgraph.running.spec_builder import data_of, models_of
from brewgraph.runtime.count_cost import count_step, example_batch

LONGEST = 512
PRECISIONS = {"fp16": torch.bfloat16, "bf16": torch.bfloat16}
"""The type that a CPU computes in for a precision; all of these take two bytes."""


def costs(checked: Checked, skip: Collection[str] = ()) -> Mapping[tuple[str, str], Cost | str]:
    """The cost of a batch of each task, or in words why it is unknown; `skip` names passes to leave out."""
    by_task: dict[tuple[str, str], Cost | str] = {}
    cache: dict[object, Cost | str] = {}
    precisions = {stage.name: stage.train.precision for stage in checked.recipe.stages}
    for name, graph in checked.graphs.items():
        sources = [checked.recipe.data[d].source for d in data_of(graph)]
        # the cost of a loss depends on batch sizes and precision, its hash does not
        key = (info(graph).objective, precisions[name[0]], *((source.batch, source.max_length) for source in sources))
        if key not in cache:
            cache[key] = cost(checked, graph, precisions[name[0]], skip)
        by_task[name] = cache[key]
    return by_task


def cost(checked: Checked, graph: nx.DiGraph, precision: str = "fp32", skip: Collection[str] = ()) -> Cost | str:
    """The cost of a batch of this graph, the largest one of ready tensors; if it is unknown, the reason in words."""
    recipe = checked.recipe
    names = list(dict.fromkeys([*models_of(graph), recipe.student.name]))
    sources = {name: recipe.data[name].source for name in data_of(graph)}
    ready = {name: source for name, source in sources.items() if isinstance(source, Batches)}
    if missing := [name for name in names if checked.facts(recipe.models[name]) is None]:
        return f"nothing is known of {missing[0]} before it is loaded"
    for module in recipe.modules:
        return f"operations of {module} run in training only"
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    models: dict[str, nn.Module] = {}
    for name in sorted(names, key=lambda m: recipe.models[m].source.averaged is not None):
        if (facts := checked.facts(recipe.models[name])) is not None:
            models[name] = empty_model(facts.description, mode)
    lengths = {d: _length(checked, d, names) for d in sources if d not in ready}
    shapes = {d: (_examples(sources[d].batch, length), length) for d, length in lengths.items()}
    types = {d: source.label_type for d, source in sources.items()}
    classes = {d: len(checked.classes.get(d, ())) for d in sources}
    with mode:
        largest = {d: largest_batch(source, checked.folder) for d, source in ready.items()}
        batch = example_batch(graph, models, types, classes, shapes, largest)
    student = checked.facts(recipe.student)
    reach, dtype = student.reach if student is not None else None, PRECISIONS.get(precision)
    try:
        return count_step(graph, models, recipe.student.name, batch, mode, dtype, reach=reach, skip=skip)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return f"it does not run without weights ({type(error).__name__}: {first[:80]})"


def _examples(batch: int | Length, length: int) -> int:
    """The examples of a batch, each of full length."""
    return batch if isinstance(batch, int) else max(1, int(batch.value) // length)


def _length(checked: Checked, data: str, names: list[str]) -> int:
    """The number of tokens of the longest encoding that the data and the positions of its readers allow."""
    limits = [checked.recipe.data[data].source.max_length or LONGEST]
    for name in names:
        facts = checked.facts(checked.recipe.models[name])
        config = facts.description.config if facts is not None else None
        limits.append(getattr(config, "max_position_embeddings", None) or LONGEST)
    return min(limits)
