"""What the pages show is true: specs parse and their names are sound, Python names what exists, commands and options exist.

A block ```brew is a whole spec; ```brew fragment stands on models and data that the page names, and has to parse.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

import brewgraph as bg
from brewgraph.checking.check import check_names
from brewgraph.cli.main import application
from brewgraph.diagnostics import Collector, SpecError
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.conftest import REPOSITORY

PAGES = [
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *(
        REPOSITORY / name
        for name in ("README.md", "CONTRIBUTING.md", "grammar/README.md", "specs/textbrewer/README.md")
    ),
]
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPOKEN = re.compile(r"`(brewgraph [^`\n]+)`")
MARKS = {"brew": ("", "fragment"), "python": ("", "fragment", "loss", "pass", "source", "kind", "lint")}
"""The words that may follow the language of a block; those of CONTRIBUTING.md are run by tests/test_contributing.py."""


class Block(NamedTuple):
    """A block of a page: its language, the word behind it and its text."""

    place: str
    language: str
    mark: str
    text: str


@cache
def blocks() -> tuple[Block, ...]:
    """Every block of every page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            body = "\n".join(x.removeprefix(match[1]) for x in match[4].split("\n"))
            found.append(Block(f"{page.relative_to(REPOSITORY)}:{line}", match[2], match[3].strip(), body))
    return tuple(found)


def of(language: str, *marks: str) -> list[Any]:
    return [pytest.param(b, id=b.place) for b in blocks() if b.language == language and b.mark in (marks or ("",))]


@pytest.mark.parametrize("block", [pytest.param(b, id=b.place) for b in blocks() if b.language in MARKS])
def test_a_block_says_what_it_is(block: Block) -> None:
    """A whole, or a fragment; no other word."""
    assert block.mark in MARKS[block.language], f"write ```{block.language}, or ```{block.language} fragment for a part"


@pytest.mark.parametrize("block", of("brew"))
def test_a_spec_is_sound(block: Block) -> None:
    """It parses, it is formatted, and its names, options and kinds are no fault."""
    assert bg.format_text(block.text) == block.text, "format it as `brewgraph fmt` does"
    check_names(Source(block.text, block.place), {})


@pytest.mark.parametrize("block", of("brew", "fragment"))
def test_a_fragment_parses(block: Block) -> None:
    collector = Collector()
    parse(Source(block.text, block.place), collector)
    assert collector.diagnostics == []


def test_specs_can_be_at_fault() -> None:
    """The checks above find a name that is none, and a bracket that is open."""
    page = Block(
        "page",
        "brew",
        "",
        'brew 1\n\nstudent tiny = hf("x")\ndata d = files(train="a.jsonl")\n\nloss = cee(d.labels -> tiny.logits)\n',
    )
    with pytest.raises(SpecError, match="no operation `cee`"):
        test_a_spec_is_sound(page)
    with pytest.raises(AssertionError):
        test_a_fragment_parses(page._replace(text="x = (a"))


@pytest.mark.parametrize("block", of("python"))
def test_python_names_what_exists(block: Block) -> None:
    """It compiles; what it takes from `bg` is there, and the arguments of its calls fit."""
    for tree in ast.walk(ast.parse(block.text)):
        if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name) and tree.value.id == "bg":
            assert hasattr(bg, tree.attr), f"there is no bg.{tree.attr}: mend the page, or export it"
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Attribute):
            function = owner_of(tree.func)
            if function is not None and not (inspect.isclass(function) and issubclass(function, BaseException)):
                keywords = {k.arg: None for k in tree.keywords if k.arg}
                inspect.signature(function).bind(*tree.args, **keywords)


def owner_of(call: ast.Attribute) -> Any:
    """The function that `bg.f(…)` or `recipe.f(…)` calls; None for calls of something else."""
    name = call.value.id if isinstance(call.value, ast.Name) else ""
    if name == "bg":
        return getattr(bg, call.attr)
    if name == "recipe":
        return getattr(bg.Recipe, call.attr).__get__(object())
    return None


def command_lines() -> Iterator[Any]:
    """Every call of `brewgraph` in a block for a shell, and in `code` of a sentence."""
    for block in blocks():
        if block.language in ("console", "bash", "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if block.language != "console" or line.startswith("$ "):
                    for part in re.split(r" \| | && |; ", line.removeprefix("$ ")):
                        match = re.search(r"(?:^|-m )(brewgraph .*)", part)
                        if match:
                            yield pytest.param(match[1].strip(), id=f"{block.place} {match[1]}")
    for page in PAGES:
        for line in dict.fromkeys(SPOKEN.findall(FENCE.sub("", page.read_text(encoding="utf-8")))):
            yield pytest.param(line, id=f"{page.relative_to(REPOSITORY)} {line}")


@cache
def program() -> Any:
    return get_command(application())


@pytest.mark.parametrize("line", list(command_lines()))
def test_a_command_exists(line: str) -> None:
    """The command, its part, and each option."""
    words = shlex.split(line, comments=True)[1:]
    command = program()
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    named = command is not program() or words[0].startswith("-") or words[0] in ("VERB", "…")
    assert named, f"there is no command `{words[0]}`"
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--version", "--install-completion"}
    unknown = [word for word in words if word.startswith("-") and word != "-" and word.partition("=")[0] not in known]
    assert unknown == []


def test_commands_can_be_at_fault() -> None:
    for line in (
        "brewgraph trane spec.brew",
        "brewgraph run spec.brew --temperature 4",
        "brewgraph runs dif A B --what",
    ):
        with pytest.raises(AssertionError):
            test_a_command_exists(line)
