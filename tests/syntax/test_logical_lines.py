"""Where logical lines end, and whether brackets and quotes close."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import Collector
from brewgraph.source import Source
from brewgraph.syntax.logical_lines import blank, lexemes, resplit, split
from brewgraph.syntax.parser import KEYWORDS, parse
from tests.syntax.strategies import read


def codes(text: str) -> list[str]:
    """The codes of the faults that parsing finds."""
    collector = Collector()
    parse(Source(text), collector)
    return [d.code for d in collector.sorted()]


GOES_ON = {
    "inside round brackets": ("x = f(a\n, b)", "x = f(a)\n, b"),
    "inside square brackets": ("x = [a\n\n, b\n]", "x = [a]\n, b"),
    "inside square brackets within braces": ("train { x = [a,\n b] }", "train { x = [a] y\n b = 1 }"),
    "after `=`": ("x =\n  1", "x\n = 1"),
    "after `,` outside brackets": ("sample [a] ~ size,\n low = 1", "sample [a] ~ size\n, low = 1"),
    "after `+`": ("x = a +\n  b", "x = a\n  b"),
    "after `-`": ("x = a -\n\n  b", "x = a ;\n - b"),
    "after `**`": ("x = a **\n  b", "x = a\n  b **"),
    "after `->`": ("x = f(a) ->\n  b", "x = f(a) ->"),
    "after `~`": ("sample [a] ~\n  size", "sample [a]\n  ~ size"),
    "after `@`": ('tap t = bert @\n  "x"', 'tap t = bert\n  @ "x"'),
    "after an operator and a comment": ("x = a +  # two\n  b", "x = a  # + two\n  b"),
    "before `+`": ("x = a\n  + b", "x = a\n  b"),
    "before `-`": ("x = a\n- b", "x = a\n(b)"),
    "before `*`": ("x = a\n  * b", "x = a\n  . b"),
    "before `/`": ("x = a\n  / b", "x = a\n  [b]"),
    "before `**`": ("x = a\n  ** b", "x = a\n  ^ b"),
    "before `->`": ("let m = [0]\n  -> [1]", "let m = [0]\n  [1]"),
    "before an operator, past blank lines and comments": ("x = a  # one\n\n# two\n + b", "x = a  # one\n\n# two\n b"),
    "never before `via`": ("x = a via linear", "x = a\n  via linear"),
    "never before `{`": ("task a { }", "task a\n{ }"),
    "never after a word": ("stage a for 3 epochs { }", "stage a for\n3 epochs { }"),
}


@pytest.mark.parametrize(("right", "wrong"), GOES_ON.values(), ids=GOES_ON)
def test_a_line_runs_on(right: str, wrong: str) -> None:
    """Each rule of continuation reads as one statement; its neighbour, beyond the rule, is at fault."""
    assert codes(right) == []
    assert len(read(right).statements) == 1
    assert codes(wrong) != []


@pytest.mark.parametrize(
    "text",
    ["a = 1; b = 2", "a = 1\nb = 2", "a = 1;\n\n;b = 2;", "\n a = 1 # one\r\n\tb = 2\r\n", "a = 1 # ; c = 3\nb = 2"],
)
def test_what_separates_statements(text: str) -> None:
    """`;`, a line break, or several of both end a statement; CRLF is a line break; a comment holds no statement."""
    assert read(text) == read("a = 1\nb = 2\n")


def test_blanking_keeps_every_offset() -> None:
    """Comments and idle line breaks become blanks, so that places in the blanked text are places in the text."""
    text = 'x = f(a,  # one\n      "#")  # two\ny = 1'
    blanked = blank(lexemes(text)[0])
    assert blanked == "x = f(a," + " " * 14 + '"#")' + " " * 7 + "\ny = 1"
    assert len(blanked) == len(text)


@pytest.mark.parametrize(
    ("text", "kind", "start"),
    [
        ("x = (a", "unclosed", 4),
        ("x = a)", "stray", 5),
        ("x = (a]", "mismatch", 6),
        ("x = f([a)", "unclosed", 6),
        ("task a { b = (1 }", "unclosed", 13),
        ('x = "a', "quote", 4),
        ('x = "', "quote", 4),
    ],
)
def test_bracket_faults(text: str, kind: str, start: int) -> None:
    """A bracket or quote without partner is found at its own place; a bracket left open inside another is the culprit."""
    assert [(fault.kind, fault.start) for fault in lexemes(text)[1]] == [(kind, start)]


def test_brackets_in_strings_and_comments_do_not_count() -> None:
    """A bracket is one only outside strings and comments."""
    assert lexemes('x = ")(" # ]')[1] == []


def test_statements_are_split_with_their_braces() -> None:
    """A statement reaches to the end of its braces; separators inside them are its own."""
    text = "a = 1; task b { c = 2; d = 3\n }\n# no\ne = f(\n)"
    pieces, _ = lexemes(text)
    assert [text[a:b] for a, b in split(pieces)] == ["a = 1", "task b { c = 2; d = 3\n }", "e = f(\n)"]


def test_an_unclosed_bracket_ends_where_a_statement_seems_to_begin() -> None:
    """`name =` and keyword lines no deeper than the first cut; deeper ones are the arguments of the open call."""
    text = "x = f(\n    T = 3,\ny = 2\nteacher b = hf()\n"
    parts = [text[a:b].strip() for a, b in resplit(text, 0, len(text), KEYWORDS)]
    assert parts == ["x = f(\n    T = 3,", "y = 2", "teacher b = hf()"]


def test_many_lines_are_cut_in_linear_time() -> None:
    """Twenty thousand line breaks are no work: each looks ahead once."""
    pieces, faults = lexemes("a = 1\n" * 20_000)
    assert sum(piece.breaks for piece in pieces) == 20_000
    assert faults == []
