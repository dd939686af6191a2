"""Metrics by label type: what a batch comes to, how batches and ranks are joined, what it says in the end.

Each metric has four parts. `reduce`, on the device, makes of a model's logits what is kept of them: classes, spans,
sums; logits themselves are never kept, nor sent between ranks. `update` takes that in, `state` gives everything taken
in so far as tensors on the CPU, `merge` takes in the states of other ranks, `compute` gives the values by name.

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
    """What every metric here can do; see the module."""

    @staticmethod
    def reduce(logits: Any, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """On the device: what `update` takes, from logits and the batch that holds their labels."""

    def update(self, *reduced: Any, **none: Any) -> None:
        """Take in a batch."""

    def state(self) -> tuple[Tensor, ...]:
        """All that was taken in, on the CPU."""

    def merge(self, *state: Any, **none: Any) -> None:
        """Take in what another rank took in."""

    def compute(self) -> dict[str, float]:
        """The values by name, those of `recipe.metrics.metric_names`."""


def make_metric(
    label_type: LabelType, classes: Sequence[str], examples: Any = None, null_threshold: float | None = None
) -> Metric:
    """The metric of a label type. Tags and answers are looked up in the rows `examples`; `null_threshold` is None where
    every question has an answer.
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
