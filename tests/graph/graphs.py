"""Specs to graphs for tests, with made-up models: 12 layers of width 768 and 3 of width 384 (or what a test says)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import networkx as nx

from brewgraph.diagnostics import Collector
from brewgraph.facts.models import identities
from brewgraph.graph import nodes as n
from brewgraph.graph.build import build_graph
from brewgraph.graph.canonical import canonical
from brewgraph.graph.container import node
from brewgraph.recipe.evaluate.elaborate import elaborate
from brewgraph.recipe.recipe import Recipe
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.recipe.specs import FakeFacts

N = TypeVar("N", bound=n.Node)
SIZES = {"teacher": FakeFacts(12, 768), "student": FakeFacts(3, 384)}


def recipe_of(text: str, sizes: Mapping[str, FakeFacts] = SIZES) -> tuple[Recipe, Collector]:
    """The recipe of a whole spec; `sizes` are by role or by name."""
    source, collector = Source(text), Collector()
    facts = lambda model: sizes.get(model.name) or sizes[model.role]  # noqa: E731
    recipe = elaborate(parse(source, collector), source, {}, collector, facts)
    collector.raise_errors()
    assert recipe is not None
    return recipe, collector


def raw(text: str, sizes: Mapping[str, FakeFacts] = SIZES) -> nx.DiGraph:
    """The graph before any pass. Raises `SpecError` where shapes show a fault."""
    recipe, collector = recipe_of(text, sizes)
    facts = lambda model: sizes.get(model.name) or sizes[model.role]  # noqa: E731
    known = identities(recipe, lambda model: "another spec")
    graph = build_graph(recipe, facts, collector, known)
    collector.raise_errors()
    assert graph is not None
    return graph


def graph(text: str, sizes: Mapping[str, FakeFacts] = SIZES) -> nx.DiGraph:
    """The graph after all passes."""
    return canonical(raw(text, sizes))


def of_kind(graph: nx.DiGraph, kind: type[N]) -> list[N]:
    """The nodes of one kind."""
    return [found for key in graph if isinstance(found := node(graph, key), kind)]


def kinds(graph: nx.DiGraph) -> dict[str, int]:
    """How many nodes of each kind there are."""
    found: dict[str, int] = {}
    for key in graph:
        found[node(graph, key).kind] = found.get(node(graph, key).kind, 0) + 1
    return dict(sorted(found.items()))


def below(graph: nx.DiGraph, key: str) -> Iterator[n.Node]:
    """The nodes that a node is computed from, directly."""
    return (node(graph, used) for used in node(graph, key).inputs)
