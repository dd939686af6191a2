"""The graph of a loss: a frozen `networkx.DiGraph` of nodes, and what is known of it beside them.

Each node has its `Node` under `"node"`; edges lead from a value to its users. `info` gives the rest as one typed value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import networkx as nx

from brewgraph.graph.nodes import Node
from brewgraph.recipe.features import Feature

Graph: TypeAlias = "nx.DiGraph[str]"
N = TypeVar("N", bound=Node)


@dataclass(frozen=True)
class Reached:
    """What gradients of a loss reach: features of the student, and projections by their sites."""

    features: frozenset[Feature] = frozenset()
    sites: frozenset[str] = frozenset()


@dataclass(frozen=True, order=True)
class Kept:
    """Where and how a value is kept on disk: the name of its `cache`, the folder, the number format (None: that in
    which it is computed), and the most bytes that the folder may take.
    """

    name: str
    folder: str
    dtype: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class GraphInfo:
    """What is known of a graph beside its nodes; the keys are those of nodes."""

    objective: str
    """The loss."""
    terms: Mapping[str, str]
    """Each reported scalar, by its name."""
    caches: Mapping[str, Kept] = field(default_factory=dict)
    """Values kept on disk. Only one that is rounded changes a hash, that of the spec."""
    guards: Mapping[str, tuple[str, ...]] | None = None
    """Products of the loss with the numbers in them that change, None before `skip_scheduled_zeros`. While one of these
    numbers is zero, what only the product needs is not computed."""
    reached: Reached | None = None
    """What gradients reach, terms included that were dropped: their parameters still get gradients of zero."""
    kept: tuple[str, ...] | None = None
    """Features of the student that no term needs since terms were dropped, but whose forward goes on drawing dropout;
    None where none was dropped."""
    frozen: bool = False
    """Whether parameters that no term can reach are frozen."""
    released: Mapping[str, tuple[str, ...]] | None = None
    """The values that can be released after each node, None where all are held."""


def assemble(nodes: Mapping[str, Node], info: GraphInfo) -> Graph:
    """A frozen graph of these nodes."""
    graph: Graph = nx.DiGraph(info=info)
    graph.add_nodes_from((key, {"node": node}) for key, node in nodes.items())
    graph.add_edges_from((used, key) for key, node in nodes.items() for used in node.inputs)
    frozen: Graph = nx.freeze(graph)
    return frozen


def info(graph: Graph) -> GraphInfo:
    """What is known of a graph beside its nodes."""
    known: GraphInfo = graph.graph["info"]
    return known


def rewritten(graph: Graph, nodes: Mapping[str, Node], known: GraphInfo | None = None) -> Graph:
    """A graph of other nodes, with what was known of `graph` unless `known` says otherwise."""
    return assemble(nodes, known or info(graph))


def node(graph: Graph, key: str) -> Node:
    """The node under a key."""
    x: Node = graph.nodes[key]["node"]
    return x


def nodes_of(graph: Graph) -> dict[str, Node]:
    """The nodes of a graph by their keys, in its order."""
    return {key: node(graph, key) for key in graph}


def of_kind(graph: Graph, kind: type[N], keys: Iterable[str] | None = None) -> Iterator[tuple[str, N]]:
    """The nodes of one kind with their keys, of all nodes or of `keys`, in that order."""
    for key in graph if keys is None else keys:
        if isinstance(x := node(graph, key), kind):
            yield key, x


def used_by(graph: Graph, roots: Iterable[str]) -> set[str]:
    """The keys of these nodes and of everything that they are computed from."""
    return set().union(*(nx.ancestors(graph, root) | {root} for root in roots))


def execution_order(graph: Graph) -> list[str]:
    """Keys in the one order in which a graph is run: inputs first, ties by key."""
    return list(nx.lexicographical_topological_sort(graph))
