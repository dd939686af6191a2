"""Tree to Recipe: the statements of a spec, their names, and the losses they lead to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

from brewgraph.diagnostics import Collector, listing, suggest
from brewgraph.ops import PROJECTIONS
from brewgraph.recipe.caches import evaluate_cache
from brewgraph.recipe.calls import LATER, check_function, evaluate_call
from brewgraph.recipe.declare import declare_data, declare_model, evaluate_param
from brewgraph.recipe.describe import as_value, describe, wrong_place
from brewgraph.recipe.enter import enter, warn_of_hidden
from brewgraph.recipe.evaluate import Evaluator, FactsOf
from brewgraph.recipe.imports import Library
from brewgraph.recipe.indexing import evaluate_index
from brewgraph.recipe.projections import evaluate_via, make_projector
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.scope import Scope
from brewgraph.recipe.stages import make_stages
from brewgraph.recipe.strays import warn_of_strays
from brewgraph.recipe.training import Written, settle_train
from brewgraph.recipe.values import (
    FAULT,
    Axis,
    DataDeclaration,
    Declaration,
    Group,
    Match,
    ModelDeclaration,
    Projector,
    Row,
    Value,
)
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import from_outside, instead

D = TypeVar("D", bound=Declaration)


def elaborate(
    spec: t.Spec,
    source: Source,
    params: Mapping[str, Any],
    collector: Collector,
    facts: FactsOf | None = None,
    library: Library | None = None,
) -> Recipe | None:
    """The recipe of a spec, or None where it is at fault (then the collector holds why).

    Without `facts` everything that needs no model is checked; lists whose length only a model tells stay open.
    """
    return _Elaboration(source, params, collector, facts, library or Library(params)).run(spec)


def elaborate_model(spec: t.Spec, source: Source, collector: Collector) -> ModelDeclaration | None:
    """The first model that a spec declares, where nothing else of the spec is asked for; None where there is none."""
    alone = _Elaboration(source, {}, collector, None, Library({}))
    enter(alone.root, spec.statements, collector, alone.library)
    with alone.inside(alone.root):
        for name, statement in alone.root.statements.items():
            if isinstance(statement, t.Model):
                found: ModelDeclaration = alone.value_of(name, statement.name_span)
                return found
    return None


class _Elaboration:
    def __init__(
        self,
        source: Source,
        params: Mapping[str, Any],
        collector: Collector,
        facts: FactsOf | None,
        library: Library,
    ):
        self.source, self.given, self.collector, self.library = source, params, collector, library
        self.evaluator = Evaluator(self, collector, facts, source)
        self.root = Scope("spec", (), None, source)
        self.current = self.root
        self.scopes: list[Scope] = [self.root]
        self.models: dict[str, ModelDeclaration] = {}
        self.data: dict[str, DataDeclaration] = {}
        self.projections: dict[str, Projector] = {}
        self.path: list[tuple[Scope, str]] = []
        self.frames: list[Span] = []
        self.via_places: dict[str, list[Any]] = {}

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, spec: t.Spec) -> Recipe | None:
        enter(self.root, spec.statements, self.collector, self.library)
        self._check_given()
        self.scopes = list(self.root.descend())
        for scope in (*self.scopes, *(inner for library in self.library.scopes for inner in library.descend())):
            warn_of_hidden(scope, self.collector)
        for scope in self.scopes:
            with self.inside(scope):
                for name, statement in scope.statements.items():
                    self.value_of(name, statement.name_span)
        warn_of_strays(self.scopes, spec, self.collector)
        self._check_roles()
        outer: Written = {}
        stages = make_stages(self, outer)
        for scope in self.scopes:
            for function in scope.functions.values():
                check_function(self.evaluator, self, scope, function)
        train = settle_train(outer, self._train_span(), self.collector)
        if self.collector.failed or stages is None or train is None:
            return None
        equations = self._equations()
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
            modules=self.library.modules,
            open=tuple(self.evaluator.open),
            projections=MappingProxyType(self.projections),
            places=MappingProxyType({name: s.name_span for name, (_, s) in equations.items()}),
        )

    def _train_span(self) -> Span:
        return self.root.trains[0].span if self.root.trains else Span(self.source, 0, 0)

    def _equations(self) -> dict[str, tuple[Scope, t.Equation]]:
        """Those of scalars and lists by full names; a task's `kd` is `ner/kd`, one of an imported spec `lib/kd`."""
        found = {}
        imported = [scope for scope in self.library.scopes if scope.source != self.source]
        for scope in (*self.scopes, *imported):
            for name, statement in scope.statements.items():
                value = scope.values.get(name)
                if isinstance(statement, t.Equation) and isinstance(value, Value | Group):
                    found[scope.full(name, "/")] = (scope, statement)
        return found

    def _check_given(self) -> None:
        """Params given from outside (`--set`, `load(..., T=8)`) must exist."""
        known = [n for n, s in self.root.statements.items() if isinstance(s, t.Param)]
        for name in self.given:
            if name not in known:
                place = Span(self.source, 0, min(1, len(self.source.text)))
                add = from_outside(name) or f"add `param {name} = …`"
                help = suggest(name, known) or (f"it has {listing(known)}; {add}" if known else add)
                self.collector.add("B106", f"the spec has no param `{name}` to set", place, help=help)

    def _check_roles(self) -> None:
        """There is one student, and something to train it on."""
        end = Span(self.source, max(0, len(self.source.text.rstrip()) - 1), len(self.source.text.rstrip()))
        every = [s for scope in self.scopes for s in scope.statements.values()]
        students = [s for s in every if isinstance(s, t.Model) and s.role == "student"]
        if not students:
            self.collector.add(
                "B107", "nothing is trained: there is no student", end, help="add `student NAME = hf(…)`"
            )
        for extra in students[1:]:
            help = "one student learns at a time: heads on a shared trunk do several tasks, `brew(…)` makes a chain"
            self.collector.add("B111", "there is a student already", extra.name_span, help=help)
        if not any(isinstance(s, t.Data) for s in every):
            help = "add `data NAME = files(…)`, `glue(…)`, `hub(…)` or `builtin(…)`"
            self.collector.add("B107", "there is no data to train on", end, help=help)

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def inside(self, scope: Scope, frame: Span | None = None) -> Iterator[None]:
        """Names are looked up from `scope` on; `frame` is the call that led there."""
        before, self.current = self.current, scope
        if frame is not None:
            self.frames.append(frame)
        try:
            yield
        finally:
            self.current = before
            if frame is not None:
                self.frames.pop()

    def known_names(self) -> list[str]:
        return self.current.known_names()

    def model(self, name: str) -> ModelDeclaration:
        return self.models[name]

    def value_of(self, name: str, place: Span) -> Any:
        """The value of a name, evaluated when it is first asked for."""
        for scope in self.current.outward():
            if name in scope.values or name in scope.statements:
                return self.value_inside(scope, name, place)
            if name in scope.inner:
                return scope.inner[name]
            if name in scope.modules:
                return self._no_value(name, "a Python module", f"call its operations: `{name}.…(a -> b)`", place)
        if name in LATER:
            return self.evaluator.fault("B901", f"`{name}` is not supported yet", place)
        if any(name in scope.functions for scope in self.current.outward()):
            return self._no_value(name, "a function", f"call it: `{name}(…)`", place)
        if help := wrong_place(name):
            return self.evaluator.fault("B102", f"`{name}` is no value", place, help=help)
        known = self.current.known_names()
        there = f"the spec has {listing(known)}" if known else "define it: `let NAME = …`"
        roles = [s.name for s in self.root.statements.values() if isinstance(s, t.Model) and s.role == name]
        if roles:
            there = f"the {name} here is called {listing(roles)}"
        help = instead("name", name, known) or there
        if place.source.line(place.position[0])[: place.position[1] - 1].rstrip().endswith(" --"):
            help = "comments begin with `#`"
        return self.evaluator.fault("B101", f"there is no `{name}`", place, help=help)

    def _no_value(self, name: str, what: str, help: str, place: Span) -> Any:
        return self.evaluator.fault("B102", f"`{name}` is {what}, and no value", place, help=help)

    def axis_of(self, x: t.Expression) -> tuple[str, str]:
        return self.current.axis_of(x)

    def params_in(self, x: t.Expression) -> frozenset[str]:
        return self.current.params_in(x)

    def value_inside(self, scope: Scope, name: str, place: Span) -> Any:
        """The value of a name of this scope: `kd`, or from outside `ner.kd`."""
        if name in scope.values:
            return scope.values[name]
        if name in scope.inner:
            return scope.inner[name]
        statement = scope.statements.get(name)
        if statement is None:
            known = [*scope.statements, *scope.inner]
            help = suggest(name, known) or (f"it has {listing(known)}" if known else "it defines no names")
            if name in scope.functions:
                help = f"it is a function: call it, `{scope.path[-1]}.{name}(…)`"
            return self.evaluator.fault("B101", f"`{scope.path[-1]}` has no `{name}`", place, help=help)
        if (scope, name) in self.path:
            circle = [n for _, n in self.path[self.path.index((scope, name)) :]] + [name]
            message = "a name depends on itself: " + " -> ".join(circle)
            help = "break the circle: one of them must do without the other"
            return self.evaluator.fault("B108", message, statement.name_span, help=help)
        self.path.append((scope, name))
        frames, self.frames = self.frames, []
        with self.inside(scope):
            value = self._statement_value(scope, statement)
        self.frames = frames
        self.path.pop()
        scope.values[name] = value
        return value

    def _statement_value(self, scope: Scope, s: t.Named) -> Any:
        full = scope.full(s.name)
        match s:
            case t.Param():
                return evaluate_param(self.evaluator, s, self.given if scope is self.root else {})
            case t.Model():
                model = declare_model(self.evaluator, s, full)
                self.models[full] = model
                return model
            case t.Data():
                data = declare_data(self.evaluator, s, full)
                self.data[full] = data
                return data
            case t.Proj():
                if s.name in PROJECTIONS:
                    message = f"`{s.name}` is the name of a projection already"
                    return self.evaluator.fault("B105", message, s.name_span, help=f"call it `my_{s.name}`")
                projector = make_projector(self.evaluator, s.value, full, full, s.name_span)
                if projector is None:
                    return FAULT
                self.projections[full] = projector
                return projector
            case t.Tap():
                value = self.evaluator.evaluate(s.value)
                if value is not FAULT and not isinstance(value, Value | Group | Row):
                    message = f"a tap is a model's feature, and this is {describe(value)}"
                    help = f'write `tap {s.name} = model @ "path.of.a.module"`'
                    return self.evaluator.fault("B202", message, s.value.span, help=help)
                return value
            case t.Cache():
                return evaluate_cache(self.evaluator, s, full, self.models, self.data)
            case t.Let() | t.Equation():
                return self._named_value(scope, s)
        raise AssertionError(type(s).__name__)

    def _named_value(self, scope: Scope, s: t.Let | t.Equation) -> Any:
        value = self.evaluator.evaluate(s.value)
        if isinstance(value, Match):
            help = "an operation compares them: `mse(a -> b)`"
            message = "an arrow alone is no value, but between layers"
            return self.evaluator.fault("B209", message, s.value.span, help=help)
        if isinstance(s, t.Equation):
            return as_value(value, s.value.span) if isinstance(value, int | float) else value
        if isinstance(value, Group) and value.axis.kind == "list" and not value.axis.name:
            kind = "models" if all(isinstance(x, ModelDeclaration) for x in value) else "list"
            return Group(value.items, span=value.span, axis=Axis(s.name, kind, f"let {scope.full(s.name)}"))
        return value

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def data_in_scope(self, place: Span) -> DataDeclaration | None:
        """The one data set of the innermost body that declares any; a diagnostic where there are several, or none."""
        for scope in self.current.data_outward():
            names = [n for n, s in scope.statements.items() if isinstance(s, t.Data)]
            if len(names) > 1:
                which = f"name the model's input: `{place.text.split('.')[0].split('(')[0]}({names[0]}).…`"
                message = f"there are several data sets here: {listing(names)}"
                self.collector.add("B112", message, place, help=which)
                return None
            if names:
                value = self.value_inside(scope, names[0], place)
                return value if isinstance(value, DataDeclaration) else None
        if any(isinstance(s, t.Data) for scope in self.scopes for s in scope.statements.values()):
            help = (
                "write it into the task that has the data, make it a function, or name the input: `model(ner.docs).…`"
            )
            self.collector.add("B112", "there is no data set here", place, help=help)
        return None

    # ── calls, indices and projections in equations ──────────────────────────────────────────────────────────────────

    def call(self, call: t.Call, side: str | None) -> Any:
        return evaluate_call(self.evaluator, self, call, side)

    def index(self, x: t.Index, side: str | None) -> Any:
        return evaluate_index(self.evaluator, x, side)

    def via(self, x: t.Via, side: str | None) -> Any:
        word = x.projection.id if isinstance(x.projection, t.Name) else ""
        root = x.projection
        while isinstance(root, t.Attribute):
            root = root.value
        named = word not in PROJECTIONS and isinstance(root, t.Name) and root.id in self.known_names()

        def find() -> Projector | None:
            if not named:
                site = self._site(x)
                return make_projector(self.evaluator, x.projection, None, site, x.projection.span)
            value = self.evaluator.evaluate(x.projection)
            if value is not FAULT and not isinstance(value, Projector):
                message = f"`via` needs a projection, and this is {describe(value)}"
                help = f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
                self.evaluator.fault("B212", message, x.projection.span, help=help)
            return value if isinstance(value, Projector) else None

        return evaluate_via(self.evaluator, x, side, find, inline=not named)

    def _site(self, x: t.Via) -> str:
        """Where an inline projection stands: the statement, and the how-manieth place in it, calls spelled out."""
        scope, name = self.path[-1] if self.path else (self.current, "")
        statement = scope.full(name)
        place = (*((f.source.name, f.start) for f in self.frames), x.span.source.name, x.span.start)
        seen = self.via_places.setdefault(statement, [])
        if place not in seen:
            seen.append(place)
        position = seen.index(place)
        return statement if position == 0 else f"{statement}-{position}"
