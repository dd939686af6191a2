"""Which forwards a batch runs, which of those in its loss it need not, and which values are kept on disk."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import networkx as nx

from brewgraph.graph import nodes as n
from brewgraph.graph.optimizing import drop_dead_terms
from brewgraph.graph.passes import execution_order, node
from brewgraph.graph.spell import spell


@dataclass(frozen=True)
class ForwardPlan:
    """A forward per batch and the features that are taken from it, in the order of the model.

    `dropped` are those that only terms of weight zero take: they are not computed, and without any `features` the
    forward does not run.
    """

    model: str
    role: str
    data: str
    features: tuple[str, ...]
    passing: int = 1
    dropped: tuple[str, ...] = ()


def plan_forwards(graph: nx.DiGraph, skip: Collection[str] = ()) -> tuple[ForwardPlan, ...]:
    """The forwards of a canonical graph, those of teachers first. `skip` are passes that are left out, by name."""
    live = graph if drop_dead_terms.__name__ in skip else drop_dead_terms(graph)
    found = []
    for key in execution_order(graph):
        forward = node(graph, key)
        if isinstance(forward, n.Forward):
            taps = [(k in live, t.feature) for k in graph.successors(key) if isinstance(t := node(graph, k), n.Tap)]
            taps.sort(key=lambda x: (x[1].name, x[1].path or "", x[1].index or 0, str(x[1])))
            entry = node(graph, forward.entry)
            data = entry.data if isinstance(entry, n.Input) else ""
            taken, dropped = (tuple(str(x) for runs, x in taps if runs is wanted) for wanted in (True, False))
            found.append(ForwardPlan(forward.model, forward.role, data, taken, forward.passing, dropped))
    return tuple(sorted(found, key=lambda f: (f.role != "teacher", f.model, f.data, f.passing)))


def plan_caches(graph: nx.DiGraph) -> tuple[tuple[str, str, str], ...]:
    """What is kept on disk: the name of each `cache`, the value, the folder."""
    kept = graph.graph.get("caches", {}).items()
    return tuple(sorted((name, spell(graph, key), folder) for key, (name, folder) in kept))
