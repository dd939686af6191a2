"""The report of a sweep: its table of means and deviations, and the main score over each param that was swept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from brewgraph.display.lines import count, number
from brewgraph.display.plots import Curves
from brewgraph.display.report import Report
from brewgraph.recipe.settings.base import setting_text
from brewgraph.recipe.settings.metric_names import metric_words
from brewgraph.running.sweep import SettingScores, SweepResult, cells_of
from brewgraph.source import Source

_LINES = 6
"""The most lines of a plot; of more settings only the points are drawn, as of a search."""
_WIDE = 20
"""The ratio of the largest to the smallest value from which an axis is logarithmic."""


def sweep_report_of(result: SweepResult, source: Source, command: str) -> Report:
    """The report of a sweep of this spec. A run that failed is a note."""
    notes = [f"{count(len(result.runs), 'run')}; ± and bars are the standard deviation over seeds"]
    name, best = result.main, result.best
    if name is not None and best is not None:
        where = " ".join(f"{param}={setting_text(value)}" for param, value in best.params.items())
        notes.append(f"best {metric_words(name)} of {best.model}: {number(best.mean(name))} at {where}")
    for run in result.failed:
        where = " ".join(f"{param}={setting_text(value)}" for param, value in run.params.items())
        notes.append(f"failed at {where}: {run.fault.splitlines()[0]}")
    return Report(
        title=f"sweep of {source.name}",
        about=f"over {', '.join(result.swept) or 'seeds'}",
        command=command,
        table=cells_of(result),
        notes=notes,
        plots=tuple(_plots(result)),
        spec=source.text,
        lock={},
        curves="The main score over each param",
    )


def _plots(result: SweepResult) -> Iterator[Curves]:
    """The main score over each swept param: a line for each model and each setting of the other params."""
    name = result.main
    if name is None:
        return
    scored = [x for x in result.settings if name in x.scores and math.isfinite(x.mean(name))]
    for param in result.swept:
        values = list({repr(value): value for value in (x.params[param] for x in scored if x.params)}.values())
        if len(values) > 1:
            yield _plot(name, param, values, scored, [other for other in result.swept if other != param])


def _plot(
    name: str, param: str, values: Sequence[Any], scored: Sequence[SettingScores], others: Sequence[str]
) -> Curves:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = {repr(value): float(value) if numbers else float(i) for i, value in enumerate(values)}
    lines: dict[str, list[tuple[float, float]]] = {}
    spreads: dict[str, list[float]] = {}
    joined = len({(x.model, *(repr(x.params[o]) for o in others)) for x in scored if x.params}) <= _LINES
    for x in scored:
        if not x.params:  # it is the same in all settings
            lines[x.model] = [(place, x.mean(name)) for place in (min(places.values()), max(places.values()))]
            continue
        setting = [f"{other}={setting_text(x.params[other])}" for other in others if joined]
        line = " ".join([x.model, *setting])
        lines.setdefault(line, []).append((places[repr(x.params[param])], x.mean(name)))
        spreads.setdefault(line, []).append(x.deviation(name) or 0.0)
    for line, spread in spreads.items():
        pairs = sorted(zip(lines[line], spread, strict=True))
        lines[line], spreads[line] = [place for place, _ in pairs], [bar for _, bar in pairs]
    least, most = min(places.values()), max(places.values())
    return Curves(
        f"{metric_words(name)} over {param}",
        lines,
        points=True,
        across=param,
        up=metric_words(name),
        spreads=spreads,
        joined=joined,
        logarithmic=numbers and least > 0 and most / least >= _WIDE,
        ticks=() if numbers else tuple(map(setting_text, values)),
    )
