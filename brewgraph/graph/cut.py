"""`cache auto`: which values to keep on disk, so that no forward of a teacher runs again and the fewest bytes are kept.

The nodes that never change stand between the forwards of teachers and everything that training changes. A set of them
through which all ways lead is a cut; the one of the fewest bytes is a minimum cut (Ford and Fulkerson 1956).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import networkx as nx

from brewgraph.graph.canonical import content_hash
from brewgraph.graph.container import Graph, Kept, info, node, nodes_of, rewritten
from brewgraph.graph.nodes import Bundle, Combine, Forward, Input, Mask, Node, Number, Tap, Transform
from brewgraph.ops import TRANSFORMS
from brewgraph.recipe.label_types import MASKED
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.settings.data_sources import LONGEST

Name = TypeVar("Name", bound=Hashable)
_START, _END = "start", "end"


def keep_smallest_cut(graphs: Mapping[Name, Graph], recipe: Recipe, rows: Mapping[str, int]) -> dict[Name, Graph]:
    """The graphs of a spec, each with the values that `cache auto` keeps of it; equal values of two graphs are one.

    `rows` are those of the training data, where they are known. Where everything does not fit the limit, the forwards
    whose values take the most bytes go on running. A value counts as for the longest texts, 4 bytes a number.
    """
    auto = recipe.auto_cache
    if auto is None:
        return dict(graphs)
    everything: Graph = nx.DiGraph()
    for graph in graphs.values():
        for key, current in nodes_of(graph).items():
            everything.add_node(content_hash(key), node=current)
            everything.add_edges_from((content_hash(used), content_hash(key)) for used in current.inputs)
    given = {content_hash(key) for graph in graphs.values() for key in info(graph).caches}
    fixed: set[str] = set()
    for key in nx.topological_sort(everything):
        if fixed.issuperset(everything.predecessors(key)) and _is_fixed(node(everything, key), recipe):
            fixed.add(key)
    sizes = {key: 0 if key in given else bytes_kept(everything, key, recipe, rows) for key in fixed}
    kept = _cut_within(everything, {key: size for key, size in sizes.items() if size is not None}, fixed, auto.limit)
    place = Kept(auto.name, auto.path, None, auto.limit)
    return {
        name: rewritten(graph, nodes_of(graph), replace(info(graph), caches=dict.fromkeys(
            [key for key in graph if content_hash(key) in kept], place) | dict(info(graph).caches)))
        for name, graph in graphs.items()
    }  # fmt: skip


def _cut_within(graph: Graph, sizes: Mapping[str, int], fixed: set[str], limit: int | None) -> set[str]:
    """The values of the smallest cut that the limit allows. Each forward that goes on running has the same price, which
    falls until the rest fits.
    """
    forwards = [key for key in fixed if isinstance(node(graph, key), Forward)]
    price = 1 + sum(sizes.values())
    while price:
        kept = _cut(graph, sizes, fixed, forwards, price)
        if limit is None or sum(sizes[key] for key in kept) <= limit:
            return kept
        price //= 2
    return set()


def _cut(graph: Graph, sizes: Mapping[str, int], fixed: set[str], forwards: list[str], price: int) -> set[str]:
    """The values of a minimum cut between the forwards and what changes; of equal ones that nearest the student."""
    flow: nx.DiGraph[Any] = nx.DiGraph()
    flow.add_nodes_from((_START, _END))
    for key in fixed:
        known = {"capacity": sizes[key]} if key in sizes else {}
        flow.add_edge((key, "in"), (key, "out"), **known)
        for user in graph.successors(key):
            flow.add_edge((key, "out"), (user, "in") if user in fixed else _END)
    for key in forwards:
        flow.add_edge(_START, (key, "in"), capacity=price)
    if not nx.has_path(flow, _START, _END):
        return set()
    _, (near, _) = nx.minimum_cut(flow, _START, _END)
    return {key for key in sizes if (key, "in") in near and (key, "out") not in near}


def _is_fixed(x: Node, recipe: Recipe) -> bool:
    """Whether a node of inputs that never change gives the same for an example in every batch and every epoch."""
    match x:
        case Input():
            source = recipe.data[x.data].source
            return not source.is_augmented and source.label_type != MASKED
        case Forward():
            return x.role == "teacher" and recipe.models[x.model].source.averaged is None
        case Tap():
            return not x.padding
        case Mask():
            return x.which != "none"
        case Transform():
            declared = TRANSFORMS.get(x.name)
            return declared is None or declared.mean != "batch"
    return isinstance(x, Bundle | Combine | Number)


def _counts_padding(graph: Graph, key: str) -> bool:
    """Whether a node reads values at padding, which a store does not hold."""
    masks = (node(graph, used) for used in graph.predecessors(key))
    return any(isinstance(mask, Mask) and mask.which == "none" for mask in masks)


def bytes_kept(graph: Graph, key: str, recipe: Recipe, rows: Mapping[str, int]) -> int | None:
    """Bytes of a value for all examples, each as the longest, in 4 bytes a number; None for one that cannot be kept."""
    x, below = node(graph, key), [node(graph, used) for used in nx.ancestors(graph, key)]
    data = {one.data for one in below if isinstance(one, Input)}
    positions = any(isinstance(one, Tap) and one.feature.name in ("start", "end") for one in below)
    shape = x.shape
    if not isinstance(x, Tap | Transform | Combine) or (positions and not isinstance(x, Tap)) or len(data) != 1:
        return None
    if shape is None or shape[:1] != ("batch",) or "batch" in shape[1:]:
        return None
    if "length" in shape and any(_counts_padding(graph, user) for user in nx.descendants(graph, key)):
        return None
    (name,) = data
    length, numbers = recipe.data[name].source.max_length or LONGEST, 1
    for size in shape[1:]:
        numbers *= size if isinstance(size, int) else length
    return 4 * numbers * rows.get(name, 1)
