"""The report of a sweep: the table, a line for each setting of the other params, and pages that are well-formed."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from brewgraph.display.plots import Curves, draw
from brewgraph.inspect.sweep_report_of import sweep_report_of
from brewgraph.running.sweep import SweepResult, SweptRun
from brewgraph.source import Source
from tests.running.test_sweep import swept

SOURCE = Source("brew 1\n", "spec.brew")


def test_the_score_lies_over_each_param():
    """Means with bars, a line for each setting of the other param, the teacher level, words as ticks; what failed."""
    runs = [
        swept({"T": t, "lr": lr, "kind": "a", "seed": seed}, 0.5 + t / 100 + seed / 10)
        for t in (4, 2)
        for lr in (1e-5, 1e-3)
        for seed in (0, 1)
    ]
    runs.append(swept({"T": 2, "lr": 1e-5, "kind": "b", "seed": 0}, 0.4))
    runs.append(SweptRun({"T": 8, "lr": 1e-5, "kind": "b", "seed": 0}, Path(), (), "no <room>\nmore"))
    made = sweep_report_of(SweepResult(tuple(runs), ("T", "lr", "kind")), SOURCE, "brewgraph sweep spec.brew")
    by_param = {x.across: x for x in made.plots if isinstance(x, Curves)}
    over_t, over_lr, over_kind = by_param["T"], by_param["lr"], by_param["kind"]
    line = over_t.lines["tiny lr=0.001 kind=a"]
    assert [place for place, _ in line] == [2, 4]
    assert [score for _, score in line] == pytest.approx([0.57, 0.59])
    assert over_t.spreads["tiny lr=0.001 kind=a"] == pytest.approx([0.1 / 2**0.5] * 2)
    assert over_t.lines["big"] == [(2, pytest.approx(0.9)), (4, pytest.approx(0.9))]
    assert (over_t.logarithmic, over_lr.logarithmic) == (False, True)
    assert over_kind.ticks == ("a", "b")
    assert any("best accuracy of tiny: 0.5900 at T=4" in note for note in made.notes)
    assert any(note == "failed at T=8 lr=1e-05 kind=b seed=0: no <room>" for note in made.notes)


def test_a_search_is_drawn_as_points():
    """Settings of which none repeats another's params make no lines."""
    runs = tuple(swept({"T": t, "lr": t / 1000}, 0.5 + t / 100) for t in range(1, 12))
    made = sweep_report_of(SweepResult(runs, ("T", "lr")), SOURCE, "x")
    plot = next(x for x in made.plots if isinstance(x, Curves))
    assert not plot.joined
    assert len(plot.lines["tiny"]) == 11
    pytest.importorskip("matplotlib")
    for each in made.plots:
        ElementTree.fromstring(draw(each))
    assert "no <room>" not in made.write()


def test_seeds_alone_have_a_table():
    """There is nothing to draw a score over."""
    runs = tuple(swept({"seed": seed}, 0.5 + seed / 10) for seed in range(3))
    made = sweep_report_of(SweepResult(runs, ()), SOURCE, "x")
    assert (made.plots, made.about) == ((), "over seeds")
    assert made.table[1][-1] == "1"
