"""Tree to Recipe: the statements of a spec, their names, and the loss they lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from brewgraph.diagnostics import Collector, Label, listing, suggest
from brewgraph.ops import PROJECTIONS
from brewgraph.recipe.calls import LATER, evaluate_call, evaluate_via, make_projector
from brewgraph.recipe.declare import declare
from brewgraph.recipe.describe import as_value, describe, is_constant, wrong_place
from brewgraph.recipe.evaluate import Evaluator, FactsOf
from brewgraph.recipe.settings import Train
from brewgraph.recipe.sources import DATA, LATER_DATA, LATER_MODELS, MODELS, Builtin, Hf
from brewgraph.recipe.training import train_settings
from brewgraph.recipe.values import (
    FAULT,
    Combine,
    DataDeclaration,
    Declaration,
    Group,
    Match,
    ModelDeclaration,
    Projector,
    Row,
    Take,
    Value,
    walk,
)
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t

LATER_STATEMENTS = {
    t.Head: "`head`",
    t.Cache: "`cache`",
    t.Task: "`task`",
    t.Stage: "`stage`",
    t.Sample: "`sample`",
    t.Import: "`import`",
    t.Function: "a function of one's own",
}
D = TypeVar("D", bound=Declaration)
TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True)
class Recipe:
    """A spec's meaning: every name resolved, every list spelled out. `equations` holds scalars and lists of them."""

    source: Source = field(compare=False, repr=False)
    params: Mapping[str, Any]
    models: Mapping[str, ModelDeclaration]
    data: Mapping[str, DataDeclaration]
    equations: Mapping[str, Any]
    loss: Value
    train: Train
    train_span: Span = field(compare=False, repr=False)

    @property
    def student(self) -> ModelDeclaration:
        return next(m for m in self.models.values() if m.role == "student")

    @property
    def teachers(self) -> tuple[ModelDeclaration, ...]:
        return tuple(m for m in self.models.values() if m.role == "teacher")


def elaborate(
    spec: t.Spec, source: Source, params: Mapping[str, Any], collector: Collector, facts: FactsOf | None = None
) -> Recipe | None:
    """The recipe of a spec, or None where it is at fault (then the collector holds why).

    Without `facts` everything that needs no model is checked; lists whose length only a model tells stay open.
    """
    return _Elaboration(source, params, collector, facts).run(spec)


class _Elaboration:
    def __init__(self, source: Source, params: Mapping[str, Any], collector: Collector, facts: FactsOf | None):
        self.source, self.given, self.collector = source, params, collector
        self.evaluator = Evaluator(self, collector, facts, source)
        self.statements: dict[str, t.Named] = {}
        self.functions: dict[str, Span] = {}
        self.values: dict[str, Any] = {}
        self.path: list[str] = []
        self.via_counts: dict[str, list[int]] = {}

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, spec: t.Spec) -> Recipe | None:
        trains: list[t.Train] = []
        for statement in spec.statements:
            self._enter(statement, trains)
        self._check_given(spec)
        for name, statement in self.statements.items():
            self.value_of(name, statement.name_span)
        train = train_settings(trains, self.evaluator, self.statements)
        models = self._declared(ModelDeclaration)
        data = self._declared(DataDeclaration)
        loss = self._loss(spec, {m.name for m in models.values() if m.role == "student"})
        self._check_roles(spec, models, data)
        if self.collector.failed or loss is None or train is None:
            return None
        equations = {
            n: v
            for n, v in self.values.items()
            if isinstance(self.statements[n], t.Equation) and isinstance(v, Value | Group)
        }
        params = {n: self.values[n] for n, s in self.statements.items() if isinstance(s, t.Param)}
        return Recipe(
            source=self.source,
            params=MappingProxyType(params),
            models=MappingProxyType(models),
            data=MappingProxyType(data),
            equations=MappingProxyType(equations),
            loss=loss,
            train=train,
            train_span=trains[0].span if trains else Span(self.source, 0, 0),
        )

    def _declared(self, kind: type[D]) -> dict[str, D]:
        """What the spec declares of one kind; a second name for it (`let big = bert`) is no second one."""
        return {n: v for n, v in self.values.items() if isinstance(v, kind) and v.name == n}

    def _enter(self, statement: t.Statement, trains: list[t.Train]) -> None:
        later = LATER_STATEMENTS.get(type(statement))
        if isinstance(statement, t.Function):
            self.functions[statement.name] = statement.name_span
        if later:
            self.collector.add("B901", f"{later} is not supported yet", statement.span)
        elif isinstance(statement, t.Version):
            if statement.number != 1:
                help = "this brewgraph reads `brew 1`; a newer one may read more"
                self.collector.add(
                    "B104", f"version {statement.number} of the language is not known", statement.span, help=help
                )
        elif isinstance(statement, t.Train):
            if trains:
                first = Label(Span(self.source, trains[0].span.start, trains[0].span.start + 5), "the first")
                place = Span(self.source, statement.span.start, statement.span.start + 5)
                self.collector.add("B105", "`train` stands twice", place, labels=(first,), help="join the two")
            trains.append(statement)
        elif isinstance(statement, t.Named):
            if statement.name in self.statements:
                before = Label(self.statements[statement.name].name_span, "first here")
                message = f"the name `{statement.name}` is given twice"
                self.collector.add("B105", message, statement.name_span, labels=(before,), help="rename one of them")
            else:
                self.statements[statement.name] = statement

    def _check_given(self, spec: t.Spec) -> None:
        """Params given from outside (`--set`, `load(..., T=8)`) must exist."""
        known = [n for n, s in self.statements.items() if isinstance(s, t.Param)]
        for name in self.given:
            if name not in known:
                place = Span(self.source, 0, min(1, len(self.source.text)))
                help = suggest(name, known) or (f"it has {listing(known)}" if known else "add `param NAME = VALUE`")
                self.collector.add("B106", f"the spec has no param `{name}` to set", place, help=help)

    def _loss(self, spec: t.Spec, students: set[str]) -> Value | None:
        end = Span(self.source, max(0, len(self.source.text.rstrip()) - 1), len(self.source.text.rstrip()))
        if "loss" not in self.statements:
            if not any(isinstance(s, t.Task | t.Stage) for s in spec.statements):
                self.collector.add(
                    "B107", "nothing is trained: there is no `loss`", end, help="add `loss = …`, the sum of the terms"
                )
            return None
        place = self.statements["loss"].name_span
        value = self.values.get("loss", FAULT)
        if value is FAULT:
            return None
        if isinstance(value, Group):
            self.collector.add(
                "B213", "the loss is a list, not one number", place, help="write `sum(…)` or `mean(…)` around the list"
            )
        elif not isinstance(value, Value) or value.kind != "loss":
            help = "a loss is made by an operation: `mse(teacher.… -> student.…)`"
            self.collector.add(
                "B213", f"the loss is {describe(value)}, and training lowers a sum of losses", place, help=help
            )
        elif students and not any((isinstance(x, Take) and x.model in students) or _is_open(x) for x in walk(value)):
            help = f"match something with {listing(sorted(students))}: `mse(teacher.… -> {min(students)}.…)`"
            self.collector.add("B213", "nothing in the loss depends on the student", place, help=help)
        else:
            return value
        return None

    def _check_roles(self, spec: t.Spec, models: dict[str, Any], data: dict[str, Any]) -> None:
        students = [s for s in self.statements.values() if isinstance(s, t.Model) and s.role == "student"]
        sets = [s for s in self.statements.values() if isinstance(s, t.Data)]
        end = Span(self.source, max(0, len(self.source.text.rstrip()) - 1), len(self.source.text.rstrip()))
        if not students:
            self.collector.add(
                "B107", "nothing is trained: there is no student", end, help="add `student NAME = hf(…)`"
            )
        for extra in students[1:]:
            self.collector.add("B901", "several students are not supported yet", extra.name_span)
        if not sets:
            self.collector.add(
                "B107",
                "there is no data to train on",
                end,
                help="add `data NAME = files(…)`, `glue(…)`, `hub(…)` or `builtin(…)`",
            )
        for other in sets[1:]:
            self.collector.add("B901", "several data sets are not supported yet", other.name_span)

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def known_names(self) -> list[str]:
        return list(self.statements)

    def value_of(self, name: str, place: Span) -> Any:
        """The value of a name, evaluated when it is first asked for."""
        if name in self.values:
            return self.values[name]
        statement = self.statements.get(name)
        if statement is None:
            if name in LATER:
                return self.evaluator.fault("B901", f"`{name}` is not supported yet", place)
            if help := wrong_place(name):
                return self.evaluator.fault("B102", f"`{name}` is no value", place, help=help)
            help = suggest(name, self.statements)
            self.collector.add("B101", f"there is no `{name}`", place, help=help or self._names_help())
            return FAULT
        if name in self.path:
            circle = [*self.path[self.path.index(name) :], name]
            message = "a name depends on itself: " + " -> ".join(circle)
            help = "break the circle: one of them must do without the other"
            return self.evaluator.fault("B108", message, statement.name_span, help=help)
        self.path.append(name)
        value = self._statement_value(statement)
        self.path.pop()
        self.values[name] = value
        return value

    def _names_help(self) -> str:
        return f"the spec has {listing(self.statements)}" if self.statements else ""

    def _statement_value(self, s: t.Named) -> Any:
        match s:
            case t.Param():
                return self._param(s)
            case t.Model():
                return self._model(s)
            case t.Data():
                data = declare(self.evaluator, s, s.source, DATA, LATER_DATA, "data source", DataDeclaration)
                anything = DataDeclaration(s.name, Builtin(name="python-docs"), span=s.span, places={})
                return data if data is not FAULT else anything
            case t.Proj():
                if s.name in PROJECTIONS:
                    message = f"`{s.name}` is the name of a projection already"
                    return self.evaluator.fault("B105", message, s.name_span, help=f"call it `my_{s.name}`")
                return make_projector(self.evaluator, s.value, s.name, s.name, s.name_span) or FAULT
            case t.Tap():
                value = self.evaluator.evaluate(s.value)
                if value is not FAULT and not isinstance(value, Value | Group | Row):
                    message = f"a tap is a model's feature, and this is {describe(value)}"
                    help = f'write `tap {s.name} = model @ "path.of.a.module"`'
                    return self.evaluator.fault("B202", message, s.value.span, help=help)
                return value
            case t.Let() | t.Equation():
                value = self.evaluator.evaluate(s.value)
                if isinstance(value, Match):
                    help = "an operation compares them: `mse(a -> b)`"
                    return self.evaluator.fault(
                        "B209", "an arrow alone is no value, but between layers", s.value.span, help=help
                    )
                return (
                    value
                    if isinstance(s, t.Let) or not isinstance(value, int | float)
                    else as_value(value, s.value.span)
                )
        raise AssertionError(type(s).__name__)

    def _param(self, s: t.Param) -> Any:
        if s.name in self.given:
            value = self.given[s.name]
        elif s.default is None:
            help = f"give it: `--set {s.name}=…`, or a default in the spec"
            return self.evaluator.fault("B106", f"the param `{s.name}` has no value", s.name_span, help=help)
        else:
            value = self.evaluator.evaluate(s.default)
        if value is FAULT:
            return FAULT
        declared = s.type
        if declared is not None and declared not in TYPES:
            return self.evaluator.fault(
                "B109",
                f"there is no type `{declared}`",
                s.span,
                help=suggest(declared, TYPES) or f"there are {listing(TYPES)}",
            )
        if not is_constant(value):
            message = f"the param `{s.name}` is a constant, and this is {describe(value)}"
            place = s.default.span if s.default is not None else s.name_span
            return self.evaluator.fault("B109", message, place, help="a `let` names any value")
        default = None if declared or s.default is None else self.evaluator.evaluate(s.default)
        wanted = TYPES[declared] if declared else type(default) if isinstance(default, int | float | str) else None
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if wanted is int and declared is None and isinstance(value, float):
            return value
        if wanted is not None and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
            message = f"the param `{s.name}` is {wanted.__name__}, and {value!r} is not"
            return self.evaluator.fault("B109", message, s.name_span, help="correct the value, or the param's type")
        return value

    # ── models, data ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _model(self, s: t.Model) -> Any:
        if s.block is not None:
            self.collector.add("B901", "heads are not supported yet", s.block.span)
        value = declare(
            self.evaluator, s, s.source, MODELS, LATER_MODELS, "model source", ModelDeclaration, role=s.role
        )
        # a faulty source still leaves a model behind, so that faults in the equations are found in the same run
        return value if value is not FAULT else ModelDeclaration(s.name, s.role, Hf(), span=s.span, places={})

    def data_in_scope(self, place: Span) -> DataDeclaration | None:
        sets = [n for n, s in self.statements.items() if isinstance(s, t.Data)]
        value = self.value_of(sets[0], place) if sets else None
        return value if isinstance(value, DataDeclaration) else None

    # ── calls and projections in equations ───────────────────────────────────────────────────────────────────────────

    def call(self, call: t.Call, side: str | None) -> Any:
        return evaluate_call(self.evaluator, call, side, self.functions)

    def via(self, x: t.Via, side: str | None) -> Any:
        named = (
            isinstance(x.projection, t.Name)
            and x.projection.id in self.statements
            and x.projection.id not in PROJECTIONS
        )

        def find() -> Projector | None:
            if not named:
                statement = self.path[-1] if self.path else ""
                seen = self.via_counts.setdefault(statement, [])
                if x.span.start not in seen:
                    seen.append(x.span.start)
                position = seen.index(x.span.start)
                site = statement if position == 0 else f"{statement}-{position}"
                return make_projector(self.evaluator, x.projection, None, site, x.projection.span)
            value = self.value_of(x.projection.span.text, x.projection.span)
            if value is not FAULT and not isinstance(value, Projector):
                message = f"`via` needs a projection, and this is {describe(value)}"
                help = f"there are {listing(PROJECTIONS)}, or the name of a `proj`"
                self.evaluator.fault("B212", message, x.projection.span, help=help)
            return value if isinstance(value, Projector) else None

        return evaluate_via(self.evaluator, x, side, find, inline=not named)


def _is_open(x: Value) -> bool:
    """Whether this adds up a list whose members are not known yet."""
    return isinstance(x, Combine) and not x.operands
