"""Text to a checked recipe and its graph. Names and kinds first, which needs no torch; then models and shapes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewgraph.checking.agreement import (
    check_baseline,
    check_heads,
    check_metrics,
    check_starts,
    check_teachers,
    check_trained,
    find_classes,
    has_open_lists,
)
from brewgraph.checking.cache_folders import check_stores
from brewgraph.checking.end_tokens import check_ends, check_nulls
from brewgraph.checking.inputs import (
    check_built,
    check_inputs,
    check_lengths,
    check_own_tokens,
    check_padding,
    check_words,
)
from brewgraph.diagnostics import Collector, Diagnostic, SpecError, UsageError, suggest
from brewgraph.paths import locate, shown
from brewgraph.recipe.evaluate.elaborate import elaborate
from brewgraph.recipe.evaluate.expressions import FactsOf
from brewgraph.recipe.recipe import Recipe, Task
from brewgraph.recipe.settings.sources import Brew, Python
from brewgraph.recipe.values import Apply, Combine, ModelDeclaration, Take, Value, members, walk
from brewgraph.source import EncodingError, Source
from brewgraph.syntax.ignores import check_ignores
from brewgraph.syntax.parser import parse
from brewgraph.syntax.tree import Spec

if TYPE_CHECKING:
    import networkx as nx

    from brewgraph.facts.book import CheckContext, Facts
    from brewgraph.facts.model import UnbuiltModelFacts


CHECKS: tuple[Callable[[CheckContext], None], ...] = (
    check_teachers,
    check_built,
    check_lengths,
    check_starts,
    check_inputs,
    check_padding,
    check_own_tokens,
    check_words,
    check_ends,
    check_nulls,
    check_heads,
    check_metrics,
    check_baseline,
    check_stores,
)
"""What is judged by models and data before there is a graph, in this order."""


@dataclass(frozen=True)
class Checked:
    """A sound spec. `graphs` are the simplified graphs by stage and task, empty where a model that cannot be reached
    leaves lists open; `reports` those of what tasks report beside their losses. `written` are the graphs before equal
    things are merged, `written_reports` those of reports. `classes` are those of each data set.
    """

    recipe: Recipe
    graphs: Mapping[tuple[str, str], nx.DiGraph]
    reports: Mapping[tuple[str, str], nx.DiGraph]
    written: Mapping[tuple[str, str], nx.DiGraph]
    written_reports: Mapping[tuple[str, str], nx.DiGraph]
    facts: Facts
    classes: Mapping[str, tuple[str, ...]]
    warnings: tuple[Diagnostic, ...]
    parents: tuple[Path, ...]
    identities: Mapping[str, str]
    """What each model and data set is, whatever it is called."""
    others: Mapping[str, Checked] = field(default_factory=dict)
    """The specs whose students models of this one are, by model name."""

    @property
    def folder(self) -> Path:
        return self.recipe.source.folder

    @property
    def graph(self) -> nx.DiGraph | None:
        """The graph of the first task, the only one where there are neither stages nor tasks; None while open."""
        return next(iter(self.graphs.values()), None)

    @property
    def spec_hash(self) -> str:
        """What the spec computes and how it trains, whatever things are called."""
        from brewgraph.graph.identity import hash_spec

        return hash_spec(self.recipe, self.graphs, self.identities, self.classes)


def check_names(source: Source, params: Mapping[str, Any]) -> Recipe:
    """Syntax, names and kinds: everything that needs no model. Raises `SpecError` with all faults that were found."""
    return _parsed(source, params)[1]


def _parsed(source: Source, params: Mapping[str, Any]) -> tuple[Spec, Recipe, Collector]:
    """The tree of a spec, its recipe as names tell it, and what parsing it has to say."""
    collector = Collector()
    spec = parse(source, collector)
    if collector.failed:
        elaborate_sound_part(spec, source, params, collector)
        raise SpecError(collector.sorted())
    parsed = Collector(list(collector.diagnostics), list(collector.ignores))
    recipe = elaborate(spec, source, params, collector)
    collector.raise_errors()
    assert recipe is not None
    return spec, recipe, parsed


def elaborate_sound_part(spec: Spec, source: Source, params: Mapping[str, Any], collector: Collector) -> None:
    """Faults of names in the statements that parsed, but none that the lost statements may have caused."""
    second = Collector()
    elaborate(spec, source, params, second)
    caused = {"B101", "B106", "B107"}
    collector.diagnostics += [d for d in second.diagnostics if d.code not in caused]


def check(source: Source, params: Mapping[str, Any] | None = None) -> Checked:
    """Check a spec against its models and data, before any weight is loaded. Raises `SpecError`."""
    return _check(source, params or {}, (), {})


_Known = dict[Any, "Checked"]
"""Specs that were checked on the way, by their text, params and the specs above them."""


def _check(source: Source, params: Mapping[str, Any], parents: tuple[Path, ...], known: _Known) -> Checked:
    spec, first, collector = _parsed(source, params)
    from brewgraph.facts.book import CheckContext, FactsBook, identities
    from brewgraph.facts.memory import Memory

    path = Path(source.name).resolve()
    others = _OtherSpecs(source, (*parents, path), collector, known)
    memory = Memory.of_user()
    # data and models at fault are as unknown as those that cannot be reached: all the rest is checked beside them
    classes = find_classes(first, source, collector, memory)
    facts = FactsBook(first, source.folder, classes, collector, others.facts, memory)
    for model in first.models.values():
        facts(model)
    elaborated = Collector()
    recipe = elaborate(spec, source, params, elaborated, facts)
    collector.diagnostics += [d for d in elaborated.diagnostics if d not in collector.diagnostics]
    if recipe is None:
        # shapes of what does not follow from these faults; what models do not have is said already
        shapes = Collector()
        _graphs(_sound_part(first, collector.errors), facts, shapes, identities(first, others.hash))
        collector.diagnostics += [d for d in shapes.errors if d.code.startswith("B2")]
        raise SpecError(collector.sorted())
    context = CheckContext(recipe, facts, collector)
    before = len(collector.errors)
    for look in CHECKS:
        look(context)
    unknown = len(collector.errors) > before
    check_trained(context)
    if unknown:  # shapes that follow from these faults are none of their own
        raise SpecError(collector.sorted())
    names = identities(recipe, others.hash)
    written, written_reports = _graphs(recipe, facts, collector, names)
    collector.raise_errors()
    graphs, reports = _merged(written), _merged(written_reports)
    run_lints(recipe, graphs, facts, collector, settled=not params)
    return Checked(
        recipe,
        graphs,
        reports,
        written,
        written_reports,
        facts.settled(),
        classes,
        collector.warnings,
        (*parents, path),
        names,
        dict(others.checked),
    )


def _sound_part(recipe: Recipe, errors: Collection[Diagnostic]) -> Recipe:
    """A recipe of names without what follows from errors: of its losses those matches, summed, in which and in whose
    models none lies, and equations of such alone.
    """

    def is_sound(match: Apply) -> bool:
        takes = [x for x in walk(match) if isinstance(x, Take)]
        own = [recipe.models[take.model].span for take in takes]
        spans = [span for span in (*(x.span for x in walk(match)), *own) if span.text]
        known = all(take.feature.index is None or take.feature.index >= 0 for take in takes)
        return known and not any(
            x.source == d.span.source and x.start < d.span.end and d.span.start < x.end for x in spans for d in errors
        )

    def summed(task: Task) -> Value | None:
        matches = [x for x in walk(task.loss) if isinstance(x, Apply) and x.kind == "loss" and is_sound(x)]
        return Combine("loss", "+", tuple(matches), span=task.span) if matches else None

    stages = [
        replace(stage, tasks=tuple(replace(x, loss=loss, reports={}) for x in stage.tasks if (loss := summed(x))))
        for stage in recipe.stages
    ]
    equations = {
        name: value
        for name, value in recipe.equations.items()
        if all(is_sound(x) for member in members(value) for x in walk(member) if isinstance(x, Apply))
    }
    return replace(recipe, stages=tuple(stages), equations=equations)


def _merged(graphs: Mapping[tuple[str, str], nx.DiGraph]) -> dict[tuple[str, str], nx.DiGraph]:
    from brewgraph.graph.canonical import merge_equal_nodes

    return {name: merge_equal_nodes(graph) for name, graph in graphs.items()}


_BY_CHANCE = frozenset({"W212", "W301", "W401"})
"""Warnings that depend on the machine and its network: that one does not come up is no reason to stop ignoring it."""


def run_lints(
    recipe: Recipe,
    graphs: Mapping[tuple[str, str], nx.DiGraph],
    facts: FactsOf,
    collector: Collector,
    *,
    settled: bool,
) -> None:
    """The lints, and the comments that silence nothing; of these only with params as the spec has them (`settled`)."""
    from brewgraph.lints import Subject, lint

    def count(model: str, feature: str) -> int | None:
        known = facts(recipe.models[model])
        return known.row_length(feature) if known is not None else None

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    collector.diagnostics += list(dict.fromkeys(lint(Subject(recipe, graphs, count, ranks))))
    if settled and not recipe.open:
        check_ignores(collector, recipe.source, _BY_CHANCE)


def _graphs(
    recipe: Recipe,
    facts: FactsOf,
    collector: Collector,
    known: Mapping[str, str],
    own: Mapping[str, str] | None = None,
) -> tuple[dict[tuple[str, str], nx.DiGraph], dict[tuple[str, str], nx.DiGraph]]:
    """The canonical graphs of every task, and of what it reports; none while lists are open.

    `own` are identities of models that are not what their declaration says.
    """
    from brewgraph.graph.build import build_graph, build_reports
    from brewgraph.graph.canonical import canonical, tell_apart

    graphs: dict[tuple[str, str], nx.DiGraph] = {}
    reports: dict[tuple[str, str], nx.DiGraph] = {}
    if has_open_lists(recipe):
        return graphs, reports
    for stage, task in recipe.tasks:
        built = build_graph(recipe, facts, collector, known, task)
        report = build_reports(recipe, facts, collector, known, task)
        if built is not None:
            graphs[stage.name, task.name] = canonical(tell_apart(built, own or {}))
        if report is not None:
            reports[stage.name, task.name] = canonical(tell_apart(report, own or {}))
    return graphs, reports


def reduced(checked: Checked) -> Checked:
    """The same check for the same student without its teachers."""
    from brewgraph.recipe.without_teachers import without_teacher

    return _rebuilt(checked, without_teacher(checked.recipe), {})


def given_models(checked: Checked, given: Mapping[str, object]) -> Checked:
    """The same check where modules given at build take the place of models, by name.

    Models of one declaration stay one only where one object runs for all of them. The hash of the spec, the seeds of
    projections, and all graphs in which no such models meet are as before.
    """
    own: dict[str, str] = {}
    objects: dict[str, list[int]] = {}
    for name in checked.recipe.models:
        alike = objects.setdefault(checked.identities[name], [])
        runs = id(given[name]) if name in given else 0
        if runs not in alike:
            alike.append(runs)
        if position := alike.index(runs):
            own[name] = f"given {position}"
    return _rebuilt(checked, checked.recipe, own) if own else checked


def _rebuilt(checked: Checked, recipe: Recipe, own: Mapping[str, str]) -> Checked:
    """A check with the graphs of another recipe, or of models with identities of their own."""
    collector = Collector()
    written, reports = _graphs(recipe, checked.facts, collector, checked.identities, own)
    collector.raise_errors()
    return replace(
        checked,
        recipe=recipe,
        graphs=_merged(written),
        reports=_merged(reports),
        written=written,
        written_reports=reports,
    )


def read_spec(path: str | Path) -> Source:
    """Read a spec file; a `UsageError` says why it cannot be read, or that this is no path but a spec's text."""
    if not isinstance(path, str | Path):
        raise UsageError(f"a path to a spec is wanted, got a value of the type `{type(path).__name__}`")
    name = str(path)
    if "\n" in name or (set("={") & set(name) and not name.endswith(".brew") and not Path(name).exists()):
        raise UsageError(
            "a path to a spec is wanted, got the text of one: `bg.loads(text)` reads it, or write it to a file"
        )
    try:
        return Source.read(Path(path).expanduser())
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

    def __init__(self, source: Source, parents: tuple[Path, ...], collector: Collector, known: _Known):
        self.source, self.parents, self.collector, self.known = source, parents, collector, known
        self.checked: dict[str, Checked] = {}

    def facts(self, model: ModelDeclaration) -> UnbuiltModelFacts:
        from brewgraph.diagnostics import SourceFault

        other = self._check(model)
        found = other.facts(other.recipe.student)
        if found is None and isinstance(other.recipe.student.source, Python):
            message = f"nothing is known of the student of `{other.recipe.source.name}` before it is loaded"
            raise SourceFault("B321", message, field="path", help="its source has to be hf(…) or brew(…)")
        if found is None:
            message = f"the student of `{other.recipe.source.name}` cannot be reached"
            help = "connect to the hub, or let that spec name a local folder"
            raise SourceFault("B311", message, field="path", help=help)
        return found

    def hash(self, model: ModelDeclaration) -> str:
        if self.collector.failed:  # of a spec at fault nothing is made that could have a hash
            return ""
        return self._check(model).spec_hash

    def _check(self, model: ModelDeclaration) -> Checked:
        """Check the spec that `brew(...)` names. Its own faults are raised as they are, with their own places."""
        if model.name not in self.checked:
            self.checked[model.name] = self._read(model)
        return self.checked[model.name]

    def _read(self, model: ModelDeclaration) -> Checked:
        from brewgraph.diagnostics import SourceFault

        assert isinstance(model.source, Brew)
        path = locate(model.source.path, self.source.folder, "path")
        if path.resolve() in self.parents:
            circle = " -> ".join(p.name for p in (*self.parents, path.resolve()))
            raise SourceFault(
                "B322", f"specs build on each other in a circle: {circle}", field="path", help="break the circle"
            )
        try:
            other = read_spec(path)
        except UsageError as error:
            help = "paths start at this spec's folder"
            if (path / "student").is_dir():
                help = f'the student of a run is a model: `hf("{model.source.path}/student")`'
            raise SourceFault("B321", str(error), field="path", help=help) from error
        key = (other, tuple(sorted(model.source.params.items())), self.parents)
        if key not in self.known:
            self.known[key] = _check(other, dict(model.source.params), self.parents, self.known)
        return self.known[key]
