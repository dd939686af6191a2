"""`brewgraph graph`: the dependency graph of a loss, drawn."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Set, Spec
from brewgraph.cli.output import hush, parse_sets, print_diagnostics, read
from brewgraph.diagnostics import RunError


def command(
    spec: Spec,
    set: Set = None,
    format: Annotated[
        Literal["text", "dot", "mermaid"], typer.Option(help="A tree, or what Graphviz or mermaid draws.")
    ] = "text",
    grain: Annotated[
        Literal["terms", "nodes"], typer.Option(help="Terms and what they take, or every node of the computation.")
    ] = "terms",
) -> None:
    """Draw what the loss of a spec is computed from."""
    from brewgraph.project.check import check, check_names

    source, params = read(spec), parse_sets(set or [])
    check_names(source, params)
    hush()
    from brewgraph.graph.draw import draw

    checked = check(source, params)
    print_diagnostics(checked.warnings, sys.stderr)
    if checked.graph is None:
        raise RunError("the graph is not known until the models above can be reached")
    sys.stdout.write(draw(checked.graph, format, grain))
