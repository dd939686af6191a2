"""The plain numbers of a graph: constants, schedules, and arithmetic on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brewgraph.diagnostics import UsageError
from brewgraph.graph.container import Graph, execution_order, info, node
from brewgraph.graph.nodes import Combine, Node, Number, Schedule
from brewgraph.recipe.numbers import compute, factors, plain, schedule_value
from brewgraph.recipe.values import Length


@dataclass(frozen=True)
class Horizon:
    """The length of training and of an epoch, in optimizer steps; None where not set."""

    steps: int | None = None
    per_epoch: int | None = None

    def share(self, length: Length) -> float:
        """A length as a share of training. Raises `UsageError` for steps or epochs where the horizon is not set."""
        if length.unit == "share":
            return length.value
        if self.steps is None or self.per_epoch is None:
            raise UsageError(
                f"a schedule counts {length}, but the length of training is not set: "
                "set `distiller.horizon = Horizon(steps, per_epoch)`, or write shares: 30%"
            )
        return length.steps(self.steps, self.per_epoch) / self.steps


def scalar_keys(graph: Graph) -> set[str]:
    """The keys of numbers, schedules, and arithmetic on them."""
    scalars: set[str] = set()
    for key in execution_order(graph):
        x = node(graph, key)
        if isinstance(x, Number | Schedule) or (isinstance(x, Combine) and scalars.issuperset(x.inputs)):
            scalars.add(key)
    return scalars


def scalar_values(graph: Graph, progress: float | None = None, horizon: Horizon | None = None) -> dict[str, float]:
    """The value of every plain number at this progress, by key; without a progress, of those that never change."""
    share = (horizon or Horizon(1000, 1000)).share
    values: dict[str, float] = {}
    for key in execution_order(graph):
        x = node(graph, key)
        value: float | None = None
        if isinstance(x, Number):
            value = x.value
        elif isinstance(x, Schedule) and progress is not None:
            value = schedule_value(x.name, x.arguments, progress, share)
        elif isinstance(x, Combine) and values.keys() >= set(x.inputs):
            value = compute(x.operator, [values[used] for used in x.inputs], x.position, two=plain)
        if value is not None:
            values[key] = value
    return values


def linear_inputs(x: Node, scalars: Mapping[str, float]) -> dict[str, float]:
    """The inputs that a node is linear in, each with its factor while the other inputs stay."""
    linear: dict[str, float] = {}
    if isinstance(x, Combine):
        for used, factor in zip(x.inputs, factors(x.operator, [scalars.get(y) for y in x.inputs]), strict=True):
            if factor is not None:
                linear[used] = linear.get(used, 0.0) + factor
    return linear


def objective_weights(graph: Graph, progress: float, horizon: Horizon | None = None) -> dict[str, float]:
    """The weight of each value in the loss at this progress: 1 for the loss itself, 0.3 for `x` in `0.3 * x`."""
    scalars = scalar_values(graph, progress, horizon)
    weights = dict.fromkeys(graph, 0.0)
    weights[info(graph).objective] = 1.0
    for key in reversed(execution_order(graph)):
        x = node(graph, key)
        if isinstance(x, Combine):
            # each operand of a maximum counts as if it were the largest
            whole = x.operator in ("max", "softmax")
            counted = dict.fromkeys(x.inputs, 1.0) if whole else linear_inputs(x, scalars)
            for used, factor in counted.items():
                weights[used] += weights[key] * factor
    return weights
