"""`brewgraph explain`: what a code means, why it matters, and a failing and a right example."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Literal

import typer

from brewgraph.cli.complete import codes
from brewgraph.cli.options import Set
from brewgraph.cli.output import explained, painter, wrapped
from brewgraph.diagnostics import UsageError, suggest

CODE = re.compile(r"[BbWw]\d{3}")


def command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHAT]",
            help="A code, as W205, or a name of a spec; left out, all codes.",
            show_default=False,
            autocompletion=codes,
        ),
    ] = None,
    spec: Annotated[
        str | None,
        typer.Argument(metavar="[SPEC]", help="The spec that has the name; - reads stdin.", show_default=False),
    ] = None,
    set: Set = None,
    format: Annotated[
        Literal["text", "json"], typer.Option(help="Of a name: for people, or a list for machines.")
    ] = "text",
) -> None:
    """Say what a code of a diagnostic means, with a failing and a right example; or what a name of a spec stands for.

    `brewgraph explain W205`; `brewgraph explain hidden spec.brew`: what a term, a model, a tap or a projection is made
    from, which terms it feeds, and what it costs.
    """
    if what is not None and spec is not None:
        from brewgraph.cli.naming import print_name

        print_name(what, spec, set or [], as_json=format == "json")
    elif what is None:
        print("\n".join(_list()))
    elif CODE.fullmatch(what):
        print("\n".join(_code(what.upper())))
    else:
        from brewgraph.explanations import CODES

        hint = suggest(what.upper(), CODES) or "write `brewgraph explain W205`, or name a spec behind it"
        raise UsageError(f"`{what}` is no code: {hint}")


def _list() -> Iterator[str]:
    """Every code in a line, by family."""
    from brewgraph.explanations import CODES, FAMILIES

    for number, words in FAMILIES.items():
        here = {code: line for code, line in CODES.items() if code[1] == number}
        yield f"{words}"
        yield explained(list(here.items()), "  ")
        yield ""
    yield "B: errors. W: warnings, which `# brew: ignore[CODE] reason` silences for a line or a statement."


def _code(code: str) -> Iterator[str]:
    """The page of a code; of one without a page what is known of it."""
    from brewgraph.explanations import CODES, SETTING, family, page_of

    if code not in CODES:
        hint = suggest(code, CODES) or "`brewgraph explain` lists those there are"
        raise UsageError(f"there is no code {code}: {hint}")
    paint = painter(sys.stdout) or (lambda text, role: text)
    yield paint(f"{code}: {CODES[code]}", "bold")
    page = page_of(code)
    if page is None:
        yield ""
        yield wrapped(f"A fault of {family(code)}. It has no page: what a diagnostic says under `help` is what to do.")
        return
    for title, role, text in (
        ("", "", "\n\n".join(wrapped(" ".join(part.split())) for part in page.words.split("\n\n"))),
        ("wrong", "error", _indented(page.wrong)),
        ("right", "added", _indented(page.right)),
        ("", "", wrapped(SETTING)),
        ("source", "bold", wrapped(" ".join(page.source.split()), "    ") if page.source else ""),
    ):
        if text:
            yield ""
            yield from [paint(title, role)] if title else []
            yield text


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())
