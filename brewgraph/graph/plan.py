"""What a run will do, before any weight is loaded: models, the loss spelled out, forwards, projections, settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import networkx as nx

from brewgraph.graph import nodes as n
from brewgraph.graph.costs import Cost
from brewgraph.graph.passes import node
from brewgraph.graph.running import ForwardPlan, plan_caches, plan_forwards
from brewgraph.graph.spell import TermPlan, in_order, spell, spell_out
from brewgraph.recipe.recipe import Recipe, Stage
from brewgraph.recipe.settings import Train
from brewgraph.recipe.sources import Brew, Ema, Hf, Settings
from brewgraph.recipe.values import ModelDeclaration


class PlanFacts(Protocol):
    """What a plan asks of a model's facts. `blueprint` has its class, configuration and where its tokens come from."""

    @property
    def blueprint(self) -> Any: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def trainable(self) -> int: ...


@dataclass(frozen=True)
class HeadPlan:
    """A head of a model, the class of transformers that its folder is loaded by, and how many classes it has."""

    name: str
    model_class: str
    classes: int | None


@dataclass(frozen=True)
class ModelPlan:
    """A model; numbers are None and texts empty where nothing is known of it. `parameters` counts tied ones once,
    `trainable` those among them that may learn: of a model with an adapter not its trunk. With `heads` of its own it
    has no class of transformers itself, and `model_class` is that of its trunk.

    `estimated` says that the vocabulary is still to be trained, so that its embeddings may turn out smaller. A model
    that is not `used` never runs; `idle` says why.
    """

    name: str
    role: str
    source: str
    model_class: str
    architecture: str
    layers: int | None
    width: int | None
    classes: int | None
    parameters: int | None
    trainable: int | None
    estimated: bool
    tokens: str
    start: str
    used: bool
    idle: str = ""
    heads: tuple[HeadPlan, ...] = ()


@dataclass(frozen=True)
class DataPlan:
    """The data: examples per global batch, longest encoding in tokens, classes, training rows where they are known."""

    name: str
    source: str
    batch: int
    max_length: int | None
    classes: tuple[str, ...]
    rows: int | None


@dataclass(frozen=True)
class PartPlan:
    """What one task of one stage computes per batch; both names are empty where the spec has neither."""

    stage: str
    task: str
    terms: tuple[TermPlan, ...]
    forwards: tuple[ForwardPlan, ...]
    cost: Cost | str | None = None
    """What a batch costs; words where that is not known, None where nobody counted."""
    saved: tuple[tuple[str, str], ...] = ()
    """What each pass saved, by its name, in words."""
    caches: tuple[tuple[str, str, str], ...] = ()
    """What is kept on disk: the name of the `cache`, the value, the folder."""


@dataclass(frozen=True)
class StagePlan:
    """How long a stage lasts, in optimizer steps (None: rows not known), how its tasks are drawn, what stands still,
    and how many parameters it trains (None: not known), of the student and of projections.
    """

    name: str
    settings: tuple[tuple[str, str], ...]
    steps: int | None
    draws: str
    freeze: tuple[str, ...]
    trainable: tuple[int, int] | None = None


@dataclass(frozen=True)
class ProjectionPlan:
    """A projection module: widths (None: not known yet), parameters, what it projects, its own optimizer settings."""

    site: str
    kind: str
    into: int | None
    out: int | None
    parameters: int | None
    values: tuple[str, ...]
    options: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Plan:
    """All of it. `parts` and `projections` are None where a model that cannot be reached leaves them open."""

    spec: str
    params: tuple[tuple[str, Any], ...]
    models: tuple[ModelPlan, ...]
    data: tuple[DataPlan, ...]
    parts: tuple[PartPlan, ...] | None
    projections: tuple[ProjectionPlan, ...] | None
    stages: tuple[StagePlan, ...]

    def __str__(self) -> str:
        """All of it in lines, as `brewgraph plan` prints it."""
        from brewgraph.graph.words import text

        return "\n".join(text(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        from brewgraph.graph.words import html

        return html(self)

    @property
    def terms(self) -> tuple[TermPlan, ...] | None:
        """The terms of the first task: the only one in a spec without tasks and stages."""
        return self.parts[0].terms if self.parts is not None else None

    @property
    def forwards(self) -> tuple[ForwardPlan, ...] | None:
        return self.parts[0].forwards if self.parts is not None else None

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        return self.stages[0].settings

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole training, where the rows are known."""
        found = [stage.steps for stage in self.stages]
        return None if None in found else sum(x for x in found if x is not None)

    @property
    def student(self) -> ModelPlan:
        return next(m for m in self.models if m.role == "student")

    @property
    def projection_parameters(self) -> int | None:
        """Parameters of all projections; None where one is not known."""
        sizes = [p.parameters for p in self.projections] if self.projections is not None else [None]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    @property
    def trainable(self) -> int | None:
        """What the optimizer updates: the student and the projections."""
        student, projections = self.student.trainable, self.projection_parameters
        return None if student is None or projections is None else student + projections


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
    """The plan of a checked recipe. `copied` says of models that begin as layers of others what comes from there.
    `graphs` are the canonical graphs by stage and task, None where lists are still
    open; `facts` answers for a model; `classes` are those of each data set, `rows` its training rows where known.
    `costs` and `saved` are by stage and task, `trainable` by stage; `reports` are the graphs of what tasks report,
    `skip` the passes that are left out, by name.
    """
    known = {name: facts(model) for name, model in recipe.models.items()}
    forwards = {name: plan_forwards(graph, skip) for name, graph in (graphs or {}).items()}
    idle = _idle(recipe, forwards, reports) if graphs is not None else {}
    data = tuple(
        DataPlan(
            d.name, _line(d.span.text), d.source.batch, d.source.max_length, (classes or {}).get(d.name, ()),
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
    facts, source = known[model.name], _line(model.span.text)
    start = copied or _start(model)
    if facts is None:
        nothing = (None,) * 5
        return ModelPlan(model.name, model.role, source, "", "", *nothing, False, "", start, not idle, idle)
    blueprint = facts.blueprint
    config = blueprint.config
    return ModelPlan(
        name=model.name,
        role=model.role,
        source=source,
        model_class=blueprint.auto_class,
        architecture=str(config.model_type),
        layers=getattr(config, "num_hidden_layers", None),
        width=getattr(config, "hidden_size", None),
        classes=len(facts.labels) or None,
        parameters=facts.parameters,
        trainable=facts.trainable,
        estimated=blueprint.tokens.name is None,
        tokens=_tokens(model, known),
        start=start,
        used=not idle,
        idle=idle,
        heads=tuple(HeadPlan(name, h.auto_class, len(h.labels) or None) for name, h in blueprint.heads.items()),
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
    tokens = facts.blueprint.tokens
    own = tokens.name is not None and tokens.name == facts.blueprint.checkpoint
    if not own and model.role == "student":
        for name, other in known.items():
            if name != model.name and other is not None and other.blueprint.tokens == tokens:
                return f"that of {name}"
    if tokens.name is None:
        return f"WordPiece, trained on the data, at most {tokens.vocab_size:,} pieces"
    return "its own" if own else f"that of {tokens.name}"


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        law = _line(stage.sample.law.span.text) or "size"
        draws = f"in the order {', '.join(order)}" if order else f"of {names} in proportion to {law}"
    frozen = tuple(_line(x.span.text) for x in stage.freeze)
    return StagePlan(stage.name, _settings(stage.train), _steps(stage, data), draws, frozen, trainable)


def _settings(train: Train) -> tuple[tuple[str, str], ...]:
    found = []
    for name in type(train).model_fields:
        value = getattr(train, name)
        if value is not None and value != ():
            found.append((name, setting_text(value)))
    return tuple(found)


def setting_text(value: Any) -> str:
    """A setting as a spec writes it."""
    if isinstance(value, Settings):
        inner = ", ".join(f"{k}={setting_text(getattr(value, k))}" for k in type(value).model_fields)
        return f"{type(value).__name__.lower()}({inner})"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(setting_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


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


def _line(text: str) -> str:
    return " ".join(text.split())
