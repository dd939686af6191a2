"""A graph as boxes with facts and lines between them, which every format draws.

There are two grains: `terms` has data, models, the features that terms take, the terms and the loss; `nodes` has every
node. The order is that of the spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import networkx as nx

from brewgraph.display.cost import Cost, flops, megabytes
from brewgraph.display.equation import in_order, spell, spell_out
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, execution_order, info, node, of_kind, used_by
from brewgraph.source import Span

GRAINS = ("terms", "nodes")


@dataclass(frozen=True)
class Box:
    """`kind` is that of a node, `role` that of the box: data, teacher, student, feature, term, loss, number, mask,
    projection, value. `title` is a few words, `names` its equations, `detail` its shape, unit or equation. `tone` is
    the colour of the teacher, the student or the data that it comes from alone, else empty. `facts` are pairs of words;
    `span` is its place in the spec; `node` the key of its node.
    """

    key: str
    kind: str
    role: str
    title: str
    detail: str = ""
    names: str = ""
    tone: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)
    node: str = ""

    @property
    def label(self) -> str:
        """The title behind the names of its equations."""
        return f"{self.names}: {self.title}" if self.names else self.title


@dataclass(frozen=True)
class Line:
    """From a value to its user; `label` is its part there, or its weight, or empty."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """Boxes, and lines in the order in which a user of several values names them; `root` is the loss."""

    grain: str
    root: str
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def picture(graph: Graph, grain: str = "terms", cost: Cost | None = None) -> Picture:
    """What is drawn of a graph in one grain."""
    return _terms(graph, cost) if grain == "terms" else _nodes(graph, cost)


# ── terms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _terms(graph: Graph, cost: Cost | None) -> Picture:
    boxes: dict[str, Box] = {}
    lines: dict[Line, None] = {}
    terms = spell_out(graph)
    used = {term.key: nx.ancestors(graph, term.key) for term in terms}
    everything = sorted(set[str]().union(*used.values()), key=lambda key: _rank(graph, key))
    features = {key: x for key in everything if isinstance(x := node(graph, key), n.Tap | n.Column)}
    for name in (x.data for key in everything if isinstance(x := node(graph, key), n.Input | n.Column)):
        boxes[f"d:{name}"] = Box(f"d:{name}", "column", "data", name, "data", tone="data", facts=(("kind", "data"),))
    for key, forward in of_kind(graph, n.Forward, everything):
        boxes[key] = _forward(key, forward, cost)
        entry = node(graph, forward.entry)
        if isinstance(entry, n.Input):
            lines[Line(f"d:{entry.data}", key, "input")] = None
    for key, x in features.items():
        owner, title = (x.forward, str(x.feature)) if isinstance(x, n.Tap) else (f"d:{x.data}", x.column)
        shape = n.show_shape(x.shape) if x.shape is not None else ""
        tone, facts = _tone(graph, key), _facts(graph, key)
        boxes[key] = Box(key, x.kind, "feature", title, shape, tone=tone, facts=facts, span=x.span, node=key)
        lines[Line(owner, key)] = None
    for i, term in enumerate(terms):
        current, box = node(graph, term.key), f"t{i}"
        title = current.operation if isinstance(current, n.Loss) else current.label()
        facts, names = (("weight", term.weight), *_facts(graph, term.key)), " = ".join(term.names)
        boxes[box] = Box(box, "loss", "term", title, term.equation, names, facts=facts, span=current.span)
        for key in features:
            if key in used[term.key]:
                lines[Line(key, box, _side(graph, term.key, key))] = None
        lines[Line(box, "loss", "" if term.weight == "1" else f"{term.weight} ×")] = None
    span = node(graph, info(graph).objective).span
    boxes["loss"] = Box("loss", "combine", "loss", "loss", facts=_whole(graph, cost), span=span)
    return Picture("terms", "loss", tuple(boxes.values()), tuple(lines))


def _rank(graph: Graph, key: str) -> tuple[object, ...]:
    """A sort key: the order of the spec, teachers first, members of a row by their index."""
    current, index = node(graph, key), ("", 0, "")
    if isinstance(current, n.Tap):
        index = (current.feature.name, current.feature.index or 0, current.feature.path or "")
    roles = sorted((x.role == "student", x.model) for _, x in of_kind(graph, n.Forward, used_by(graph, [key])))
    return *in_order(graph, key)[:2], roles, index, current.label()


def _side(graph: Graph, term: str, key: str) -> str:
    """The side of a loss that takes a feature: `from` or `to`; empty for neither or both."""
    loss = node(graph, term)
    if not isinstance(loss, n.Loss):
        return ""
    is_from, is_to = (key in used_by(graph, [side]) for side in (loss.source, loss.target))
    return "" if is_from == is_to else "from" if is_from else "to"


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_ROLES = {
    "input": "data", "column": "data", "tap": "feature", "loss": "term", "mean": "term", "number": "number",
    "schedule": "number", "temperature": "number", "mask": "mask", "projection": "projection",
}  # fmt: skip


def _nodes(graph: Graph, cost: Cost | None) -> Picture:
    names: dict[str, str] = {}
    for name, key in info(graph).terms.items():
        names[key] = f"{names[key]} = {name}" if key in names else name
    objective = info(graph).objective
    names.setdefault(objective, "loss")
    short: dict[str, str] = {}
    lines: list[Line] = []

    def visit(key: str) -> None:
        short[key] = f"n{len(short)}"
        for used, label in _inputs(graph, key):
            if used not in short:
                visit(used)
            lines.append(Line(short[used], short[key], label))

    visit(objective)
    assert len(short) == len(execution_order(graph)), "the graph holds what the loss does not need"
    boxes = []
    for key, box in short.items():
        current = node(graph, key)
        if isinstance(current, n.Forward):
            boxes.append(_forward(box, current, cost, key))
            continue
        role = "loss" if key == objective else _ROLES.get(current.kind, "value")
        facts = _whole(graph, cost) if key == objective else _facts(graph, key)
        title, tone = (current.label(), _detail(current), names.get(key, "")), _tone(graph, key)
        boxes.append(Box(box, current.kind, role, *title, tone, facts, current.span, key))
    return Picture("nodes", short[objective], tuple(boxes), tuple(lines))


def _inputs(graph: Graph, key: str) -> Iterator[tuple[str, str]]:
    """The inputs of a node, each with its part."""
    current = node(graph, key)
    if isinstance(current, n.Loss):
        yield from ((current.source, "from"), (current.target, "to"))
        if current.mask is not None:
            yield current.mask, ""
        yield from ((used, f"{name} =") for name, used in current.arguments.items())
    elif isinstance(current, n.Combine) and current.commutes:
        weights_first = sorted(
            current.inputs, key=lambda k: (not isinstance(node(graph, k), n.Number | n.Schedule), in_order(graph, k))
        )
        yield from ((used, "") for used in weights_first)
    else:
        yield from ((used, "") for used in current.inputs)


# ── what is known of a box ───────────────────────────────────────────────────────────────────────────────────────────


def _detail(current: n.Node) -> str:
    if isinstance(current, n.Loss | n.Mean):
        return f"mean per {current.unit}" if getattr(current, "reduced", True) else f"one per {current.unit}"
    plain = isinstance(current, n.Number | n.Schedule | n.Combine | n.Mask | n.Forward | n.Temperature | n.Bundle)
    return "" if plain else n.show_shape(current.shape)


def sizes(current: n.Node) -> list[tuple[str, str]]:
    """The size of a node's value, as names and words: its shape, and of a projection its module."""
    facts = []
    if current.shape is not None:
        facts.append(("shape", n.show_shape(current.shape) if current.shape else "one number"))
    if isinstance(current, n.Projection):
        facts.append(("module", current.site))
        if current.parameters is not None:
            facts.append(("parameters", f"{current.parameters:,}"))
    return facts


def _forward(key: str, forward: n.Forward, cost: Cost | None, stands_for: str = "") -> Box:
    facts = [("kind", f"forward of the {forward.role}"), ("gradients", "yes" if forward.role == "student" else "no")]
    counted = next((x for x in cost.forwards if x.model == forward.model), None) if cost is not None else None
    layers = ""
    if counted is not None:
        if counted.present:
            layers = f"{counted.layers} of {counted.present} layer{'' if counted.present == 1 else 's'}"
            facts.append(("layers", layers))
        facts.append(("cost", f"{flops(counted.flops)} per batch"))
    title, role = forward.label().removeprefix(f"{forward.role} "), forward.role
    return Box(key, "forward", role, title, layers, "", role, tuple(facts), forward.span, stands_for)


def _tone(graph: Graph, key: str) -> str:
    """The colour of a value: that of the one model that it comes from, or of the data; a loss has none."""
    below = [node(graph, used) for used in used_by(graph, [key])]
    roles = {x.role for x in below if isinstance(x, n.Forward)}
    if any(isinstance(x, n.Loss) for x in below) or isinstance(node(graph, key), n.Mean) or len(roles) > 1:
        return ""
    return next(iter(roles), "data" if any(isinstance(x, n.Input | n.Column) for x in below) else "")


def _facts(graph: Graph, key: str) -> tuple[tuple[str, str], ...]:
    current = node(graph, key)
    unit = [("unit", current.unit)] if isinstance(current, n.Loss | n.Mean) else []
    return ("kind", current.kind), ("equation", spell(graph, key)), *unit, *sizes(current)


def _whole(graph: Graph, cost: Cost | None) -> tuple[tuple[str, str], ...]:
    equation = " + ".join(term.weighted for term in spell_out(graph))
    facts = [("kind", "loss"), ("equation", equation)]
    if cost is not None:
        facts += [
            ("batch", f"{cost.batch} examples of {cost.length} tokens"),
            ("forward", flops(cost.forward)),
            ("backward", flops(cost.backward)),
            ("memory", f"{megabytes(cost.peak)} at most, {megabytes(cost.kept)} kept for the backward pass"),
        ]
    return tuple(facts)
