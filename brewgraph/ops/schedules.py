"""Weights that change with training: functions of progress, which is k/N with k steps done of N."""

from __future__ import annotations

from collections.abc import Callable

SCHEDULES: dict[str, Callable[..., float]] = {}


def schedule(function: Callable[..., float]) -> Callable[..., float]:
    """Declare a schedule; its first argument is progress, in [0, 1)."""
    SCHEDULES[function.__name__] = function
    return function


@schedule
def ramp(progress: float, first: float, last: float) -> float:
    """`ramp(1 -> 0)`: a straight line from the first value, at the first step, towards the last, at the end."""
    return first + (last - first) * progress
