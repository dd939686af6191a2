"""`brewgraph eval`: what a finished run's student scores."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from brewgraph.cli.options import Run, Task
from brewgraph.cli.output import count, hush, number, table
from brewgraph.recipe.settings.metric_names import keyed, metric_words


def command(
    run: Run,
    data: Annotated[
        str, typer.Option(metavar="SPLIT|FILE", help="train, dev, test, or a file with the columns of the run's data.")
    ] = "dev",
    task: Task = None,
    allow_python: Annotated[
        bool, typer.Option("--allow-python", help="Let a loss that is evaluated import Python modules of its spec.")
    ] = False,
    format: Annotated[Literal["text", "json"], typer.Option(help="For people, or an object for machines.")] = "text",
) -> None:
    """Score the student of a finished run on labelled examples, without its teacher.

    A student that no labels score is evaluated on the losses it was trained with, beside its teacher.
    """
    from brewgraph.running.finished import SPLITS, open_run

    found = open_run(run)
    tasks = list(found.tasks.values()) if task is None and data in SPLITS else [found.task(task)]
    hush()
    from brewgraph.running.predict import is_scored, labelled_rows, load_student, score
    from brewgraph.running.rebuild import Rebuilt
    from brewgraph.training.folder import json_text

    # what is wrong with rows is told before a model is loaded
    rows = {one.name: labelled_rows(one, data) for one in tasks if is_scored(one)}
    whole = Rebuilt(found, allow_python=allow_python) if len(rows) < len(tasks) else None
    examples = 0
    values: dict[str, float] = {}
    for one in tasks:
        if whole is not None and one.name not in rows:
            own, seen = whole.losses(one, data)
        else:
            scores = score(load_student(one), rows[one.name])
            own, seen = scores.as_dict(), scores.examples
        examples += seen
        values |= keyed(one.name, own)
    if format == "json":
        print(json_text({"run": run, "data": data, "examples": examples, "scores": values}, indent=2))
        return
    print(f"{run} on {data}: {count(examples, 'example')}")
    print(table([(metric_words(name), number(value)) for name, value in values.items()], right=[1]))
