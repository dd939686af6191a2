"""A picture as one SVG file: boxes that fit their text, lines between, light and dark colours."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from textwrap import shorten, wrap

from brewgraph.display.layered_layout import Layout, Point, lay_out
from brewgraph.display.picture import Box, Picture

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


def is_dense(picture: Picture) -> bool:
    """Whether a picture is so large that its boxes have fewer lines and less space between them."""
    roles = Counter(box.role for box in picture.boxes)
    return picture.grain == "terms" and max(roles["feature"], roles["term"]) > MANY


def faces(picture: Picture) -> dict[str, Face]:
    """The text of each box."""
    dense = is_dense(picture)
    labels: dict[str, set[str]] = defaultdict(set)
    for line in picture.lines:
        labels[line.source].add(line.label)
    texts = {}
    for box in picture.boxes:
        detail = (box.detail,) if box.detail else ()
        face = Face(box.title.removeprefix("@ "), detail)
        label = next(iter(labels[box.key])) if len(labels[box.key]) == 1 else ""
        if box.kind == "forward":
            face = Face(box.title, (box.role, *detail))
        elif picture.grain == "nodes":
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


def write_svg(picture: Picture, title: str = "") -> str:
    """The whole file. It follows the reader's light or dark setting."""
    group, layout = write_group(picture, faces(picture))
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


def write_group(picture: Picture, texts: Mapping[str, Face], prefix: str = "") -> tuple[str, Layout]:
    """Lines and boxes without the file around them, and their places; `prefix` keeps the keys of several pictures
    apart.
    """
    into = Counter(line.target for line in picture.lines)
    sizes = {key: _size(face, into[key]) for key, face in texts.items()}
    ends_of_lines = [(line.source, line.target) for line in picture.lines]
    spaces = {"gap": 36, "apart": 8} if is_dense(picture) else {}
    layout = lay_out(sizes, ends_of_lines, **spaces)
    tones = {box.key: box.tone for box in picture.boxes}
    labels = {(line.source, line.target): line.label for line in picture.lines}
    out = []
    for (source, target), points in layout.lines.items():
        tone = f" tone-{tones[source]}" if tones[source] else ""
        ends = f'data-from="{escape(prefix + source)}" data-to="{escape(prefix + target)}"'
        title = f"<title>{escape(labels[source, target])}</title>" if labels[source, target] else ""
        out.append(f'<path class="line{tone}" {ends} d="{_curve(points)}">{title}</path>')
        x, y = points[-1]
        out.append(f'<path class="head{tone}" {ends} d="M{x:.1f} {y:.1f}l-7 -3.4v6.8z"/>')
    out += [_card(box, texts[box.key], layout.places[box.key], prefix) for box in picture.boxes]
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
