"""Expressions to values: names, constants, features, indices, layer maps."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from brewgraph.diagnostics import Collector, SourceFault, listing, suggest
from brewgraph.recipe.arithmetic import combine
from brewgraph.recipe.describe import are_layers, describe
from brewgraph.recipe.features import ROWS, SINGLES, Feature, ModelFacts
from brewgraph.recipe.sources import Layers
from brewgraph.recipe.values import (
    FAULT,
    DataDeclaration,
    Group,
    Labels,
    LayerMap,
    Length,
    Match,
    ModelDeclaration,
    Row,
    Take,
)
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t

FEATURE_KINDS = {
    "logits": "logits",
    "start": "positions",
    "end": "positions",
    "embeddings": "hidden",
    "pooled": "vector",
    "hidden": "hidden",
    "attention": "attention",
    "scores": "scores",
    "query": "states",
    "key": "states",
    "value": "states",
}
FactsOf = Callable[[ModelDeclaration], ModelFacts | None]
"""What is known of a model before its weights are loaded, or None where nothing can be."""


class Scope(Protocol):
    """What the evaluator asks of the spec's names."""

    def value_of(self, name: str, place: Span) -> Any: ...

    def known_names(self) -> list[str]: ...

    def data_in_scope(self, place: Span) -> DataDeclaration | None: ...

    def call(self, call: t.Call, side: str | None) -> Any: ...

    def via(self, expression: t.Via, side: str | None) -> Any: ...


class Evaluator:
    """Evaluates expressions. Faults go to the collector once; the value is then `FAULT`, which spreads silently."""

    def __init__(self, scope: Scope, collector: Collector, facts: FactsOf | None, source: Source):
        self.scope, self.collector, self.facts, self.source = scope, collector, facts, source

    def fault(self, code: str, message: str, place: Span, **more: Any) -> Any:
        self.collector.add(code, message, place, **more)
        return FAULT

    def evaluate(self, x: t.Expression, side: str | None = None) -> Any:
        """The value of an expression; `side` is `from` or `to` inside an arrow, and picks a layer map's column."""
        match x:
            case t.Constant():
                if isinstance(x.value, float) and math.isinf(x.value):
                    return self.fault("B207", "this number is too large", x.span, help="the largest is about 1.8e308")
                return x.value
            case t.String():
                return self.interpolate(x)
            case t.Percent():
                return Length(x.value / 100, "share")
            case t.Duration():
                return Length(x.value, x.unit)
            case t.Name():
                return self.scope.value_of(x.id, x.span)
            case t.Attribute():
                return self._attribute(x, self.evaluate(x.value, side))
            case t.Call():
                return self.scope.call(x, side)
            case t.Index():
                return self._index(x, side)
            case t.At():
                return self._tap(x, None)
            case t.List() | t.Tuple():
                items = tuple(self.evaluate(item, side) for item in x.items)
                if FAULT in items:
                    return FAULT
                if isinstance(x, t.Tuple):
                    return self.fault("B901", "tuples are not supported yet", x.span)
                return (
                    items if all(isinstance(i, int | float | str | bool) for i in items) else Group(items, span=x.span)
                )
            case t.Negative():
                return combine("*", -1, self.evaluate(x.operand, side), x.span, self.fault)
            case t.Binary():
                left, right = self.evaluate(x.left, side), self.evaluate(x.right, side)
                return combine(x.operator, left, right, x.span, self.fault)
            case t.Arrow():
                return self._arrow(x)
            case t.Via():
                return self.scope.via(x, side)
        raise AssertionError(f"no meaning for {type(x).__name__}")

    # ── names, strings, arrows ───────────────────────────────────────────────────────────────────────────────────────

    def interpolate(self, x: t.String) -> Any:
        """The string with `{name}` replaced by the value of that name."""

        def fill(match: re.Match[str]) -> str:
            start = x.span.start + 1 + match.start()
            place = Span(x.span.source, start, start + len(match.group()))
            value = self.scope.value_of(match.group(1), place)
            if not isinstance(value, int | float | str) and value is not FAULT:
                message = f"only numbers and strings can stand in a string, and this is {describe(value)}"
                value = self.fault("B202", message, place, help="name a `param`, or a `let` of a number or a string")
            faulty.append(value is FAULT)
            return str(value)

        faulty: list[bool] = []
        text = re.sub(r"\{([A-Za-z_]\w*)\}", fill, x.value)
        return FAULT if any(faulty) else text

    def _arrow(self, x: t.Arrow) -> Any:
        source, target = self.evaluate(x.source, "from"), self.evaluate(x.target, "to")
        if source is FAULT or target is FAULT:
            return FAULT
        if are_layers(source) and are_layers(target):
            if len(source) != len(target):
                message = f"a layer map needs as many layers on both sides: {len(source)} and {len(target)}"
                return self.fault("B201", message, x.span, help="pair each layer with one other")
            return LayerMap(source, target)
        return Match(source, target, span=x.span)

    # ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _attribute(self, x: t.Attribute, value: Any) -> Any:
        place = Span(x.span.source, x.span.end - len(x.name), x.span.end)
        if value is FAULT:
            return FAULT
        if isinstance(value, Group):
            return value.map(lambda item: self._attribute(x, item))
        if isinstance(value, tuple) and value and isinstance(value[0], str):
            return self.fault("B202", "a list of strings has no features", x.span, help="list models: `[big, small]`")
        if isinstance(value, LayerMap):
            if x.name in ("from", "to"):
                return value.left if x.name == "from" else value.right
            return self.fault("B103", f"a layer map has no `{x.name}`", place, help="it has `from` and `to`")
        if isinstance(value, ModelDeclaration):
            return self._feature(x, value, place)
        if isinstance(value, DataDeclaration):
            if x.name == "labels":
                return Labels("labels", value.name, span=x.span)
            help = suggest(x.name, ["labels"]) or f"write `{value.name}.labels`"
            return self.fault("B103", f"data has no `{x.name}`", place, help=help)
        help = "features are taken from models: `bert.logits`, `bert.hidden[3]`"
        return self.fault("B103", f"`.{x.name}` is asked of {describe(value)}", place, help=help)

    def _feature(self, x: t.Attribute, model: ModelDeclaration, place: Span) -> Any:
        if x.name == "layers":
            help = f"`init={model.name}.layers[0, 4, 8]` on another model starts it from these layers"
            return self.fault("B203", "layers are picked by a list of numbers", x.span, help=help)
        if x.name not in FEATURE_KINDS:
            known = [*SINGLES, *ROWS]
            help = (
                suggest(x.name, known) or f'models have {listing(known)}; any module\'s output: `{model.name} @ "path"`'
            )
            return self.fault("B103", f"models have no feature `{x.name}`", place, help=help)
        data = self.scope.data_in_scope(x.span)
        if data is None:
            return FAULT
        take = Take(FEATURE_KINDS[x.name], model.name, data.name, Feature(x.name), span=x.span)
        return Row(take) if x.name in ROWS else take

    def _tap(self, x: t.At, item: int | None) -> Any:
        model = self.evaluate(x.model)
        path = self.interpolate(x.path)
        if model is FAULT or path is FAULT:
            return FAULT
        if not isinstance(model, ModelDeclaration):
            help = 'write `model @ "path.of.a.module"`'
            return self.fault("B202", f"`@` taps a model, and this is {describe(model)}", x.model.span, help=help)
        data = self.scope.data_in_scope(x.span)
        if data is None:
            return FAULT
        known = self.facts_of(model)

        def take(at: str) -> Take:
            feature = Feature("tap", path=at, input=x.input, item=item)
            return Take("tensor", model.name, data.name, feature, span=x.span)

        if known is None:
            return Group(None, span=x.span) if "*" in path else take(path)
        try:
            paths = known.paths(path)
        except SourceFault as fault:
            return self.source_fault(fault, model, x.path.span)
        return Group(tuple(take(p) for p in paths), span=x.span) if "*" in path else take(paths[0])

    def facts_of(self, model: ModelDeclaration) -> ModelFacts | None:
        return self.facts(model) if self.facts else None

    # ── indices ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _index(self, x: t.Index, side: str | None) -> Any:
        if isinstance(x.value, t.At):
            item = self.evaluate(x.items[0]) if len(x.items) == 1 and isinstance(x.items[0], t.Expression) else None
            if item is FAULT:
                return FAULT
            if not isinstance(item, int) or isinstance(item, bool):
                place = x.items[0].span.to(x.items[-1].span)
                help = f"write one whole number: `{x.value.span.text}[0]`"
                return self.fault("B203", "an element of a tuple is picked by one number", place, help=help)
            return self._tap(x.value, item)
        if isinstance(x.value, t.Attribute) and x.value.name == "layers":
            owner = self.evaluate(x.value.value, side)
            if isinstance(owner, ModelDeclaration) or owner is FAULT:
                return self._layers(owner, x) if isinstance(owner, ModelDeclaration) else FAULT
        value = self.evaluate(x.value, side)
        return self.index(value, x, side)

    def index(self, value: Any, x: t.Index, side: str | None) -> Any:
        """Pick from a row, a list, or each model's row in a list of models."""
        if value is FAULT:
            return FAULT
        if isinstance(value, Group) and all(isinstance(i, Row) for i in value) and value.items:
            return value.map(lambda item: self.index(item, x, side))
        if isinstance(value, Row):
            count = self._count(value.take)
            if count is FAULT:
                return FAULT
            picks = self._picks(x, count, side, str(value.take.feature))
            if picks is None or picks is FAULT:
                return FAULT if picks is FAULT else Group(None, span=x.span, kind=value.take.kind)

            def take(i: int) -> Take:
                return replace(value.take, feature=replace(value.take.feature, index=i), span=x.span)

            return take(picks) if isinstance(picks, int) else Group(tuple(take(i) for i in picks), span=x.span)
        items = value.items if isinstance(value, Group) else value
        if isinstance(value, Group) and items is None:
            return value
        if not isinstance(items, tuple):
            help = "rows (`bert.hidden[3]`) and lists are indexed"
            if isinstance(value, ModelDeclaration):
                help = f"pick a feature first: `{value.name}.hidden[3]`"
            elif isinstance(value, Take) and value.feature.name == "tap":
                help = 'an element of a module\'s tuple is picked beside its path: `(model @ "path")[0]`'
            return self.fault("B202", f"{describe(value)} cannot be indexed", x.span, help=help)
        picks = self._picks(x, len(items), side, "the list")
        if picks is FAULT:
            return FAULT
        if isinstance(picks, int):
            return items[picks]
        chosen = tuple(items[i] for i in picks)
        return Group(chosen, span=x.span) if isinstance(value, Group) else chosen

    def _layers(self, model: ModelDeclaration, x: t.Index) -> Any:
        picks = self._picks(x, None, None, "the layers")
        if isinstance(picks, tuple):
            return Layers(model=model.name, layers=picks)
        if picks is FAULT:
            return FAULT
        return self.fault(
            "B203", "layers are picked by a list of numbers", x.span, help=f"write `{model.name}.layers[0, 4, 8]`"
        )

    def _count(self, take: Take) -> Any:
        model = self.scope.value_of(take.model, take.span)
        known = self.facts_of(model)
        try:
            return known.rows(take.feature.name) if known else None
        except SourceFault as fault:
            return self.source_fault(fault, model, take.span)

    def source_fault(self, fault: SourceFault, model: ModelDeclaration, place: Span) -> Any:
        """What a model's facts object to; a model that cannot be built at all is at fault where it is declared."""
        if fault.code == "B306":
            return self.fault(fault.code, fault.message, model.span, help=fault.help or "correct the configuration")
        return self.fault(fault.code, fault.message, place, help=fault.help)

    def _picks(self, x: t.Index, count: int | None, side: str | None, what: str) -> Any:
        """Indices from 0: one int, a tuple, or None where the count is needed and not known."""
        first = x.items[0]
        if len(x.items) == 1 and isinstance(first, t.Slice):
            parts = [None if p is None else self.evaluate(p) for p in (first.start, first.stop, first.step)]
            if FAULT in parts:
                return FAULT
            if any(p is not None and (not isinstance(p, int) or isinstance(p, bool)) for p in parts):
                help = "write `[::4]`, `[1:]` or `[:]`"
                return self.fault("B203", "a slice is made of whole numbers", first.span, help=help)
            if parts[2] == 0:
                return self.fault("B203", "a slice cannot step by zero", first.span, help="`[::1]` takes every member")
            if count is None:
                return None
            chosen = tuple(range(count))[slice(*parts)]
            return chosen or self._nothing(first.span, what, count)
        picks: list[int] = []
        single = len(x.items) == 1
        for part in x.items:
            if isinstance(part, t.Slice):
                return self.fault("B203", "a slice stands alone in its brackets", part.span, help="or list each number")
            value = self.evaluate(part, side)
            if isinstance(value, LayerMap):
                if side is None:
                    help = f"pick a column: `{part.span.text}.from` or `{part.span.text}.to`"
                    return self.fault(
                        "B205",
                        "a layer map picks its column from the side of an arrow, and here is none",
                        part.span,
                        help=help,
                    )
                value = value.left if side == "from" else value.right
            if value is FAULT:
                return FAULT
            for pick in value if isinstance(value, tuple) else (value,):
                if isinstance(pick, bool) or not isinstance(pick, int):
                    message = f"an index is a whole number, and this is {describe(pick)}"
                    return self.fault("B203", message, part.span, help="members count from 0; -1 is the last")
                if count is not None and not -count <= pick < count:
                    what_is = f"`{what}` has {count} members, 0 to {count - 1}"
                    return self.fault("B206", f"{pick} is out of range", part.span, help=what_is)
                picks.append(pick % count if count is not None else pick)
            single = single and not isinstance(value, tuple)
        if not picks:
            return self._nothing(first.span, what, count)
        return picks[0] if single else tuple(picks)

    def _nothing(self, place: Span, what: str, count: int | None) -> Any:
        help = "name the members to pick" if count is None else f"`{what}` has {count} members, 0 to {count - 1}"
        return self.fault("B203", "this picks nothing", place, help=help)
