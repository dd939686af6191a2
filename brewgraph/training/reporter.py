"""What a run tells the world while it goes on. The command prints it; embedded runs may log it, or say nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from brewgraph.display.lines import number
from brewgraph.recipe.settings.metric_names import metric_words

log = logging.getLogger("brewgraph")


def scores_text(scores: Mapping[str, float]) -> str:
    """`accuracy 0.7134, macro F1 0.7012`."""
    return ", ".join(f"{metric_words(name)} {number(value)}" for name, value in scores.items())


def terms_text(loss: float, terms: Mapping[str, float], most: int | None = None) -> str:
    """`loss 1.2345 (soft 0.8, hard 1.1)`: the loss, and its terms unweighted; of more than `most` a sum of the rest."""
    shown = [f"{name} {value:.4g}" for name, value in list(terms.items())[:most]]
    if most is not None and len(terms) > most:
        shown.append("…")
    return f"loss {loss:.4f}" + (f" ({', '.join(shown)})" if shown else "")


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


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
