"""The canonical form of a graph, by which it is known and named.

A pass is a function named by a verb, from a graph to a graph; nothing else rewrites one. Those of `CANONICAL` give
every graph its one form and its hash; those of `PASSES`, in `optimize`, save work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import networkx as nx

from brewgraph.digest import digest
from brewgraph.graph.container import Graph, execution_order, info, node, nodes_of, rewritten, used_by
from brewgraph.graph.nodes import Combine, Content, Forward, Input, Node

Pass = Callable[[Graph], Graph]


def prune_to_objective(graph: Graph) -> Graph:
    """Keep what the loss is computed from, and nothing else."""
    known = info(graph)
    live = used_by(graph, [known.objective])
    terms = {name: key for name, key in known.terms.items() if key in live}
    return rewritten(graph, {key: x for key, x in nodes_of(graph).items() if key in live}, replace(known, terms=terms))


def flatten_sums(graph: Graph) -> Graph:
    """Splice sums into the sums that they are addends of, unless reported or kept: `a + (b + c)` is `a + b + c`."""
    known = info(graph)
    reported = {*known.terms.values(), known.objective, *known.caches}
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


def name_by_content(graph: Graph) -> Graph:
    """Make every key the hash of what its node computes; a second node of equal content is `HASH#1`.

    Inputs and forwards of equal content become one: two forwards of a student would draw two dropouts. Addends stand in
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
        name = digest(new.kind, new.content(), tuple(map(content_hash, inputs)))
        if not isinstance(new, Input | Forward):
            name, seen[name] = (f"{name}#{seen[name]}" if seen[name] else name), seen[name] + 1
        renamed[key] = name
        nodes.setdefault(name, new)
    return _renamed(graph, {key: nodes[key] for key in sorted(nodes)}, renamed)


def merge_equal_nodes(graph: Graph) -> Graph:
    """Compute equal values once: of the nodes of one hash, the first stands for all."""
    nodes = {
        key: replace(x, inputs=tuple(map(content_hash, x.inputs)))
        for key, x in nodes_of(graph).items()
        if key == content_hash(key)
    }
    return _renamed(graph, nodes, {key: content_hash(key) for key in graph})


def content_hash(key: str) -> str:
    """The hash in a key."""
    return key.partition("#")[0]


def _renamed(graph: Graph, nodes: Mapping[str, Node], renamed: Mapping[str, str]) -> Graph:
    """A graph of these nodes, what is known of `graph` said with their keys."""
    known = info(graph)
    terms = {name: renamed[key] for name, key in known.terms.items()}
    caches = {renamed[key]: place for key, place in known.caches.items() if key in renamed}
    return rewritten(graph, nodes, replace(known, objective=renamed[known.objective], terms=terms, caches=caches))


CANONICAL: tuple[Pass, ...] = (prune_to_objective, flatten_sums, name_by_content, merge_equal_nodes)


def canonical(graph: Graph, *, merged: bool = True) -> Graph:
    """The one form of a built graph, however its spec is written: this is planned, shown, hashed and run.

    Without `merged` equal nodes stay apart, with the same hashes: for a run without `merge_equal_nodes`.
    """
    for rewrite in CANONICAL:
        if merged or rewrite is not merge_equal_nodes:
            graph = rewrite(graph)
    return graph


def tell_apart(graph: Graph, identities: Mapping[str, str]) -> Graph:
    """Give the forwards of these models, and their inputs, other identities.

    Equal declarations mean equal models only while both are loaded as declared. Projections keep their seeds.
    """

    def other(x: Node) -> Node:
        if not isinstance(x, Input | Forward) or x.model not in identities:
            return x
        return replace(x, identity=digest(x.identity, identities[x.model]))

    return rewritten(graph, {key: other(x) for key, x in nodes_of(graph).items()})


def structure_hashes(graph: Graph, content: Callable[[Node], Content], *, ordered: bool = False) -> dict[str, str]:
    """For each node a hash of all that it is computed from, where `content` says what a node itself is.

    The order of the inputs of a commutative node counts only where `ordered`.
    """
    hashes: dict[str, str] = {}
    for key in execution_order(graph):
        current = node(graph, key)
        inputs = [hashes[used] for used in current.inputs]
        commutes = isinstance(current, Combine) and current.commutes and not ordered
        hashes[key] = digest(current.kind, content(current), sorted(inputs) if commutes else inputs)
    return hashes
