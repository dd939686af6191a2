"""Lines and points as SVG for a page, in the colours of its theme. Drawn by matplotlib, the extra `report`."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

from brewgraph.diagnostics import UsageError
from brewgraph.display.render import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = list(product(("-", "--", ":", "-."), ("student", "teacher", "data", "mark")))
"""The dashes and colours of lines: more than four differ by dashes, too."""
_ROW = 3
"""Names in a row of a legend."""
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
}
_UNREFERENCED = re.compile(
    r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|legend|PathCollection)_\d+"'
)


@dataclass(frozen=True)
class Curves:
    """Lines over optimizer steps: by name, pairs of step and value. `points` marks each value. A line without values is
    not drawn, but has its colour, so that plots of the same names agree.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[int, float]]]
    points: bool = False


@dataclass(frozen=True)
class Scatter:
    """A point per model: its name, and its place on both axes."""

    title: str
    across: str
    up: str
    points: Sequence[tuple[str, float, float]]


def draw(plot: Curves | Scatter) -> str:
    """The plot as an `svg` element without a font, script or reference to anything outside of it. Raises `UsageError`
    without matplotlib.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a report is drawn by matplotlib: `pip install brewgraph[report]`") from None
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        if isinstance(plot, Curves):
            _draw_curves(axes, plot)
        else:
            _draw_scatter(axes, plot)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(stream.getvalue(), plot.title)


def _draw_curves(axes: Axes, plot: Curves) -> None:
    for (dash, colour), (name, line) in zip(cycle(_LINES), plot.lines.items(), strict=False):
        finite = [(x, y) for x, y in line if math.isfinite(y)]
        if not finite:
            continue
        steps, values = zip(*finite, strict=True)
        # a name that begins with `_` would have no place in the legend
        mark = "o" if plot.points or len(steps) == 1 else ""
        axes.plot(steps, values, dash, color=LIGHT[colour], linewidth=1.8, marker=mark, markersize=4, label=f" {name}")
    axes.set_xlabel("optimizer step")
    axes.margins(x=0.02)
    if len(plot.lines) > 1:
        axes.figure.legend(loc="outside upper left", ncols=_ROW, frameon=False)


def _draw_scatter(axes: Axes, plot: Scatter) -> None:
    for (_, colour), (name, across, up) in zip(cycle(_LINES), plot.points, strict=False):
        axes.plot([across], [up], "o", color=LIGHT[colour], markersize=8)
        axes.annotate(name, (across, up), xytext=(7, 5), textcoords="offset points")
    axes.set_xlabel(plot.across)
    axes.set_ylabel(plot.up)
    axes.margins(x=0.25, y=0.25)
    if min(across for _, across, _ in plot.points) >= 0:
        axes.set_xlim(left=0)


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
