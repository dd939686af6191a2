"""`brewgraph check`: everything that is wrong with specs, before a weight is loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from brewgraph.cli.complete import specs as completed_specs
from brewgraph.cli.formats import as_json, write
from brewgraph.cli.options import Deny, Quiet, Set
from brewgraph.cli.output import hush, more_about, parse_deny, parse_sets, print_diagnostics, read, tally, wrapped
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.source import Source

if TYPE_CHECKING:
    from brewgraph.data.report import DataReport


def command(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC...", help="Spec files; - reads stdin.", show_default=False, autocompletion=completed_specs
        ),
    ],
    set: Set = None,
    data: Annotated[
        bool, typer.Option("--data", help="Read all data too, and say what is in it: labels, copies, leaks, lengths.")
    ] = False,
    format: Annotated[
        Literal["text", "json", "github", "sarif"],
        typer.Option(help="For people, one list for machines, or what GitHub shows beside the lines."),
    ] = "text",
    deny: Deny = None,
    quiet: Quiet = False,
) -> None:
    """Check specs against their models and data. Exit code 1 where one is at fault.

    Warnings are no fault unless --deny says so; `# brew: ignore[CODE]` silences one.
    """
    params, denied = parse_sets(set or []), parse_deny(deny or [])
    sources = [read(path) for path in specs]
    found: list[Diagnostic] = []
    examined: dict[str, dict[str, DataReport]] = {}
    for source in sources:
        diagnostics, reports = _check(source, params, data)
        found += diagnostics
        examined[source.name] = reports
        if format == "text":
            print_diagnostics(diagnostics, sys.stdout)
            print("".join(_text(reports)), end="")
            if not quiet:
                print(f"{source.name}: {tally(diagnostics)}{more_about(diagnostics)}")
    if format == "json" and data:
        told = {spec: {name: r.as_json() for name, r in reports.items()} for spec, reports in examined.items()}
        print(json.dumps({"diagnostics": as_json(found), "data": told}, indent=2, ensure_ascii=False))
    elif format != "text" and (said := write(found, format)):
        print(said)
    if any(d.severity == "error" or d.code in denied for d in found):
        raise typer.Exit(1)


def _check(
    source: Source, params: Mapping[str, Any], data: bool
) -> tuple[tuple[Diagnostic, ...], dict[str, DataReport]]:
    """What is wrong with a spec, and where that is asked for what is in its data."""
    from brewgraph.checking.check import check

    warnings: tuple[Diagnostic, ...] = ()
    try:
        hush()
        checked = check(source, params)
        warnings = checked.warnings
        if not data:
            return warnings, {}
        from brewgraph.inspect.data import examine_data

        return warnings, examine_data(checked)
    except SpecError as error:
        return (*warnings, *error.diagnostics), {}


def _text(reports: Mapping[str, DataReport]) -> Iterator[str]:
    """Each data set with its report, and an empty line behind it."""
    for name, report in reports.items():
        from brewgraph.data.report import lines

        yield f"data {name}\n"
        yield from (_wrapped(line) + "\n" for line in lines(report))
        yield "\n"


def _wrapped(line: str) -> str:
    """A line of a report; what does not fit goes on behind its own indentation."""
    indent = " " * (2 + len(line) - len(line.lstrip()))
    return wrapped(line.lstrip(), indent, indent + "  ")
