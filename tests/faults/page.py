"""`docs/faults.md`, made from the tables: `python -m tests.faults.page` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.faults.classes import classes
from tests.faults.table import Change, Pair

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def lines() -> Iterator[str]:
    """The page, line by line."""
    found = classes()
    count = sum(len(c.entries) for c in found)
    yield "# What a check finds"
    yield ""
    yield f"{count} faults in {len(found)} classes, each found before any weight is loaded. Written by `python -m tests.faults.page` from the tables"
    yield "under `tests/faults`; a test runs every entry, and its right neighbour. `brewgraph explain CODE` says more of a code."
    yield ""
    yield "| class | faults | who trips on it |"
    yield "|---|---:|---|"
    for c in found:
        anchor = "".join(x for x in c.title.lower().replace(" ", "-") if x.isalnum() or x == "-")
        yield f"| [{c.title}](#{anchor}) | {len(c.entries)} | {_cell(c.trips)} |"
    for c in found:
        yield ""
        yield f"## {c.title}"
        yield ""
        yield "| fault | written | found at | said |"
        yield "|---|---|---|---|"
        yield from map(_row, c.entries)


def _row(entry: Pair | Change) -> str:
    place = f" {entry.place[0]}:{entry.place[1]}" if isinstance(entry, Pair) else ""
    help = f"; {_cell(entry.help)}" if entry.help else ""
    at = _code(entry.text.splitlines()[0][:40])
    return f"| {entry.what} | {_code(entry.wrong)} | {entry.code}{place} {at} | {_cell(entry.message)}{help} |"


def _code(text: str) -> str:
    shown = " ⏎ ".join(line.strip() for line in text.splitlines())
    fence = "``" if "`" in shown else "`"
    return f"{fence}{shown}{fence}".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
