"""The canonical layout: what it changes, what it keeps, and that it is stable."""

from __future__ import annotations

import re
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings

from brewgraph.diagnostics import SpecError
from brewgraph.source import Source
from brewgraph.syntax.format import format_source
from brewgraph.syntax.logical_lines import lexemes
from tests.syntax.strategies import MAIN, Written, read, specs


def formatted(text: str) -> str:
    """The text in its canonical layout, which must be stable and mean the same."""
    once = format_source(Source(text))
    assert format_source(Source(once)) == once
    assert read(once) == read(text)
    return once


STABLE = [
    MAIN,
    "",
    "# only a comment\n",
    "param width: int = 384\n",
    'import "lib.brew" as lib\nimport mypkg.losses as my\n',
    "student tiny = hf() { head ner = token_classifier(labels=9) }\n",
    'tap t = bert @ "bert.encoder.layer.7.output"\ntap u = bert @ input "bert.encoder"[1]\n',
    "proj W = linear(312 -> 768, lr=1e-3)\n",
    "f(a, b) = a + b\n",
    'cache NAME = EXPR at "path"\n',
    "task NAME { a = 1 }\n",
    "x = hf(inputs={a: b, c: d})\ny = {{a: b,\n        c: d}: e}\n",
    "student s = hf(inputs={a: b,\n        c: d}) {\n    head n = f()\n}\n",
    "sample [ner, qa] ~ size ** 0.5\n",
    "stage NAME for 3 epochs { train { } }\n".replace("{ }", "{}"),
    "x = fsp((a.hidden[0], a.hidden[4]) -> (b.hidden[0], b.hidden[1]))\n",
    "x = piecewise(0%: 1, 30%: 0.2) * ramp(1 -> 0) * after(1000 steps)\n",
    "x = a.hidden[0, 4, 8] - b.hidden[::4] / c.hidden[:][-1] ** -2\n",
    'x = files(train="a.jsonl", text=[premise, hypothesis], mask=15%)(a)["b"]\n',
]


@pytest.mark.parametrize("text", STABLE)
def test_what_is_well_laid_out_stays(text: str) -> None:
    """The language's own examples are their own canonical layout, gaps before comments and aligned `=` included."""
    assert formatted(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=a", "x = a"),
        ("x = a+b*c/d**e-f", "x = a + b * c / d ** e - f"),
        ("x = - 1", "x = -1"),
        ("x = a* - b", "x = a * -b"),
        ("x = [ - 1,- - a ]", "x = [-1, --a]"),
        ("x = f( - x , T = 2 )", "x = f(-x, T=2)"),
        ("x = 2 ** - a", "x = 2 ** -a"),
        ("x = f(a->b via  linear)", "x = f(a -> b via linear)"),
        ("x = a . b [ 0 ] ( c )", "x = a.b[0](c)"),
        ("x = 3 .y", "x = 3 .y"),
        ("x = a [ : : 4 , 1 : 3 ]", "x = a[::4, 1:3]"),
        ("x = f(0% :1)", "x = f(0%: 1)"),
        ("x = 3\tepochs", "x = 3 epochs"),
        ("x = via (a) via via", "x = via(a) via via"),
        ("x = a via (W)", "x = a via (W)"),
        ("x = (a , )", "x = (a,)"),
        ("f( a,b = 2 )=a", "f(a, b=2) = a"),
        ("for (a) = a", "for(a) = a"),
        ("param T :int=3", "param T: int = 3"),
        ('tap t=bert@input"p" [1]', 'tap t = bert @ input "p"[1]'),
        ('cache c=y at"p"', 'cache c = y at "p"'),
        ('cache c=y at"p"as bf16 limit  20GB', 'cache c = y at "p" as bf16 limit 20 GB'),
        ("sample[a]~size,b=1", "sample [a] ~ size, b = 1"),
        ('import"x"as y', 'import "x" as y'),
        ("import a . b", "import a.b"),
        ("train{a=1;b=2}", "train { a = 1; b = 2 }"),
        ("train {  }", "train {}"),
        ("train { ; }", "train {}"),
        ("stage s for(3 epochs){;a = 1;;b = 2;}", "stage s for (3 epochs) { a = 1; b = 2 }"),
        ("a = 1 ;b = 2;", "a = 1; b = 2"),
        ("a = 1 #b  ", "a = 1  #b"),
        ("a = 1;  # b", "a = 1  # b"),
        ('a = "x  ;  #"   ', 'a = "x  ;  #"'),
    ],
)
def test_blanks(text: str, expected: str) -> None:
    """One blank where it helps, none where it does not, and idle `;` are dropped."""
    assert formatted(text) == expected + "\n"


LINES = {
    "blank lines: one at most between statements, none at the edges": (
        "\n\n a = 1\n\n\n\nb = 2\n\ntrain {\n\n  c = 3\n\n\n  d = 4\n\n}\n\n\n",
        "a = 1\n\nb = 2\n\ntrain {\n    c = 3\n\n    d = 4\n}\n",
    ),
    "CRLF and tabs": ("a = 1\r\n\tb\t=\t2\t\r\n", "a = 1\nb = 2\n"),
    "a block over several lines has its braces to itself": (
        "train { a = 1\n b = 2; c = 3 }\n",
        "train {\n    a = 1\n    b = 2; c = 3\n}\n",
    ),
    "nested blocks": (
        "stage s {\ntask t { a = 1; train {\nb = 2 } } }\n",
        "stage s {\n    task t {\n        a = 1; train {\n            b = 2\n        }\n    }\n}\n",
    ),
    "a block over several lines, and what follows it": ("task t {\na = 1 } ; b = 2", "task t {\n    a = 1\n}; b = 2\n"),
    "brackets: one step for each, closers where their line began": (
        "x = f(\na,\ng(\nb\n)\n)\n",
        "x = f(\n    a,\n    g(\n        b\n    )\n)\n",
    ),
    "brackets opened on one line": ("x = f(g(\na\n), [\nb])\n", "x = f(g(\n        a\n), [\n        b])\n"),
    "operators: one step": ("x = a\n+ b *\nc\n", "x = a\n    + b *\n    c\n"),
    "brackets on a line that runs on": ("x = a\n+ f(\nb\n)\n", "x = a\n    + f(\n        b\n    )\n"),
    "lines that run on inside a block": ("train {\nx = f(\na)\n}\n", "train {\n    x = f(\n        a)\n}\n"),
    "no blank lines inside a statement": ("x = f(\n\n\na,\n\nb\n)\n\n+ c\n", "x = f(\n    a,\n    b\n)\n    + c\n"),
    "comments stand like the code that follows": (
        "    # a\ntrain {\n# b\nc = 1\n        # d\n}\n    # e\n",
        "# a\ntrain {\n    # b\n    c = 1\n    # d\n}\n# e\n",
    ),
    "comments in brackets and before operators": (
        "x = f( # a\n# b\nc,# d\n# e\n)\n# f\n+ g\n",
        "x = f(  # a\n    # b\n    c,  # d\n    # e\n)\n    # f\n    + g\n",
    ),
    "comments after braces": ("train{# a\nb = 1}# c\n", "train {  # a\n    b = 1\n}  # c\n"),
    "a comment's own text": ("#!  x \t\n#\n", "#!  x\n#\n"),
}


@pytest.mark.parametrize("name", LINES)
def test_lines(name: str) -> None:
    """Line breaks, indentation, and where comments stand."""
    text, expected = LINES[name]
    assert formatted(text) == expected


ALIGNMENT = {
    "aligned `=` stay aligned, as far left as fits": ("a      = 1\nbb     = 2\n", "a  = 1\nbb = 2\n"),
    "`=` that were not aligned are not": ("a = 1\nbb = 2\n", "a = 1\nbb = 2\n"),
    "a lone `=` has one blank": ("a     = 1\n", "a = 1\n"),
    "a blank line parts": ("a  = 1\n\nbb = 2\n", "a = 1\n\nbb = 2\n"),
    "a comment line parts": ("a  = 1\n# c\nbb = 2\n", "a = 1\n# c\nbb = 2\n"),
    "a statement over several lines parts": ("a  = f(\n1)\nbb = 2\n", "a = f(\n    1)\nbb = 2\n"),
    "keywords and functions take part": (
        "let a       = 1\nf(b, c = 1) = 2\nteacher d   = e\n",
        "let a     = 1\nf(b, c=1) = 2\nteacher d = e\n",
    ),
    "inside a block": ("train {\na  = 1\nbb = 2\n}\n", "train {\n    a  = 1\n    bb = 2\n}\n"),
    "not within one line": ("train { a  = 1; bb = 2 }\n", "train { a = 1; bb = 2 }\n"),
    "comments in one column stay so, with the longest line's gap": (
        "a = 1     # x\nbbb=2     # y\n",
        "a = 1       # x\nbbb = 2     # y\n",
    ),
    "comments: two blanks at least": ("a = 1 # x\nbb = 2 # y\n", "a = 1  # x\nbb = 2  # y\n"),
    "a lone comment keeps its gap": ("a = 1      # x\n", "a = 1      # x\n"),
    "a line without comment parts": ("a = 1    # x\nb = 2\nccc = 3  # y\n", "a = 1    # x\nb = 2\nccc = 3  # y\n"),
    "both at once": ("a    =  1    # x\nbb   =  22   # y\n", "a  = 1    # x\nbb = 22   # y\n"),
}


@pytest.mark.parametrize("name", ALIGNMENT)
def test_alignment(name: str) -> None:
    """Neighbours that the author put in one column stay in one; nothing else is moved there."""
    text, expected = ALIGNMENT[name]
    assert formatted(text) == expected


def test_a_spec_at_fault_is_not_formatted() -> None:
    """The error carries every fault, as parsing finds them."""
    with pytest.raises(SpecError, match="two expressions without an operator between them") as caught:
        format_source(Source("a = 1 1\nb = = 2\n"))
    assert [d.span.position for d in caught.value.diagnostics] == [(1, 7), (2, 5)]


def test_what_means_nothing_is_all_that_changes() -> None:
    """Without blanks, line breaks and `;`, a text and its layout are the same characters."""
    text = dedent("""
        x=f(a,#one
        b  )
        task t{ y=- 1;; z = "a  b" }
    """)
    assert re.sub(r"[\s;]", "", formatted(text)) == re.sub(r"[\s;]", "", text)


def comments(text: str) -> tuple[str, ...]:
    """The comments of a text in order, without blanks behind them."""
    return tuple(piece.text.rstrip() for piece in lexemes(text)[0] if piece.kind == "comment")


@settings(derandomize=True, deadline=None, database=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(specs())
def test_any_legal_spec(written: Written) -> None:
    """Formatting keeps the meaning and every comment, is stable, and leaves no blank at the end of a line."""
    once = formatted(written.text)
    assert comments(once) == written.comments
    assert not re.search(r"[ \t\r]$", once, re.MULTILINE)
    assert "\n\n\n" not in once
    assert not once.startswith("\n")
    assert once == "" or (once.endswith("\n") and not once.endswith("\n\n"))
