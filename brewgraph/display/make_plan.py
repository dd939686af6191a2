"""Makes a plan from a checked recipe, its graphs and the facts about its models."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any, Protocol

from brewgraph.display.cost import Cost, megabytes
from brewgraph.display.equation import in_order, spell, spell_out
from brewgraph.display.lines import one_line
from brewgraph.display.plan import DataPlan, ForwardPlan, HeadPlan, ModelPlan, PartPlan, Plan, ProjectionPlan, StagePlan
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, Kept, execution_order, info, node, of_kind
from brewgraph.graph.optimize import drop_dead_terms
from brewgraph.recipe.recipe import Recipe, Stage
from brewgraph.recipe.settings.base import setting_text
from brewgraph.recipe.settings.train import Train
from brewgraph.recipe.values import ModelDeclaration


class PlanFacts(Protocol):
    """What a plan asks of a model's facts. `description` has its class, configuration and tokenizer."""

    @property
    def description(self) -> Any: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def trainable(self) -> int: ...


def make_plan(
    recipe: Recipe,
    graphs: Mapping[tuple[str, str], Graph] | None,
    facts: Callable[[ModelDeclaration], PlanFacts | None],
    classes: Mapping[str, tuple[str, ...]] | None = None,
    rows: Mapping[str, int | None] | None = None,
    copied: Mapping[str, str] | None = None,
    costs: Mapping[tuple[str, str], Cost | str] | None = None,
    trainable: Mapping[str, tuple[int, int] | None] | None = None,
    saved: Mapping[tuple[str, str], tuple[tuple[str, str], ...]] | None = None,
    reports: Iterable[Graph] = (),
    skip: Collection[str] = (),
) -> Plan:
    """The plan of a checked recipe. `graphs` are the canonical graphs by stage and task, None while lists are open;
    `facts` are those of a model; `classes` those of each data set, `rows` its training rows where known. `copied` says
    what models take over from others. `costs` and `saved` are by stage and task, `trainable` by stage; `reports` are
    graphs of what tasks report, `skip` the passes that are left out, by name.
    """
    known = {name: facts(model) for name, model in recipe.models.items()}
    forwards = {name: plan_forwards(graph, skip) for name, graph in (graphs or {}).items()}
    idle = _idle(recipe, forwards, reports) if graphs is not None else {}
    data = {
        d.name: DataPlan(
            d.name, one_line(d.span.text), d.source.batch, d.source.max_length, (classes or {}).get(d.name, ()),
            (rows or {}).get(d.name),
        )
        for d in recipe.data.values()
    }  # fmt: skip
    parts = [
        PartPlan(
            *name, spell_out(graph), forwards[name], (costs or {}).get(name), (saved or {}).get(name, ()),
            plan_caches(graph),
        )
        for name, graph in (graphs or {}).items()
    ]  # fmt: skip
    return Plan(
        spec=recipe.source.name,
        params=tuple(recipe.params.items()),
        models=tuple(
            _model(m, known, idle.get(m.name, ""), (copied or {}).get(m.name)) for m in recipe.models.values()
        ),
        data=tuple(data.values()),
        parts=tuple(parts) if graphs is not None else None,
        projections=_projections(tuple(graphs.values())) if graphs is not None else None,
        stages=tuple(_stage(stage, data, (trainable or {}).get(stage.name)) for stage in recipe.stages),
    )


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _model(model: ModelDeclaration, known: Mapping[str, PlanFacts | None], idle: str, copied: str | None) -> ModelPlan:
    facts, source = known[model.name], one_line(model.span.text)
    start = copied or model.source.weights
    if facts is None:
        nothing = (None,) * 5
        return ModelPlan(model.name, model.role, source, "", "", *nothing, False, "", start, not idle, idle)
    description = facts.description
    config = description.config
    return ModelPlan(
        name=model.name,
        role=model.role,
        source=source,
        model_class=description.auto_class,
        architecture=str(config.model_type),
        layers=getattr(config, "num_hidden_layers", None),
        width=getattr(config, "hidden_size", None),
        classes=len(facts.labels) or None,
        parameters=facts.parameters,
        trainable=facts.trainable,
        estimated=description.tokens.name is None,
        tokens=_tokens(model, known),
        start=start,
        used=not idle,
        idle=idle,
        heads=tuple(HeadPlan(name, h.auto_class, len(h.labels) or None) for name, h in description.heads.items()),
    )


def _idle(
    recipe: Recipe, forwards: Mapping[tuple[str, str], tuple[ForwardPlan, ...]], reports: Iterable[Graph]
) -> dict[str, str]:
    """Why models never run, by the names of those that do not."""
    planned = list(chain.from_iterable(forwards.values()))
    used = {forward.model for forward in planned if forward.features}
    used |= {x.model for graph in reports for _, x in of_kind(graph, n.Forward)}
    used |= {m.source.averaged for m in recipe.models.values() if m.source.averaged and m.name in used}
    dropped = {forward.model for forward in planned} - used
    why = ("the loss takes nothing from it", "whatever the loss takes from it has a weight of zero")
    started = {m.source.start.model: m.name for m in recipe.models.values() if m.source.start}
    return {
        name: f"{why[name in dropped]}, so it "
        + (f"is loaded only to begin {started[name]}" if name in started else "is never loaded")
        for name in recipe.models
        if name not in used
    }


def _tokens(model: ModelDeclaration, known: Mapping[str, PlanFacts | None]) -> str:
    """Where a model's tokenizer comes from."""
    facts = known[model.name]
    assert facts is not None
    tokens = facts.description.tokens
    pretrained = tokens.name is not None and tokens.name == facts.description.checkpoint
    if not pretrained and model.role == "student":
        for name, other in known.items():
            if name != model.name and other is not None and other.description.tokens == tokens:
                return f"that of {name}"
    if tokens.name is None:
        return f"WordPiece, trained on the data, at most {tokens.vocab_size:,} pieces"
    return "its own" if pretrained else f"that of {tokens.name}"


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_forwards(graph: Graph, skip: Collection[str] = ()) -> tuple[ForwardPlan, ...]:
    """The forwards of a canonical graph, those of teachers first. `skip` are passes that are left out, by name."""
    live = graph if drop_dead_terms.__name__ in skip else drop_dead_terms(graph)
    plans = []
    for key, forward in of_kind(graph, n.Forward, execution_order(graph)):
        taps = [(used in live, tap.feature) for used, tap in of_kind(graph, n.Tap, graph.successors(key))]
        taps.sort(key=lambda x: (x[1].name, x[1].path or "", x[1].index or 0, str(x[1])))
        entry = node(graph, forward.entry)
        data = entry.data if isinstance(entry, n.Input) else ""
        taken, dropped = (tuple(str(x) for runs, x in taps if runs is wanted) for wanted in (True, False))
        plans.append(ForwardPlan(forward.model, forward.role, data, taken, forward.passing, dropped))
    return tuple(sorted(plans, key=lambda f: (f.role != "teacher", f.model, f.data, f.passing)))


def plan_caches(graph: Graph) -> tuple[tuple[str, str, str], ...]:
    """What is kept on disk: the name of each `cache`, the value, and the folder with format and limit."""
    return tuple(sorted((x.name, spell(graph, key), _kept(x)) for key, x in info(graph).caches.items()))


def _kept(x: Kept) -> str:
    limit = "" if x.limit is None else f", at most {megabytes(x.limit)}"
    return f'"{x.folder}"{f" as {x.dtype}" if x.dtype else ""}{limit}'


def _projections(graphs: tuple[Graph, ...]) -> tuple[ProjectionPlan, ...]:
    uses: dict[str, dict[str, n.Projection]] = {}
    for graph in graphs:
        projections = list(of_kind(graph, n.Projection))
        for _, p in sorted(projections, key=lambda x: (in_order(graph, x[0])[:2], spell(graph, x[1].value))):
            uses.setdefault(p.site, {}).setdefault(spell(graph, p.value), p)
    plans = []
    for site, values in sorted(uses.items()):
        p = next(iter(values.values()))
        size = (p.into + 1) * p.out if p.into and p.out else None
        plans.append(ProjectionPlan(site, p.activation or "linear", p.into, p.out, size, tuple(values), p.options))
    return tuple(plans)


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stage(stage: Stage, data: Mapping[str, DataPlan], trainable: tuple[int, int] | None) -> StagePlan:
    draws = ""
    if stage.sample is not None and len(stage.tasks) > 1:
        names = ", ".join(task.name for task in stage.tasks)
        order = stage.sample.order
        law = one_line(stage.sample.law.span.text) or "size"
        draws = f"in the order {', '.join(order)}" if order else f"of {names} in proportion to {law}"
    frozen = tuple(one_line(x.span.text) for x in stage.freeze)
    return StagePlan(stage.name, _settings(stage.train), _steps(stage, data), draws, frozen, trainable)


def _settings(train: Train) -> tuple[tuple[str, str], ...]:
    values = ((name, getattr(train, name)) for name in type(train).model_fields)
    return tuple((name, setting_text(value)) for name, value in values if value is not None and value != ())


def _steps(stage: Stage, data: Mapping[str, DataPlan]) -> int | None:
    """Optimizer steps of a stage, where the rows are known; an epoch of several tasks is as long as theirs together."""
    train = stage.train
    if train.steps is not None:
        return train.steps
    per_epoch = 0
    for task in stage.tasks:
        first = data[task.data[0]]
        if first.rows is None or not isinstance(first.batch, int):
            return None
        per_epoch += math.ceil(math.ceil(first.rows / first.batch) / train.accumulate)
    return train.total_steps(per_epoch)
