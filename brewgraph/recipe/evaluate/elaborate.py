"""Tree to Recipe: the statements of a spec, their names, and the losses they lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import get_args

from brewgraph.diagnostics import MOST_NAMES, Collector, listing, suggest
from brewgraph.ops import PROJECTIONS, TEMPERATURES
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.calls import check_function, evaluate_call
from brewgraph.recipe.evaluate.declare import Written, declare_data, declare_model, evaluate_param
from brewgraph.recipe.evaluate.expressions import Evaluator, FactsOf
from brewgraph.recipe.evaluate.indexing import evaluate_index
from brewgraph.recipe.evaluate.scope import Scope, enter, warn_of_hidden, warn_of_strays
from brewgraph.recipe.evaluate.stages import make_stages, own_settings, settle_train
from brewgraph.recipe.label_types import MASKED
from brewgraph.recipe.recipe import AutoCache, Recipe, Stage
from brewgraph.recipe.settings.base import NumberFormat
from brewgraph.recipe.values import Evaluated, Faulty, Group, Value, describe, each
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import from_outside, instead

PROJECTED = ("hidden", "vector", "tensor", "states", "logits")
"""Kinds that a projection maps."""
_SETTINGS: Mapping[str, Callable[[float], bool]] = {"lr": lambda x: x > 0, "weight_decay": lambda x: x >= 0}
"""The settings of a projection, each with the numbers that it takes."""


def elaborate(
    spec: t.Spec, source: Source, params: Mapping[str, object], collector: Collector, facts: FactsOf | None = None
) -> Recipe | None:
    """The recipe of a spec, or None and diagnostics. Without `facts`, lists that depend on a model stay open."""
    try:
        return _Elaboration(source, collector, params, facts).run(spec)
    except Faulty:
        return None


def elaborate_model(spec: t.Spec, source: Source, collector: Collector) -> v.ModelDeclaration | None:
    """The first model that a spec declares, or None; the rest of the spec is ignored."""
    e = _Elaboration(source, collector)
    enter(e.root, spec.statements, collector, e.library)
    model = next((s for s in e.root.statements.values() if isinstance(s, t.Model)), None)
    return declare_model(e, model, model.name) if model is not None else None


def elaborate_data(spec: t.Spec, source: Source, collector: Collector) -> v.DataDeclaration | None:
    """The first data set that a spec declares, or None; the rest of the spec is ignored."""
    e = _Elaboration(source, collector)
    enter(e.root, spec.statements, collector, e.library)
    data = next((s for s in e.root.statements.values() if isinstance(s, t.Data)), None)
    return declare_data(e, data, data.name) if data is not None else None


def elaborate_models(spec: t.Spec, source: Source) -> Mapping[str, v.ModelDeclaration]:
    """The models that a spec declares outside of tasks, by name; the rest of the spec, and all faults, are ignored."""
    e = _Elaboration(source, Collector())
    enter(e.root, spec.statements, e.collector, e.library)
    for name, statement in e.root.statements.items():
        if isinstance(statement, t.Model):
            with suppress(Faulty):
                e.value_of(name, statement.name_span)
    return e.models


# ── projections ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _make_projector(e: Evaluator, x: t.Expression, label: str | None, site: str, place: Span) -> v.Projector:
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


def _evaluate_via(e: Evaluator, x: t.Via, side: str | None) -> Evaluated:
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
        return _make_projector(e, x.projection, None, _site(e, x), x.projection.span)
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


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Elaboration(Evaluator):
    """The evaluator with the meaning of statements, calls, indices and projections; `run` goes through a whole spec."""

    def run(self, spec: t.Spec) -> Recipe | None:
        enter(self.root, spec.statements, self.collector, self.library)
        self._check_given()
        self.scopes = list(self.root.descend())
        for scope in (*self.scopes, *(inner for library in self.library.scopes for inner in library.descend())):
            warn_of_hidden(scope, self.collector)
        for scope in self.scopes:
            with self.inside(scope):
                for name, statement in scope.statements.items():
                    with suppress(Faulty):
                        self.value_of(name, statement.name_span)
        warn_of_strays(self.scopes, spec, self.collector)
        self._check_roles()
        outer = own_settings(self, self.root)
        try:
            train = settle_train(self, outer, self._train_span())
        finally:
            stages = self._stages(outer)
        if self.collector.failed:
            return None
        equations = self._equations()
        auto_cache = self._auto_cache()
        if self.collector.failed:
            return None
        params = {n: self.root.values[n] for n, s in self.root.statements.items() if isinstance(s, t.Param)}
        return Recipe(
            source=self.source,
            params=MappingProxyType(params),
            models=MappingProxyType(self.models),
            data=MappingProxyType(self.data),
            equations=MappingProxyType({name: scope.values[s.name] for name, (scope, s) in equations.items()}),
            stages=stages,
            train=train,
            train_span=self._train_span(),
            modules=tuple(self.library.modules),
            open=tuple(self.open),
            projections=MappingProxyType(self.projections),
            auto_cache=auto_cache,
            places=MappingProxyType({name: s.name_span for name, (_, s) in equations.items()}),
        )

    def _auto_cache(self) -> AutoCache | None:
        for s in self.root.auto_caches:
            with suppress(Faulty), self.inside(self.root):
                path = self.evaluate(s.path)
                assert isinstance(path, str)
                return AutoCache(path, _limit(self, s), s.path.span)
        return None

    def _stages(self, outer: Written) -> tuple[Stage, ...]:
        try:
            return make_stages(self, outer)
        finally:
            for scope in self.scopes:
                for function in scope.functions.values():
                    check_function(self, scope, function)

    def _train_span(self) -> Span:
        return self.root.trains[0].span if self.root.trains else Span(self.source, 0, 0)

    def _equations(self) -> dict[str, tuple[Scope, t.Equation]]:
        """Equations of scalars and lists by full name: `ner/kd` of a task, `lib/kd` of an imported spec."""
        equations = {}
        imported = [scope for scope in self.library.scopes if scope.source != self.source]
        for scope in (*self.scopes, *imported):
            for name, statement in scope.statements.items():
                value = scope.values.get(name)
                if isinstance(statement, t.Equation) and isinstance(value, Value | Group):
                    equations[scope.full(name, "/")] = (scope, statement)
        return equations

    def _check_given(self) -> None:
        """Params given from outside (`--set`, `load(..., T=8)`) must exist."""
        known = [n for n, s in self.root.statements.items() if isinstance(s, t.Param)]
        for name in self.given:
            if name not in known:
                place = Span(self.source, 0, min(1, len(self.source.text)))
                add = from_outside(name) or f"add `param {name} = …`"
                help = suggest(name, known) or (f"it has {listing(known, MOST_NAMES)}; {add}" if known else add)
                self.collector.add("B106", f"the spec has no param `{name}` to set", place, help=help)

    def _check_roles(self) -> None:
        """There is one student, and something to train it on."""
        every = [s for scope in self.scopes for s in scope.statements.values()]
        students = [s for s in every if isinstance(s, t.Model) and s.role == "student"]
        if not students:
            help = "add `student NAME = hf(…)`"
            self.fault("B107", "nothing is trained: there is no student", self.source.end, help=help)
        for extra in students[1:]:
            help = "use heads on a shared trunk for several tasks, `brew(…)` for a chain of students"
            self.collector.add("B111", "a spec has only one student", extra.name_span, help=help)
        if not any(isinstance(s, t.Data) for s in every):
            help = "add `data NAME = files(…)`, `glue(…)`, `hub(…)` or `builtin(…)`"
            self.fault("B107", "there is no data to train on", self.source.end, help=help)

    def statement_value(self, scope: Scope, s: t.Named) -> Evaluated:
        full = scope.full(s.name)
        match s:
            case t.Param():
                return evaluate_param(self, s, self.given if scope is self.root else {})
            case t.Model():
                model = self.models[full] = declare_model(self, s, full)
                return model
            case t.Data():
                data = self.data[full] = declare_data(self, s, full)
                return data
            case t.Proj():
                if s.name in PROJECTIONS:
                    message = f"`{s.name}` is already the name of a projection"
                    raise self.fault("B105", message, s.name_span, help=f"call it `my_{s.name}`")
                projector = self.projections[full] = _make_projector(self, s.value, full, full, s.name_span)
                return projector
            case t.Tap():
                value = self.evaluate(s.value)
                if not isinstance(value, Value | Group | v.Row):
                    message = f"a tap is a model's feature, got {describe(value)}"
                    help = f'write `tap {s.name} = model @ "path.of.a.module"`'
                    raise self.fault("B202", message, s.value.span, help=help)
                return value
            case t.Cache():
                return _evaluate_cache(self, s, full)
            case t.Let() | t.Equation():
                return self._named_value(scope, s)
        raise AssertionError(type(s).__name__)

    def _named_value(self, scope: Scope, s: t.Let | t.Equation) -> Evaluated:
        value = self.evaluate(s.value)
        if isinstance(value, v.Match):
            help = "an operation compares them: `mse(a -> b)`"
            raise self.fault("B209", "an arrow alone is a value only between layers", s.value.span, help=help)
        if isinstance(s, t.Equation):
            return v.as_value(value, s.value.span) if isinstance(value, int | float) else value
        if isinstance(value, Group) and value.axis.kind == "list" and not value.axis.name:
            kind = "models" if all(isinstance(x, v.ModelDeclaration) for x in value) else "list"
            return Group(value.items, span=value.span, axis=v.Axis(s.name, kind, f"let {scope.full(s.name)}"))
        return value

    call = evaluate_call
    index = evaluate_index
    via = _evaluate_via


# ── caches: values that are the same in every epoch ──────────────────────────────────────────────────────────────────


def _evaluate_cache(e: Evaluator, s: t.Cache, name: str) -> Evaluated:
    """The value of a `cache` statement: its expression, or each of its members, with the folder."""
    value, path = e.evaluate_all((s.value, s.path))
    assert isinstance(path, str)
    dtype, limit = None if s.dtype is None else s.dtype.id, _limit(e, s)
    formats = get_args(NumberFormat)
    if s.dtype is not None and dtype not in formats:
        help = f"{suggest(s.dtype.id, formats)}; without `as`, values keep the format in which they are computed"
        raise e.fault("B122", f"no number format `{dtype}`", s.dtype.span, help=help)
    if isinstance(value, v.Row):
        row = f"{value.take.model}.{value.take.feature.name}"
        help = f"select layers: `{row}[4]`, `{row}[0, 4, 8]`, or `{row}[:]` for all"
        raise e.fault("B202", "a cache needs the layers of a row", s.value.span, help=help)

    def keep(x: Evaluated) -> Evaluated:
        if isinstance(x, Group):
            return x.map(keep)
        if not isinstance(x, Value):
            help = 'cache what a teacher computes: `cache soft = bert.logits at "folder"`'
            raise e.fault("B202", f"a cache keeps a value, got {describe(x)}", s.value.span, help=help)
        for code, message, help in _refusals(e, x):
            raise e.fault(code, message, s.value.span, help=help)
        return v.Cached(x.kind, x, name, path, dtype, limit, place=s.path.span, span=x.span)

    return keep(value)


def _limit(e: Evaluator, s: t.Cache | t.AutoCache) -> int | None:
    if s.limit is not None and s.limit.value == 0:
        help = "leave `limit` out, or write `limit 20 GB`"
        raise e.fault("B122", "the limit must be positive", s.limit.span, help=help)
    return None if s.limit is None else s.limit.value


def _refusals(e: Evaluator, value: Value) -> Iterator[tuple[str, str, str]]:
    """Why a value cannot be cached: codes, what is wrong, and the remedies."""
    parts = list(v.walk(value))
    help = "cache only what is computed from teachers"
    for x in parts:  # what training changes
        if isinstance(x, v.Take) and e.models[x.model].role == "student":
            yield "B240", f"`{x.model}` is trained: its output changes every step", help
        elif isinstance(x, v.Take) and e.models[x.model].source.averaged is not None:
            yield "B240", f"`{x.model}` follows the student: its output changes every step", help
        elif isinstance(x, v.Project):
            before = "cache the value before the projection: `cache x = bert.hidden[4] at …`, then `x via linear`"
            yield "B240", "a projection is trained: its output changes every step", before
        elif isinstance(x, v.Scheduled):
            yield "B240", "a schedule changes with training", "apply it after the cache"
    message, help = (
        "the value of an example depends on the rest of its batch here",
        "cache its inputs, such as `bert.logits`",
    )
    for x in parts:  # where an example depends on the rest of its batch, or on padding
        if isinstance(x, v.Temperature) and TEMPERATURES[x.name].couples_batch:
            yield "B241", f"{message}: `{x.name}` uses all of them", help
        elif (isinstance(x, v.Transform) and x.declared.mean == "batch") or (isinstance(x, v.Apply) and x.reduced):
            yield "B241", message, help
        elif isinstance(x, v.Transform | v.Apply) and x.mask == "none":
            yield "B241", "with `mask=none` the value depends on the padding of the batch", "leave `mask=none` out"
    for x in parts:  # data that change every epoch, so that no cached value would be read again
        if isinstance(x, v.Take | v.Column):
            source, help = e.data[x.data].source, "remove the `cache`, or what changes the data"
            if source.is_augmented:
                yield "B242", f"`augment` changes the texts of `{x.data}` every epoch", help
            if source.label_type == MASKED:
                yield "B242", f"the words of `{x.data}` that are masked change every epoch", help
    if not any(isinstance(x, v.Take) for x in parts):
        help = "remove the `cache`: there is nothing to save"
        yield "B240", f"no model computes this: it is {describe(value)}", help
    elif value.kind in ("loss", "number", "schedule"):
        help = "cache its inputs, such as `bert.logits`: one value for each example"
        yield "B241", "this is one number per batch, and batches change every epoch", help
