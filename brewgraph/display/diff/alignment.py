"""Two graphs side by side: the same names for the same things, and where two values differ.

The graphs are those of two specs, whose models and data may have other names and may have changed themselves. So nodes
are compared by what they do with things of paired names, not by their content hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

from brewgraph.display.equation import in_order, mask_of, spell, spell_mask
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import structure_hashes
from brewgraph.graph.container import Graph, node, nodes_of, rewritten, used_by


@dataclass(frozen=True)
class Difference:
    """Where two values differ: `aspect` says in what, `before` and `after` how each of them has it."""

    aspect: str
    before: str
    after: str


def rename(graph: Graph, models: Mapping[str, str], data: Mapping[str, str]) -> Graph:
    """The graph with other names of models and data; names that are not in the maps stay."""

    def other(x: n.Node) -> n.Node:
        if isinstance(x, n.Input | n.Forward | n.Tap):
            x = replace(x, model=models.get(x.model, x.model))
        if isinstance(x, n.Input | n.Column | n.Loss | n.Mean):
            x = replace(x, data=data.get(x.data, x.data))
        return x

    return rewritten(graph, {key: other(x) for key, x in nodes_of(graph).items()})


def _content(current: n.Node) -> n.Content:
    """What a node does with models and data as they are named, however those are made."""
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


def traits(graph: Graph, key: str) -> Counter[n.Content]:
    """What a value is made of: the more two values share of it, the more alike they are."""
    left_out = n.Input | n.Forward | n.Mask | n.Number
    below = (x for used in used_by(graph, [key]) if not isinstance(x := node(graph, used), left_out))
    return Counter((x.kind, x.operation) if isinstance(x, n.Loss) else (x.kind, *_content(x)) for x in below)


@dataclass
class Aligner:
    """Finds where values of two graphs differ. `sites` collects the projections that have the same place in both."""

    one: Graph
    other: Graph

    def __post_init__(self) -> None:
        self.sites: list[tuple[str, str]] = []
        self.signs = structure_hashes(self.one, _content), structure_hashes(self.other, _content)

    def differences(self, a: str, b: str) -> list[Difference]:
        """Every difference between two values, from the outside in."""
        return list(dict.fromkeys(self._walk(a, b, free=True)))

    def _walk(self, a: str, b: str, free: bool) -> Iterator[Difference]:
        """`free`: the output width of a projection does not follow from the other side of its loss."""
        x, y = node(self.one, a), node(self.other, b)
        projected = isinstance(x, n.Projection), isinstance(y, n.Projection)
        if projected[0] != projected[1]:
            yield Difference("projection", *(self._via(z) for z in (x, y)))
            a, b = (z.value if isinstance(z, n.Projection) else key for z, key in ((x, a), (y, b)))
            yield from self._walk(a, b, free)
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
        for pair, (one, other) in (sides, sides[::-1]):
            # beside a value that is not projected a projection ends in that value's width
            free = isinstance(node(self.one, one), n.Projection) or isinstance(node(self.other, other), n.Projection)
            yield from self._walk(*pair, free)
        if x.reduced != y.reduced:
            yield Difference("reduce", *("mean" if z.reduced else "none" for z in (x, y)))
        masks = mask_of(self.one, x), mask_of(self.other, y)
        if masks[0] != masks[1] and (same or all(masks)):
            yield Difference("mask", *(m or "none" for m in masks))
        yield from self._options(x, y, same)

    def _options(self, x: n.Loss | n.Transform, y: n.Loss | n.Transform, same: bool) -> Iterator[Difference]:
        """Options by name; of different operations those that both have."""
        mine, theirs = x.arguments, y.arguments
        for name in dict.fromkeys([*mine, *theirs]):
            both = name in mine and name in theirs
            if any(self._walk(mine[name], theirs[name], True)) if both else same:
                before = spell(self.one, mine[name]) if name in mine else "none"
                yield Difference(name, before, spell(self.other, theirs[name]) if name in theirs else "none")
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
        shared = Counter(self.signs[0][k] for k in x.inputs) & Counter(self.signs[1][k] for k in y.inputs)
        mine = _apart(self.one, self.signs[0], x.inputs, shared)
        theirs = _apart(self.other, self.signs[1], y.inputs, shared)
        for ones, others in zip(mine, theirs, strict=True):
            yield from self._each(tuple(ones), tuple(others))


def _apart(
    graph: Graph, signs: Mapping[str, str], inputs: tuple[str, ...], shared: Counter[str]
) -> tuple[list[str], list[str]]:
    """Operands that the other side has too, by their hashes, and the others in the order of the spec."""
    left = Counter(shared)
    equal: list[str] = []
    alone: list[str] = []
    for key in inputs:
        (equal if left[signs[key]] > 0 else alone).append(key)
        left[signs[key]] -= 1
    return sorted(equal, key=signs.__getitem__), sorted(alone, key=lambda key: in_order(graph, key))
