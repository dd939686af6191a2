"""`brewgraph report`: the report of a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brewgraph.cli.complete import runs as completed
from brewgraph.cli.output import hush
from brewgraph.training.folder import display_path, runs_folder


def command(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run in any state: its folder, or its name.", autocompletion=completed),
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="RUN/report.html")] = None,
) -> None:
    """Write a run's report: its table, curves, loss graph, plan, spec, versions and command, as one page.

    The page loads nothing from elsewhere. It is drawn by matplotlib: `pip install brewgraph[report]`.
    """
    from brewgraph.inspect.report_of import REPORT, report_of
    from brewgraph.paths import write_file
    from brewgraph.running.records import record_of

    hush()
    record = record_of(run, runs_folder(Path()))
    path = out or record.folder.path / REPORT
    write_file(path, report_of(record).write())
    print(display_path(path))
