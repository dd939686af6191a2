"""`brewgraph plan`: what a run will do, before any weight is loaded."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Set, SkipPass, Spec
from brewgraph.cli.output import hush, parse_sets, print_diagnostics, read


def command(
    spec: Spec,
    set: Set = None,
    skip_pass: SkipPass = None,
    cost: Annotated[bool, typer.Option(help="Count FLOPs and bytes of a batch, on tensors without memory.")] = True,
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or all of it for machines.")] = "text",
) -> None:
    """Say what a run will do: models, the loss spelled out, forwards, costs, savings, projections, settings."""
    from brewgraph.checking.check import check
    from brewgraph.graph.optimize import check_names as check_passes

    source, params = read(spec), parse_sets(set or [])
    check_passes(skip_pass or ())
    hush()
    checked = check(source, params)
    print_diagnostics(checked.warnings, sys.stderr)
    from brewgraph.inspect.plan_of import plan_of

    plan = plan_of(checked, cost=cost, skip=tuple(skip_pass or ()))
    if format == "json":
        print(json.dumps({"hash": checked.spec_hash, **asdict(plan)}, indent=2, ensure_ascii=False, default=str))
    else:
        print(plan)
