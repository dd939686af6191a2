"""What depends on how a batch is split."""

from __future__ import annotations

from collections.abc import Iterator

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.graph import nodes as n
from brewgraph.graph.container import node
from brewgraph.lints.subject import Subject
from brewgraph.ops import TEMPERATURES
from brewgraph.recipe.settings.sources import Batches


def find_split_batches(subject: Subject) -> Iterator[Diagnostic]:
    """W212: a loss or a temperature that looks at a whole batch, where a step has several batches or ranks."""
    for stage in subject.recipe.stages:
        parts = stage.train.accumulate * subject.ranks
        if parts == 1 or stage.train.normalise == "micro":
            continue
        place = stage.places.get("accumulate") if stage.train.accumulate > 1 else None
        for task in stage.tasks:
            graph = subject.graphs.get((stage.name, task.name))
            for found in (node(graph, key) for key in graph) if graph is not None else ():
                if (what := _whole(found)) is None:
                    continue
                message = f"`{what}` compares examples within a batch, but each step is split into {parts} batches"
                help = "a larger `batch=` and `accumulate = 1` on one rank; `normalise = micro` says that it is meant"
                same = place is not None and place.source == found.span.source
                labels = (Label(place, "each batch by itself"),) if place is not None and same else ()
                yield Diagnostic("W212", message, found.span, help, labels=labels)


def find_small_batches(subject: Subject) -> Iterator[Diagnostic]:
    """W310: a loss that compares the examples of a batch, where a batch has too few to compare."""
    for graph in subject.graphs.values():
        for found in (node(graph, key) for key in graph):
            if not isinstance(found, n.Loss) or found.least == 1 or found.data not in subject.recipe.data:
                continue
            data = subject.recipe.data[found.data]
            count = data.source.batch // subject.ranks
            if isinstance(data.source, Batches) or count >= found.least:
                continue
            message = (
                f"`{found.operation}` compares at least {found.least} examples, and a batch has {count}: it is always 0"
            )
            labels = (Label(data.place("batch"), "examples of a batch"),)
            help = f"a larger batch: `batch={8 * subject.ranks}`"
            yield Diagnostic("W310", message, found.span, help, labels=labels)


def _whole(found: n.Node) -> str | None:
    """The name of what looks at the whole batch; None for what does not."""
    if isinstance(found, n.Loss) and found.unit == "batch":
        return found.operation
    if isinstance(found, n.Temperature) and found.name in TEMPERATURES and TEMPERATURES[found.name].couples_batch:
        return found.name
    return None
