"""A picture as SVG: boxes with text that fits them, lines between, light and dark, nothing from outside the file."""

from __future__ import annotations

from html import escape

from brewgraph.graph.layout import Layout, Point, lay_out
from brewgraph.graph.picture import Card, Picture

TITLE, TEXT = 13, 11
"""Sizes of letters, in pixels."""
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
"""How everything is drawn, in the colours of a theme."""

_NARROW, _WIDE = set("iljI.,:;'|![]()` "), set("mwMW@%")


def colours(theme: dict[str, str]) -> str:
    """A theme as variables of a style sheet."""
    return " ".join(f"--{name}: {value};" for name, value in theme.items())


def write_svg(picture: Picture, title: str = "") -> str:
    """The whole file. It follows the reader's light or dark setting."""
    layout = arrange(picture)
    width, height = round(layout.width), round(layout.height)
    style = (
        f".brew {{ {colours(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ .brew {{ {colours(DARK)} }} }}{RULES}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="brew" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title or "dependency graph", quote=True)}">\n'
        f"<style>{style}</style>\n"
        f'<rect width="{width}" height="{height}" rx="10" fill="var(--paper)"/>\n'
        f"{write_group(picture, layout)}\n</svg>\n"
    )


def arrange(picture: Picture) -> Layout:
    """Where the cards of a picture stand."""
    into: dict[str, int] = {}
    for _, target, _ in picture.lines:
        into[target] = into.get(target, 0) + 1
    sizes = {card.key: _size(card, into.get(card.key, 0)) for card in picture.cards}
    lines = [(source, target) for source, target, _ in picture.lines]
    return lay_out(sizes, lines, gap=36, apart=8) if picture.dense else lay_out(sizes, lines)


def write_group(picture: Picture, layout: Layout, prefix: str = "") -> str:
    """Lines and cards without the file around them; `prefix` keeps the keys of several pictures apart."""
    tones = {card.key: card.tone for card in picture.cards}
    labels = {(source, target): label for source, target, label in picture.lines}
    out = []
    for (source, target), points in layout.lines.items():
        tone = f" tone-{tones[source]}" if tones[source] else ""
        ends = f'data-from="{escape(prefix + source)}" data-to="{escape(prefix + target)}"'
        said = f"<title>{escape(labels[source, target])}</title>" if labels[source, target] else ""
        out.append(f'<path class="line{tone}" {ends} d="{_curve(points)}">{said}</path>')
        x, y = points[-1]
        out.append(f'<path class="head{tone}" {ends} d="M{x:.1f} {y:.1f}l-7 -3.4v6.8z"/>')
    out += [_card(card, layout.places[card.key], prefix) for card in picture.cards]
    return "\n".join(out)


def _size(card: Card, into: int) -> tuple[float, float]:
    """How large a card is: for its text, and for the lines that lead into it."""
    head = _wide(card.title) + (18 + 6.8 * len(card.badge) if card.badge else 0)
    width = max([head, *(6.8 * len(line) for line in card.lines), 44]) + 26
    return width, max(30 + 14.0 * len(card.lines), 14 + min(7.0 * into, 90.0))


def _wide(title: str) -> float:
    """About how wide a title is, in a wide font."""
    return sum(4.9 if c in _NARROW else 13.2 if c in _WIDE else 9.2 for c in title)


def _card(card: Card, place: tuple[float, float, float, float], prefix: str) -> str:
    x, y, width, height = place
    tone = f" tone-{card.tone}" if card.tone else ""
    key = escape(prefix + card.key)
    base = (height - 30 - 14 * len(card.lines)) / 2 + 19
    out = [
        f'<g class="card kind-{card.kind}{tone}" data-key="{key}" transform="translate({x:.1f} {y:.1f})">',
        f'<rect width="{width:.1f}" height="{height:.1f}" rx="6"/>',
        f'<rect class="bar" width="4" height="{height - 12:.1f}" x="5" y="6" rx="2"/>',
        f'<text class="title" x="16" y="{base:.1f}">{escape(card.title)}</text>',
    ]
    if card.badge:
        out.append(
            f'<text class="badge" x="{width - 10:.1f}" y="{base:.1f}" text-anchor="end">{escape(card.badge)}</text>'
        )
    out += [f'<text x="16" y="{base + 15 + 14 * i:.1f}">{escape(line)}</text>' for i, line in enumerate(card.lines)]
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
