"""`brewgraph runs`: lists runs; compares, tags and removes them."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from brewgraph.cli.complete import runs as completed
from brewgraph.cli.options import Format, RunsHere, parse_sets
from brewgraph.cli.output import count, megabytes, number, table
from brewgraph.diagnostics import RunError, UsageError
from brewgraph.training.folder import json_text, runs_folder

if TYPE_CHECKING:
    from brewgraph.running.records import RunRecord

Name = Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, or its name.", autocompletion=completed)]


def command(
    context: typer.Context,
    runs: RunsHere = None,
    name: Annotated[list[str] | None, typer.Option(help="Only names such as `mnli-*`. Repeatable.")] = None,
    state: Annotated[
        Literal["finished", "running", "interrupted", "failed", "damaged"] | None,
        typer.Option(help="Only runs in this state."),
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Only runs with this param. Repeatable.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only runs with this tag. Repeatable.")] = None,
    sort: Annotated[Literal["when", "score", "size", "name"], typer.Option(help="The order of the list.")] = "when",
    format: Annotated[
        Literal["table", "csv", "json"], typer.Option(help="The list as a table, CSV or JSON.")
    ] = "table",
) -> None:
    """List the runs in a folder: their state, params, main scores and size on disk.

    `brewgraph runs diff A B` compares two, `tag` names them, `remove` deletes them.
    """
    if context.invoked_subcommand is not None:
        return
    from brewgraph.running.records import Filter, records

    wanted = Filter(name or (), (state,) if state else (), tag or (), parse_sets(set))
    listed = records(runs or runs_folder(Path()), wanted)
    if sort != "when":
        keys = {"score": _worth, "size": lambda x: -x.size, "name": lambda x: x.name}
        listed = tuple(sorted(listed, key=keys[sort]))
    if format == "json":
        print(json_text([as_json(record) for record in listed], indent=2))
    elif format == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows(csv_rows(listed))
    else:
        print("\n".join(lines(listed)))


def _worth(record: RunRecord) -> float:
    """The negative of the main score where more is better, so that the best run is first."""
    from brewgraph.recipe.settings.metric_names import greater_is_better

    student = record.student
    if student is None or not student.main:
        return float("inf")
    score = student.scores[student.main[0]]
    return float("inf") if score != score else -score if greater_is_better(student.main[0]) else score


def lines(listed: Sequence[RunRecord]) -> Iterator[str]:
    """The list as a table, why runs failed, and the disk use."""
    from brewgraph.recipe.settings.base import setting_text
    from brewgraph.recipe.settings.metric_names import metric_words
    from brewgraph.running.records import differing_params

    if not listed:
        yield "no runs"
        return
    names = list(differing_params(listed))
    tagged = any(record.tags for record in listed)
    rows = [["run", "state", "when", "params", "score", *(["tags"] if tagged else []), "size"]]
    for x in listed:
        params = " ".join(f"{name}={setting_text(x.params[name])}" for name in names if name in x.params)
        row = x.student
        scores = ", ".join(f"{metric_words(n)} {number(row.scores[n])}" for n in row.main) if row else ""
        step = "" if x.step is None else f", step {x.step:,}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(x.when))
        tags = [", ".join(x.tags)] if tagged else []
        rows.append([x.name, x.state + step, when, params or "-", scores or "-", *tags, megabytes(x.size)])
    yield table(rows, right=[len(rows[0]) - 1])
    unfinished = [x for x in listed if x.state in ("interrupted", "failed")]
    total = f"{count(len(listed), 'run')}, {megabytes(sum(x.size for x in listed))}"
    if unfinished:
        total += f"; unfinished {len(unfinished):,}, {megabytes(sum(x.size for x in unfinished))}"
        total += ", which `brewgraph runs remove --unfinished` removes"
    yield total
    for x in listed:
        if x.error:
            yield f"{x.name} {'failed' if x.state == 'failed' else 'is damaged'}: {x.error}"


def as_json(x: RunRecord) -> dict[str, Any]:
    """A run for programs; `when` is a time in UTC."""
    return {
        "name": x.name,
        "folder": str(x.folder.path.absolute()),
        "spec": x.spec,
        "hash": x.hash,
        "state": x.state,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(x.when)),
        "step": x.step,
        "error": x.error or None,
        "params": dict(x.params),
        "tags": list(x.tags),
        "bytes": x.size,
        "scores": {row.name: dict(row.scores) for row in x.table},
    }


def csv_rows(listed: Sequence[RunRecord]) -> Iterator[list[Any]]:
    """A line per run, with a column for each param and each score of the student."""
    params = list(dict.fromkeys(name for x in listed for name in x.params))
    scores = list(dict.fromkeys(name for x in listed if x.student for name in x.student.scores))
    yield ["name", "spec", "hash", "state", "when", "bytes", "tags", *(f"param {name}" for name in params), *scores]
    for x in listed:
        row, content = (x.student.scores if x.student else {}), as_json(x)
        fixed = [content[name] for name in ("name", "spec", "hash", "state", "when", "bytes")]
        yield [*fixed, ", ".join(x.tags), *(x.params.get(n, "") for n in params), *(row.get(n, "") for n in scores)]


def diff(one: Name, other: Name, runs: RunsHere = None, format: Format = "text") -> None:
    """Compare two runs: specs in what they compute, data and models by content, versions, and scores."""
    from brewgraph.cli.output import hush
    from brewgraph.running.changes import changes_between
    from brewgraph.running.records import record_of

    home = runs or runs_folder(Path())
    pair = record_of(one, home), record_of(other, home)
    hush()
    changes = list(changes_between(pair[0].folder, pair[1].folder))
    if format == "json":
        print(json_text({"runs": list(map(as_json, pair)), "changes": changes}, indent=2))
        return
    print(f"{pair[0].name} -> {pair[1].name}")
    print("\n".join(changes or ["the same spec, data, models and versions"]))
    if cells := _score_cells(*pair):
        print()
        print(table(cells, right=range(2, 5)))


def _score_cells(one: RunRecord, other: RunRecord) -> list[tuple[str, ...]]:
    """The scores of both runs and their differences, of each model that both have; the students are the last ones."""
    from brewgraph.recipe.settings.metric_names import metric_words

    if one.student is None or other.student is None:
        return []
    pairs = [(a, b) for a in one.table[:-1] for b in other.table[:-1] if a.name == b.name]
    rows = []
    for a, b in (*pairs, (one.student, other.student)):
        for name in (name for name in a.columns if name in b.scores):
            x, y = a.scores[name], b.scores[name]
            rows.append((a.name, metric_words(name), number(x), number(y), f"{y - x:+.4f}"))
    return [("model", "score", "first", "second", "difference"), *rows] if rows else []


def tag(
    run: Name,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="Words that the list shows and `--tag` finds.")],
    runs: RunsHere = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take these tags away.")] = False,
) -> None:
    """Tag a run, as `best` or `sent to Ann`."""
    from brewgraph.running.records import change_tags, record_of

    record = record_of(run, runs or runs_folder(Path()))
    print(f"{record.name}: {', '.join(change_tags(record, tags, delete=delete)) or 'no tags'}")


def remove(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs: their folders, or their names.", autocompletion=completed),
    ] = None,
    runs: RunsHere = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="All runs that are interrupted or failed, with their checkpoints.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove runs with all that they hold. Runs that a process is at are never removed."""
    from brewgraph.running.records import Filter, record_of, records
    from brewgraph.running.records import remove as remove_run

    home = runs or runs_folder(Path())
    if bool(names) == unfinished:
        raise UsageError("name the runs to remove, or write --unfinished")
    named = (record_of(name, home) for name in names or ())
    chosen = list({x.folder.path.resolve(): x for x in named}.values())
    chosen += records(home, Filter(states=("interrupted", "failed"))) if unfinished else []
    if busy := next((x for x in chosen if x.state == "running"), None):
        raise RunError(f"{busy.name} is running: end it first")
    if not chosen:
        print("no unfinished runs")
        return
    what = f"{count(len(chosen), 'run')}, {megabytes(sum(x.size for x in chosen))}"
    for x in chosen:
        print(f"{x.name}  {x.state}  {megabytes(x.size)}", file=sys.stderr)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this removes {what}: add --yes")
        if not typer.confirm(f"Remove {what}?", err=True):
            raise typer.Exit(2)
    failures = []
    for x in chosen:
        try:
            remove_run(x)
        except (RunError, OSError) as error:
            failures.append(f"{x.name}: {error}")
    if failures:
        raise RunError("; ".join(failures))
    print(f"removed {what}")


SUBCOMMANDS = {"diff": diff, "tag": tag, "remove": remove}
FOLDER_OPTION = "--runs"
"""The option that a folder in place of a subcommand belongs to."""
