"""One hash of what a spec computes and how it trains. Names, order, spacing and comments do not change it.

It is made of the graphs of all stages, models and data by content, batch sizes, classes, settings that change what is
trained, what is frozen, and how tasks are drawn. Only heads count by name: their folders have it. The seeds of
projections' initial weights likewise follow from what is mapped to what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, info, of_kind
from brewgraph.recipe import values as v
from brewgraph.recipe.numbers import COMMUTES
from brewgraph.recipe.recipe import Frozen, Recipe, Stage, Task

QUIET = frozenset({
    "logging_steps", "save_steps", "save_total_limit", "save_on_signal", "baseline", "report", "gradient_checkpointing",
    "compile", "shard_teachers", "trackers",
})  # fmt: skip
"""Settings that change nothing that is trained but by rounding."""
NAMING = frozenset({"freeze", "metric_for_best_model"})
"""Settings that hold names of the spec."""

Graphs = Mapping[tuple[str, str], Graph]
Classes = Mapping[str, tuple[str, ...]]


def hash_spec(recipe: Recipe, graphs: Graphs, identities: Mapping[str, str], classes: Classes) -> str:
    """The hash of a checked spec; `identities` say what its models and data are, `classes` those of each data set."""
    sites = projection_seeds_by_site(graphs)

    def hash_task(stage: Stage, task: Task) -> str:
        """A task by its loss and its data, whose order counts: epochs are those of the first."""
        graph = graphs.get((stage.name, task.name))
        objective = info(graph).objective if graph is not None else repr(task.loss)
        if graph is not None and (rounded := sorted((k, x.dtype) for k, x in info(graph).caches.items() if x.dtype)):
            objective = digest(objective, rounded)
        return digest(objective, [(identities[d], recipe.data[d].source.batch, classes.get(d, ())) for d in task.data])

    def content(stage: Stage) -> tuple[object, ...]:
        # by `repr`, which tells a linear schedule from a cosine; a dump holds only their fields
        settings = [(key, repr(value)) for key, value in sorted(dict(stage.train).items()) if key not in QUIET | NAMING]
        tasks = {task.name: hash_task(stage, task) for task in stage.tasks}
        of, _, score = (stage.train.metric_for_best_model or "").rpartition("/")
        frozen = sorted((x.kind, x.path, frozen_identity(x, identities, sites)) for x in stage.freeze)
        drawn: tuple[object, ...] = ()
        if stage.sample is not None and len(stage.tasks) > 1:
            drawn = (repr(stage.sample.law), tuple(tasks[name] for name in stage.sample.order), stage.sample.floor)
        return sorted(tasks.values()), settings, (tasks.get(of, of), score), drawn, frozen

    return digest([content(stage) for stage in recipe.stages])


def projection_seeds_by_site(graphs: Graphs) -> dict[str, str]:
    """The seed of each projection, by its site."""
    return {x.site: x.seed for graph in graphs.values() for _, x in of_kind(graph, n.Projection)}


def frozen_identity(x: Frozen, identities: Mapping[str, str], sites: Mapping[str, str]) -> str:
    """What is frozen, by content instead of by name."""
    return sites.get(x.name, "") if x.kind == "projection" else identities.get(x.name, "")


# ── seeds of projections ─────────────────────────────────────────────────────────────────────────────────────────────


def projection_seeds(recipe: Recipe, identities: Mapping[str, str]) -> dict[str, str]:
    """For each projection, by its site, a digest of what it maps to what and its ordinal among identical projections.

    So initial weights depend neither on names nor on the order of terms. Projections that map the same to the same are
    ordered by the rest of their terms, and only where that is equal too by their place in the text.
    """
    uses: dict[str, list[str]] = defaultdict(list)
    rest: dict[str, list[str]] = defaultdict(list)
    values = list({id(x): x for value in recipe.values() for x in v.walk(value)}.values())  # each once, in text order
    for x in (x for x in values if isinstance(x, v.Apply)):
        for side, partner in ((x.source, x.target), (x.target, x.source)):
            for part in v.walk(side):
                if isinstance(part, v.Project):
                    use = digest(x.operation, _digest(part.value, identities), _digest(partner, identities))
                    uses[part.projector.site].append(use)
                    rest[part.projector.site].append(_rest(x, part.projector, identities))
    for part in (x for x in values if isinstance(x, v.Project)):
        # those that no operation compares
        uses.setdefault(part.projector.site, [digest("alone", _digest(part.value, identities))])
    seen: dict[str, int] = defaultdict(int)
    seeds: dict[str, str] = {}
    for site in sorted(uses, key=lambda site: sorted(rest[site])):
        base = digest(sorted(set(uses[site])))
        seeds[site] = digest(base, seen[base])
        seen[base] += 1
    return seeds


def _rest(x: v.Apply, projector: v.Projector, identities: Mapping[str, str]) -> str:
    """The rest of a term with a projection."""
    mask = _digest(x.mask, identities) if isinstance(x.mask, v.Column) else x.mask
    options = [(name, repr(value)) for name, value in x.options]
    return digest(projector.activation, projector.out, projector.options, options, mask, x.reduced)


def _digest(x: v.Value, identities: Mapping[str, str]) -> str:
    """What a value is computed from, without names."""
    match x:
        case v.Take():
            return digest("take", identities[x.model], identities[x.data], repr(x.feature), x.passing)
        case v.Cached():
            return _digest(x.value, identities)
        case v.Column():
            return digest("column", identities[x.data], x.column)
        case v.Project():
            return digest("project", x.projector.activation, _digest(x.value, identities))
        case v.Combine():
            parts = [_digest(o, identities) for o in x.operands]
            return digest(x.operator, x.position, sorted(parts) if x.operator in COMMUTES else parts)
        case v.Number():
            return digest(x.value)
        case v.Scheduled():
            return digest(x.name, [repr(a) for a in x.arguments])
        case v.Apply():
            return digest(x.operation, _digest(x.source, identities), _digest(x.target, identities))
        case v.Bundle():
            return digest("bundle", [_digest(i, identities) for i in x.items])
        case v.Transform():
            return digest(x.name, [_digest(i, identities) for i in x.values])
    raise AssertionError(type(x).__name__)
