"""Statements into scopes: which may stand where, which names are taken, and the bodies of tasks and stages."""

from __future__ import annotations

from collections.abc import Sequence

from brewgraph.diagnostics import Collector, Label
from brewgraph.ops import OPERATIONS, SCHEDULES, TEMPERATURES, TRANSFORMS
from brewgraph.ops.alone import ALONE
from brewgraph.recipe.evaluate.imports import Library
from brewgraph.recipe.evaluate.list_functions import ACROSS
from brewgraph.recipe.evaluate.scope import Scope
from brewgraph.recipe.values import FAULT
from brewgraph.source import Span
from brewgraph.syntax import tree as t

SAID = {"spec": "the top of a spec", "import": "the top of a spec", "task": "a task", "stage": "a stage"}
OUTSIDE = {
    t.Param: ("param", ("spec", "import")),
    t.Import: ("import", ("spec", "import")),
    t.Stage: ("stage", ("spec", "import")),
    t.Task: ("task", ("spec", "import", "stage")),
    t.Sample: ("sample", ("spec", "import", "stage")),
    t.Train: ("train", ("spec", "import", "stage")),
    t.Head: ("head", ()),
}
"""Statements that may not stand everywhere: their keyword, and the bodies that may hold them."""
LANGUAGE = frozenset({*OPERATIONS, *TRANSFORMS, *SCHEDULES, *TEMPERATURES, *ACROSS, *ALONE})
"""Functions that a spec has without defining them."""


def enter(scope: Scope, statements: Sequence[t.Statement], collector: Collector, library: Library) -> None:
    """Put statements into a scope, those of tasks and stages into scopes of their own. Nothing is evaluated yet."""
    for s in statements:
        if not _may_stand(scope, s, collector):
            continue
        if isinstance(s, t.Version):
            if s.number != 1:
                help = "this brewgraph reads `brew 1`; a newer one may read more"
                collector.add("B104", f"version {s.number} of the language is not known", s.span, help=help)
        elif isinstance(s, t.Train):
            if scope.trains:
                first = Label(_word(scope.trains[0].span, "train"), "the first")
                place = _word(s.span, "train")
                collector.add("B105", "`train` stands twice", place, labels=(first,), help="join the two")
            scope.trains.append(s)
        elif isinstance(s, t.Sample):
            if scope.samples:
                first = Label(_word(scope.samples[0].span, "sample"), "the first")
                place = _word(s.span, "sample")
                collector.add("B105", "`sample` stands twice", place, labels=(first,), help="join the two")
            scope.samples.append(s)
        elif isinstance(s, t.Named) and _is_free(scope, s, collector):
            _enter_named(scope, s, collector, library)


def _enter_named(scope: Scope, s: t.Named, collector: Collector, library: Library) -> None:
    match s:
        case t.Function():
            doubled = [p for i, p in enumerate(s.parameters) if p.name in {q.name for q in s.parameters[:i]}]
            for parameter in doubled:
                message = f"the parameter `{parameter.name}` is given twice"
                collector.add("B105", message, parameter.span, help="rename one of them")
            scope.functions[s.name] = s
        case t.Task() | t.Stage():
            inner = Scope("task" if isinstance(s, t.Task) else "stage", (*scope.path, s.name), scope, scope.source)
            inner.statement = s
            scope.inner[s.name] = inner
            enter(inner, s.block.statements, collector, library)
        case t.Import():
            if s.is_spec:
                imported = library.spec(s, scope, collector, enter)
                if imported is not None:
                    scope.inner[s.name] = imported
                else:
                    scope.values[s.name] = FAULT  # said already; what is asked of it is not reported too
            else:
                scope.modules[s.name] = library.module(s, scope, collector)
        case _:
            scope.statements[s.name] = s


def _may_stand(scope: Scope, s: t.Statement, collector: Collector) -> bool:
    """Whether this body may hold this statement; a diagnostic where not."""
    keyword, homes = OUTSIDE.get(type(s), ("", None))
    if homes is None or scope.kind in homes:
        return True
    help = f"move it to {' or into '.join(dict.fromkeys(SAID[home] for home in homes))}"
    if isinstance(s, t.Head):
        help = "write it into the braces of a model: `student NAME = hf(…) { head ner = token_classifier() }`"
    message = f"`{keyword}` does not stand in {SAID[scope.kind]}"
    collector.add("B110", message, _word(s.span, keyword), help=help)
    return False


def _is_free(scope: Scope, s: t.Named, collector: Collector) -> bool:
    """Whether a name is still free in its body. Functions have names of their own."""
    before = scope.functions.get(s.name)
    taken = (
        (before.name_span if before is not None else None) if isinstance(s, t.Function) else scope.places.get(s.name)
    )
    if taken is None:
        if not isinstance(s, t.Function):
            scope.places[s.name] = s.name_span
        return True
    labels = (Label(taken, "first here"),)
    collector.add("B105", f"the name `{s.name}` is given twice", s.name_span, labels=labels, help="rename one of them")
    return False


def warn_of_hidden(scope: Scope, collector: Collector) -> None:
    """A name that hides one outside is legal, and worth a word; so is a function that hides one of the language."""
    for name, function in scope.functions.items():
        if name in LANGUAGE:
            message = f"`{name}` hides the function of the language"
            collector.add("W101", message, function.name_span, help="rename it, if both are meant")
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
    labels = (Label(outside, "the one outside"),)
    message = f"`{name}` hides the one outside"
    collector.add("W101", message, place, labels=labels, help="rename one of them, if both are meant")


def _word(span: Span, keyword: str) -> Span:
    return Span(span.source, span.start, span.start + len(keyword))
