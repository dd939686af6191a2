"""`batches("folder", …)` as a spec says it, to its settings."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from brewgraph.diagnostics import Collector, Diagnostic
from brewgraph.recipe.evaluate.declare import configure
from brewgraph.recipe.evaluate.expressions import Evaluator
from brewgraph.recipe.settings.data_sources import Batches
from brewgraph.recipe.values import Faulty
from brewgraph.source import Source
from brewgraph.syntax import tree as t
from brewgraph.syntax.parser import parse


def read(arguments: str) -> tuple[Batches | None, tuple[Diagnostic, ...]]:
    """What `batches(arguments)` gives, and the faults."""
    collector = Collector()
    source = Source(f"brew 1\ndata d = batches({arguments})\n")
    (data,) = [s for s in parse(source, collector).statements if isinstance(s, t.Data)]
    assert isinstance(data.source, t.Call)
    evaluator = Evaluator(source, collector)
    evaluate = lambda settings, key, value: evaluator.evaluate(value)  # noqa: E731
    made: Batches | None = None
    with suppress(Faulty):
        made, _ = configure(evaluator, data.source, {"batches": Batches}, "data source", evaluate)
    return made, tuple(collector.sorted())


@pytest.mark.parametrize(
    ("arguments", "settings", "label_type"),
    [
        ('"ready"', {"folder": "ready"}, "class"),
        ('"ready", shuffle=true', {"folder": "ready", "shuffle": True}, "class"),
        ('"ready", labels="tags"', {"folder": "ready", "labels": "tags"}, "tags"),
        ('"ready", labels=none', {"folder": "ready", "labels": None}, ""),
        ('folder="ready", first=2, last=3', {"folder": "ready", "first": 2, "last": 3}, "class"),
    ],
)
def test_settings(arguments: str, settings: dict[str, Any], label_type: str) -> None:
    """By place and by name; the label type follows from `labels`."""
    made, faults = read(arguments)
    assert faults == ()
    assert made == Batches(**settings)
    assert made.label_type == label_type


@pytest.mark.parametrize(
    ("arguments", "place", "message", "help"),
    [
        ("shuffle=true", "batches(shuffle=true)", "needs `folder`", "add folder=…"),
        ('"ready", labels="clas"', '"clas"', "`labels` cannot be `clas`", "did you mean `class`?"),
        ('"ready", first=-1', "-1", "greater than or equal to 0", "the first batch to train on"),
        ('"ready", first=3, last=1', 'batches("ready", first=3, last=1)', "from batch 3 to batch 1", "correct one"),
    ],
)
def test_faults(arguments: str, place: str, message: str, help: str) -> None:
    """One each, at its place, with its remedy."""
    made, (found,) = read(arguments)
    assert made is None
    assert (found.code, found.span.text) == ("B122", place)
    assert message in found.message
    assert help in found.help
