"""Diagnostics for other programs, and warnings that are denied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from brewgraph.cli.check import as_github, as_sarif
from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.source import Source, Span
from tests.cli.tiny import STUDENT, command, write_tiny

SOURCE = Source("x = a,\n  b: c\nend\n", "some dir/ä, b:100%.brew")
TWO_LINES = Diagnostic("B010", "one: two,\n50%", Span(SOURCE, 4, 10), "do\r\nso", labels=(Label(Span(SOURCE, 0, 1)),))
ONE_LINE = Diagnostic("W205", "never computed", Span(SOURCE, 9, 10), "use it")


def place(line: int, column: int, end_line: int, end_column: int) -> dict[str, int]:
    """A region as SARIF writes it."""
    return {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}


def test_github_gets_commands_with_its_escapes() -> None:
    """`%`, line breaks, and in properties `:` and `,`; columns only where a span lies in one line."""
    file = "some dir/ä%2C b%3A100%25.brew"
    assert list(as_github([TWO_LINES, ONE_LINE])) == [
        f"::error file={file},line=1,endLine=2,title=B010::one: two,%0A50%25%0Ahelp: do%0D%0Aso",
        f"::warning file={file},line=2,endLine=2,col=3,endColumn=4,title=W205::never computed%0Ahelp: use it",
    ]


def test_sarif_has_rules_and_results() -> None:
    """Each code once as a rule, with its page; a result for each diagnostic, which refers to it, and its places."""
    found = as_sarif([TWO_LINES, ONE_LINE, TWO_LINES])
    (run,) = found["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [(r["id"], r["defaultConfiguration"]["level"]) for r in rules] == [("B010", "error"), ("W205", "warning")]
    assert rules[1]["help"]["markdown"].startswith("# W205: unused term\n")
    assert [(r["ruleId"], r["ruleIndex"], r["level"]) for r in run["results"]] == [
        ("B010", 0, "error"),
        ("W205", 1, "warning"),
        ("B010", 0, "error"),
    ]
    physical = run["results"][1]["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"] == {"uri": "some%20dir/%C3%A4%2C%20b:100%25.brew"}
    assert physical["region"] == place(2, 3, 2, 4)
    assert run["results"][0]["relatedLocations"][0]["physicalLocation"]["region"] == place(1, 1, 1, 2)


REQUIRED: dict[str, tuple[str, ...]] = {
    "sarifLog": ("version", "runs"),
    "run": ("tool",),
    "tool": ("driver",),
    "toolComponent": ("name",),
    "reportingDescriptor": ("id",),
    "result": ("message",),
    "artifactLocation": ("uri",),
}
"""What the schema of SARIF 2.1.0 asks for, of the objects that are written here."""
ALLOWED: dict[str, set[str]] = {
    "sarifLog": {"$schema", "version", "runs", "inlineExternalProperties", "properties"},
    "run": {"tool", "results", "columnKind", "artifacts", "invocations", "properties"},
    "tool": {"driver", "extensions", "properties"},
    "toolComponent": {"name", "version", "rules", "informationUri", "semanticVersion", "fullName", "properties"},
    "reportingDescriptor": {
        "id", "name", "shortDescription", "fullDescription", "help", "helpUri", "defaultConfiguration", "properties",
    },
    "result": {"ruleId", "ruleIndex", "level", "message", "locations", "relatedLocations", "properties"},
    "region": {"startLine", "startColumn", "endLine", "endColumn"},
    "location": {"id", "physicalLocation", "message", "properties"},
}  # fmt: skip
"""What it knows, of which nothing else is allowed."""


def conforms(kind: str, found: dict[str, Any]) -> None:
    """An object has what its kind needs, and nothing that the kind does not know."""
    assert set(REQUIRED.get(kind, ())) <= set(found), kind
    assert set(found) <= ALLOWED.get(kind, set(found)), kind


def test_sarif_is_as_its_schema_asks(tmp_path: Path) -> None:
    """Objects, words and numbers of a real check, gone through by hand: the schema is not on every machine."""
    spec = tmp_path / "spec.brew"
    spec.write_text("brew 1\nloss = ce(a.logits -> b.logits, TT=2)\nx = = 3\n")
    result = command("check", "--format", "sarif", str(spec))
    assert result.exit_code == 1
    log = json.loads(result.stdout)
    conforms("sarifLog", log)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    conforms("run", run)
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    conforms("tool", run["tool"])
    conforms("toolComponent", run["tool"]["driver"])
    rules = run["tool"]["driver"]["rules"]
    assert len({json.dumps(rule) for rule in rules}) == len(rules)
    for rule in rules:
        conforms("reportingDescriptor", rule)
        assert all(rule[key]["text"] for key in ("shortDescription", "help") if key in rule)
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
    assert run["results"]
    for found in run["results"]:
        conforms("result", found)
        assert found["message"]["text"]
        assert found["level"] in ("none", "note", "warning", "error")
        assert rules[found["ruleIndex"]]["id"] == found["ruleId"]
        for where in (*found["locations"], *found.get("relatedLocations", ())):
            conforms("location", where)
            conforms("artifactLocation", where["physicalLocation"]["artifactLocation"])
            region = where["physicalLocation"]["region"]
            conforms("region", region)
            assert all(isinstance(value, int) and value >= 1 for value in region.values())
            assert (region["endLine"], region["endColumn"]) > (region["startLine"], region["startColumn"])


def test_a_sound_spec_gives_nothing_to_github_and_no_results_to_sarif(tmp_path: Path) -> None:
    """No line, and a log without results."""
    spec = str(write_tiny(tmp_path))
    assert command("check", "--format", "github", spec).output == ""
    (run,) = json.loads(command("check", "--format", "sarif", spec).stdout)["runs"]
    assert (run["results"], run["tool"]["driver"]["rules"]) == ([], [])


@pytest.fixture
def idle(tmp_path: Path) -> str:
    """A spec with one warning: a term that no loss reaches."""
    spec = write_tiny(tmp_path)
    spec.write_text(STUDENT.replace("loss = soft + 0.5 * hard", "loss = 0.5 * hard"))
    return str(spec)


@pytest.mark.parametrize(
    ("deny", "code"),
    [
        ([], 0),
        (["--deny", "warnings"], 1),
        (["--deny", "W205"], 1),
        (["--deny", "W207"], 0),
        (["--deny", "W207,W205"], 1),
        (["--deny", "W207", "--deny", "W205"], 1),
        (["--deny", "W205", "--format", "github"], 1),
    ],
)
def test_warnings_can_be_denied(deny: list[str], code: int, idle: str) -> None:
    """All of them, or some: exit code 1, and the same words."""
    result = command("check", *deny, idle)
    assert result.exit_code == code
    assert "no loss reaches `soft`" in result.stdout


@pytest.mark.parametrize("word", ["W999", "B101", "warnigs", ""])
def test_only_warnings_can_be_denied(word: str, idle: str) -> None:
    """Anything else is a fault of usage, with a suggestion."""
    result = command("check", "--deny", word, idle)
    assert result.exit_code == 2
    assert f"`--deny {word}` names no warning: " in result.stderr


def test_a_run_is_denied_before_it_begins(idle: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 1 and the warning, even where it is quiet; no folder of runs."""
    monkeypatch.chdir(tmp_path)
    for quiet in ([], ["-q"]):
        result = command("run", "--deny", "warnings", *quiet, idle)
        assert result.exit_code == 1
        assert "warning[W205]" in result.stderr
        assert result.stderr.endswith("1 warning denied; more: brewgraph explain W205\n")
    assert not (tmp_path / "runs").exists()


def test_what_is_ignored_is_not_denied(idle: str) -> None:
    """A comment with a reason settles it."""
    text = Path(idle).read_text()
    lines = [
        f"{line}    # brew: ignore[W205] to come" if line.startswith("soft") else line for line in text.splitlines()
    ]
    Path(idle).write_text("\n".join(lines) + "\n")
    result = command("check", "--deny", "warnings", idle)
    assert (result.exit_code, result.stdout) == (0, f"{idle}: fine\n")
