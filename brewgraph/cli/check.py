"""`brewgraph check`: diagnostics of specs before weights are loaded, as text, JSON, GitHub commands or SARIF 2.1.0."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from brewgraph.checking.check import check
from brewgraph.cli.complete import specs as completed_specs
from brewgraph.cli.options import Deny, Quiet, Set, parse_deny, parse_sets, read
from brewgraph.cli.output import hush, more_about, print_diagnostics, tally, wrapped
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.explanations import CODES, family, page_of
from brewgraph.source import Source

if TYPE_CHECKING:
    from brewgraph.data.report import DataReport

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def command(
    specs: Annotated[
        list[str], typer.Argument(metavar="SPEC...", help="Spec files; - reads stdin.", autocompletion=completed_specs)
    ],
    set: Set = None,
    data: Annotated[
        bool, typer.Option("--data", help="Also read all data; report labels, duplicates, leaks, lengths.")
    ] = False,
    format: Annotated[
        Literal["text", "json", "github", "sarif"],
        typer.Option(help="Text to read, JSON or SARIF for programs, or annotations for GitHub."),
    ] = "text",
    deny: Deny = None,
    quiet: Quiet = False,
) -> None:
    """Check specs against their models and data. Exit code 1 if one is at fault.

    Warnings are no fault unless --deny names them; a comment `# brew: ignore[CODE]` silences one.
    """
    params, denied = parse_sets(set), parse_deny(deny)
    sources = [read(path) for path in specs]
    diagnostics: list[Diagnostic] = []
    data_reports: dict[str, dict[str, DataReport]] = {}
    for source in sources:
        of_spec, reports = _check(source, params, data)
        diagnostics += of_spec
        data_reports[source.name] = reports
        if format == "text":
            print_diagnostics(of_spec, sys.stdout)
            print("".join(_text(reports)), end="")
            if not quiet:
                print(f"{source.name}: {tally(of_spec)}{more_about(of_spec)}")
    if format == "github":
        print("".join(f"{line}\n" for line in as_github(diagnostics)), end="")
    elif format != "text":
        content: Any = as_sarif(diagnostics) if format == "sarif" else [d.as_json() for d in diagnostics]
        if format == "json" and data:
            shown = {spec: {name: r.as_json() for name, r in reports.items()} for spec, reports in data_reports.items()}
            content = {"diagnostics": content, "data": shown}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    if any(d.severity == "error" or d.code in denied for d in diagnostics):
        raise typer.Exit(1)


def _check(
    source: Source, params: Mapping[str, Any], data: bool
) -> tuple[tuple[Diagnostic, ...], dict[str, DataReport]]:
    """The diagnostics of a spec, and with `data` the reports on its data."""
    warnings: tuple[Diagnostic, ...] = ()
    try:
        hush()
        checked = check(source, params)
        warnings = checked.warnings
        if not data:
            return warnings, {}
        from brewgraph.inspect.plan_of import data_reports

        return warnings, data_reports(checked)
    except SpecError as error:
        return (*warnings, *error.diagnostics), {}


def _text(reports: Mapping[str, DataReport]) -> Iterator[str]:
    """The report on each data set, followed by an empty line."""
    for name, report in reports.items():
        from brewgraph.data.report import lines

        yield f"data {name}\n"
        for line in lines(report):
            indent = " " * (2 + len(line) - len(line.lstrip()))
            yield wrapped(line.lstrip(), indent, indent + "  ") + "\n"
        yield "\n"


# ── GitHub ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_github(diagnostics: Sequence[Diagnostic]) -> Iterator[str]:
    """A workflow command for each, which GitHub shows beside the line; with columns if it is a single line."""
    for d in diagnostics:
        place = d.as_json()
        fields: dict[str, Any] = {"file": place["file"], "line": place["line"], "endLine": place["end_line"]}
        if place["line"] == place["end_line"]:
            fields |= {"col": place["column"], "endColumn": place["end_column"]}
        fields["title"] = d.code
        escaped = {key: _escaped(str(value)).replace(":", "%3A").replace(",", "%2C") for key, value in fields.items()}
        yield f"::{d.severity} {','.join(f'{k}={value}' for k, value in escaped.items())}::{_escaped(_words(d))}"


def _escaped(text: str) -> str:
    """A text as GitHub's runner expects it; in a property two characters more are escaped."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _words(d: Diagnostic) -> str:
    return f"{d.message}\nhelp: {d.help}" if d.help else d.message


# ── SARIF ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_sarif(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """One run of one tool: a rule for each code that occurs, with its page as help, and a result per diagnostic."""
    from importlib.metadata import version

    codes = sorted({d.code for d in diagnostics})
    driver = {"name": "brewgraph", "version": version("brewgraph"), "rules": [_rule(code) for code in codes]}
    results = [_result(d, codes.index(d.code)) for d in diagnostics]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    page = page_of(code)
    rule: dict[str, Any] = {
        "id": code,
        "shortDescription": {"text": CODES.get(code, code)},
        "defaultConfiguration": {"level": "warning" if code.startswith("W") else "error"},
        "properties": {"tags": [family(code)]},
    }
    if page is not None:
        rule["fullDescription"] = {"text": " ".join(page.words.split())}
        rule["help"] = {"text": page.text, "markdown": page.text}
    return rule


def _result(d: Diagnostic, rule: int) -> dict[str, Any]:
    plain = d.as_json()
    result: dict[str, Any] = {
        "ruleId": d.code,
        "ruleIndex": rule,
        "level": d.severity,
        "message": {"text": _words(d)},
        "locations": [_location(plain)],
    }
    if d.labels:
        result["relatedLocations"] = [
            {"id": i, **_location(label), "message": {"text": label["text"] or "see here"}}
            for i, label in enumerate(plain["labels"])
        ]
    return result


def _location(place: Mapping[str, Any]) -> dict[str, Any]:
    """A place of `Diagnostic.as_json` as SARIF has it."""
    names = {"startLine": "line", "startColumn": "column", "endLine": "end_line", "endColumn": "end_column"}
    region = {name: place[key] for name, key in names.items()}
    uri = quote(place["file"].replace("\\", "/"), safe="/:")
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}
