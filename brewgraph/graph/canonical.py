"""Graphs, and the passes that bring one into its canonical form, by which it is known and named.

A pass is a function named by a verb, from a graph to a graph; nothing else rewrites one. Those of `CANONICAL` give
every graph its hash. What may be left out without another result, and only saves work, is in `optimizing`.

A graph is a frozen `networkx.DiGraph`. Each node has its `Node` under `"node"`; edges lead from what is used to what
uses it.
`graph.graph` holds `objective` (the key of the loss), `terms` (name -> key of each reported scalar), `caches` (key of a
value that is kept on disk -> name and folder of its cache), and whatever else passes have found out (see `optimizing`).
Where a value is kept is no part of what it is: a cache changes no hash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import networkx as nx

from brewgraph.digest import digest
from brewgraph.graph.nodes import Combine, Forward, Input, Node

Pass = Callable[[nx.DiGraph], nx.DiGraph]


def assemble(nodes: Mapping[str, Node], objective: str, terms: Mapping[str, str], **found: Any) -> nx.DiGraph:
    """A frozen graph of these nodes. `found` is what else is to be known of it."""
    graph: Any = nx.DiGraph(objective=objective, terms=dict(terms), **found)
    for key, node in nodes.items():
        graph.add_node(key, node=node)
    for key, node in nodes.items():
        graph.add_edges_from((used, key) for used in node.inputs)
    frozen: nx.DiGraph = nx.freeze(graph)
    return frozen


def node(graph: nx.DiGraph, key: str) -> Node:
    found: Node = graph.nodes[key]["node"]
    return found


def rewritten(graph: nx.DiGraph, nodes: Mapping[str, Node], **changes: Any) -> nx.DiGraph:
    """A graph of these nodes that is known for the same things as another, apart from `changes`."""
    return assemble(nodes, **{**graph.graph, **changes})


def nodes_of(graph: nx.DiGraph) -> dict[str, Node]:
    """The nodes of a graph by their keys, in its order."""
    return {key: node(graph, key) for key in graph}


def used_by(graph: nx.DiGraph, roots: Iterable[str]) -> set[str]:
    """The keys of these nodes and of everything that they are computed from."""
    found: set[str] = set()
    for root in roots:
        found |= nx.ancestors(graph, root) | {root}
    return found


def prune_to_objective(graph: nx.DiGraph) -> nx.DiGraph:
    """Keep what the loss is computed from, and nothing else."""
    live = used_by(graph, [graph.graph["objective"]])
    terms = {name: key for name, key in graph.graph["terms"].items() if key in live}
    return rewritten(graph, {key: x for key, x in nodes_of(graph).items() if key in live}, terms=terms)


def flatten_sums(graph: nx.DiGraph) -> nx.DiGraph:
    """Splice sums into the sums that they are addends of, unless reported or kept: `a + (b + c)` is `a + b + c`."""
    reported = {*graph.graph["terms"].values(), graph.graph["objective"], *graph.graph.get("caches", ())}
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
    return prune_to_objective(rewritten(graph, nodes))


def tell_apart(graph: nx.DiGraph, own: Mapping[str, str]) -> nx.DiGraph:
    """Give forwards of some models, and what enters them, identities of their own, by model name.

    Equal declarations mean equal models only while both are loaded as declared. Projections keep their seeds.
    """

    def other(x: Node) -> Node:
        if not isinstance(x, Input | Forward) or x.model not in own:
            return x
        return replace(x, identity=digest(x.identity, own[x.model]))

    return rewritten(graph, {key: other(x) for key, x in nodes_of(graph).items()})


def name_by_content(graph: nx.DiGraph) -> nx.DiGraph:
    """Let every key be the hash of what its node computes; a second node of equal content is `HASH#1`.

    Inputs and forwards of equal content are one: two forwards of a student would draw two dropouts. Addends stand in
    the order of their hashes, which is also the order of execution: equal hashes mean equal numbers.
    """
    renamed: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    seen: Counter[str] = Counter()
    for key in nx.topological_sort(graph):
        old = node(graph, key)
        inputs = tuple(renamed[used] for used in old.inputs)
        if isinstance(old, Combine) and old.commutes:
            inputs = tuple(sorted(inputs))
        new = replace(old, inputs=inputs)
        own = digest(new.kind, new.content(), tuple(map(content_hash, inputs)))
        if not isinstance(new, Input | Forward):
            own, seen[own] = (f"{own}#{seen[own]}" if seen[own] else own), seen[own] + 1
        renamed[key] = own
        nodes.setdefault(own, new)
    ordered = {key: nodes[key] for key in sorted(nodes)}
    terms = {name: renamed[key] for name, key in graph.graph["terms"].items()}
    caches = {renamed[key]: where for key, where in graph.graph.get("caches", {}).items() if key in renamed}
    return rewritten(graph, ordered, objective=renamed[graph.graph["objective"]], terms=terms, caches=caches)


def merge_equal_nodes(graph: nx.DiGraph) -> nx.DiGraph:
    """Compute equal things once: of the nodes of one hash, the first stands for all."""
    nodes = {
        key: replace(x, inputs=tuple(map(content_hash, x.inputs)))
        for key, x in nodes_of(graph).items()
        if key == content_hash(key)
    }
    terms = {name: content_hash(key) for name, key in graph.graph["terms"].items()}
    caches = {content_hash(key): where for key, where in graph.graph.get("caches", {}).items()}
    return rewritten(graph, nodes, terms=terms, objective=content_hash(graph.graph["objective"]), caches=caches)


def content_hash(key: str) -> str:
    """The hash in a key."""
    return key.partition("#")[0]


CANONICAL: tuple[Pass, ...] = (prune_to_objective, flatten_sums, name_by_content)


def canonical(graph: nx.DiGraph) -> nx.DiGraph:
    """The one form of a graph that is built: what it computes has a hash, however it was written."""
    for rewrite in CANONICAL:
        graph = rewrite(graph)
    return graph


def simplify(graph: nx.DiGraph) -> nx.DiGraph:
    """The canonical graph, equal things merged: the one that is shown, planned and hashed."""
    return merge_equal_nodes(canonical(graph))


def execution_order(graph: nx.DiGraph) -> list[str]:
    """Keys in the one order in which a graph is run: inputs first, ties by key."""
    return list(nx.lexicographical_topological_sort(graph))


def structure_hashes(
    graph: nx.DiGraph, content: Callable[[Node], tuple[Any, ...]], *, ordered: bool = False
) -> dict[str, str]:
    """For each node a hash of all that it is computed from, where `content` says what a node itself is.

    The inputs of what commutes count in no order, unless they are `ordered`.
    """
    found: dict[str, str] = {}
    for key in execution_order(graph):
        current = node(graph, key)
        inputs = [found[used] for used in current.inputs]
        commutes = isinstance(current, Combine) and current.commutes and not ordered
        found[key] = digest(current.kind, content(current), sorted(inputs) if commutes else inputs)
    return found
