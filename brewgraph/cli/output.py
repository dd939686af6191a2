"""How commands print and end.

The result of a command goes to stdout, progress, warnings and errors to stderr; the result of `check` is its
diagnostics. Exit codes: 0 success, 1 fault in the spec, 2 usage, 3 the run failed, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TextIO, TypeVar

import typer

from brewgraph.diagnostics import BrewError, Diagnostic, SpecError, render
from brewgraph.display.cost import megabytes as megabytes
from brewgraph.display.lines import count as count
from brewgraph.display.lines import number as number
from brewgraph.display.lines import table as table
from brewgraph.source import visible
from brewgraph.training.signals import INTERRUPTIONS, Terminated, caught_signals, exit_code

P = ParamSpec("P")
R = TypeVar("R")

_COLOURS = {
    "error": "1;31", "warning": "1;33", "place": "1;34", "caret": "1;31", "second": "34", "help": "1;36",
    "added": "32", "removed": "31", "bold": "1",
}  # fmt: skip


_COMMAND = re.compile(rf"\033\[(?:{'|'.join({*_COLOURS.values(), '0'})})m|[^\033]+|\033")
"""What brewgraph itself sends to a terminal, and the text in between."""


class Terminal:
    """A stream to a terminal that obeys nothing but brewgraph's own colours: texts of data, of models and of libraries
    may hold other commands, which are shown and not run.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        pieces = (x if len(x) > 1 and x[0] == "\033" else visible(x) for x in _COMMAND.findall(text))
        self.stream.write("".join(pieces))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_LEAST = 30
"""The minimum width of a column of words."""


def coloured(stream: TextIO) -> bool:
    """Whether a stream supports colours: a terminal, unless NO_COLOR is set or the terminal is dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painter(stream: TextIO) -> Callable[[str, str], str]:
    """The `paint` of `diagnostics.render` for a stream: it changes nothing if the stream supports no colours."""
    colours = _COLOURS if coloured(stream) else {}
    return lambda text, role: f"\033[{colours[role]}m{text}\033[0m" if role in colours else text


def print_diagnostics(diagnostics: Iterable[Diagnostic], stream: TextIO) -> None:
    """Print each diagnostic and an empty line, cut to the width of a terminal."""
    paint = painter(stream)
    width = shutil.get_terminal_size().columns if stream.isatty() or "COLUMNS" in os.environ else None
    for diagnostic in diagnostics:
        print(render(diagnostic, paint, width), end="\n\n", file=stream)


def tally(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`; `fine` without any."""
    errors = sum(d.severity == "error" for d in diagnostics)
    counts = ((errors, "error"), (len(diagnostics) - errors, "warning"))
    return ", ".join(count(number, word) for number, word in counts if number) or "fine"


def more_about(diagnostics: Sequence[Diagnostic]) -> str:
    """The command that explains the first of these, to follow the tally; empty if none has a page."""
    from brewgraph.explanations import page_of

    code = next((d.code for d in diagnostics if page_of(d.code) is not None), None)
    return f"; more: brewgraph explain {code}" if code else ""


def complain(text: str) -> None:
    """Print an error that is not a diagnostic in one line."""
    print(f"{painter(sys.stderr)('error', 'error')}: {text}", file=sys.stderr)


def wrapped(text: str, indent: str = "", hang: str | None = None) -> str:
    """Text in lines as wide as the terminal, or 80 columns; `hang` starts all lines but the first."""
    import textwrap

    hang = indent if hang is None else hang
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )


def explained(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Aligned rows whose last column is wrapped words; on a narrow terminal these go below the others."""
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
    """A command that reports exceptions in a few lines and an exit code, without a traceback unless asked for."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with caught_signals():
                return command(*args, **kwargs)
        except INTERRUPTIONS as interruption:
            if os.environ.get("RANK", "0") == "0":
                word = "terminated" if isinstance(interruption, Terminated) else "interrupted"
                print(str(interruption) or word, file=sys.stderr)
            raise typer.Exit(exit_code(interruption)) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of the output is gone, which typer handles
            if os.environ.get("BREWGRAPH_TRACEBACK"):
                import traceback

                traceback.print_exc()
            raise typer.Exit(_report(error)) from None

    return run


def _report(error: Exception) -> int:
    """Print an error; returns its exit code."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, SpecError):
        print_diagnostics(error.diagnostics, sys.stderr)
        print(tally(error.diagnostics) + more_about(error.diagnostics), file=sys.stderr)
    elif isinstance(error, BrewError):
        complain(str(error))
    elif isinstance(error, MemoryError):
        complain(
            "out of memory: use smaller models or batches, or a machine with more; `brewgraph plan` shows the bytes"
        )
    elif isinstance(error, OSError):
        what = error.strerror or first_line
        complain(f"{what}: {error.filename}" if error.filename else what)
    else:
        complain(f"{type(error).__name__}: {first_line}")
        print("this is a bug in brewgraph or in a model; BREWGRAPH_TRACEBACK=1 shows the traceback", file=sys.stderr)
    return error.exit_code if isinstance(error, BrewError) else 3


_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",  # otherwise it warns when a loader forks
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def hush() -> None:
    """Silence the libraries below, unless BREWGRAPH_TRACEBACK=1 keeps their warnings."""
    if os.environ.get("BREWGRAPH_TRACEBACK"):
        return
    import logging
    import warnings

    warnings.simplefilter("ignore")
    for name in ("transformers", "datasets", "accelerate", "torch", "huggingface_hub", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for variable, value in _QUIET.items():  # for libraries that are not loaded yet
        os.environ.setdefault(variable, value)
    if transformers := sys.modules.get("transformers"):
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    if datasets := sys.modules.get("datasets"):
        datasets.logging.set_verbosity_error()
        datasets.disable_progress_bars()
