"""The numbers of a graph that need no tensors: constants, schedules, and arithmetic on them."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from brewgraph.diagnostics import UsageError
from brewgraph.graph.nodes import Combine, Number, Schedule
from brewgraph.graph.passes import execution_order, node
from brewgraph.ops import SCHEDULES
from brewgraph.recipe.arithmetic import shares
from brewgraph.recipe.values import Length


@dataclass(frozen=True)
class Horizon:
    """How long training goes on, in optimizer steps, and how many of them an epoch has; None where nobody has said."""

    steps: int | None = None
    per_epoch: int | None = None

    def share(self, length: Length) -> float:
        """A length as a share of training. Raises `UsageError` where steps or epochs cannot be placed in it."""
        if length.unit == "share":
            return length.value
        if self.steps is None or self.per_epoch is None:
            raise UsageError(
                f"a schedule counts {length}, and how long training goes on is not known: "
                "set `distiller.horizon = Horizon(steps, per_epoch)`, or write shares: 30%"
            )
        return length.steps(self.steps, self.per_epoch) / self.steps


def schedule_value(name: str, arguments: tuple[float | Length, ...], progress: float, horizon: Horizon) -> float:
    """The value of a schedule at this progress."""
    return SCHEDULES[name](progress, *(horizon.share(a) if isinstance(a, Length) else a for a in arguments))


def scalar_values(graph: nx.DiGraph, progress: float, horizon: Horizon | None = None) -> dict[str, float]:
    """The value of every number and schedule at this progress, by key."""
    horizon = horizon or Horizon(1000, 1000)
    values: dict[str, float] = {}
    for key in execution_order(graph):
        current = node(graph, key)
        if isinstance(current, Number):
            values[key] = current.value
        elif isinstance(current, Schedule):
            values[key] = schedule_value(current.name, current.arguments, progress, horizon)
        elif isinstance(current, Combine) and all(x in values for x in current.inputs):
            values[key] = compute(current.operator, [values[x] for x in current.inputs], current.position)
    return values


def compute(operator: str, operands: list, position: int | None = None) -> float:
    """One arithmetic step over plain numbers, without a limit to how large they grow in training."""
    if operator == "softmax":
        return shares(operands)[position or 0]
    result = operands[0]
    for operand in operands[1:]:
        if operator == "max":
            result = max(result, operand)
        elif operator in ("+", "mean"):
            result = result + operand
        elif operator == "-":
            result = result - operand
        elif operator == "*":
            result = result * operand
        elif operator == "/":
            result = result / operand
        else:
            result = result**operand
    value: float = result / len(operands) if operator == "mean" else result
    return value


def objective_weights(graph: nx.DiGraph, progress: float, horizon: Horizon | None = None) -> dict[str, float]:
    """By how much each value counts in the loss at this progress: 1 for the loss itself, 0.3 for `x` in `0.3 * x`."""
    scalars = scalar_values(graph, progress, horizon)
    weights = dict.fromkeys(graph, 0.0)
    weights[graph.graph["objective"]] = 1.0
    for key in reversed(execution_order(graph)):
        current = node(graph, key)
        if not isinstance(current, Combine):
            continue
        for position, used in enumerate(current.inputs):
            others = [scalars[x] for i, x in enumerate(current.inputs) if i != position and x in scalars]
            factor = 1.0
            if current.operator == "mean":
                factor = 1 / len(current.inputs)
            elif current.operator == "-" and position == 1:
                factor = -1.0
            elif current.operator == "*":
                factor = others[0] if others else 0.0
            elif current.operator == "/":
                factor = 1 / others[0] if position == 0 and others else 0.0
            weights[used] += weights[key] * factor
    return weights
