"""The names of a spec: where each is defined, and where it is used. The spec need not be sound."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from brewgraph.diagnostics import Collector
from brewgraph.ops import PROJECTIONS
from brewgraph.recipe.evaluate.calls import is_of_the_language
from brewgraph.recipe.evaluate.declare import CALLS, addends
from brewgraph.recipe.evaluate.scope import IN_TEXT, Library, Scope, enter
from brewgraph.recipe.evaluate.stages import SIZES
from brewgraph.recipe.settings.data_sources import DATA
from brewgraph.recipe.settings.train import Train
from brewgraph.source import Source, Span
from brewgraph.syntax import tree as t

_WORDS = ("mask", "reduce", "problem_type", "separator", "class_weights", "precision", "normalise")
"""Arguments and settings whose bare names are words."""
_OF_LOSSES = ("mask", "reduce")
"""Those of them that no param can stand for."""
_COLUMNS = frozenset(key for source in DATA.values() for key in getattr(source, "columns", ()))
"""Arguments of data sources whose bare names are columns."""


@dataclass(frozen=True, eq=False)
class Symbol:
    """A name that a spec defines. `place` is where the name stands, `statement` the node that defines it.

    `path` are the names before it where it is called from outside; `kind` is the word of its statement.
    """

    name: str
    kind: str
    place: Span
    statement: t.Named
    path: tuple[str, ...] = ()

    @property
    def is_function(self) -> bool:
        return isinstance(self.statement, t.Function)


Parameters = Mapping[str, Symbol | None]
"""Names that hide those of a spec: the parameters of a function, and words of one place, which no symbol defines."""
_NONE: Parameters = MappingProxyType({})


@dataclass(frozen=True)
class Use:
    """A place where a name stands, its definition among them."""

    place: Span
    symbol: Symbol


@dataclass
class Index:
    """All names of one text. `root` is the scope of the whole spec."""

    source: Source
    spec: t.Spec
    root: Scope
    symbols: dict[int, Symbol] = field(default_factory=dict)
    """By the `id` of the statement that defines each."""
    uses: list[Use] = field(default_factory=list)

    def at(self, offset: int) -> Use | None:
        """The use whose name an offset touches."""
        return next((use for use in self.uses if use.place.start <= offset <= use.place.end), None)

    def uses_of(self, symbol: Symbol) -> list[Span]:
        """The places of a name in this text, its definition first where it is here."""
        return [use.place for use in self.uses if use.symbol.statement is symbol.statement]

    def scope_at(self, offset: int) -> Scope:
        """The innermost body around an offset."""

        def inside(scope: Scope) -> Scope:
            for inner in scope.inner.values():
                statement = inner.statement
                if isinstance(statement, t.Task | t.Stage):
                    block = statement.block.span
                    if block.start < offset < block.end:
                        return inside(inner)
            return scope

        return inside(self.root)

    def visible(self, scope: Scope) -> Iterator[Symbol]:
        """The values that can be named in a scope, the nearest first."""
        for around in scope.outward():
            for name in around.places:
                if (symbol := self.find(around, name)) is not None:
                    yield symbol

    def functions(self, scope: Scope) -> Iterator[Symbol]:
        """The functions that can be called by their plain name in a scope."""
        for around in scope.outward():
            yield from (self.symbol(function, "function", around) for function in around.functions.values())

    def find(self, scope: Scope, name: str) -> Symbol | None:
        """The value of this name in this body; imported modules and faulty imports are found, too."""
        if (statement := scope.statements.get(name)) is not None:
            return self.symbol(statement, _kind(statement), scope)
        if (inner := scope.inner.get(name)) is not None and inner.statement is not None:
            return self.symbol(inner.statement, _kind(inner.statement), scope)
        for statement in self.imports:
            if statement.name == name and scope is self.root:
                return self.symbol(statement, "import", scope)
        return None

    @cached_property
    def imports(self) -> list[t.Import]:
        return [s for s in self.spec.statements if isinstance(s, t.Import)]

    def symbol(self, statement: t.Named, kind: str, scope: Scope) -> Symbol:
        """The symbol of a statement."""
        if id(statement) not in self.symbols:
            symbol = Symbol(statement.name, kind, statement.name_span, statement, scope.path)
            self.symbols[id(statement)] = symbol
        return self.symbols[id(statement)]


def _kind(statement: t.Statement) -> str:
    return statement.role if isinstance(statement, t.Model) else type(statement).__name__.lower()


def index_of(spec: t.Spec, source: Source) -> Index:
    """The names of a spec and of what it imports. Faults are left to the check."""
    root = Scope("spec", (), None, source)
    enter(root, spec.statements, Collector(), Library({}))
    index = Index(source, spec, root)
    _Walk(index).body(spec.statements, root)
    index.uses.sort(key=lambda use: use.place.start)
    return index


class _Walk:
    """Goes through the statements of a text and notes each use of a name."""

    def __init__(self, index: Index):
        self.index = index

    def use(self, place: Span, symbol: Symbol | None) -> None:
        if symbol is not None:
            self.index.uses.append(Use(place, symbol))

    def body(self, statements: tuple[t.Statement, ...], scope: Scope) -> None:
        for s in statements:
            self.statement(s, scope)

    def statement(self, s: t.Statement, scope: Scope) -> None:
        if isinstance(s, t.Named) and not isinstance(s, t.Function) and not self._is_implied(s):
            self.use(s.name_span, self.index.find(scope, s.name))
        match s:
            case t.Function():
                self._function(s, scope)
            case t.Task() | t.Stage():
                if isinstance(s, t.Stage) and s.length is not None:
                    self.expression(s.length, scope)
                inner = scope.inner.get(s.name)
                if inner is not None and inner.statement is s:
                    self.body(s.block.statements, inner)
            case t.Train():
                for setting in s.block.statements:
                    if isinstance(setting, t.Equation) and setting.name in Train.calls:
                        self._source(setting.value, scope)
                    elif isinstance(setting, t.Equation):
                        self._argument(setting.name, setting.value, scope, {})
            case t.Model():
                self._source(s.source, scope)
                for head in s.block.statements if s.block is not None else ():
                    if isinstance(head, t.Head):
                        self.use(head.name_span, self.index.symbol(head, "head", scope))
                        self._source(head.source, scope)
            case t.Data():
                for part in addends(s.source):
                    if isinstance(part, t.Call):
                        self._source(part, scope)
                    else:
                        self.expression(part, scope)
            case t.Proj():
                self._projection(s.value, scope, {})
            case t.Sample():
                self.expression(s.tasks, scope)
                if s.law is not None:
                    self.expression(s.law, scope, dict.fromkeys(SIZES))
                for option in s.options:
                    self.expression(option.value, scope)
            case t.Import():
                self._texts(t.String(s.target, span=s.span), scope, {})
            case _:
                for child in s.children():
                    if isinstance(child, t.Argument):
                        self._argument(child.name or "", child.value, scope, {})
                    elif isinstance(child, t.Expression):
                        self.expression(child, scope)

    def _is_implied(self, s: t.Named) -> bool:
        """Whether a name does not stand in the text: that of an import without `as`."""
        return isinstance(s, t.Import) and s.name_span.text != s.name

    def _function(self, s: t.Function, scope: Scope) -> None:
        self.use(s.name_span, self.index.symbol(s, "function", scope))
        parameters: dict[str, Symbol] = {}
        for parameter in s.parameters:
            if parameter.default is not None:  # which sees the parameters before it, and `T=T` an outer one
                self.expression(parameter.default, scope, dict(parameters))
            parameters[parameter.name] = self.index.symbol(parameter, "parameter", scope)
            self.use(parameter.name_span, parameters[parameter.name])
        self.expression(s.value, scope, parameters)

    # ── calls that a value of the spec never means ───────────────────────────────────────────────────────────────────

    def _source(self, x: t.Expression, scope: Scope) -> None:
        """A call of a source, a head, an adapter, an optimizer: `data squad = squad(…)`."""
        if isinstance(x, t.Call) and isinstance(x.function, t.Name):
            self._arguments(x, None, scope, {})
        elif not isinstance(x, t.Name):
            self.expression(x, scope)

    def _projection(self, x: t.Expression, scope: Scope, parameters: Parameters) -> None:
        """`linear`, `linear(312 -> 768)`, or the name of a `proj`."""
        called = x.function if isinstance(x, t.Call) else x
        if not isinstance(called, t.Name) or called.id not in PROJECTIONS:
            self.expression(x, scope, parameters)
        elif isinstance(x, t.Call):
            self._arguments(x, None, scope, parameters)

    # ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def expression(self, x: t.Node, scope: Scope, parameters: Parameters = _NONE) -> None:
        waiting: list[t.Node] = [x]
        while waiting:
            match node := waiting.pop():
                case t.Name():
                    self.use(node.span, self.value(node.id, scope, parameters))
                case t.Attribute():
                    waiting.append(node.value)
                    self.use(node.name_span, self._member(node, scope, parameters))
                case t.String():
                    self._texts(node, scope, parameters)
                case t.Call():
                    self._call(node, scope, parameters)
                case t.Via():
                    waiting.append(node.value)
                    self._projection(node.projection, scope, parameters)
                case t.Mapping():
                    pass  # names of a forward's arguments, and columns
                case _:
                    waiting += node.children()

    def value(self, name: str, scope: Scope, parameters: Parameters) -> Symbol | None:
        """What a name means: a parameter, or a value of this scope or one around it."""
        if name in parameters:
            return parameters[name]
        return next((s for around in scope.outward() if (s := self.index.find(around, name)) is not None), None)

    def namespace(self, x: t.Expression, scope: Scope) -> Scope | None:
        """The task, stage or imported spec that an expression names."""
        if isinstance(x, t.Name):
            return next((around.inner[x.id] for around in scope.outward() if x.id in around.inner), None)
        if isinstance(x, t.Attribute) and (outer := self.namespace(x.value, scope)) is not None:
            return outer.inner.get(x.name)
        return None

    def _member(self, x: t.Attribute, scope: Scope, parameters: Parameters) -> Symbol | None:
        """What `ner.kd` means, or the head of `tiny.ner`."""
        if (inner := self.namespace(x.value, scope)) is not None:
            return self.index.find(inner, x.name)
        model = x.value.function if isinstance(x.value, t.Call) else x.value
        symbol = self.value(model.id, scope, parameters) if isinstance(model, t.Name) else None
        if symbol is None or not isinstance(symbol.statement, t.Model) or symbol.statement.block is None:
            return None
        heads = (s for s in symbol.statement.block.statements if isinstance(s, t.Head) and s.name == x.name)
        return next((self.index.symbol(head, "head", scope) for head in heads), None)

    def _call(self, call: t.Call, scope: Scope, parameters: Parameters) -> None:
        function, own = call.function, None
        if isinstance(function, t.Name):
            own = next((s.functions[function.id] for s in scope.outward() if function.id in s.functions), None)
            home = next((s for s in scope.outward() if function.id in s.functions), scope)
            symbol = self.index.symbol(own, "function", home) if own is not None else None
            if own is not None or not is_of_the_language(function.id):
                self.use(function.span, symbol or self.value(function.id, scope, parameters))
        elif isinstance(function, t.Attribute) and (inner := self.namespace(function.value, scope)) is not None:
            self.expression(function.value, scope, parameters)
            own = inner.functions.get(function.name)
            symbol = self.index.symbol(own, "function", inner) if own is not None else None
            self.use(function.name_span, symbol or self.index.find(inner, function.name))
        else:
            self.expression(function, scope, parameters)
        self._arguments(call, own, scope, parameters)

    def _arguments(self, call: t.Call, own: t.Function | None, scope: Scope, parameters: Parameters) -> None:
        """The arguments of a call; `own` is the function of the spec that it calls."""
        for argument in call.arguments:
            if argument.name is not None and own is not None and argument.name_span is not None:
                parameter = next((p for p in own.parameters if p.name == argument.name), None)
                if parameter is not None:
                    self.use(argument.name_span, self.index.symbol(parameter, "parameter", scope))
            if argument.key is not None:
                self.expression(argument.key, scope, parameters)
            self._argument(argument.name if own is None else "", argument.value, scope, parameters)

    def _argument(self, name: str | None, x: t.Expression, scope: Scope, parameters: Parameters) -> None:
        """The value of an argument or a setting; a bare word of one that takes words or columns is no name."""
        if name == "metric_for_best_model" and isinstance(x, t.String):
            task, slash, _ = x.value.partition("/")
            if slash and task in scope.inner:
                place = Span(x.span.source, x.span.start + 1, x.span.start + 1 + len(task))
                self.use(place, self.index.find(scope, task))
            return
        words = x.items if isinstance(x, t.List) else (x,)
        if name in CALLS:
            for word in words:
                self._source(word, scope)
            return
        if name in _WORDS and name not in _OF_LOSSES:
            for word in words:
                of = self.value(word.id, scope, parameters) if isinstance(word, t.Name) else None
                if isinstance(word, t.Name) and of is not None and of.kind == "param":  # `precision = precision`
                    self.use(word.span, of)
        if name in _COLUMNS or (name in _WORDS and all(isinstance(word, t.Name) for word in words)):
            words = tuple(word for word in words if not isinstance(word, t.Name))
            for word in words:
                self.expression(word, scope, parameters)
            return
        self.expression(x, scope, parameters)

    def _texts(self, x: t.String, scope: Scope, parameters: Parameters) -> None:
        """The names in a string: `"{k}"`."""
        shift = x.span.text.find('"') + 1
        for match in re.finditer(IN_TEXT, x.value) if shift else ():
            start = x.span.start + shift + match.start(1)
            place = Span(x.span.source, start, start + len(match.group(1)))
            self.use(place, self.value(match.group(1), scope, parameters))
