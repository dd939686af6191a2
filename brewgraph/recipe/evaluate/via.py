"""Projections in a spec: `via linear` behind the side that is projected, and named ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from brewgraph.diagnostics import listing
from brewgraph.ops import PROJECTIONS
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.values import FAULT, Evaluated, Group, Value, describe
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

PROJECTED = ("hidden", "vector", "tensor", "states", "logits")
"""Kinds that a projection maps."""
_SETTINGS: Mapping[str, Callable[[float], bool]] = {"lr": lambda x: x > 0, "weight_decay": lambda x: x >= 0}
"""The settings of a projection, each with the numbers that it takes."""


def make_projector(e: Evaluator, x: t.Expression, label: str | None, site: str, place: Span) -> v.Projector | None:
    """A projection from `linear`, `linear(312 -> 768, lr=1e-3)`; None and a diagnostic for anything else."""
    called = x.function if isinstance(x, t.Call) else x
    arguments = x.arguments if isinstance(x, t.Call) else ()
    word = called.id if isinstance(called, t.Name) else ""
    if word not in PROJECTIONS:
        help = instead("projection", word or called.span.text, PROJECTIONS)
        help = help or f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
        e.fault("B101", f"there is no projection `{x.span.text}`", x.span, help=help)
        return None
    if e.repeats(arguments):
        return None
    into: int | None = None
    out: int | None = None
    options: list[tuple[str, float]] = []
    for argument in arguments:
        value = e.evaluate(argument.value)
        if value is FAULT:
            return None
        sizes = (value.source, value.target) if isinstance(value, v.Match) and argument.name is None else None
        if sizes is not None and into is not None:
            e.fault("B125", "the sizes are given twice", argument.span, help="remove one of them")
            return None
        if sizes is not None and v.is_whole(sizes[0]) and v.is_whole(sizes[1]) and min(sizes[0], sizes[1]) > 0:
            into, out = sizes[0], sizes[1]
        elif (name := argument.name or "") in _SETTINGS and v.is_number(value) and _SETTINGS[name](value):
            options.append((name, float(value)))
        else:
            help = f"write `{word}(312 -> 768, lr=1e-3)`; sizes and settings may be left out"
            e.fault("B120", f"`{word}` does not take this", argument.span, help=help)
            return None
    return v.Projector(label, PROJECTIONS[word].activation, into, out, tuple(options), site, span=place)


def evaluate_via(e: Evaluator, x: t.Via, side: str | None) -> Evaluated:
    """The value with its projection; a list gets one inline projection per member, a named one is shared."""
    value = e.evaluate(x.value, side)
    word = x.projection.id if isinstance(x.projection, t.Name) else ""
    root = x.projection
    while isinstance(root, t.Attribute):
        root = root.value
    is_named = word not in PROJECTIONS and isinstance(root, t.Name) and root.id in e.current.known_names()
    projector = _named(e, x) if is_named else make_projector(e, x.projection, None, _site(e, x), x.projection.span)
    if value is FAULT or projector is None:
        return FAULT

    def project(item: Evaluated, path: str) -> Evaluated:
        if isinstance(item, Group) and item.items is None:
            return item
        if isinstance(item, Group | v.Bundle):
            projected = tuple(project(member, f"{path}.{i}") for i, member in enumerate(item.items or ()))
            if isinstance(item, Group):
                return FAULT if FAULT in projected else replace(item, items=projected, span=x.span)
            values = tuple(member for member in projected if isinstance(member, Value))
            return replace(item, items=values) if len(values) == len(projected) else FAULT
        if not isinstance(item, Value) or item.kind not in PROJECTED:
            where = item.span if isinstance(item, Value) else x.value.span
            message = f"a projection maps features, got {describe(item)}"
            help = "hidden states and vectors can be projected: `tiny.hidden[0] via linear`"
            return e.fault("B212", message, where, help=help)
        return v.Project(item.kind, item, projector if is_named else replace(projector, site=path), span=x.span)

    return project(value, projector.site)


def _named(e: Evaluator, x: t.Via) -> v.Projector | None:
    projector = e.evaluate(x.projection)
    if isinstance(projector, v.Projector):
        return projector
    if projector is not FAULT:
        message = f"`via` needs a projection, got {describe(projector)}"
        help = f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
        e.fault("B212", message, x.projection.span, help=help)
    return None


def _site(e: Evaluator, x: t.Via) -> str:
    """Where an inline projection stands: the statement, and its ordinal there; each call of a function counts."""
    scope, name = e.path[-1] if e.path else (e.current, "")
    statement = scope.full(name)
    place = (*((f.source.name, f.start) for f in e.frames), (x.span.source.name, x.span.start))
    places = e.sites.setdefault(statement, [])
    if place not in places:
        places.append(place)
    position = places.index(place)
    return statement if position == 0 else f"{statement}-{position}"
