"""The differences in meaning between two specs: terms, weights, taps, models, data, settings; never names and places.

What belongs together is paired first, by what it is before its name; then pairs are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from brewgraph.display.diff.alignment import Aligner, Difference, rename, traits
from brewgraph.display.equation import TermPlan, spell_out
from brewgraph.display.lines import one_line
from brewgraph.graph.container import Graph, info, node, nodes_of
from brewgraph.graph.identity import QUIET, Graphs
from brewgraph.recipe.recipe import Recipe, Stage, Task
from brewgraph.recipe.settings.base import Settings, setting_text
from brewgraph.recipe.settings.data_sources import Join
from brewgraph.recipe.values import DataDeclaration, ModelDeclaration
from brewgraph.source import Span

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
        *_declared(one, other, models, one.recipe.models, other.recipe.models, names),
        *_declared(one, other, data, one.recipe.data, other.recipe.data, names),
        *_joined(_stages(one, replace(other, graphs=renamed), names), len(one.recipe.tasks)),
    ]
    if not changes:
        texts = (" + ".join(sorted(_addends(graphs))) for graphs in (one.graphs, renamed))
        changes = [_changed("loss", "", "form", texts)]
    return Comparison(hashes, tuple(changes), notes)


def _addends(graphs: Graphs) -> list[str]:
    return [f"{t.weight} * {t.equation}" for graph in graphs.values() for t in spell_out(graph)]


def _notes(one: Side, other: Side) -> Iterator[str]:
    for mine, theirs in zip(one.recipe.stages, other.recipe.stages, strict=False):
        a, b = dict(mine.train), dict(theirs.train)
        for name in sorted(name for name in QUIET if a[name] != b[name]):
            yield f"{name}: {setting_text(a[name])} -> {setting_text(b[name])}, which changes nothing that is trained"


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Paired(Generic[T]):
    """What belongs together, and what is left of the first (`removed`) and of the second (`added`)."""

    pairs: tuple[tuple[T, T], ...]
    removed: tuple[T, ...]
    added: tuple[T, ...]


def _pair(ones: Sequence[T], others: Sequence[T], likeness: Callable[[T, T], float], least: float) -> Paired[T]:
    """Pairs by likeness, the most alike first, none below `least`; of equal ones the first in both orders."""
    scores = [(-likeness(a, b), abs(i - j), i, j) for i, a in enumerate(ones) for j, b in enumerate(others)]
    partners: dict[int, int] = {}
    for score, _, i, j in sorted(scores):
        if -score >= least and i not in partners and j not in partners.values():
            partners[i] = j
    return Paired(
        tuple((ones[i], others[partners[i]]) for i in sorted(partners)),
        tuple(x for i, x in enumerate(ones) if i not in partners),
        tuple(x for j, x in enumerate(others) if j not in partners.values()),
    )


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


def _declared(
    one: Side,
    other: Side,
    paired: Paired[str],
    mine: Mapping[str, Declaration],
    theirs: Mapping[str, Declaration],
    names: Mapping[str, str],
) -> Iterator[Change]:
    """Models, or data sets, that were added, removed or changed, if a loss uses them."""
    used = _used(one), _used(other)
    for name in paired.removed:
        if name in used[0]:
            x = mine[name]
            yield Change("removed", _subject(x), name, before=one_line(x.span.text), lines=_lines(x.span, None))
    for name in paired.added:
        if name in used[1]:
            x = theirs[name]
            yield Change("added", _subject(x), name, after=one_line(x.span.text), lines=_lines(None, x.span))
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
    return names & (side.recipe.models.keys() | side.recipe.data.keys())


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
    for stage in paired.removed:
        yield Change("removed", "stage", stage.name, before=_stage_text(stage), lines=_lines(stage.span, None))
    for stage in paired.added:
        yield Change("added", "stage", stage.name, after=_stage_text(stage), lines=_lines(None, stage.span))
    before = sorted(paired.pairs, key=lambda p: mine.index(p[0]))
    after = sorted(paired.pairs, key=lambda p: theirs.index(p[1]))
    if before != after:
        yield _changed("stages", "", "order", (", ".join(a.name for a, _ in order) for order in (before, after)))
    for a, b in paired.pairs:
        yield from _tasks(one, other, a, b, names)


def _stage_text(stage: Stage) -> str:
    return ", ".join(task.name for task in stage.tasks if task.name) or one_line(stage.tasks[0].loss.span.text)


def _likeness(one: Side, other: Side, at: tuple[Stage, Task], there: tuple[Stage, Task]) -> float:
    graphs = one.graphs[at[0].name, at[1].name], other.graphs[there[0].name, there[1].name]
    a, b = (traits(graph, info(graph).objective) for graph in graphs)
    return _shared(a, b)


def _tasks(one: Side, other: Side, a: Stage, b: Stage, names: Mapping[str, str]) -> Iterator[Change]:
    paired = _pair(a.tasks, b.tasks, lambda s, t: _likeness(one, other, (a, s), (b, t)) + 0.5 * (s.name == t.name), 0.2)
    if len(a.tasks) == len(b.tasks) == 1:
        paired = Paired(((a.tasks[0], b.tasks[0]),), (), ())
    for task in paired.removed:
        text, lines = one_line(task.loss.span.text), _lines(task.span, None)
        yield Change("removed", "task", task.name, before=text, where=a.name, lines=lines)
    for task in paired.added:
        text, lines = one_line(task.loss.span.text), _lines(None, task.span)
        yield Change("added", "task", task.name, after=text, where=a.name, lines=lines)
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
    for a in paired.removed:
        yield Change("removed", "term", a.title, before=a.weighted, lines=_lines(node(one, a.key).span, None))
    for b in paired.added:
        yield Change("added", "term", b.title, after=b.weighted, lines=_lines(None, node(other, b.key).span))
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
        for found in _value_differences(name, x, y):
            yield Change("changed", "setting", found.aspect, "", found.before, found.after, a.name, lines)
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
