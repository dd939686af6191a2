"""Progress of a run: a live bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from brewgraph.cli.output import Terminal, coloured
from brewgraph.source import visible
from brewgraph.training.reporter import Reporter, TimedReporter, duration, scores_text, terms_text


def make_reporter(stream: TextIO, *, quiet: bool) -> Reporter:
    """The reporter for a stream; `quiet` shows nothing."""
    if quiet:
        return Reporter()
    return LiveReporter(stream) if stream.isatty() else PlainReporter(stream)


class PlainReporter(TimedReporter):
    """A line per evaluation, and at most one every ten seconds in between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        super().__init__(clock)
        self.stream = stream

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def begin(self, name: str, steps: int, done: int) -> None:
        self.start(steps, done)
        self.say(f"training {name}: {steps - done:,} steps" + (f", {done:,} done before" if done else ""))

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        if loss is not None and self.due(step):
            remaining = self.remaining(step)
            time_text = f", {remaining}" if remaining else f" after {duration(self.elapsed)}"
            self.say(f"step {step:,}/{self.steps:,}: {terms_text(loss, terms)}{time_text}")

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        self.say(f"step {step:,}/{self.steps:,}: dev {scores_text(scores)}")


class LabelledReporter(PlainReporter):
    """The lines of one run of several at a time, each after its label."""

    def __init__(self, stream: TextIO, label: str):
        super().__init__(stream)
        self.label = label

    def say(self, text: str) -> None:
        super().say(f"{self.label}: {text}")


class LiveReporter(Reporter):
    """A bar with the step, the loss and its terms, and the remaining time."""

    def __init__(self, stream: TextIO):
        from rich.console import Console

        file = stream.stream if isinstance(stream, Terminal) else stream  # the bar moves the cursor
        self.console = Console(file=file, highlight=False, no_color=not coloured(stream), soft_wrap=True)
        self.progress: Any = None
        self.task: Any = None

    def say(self, text: str) -> None:
        self.console.print(visible(text), markup=False)

    def begin(self, name: str, steps: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}", markup=False),
            console=self.console,
        )
        self.progress.start()
        self.task = self.progress.add_task(visible(name), total=steps, completed=done, terms="")

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        if loss is None:
            self.progress.update(self.task, completed=step)
        else:
            self.progress.update(self.task, completed=step, terms=terms_text(loss, terms, most=4))

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        self.say(f"step {step:,}: dev {scores_text(scores)}")

    def end(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
