"""`brewgraph eval`: the scores of a finished run's student."""

from __future__ import annotations

from typing import Annotated

import typer

from brewgraph.cli.options import AllowPython, Format, Run, Task
from brewgraph.cli.output import count, hush, number, table
from brewgraph.recipe.settings.metric_names import keyed, metric_words
from brewgraph.running.finished import SPLITS, open_run
from brewgraph.training.folder import json_text


def command(
    run: Run,
    data: Annotated[
        str, typer.Option(metavar="SPLIT|FILE", help="train, dev, test, or a file with the columns of the run's data.")
    ] = "dev",
    task: Task = None,
    allow_python: AllowPython = False,
    format: Format = "text",
) -> None:
    """Score the student of a finished run on labelled examples, without its teacher.

    A student that no labels can score is evaluated on its losses, with its teacher.
    """
    finished = open_run(run)
    tasks = list(finished.tasks.values()) if task is None and data in SPLITS else [finished.task(task)]
    hush()
    from brewgraph.running.predict import RebuiltLoss, is_scored, labelled_rows, load_student, score

    # report faults of rows before a model is loaded
    rows = {one.name: labelled_rows(one, data) for one in tasks if is_scored(one)}
    loss = RebuiltLoss(finished, allow_python=allow_python) if len(rows) < len(tasks) else None
    examples = 0
    values: dict[str, float] = {}
    for one in tasks:
        if loss is not None and one.name not in rows:
            scores, scored = loss.losses(one, data)
        else:
            result = score(load_student(one), rows[one.name])
            scores, scored = dict(result.values), result.examples
        examples += scored
        values |= keyed(one.name, scores)
    if format == "json":
        print(json_text({"run": run, "data": data, "examples": examples, "scores": values}, indent=2))
        return
    print(f"{run} on {data}: {count(examples, 'example')}")
    print(table([(metric_words(name), number(value)) for name, value in values.items()], right=[1]))
