"""Weights that change with training."""

from __future__ import annotations

import math

import pytest

from brewgraph.ops import SCHEDULES


@pytest.mark.parametrize(("first", "last", "progress", "value"), [(1, 0, 0.0, 1), (1, 0, 0.25, 0.75), (2, 4, 0.5, 3)])
def test_ramp(first: float, last: float, progress: float, value: float) -> None:
    """A straight line that begins at its first value and reaches its last at the end."""
    assert SCHEDULES["ramp"](progress, first, last) == value


@pytest.mark.parametrize(
    ("first", "last", "progress", "value"),
    [(1, 0, 0.0, 1), (1, 0, 0.5, 0.5), (1, 0, 1.0, 0), (1, 0, 0.25, (1 + math.sqrt(0.5)) / 2), (2, 4, 0.5, 3)],
)
def test_cosine(first: float, last: float, progress: float, value: float) -> None:
    """Half a wave from its first value to its last."""
    assert math.isclose(SCHEDULES["cosine"](progress, first, last), value, abs_tol=1e-15)


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 1), (0.1, 1), (0.2, 0.6), (0.3, 0.2), (0.9, 0.2), (0.15, 0.8), (1.0, 0.2)]
)
def test_piecewise(progress: float, value: float) -> None:
    """Straight between its points, level before the first and after the last."""
    assert math.isclose(SCHEDULES["piecewise"](progress, 0.1, 1, 0.3, 0.2), value)


@pytest.mark.parametrize(("progress", "value"), [(0.0, 5), (0.49, 5), (0.5, 7), (0.75, 8), (1.0, 9)])
def test_piecewise_may_step(progress: float, value: float) -> None:
    """Two points at one place: the second counts from there on."""
    assert SCHEDULES["piecewise"](progress, 0, 5, 0.5, 5, 0.5, 7, 1, 9) == value


@pytest.mark.parametrize(("progress", "value"), [(0.0, 0), (0.299, 0), (0.3, 1), (0.9, 1)])
def test_after(progress: float, value: float) -> None:
    """Nothing, then everything."""
    assert SCHEDULES["after"](progress, 0.3) == value
