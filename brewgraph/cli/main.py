"""`brewgraph`: the table of its commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any

import typer

from brewgraph.cli.output import reported
from brewgraph.cli.unknown import Command, SuggestingGroup

COMMANDS: dict[str, str] = {
    "run": "Check a spec, train its student, compare the models.",
    "check": "Check specs against their models and data.",
    "fmt": "Format specs in place.",
    "plan": "Say what a run will do: models, loss, settings.",
    "graph": "Draw what the loss of a spec is computed from.",
    "diff": "Say what differs between two specs in meaning.",
    "eval": "Score the student of a finished run.",
    "predict": "Write what the student of a finished run says.",
    "ops": "List operations, sources, settings; explain one.",
    "explain": "Say what a code of a diagnostic means.",
    "taps": "Show what a spec can take from a model, with shapes.",
    "params": "Show a model's parameters as a tree.",
    "convert": "Write a configuration of TextBrewer as a spec.",
    "new": "Write a commented spec to start from.",
}
"""The commands, each with the line that stands for it in the list: short enough for a terminal of 80 columns."""

# told that help is not wanted unless it is asked for, typer need not load pydantic to find out
_UNASKED = dict.fromkeys(("help", "install_completion", "show_completion"), False)
_DEFAULTS: dict[str, Any] = {**_UNASKED, **{name: {"help": False} for name in COMMANDS}}


def application(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """The command with these subcommands, each of a module of its name: `command`, and `SETTINGS` for typer if any."""
    # plain help: readable everywhere, and rich alone would take longer to import than everything else here
    made = typer.Typer(
        name="brewgraph",
        cls=SuggestingGroup,
        help="Knowledge distillation as a loss equation: write it, check it, run it.",
        epilog="Exit codes: 0 fine, 1 the spec is at fault, 2 usage, 3 the run failed. Begin with `brewgraph new`.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "default_map": _DEFAULTS},
    )
    for name in names:
        module = import_module(f"brewgraph.cli.{name}")
        made.command(name, cls=Command, short_help=COMMANDS[name], **getattr(module, "SETTINGS", {}))(
            reported(module.command)
        )
    made.callback()(_options)
    return made


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"brewgraph {version('brewgraph')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point of the installed command."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as `>&-` and some schedulers do
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    # the one that is asked for is enough: to make all of them takes as long as to format a spec
    asked = sys.argv[1:2] if sys.argv[1:2] and sys.argv[1] in COMMANDS else COMMANDS
    application(asked)(prog_name="brewgraph")
