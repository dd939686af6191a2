"""`brewgraph explain`."""

from __future__ import annotations

import re

import pytest

from brewgraph.explanations import CODES, page_of
from tests.cli.tiny import command


def test_a_page_is_printed_with_both_examples() -> None:
    """Title, words, the two specs indented, what they leave out, and the source."""
    result = command("explain", "W213")
    page = page_of("W213")
    assert page is not None
    assert (result.exit_code, result.stderr) == (0, "")
    words, _, rest = result.stdout.partition("\n\nwrong\n")
    assert words.split() == f"W213: {CODES['W213']} {page.words}".split()
    assert max(map(len, words.splitlines())) <= 80
    assert rest.startswith("    soft = ce(")
    assert "\nright\n    soft = kd(" in result.stdout
    assert "arXiv:1503.02531" in result.stdout
    assert command("explain", "w213").stdout == result.stdout


def test_a_code_without_a_page_has_its_family() -> None:
    """Its line, what it is about, and where to look."""
    result = command("explain", "B901")
    assert result.exit_code == 0
    assert result.stdout.startswith("B901: not supported yet\n\nFamily: not supported yet.")
    assert "help" in result.stdout


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("W299", "there is no code W299: did you mean `W2"),
        ("B000", "there is no code B000: "),
        ("W20", "`W20` is not a code: did you mean `W"),
        ("everything", "`everything` is not a code: write `brewgraph explain W205`"),
    ],
)
def test_what_is_no_code_ends_with_2(what: str, said: str) -> None:
    """With a suggestion where one is close."""
    result = command("explain", what)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_without_a_code_all_are_listed() -> None:
    """Each in a line of its own, with its words, below its family."""
    listed = dict(re.findall(r"^  ([BW]\d{3})  (.+)$", command("explain").stdout, re.M))
    assert listed == CODES


def test_the_tally_says_where_more_is() -> None:
    """Once, behind the count, and not behind each diagnostic."""
    result = command("check", "-", input="brew 1\nloss = ce(a -> b\nx = kd(a -> b\n")
    assert result.stdout.count("brewgraph explain") == 1
    assert result.stdout.endswith("<stdin>: 2 errors; more: brewgraph explain B001\n")
