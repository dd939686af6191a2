"""The numbers of a graph that need no tensors: constants, schedules, and arithmetic on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from brewgraph.diagnostics import UsageError
from brewgraph.graph.canonical import execution_order, node
from brewgraph.graph.nodes import Combine, Node, Number, Schedule
from brewgraph.recipe.numbers import compute, factors, plain, schedule_value
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


def scalar_keys(graph: nx.DiGraph) -> set[str]:
    """The keys of numbers, schedules, and arithmetic on them."""
    found: set[str] = set()
    for key in execution_order(graph):
        x = node(graph, key)
        if isinstance(x, Number | Schedule) or (isinstance(x, Combine) and found.issuperset(x.inputs)):
            found.add(key)
    return found


def scalar_values(graph: nx.DiGraph, progress: float | None = None, horizon: Horizon | None = None) -> dict[str, float]:
    """The value of every number and schedule at this progress, by key; without one, of those that never change."""
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
    """The inputs that a node is a multiple of while the others stay, with what it is times each of them."""
    found: dict[str, float] = {}
    if isinstance(x, Combine):
        for used, factor in zip(x.inputs, factors(x.operator, [scalars.get(y) for y in x.inputs]), strict=True):
            if factor is not None:
                found[used] = found.get(used, 0.0) + factor
    return found


def objective_weights(graph: nx.DiGraph, progress: float, horizon: Horizon | None = None) -> dict[str, float]:
    """By how much each value counts in the loss at this progress: 1 for the loss itself, 0.3 for `x` in `0.3 * x`."""
    scalars = scalar_values(graph, progress, horizon)
    weights = dict.fromkeys(graph, 0.0)
    weights[graph.graph["objective"]] = 1.0
    for key in reversed(execution_order(graph)):
        x = node(graph, key)
        if isinstance(x, Combine):
            # of a maximum each counts as if it were the largest
            whole = x.operator in ("max", "softmax")
            counted = dict.fromkeys(x.inputs, 1.0) if whole else linear_inputs(x, scalars)
            for used, factor in counted.items():
                weights[used] += weights[key] * factor
    return weights
