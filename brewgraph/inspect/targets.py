"""Parameters and taps of the models that a user names: a folder, hub name, run, spec or call. No weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import Collector, RunError, SourceFault, UsageError, listing, suggest
from brewgraph.facts.memory import Memory, print_of_model
from brewgraph.facts.models import Request, UnbuiltModelFacts
from brewgraph.models.structure.anatomy import FeatureRecord, FeatureTable, Recorded, Taps, taps_of
from brewgraph.recipe.evaluate.elaborate import elaborate_model
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.model_sources import Hf
from brewgraph.source import Source, is_call
from brewgraph.syntax.parser import parse
from brewgraph.training.folder import named_run

if TYPE_CHECKING:
    from torch import nn

    from brewgraph.models.fake.parameter_tree import ParameterNode


def named_folders(target: str) -> tuple[str, ...]:
    """The folders or hub names of the models that `target` means: its own, that of a run's student, or one for each of
    the student's heads. Raises `UsageError` if there is none.
    """
    run = named_run(target)
    folder = run.path
    if not folder.is_dir():
        return (target,)
    if run.whole.resolved is not None:
        folder = run.student
        if not folder.is_dir():
            raise UsageError(f"the run in `{target}` is not finished: repeat its `brewgraph run` command to resume it")
    if any((folder / name).is_file() for name in ("config.json", "model.safetensors")):
        return (str(folder),)
    heads = sorted(path for path in folder.iterdir() if (path / "config.json").is_file())
    if not heads:
        raise UsageError(f"the folder `{target}` holds no model: it needs config.json or model.safetensors")
    return tuple(map(str, heads))


@dataclass(frozen=True)
class NamedModel:
    """The model in a folder or on the hub, from its configuration. Raises `UsageError` if there is none."""

    name: str

    @property
    def module(self) -> nn.Module:
        """The model on fake tensors."""
        from brewgraph.models.description import read_config
        from brewgraph.models.fake.parameter_tree import configured_model

        try:
            return configured_model(read_config(self.name))
        except SourceFault as fault:
            raise UsageError(str(fault)) from fault

    @property
    def feature_table(self) -> FeatureTable:
        """The feature table, from memory if possible."""

        def find() -> FeatureRecord:
            from brewgraph.models.fake.shapes import Shapes

            return Shapes(self.module).record()

        return Recorded(Memory.of_user().recall(print_of_model(self.name), FeatureRecord, find))


Models = Mapping[str, NamedModel | UnbuiltModelFacts]
"""Models that a user names, by their titles."""


def target_models(target: str) -> Models:
    """The model in a folder, on the hub, or of a call like `hf("folder", num_hidden_layers=3)`; of a run's student one
    for each head. Raises `UsageError` if there is no such model, `SpecError` for a faulty call.
    """
    if is_call(target):
        return model_of_call(target)
    return {name: NamedModel(name) for name in named_folders(target)}


def spec_models(checked: Checked, name: str | None = None) -> Models:
    """The facts of a spec's models, or of the named one, by titles such as `teacher bert`.

    Raises `UsageError` for an unknown name, `RunError` if nothing is known of any of them before loading.
    """
    models = checked.recipe.models
    if name is not None and name not in models:
        raise UsageError(f"there is no model `{name}`: {suggest(name, models) or f'the spec has {listing(models)}'}")
    chosen = models.values() if name is None else [models[name]]
    known = {f"{m.role} {m.name}": facts for m in chosen if (facts := checked.facts(m)) is not None}
    if not known:
        what = f"`{name}`" if name is not None else "the models"
        raise RunError(f"nothing is known of {what} before the weights are loaded: name a folder or a configuration")
    return known


def model_of_call(call: str) -> Models:
    """The facts of the model that a call such as `hf("folder", num_hidden_layers=3)` makes, titled by that call.

    Its head follows from `task=`, else from the checkpoint. Relative folders start at the working directory. Raises
    `SpecError` for a call that is wrong in a spec, `UsageError` for a source without a configuration of its own.
    """
    source, collector = Source(f"teacher model = {call.strip()}\n", "<the command>"), Collector()
    spec = parse(source, collector)
    collector.raise_errors()
    if len(spec.statements) != 1:
        raise UsageError('expected one model: `hf("folder")`')
    model = elaborate_model(spec, source, collector)
    collector.raise_errors()
    if model is None or not isinstance(model.source, Hf):
        raise UsageError("only `hf(…)` and `bigru(…)` define a model by themselves; for a spec, name its file")
    logits = frozenset([Feature("logits")])
    request = Request(model.source, model.role, Path("."), logits)
    facts = UnbuiltModelFacts(request, Memory.of_user())
    try:
        _ = facts.outline, facts.feature_table
    except SourceFault as fault:
        collector.add(fault.code, fault.message, model.place(fault.field), help=fault.help)
        collector.raise_errors()
        raise
    return {" ".join(call.split()): facts}


def parameter_trees(models: Models) -> tuple[ParameterNode, ...]:
    """The parameter tree of each model; of a folder without a configuration from the header of its weights."""
    from brewgraph.models.fake.parameter_tree import parameter_tree, saved_tree

    trees = []
    for title, model in models.items():
        weights = Path(title) / "model.safetensors"
        if isinstance(model, NamedModel) and weights.is_file() and not weights.with_name("config.json").is_file():
            trees.append(saved_tree(weights, title))
        else:
            module = model.module if isinstance(model, NamedModel) else model.shapes.model
            trees.append(parameter_tree(module, f"{title} ({type(module).__name__})"))
    return tuple(trees)


def tap_tables(models: Models, *, collapse: bool = True, path: str | None = None) -> tuple[Taps, ...]:
    """The taps of each model. Raises `UsageError` for one that does not run."""
    tables = {title: model.feature_table for title, model in models.items()}
    try:
        return tuple(taps_of(table, title, collapse=collapse, path=path) for title, table in tables.items())
    except SourceFault as fault:
        raise UsageError(str(fault)) from fault
