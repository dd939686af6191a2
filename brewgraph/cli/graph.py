"""`brewgraph graph`: the dependency graph of a loss, drawn."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Set, Spec
from brewgraph.cli.output import hush, parse_sets, print_diagnostics, read
from brewgraph.diagnostics import RunError, UsageError, listing, suggest


def command(
    spec: Spec,
    set: Set = None,
    format: Annotated[
        Literal["text", "dot", "mermaid"], typer.Option(help="A tree, or what Graphviz or mermaid draws.")
    ] = "text",
    task: Annotated[
        str | None,
        typer.Option(help="Of a spec with tasks or stages: TASK, STAGE or STAGE/TASK.", show_default="the first"),
    ] = None,
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
    names = {"/".join(filter(None, name)): graph for name, graph in checked.graphs.items()}
    names |= {task: graph for (_, task), graph in reversed(list(checked.graphs.items())) if task}
    if task is not None and task not in names:
        there = f"it has {listing(n for n in names if n)}" if any(names) else "the spec has neither tasks nor stages"
        raise UsageError(f"there is no task `{task}`: {suggest(task, names) or there}")
    sys.stdout.write(draw(checked.graph if task is None else names[task], format, grain))
