"""What a lint reads, and walks through a loss that several lints share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from brewgraph.graph.container import Graph
from brewgraph.recipe import values as v
from brewgraph.recipe.numbers import WEIGHTS, factors, scalar_value
from brewgraph.recipe.recipe import Recipe, Stage
from brewgraph.recipe.values import Length, Value

MOMENTS = tuple(step / 64 for step in range(65))
"""The shares of training at which a schedule is evaluated; at the last one it has the value that it comes close to."""


@dataclass(frozen=True)
class Subject:
    """A checked recipe and its canonical `graphs` by stage and task. `count` tells how many members a model's row of
    features has (None: not known), `ranks` how many processes train.
    """

    recipe: Recipe
    graphs: Mapping[tuple[str, str], Graph]
    count: Callable[[str, str], int | None]
    ranks: int = 1

    @property
    def is_open(self) -> bool:
        """Whether a list has no length yet, because its model cannot be reached: then losses are not fully known."""
        return bool(self.recipe.open)

    @property
    def losses(self) -> tuple[Value, ...]:
        """The losses of every task of every stage."""
        return tuple(task.loss for _, task in self.recipe.tasks)

    @cached_property
    def trained(self) -> tuple[Value, ...]:
        """Everything that a loss sends a gradient through: not what is behind `stop` or a weight of zero."""
        return tuple(part for loss in self.losses for part in learning(loss))


def learning(value: Value) -> Iterator[Value]:
    """A value and what it is made from, as far as its gradient reaches."""
    yield value
    if isinstance(value, v.Transform) and value.declared.stops:
        return
    if isinstance(value, v.Combine) and value.operator == "*" and any(map(is_zero, value.operands)):
        return
    for part in v.parts(value):
        yield from learning(part)


def is_zero(value: Value) -> bool:
    """Whether a value is a weight that is zero from the first step to the last."""
    return value.kind in WEIGHTS and all(at(value, moment) == 0 for moment in MOMENTS)


def at(value: Value, progress: float, stage: Stage | None = None) -> float | None:
    """The value of a number or a schedule at this share of a stage; None where only a run can tell."""
    try:
        return scalar_value(value, progress, partial(share, stage=stage))
    except ArithmeticError:
        return None


def share(length: Length, stage: Stage | None) -> float | None:
    """A length as a share of a stage, above one if it ends later; None where that depends on the data."""
    if length.unit == "share":
        return length.value
    if stage is None:
        return None
    whole = stage.train.steps if length.unit == "step" else stage.train.epochs
    return length.value / whole if whole is not None else None


def weighted(value: Value, weight: float, progress: float) -> Iterator[tuple[v.Apply, float]]:
    """The matches in a loss with their weights, as far as numbers and schedules tell."""
    if isinstance(value, v.Apply):
        yield value, weight
    elif isinstance(value, v.Transform) and value.declared.mean == "batch":
        yield from weighted(value.values[0], weight, progress)
    elif isinstance(value, v.Combine):
        scalars = [at(operand, progress) for operand in value.operands]
        for operand, scalar, factor in zip(value.operands, scalars, factors(value.operator, scalars), strict=True):
            if scalar is None and factor is not None:
                yield from weighted(operand, weight * factor, progress)
