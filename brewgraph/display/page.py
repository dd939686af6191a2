"""The graphs of a spec as one interactive page that needs nothing beside itself: no network, no fonts, no scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from brewgraph.display.cost import Cost
from brewgraph.display.picture import GRAINS, Box, Picture, picture
from brewgraph.display.svg import DARK, LIGHT, MONO, RULES, SANS, Face, arrange, colours, faces, write_group
from brewgraph.graph.container import Graph
from brewgraph.source import Span

AROUND = 2
"""Lines of the spec that are shown before and behind the place where something is said."""


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
            own = f"{i}:{grain}"
            body = write_group(drawn, texts, layout, f"{own}/")
            groups.append(f'<g class="picture hidden" data-name="{own}">{body}</g>')
            pictures[own] = {"width": layout.width, "height": layout.height, **_plain(drawn, texts, f"{own}/")}
    data = json.dumps({"parts": list(graphs), "pictures": pictures}, ensure_ascii=False)
    filled = {
        "TITLE": escape(title), "HASH": escape(spec_hash), "LIGHT": colours(LIGHT), "DARK": colours(DARK),
        "SANS": SANS, "MONO": MONO, "RULES": RULES, "GROUPS": "\n".join(groups), "DATA": data.replace("</", "<\\/"),
    }  # fmt: skip
    page = _template()
    # in one go: what is put in holds no place to fill
    parts = page.split("__")
    return "".join(filled.get(part, part) if i % 2 else part for i, part in enumerate(parts))


@cache
def _template() -> str:
    return files("brewgraph.display").joinpath("page.html").read_text(encoding="utf-8")


def _plain(drawn: Picture, texts: Mapping[str, Face], prefix: str) -> dict[str, Any]:
    owners = {line.target: texts[line.source].title for line in drawn.lines}
    cards = {prefix + box.key: _card(box, texts[box.key], owners.get(box.key, "")) for box in drawn.boxes}
    return {"cards": cards, "lines": [(prefix + x.source, prefix + x.target, x.label) for x in drawn.lines]}


def _card(box: Box, face: Face, owner: str) -> dict[str, Any]:
    of = owner if box.role == "feature" else ""
    return {"title": face.title, "kind": box.role, "of": of, "facts": box.facts, "span": _place(box.span)}


def _place(span: Span | None) -> dict[str, Any] | None:
    """Where a spec says something, with the lines around it."""
    if span is None or not span.source.text:
        return None
    text, line = span.source.text, span.position[0]
    start = end = span.start
    for _ in range(AROUND + 1):
        start = text.rfind("\n", 0, max(0, start - 1)) + 1 if start else 0
    end = span.end
    for _ in range(AROUND + 1):
        found = text.find("\n", end + 1)
        end = found if found >= 0 else len(text)
    file = PurePath(span.source.name).name
    before, after = text[start : span.start].lstrip("\n"), text[span.end : end].rstrip()
    return {"file": file, "line": line, "before": before, "text": span.text, "after": after}
