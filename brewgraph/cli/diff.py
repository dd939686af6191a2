"""`brewgraph diff`: what differs between two specs in what they compute."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from brewgraph.cli.options import Format, Set, Spec, check_spec
from brewgraph.cli.output import painter, print_diagnostics
from brewgraph.diagnostics import RunError
from brewgraph.display.diff import SIGNS, Comparison, Side, compare


def command(
    spec: Spec,
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="Another spec; by default the same one.")
    ] = None,
    set: Set = None,
    then: Annotated[
        list[str] | None,
        typer.Option("--then", metavar="NAME=VALUE", help="Set a param of the second spec only. Repeatable."),
    ] = None,
    format: Format = "text",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
) -> None:
    """Compare what two specs compute and how they train. Names, order, spacing and comments make no difference.

    `brewgraph diff a.brew b.brew`; `brewgraph diff a.brew --then T=8` compares a spec with itself at another param.
    """
    comparison = compare(_side(spec, set), _side(other or spec, [*(set or ()), *(then or ())]))
    if format == "json":
        content = {
            "same": comparison.same,
            "hashes": comparison.hashes,
            "changes": [asdict(change) for change in comparison.changes],
            "notes": comparison.notes,
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(comparison)))
    if exit_code and not comparison.same:
        raise typer.Exit(1)


def _side(path: str, sets: Sequence[str] | None) -> Side:
    """The parts of a spec to compare. Raises `RunError` if its loss is unknown."""
    checked = check_spec(path, sets, warn=False)
    print_diagnostics((d for d in checked.warnings if d.code == "W301"), sys.stderr)
    if not checked.graphs:
        raise RunError(f"the loss of {checked.recipe.source.name} is unknown until its models can be reached")
    return checked.side


def _lines(comparison: Comparison) -> Iterator[str]:
    paint = painter(sys.stdout)
    if comparison.same:
        yield f"the same: hash {comparison.hashes[0]}"
    else:
        yield f"hash {comparison.hashes[0]} -> {comparison.hashes[1]}"
    for change in comparison.changes:
        role = change.how if change.how in ("added", "removed") else "bold"
        yield f"{paint(SIGNS[change.how], role)} {change.text}"
    yield from (f"  {note}" for note in comparison.notes)
