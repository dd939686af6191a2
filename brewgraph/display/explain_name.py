"""The meaning of a name (a term, a model, data, a tap, a projection), what it is made from and what it feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import networkx as nx

from brewgraph.diagnostics import MOST_NAMES, UsageError, listing, suggest
from brewgraph.display.cost import Cost, flops, megabytes
from brewgraph.display.equation import in_spec_order, spell, spell_out
from brewgraph.display.lines import one_line
from brewgraph.display.picture import sizes
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, info, node, of_kind, used_by
from brewgraph.recipe.recipe import Recipe
from brewgraph.syntax import tree as t

CostOf = Callable[[Graph, str | None], Cost | str | None]
"""The cost of a step on a graph; with a key, of its value alone. Words where not known, None where not counted."""


@dataclass(frozen=True)
class Explained:
    """One meaning of a name. `where` is the stage and task, empty where the spec has neither; `line` that of the spec.

    `facts` are names and words; `upstream` is what it is made from, `downstream` the terms that it feeds.
    """

    name: str
    kind: str
    where: str
    line: int
    facts: tuple[tuple[str, str], ...]
    upstream: tuple[str, ...]
    downstream: tuple[str, ...]


def explain_name(
    name: str, recipe: Recipe, statements: Iterable[t.Statement], graphs: Mapping[str, Graph], cost_of: CostOf
) -> tuple[Explained, ...]:
    """What a name means in each of the graphs, which are by the names of their tasks.

    A term is called as in reports, `hidden[1]` or all of `hidden`; a feature as in the spec, `bert.hidden[4]`.
    Raises `UsageError` where nothing is called so.
    """
    terms = [term for graph in graphs.values() for term in info(graph).terms]
    wanted = name.replace(".", "/") if name.replace(".", "/") in terms else name
    taps = {s.name: one_line(s.value.span.text) for s in statements if isinstance(s, t.Tap)}
    meanings: list[Explained] = []
    for where, graph in graphs.items():
        meanings += _in_graph(wanted, taps.get(name, ""), where, graph, cost_of, recipe)
    if not meanings:
        sites = sorted({x.site for graph in graphs.values() for _, x in of_kind(graph, n.Projection)})
        known = [*terms, *recipe.models, *recipe.data, *taps, *sites, *recipe.equations]
        if name in known:
            raise UsageError(f"nothing that is trained uses `{name}`")
        hint = suggest(name, known) or f"it has {listing(list(dict.fromkeys(known)), MOST_NAMES)}"
        raise UsageError(f"the spec has nothing called `{name}`: {hint}")
    return tuple(dict.fromkeys(meanings))


def _in_graph(name: str, tapped: str, where: str, graph: Graph, cost_of: CostOf, recipe: Recipe) -> list[Explained]:
    if name == "loss":
        return [_value(name, "loss", where, graph, info(graph).objective, cost_of)]
    stems = {term: term.partition("[")[0] for term in info(graph).terms}
    meant = ((term, key) for term, key in info(graph).terms.items() if name in (term, stems[term]))
    meanings = [_value(term, "term", where, graph, key, cost_of) for term, key in meant]
    for key in in_spec_order(graph, graph):
        match node(graph, key):
            case n.Forward() as x if x.model == name:
                meanings.append(_model(name, where, graph, key, cost_of, recipe))
            case n.Tap() as x if spell(graph, key) == name or x.label() in (name, tapped):
                meanings.append(_value(name, "tap", where, graph, key, cost_of))
            case n.Projection() as x if name in (x.site, x.site.partition(".")[0]) and name not in stems.values():
                meanings.append(_value(x.site, "projection", where, graph, key, cost_of))
            case n.Column() as x if x.label() == name:
                meanings.append(_value(name, "column", where, graph, key, cost_of))
    readers = [key for key in graph if isinstance(y := node(graph, key), n.Input | n.Column) and y.data == name]
    return meanings or ([_data(name, where, graph, readers, recipe)] if readers else [])


def _value(name: str, kind: str, where: str, graph: Graph, key: str, cost_of: CostOf) -> Explained:
    current = node(graph, key)
    facts = [("equation", spell(graph, key))] if spell(graph, key) != name else []
    for term in spell_out(graph):
        if term.key == key:
            facts.append(("weight", term.weight))
            mask = f", mask: {term.mask}" if term.mask else ""
            facts += [("mean", f"over {term.unit}s{mask}")] if term.unit else []
    facts += sizes(current)
    if kind in ("term", "loss"):
        facts += _cost(cost_of(graph, key if kind == "term" else None), alone=kind == "term")
    line = current.span.position[0]
    return Explained(name, kind, where, line, tuple(facts), _upstream(graph, key), _downstream(graph, {key}))


def _model(name: str, where: str, graph: Graph, key: str, cost_of: CostOf, recipe: Recipe) -> Explained:
    forward = node(graph, key)
    assert isinstance(forward, n.Forward)
    facts = [("gradients", "yes" if forward.role == "student" else "no")]
    facts += [("pass", str(forward.passing))] if forward.passing > 1 else []
    taps = (node(graph, tap) for tap in in_spec_order(graph, graph.successors(key)))
    facts += [("gives", f"{tap.label()} {n.show_shape(tap.shape)}") for tap in taps]
    cost = cost_of(graph, None)
    if isinstance(cost, Cost):
        for x in [x for x in cost.forwards if x.model == name][:1]:
            facts += [("layers", f"{x.layers} of {x.present} run")] if x.present else []
            facts.append(("cost", f"{flops(x.flops)} of {flops(cost.forward)} forward"))
    elif cost is not None:
        facts.append(("cost", f"unknown: {cost}"))
    role, line = f"{forward.role} model", recipe.models[name].span.position[0]
    return Explained(name, role, where, line, tuple(facts), _upstream(graph, key), _downstream(graph, {key}))


def _data(name: str, where: str, graph: Graph, readers: list[str], recipe: Recipe) -> Explained:
    read = [f"for {x.model}" if isinstance(x := node(graph, key), n.Input) else x.label() for key in readers]
    facts, line = (("read", ", ".join(sorted(set(read)))),), recipe.data[name].span.position[0]
    return Explained(name, "data", where, line, facts, (), _downstream(graph, set(readers)))


def _cost(cost: Cost | str | None, *, alone: bool) -> list[tuple[str, str]]:
    if cost is None:
        return []
    if isinstance(cost, str):
        return [("cost", f"unknown: {cost}")]
    words = f"{flops(cost.forward)} forward, {flops(cost.backward)} backward, {megabytes(cost.peak)} at most"
    return [("cost alone" if alone else "cost", f"{words}, for {cost.batch} examples of {cost.length} tokens")]


def _upstream(graph: Graph, key: str) -> tuple[str, ...]:
    """The features, columns, models and data that a value is computed from, the nearest first."""
    below = {k: node(graph, k) for k in in_spec_order(graph, nx.ancestors(graph, key))}
    taps = [spell(graph, k) for k, x in below.items() if isinstance(x, n.Tap | n.Column)]
    models = [x.label() for x in below.values() if isinstance(x, n.Forward)]
    data = sorted({f"data {x.data}" for x in below.values() if isinstance(x, n.Input | n.Column)})
    return tuple(dict.fromkeys([*taps, *models, *data]))


def _downstream(graph: Graph, keys: set[str]) -> tuple[str, ...]:
    """The terms that values feed, with their weights."""
    fed = []
    for term in spell_out(graph):
        if term.key not in keys and not keys.isdisjoint(used_by(graph, [term.key])):
            fed.append(term.title if term.weight == "1" else f"{term.weight} * {term.title}")
    return tuple(fed) or (("loss",) if info(graph).objective not in keys else ())
