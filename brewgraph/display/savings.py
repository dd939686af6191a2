"""What each pass saves, counted before a weight is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import networkx as nx

from brewgraph.diagnostics import listing
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import execution_order, node
from brewgraph.graph.optimize import (
    PASSES,
    Reached,
    check_names,
    features_of,
    reached,
    releases,
    running_order,
)
from brewgraph.recipe.features import Feature


class ModelReach(Protocol):
    """What is asked of a model.

    Whether its forward `draws` random numbers in training; `depth` has `run` and `present` layers, None where no stack
    of layers is known; `late` are those of some features that it gives when all layers have run; `parameters` gives the
    names of those that features reach, None where that is not known.
    """

    @property
    def draws(self) -> bool: ...
    @property
    def attention_layers(self) -> int: ...
    @property
    def names(self) -> frozenset[str]: ...
    def depth(self, features: Collection[Feature]) -> Any: ...
    def late(self, features: Collection[Feature]) -> Collection[Feature]: ...
    def parameters(self, features: Collection[Feature]) -> frozenset[str] | None: ...


ReachOf = Callable[[str], ModelReach | None]


@dataclass(frozen=True)
class CountChange:
    """How many there are of something without a pass and with it."""

    what: str
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.what} {self.before:,} -> {self.after:,}"


@dataclass(frozen=True)
class PassSavings:
    """What a pass changed in the loss of a task, as it stands behind the passes before it; `skipped` says it is left
    out. `notes` are what else there is to know of it."""

    name: str
    changes: tuple[CountChange, ...]
    skipped: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = "left out" if self.skipped else ", ".join(map(str, self.changes)) or "nothing"
        return "; ".join([said, *self.notes])


WORDS = {
    "values": "values computed",
    "terms": "terms",
    "models": "models that run",
    "forwards": "forwards per batch",
    "layers": "layers run",
    "eager": "layers with eager attention",
    "calls": "calls of losses",
    "held": "values held at once",
    "trained": "parameter tensors trained",
    "pausing": "terms computed while their weight is zero",
}
"""What is counted, in words."""


def savings(written: nx.DiGraph, reach: ReachOf, skip: Collection[str] = ()) -> tuple[PassSavings, ...]:
    """What each pass saves on a canonical graph, in their order."""
    check_names(skip)
    found, graph, before = [], written, count(written, reach)
    for rewrite in PASSES:
        name = rewrite.__name__
        if name in skip:
            found.append(PassSavings(name, (), skipped=True))
            continue
        graph = rewrite(graph)
        after = count(graph, reach)
        changes = [
            CountChange(words, before[key], after[key]) for key, words in WORDS.items() if before[key] != after[key]
        ]
        notes = _whole(graph, reach) if name == "truncate_models" else ()
        found.append(PassSavings(name, tuple(changes), notes=notes))
        before = after
    return tuple(found)


def count(graph: nx.DiGraph, reach: ReachOf) -> Mapping[str, int]:
    """How many there are of each of `WORDS`; what is not known of a model counts as nothing."""
    forwards = {key: x for key in graph if isinstance(x := node(graph, key), n.Forward)}
    return {
        "values": len(graph) - sum(isinstance(node(graph, key), n.Number) for key in graph),
        "terms": len(graph.graph["terms"]),
        "models": len({x.model for x in forwards.values()}),
        "forwards": len(forwards),
        "layers": sum(_layers(graph, key, x, reach) for key, x in forwards.items()),
        "eager": sum(_eager(graph, key, x, reach) for key, x in forwards.items()),
        "calls": sum(isinstance(node(graph, key), n.Loss) for key in graph),
        "held": _held(graph),
        "trained": _trained(graph, reach),
        "pausing": 0 if "guards" in graph.graph else _pausing(graph),
    }


def _layers(graph: nx.DiGraph, key: str, forward: n.Forward, reach: ReachOf) -> int:
    own = reach(forward.model)
    found = own.depth(features_of(graph, key)) if own is not None else None
    if found is None:
        return 0
    whole = forward.role == "student" and own is not None and own.draws
    layers: int = found.run if forward.stops and not whole else found.present
    return layers


def _whole(graph: nx.DiGraph, reach: ReachOf) -> tuple[str, ...]:
    """The models that cannot be cut short behind a feature in their middle, and why."""
    said = {}
    for key in execution_order(graph):
        if isinstance(x := node(graph, key), n.Forward):
            features, own = features_of(graph, key), reach(x.model)
            if own is not None and (late := own.late(features)):
                rows = listing(sorted({feature.name for feature in late}))
                said[x.model] = f"no module of {x.model} gives its {rows} as it returns them: all of its layers run"
            elif own is None or own.depth(features) is None:
                said[x.model] = f"how many layers of {x.model} run is not known"
    return tuple(said[name] for name in sorted(said))


def _eager(graph: nx.DiGraph, key: str, forward: n.Forward, reach: ReachOf) -> int:
    own = reach(forward.model)
    used = {x.index for x in features_of(graph, key) if x.name == "attention"}
    if not used or own is None:
        return 0
    return len(used) if forward.narrow else own.attention_layers


def _held(graph: nx.DiGraph) -> int:
    """The most values that are held at once."""
    gone = releases(graph, graph) if "released" in graph.graph else {}
    now = most = 0
    for key in running_order(graph):
        now += not isinstance(node(graph, key), n.Forward | n.Temperature)
        most = max(most, now)
        now -= len([x for x in gone.get(key, ()) if not isinstance(node(graph, x), n.Forward | n.Temperature)])
    return most


def _trained(graph: nx.DiGraph, reach: ReachOf) -> int:
    """Tensors of the student's that the optimizer holds."""
    student = next(
        (x.model for key in graph if isinstance(x := node(graph, key), n.Forward) and x.role == "student"), ""
    )
    own = reach(student) if student else None
    if own is None:
        return 0
    found: Reached = graph.graph.get("reached") or reached(graph)
    names = own.parameters(found.features) if graph.graph.get("frozen") else None
    return len(own.names if names is None else names)


def _pausing(graph: nx.DiGraph) -> int:
    from brewgraph.graph.optimize import skip_scheduled_zeros

    return len(skip_scheduled_zeros(graph).graph["guards"])
