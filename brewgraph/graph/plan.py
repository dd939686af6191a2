"""What a run will do, before any weight is loaded: models, the loss spelled out, forwards, projections, settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import networkx as nx

from brewgraph.graph import nodes as n
from brewgraph.graph.build import DEFAULT_MASKS
from brewgraph.graph.passes import execution_order, node
from brewgraph.graph.scalars import scalar_values
from brewgraph.ops import OPERATIONS
from brewgraph.recipe.elaborate import Recipe
from brewgraph.recipe.sources import Brew, Hf, Settings
from brewgraph.recipe.values import ModelDeclaration


class PlanFacts(Protocol):
    """What a plan asks of a model's facts. `blueprint` has its class, configuration and where its tokens come from."""

    @property
    def blueprint(self) -> Any: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def parameters(self) -> int: ...


@dataclass(frozen=True)
class ModelPlan:
    """A model; numbers are None and texts empty where nothing is known of it. `parameters` counts tied ones once.

    `estimated` says that the vocabulary is still to be trained, so that its embeddings may turn out smaller.
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
    estimated: bool
    tokens: str
    start: str
    used: bool


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
class TermPlan:
    """An addend of the loss. `weight` is a number, or a number and schedules; `unit` is what the term is a mean over.

    `mask` is empty where every unit counts because there is nothing to hide.
    """

    names: tuple[str, ...]
    weight: str
    equation: str
    unit: str
    mask: str
    key: str
    """Of the value in the graph."""


@dataclass(frozen=True)
class ForwardPlan:
    """A forward per batch and the features that are taken from it, in the order of the model."""

    model: str
    role: str
    data: str
    features: tuple[str, ...]


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
    """All of it. `terms`, `forwards`, `projections` are None where a model that cannot be reached leaves them open."""

    spec: str
    params: tuple[tuple[str, Any], ...]
    models: tuple[ModelPlan, ...]
    data: tuple[DataPlan, ...]
    terms: tuple[TermPlan, ...] | None
    forwards: tuple[ForwardPlan, ...] | None
    projections: tuple[ProjectionPlan, ...] | None
    settings: tuple[tuple[str, str], ...]
    steps: int | None

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
        student, projections = self.student.parameters, self.projection_parameters
        return None if student is None or projections is None else student + projections


def make_plan(
    recipe: Recipe,
    graph: nx.DiGraph | None,
    facts: Callable[[ModelDeclaration], PlanFacts | None],
    classes: tuple[str, ...] = (),
    rows: Mapping[str, int | None] | None = None,
) -> Plan:
    """The plan of a checked recipe. `graph` is its optimized graph, None where lists are still open; `facts` answers
    for a model; `classes` are those of the data, `rows` the training rows of each data set where they are known.
    """
    known = {name: facts(model) for name, model in recipe.models.items()}
    used = {f.model for key in graph if isinstance(f := node(graph, key), n.Forward)} if graph is not None else None
    data = tuple(
        DataPlan(d.name, _line(d.span.text), d.source.batch, d.source.max_length, classes, (rows or {}).get(d.name))
        for d in recipe.data.values()
    )
    return Plan(
        spec=recipe.source.name,
        params=tuple(recipe.params.items()),
        models=tuple(_model(m, known, used is None or m.name in used) for m in recipe.models.values()),
        data=data,
        terms=spell_out(graph) if graph is not None else None,
        forwards=_forwards(graph) if graph is not None else None,
        projections=_projections(graph) if graph is not None else None,
        settings=_settings(recipe),
        steps=_steps(recipe, data[0]),
    )


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _model(model: ModelDeclaration, known: Mapping[str, PlanFacts | None], used: bool) -> ModelPlan:
    facts, source = known[model.name], _line(model.span.text)
    start = _start(model)
    if facts is None:
        return ModelPlan(model.name, model.role, source, "", "", None, None, None, None, False, "", start, used)
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
        estimated=blueprint.tokens.name is None,
        tokens=_tokens(model, known),
        start=start,
        used=used,
    )


def _start(model: ModelDeclaration) -> str:
    """Where a model's weights come from."""
    source = model.source
    if isinstance(source, Brew):
        given = ", ".join(f"{k}={v}" for k, v in source.params.items())
        return f"the student of {source.path}{f' with {given}' if given else ''}: its finished run, or trained first"
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


# ── the loss, spelled out ────────────────────────────────────────────────────────────────────────────────────────────


def spell_out(graph: nx.DiGraph) -> tuple[TermPlan, ...]:
    """The addends of the loss with their weights multiplied out, in the order of the spec's equations."""
    terms: list[TermPlan] = []
    names: dict[str, list[str]] = {}
    for name, key in graph.graph["terms"].items():
        names.setdefault(key, []).append(name)
    scalars = scalar_values(graph, 0.0)

    def walk(key: str, constant: float, factors: tuple[str, ...]) -> None:
        current = node(graph, key)
        if isinstance(current, n.Combine):
            inputs = current.inputs
            values = [x for x in inputs if x not in scalars]
            if current.operator in ("+", "mean"):
                share = constant / len(inputs) if current.operator == "mean" else constant
                for used in sorted(inputs, key=lambda x: in_order(graph, x)):
                    walk(used, share, factors)
                return
            if current.operator == "-" and len(inputs) == 2:
                walk(inputs[0], constant, factors)
                walk(inputs[1], -constant, factors)
                return
            if current.operator == "*" and len(values) == 1:
                for used in (x for x in inputs if x in scalars):
                    number, schedules = _weight(graph, used)
                    constant, factors = constant * number, (*factors, *schedules)
                walk(values[0], constant, factors)
                return
            if current.operator == "/" and isinstance(divisor := node(graph, inputs[1]), n.Number) and divisor.value:
                walk(inputs[0], constant / divisor.value, factors)
                return
        weight_text = " * ".join([*([f"{constant:g}"] if constant != 1 or not factors else []), *factors])
        unit, mask = (current.unit, _mask(graph, current)) if isinstance(current, n.Loss) else ("", "")
        terms.append(TermPlan(tuple(names.get(key, ())), weight_text, spell(graph, key), unit, mask, key))

    walk(graph.graph["objective"], 1.0, ())
    return tuple(terms)


def _weight(graph: nx.DiGraph, key: str) -> tuple[float, tuple[str, ...]]:
    """A scalar as a constant and the schedules that it is multiplied with."""
    current = node(graph, key)
    if isinstance(current, n.Number):
        return current.value, ()
    if isinstance(current, n.Combine) and current.operator == "*":
        parts = [_weight(graph, x) for x in sorted(current.inputs, key=lambda x: in_order(graph, x))]
        return math.prod(c for c, _ in parts), tuple(f for _, factors in parts for f in factors)
    return 1.0, (spell(graph, key, inside=True),)


def in_order(graph: nx.DiGraph, key: str) -> tuple[int, int, str]:
    """What to sort by so that people find the order of the spec: the first equation below a value, then its place.

    A graph itself keeps the order of hashes, which tells people nothing.
    """
    places = {k: i for i, k in reversed(list(enumerate(graph.graph["terms"].values())))}
    below = nx.ancestors(graph, key) | {key}
    return min((places[k] for k in below if k in places), default=len(places)), node(graph, key).span.start, key


def spell(graph: nx.DiGraph, key: str, *, inside: bool = False) -> str:
    """A value as a spec would write it, names resolved and options that have their default left out."""
    current = node(graph, key)
    match current:
        case n.Projection():
            sizes = f"({current.into} -> {current.out})" if current.into and current.out else ""
            text = f"{spell(graph, current.inputs[0], inside=True)} via {current.activation or 'linear'}{sizes}"
        case n.Combine(operator="mean"):
            return f"mean([{', '.join(spell(graph, x) for x in current.inputs)}])"
        case n.Combine():
            free = current.operator in n.COMMUTES
            inputs = sorted(current.inputs, key=lambda x: in_order(graph, x)) if free else current.inputs
            text = f" {current.operator} ".join(spell(graph, x, inside=True) for x in inputs)
        case n.Loss():
            return _spell_loss(graph, current)
        case _:
            return current.label()
    return f"({text})" if inside else text


def _spell_loss(graph: nx.DiGraph, loss: n.Loss) -> str:
    sides = f"{spell(graph, loss.inputs[0])} -> {spell(graph, loss.inputs[1])}"
    defaults = {o.name: o.default for o in OPERATIONS[loss.operation].options}
    values = zip(loss.options, loss.inputs[len(loss.inputs) - len(loss.options) :], strict=True)
    given = []
    for name, key in values:
        value = node(graph, key)
        if not (isinstance(value, n.Number) and value.value == defaults[name]):
            given.append(f"{name}={spell(graph, key)}")
    mask = _mask(graph, loss)
    if mask and mask != DEFAULT_MASKS.get(loss.unit):
        given.append(f"mask={mask}")
    return f"{loss.operation}({', '.join([sides, *given])})"


def _mask(graph: nx.DiGraph, loss: n.Loss) -> str:
    mask = node(graph, loss.inputs[2]) if loss.masked else None
    return mask.which if isinstance(mask, n.Mask) else ""


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _forwards(graph: nx.DiGraph) -> tuple[ForwardPlan, ...]:
    found = []
    for key in execution_order(graph):
        forward = node(graph, key)
        if isinstance(forward, n.Forward):
            taps = [t for k in graph.successors(key) if isinstance(t := node(graph, k), n.Tap)]
            taps.sort(key=lambda t: (t.feature.name, t.feature.path or "", t.feature.index or 0, str(t.feature)))
            entry = node(graph, forward.inputs[0])
            data = entry.data if isinstance(entry, n.Input) else ""
            found.append(ForwardPlan(forward.model, forward.role, data, tuple(str(t.feature) for t in taps)))
    return tuple(sorted(found, key=lambda f: (f.role != "teacher", f.model)))


def _projections(graph: nx.DiGraph) -> tuple[ProjectionPlan, ...]:
    uses: dict[str, list[n.Projection]] = {}
    for key in sorted(graph, key=lambda k: in_order(graph, k)):
        if isinstance(p := node(graph, key), n.Projection):
            uses.setdefault(p.site, []).append(p)
    found = []
    for site in sorted(uses):
        p = uses[site][0]
        size = (p.into + 1) * p.out if p.into and p.out else None
        values = tuple(spell(graph, use.inputs[0]) for use in uses[site])
        found.append(ProjectionPlan(site, p.activation or "linear", p.into, p.out, size, values, p.options))
    return tuple(found)


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _settings(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    train = recipe.train
    found = []
    for name in type(train).model_fields:
        value = getattr(train, name)
        if name == "epochs" and value is None and train.steps is None:
            value = 3.0
        if value is None and name in ("epochs", "steps"):
            continue
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


def _steps(recipe: Recipe, data: DataPlan) -> int | None:
    """Optimizer steps of the whole training, where the rows are known."""
    train = recipe.train
    if train.steps is not None:
        return train.steps
    if data.rows is None:
        return None
    per_epoch = math.ceil(math.ceil(data.rows / data.batch) / train.accumulate)
    return max(1, round((train.epochs or 3.0) * per_epoch))


def _line(text: str) -> str:
    return " ".join(text.split())
