"""`brewgraph predict`: what a finished run's student takes the rows of a file for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Quiet, Run, Task
from brewgraph.cli.output import count, hush
from brewgraph.cli.predictions import lines, shaped
from brewgraph.diagnostics import UsageError
from brewgraph.paths import check_writable
from brewgraph.recipe.label_types import SPANS

_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}


def command(
    run: Run,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="Rows with the columns of the run's data, labels are not needed; - reads stdin, also plain lines.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text in place of a file; may be repeated, and is for pairs.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write to, .jsonl, .csv or .tsv.", show_default="standard output"),
    ] = None,
    format: Annotated[
        Literal["jsonl", "csv", "tsv"] | None,
        typer.Option(help="An object per line, or a table.", show_default="by the name of --out, else jsonl"),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Only so many of the likeliest classes.", show_default="all")
    ] = None,
    digits: Annotated[int, typer.Option(min=0, help="Decimals of probabilities; 17 for all there are.")] = 4,
    task: Task = None,
    quiet: Quiet = False,
) -> None:
    """Write what the student of a finished run takes each row for: the row's text and the prediction."""
    from brewgraph.running.finished import open_run

    if (file is None) == (not text):
        raise UsageError("name a FILE, - for standard input, or give a `--text`, and one of them only")
    if out is not None and format is None and out.suffix not in _FORMATS:
        raise UsageError(f"`{out}` says no format by its name: end it in .jsonl, .csv or .tsv, or give --format")
    if out is not None:
        check_writable(out)
    if out is not None and file is not None and out.exists() and Path(file).exists() and out.samefile(file):
        raise UsageError(f"`{out}` is the file that is read, and would be lost: name another file with --out")
    found = open_run(run).task(task)
    hush()
    from brewgraph.running.piped_rows import piped_rows, typed_rows
    from brewgraph.running.predict import load_student, predict, text_columns, unlabelled_rows
    from brewgraph.training.folder import write_text

    if text:
        rows = typed_rows(found, text)
    elif file == "-":
        rows = piped_rows(found, sys.stdin.buffer.read())
    else:
        rows = unlabelled_rows(found, Path(str(file)))
    # a context is what an answer is cut from, and as long as many questions share it
    names = text_columns(found)[: 1 if found.label_type == SPANS else None]
    shown = shaped(predict(load_student(found), rows), rows, names, digits=digits, top=top)
    format = format or ("jsonl" if out is None else _FORMATS[out.suffix])  # type: ignore[assignment]
    written = lines(shown, str(format), top=top)
    if out is None:
        sys.stdout.writelines(written)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(written))
    if not quiet:
        print(f"{count(len(rows), 'prediction')} in {out}", file=sys.stderr)
