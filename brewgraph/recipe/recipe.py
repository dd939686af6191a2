"""A spec's meaning: every name resolved, every list spelled out, which losses are trained when, and what it asks of its
models and data: features, labels that heads learn from, columns, words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from brewgraph.diagnostics import UsageError
from brewgraph.recipe import values as v
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import LabelType
from brewgraph.recipe.settings.train import Train
from brewgraph.recipe.values import Value
from brewgraph.source import Source, Span

OWN_COLUMNS = frozenset({"labels", "start", "end", "weights"})
"""Column names with a fixed meaning in every data set."""


@dataclass(frozen=True)
class Task:
    """One loss and its data. `name` is empty if the stage has no tasks.

    `data` names the data sets that the loss reads: the first sets the length of an epoch, others cycle. `reports` are
    the values of `train { report = […] }`.
    """

    name: str
    loss: Value
    data: tuple[str, ...]
    reports: Mapping[str, Value]
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Sample:
    """How the task of a step is drawn: by a weight per task (`law`, over `size` and `batches`) with a minimum share
    `floor`, or in a fixed `order`.
    """

    law: Value
    order: tuple[str, ...] = ()
    floor: float = 0.0


@dataclass(frozen=True)
class Frozen:
    """What a stage does not train: a module of the student by path, a projection by site, or a whole model."""

    kind: str
    name: str
    path: str = ""
    span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Stage:
    """A part of training. `name` is empty if the spec has no stages. `places` maps each setting to its place."""

    name: str
    tasks: tuple[Task, ...]
    sample: Sample | None
    train: Train
    freeze: tuple[Frozen, ...] = ()
    places: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)
    span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class AutoCache:
    """A folder for the values that brewgraph chooses to keep, and the most bytes that it may take."""

    path: str
    limit: int | None
    place: Span = field(compare=False, repr=False)
    name: str = "auto"


@dataclass(frozen=True)
class Recipe:
    """A whole spec. `equations` holds scalars and lists of them by full name: `soft`, `ner/soft`. `modules` are the
    imported Python modules.
    """

    source: Source = field(compare=False, repr=False)
    params: Mapping[str, Any]
    models: Mapping[str, v.ModelDeclaration]
    data: Mapping[str, v.DataDeclaration]
    equations: Mapping[str, Any]
    stages: tuple[Stage, ...]
    train: Train
    train_span: Span = field(compare=False, repr=False)
    modules: tuple[str, ...] = ()
    open: tuple[v.Take, ...] = ()
    """Indexed rows of unknown length."""
    projections: Mapping[str, v.Projector] = field(default_factory=dict)
    """Named projections."""
    places: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)
    """The place of each equation's name."""
    auto_cache: AutoCache | None = None

    @property
    def student(self) -> v.ModelDeclaration:
        return next(m for m in self.models.values() if m.role == "student")

    @property
    def teachers(self) -> tuple[v.ModelDeclaration, ...]:
        return tuple(m for m in self.models.values() if m.role == "teacher")

    @property
    def has_baseline(self) -> bool:
        """Whether the student is also trained without its teachers."""
        return self.train.baseline and bool(self.teachers)

    @property
    def tasks(self) -> tuple[tuple[Stage, Task], ...]:
        """Every task of every stage."""
        return tuple((stage, task) for stage in self.stages for task in stage.tasks)

    @property
    def loss(self) -> Value:
        """The loss of the first task: the only one in a spec without stages and tasks."""
        return self.stages[0].tasks[0].loss

    @property
    def caches(self) -> dict[str, v.Cached | AutoCache]:
        """What the spec keeps on disk, by name."""
        kept = (x for value in self.values() for x in v.walk(value) if isinstance(x, v.Cached))
        auto = (self.auto_cache,) if self.auto_cache is not None else ()
        return {x.name: x for x in (*kept, *auto)}

    def values(self) -> Iterator[Value]:
        """Every value that the spec computes: of its equations, its losses, its reports."""
        for equation in self.equations.values():
            yield from v.members(equation)
        for _, task in self.tasks:
            yield task.loss
            yield from task.reports.values()


def data_of(value: Value) -> tuple[str, ...]:
    """The data sets that a value reads, those of labels first: they define an epoch."""
    parts = list(v.walk(value))
    labels = [x.data for x in parts if isinstance(x, v.Column)]
    return tuple(dict.fromkeys([*labels, *(x.data for x in parts if isinstance(x, v.Take))]))


def frozen_of(value: Any, span: Span) -> Frozen | None:
    """The meaning of an entry of `freeze`; None if it is not trainable. A head is a module of its name."""
    match value:
        case v.Take(feature=feature) if feature.name == "tap" and feature.path is not None and not feature.input:
            return Frozen("module", value.model, feature.path, span=span)
        case v.Forwarded(model=v.ModelDeclaration(role="student") as model, head=str(head)):
            return Frozen("module", model.name, head, span=span)
        case v.Projector(name=str(name)):
            return Frozen("projection", name, span=span)
        case v.ModelDeclaration(role="student"):
            return Frozen("model", value.name, span=span)
    return None


def without_teacher(recipe: Recipe) -> Recipe:
    """The recipe without the terms that use a teacher, nor the tasks and stages that this leaves empty.

    Raises `UsageError` if nothing is left.
    """
    teachers = frozenset(m.name for m in recipe.teachers)
    stages = tuple(kept for stage in recipe.stages if (kept := _keep_stage(stage, teachers)) is not None)
    if not stages:
        raise UsageError("every term of the loss needs a teacher, so there is nothing to train without one")
    equations = {
        name: value
        for name, value in recipe.equations.items()
        if not any(_needs(member, teachers) for member in v.members(value))
    }
    models = {name: model for name, model in recipe.models.items() if model.role != "teacher"}
    return replace(recipe, stages=stages, models=MappingProxyType(models), equations=MappingProxyType(equations))


def _keep_stage(stage: Stage, teachers: frozenset[str]) -> Stage | None:
    tasks: list[Task] = []
    for task in stage.tasks:
        loss = _keep(task.loss, teachers)
        if loss is not None:
            reports = {name: value for name, value in task.reports.items() if not _needs(value, teachers)}
            tasks.append(replace(task, loss=loss, data=data_of(loss), reports=reports))
    if not tasks:
        return None
    left = {task.name for task in tasks}
    sample = stage.sample
    if sample is not None:
        sample = replace(sample, order=tuple(name for name in sample.order if name in left)) if len(left) > 1 else None
    return replace(stage, tasks=tuple(tasks), sample=sample)


def _keep(x: v.Value, teachers: frozenset[str]) -> v.Value | None:
    if not _needs(x, teachers):
        return x
    if not isinstance(x, v.Combine) or x.kind != "loss":
        return None
    kept = [k for operand in x.operands if (k := _keep(operand, teachers)) is not None]
    whole = len(kept) == len(x.operands)
    if x.operator in ("*", "/"):
        return replace(x, operands=tuple(kept)) if whole else None
    if x.operator == "-" and len(kept) == 1:
        first = _keep(x.operands[0], teachers)
        minus = v.Number("number", -1.0, span=x.span)
        return first if first is not None else v.Combine("loss", "*", (minus, kept[0]), span=x.span)
    if x.operator not in ("+", "-") and not whole:
        return None
    return replace(x, operands=tuple(kept)) if len(kept) > 1 else (kept[0] if kept else None)


def _needs(x: v.Value, teachers: frozenset[str]) -> bool:
    return any(take.model in teachers for take in v.takes_in(x))


# ── what a recipe asks of its models and data ────────────────────────────────────────────────────────────────────────


def takes(recipe: Recipe) -> Iterator[v.Take]:
    """Every feature that the equations use; whole rows while their length is unknown."""
    yield from recipe.open
    yield from v.takes_in(*recipe.values())


def _parts(recipe: Recipe) -> Iterator[v.Value]:
    return (part for value in recipe.values() for part in v.walk(value))


def features_used(recipe: Recipe) -> Mapping[str, frozenset[Feature]]:
    """The features that the equations use, per model; a student's include those of its average."""
    features_of: dict[str, set[Feature]] = {name: set() for name in recipe.models}
    for take in takes(recipe):
        features_of[take.model].add(take.feature)
        if student := recipe.models[take.model].source.averaged:
            features_of[student].add(take.feature)
    return {name: frozenset(features) for name, features in features_of.items()}


def data_used(recipe: Recipe) -> Mapping[str, tuple[str, ...]]:
    """The data sets that each model runs on, in the order of the spec."""
    data_of: dict[str, set[str]] = {name: set() for name in recipe.models}
    for take in takes(recipe):
        data_of[take.model].add(take.data)
    return {name: tuple(d for d in recipe.data if d in used) for name, used in data_of.items()}


@dataclass(frozen=True)
class Lesson:
    """What a head learns from: the type of the labels, and the data sets that they come from."""

    label_type: LabelType
    data: str


def lessons(recipe: Recipe) -> Mapping[tuple[str, str | None], tuple[Lesson, ...]]:
    """What each head learns: the labels it is matched with, else what a model that it is matched with learns.

    Keys are a model and its head, None for a model with a single head.
    """
    lessons_of: dict[tuple[str, str | None], dict[Lesson, None]] = {}
    pairs: list[tuple[tuple[str, str | None], tuple[str, str | None]]] = []
    for apply in (x for x in _parts(recipe) if isinstance(x, v.Apply)):
        left, right = _heads(apply.source), _heads(apply.target)
        for column in (c for c in v.walk(apply.source) if isinstance(c, v.Column)):
            if column.kind in ("labels", "targets"):
                lesson = Lesson(recipe.data[column.data].source.label_type, column.data)
                for head in right:
                    lessons_of.setdefault(head, {})[lesson] = None
        pairs += [(a, b) for a in left for b in right]
    for _ in pairs:  # what one learns, the other is compared by: a chain is no longer than there are pairs
        before = sum(map(len, lessons_of.values()))
        for one, other in pairs:
            for a, b in ((one, other), (other, one)):
                if b in lessons_of and a not in lessons_of:
                    lessons_of[a] = dict(lessons_of[b])
        if sum(map(len, lessons_of.values())) == before:
            break
    return {head: tuple(learnt) for head, learnt in lessons_of.items()}


def partners(recipe: Recipe) -> Mapping[str, tuple[str, ...]]:
    """For each model the models whose logits are compared with its own, in the order of the equations."""
    partners_of: dict[str, dict[str, None]] = {}
    for apply in (x for x in _parts(recipe) if isinstance(x, v.Apply)):
        for left, _ in _heads(apply.source):
            for right, _ in _heads(apply.target):
                partners_of.setdefault(left, {})[right] = None
                partners_of.setdefault(right, {})[left] = None
    return {name: tuple(others) for name, others in partners_of.items()}


def _heads(x: v.Value) -> list[tuple[str, str | None]]:
    names = ("logits", "start", "end")
    return [(t.model, t.feature.head) for t in v.takes_in(x) if t.feature.name in names]


def columns_used(recipe: Recipe) -> Mapping[str, tuple[str, ...]]:
    """The columns that each data set must keep: those in equations and those for inputs of models."""
    columns_of: dict[str, set[str]] = {name: set() for name in recipe.data}
    for part in _parts(recipe):
        if isinstance(part, v.Column) and part.column not in OWN_COLUMNS:
            columns_of[part.data].add(part.column)
    for model, data in data_used(recipe).items():
        for name in data:
            columns_of[name] |= set(recipe.models[model].source.forward_columns.values())
    return {name: tuple(sorted(columns)) for name, columns in columns_of.items()}


def words_used(recipe: Recipe) -> frozenset[str]:
    """The data sets whose words are used."""
    data: set[str] = set()
    for part in _parts(recipe):
        if isinstance(part, v.Transform) and part.declared.on_words:
            data |= {x.data for x in v.walk(part) if isinstance(x, v.Take | v.Column)}
    return frozenset(data)
