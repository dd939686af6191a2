"""Whether what a spec is built from is what was checked: modules of the caller's own, and folders of models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import SourceFault, UsageError
from brewgraph.facts.book import is_local
from brewgraph.facts.model import UnbuiltModelFacts
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import node
from brewgraph.models.fake.shapes import Shapes
from brewgraph.models.structure.read_class import dissect
from brewgraph.paths import shown
from brewgraph.recipe.features import Feature, Shape


def check_given(checked: Checked, given: Mapping[str, nn.Module]) -> None:
    """A teacher of the caller's is not the student, and each module gives the features that the spec takes as the
    declared model does: as many, and of the same shapes.

    Raises `UsageError`. A model that is `python(…)` may be anything, and shapes that a run on fake tensors does not
    find are not compared.
    """
    student = checked.recipe.student.name
    for name, module in given.items():
        if not isinstance(module, nn.Module):
            raise UsageError(_not_a_module(name, module))
        if name != student and module is given.get(student):
            raise UsageError(
                f"`{name}` and the student `{student}` are given the same module, which would be frozen: give a copy "
                "(`copy.deepcopy`)"
            )
        if (facts := checked.facts(checked.recipe.models[name])) is not None:
            graphs = (*checked.graphs.values(), *checked.reports.values())
            taps = (x for graph in graphs for key in graph if isinstance(x := node(graph, key), n.Tap))
            _check_features(name, module, facts, {x.feature for x in taps if x.model == name})


def _not_a_module(name: str, given: Any) -> str:
    """What is wrong with an object that is given for a model, and what is meant instead."""
    message = f"`{name}={shown(repr(given))}` is given as the model `{name}`, and is no `torch.nn.Module`"
    if isinstance(given, type) and issubclass(given, nn.Module):
        return f"{message} but the class of one: give an object, `{name}={given.__name__}(…)`"
    if isinstance(given, str | Path):
        load = f'{name}=AutoModelForSequenceClassification.from_pretrained("{given}")'
        return f'{message}: load it, as `{load}`, or name the folder in the spec: {name} = hf("{given}")'
    return f"{message}: give a model of your own, as `{name}=my_model`, or leave it out"


def _check_features(name: str, module: nn.Module, facts: UnbuiltModelFacts, features: Collection[Feature]) -> None:
    for row in sorted({x.name for x in features if x.index is not None}):
        try:
            declared, own = facts.row_length(row), dissect(module).row_length(row)
        except SourceFault as fault:
            help = f" ({fault.help})" if fault.help else ""
            raise UsageError(f"the module given for `{name}` does not do: {fault.message}{help}") from fault
        if declared != own:
            raise UsageError(
                f"`{name}` is declared with {declared} members of `{row}`, and the module given for it has {own}: the "
                "layers that the spec names are not the same. Declare the model as it is, or give a module of the "
                "declared depth"
            )
    shapes = Shapes(module).infer(sorted(features, key=str)) if features else {}
    for feature, shape in shapes.items():
        if isinstance(shape, SourceFault):
            continue
        try:
            declared_shape = facts.shape(feature)
        except SourceFault:
            continue
        if feature.name == "logits" and facts.vocabulary(feature.head) is not None:
            # a vocabulary is as large as the tokenizer that the module comes with
            shape, declared_shape = shape[:-1], declared_shape[:-1]
        if shape != declared_shape:
            raise UsageError(
                f"`{name}` is declared with `{feature}` of shape {_shown(declared_shape)}, and the module given for it "
                f"(`{type(module).__name__}`) gives {_shown(shape)}. Declare the model as it is, or give a module of "
                "the declared sizes"
            )


def _shown(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"


def check_unchanged(checked: Checked, given: Collection[str]) -> None:
    """Local folders of models that are still to be loaded describe them as they did when the spec was checked.

    Raises `UsageError`. Weights may be others: the check has read none, and caches go by those that are loaded.
    """
    for name, model in checked.recipe.models.items():
        facts = checked.facts(model) if name not in given and is_local(model, checked.folder) else None
        if facts is not None and replace(facts.request).identity != facts.request.identity:
            raise UsageError(
                f"the configuration or the tokenizer in the folder of `{name}` has changed since the spec was loaded: "
                "load the spec again (`bg.load`)"
            )
