"""`brewgraph graph`: the dependency graph of a loss, drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Set, Spec
from brewgraph.cli.output import hush, parse_sets, print_diagnostics, read
from brewgraph.diagnostics import RunError
from brewgraph.paths import check_writable, write_file


def command(
    spec: Spec,
    set: Set = None,
    format: Annotated[
        Literal["text", "dot", "mermaid", "svg", "html"],
        typer.Option(help="A tree; what Graphviz or mermaid draws; a picture; a page to click through."),
    ] = "text",
    task: Annotated[
        str | None,
        typer.Option(help="Of a spec with tasks or stages: TASK, STAGE or STAGE/TASK.", show_default="the first"),
    ] = None,
    grain: Annotated[
        Literal["terms", "nodes"], typer.Option(help="Terms and what they take, or every node of the computation.")
    ] = "terms",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there instead of to stdout.", show_default=False)
    ] = None,
) -> None:
    """Draw what the loss of a spec is computed from: `brewgraph graph spec.brew --format html --out graph.html`."""
    from brewgraph.checking.check import check

    if out is not None:
        check_writable(out)
    source, params = read(spec), parse_sets(set or [])
    hush()
    checked = check(source, params)
    print_diagnostics(checked.warnings, sys.stderr)
    if not checked.graphs:
        raise RunError("the graph is not known until the models above can be reached")
    from brewgraph.display.render import find_task
    from brewgraph.inspect.graph_of import show

    name = None if task is None else find_task(task, checked.graphs)
    written = show(checked, grain, name, cost=format in ("svg", "html")).write(format)
    if out is None:
        sys.stdout.write(written)
    else:
        write_file(out, written)
