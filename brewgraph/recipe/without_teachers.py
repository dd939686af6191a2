"""A recipe with less in it: the same student, without the terms that need a teacher."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from brewgraph.diagnostics import UsageError
from brewgraph.recipe import values as v
from brewgraph.recipe.recipe import Recipe, Stage, Task, data_of


def without_teacher(recipe: Recipe) -> Recipe:
    """The recipe whose losses are made of those addends only that no teacher has a part in.

    Tasks and stages of which nothing is left fall away. Raises `UsageError` where all of them do.
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
