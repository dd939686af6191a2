"""The plots of a report."""

from __future__ import annotations

import pytest

from brewgraph.display.plots import Scatter, _draw_scatter


def test_no_disc_is_cut_off_at_the_edge() -> None:
    """Values that are close and far from zero leave room beyond the largest one."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.add_subplot()
    points = [("big", 3.8, 1.0), ("small", 3.4, 1.0), ("small alone", 3.4, 0.98)]
    _draw_scatter(axes, Scatter("accuracy and memory", "MB", "accuracy", points, (1.3, 0.9, 0.9)))
    low, high = axes.get_xlim()
    assert low == 0
    assert high == pytest.approx(1.15 * 3.8)
    assert [text.get_ha() for text in axes.texts] == ["right", "right", "right"]
