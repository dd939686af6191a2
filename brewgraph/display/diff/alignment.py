"""Two graphs side by side: the same names for the same things, and where two values part.

The graphs are those of two specs, whose models and data may be called otherwise and may have changed themselves. So
nodes are compared by what they do with things of paired names, not by their content hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import networkx as nx

from brewgraph.display.equation import in_order, mask_of, spell, spell_mask
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import structure_hashes
from brewgraph.graph.container import Graph, node, rewritten

NAMED = (n.Input, n.Column, n.Forward, n.Tap, n.Loss, n.Mean)


@dataclass(frozen=True)
class Difference:
    """Where two values part: `aspect` says in what, `before` and `after` how each of them has it."""

    aspect: str
    before: str
    after: str


def rename(graph: Graph, models: Mapping[str, str], data: Mapping[str, str]) -> Graph:
    """The graph with other names of models and data; names that are not given stay."""
    found = {}
    for key in graph:
        current = node(graph, key)
        if isinstance(current, NAMED):
            own: dict[str, Any] = {}
            if hasattr(current, "model"):
                own["model"] = models.get(current.model, current.model)
            if hasattr(current, "data"):
                own["data"] = data.get(current.data, current.data)
            current = replace(current, **own)
        found[key] = current
    return rewritten(graph, found)


def signatures(graph: Graph) -> dict[str, str]:
    """For each node a hash of what it computes from models and data as they are named, however those are made."""
    return structure_hashes(graph, _content)


def _content(current: n.Node) -> tuple[Any, ...]:
    match current:
        case n.Input():
            return (current.data, current.model)
        case n.Column():
            return (current.column, current.data)
        case n.Forward():
            return (current.role, current.model, current.passing, current.columns)
        case n.Tap():
            return (current.model, *current.content())
        case n.Projection():
            return (current.activation, current.options)
        case n.Loss():
            return (current.operation, current.options, current.words, current.reduced, current.masked)
    return current.content()


def traits(graph: Graph, key: str) -> Counter[tuple[Any, ...]]:
    """What a value is made of: the more two values share of it, the more alike they are."""
    below = (node(graph, k) for k in (*nx.ancestors(graph, key), key))
    left_out = n.Input | n.Forward | n.Mask | n.Number
    found = [
        (x.kind, x.operation) if isinstance(x, n.Loss) else (x.kind, *_content(x))
        for x in below
        if not isinstance(x, left_out)
    ]
    return Counter(found)


@dataclass
class Aligner:
    """Finds where values of two graphs part. `sites` collects which projections stand at the same place."""

    one: Graph
    other: Graph

    def __post_init__(self) -> None:
        self.sites: list[tuple[str, str]] = []
        self.signs = signatures(self.one), signatures(self.other)

    def differences(self, a: str, b: str) -> list[Difference]:
        """Every difference between two values, from the outside in."""
        return list(dict.fromkeys(self._walk(a, b, free=True)))

    def _walk(self, a: str, b: str, free: bool) -> Iterator[Difference]:
        """`free`: the width that a projection ends in does not follow from the other side."""
        x, y = node(self.one, a), node(self.other, b)
        projected = isinstance(x, n.Projection), isinstance(y, n.Projection)
        if projected[0] != projected[1]:
            yield Difference("projection", *(self._via(z) for z in (x, y)))
            yield from self._walk(_inner(x, a), _inner(y, b), free)
            return
        if type(x) is not type(y):
            yield Difference("value", spell(self.one, a), spell(self.other, b))
            return
        match x, y:
            case n.Loss(), n.Loss():
                yield from self._loss(x, y)
            case n.Tap(), n.Tap():
                if (x.model, x.feature, x.padding) != (y.model, y.feature, y.padding):
                    yield Difference("tap", spell(self.one, a), spell(self.other, b))
                else:
                    yield from self._forward(x, y)
            case n.Projection(), n.Projection():
                yield from self._projection(x, y, free)
            case n.Transform(), n.Transform():
                yield from self._transform(x, y)
            case n.Combine(), n.Combine():
                yield from self._combine(a, b, x, y)
            case (n.Number(), n.Number()) | (n.Schedule(), n.Schedule()) | (n.Temperature(), n.Temperature()):
                if x.content() != y.content():
                    yield Difference(x.kind, x.label(), y.label())
            case n.Column(), n.Column():
                if x.label() != y.label():
                    yield Difference("column", x.label(), y.label())
            case n.Mask(), n.Mask():
                if (masks := (spell_mask(self.one, x), spell_mask(self.other, y)))[0] != masks[1]:
                    yield Difference("mask", *masks)
            case _:
                yield from self._each(x.inputs, y.inputs)

    def _each(self, ones: tuple[str, ...], others: tuple[str, ...], free: bool = True) -> Iterator[Difference]:
        for a, b in zip_longest(ones, others):
            if a is None or b is None:
                yield Difference("value", spell(self.one, a) if a else "none", spell(self.other, b) if b else "none")
            else:
                yield from self._walk(a, b, free)

    def _via(self, x: n.Node) -> str:
        if not isinstance(x, n.Projection):
            return "none"
        return x.label() if x.into and x.out else x.activation or "linear"

    def _forward(self, x: n.Tap, y: n.Tap) -> Iterator[Difference]:
        f, g = node(self.one, x.forward), node(self.other, y.forward)
        if not isinstance(f, n.Forward) or not isinstance(g, n.Forward):
            return
        data = [z.data for z in (node(self.one, f.entry), node(self.other, g.entry)) if isinstance(z, n.Input)]
        if len(set(data)) > 1:
            yield Difference("input", f"{x.model}({data[0]})", f"{y.model}({data[1]})")
        if f.passing != g.passing:
            yield Difference("pass", str(f.passing), str(g.passing))

    def _projection(self, x: n.Projection, y: n.Projection, free: bool) -> Iterator[Difference]:
        self.sites.append((x.site, y.site))
        if x.activation != y.activation or (free and x.out != y.out):
            yield Difference("projection", self._via(x), self._via(y))
        if x.options != y.options:
            said = [", ".join(f"{name}={value:g}" for name, value in z.options) or "none" for z in (x, y)]
            yield Difference("projection's optimizer", *said)
        yield from self._walk(x.value, y.value, True)

    def _loss(self, x: n.Loss, y: n.Loss) -> Iterator[Difference]:
        same = x.operation == y.operation
        if not same:
            yield Difference("operation", x.operation, y.operation)
        sides = ((x.source, y.source), (x.target, y.target))
        for own, partners in (sides, sides[::-1]):
            # beside a value that is not projected a projection ends in that value's width
            free = any(
                isinstance(node(g, p), n.Projection) for g, p in zip((self.one, self.other), partners, strict=True)
            )
            yield from self._walk(*own, free)
        if x.reduced != y.reduced:
            yield Difference("reduce", *("mean" if z.reduced else "none" for z in (x, y)))
        masks = mask_of(self.one, x), mask_of(self.other, y)
        if masks[0] != masks[1] and (same or all(masks)):
            yield Difference("mask", *(m or "none" for m in masks))
        yield from self._options(x, y, same)

    def _options(self, x: n.Loss | n.Transform, y: n.Loss | n.Transform, same: bool) -> Iterator[Difference]:
        """Options by name; of different operations those that both have."""
        own, theirs = x.arguments, y.arguments
        for name in dict.fromkeys([*own, *theirs]):
            if name in own and name in theirs:
                found = list(self._walk(own[name], theirs[name], True))
                if found:
                    yield Difference(name, spell(self.one, own[name]), spell(self.other, theirs[name]))
            elif same:
                texts = [spell(g, o[name]) if name in o else "none" for g, o in ((self.one, own), (self.other, theirs))]
                yield Difference(name, *texts)
        words, others = dict(x.words), dict(y.words)
        for name in dict.fromkeys([*words, *others]):
            if words.get(name) != others.get(name) and (same or (name in words and name in others)):
                yield Difference(name, words.get(name, "none"), others.get(name, "none"))

    def _transform(self, x: n.Transform, y: n.Transform) -> Iterator[Difference]:
        if x.name != y.name:
            yield Difference("transform", x.name, y.name)
        yield from self._each(x.values, y.values)
        if x.masked != y.masked and x.name == y.name:
            yield Difference("mask", *("tokens" if z.masked else "none" for z in (x, y)))
        yield from self._options(x, y, x.name == y.name)

    def _combine(self, a: str, b: str, x: n.Combine, y: n.Combine) -> Iterator[Difference]:
        if (x.operator, x.position, len(x.inputs)) != (y.operator, y.position, len(y.inputs)):
            yield Difference("arithmetic", spell(self.one, a), spell(self.other, b))
            return
        if not x.commutes:
            yield from self._each(x.inputs, y.inputs)
            return
        signs = Counter(self.signs[0][k] for k in x.inputs) & Counter(self.signs[1][k] for k in y.inputs)
        sides = (self.one, self.signs[0], x.inputs), (self.other, self.signs[1], y.inputs)
        rest = [_apart(graph, own, inputs, signs) for graph, own, inputs in sides]
        for own, theirs in zip(*rest, strict=True):
            yield from self._each(tuple(own), tuple(theirs))


def _apart(
    graph: Graph, signs: Mapping[str, str], inputs: tuple[str, ...], shared: Counter[str]
) -> tuple[list[str], list[str]]:
    """Operands whose like the other side has too, by what they are, and the others in the order of the spec."""
    left = Counter(shared)
    equal: list[str] = []
    alone: list[str] = []
    for key in inputs:
        (equal if left[signs[key]] > 0 else alone).append(key)
        left[signs[key]] -= 1
    return sorted(equal, key=signs.__getitem__), sorted(alone, key=lambda key: in_order(graph, key))


def _inner(x: n.Node, key: str) -> str:
    """What a projection is of; any other value itself."""
    return x.value if isinstance(x, n.Projection) else key
