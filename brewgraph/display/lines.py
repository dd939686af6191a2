"""Words, numbers and tables, as text or HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
"""Fonts of equal width, for a style attribute in double quotes."""


def count(number: int, word: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def number(value: float) -> str:
    """A score: `0.7134`; a large one, such as a perplexity, in five digits."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"


def one_line(text: str) -> str:
    """A text with each run of spaces and line breaks as one space."""
    return " ".join(text.split())


def html_table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Rows as a table of a page, the first one its header; the columns in `right` are aligned to the right."""
    from html import escape

    right = set(right)

    def line(row: Sequence[str], tag: str) -> str:
        cells = ((cell, "right" if i in right else "left") for i, cell in enumerate(row))
        return "".join(f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for cell, side in cells)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows[1:])
    return f"<table><thead><tr>{line(rows[0], 'th')}</tr></thead><tbody>{body}</tbody></table>"


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Rows as aligned text; the columns in `right` are aligned to the right."""
    columns = [
        [f"{cell:{'>' if i in right else '<'}{max(map(len, column))}}" for cell in column]
        for i, column in enumerate(zip(*rows, strict=True))
    ]
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))
