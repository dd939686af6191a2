"""The parameters of whatever a user names: a model's folder or hub name, a run, the models of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import Diagnostic, RunError, SourceFault, UsageError, listing, suggest
from brewgraph.models.blueprint import read_config
from brewgraph.models.parameters import ParameterNode, configured_model, parameter_tree, saved_tree
from brewgraph.project.check import check
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder


def model_parameters(target: str, revision: str | None = None) -> tuple[ParameterNode, ...]:
    """The tree of a model in a folder or on the hub, or of a run's student: one tree for each of its heads.

    The configuration suffices; only of a folder without one is the header of its weights read. UsageError where there
    is no such model.
    """
    folder = Path(target).expanduser()
    if not folder.is_dir():
        return (_of_config(target, target, revision),)
    if (folder / "resolved.json").is_file():
        folder = RunFolder(folder).student
        if not folder.is_dir():
            raise UsageError(f"the run in `{target}` is not finished: give its `brewgraph run` again to go on with it")
    if (folder / "config.json").is_file():
        return (_of_config(str(folder), str(folder), None),)
    if (folder / "model.safetensors").is_file():
        return (saved_tree(folder / "model.safetensors", str(folder)),)
    heads = sorted(path for path in folder.iterdir() if (path / "config.json").is_file())
    if not heads:
        raise UsageError(f"the folder `{target}` holds no model: it needs config.json or model.safetensors")
    return tuple(_of_config(str(head), str(head), None) for head in heads)


def _of_config(name: str, title: str, revision: str | None) -> ParameterNode:
    try:
        model = configured_model(read_config(name, revision))
    except SourceFault as fault:
        raise UsageError(str(fault)) from fault
    return parameter_tree(model, f"{title} ({type(model).__name__})")


def spec_parameters(
    source: Source, params: Mapping[str, Any], name: str | None = None
) -> tuple[tuple[ParameterNode, ...], tuple[Diagnostic, ...]]:
    """The trees of a spec's models, or of the one that is named, and what the check warned of.

    Raises `SpecError` for a spec at fault, `UsageError` for a name that it lacks, `RunError` where nothing is known of
    any of them before it is loaded.
    """
    checked = check(source, params)
    models = checked.recipe.models
    if name is not None and name not in models:
        raise UsageError(f"there is no model `{name}`: {suggest(name, models) or f'the spec has {listing(models)}'}")
    trees = []
    for model in models.values() if name is None else [models[name]]:
        facts = checked.facts(model)
        if facts is not None:
            built = facts.shapes.model
            trees.append(parameter_tree(built, f"{model.role} {model.name} ({type(built).__name__})"))
    if not trees:
        what = f"`{name}`" if name is not None else "the models"
        raise RunError(f"nothing is known of {what} before the weights are loaded: name a folder or a configuration")
    return tuple(trees), checked.warnings
