"""One hash of what a spec computes and how it trains. Names, order, spacing and comments do not change it.

It is made of the graphs of all stages, models and data by content, batch sizes, classes, settings that change what is
trained, what is frozen, and how tasks are drawn. Only heads count by name: their folders have it.
"""

from __future__ import annotations

from collections.abc import Mapping

from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, info, of_kind
from brewgraph.recipe.recipe import Frozen, Recipe, Stage, Task

QUIET = frozenset({"logging_steps", "save_steps", "save_total_limit", "baseline", "report"})
"""Settings that change nothing that is trained."""
NAMING = frozenset({"freeze", "metric_for_best_model"})
"""Settings that hold names of the spec."""

Graphs = Mapping[tuple[str, str], Graph]
Classes = Mapping[str, tuple[str, ...]]


def hash_spec(recipe: Recipe, graphs: Graphs, identities: Mapping[str, str], classes: Classes) -> str:
    """The hash of a checked spec; `identities` say what its models and data are, `classes` those of each data set."""
    return digest([_stage(stage, recipe, graphs, identities, classes) for stage in recipe.stages])


def _stage(
    stage: Stage, recipe: Recipe, graphs: Graphs, identities: Mapping[str, str], classes: Classes
) -> tuple[object, ...]:
    # by `repr`, which tells a linear schedule from a cosine; a dump holds only their fields
    settings = [(key, repr(value)) for key, value in sorted(dict(stage.train).items()) if key not in QUIET | NAMING]
    tasks = {
        task.name: _task(task, recipe, graphs.get((stage.name, task.name)), identities, classes) for task in stage.tasks
    }
    metric = stage.train.metric_for_best_model or ""
    of, _, score = metric.rpartition("/")
    sites = projection_seeds_by_site(graphs)
    frozen = sorted((x.kind, x.path, frozen_identity(x, identities, sites)) for x in stage.freeze)
    drawn: tuple[object, ...] = ()
    if stage.sample is not None and len(stage.tasks) > 1:
        drawn = (repr(stage.sample.law), tuple(tasks[name] for name in stage.sample.order), stage.sample.floor)
    return sorted(tasks.values()), settings, (tasks.get(of, of), score), drawn, frozen


def _task(task: Task, recipe: Recipe, graph: Graph | None, identities: Mapping[str, str], classes: Classes) -> str:
    """A task by its loss and its data, whose order counts: epochs are those of the first."""
    objective = info(graph).objective if graph is not None else repr(task.loss)
    data = [(identities[d], recipe.data[d].source.batch, classes.get(d, ())) for d in task.data]
    return digest(objective, data)


def projection_seeds_by_site(graphs: Graphs) -> dict[str, str]:
    """The seed of each projection, by its site."""
    return {x.site: x.seed for graph in graphs.values() for _, x in of_kind(graph, n.Projection)}


def frozen_identity(x: Frozen, identities: Mapping[str, str], sites: Mapping[str, str]) -> str:
    """What is frozen, by content instead of by name."""
    return sites.get(x.name, "") if x.kind == "projection" else identities.get(x.name, "")
