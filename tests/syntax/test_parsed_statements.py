"""Parsing a text again after a change: only statements that changed are parsed, and the tree is the same."""

from __future__ import annotations

import pytest

from brewgraph.checking.check import read
from brewgraph.diagnostics import Collector
from brewgraph.source import Source
from brewgraph.syntax import parser
from brewgraph.syntax.parser import ParsedStatements, parse

SPEC = """\
brew 1
param T = 4
let map = [0,
    4] -> [0, 1]
task ner { data a = glue("mnli"); loss = ce(a.labels -> tiny.logits) }
soft = kd(big.logits -> tiny.logits, T=T)
"""


def tree(text: str, known: ParsedStatements | None = None) -> list[tuple[str, int, int]]:
    """Each node of a text: its class and place."""
    spec = parse(Source(text), Collector(), known)
    return [(type(node).__name__, node.span.start, node.span.end) for node in spec.walk()]


@pytest.mark.parametrize(
    "text", [SPEC, SPEC.replace("T = 4", "T = 40"), SPEC.replace("kd(", "kd(("), SPEC.replace("task ner {", "task {")]
)
def test_known_statements_change_no_tree(text: str):
    """A text that is parsed with the statements of another one has the nodes and places of a fresh parse."""
    known = ParsedStatements()
    tree(SPEC, known)
    assert tree(text, known) == tree(text)


def test_only_the_statement_that_changed_is_parsed(monkeypatch: pytest.MonkeyPatch):
    """After a keystroke lark gets one statement, whatever else moved."""
    known, texts = ParsedStatements(), []
    tree(SPEC, known)
    real = parser.grammar()

    class Noted:
        def parse(self, text: str) -> object:
            texts.append(text)
            return real.parse(text)

    monkeypatch.setattr(parser, "grammar", Noted)
    tree(SPEC.replace("param T = 4", "param T = 400"), known)
    assert texts == ["param T = 400"]


def test_a_statement_that_does_not_parse_hides_no_unknown_name_elsewhere():
    """A name that no statement at fault contains is unknown whatever these would have defined."""
    text = 'brew 1\ndata d = glue("mnli"\nsoft = ce(d.labels -> tiny.logits)\nhard = ce(bigg.logits -> tiny.logits)\n'
    faults = [(d.code, d.span.text) for d in read(Source(text), {}).collector.sorted()]
    assert faults == [("B001", "("), ("B101", "tiny"), ("B101", "bigg"), ("B101", "tiny")]
