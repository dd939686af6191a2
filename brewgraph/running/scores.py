"""The rows of a run's closing table, as values: what is read, compared and printed. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from brewgraph.display.cost import megabytes
from brewgraph.display.lines import number
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.recipe.settings.metric_names import keyed, metric_words

FEWEST = 3
"""The fewest rounds of a measurement whose speeds are compared."""
_WIDEST = 0.2
"""The spread above which speeds are not compared."""


@dataclass(frozen=True)
class ScoreRow:
    """A row of the table, with all `scores` by name (`accuracy`; `ner/f1` if tasks have names).

    `tasks` are the label types by task name, "" without tasks; the type "" means losses in place of scores. `splits`
    are those that tasks were scored on. `size` counts bytes of weights, a shared trunk once. `seconds` are the seconds
    per sentence in each round of `measure` (`timing.py`), whose rounds all rows share; `per_second` are sentences per
    second at their median. `memory` counts bytes of weights, and of the tensors that a forward of a batch holds at
    once; 0 where that was not measured.
    """

    name: str
    scores: Mapping[str, float]
    tasks: Mapping[str, str]
    parameters: int
    size: int
    per_second: float
    seconds: Sequence[float] = ()
    splits: Mapping[str, str] = field(default_factory=dict)
    memory: int = 0

    def __post_init__(self) -> None:
        # in a file, tuples are lists and NaN is null
        object.__setattr__(self, "seconds", tuple(self.seconds))
        scores = {name: math.nan if value is None else value for name, value in self.scores.items()}
        object.__setattr__(self, "scores", scores)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the scores in the table, task by task: those of its labels, or its loss and terms."""
        names: list[str] = []
        for task, kind in self.tasks.items():
            losses = (name for name in self.scores if not task or name.startswith(f"{task}/"))
            names += self._present(task, *LABEL_TYPES[kind].shown) if kind else losses
        return tuple(names)

    @property
    def main(self) -> tuple[str, ...]:
        """The name of the main score of each task."""
        return tuple(name for task, kind in self.tasks.items() for name in self._present(task, LABEL_TYPES[kind].main))

    def _present(self, task: str, *metrics: str) -> list[str]:
        return [name for name in keyed(task, dict.fromkeys(metrics, 0.0)) if name in self.scores]


def cells_of(rows: Sequence[ScoreRow], *, memory: bool = False) -> list[tuple[str, ...]]:
    """The cells of the table: a header, then scores, parameters, bytes and speed of each model; on demand its memory,
    where it was measured.
    """
    memory = memory and any(row.memory for row in rows)
    columns = list(dict.fromkeys(name for row in rows for name in row.columns))
    header = ("model", *map(metric_words, columns), "parameters", "size", "sentences/s", *(["memory"] * memory))
    return [header] + [
        (
            row.name,
            *(number(row.scores[name]) if name in row.scores else "-" for name in columns),
            f"{row.parameters:,}",
            megabytes(row.size),
            _pace(row),
            *([megabytes(row.memory) if row.memory else "-"] * memory),
        )
        for row in rows
    ]


def _pace(row: ScoreRow) -> str:
    """Sentences per second and half of their spread: `1,204 ±3%`; `-` if that is half of the value or more."""
    if not row.per_second or spread(row.seconds) >= 1:
        return "-"
    half = f" ±{spread(row.seconds) / 2:.0%}" if len(row.seconds) > 1 else ""
    return f"{row.per_second:,.0f}{half}"


def spread(values: Sequence[float]) -> float:
    """The interquartile range divided by the median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle else 0.0


def faster(seconds: Sequence[float], than: Sequence[float]) -> float | None:
    """How many times faster the first model is, by the median of the ratios; None if too few or too widely spread."""
    ratios = [slow / quick for quick, slow in zip(seconds, than, strict=False) if quick]
    if len(ratios) < FEWEST or spread(ratios) > _WIDEST:
        return None
    return median(ratios)
