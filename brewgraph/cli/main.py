"""`brewgraph`: the table of its commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from brewgraph.cli import check, convert, eval, fmt, graph, new, ops, params, plan, predict, run
from brewgraph.cli.output import reported

COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "run": (run.command, "Check a spec, train its student, compare the models."),
    "check": (check.command, "Check specs against their models and data."),
    "fmt": (fmt.command, "Format specs in place."),
    "plan": (plan.command, "Say what a run will do: models, loss, settings."),
    "graph": (graph.command, "Draw what the loss of a spec is computed from."),
    "eval": (eval.command, "Score the student of a finished run."),
    "predict": (predict.command, "Write what the student of a finished run says."),
    "ops": (ops.command, "List operations, sources, settings; explain one."),
    "params": (params.command, "Show a model's parameters as a tree."),
    "convert": (convert.command, "Write a configuration of TextBrewer as a spec."),
    "new": (new.command, "Write a commented spec to start from."),
}
"""The commands, each with the line that stands for it in the list: short enough for a terminal of 80 columns."""
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

for _name, (_command, _line) in COMMANDS.items():
    app.command(_name, short_help=_line, **_SETTINGS.get(_name, {}))(reported(_command))


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
