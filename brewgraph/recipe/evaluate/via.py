"""Projections in a spec: `via linear` behind the side that is projected, and named ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from brewgraph.diagnostics import listing
from brewgraph.ops import PROJECTIONS
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.values import Evaluated, Group, Value, describe, each
from brewgraph.source import Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

PROJECTED = ("hidden", "vector", "tensor", "states", "logits")
"""Kinds that a projection maps."""
_SETTINGS: Mapping[str, Callable[[float], bool]] = {"lr": lambda x: x > 0, "weight_decay": lambda x: x >= 0}
"""The settings of a projection, each with the numbers that it takes."""


def make_projector(e: Evaluator, x: t.Expression, label: str | None, site: str, place: Span) -> v.Projector:
    """A projection from `linear`, `linear(312 -> 768, lr=1e-3)`."""
    called = x.function if isinstance(x, t.Call) else x
    arguments = x.arguments if isinstance(x, t.Call) else ()
    word = called.id if isinstance(called, t.Name) else ""
    if word not in PROJECTIONS:
        help = instead("projection", word or called.span.text, PROJECTIONS)
        help = help or f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
        raise e.fault("B101", f"there is no projection `{x.span.text}`", x.span, help=help)
    e.check_repeats(arguments)
    into: int | None = None
    out: int | None = None
    options: list[tuple[str, float]] = []
    for argument in arguments:
        value = e.evaluate(argument.value)
        sizes = (value.source, value.target) if isinstance(value, v.Match) and argument.name is None else None
        if sizes is not None and into is not None:
            raise e.fault("B125", "the sizes are given twice", argument.span, help="remove one of them")
        if sizes is not None and v.is_whole(sizes[0]) and v.is_whole(sizes[1]) and min(sizes[0], sizes[1]) > 0:
            into, out = sizes[0], sizes[1]
        elif (name := argument.name or "") in _SETTINGS and v.is_number(value) and _SETTINGS[name](value):
            options.append((name, float(value)))
        else:
            help = f"write `{word}(312 -> 768, lr=1e-3)`; sizes and settings may be left out"
            raise e.fault("B120", f"`{word}` does not take this", argument.span, help=help)
    return v.Projector(label, PROJECTIONS[word].activation, into, out, tuple(options), site, span=place)


def evaluate_via(e: Evaluator, x: t.Via, side: str | None) -> Evaluated:
    """The value with its projection; a list gets one inline projection per member, a named one is shared."""
    try:
        value = e.evaluate(x.value, side)
    finally:
        projector = _projector(e, x)  # its faults are reported even where the value has some

    def project(item: Evaluated, path: str) -> Evaluated:
        if isinstance(item, Group) and item.items is None:
            return item
        if isinstance(item, Group | v.Bundle):
            members = item.items or ()
            projected = each(lambda i: project(members[i], f"{path}.{i}"), range(len(members)))
            if isinstance(item, Group):
                return replace(item, items=projected, span=x.span)
            return replace(item, items=tuple(member for member in projected if isinstance(member, Value)))
        if not isinstance(item, Value) or item.kind not in PROJECTED:
            where = item.span if isinstance(item, Value) else x.value.span
            message = f"a projection maps features, got {describe(item)}"
            help = "hidden states and vectors can be projected: `tiny.hidden[0] via linear`"
            raise e.fault("B212", message, where, help=help)
        return v.Project(item.kind, item, projector if projector.name else replace(projector, site=path), span=x.span)

    return project(value, projector.site)


def _projector(e: Evaluator, x: t.Via) -> v.Projector:
    """The projection that a `proj` names, else an inline one."""
    word = x.projection.id if isinstance(x.projection, t.Name) else ""
    root = x.projection
    while isinstance(root, t.Attribute):
        root = root.value
    if word in PROJECTIONS or not isinstance(root, t.Name) or root.id not in e.current.known_names():
        return make_projector(e, x.projection, None, _site(e, x), x.projection.span)
    projector = e.evaluate(x.projection)
    if isinstance(projector, v.Projector):
        return projector
    message = f"`via` needs a projection, got {describe(projector)}"
    help = f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
    raise e.fault("B212", message, x.projection.span, help=help)


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
