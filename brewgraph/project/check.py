"""Text to a checked recipe and its graph. Names and kinds first, which needs no torch; then models and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewgraph.diagnostics import Collector, Diagnostic, SpecError, UsageError
from brewgraph.recipe.elaborate import Recipe, elaborate
from brewgraph.recipe.sources import Brew, Hf
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.source import Source
from brewgraph.syntax.parser import parse

if TYPE_CHECKING:
    import networkx as nx

    from brewgraph.project.facts import BlueprintFacts, FactsBook


@dataclass(frozen=True)
class Checked:
    """A sound spec. `graph` is the optimized graph, None where a model that cannot be reached leaves lists open."""

    recipe: Recipe
    graph: nx.DiGraph | None
    facts: FactsBook
    classes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    parents: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        return self.recipe.source.folder

    @property
    def spec_hash(self) -> str:
        """What the spec computes and how it trains, whatever things are called."""
        from brewgraph.graph.passes import digest

        quiet = {"logging_steps", "save_steps", "save_total_limit", "baseline"}
        settings = self.recipe.train.model_dump(exclude=quiet)
        objective = self.graph.graph["objective"] if self.graph is not None else ""
        batches = [data.source.batch for data in self.recipe.data.values()]
        return digest(objective, repr(sorted(settings.items(), key=lambda kv: kv[0])), batches, self.classes)


def check_names(source: Source, params: Mapping[str, Any]) -> Recipe:
    """Syntax, names and kinds: everything that needs no model. Raises `SpecError` with all faults that were found."""
    collector = Collector()
    spec = parse(source, collector)
    if not collector.failed:
        recipe = elaborate(spec, source, params, collector)
        collector.raise_errors()
        assert recipe is not None
        return recipe
    elaborate_sound_part(spec, source, params, collector)
    raise SpecError(collector.sorted())


def elaborate_sound_part(spec: Any, source: Source, params: Mapping[str, Any], collector: Collector) -> None:
    """Faults of names in the statements that parsed, but none that the lost statements may have caused."""
    second = Collector()
    elaborate(spec, source, params, second)
    caused = {"B101", "B106", "B107"}
    collector.diagnostics += [d for d in second.diagnostics if d.code not in caused]


def check(source: Source, params: Mapping[str, Any] | None = None, parents: tuple[Path, ...] = ()) -> Checked:
    """Check a spec against its models and data, before any weight is loaded. Raises `SpecError`."""
    if not parents:
        _checked.clear()  # files may have changed since the last check
    first = check_names(source, params or {})
    from brewgraph.graph.build import build_graph
    from brewgraph.graph.passes import optimize
    from brewgraph.project.facts import FactsBook, identities

    collector = Collector()
    path = Path(source.name).resolve()
    others = _OtherSpecs(source, (*parents, path), collector)
    classes = _classes(first, source, collector)
    collector.raise_errors()
    facts = FactsBook(first, source.folder, classes, collector, others.facts)
    for model in first.models.values():
        facts(model)
    collector.raise_errors()
    recipe = elaborate(parse(source, collector), source, params or {}, collector, facts)
    collector.raise_errors()
    assert recipe is not None
    _check_teachers(recipe, collector)
    _check_lengths(recipe, facts, collector)
    _check_classes(recipe, facts, classes, collector)
    known = identities(recipe, others.hash)
    graph = None
    if not _has_open_lists(recipe):
        built = build_graph(recipe, facts, collector, known)
        collector.raise_errors()
        graph = optimize(built) if built is not None else None
    collector.raise_errors()
    return Checked(recipe, graph, facts, classes, collector.warnings, (*parents, path))


def reduced(checked: Checked) -> Checked:
    """The same check for the same student without its teachers."""
    from dataclasses import replace

    from brewgraph.graph.build import build_graph
    from brewgraph.graph.passes import optimize
    from brewgraph.project.facts import identities
    from brewgraph.recipe.reduce import without_teacher

    recipe = without_teacher(checked.recipe)
    others = _OtherSpecs(recipe.source, checked.parents, checked.facts.collector)
    known = identities(checked.recipe, others.hash)
    graph = build_graph(recipe, checked.facts, checked.facts.collector, known)
    assert graph is not None
    return replace(checked, recipe=recipe, graph=optimize(graph))


def read_spec(path: str | Path) -> Source:
    """Read a spec file; a `UsageError` says why it cannot be read."""
    try:
        return Source.read(path)
    except FileNotFoundError as error:
        near = sorted(p.name for p in Path(path).parent.glob("*.brew"))[:5] if Path(path).parent.is_dir() else []
        more = f"; that folder has {', '.join(near)}" if near else ""
        raise UsageError(f"there is no file `{path}`{more}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"`{path}` is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror}") from error


class _OtherSpecs:
    """Answers for `brew("other.brew")`: the other spec is checked, never trained here."""

    def __init__(self, source: Source, parents: tuple[Path, ...], collector: Collector):
        self.source, self.parents, self.collector = source, parents, collector

    def facts(self, model: ModelDeclaration) -> BlueprintFacts:
        from brewgraph.diagnostics import SourceFault

        other = check_other(model, self.source, self.parents)
        found = other.facts(other.recipe.student)
        if found is None:
            message = f"nothing is known of the student of `{other.recipe.source.name}` before it is loaded"
            raise SourceFault("B321", message, field="path", help="its source has to be hf(…) or brew(…)")
        return found

    def hash(self, model: ModelDeclaration) -> str:
        return check_other(model, self.source, self.parents).spec_hash


def check_other(model: ModelDeclaration, source: Source, parents: tuple[Path, ...]) -> Checked:
    """Check the spec that `brew(...)` names. Its own faults are raised as they are, with their own places."""
    from brewgraph.diagnostics import SourceFault

    assert isinstance(model.source, Brew)
    path = source.folder / model.source.path
    if path.resolve() in parents:
        circle = " -> ".join(p.name for p in (*parents, path.resolve()))
        raise SourceFault(
            "B322", f"specs build on each other in a circle: {circle}", field="path", help="break the circle"
        )
    try:
        other = read_spec(path)
    except UsageError as error:
        raise SourceFault("B321", str(error), field="path", help="paths start at this spec's folder") from error
    return _check_cached(other, tuple(sorted(model.source.params.items())), parents)


_checked: dict[Any, Checked] = {}


def _check_cached(source: Source, params: tuple[tuple[str, Any], ...], parents: tuple[Path, ...]) -> Checked:
    key = (source, params, parents)
    if key not in _checked:
        _checked[key] = check(source, dict(params), parents)
    return _checked[key]


def _classes(recipe: Recipe, source: Source, collector: Collector) -> tuple[str, ...]:
    from brewgraph.data.examples import facts
    from brewgraph.diagnostics import SourceFault

    found: tuple[str, ...] = ()
    for data in recipe.data.values():
        try:
            found = facts(data.source, source.folder).classes
        except SourceFault as fault:
            if fault.code == "B405":
                help = f"{fault.help}; until then classes and columns are not checked"
                collector.add("W401", fault.message, data.place(fault.field), help=help)
            else:
                collector.add(fault.code, fault.message, data.place(fault.field), help=fault.help)
    return found


def _check_lengths(recipe: Recipe, facts: FactsBook, collector: Collector) -> None:
    for data in recipe.data.values():
        for model in recipe.models.values():
            known = facts(model)
            limit = getattr(known.blueprint.config, "max_position_embeddings", None) if known else None
            wanted = data.source.max_length
            if wanted and isinstance(limit, int) and 0 < limit < wanted:
                message = f"`{model.name}` has {limit} positions, fewer than this many tokens"
                collector.add(
                    "B320",
                    message,
                    data.place("max_length"),
                    help=f"max_length={limit}, or a model with more positions",
                )


def _check_teachers(recipe: Recipe, collector: Collector) -> None:
    """A teacher is never trained: one that begins at random teaches noise. Legal, for some experiments want it."""
    for model in recipe.teachers:
        source = model.source
        if isinstance(source, Hf) and (source.name is None or not source.pretrained):
            message = f"the teacher `{model.name}` keeps random weights: teachers are never trained"
            help = 'name a trained model, or train it by a spec of its own: brew("teacher.brew")'
            collector.add("W302", message, model.span, help=help)


def _check_classes(recipe: Recipe, facts: FactsBook, classes: tuple[str, ...], collector: Collector) -> None:
    """Labels must lie inside the classes of every model whose logits they are compared with, in the same order; so must
    the classes of two models whose logits are compared."""
    from brewgraph.recipe import values as v

    def labels(x: v.Value) -> tuple[str, tuple[str, ...]]:
        take = next((t for t in v.walk(x) if isinstance(t, v.Take) and t.kind == "logits"), None)
        known = facts(recipe.models[take.model]) if take is not None else None
        return (take.model, known.labels) if take is not None and known is not None else ("", ())

    for equation in (*recipe.equations.values(), recipe.loss):
        for member in v.members(equation):
            for x in v.walk(member):
                if not isinstance(x, v.Apply):
                    continue
                (one, ones), (other, others) = labels(x.source), labels(x.target)
                if ones != others and set(ones) == set(others):
                    message = f"the classes of `{one}` stand in another order than those of `{other}`"
                    help = (
                        f"`{one}`: {', '.join(ones[:6])}; `{other}`: {', '.join(others[:6])}: labels=[…] sets an order"
                    )
                    collector.add("B324", message, x.span, help=help)
                if not isinstance(x.source, v.Labels):
                    continue
                for take in (t for t in v.walk(x.target) if isinstance(t, v.Take) and t.kind == "logits"):
                    known = facts(recipe.models[take.model])
                    own = known.labels if known else ()
                    if own and classes and len(classes) > len(own):
                        message = f"the data has {len(classes)} classes, `{take.model}` only {len(own)}"
                        collector.add(
                            "B323",
                            message,
                            x.span,
                            help=f"the data's are {', '.join(classes[:12])}; give the model as many: labels=[…]",
                        )
                    elif own and classes and own != classes and set(own) == set(classes):
                        message = f"the classes of the data stand in another order than those of `{take.model}`"
                        help = f"the model's: {', '.join(own[:6])}; the data's: {', '.join(classes[:6])}: use one order"
                        collector.add("B324", message, x.span, help=help)


def _has_open_lists(recipe: Recipe) -> bool:
    from brewgraph.recipe import values as v

    def is_open(x: Any) -> bool:
        if isinstance(x, v.Group):
            return x.items is None or any(is_open(i) for i in x.items)
        return isinstance(x, v.Value) and any(isinstance(p, v.Combine) and not p.operands for p in v.walk(x))

    return any(is_open(x) for x in (*recipe.equations.values(), recipe.loss))
