"""What differs between two specs in meaning: terms, weights, taps, models, data, settings; never names and places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx

from brewgraph.display.diff.alignment import Aligner, Difference, rename, traits
from brewgraph.display.diff.pairing import Pairs, pair, pair_declarations, source_differences, value_differences
from brewgraph.display.equation import TermPlan, spell_out
from brewgraph.graph.identity import QUIET
from brewgraph.recipe.recipe import Recipe, Stage, Task
from brewgraph.recipe.settings.sources import setting_text

ALIKE = 0.4
"""Two terms that share less of what they are made of are not one term that was changed."""


@dataclass(frozen=True)
class Side:
    """A checked spec: what is compared. `identities` say what models and data are; `classes` those of each data set."""

    recipe: Recipe
    graphs: Mapping[tuple[str, str], nx.DiGraph]
    identities: Mapping[str, str]
    classes: Mapping[str, tuple[str, ...]]
    hash: str


@dataclass(frozen=True)
class Change:
    """One difference. `how` is added, removed or changed; `subject` what kind of thing it is (term, teacher, student,
    data, setting, stage, task, sample, loss) and `name` which one; `aspect` what of it; `where` the stage and task.

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
    """`changes` is empty where both specs train the same; `notes` say what differs and changes nothing trained."""

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
    models = pair_declarations(one.recipe.models, other.recipe.models, one.identities, other.identities)
    data = pair_declarations(one.recipe.data, other.recipe.data, one.identities, other.identities)
    names = models.names | data.names
    graphs = {key: rename(graph, models.names, data.names) for key, graph in other.graphs.items()}
    found = [*_declared(one, other, models, "models", names), *_declared(one, other, data, "data", names)]
    stages = _stages(one, replace(other, graphs=graphs), names)
    found += _joined(list(stages), len(one.recipe.tasks))
    if not found:
        text = [" + ".join(sorted(_addends(side.graphs))) for side in (one, replace(other, graphs=graphs))]
        found = [_changed("loss", "", "form", text)]
    return Comparison(hashes, tuple(found), notes)


def _addends(graphs: Mapping[tuple[str, str], nx.DiGraph]) -> list[str]:
    return [f"{t.weight} * {t.equation}" for graph in graphs.values() for t in spell_out(graph)]


def _notes(one: Side, other: Side) -> Iterator[str]:
    for mine, theirs in zip(one.recipe.stages, other.recipe.stages, strict=False):
        a, b = dict(mine.train), dict(theirs.train)
        for name in sorted(QUIET):
            if a[name] != b[name]:
                said = f"{setting_text(a[name])} -> {setting_text(b[name])}"
                yield f"{name}: {said}, which changes nothing that is trained"


# ── models and data ──────────────────────────────────────────────────────────────────────────────────────────────────


def _declared(one: Side, other: Side, pairs: Pairs, kind: str, names: Mapping[str, str]) -> Iterator[Change]:
    """Models, or data sets, that were added, removed or changed; those that no loss uses say nothing."""
    mine, theirs = getattr(one.recipe, kind), getattr(other.recipe, kind)
    used = _used(one), _used(other)
    for name in pairs.removed:
        if name in used[0]:
            yield Change("removed", _role(mine[name]), name, before=_line(mine[name].span.text), lines=_at(mine[name]))
    for name in pairs.added:
        if name in used[1]:
            text = _line(theirs[name].span.text)
            yield Change("added", _role(theirs[name]), name, after=text, lines=_at(None, theirs[name]))
    for name_there, name in pairs.names.items():
        a, b = mine[name], theirs[name_there]
        if name not in used[0] and name_there not in used[1]:
            continue
        found = []
        if one.identities[name] != other.identities[name_there] or kind == "data":
            found = list(source_differences(a, b, names))
        classes = one.classes.get(name, ()), other.classes.get(name_there, ())
        if kind == "data" and classes[0] != classes[1]:
            found.append(Difference("classes", *(", ".join(c) or "none" for c in classes)))
        if not found and one.identities[name] != other.identities[name_there] and not _references(a.source):
            found = [Difference("content", one.identities[name], other.identities[name_there])]
        for x in found:
            yield Change("changed", _role(a), name, x.aspect, x.before, x.after, lines=_at(a, b))


def _role(declaration: Any) -> str:
    return getattr(declaration, "role", "data")


def _used(side: Side) -> set[str]:
    """Models and data that some loss is computed from, and those that these are made from."""
    found = {d for _, task in side.recipe.tasks for d in task.data}
    for graph in side.graphs.values():
        for key in graph:
            current = graph.nodes[key]["node"]
            found |= {getattr(current, "model", ""), getattr(current, "data", "")}
    for name in [x for x in found if x in side.recipe.models]:
        found |= _references(side.recipe.models[name].source)
    return found & (side.recipe.models.keys() | side.recipe.data.keys())


def _references(source: Any) -> set[str]:
    """The models that a source may name: what they are is part of what it is."""
    init = getattr(source, "init", None)
    names = getattr(source, "model", None), getattr(source, "tokenizer", None), init.model if init is not None else None
    return {name for name in names if name is not None}


# ── stages, tasks, terms ─────────────────────────────────────────────────────────────────────────────────────────────


def _stages(one: Side, other: Side, names: Mapping[str, str]) -> Iterator[Change]:
    mine, theirs = list(one.recipe.stages), list(other.recipe.stages)

    def likeness(a: Stage, b: Stage) -> float:
        tasks = [_likeness(one, other, (a, s), (b, t)) for s in a.tasks for t in b.tasks]
        return max(tasks, default=0.0) + (a.name == b.name) + 0.5 * (a.train == b.train)

    found = pair(mine, theirs, likeness, 0.5 if len(mine) > 1 or len(theirs) > 1 else 0.0)
    for stage in found.removed:
        yield Change("removed", "stage", stage.name, before=_stage_text(stage), lines=_at(stage))
    for stage in found.added:
        yield Change("added", "stage", stage.name, after=_stage_text(stage), lines=_at(None, stage))
    orders = [
        sorted(found.pairs, key=lambda p: mine.index(p[0])),
        sorted(found.pairs, key=lambda p: theirs.index(p[1])),
    ]
    if orders[0] != orders[1]:
        yield _changed("stages", "", "order", (", ".join(a.name for a, _ in order) for order in orders))
    for a, b in found.pairs:
        yield from _tasks(one, other, a, b, names)


def _stage_text(stage: Stage) -> str:
    return ", ".join(task.name for task in stage.tasks if task.name) or _line(stage.tasks[0].loss.span.text)


def _likeness(one: Side, other: Side, at: tuple[Stage, Task], there: tuple[Stage, Task]) -> float:
    a, b = one.graphs[at[0].name, at[1].name], other.graphs[there[0].name, there[1].name]
    return _shared(traits(a, a.graph["objective"]), traits(b, b.graph["objective"]))


def _tasks(one: Side, other: Side, a: Stage, b: Stage, names: Mapping[str, str]) -> Iterator[Change]:
    found = pair(
        list(a.tasks), list(b.tasks), lambda s, t: _likeness(one, other, (a, s), (b, t)) + 0.5 * (s.name == t.name), 0.2
    )
    if len(a.tasks) == len(b.tasks) == 1:
        found = replace(found, pairs=((a.tasks[0], b.tasks[0]),), added=(), removed=())
    for task in found.removed:
        yield Change("removed", "task", task.name, before=_line(task.loss.span.text), where=a.name, lines=_at(task))
    for task in found.added:
        yield Change("added", "task", task.name, after=_line(task.loss.span.text), where=a.name, lines=_at(None, task))
    called = {t.name: s.name for s, t in found.pairs}
    sites: list[tuple[str, str]] = []
    for s, t in found.pairs:
        where = "/".join(x for x in (a.name, s.name) if x)
        graphs = one.graphs[a.name, s.name], other.graphs[b.name, t.name]
        yield from (replace(change, where=where) for change in _terms(*graphs, sites))
        epochs = [x.data[0] for x in (s, t)]
        if epochs[0] != names.get(epochs[1], epochs[1]):
            yield _changed("task", s.name, "data of its epochs", epochs, where)
    yield from _settings(a, b, called, names, {theirs: mine for mine, theirs in sites})


def _terms(one: nx.DiGraph, other: nx.DiGraph, sites: list[tuple[str, str]]) -> Iterator[Change]:
    aligner = Aligner(one, other)
    known: dict[tuple[int, str], Counter[Any]] = {}

    def made(graph: nx.DiGraph, term: TermPlan) -> Counter[Any]:
        place = id(graph), term.key
        if place not in known:
            known[place] = traits(graph, term.key)
        return known[place]

    def likeness(a: TermPlan, b: TermPlan) -> float:
        called_alike = bool(set(a.names) & set(b.names))
        if aligner.signs[0][a.key] == aligner.signs[1][b.key]:
            return 2.0 + (a.weight == b.weight) + 0.5 * called_alike
        return _shared(made(one, a), made(other, b)) + 0.3 * called_alike

    found = pair(list(spell_out(one)), list(spell_out(other)), likeness, ALIKE)
    for a in found.removed:
        yield Change("removed", "term", _named(a), before=a.weighted, lines=_at(one.nodes[a.key]["node"]))
    for b in found.added:
        yield Change("added", "term", _named(b), after=b.weighted, lines=_at(None, other.nodes[b.key]["node"]))
    for a, b in found.pairs:
        lines = _at(one.nodes[a.key]["node"], other.nodes[b.key]["node"])
        if a.weight != b.weight:
            yield Change("changed", "term", _named(a), "weight", a.weight, b.weight, lines=lines)
        for x in aligner.differences(a.key, b.key):
            yield Change("changed", "term", _named(a), x.aspect, x.before, x.after, lines=lines)
    sites += aligner.sites
    yield from _sharing(aligner.sites)


def _sharing(sites: list[tuple[str, str]]) -> Iterator[Change]:
    """A module that stood at several places and is now several, or the other way round."""
    for forth, how in ((True, ("one module", "a module each")), (False, ("a module each", "one module"))):
        found: dict[str, dict[str, None]] = {}
        for pair_of_sites in sites:
            mine, theirs = pair_of_sites if forth else pair_of_sites[::-1]
            found.setdefault(mine, {})[theirs] = None
        for site, others in found.items():
            if len(others) > 1:
                yield _changed("projection", ", ".join(dict.fromkeys([site, *others])), "shared", how)


def _named(term: TermPlan) -> str:
    return " = ".join(term.names) or term.equation


def _shared(a: Counter[Any], b: Counter[Any]) -> float:
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _settings(
    a: Stage, b: Stage, tasks: Mapping[str, str], names: Mapping[str, str], sites: Mapping[str, str]
) -> Iterator[Change]:
    mine, theirs = dict(a.train), dict(b.train)
    for name in mine:
        if name in QUIET or name == "freeze":
            continue
        x, y = mine[name], theirs[name]
        if name == "metric_for_best_model" and y:
            of, slash, score = y.rpartition("/")
            y = f"{tasks.get(of, of)}{slash}{score}"
        lines = _written(a, name), _written(b, name)
        for found in value_differences(name, x, y):
            yield Change("changed", "setting", found.aspect, "", found.before, found.after, a.name, lines)
    frozen = [{(x.kind, x.name, x.path) for x in a.freeze}, set()]
    for x in b.freeze:
        called = (sites if x.kind == "projection" else names).get(x.name, x.name)
        frozen[1].add((x.kind, called, x.path))
    if frozen[0] != frozen[1]:
        said = [setting_text(tuple(_line(x.span.text) for x in stage.freeze)) for stage in (a, b)]
        yield _changed("setting", "freeze", "", said, a.name)
    if a.sample is not None and b.sample is not None and len(a.tasks) > 1 and len(b.tasks) > 1:
        laws = [s.sample.law.span.text or "size" for s in (a, b) if s.sample is not None]
        if repr(a.sample.law) != repr(b.sample.law):
            yield _changed("sample", "", "law", map(_line, laws), a.name)
        if a.sample.floor != b.sample.floor:
            yield _changed("sample", "", "floor", (f"{x:g}" for x in (a.sample.floor, b.sample.floor)), a.name)
        order = tuple(tasks.get(x, x) for x in b.sample.order)
        if a.sample.order != order:
            said = [", ".join(x) or "at random" for x in (a.sample.order, order)]
            yield _changed("sample", "", "order", said, a.name)


def _written(stage: Stage, setting: str) -> int:
    """The line where a setting is written; 0 where it is left out."""
    return stage.places[setting].position[0] if setting in stage.places else 0


def _changed(
    subject: str, name: str, aspect: str, said: Iterable[str], where: str = "", lines: tuple[int, int] = (0, 0)
) -> Change:
    before, after = said
    return Change("changed", subject, name, aspect, before, after, where, lines)


def _joined(changes: list[Change], parts: int) -> list[Change]:
    """The changes, those that every stage and task has alike said once."""
    found: dict[Change, list[Change]] = {}
    for change in changes:
        found.setdefault(replace(change, where="", lines=(0, 0)), []).append(change)
    joined: list[Change] = []
    for same in found.values():
        where = ", ".join(dict.fromkeys(x.where for x in same))
        joined.append(replace(same[0], where="" if len(same) >= parts > 1 else where))
    return joined


def _at(one: Any, other: Any = None) -> tuple[int, int]:
    """The lines of two things that have spans; 0 for one that is not there."""
    return tuple(x.span.position[0] if x is not None else 0 for x in (one, other))  # type: ignore[return-value]


def _line(text: str) -> str:
    return " ".join(text.split())
