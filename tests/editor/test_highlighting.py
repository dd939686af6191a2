"""Colours: the TextMate grammar against the grammar of the language, and the lexer for Pygments."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pygments.token import Error, Keyword, Name, Number, String

from brewgraph.editor.pygments_lexer import BrewLexer
from brewgraph.editor.textmate import FILE, KEYWORD, OPERATOR, PUNCTUATION, SCOPES, as_file
from brewgraph.syntax.grammar import grammar
from brewgraph.syntax.logical_lines import blank, lexemes

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.brew"))
HELD = json.loads((ROOT / FILE).read_text(encoding="utf-8"))


def test_the_file_is_that_of_the_grammar():
    """After a change of brew.lark: `python -m brewgraph.editor.textmate`."""
    assert (ROOT / FILE).read_text(encoding="utf-8") == as_file()


def test_the_extension_has_the_version_of_the_package():
    """Both are released together."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = json.loads((ROOT / "grammar/editor/vscode/package.json").read_text(encoding="utf-8"))
    assert package["version"] == project["version"]


# ── an engine for what the grammar uses of TextMate: match, captures, begin and end, by lines ────────────────────────


def scopes(text: str) -> dict[int, str]:
    """The innermost scope of each character that has one, by offset."""
    found: dict[int, str] = {}
    start, inside = 0, None
    for line in text.split("\n"):
        at = 0
        while at <= len(line):
            rules = inside["patterns"] if inside else HELD["patterns"]
            tried = [
                (m, rule) for rule in rules if (m := re.compile(rule.get("match", rule.get("begin"))).search(line, at))
            ]
            end = re.compile(inside["end"]).search(line, at) if inside else None
            match, rule = min(tried, key=lambda x: x[0].start(), default=(None, None))
            if end is not None and (match is None or end.start() <= match.start()):
                mark(found, start + at, start + end.end(), inside["name"])
                at, inside = max(end.end(), at), None
                if at == len(line):
                    break
                continue
            if match is None or rule is None:
                break
            if inside:
                mark(found, start + at, start + match.start(), inside["name"])
            if "begin" in rule:
                mark(found, start + match.start(), start + match.end(), rule["name"])
                inside = rule
            for number, capture in rule.get("captures", {}).items():
                mark(found, start + match.start(int(number)), start + match.end(int(number)), capture["name"])
            if "name" in rule and "match" in rule:
                mark(found, start + match.start(), start + match.end(), rule["name"])
            at = match.end() if match.end() > at else at + 1
        start += len(line) + 1
    return found


def mark(found: dict[int, str], start: int, end: int, scope: str) -> None:
    found.update(dict.fromkeys(range(start, end), scope))


def terminals(text: str) -> Iterator[tuple[str, int, str]]:
    """The terminals of a spec as its parser sees them: type, offset, text."""
    for token in grammar().parse_interactive(blank(lexemes(text)[0])).iter_parse():
        if token.type != "_SEP":
            yield token.type, token.start_pos or 0, str(token)


def wanted(kind: str, word: str) -> tuple[str, ...]:
    """The beginnings of scopes that a terminal may have."""
    if kind == "NAME":
        if word in ("true", "false", "none"):
            return ("constant.language", "entity.name", "variable")
        return ("variable", "entity.name.function")
    if kind in SCOPES:
        return (SCOPES[kind],)
    if word.isalpha():
        return (KEYWORD,)
    return (OPERATOR, PUNCTUATION)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_terminal_of_a_spec_has_its_scope(path: Path):
    """Each keyword, clause word, literal, operator and name of every shipped spec, and each comment."""
    text = path.read_text(encoding="utf-8")
    found = scopes(text)
    wrong = [
        (kind, word, found.get(start))
        for kind, start, word in terminals(text)
        if not (found.get(start) or "").startswith(wanted(kind, word))
    ]
    assert wrong == []
    comments = [piece for piece in lexemes(text)[0] if piece.kind == "comment"]
    assert {found[x.start] for x in comments} <= {"comment.line.number-sign.brew"}


@pytest.mark.parametrize(
    ("text", "word", "scope"),
    [
        ("a.data", "data", "variable.other.member"),
        ("x = f(task=1)", "task", "variable.parameter"),
        ("train = 3", "train", "variable.parameter"),
        ("x = via + at", "via", "variable.other"),
        ("x = y via linear", "via", "keyword.control.clause"),
        ("let m = [0] -> [1]", "->", OPERATOR),
        ("x = 3 epochs", "3", "constant.numeric.duration"),
        ("x = 3e-4", "3", "constant.numeric.float"),
        ("cache x = y at \"f\" limit 20 GB", "20", "constant.numeric.size"),
        ('x = "a{k}b"', "{k}", "variable.parameter.inserted"),
        ('x = "# no comment"', "# no", "string.quoted"),
        ('x = "open', "open", "string.quoted"),
    ],
)  # fmt: skip
def test_keywords_are_names_elsewhere(text: str, word: str, scope: str):
    """Keywords and clause words have their colour only in their place."""
    assert scopes(text)[text.index(word)].startswith(scope)


def test_a_string_without_its_end_colours_one_line():
    """The next line is as ever."""
    assert scopes('x = "open\ny = 1')[10] == "variable.parameter.brew"


# ── Pygments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pieces(text: str) -> list[tuple[Any, str]]:
    return list(BrewLexer(stripnl=False, ensurenl=False).get_tokens(text))


@pytest.mark.parametrize("path", SPECS, ids=lambda p: str(p.relative_to(ROOT)))
def test_pygments_lexes_every_spec(path: Path):
    """No piece is an error, and together they are the text."""
    text = path.read_text(encoding="utf-8")
    assert "".join(word for _, word in pieces(text)) == text
    assert [word for kind, word in pieces(text) if kind in Error] == []


@given(some.text(alphabet='ab1 .\n"#(){}[]=->@;é', max_size=60))
def test_pygments_loses_nothing_of_any_text(text: str):
    """Damaged texts are the sum of their pieces, too."""
    assert "".join(word for _, word in pieces(text)) == text.replace("\r\n", "\n")


def test_pygments_tells_words_apart():
    """Keywords, calls, members, units and constants."""
    kinds = {word: kind for kind, word in pieces('teacher b = hf("x", on=true)\nx = kd(b.data via w, 3 epochs)\n')}
    assert {word: kinds[word] for word in ("teacher", "hf", "kd", "data", "via", "epochs", "true", "x", "3", '"x"')} == {
        "teacher": Keyword.Declaration, "hf": Name.Function, "kd": Name.Builtin, "data": Name.Attribute, "via": Keyword,
        "epochs": Keyword.Type, "true": Keyword.Constant, "x": Name.Variable, "3": Number, '"x"': String.Double,
    }  # fmt: skip


def test_pygments_finds_the_lexer():
    """The package offers it under `pygments.lexers`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["pygments.lexers"]["brew"].partition(":")
    assert getattr(__import__(module, fromlist=[name]), name) is BrewLexer
