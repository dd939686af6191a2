"""The parameters of whatever a user names: a model's folder or hub name, a run, the models of a spec."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from brewgraph.checking.check import Checked
from brewgraph.inspect.targets import named_folders, named_model, spec_models
from brewgraph.inspect.written import written_model
from brewgraph.models.fake.parameter_tree import ParameterNode, parameter_tree, saved_tree
from brewgraph.source import is_call


def model_parameters(target: str, revision: str | None = None) -> tuple[ParameterNode, ...]:
    """The tree of a model in a folder or on the hub, or of a run's student: one tree for each of its heads.

    The configuration suffices; only of a folder without one is the header of its weights read. It may also be a call
    like `hf("folder", num_hidden_layers=3)`. UsageError where there is no such model, `SpecError` for a call at fault.
    """
    if is_call(target):
        title, facts = written_model(target)
        return (_titled(facts.shapes.model, title),)
    return tuple(_tree(name, revision if name == target else None) for name in named_folders(target))


def _tree(name: str, revision: str | None) -> ParameterNode:
    weights = Path(name) / "model.safetensors"
    if weights.is_file() and not (weights.parent / "config.json").is_file():
        return saved_tree(weights, name)
    return _titled(named_model(name, revision), name)


def _titled(model: nn.Module, title: str) -> ParameterNode:
    return parameter_tree(model, f"{title} ({type(model).__name__})")


def spec_parameters(checked: Checked, name: str | None = None) -> tuple[ParameterNode, ...]:
    """The trees of a spec's models, or of the one that is named. Raises as `spec_models`."""
    return tuple(_titled(facts.shapes.model, title) for title, facts in spec_models(checked, name).items())
