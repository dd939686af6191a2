"""What the worker tells of a checked spec: the shapes, terms and models of `facts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from brewgraph.checking.check import Checked, check, read_spec
from brewgraph.diagnostics import BrewError
from brewgraph.display.equation import spell_out
from brewgraph.editor.facts import ModelFact, ShapeFact, TermFact
from brewgraph.facts.memory import Memory
from brewgraph.facts.models import Request, UnbuiltModelFacts
from brewgraph.graph import nodes as n
from brewgraph.graph.container import node
from brewgraph.models.structure.anatomy import show, taps_of
from brewgraph.paths import locate
from brewgraph.recipe.evaluate.elaborate import elaborate_models
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.model_sources import Hf
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.source import Source
from brewgraph.syntax import tree as t


def shapes_of(checked: Checked, source: Source) -> Iterator[ShapeFact]:
    """The shapes of features, and the widths of projections, at their places in this text."""
    at: dict[tuple[int, int], dict[str, None]] = {}
    for graph in (*checked.unmerged.values(), *checked.unmerged_reports.values()):
        for key in graph:
            match x := node(graph, key):
                case n.Tap() | n.Transform() if x.shape is not None:
                    text = n.show_shape(x.shape)
                case n.Projection() if x.into and x.out:
                    text = f"{x.into} -> {x.out}"
                case _:
                    continue
            if x.span.source.name == source.name and x.span.end > x.span.start:
                at.setdefault((x.span.start, x.span.end), {})[text] = None
    for (start, end), texts in sorted(at.items()):
        yield ShapeFact(start, end, " or ".join(texts))


def terms_of(checked: Checked, source: Source) -> Iterator[TermFact]:
    """The terms of all losses whose names stand in this text. One of several tasks is named for each."""
    for graph in checked.graphs.values():
        for term in spell_out(graph):
            for name in term.names:
                place = checked.recipe.places.get(name.partition("[")[0])
                if place is not None and place.source.name == source.name:
                    yield TermFact(name, place.end, term.weight, term.unit, term.mask)


def models_of(checked: Checked) -> Mapping[str, ModelFact]:
    """The models of which something is known before they are loaded."""
    return _described({name: partial(checked.facts, model) for name, model in checked.recipe.models.items()})


def models_alone(spec: t.Spec, source: Source) -> Mapping[str, ModelFact]:
    """The models of a spec that is at fault, each by itself."""
    models = elaborate_models(spec, source)
    return _described({name: partial(_facts_alone, model, source) for name, model in models.items()})


def _facts_alone(model: ModelDeclaration, source: Source) -> UnbuiltModelFacts | None:
    if isinstance(model.source, Hf):
        request = Request(model.source, model.role, source.folder, frozenset([Feature("logits")]))
        return UnbuiltModelFacts(request, Memory.of_user())
    if model.source.spec is None:
        return None
    other = check(read_spec(locate(model.source.spec, source.folder)), model.source.spec_params)
    return other.facts(other.recipe.student)


def _described(models: Mapping[str, Callable[[], UnbuiltModelFacts | None]]) -> Mapping[str, ModelFact]:
    described = {}
    for name, facts_of in models.items():
        try:
            if (facts := facts_of()) is None:
                continue
            taps = taps_of(facts.feature_table, name, collapse=False)
            modules = ((m.path, m.kind, show(m.gives[0])) for m in taps.modules if m.calls and m.can_run)
            features = ((row.name, row.count, row.shape) for row in taps.features if not row.lacking)
            described[name] = ModelFact(taps.kind, taps.base, facts.parameters, tuple(features), tuple(modules))
        except BrewError:
            continue
    return described
