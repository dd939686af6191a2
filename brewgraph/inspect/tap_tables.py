"""What can be tapped of whatever a user names: a model's folder or hub name, a run, the models of a spec."""

from __future__ import annotations

from brewgraph.checking.check import Checked
from brewgraph.diagnostics import SourceFault, UsageError
from brewgraph.facts.memory import Memory, print_of_model
from brewgraph.inspect.targets import named_folders, named_model, spec_models
from brewgraph.inspect.written import written_model
from brewgraph.models.structure.feature_table import FeatureRecord, FeatureTable, Recorded
from brewgraph.models.structure.tap_list import Taps, taps_of
from brewgraph.source import is_call


def model_taps(target: str, *, collapse: bool = True, path: str | None = None) -> tuple[Taps, ...]:
    """What a model in a folder or on the hub offers, or a run's student: one for each of its heads, by its
    configuration alone; or what a call like `hf("folder", num_hidden_layers=3)` makes.

    UsageError where there is no such model, or it does not run; `SpecError` for a call at fault.
    """
    if is_call(target):
        title, facts = written_model(target)
        return (_taps(facts.feature_table, title, collapse, path),)
    return tuple(_taps(_chart(name), name, collapse, path) for name in named_folders(target))


def _chart(name: str) -> FeatureTable:
    """The feature table of the model that a folder or hub name stands for, from memory where it is there."""

    def find() -> FeatureRecord:
        from brewgraph.models.fake.shapes import Shapes

        return Shapes(named_model(name)).record()

    return Recorded(Memory.of_user().recall(print_of_model(name), FeatureRecord, find))


def spec_taps(
    checked: Checked, name: str | None = None, *, collapse: bool = True, path: str | None = None
) -> tuple[Taps, ...]:
    """What a spec's models offer, or the one that is named. Raises as `spec_models`, and `UsageError` for a model that
    does not run.
    """
    found = spec_models(checked, name)
    return tuple(_taps(facts.feature_table, title, collapse, path) for title, facts in found.items())


def _taps(feature_table: FeatureTable, title: str, collapse: bool, path: str | None) -> Taps:
    try:
        return taps_of(feature_table, title, collapse=collapse, path=path)
    except SourceFault as fault:
        raise UsageError(str(fault)) from fault
