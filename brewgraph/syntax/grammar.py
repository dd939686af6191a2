"""The parser that lark makes of the grammar file: from a table that was worked out before, else anew.

To work the table out is most of the time that `brewgraph fmt` would take, so `table.py` holds it, written by

    python -m brewgraph.syntax.grammar

after each change of the grammar. A table of another grammar or another lark is passed over.
"""

from __future__ import annotations

import hashlib
import marshal
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import lark
from lark import Lark, lexer
from lark.grammar import Rule
from lark.lexer import TerminalDef


def grammar_text() -> str:
    """The grammar file: from the installed package, or from the checkout that an editable install reads."""
    packaged = resources.files("brewgraph").joinpath("grammar", "brew.lark")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "grammar" / "brew.lark").read_text(encoding="utf-8")


@cache
def grammar() -> Lark:
    """The parser of one or more statements."""
    from brewgraph.syntax import table

    if digest() != table.DIGEST:
        return build()
    parser: Lark = Lark._load_from_dict(*marshal.loads(table.VALUES))
    return parser


def build() -> Lark:
    """The parser, its table worked out."""
    # Where interegular is installed, lark looks for terminals that collide whenever it builds a parser: three times
    # the time of all the rest. A test does that once, under `strict`; here it is switched off.
    found, lexer.has_interegular = lexer.has_interegular, False
    try:
        return Lark(
            grammar_text(), parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=True
        )
    finally:
        lexer.has_interegular = found


def digest() -> str:
    """What a table stands on: the grammar and lark's version."""
    return hashlib.sha256(f"{lark.__version__}\n{grammar_text()}".encode()).hexdigest()[:16]


def worked_out() -> tuple[Any, Any]:
    """The table of the grammar as plain values, as lark's own stand-alone parsers hold it."""
    data, memo = build().memo_serialize([TerminalDef, Rule])
    return data, memo


def write_table() -> Path:
    """Write `table.py` anew."""
    data, memo = worked_out()
    path = Path(__file__).with_name("table.py")
    head = '"""Written by `python -m brewgraph.syntax.grammar`: the parser\'s table. Not for reading."""\n'
    values = marshal.dumps((data, memo), 4)  # plain values only
    path.write_text(f"{head}\nDIGEST = {digest()!r}\nVALUES = {values!r}\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(f"wrote {write_table()}")
