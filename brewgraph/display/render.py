"""The graphs of a spec in a notebook, in a file, on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from brewgraph.diagnostics import UsageError, listing, suggest
from brewgraph.display.cost import Cost
from brewgraph.display.diagram import FORMATS, draw
from brewgraph.display.page import write_page
from brewgraph.display.picture import picture
from brewgraph.display.svg import write_svg
from brewgraph.graph.container import Graph
from brewgraph.paths import write_file

SUFFIXES = {".svg": "svg", ".html": "html", ".dot": "dot", ".mmd": "mermaid", ".txt": "text"}


@dataclass(frozen=True)
class Shown:
    """The graphs of a spec by the names of their tasks, `""` where there are none. A notebook shows the one of `task`.

    `grain` is `terms` (what the loss is made of) or `nodes` (every step of the computation).
    """

    graphs: Mapping[str, Graph] = field(repr=False)
    title: str
    hash: str
    costs: Mapping[str, Cost | None] = field(repr=False)
    grain: str = "terms"
    task: str | None = None

    def write(self, format: str) -> str:
        """The graph as `text`, `dot`, `mermaid` or `svg`; as `html` those of all tasks in both grains."""
        if format == "html":
            return write_page(self.graphs, self.title, self.hash, self.costs)
        name = next(iter(self.graphs)) if self.task is None else self.task
        graph = self.graphs[name]
        if format in FORMATS:
            return draw(graph, format, self.grain)
        return write_svg(picture(graph, self.grain, self.costs.get(name)), f"the loss of {self.title}")

    def save(self, path: str | Path) -> Path:
        """Write it to a file, in the format of its suffix: .svg, .html, .dot, .mmd or .txt.

        Makes missing folders; raises `UsageError` where the file cannot be written.
        """
        path = Path(path)
        if path.suffix not in SUFFIXES:
            raise UsageError(f"`{path.name}` has no suffix of a format: {listing(SUFFIXES)}")
        write_file(path, self.write(SUFFIXES[path.suffix]))
        return path

    def _repr_svg_(self) -> str:
        return self.write("svg")


def named(graphs: Mapping[tuple[str, str], Graph]) -> dict[str, Graph]:
    """Graphs by one name: `stage/task`, either alone, or empty."""
    return {"/".join(filter(None, name)): graph for name, graph in graphs.items()}


def find_task(task: str, graphs: Mapping[tuple[str, str], Graph]) -> str:
    """The name of the graph of a task, a stage or `stage/task`; of a task in several stages that of the first."""
    names = {name: name for name in named(graphs)}
    names |= {name: "/".join(filter(None, (stage, name))) for stage, name in reversed(list(graphs)) if name}
    if task not in names:
        there = f"it has {listing(n for n in names if n)}" if any(names) else "the spec has neither tasks nor stages"
        raise UsageError(f"there is no task `{task}`: {suggest(task, names) or there}")
    return names[task]
