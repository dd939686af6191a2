"""`brewgraph export`: the student of a finished run for ONNX Runtime, OpenVINO or torch.export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from brewgraph.cli.options import Format, Quiet, Run, Task
from brewgraph.cli.output import count, hush, megabytes, number, table
from brewgraph.diagnostics import UsageError, suggest
from brewgraph.models.export_record import PRECISIONS
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.recipe.settings.metric_names import greater_is_better, metric_words
from brewgraph.running.finished import open_run
from brewgraph.training.folder import display_path, json_text

if TYPE_CHECKING:
    from brewgraph.export.write import Exported

_ROWS = 256
"""Calibration rows by default."""
_WORDS = tuple(dict.fromkeys(word for words in PRECISIONS.values() for word in words))


def command(
    run: Run,
    to: Annotated[Literal["onnx", "openvino", "torch"], typer.Option(help="The runtime.")] = "onnx",
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable.", show_default="fp32", metavar="|".join(_WORDS)),
    ] = None,
    data: Annotated[
        str, typer.Option(metavar="SPLIT|FILE", help="What to compare on: train, dev, test, or a file.")
    ] = "dev",
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT|FILE",
            help="The rows that int8-static calibrates on; no labels needed.",
            show_default="train",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="The number of calibration rows for int8-static.", show_default=str(_ROWS)),
    ] = None,
    task: Task = None,
    out: Annotated[Path | None, typer.Option(help="The folder.", show_default="RUN/export/TO-PRECISION")] = None,
    format: Format = "text",
    quiet: Quiet = False,
) -> None:
    """Write the student for another runtime, and compare its outputs and scores with the student's.

    int8-dynamic quantizes activations by the range of each batch, int8-static by ranges of calibration rows.
    """
    precisions = tuple(dict.fromkeys(precision or ["fp32"]))
    for word in precisions:
        if word not in _WORDS:
            family = [x for x in _WORDS if x.startswith(f"{word}-")]
            help = f"choose {' or '.join(family or _WORDS)}"
            if not family:
                help = suggest(word, _WORDS) or help
            raise UsageError(f"there is no precision `{word}`: {help}")
    for option, value in (("--calibration", calibration), ("--rows", rows)):
        if value is not None and "int8-static" not in precisions:
            raise UsageError(f"{option} is of no use without `--precision int8-static`: add that, or remove it")
    finished = open_run(run)
    finished_task = finished.task(task)
    hush()
    from brewgraph.export.write import Options, export_student

    options = Options(to, precisions, data, calibration or "train", rows or _ROWS, out)

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    made = list(export_student(finished, finished_task, options, say))
    if format == "json":
        print(json_text([as_json(one) for one in made], indent=2))
        return
    record = made[0].record
    print(f"{run} on {record.data}: {count(record.examples, 'example')}")
    print(table(cells := comparison(made), right=range(1, len(cells[0]))))
    for one in made:
        print(display_path(one.folder))


def as_json(one: Exported) -> dict[str, object]:
    record = one.record
    return {
        "folder": str(one.folder),
        "target": record.target,
        "precision": record.precision,
        "data": record.data,
        "examples": record.examples,
        "scores": record.scores,
        "difference": record.difference,
        "size": one.size,
    }


def comparison(made: Sequence[Exported]) -> list[list[str]]:
    """The cells of the table: scores of the student, then of each export with what it loses of the main score."""
    first = made[0].record
    shown = LABEL_TYPES[first.label_type].shown if first.scores else ()
    names = [name for name in shown if name in first.scores["before"]]
    header = ["", *map(metric_words, names), *(["lost"] if names else []), "largest difference", "size"]
    rows = [header]
    if names:
        rows.append(["student", *(number(first.scores["before"][name]) for name in names), "", "", ""])
    for one in made:
        record = one.record
        cells = [f"{record.target} {record.precision}"]
        if names:
            cells += [number(record.scores["after"][name]) for name in names] + [lost(one)]
        rows.append([*cells, f"{record.difference:.1e}", megabytes(one.size)])
    return rows


def lost(one: Exported) -> str:
    """How much worse the main score is after the export: `0.0012`; `0` for the same score, negative if it is better."""
    main = LABEL_TYPES[one.record.label_type].main
    before, after = (one.record.scores[time][main] for time in ("before", "after"))
    loss = before - after if greater_is_better(main) else after - before
    return "0" if loss == 0 else number(loss)
