"""`brewgraph lsp`: the language server for editors."""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from brewgraph.diagnostics import UsageError


def command(
    stdio: Annotated[bool, typer.Option("--stdio", help="Speak on stdin and stdout, as always.")] = False,
) -> None:
    """Start the language server, which editors speak to on stdin and stdout; docs/editor.md shows how to set one up."""
    if find_spec("pygls") is None:
        raise UsageError('the language server needs pygls: pip install "brewgraph[lsp]"')
    if sys.stdin.isatty():
        raise UsageError("an editor starts this command and speaks to it; docs/editor.md shows how to set one up")
    from brewgraph.cli.ops import entries
    from brewgraph.editor.server import build

    sys.setswitchinterval(0.001)  # requests are answered beside a thread that reads texts
    server = build(entries())
    gc.freeze()  # what is loaded stays: searches for garbage, several per second of typing, need not go through it
    server.start_io()
