"""`brewgraph eval`: what a finished run's student scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Run
from brewgraph.cli.output import count, hush, number, table
from brewgraph.recipe.metrics import metric_words


def command(
    run: Run,
    data: Annotated[
        str, typer.Option(metavar="SPLIT|FILE", help="train, dev, test, or a file with the columns of the run's data.")
    ] = "dev",
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or an object for machines.")] = "text",
) -> None:
    """Score the student of a finished run on labelled examples. No teacher is loaded, nothing is trained."""
    from brewgraph.project.finished import open_run

    found = open_run(Path(run))
    hush()
    from brewgraph.project.predict import labelled_rows, load_student, score

    rows = labelled_rows(found, data)
    scores = score(load_student(found), rows)
    if format == "json":
        values = {name: value if math.isfinite(value) else None for name, value in scores.as_dict().items()}
        print(json.dumps({"run": run, "data": data, "examples": scores.examples, "scores": values}, indent=2))
        return
    print(f"{run} on {data}: {count(scores.examples, 'example')}")
    print(table([(metric_words(name), number(value)) for name, value in scores.as_dict().items()], right=[1]))
