"""Bodies of statements and the names in them: a spec, its tasks and stages, calls of functions, and what is imported.

Other specs are imported for their definitions, Python modules for the operations they declare. A module is read, never
run: its decorated functions say all that a check needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from brewgraph.diagnostics import Collector, Label, SourceFault, suggest
from brewgraph.ops import OPERATIONS, PROJECTIONS, SCHEDULES, TEMPERATURES, TRANSFORMS, DeclaredTransform, Operation
from brewgraph.ops.alone import ALONE
from brewgraph.ops.python_files import declared, find_source
from brewgraph.paths import locate, nearby
from brewgraph.recipe.settings.data_sources import DATA
from brewgraph.recipe.settings.model_sources import HEADS, MODELS
from brewgraph.recipe.settings.train import OPTIMIZERS
from brewgraph.recipe.settings.train import SCHEDULES as RATES
from brewgraph.recipe.values import Evaluated, Namespace
from brewgraph.source import EncodingError, Source, Span
from brewgraph.syntax import tree as t
from brewgraph.syntax.foreign import foreign_words
from brewgraph.syntax.parser import parse

IN_TEXT = r"\{([A-Za-z_]\w*)\}"
"""A name whose value stands in a string: `"{k}"`."""


Module = Mapping[str, Operation | DeclaredTransform]
"""What a Python module declares, by name."""


@dataclass(eq=False)
class Scope(Namespace):
    """One body. Names that it lacks are looked up in its `parent`; values are evaluated when first asked for.

    `path` is what stands before its names when they are said in full: `("warm", "ner")`; `statement` opened it.
    `caller` is the scope where a function was called: the data in scope is that of the caller, names are those of the
    place of definition.
    """

    kind: Literal["spec", "task", "stage", "import", "call"]
    path: tuple[str, ...]
    parent: Scope | None
    source: Source
    caller: Scope | None = None
    function: t.Function | None = None
    statement: t.Task | t.Stage | t.Import | None = None
    statements: dict[str, t.Named] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    """The names of statements that declare data."""
    functions: dict[str, t.Function] = field(default_factory=dict)
    values: dict[str, Evaluated] = field(default_factory=dict)
    faulty: list[str] = field(default_factory=list)
    """Names without a value, whose faults were reported."""
    inner: dict[str, Scope] = field(default_factory=dict)
    """Tasks, stages and imported specs by name."""
    modules: dict[str, Module] = field(default_factory=dict)
    """Operations of imported Python modules, by the module's name here."""
    places: dict[str, Span] = field(default_factory=dict)
    """Where each value name of this body was given first, whatever it names."""
    arguments: dict[str, tuple[t.Expression, Scope]] = field(default_factory=dict)
    """Of a call: what was written for each parameter, and the scope in which it was written."""
    trains: list[t.Train] = field(default_factory=list)
    samples: list[t.Sample] = field(default_factory=list)
    auto_caches: list[t.AutoCache] = field(default_factory=list)

    def full(self, name: str, joint: str = ".") -> str:
        """A name of this scope as it is called from outside."""
        return joint.join((*self.path, name))

    def outward(self, *, through_calls: bool = False) -> Iterator[Scope]:
        """This scope and those around it, from the inside; `through_calls` goes from a function to where it was called,
        as the data in scope does.
        """
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = (scope.caller if through_calls else None) or scope.parent

    def known_names(self) -> list[str]:
        """Every name that can be said here."""
        names = (name for s in self.outward() for name in (*s.statements, *s.values, *s.faulty, *s.inner))
        return list(dict.fromkeys(names))

    def axis_of(self, x: t.Expression) -> tuple[str, str]:
        """The name of the list or layer map that an expression names, and what tells it apart; empty without one.

        A parameter stands for what was written where the function was called, a second name for the first one.
        """
        if isinstance(x, t.Attribute) and x.name in ("from", "to"):
            return self.axis_of(x.value)
        if not isinstance(x, t.Name):
            return "", ""
        for scope in self.outward():
            if x.id in scope.arguments:
                written, home = scope.arguments[x.id]
                return home.axis_of(written)
            if x.id in scope.statements:
                statement = scope.statements[x.id]
                again = scope.axis_of(statement.value) if isinstance(statement, t.Let) else ("", "")
                return again if again[0] else (x.id, f"{scope.source.name} {scope.full(x.id)}")
        return "", ""

    def params_in(self, x: t.Expression) -> frozenset[str]:
        """The params of the whole spec that an expression is made of, by itself, by other names, or in its texts."""
        params: set[str] = set()
        for node in x.walk():
            texts = re.findall(IN_TEXT, node.value) if isinstance(node, t.String) else ()
            for name in (node.id,) if isinstance(node, t.Name) else texts:
                home = next((s for s in self.outward() if name in s.places), None)
                statement = home.statements.get(name) if home is not None else None
                if isinstance(statement, t.Param) and home is not None and home.kind == "spec":
                    params.add(name)
                elif isinstance(statement, t.Let | t.Equation) and home is not None and statement.value is not x:
                    params |= home.params_in(statement.value)
        return frozenset(params)

    def descend(self) -> Iterator[Scope]:
        """This scope and its tasks and stages, in the order of the text; imported specs are left out."""
        yield self
        for scope in self.inner.values():
            if scope.kind != "import":
                yield from scope.descend()


ACROSS = ("sum", "mean", "max", "softmax")
"""Functions across a list."""
LANGUAGE = frozenset({*OPERATIONS, *TRANSFORMS, *SCHEDULES, *TEMPERATURES, *ACROSS, *ALONE})
"""Functions that a spec has without defining them."""
LATER = frozenset({"generate"})
"""Functions of the language whose meaning is still to come."""


def wrong_place(name: str) -> str:
    """Where a name of the language belongs; empty where it is none. For messages about names that stand elsewhere."""
    places = (
        (OPERATIONS, f"`{name}` is an operation: write `{name}(teacher.… -> student.…)`"),
        (TRANSFORMS, f"`{name}` makes a value of others: write `{name}(teacher.…)`"),
        (TEMPERATURES, f"`{name}` is a temperature: write `T={name}(4)`"),
        (SCHEDULES, f"`{name}` is a weight that changes with training: write `{name}(1 -> 0) * term`"),
        (MODELS, f"`{name}` is a model source: write `teacher NAME = {name}(…)` or `student NAME = {name}(…)`"),
        (HEADS, f"`{name}` is a head: write `student NAME = hf(…) {{ head NAME = {name}(…) }}`"),
        (DATA, f"`{name}` is a data source: write `data NAME = {name}(…)`"),
        (OPTIMIZERS, f"`{name}` is an optimizer: write `optimizer = {name}(…)` in `train {{ }}`"),
        (PROJECTIONS, f"`{name}` is a projection: write `x via {name}`"),
        (RATES, f"`{name}` is a schedule of the learning rate: write `schedule = {name}(…)` in `train {{ }}`"),
    )
    return next((words for registry, words in places if name in registry), "")


# ── imports ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Library:
    """The specs and modules that one reading of a spec imports, each once. `modules` are the dotted names to load.

    `given` are the values of the outermost spec's params that come from outside.
    """

    def __init__(self, given: Mapping[str, object]) -> None:
        self.given = given
        self.scopes: list[Scope] = []
        self.modules: dict[str, None] = {}
        self._open: list[Path] = []

    def spec(self, s: t.Import, scope: Scope, collector: Collector) -> Scope:
        """The definitions of another spec; its path starts at the importing spec's folder. Raises `SourceFault`."""
        target = self._filled(s, scope)
        path = locate(target, scope.source.folder)
        self._open = self._open or [Path(scope.source.name).resolve()]
        if path.resolve() in self._open:
            circle = " -> ".join(p.name for p in (*self._open[self._open.index(path.resolve()) :], path.resolve()))
            raise SourceFault("B113", f"specs import each other in a circle: {circle}", help="break the circle")
        try:
            source = Source.read(path)
        except EncodingError as error:
            raise SourceFault("B114", error.message, help=error.help) from error
        except OSError as error:
            near = sorted(p.name for p in path.parent.glob("*.brew")) if path.parent.is_dir() else []
            help = suggest(path.name, near) or "the path starts at this spec's folder"
            help = nearby(path) if path.is_dir() else help
            raise SourceFault("B114", f"`{target}` cannot be read: {error.strerror}", help=help) from error
        imported = Scope("import", (*scope.path, s.name), None, source, statement=s)
        self._open.append(path.resolve())
        enter(imported, parse(source, collector).statements, collector, self)
        self._open.pop()
        self.scopes.append(imported)
        return imported

    def _filled(self, s: t.Import, scope: Scope) -> str:
        """The path, its `{name}` filled in: params that stand above, as files are read before anything is evaluated."""

        def filled(match: re.Match[str]) -> str:
            name = match.group(1)
            param = scope.statements.get(name)
            default = param.default if isinstance(param, t.Param) else None
            value: object = default.value if isinstance(default, t.String | t.Constant) else None
            if isinstance(param, t.Param) and scope.kind == "spec":
                value = self.given.get(name, value)
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                message = f"the path of an import needs a text or a number, and `{name}` is no param above that has one"
                raise SourceFault("B114", message, help=f'write `param {name} = "…"` above')
            return str(value)

        return re.sub(IN_TEXT, filled, s.target)

    def module(self, s: t.Import, scope: Scope) -> Module:
        """The operations that a Python module declares, by name. Raises `SourceFault`."""
        path = find_source(s.target, scope.source.folder)
        if path is None:
            help = "install it, or put it next to the spec"
            raise SourceFault("B114", f"there is no Python module `{s.target}`", help=help)
        try:
            operations = declared(path.read_text(encoding="utf-8"), s.target)
        except (OSError, UnicodeDecodeError) as error:
            raise SourceFault("B114", f"`{path.name}` cannot be read: {error}", help="fix the module") from error
        if not operations:
            help = "remove the import, or decorate a function there: `@brewgraph.ops.operation(takes={…}, source=…)`"
            raise SourceFault("B330", f"`{s.target}` declares no operation", help=help)
        self.modules[s.target] = None
        return operations


# ── statements into scopes ────────────────────────────────────────────────────────────────────────────────────────────

SAID = {"spec": "the top of a spec", "import": "the top of a spec", "task": "a task", "stage": "a stage"}
OUTSIDE = {
    t.Param: ("param", ("spec", "import")),
    t.Import: ("import", ("spec", "import")),
    t.Stage: ("stage", ("spec", "import")),
    t.Task: ("task", ("spec", "import", "stage")),
    t.Sample: ("sample", ("spec", "import", "stage")),
    t.Train: ("train", ("spec", "import", "stage")),
    t.AutoCache: ("cache", ("spec", "import")),
    t.Head: ("head", ()),
}
"""Statements that may not stand everywhere: their keyword, and the bodies that may hold them."""


def enter(scope: Scope, statements: Sequence[t.Statement], collector: Collector, library: Library) -> None:
    """Put statements into a scope, and those of tasks and stages into inner scopes. Nothing is evaluated yet."""
    for s in statements:
        if not _may_stand(scope, s, collector):
            continue
        if isinstance(s, t.Version):
            if s.number != 1:
                help = "this version of brewgraph supports `brew 1`; a newer one may support more"
                collector.add("B104", f"version {s.number} of the language is unknown", s.span, help=help)
        elif isinstance(s, t.Train):
            _check_once(s, scope.trains, "train", collector)
            scope.trains.append(s)
        elif isinstance(s, t.Sample):
            _check_once(s, scope.samples, "sample", collector)
            scope.samples.append(s)
        elif isinstance(s, t.AutoCache):
            _check_auto(s, collector)
            _check_once(s, scope.auto_caches, "cache", collector)
            scope.auto_caches.append(s)
        elif isinstance(s, t.Named) and _is_free(scope, s, collector):
            _enter_named(scope, s, collector, library)


def _check_auto(s: t.AutoCache, collector: Collector) -> None:
    """B010 for the statement of another cache that lacks its value, B122 for a format that would round by itself."""
    if s.word.id != "auto":
        help = f'write `cache {s.word.id} = EXPRESSION at "path"`; or `cache auto at "path"` to have values chosen'
        collector.add("B010", f"expected `=` and a value after `cache {s.word.id}`", s.word.span, help=help)
    if s.dtype is not None:
        help = "leave `as` out; name the values to round: `cache NAME = EXPRESSION at … as bf16`"
        collector.add("B122", "`cache auto` keeps values as they are computed", s.dtype.span, help=help)


def _check_once(s: t.Statement, earlier: Sequence[t.Statement], keyword: str, collector: Collector) -> None:
    if earlier:
        labels = (Label(word_of(earlier[0], keyword), "the first"),)
        collector.add("B105", f"`{keyword}` appears twice", word_of(s, keyword), labels=labels, help="merge the two")


def _enter_named(scope: Scope, s: t.Named, collector: Collector, library: Library) -> None:
    match s:
        case t.Function():
            for i, p in enumerate(s.parameters):
                if p.name in {q.name for q in s.parameters[:i]}:
                    message = f"the parameter `{p.name}` is given twice"
                    collector.add("B105", message, p.span, help="rename one of them")
            scope.functions[s.name] = s
        case t.Task() | t.Stage():
            inner = Scope("task" if isinstance(s, t.Task) else "stage", (*scope.path, s.name), scope, scope.source)
            inner.statement = s
            scope.inner[s.name] = inner
            enter(inner, s.block.statements, collector, library)
        case t.Import():
            try:
                if s.is_spec:
                    scope.inner[s.name] = library.spec(s, scope, collector)
                else:
                    scope.modules[s.name] = library.module(s, scope)
            except SourceFault as fault:
                collector.add(fault.code, fault.message, s.span, help=fault.help)
                scope.faulty.append(s.name)
        case _:
            scope.statements[s.name] = s
            if isinstance(s, t.Data):
                scope.data.append(s.name)


def _may_stand(scope: Scope, s: t.Statement, collector: Collector) -> bool:
    """Whether this body may hold this statement; a diagnostic if not."""
    keyword, homes = OUTSIDE.get(type(s), ("", None))
    if homes is None or scope.kind in homes:
        return True
    help = f"move it to {' or into '.join(dict.fromkeys(SAID[home] for home in homes))}"
    if isinstance(s, t.Head):
        help = "write it into the braces of a model: `student NAME = hf(…) { head ner = token_classifier() }`"
    collector.add("B110", f"`{keyword}` is not allowed in {SAID[scope.kind]}", word_of(s, keyword), help=help)
    return False


def _is_free(scope: Scope, s: t.Named, collector: Collector) -> bool:
    """Whether a name is free in its body; functions have a separate name space."""
    if isinstance(s, t.Function):
        taken = scope.functions[s.name].name_span if s.name in scope.functions else None
    else:
        taken = scope.places.get(s.name)
    if taken is None:
        if not isinstance(s, t.Function):
            scope.places[s.name] = s.name_span
        return True
    labels = (Label(taken, "first here"),)
    collector.add("B105", f"the name `{s.name}` is given twice", s.name_span, labels=labels, help="rename one of them")
    return False


def warn_of_hidden(scope: Scope, collector: Collector) -> None:
    """Warn of names that hide outer names, and functions that hide built-in ones."""
    for name, function in scope.functions.items():
        if name in LANGUAGE:
            message = f"`{name}` hides a built-in function"
            collector.add("W101", message, function.name_span, help="rename it if you need both")
    for outer in scope.outward():
        for parameter in (p for function in scope.functions.values() for p in function.parameters):
            if parameter.name in outer.places:
                _warn(parameter.name, parameter.name_span, outer.places[parameter.name], collector)
        if outer is scope:
            continue
        for name, place in scope.places.items():
            if name in outer.places and name != "loss":
                _warn(name, place, outer.places[name], collector)
        for name, function in scope.functions.items():
            if name in outer.functions:
                _warn(name, function.name_span, outer.functions[name].name_span, collector)


def _warn(name: str, place: Span, outside: Span, collector: Collector) -> None:
    labels = (Label(outside, "an outer definition"),)
    message = f"`{name}` hides an outer definition"
    collector.add("W101", message, place, labels=labels, help="rename one of them if you need both")


def word_of(s: t.Statement, keyword: str) -> Span:
    """The keyword that begins a statement."""
    return Span(s.span.source, s.span.start, s.span.start + len(keyword))


def warn_of_strays(scopes: Iterable[Scope], spec: t.Spec, collector: Collector) -> None:
    """W406 for an unused constant that is named like a setting, here or in other tools."""
    constants = [
        statement
        for scope in scopes
        for statement in scope.statements.values()
        if isinstance(statement, t.Equation | t.Let)
        and isinstance(statement.value, t.Constant | t.String | t.Percent | t.Duration)
    ]
    read = _names_read(spec) if constants else frozenset()
    for statement in constants:
        name = statement.name
        if name in read:
            continue
        is_own, entry = name in foreign_words()["own setting"], foreign_words()["setting"].get(name)
        if is_own or entry is not None:
            write = f"write `train {{ {name} = {statement.value.span.text} }}`"
            help = write if is_own or entry is None else entry.help
            collector.add("W406", f"nothing reads `{name}`", statement.name_span, help=help)


def _names_read(spec: t.Spec) -> frozenset[str]:
    """The names that stand in expressions and strings, and `loss`."""
    read = {"loss"}
    for node in spec.walk():
        if isinstance(node, t.Name | t.Attribute):
            read.add(node.id if isinstance(node, t.Name) else node.name)
        elif isinstance(node, t.String):
            read.update(re.findall(IN_TEXT, node.value))
    return frozenset(read)
