"""`brewgraph explain`: the page of a diagnostic code, or what a name of a spec means."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from brewgraph.cli.complete import codes
from brewgraph.cli.options import Format, Set, check_spec
from brewgraph.cli.output import explained, painter, print_diagnostics, wrapped
from brewgraph.diagnostics import RunError, UsageError, suggest
from brewgraph.explanations import CODES, FAMILIES, SETTING, family, page_of

if TYPE_CHECKING:
    from brewgraph.display.explain_name import Explained

CODE = re.compile(r"[BbWw]\d{3}")


def command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="A code such as W205, or a name of a spec; by default all codes.",
            autocompletion=codes,
        ),
    ] = None,
    spec: Annotated[
        str | None, typer.Argument(metavar="[SPEC]", help="The spec with this name; - reads stdin.")
    ] = None,
    set: Set = None,
    format: Format = "text",
) -> None:
    """Explain a diagnostic code, with a failing and a right example, or a name of a spec.

    `brewgraph explain W205`; `brewgraph explain hidden spec.brew` shows what a term, model, tap or projection is made
    from, which terms it feeds, and what it costs.
    """
    if what is not None and spec is not None:
        print_name(what, spec, set, as_json=format == "json")
    elif what is None:
        print("\n".join(_list()))
    elif CODE.fullmatch(what):
        print("\n".join(_code(what.upper())))
    else:
        hint = suggest(what.upper(), CODES) or "write `brewgraph explain W205`, or `brewgraph explain NAME SPEC`"
        raise UsageError(f"`{what}` is not a code: {hint}")


def _list() -> Iterator[str]:
    """Every code in a line, by family."""
    for number, words in FAMILIES.items():
        here = {code: line for code, line in CODES.items() if code[1] == number}
        yield f"{words}"
        yield explained(list(here.items()), "  ")
        yield ""
    yield "B: errors. W: warnings, which `# brew: ignore[CODE] reason` silences for a line or a statement."


def _code(code: str) -> Iterator[str]:
    """The page of a code, or its line if it has no page."""
    if code not in CODES:
        hint = suggest(code, CODES) or "`brewgraph explain` lists all codes"
        raise UsageError(f"there is no code {code}: {hint}")
    paint = painter(sys.stdout)
    yield paint(f"{code}: {CODES[code]}", "bold")
    page = page_of(code)
    if page is None:
        yield ""
        yield wrapped(f"Family: {family(code)}. It has no page: the `help` of a diagnostic says what to do.")
        return
    for title, role, text in (
        ("", "", "\n\n".join(wrapped(" ".join(part.split())) for part in page.words.split("\n\n"))),
        ("wrong", "error", _indented(page.wrong.text)),
        ("right", "added", _indented(page.right.text)),
        ("", "", wrapped(SETTING) if page.wrong.kind != "json" else ""),
        ("source", "bold", wrapped(" ".join(page.source.split()), "    ") if page.source else ""),
    ):
        if text:
            yield ""
            yield from [paint(title, role)] if title else []
            yield text


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def print_name(name: str, spec: str, sets: Sequence[str] | None = None, *, as_json: bool = False) -> None:
    """Explain a name of a spec. Raises `UsageError` if nothing has this name."""
    checked = check_spec(spec, sets, warn=False)
    if not checked.graphs:
        print_diagnostics(checked.warnings, sys.stderr)
        raise RunError("what it computes is unknown until its models can be reached")
    from brewgraph.inspect.graph_of import explain

    explanations = explain(checked, name)
    if as_json:
        print(json.dumps([asdict(x) for x in explanations], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(_lines(x, checked.recipe.source.name)) for x in explanations))


def _lines(explained: Explained, spec: str) -> Iterator[str]:
    where = f" in {explained.where}" if explained.where else ""
    yield f"{painter(sys.stdout)(explained.name, 'bold')}: {explained.kind}{where}, {spec}:{explained.line}"
    upstream, downstream = ", ".join(explained.upstream), ", ".join(explained.downstream)
    rows = [row for row in (*explained.facts, ("made from", upstream), ("feeds", downstream)) if row[1]]
    width = max(len(title) for title, _ in rows) + 4
    for title, words in rows:
        yield wrapped(words, f"  {title}".ljust(width), " " * width)
