"""`brewgraph diff`: what differs between two specs in meaning."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from brewgraph.cli.options import Set, Spec
from brewgraph.cli.output import hush, painter, parse_sets, print_diagnostics, read
from brewgraph.diagnostics import RunError

if TYPE_CHECKING:
    from brewgraph.checking.check import Checked
    from brewgraph.display.diff.specs import Change, Comparison, Side

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def command(
    spec: Spec,
    other: Annotated[
        str | None, typer.Argument(metavar="[OTHER]", help="Another spec; left out, the same one.", show_default=False)
    ] = None,
    set: Set = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then", metavar="NAME=VALUE", help="Replace a param of the second spec only.", show_default=False
        ),
    ] = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or an object for machines.")] = "text",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where they differ.")] = False,
) -> None:
    """Say what differs between two specs in what they compute and how they train, whatever things are called.

    `brewgraph diff a.brew b.brew`; `brewgraph diff a.brew --then T=8` compares a spec with itself at another param.
    Names, order, spacing and comments make no difference.
    """
    from brewgraph.display.diff.specs import compare

    params = parse_sets(set or [])
    first = _side(spec, params)
    second = _side(other or spec, {**params, **parse_sets(then or [])})
    found = compare(first, second)
    if format == "json":
        print(json.dumps(_plain(found), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(found)))
    if exit_code and not found.same:
        raise typer.Exit(1)


def _side(path: str, params: dict[str, object]) -> Side:
    from brewgraph.checking.check import check

    source = read(path)
    hush()
    checked = check(source, params)
    print_diagnostics((d for d in checked.warnings if d.code == "W301"), sys.stderr)
    return side_of(checked)


def side_of(checked: Checked) -> Side:
    """What of a checked spec is compared. Raises `RunError` where its loss is still open."""
    from brewgraph.display.diff.specs import Side

    if not checked.graphs:
        raise RunError(f"the loss of {checked.recipe.source.name} is not known until its models can be reached")
    return Side(checked.recipe, checked.graphs, checked.identities, checked.classes, checked.spec_hash)


def _plain(found: Comparison) -> dict[str, object]:
    return {
        "same": found.same,
        "hashes": found.hashes,
        "changes": [asdict(change) for change in found.changes],
        "notes": found.notes,
    }


def _lines(found: Comparison) -> Iterator[str]:
    paint = painter(sys.stdout) or (lambda text, role: text)
    if found.same:
        yield f"the same: hash {found.hashes[0]}"
    else:
        yield f"hash {found.hashes[0]} -> {found.hashes[1]}"
    for change in found.changes:
        role = change.how if change.how in ("added", "removed") else "bold"
        yield f"{paint(SIGNS[change.how], role)} {text_of(change)}"
    yield from (f"  {note}" for note in found.notes)


def text_of(change: Change) -> str:
    """A change in one line: `term soft: weight 1 -> 0.5`."""
    where = f" in {change.where}" if change.where else ""
    name = f"{change.subject} {change.name}".rstrip()
    if change.how != "changed":
        return f"{name}{where}: {change.after or change.before}"
    aspect = f"{change.aspect} " if change.aspect else ""
    return f"{name}{where}: {aspect}{change.before} -> {change.after}"
