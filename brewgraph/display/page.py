"""The graphs of a spec as one interactive page that loads nothing else: no fonts, no scripts, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import PurePath

from brewgraph.display.cost import Cost
from brewgraph.display.picture import GRAINS, Picture, picture
from brewgraph.display.svg import DARK, LIGHT, MONO, RULES, SANS, Face, arrange, colours, faces, write_group
from brewgraph.graph.container import Graph
from brewgraph.source import Span

AROUND = 2
"""Lines of the spec that are shown before and after the place of a box."""


def write_page(
    graphs: Mapping[str, Graph], title: str, spec_hash: str = "", costs: Mapping[str, Cost | None] | None = None
) -> str:
    """The page: `graphs` by the names of their tasks, one of them without a name where there are none."""
    groups, pictures = [], {}
    for i, (name, graph) in enumerate(graphs.items()):
        for grain in GRAINS:
            drawn = picture(graph, grain, (costs or {}).get(name))
            texts = faces(drawn)
            layout = arrange(drawn, texts)
            key = f"{i}:{grain}"
            body = write_group(drawn, texts, layout, f"{key}/")
            groups.append(f'<g class="picture hidden" data-name="{key}">{body}</g>')
            pictures[key] = {"width": layout.width, "height": layout.height, **_plain(drawn, texts, f"{key}/")}
    data = json.dumps({"parts": list(graphs), "pictures": pictures}, ensure_ascii=False)
    filled = {
        "TITLE": escape(title), "HASH": escape(spec_hash), "LIGHT": colours(LIGHT), "DARK": colours(DARK),
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
