"""Progress reports of a run: to Python's logging, or to a notebook. Those of the command are in `cli.progress`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from brewgraph.display.lines import MONO, number
from brewgraph.recipe.settings.metric_names import metric_words

log = logging.getLogger("brewgraph")


def scores_text(scores: Mapping[str, float]) -> str:
    """`accuracy 0.7134, macro F1 0.7012`."""
    return ", ".join(f"{metric_words(name)} {number(value)}" for name, value in scores.items())


def terms_text(loss: float, terms: Mapping[str, float], most: int | None = None) -> str:
    """`loss 1.2345 (soft 0.8, hard 1.1)`: the loss and at most `most` of its terms, unweighted."""
    words = [f"{name} {value:.4g}" for name, value in list(terms.items())[:most]]
    if most is not None and len(terms) > most:
        words.append("…")
    return f"loss {loss:.4f}" + (f" ({', '.join(words)})" if words else "")


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Reporter:
    """Reports nothing; subclasses override the events that they report."""

    def say(self, text: str) -> None:
        """Report a line of text."""

    def begin(self, name: str, steps: int, done: int) -> None:
        """Training of `name` begins: `steps` optimizer steps, of which `done` were done before."""

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        """A step is done. `loss` and `terms` are means since the last report of them, None and empty in between."""

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """The student was evaluated."""

    def end(self) -> None:
        """Training ended or failed."""


class TimedReporter(Reporter):
    """A reporter of steps at most every `every` seconds, which estimates the remaining time."""

    every = 10.0

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.steps = self.done = 0
        self.began = self.last = 0.0

    def start(self, steps: int, done: int) -> None:
        """Start measuring at the beginning of training."""
        self.steps, self.done = steps, done
        self.began = self.last = self.clock()

    def due(self, step: int) -> bool:
        """Whether a step is to be reported: enough time has passed, or it is the last one."""
        now = self.clock()
        if now - self.last < self.every and step < self.steps:
            return False
        self.last = now
        return True

    def remaining(self, step: int) -> str:
        """`42 s left`; empty at the last step."""
        left = self.elapsed / max(1, step - self.done) * (self.steps - step)
        return f"{duration(left)} left" if step < self.steps else ""

    @property
    def elapsed(self) -> float:
        """Seconds from the beginning to the last report."""
        return self.last - self.began


class LogReporter(Reporter):
    """Reports to Python's logging under the name `brewgraph`."""

    def say(self, text: str) -> None:
        log.info("%s", text)

    def begin(self, name: str, steps: int, done: int) -> None:
        log.info("%s: %d steps", name, steps - done)

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        if loss is not None:
            log.info("step %d: loss %.4f%s", step, loss, "".join(f", {k} {v:.4g}" for k, v in terms.items()))

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, which can show HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class Bar:
    """A progress bar in HTML, and a line of text elsewhere."""

    def __init__(self, name: str, step: int, steps: int, words: str):
        self.name, self.step, self.steps, self.words = name, step, steps, words

    def __repr__(self) -> str:
        return f"{self.name}: step {self.step:,}/{self.steps:,}{self.words}"

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.step}" max="{max(1, self.steps)}" style="width: 16em"></progress>'
        return f'<div style="font-family: {MONO}">{bar} {escape(repr(self))}</div>'


class NotebookReporter(TimedReporter):
    """A bar with the step, the loss and its terms, and the remaining time; needs no widgets."""

    every = 0.25
    name = words = ""
    handle: Any = None

    def say(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, name: str, steps: int, done: int) -> None:
        from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

        self.start(steps, done)
        self.name, self.words = name, ""
        self.handle = display(Bar(name, done, steps, ""), display_id=True)

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        if loss is not None:
            self.words = f", {terms_text(loss, terms, most=4)}"
        if self.due(step):
            time_text = self.remaining(step) or duration(self.elapsed)
            self.handle.update(Bar(self.name, step, self.steps, f"{self.words}, {time_text}"))

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        self.say(f"step {step:,}/{self.steps:,}: dev {scores_text(scores)}")
