"""Weights that change with training: functions of progress, which is k/N with k steps done of N."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal

Form = Literal["ends", "points", "start"]
SCHEDULES: dict[str, Callable[..., float]] = {}
FORMS: dict[str, Form] = {}
"""How a spec writes the arguments of each schedule: its `ends` (`1 -> 0`), its `points` (`0%: 1, 30%: 0.2`), or the
`start` from which it is one (`30%`)."""


def schedule(form: Form) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Declare a schedule; its first argument is progress, in [0, 1)."""

    def declare(function: Callable[..., float]) -> Callable[..., float]:
        SCHEDULES[function.__name__] = function
        FORMS[function.__name__] = form
        return function

    return declare


def spell_arguments(name: str, arguments: Sequence[str]) -> str:
    """The arguments of a schedule as a spec writes them."""
    if FORMS[name] == "points":
        return ", ".join(f"{at}: {value}" for at, value in zip(arguments[::2], arguments[1::2], strict=True))
    return " -> ".join(arguments)


@schedule("ends")
def ramp(progress: float, first: float, last: float) -> float:
    """`ramp(1 -> 0)`: a straight line from the first value, at the first step, towards the last, at the end.

        first + (last - first) progress

    Progress is the share of the training's steps that are done.
    """
    return first + (last - first) * progress


@schedule("ends")
def cosine(progress: float, first: float, last: float) -> float:
    """`cosine(1 -> 0)`: half a cosine from the first value, at the first step, towards the last, flat at both ends.

        last + (first - last) (1 + cos(π progress)) / 2

    Progress is the share of the training's steps that are done.
    """
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


@schedule("points")
def piecewise(progress: float, *points: float) -> float:
    """`piecewise(0%: 1, 30%: 0.2)`: straight lines through points; before the first and after the last as these.

    The points are flat: progress, value, progress, value, …, with rising progress. Two points at the same progress make
    a step, whose second value counts from there on.
    """
    places, values = points[::2], points[1::2]
    after = bisect_right(places, progress)
    if after == 0:
        return values[0]
    if after == len(places):
        return values[-1]
    share = (progress - places[after - 1]) / (places[after] - places[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


@schedule("start")
def after(progress: float, start: float) -> float:
    """`after(30%)`: zero before this point of training, one from there on."""
    return 1.0 if progress >= start else 0.0
