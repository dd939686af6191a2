"""`brewgraph fmt`: formats specs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from brewgraph.cli.options import read_stdin
from brewgraph.cli.output import count, painter, print_diagnostics
from brewgraph.diagnostics import SpecError, UsageError
from brewgraph.paths import replace_file
from brewgraph.source import EncodingError, Source, decode
from brewgraph.syntax.format import format_source


@dataclass(frozen=True)
class Formatted:
    """A spec before and after formatting; `end` is the line ending of its file, which is kept."""

    name: str
    before: str
    after: str
    end: str = "\n"

    @property
    def changed(self) -> bool:
        return self.before != self.after


SETTINGS: dict[str, Any] = {
    "options_metavar": "[OPTIONS] [FILE|FOLDER|-]...",
    "context_settings": {"allow_extra_args": True},
}
"""Typer's settings: the files come in its context. For a parameter typer would load pydantic, which takes longer than
formatting."""


def command(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
) -> None:
    """Format specs in place. Without files: all *.brew below the working directory.

    Folders are searched for *.brew; - reads stdin, to stdout.
    """
    names = context.args or ["."]
    results: list[Formatted] = []
    faulty = 0
    for source in _sources(names):
        try:
            results.append(_format(source))
        except SpecError as error:
            print_diagnostics(error.diagnostics, sys.stderr)
            faulty += 1
    changed = [r for r in results if r.changed]
    if diff:
        _print_diffs(changed)
    elif not check:
        for result in results:
            if result.name == "-":
                sys.stdout.write(result.after)
            elif result.changed:
                replace_file(Path(result.name), result.after.replace("\n", result.end))
    if check:
        for result in changed:
            print(f"would change: {'<stdin>' if result.name == '-' else result.name}")
    if names != ["-"]:
        print(_summary(len(changed), len(results) - len(changed), faulty, pending=check or diff), file=sys.stderr)
    if faulty or (check and changed):
        raise typer.Exit(1)


def _sources(names: list[str]) -> list[str]:
    """The files to format, each once. Raises `UsageError` for a missing file."""
    files: dict[str, None] = {}
    for name in names:
        path = Path(name)
        if name != "-" and path.is_dir():
            files |= dict.fromkeys(str(p) for p in sorted(path.rglob("*.brew")) if _is_searched(p.relative_to(path), p))
        elif name == "-" or path.exists():
            files[name] = None
        else:
            raise UsageError(f"there is no file `{name}`")
    if not files:
        raise UsageError(f"there is no *.brew in {', '.join(names)}")
    return list(files)


def _is_searched(relative: Path, path: Path) -> bool:
    """Whether a file is neither in a hidden folder nor a run's copy of its spec."""
    return not any(part.startswith(".") for part in relative.parts) and not (path.parent / "resolved.json").exists()


def _format(name: str) -> Formatted:
    if name == "-":
        source = read_stdin()
        return Formatted(name, source.text, format_source(source))
    try:
        raw = decode(Path(name).read_bytes(), f"`{name}`")
    except EncodingError as error:
        raise UsageError(str(error)) from error
    text = raw.replace("\r\n", "\n")
    return Formatted(name, text, format_source(Source(text, name)), "\r\n" if "\r\n" in raw else "\n")


def _print_diffs(changed: list[Formatted]) -> None:
    import difflib

    paint = painter(sys.stdout)
    roles = {"+": "added", "-": "removed", "@": "place"}
    for result in changed:
        before, after = result.before.splitlines(keepends=True), result.after.splitlines(keepends=True)
        for line in difflib.unified_diff(before, after, result.name, result.name):
            text = line.removesuffix("\n")
            print(paint(text, roles.get(text[:1], "")))
            if not line.endswith("\n"):
                print("\\ No newline at end of file")


def _summary(changed: int, same: int, faulty: int, *, pending: bool) -> str:
    counts = ((changed, "would change" if pending else "changed"), (same, "unchanged"), (faulty, "at fault"))
    return ", ".join(f"{count(number, 'file')} {words}" for number, words in counts if number)
