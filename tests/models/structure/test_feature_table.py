"""A model's feature table once it was written down and read again: the same answers as from the model itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter
from transformers import AutoModel, AutoModelForSequenceClassification

from brewgraph.diagnostics import Refusal, SourceFault
from brewgraph.models.fake.shapes import Shapes
from brewgraph.models.structure.anatomy import FeatureRecord, FeatureTable, Recorded
from brewgraph.recipe.features import ROWS, Feature
from tests.models.tiny import SETTINGS, tiny, tiny_config

ADAPTER = TypeAdapter(FeatureRecord)


def kept(shapes: Shapes) -> Recorded:
    """The feature table as it comes back from a file."""
    return Recorded(ADAPTER.validate_json(ADAPTER.dump_json(shapes.record())))


def answers(feature_table: FeatureTable) -> dict[str, Any]:
    """What a feature table says to every question that a spec may ask, faults among it."""
    paths = [*feature_table.anatomy.modules, "nowhere", "encoder.layer.*", "*.*.0", "encoder.layr.0"]
    taps = [Feature("tap", path=p, input=side, item=i) for p in paths for side in (False, True) for i in (None, 0, 1)]
    named = [Feature(row, i) for row in ROWS for i in range(6)]
    once = [Feature(name) for name in ("embeddings", "pooled", "logits", "start", "end")]
    found = {
        str(feature): said(lambda feature=feature: feature_table.shape(feature)) for feature in (*taps, *named, *once)
    }
    found |= {
        f"again {path}": said(lambda path=path: feature_table.shape(Feature("tap", path=path, call=1)))
        for path in paths
    }
    found |= {f"rows {name}": said(lambda name=name: feature_table.row_length(name)) for name in ROWS}
    found |= {f"paths {path}": said(lambda path=path: feature_table.anatomy.paths(path)) for path in paths}
    found |= {
        f"calls {path}": said(lambda path=path: feature_table.calls(feature_table.anatomy.paths(path)))
        for path in paths
    }
    return found | {"call": feature_table.call}


def said(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except SourceFault as fault:
        return Refusal.of(fault)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_record_answers_as_the_model_does(kind: str) -> None:
    """Shapes, rows, paths, calls, and every fault, word by word."""
    shapes = Shapes.of(tiny_config(kind), AutoModel)
    first = answers(shapes)
    assert answers(kept(shapes)) == first
    assert any(isinstance(x, tuple) for x in first.values())
    assert any(isinstance(x, Refusal) for x in first.values())


def test_a_model_that_does_not_run_is_recorded_with_its_reason() -> None:
    """What the model refused to tell is refused again, and the rest told."""
    shapes = Shapes(tiny("bert", AutoModelForSequenceClassification))
    shapes.model.forward = lambda **inputs: 1 / 0  # type: ignore[method-assign, assignment]
    feature_table = kept(shapes)
    assert feature_table.row_length("hidden") == shapes.row_length("hidden")
    for ask in (lambda c: c.modules, lambda c: c.shape(Feature("hidden", 0))):
        (one, other) = (said(lambda ask=ask, c=c: ask(c)) for c in (shapes, feature_table))
        assert one == other
        assert one.code == "B306"
