"""Tree to Recipe: the statements of a spec, their names, and the losses they lead to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from brewgraph.diagnostics import Collector, listing, suggest
from brewgraph.ops import PROJECTIONS
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.cache_statements import evaluate_cache
from brewgraph.recipe.evaluate.calls import check_function, evaluate_call
from brewgraph.recipe.evaluate.declare import Written, declare_data, declare_model, evaluate_param
from brewgraph.recipe.evaluate.expressions import Evaluator, FactsOf
from brewgraph.recipe.evaluate.indexing import evaluate_index
from brewgraph.recipe.evaluate.scope import Library, Scope, enter, warn_of_hidden, warn_of_strays
from brewgraph.recipe.evaluate.stages import make_stages, own_settings, settle_train
from brewgraph.recipe.evaluate.via import evaluate_via, make_projector
from brewgraph.recipe.recipe import Recipe, Stage
from brewgraph.recipe.values import Evaluated, Faulty, Group, Value, describe
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import from_outside


def elaborate(
    spec: t.Spec,
    source: Source,
    params: Mapping[str, object],
    collector: Collector,
    facts: FactsOf | None = None,
    library: Library | None = None,
) -> Recipe | None:
    """The recipe of a spec, or None and diagnostics. Without `facts`, lists that depend on a model stay open."""
    try:
        return _Elaboration(source, collector, params, facts, library).run(spec)
    except Faulty:
        return None


def elaborate_model(spec: t.Spec, source: Source, collector: Collector) -> v.ModelDeclaration | None:
    """The first model that a spec declares, or None; the rest of the spec is ignored."""
    e = _Elaboration(source, collector)
    enter(e.root, spec.statements, collector, e.library)
    model = next((s for s in e.root.statements.values() if isinstance(s, t.Model)), None)
    return declare_model(e, model, model.name) if model is not None else None


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
            places=MappingProxyType({name: s.name_span for name, (_, s) in equations.items()}),
        )

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
                help = suggest(name, known) or (f"it has {listing(known)}; {add}" if known else add)
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
                projector = self.projections[full] = make_projector(self, s.value, full, full, s.name_span)
                return projector
            case t.Tap():
                value = self.evaluate(s.value)
                if not isinstance(value, Value | Group | v.Row):
                    message = f"a tap is a model's feature, got {describe(value)}"
                    help = f'write `tap {s.name} = model @ "path.of.a.module"`'
                    raise self.fault("B202", message, s.value.span, help=help)
                return value
            case t.Cache():
                return evaluate_cache(self, s, full)
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
    via = evaluate_via
