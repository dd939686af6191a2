"""From text to a checked recipe with graphs. Names and kinds come first and need no torch; then models and shapes."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from brewgraph.checking.checks import CHECKS, DATA_CHECKS, CheckContext
from brewgraph.diagnostics import Collector, Diagnostic, SourceFault, SpecError, UsageError, suggest
from brewgraph.graph.garbage import no_collections
from brewgraph.paths import at_home, locate, shown
from brewgraph.recipe import values as v
from brewgraph.recipe.evaluate.elaborate import elaborate
from brewgraph.recipe.evaluate.expressions import FactsOf
from brewgraph.recipe.recipe import Recipe, Task
from brewgraph.source import EncodingError, Source, Span
from brewgraph.syntax.comments import check_ignores
from brewgraph.syntax.parser import ParsedStatements, parse
from brewgraph.syntax.tree import Spec

if TYPE_CHECKING:
    import networkx as nx

    from brewgraph.display.diff import Side
    from brewgraph.facts.models import Facts, UnbuiltModelFacts

Graphs = dict[tuple[str, str], "nx.DiGraph"]
"""Graphs by the names of stage and task."""


@dataclass(frozen=True)
class Checked:
    """A sound spec.

    `graphs` are the simplified graphs by stage and task, empty if a model that cannot be reached leaves the length of a
    list open; `reports` those of what tasks report beside their losses. `unmerged` and `unmerged_reports` are the same
    before equal nodes are merged.

    `parents` are the files of the specs above this one and its own. `identities` are those of models and data sets,
    whatever their names. `others` are, by model name, the specs whose students are models of this one.
    """

    recipe: Recipe
    graphs: Mapping[tuple[str, str], nx.DiGraph]
    reports: Mapping[tuple[str, str], nx.DiGraph]
    unmerged: Mapping[tuple[str, str], nx.DiGraph]
    unmerged_reports: Mapping[tuple[str, str], nx.DiGraph]
    facts: Facts
    warnings: tuple[Diagnostic, ...]
    parents: tuple[Path, ...]
    identities: Mapping[str, str]
    others: Mapping[str, Checked] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.recipe.source.folder

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each data set."""
        return self.facts.classes

    @property
    def graph(self) -> nx.DiGraph | None:
        """The graph of the first task, the only one in a spec without stages and tasks; None while lists are open."""
        return next(iter(self.graphs.values()), None)

    @property
    def spec_hash(self) -> str:
        """A hash of what the spec computes and how it trains, whatever its names."""
        from brewgraph.graph.identity import hash_spec

        return hash_spec(self.recipe, self.graphs, self.identities, self.classes)

    @property
    def side(self) -> Side:
        """The spec as one side of a comparison."""
        from brewgraph.display.diff import Side

        return Side(self.recipe, self.graphs, self.identities, self.classes, self.spec_hash)

    def with_graphs_of(self, recipe: Recipe, own: Mapping[str, str]) -> Checked:
        """The same check with the graphs of another recipe, and with these identities for some of the models."""
        collector = Collector()
        unmerged, unmerged_reports = build_graphs(recipe, self.facts, collector, self.identities, own, self.facts.rows)
        collector.raise_errors()
        return replace(
            self,
            recipe=recipe,
            graphs=merged(unmerged),
            reports=merged(unmerged_reports),
            unmerged=unmerged,
            unmerged_reports=unmerged_reports,
        )

    def without_teachers(self) -> Checked:
        """The check of the same student trained without its teachers."""
        from brewgraph.recipe.recipe import without_teacher

        return self.with_graphs_of(without_teacher(self.recipe), {})

    def with_modules(self, modules: Mapping[str, object]) -> Checked:
        """The same check where the caller's modules replace models, by name.

        Models of one declaration stay one only if one object runs for all of them. The spec's hash, the seeds of
        projections, and all graphs in which no such models meet stay the same.
        """
        own: dict[str, str] = {}
        objects: dict[str, list[int]] = {}
        for name in self.recipe.models:
            alike = objects.setdefault(self.identities[name], [])
            runs = id(modules[name]) if name in modules else 0
            if runs not in alike:
                alike.append(runs)
            if position := alike.index(runs):
                own[name] = f"given {position}"
        return self.with_graphs_of(self.recipe, own) if own else self


def build_graphs(
    recipe: Recipe,
    facts: FactsOf,
    collector: Collector,
    identities: Mapping[str, str],
    own: Mapping[str, str] | None = None,
    rows: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Graphs, Graphs]:
    """The canonical graphs of every task, and of what it reports; none while lists are open.

    `own` are identities of models that are not what their declaration says, `rows` those of the training data, by data
    set, where they are known.
    """
    from brewgraph.graph.build import build_graph, build_reports
    from brewgraph.graph.canonical import canonical, tell_apart
    from brewgraph.graph.cut import keep_smallest_cut

    built: tuple[Graphs, Graphs] = ({}, {})
    for stage, task in recipe.tasks if not _has_open_lists(recipe) else ():
        for graphs, build in zip(built, (build_graph, build_reports), strict=True):
            if (graph := build(recipe, facts, collector, identities, task)) is not None:
                graphs[stage.name, task.name] = canonical(tell_apart(graph, own or {}), merged=False)
    both = {(i, name): graph for i, graphs in enumerate(built) for name, graph in graphs.items()}
    both = keep_smallest_cut(both, recipe, rows)
    return tuple({name: both[i, name] for name in graphs} for i, graphs in enumerate(built))  # type: ignore[return-value]


def merged(graphs: Graphs) -> Graphs:
    """The graphs with equal nodes merged."""
    from brewgraph.graph.canonical import merge_equal_nodes

    return {name: merge_equal_nodes(graph) for name, graph in graphs.items()}


def _has_open_lists(recipe: Recipe) -> bool:
    """Whether the length of a list depends on a model that cannot be reached."""

    def is_open(x: object) -> bool:
        if isinstance(x, v.Group):
            return x.items is None or any(is_open(i) for i in x.items)
        return isinstance(x, v.Value) and any(
            (isinstance(p, v.Combine) and not p.operands) or (isinstance(p, v.Bundle) and not p.items)
            for p in v.walk(x)
        )

    return any(is_open(x) for x in (*recipe.equations.values(), *(task.loss for _, task in recipe.tasks)))


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Reading:
    """What a text says without its models: `recipe` is None if it is at fault.

    `parsed` holds the diagnostics of parsing alone, `collector` those of names and kinds, too.
    """

    spec: Spec
    recipe: Recipe | None
    parsed: Collector
    collector: Collector


def read(source: Source, params: Mapping[str, Any], known: ParsedStatements | None = None) -> Reading:
    """Syntax, names and kinds: everything that needs no model. `known` as in `parse`."""
    collector = Collector()
    spec = parse(source, collector, known)
    parsed = Collector(list(collector.diagnostics), list(collector.ignores))
    if collector.failed:
        # faults of names in the statements that parsed, but none that the lost statements may have caused
        others = Collector()
        elaborate(spec, source, params, others)
        lost = _words_outside(spec)
        collector.diagnostics += [d for d in others.diagnostics if not _may_follow(d, lost)]
        return Reading(spec, None, parsed, collector)
    return Reading(spec, elaborate(spec, source, params, collector), parsed, collector)


def _words_outside(spec: Spec) -> frozenset[str]:
    """The words of the statements that did not parse."""
    edges = [0, *(edge for s in spec.statements for edge in (s.span.start, s.span.end)), spec.span.end]
    text = spec.span.source.text
    return frozenset(re.findall(r"\w+", " ".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))))


def _may_follow(diagnostic: Diagnostic, lost: frozenset[str]) -> bool:
    """Whether a statement that did not parse, with these words, may be the cause of a diagnostic."""
    if diagnostic.code == "B101":
        return not lost.isdisjoint(re.findall(r"\w+", diagnostic.span.text))
    return diagnostic.code in ("B106", "B107")


def check_names(source: Source, params: Mapping[str, Any]) -> Recipe:
    """Syntax, names and kinds: everything that needs no model. Raises `SpecError` with every fault found."""
    return _parsed(source, params)[1]


def _parsed(source: Source, params: Mapping[str, Any]) -> tuple[Spec, Recipe, Collector]:
    """The tree of a spec, its recipe before models are known, and the diagnostics of parsing it."""
    reading = read(source, params)
    reading.collector.raise_errors()
    assert reading.recipe is not None
    return reading.spec, reading.recipe, reading.parsed


def check(source: Source, params: Mapping[str, Any] | None = None) -> Checked:
    """Check a spec against its models and data, before any weight is loaded. Raises `SpecError`."""
    with no_collections():
        try:
            return _check(source, params or {}, (), {})
        except RecursionError:
            help = "write a sum of many terms in one equation, `loss = a + b + c`, or as a list: `sum([a, b, c])`"
            place = Span(source, 0, len(source.text.partition("\n")[0]))
            raise SpecError([Diagnostic("B012", "its equations are nested too deeply", place, help)]) from None


_Cache = dict[Any, Checked]
"""Specs checked on the way, by their text, params and the specs above them."""


def _check(source: Source, params: Mapping[str, Any], parents: tuple[Path, ...], cache: _Cache) -> Checked:
    spec, first, collector = _parsed(source, params)
    from brewgraph.facts.memory import Memory
    from brewgraph.facts.models import FactsBook, identities

    parents = (*parents, Path(source.name).resolve())
    others = _OtherSpecs(source, parents, collector, cache)
    # models and data at fault count as unknown, so that everything else is checked beside them
    facts = FactsBook(first, collector, others.facts, Memory.of_user())
    for check in DATA_CHECKS:
        check(CheckContext(first, facts, collector))
    for model in first.models.values():
        facts(model)
    elaborated = Collector()
    recipe = elaborate(spec, source, params, elaborated, facts)
    collector.diagnostics += [d for d in elaborated.diagnostics if d not in collector.diagnostics]
    if recipe is None:
        # shapes of everything that does not depend on these faults; faults of models are reported already
        shapes = Collector()
        build_graphs(_sound_part(first, collector.errors), facts, shapes, identities(first, others.hash))
        collector.diagnostics += [d for d in shapes.errors if d.code.startswith("B2")]
        raise SpecError(collector.sorted())
    before = len(collector.errors)
    for check in CHECKS:
        check(CheckContext(recipe, facts, collector))
    if any(d.code != "B325" for d in collector.errors[before:]):  # shapes would only repeat these faults
        raise SpecError(collector.sorted())
    names = identities(recipe, others.hash)
    unmerged, unmerged_reports = build_graphs(recipe, facts, collector, names, rows=facts.facts.rows)
    collector.raise_errors()
    graphs, reports = merged(unmerged), merged(unmerged_reports)
    run_lints(recipe, graphs, facts, collector, settled=not params)
    warnings, settled = collector.warnings, facts.settled()
    return Checked(
        recipe, graphs, reports, unmerged, unmerged_reports, settled, warnings, parents, names, dict(others.checked)
    )


def _sound_part(recipe: Recipe, errors: Collection[Diagnostic]) -> Recipe:
    """A recipe without whatever depends on errors: each loss is the sum of its matches that no error touches, neither
    in their text nor in that of their models; equations with other matches are left out.
    """

    def is_sound(match: v.Apply) -> bool:
        takes = [x for x in v.walk(match) if isinstance(x, v.Take)]
        declared = [recipe.models[take.model].span for take in takes]
        spans = [span for span in (*(x.span for x in v.walk(match)), *declared) if span.text]
        indexed = all(take.feature.index is None or take.feature.index >= 0 for take in takes)
        return indexed and not any(
            x.source == d.span.source and x.start < d.span.end and d.span.start < x.end for x in spans for d in errors
        )

    def summed(task: Task) -> v.Value | None:
        matches = [x for x in v.walk(task.loss) if isinstance(x, v.Apply) and x.kind == "loss" and is_sound(x)]
        return v.Combine("loss", "+", tuple(matches), span=task.span) if matches else None

    stages = [
        replace(stage, tasks=tuple(replace(x, loss=loss, reports={}) for x in stage.tasks if (loss := summed(x))))
        for stage in recipe.stages
    ]
    equations = {
        name: value
        for name, value in recipe.equations.items()
        if all(is_sound(x) for member in v.members(value) for x in v.walk(member) if isinstance(x, v.Apply))
    }
    return replace(recipe, stages=tuple(stages), equations=equations)


_BY_CHANCE = frozenset({"W301", "W310", "W401"})
"""Warnings that depend on the machine and its network: an ignore comment for one may cover nothing."""


def run_lints(recipe: Recipe, graphs: Graphs, facts: FactsOf, collector: Collector, *, settled: bool) -> None:
    """Run the lints. If params have the values of the spec (`settled`), also report ignore comments that cover
    nothing.
    """
    from brewgraph.lints import Subject, lint

    def count(model: str, feature: str) -> int | None:
        known = facts(recipe.models[model])
        return known.row_length(feature) if known is not None else None

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    collector.diagnostics += list(dict.fromkeys(lint(Subject(recipe, graphs, count, ranks))))
    if settled and not recipe.open:
        check_ignores(collector, recipe.source, _BY_CHANCE)


def read_spec(path: str | Path) -> Source:
    """Read a spec file. Raises `UsageError` if it cannot be read, or if `path` is the text of a spec."""
    if not isinstance(path, str | Path):
        raise UsageError(f"expected a path to a spec, got a value of type `{type(path).__name__}`")
    name = str(path)
    if "\n" in name or (set("={") & set(name) and not name.endswith(".brew") and not Path(name).exists()):
        raise UsageError(
            "expected a path to a spec, got the text of one: read it with `bg.loads(text)`, or write it to a file"
        )
    try:
        return Source.read(at_home(path))
    except FileNotFoundError as error:
        near = sorted(p.name for p in Path(path).parent.glob("*.brew")) if Path(path).parent.is_dir() else []
        more = suggest(Path(path).name, near) or (f"that folder has {', '.join(near[:5])}" if near else "")
        raise UsageError(f"there is no file `{path}`{'; ' if more else ''}{more}") from error
    except EncodingError as error:
        raise UsageError(str(error)) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"`{shown(str(path))}` cannot be read: {getattr(error, 'strerror', None) or error}") from error


class _OtherSpecs:
    """Answers for `brew("other.brew")`: the other spec is checked, never trained here."""

    def __init__(self, source: Source, parents: tuple[Path, ...], collector: Collector, cache: _Cache):
        self.source, self.parents, self.collector, self.cache = source, parents, collector, cache
        self.checked: dict[str, Checked] = {}

    def facts(self, model: v.ModelDeclaration) -> UnbuiltModelFacts:
        other = self._check(model)
        student, name = other.recipe.student, other.recipe.source.name
        if (facts := other.facts(student)) is not None:
            return facts
        if not student.source.is_known:
            message = f"nothing is known of the student of `{name}` before it is loaded"
            raise SourceFault("B321", message, field="path", help="its source must be hf(…) or brew(…)")
        help = "connect to the hub, or let that spec name a local folder"
        raise SourceFault("B311", f"the student of `{name}` cannot be reached", field="path", help=help)

    def hash(self, model: v.ModelDeclaration) -> str:
        return "" if self.collector.failed else self._check(model).spec_hash  # a spec at fault needs no hash

    def _check(self, model: v.ModelDeclaration) -> Checked:
        """Check the spec that `brew(...)` names. Its own faults are raised as they are, with their own places."""
        if model.name in self.checked:
            return self.checked[model.name]
        assert model.source.spec is not None
        path = locate(model.source.spec, self.source.folder, "path")
        if path.resolve() in self.parents:
            circle = " -> ".join(p.name for p in (*self.parents, path.resolve()))
            message = f"specs build on each other in a circle: {circle}"
            raise SourceFault("B322", message, field="path", help="break the circle")
        try:
            other = read_spec(path)
        except UsageError as error:
            help = "paths are relative to this spec's folder"
            if (path / "student").is_dir():
                help = f'the student of a run is a model: `hf("{model.source.spec}/student")`'
            raise SourceFault("B321", str(error), field="path", help=help) from error
        key = (other, tuple(sorted(model.source.spec_params.items())), self.parents)
        if key not in self.cache:
            self.cache[key] = _check(other, dict(model.source.spec_params), self.parents, self.cache)
        self.checked[model.name] = self.cache[key]
        return self.checked[model.name]
