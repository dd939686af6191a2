"""Passes that save work and change no number: each can be left out by its name, with the same training result.

They run on canonical graphs, whose hashes are taken before. What a pass tells the program that runs a graph stands in
the fields of its `GraphInfo`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import networkx as nx

from brewgraph.diagnostics import UsageError, listing, suggest
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import Pass, merge_equal_nodes
from brewgraph.graph.container import (
    Graph,
    Reached,
    execution_order,
    info,
    node,
    nodes_of,
    of_kind,
    rewritten,
    used_by,
)
from brewgraph.graph.scalars import linear_inputs, scalar_keys, scalar_values
from brewgraph.ops import OPERATIONS, TRANSFORMS
from brewgraph.ops.alone import BUILT_IN
from brewgraph.ops.registry import is_own
from brewgraph.recipe.features import Feature

# ── terms of weight zero ─────────────────────────────────────────────────────────────────────────────────────────────


def drop_dead_terms(graph: Graph) -> Graph:
    """Leave out what a weight of zero multiplies, forwards of teachers included.

    Parameters that only such terms reach are trained as before: by gradients of zero.
    """
    constants = scalar_values(graph)
    dead = [key for key, weights in _products(graph).items() if any(constants.get(w) == 0 for w in weights)]
    if not dead:
        return graph
    known, nodes = info(graph), nodes_of(graph)
    for key in execution_order(graph):
        x = nodes[key]
        zeros = {used for used in x.inputs if isinstance(y := nodes[used], n.Number) and y.value == 0}
        is_sum = isinstance(x, n.Combine) and x.operator == "+" and x.shape == ()
        rest = tuple(used for used in x.inputs if used not in zeros)
        if key in dead or (is_sum and not rest):
            nodes[key] = n.Number((), 0.0, shape=(), span=x.span)
        elif is_sum and zeros:
            nodes[key] = replace(x, inputs=rest)
    smaller = rewritten(graph, nodes)
    live = used_by(smaller, [known.objective])
    students = (key for key, tap in of_kind(graph, n.Tap) if _role(graph, tap) == "student")
    kept = tuple(key for key in students if key not in live)
    live |= used_by(smaller, kept)
    terms = {name: key for name, key in known.terms.items() if key in live and not isinstance(nodes[key], n.Number)}
    nodes = {key: x for key, x in nodes.items() if key in live}
    return rewritten(graph, nodes, replace(known, terms=terms, reached=reached(graph), kept=kept))


def skip_scheduled_zeros(graph: Graph) -> Graph:
    """Note the products that are zero while a schedule is: what only they need is not computed then."""
    changing = scalar_keys(graph) - scalar_values(graph).keys()
    guards = {key: tuple(w for w in weights if w in changing) for key, weights in _products(graph).items()}
    guards = {key: weights for key, weights in guards.items() if weights}
    return rewritten(graph, nodes_of(graph), replace(info(graph), guards=guards))


def needed(graph: Graph, known: Collection[str] = ()) -> set[str]:
    """The keys that the loss needs while `known` ones have values: products that are zero, values read from disk.

    The known ones are among them; what they are computed from is not.
    """
    return _walk(graph, lambda key: () if key in known else node(graph, key).inputs)


def reached(graph: Graph, dead: Collection[str] = ()) -> Reached:
    """What gradients reach while these products are zero."""
    keys = _walk(graph, lambda key: () if key in dead else _differentiable(node(graph, key)))
    taps = (tap for _, tap in of_kind(graph, n.Tap, keys) if _role(graph, tap) == "student")
    return Reached(frozenset(x.feature for x in taps), frozenset(p.site for _, p in of_kind(graph, n.Projection, keys)))


def all_reached(graph: Graph) -> Reached:
    """What gradients of the whole loss reach, terms that were dropped included."""
    return info(graph).reached or reached(graph)


def _walk(graph: Graph, below: Callable[[str], Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [info(graph).objective]
    while waiting:
        key = waiting.pop()
        if key not in seen:
            seen.add(key)
            waiting += below(key)
    return seen


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


def _role(graph: Graph, tap: n.Tap) -> str:
    """Whether a feature is the teacher's or the student's."""
    forward = node(graph, tap.forward)
    assert isinstance(forward, n.Forward)
    return forward.role


def _products(graph: Graph) -> dict[str, list[str]]:
    """The weighted terms of a loss: products of scalar losses with numbers, by key, with the keys of these numbers.

    Only sums, differences, products and means lie between them and the loss, so that a product that is zero can be
    replaced by the number zero.
    """
    scalars = dict.fromkeys(scalar_keys(graph), 1.0)
    linear = {info(graph).objective}
    products: dict[str, list[str]] = {}
    inputs: dict[str, Collection[str]] = {}
    for key in reversed(execution_order(graph)):
        x = node(graph, key)
        if all(user in linear and key in inputs[user] for user in graph.successors(key)):
            linear.add(key)
            inputs[key] = frozenset(linear_inputs(x, scalars))
            if isinstance(x, n.Combine) and x.operator == "*" and x.shape == () and key not in scalars:
                products[key] = [used for used in x.inputs if used in scalars]
    return {key: weights for key, weights in products.items() if weights}


# ── forwards ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def truncate_models(graph: Graph) -> Graph:
    """End a forward after the last module that gives a feature, where none of them is the model's result."""
    return rewritten(graph, {**nodes_of(graph), **{k: replace(x, stops=True) for k, x in of_kind(graph, n.Forward)}})


def narrow_attention(graph: Graph) -> Graph:
    """Compute attention probabilities only in layers whose attention is used; the others run as they always do."""
    return rewritten(graph, {**nodes_of(graph), **{k: replace(x, narrow=True) for k, x in of_kind(graph, n.Forward)}})


def pack_tokens(graph: Graph) -> Graph:
    """Run the layers of a model on real tokens alone, where nothing looks at what stands at padding."""
    padded = {forward for key in graph if _reads_padding(graph, key) for forward in nx.ancestors(graph, key)}
    forwards = {k: x for k, x in of_kind(graph, n.Forward) if k not in padded}
    packed = {
        key: replace(x, packed=True)
        for key, x in forwards.items()
        if all(_is_per_token(tap) for _, tap in of_kind(graph, n.Tap, graph.successors(key)))
    }
    return rewritten(graph, {**nodes_of(graph), **packed})


def _reads_padding(graph: Graph, key: str) -> bool:
    """Whether a value depends on what stands at padding: a loss, mean or transform over tokens that has no mask.

    Scores over positions are hidden at padding before anything reads them.
    """
    x = node(graph, key)
    if isinstance(x, n.Tap):
        return x.padding
    if not isinstance(x, n.Loss | n.Mean | n.Transform) or (isinstance(x, n.Transform) and not x.mixes):
        return False
    if x.mask is not None:
        mask = node(graph, x.mask)
        return isinstance(mask, n.Mask) and mask.which == "none"
    values = (x.source, x.target) if isinstance(x, n.Loss) else (x.value,) if isinstance(x, n.Mean) else x.values
    shapes = (node(graph, used).shape for used in values)
    over_tokens = any(shape is None or any("length" in str(size) for size in shape) for shape in shapes)
    taps = [tap.feature.name for _, tap in of_kind(graph, n.Tap, nx.ancestors(graph, key))]
    return over_tokens and not set(taps) <= {"start", "end"}


def _is_per_token(tap: n.Tap) -> bool:
    """Whether a tapped value can be unpacked: one row for each token, or none."""
    if tap.feature.name != "tap":
        return True
    shape = tap.shape or ()
    return bool(shape) and (shape[:2] == ("batch", "length") or not any("length" in str(size) for size in shape))


def features_of(graph: Graph, forward: str) -> frozenset[Feature]:
    """What is taken from a forward."""
    return frozenset(tap.feature for _, tap in of_kind(graph, n.Tap, graph.successors(forward)))


# ── vocabularies ─────────────────────────────────────────────────────────────────────────────────────────────────────

VOCABULARY = 4096
"""The number of classes from which logits are not held as a whole."""


def split_vocabularies(graph: Graph) -> Graph:
    """Compute logits over a vocabulary a chunk of tokens at a time, inside the losses that read them."""
    scalars = scalar_keys(graph)
    inside = {key for key in graph if _is_by_token(graph, key, scalars)}
    while outside := {key for key in inside if not _fits_in_chunks(graph, key, inside, scalars)}:
        inside -= outside
    split = {key: replace(x, split=True) for key, x in of_kind(graph, n.Tap, sorted(inside))}
    return rewritten(graph, {**nodes_of(graph), **split})


def is_over_vocabulary(tap: n.Tap) -> bool:
    """Whether a feature is logits over a vocabulary, for each token."""
    match tap.feature.name, tap.shape:
        case "logits", ("batch", "length", int(classes)):
            return classes >= VOCABULARY
    return False


def chunk_groups(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """What is computed from split logits up to the losses, a chunk of tokens at a time: keys in the order of execution,
    values that share logits in one group.
    """
    taps = {key for key, tap in of_kind(graph, n.Tap) if tap.split}
    readers: set[str] = set()
    waiting = [user for tap in taps for user in graph.successors(tap)]
    while waiting:
        key = waiting.pop()
        if key not in readers:
            readers.add(key)
            waiting += [] if isinstance(node(graph, key), n.Loss) else graph.successors(key)
    parts = nx.connected_components(graph.subgraph(taps | readers).to_undirected())
    groups = ([key for key in execution_order(graph) if key in part & readers] for part in parts)
    return tuple(sorted(tuple(group) for group in groups if group))


def _is_by_token(graph: Graph, key: str, scalars: set[str]) -> bool:
    """Whether a value is logits over a vocabulary, or computed for each token by itself from its logits: then a chunk
    of tokens is enough. A loss is a sum over tokens.
    """
    x = node(graph, key)
    if isinstance(x, n.Loss):
        by_token = x.reduced and x.unit in ("token", "label") and is_own(OPERATIONS[x.operation].module)
        return by_token and scalars >= set(x.arguments.values())
    if key in info(graph).caches or (x.shape or ())[:2] != ("batch", "length"):
        return False
    match x:
        case n.Tap():
            return is_over_vocabulary(x) and x.feature.head is None
        case n.Transform():
            own = x.name in BUILT_IN or is_own(TRANSFORMS[x.name].module)
            return own and not (x.mixes or x.masked or x.entry) and scalars >= set(x.arguments.values())
        case n.Combine():
            return x.position is None and len(x.shape or ()) == 3
    return False


def _fits_in_chunks(graph: Graph, key: str, inside: set[str], scalars: set[str]) -> bool:
    """Whether a value reads some logits that are split, nothing else that learns, and is read in chunks alone."""
    x = node(graph, key)
    if not isinstance(x, n.Loss) and not all(user in inside for user in graph.successors(key)):
        return False
    match x:
        case n.Tap():
            return True
        case n.Loss():
            values: Iterable[str] = (x.source, x.target)
        case n.Transform():
            values = x.values
        case _:
            values = x.inputs
    whole = [used for used in values if used not in inside and used not in scalars]
    shapes = [node(graph, used).shape or () for used in whole]
    if not inside.intersection(values) or any(shape[:2] != ("batch", "length") for shape in shapes):
        return False
    return all(forward.role != "student" for _, forward in of_kind(graph, n.Forward, used_by(graph, whole)))


# ── values and parameters ────────────────────────────────────────────────────────────────────────────────────────────


def freeze_unreached(graph: Graph) -> Graph:
    """Freeze the student's parameters that no term can reach, for as long as this loss is trained."""
    return rewritten(graph, nodes_of(graph), replace(info(graph), reached=all_reached(graph), frozen=True))


def release_values(graph: Graph) -> Graph:
    """Release each value after its last use; those of terms and of the loss stay."""
    return rewritten(graph, nodes_of(graph), replace(info(graph), released=releases(graph, graph)))


def running_order(graph: Graph) -> list[str]:
    """The order in which a program runs: whatever can be computed, then a forward of the student, then one of a
    teacher; ties by key. So the values of one teacher can be released before the next one runs. Where the first value
    of a group of chunks can be computed, all of them can.
    """

    def place(key: str) -> tuple[int, str]:
        x = node(graph, key)
        return (0 if not isinstance(x, n.Forward) else 1 if x.role == "student" else 2), key

    return list(nx.lexicographical_topological_sort(_with_groups(graph), place))


def _with_groups(graph: Graph) -> Graph:
    """The graph with more edges: what one value of a group of chunks needs, all of them wait for."""
    ordered: Graph = nx.DiGraph(graph.edges)
    ordered.add_nodes_from(graph)
    for group in chunk_groups(graph):
        needs = {used for key in group for used in node(graph, key).inputs} - set(group)
        ordered.add_edges_from((used, key) for used in needs for key in group)
    return ordered


def releases(graph: Graph, running: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The keys whose values can be released after each node, where only `running` are computed."""
    stay = {info(graph).objective, *info(graph).terms.values()}
    last: dict[str, str] = {}
    for key in running_order(graph):
        if key in running:
            last |= dict.fromkeys(node(graph, key).inputs, key)
    released: dict[str, tuple[str, ...]] = {}
    for used, user in last.items():
        if used not in stay:
            released[user] = (*released.get(user, ()), used)
    return released


PASSES: tuple[Pass, ...] = (
    drop_dead_terms,
    skip_scheduled_zeros,
    truncate_models,
    narrow_attention,
    pack_tokens,
    split_vocabularies,
    freeze_unreached,
    release_values,
)
SKIPPABLE: tuple[Pass, ...] = (merge_equal_nodes, *PASSES)
"""The passes that can be left out by name, in their order: of the canonical ones the last, which changes no hash."""
NAMES: tuple[str, ...] = tuple(rewrite.__name__ for rewrite in SKIPPABLE)
LOSS_ONLY = frozenset({"drop_dead_terms", "skip_scheduled_zeros", "freeze_unreached"})
"""Passes that only serve the gradient of the loss; reports, which show values themselves, go without them."""


def optimize(graph: Graph, skip: Collection[str] = ()) -> Graph:
    """All passes, in order, on a canonical graph, except those that `skip` names."""
    check_names(skip)
    for rewrite in PASSES:
        if rewrite.__name__ not in skip:
            graph = rewrite(graph)
    return graph


def check_names(skip: Iterable[str]) -> None:
    """Raises `UsageError`, which lists the passes, where a name is that of no pass."""
    if isinstance(skip, str):
        raise UsageError(f"`skip` is a list of passes, got a text: skip=[{skip!r}]")
    for name in skip:
        if name not in NAMES:
            near = suggest(name, NAMES)
            raise UsageError(f"there is no pass `{name}`; {f'{near} ' if near else ''}there are {listing(NAMES)}")
