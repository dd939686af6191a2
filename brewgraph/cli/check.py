"""`brewgraph check`: everything that is wrong with specs, before a weight is loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from brewgraph.cli.options import Quiet, Set
from brewgraph.cli.output import hush, parse_sets, print_diagnostics, read, tally
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.source import Source


def command(
    specs: Annotated[
        list[str], typer.Argument(metavar="SPEC...", help="Spec files; - reads stdin.", show_default=False)
    ],
    set: Set = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or one list for machines.")] = "text",
    quiet: Quiet = False,
) -> None:
    """Check specs against their models and data. Exit code 1 where one is at fault."""
    params = parse_sets(set or [])
    sources = [read(path) for path in specs]
    found: list[Diagnostic] = []
    for source in sources:
        diagnostics = _check(source, params)
        found += diagnostics
        if format == "text":
            print_diagnostics(diagnostics, sys.stdout)
            if not quiet:
                print(f"{source.name}: {tally(diagnostics)}")
    if format == "json":
        print(json.dumps([d.as_json() for d in found], indent=2, ensure_ascii=False))
    if any(d.severity == "error" for d in found):
        raise typer.Exit(1)


def _check(source: Source, params: Mapping[str, Any]) -> tuple[Diagnostic, ...]:
    from brewgraph.project.check import check, check_names

    try:
        check_names(source, params)  # answers at once, without the libraries that the rest of the check needs
        hush()
        return check(source, params).warnings
    except SpecError as error:
        return error.diagnostics
