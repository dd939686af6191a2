"""Losses that compare the examples of a batch: batches that are split, or too small."""

from __future__ import annotations

from collections.abc import Iterator

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.graph import nodes as n
from brewgraph.graph.container import of_kind
from brewgraph.lints.subject import Subject
from brewgraph.ops import TEMPERATURES


def find_split_batches(subject: Subject) -> Iterator[Diagnostic]:
    """W212: a loss or a temperature that compares examples of a batch, where a step has several batches or ranks."""
    for stage in subject.recipe.stages:
        parts = stage.train.accumulate * subject.ranks
        if parts == 1 or stage.train.normalise == "micro":
            continue
        place = stage.places.get("accumulate") if stage.train.accumulate > 1 else None
        for task in stage.tasks:
            graph = subject.graphs.get((stage.name, task.name))
            for _, x in of_kind(graph, n.Node) if graph is not None else ():
                if (name := _compares_batch(x)) is None:
                    continue
                message = f"`{name}` compares examples within a batch, but each step is split into {parts} batches"
                help = "use a larger `batch=` and `accumulate = 1` on one rank; `normalise = micro` if this is intended"
                same = place is not None and place.source == x.span.source
                labels = (Label(place, "each batch by itself"),) if place is not None and same else ()
                yield Diagnostic("W212", message, x.span, help, labels=labels)


def find_small_batches(subject: Subject) -> Iterator[Diagnostic]:
    """W310: a loss that compares the examples of a batch, where a batch has too few."""
    for graph in subject.graphs.values():
        for _, x in of_kind(graph, n.Loss):
            if x.least == 1 or x.data not in subject.recipe.data:
                continue
            data = subject.recipe.data[x.data]
            if data.source.holds_tensors or not isinstance(data.source.batch, int):
                continue
            count = data.source.batch // subject.ranks
            if count >= x.least:
                continue
            message = f"`{x.operation}` compares at least {x.least} examples, but a batch has {count}: it is always 0"
            labels = (Label(data.place("batch"), "examples of a batch"),)
            yield Diagnostic("W310", message, x.span, f"a larger batch: `batch={8 * subject.ranks}`", labels=labels)


def _compares_batch(x: n.Node) -> str | None:
    """The name of a loss or temperature that compares the examples of a batch; None for other nodes."""
    if isinstance(x, n.Loss) and x.unit == "batch":
        return x.operation
    if isinstance(x, n.Temperature) and x.name in TEMPERATURES and TEMPERATURES[x.name].couples_batch:
        return x.name
    return None
