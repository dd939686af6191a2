"""The numbers of a graph that need no tensors: constants, schedules, and arithmetic on them."""

from __future__ import annotations

import networkx as nx

from brewgraph.graph.nodes import Combine, Number, Schedule
from brewgraph.graph.passes import execution_order, node
from brewgraph.ops import SCHEDULES


def scalar_values(graph: nx.DiGraph, progress: float) -> dict[str, float]:
    """The value of every number and schedule at this progress, by key."""
    values: dict[str, float] = {}
    for key in execution_order(graph):
        current = node(graph, key)
        if isinstance(current, Number):
            values[key] = current.value
        elif isinstance(current, Schedule):
            values[key] = SCHEDULES[current.name](progress, *current.arguments)
        elif isinstance(current, Combine) and all(x in values for x in current.inputs):
            values[key] = compute(current.operator, [values[x] for x in current.inputs])
    return values


def compute(operator: str, operands: list) -> float:
    """One arithmetic step; operands may be floats or tensors."""
    result = operands[0]
    for operand in operands[1:]:
        if operator in ("+", "mean"):
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


def objective_weights(graph: nx.DiGraph, progress: float) -> dict[str, float]:
    """By how much each value counts in the loss at this progress: 1 for the loss itself, 0.3 for `x` in `0.3 * x`."""
    scalars = scalar_values(graph, progress)
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
