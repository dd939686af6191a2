"""`brewgraph eval`: what a finished run's student scores."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Run, Task
from brewgraph.cli.output import count, hush, number, table
from brewgraph.recipe.metrics import keyed, metric_words


def command(
    run: Run,
    data: Annotated[
        str, typer.Option(metavar="SPLIT|FILE", help="train, dev, test, or a file with the columns of the run's data.")
    ] = "dev",
    task: Task = None,
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or an object for machines.")] = "text",
) -> None:
    """Score the student of a finished run on labelled examples. No teacher is loaded, nothing is trained."""
    from brewgraph.project.finished import SPLITS, open_run

    found = open_run(run)
    tasks = list(found.tasks.values()) if task is None and data in SPLITS else [found.task(task)]
    hush()
    from brewgraph.project.predict import labelled_rows, load_student, score
    from brewgraph.training.folder import json_text

    rows = [labelled_rows(one, data) for one in tasks]  # what is wrong with them is told before a model is loaded
    examples = 0
    values: dict[str, float] = {}
    for one, own in zip(tasks, rows, strict=True):
        scores = score(load_student(one), own)
        examples += scores.examples
        values |= keyed(one.name, scores.as_dict())
    if format == "json":
        print(json_text({"run": run, "data": data, "examples": examples, "scores": values}, indent=2))
        return
    print(f"{run} on {data}: {count(examples, 'example')}")
    print(table([(metric_words(name), number(value)) for name, value in values.items()], right=[1]))
