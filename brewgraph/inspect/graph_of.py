"""The graphs of a checked spec as pictures with costs, and explanations of its names."""

from __future__ import annotations

from pathlib import PurePath

import networkx as nx

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import Collector, UsageError, shortened
from brewgraph.display.cost import Cost
from brewgraph.display.explain_name import Explained, explain_name
from brewgraph.display.picture import GRAINS
from brewgraph.display.render import SUFFIXES, Shown, find_task, named
from brewgraph.graph.canonical import prune_to_objective
from brewgraph.graph.container import GraphInfo, assemble, info, node
from brewgraph.syntax.parser import parse


def show(checked: Checked, grain: str = "terms", task: str | None = None, *, cost: bool = True) -> Shown:
    """The picture of the graph of the first task, or of `task`: TASK, STAGE or STAGE/TASK.

    Raises `UsageError` for a grain or a task that does not exist.
    """
    if grain not in GRAINS:
        remedy = "; `.save(path)` of the picture writes a file" if str(grain).endswith(tuple(SUFFIXES)) else ""
        raise UsageError(f"there is no grain `{shortened(str(grain))}`: write `terms` or `nodes`{remedy}")
    name = None if task is None else find_task(task, checked.graphs)
    known: dict[str, Cost | None] = {}
    if cost:
        from brewgraph.inspect.plan_of import costs

        counted = costs(checked)
        known = {"/".join(filter(None, key)): None if isinstance(x, str) else x for key, x in counted.items()}
    title = PurePath(checked.recipe.source.name).name.strip("<>")
    return Shown(named(checked.graphs), title, checked.spec_hash, known, grain, name)


def explain(checked: Checked, name: str) -> tuple[Explained, ...]:
    """What a name of the spec means in each task that uses it. A term's cost is that of a step on it alone."""
    from brewgraph.inspect.plan_of import cost

    train = checked.recipe.train
    known: dict[str, Cost | str] = {}

    def cost_of(graph: nx.DiGraph, key: str | None) -> Cost | str:
        objective = info(graph).objective if key is None else key
        if objective not in known:
            nodes = {k: node(graph, k) for k in graph}
            known[objective] = cost(checked, prune_to_objective(assemble(nodes, GraphInfo(objective, {}))), train)
        return known[objective]

    statements = parse(checked.recipe.source, Collector()).statements
    return explain_name(name, checked.recipe, statements, named(checked.graphs), cost_of)
