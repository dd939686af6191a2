"""`brewgraph report`: the report of a run as one page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brewgraph.cli.complete import runs as completed
from brewgraph.cli.options import AllowPython
from brewgraph.cli.output import hush
from brewgraph.training.folder import display_path, runs_folder

if TYPE_CHECKING:
    from brewgraph.running.records import RunRecord


def command(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run in any state: its folder, or its name.", autocompletion=completed),
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="RUN/report.html")] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement/--no-agreement", help="Compare student and teachers, once for each run.")
    ] = True,
    allow_python: AllowPython = False,
) -> None:
    """Write a run's report: its table, curves, agreement with teachers, loss graph, plan, spec, versions and command,
    as one page.

    The first report of a finished run takes the time of an evaluation of student and teachers, on at most 2,000
    examples; later ones read what it kept in the run's folder. The page loads nothing from elsewhere. It is drawn by
    matplotlib: `pip install brewgraph[report]`.
    """
    from brewgraph.display.plots import demand_matplotlib
    from brewgraph.inspect.report_of import REPORT, report_of
    from brewgraph.paths import write_file
    from brewgraph.running.records import record_of

    hush()
    record = record_of(run, runs_folder(Path()))
    demand_matplotlib()
    missing: list[str] = []
    if record.state != "finished":
        remedy = "" if record.state == "running" else "; its `brewgraph run` command resumes it"
        print(f"the run is {record.state}: the report shows what it has so far{remedy}", file=sys.stderr)
    elif agreement:
        missing = _compare(record, allow_python=allow_python)
    path = out or record.folder.path / REPORT
    write_file(path, report_of(record, missing).write())
    print(display_path(path))


def _compare(record: RunRecord, *, allow_python: bool) -> list[str]:
    """Keep how student and teachers agree in the run's folder, unless it is there; why not, where that fails."""
    from brewgraph.diagnostics import BrewError
    from brewgraph.running.agreement import keep_agreements, read_agreements
    from brewgraph.running.finished import open_run

    if read_agreements(record.folder) is not None:
        return []
    try:
        from brewgraph.running.compare_predictions import compare_predictions

        parts = compare_predictions(
            open_run(record.folder.path), lambda text: print(text, file=sys.stderr), allow_python=allow_python
        )
    except BrewError as error:
        note = f"agreement with teachers is missing: {str(error).strip().splitlines()[0]}"
        print(note, file=sys.stderr)
        return [note]
    keep_agreements(record.folder, parts)
    return []
