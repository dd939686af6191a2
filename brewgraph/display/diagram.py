"""A picture as text: an indented tree, Graphviz or mermaid; in terms, or node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from brewgraph.display.picture import Box, Line, Picture, picture
from brewgraph.graph.container import Graph


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
