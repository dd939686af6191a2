"""Passes that save work and change no number: each can be left out by its name, and what is trained stays the same.

They work on canonical graphs, whose hashes are taken before. Beside nodes they leave in `graph.graph`, each for what
runs the graph:

- `guards`: products of the loss with numbers that change, by key, with the keys of these numbers. While one of them is
  zero, what the product alone needs is not computed.
- `reached`: what gradients reach, where terms were dropped: their parameters still get gradients of zero.
- `kept`: features of the student that no term needs any more, but whose forward goes on drawing its dropout.
- `frozen`: parameters that no term can reach are frozen.
- `released`: the keys whose values can go behind each node, by that node's key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

import networkx as nx

from brewgraph.diagnostics import UsageError, listing, suggest
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import Pass, execution_order, merge_equal_nodes, node, nodes_of, rewritten, used_by
from brewgraph.graph.scalars import linear_inputs, scalar_keys, scalar_values
from brewgraph.recipe.features import Feature


@dataclass(frozen=True)
class Reached:
    """What gradients of a loss reach: features of the student, and projections by their sites."""

    features: frozenset[Feature] = frozenset()
    sites: frozenset[str] = frozenset()


# ── what a zero weight kills ─────────────────────────────────────────────────────────────────────────────────────────


def drop_dead_terms(graph: nx.DiGraph) -> nx.DiGraph:
    """Leave out what a weight of zero multiplies, forwards of teachers included.

    What only such terms reach is trained as before: by gradients of zero.
    """
    constants = scalar_values(graph)
    dead = [key for key, weights in _products(graph).items() if any(constants.get(w) == 0 for w in weights)]
    if not dead:
        return graph
    nodes = nodes_of(graph)
    for key in execution_order(graph):
        found = nodes[key]
        zeros = {x for x in found.inputs if isinstance(y := nodes[x], n.Number) and y.value == 0}
        if key in dead:
            nodes[key] = n.Number((), 0.0, shape=(), span=found.span)
        elif isinstance(found, n.Combine) and found.operator == "+" and zeros and found.shape == ():
            rest = tuple(x for x in found.inputs if x not in zeros)
            nodes[key] = replace(found, inputs=rest) if rest else n.Number((), 0.0, shape=(), span=found.span)
    terms = {name: key for name, key in graph.graph["terms"].items() if not isinstance(nodes[key], n.Number)}
    smaller = rewritten(graph, nodes, terms=terms, reached=reached(graph))
    live = used_by(smaller, [graph.graph["objective"]])
    kept = tuple(key for key in _student_taps(graph) if key not in live)
    live |= used_by(smaller, kept)
    terms = {name: key for name, key in terms.items() if key in live}
    return rewritten(smaller, {key: x for key, x in nodes.items() if key in live}, terms=terms, kept=kept)


def skip_scheduled_zeros(graph: nx.DiGraph) -> nx.DiGraph:
    """Note which products are worth nothing while a schedule is at zero: what they alone need is then not computed."""
    changing = scalar_keys(graph) - scalar_values(graph).keys()
    guards = {key: tuple(w for w in weights if w in changing) for key, weights in _products(graph).items()}
    return rewritten(graph, nodes_of(graph), guards={key: weights for key, weights in guards.items() if weights})


def needed(graph: nx.DiGraph, known: Collection[str] = ()) -> set[str]:
    """The keys that the loss needs while these are known: products that are zero, values that were read from disk.

    They are among them; what they are computed from is not.
    """
    return _walk(graph, lambda key: () if key in known else node(graph, key).inputs)


def reached(graph: nx.DiGraph, dead: Collection[str] = ()) -> Reached:
    """What gradients reach while these products are zero."""
    keys = _walk(graph, lambda key: () if key in dead else _differentiable(node(graph, key)))
    found = [node(graph, key) for key in keys]
    taps = (x for x in found if isinstance(x, n.Tap) and _forward(graph, x).role == "student")
    return Reached(frozenset(x.feature for x in taps), frozenset(x.site for x in found if isinstance(x, n.Projection)))


def _walk(graph: nx.DiGraph, below: Callable[[str], Iterable[str]]) -> set[str]:
    found: set[str] = set()
    waiting: list[str] = [graph.graph["objective"]]
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += below(key)
    return found


def _differentiable(x: n.Node) -> Iterable[str]:
    """The inputs of a node that its gradient goes on to."""
    match x:
        case n.Loss():
            return x.source, x.target
        case n.Transform():
            return () if x.stops else x.values
        case n.Mean() | n.Projection():
            return (x.value,)
        case n.Combine() | n.Bundle():
            return x.inputs
    return ()


def _forward(graph: nx.DiGraph, tap: n.Tap) -> n.Forward:
    found = node(graph, tap.forward)
    assert isinstance(found, n.Forward)
    return found


def _student_taps(graph: nx.DiGraph) -> list[str]:
    return [k for k in graph if isinstance(x := node(graph, k), n.Tap) and _forward(graph, x).role == "student"]


def _products(graph: nx.DiGraph) -> dict[str, list[str]]:
    """The weighted terms of a loss: products of scalar losses with numbers, by key, with the keys of these numbers.

    Only sums, differences, products and means lie between them and the loss: a product that is zero is then worth as
    much as the number zero.
    """
    scalars = dict.fromkeys(scalar_keys(graph), 1.0)
    linear = {graph.graph["objective"]}
    found: dict[str, list[str]] = {}
    for key in reversed(execution_order(graph)):
        x = node(graph, key)
        if not all(
            user in linear and key in linear_inputs(node(graph, user), scalars) for user in graph.successors(key)
        ):
            continue
        linear.add(key)
        if isinstance(x, n.Combine) and x.operator == "*" and x.shape == () and key not in scalars:
            weights = [used for used in x.inputs if used in scalars]
            if weights:
                found[key] = weights
    return found


# ── forwards ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def truncate_models(graph: nx.DiGraph) -> nx.DiGraph:
    """End a forward behind the last module that a feature is taken from, where none of them is the model's result."""
    return rewritten(
        graph, {k: replace(x, stops=True) if isinstance(x, n.Forward) else x for k, x in nodes_of(graph).items()}
    )


def narrow_attention(graph: nx.DiGraph) -> nx.DiGraph:
    """Compute attention probabilities only in layers whose attention is used; the others run as they always do."""
    return rewritten(
        graph, {k: replace(x, narrow=True) if isinstance(x, n.Forward) else x for k, x in nodes_of(graph).items()}
    )


def features_of(graph: nx.DiGraph, forward: str) -> frozenset[Feature]:
    """What is taken from a forward."""
    taps = (node(graph, key) for key in graph.successors(forward))
    return frozenset(x.feature for x in taps if isinstance(x, n.Tap))


# ── values and parameters ────────────────────────────────────────────────────────────────────────────────────────────


def freeze_unreached(graph: nx.DiGraph) -> nx.DiGraph:
    """Freeze the student's parameters that no term can reach, for as long as this loss is trained."""
    found = graph.graph.get("reached") or reached(graph)
    return rewritten(graph, nodes_of(graph), reached=found, frozen=True)


def release_values(graph: nx.DiGraph) -> nx.DiGraph:
    """Let go of each value behind its last use; those of terms and of the loss stay."""
    return rewritten(graph, nodes_of(graph), released=releases(graph, graph))


def running_order(graph: nx.DiGraph) -> list[str]:
    """The order in which a program runs: whatever can be computed, then a forward of the student, then one of a
    teacher; ties by key. So what one teacher gave can be let go of before the next one runs.
    """

    def place(key: str) -> tuple[int, str]:
        x = node(graph, key)
        return (0 if not isinstance(x, n.Forward) else 1 if x.role == "student" else 2), key

    return list(nx.lexicographical_topological_sort(graph, place))


def releases(graph: nx.DiGraph, running: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The keys whose values can go behind each node, where only `running` are computed."""
    stay = {graph.graph["objective"], *graph.graph["terms"].values()}
    last: dict[str, str] = {}
    for key in running_order(graph):
        if key in running:
            last |= dict.fromkeys(node(graph, key).inputs, key)
    found: dict[str, tuple[str, ...]] = {}
    for used, user in last.items():
        if used not in stay:
            found[user] = (*found.get(user, ()), used)
    return found


PASSES: tuple[Pass, ...] = (
    merge_equal_nodes,
    drop_dead_terms,
    skip_scheduled_zeros,
    truncate_models,
    narrow_attention,
    freeze_unreached,
    release_values,
)
NAMES: tuple[str, ...] = tuple(rewrite.__name__ for rewrite in PASSES)
LOSS_ONLY = frozenset({"drop_dead_terms", "skip_scheduled_zeros", "freeze_unreached"})
"""What makes no sense where values are asked for as they are, not for the gradient of their sum: in reports."""


def optimize(graph: nx.DiGraph, skip: Collection[str] = ()) -> nx.DiGraph:
    """All passes, in order, on a canonical graph, but those that are named in `skip`."""
    check_names(skip)
    for rewrite in PASSES:
        if rewrite.__name__ not in skip:
            graph = rewrite(graph)
    return graph


def check_names(skip: Iterable[str]) -> None:
    """Raises `UsageError`, which lists the passes, where one of these is none."""
    if isinstance(skip, str):
        raise UsageError(f"`skip` is a list of passes, got a text: skip=[{skip!r}]")
    for name in skip:
        if name not in NAMES:
            near = suggest(name, NAMES)
            raise UsageError(f"there is no pass `{name}`; {f'{near} ' if near else ''}there are {listing(NAMES)}")
