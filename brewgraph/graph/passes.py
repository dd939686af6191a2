"""Passes over a graph: each is a function named by a verb, from a graph to a graph. Nothing else rewrites one.

A graph is a frozen `networkx.DiGraph`. Each node has its `Node` under `"node"`; edges lead from what is used to what
uses it.
`graph.graph` holds `objective` (the key of the loss) and `terms` (name -> key of each reported scalar).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import networkx as nx

from brewgraph.graph.nodes import COMMUTES, Combine, Node

Pass = Callable[[nx.DiGraph], nx.DiGraph]


def assemble(nodes: Mapping[str, Node], objective: str, terms: Mapping[str, str]) -> nx.DiGraph:
    """A frozen graph of these nodes."""
    graph: Any = nx.DiGraph(objective=objective, terms=dict(terms))
    for key, node in nodes.items():
        graph.add_node(key, node=node)
    for key, node in nodes.items():
        graph.add_edges_from((used, key) for used in node.inputs)
    frozen: nx.DiGraph = nx.freeze(graph)
    return frozen


def node(graph: nx.DiGraph, key: str) -> Node:
    found: Node = graph.nodes[key]["node"]
    return found


def prune_to_objective(graph: nx.DiGraph) -> nx.DiGraph:
    """Keep what the loss is computed from, and nothing else."""
    objective = graph.graph["objective"]
    live = nx.ancestors(graph, objective) | {objective}
    nodes = {key: node(graph, key) for key in graph if key in live}
    terms = {name: key for name, key in graph.graph["terms"].items() if key in live}
    return assemble(nodes, objective, terms)


def flatten_sums(graph: nx.DiGraph) -> nx.DiGraph:
    """Splice sums into the sums that they are addends of, unless they are reported: `a + (b + c)` is `a + b + c`."""
    reported = set(graph.graph["terms"].values()) | {graph.graph["objective"]}
    nodes: dict[str, Node] = {}
    for key in nx.topological_sort(graph):
        current = node(graph, key)
        if isinstance(current, Combine) and current.operator == "+":
            inputs: list[str] = []
            for used in current.inputs:
                below = nodes[used]
                anonymous = isinstance(below, Combine) and below.operator == "+" and used not in reported
                inputs += below.inputs if anonymous else (used,)
            current = replace(current, inputs=tuple(inputs))
        nodes[key] = current
    return prune_to_objective(assemble(nodes, graph.graph["objective"], graph.graph["terms"]))


def merge_equal_nodes(graph: nx.DiGraph) -> nx.DiGraph:
    """Compute equal things once: nodes of equal content become one, whose key is its content hash.

    Addends stand in the order of their hashes, which is also the order of execution: equal hashes mean equal numbers.
    """
    renamed: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for key in nx.topological_sort(graph):
        old = node(graph, key)
        inputs = tuple(renamed[used] for used in old.inputs)
        if isinstance(old, Combine) and old.operator in COMMUTES:
            inputs = tuple(sorted(inputs))
        new = replace(old, inputs=inputs)
        renamed[key] = digest(new.kind, new.content(), inputs)
        nodes.setdefault(renamed[key], new)
    ordered = {key: nodes[key] for key in sorted(nodes)}
    terms = {name: renamed[key] for name, key in graph.graph["terms"].items()}
    return assemble(ordered, renamed[graph.graph["objective"]], terms)


PASSES: tuple[Pass, ...] = (prune_to_objective, flatten_sums, merge_equal_nodes)


def optimize(graph: nx.DiGraph) -> nx.DiGraph:
    """All passes, in order."""
    for rewrite in PASSES:
        graph = rewrite(graph)
    return graph


def execution_order(graph: nx.DiGraph) -> list[str]:
    """Keys in the one order in which a graph is run: inputs first, ties by key."""
    return list(nx.lexicographical_topological_sort(graph))


def digest(*parts: Any) -> str:
    """A hash of plain values (their `repr` is stable), 16 hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
