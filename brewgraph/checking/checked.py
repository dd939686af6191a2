"""A sound spec: its recipe, the graphs of its losses, and what is known of its models and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.diagnostics import Collector, Diagnostic
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import FactsOf
from brewgraph.recipe.recipe import Recipe

if TYPE_CHECKING:
    import networkx as nx

    from brewgraph.facts.models import Facts

Graphs = dict[tuple[str, str], "nx.DiGraph"]
"""Graphs by the names of stage and task."""


@dataclass(frozen=True)
class Checked:
    """A sound spec.

    `graphs` are the simplified graphs by stage and task, empty if a model that cannot be reached leaves the length of a
    list open; `reports` those of what tasks report beside their losses. `unmerged` and `unmerged_reports` are the same
    before equal nodes are merged.

    `parents` are the files of the specs above this one and its own. `identities` are those of models and data sets,
    whatever their names. `others` are, by model name, the specs whose students are models of this one.
    """

    recipe: Recipe
    graphs: Mapping[tuple[str, str], nx.DiGraph]
    reports: Mapping[tuple[str, str], nx.DiGraph]
    unmerged: Mapping[tuple[str, str], nx.DiGraph]
    unmerged_reports: Mapping[tuple[str, str], nx.DiGraph]
    facts: Facts
    warnings: tuple[Diagnostic, ...]
    parents: tuple[Path, ...]
    identities: Mapping[str, str]
    others: Mapping[str, Checked] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.recipe.source.folder

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each data set."""
        return self.facts.classes

    @property
    def graph(self) -> nx.DiGraph | None:
        """The graph of the first task, the only one in a spec without stages and tasks; None while lists are open."""
        return next(iter(self.graphs.values()), None)

    @property
    def spec_hash(self) -> str:
        """A hash of what the spec computes and how it trains, whatever its names."""
        from brewgraph.graph.identity import hash_spec

        return hash_spec(self.recipe, self.graphs, self.identities, self.classes)

    def with_graphs_of(self, recipe: Recipe, own: Mapping[str, str]) -> Checked:
        """The same check with the graphs of another recipe, and with these identities for some of the models."""
        collector = Collector()
        unmerged, unmerged_reports = build_graphs(recipe, self.facts, collector, self.identities, own)
        collector.raise_errors()
        return replace(
            self,
            recipe=recipe,
            graphs=merged(unmerged),
            reports=merged(unmerged_reports),
            unmerged=unmerged,
            unmerged_reports=unmerged_reports,
        )

    def without_teachers(self) -> Checked:
        """The check of the same student trained without its teachers."""
        from brewgraph.recipe.recipe import without_teacher

        return self.with_graphs_of(without_teacher(self.recipe), {})

    def with_modules(self, modules: Mapping[str, object]) -> Checked:
        """The same check where the caller's modules replace models, by name.

        Models of one declaration stay one only if one object runs for all of them. The spec's hash, the seeds of
        projections, and all graphs in which no such models meet stay the same.
        """
        own: dict[str, str] = {}
        objects: dict[str, list[int]] = {}
        for name in self.recipe.models:
            alike = objects.setdefault(self.identities[name], [])
            runs = id(modules[name]) if name in modules else 0
            if runs not in alike:
                alike.append(runs)
            if position := alike.index(runs):
                own[name] = f"given {position}"
        return self.with_graphs_of(self.recipe, own) if own else self


def build_graphs(
    recipe: Recipe,
    facts: FactsOf,
    collector: Collector,
    identities: Mapping[str, str],
    own: Mapping[str, str] | None = None,
) -> tuple[Graphs, Graphs]:
    """The canonical graphs of every task, and of what it reports; none while lists are open.

    `own` are identities of models that are not what their declaration says.
    """
    from brewgraph.graph.build import build_graph, build_reports
    from brewgraph.graph.canonical import canonical, tell_apart

    built: tuple[Graphs, Graphs] = ({}, {})
    for stage, task in recipe.tasks if not _has_open_lists(recipe) else ():
        for graphs, build in zip(built, (build_graph, build_reports), strict=True):
            if (graph := build(recipe, facts, collector, identities, task)) is not None:
                graphs[stage.name, task.name] = canonical(tell_apart(graph, own or {}), merged=False)
    return built


def merged(graphs: Graphs) -> Graphs:
    """The graphs with equal nodes merged."""
    from brewgraph.graph.canonical import merge_equal_nodes

    return {name: merge_equal_nodes(graph) for name, graph in graphs.items()}


def _has_open_lists(recipe: Recipe) -> bool:
    """Whether the length of a list depends on a model that cannot be reached."""

    def is_open(x: object) -> bool:
        if isinstance(x, v.Group):
            return x.items is None or any(is_open(i) for i in x.items)
        return isinstance(x, v.Value) and any(
            (isinstance(p, v.Combine) and not p.operands) or (isinstance(p, v.Bundle) and not p.items)
            for p in v.walk(x)
        )

    return any(is_open(x) for x in (*recipe.equations.values(), *(task.loss for _, task in recipe.tasks)))
