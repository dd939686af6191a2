"""A graph as a picture's boxes and lines, each box with all that is known of it: for SVG and for the page.

Two grains: `terms` shows data, models, the features that terms take, the terms and the loss; `nodes` every node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from textwrap import shorten, wrap

import networkx as nx

from brewgraph.graph import nodes as n
from brewgraph.graph.costs import Cost, flops, megabytes
from brewgraph.graph.draw import drawing, show_shape, sizes
from brewgraph.graph.passes import node
from brewgraph.graph.spell import in_order, spell, spell_out
from brewgraph.source import Span

COLUMNS = {"terms": 44, "nodes": 30}
"""Characters in a line of a box."""
LINES = 3
"""Lines of a box below its title; what is longer ends in an ellipsis, and is said in full beside."""
MANY, ONE_LINE = 12, 50
"""With more terms or features than `MANY`, terms have one line of so many characters."""
SHORT = {"batch": "B", "length": "L", "words": "W"}
"""Sizes that vary, where there is little room."""


@dataclass(frozen=True)
class Card:
    """A box: `title`, `lines` below it, `badge` at its right upper corner (a weight).

    `kind` decides how it is drawn: data, teacher, student, feature, term, loss, number, mask, projection, value; `tone`
    in whose colour: that of the teacher, the student or the data it comes from alone, else none. `facts` are names and
    words; `span` is where the spec says it.
    """

    key: str
    kind: str
    title: str
    lines: tuple[str, ...] = ()
    badge: str = ""
    tone: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Picture:
    """Cards, and lines (from, to, as what) between them."""

    cards: tuple[Card, ...]
    lines: tuple[tuple[str, str, str], ...]
    dense: bool = False
    """There is much of it: it stands closer together."""


def picture(graph: nx.DiGraph, grain: str, cost: Cost | None = None) -> Picture:
    """What is drawn of a graph in one grain."""
    return _terms(graph, cost) if grain == "terms" else _nodes(graph, cost)


# ── terms ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _terms(graph: nx.DiGraph, cost: Cost | None) -> Picture:
    cards: dict[str, Card] = {}
    lines: dict[tuple[str, str, str], None] = {}
    terms = spell_out(graph)
    used = {term.key: nx.ancestors(graph, term.key) for term in terms}
    everything = sorted(set().union(*used.values()), key=lambda key: _rank(graph, key)) if used else []
    for key in everything:
        current = node(graph, key)
        if isinstance(current, n.Input | n.Column):
            data = f"d:{current.data}"
            cards.setdefault(data, Card(data, "data", current.data, ("data",), tone="data", facts=(("kind", "data"),)))
    for key in everything:
        current = node(graph, key)
        if isinstance(current, n.Forward):
            cards[key] = _forward(key, current, cost)
            entry = node(graph, current.entry)
            if isinstance(entry, n.Input):
                lines[f"d:{entry.data}", key, "input"] = None
    for key in everything:
        current = node(graph, key)
        if isinstance(current, n.Tap | n.Column):
            of = current.forward if isinstance(current, n.Tap) else f"d:{current.data}"
            title = _feature(current) if isinstance(current, n.Tap) else current.column
            shape = (show_shape(current.shape),) if current.shape is not None else ()
            cards[key] = Card(key, "feature", title, shape, "", _tone(graph, key), _facts(graph, key), current.span)
            lines[of, key, ""] = None
    for i, term in enumerate(terms):
        current = node(graph, term.key)
        title = " = ".join(term.names) or getattr(current, "operation", current.label())
        badge = "" if term.weight == "1" else f"{term.weight} ×"
        facts = (("weight", term.weight), *_facts(graph, term.key))
        folded = _fold(term.equation, COLUMNS["terms"])
        cards[f"t{i}"] = Card(f"t{i}", "term", title, folded, badge, facts=facts, span=current.span)
        for key in everything:
            if key in used[term.key] and isinstance(node(graph, key), n.Tap | n.Column):
                lines[key, f"t{i}", _side(graph, term.key, key)] = None
        lines[f"t{i}", "loss", badge] = None
    objective = graph.graph["objective"]
    cards["loss"] = Card("loss", "loss", "loss", facts=_whole(graph, cost), span=node(graph, objective).span)
    found = Picture(tuple(cards.values()), tuple(lines))
    return _denser(found, {f"t{i}": term.equation for i, term in enumerate(terms)})


def _denser(drawn: Picture, equations: Mapping[str, str]) -> Picture:
    """The picture as it is where it fits a window; else with one line less in each feature, and one in each term."""
    many = max(sum(card.kind == kind for card in drawn.cards) for kind in ("feature", "term"))
    if many <= MANY:
        return drawn
    cards = []
    for card in drawn.cards:
        if card.kind == "feature":
            shape = " ".join(card.lines)
            for word, letter in SHORT.items():
                shape = shape.replace(word, letter)
            card = replace(card, badge=shape, lines=())
        elif card.key in equations:
            text = equations[card.key]
            card = replace(card, lines=(shorten(text, ONE_LINE, placeholder=" …"),))
        cards.append(card)
    return replace(drawn, cards=tuple(cards), dense=True)


def _rank(graph: nx.DiGraph, key: str) -> tuple[object, ...]:
    """What to sort by: the order of the spec, teachers first, members of a row as they are counted."""
    current = node(graph, key)
    feature = current.feature if isinstance(current, n.Tap) else None
    index = (feature.name, feature.index or 0, feature.path or "") if feature is not None else ("", 0, "")
    forwards = [x for k in (*nx.ancestors(graph, key), key) if isinstance(x := node(graph, k), n.Forward)]
    roles = sorted((x.role == "student", x.model) for x in forwards)
    return *in_order(graph, key)[:2], roles, index, current.label()


def _feature(tap: n.Tap) -> str:
    return str(tap.feature) if tap.feature.name != "tap" else str(tap.feature).removeprefix("@ ")


def _side(graph: nx.DiGraph, term: str, key: str) -> str:
    """As what a loss takes a feature: `from` or `to`; empty where neither, or both."""
    loss = node(graph, term)
    if not isinstance(loss, n.Loss):
        return ""
    sides = [key == side or key in nx.ancestors(graph, side) for side in (loss.source, loss.target)]
    return {(True, False): "from", (False, True): "to"}.get((sides[0], sides[1]), "")


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_KINDS = {
    "input": "data", "column": "data", "tap": "feature", "loss": "term", "mean": "term", "number": "number",
    "schedule": "number", "temperature": "number", "mask": "mask", "projection": "projection",
}  # fmt: skip


def _nodes(graph: nx.DiGraph, cost: Cost | None) -> Picture:
    drawn = drawing(graph, "nodes")
    said: dict[str, set[str]] = {}
    for line in drawn.lines:
        said.setdefault(line.source, set()).add(line.label)
    cards = []
    for box in drawn.boxes:
        current = node(graph, box.node)
        if isinstance(current, n.Forward):
            cards.append(replace(_forward(box.key, current, cost), tone=current.role))
            continue
        kind = "loss" if box.key == drawn.root else _KINDS.get(current.kind, "value")
        facts = _whole(graph, cost) if box.key == drawn.root else _facts(graph, box.node)
        role = next(iter(said[box.key])) if kind == "number" and len(said[box.key]) == 1 else ""
        title = _fold(f"{role} {box.title}".strip(), COLUMNS["nodes"])
        lines = (*title[1:], *((box.detail,) if box.detail else ()))
        cards.append(Card(box.key, kind, title[0], lines, "", _tone(graph, box.node), facts, current.span))
    return Picture(tuple(cards), tuple((line.source, line.target, line.label) for line in drawn.lines))


# ── what is known of a box ───────────────────────────────────────────────────────────────────────────────────────────


def _forward(key: str, forward: n.Forward, cost: Cost | None) -> Card:
    facts = [("kind", f"forward of the {forward.role}"), ("gradients", "yes" if forward.role == "student" else "no")]
    found = next((x for x in cost.forwards if x.model == forward.model), None) if cost is not None else None
    lines: tuple[str, ...] = ()
    if found is not None:
        if found.present:
            lines = (f"{found.layers} of {found.present} layer{'' if found.present == 1 else 's'}",)
            facts.append(("layers", lines[0]))
        facts.append(("cost", f"{flops(found.flops)} per batch"))
    title = forward.label().removeprefix(f"{forward.role} ")
    words = (forward.role, *lines)
    return Card(key, forward.role, title, words, tone=forward.role, facts=tuple(facts), span=forward.span)


def _tone(graph: nx.DiGraph, key: str) -> str:
    """Whose colour a value has: its model's, where it comes from one alone, or the data's; a loss has none."""
    if isinstance(node(graph, key), n.Loss | n.Mean):
        return ""
    below = [node(graph, k) for k in (*nx.ancestors(graph, key), key)]
    roles = {x.role for x in below if isinstance(x, n.Forward)}
    if any(isinstance(x, n.Loss) for x in below) or len(roles) > 1:
        return ""
    return next(iter(roles)) if roles else "data" if any(isinstance(x, n.Input | n.Column) for x in below) else ""


def _fold(text: str, width: int) -> tuple[str, ...]:
    """A text in at most `LINES` lines of `width` characters, an ellipsis where it goes on."""
    lines = wrap(text, width, break_on_hyphens=False)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"{lines[LINES - 1][: width - 2]} …"]
    return tuple(lines) or ("",)


def _facts(graph: nx.DiGraph, key: str) -> tuple[tuple[str, str], ...]:
    current = node(graph, key)
    facts = [("kind", current.kind), ("equation", spell(graph, key))]
    if isinstance(current, n.Loss | n.Mean):
        facts.append(("unit", current.unit))
    facts += sizes(current)
    return tuple(facts)


def _whole(graph: nx.DiGraph, cost: Cost | None) -> tuple[tuple[str, str], ...]:
    equation = " + ".join(t.equation if t.weight == "1" else f"{t.weight} * {t.equation}" for t in spell_out(graph))
    facts = [("kind", "loss"), ("equation", equation)]
    if cost is not None:
        facts += [
            ("batch", f"{cost.batch} examples of {cost.length} tokens"),
            ("forward", flops(cost.forward)),
            ("backward", flops(cost.backward)),
            ("memory", f"{megabytes(cost.peak)} at most, {megabytes(cost.kept)} kept for the backward pass"),
        ]
    return tuple(facts)
