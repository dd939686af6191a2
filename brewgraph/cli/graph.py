"""`brewgraph graph`: draws the dependency graph of a loss."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Set, Spec, check_spec
from brewgraph.diagnostics import RunError
from brewgraph.inspect.graph_of import show
from brewgraph.paths import check_writable, write_file


def command(
    spec: Spec,
    set: Set = None,
    format: Annotated[
        Literal["text", "dot", "mermaid", "svg", "html"],
        typer.Option(help="A tree, input for Graphviz or mermaid, a picture, or an interactive page."),
    ] = "text",
    task: Annotated[
        str | None, typer.Option(help="TASK, STAGE or STAGE/TASK of a spec that has several.", show_default="the first")
    ] = None,
    grain: Annotated[
        Literal["terms", "nodes"], typer.Option(help="Terms and their inputs, or every node of the computation.")
    ] = "terms",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write.", show_default="standard output")
    ] = None,
) -> None:
    """Draw the graph of a spec's loss: `brewgraph graph spec.brew --format html --out graph.html`."""
    if out is not None:
        check_writable(out)
    checked = check_spec(spec, set)
    if not checked.graphs:
        raise RunError("the graph is unknown until the models above can be reached")
    drawing = show(checked, grain, task, cost=format in ("svg", "html")).write(format)
    if out is None:
        sys.stdout.write(drawing)
    else:
        write_file(out, drawing)
