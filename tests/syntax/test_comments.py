"""Comments that silence warnings: what they cover, and what is said of those that silence nothing."""

from __future__ import annotations

import pytest

import brewgraph as bg
from brewgraph.diagnostics import Collector, Diagnostic
from brewgraph.source import Source, Span
from brewgraph.syntax.comments import check_ignores
from brewgraph.syntax.parser import parse

TEXT = """\
{0}
one = kd(a -> b)    {1}
{2}
two = kd(
    a -> b,    {3}
    T=2)
task x {{
    {4}
    three = kd(a -> b); loss = three
    four = kd(a -> b)
}}
"""
MARKS = ("one", "two", "T=2", "three", "four")


def read(text: str) -> tuple[Collector, Source]:
    """The text parsed."""
    source, collector = Source(text), Collector()
    parse(source, collector)
    assert not collector.failed, [d.message for d in collector.diagnostics]
    return collector, source


def heard(place: int, comment: str, code: str = "W205") -> list[str]:
    """Which of five warnings, each at a mark, are still said with this comment at one of five places."""
    text = TEXT.format(*(comment if i == place else "" for i in range(5)))
    collector, source = read(text)
    for mark in MARKS:
        start = text.index(mark)
        collector.add(code, "idle", Span(source, start, start + len(mark)), help="none")
    return [d.span.text for d in collector.sorted() if d.code == code]


@pytest.mark.parametrize(
    ("place", "silenced"),
    [
        (0, ["one"]),  # above a statement
        (1, ["one"]),  # behind it
        (2, ["two", "T=2"]),  # above one of three lines
        (3, []),  # its second line, where nothing is
        (4, ["three"]),  # in braces, to the semicolon, and no further
    ],
)
def test_what_a_comment_covers(place: int, silenced: list[str]) -> None:
    """Its line, or the statement below it; another code silences nothing."""
    rest = [mark for mark in MARKS if mark not in silenced]
    assert heard(place, "# brew: ignore[W205]") == rest
    assert heard(place, "#brew:ignore[ W207,W205 ] for a reason") == rest
    assert heard(place, "# brew: ignore[W207]") == list(MARKS)
    assert heard(place, "# says nothing of brew: ignore[W205]") == list(MARKS)


def test_the_whole_spec() -> None:
    """`ignore-file` above the first statement covers all of it; errors it does not."""
    assert heard(0, "# brew: ignore-file[W205]") == []
    assert heard(0, "# brew: ignore-file[W205, B205]", "B205") == list(MARKS)


def test_a_comment_above_a_block_covers_the_block() -> None:
    """From its head to its last brace."""
    collector, source = read("# brew: ignore[W205]\ntask x {\n    loss = kd(a -> b)\n}\ny = 1\n")
    for mark in ("loss", "y"):
        collector.add("W205", "idle", Span(source, source.text.index(mark), source.text.index(mark) + 1), help="none")
    assert [d.span.text for d in collector.sorted()] == ["y"]


def test_a_warning_over_several_lines_is_silenced_from_any_of_them() -> None:
    """Its last line serves as well as its first."""
    collector, source = read("x = kd(\n    a -> b,\n    T=2)    # brew: ignore[W213]\n")
    collector.add("W213", "idle", Span(source, 4, source.text.index(")") + 1), help="none")
    assert collector.sorted() == []


def of_ignores(text: str) -> list[Diagnostic]:
    """What is said of the comments of a text, in which there is nothing else to say."""
    collector, source = read(text)
    check_ignores(collector, source)
    return collector.sorted()


@pytest.mark.parametrize(
    ("comment", "place", "message", "help"),
    [
        ("# brew: ignore[W205]", "W205", "no W205 is reported here", "remove it"),
        ("# brew: ignore[W999]", "W999", "there is no warning `W999`", ""),
        ("# brew: ignore[w205]", "w205", "there is no warning `w205`", "did you mean `W205`?"),
        ("# brew: ignore[B204]", "B204", "`B204` is an error, and errors cannot be silenced", "fix the error"),
        ("# brew: ignore", "# brew: ignore", "malformed `brew:` comment: it silences nothing", "ignore[W205]"),
        ("# brew: ignroe[W205]", "# brew: ignroe[W205]", "it silences nothing", "ignore[W205]"),
        ("# brew: ignore[]", "# brew: ignore[]", "this comment names no code", "ignore[W205]"),
        ("# brew: ignore-file[W205]", "# brew: ignore-file[W205]", "`ignore-file` must precede", "move it above"),
    ],
)
def test_comments_that_do_nothing(comment: str, place: str, message: str, help: str) -> None:
    """W110, at the code or the comment."""
    (found,) = of_ignores(f"x = 1    {comment}\n")
    assert (found.code, found.span.text) == ("W110", place)
    assert message in found.message
    assert help in found.help
    assert found.help


def test_each_code_of_a_comment_is_looked_at() -> None:
    """One that silences and one that does not, in one bracket."""
    collector, source = read("x = 1    # brew: ignore[W205, W207]\n")
    collector.add("W205", "idle", Span(source, 0, 1), help="none")
    check_ignores(collector, source)
    assert [(d.code, d.span.text) for d in collector.sorted()] == [("W110", "W207")]


def test_what_may_come_and_go_is_left_alone() -> None:
    """A warning that depends on the machine need not be here to be ignored."""
    collector, source = read("x = 1    # brew: ignore[W301, W207]\n")
    check_ignores(collector, source, frozenset({"W301"}))
    assert [d.span.text for d in collector.sorted()] == ["W207"]


def test_formatting_keeps_the_comment_where_it_is() -> None:
    """At the end of its line, and above its statement."""
    text = "# brew: ignore[W205] above\nx = kd(a -> b)    # brew: ignore[W213] behind\n"
    assert bg.format_text(text) == text
