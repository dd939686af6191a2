"""Expressions to values: names, constants, features, indices, layer maps, arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from brewgraph.diagnostics import Collector, SourceFault, listing, suggest
from brewgraph.recipe.describe import are_layers, as_value, describe, is_number
from brewgraph.recipe.features import ROWS, SINGLES, Feature, ModelFacts
from brewgraph.recipe.sources import Layers
from brewgraph.recipe.values import (
    FAULT,
    Combine,
    DataDeclaration,
    Group,
    Labels,
    LayerMap,
    Length,
    Match,
    ModelDeclaration,
    Row,
    Take,
    Value,
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
                return self.combine("*", (-1, self.evaluate(x.operand, side)), x.span)
            case t.Binary():
                return self.combine(x.operator, (self.evaluate(x.left, side), self.evaluate(x.right, side)), x.span)
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
            value = self.scope.value_of(match.group(1), Span(x.span.source, start, start + len(match.group())))
            return str(value)

        return re.sub(r"\{([A-Za-z_]\w*)\}", fill, x.value)

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
            return self.fault("B202", "a list of strings has no features", x.span)
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
        return self.fault("B103", f"{describe(value)} has no `{x.name}`", place)

    def _feature(self, x: t.Attribute, model: ModelDeclaration, place: Span) -> Any:
        if x.name == "layers":
            return model
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
        if model is FAULT:
            return FAULT
        if not isinstance(model, ModelDeclaration):
            return self.fault("B202", f"`@` taps a model, and this is {describe(model)}", x.model.span)
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
            return self.fault(fault.code, fault.message, x.path.span, help=fault.help)
        return Group(tuple(take(p) for p in paths), span=x.span) if "*" in path else take(paths[0])

    def facts_of(self, model: ModelDeclaration) -> ModelFacts | None:
        return self.facts(model) if self.facts else None

    # ── indices ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _index(self, x: t.Index, side: str | None) -> Any:
        if isinstance(x.value, t.At):
            item = self.evaluate(x.items[0]) if len(x.items) == 1 and isinstance(x.items[0], t.Expression) else None
            if not isinstance(item, int):
                return self.fault("B203", "an element of a tuple is picked by one number", x.span)
            return self._tap(x.value, item)
        value = self.evaluate(x.value, side)
        return self.index(value, x, side)

    def index(self, value: Any, x: t.Index, side: str | None) -> Any:
        """Pick from a row, a list, or each model's row in a list of models."""
        if value is FAULT:
            return FAULT
        if isinstance(value, Group) and all(isinstance(i, Row) for i in value) and value.items:
            return value.map(lambda item: self.index(item, x, side))
        if isinstance(value, ModelDeclaration):
            return self._layers(value, x)
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
            return self.fault("B202", f"{describe(value)} cannot be indexed", x.span)
        picks = self._picks(x, len(items), side, "the list")
        if picks is FAULT or isinstance(picks, int):
            return FAULT if picks is FAULT else items[picks]
        chosen = tuple(items[i] for i in picks)
        return Group(chosen, span=x.span) if isinstance(value, Group) else chosen

    def _layers(self, model: ModelDeclaration, x: t.Index) -> Any:
        picks = self._picks(x, None, None, "the layers")
        if isinstance(picks, tuple):
            return Layers(model=model.name, layers=picks)
        return self.fault(
            "B203", "layers are picked by a list of numbers", x.span, help=f"{model.name}.layers[0, 4, 8]"
        )

    def _count(self, take: Take) -> Any:
        model = self.scope.value_of(take.model, take.span)
        known = self.facts_of(model)
        try:
            return known.rows(take.feature.name) if known else None
        except SourceFault as fault:
            return self.fault(fault.code, fault.message, take.span, help=fault.help)

    def _picks(self, x: t.Index, count: int | None, side: str | None, what: str) -> Any:
        """Indices from 0: one int, a tuple, or None where the count is needed and not known."""
        first = x.items[0]
        if len(x.items) == 1 and isinstance(first, t.Slice):
            parts = [None if p is None else self.evaluate(p) for p in (first.start, first.stop, first.step)]
            if any(p is not None and not isinstance(p, int) for p in parts):
                return self.fault("B203", "a slice is made of whole numbers", first.span)
            if parts[2] == 0:
                return self.fault("B203", "a slice cannot step by zero", first.span)
            return None if count is None else tuple(range(count))[slice(*parts)]
        picks: list[int] = []
        single = len(x.items) == 1
        for part in x.items:
            if isinstance(part, t.Slice):
                return self.fault("B203", "a slice stands alone in its brackets", part.span)
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
                    return self.fault("B203", f"an index is a whole number, and this is {describe(pick)}", part.span)
                if count is not None and not -count <= pick < count:
                    what_is = f"`{what}` has {count} members, 0 to {count - 1}"
                    return self.fault("B206", f"{pick} is out of range", part.span, help=what_is)
                picks.append(pick % count if count is not None else pick)
            single = single and not isinstance(value, tuple)
        return picks[0] if single else tuple(picks)

    # ── arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────

    def combine(self, operator: str, sides: tuple[Any, Any], place: Span) -> Any:
        """`left operator right`, member by member where lists are."""
        left, right = sides
        if left is FAULT or right is FAULT:
            return FAULT
        if is_number(left) and is_number(right):
            return self._fold(operator, left, right, place)
        if isinstance(left, Group) or isinstance(right, Group):
            return pair(left, right, place, self, lambda a, b: self.combine(operator, (a, b), place))
        a, b = as_value(left, place), as_value(right, place)
        if a is None or b is None:
            wrong = left if a is None else right
            return self.fault(
                "B202", f"`{operator}` joins numbers, schedules and features, and this is {describe(wrong)}", place
            )
        return self._combine_values(operator, a, b, place)

    def _fold(self, operator: str, a: Any, b: Any, place: Span) -> Any:
        try:
            match operator:
                case "+":
                    return a + b
                case "-":
                    return a - b
                case "*":
                    return a * b
                case "/":
                    return a / b
                case _:
                    return a**b
        except (ZeroDivisionError, OverflowError) as error:
            return self.fault("B207", f"this cannot be computed: {error}", place)

    def _combine_values(self, operator: str, a: Value, b: Value, place: Span) -> Any:
        weights = ("number", "schedule")
        if a.kind == "labels" or b.kind == "labels":
            return self.fault("B202", "labels are no numbers to compute with", place)
        if operator == "**" and not (a.kind in weights and b.kind in weights):
            return self.fault("B208", "powers are for numbers and schedules", place)
        if a.kind in weights and b.kind in weights:
            return Combine("schedule", operator, (a, b), span=place)
        if operator in "+-" and (a.kind in weights or b.kind in weights):
            number = a if a.kind in weights else b
            message = f"a number cannot be added to {describe(a if number is b else b)}"
            return self.fault("B208", message, place, help="weights multiply: `0.5 * x`", note="")
        if operator == "/" and b.kind not in weights:
            return self.fault("B208", "only a number or a schedule can divide", place)
        if operator == "*" and a.kind not in weights and b.kind not in weights:
            message = (
                "two losses cannot be multiplied"
                if a.kind == b.kind == "loss"
                else "features are multiplied by numbers only"
            )
            return self.fault("B208", message, place, help="a product of means depends on how the batch is split")
        kind = b.kind if a.kind in weights else a.kind
        if a.kind not in weights and b.kind not in weights and a.kind != b.kind and "tensor" not in (a.kind, b.kind):
            return self.fault("B208", f"{describe(a)} and {describe(b)} cannot be joined by `{operator}`", place)
        return Combine(kind, operator, (a, b), span=place)


def pair(left: Any, right: Any, place: Span, evaluator: Evaluator, function: Callable[[Any, Any], Any]) -> Any:
    """Apply to each pair of two lists of equal length; a single value goes with every member of the other side."""
    if isinstance(left, Group) and isinstance(right, Group):
        if left.items is None or right.items is None:
            return Group(None, span=place)
        if len(left.items) != len(right.items):
            message = f"a list of {len(left.items)} cannot be paired with a list of {len(right.items)}"
            return evaluator.fault(
                "B201", message, place, help="pair them with a layer map: `let map = [0, 4] -> [0, 1]`"
            )
        items = tuple(function(a, b) for a, b in zip(left.items, right.items, strict=True))
    else:
        group = left if isinstance(left, Group) else right
        if group.items is None:
            return Group(None, span=place)
        items = tuple(function(a, right) if group is left else function(left, a) for a in group.items)
    return FAULT if FAULT in items else Group(items, span=place)
