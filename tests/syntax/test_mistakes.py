"""What faulty texts are told: code, place, words and remedy, each beside its neighbour that is right."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from brewgraph.diagnostics import Collector, Diagnostic, render
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.syntax.strategies import MAIN, mutations


def faults(text: str) -> list[Diagnostic]:
    """The diagnostics of a text, in the order of the text."""
    collector = Collector()
    parse(Source(text), collector)
    return collector.sorted()


# faulty text, right neighbour, code, line, column, the culprit, a part of the message, a part of the help
FAULTS = [
    ("x = (a", "x = (a)", "B001", 1, 5, "(", "unclosed `", "closing bracket"),
    ("y = 1\nx = f(\n  [a\n)", "y = 1\nx = f(\n  [a]\n)", "B001", 3, 3, "[", "unclosed `", "closing bracket"),
    ("x = a)", "x = a", "B002", 1, 6, ")", "unmatched", "remove it"),
    ("x = (a]", "x = (a)", "B002", 1, 7, "]", "`]` cannot close `(`", "inner bracket"),
    ('x = "a', 'x = "a"', "B003", 1, 5, '"a', "unclosed string", "same line"),
    ("3 = x", "x = 3", "B010", 1, 1, "3", "cannot begin with `3`", "name and `=`"),
    ("-- a note of several words", "# note", "B010", 1, 1, "--", "does not start a comment", "comments start with `#`"),
    ("x = 1\n-- note\n-- more\ny = 2", "x = 1\n# note", "B010", 2, 1, "--", "does not start a comment", "comments start with `#`"),
    ("x = 1 -- two words", "x = 1  # two words", "B010", 1, 14, "words", "does not start a comment", "comments start with `#`"),
    ("% note", "# note", "B010", 1, 1, "%", "does not start a comment", "comments start with `#`"),
    ("/* note\n   more */\nx = 1", "# note", "B010", 1, 1, "/*", "does not start a comment", "on each line"),
    ('"""\nnote\n"""\nx = 1', "# note", "B010", 1, 1, '"""', "does not start a comment", "on each line"),
    ("[train]", "train { epochs = 3 }", "B010", 1, 1, "[", "cannot begin with `[`", "`train { epochs = 3 }`"),
    ("model: bert", 'teacher big = hf("bert")', "B010", 1, 6, ":", "`model` is not a statement", "write `teacher big"),
    ("let x: float = 4", "param x: float = 4", "B010", 1, 6, ":", "only a param has a type", "or `let NAME = VALUE`"),
    ("// note", "# note", "B010", 1, 1, "//", "does not start a comment", "comments start with `#`"),
    ("= 3", "x = 3", "B010", 1, 1, "=", "expected a name before `=`", "name = …"),
    ("{ a = 1 }", "task b { a = 1 }", "B010", 1, 1, "{", "a brace is not allowed here", "task NAME"),
    ("brew one", "brew 1", "B010", 1, 6, "one", "version is expected", "brew 1"),
    ("brew 1 x = 2", "brew 1; x = 2", "B010", 1, 8, "x", "cannot follow the version", "new line"),
    ('import "a.brew" b', 'import "a.brew" as b', "B010", 1, 17, "b", "expected `as` before `b`", 'import "lib.brew" as lib'),
    ("import a, b", "import a; import b", "B010", 1, 9, ",", "one thing", "one `import` for each"),
    ("import a as", "import a as b", "B010", 1, 10, "as", "expected a name after `as`", "import"),
    ("from a import b", "import a as b", "B010", 1, 6, "a", "`from` is not a statement", "import package.module as name"),
    ("param T:", "param T: int", "B010", 1, 8, ":", "expected a type after `:`", "param NAME: int"),
    ("param T int = 3", "param T: int = 3", "B010", 1, 9, "int", "after the name of a param", "NAME: int"),
    ("param T: int 3", "param T: int = 3", "B010", 1, 14, "3", "after the type of a param", "NAME: int"),
    ("let m", "let m = 1", "B010", 1, 5, "m", "expected `=` after `let m`", "let NAME = VALUE"),
    ('teacher = hf("x")', 'teacher t = hf("x")', "B010", 1, 9, "=", "expected a name after `teacher`", "keyword cannot"),
    ('teacher t hf("x")', 'teacher t = hf("x")', "B010", 1, 11, "hf", "expected `=` after `teacher t`", "teacher NAME = hf"),
    ("data d = a -> b", "data d = a + b", "B010", 1, 12, "->", "arrow is not allowed in `data`", "mse(a -> b)"),
    ("student s = hf() { head }", "student s = hf() { head h = f() }", "B010", 1, 20, "head", "expected a name after `head`", "head NAME"),
    ("student s = hf() {} x = 1", "student s = hf() {}; x = 1", "B010", 1, 21, "x", "nothing can follow", "new line"),
    ("tap t = bert @ x", 'tap t = bert @ "x"', "B010", 1, 16, "x", "expected a path after `@`", "in quotes"),
    ("tap t = bert @ input", 'tap t = bert @ input "x"', "B010", 1, 16, "input", "expected a path after `input`", "quotes"),
    ("cache c = y", 'cache c = y at "p"', "B010", 1, 11, "y", "place on disk", 'at "path"'),
    ("cache c = y at z", 'cache c = y at "z"', "B010", 1, 16, "z", "expected a path after `at`", "in quotes"),
    ('cache c = y at "p" bf16', 'cache c = y at "p" as bf16', "B010", 1, 20, "bf16", "cannot follow the path", "as bf16"),
    ('cache c = y at "p" as', 'cache c = y at "p" as bf16', "B010", 1, 20, "as", "a number format after `as`", "bf16"),
    ('cache c = y limit 2 GB', 'cache c = y at "p" limit 2 GB', "B010", 1, 13, "limit", "the path comes before", 'at "path"'),
    ('cache c = y at "p" limit 2', 'cache c = y at "p" limit 2 GB', "B010", 1, 26, "2", "expected a size", "20 GB"),
    ('cache c = y "p"', 'cache c = y at "p"', "B010", 1, 13, '"p"', "expected `at` before the path", 'at "path"'),
    ("sample [a] size", "sample [a] ~ size", "B010", 1, 12, "size", "expected `~` before `size`", "~ size ** 0.5"),
    ("sample [a] ~", "sample [a] ~ size", "B010", 1, 12, "~", "expected a law after `~`", "~ size ** 0.5"),
    ("sample a, b", "sample [a, b]", "B010", 1, 11, "b", "expected an option after `,`", "sample [ner, qa]"),
    ("sample [a], 3", "sample [a], b = 3", "B010", 1, 13, "3", "expected an option after `,`", "name = value"),
    ("sample [a] = 3", "sample [a], b = 3", "B010", 1, 12, "=", "`=` is not allowed here", "sample [ner, qa]"),
    ("task ner\n", "task ner { }", "B010", 1, 6, "ner", "braces are expected after `ner`", "same line"),
    ("task ner for 3 epochs { }", "stage ner for 3 epochs { }", "B010", 1, 10, "for", "only a stage", "stage NAME for"),
    ("stage a 3 epochs { }", "stage a for 3 epochs { }", "B010", 1, 9, "3 epochs", "expected `for` before `3 epochs`", "stage NAME for"),
    ("stage a for { }", "stage a for 3 epochs { }", "B010", 1, 15, "}", "expected a length after `for`", "for 3 epochs"),
    ("stage a for { b = 3 }", "stage a for 3 epochs { b = 3 }", "B010", 1, 17, "=", "expected a length after `for`", "for 3 epochs"),
    ("stage a for {\n}", "stage a for 1 epoch {\n}", "B010", 1, 14, "\n", "expected a length after `for`", "for 3 epochs"),
    ("train epochs = 3", "train { epochs = 3 }", "B010", 1, 7, "epochs", "braces are expected", "train { epochs = 3 }"),
    ("train { epochs: 3 }", "train { epochs = 3 }", "B010", 1, 15, ":", "expected `=` after `epochs`", "epochs = …"),
    ("train { a = 3 b = 2 }", "train { a = 3; b = 2 }", "B010", 1, 15, "b", "two statements", "`;` or a line break"),
    ("train { a = 3, b = 2 }", "train { a = 3; b = 2 }", "B010", 1, 14, ",", "outside brackets", "separated by `;`"),
    ("loss", "loss = soft", "B010", 1, 1, "loss", "expected `=` after `loss`", "an expression has no effect by itself; name its value: `loss = …`"),
    ("kd(a -> b)", "loss = kd(a -> b)", "B010", 1, 6, "->", "parameters of a function", "`loss = kd(…)`"),
    ("f(a)", "f(a) = a", "B010", 1, 4, ")", "expected `=` after `f(…)`", "f(a, b) = …"),
    ("a.b = 1", "a = 1", "B010", 1, 2, ".", "expected `=` after `", "one plain name"),
    ("a, b = 1", "a = 1; b = 1", "B010", 1, 2, ",", "expected `=` after `", "one plain name"),
    ("a-b = 1", "a_b = 1", "B010", 1, 2, "-", "expected `=` after `", "`a_b = …`"),
    ("a-b-c = 1", "a_b = 1", "B010", 1, 2, "-", "expected `=` after `", "`a_b_c = …`"),
    ("x = hf(/a/b)", 'x = hf("/a/b")', "B010", 1, 8, "/", "expected an expression before `/`", "a path needs quotes"),
    ("x += 1", "x = 1", "B010", 1, 3, "+", "expected `=` after `", "no `+=`"),
    ("x : int = 1", "param x: int = 1", "B010", 1, 3, ":", "expected `=` after `", "only after `param`"),
    ('tecaher t = hf("x")', 'teacher t = hf("x")', "B010", 1, 9, "t", "expected `=` after `tecaher`", "mean `teacher`?"),
    ("trian { a = 1 }", "train { a = 1 }", "B010", 1, 7, "{", "expected `=` after `trian`", "mean `train`?"),
    ("def f(a) = a", "f(a) = a", "B010", 1, 5, "f", "`def` is not a statement", "f(a, b) = …"),
    ("if x { }", "x = after(30%)", "B010", 1, 4, "x", "`if` is not a statement", "no conditions"),
    ("for x in y { }", "x = sum(y)", "B010", 1, 5, "x", "`for` is not a statement", "no loops"),
    ("x =", "x = 1", "B010", 1, 3, "=", "expected an expression after `=`", "name or a value"),
    ("x = a +", "x = a + b", "B010", 1, 7, "+", "expected an expression after `+`", "remove `+`"),
    ("x = f(a, , b)", "x = f(a, b)", "B010", 1, 10, ",", "expected an expression before `,`", "remove `,`"),
    ("x = f(a ->)", "x = f(a -> b)", "B010", 1, 11, ")", "expected an expression before `)`", "remove `->`"),
    ("x = f(T=)", "x = f(T=1)", "B010", 1, 9, ")", "expected an expression before `)`", "name or a value"),
    ("x = f(=1)", "x = f(T=1)", "B010", 1, 7, "=", "expected a name before `=`", "name=value"),
    ("x = a * / b", "x = a * b", "B010", 1, 9, "/", "`/` directly follows `*`", "between the operators"),
    ("x = a // b", "x = a / b", "B010", 1, 8, "/", "`//` is not valid here", "comments start with `#`; a quotient is written `/`"),
    ("x = +a", "x = -a", "B010", 1, 5, "+", "expected an expression before `+`", "only `-`"),
    ("x = a == b", "x = a - b", "B010", 1, 7, "=", "`==` is not valid here", "comparisons are not supported"),
    ("x == 1", "x = 1", "B010", 1, 4, "=", "`==` is not valid here", "one `=`"),
    ("x = a = b", "x = a; y = b", "B010", 1, 7, "=", "second `=`", "one equation for each name"),
    ("x = a => b", "let x = a -> b", "B010", 1, 7, "=", "`=>` is not valid here", "`->`"),
    ("x = f(a -> b -> c)", "x = f(a -> (b -> c))", "B010", 1, 14, "->", "only one arrow", "brackets"),
    ("x = a[0 -> 1]", "x = a[0, 1]", "B010", 1, 9, "->", "arrow is not allowed in an index", "let map"),
    ("x = a via", "x = a via linear", "B010", 1, 7, "via", "expected a projection after `via`", "via linear"),
    ("x = a via b + c", "x = (a via b) + c", "B010", 1, 13, "+", "cannot follow `via`", "(a via linear)"),
    ("x = a.3", "x = a[3]", "B010", 1, 7, "3", "expected a name after `.`", "bert.hidden[3]"),
    ("x = .5", "x = 0.5", "B010", 1, 5, ".", "begins with a digit", "`0.5`"),
    ("x = 1,000", "x = 1000", "B010", 1, 6, ",", "comma is not allowed in a number", "`1000`"),
    ("x = 1_000", "x = 1000", "B010", 1, 6, "_000", "without an operator", "`1000`"),
    ("x = 2 soft", "x = 2 * soft", "B010", 1, 7, "soft", "without an operator", "`2 * soft`"),
    ("x = soft hard", "x = soft + hard", "B010", 1, 10, "hard", "two expressions", "operator or a comma"),
    ("x = f(a b)", "x = f(a, b)", "B010", 1, 9, "b", "two expressions", "operator or a comma"),
    ("x = f(a=1 b=2)", "x = f(a=1, b=2)", "B010", 1, 11, "b", "two arguments", "comma"),
    ('x = hf "a"', 'x = hf("a")', "B010", 1, 8, '"a"', "without an operator", '`hf("a")`'),
    ("x = 3steps", "x = 3 steps", "B010", 1, 6, "steps", "without an operator", "`3 steps`"),
    ("x = soft, hard", "x = [soft, hard]", "B010", 1, 9, ",", "outside brackets", "`[a, b]`"),
    ("x = f(a; b)", "x = f(a, b)", "B010", 1, 8, ";", "inside an open `(`", "close the bracket"),
    ("x = [T=1]", "x = [f(T=1)]", "B010", 1, 7, "=", "a keyword argument is not allowed here", "it belongs in the parentheses of a call: `f(a, T=4)`"),
    ("x = f(a.b=1)", "x = f(b=1)", "B010", 1, 10, "=", "one plain word", "name=value"),
    ("x = [0:3]", "x = a[0:3]", "B010", 1, 7, ":", "something to pick from", "a[0:3]"),
    ("x = a[1:2:3:4]", "x = a[1:2:3]", "B010", 1, 12, ":", "at most three parts", "start:stop:step"),
    ("x = (0%: 1)", "x = piecewise(0%: 1)", "B010", 1, 8, ":", "pair is not allowed here", "arguments of a call"),
    ("x = a[]", "x = a[:]", "B010", 1, 7, "]", "index is empty", "[:]"),
    ("x = ()", "x = (a,)", "B010", 1, 6, ")", "brackets are empty", "none"),
    ("x = {a}", "x = [a]", "B010", 1, 7, "}", "a name needs no braces", "a list is written `[a]`"),
    ("x = f({a, b})", "x = f([a, b])", "B010", 1, 9, ",", "expected `:` before `,`", "`{name: column}`"),
    ("x = f(i={a=b})", "x = f(i={a: b})", "B010", 1, 11, "=", "expected `:` before `=`", "`{name: column}`"),
    ("x = {a: b\n}", "x = {a: b}", "B010", 1, 10, "\n", "a mapping must be on one line", "before the line ends"),
    ("x = {a: }", "x = {a: b}", "B010", 1, 9, "}", "expected an expression before `}`", "remove `:`"),
    ("x = f(*a)", "x = f(a)", "B010", 1, 7, "*", "nothing to its left", "unpacked"),
    ("x = a if b", "x = after(30%) * a", "B010", 1, 7, "if", "`if` is not valid here", "no conditions"),
    ("x = a for b", "x = sum(a)", "B010", 1, 7, "for", "`for` belongs to `stage`", "no loops"),
    ('x = a at "p"', 'cache x = a at "p"', "B010", 1, 7, "at", "`at` belongs to `cache`", 'at "path"'),
    ("x = lambda a: a", "x(a) = a", "B010", 1, 12, "a", "`lambda` is not valid here", "f(a, b) = …"),
    ("x = 'a'", 'x = "a"', "B011", 1, 5, "'", "`'` is not valid here", "double quotes"),
    ("x = “a”", 'x = "a"', "B011", 1, 5, "“", "`“` is not valid here", "double quotes"),
    ("x = a → b", "let x = a -> b", "B011", 1, 7, "→", "`→` is not valid here", "`->`"),
    ("x = 5 %", "x = 5%", "B011", 1, 7, "%", "`%` is not valid here", "30%"),
    ("x = a ^ b", "x = a ** b", "B011", 1, 7, "^", "`^` is not valid here", "`**`"),
    ("x = 3epochs", "x = 3 epochs", "B011", 1, 5, "3epochs", "is not a number", "`3 epochs`"),
    ("x = f(-> a)", "x = f(b -> a)", "B011", 1, 7, "->", "expected an expression before `->`", "joins two sides"),
    ("x = größe", "x = size", "B011", 1, 7, "ö", "`ö` is not valid here", "ASCII"),
    ("x = a\u00a0+ b", "x = a + b", "B011", 1, 6, "\u00a0", "character U+00A0", "replace it with a plain space"),
    ("\ufeffx = 1", "x = 1", "B011", 1, 1, "\ufeff", "character U+FEFF", "byte order mark"),
    ("x = " + "9" * 5000, "x = 999", "B013", 1, 5, "9" * 5000, "too long", "18 digits"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "right", "code", "line", "column", "culprit", "message", "help"),
    FAULTS,
    ids=[repr(case[0])[:40] for case in FAULTS],
)
def test_a_mistake_and_its_neighbour(
    text: str, right: str, code: str, line: int, column: int, culprit: str, message: str, help: str
) -> None:
    """The faulty text gives one diagnostic with code, place, words and remedy; the right one gives none."""
    (found,) = faults(text)
    assert (found.code, *found.span.position, found.span.text) == (code, line, column, culprit)
    assert message in found.message
    assert help in found.help
    assert faults(right) == []


def test_six_faults_give_six_diagnostics() -> None:
    """Statements are read on their own, those inside braces too; what is sound between them is in the tree."""
    text = """\
brew 1
tecaher bert = hf("x")
student tiny = hf("y"
data d = glue("mnli)
a = 3
loss = soft hard
stage one for 3 epochs {
    b = = 2
    task ner { c = 3epochs; d = 4 }
}
train { epochs = 1 }
"""
    collector = Collector()
    spec = parse(Source(text), collector)
    assert [(d.code, d.span.position) for d in collector.sorted()] == [
        ("B010", (2, 9)),
        ("B001", (3, 18)),
        ("B003", (4, 15)),
        ("B010", (6, 13)),
        ("B010", (8, 9)),
        ("B011", (9, 20)),
    ]
    assert [type(s).__name__ for s in spec.statements] == ["Version", "Equation", "Train"]


def test_a_fault_as_it_is_printed() -> None:
    """Message, place, line, caret and remedy, as a user sees them."""
    (found,) = faults("a = 1\nloss = 2 soft\n")
    assert render(found) == (
        "error[B010]: two expressions without an operator between them\n"
        " --> <string>:2:10\n"
        "  |\n"
        "2 | loss = 2 soft\n"
        "  |          ^^^^\n"
        "  |\n"
        "  = help: put an operator between them: `2 * soft`"
    )


@pytest.mark.parametrize("text", ["x = " + "-" * 3000 + "a", "x = " + "a ** " * 3000 + "a"])
def test_what_nests_too_deeply_is_a_fault(text: str) -> None:
    """A statement beyond what can be walked is a diagnostic at its place; its neighbours are read."""
    found = faults(f"b = 1\n{text}\nc = 2 2\n")
    assert [(d.code, d.span.position[0]) for d in found] == [("B012", 2), ("B010", 3)]
    assert "nested too deeply" in found[0].message
    assert "several equations" in found[0].help


GOOD = (
    MAIN
    + """
import "lib.brew" as lib
tap t = bert @ input "bert.encoder.layer.*"[1]
f(a, b=2) = ramp(1 -> 0) * a ** -b
cache h = bert.hidden[::4] at "folder"
sample [ner, qa] ~ size ** 0.5, floor = 0.1
stage one for 3 epochs {
    task ner { loss = piecewise(0%: 1, 30%: 0.2) * f(t) }   # one
}
"""
)


@settings(derandomize=True, deadline=None, database=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.one_of(mutations(GOOD), mutations("x = f(a, [b -> c], T=1)\ntask a { y = 3 epochs }"), st.text(max_size=60)))
@example("\x0b")
@example("x = \x85 a")
@example('"' * 9)
def test_broken_texts_never_raise(text: str) -> None:
    """Whatever is typed, parsing answers: diagnostics with words, a remedy and a place, or a tree that spans the text."""
    collector = Collector()
    spec = parse(Source(text), collector)
    assert spec.span.end == len(text)
    for found in collector.sorted():
        assert 0 <= found.span.start < found.span.end <= len(text)
        assert found.message
        assert found.help
        assert found.message in render(found)


@settings(derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(GOOD) - 1))
def test_a_character_without_meaning_is_always_found(at: int) -> None:
    """`?` outside strings and comments is at fault wherever it is put: silence would mean that text got lost."""
    line = GOOD[GOOD.rfind("\n", 0, at) + 1 : at]
    in_comment = "#" in line and line[: line.index("#")].count('"') % 2 == 0
    in_string = not in_comment and line.count('"') % 2 == 1
    found = faults(GOOD[:at] + "?" + GOOD[at:])
    assert bool(found) == (not in_comment and not in_string)
