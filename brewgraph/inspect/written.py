"""A model that a user writes down where a name may stand, as a spec would: `hf("folder", num_hidden_layers=3)`."""

from __future__ import annotations

from pathlib import Path

from brewgraph.diagnostics import Collector, SourceFault, UsageError
from brewgraph.facts.memory import Memory
from brewgraph.facts.model import Request, UnbuiltModelFacts
from brewgraph.recipe.evaluate.elaborate import elaborate_model
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.sources import Hf
from brewgraph.source import Source
from brewgraph.syntax.parser import parse


def written_model(call: str) -> tuple[str, UnbuiltModelFacts]:
    """The call on one line, and what is known of the model that it makes; of which head follows from `task=`, else from
    the checkpoint, as where its logits are taken. Relative folders start at the working directory.

    Raises `SpecError` for a call that a spec could not have, with its place, and `UsageError` for a source that has no
    configuration of its own.
    """
    source, collector = Source(f"teacher model = {call.strip()}\n", "<the command>"), Collector()
    spec = parse(source, collector)
    collector.raise_errors()
    if len(spec.statements) != 1:
        raise UsageError('one model is asked for: `hf("folder")`')
    model = elaborate_model(spec, source, collector)
    collector.raise_errors()
    if model is None or not isinstance(model.source, Hf):
        raise UsageError("only `hf(…)` and `bigru(…)` say themselves what a model is made of; of a spec, name its file")
    logits = frozenset([Feature("logits")])
    request = Request(model.source, model.role, Path("."), logits, classes=(), inherited=None, label_types=(), heads=())
    facts = UnbuiltModelFacts(request, Memory.of_user())
    try:
        _ = facts.outline, facts.feature_table
    except SourceFault as fault:
        collector.add(fault.code, fault.message, model.place(fault.field), help=fault.help)
        collector.raise_errors()
        raise
    return " ".join(call.split()), facts
