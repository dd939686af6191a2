"""`brewgraph plan`: what a run will do, before weights are loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from brewgraph.cli.options import Format, Set, SkipPass, Spec, check_spec


def command(
    spec: Spec,
    set: Set = None,
    skip_pass: SkipPass = None,
    cost: Annotated[bool, typer.Option(help="Count FLOPs and bytes per batch, without allocating memory.")] = True,
    ranks: Annotated[int, typer.Option(min=1, help="Memory of one of so many ranks that shard with FSDP2.")] = 1,
    format: Format = "text",
) -> None:
    """Show what a run will do: models, the full loss, forwards, costs, savings, projections, settings."""
    from brewgraph.graph.optimize import check_names as check_passes

    check_passes(skip_pass or ())
    checked = check_spec(spec, set)
    from brewgraph.inspect.plan_of import plan_of

    plan = plan_of(checked, cost=cost, skip=tuple(skip_pass or ()), ranks=ranks)
    if format == "json":
        print(json.dumps({"hash": checked.spec_hash, **asdict(plan)}, indent=2, ensure_ascii=False, default=str))
    else:
        print(plan)
