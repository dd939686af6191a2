"""The lark parser of the grammar file, from a precomputed table.

Computing the table would take most of the time of `brewgraph fmt`, so `table.json` holds it. After each change of the
grammar write it with `python -m brewgraph.syntax.grammar`. A table of another grammar or lark version is ignored. JSON
loads the same way in every Python, and equally fast without compiled modules.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import lark
from lark import Lark, lexer
from lark.grammar import Rule
from lark.lexer import TerminalDef

from brewgraph.paths import shipped_text


def grammar_text() -> str:
    """The grammar file."""
    return shipped_text("grammar/brew.lark")


@cache
def grammar() -> Lark:
    """The parser of one or more statements."""
    held = held_table()
    if held["digest"] != digest():
        return build()
    parser: Lark = Lark._load_from_dict(*held["table"])  # type: ignore[no-untyped-call]
    return parser


def build() -> Lark:
    """The parser, with a newly computed table."""
    # Where interegular is installed, lark looks for terminals that collide whenever it builds a parser: three times
    # the time of all the rest. A test does that once, under `strict`; here it is switched off.
    before, lexer.has_interegular = lexer.has_interegular, False
    try:
        return Lark(
            grammar_text(), parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=True
        )
    finally:
        lexer.has_interegular = before


def digest() -> str:
    """A hash of what the table depends on: the grammar and lark's version."""
    return hashlib.sha256(f"{lark.__version__}\n{grammar_text()}".encode()).hexdigest()[:16]


def held_table() -> dict[str, Any]:
    """What `table.json` holds: `digest`, and `table` as `worked_out` gives it, lists in place of tuples."""

    def numbered(entries: dict[str, Any]) -> dict[Any, Any]:
        """Lark's keys are all names or all numbers, and JSON makes texts of numbers."""
        return {int(k): v for k, v in entries.items()} if next(iter(entries), "").isdigit() else entries

    text = resources.files("brewgraph.syntax").joinpath("table.json").read_text(encoding="utf-8")
    held: dict[str, Any] = json.loads(text, object_hook=numbered)
    return held


def worked_out() -> tuple[Any, Any]:
    """The table as plain values, as in lark's stand-alone parsers."""
    data, memo = build().memo_serialize([TerminalDef, Rule])
    return data, memo


def write_table() -> Path:
    """Write `table.json` anew."""
    path = Path(__file__).with_name("table.json")
    held = {"digest": digest(), "table": worked_out()}
    path.write_text(json.dumps(held, separators=(",", ":")) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(f"wrote {write_table()}")
