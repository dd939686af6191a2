"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from brewgraph.cli.complete import params, passes, runs, specs, warnings

Spec = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="A spec file; - reads stdin.", show_default=False, autocompletion=specs),
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The folder of a finished run, as runs/NAME-HASH; or of its baseline, as runs/NAME-HASH/alone.",
        show_default=False,
        autocompletion=runs,
    ),
]
Task = Annotated[str | None, typer.Option(metavar="NAME", help="One task of a spec with several.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Replace a param of the spec; may be repeated.",
        show_default=False,
        autocompletion=params,
    ),
]
Deny = Annotated[
    list[str] | None,
    typer.Option(
        metavar="warnings|CODE",
        help="Fail where there are warnings, or that one; may be repeated.",
        show_default=False,
        autocompletion=warnings,
    ),
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|RUN|SPEC",
        help="A model's folder or hub name, a call as in a spec, the folder of a run, or a spec.",
        show_default=False,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="A model of the spec; left out, all.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result and nothing else.")]
SkipPass = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-pass",
        metavar="NAME",
        help="Leave out a pass that saves work; may be repeated. No result changes.",
        show_default=False,
        autocompletion=passes,
    ),
]
