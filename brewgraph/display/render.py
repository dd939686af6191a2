"""The graphs of a spec in a notebook, in a file, or as one interactive page that loads nothing else: no fonts, no
scripts, no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path, PurePath

from brewgraph.diagnostics import UsageError, listing, suggest
from brewgraph.display.cost import Cost
from brewgraph.display.diagram import FORMATS, draw
from brewgraph.display.picture import GRAINS, Picture, picture
from brewgraph.display.svg import DARK, LIGHT, MONO, RULES, SANS, Face, colours, faces, write_group, write_svg
from brewgraph.graph.container import Graph
from brewgraph.paths import write_file
from brewgraph.source import Span

SUFFIXES = {".svg": "svg", ".html": "html", ".dot": "dot", ".mmd": "mermaid", ".txt": "text"}
AROUND = 2
"""Lines of the spec that the page shows before and after the place of a box."""


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
            return self._page()
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

    def _page(self) -> str:
        groups, pictures = [], {}
        for i, (name, graph) in enumerate(self.graphs.items()):
            for grain in GRAINS:
                drawn = picture(graph, grain, self.costs.get(name))
                texts, key = faces(drawn), f"{i}:{grain}"
                body, layout = write_group(drawn, texts, f"{key}/")
                groups.append(f'<g class="picture hidden" data-name="{key}">{body}</g>')
                pictures[key] = {"width": layout.width, "height": layout.height, **_plain(drawn, texts, f"{key}/")}
        data = json.dumps({"parts": list(self.graphs), "pictures": pictures}, ensure_ascii=False)
        filled = {
            "TITLE": escape(self.title), "HASH": escape(self.hash), "LIGHT": colours(LIGHT), "DARK": colours(DARK),
            "SANS": SANS, "MONO": MONO, "RULES": RULES, "GROUPS": "\n".join(groups), "DATA": data.replace("</", "<\\/"),
        }  # fmt: skip
        parts = files("brewgraph.display").joinpath("page.html").read_text(encoding="utf-8").split("__")
        # one pass over the template: the texts may hold its marks
        return "".join(filled.get(part, part) if i % 2 else part for i, part in enumerate(parts))


def _plain(drawn: Picture, texts: Mapping[str, Face], prefix: str) -> dict[str, object]:
    """What the page shows of a box that is chosen, and the lines that it highlights."""
    owners = {line.target: texts[line.source].title for line in drawn.lines}
    cards = {
        prefix + box.key: {
            "title": texts[box.key].title,
            "kind": box.role,
            "of": owners.get(box.key, "") if box.role == "feature" else "",
            "facts": box.facts,
            "span": _place(box.span),
        }
        for box in drawn.boxes
    }
    return {"cards": cards, "lines": [(prefix + x.source, prefix + x.target, x.label) for x in drawn.lines]}


def _place(span: Span | None) -> dict[str, object] | None:
    """A place in a spec, with the lines around it."""
    if span is None or not span.source.text:
        return None
    before = span.source.text[: span.start].rsplit("\n", AROUND + 1)[-AROUND - 1 :]
    after = span.source.text[span.end :].split("\n", AROUND + 1)[: AROUND + 1]
    return {
        "file": PurePath(span.source.name).name,
        "line": span.position[0],
        "before": "\n".join(before).lstrip("\n"),
        "text": span.text,
        "after": "\n".join(after).rstrip(),
    }


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
