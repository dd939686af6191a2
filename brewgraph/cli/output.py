"""What every command shares: how it prints, how it ends, how it reads a spec and `--set`.

The result of a command goes to stdout, everything else (progress, warnings, errors) to stderr; for `check` the
diagnostics are the result. Exit codes: 0 fine, 1 the spec is at fault, 2 usage, 3 the run failed, 130 interrupted.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

import typer

from brewgraph.diagnostics import BrewError, Diagnostic, SpecError, UsageError, render, suggest
from brewgraph.display.cost import megabytes as megabytes
from brewgraph.display.lines import count as count
from brewgraph.display.lines import number as number
from brewgraph.display.lines import table as table
from brewgraph.source import EncodingError, Source, is_call

P = ParamSpec("P")
R = TypeVar("R")

_COLOURS = {
    "error": "1;31", "warning": "1;33", "place": "1;34", "caret": "1;31", "second": "34", "help": "1;36",
    "added": "32", "removed": "31", "bold": "1",
}  # fmt: skip


_LEAST = 30
"""Columns that words need beside others."""


def coloured(stream: TextIO) -> bool:
    """Whether a stream takes colours: a terminal, unless NO_COLOR is set (to anything) or the terminal is dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painter(stream: TextIO) -> Callable[[str, str], str] | None:
    """The `paint` of `diagnostics.render` for a stream, None where it takes no colours."""
    if not coloured(stream):
        return None
    return lambda text, role: f"\033[{_COLOURS[role]}m{text}\033[0m" if role in _COLOURS else text


def print_diagnostics(diagnostics: Iterable[Diagnostic], stream: TextIO) -> None:
    """Each diagnostic and an empty line; cut to the width of a terminal, where the stream is one."""
    paint = painter(stream)
    width = shutil.get_terminal_size().columns if stream.isatty() or "COLUMNS" in os.environ else None
    for diagnostic in diagnostics:
        print(render(diagnostic, paint, width), end="\n\n", file=stream)


def tally(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`; `fine` where there is nothing."""
    errors = sum(d.severity == "error" for d in diagnostics)
    warnings = len(diagnostics) - errors
    parts = [count(errors, "error")] if errors else []
    parts += [count(warnings, "warning")] if warnings else []
    return ", ".join(parts) or "fine"


def more_about(diagnostics: Sequence[Diagnostic]) -> str:
    """Where the first of these is explained, to stand behind the tally; empty where there is nothing to explain."""
    from brewgraph.explanations import page_of

    code = next((d.code for d in diagnostics if page_of(d.code) is not None), None)
    return f"; more: brewgraph explain {code}" if code else ""


def complain(text: str) -> None:
    """One line for a fault that is no diagnostic."""
    paint = painter(sys.stderr) or (lambda text, role: text)
    print(f"{paint('error', 'error')}: {text}", file=sys.stderr)


def wrapped(text: str, indent: str = "", hang: str | None = None) -> str:
    """Text in lines as wide as the terminal, 80 columns where there is none; `hang` begins all lines but the first."""
    import textwrap

    hang = indent if hang is None else hang
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )


def explained(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Aligned rows whose last column is words, which go on in the next line; below the others where no room is left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    beside = len(indent) + sum(widths) + 2 * len(widths)
    lines = []
    for row in rows:
        start = indent + "".join(f"{cell:<{width}}  " for cell, width in zip(row[:-1], widths, strict=True))
        if beside + _LEAST <= shutil.get_terminal_size().columns:
            lines.append(wrapped(row[-1], start, " " * beside).rstrip())
        else:
            lines += [start.rstrip(), wrapped(row[-1], f"{indent}    ")]
    return "\n".join(lines)


# ── how a command ends ───────────────────────────────────────────────────────────────────────────────────────────────


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose exceptions become a few lines and an exit code; never a traceback, unless it is asked for."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
        except (SpecError, BrewError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever read the output has gone away; typer knows what to do
            _traceback()
            raise typer.Exit(_explain(error)) from None
        except RuntimeError as error:
            if isinstance(error, typer.Exit | typer.Abort):
                raise
            _traceback()
            raise typer.Exit(_unexpected(error)) from None
        except Exception as error:
            _traceback()
            raise typer.Exit(_unexpected(error)) from None

    return run


def _explain(error: BrewError | OSError) -> int:
    """Print an error that was foreseen; its exit code."""
    if isinstance(error, SpecError):
        print_diagnostics(error.diagnostics, sys.stderr)
        print(tally(error.diagnostics) + more_about(error.diagnostics), file=sys.stderr)
        return error.exit_code
    if isinstance(error, BrewError):
        complain(str(error))
        return error.exit_code
    what = error.strerror or _first_line(error)
    complain(f"{what}: {error.filename}" if error.filename else what)
    return 3


def _unexpected(error: Exception) -> int:
    complain(f"{type(error).__name__}: {_first_line(error)}")
    print(
        "this is a bug in brewgraph or in a model; BREWGRAPH_TRACEBACK=1 shows the traceback",
        file=sys.stderr,
    )
    return 3


def _traceback() -> None:
    if os.environ.get("BREWGRAPH_TRACEBACK"):
        import traceback

        traceback.print_exc()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]


# ── what commands are given ──────────────────────────────────────────────────────────────────────────────────────────

_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def parse_sets(given: Sequence[str]) -> dict[str, Any]:
    """`--set T=8 --set name=abc`: values are numbers, `true`, `false`, `none`, else text; quotes keep `"8"` a text.

    `--set "layers=[0, 4]"` gives a list. Of a name that is given twice the last counts. Raises `UsageError` where there
    is no `=`, or no name before it.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name.isidentifier():
            wanted = name.split(" ")[0] if not sign else name.replace("-", "_").rpartition(".")[2]
            remedy = f"write `--set {wanted}=VALUE`" if wanted.isidentifier() else "write `--set NAME=VALUE`"
            raise UsageError(f"`--set {text}` is no `name=value`: {remedy}")
        found[name] = parse_value(value)
    return found


def parse_deny(given: Sequence[str]) -> frozenset[str]:
    """`--deny warnings --deny W205,W207`: the codes that are faults here. `UsageError` for what is no warning."""
    from brewgraph.explanations import CODES

    warnings = [code for code in CODES if code.startswith("W")]
    found: set[str] = set()
    for word in (part.strip() for text in given for part in text.split(",")):
        if word == "warnings":
            found.update(warnings)
        elif word in warnings:
            found.add(word)
        else:
            hint = suggest(word, ["warnings", *warnings]) or "write `--deny warnings` or `--deny W205`"
            raise UsageError(f"`--deny {word}` names no warning: {hint}")
    return frozenset(found)


def parse_value(text: str) -> Any:
    """A value as it is written on the command line."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        return tuple(parse_value(part.strip()) for part in text[1:-1].split(",") if part.strip())
    return text


def read(path: str) -> Source:
    """A spec from a file, or from stdin for `-`. Raises `UsageError` where there is none."""
    from brewgraph.checking.check import read_spec

    if path == "-":
        return read_stdin()
    if Path(path).is_dir():
        raise UsageError(f"`{path}` is a folder; name a spec in it")
    return read_spec(path)


def read_stdin() -> Source:
    """What comes through a pipe. Raises `UsageError` where it is not UTF-8."""
    try:
        return Source.of(sys.stdin.buffer.read(), "<stdin>", "standard input")
    except EncodingError as error:
        raise UsageError(str(error)) from error


def spec_is_named(model: str, name: str | None, sets: Sequence[str] | None) -> bool:
    """Whether an argument that may be a model or a spec is a spec. UsageError where only a spec has what is asked."""
    is_spec = not is_call(model) and (model == "-" or model.endswith(".brew") or Path(model).is_file())
    if not is_spec and (name is not None or sets):
        raise UsageError(f"`{model}` is no spec: a model's name and --set belong to one")
    return is_spec


_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def hush() -> None:
    """Keep the libraries below quiet: what they have to say to a user, brewgraph says.

    Their warnings stay with BREWGRAPH_TRACEBACK=1.
    """
    if os.environ.get("BREWGRAPH_TRACEBACK"):
        return
    import logging
    import warnings

    warnings.simplefilter("ignore")
    for name in ("transformers", "datasets", "accelerate", "torch", "huggingface_hub", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns when a loader forks
    # what is not loaded yet, and perhaps never will be, reads this when it is
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    if transformers := sys.modules.get("transformers"):
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    if datasets := sys.modules.get("datasets"):
        datasets.logging.set_verbosity_error()
        datasets.disable_progress_bars()
