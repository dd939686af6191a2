"""The plan of a checked spec, with what only models and data can tell: rows, costs, savings, trainable parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from brewgraph.checking.check import Checked
from brewgraph.display.make_plan import make_plan
from brewgraph.display.plan import Plan
from brewgraph.display.savings import PassSavings, savings
from brewgraph.graph import nodes as n
from brewgraph.graph.container import node
from brewgraph.inspect.batch_cost import costs
from brewgraph.recipe.recipe import Stage
from brewgraph.training.freezing import parameters_at

if TYPE_CHECKING:
    from brewgraph.models.fake.reach import Reach


def plan_of(checked: Checked, *, cost: bool = True, skip: tuple[str, ...] = ()) -> Plan:
    """The plan; with `cost` false without costs, which take a second or two for a large model.

    `skip` are the names of passes to leave out.
    """
    data = checked.facts.data_facts
    return make_plan(
        checked.recipe,
        checked.graphs or None,
        checked.facts,
        checked.classes,
        {name: facts.rows.get("train") if facts is not None else None for name, facts in data.items()},
        copies(checked),
        costs(checked, skip) if cost else None,
        {stage.name: _trainable(checked, stage) for stage in checked.recipe.stages},
        {
            name: tuple((x.name, str(x)) for x in passes if x.changes or x.skipped or x.notes)
            for name, passes in savings_of(checked, skip).items()
        },
        checked.reports.values(),
        skip,
    )


def copies(checked: Checked) -> Mapping[str, str]:
    """For each model that starts from layers of another: what is copied and what is not, before weights are loaded."""
    from brewgraph.models.copying import planned_copy

    copied: dict[str, str] = {}
    for name, model in checked.recipe.models.items():
        facts = checked.facts(model)
        init = facts.description.init if facts is not None else None
        donor = checked.facts(checked.recipe.models[init.model]) if init is not None else None
        if facts is not None and init is not None and donor is not None:
            copied[name] = f"a part of {init.model}: {planned_copy(facts.description, donor.description)}"
    return copied


def savings_of(checked: Checked, skip: Collection[str] = ()) -> Mapping[tuple[str, str], tuple[PassSavings, ...]]:
    """What each pass saves in the loss of each stage and task, before weights are loaded."""

    def reach(model: str) -> Reach | None:
        facts = checked.facts(checked.recipe.models[model])
        return facts.reach if facts is not None else None

    return {name: savings(graph, reach, skip) for name, graph in checked.unmerged.items()}


def _trainable(checked: Checked, stage: Stage) -> tuple[int, int] | None:
    """The numbers of parameters of the student and of projections that a stage trains; None if unknown."""
    student = checked.facts(checked.recipe.student)
    if student is None or not checked.graphs:
        return None
    model = student.shapes.model
    frozen = {id(p) for x in stage.freeze if x.kind != "projection" for p in parameters_at(model, x.path)}
    trained = {id(p): p.numel() for p in model.parameters() if p.requires_grad and id(p) not in frozen}
    frozen_sites = {x.name for x in stage.freeze if x.kind == "projection"}
    graphs = [graph for (name, _), graph in checked.graphs.items() if name == stage.name]
    projections = {x.site: x for g in graphs for key in g if isinstance(x := node(g, key), n.Projection)}
    sizes = [
        (x.into + 1) * x.out if x.into and x.out else None
        for site, x in projections.items()
        if site not in frozen_sites
    ]
    if None in sizes:
        return None
    return sum(trained.values()), sum(size for size in sizes if size is not None)
