"""Words and rows in lines of text, or as a part of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
"""Fonts of equal width, for a style between double quotes."""


def count(number: int, word: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def number(value: float) -> str:
    """A score: `0.7134`; what is far from 1, as a perplexity may be, in five digits."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"


def one_line(text: str) -> str:
    """A text with each run of spaces and line breaks as one space."""
    return " ".join(text.split())


def html_table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """The same as a table of a page, the first row its header."""
    right = set(right)

    def line(row: Sequence[str], tag: str) -> str:
        sides = ["right" if i in right else "left" for i in range(len(row))]
        cells = zip(row, sides, strict=True)
        return "".join(f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for cell, side in cells)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows[1:])
    return f"<table><thead><tr>{line(rows[0], 'th')}</tr></thead><tbody>{body}</tbody></table>"


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = (), gap: str = "  ") -> str:
    """Rows as aligned text; the columns in `right` are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(gap.join(cells).rstrip())
    return "\n".join(lines)
