"""`brewgraph`: its commands, and what to say about unknown commands and options."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from brewgraph.cli.complete import join_words_in_bash
from brewgraph.cli.output import Terminal, reported
from brewgraph.diagnostics import suggest

COMMANDS: dict[str, str] = {
    "run": "Check a spec, train its student, compare the models.",
    "sweep": "Run a spec over values of its params; compare.",
    "runs": "List runs; compare, tag and remove them.",
    "report": "Write a run's report as one page.",
    "card": "Print a run's model card.",
    "push": "Push a run's student to a hub.",
    "check": "Check specs against their models and data.",
    "cache": "Compute what a spec keeps on disk, before any run.",
    "fmt": "Format specs in place.",
    "plan": "Show what a run will do: models, loss, settings.",
    "graph": "Draw the graph of a spec's loss.",
    "diff": "Compare what two specs compute.",
    "eval": "Score the student of a finished run.",
    "predict": "Predict with the student of a finished run.",
    "export": "Export the student for ONNX, OpenVINO or torch.export.",
    "bench": "Measure a run's models beside each other.",
    "ops": "List operations, sources and settings; explain one.",
    "explain": "Explain a diagnostic code, or a name of a spec.",
    "taps": "Show the features and modules of a model, with shapes.",
    "params": "Show a model's parameters as a tree.",
    "convert": "Convert a TextBrewer configuration to a spec.",
    "new": "Write a commented spec to start from.",
    "lsp": "Start the language server for editors.",
}
"""The commands, each with its line in the list: short enough for a terminal of 80 columns."""


def about_option(option: str, known: Sequence[str]) -> str:
    """The remedy for an unknown option; empty if there is none."""
    from brewgraph.syntax.foreign import foreign_words, from_outside, instead

    name = option.lstrip("-").replace("-", "_")
    word = name.lower().replace("_", "-")
    if word in foreign_words()["command option"] and (remedy := instead("command option", word, known)):
        return remedy
    return from_outside(name) or from_outside(name.lower()) or suggest(option.replace("_", "-"), known)


def about_command(
    word: str, rest: Sequence[str], commands: Sequence[str], of: str = "brewgraph", folder_option: str | None = None
) -> str:
    """The message for a first argument that is not a command, `of` the program or of a command with parts, which may
    have an option that takes a folder.
    """
    from brewgraph.syntax.foreign import instead

    if word.endswith(".brew") or Path(word).is_file():
        words = " ".join([word, *rest])
        return f"a command must precede the spec: write `brewgraph run {words}`, or `brewgraph check {word}` first"
    if folder_option is not None and Path(word).is_dir():
        return f"a folder follows an option: `{of} {folder_option} {word}`"
    help = instead("command", word, commands) or f"`{of} --help` lists the commands"
    return f"there is no command `{word}`: {help}"


class Command(TyperCommand):
    """A command that suggests a remedy for unknown options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)
            if type(error).__name__ == "NoSuchOption" and option:
                known = [name for parameter in self.params for name in parameter.opts if name.startswith("--")]
                if remedy := about_option(option, known):
                    error.message = f"{error.message}: {remedy}"  # type: ignore[attr-defined]
                    error.possibilities = None  # type: ignore[attr-defined]
            raise


class SuggestingGroup(TyperGroup):
    """A group that suggests a remedy for unknown commands; a folder in place of one belongs to its `folder_option`."""

    folder_option: ClassVar[str | None] = None

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of `COMMANDS`; typer would put those with subcommands last."""
        order = {name: position for position, name in enumerate(COMMANDS)}
        return sorted(super().list_commands(ctx), key=lambda name: order.get(name, len(order)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(about_command(args[0], args[1:], list(self.commands), ctx.command_path, self.folder_option))
        return super().resolve_command(ctx, args)


# with these defaults typer need not load pydantic to find out that nobody asks for help
_UNASKED = dict.fromkeys(("help", "install_completion", "show_completion"), False)
_DEFAULTS: dict[str, Any] = {**_UNASKED, **{name: {"help": False} for name in COMMANDS}}


def application(loaded: Collection[str] = tuple(COMMANDS)) -> typer.Typer:
    """The command with its subcommands, of which these are loaded: modules of that name with a `command`, and maybe
    `SETTINGS` for typer, or `SUBCOMMANDS` by name and a `FOLDER_OPTION` beside them. The others have a line in the
    list, and do nothing.
    """
    # plain help: importing rich would take longer than everything else here
    app = typer.Typer(
        name="brewgraph",
        cls=SuggestingGroup,
        help="Knowledge distillation as a loss equation: write it, check it, run it.",
        epilog="Exit codes: 0 success, 1 fault in the spec, 2 usage, 3 the run failed. Start with `brewgraph new`.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "default_map": _DEFAULTS},
    )
    for name, line in COMMANDS.items():
        module = import_module(f"brewgraph.cli.{name}") if name in loaded else None
        command = reported(module.command) if module is not None else lambda: None
        if parts := getattr(module, "SUBCOMMANDS", {}):
            kind = type("Group", (SuggestingGroup,), {"folder_option": getattr(module, "FOLDER_OPTION", None)})
            group = typer.Typer(cls=kind, rich_markup_mode=None)
            group.callback(invoke_without_command=True)(command)
            for part, function in parts.items():
                group.command(part, cls=Command)(reported(function))
            app.add_typer(group, name=name, short_help=line)
        else:
            app.command(name, cls=Command, short_help=line, **getattr(module, "SETTINGS", {}))(command)
    app.callback()(_options)
    return app


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
            stream.reconfigure(errors="replace")  # do not fail on a character that the terminal lacks
    sys.stdout, sys.stderr = (Terminal(x) if x.isatty() else x for x in (sys.stdout, sys.stderr))
    join_words_in_bash()
    # only the requested command, also of a line to complete: loading all takes longer than formatting a spec
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    application([*sys.argv[1:], *line.split()])(prog_name="brewgraph")
