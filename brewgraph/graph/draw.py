"""A graph for people: as an indented tree, for Graphviz, or for mermaid; in terms, or node by node.

What is drawn is settled first, as boxes and lines; the three formats only write that down. The order is that of the
spec and depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from brewgraph.graph import nodes as n
from brewgraph.graph.passes import execution_order, node
from brewgraph.graph.spell import in_order, spell_out
from brewgraph.recipe.features import Shape

GRAINS = ("terms", "nodes")


@dataclass(frozen=True)
class Box:
    """A node of the drawing: `title` in a few words, `detail` its shape, unit or equation, `kind` how it is drawn.

    `node` is its key in the graph where it stands for one node.
    """

    key: str
    title: str
    detail: str
    kind: str
    node: str = ""


@dataclass(frozen=True)
class Line:
    """From what is used to what uses it; `label` says as what, or is empty. `word` joins it to a title in a text."""

    source: str
    target: str
    label: str
    word: str = ""


@dataclass(frozen=True)
class Drawing:
    """Boxes, and lines in the order in which a user of several values names them; `root` is the loss."""

    root: str
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]

    @cached_property
    def by_key(self) -> dict[str, Box]:
        return {box.key: box for box in self.boxes}

    def below(self, key: str) -> list[Line]:
        """The lines into a box."""
        return [line for line in self.lines if line.target == key]


def draw(graph: nx.DiGraph, format: str = "text", grain: str = "terms") -> str:
    """The drawing of a graph. `format` is one of `FORMATS`, `grain` one of `GRAINS`."""
    return FORMATS[format](drawing(graph, grain))


def drawing(graph: nx.DiGraph, grain: str) -> Drawing:
    """What is drawn: every node of the graph, or only the terms, the models and what the terms take from the models."""
    return _by_nodes(graph) if grain == "nodes" else _by_terms(graph)


# ── what is drawn ────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_terms(graph: nx.DiGraph) -> Drawing:
    boxes = {"loss": Box("loss", "loss", "", "combine")}
    lines: list[Line] = []
    for i, term in enumerate(spell_out(graph)):
        name = " = ".join(term.names)
        title, detail = (name, term.equation) if name else (term.equation, "")
        boxes[f"t{i}"] = Box(f"t{i}", title, detail, "loss")
        lines.append(Line(f"t{i}", "loss", "" if term.weight == "1" else f"{term.weight} *"))
        taken: dict[str, list[str]] = {}
        for used in sorted(nx.ancestors(graph, term.key), key=lambda k: in_order(graph, k)):
            current = node(graph, used)
            if isinstance(current, n.Column):
                taken.setdefault(f"data {current.data}", []).append(current.column)
            elif isinstance(current, n.Tap):
                forward = node(graph, current.forward)
                size = f" {show_shape(current.shape)}" if current.shape is not None else ""
                taken.setdefault(forward.label(), []).append(f"{current.feature}{size}")
        for owner in sorted(taken, key=lambda label: (label.startswith("student"), label)):
            key = "m_" + owner.replace(" ", "_")
            boxes.setdefault(key, Box(key, owner, "", "column" if owner.startswith("data") else "forward"))
            lines.append(Line(key, f"t{i}", ", ".join(sorted(taken[owner])), word="of"))
    return Drawing("loss", tuple(boxes.values()), tuple(lines))


def _by_nodes(graph: nx.DiGraph) -> Drawing:
    names: dict[str, str] = {}
    for name, key in graph.graph["terms"].items():
        names[key] = f"{names[key]} = {name}" if key in names else name
    objective = graph.graph["objective"]
    names.setdefault(objective, "loss")
    short: dict[str, str] = {}
    lines: list[Line] = []

    def visit(key: str) -> None:
        short[key] = f"n{len(short)}"
        for used, label in _inputs(graph, key):
            if used not in short:
                visit(used)
            lines.append(Line(short[used], short[key], label))

    visit(objective)
    boxes = []
    for key in short:
        current = node(graph, key)
        title = f"{names[key]}: {current.label()}" if key in names else current.label()
        boxes.append(Box(short[key], title, _detail(current), current.kind, key))
    assert len(short) == len(execution_order(graph)), "the graph holds what the loss does not need"
    return Drawing(short[objective], tuple(boxes), tuple(lines))


def _inputs(graph: nx.DiGraph, key: str) -> Iterator[tuple[str, str]]:
    """What a node is computed from, and as what."""
    current = node(graph, key)
    if isinstance(current, n.Loss):
        yield from ((current.source, "from"), (current.target, "to"))
        if current.mask is not None:
            yield current.mask, ""
        yield from ((used, f"{name} =") for name, used in current.arguments.items())
    elif isinstance(current, n.Combine) and current.commutes:
        weights_first = sorted(
            current.inputs,
            key=lambda k: (not isinstance(node(graph, k), n.Number | n.Schedule), in_order(graph, k)),
        )
        yield from ((used, "") for used in weights_first)
    else:
        yield from ((used, "") for used in current.inputs)


def _detail(current: n.Node) -> str:
    if isinstance(current, n.Loss | n.Mean):
        return f"mean per {current.unit}" if getattr(current, "reduced", True) else f"one per {current.unit}"
    plain = isinstance(current, n.Number | n.Schedule | n.Combine | n.Mask | n.Forward | n.Temperature | n.Bundle)
    return "" if plain else show_shape(current.shape)


def show_shape(shape: Shape | None) -> str:
    """`(batch, length, 768)`; `(?)` where it is not known yet."""
    return f"({', '.join(map(str, shape))})" if shape is not None else "(?)"


def sizes(current: n.Node) -> list[tuple[str, str]]:
    """What a node's value measures, as names and words: its shape, and of a projection its module."""
    found = []
    if current.shape is not None:
        found.append(("shape", show_shape(current.shape) if current.shape else "one number"))
    if isinstance(current, n.Projection):
        found.append(("module", current.site))
        if current.into and current.out:
            found.append(("parameters", f"{(current.into + 1) * current.out:,}"))
    return found


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_text(drawn: Drawing) -> str:
    """A tree from the loss down. A node with several users is spelled out once, as `[1]`, and then referred to."""
    users: dict[str, int] = {}
    for line in drawn.lines:
        users[line.source] = users.get(line.source, 0) + 1
    marks: dict[str, int] = {}
    out: list[str] = []

    def visit(key: str, lead: str, indent: str, line: Line | None) -> None:
        box = drawn.by_key[key]
        below = drawn.below(key)
        words = [line.label, line.word] if line is not None else []
        title = " ".join([*(w for w in words if w), box.title])
        if key in marks:
            out.append(f"{lead}{title} [{marks[key]}]")
            return
        mark = ""
        if users.get(key, 0) > 1 and below:
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


def write_dot(drawn: Drawing) -> str:
    """For Graphviz: `brewgraph graph spec.brew --format dot | dot -Tsvg`."""
    out = ["digraph loss {", "  rankdir=BT;", '  node [fontname="sans-serif", shape=ellipse];']
    for box in drawn.boxes:
        label = _quoted(box.title) if not box.detail else f"{_quoted(box.title)[:-1]}\\n{_quoted(box.detail)[1:]}"
        shape = "doublecircle" if box.key == drawn.root else _SHAPES.get(box.kind, "ellipse")
        out.append(f"  {box.key} [label={label}, shape={shape}];")
    for line in drawn.lines:
        label = f" [label={_quoted(line.label)}]" if line.label else ""
        out.append(f"  {line.source} -> {line.target}{label};")
    return "\n".join([*out, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_MERMAID = {"input": ("[(", ")]"), "column": ("[(", ")]"), "forward": ("[[", "]]"), "combine": ("((", "))")}


def write_mermaid(drawn: Drawing) -> str:
    """For Markdown pages: a `mermaid` block's content."""
    out = ["flowchart BT"]
    for box in drawn.boxes:
        opening, closing = _MERMAID.get(box.kind, ("[", "]"))
        text = _mermaid(box.title) + (f"<br>{_mermaid(box.detail)}" if box.detail else "")
        out.append(f'  {box.key}{opening}"{text}"{closing}')
    for line in drawn.lines:
        label = f'|"{_mermaid(line.label)}"|' if line.label else ""
        out.append(f"  {line.source} -->{label} {line.target}")
    return "\n".join(out) + "\n"


def _mermaid(text: str) -> str:
    """Quotes and brackets have a meaning there."""
    for sign, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("`", "#96;")):
        text = text.replace(sign, code)
    # a leading number or sign would be read as a Markdown list
    return text.replace("*", "#42;")


FORMATS: dict[str, Callable[[Drawing], str]] = {"text": write_text, "dot": write_dot, "mermaid": write_mermaid}
