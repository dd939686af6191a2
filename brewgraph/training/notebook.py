"""How a run is shown in a notebook while it goes on: a bar that is drawn anew in its place, and lines below it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from brewgraph.display.lines import MONO
from brewgraph.training.reporter import Reporter, duration, scores_text, terms_text

_EVERY = 0.25
"""Seconds between two drawings at least."""


def in_notebook() -> bool:
    """Whether a kernel of IPython runs this, which shows more than text; a terminal does not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class Bar:
    """A part of a page, and a line of text where there is none."""

    def __init__(self, name: str, step: int, steps: int, words: str):
        self.name, self.step, self.steps, self.words = name, step, steps, words

    def __repr__(self) -> str:
        return f"{self.name}: step {self.step:,}/{self.steps:,}{self.words}"

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.step}" max="{max(1, self.steps)}" style="width: 16em"></progress>'
        return f'<div style="font-family: {MONO}">{bar} {escape(repr(self))}</div>'


class NotebookReporter(Reporter):
    """A bar with the step, the loss and its terms, and the time that is left; needs no widgets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.name, self.words = "", ""
        self.steps = self.done = 0
        self.began = self.last = 0.0
        self.handle: Any = None

    def say(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, name: str, steps: int, done: int) -> None:
        from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

        self.name, self.steps, self.done, self.words = name, steps, done, ""
        self.began = self.last = self.clock()
        self.handle = display(Bar(name, done, steps, ""), display_id=True)

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        if loss is not None:
            self.words = f", {terms_text(loss, terms, most=4)}"
        now = self.clock()
        if now - self.last >= _EVERY or step == self.steps:
            self.last = now
            gone = now - self.began
            left = gone / max(1, step - self.done) * (self.steps - step)
            rest = f", {duration(left)} left" if step < self.steps else f", {duration(gone)}"
            self.handle.update(Bar(self.name, step, self.steps, self.words + rest))

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        self.say(f"step {step:,}/{self.steps:,}: dev {scores_text(scores)}")
