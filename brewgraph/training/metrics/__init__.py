"""Metrics by label type.

`reduce` runs on the device and turns a model's logits into classes, spans or sums; logits are neither kept nor sent
between ranks. `update` accumulates these, `state` returns everything accumulated as tensors on the CPU, `merge` adds
the state of another rank, `compute` returns the values by name.

Shapes: B examples, L tokens, C classes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from brewgraph.recipe.label_types import CLASS, CLASSES, MASKED, NEXT, SPANS, TAGS, VALUE, LabelType
from brewgraph.training.metrics.correlations import ValueMetrics
from brewgraph.training.metrics.counting import ClassMetrics, LabelsMetrics, TokenMetrics
from brewgraph.training.metrics.spans import SpanMetrics
from brewgraph.training.metrics.tags import TagMetrics


class Metric(Protocol):
    """The interface of every metric; see the module."""

    @staticmethod
    def reduce(logits: Any, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The arguments of `update`, from logits and the batch with their labels."""

    def update(self, *reduced: Any, **none: Any) -> None:
        """Add a batch."""

    def state(self) -> tuple[Tensor, ...]:
        """Everything added so far, on the CPU."""

    def merge(self, *state: Any, **none: Any) -> None:
        """Add the state of another rank."""

    def compute(self) -> dict[str, float]:
        """The values by name, those of `recipe.metrics.metric_names`."""


def make_metric(
    label_type: LabelType, classes: Sequence[str], examples: Any = None, null_threshold: float | None = None
) -> Metric:
    """The metric of a label type. `examples` are the rows that hold tags and answers; `null_threshold` is None if every
    question has an answer.
    """
    makers: dict[LabelType, Callable[[], Metric]] = {
        CLASS: lambda: ClassMetrics(len(classes)),
        CLASSES: lambda: LabelsMetrics(len(classes)),
        VALUE: ValueMetrics,
        TAGS: lambda: TagMetrics(classes, examples),
        SPANS: lambda: SpanMetrics(examples, null_threshold),
        NEXT: TokenMetrics,
        MASKED: TokenMetrics,
    }
    return makers[label_type]()
