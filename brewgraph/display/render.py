"""The formats that graphs are drawn in: a tree, Graphviz, mermaid, SVG, and one page that loads nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from importlib.resources import files
from pathlib import Path, PurePath
from textwrap import shorten, wrap

from brewgraph.diagnostics import UsageError, listing, shortened, suggest
from brewgraph.display.cost import Cost
from brewgraph.display.layered_layout import Layout, Point, lay_out
from brewgraph.display.picture import GRAINS, Box, Line, Picture, picture
from brewgraph.graph.container import Graph
from brewgraph.paths import shown, write_file
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
        """The graph as `text`, `dot`, `mermaid` or `svg`; as `html` those of all tasks in both grains.

        Raises `UsageError` for another format.
        """
        if format not in (formats := (*FORMATS, "svg", "html")):
            raise UsageError(f"there is no format `{shortened(str(format))}`: write {listing(formats)}")
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
            raise UsageError(f"`{shown(path.name)}` has no suffix of a format: end it with one of {listing(SUFFIXES)}")
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
            "SANS": SANS, "MONO": MONO, "RULES": RULES, "GROUPS": "\n".join(groups),
            "DATA": data.replace("<", r"\u003c"),
        }  # fmt: skip
        parts = files("brewgraph.display").joinpath("page.html").read_text(encoding="utf-8").split("__")
        # one pass over the template: the texts may hold its marks
        return "".join(filled.get(part, part) if i % 2 else part for i, part in enumerate(parts))


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


# ── text, Graphviz, mermaid ───────────────────────────────────────────────────────────────────────────────────────────


def draw(graph: Graph, format: str = "text", grain: str = "terms") -> str:
    """The drawing of a graph. `format` is one of `FORMATS`, `grain` one of `GRAINS`."""
    return FORMATS[format](drawing(graph, grain))


def drawing(graph: Graph, grain: str) -> Picture:
    """The picture of a text: of terms the loss, the terms, and models and data, with features as labels of lines."""
    whole = picture(graph, grain)
    if grain == "nodes":
        return replace(whole, boxes=tuple(replace(box, title=_title(box)) for box in whole.boxes))
    known = {box.key: box for box in whole.boxes}
    boxes = {whole.root: known[whole.root]}
    lines: list[Line] = []
    owners = {line.target: known[line.source] for line in whole.lines if known[line.target].role == "feature"}
    called = {_title(owner): owner for owner in owners.values()}
    for term in (box for box in whole.boxes if box.role == "term"):
        named = replace(term, title=term.names, names="") if term.names else replace(term, title=term.detail, detail="")
        boxes[term.key] = named
        (weight,) = (line.label for line in whole.lines if line.source == term.key)
        lines.append(Line(term.key, whole.root, weight.replace("×", "*")))
        taken: dict[str, list[str]] = {}
        for line in whole.lines:
            if line.target == term.key:
                feature = known[line.source]
                size = f" {feature.detail}" if feature.kind == "tap" and feature.detail else ""
                taken.setdefault(_title(owners[line.source]), []).append(f"{feature.title}{size}")
        for title in sorted(taken, key=lambda title: (called[title].role == "student", title)):
            key = "m_" + title.replace(" ", "_")
            boxes.setdefault(key, replace(called[title], key=key, title=title, detail=""))
            lines.append(Line(key, term.key, ", ".join(sorted(taken[title]))))
    return replace(whole, boxes=tuple(boxes.values()), lines=tuple(lines))


def _title(box: Box) -> str:
    """The title of a box; that of a model or a data set begins with its role."""
    owner = box.kind == "forward" or box.detail == box.role
    return f"{box.role} {box.title}" if owner else box.title


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_text(drawn: Picture) -> str:
    """A tree from the loss down. A node with several users is spelled out once, as `[1]`, then only referred to."""
    boxes = {box.key: box for box in drawn.boxes}
    users = Counter(line.source for line in drawn.lines)
    marks: dict[str, int] = {}
    out: list[str] = []

    def visit(key: str, lead: str, indent: str, line: Line | None) -> None:
        box = boxes[key]
        below = [x for x in drawn.lines if x.target == key]
        words = [line.label, "of" if line.target != drawn.root and drawn.grain == "terms" else ""] if line else []
        title = " ".join([*(w for w in words if w), box.label])
        if key in marks:
            out.append(f"{lead}{title} [{marks[key]}]")
            return
        mark = ""
        if users[key] > 1 and below:
            marks[key] = len(marks) + 1
            mark = f" [{marks[key]}]"
        joint = " = " if box.kind == "loss" and box.detail.endswith(")") else "  "
        out.append(f"{lead}{title}{mark}" + (f"{joint}{box.detail}" if box.detail else ""))
        for line in below:
            last = line is below[-1]
            visit(line.source, indent + ("└── " if last else "├── "), indent + ("    " if last else "│   "), line)

    visit(drawn.root, "", "", None)
    return "\n".join(out) + "\n"


_SHAPES = {
    "input": "cylinder", "column": "cylinder", "forward": "box3d", "loss": "box", "combine": "circle",
    "projection": "cds", "mask": "note", "number": "plaintext", "schedule": "plaintext",
}  # fmt: skip


def write_dot(drawn: Picture) -> str:
    """For Graphviz: `brewgraph graph spec.brew --format dot | dot -Tsvg`."""
    out = ["digraph loss {", "  rankdir=BT;", '  node [fontname="sans-serif", shape=ellipse];']
    for box in drawn.boxes:
        label = _quoted(box.label) if not box.detail else f"{_quoted(box.label)[:-1]}\\n{_quoted(box.detail)[1:]}"
        shape = "doublecircle" if box.key == drawn.root else _SHAPES.get(box.kind, "ellipse")
        out.append(f"  {box.key} [label={label}, shape={shape}];")
    for line in drawn.lines:
        label = f" [label={_quoted(line.label)}]" if line.label else ""
        out.append(f"  {line.source} -> {line.target}{label};")
    return "\n".join([*out, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_MERMAID = {"input": ("[(", ")]"), "column": ("[(", ")]"), "forward": ("[[", "]]"), "combine": ("((", "))")}


def write_mermaid(drawn: Picture) -> str:
    """For Markdown pages: a `mermaid` block's content."""
    out = ["flowchart BT"]
    for box in drawn.boxes:
        opening, closing = _MERMAID.get(box.kind, ("[", "]"))
        text = _mermaid(box.label) + (f"<br>{_mermaid(box.detail)}" if box.detail else "")
        out.append(f'  {box.key}{opening}"{text}"{closing}')
    for line in drawn.lines:
        label = f'|"{_mermaid(line.label)}"|' if line.label else ""
        out.append(f"  {line.source} -->{label} {line.target}")
    return "\n".join(out) + "\n"


_SIGNS = str.maketrans({"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;", "*": "#42;"})


def _mermaid(text: str) -> str:
    """A text without the signs that mermaid, or Markdown in it, gives a meaning."""
    return text.translate(_SIGNS)


FORMATS: dict[str, Callable[[Picture], str]] = {"text": write_text, "dot": write_dot, "mermaid": write_mermaid}


# ── SVG ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

TITLE, TEXT = 13, 11
"""Sizes of letters, in pixels."""
COLUMNS = {"terms": 44, "nodes": 30}
"""Characters in a line of a box."""
LINES = 3
"""Lines of a box below its title; a longer text ends in an ellipsis."""
MANY, ONE_LINE = 12, 50
"""With more terms or features than `MANY`, a term has one line of `ONE_LINE` characters."""
SHORT = {"batch": "B", "length": "L", "words": "W"}
"""Short names of axes, for dense pictures."""
SANS = 'ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
MONO = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'

LIGHT = {
    "paper": "#ffffff", "ink": "#1d2430", "soft": "#5b6675", "card": "#f7f8fa", "edge": "#d5dae1", "line": "#a9b2be",
    "teacher": "#b4580a", "teacher-card": "#fdf3e7", "student": "#1f5fbf", "student-card": "#ebf2fc",
    "data": "#2a7a4b", "data-card": "#eaf6ef", "loss": "#1d2430", "loss-ink": "#ffffff", "mark": "#c22f5e",
}  # fmt: skip
DARK = {
    "paper": "#14181f", "ink": "#e7ebf1", "soft": "#a0abba", "card": "#1e242d", "edge": "#39424f", "line": "#5b6675",
    "teacher": "#f0a35a", "teacher-card": "#2d2318", "student": "#7fb0f5", "student-card": "#18253a",
    "data": "#73c796", "data-card": "#172a20", "loss": "#e7ebf1", "loss-ink": "#14181f", "mark": "#ff7aa5",
}  # fmt: skip

RULES = f"""
.brew .card rect {{ fill: var(--card); stroke: var(--edge); }}
.brew .card .bar {{ stroke: none; fill: var(--line); }}
.brew .card text {{ font: {TEXT}px {MONO}; fill: var(--soft); }}
.brew .card .title {{ font: 600 {TITLE}px {SANS}; fill: var(--ink); }}
.brew .card .badge {{ font: 600 {TEXT}px {MONO}; fill: var(--mark); }}
.brew .kind-feature .badge {{ font-weight: 400; fill: var(--soft); }}
.brew .line {{ fill: none; stroke: var(--line); stroke-width: 1.4; }}
.brew .head {{ fill: var(--line); }}
.brew .tone-teacher .bar, .brew .head.tone-teacher {{ fill: var(--teacher); }}
.brew .tone-student .bar, .brew .head.tone-student {{ fill: var(--student); }}
.brew .tone-data .bar, .brew .head.tone-data {{ fill: var(--data); }}
.brew .line.tone-teacher {{ stroke: var(--teacher); }}
.brew .line.tone-student {{ stroke: var(--student); }}
.brew .line.tone-data {{ stroke: var(--data); }}
.brew .line, .brew .head {{ opacity: .62; }}
.brew .kind-teacher rect {{ fill: var(--teacher-card); stroke: var(--teacher); }}
.brew .kind-student rect {{ fill: var(--student-card); stroke: var(--student); }}
.brew .kind-data rect {{ fill: var(--data-card); stroke: var(--data); }}
.brew .kind-loss rect {{ fill: var(--loss); stroke: var(--loss); }}
.brew .kind-loss text, .brew .kind-loss .title {{ fill: var(--loss-ink); }}
.brew .kind-term .bar {{ fill: var(--mark); }}
"""
"""The style sheet, in the colours of a theme."""

_NARROW, _WIDE = set("iljI.,:;'|![]()` "), set("mwMW@%")


def colours(theme: dict[str, str]) -> str:
    """A theme as variables of a style sheet."""
    return " ".join(f"--{name}: {value};" for name, value in theme.items())


@dataclass(frozen=True)
class Face:
    """The text of a box: `title`, `lines` below it, `badge` at its right upper corner (a weight)."""

    title: str
    lines: tuple[str, ...] = ()
    badge: str = ""


def is_dense(drawn: Picture) -> bool:
    """Whether a picture is so large that its boxes have fewer lines and less space between them."""
    roles = Counter(box.role for box in drawn.boxes)
    return drawn.grain == "terms" and max(roles["feature"], roles["term"]) > MANY


def faces(drawn: Picture) -> dict[str, Face]:
    """The text of each box."""
    dense = is_dense(drawn)
    labels: dict[str, set[str]] = defaultdict(set)
    for line in drawn.lines:
        labels[line.source].add(line.label)
    texts = {}
    for box in drawn.boxes:
        detail = (box.detail,) if box.detail else ()
        face = Face(box.title.removeprefix("@ "), detail)
        label = next(iter(labels[box.key])) if len(labels[box.key]) == 1 else ""
        if box.kind == "forward":
            face = Face(box.title, (box.role, *detail))
        elif drawn.grain == "nodes":
            part = f"{label} " if label and box.role == "number" else ""
            title, *more = _fold(part + box.label, COLUMNS["nodes"])
            face = Face(title, (*more, *detail))
        elif box.role == "term":
            lines = (shorten(box.detail, ONE_LINE, placeholder=" …"),) if dense else _fold(box.detail, COLUMNS["terms"])
            face = Face(box.names or box.title, lines, label)
        elif box.role == "feature" and dense:
            face = Face(face.title, (), re.sub("|".join(SHORT), lambda axis: SHORT[axis[0]], box.detail))
        texts[box.key] = face
    return texts


def _fold(text: str, width: int) -> tuple[str, ...]:
    """A text in at most `LINES` lines of `width` characters, with an ellipsis where it is longer."""
    lines = wrap(text, width, break_on_hyphens=False)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"{lines[LINES - 1][: width - 2]} …"]
    return tuple(lines) or ("",)


def write_svg(drawn: Picture, title: str = "") -> str:
    """The whole file. It follows the reader's light or dark setting."""
    group, layout = write_group(drawn, faces(drawn))
    width, height = round(layout.width), round(layout.height)
    style = (
        f".brew {{ {colours(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ .brew {{ {colours(DARK)} }} }}{RULES}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="brew" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title or "dependency graph", quote=True)}">\n'
        f"<style>{style}</style>\n"
        f'<rect width="{width}" height="{height}" rx="10" fill="var(--paper)"/>\n'
        f"{group}\n</svg>\n"
    )


def write_group(drawn: Picture, texts: Mapping[str, Face], prefix: str = "") -> tuple[str, Layout]:
    """Lines, boxes and their places, without the file around them; `prefix` keeps keys of several pictures apart."""
    into = Counter(line.target for line in drawn.lines)
    sizes = {key: _size(face, into[key]) for key, face in texts.items()}
    ends_of_lines = [(line.source, line.target) for line in drawn.lines]
    spaces = {"gap": 36, "apart": 8} if is_dense(drawn) else {}
    layout = lay_out(sizes, ends_of_lines, **spaces)
    tones = {box.key: box.tone for box in drawn.boxes}
    labels = {(line.source, line.target): line.label for line in drawn.lines}
    out = []
    for (source, target), points in layout.lines.items():
        tone = f" tone-{tones[source]}" if tones[source] else ""
        ends = f'data-from="{escape(prefix + source)}" data-to="{escape(prefix + target)}"'
        title = f"<title>{escape(labels[source, target])}</title>" if labels[source, target] else ""
        out.append(f'<path class="line{tone}" {ends} d="{_curve(points)}">{title}</path>')
        x, y = points[-1]
        out.append(f'<path class="head{tone}" {ends} d="M{x:.1f} {y:.1f}l-7 -3.4v6.8z"/>')
    out += [_card(box, texts[box.key], layout.places[box.key], prefix) for box in drawn.boxes]
    return "\n".join(out), layout


def _size(face: Face, into: int) -> tuple[float, float]:
    """The width and height of a box, for its text and for the lines that lead into it."""
    head = _wide(face.title) + (18 + 6.8 * len(face.badge) if face.badge else 0)
    width = max([head, *(6.8 * len(line) for line in face.lines), 44]) + 26
    return width, max(30 + 14.0 * len(face.lines), 14 + min(7.0 * into, 90.0))


def _wide(title: str) -> float:
    """The width of a title, estimated for a wide font."""
    return sum(4.9 if c in _NARROW else 13.2 if c in _WIDE else 9.2 for c in title)


def _card(box: Box, face: Face, place: tuple[float, float, float, float], prefix: str) -> str:
    x, y, width, height = place
    tone = f" tone-{box.tone}" if box.tone else ""
    key = escape(prefix + box.key)
    base = (height - 30 - 14 * len(face.lines)) / 2 + 19
    out = [
        f'<g class="card kind-{box.role}{tone}" data-key="{key}" transform="translate({x:.1f} {y:.1f})">',
        f'<rect width="{width:.1f}" height="{height:.1f}" rx="6"/>',
        f'<rect class="bar" width="4" height="{height - 12:.1f}" x="5" y="6" rx="2"/>',
        f'<text class="title" x="16" y="{base:.1f}">{escape(face.title)}</text>',
    ]
    if face.badge:
        out.append(
            f'<text class="badge" x="{width - 10:.1f}" y="{base:.1f}" text-anchor="end">{escape(face.badge)}</text>'
        )
    out += [f'<text x="16" y="{base + 15 + 14 * i:.1f}">{escape(line)}</text>' for i, line in enumerate(face.lines)]
    return "".join([*out, "</g>"])


def _curve(points: tuple[Point, ...]) -> str:
    """Curves between columns, straight through them."""
    x, y = points[0]
    out = [f"M{x:.1f} {y:.1f}"]
    for i, (to_x, to_y) in enumerate(points[1:]):
        if i % 2:
            out.append(f"L{to_x:.1f} {to_y:.1f}")
        else:
            bend = (to_x - x) / 2
            out.append(f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return "".join(out)


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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
