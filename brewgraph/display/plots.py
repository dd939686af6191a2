"""Lines and points as SVG for a page, in the colours of its theme. Drawn by matplotlib, the extra `report`."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import cycle, islice, product
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from brewgraph.diagnostics import UsageError, shortened
from brewgraph.display.lines import one_line
from brewgraph.display.render import LIGHT
from brewgraph.source import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = 4
"""Colours of lines, before their dashes change."""
_LINES = list(product(("-", "--", ":", "-."), ("student", "teacher", "data", "mark")))
"""The dashes and colours of lines: more than four differ by dashes, too."""
_ROW = 3
"""The most names in a row of a legend."""
_LEGEND, _SIGN, _LONG = 62, 7, 50
"""Characters in a row of a legend, of which each sign takes some, and of the longest name."""
_LEGEND_LINE = 0.19
"""Inches."""
_SMALL, _MIDDLE, _LARGE = 40.0, 64.0, 900.0
"""Areas of a model's disc in square points: the least, that of models without a size, and that of the largest model."""
_NAME = 18
"""Characters of a class's name on an axis."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # texts stay texts
    "svg.hashsalt": "brewgraph",  # names of parts follow from their content
    "text.parse_math": False,  # names may hold `$`
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": LIGHT["edge"],
    "axes.labelcolor": LIGHT["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
    "axes.grid": True,
    "grid.color": LIGHT["edge"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
}
_UNREFERENCED = re.compile(
    r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|legend|PathCollection|LineCollection)_\d+"'
)


@dataclass(frozen=True)
class Curves:
    """Lines over optimizer steps, or over what `across` names: by name, pairs of a place and a value. `points` marks
    each value, `spreads` are half the lengths of bars at them; a line that is not `joined` is its points alone, but for
    one without spreads. A line without values is not drawn, but has its colour, so that plots of the same names agree.
    With a `diagonal` both axes go from 0 to 1, and what lies on it is right. `ticks` name the places 0, 1, …
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    points: bool = False
    across: str = "optimizer step"
    up: str = ""
    diagonal: bool = False
    spreads: Mapping[str, Sequence[float]] = field(default_factory=dict)
    joined: bool = True
    logarithmic: bool = False
    ticks: Sequence[str] = ()


@dataclass(frozen=True)
class Scatter:
    """A point per model: its name, and its place on both axes; the last one is the student. `areas` are in proportion
    to a third number of each.
    """

    title: str
    across: str
    up: str
    points: Sequence[tuple[str, float, float]]
    areas: Sequence[float] = ()


@dataclass(frozen=True)
class Cloud:
    """Points without names, and the diagonal where both numbers are equal."""

    title: str
    across: str
    up: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Grid:
    """Counts of pairs, `counts[up][across]`, of the same names on both axes. Shades are shares of rows."""

    title: str
    across: str
    up: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]


Plot = Curves | Scatter | Cloud | Grid


def demand_matplotlib() -> None:
    """Raise `UsageError` without matplotlib."""
    if find_spec("matplotlib") is None:
        raise UsageError("a report is drawn by matplotlib: `pip install brewgraph[report]`")


def draw(plot: Plot) -> str:
    """The plot as an `svg` element without a font, script or reference to anything outside of it. Raises `UsageError`
    without matplotlib.
    """
    demand_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE), catch_warnings():
        simplefilter("ignore")  # of characters that matplotlib's font lacks, and the page's need not
        size = (3.8, 2.6) if isinstance(plot, Scatter) else (4.7, 3.0)  # inches; three, or two, fit beside each other
        if isinstance(plot, Grid):
            size = (4.7, max(3.0, 1.1 + 0.29 * len(plot.names)))
        if isinstance(plot, Curves):
            size = (4.7, 3.0 + _LEGEND_LINE * max(0, _legend(plot)[0] - 2))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        match plot:
            case Curves():
                _draw_curves(axes, plot)
            case Scatter():
                _draw_scatter(axes, plot)
            case Cloud():
                _draw_cloud(axes, plot)
            case Grid():
                _draw_grid(axes, plot)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(stream.getvalue(), plot.title)


def _draw_curves(axes: Axes, plot: Curves) -> None:
    from matplotlib.ticker import MaxNLocator

    for (dash, colour), (name, line) in zip(cycle(_LINES), plot.lines.items(), strict=False):
        finite = [(x, y) for x, y in line if math.isfinite(y)]
        if not finite:
            continue
        steps, values = zip(*finite, strict=True)
        # a name that begins with `_` would have no place in the legend
        mark = "o" if plot.points or len(steps) == 1 else ""
        bars = plot.spreads.get(name)
        style = dash if plot.joined or bars is None else "none"
        axes.plot(
            steps,
            values,
            linestyle=style,
            color=LIGHT[colour],
            linewidth=1.8,
            marker=mark,
            markersize=4,
            label=f" {_short(name, _LONG)}",
            clip_on=False,
        )
        if bars is not None and len(bars) == len(steps) and any(bars):
            axes.errorbar(steps, values, bars, fmt="none", ecolor=LIGHT[colour], elinewidth=1.2, capsize=3)
    axes.set_xlabel(plot.across)
    axes.set_ylabel(plot.up)
    axes.margins(x=0.02)
    if all(type(x) is int for line in plot.lines.values() for x, _ in line):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))  # no step 1.5
    if plot.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    if plot.ticks:
        axes.set_xticks(range(len(plot.ticks)), [_short(name) for name in plot.ticks])
        axes.margins(x=0.1)
    if plot.diagonal:
        axes.plot([0, 1], [0, 1], ":", color=LIGHT["soft"], linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    _not_below_zero(axes, [y for line in plot.lines.values() for _, y in line])
    if len(plot.lines) > 1 and (columns := _legend(plot)[1]):
        axes.figure.legend(loc="outside upper left", ncols=columns, frameon=False)


def _legend(plot: Curves) -> tuple[int, int]:
    """The rows and columns of a legend for the lines that are drawn."""
    names = [name for name, line in plot.lines.items() if any(math.isfinite(y) for _, y in line)]
    if not names:
        return 0, 0
    longest = min(_LONG, max(map(len, names)))
    rows = -(-len(names) // max(1, min(_ROW, int(_LEGEND / (_SIGN + longest)))))
    return rows, -(-len(names) // rows)


def _draw_scatter(axes: Axes, plot: Scatter) -> None:
    largest = max(plot.areas, default=0.0)
    middle = max(across for _, across, _ in plot.points) / 2
    areas = [
        max(_SMALL, _LARGE * area / largest) if largest else _MIDDLE for area in plot.areas or [0.0] * len(plot.points)
    ]
    others = [colour for _, colour in _LINES[1:COLOURS]]
    # as in the graph, blue is the student; the largest first, so that it hides no other
    colours = [*islice(cycle(others), len(plot.points) - 1), _LINES[0][1]]
    discs = zip(colours, plot.points, areas, strict=True)
    for colour, (name, across, up), area in sorted(discs, key=lambda disc: -disc[2]):
        away = math.sqrt(area) / 2 + 3  # points; the label begins beside the disc, towards the middle
        axes.plot(
            [across],
            [up],
            "o",
            color=LIGHT[colour],
            markersize=math.sqrt(area),
            alpha=0.85,
            markeredgewidth=0,
            clip_on=False,
        )
        side, place = ("right", -away) if across > middle else ("left", away)
        axes.annotate(
            _short(name, _LEGEND // 2), (across, up), xytext=(place, away / 2), textcoords="offset points", ha=side
        )
    axes.set_xlabel(plot.across)
    axes.set_ylabel(plot.up)
    axes.margins(x=0.2, y=0.3)
    if min(across for _, across, _ in plot.points) >= 0:
        axes.set_xlim(0, 2.3 * middle or 1.0)  # room for the disc that lies farthest
    _not_below_zero(axes, [up for _, _, up in plot.points])


def _draw_cloud(axes: Axes, plot: Cloud) -> None:
    finite = [(x, y) for x, y in plot.points if math.isfinite(x) and math.isfinite(y)]
    across, up = zip(*finite, strict=True) if finite else ((), ())
    axes.plot(across, up, "o", color=LIGHT["teacher"], markersize=3, alpha=0.4, markeredgewidth=0)
    ends = [min((*across, *up), default=0.0), max((*across, *up), default=1.0)]
    axes.plot(ends, ends, ":", color=LIGHT["soft"], linewidth=1)
    axes.set_xlabel(plot.across)
    axes.set_ylabel(plot.up)


def _draw_grid(axes: Axes, plot: Grid) -> None:
    from matplotlib.patches import Rectangle

    size = len(plot.names)
    for i, row in enumerate(plot.counts):
        whole = sum(row)
        for j, count in enumerate(row):
            if not count:
                continue
            share = count / whole
            # a light shade of one colour, on which the ink of either theme can be read
            colour = LIGHT["student" if i == j else "mark"]
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, alpha=0.08 + 0.47 * share, linewidth=0))
            axes.text(j + 0.5, i + 0.5, f"{count:,}", ha="center", va="center", fontsize=9 if size <= 10 else 7)
    names = [_short(name) for name in plot.names]
    places = [i + 0.5 for i in range(size)]
    long = sum(map(len, names)) > 40
    axes.set_xticks(places, names, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(places, names)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    axes.set_xlabel(plot.across)
    axes.set_ylabel(plot.up)


def _not_below_zero(axes: Axes, values: Sequence[float]) -> None:
    """No room below zero for numbers that are none below it, such as shares."""
    if all(value >= 0 for value in values if math.isfinite(value)) and axes.get_ylim()[0] < 0:
        axes.set_ylim(bottom=0)


def _short(name: str, length: int = _NAME) -> str:
    """A name in one line of so many characters, which turns no direction of a text."""
    return shortened(visible(one_line(name)), length)


def _for_a_page(svg: str, title: str) -> str:
    """The element alone, with the colours of the page's theme, in which texts take the page's font."""
    from html import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = _UNREFERENCED.sub("", svg)
    svg = re.sub(r"font: ([\d.]+)px[^;\"]*", r"font-size: \1px", svg)  # of matplotlib before 3.11
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    for name in ("ink", "soft", "edge", "student", "teacher", "data", "mark"):
        svg = re.sub(rf"(?<=: ){LIGHT[name]}(?=[;\"])", f"var(--{name})", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
