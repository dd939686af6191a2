"""How a run is shown: plain lines and the live bar."""

from __future__ import annotations

import io

from brewgraph.cli.progress import LiveReporter, PlainReporter, duration, make_reporter, terms_text
from brewgraph.training.reporter import Reporter
from tests.cli.test_output import Terminal


def test_the_stream_chooses_the_reporter():
    """A terminal gets a bar, a file lines, and quiet nothing."""
    assert type(make_reporter(io.StringIO(), quiet=False)) is PlainReporter
    assert type(make_reporter(Terminal(), quiet=False)) is LiveReporter
    assert type(make_reporter(Terminal(), quiet=True)) is Reporter


def test_plain_lines_come_every_ten_seconds_at_most_and_at_the_end():
    """Of twelve steps of two seconds each, lines for the 5th, 10th and last."""
    now = [0.0]
    out = io.StringIO()
    reporter = PlainReporter(out, clock=lambda: now[0])
    reporter.begin("small", 12, 0)
    for step in range(1, 13):
        now[0] += 2
        reporter.step(step, 1.0 / step, {"soft": 0.5})
    reporter.evaluated(12, {"accuracy": 0.75, "macro_f1": 0.5})
    reporter.end()
    assert out.getvalue() == (
        "training small: 12 steps\n"
        "step 5/12: loss 0.2000 (soft 0.5), 14 s left\n"
        "step 10/12: loss 0.1000 (soft 0.5), 4 s left\n"
        "step 12/12: loss 0.0833 (soft 0.5) after 24 s\n"
        "step 12/12: dev accuracy 0.7500, macro F1 0.5000\n"
    )


def test_steps_without_a_loss_say_nothing_and_a_resumed_run_counts_from_where_it_was():
    """Time is extrapolated from the steps of this run alone."""
    now = [0.0]
    out = io.StringIO()
    reporter = PlainReporter(out, clock=lambda: now[0])
    reporter.begin("small", 100, 90)
    now[0] = 20.0
    reporter.step(94, None, {})
    reporter.step(95, 1.0, {})
    assert out.getvalue() == "training small: 10 steps, 90 done before\nstep 95/100: loss 1.0000, 20 s left\n"


def test_the_live_bar_shows_steps_terms_and_evaluations(monkeypatch):
    """What is written to a terminal holds the name, the count, the loss and its terms, the scores."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    reporter = LiveReporter(screen)
    reporter.say("teacher big: [teacher].brew")
    reporter.begin("small [x]", 4, 0)
    for step in range(1, 4):
        reporter.step(step, None, {})
    reporter.step(4, 0.5, {f"term{i}": 1.0 for i in range(6)})
    reporter.evaluated(4, {"accuracy": 0.75})
    reporter.end()
    reporter.end()
    said = screen.getvalue()
    assert "teacher big: [teacher].brew" in said
    assert "small [x]" in said
    assert "4/4" in said
    assert "loss 0.5000 (term0 1, term1 1, term2 1, term3 1, …)" in said
    assert "step 4: dev accuracy 0.7500" in said


def test_terms_and_durations_in_words():
    """All terms unless there is a limit; seconds, minutes, hours."""
    assert terms_text(1, {}) == "loss 1.0000"
    assert terms_text(1, {"a": 2, "b": 3}) == "loss 1.0000 (a 2, b 3)"
    assert [duration(s) for s in (3.2, 200, 7500)] == ["3 s", "3 min", "2 h 5 min"]
