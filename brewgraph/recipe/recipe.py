"""A spec's meaning: every name resolved, every list spelled out, and which losses are trained when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from brewgraph.recipe import values as v
from brewgraph.recipe.settings.train import Train
from brewgraph.recipe.values import Value
from brewgraph.source import Source, Span


@dataclass(frozen=True)
class Task:
    """One loss and the data that it is computed on. `name` is empty where a stage has no tasks.

    `data` names the data sets that the loss reads: the first gives the length of an epoch, others go round beside it.
    `reports` are the values that `train { report = […] }` adds at logging and evaluation.
    """

    name: str
    loss: Value
    data: tuple[str, ...]
    reports: Mapping[str, Value]
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class Sample:
    """How the task of a step is drawn: by a weight per task (`law`, over `size` and `batches`), or in a given `order`.

    No task is drawn with a smaller share than `floor`.
    """

    law: Value
    order: tuple[str, ...] = ()
    floor: float = 0.0


@dataclass(frozen=True)
class Frozen:
    """What does not learn in a stage: a module of a student by its path, a projection by its site, or a whole model."""

    kind: str
    name: str
    path: str = ""
    span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Stage:
    """A part of training. `name` is empty where the spec has no stages; then there is one. `places` tells where each of
    its settings is written, its own or the outer ones.
    """

    name: str
    tasks: tuple[Task, ...]
    sample: Sample | None
    train: Train
    freeze: tuple[Frozen, ...] = ()
    places: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)
    span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class Recipe:
    """A whole spec. `equations` holds scalars and lists of them under their full names: `soft`, `ner/soft`.

    `modules` are the Python modules with operations that it imports.
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
    """Rows of which members are picked whose number is not known yet."""
    projections: Mapping[str, v.Projector] = field(default_factory=dict)
    """Those that have a name, by it."""
    places: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)
    """Where the name of each equation stands."""

    @property
    def student(self) -> v.ModelDeclaration:
        return next(m for m in self.models.values() if m.role == "student")

    @property
    def teachers(self) -> tuple[v.ModelDeclaration, ...]:
        return tuple(m for m in self.models.values() if m.role == "teacher")

    @property
    def has_baseline(self) -> bool:
        """Whether the student is to be trained a second time, without its teachers."""
        return self.train.baseline and bool(self.teachers)

    @property
    def tasks(self) -> tuple[tuple[Stage, Task], ...]:
        """Every task of every stage."""
        return tuple((stage, task) for stage in self.stages for task in stage.tasks)

    @property
    def loss(self) -> Value:
        """The loss of the first task: the only one in a spec without stages and tasks."""
        return self.stages[0].tasks[0].loss

    def values(self) -> Iterator[Value]:
        """Every value that the spec computes: of its equations, its losses, its reports."""
        for equation in self.equations.values():
            yield from v.members(equation)
        for _, task in self.tasks:
            yield task.loss
            yield from task.reports.values()


def data_of(value: Value) -> tuple[str, ...]:
    """The data sets that a value reads, labels first: they are what an epoch goes over."""
    parts = list(v.walk(value))
    labels = [x.data for x in parts if isinstance(x, v.Column)]
    return tuple(dict.fromkeys([*labels, *(x.data for x in parts if isinstance(x, v.Take))]))


def frozen_of(value: Any, span: Span) -> Frozen | None:
    """What an entry of `freeze` means; None where it names nothing that learns. A head is a module of its name."""
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
