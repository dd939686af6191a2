"""The plan of a checked spec, with what only models and data can tell: rows, costs, what each stage trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from brewgraph.checking.agreement import data_facts
from brewgraph.checking.check import Checked
from brewgraph.diagnostics import SourceFault
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
    """The plan; without its costs, which take a second or two for a large model, where `cost` is false.

    `skip` are passes that are left out, by name.
    """
    return make_plan(
        checked.recipe,
        checked.graphs or None,
        checked.facts,
        checked.classes,
        _rows(checked),
        copies(checked),
        costs(checked, skip) if cost else None,
        {stage.name: _trainable(checked, stage) for stage in checked.recipe.stages},
        {name: _saved(found) for name, found in savings_of(checked, skip).items()},
        checked.reports.values(),
        skip,
    )


def copies(checked: Checked) -> Mapping[str, str]:
    """Of each model that begins as layers of another: what comes from there and what does not, before weights load."""
    from brewgraph.models.copying import planned_copy

    found: dict[str, str] = {}
    for name, model in checked.recipe.models.items():
        facts = checked.facts(model)
        init = facts.description.init if facts is not None else None
        donor = checked.facts(checked.recipe.models[init.model]) if init is not None else None
        if facts is not None and init is not None and donor is not None:
            found[name] = f"a part of {init.model}: {planned_copy(facts.description, donor.description)}"
    return found


def savings_of(checked: Checked, skip: Collection[str] = ()) -> Mapping[tuple[str, str], tuple[PassSavings, ...]]:
    """What each pass saves in the loss of each stage and task, before weights load."""

    def reach(model: str) -> Reach | None:
        facts = checked.facts(checked.recipe.models[model])
        return facts.reach if facts is not None else None

    return {name: savings(graph, reach, skip) for name, graph in checked.written.items()}


def _saved(found: tuple[PassSavings, ...]) -> tuple[tuple[str, str], ...]:
    """What each pass saves, those that find something to do."""
    return tuple((x.name, str(x)) for x in found if x.changes or x.skipped or x.notes)


def _rows(checked: Checked) -> Mapping[str, int | None]:
    """Training rows of each data set, where they are known without preparing it."""
    found: dict[str, int | None] = {}
    for data in checked.recipe.data.values():
        try:
            known = data_facts(data.source, checked.folder, checked.facts.memory)
            found[data.name] = known.rows.get("train")
        except SourceFault:
            found[data.name] = None  # the check has said so
    return found


def _trainable(checked: Checked, stage: Stage) -> tuple[int, int] | None:
    """Parameters of the student and of projections that a stage trains; None where they are not known."""
    student = checked.facts(checked.recipe.student)
    if student is None or not checked.graphs:
        return None
    frozen = {
        id(p) for x in stage.freeze if x.kind != "projection" for p in parameters_at(student.shapes.model, x.path)
    }
    learning = {id(p): p.numel() for p in student.shapes.model.parameters() if p.requires_grad and id(p) not in frozen}
    still = {x.name for x in stage.freeze if x.kind == "projection"}
    graphs = [graph for (name, _), graph in checked.graphs.items() if name == stage.name]
    found = {x.site: x for g in graphs for key in g if isinstance(x := node(g, key), n.Projection)}
    sizes = [(x.into + 1) * x.out if x.into and x.out else None for site, x in found.items() if site not in still]
    if None in sizes:
        return None
    return sum(learning.values()), sum(size for size in sizes if size is not None)
