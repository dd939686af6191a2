"""Diagnostics for other programs: a list in JSON, workflow commands of GitHub, and SARIF 2.1.0 for code scanning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from brewgraph.diagnostics import Diagnostic
from brewgraph.explanations import CODES, family, page_of
from brewgraph.source import Span

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_json(diagnostics: Sequence[Diagnostic]) -> list[dict[str, Any]]:
    """Every field of each; lines and columns count from 1."""
    return [d.as_json() for d in diagnostics]


# ── GitHub ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_github(diagnostics: Sequence[Diagnostic]) -> Iterator[str]:
    """A workflow command for each, which GitHub shows beside the line. Columns are told within one line only."""
    for d in diagnostics:
        place = _place(d.span)
        told = {"file": d.span.source.name, "line": place["startLine"], "endLine": place["endLine"]}
        if place["startLine"] == place["endLine"]:
            told |= {"col": place["startColumn"], "endColumn": place["endColumn"]}
        told["title"] = d.code
        properties = ",".join(f"{key}={_property(str(value))}" for key, value in told.items())
        yield f"::{d.severity} {properties}::{_data(_words(d))}"


def _data(text: str) -> str:
    """A command's message, escaped as GitHub's runner takes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A command's property, in which two more characters have a meaning."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _words(d: Diagnostic) -> str:
    return f"{d.message}\nhelp: {d.help}" if d.help else d.message


# ── SARIF ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_sarif(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """One run of one tool: a rule for each code that was met, its page as help, and a result for each diagnostic."""
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
    result: dict[str, Any] = {
        "ruleId": d.code,
        "ruleIndex": rule,
        "level": d.severity,
        "message": {"text": _words(d)},
        "locations": [{"physicalLocation": _physical(d.span)}],
    }
    if d.labels:
        result["relatedLocations"] = [
            {"id": i, "physicalLocation": _physical(x.span), "message": {"text": x.text or "see here"}}
            for i, x in enumerate(d.labels)
        ]
    return result


def _physical(span: Span) -> dict[str, Any]:
    uri = quote(span.source.name.replace("\\", "/"), safe="/:")
    return {"artifactLocation": {"uri": uri}, "region": _place(span)}


def _place(span: Span) -> dict[str, int]:
    """Where a span lies: lines and columns from 1, the end column behind the last character."""
    (line, column), (end_line, end_column) = span.position, span.source.position(span.end)
    return {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}


def write(diagnostics: Sequence[Diagnostic], form: str) -> str:
    """All of them in one of the forms for programs, without a line break at the end."""
    if form == "github":
        return "\n".join(as_github(diagnostics))
    found = as_sarif(diagnostics) if form == "sarif" else as_json(diagnostics)
    return json.dumps(found, indent=2, ensure_ascii=False)
