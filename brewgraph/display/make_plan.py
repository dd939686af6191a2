"""Makes a plan from a checked recipe, its graphs and what is known of its models."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import networkx as nx

from brewgraph.display.cost import Cost
from brewgraph.display.equation import in_order, spell, spell_out
from brewgraph.display.lines import one_line
from brewgraph.display.plan import DataPlan, ForwardPlan, HeadPlan, ModelPlan, PartPlan, Plan, ProjectionPlan, StagePlan
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import execution_order, node
from brewgraph.graph.optimize import drop_dead_terms
from brewgraph.recipe.recipe import Recipe, Stage
from brewgraph.recipe.settings.sources import Brew, Ema, Hf, setting_text
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
    graphs: Mapping[tuple[str, str], nx.DiGraph] | None,
    facts: Callable[[ModelDeclaration], PlanFacts | None],
    classes: Mapping[str, tuple[str, ...]] | None = None,
    rows: Mapping[str, int | None] | None = None,
    copied: Mapping[str, str] | None = None,
    costs: Mapping[tuple[str, str], Cost | str] | None = None,
    trainable: Mapping[str, tuple[int, int] | None] | None = None,
    saved: Mapping[tuple[str, str], tuple[tuple[str, str], ...]] | None = None,
    reports: Iterable[nx.DiGraph] = (),
    skip: Collection[str] = (),
) -> Plan:
    """The plan of a checked recipe. `graphs` are the canonical graphs by stage and task, None where lists are still
    open; `facts` answers for a model; `classes` are those of each data set, `rows` its training rows where known.
    `copied` says of models that begin as layers of others what comes from there.
    `costs` and `saved` are by stage and task, `trainable` by stage; `reports` are the graphs of what tasks report,
    `skip` the passes that are left out, by name.
    """
    known = {name: facts(model) for name, model in recipe.models.items()}
    forwards = {name: plan_forwards(graph, skip) for name, graph in (graphs or {}).items()}
    idle = _idle(recipe, forwards, reports) if graphs is not None else {}
    data = tuple(
        DataPlan(
            d.name, one_line(d.span.text), d.source.batch, d.source.max_length, (classes or {}).get(d.name, ()),
            (rows or {}).get(d.name),
        )
        for d in recipe.data.values()
    )  # fmt: skip
    parts = None
    if graphs is not None:
        parts = tuple(
            PartPlan(
                *name,
                spell_out(graph),
                forwards[name],
                (costs or {}).get(name),
                (saved or {}).get(name, ()),
                plan_caches(graph),
            )
            for name, graph in graphs.items()
        )
    sizes = {d.name: d for d in data}
    return Plan(
        spec=recipe.source.name,
        params=tuple(recipe.params.items()),
        models=tuple(
            _model(m, known, idle.get(m.name, ""), (copied or {}).get(m.name)) for m in recipe.models.values()
        ),
        data=data,
        parts=parts,
        projections=_projections(tuple(graphs.values())) if graphs is not None else None,
        stages=tuple(_stage(stage, sizes, (trainable or {}).get(stage.name)) for stage in recipe.stages),
    )


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _model(model: ModelDeclaration, known: Mapping[str, PlanFacts | None], idle: str, copied: str | None) -> ModelPlan:
    facts, source = known[model.name], one_line(model.span.text)
    start = copied or _start(model)
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
    recipe: Recipe, forwards: Mapping[tuple[str, str], tuple[ForwardPlan, ...]], reports: Iterable[nx.DiGraph]
) -> dict[str, str]:
    """Why models never run, by the names of those that do not."""
    named = [forward for found in forwards.values() for forward in found]
    used = {forward.model for forward in named if forward.features}
    used |= {x.model for graph in reports for key in graph if isinstance(x := node(graph, key), n.Forward)}
    used |= {m.source.model for m in recipe.models.values() if isinstance(m.source, Ema) and m.name in used}
    dropped = {forward.model for forward in named} - used
    why = ("the loss takes nothing from it", "whatever the loss takes from it has a weight of zero")
    started = {
        m.source.init.model: m.name for m in recipe.models.values() if isinstance(m.source, Hf) and m.source.init
    }
    return {
        name: f"{why[name in dropped]}, so it "
        + (f"is loaded only to begin {started[name]}" if name in started else "is never loaded")
        for name in recipe.models
        if name not in used
    }


def _start(model: ModelDeclaration) -> str:
    """Where a model's weights come from."""
    source = model.source
    if isinstance(source, Brew):
        given = ", ".join(f"{k}={v}" for k, v in source.params.items())
        return f"the student of {source.path}{f' with {given}' if given else ''}: its finished run, or trained first"
    if isinstance(source, Ema):
        return f"a copy of {source.model}, and follows it: {source.decay:g} of itself stays at each step"
    if not isinstance(source, Hf):
        return f"what {source.target} returns"
    if source.init is not None:
        layers = ", ".join(map(str, source.init.layers))
        return f"layers {layers} of {source.init.model}, the rest random"
    if source.name is not None and source.pretrained:
        return f"the weights of {source.name}"
    return "random weights"


def _tokens(model: ModelDeclaration, known: Mapping[str, PlanFacts | None]) -> str:
    """Where a model's tokenizer comes from."""
    facts = known[model.name]
    assert facts is not None
    tokens = facts.description.tokens
    own = tokens.name is not None and tokens.name == facts.description.checkpoint
    if not own and model.role == "student":
        for name, other in known.items():
            if name != model.name and other is not None and other.description.tokens == tokens:
                return f"that of {name}"
    if tokens.name is None:
        return f"WordPiece, trained on the data, at most {tokens.vocab_size:,} pieces"
    return "its own" if own else f"that of {tokens.name}"


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_forwards(graph: nx.DiGraph, skip: Collection[str] = ()) -> tuple[ForwardPlan, ...]:
    """The forwards of a canonical graph, those of teachers first. `skip` are passes that are left out, by name."""
    live = graph if drop_dead_terms.__name__ in skip else drop_dead_terms(graph)
    found = []
    for key in execution_order(graph):
        forward = node(graph, key)
        if isinstance(forward, n.Forward):
            taps = [(k in live, t.feature) for k in graph.successors(key) if isinstance(t := node(graph, k), n.Tap)]
            taps.sort(key=lambda x: (x[1].name, x[1].path or "", x[1].index or 0, str(x[1])))
            entry = node(graph, forward.entry)
            data = entry.data if isinstance(entry, n.Input) else ""
            taken, dropped = (tuple(str(x) for runs, x in taps if runs is wanted) for wanted in (True, False))
            found.append(ForwardPlan(forward.model, forward.role, data, taken, forward.passing, dropped))
    return tuple(sorted(found, key=lambda f: (f.role != "teacher", f.model, f.data, f.passing)))


def plan_caches(graph: nx.DiGraph) -> tuple[tuple[str, str, str], ...]:
    """What is kept on disk: the name of each `cache`, the value, the folder."""
    kept = graph.graph.get("caches", {}).items()
    return tuple(sorted((name, spell(graph, key), folder) for key, (name, folder) in kept))


def _projections(graphs: tuple[nx.DiGraph, ...]) -> tuple[ProjectionPlan, ...]:
    uses: dict[str, dict[str, n.Projection]] = {}
    for graph in graphs:
        found_here = [(key, p) for key in graph if isinstance(p := node(graph, key), n.Projection)]
        for _, p in sorted(found_here, key=lambda x: (in_order(graph, x[0])[:2], spell(graph, x[1].value))):
            uses.setdefault(p.site, {}).setdefault(spell(graph, p.value), p)
    found = []
    for site in sorted(uses):
        p = next(iter(uses[site].values()))
        size = (p.into + 1) * p.out if p.into and p.out else None
        found.append(ProjectionPlan(site, p.activation or "linear", p.into, p.out, size, tuple(uses[site]), p.options))
    return tuple(found)


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
    found = []
    for name in type(train).model_fields:
        value = getattr(train, name)
        if value is not None and value != ():
            found.append((name, setting_text(value)))
    return tuple(found)


def _steps(stage: Stage, data: Mapping[str, DataPlan]) -> int | None:
    """Optimizer steps of a stage, where the rows are known; an epoch of several tasks is as long as theirs together."""
    train = stage.train
    if train.steps is not None:
        return train.steps
    per_epoch = 0
    for task in stage.tasks:
        first = data[task.data[0]]
        if first.rows is None:
            return None
        per_epoch += math.ceil(math.ceil(first.rows / first.batch) / train.accumulate)
    return train.total_steps(per_epoch)
