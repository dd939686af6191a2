"""What the commands share: `--set`, colours, tables, tallies."""

from __future__ import annotations

import io
from typing import Any

import pytest

from brewgraph.cli.options import parse_sets, parse_value
from brewgraph.cli.output import coloured, painter, print_diagnostics, table, tally
from brewgraph.diagnostics import Diagnostic, Label, UsageError
from brewgraph.source import Source, Span


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


SOURCE = Source("loss = x\n", "a.brew")
ERROR = Diagnostic("B101", "there is no `x`", Span(SOURCE, 7, 8))
WARNING = Diagnostic("W301", "odd", Span(SOURCE, 7, 8))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("-3", -3), ("+3", 3), ("0.5", 0.5), ("1e-4", 1e-4), (".5", 0.5), ("2.", 2.0),
        ("true", True), ("false", False), ("none", None),
        ("bert-base", "bert-base"), ("", ""), ('"8"', "8"), ("'true'", "true"), ("nan", "nan"),
        ("1_000", "1_000"), ("1.2.3", "1.2.3"), ("[0, 4,8]", (0, 4, 8)), ("[a, 0.5]", ("a", 0.5)), ("[]", ()),
    ],
)  # fmt: skip
def test_values_on_the_command_line(text: str, value: Any):
    """Numbers, truth values, none and lists are read; all else is text, and quotes make it one."""
    found = parse_value(text)
    assert (found, type(found)) == (value, type(value))


def test_sets_take_the_last_of_a_name_and_keep_later_signs():
    """Only the first `=` divides."""
    assert parse_sets(["T=1", "name = a=b", "T=2"]) == {"T": 2, "name": "a=b"}


@pytest.mark.parametrize("text", ["T", "=3", "2x=3", ""])
def test_a_set_without_name_or_value_is_a_usage_error(text: str):
    """The message repeats what was given and shows the form."""
    with pytest.raises(UsageError) as error:
        parse_sets([text])
    example = "T=VALUE" if text == "T" else "NAME=VALUE"
    assert str(error.value) == f"`--set {text}` is not of the form `name=value`: write `--set {example}`"


def test_colours_only_on_a_terminal_and_not_against_the_users_will(monkeypatch):
    """A file gets none, nor does a terminal under NO_COLOR or a dumb one."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured(Terminal())
    assert not coloured(io.StringIO())
    assert painter(io.StringIO())("words", "error") == "words"
    monkeypatch.setenv("TERM", "dumb")
    assert not coloured(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(Terminal())


def test_diagnostics_are_painted_on_a_terminal(monkeypatch):
    """The head is red there; with NO_COLOR not an escape is left."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    print_diagnostics([ERROR], screen)
    assert screen.getvalue().startswith("\033[1;31merror[B101]\033[0m: there is no `x`\n")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    print_diagnostics([ERROR], screen)
    assert screen.getvalue() == ("error[B101]: there is no `x`\n --> a.brew:1:8\n  |\n1 | loss = x\n  |        ^\n\n")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "fine"),
        ([ERROR], "1 error"),
        ([ERROR, ERROR, WARNING], "2 errors, 1 warning"),
        ([WARNING, WARNING], "2 warnings"),
    ],
)
def test_tallies(found: list[Diagnostic], words: str):
    """Singular and plural, and nothing said of what there is none of."""
    assert tally(found) == words


def test_tables_are_aligned():
    """Columns as wide as their longest cell, numbers to the right, no blanks at the end."""
    assert table([("a", "size"), ("long", "7")], right=(1,)) == "a     size\nlong     7"
    assert table([("long", "x"), ("a", "")]) == "long  x\na"


LONG = Source("loss = " + "0.5 * soft + " * 9 + "oops + " + "0.5 * soft + " * 9 + "1\n", "a.brew")
AT = LONG.text.index("oops")


@pytest.mark.parametrize("columns", [60, 80, 400])
def test_on_a_terminal_a_fault_is_as_wide_as_it(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long line the part with the marks is shown, the carets below the culprit; words go on in the next line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    help = "the spec has " + " ".join(f"`name{i}`" for i in range(20))
    label = Label(Span(LONG, AT - 13, AT - 10), "one")
    fault = Diagnostic("B101", "there is no `oops` " * 6, Span(LONG, AT, AT + 4), help, "two", (label,))
    stream = io.StringIO()
    print_diagnostics([fault], stream)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    source = next(i for i, line in enumerate(lines) if line.startswith("1 |"))
    assert lines[source][lines[source + 1].index("^") :].startswith("oops +")
    assert lines[source][lines[source + 1].index("-") :].startswith("0.5 * soft + oops")
    assert ("…" in lines[source]) is (columns < 400)
    assert " ".join(" ".join(lines[source + 3 :]).split()) == f"= help: {help}"


def test_in_a_file_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says how wide it is, a line of source is whole."""
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    print_diagnostics([Diagnostic("B101", "x", Span(LONG, AT, AT + 4))], stream)
    assert f"1 | {LONG.line(1)}\n" in stream.getvalue()
