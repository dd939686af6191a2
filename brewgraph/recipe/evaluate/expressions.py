"""Names and expressions to values: constants, strings, features, taps, layer maps."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from brewgraph.diagnostics import MOST_NAMES, Collector, Label, SourceFault, listing, suggest
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.joining import combine
from brewgraph.recipe.evaluate.scope import IN_TEXT, LATER, Library, Scope, wrong_place
from brewgraph.recipe.features import ROWS, SINGLES, Feature, ModelFacts
from brewgraph.recipe.values import Evaluated, Faulty, Group, Value, describe, each
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import instead

FEATURE_KINDS = {**SINGLES, **ROWS}
_DEEPEST, _SPLIT = 64, "split it into several equations"
"""How many expressions may stand inside each other, through names and calls, and the remedy."""
_LONGEST_TEXT = 100_000
FactsOf = Callable[[v.ModelDeclaration], ModelFacts | None]
"""What is known of a model before its weights are loaded, or None."""


class Evaluator:
    """Evaluates the names and expressions of a spec, lazily.

    A fault goes to the collector once and is raised as `Faulty`, up to the name that is evaluated: whatever uses the
    name is faulty without a diagnostic. Statements, calls, indices and projections are evaluated in other files that
    take the evaluator; `elaborate` joins them.
    """

    def __init__(
        self, source: Source, collector: Collector, params: Mapping[str, object] = {}, facts: FactsOf | None = None
    ):
        self.source, self.collector, self.facts = source, collector, facts
        self.given = params
        self.library = Library(params)
        self.root = Scope("spec", (), None, source)
        self.current = self.root
        self.scopes: list[Scope] = [self.root]
        self.models: dict[str, v.ModelDeclaration] = {}
        self.data: dict[str, v.DataDeclaration] = {}
        self.projections: dict[str, v.Projector] = {}
        self.depth = 0
        """How many expressions are in evaluation, inside each other."""
        self.path: list[tuple[Scope, str]] = []
        """The stack of names in evaluation."""
        self.frames: list[Span] = []
        """The stack of function calls inside the last of them."""
        self.sites: dict[str, list[tuple[tuple[str, int], ...]]] = {}
        """The places of the inline projections of each statement, in the order of evaluation."""
        self.needs_input = True
        """Whether a feature needs data: not in `freeze`, where a tap names a module, nor in an uncalled function."""
        self.evaluated: set[int] = set()
        """The `id` of each function whose body was evaluated in a call."""
        self.open: dict[v.Take, None] = {}
        """Rows that were indexed while their length is unknown."""

    def statement_value(self, scope: Scope, s: t.Named) -> Evaluated:
        raise NotImplementedError

    def call(self, call: t.Call, side: str | None) -> Evaluated:
        raise NotImplementedError

    def index(self, x: t.Index, side: str | None) -> Evaluated:
        raise NotImplementedError

    def via(self, x: t.Via, side: str | None) -> Evaluated:
        raise NotImplementedError

    # ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def fault(self, code: str, message: str, place: Span, *, help: str = "", labels: tuple[Label, ...] = ()) -> Faulty:
        """Report a fault. The caller raises the result, or goes on."""
        self.collector.add(code, message, place, help=help, labels=labels)
        return Faulty()

    def check_repeats(self, arguments: Sequence[t.Argument]) -> None:
        """Refuse a name that is given twice."""
        names = [argument.name for argument in arguments]
        for i, argument in enumerate(arguments):
            if argument.name is not None and argument.name in names[:i]:
                raise self.fault("B125", f"`{argument.name}` is given twice", argument.place, help="remove one of them")

    def evaluate_all(self, expressions: Iterable[t.Expression], side: str | None = None) -> tuple[Evaluated, ...]:
        """The values of expressions, with the faults of all of them."""
        return each(lambda x: self.evaluate(x, side), expressions)

    def evaluate(self, x: t.Expression, side: str | None = None) -> Evaluated:
        """The value of an expression; `side` is `from` or `to` inside an arrow, and picks a layer map's column."""
        if self.depth == _DEEPEST:
            raise self.fault("B012", "nested too deeply", x.span, help=_SPLIT)
        self.depth += 1
        try:
            value = self._evaluate(x, side)
        finally:
            self.depth -= 1
        if (size := v.size_of(value)) > v.MOST_PARTS:
            raise self.too_many(size, x.span)
        if isinstance(value, Value) and value.height > v.HIGHEST:
            raise self.fault("B012", "nested too deeply", x.span, help="add up many terms as a list: `sum([a, b, c])`")
        return value

    def too_many(self, size: int, place: Span) -> Faulty:
        """The fault of a value that is too large."""
        message = f"this has {size:,} members and parts, more than {v.MOST_PARTS:,}"
        return self.fault("B016", message, place, help="lists that hold lists multiply: build a smaller one")

    def _evaluate(self, x: t.Expression, side: str | None) -> Evaluated:
        match x:
            case t.Constant():
                if isinstance(x.value, float) and math.isinf(x.value):
                    raise self.fault("B207", "this number is too large", x.span, help="the largest is about 1.8e308")
                return x.value
            case t.String():
                return self.interpolate(x)
            case t.Percent():
                return v.Length(x.value / 100, "share")
            case t.Duration():
                return v.Length(x.value, x.unit)
            case t.Name():
                return self.value_of(x.id, x.span)
            case t.Attribute():
                return self._attribute(x, self.evaluate(x.value, side))
            case t.Call():
                return self.call(x, side)
            case t.Index():
                return self.index(x, side)
            case t.At():
                return self.tap(x, None)
            case t.List() | t.Tuple():
                return self._several(x, side)
            case t.Mapping():
                help = "write `hf(…, inputs={token_type_ids: column})`"
                raise self.fault("B202", "names are mapped only for `inputs` of a model", x.span, help=help)
            case t.Negative():
                return combine("*", -1, self.evaluate(x.operand, side), x.span, self.fault)
            case t.Binary():
                return self._binary(x, side)
            case t.Arrow():
                return self._arrow(x)
            case t.Via():
                return self.via(x, side)
        raise AssertionError(f"no meaning for {type(x).__name__}")

    def _binary(self, x: t.Binary, side: str | None) -> Evaluated:
        """A chain of operators, however long: a sum of losses is one value with all its terms. All faults are found."""
        chain = [x]
        while isinstance(inner := chain[-1].left, t.Binary):
            chain.append(inner)
        fault: Faulty | None = None
        total: Evaluated = None
        try:
            total = self.evaluate(chain[-1].left, side)
        except Faulty as error:
            fault = error
        for place, one in enumerate(reversed(chain)):
            try:
                right = self.evaluate(one.right, side)
                if fault is None:
                    made = combine(one.operator, total, right, one.span, self.fault)
                    total = _in_one_sum(total, made) if place else made
            except Faulty as error:
                fault = fault or error
        if fault is not None:
            raise fault
        return total

    def _several(self, x: t.List | t.Tuple, side: str | None) -> Evaluated:
        """A list or a tuple."""
        items = self.evaluate_all(x.items, side)
        if v.are_plain(items):
            return items
        if isinstance(x, t.List):
            return Group(items, span=x.span, axis=v.Axis("", "list", f"list {x.span.start}"))
        for item, part in zip(items, x.items, strict=True):
            if not isinstance(item, Value):
                help = "name single values: `(big.hidden[0], big.hidden[4])`"
                message = f"a tuple holds single values, got {describe(item)}"
                raise self.fault("B202", message, part.span, help=help)
        values = tuple(item for item in items if isinstance(item, Value))
        return v.Bundle(f"({', '.join(i.kind for i in values)})", values, span=x.span)

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def inside(self, scope: Scope, frame: Span | None = None) -> Iterator[None]:
        """Look up names from `scope`; `frame` is the call that entered it."""
        before, self.current = self.current, scope
        if frame is not None:
            self.frames.append(frame)
        try:
            yield
        finally:
            self.current = before
            if frame is not None:
                self.frames.pop()

    def value_of(self, name: str, place: Span) -> Evaluated:
        """The value of a name, evaluated on first use."""
        if self.collector.is_full:
            raise Faulty
        for scope in self.current.outward():
            if name in scope.values or name in scope.statements or name in scope.faulty:
                return self.value_inside(scope, name, place)
            if name in scope.inner:
                return scope.inner[name]
            if name in scope.modules:
                raise self._no_value(name, "a Python module", f"call its operations: `{name}.…(a -> b)`", place)
        if name in LATER:
            raise self.fault("B901", f"`{name}` is not supported yet", place)
        if any(name in scope.functions for scope in self.current.outward()):
            raise self._no_value(name, "a function", f"call it: `{name}(…)`", place)
        if help := wrong_place(name):
            raise self.fault("B102", f"`{name}` is not a value", place, help=help)
        known = self.current.known_names()
        there = f"the spec has {listing(known, MOST_NAMES)}" if known else "define it: `let NAME = …`"
        roles = [s.name for s in self.root.statements.values() if isinstance(s, t.Model) and s.role == name]
        if roles:
            there = f"the {name} here is called {listing(roles)}"
        help = instead("name", name, known) or there
        if place.source.line(place.position[0])[: place.position[1] - 1].rstrip().endswith(" --"):
            help = "comments start with `#`"
        raise self.fault("B101", f"there is no `{name}`", place, help=help)

    def _no_value(self, name: str, what: str, help: str, place: Span) -> Faulty:
        return self.fault("B102", f"`{name}` is {what}, not a value", place, help=help)

    def value_inside(self, scope: Scope, name: str, place: Span) -> Evaluated:
        """The value of a name of this scope: `kd`, or from outside `ner.kd`."""
        if name in scope.faulty:
            raise Faulty
        if name in scope.values:
            return scope.values[name]
        if name in scope.inner:
            return scope.inner[name]
        statement = scope.statements.get(name)
        if statement is None:
            known = [*scope.statements, *scope.inner]
            help = suggest(name, known) or (f"it has {listing(known, MOST_NAMES)}" if known else "it defines no names")
            if name in scope.functions:
                help = f"it is a function: call it, `{scope.path[-1]}.{name}(…)`"
            raise self.fault("B101", f"`{scope.path[-1]}` has no `{name}`", place, help=help)
        if (scope, name) in self.path:
            circle = [n for _, n in self.path[self.path.index((scope, name)) :]] + [name]
            message = "a name depends on itself: " + " -> ".join(circle)
            help = "break the circle: one of them must do without the other"
            raise self.fault("B108", message, statement.name_span, help=help)
        self.path.append((scope, name))
        frames, self.frames = self.frames, []
        try:
            with self.inside(scope):
                value = scope.values[name] = self.statement_value(scope, statement)
        except Faulty:
            scope.faulty.append(name)
            raise
        finally:
            self.frames = frames
            self.path.pop()
        return value

    def data_in_scope(self, place: Span) -> v.DataDeclaration:
        """The one data set of the innermost body that declares any."""
        for scope in self.current.outward(through_calls=True):
            names = scope.data
            if len(names) > 1:
                which = f"name the model's input: `{place.text.split('.')[0].split('(')[0]}({names[0]}).…`"
                raise self.fault(
                    "B112", f"there are several data sets here: {listing(names, MOST_NAMES)}", place, help=which
                )
            if names:
                value = self.value_inside(scope, names[0], place)
                assert isinstance(value, v.DataDeclaration)
                return value
        if any(isinstance(s, t.Data) for scope in self.scopes for s in scope.statements.values()):
            help = (
                "write it into the task that has the data, make it a function, or name the input: `model(ner.docs).…`"
            )
            self.collector.add("B112", "there is no data set here", place, help=help)
        raise Faulty

    def interpolate(self, x: t.String) -> str:
        """The string with `{name}` replaced by the value of that name."""

        def filled(match: re.Match[str]) -> str:
            start = x.span.start + 1 + match.start()
            place = Span(x.span.source, start, start + len(match.group()))
            value = self.value_of(match.group(1), place)
            if not (v.is_number(value) or isinstance(value, str)):
                message = f"only numbers and strings can be interpolated, got {describe(value)}"
                raise self.fault("B202", message, place, help="name a `param`, or a `let` of a number or a string")
            return str(value)

        texts = each(filled, re.finditer(IN_TEXT, x.value))
        if (length := len(x.value) + sum(map(len, texts))) > _LONGEST_TEXT:
            message = f"this text has {length:,} characters with its values, more than {_LONGEST_TEXT:,}"
            raise self.fault("B016", message, x.span, help="write a shorter text")
        rest = iter(texts)
        return re.sub(IN_TEXT, lambda _: next(rest), x.value)

    def _arrow(self, x: t.Arrow) -> Evaluated:
        source, target = each(self.evaluate, (x.source, x.target), ("from", "to"))
        if v.are_layers(source) and v.are_layers(target):
            if len(source) != len(target):
                message = f"a layer map needs equally many layers on both sides, got {len(source)} and {len(target)}"
                raise self.fault("B201", message, x.span, help="pair each layer with exactly one other")
            return v.LayerMap(source, target)
        return v.Match(source, target, span=x.span)

    # ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _attribute(self, x: t.Attribute, value: Evaluated) -> Evaluated:
        place = x.name_span
        if isinstance(value, Scope):
            return self.value_inside(value, x.name, place)
        if isinstance(value, Group):
            return value.map(lambda item: self._attribute(x, item))
        if isinstance(value, tuple) and value and isinstance(value[0], str):
            raise self.fault("B202", "a list of strings has no features", x.span, help="list models: `[big, small]`")
        if isinstance(value, v.LayerMap):
            if x.name in ("from", "to"):
                return value.left if x.name == "from" else value.right
            raise self.fault("B103", f"a layer map has no `{x.name}`", place, help="it has `from` and `to`")
        if isinstance(value, v.ModelDeclaration | v.Forwarded):
            return self._of_model(x, value, place)
        if isinstance(value, v.DataDeclaration):
            return self._of_data(x, value, place)
        help = "only models have features: `bert.logits`, `bert.hidden[3]`"
        raise self.fault("B103", f"`.{x.name}` does not apply to {describe(value)}", place, help=help)

    def _of_data(self, x: t.Attribute, data: v.DataDeclaration, place: Span) -> Evaluated:
        """Labels, or any other column of a data set."""
        if not data.known:
            raise Faulty
        label_type = data.source.label_type
        if x.name in label_type.fields:
            return v.Column("targets" if label_type.is_float else "labels", data.name, x.name, span=x.span)
        if x.name == "labels" and label_type:
            help = f"`{data.name}.start` and `{data.name}.end`: `ce({data.name}.start -> tiny.start)`"
            raise self.fault("B103", "the answers of this data are spans, with a start and an end", place, help=help)
        if x.name == "labels":
            raise self.fault("B103", f"`{data.name}` has no labels", place, help="name their column: `label=label`")
        if x.name in ("start", "end"):
            help = f"its labels are `{data.name}.labels`" if label_type else "data with answers have both: `squad(…)`"
            raise self.fault("B103", f"`{data.name}` has no `{x.name}`: its labels are no spans", place, help=help)
        near = suggest(x.name, ["labels", "weights"])
        if near and x.name != "weights":
            raise self.fault("B103", f"data has no `{x.name}`", place, help=near)
        if why := data.source.no_columns:
            help = "it has `labels`; columns come with the rows of `files(…)`, `hub(…)`, `conll(…)` and `squad(…)`"
            raise self.fault("B103", f"`{data.name}` has no column `{x.name}`: {why}", place, help=help)
        if x.name == "weights" and not data.source.weighted:
            help = "name a column: `weight=column`"
            if "class_weights" in type(data.source.sources[0]).model_fields:
                help += ", or weigh the classes: `class_weights=balanced`"
            raise self.fault("B103", f"`{data.name}` has no weights", place, help=help)
        return v.Column("values", data.name, x.name, span=x.span)

    def _of_model(self, x: t.Attribute, model: v.ModelDeclaration | v.Forwarded, place: Span) -> Evaluated:
        owner = model.model if isinstance(model, v.Forwarded) else model
        head = model.head if isinstance(model, v.Forwarded) else None
        if x.name == "layers":
            help = f"`init={owner.name}.layers[0, 4, 8]` on another model starts it from these layers"
            raise self.fault("B203", "`layers` needs a list of numbers", x.span, help=help)
        if head is None and x.name in owner.heads:
            return replace(self._forwarded(model, x.span), head=x.name)
        if head is not None and x.name in owner.heads:
            help = f"write `{owner.name}.{x.name}`: heads lie side by side on the trunk"
            raise self.fault("B103", f"a head has no head `{x.name}`", place, help=help)
        if x.name not in FEATURE_KINDS:
            known = [*owner.heads, *FEATURE_KINDS]
            tapped = f'any module\'s output: `{owner.name} @ "path"`'
            help = instead("feature", x.name, known) or f"models have {listing(FEATURE_KINDS)}; {tapped}"
            raise self.fault("B103", f"models have no feature `{x.name}`", place, help=help)
        of_head = x.name in ("logits", "start", "end")
        if of_head and owner.heads and head is None:
            name = next(iter(owner.heads))
            help = f"name the head: `{x.value.span.text}.{name}.{x.name}`"
            raise self.fault("B103", f"`{owner.name}` has the heads {listing(owner.heads)}", place, help=help)
        if head is not None and not of_head:
            help = f"hidden states belong to the trunk: `{owner.name}.{x.name}`"
            raise self.fault("B103", f"a head has no `{x.name}`", place, help=help)
        forwarded = self._forwarded(model, x.span)
        feature = Feature(x.name, head=head)
        take = v.Take(FEATURE_KINDS[x.name], owner.name, forwarded.data, feature, forwarded.passing, span=x.span)
        return v.Row(take) if x.name in ROWS else take

    def _forwarded(self, model: v.ModelDeclaration | v.Forwarded, place: Span) -> v.Forwarded:
        """A model on its input: the one that was named, or the one data set in scope."""
        if isinstance(model, v.Forwarded):
            return model
        return v.Forwarded(model, self.data_in_scope(place).name if self.needs_input else "")

    def tap(self, x: t.At, item: int | None) -> Evaluated:
        """The value of a module's output, or of its input."""
        model, path = each(self.evaluate, (x.model, x.path))
        assert isinstance(path, str)
        if isinstance(model, Group):
            return model.map(lambda each: self._tap_of(each, x, path, item))
        return self._tap_of(model, x, path, item)

    def _tap_of(self, model: Evaluated, x: t.At, path: str, item: int | None) -> Evaluated:
        if not isinstance(model, v.ModelDeclaration | v.Forwarded):
            help = 'write `model @ "path.of.a.module"`'
            raise self.fault("B202", f"`@` taps a model, got {describe(model)}", x.model.span, help=help)
        forwarded = self._forwarded(model, x.span)
        owner = forwarded.model
        facts = self.facts_of(owner)
        axis = v.Axis("", "row", f"tap {path}")

        def take(at: str, call: int = 0) -> v.Take:
            feature = Feature("tap", path=at, input=x.input, item=item, call=call)
            return v.Take("tensor", owner.name, forwarded.data, feature, forwarded.passing, span=x.span)

        if facts is None:
            return self.open_row(take(path), axis) if "*" in path else take(path)
        try:
            paths = facts.paths(path)
            # what freezes or names a module means the module, not its calls
            calls = facts.calls(paths) if self.needs_input else tuple((module, 0) for module in paths)
        except SourceFault as fault:
            raise self.source_fault(fault, owner, x.path.span) from fault
        if "*" in path or len(calls) > 1:
            return Group(tuple(take(*call) for call in calls), span=x.span, axis=axis)
        return take(*calls[0])

    def open_row(self, take: v.Take, axis: v.Axis) -> Group:
        """Members of a row of unknown length."""
        self.open[take] = None
        return Group(None, span=take.span, kind=take.kind, axis=axis)

    def may_be_row(self, value: Value) -> bool:
        """Whether a value is a tap of an unknown model, whose module might run several times."""
        if not isinstance(value, v.Take) or value.feature.name != "tap":
            return False
        model = self.models[value.model]
        return model.source.is_known and self.facts_of(model) is None

    def facts_of(self, model: v.ModelDeclaration) -> ModelFacts | None:
        return self.facts(model) if self.facts else None

    def source_fault(self, fault: SourceFault, model: v.ModelDeclaration, place: Span) -> Faulty:
        """A fault of a model's facts; one of a model that cannot be built is placed at its declaration."""
        if fault.code == "B306":
            return self.fault(fault.code, fault.message, model.span, help=fault.help or "correct the configuration")
        return self.fault(fault.code, fault.message, place, help=fault.help)


def _in_one_sum(first: Evaluated, whole: Evaluated) -> Evaluated:
    """A sum whose `first` operand is a sum of losses without a name, as one sum of all their terms."""
    if not (isinstance(first, v.Combine) and isinstance(whole, v.Combine)):
        return whole
    added = first.operator == whole.operator == "+" and first.kind == whole.kind == "loss"
    if not added or whole.operands[0] is not first:
        return whole
    return replace(whole, operands=(*first.operands, *whole.operands[1:]))
