"""What a run tells the world while it goes on. The command prints it; embedded runs may log it, or say nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger("brewgraph")


class Reporter:
    """Does nothing; whoever wants to see a run overrides what they want to see."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, name: str, steps: int, done: int) -> None:
        """Training of `name` begins: `steps` optimizer steps, `done` of them already behind it."""

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        """A step is done; `loss` and `terms` are means since they were last given, None and empty in between."""

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """The student was evaluated."""

    def end(self) -> None:
        """Training ended, well or not."""


class LogReporter(Reporter):
    """Tells Python's logging, under the name `brewgraph`."""

    def say(self, text: str) -> None:
        log.info("%s", text)

    def begin(self, name: str, steps: int, done: int) -> None:
        log.info("%s: %d steps", name, steps - done)

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        if loss is not None:
            log.info("step %d: loss %.4f%s", step, loss, "".join(f", {k} {v:.4g}" for k, v in terms.items()))

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
