"""The differences in meaning between two specs: terms, weights, taps, models, data, settings; never names and places.

What belongs together is paired first, by what it is before its name; then pairs are compared. Models and data of two
specs may have other names and may have changed themselves. So nodes of their graphs are compared by what they do with
things of paired names, not by their content hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Generic, TypeAlias, TypeVar

from brewgraph.display.equation import TermPlan, in_order, mask_of, spell, spell_mask, spell_out
from brewgraph.display.lines import one_line
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import structure_hashes
from brewgraph.graph.container import Graph, info, node, nodes_of, rewritten, used_by
from brewgraph.graph.identity import QUIET, Graphs
from brewgraph.recipe.recipe import Recipe, Stage, Task
from brewgraph.recipe.settings.base import Settings, setting_text
from brewgraph.recipe.settings.data_sources import Join
from brewgraph.recipe.values import DataDeclaration, ModelDeclaration
from brewgraph.source import Span

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
"""The sign of a change in front of its text."""
ALIKE = 0.4
"""Two terms that share less of what they are made of are not one term that was changed."""
T = TypeVar("T")
Declaration: TypeAlias = ModelDeclaration | DataDeclaration


@dataclass(frozen=True)
class Side:
    """A checked spec to compare. `identities` say what models and data are; `classes` those of each data set."""

    recipe: Recipe
    graphs: Graphs
    identities: Mapping[str, str]
    classes: Mapping[str, tuple[str, ...]]
    hash: str

    @property
    def declarations(self) -> dict[str, Declaration]:
        return {**self.recipe.models, **self.recipe.data}


@dataclass(frozen=True)
class Change:
    """One difference. `how` is added, removed or changed; `subject` the kind of thing (term, teacher, student, data,
    setting, stage, task, sample, loss), `name` which one, `aspect` what of it; `where` the stage and task.

    `lines` are those of the two specs, 0 where there is none.
    """

    how: str
    subject: str
    name: str
    aspect: str = ""
    before: str = ""
    after: str = ""
    where: str = ""
    lines: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        """The change in one line: `term soft: weight 1 -> 0.5`."""
        where = f" in {self.where}" if self.where else ""
        name = f"{self.subject} {self.name}".rstrip()
        if self.how != "changed":
            return f"{name}{where}: {self.after or self.before}"
        aspect = f"{self.aspect} " if self.aspect else ""
        return f"{name}{where}: {aspect}{self.before} -> {self.after}"


@dataclass(frozen=True)
class Comparison:
    """`changes` is empty where both specs train the same; `notes` are differences that change nothing trained."""

    hashes: tuple[str, str]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not self.changes


def compare(one: Side, other: Side) -> Comparison:
    """Every difference in what two specs compute and how they train; names are those of the first."""
    hashes = one.hash, other.hash
    notes = tuple(dict.fromkeys(_notes(one, other)))
    if one.hash == other.hash:
        return Comparison(hashes, (), notes)
    models = _pair_declarations(one.recipe.models, other.recipe.models, one, other)
    data = _pair_declarations(one.recipe.data, other.recipe.data, one, other)
    model_names, data_names = ({b: a for a, b in paired.pairs} for paired in (models, data))
    names = model_names | data_names
    renamed = {key: rename(graph, model_names, data_names) for key, graph in other.graphs.items()}
    changes = [
        *_declared(one, other, models, names),
        *_declared(one, other, data, names),
        *_joined(_stages(one, replace(other, graphs=renamed), names), len(one.recipe.tasks)),
    ]
    if not changes:
        sides = ([term for graph in graphs.values() for term in spell_out(graph)] for graphs in (one.graphs, renamed))
        texts = (" + ".join(sorted(f"{term.weight} * {term.equation}" for term in terms)) for terms in sides)
        changes = [_changed("loss", "", "form", texts)]
    return Comparison(hashes, tuple(changes), notes)


def _notes(one: Side, other: Side) -> Iterator[str]:
    for mine, theirs in zip(one.recipe.stages, other.recipe.stages, strict=False):
        a, b = dict(mine.train), dict(theirs.train)
        for name in sorted(name for name in QUIET if a[name] != b[name]):
            yield f"{name}: {setting_text(a[name])} -> {setting_text(b[name])}, which changes nothing that is trained"


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Paired(Generic[T]):
    """What belongs together, and what is left `alone`: of the first "removed", of the second "added"."""

    pairs: tuple[tuple[T, T], ...]
    alone: tuple[tuple[str, T], ...] = ()


def _pair(ones: Sequence[T], others: Sequence[T], likeness: Callable[[T, T], float], least: float) -> Paired[T]:
    """Pairs by likeness, the most alike first, none below `least`; of equal ones the first in both orders."""
    scores = [(-likeness(a, b), abs(i - j), i, j) for i, a in enumerate(ones) for j, b in enumerate(others)]
    partners: dict[int, int] = {}
    for score, _, i, j in sorted(scores):
        if -score >= least and i not in partners and j not in partners.values():
            partners[i] = j
    removed = [("removed", x) for i, x in enumerate(ones) if i not in partners]
    added = [("added", x) for j, x in enumerate(others) if j not in partners.values()]
    return Paired(tuple((ones[i], others[partners[i]]) for i in sorted(partners)), (*removed, *added))


def _pair_declarations(
    ones: Mapping[str, Declaration], others: Mapping[str, Declaration], mine: Side, theirs: Side
) -> Paired[str]:
    """The names of models, or data sets, of two specs: equal ones, then those of one name, then similar ones."""

    def likeness(a: str, b: str) -> float:
        one, other = ones[a], others[b]
        if _subject(one) != _subject(other):
            return -1.0
        fields, wanted = _fields(one.source), _fields(other.source)
        share = sum(fields.get(key) == value for key, value in wanted.items()) / max(1, len(wanted))
        alike = share if type(one.source) is type(other.source) else 0.0
        return 2 * (mine.identities[a] == theirs.identities[b]) + (a == b) + alike

    return _pair(list(ones), list(others), likeness, 0.0)


# ── models and data ──────────────────────────────────────────────────────────────────────────────────────────────────


def _declared(one: Side, other: Side, paired: Paired[str], names: Mapping[str, str]) -> Iterator[Change]:
    """Models, or data sets, that were added, removed or changed, if a loss uses them."""
    used, mine, theirs = (_used(one), _used(other)), one.declarations, other.declarations
    for how, name in paired.alone:
        if name in used[how == "added"]:
            x = (mine if how == "removed" else theirs)[name]
            yield _alone(how, _subject(x), name, one_line(x.span.text), x.span)
    for name, name_there in paired.pairs:
        if name not in used[0] and name_there not in used[1]:
            continue
        a, b, is_data = mine[name], theirs[name_there], isinstance(mine[name], DataDeclaration)
        identities = one.identities[name], other.identities[name_there]
        same = identities[0] == identities[1]
        differences = list(_source_differences(a, b, names)) if is_data or not same else []
        classes = one.classes.get(name, ()), other.classes.get(name_there, ())
        if is_data and classes[0] != classes[1]:
            differences.append(Difference("classes", *(", ".join(c) or "none" for c in classes)))
        if not differences and not same and not _references(a.source):
            differences = [Difference("content", *identities)]
        for d in differences:
            lines = _lines(a.span, b.span)
            yield Change("changed", _subject(a), name, d.aspect, d.before, d.after, lines=lines)


def _subject(x: Declaration) -> str:
    return x.role if isinstance(x, ModelDeclaration) else "data"


def _used(side: Side) -> set[str]:
    """Models and data that some loss is computed from, and those that these are made from."""
    names = {d for _, task in side.recipe.tasks for d in task.data}
    for graph in side.graphs.values():
        for x in nodes_of(graph).values():
            names |= {getattr(x, "model", ""), getattr(x, "data", "")}
    for name in names & side.recipe.models.keys():
        names |= _references(side.recipe.models[name].source)
    return names & side.declarations.keys()


def _references(source: Settings) -> set[str]:
    """The models that a source names: what they are is part of what it is."""
    init = getattr(source, "init", None)
    names = (getattr(source, "model", None), getattr(source, "tokenizer", None), getattr(init, "model", None))
    return {name for name in names if name is not None}


def _fields(source: Settings) -> dict[str, Any]:
    """The settings of a source, its keyword arguments spelled out."""
    fields: dict[str, Any] = {}
    for name in type(source).model_fields:
        value = getattr(source, name)
        fields |= {f"{name}.{k}": x for k, x in value.items()} if isinstance(value, dict) else {name: value}
    return fields


def _source_differences(one: Declaration, other: Declaration, names: Mapping[str, str]) -> Iterator[Difference]:
    """How two declarations differ; where the second names a model, `names` give its name in the first."""
    a, b = one.source, other.source
    if type(a) is not type(b):
        yield Difference("source", *(one_line(x.span.text) for x in (one, other)))
        return
    mine, theirs = _fields(a), _fields(b)
    for name in dict.fromkeys([*mine, *theirs]):
        x, y = mine.get(name), theirs.get(name)
        if name == "init" and y is not None:
            y = y.model_copy(update={"model": names.get(y.model, y.model)})
        if name in ("tokenizer", "model") and isinstance(y, str):
            y = names.get(y, y)
        yield from _value_differences(name.removeprefix("config."), x, y)
    if isinstance(one, ModelDeclaration) and isinstance(other, ModelDeclaration):
        for head in dict.fromkeys([*one.heads, *other.heads]):
            yield from _value_differences(f"head {head}", one.heads.get(head), other.heads.get(head))


def _value_differences(name: str, x: Any, y: Any) -> Iterator[Difference]:
    """How two values of a setting differ, field by field where they are of one kind."""
    if x == y and type(x) is type(y):
        return
    if isinstance(x, Settings) and type(x) is type(y) and not isinstance(x, Join):
        for key in type(x).model_fields:
            yield from _value_differences(f"{name}.{key}", getattr(x, key), getattr(y, key))
    elif name == "parts" and len(x) == len(y):
        for i, (one, other) in enumerate(zip(x, y, strict=True)):
            yield from _value_differences(f"parts[{i}]", one, other)
    elif x != y:
        yield Difference(name, *("none" if z is None else setting_text(z) for z in (x, y)))
    else:
        yield Difference(name, *(f"{type(z).__name__.lower()} {setting_text(z)}" for z in (x, y)))


# ── stages, tasks, terms ─────────────────────────────────────────────────────────────────────────────────────────────


def _stages(one: Side, other: Side, names: Mapping[str, str]) -> Iterator[Change]:
    mine, theirs = one.recipe.stages, other.recipe.stages

    def likeness(a: Stage, b: Stage) -> float:
        tasks = [_likeness(one, other, (a, s), (b, t)) for s in a.tasks for t in b.tasks]
        return max(tasks, default=0.0) + (a.name == b.name) + 0.5 * (a.train == b.train)

    paired = _pair(mine, theirs, likeness, 0.5 if len(mine) > 1 or len(theirs) > 1 else 0.0)
    for how, stage in paired.alone:
        text = ", ".join(task.name for task in stage.tasks if task.name) or one_line(stage.tasks[0].loss.span.text)
        yield _alone(how, "stage", stage.name, text, stage.span)
    before = sorted(paired.pairs, key=lambda p: mine.index(p[0]))
    after = sorted(paired.pairs, key=lambda p: theirs.index(p[1]))
    if before != after:
        yield _changed("stages", "", "order", (", ".join(a.name for a, _ in order) for order in (before, after)))
    for a, b in paired.pairs:
        yield from _tasks(one, other, a, b, names)


def _likeness(one: Side, other: Side, at: tuple[Stage, Task], there: tuple[Stage, Task]) -> float:
    graphs = one.graphs[at[0].name, at[1].name], other.graphs[there[0].name, there[1].name]
    a, b = (traits(graph, info(graph).objective) for graph in graphs)
    return _shared(a, b)


def _tasks(one: Side, other: Side, a: Stage, b: Stage, names: Mapping[str, str]) -> Iterator[Change]:
    paired = _pair(a.tasks, b.tasks, lambda s, t: _likeness(one, other, (a, s), (b, t)) + 0.5 * (s.name == t.name), 0.2)
    if len(a.tasks) == len(b.tasks) == 1:
        paired = Paired(((a.tasks[0], b.tasks[0]),))
    for how, task in paired.alone:
        yield _alone(how, "task", task.name, one_line(task.loss.span.text), task.span, a.name)
    sites: list[tuple[str, str]] = []
    for s, t in paired.pairs:
        where = "/".join(x for x in (a.name, s.name) if x)
        graphs = one.graphs[a.name, s.name], other.graphs[b.name, t.name]
        yield from (replace(change, where=where) for change in _terms(*graphs, sites))
        epochs = [x.data[0] for x in (s, t)]
        if epochs[0] != names.get(epochs[1], epochs[1]):
            yield _changed("task", s.name, "data of its epochs", epochs, where)
    tasks = {t.name: s.name for s, t in paired.pairs}
    yield from _settings(a, b, tasks, names, {theirs: mine for mine, theirs in sites})


def _terms(one: Graph, other: Graph, sites: list[tuple[str, str]]) -> Iterator[Change]:
    aligner = Aligner(one, other)
    terms = spell_out(one), spell_out(other)
    made = [{t.key: traits(graph, t.key) for t in of} for graph, of in zip((one, other), terms, strict=True)]

    def likeness(a: TermPlan, b: TermPlan) -> float:
        called_alike = bool(set(a.names) & set(b.names))
        if aligner.signs[0][a.key] == aligner.signs[1][b.key]:
            return 2.0 + (a.weight == b.weight) + 0.5 * called_alike
        return _shared(made[0][a.key], made[1][b.key]) + 0.3 * called_alike

    paired = _pair(*terms, likeness, ALIKE)
    for how, term in paired.alone:
        span = node(one if how == "removed" else other, term.key).span
        yield _alone(how, "term", term.title, term.weighted, span)
    for a, b in paired.pairs:
        lines = _lines(node(one, a.key).span, node(other, b.key).span)
        weights = [Difference("weight", a.weight, b.weight)] if a.weight != b.weight else []
        for x in (*weights, *aligner.differences(a.key, b.key)):
            yield Change("changed", "term", a.title, x.aspect, x.before, x.after, lines=lines)
    sites += aligner.sites
    yield from _sharing(aligner.sites)


def _sharing(sites: list[tuple[str, str]]) -> Iterator[Change]:
    """A module that was used at several places and is now several, or the other way round."""
    for forth, how in ((True, ("one module", "a module each")), (False, ("a module each", "one module"))):
        partners: dict[str, dict[str, None]] = {}
        for pair_of_sites in sites:
            mine, theirs = pair_of_sites if forth else pair_of_sites[::-1]
            partners.setdefault(mine, {})[theirs] = None
        for site, others in partners.items():
            if len(others) > 1:
                yield _changed("projection", ", ".join(dict.fromkeys([site, *others])), "shared", how)


def _shared(a: Counter[T], b: Counter[T]) -> float:
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _settings(
    a: Stage, b: Stage, tasks: Mapping[str, str], names: Mapping[str, str], sites: Mapping[str, str]
) -> Iterator[Change]:
    mine, theirs = dict(a.train), dict(b.train)
    for name in (name for name in mine if name not in QUIET and name != "freeze"):
        x, y = mine[name], theirs[name]
        if name == "metric_for_best_model" and y:
            of, slash, score = y.rpartition("/")
            y = f"{tasks.get(of, of)}{slash}{score}"
        lines = _lines(a.places.get(name), b.places.get(name))
        for d in _value_differences(name, x, y):
            yield Change("changed", "setting", d.aspect, "", d.before, d.after, a.name, lines)
    called = {"projection": sites}
    frozen = {(x.kind, x.name, x.path) for x in a.freeze}
    if frozen != {(x.kind, called.get(x.kind, names).get(x.name, x.name), x.path) for x in b.freeze}:
        texts = (setting_text(tuple(one_line(x.span.text) for x in stage.freeze)) for stage in (a, b))
        yield _changed("setting", "freeze", "", texts, a.name)
    if a.sample is not None and b.sample is not None and len(a.tasks) > 1 and len(b.tasks) > 1:
        samples = a.sample, b.sample
        if repr(a.sample.law) != repr(b.sample.law):
            yield _changed("sample", "", "law", (one_line(s.law.span.text or "size") for s in samples), a.name)
        if a.sample.floor != b.sample.floor:
            yield _changed("sample", "", "floor", (f"{s.floor:g}" for s in samples), a.name)
        orders = a.sample.order, tuple(tasks.get(x, x) for x in b.sample.order)
        if orders[0] != orders[1]:
            yield _changed("sample", "", "order", (", ".join(x) or "at random" for x in orders), a.name)


def _alone(how: str, subject: str, name: str, text: str, span: Span, where: str = "") -> Change:
    """What only the first spec has (removed), or only the second (added)."""
    texts, lines = ((text, ""), _lines(span, None)) if how == "removed" else (("", text), _lines(None, span))
    return Change(how, subject, name, "", *texts, where, lines)


def _changed(subject: str, name: str, aspect: str, texts: Iterable[str], where: str = "") -> Change:
    before, after = texts
    return Change("changed", subject, name, aspect, before, after, where)


def _joined(changes: Iterable[Change], tasks: int) -> list[Change]:
    """The changes, equal ones of several stages and tasks joined into one."""
    same: dict[Change, list[Change]] = {}
    for change in changes:
        same.setdefault(replace(change, where="", lines=(0, 0)), []).append(change)
    joined: list[Change] = []
    for group in same.values():
        where = "" if len(group) >= tasks > 1 else ", ".join(dict.fromkeys(x.where for x in group))
        joined.append(replace(group[0], where=where))
    return joined


def _lines(one: Span | None, other: Span | None) -> tuple[int, int]:
    """The lines of two places; 0 for one that is not there."""
    return one.position[0] if one is not None else 0, other.position[0] if other is not None else 0


# ── two graphs side by side ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Difference:
    """Where two values differ: `aspect` says in what, `before` and `after` how each of them has it."""

    aspect: str
    before: str
    after: str


def rename(graph: Graph, models: Mapping[str, str], data: Mapping[str, str]) -> Graph:
    """The graph with other names of models and data; names that are not in the maps stay."""

    def other(x: n.Node) -> n.Node:
        if isinstance(x, n.Input | n.Forward | n.Tap):
            x = replace(x, model=models.get(x.model, x.model))
        if isinstance(x, n.Input | n.Column | n.Loss | n.Mean):
            x = replace(x, data=data.get(x.data, x.data))
        return x

    return rewritten(graph, {key: other(x) for key, x in nodes_of(graph).items()})


def _content(current: n.Node) -> n.Content:
    """What a node does with models and data as they are named, however those are made."""
    match current:
        case n.Input():
            return (current.data, current.model)
        case n.Column():
            return (current.column, current.data)
        case n.Forward():
            return (current.role, current.model, current.passing, current.columns)
        case n.Tap():
            return (current.model, *current.content())
        case n.Projection():
            return (current.activation, current.options)
        case n.Loss():
            return (current.operation, current.options, current.words, current.reduced, current.masked)
    return current.content()


def traits(graph: Graph, key: str) -> Counter[n.Content]:
    """What a value is made of: the more two values share of it, the more alike they are."""
    left_out = n.Input | n.Forward | n.Mask | n.Number
    below = (x for used in used_by(graph, [key]) if not isinstance(x := node(graph, used), left_out))
    return Counter((x.kind, x.operation) if isinstance(x, n.Loss) else (x.kind, *_content(x)) for x in below)


@dataclass
class Aligner:
    """Finds where values of two graphs differ. `sites` collects the projections that have the same place in both."""

    one: Graph
    other: Graph

    def __post_init__(self) -> None:
        self.sites: list[tuple[str, str]] = []
        self.signs = structure_hashes(self.one, _content), structure_hashes(self.other, _content)

    def differences(self, a: str, b: str) -> list[Difference]:
        """Every difference between two values, from the outside in."""
        return list(dict.fromkeys(self._walk(a, b, free=True)))

    def _walk(self, a: str, b: str, free: bool) -> Iterator[Difference]:
        """`free`: the output width of a projection does not follow from the other side of its loss."""
        x, y = node(self.one, a), node(self.other, b)
        projected = isinstance(x, n.Projection), isinstance(y, n.Projection)
        if projected[0] != projected[1]:
            yield Difference("projection", *(self._via(z) for z in (x, y)))
            a, b = (z.value if isinstance(z, n.Projection) else key for z, key in ((x, a), (y, b)))
            yield from self._walk(a, b, free)
            return
        if type(x) is not type(y):
            yield Difference("value", spell(self.one, a), spell(self.other, b))
            return
        match x, y:
            case n.Loss(), n.Loss():
                yield from self._loss(x, y)
            case n.Tap(), n.Tap():
                if (x.model, x.feature, x.padding) != (y.model, y.feature, y.padding):
                    yield Difference("tap", spell(self.one, a), spell(self.other, b))
                else:
                    yield from self._forward(x, y)
            case n.Projection(), n.Projection():
                yield from self._projection(x, y, free)
            case n.Transform(), n.Transform():
                yield from self._transform(x, y)
            case n.Combine(), n.Combine():
                yield from self._combine(a, b, x, y)
            case (n.Number(), n.Number()) | (n.Schedule(), n.Schedule()) | (n.Temperature(), n.Temperature()):
                if x.content() != y.content():
                    yield Difference(x.kind, x.label(), y.label())
            case n.Column(), n.Column():
                if x.label() != y.label():
                    yield Difference("column", x.label(), y.label())
            case n.Mask(), n.Mask():
                if (masks := (spell_mask(self.one, x), spell_mask(self.other, y)))[0] != masks[1]:
                    yield Difference("mask", *masks)
            case _:
                yield from self._each(x.inputs, y.inputs)

    def _each(self, ones: tuple[str, ...], others: tuple[str, ...], free: bool = True) -> Iterator[Difference]:
        for a, b in zip_longest(ones, others):
            if a is None or b is None:
                yield Difference("value", spell(self.one, a) if a else "none", spell(self.other, b) if b else "none")
            else:
                yield from self._walk(a, b, free)

    def _via(self, x: n.Node) -> str:
        if not isinstance(x, n.Projection):
            return "none"
        return x.label() if x.into and x.out else x.activation or "linear"

    def _forward(self, x: n.Tap, y: n.Tap) -> Iterator[Difference]:
        f, g = node(self.one, x.forward), node(self.other, y.forward)
        if not isinstance(f, n.Forward) or not isinstance(g, n.Forward):
            return
        data = [z.data for z in (node(self.one, f.entry), node(self.other, g.entry)) if isinstance(z, n.Input)]
        if len(set(data)) > 1:
            yield Difference("input", f"{x.model}({data[0]})", f"{y.model}({data[1]})")
        if f.passing != g.passing:
            yield Difference("pass", str(f.passing), str(g.passing))

    def _projection(self, x: n.Projection, y: n.Projection, free: bool) -> Iterator[Difference]:
        self.sites.append((x.site, y.site))
        if x.activation != y.activation or (free and x.out != y.out):
            yield Difference("projection", self._via(x), self._via(y))
        if x.options != y.options:
            said = [", ".join(f"{name}={value:g}" for name, value in z.options) or "none" for z in (x, y)]
            yield Difference("projection's optimizer", *said)
        yield from self._walk(x.value, y.value, True)

    def _loss(self, x: n.Loss, y: n.Loss) -> Iterator[Difference]:
        same = x.operation == y.operation
        if not same:
            yield Difference("operation", x.operation, y.operation)
        sides = ((x.source, y.source), (x.target, y.target))
        for pair, (one, other) in (sides, sides[::-1]):
            # beside a value that is not projected a projection ends in that value's width
            free = isinstance(node(self.one, one), n.Projection) or isinstance(node(self.other, other), n.Projection)
            yield from self._walk(*pair, free)
        if x.reduced != y.reduced:
            yield Difference("reduce", *("mean" if z.reduced else "none" for z in (x, y)))
        masks = mask_of(self.one, x), mask_of(self.other, y)
        if masks[0] != masks[1] and (same or all(masks)):
            yield Difference("mask", *(m or "none" for m in masks))
        yield from self._options(x, y, same)

    def _options(self, x: n.Loss | n.Transform, y: n.Loss | n.Transform, same: bool) -> Iterator[Difference]:
        """Options by name; of different operations those that both have."""
        mine, theirs = x.arguments, y.arguments
        for name in dict.fromkeys([*mine, *theirs]):
            both = name in mine and name in theirs
            if any(self._walk(mine[name], theirs[name], True)) if both else same:
                before = spell(self.one, mine[name]) if name in mine else "none"
                yield Difference(name, before, spell(self.other, theirs[name]) if name in theirs else "none")
        words, others = dict(x.words), dict(y.words)
        for name in dict.fromkeys([*words, *others]):
            if words.get(name) != others.get(name) and (same or (name in words and name in others)):
                yield Difference(name, words.get(name, "none"), others.get(name, "none"))

    def _transform(self, x: n.Transform, y: n.Transform) -> Iterator[Difference]:
        if x.name != y.name:
            yield Difference("transform", x.name, y.name)
        yield from self._each(x.values, y.values)
        if x.masked != y.masked and x.name == y.name:
            yield Difference("mask", *("tokens" if z.masked else "none" for z in (x, y)))
        yield from self._options(x, y, x.name == y.name)

    def _combine(self, a: str, b: str, x: n.Combine, y: n.Combine) -> Iterator[Difference]:
        if (x.operator, x.position, len(x.inputs)) != (y.operator, y.position, len(y.inputs)):
            yield Difference("arithmetic", spell(self.one, a), spell(self.other, b))
            return
        if not x.commutes:
            yield from self._each(x.inputs, y.inputs)
            return
        shared = Counter(self.signs[0][k] for k in x.inputs) & Counter(self.signs[1][k] for k in y.inputs)
        mine = _apart(self.one, self.signs[0], x.inputs, shared)
        theirs = _apart(self.other, self.signs[1], y.inputs, shared)
        for ones, others in zip(mine, theirs, strict=True):
            yield from self._each(tuple(ones), tuple(others))


def _apart(
    graph: Graph, signs: Mapping[str, str], inputs: tuple[str, ...], shared: Counter[str]
) -> tuple[list[str], list[str]]:
    """Operands that the other side has too, by their hashes, and the others in the order of the spec."""
    left = Counter(shared)
    equal: list[str] = []
    alone: list[str] = []
    for key in inputs:
        (equal if left[signs[key]] > 0 else alone).append(key)
        left[signs[key]] -= 1
    return sorted(equal, key=signs.__getitem__), sorted(alone, key=lambda key: in_order(graph, key))
