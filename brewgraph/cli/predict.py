"""`brewgraph predict`: what a finished run's student takes the rows of a file for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from brewgraph.cli.options import Quiet, Run, Task
from brewgraph.cli.output import count, hush


def command(
    run: Run,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Rows with the columns of the run's data; labels are not needed.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write to.", show_default="standard output")
    ] = None,
    task: Task = None,
    quiet: Quiet = False,
) -> None:
    """Write what the student of a finished run takes each row of a file for: one JSON object per line."""
    from brewgraph.project.finished import open_run

    found = open_run(run).task(task)
    hush()
    from brewgraph.project.predict import load_student, predict, unlabelled_rows
    from brewgraph.training.folder import write_text

    rows = unlabelled_rows(found, Path(file))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in predict(load_student(found), rows))
    if out is None:
        sys.stdout.writelines(lines)
        return
    write_text(out, "".join(lines))
    if not quiet:
        print(f"{count(len(rows), 'prediction')} in {out}", file=sys.stderr)
