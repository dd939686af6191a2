"""A recipe with less in it: the same student, without the terms that need a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from brewgraph.diagnostics import UsageError
from brewgraph.recipe import values as v
from brewgraph.recipe.elaborate import Recipe
from brewgraph.recipe.features import Feature


def without_teacher(recipe: Recipe) -> Recipe:
    """The recipe whose loss is made of those addends only that no teacher has a part in."""
    teachers = frozenset(m.name for m in recipe.teachers)
    loss = _keep(recipe.loss, teachers)
    if loss is None:
        raise UsageError("every term of the loss needs a teacher, so there is nothing to train without one")
    equations = {
        name: value
        for name, value in recipe.equations.items()
        if not any(_needs(member, teachers) for member in v.members(value))
    }
    models = {name: model for name, model in recipe.models.items() if model.role != "teacher"}
    return replace(recipe, loss=loss, models=MappingProxyType(models), equations=MappingProxyType(equations))


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
    if x.operator == "mean" and not whole:
        return None
    return replace(x, operands=tuple(kept)) if len(kept) > 1 else (kept[0] if kept else None)


def _needs(x: v.Value, teachers: frozenset[str]) -> bool:
    return any(isinstance(part, v.Take) and part.model in teachers for part in v.walk(x))


def features_used(recipe: Recipe) -> Mapping[str, frozenset[Feature]]:
    """For each model the features that any equation takes from it."""
    found: dict[str, set[Feature]] = {name: set() for name in recipe.models}
    for value in (*recipe.equations.values(), recipe.loss):
        for member in v.members(value):
            for part in v.walk(member):
                if isinstance(part, v.Take):
                    found[part.model].add(part.feature)
    return {name: frozenset(features) for name, features in found.items()}
