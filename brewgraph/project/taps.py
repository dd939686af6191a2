"""What can be tapped of whatever a user names: a model's folder or hub name, a run, the models of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brewgraph.diagnostics import Diagnostic, SourceFault, UsageError
from brewgraph.models.shapes import Shapes
from brewgraph.models.taps import Taps, taps_of
from brewgraph.project.named import named_folders, named_model, spec_models
from brewgraph.project.written import written_model
from brewgraph.source import Source, is_call


def model_taps(target: str, *, collapse: bool = True, path: str | None = None) -> tuple[Taps, ...]:
    """What a model in a folder or on the hub offers, or a run's student: one for each of its heads, by its
    configuration alone; or what a call like `hf("folder", num_hidden_layers=3)` makes.

    UsageError where there is no such model, or it does not run; `SpecError` for a call at fault.
    """
    if is_call(target):
        title, shapes = written_model(target)
        return (_taps(shapes, title, collapse, path),)
    return tuple(_taps(Shapes(named_model(name)), name, collapse, path) for name in named_folders(target))


def spec_taps(
    source: Source,
    params: Mapping[str, Any],
    name: str | None = None,
    *,
    collapse: bool = True,
    path: str | None = None,
) -> tuple[tuple[Taps, ...], tuple[Diagnostic, ...]]:
    """What a spec's models offer, or the one that is named, and what the check warned of.

    Raises `SpecError` for a spec at fault, `UsageError` for a name that it lacks or a model that does not run,
    `RunError` where nothing is known of any of them before it is loaded.
    """
    found, warnings = spec_models(source, params, name)
    return tuple(_taps(shapes, title, collapse, path) for title, shapes in found.items()), warnings


def _taps(shapes: Shapes, title: str, collapse: bool, path: str | None) -> Taps:
    try:
        return taps_of(shapes, title, collapse=collapse, path=path)
    except SourceFault as fault:
        raise UsageError(str(fault)) from fault
