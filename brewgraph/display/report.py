"""The report of a run as one page that loads nothing else: every text in it is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files

from brewgraph.display.lines import html_table
from brewgraph.display.plan import Plan
from brewgraph.display.plots import Curves, Grid, Plot, Scatter, draw
from brewgraph.display.render import DARK, LIGHT, MONO, RULES, SANS, Shown, colours


@dataclass(frozen=True)
class Comparison:
    """A part on a student beside a teacher: numbers by name, plots, and a table of examples, its header first."""

    title: str
    scores: Sequence[tuple[str, str]]
    plots: Sequence[Plot]
    examples: Sequence[Sequence[str]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Report:
    """What a run's report shows. `notes` are lines below the table; `plan` and `graphs` are missing where the models of
    the spec cannot be reached; `lock` are versions and prints by name; `curves` is the heading of curves.
    """

    title: str
    about: str
    command: str
    table: Sequence[Sequence[str]]
    notes: Sequence[str]
    plots: Sequence[Curves | Scatter]
    spec: str
    lock: Mapping[str, str]
    plan: Plan | None = None
    graphs: Shown | None = None
    comparisons: Sequence[Comparison] = ()
    curves: str = "Training"

    def write(self) -> str:
        """The page. Raises `UsageError` without matplotlib."""
        filled = {
            "TITLE": escape(self.title), "ABOUT": escape(self.about), "LIGHT": colours(LIGHT), "DARK": colours(DARK),
            "SANS": SANS, "MONO": MONO, "RULES": RULES, "SECTIONS": "\n".join(self._sections()),
        }  # fmt: skip
        parts = files("brewgraph.display").joinpath("report.html").read_text(encoding="utf-8").split("__")
        # one pass over the template: the texts may hold its marks
        return "".join(filled.get(part, part) if i % 2 else part for i, part in enumerate(parts))

    def _sections(self) -> Iterator[str]:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        if len(self.table) > 1:
            rows = html_table(self.table, right=range(1, len(self.table[0])))
            yield f'<h2>Models</h2><div class="scroll">{rows}</div>{notes}'
        elif notes:
            yield notes
        for title, kind in (("Size, time, memory and score", Scatter), (self.curves, Curves)):
            plots = [x for x in self.plots if isinstance(x, kind)]
            if plots:
                areas = "<p>the area of a disc is the size of the model</p>" if kind is Scatter else ""
                yield f"<h2>{title}</h2>{areas}{_drawn(plots)}"
        for part in self.comparisons:
            yield from _compared(part)
        if (shown := self.graphs) is not None:
            for name in shown.graphs:
                of = f" of {escape(name)}" if name else ""
                yield f'<h2>Loss{of}</h2><div class="scroll graph">{replace(shown, task=name).write("svg")}</div>'
        if self.plan is not None:
            yield f"<h2>Plan</h2>{self.plan._repr_html_()}"
        yield f"<h2>Spec</h2><pre>{escape(self.spec)}</pre>"
        yield f"<h2>Command</h2><pre>{escape(self.command)}</pre>"
        if self.lock:
            lock = html_table([("what", "version, setting or print"), *self.lock.items()])
            yield f'<h2>Lock</h2><div class="lock">{lock}</div>'


def _compared(part: Comparison) -> Iterator[str]:
    notes = "".join(f"<p>{escape(note)}</p>" for note in part.notes)
    yield f"<h2>{escape(part.title)}</h2>{notes}"
    if part.scores:
        # the numbers are one more figure of the grid
        rows = html_table([("", "value"), *part.scores], right=[1])
        numbers = f'<figure><figcaption>numbers</figcaption><div class="scroll">{rows}</div></figure>'
        yield _drawn(part.plots, numbers)
    if part.examples:
        rows = html_table(part.examples)
        yield f'<h3>Examples where they part</h3><div class="scroll examples">{rows}</div>'


def _drawn(plots: Sequence[Plot], first: str = "") -> str:
    """The plots in a grid, after another figure; three models' plots in a row, a tall one beside two others."""

    def figure(plot: Plot) -> str:
        tall = ' class="tall"' if isinstance(plot, Grid) and (first or len(plots) > 1) else ""
        return f"<figure{tall}><figcaption>{escape(plot.title)}</figcaption>{draw(plot)}</figure>"

    narrow = " narrow" if all(isinstance(plot, Scatter) for plot in plots) and not first else ""
    return f'<div class="charts{narrow}">{first}{"".join(map(figure, plots))}</div>'
