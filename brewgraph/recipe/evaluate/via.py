"""Projections in a spec: `via linear` behind the side that is projected, and named ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from brewgraph.diagnostics import listing
from brewgraph.ops import PROJECTIONS
from brewgraph.recipe.evaluate.describe import describe, is_number
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.values import FAULT, Bundle, Group, Match, Project, Projector, Value
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

PROJECTED = ("hidden", "vector", "tensor", "states", "logits")
"""Kinds that a projection maps."""


def make_projector(
    evaluator: Evaluator, expression: t.Expression, name: str | None, site: str, place: Span
) -> Projector | None:
    """A projection from `linear`, `linear(312 -> 768, lr=1e-3)`; None and a diagnostic where it is none."""
    call = expression if isinstance(expression, t.Call) else None
    called = call.function if call else expression
    word = called.id if isinstance(called, t.Name) else ""
    if word not in PROJECTIONS:
        help = instead("projection", word or called.span.text, PROJECTIONS)
        help = help or f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
        evaluator.fault("B101", f"there is no projection `{expression.span.text}`", expression.span, help=help)
        return None
    into = out = None
    options: list[tuple[str, float]] = []
    seen: set[str | None] = set()
    for argument in call.arguments if call else ():
        if argument.name in seen:
            what = f"`{argument.name}` is" if argument.name else "the sizes are"
            evaluator.fault("B125", f"{what} given twice", argument.span, help="remove one of them")
            return None
        seen.add(argument.name)
        value = evaluator.evaluate(argument.value)
        if value is FAULT:
            return None
        if (
            argument.name is None
            and isinstance(value, Match)
            and all(isinstance(size, int) and is_number(size) and size > 0 for size in (value.source, value.target))
        ):
            into, out = value.source, value.target
        elif (
            argument.name in ("lr", "weight_decay")
            and is_number(value)
            and value >= 0
            and (value > 0 or argument.name != "lr")
        ):
            options.append((argument.name, float(value)))
        else:
            help = f"write `{word}(312 -> 768, lr=1e-3)`; sizes and settings may be left out"
            evaluator.fault("B120", f"`{word}` does not take this", argument.span, help=help)
            return None
    return Projector(name, PROJECTIONS[word].activation, into, out, tuple(options), site, span=place)


def evaluate_via(
    evaluator: Evaluator, x: t.Via, side: str | None, find: Callable[[], Projector | None], inline: bool
) -> Any:
    """The value with its projection; a list gets one inline projection per member, a named one is shared."""
    value = evaluator.evaluate(x.value, side)
    projector = find()
    if value is FAULT or projector is None:
        return FAULT

    def project(item: Any, path: str) -> Any:
        if isinstance(item, Group):
            if item.items is None:
                return item
            projected = tuple(project(v, f"{path}.{i}") for i, v in enumerate(item.items))
            return FAULT if FAULT in projected else replace(item, items=projected, span=x.span)
        if isinstance(item, Bundle):
            inside = tuple(project(v, f"{path}.{i}") for i, v in enumerate(item.items))
            return FAULT if FAULT in inside else replace(item, items=inside)
        if not isinstance(item, Value) or item.kind not in PROJECTED:
            where = item.span if isinstance(item, Value) else x.value.span
            message = f"a projection maps features, got {describe(item)}"
            help = "hidden states and vectors can be projected: `tiny.hidden[0] via linear`"
            return evaluator.fault("B212", message, where, help=help)
        own = projector
        if inline:
            own = replace(projector, name=None, site=path)
        return Project(item.kind, item, own, span=x.span)

    return project(value, projector.site)
