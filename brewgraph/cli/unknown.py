"""What the command line says of commands and options that it does not have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from brewgraph.diagnostics import suggest
from brewgraph.syntax.foreign import foreign_words, from_outside, instead


def about_option(option: str, known: Sequence[str]) -> str:
    """The remedy for an option that a command does not have; empty where none is known."""
    name = option.lstrip("-").replace("-", "_")
    word = name.lower().replace("_", "-")
    if word in foreign_words()["command option"] and (said := instead("command option", word, known)):
        return said
    return from_outside(name) or from_outside(name.lower()) or suggest(option.replace("_", "-"), known)


def about_command(word: str, rest: Sequence[str], commands: Sequence[str]) -> str:
    """The whole message for a first argument that names no command."""
    if word.endswith(".brew") or Path(word).is_file():
        words = " ".join([word, *rest])
        return f"a command stands before the spec: write `brewgraph run {words}`, or `brewgraph check {word}` first"
    help = instead("command", word, commands) or "`brewgraph --help` lists the commands"
    return f"there is no command `{word}`: {help}"


class Command(TyperCommand):
    """A command that says what to do instead of an option it does not have."""

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
    """The table of commands, which says what to do where the first argument is none."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(about_command(args[0], args[1:], list(self.commands)))
        return super().resolve_command(ctx, args)
