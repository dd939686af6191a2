"""`brewgraph`: the table of its commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from brewgraph.cli import check, convert, eval, fmt, graph, new, ops, params, plan, predict, run
from brewgraph.cli.output import reported

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.command,
    "check": check.command,
    "fmt": fmt.command,
    "plan": plan.command,
    "graph": graph.command,
    "eval": eval.command,
    "predict": predict.command,
    "ops": ops.command,
    "params": params.command,
    "convert": convert.command,
    "new": new.command,
}
_SETTINGS: dict[str, dict[str, Any]] = {"fmt": fmt.SETTINGS}
"""What typer is told of a command, apart from its parameters."""

# told that help is not wanted unless it is asked for, typer need not load pydantic to find out
_DEFAULTS: dict[str, Any] = {"help": False, **{name: {"help": False} for name in COMMANDS}}

# plain help: readable everywhere, and rich alone would take longer to import than everything else here
app = typer.Typer(
    name="brewgraph",
    help="Knowledge distillation as a loss equation: write it, check it, run it.",
    epilog="Exit codes: 0 fine, 1 the spec is at fault, 2 usage, 3 the run failed. Begin with `brewgraph new`.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "default_map": _DEFAULTS},
)

for _name, _command in COMMANDS.items():
    app.command(_name, **_SETTINGS.get(_name, {}))(reported(_command))


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"brewgraph {version('brewgraph')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    app(prog_name="brewgraph")
