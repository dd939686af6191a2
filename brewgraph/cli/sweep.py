"""`brewgraph sweep`: runs a spec over values of its params, and compares their scores over seeds."""

from __future__ import annotations

import csv
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from brewgraph.cli.complete import params
from brewgraph.cli.options import AllowPython, Quiet, Runs, Spec, parse_axes, parse_sets, read
from brewgraph.cli.output import complain, hush, number, print_diagnostics, table
from brewgraph.diagnostics import Diagnostic, SpecError, UsageError
from brewgraph.display.lines import count
from brewgraph.training.folder import display_path, json_text

if TYPE_CHECKING:
    from brewgraph.running.sweep import Axes, SettingScores, SweepResult, SweptRun
    from brewgraph.source import Source
    from brewgraph.training.reporter import Reporter

_MOST = 100
"""Runs above which the command asks first."""
_LIMIT = 1_000_000
"""Runs above which a grid is a mistake."""


def command(
    spec: Spec,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUES",
            help="Values of a param: `T=2,4,8`, `seed=0..4` with both ends. Repeatable; every combination is run.",
            autocompletion=params,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at a time, in processes that share the cores; on a cluster, jobs at a time.",
            show_default="1; on a cluster, all runs of a grid",
        ),
    ] = None,
    cluster: Annotated[
        Literal["slurm", "local"] | None,
        typer.Option(help="Make each run a job: of Slurm, or of this machine. Needs the extra `cluster`."),
    ] = None,
    cluster_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of submitit: `timeout_min=120`, `gpus_per_node=1`, `slurm_partition=gpu`. Repeatable.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="tpe",
            help="Search for the best mean score over seeds in place of the grid, also in ranges such as "
            "`lr=1e-5..1e-3`. Needs the extra `sweep`.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings that a search tries.")] = 30,
    runs: Runs = None,
    format: Annotated[
        Literal["table", "csv", "json"], typer.Option(help="The scores as a table, CSV or JSON.")
    ] = "table",
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a page: the table, and the main score over each param. Needs the extra `report`.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help=f"Do not ask before more than {_MOST} runs.")] = False,
    allow_python: AllowPython = False,
    quiet: Quiet = False,
) -> None:
    """Run a spec at every combination of values of its params, and print mean and standard deviation over `seed`.

    Finished runs are not repeated and interrupted ones resume: run the same command again. A run that fails is listed
    and does not end the others. `brewgraph sweep spec.brew --set T=2,4,8 --set seed=0..4 --jobs 2`
    """
    from brewgraph.inspect.report_of import write_report
    from brewgraph.running.clusters import Cluster
    from brewgraph.running.sweep import Work, check_axes, count_runs, sweep

    if report is not None:
        from brewgraph.display.plots import demand_matplotlib

        demand_matplotlib()
    main = os.environ.get("RANK", "0") == "0"  # only one rank prints
    source, axes = read(spec), parse_axes(set)
    total = count_runs(axes, trials if search is not None else None)
    hush()
    check_axes(source, axes, searched=search is not None)
    if total > _LIMIT:
        raise UsageError(f"the sweep has {total:,} runs, more than {_LIMIT:,}: set fewer values")
    if total > _MOST and not yes:
        _ask(total)
    warnings = _warnings(source, axes)
    if main and not quiet:
        print_diagnostics(warnings, sys.stderr)
    silent = quiet or not main
    if cluster_set and cluster is None:
        raise UsageError("--cluster-set is for jobs of a cluster: add --cluster slurm")
    where = None if cluster is None else Cluster(cluster, parse_sets(cluster_set, option="--cluster-set"))
    jobs = jobs or (total if cluster is not None and search is None else 1)
    reporter = partial(_reporter, silent=silent, labelled=jobs > 1)
    say = (lambda text: None) if silent else (lambda text: print(text, file=sys.stderr, flush=True))
    work = Work(source, runs, allow_python, reporter, jobs, where, write_report)
    result = sweep(work, axes, search=search, trials=trials, say=say)
    if not main:
        return
    if format == "json":
        print(json_text(as_json(result), indent=2))
    elif format == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows(csv_rows(result))
    else:
        print("\n".join(summary(result)))
    if report is not None:
        _write_page(report, result, source, spec, set)
    if result.failed:
        complain("\n".join(_failures(spec, runs, result.failed)))
        raise typer.Exit(3)


def _warnings(source: Source, axes: Axes) -> Sequence[Diagnostic]:
    """Those of the first point. Raises `SpecError` for a spec that has a fault there and at the last point, too: one
    that only some values have is that of their runs.
    """
    from brewgraph.checking.check import check
    from brewgraph.running.sweep import first_point, last_point

    try:
        return check(source, first_point(axes)).warnings
    except SpecError as error:
        try:
            return check(source, last_point(axes)).warnings
        except SpecError:
            raise error from None


def _write_page(path: Path, result: SweepResult, source: Source, spec: str, sets: Sequence[str] | None) -> None:
    from brewgraph.inspect.sweep_report_of import sweep_report_of
    from brewgraph.paths import write_file

    command = shlex.join(["brewgraph", "sweep", spec, *(f"--set={text}" for text in sets or ())])
    write_file(path, sweep_report_of(result, source, command).write())
    print(display_path(path), file=sys.stderr)


def _ask(total: int) -> None:
    """Ask whether so many runs are meant. Raises `UsageError` where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError(f"the grid has {total:,} runs: add --yes to make them all, or set fewer values")
    if not typer.confirm(f"The grid has {total:,} runs. Make them all?", err=True):
        raise typer.Exit(2)


def _reporter(label: str, *, silent: bool, labelled: bool) -> Reporter:
    """The reporter of a run, made in the process of that run."""
    from brewgraph.cli.progress import LabelledReporter, make_reporter

    hush()
    if labelled and not silent:
        return LabelledReporter(sys.stderr, label)
    reporter = make_reporter(sys.stderr, quiet=silent)
    reporter.say(f"run {label}")
    return reporter


def summary(result: SweepResult) -> Iterator[str]:
    """The table of scores, and the best setting."""
    from brewgraph.recipe.settings.base import setting_text
    from brewgraph.recipe.settings.metric_names import metric_words
    from brewgraph.running.sweep import cells_of

    if not result.settings:
        yield "no run has scores"
        return
    cells = cells_of(result)
    first = len(result.swept) + 1
    yield table(cells, right=range(first, len(cells[0])))
    if any(x.deviation(name) is not None for x in result.settings for name in x.columns):
        yield "± is the standard deviation over seeds"
    name, best = result.main, result.best
    if name is not None and best is not None:
        where = " ".join(f"{param}={setting_text(value)}" for param, value in best.params.items())
        yield f"best {metric_words(name)} of {best.model}: {number(best.mean(name))} at {where}"


def _failures(spec: str, runs: Path | None, failed: Sequence[SweptRun]) -> Iterator[str]:
    """The runs that failed, each with its command."""
    yield f"{count(len(failed), 'run')} failed; the same command repeats {'it' if len(failed) == 1 else 'them'}:"
    for run in failed:
        sets = [f"--set={name}={_as_written(value)}" for name, value in run.params.items()]
        command = ["brewgraph", "run", spec, *sets, *([f"--runs={runs}"] if runs is not None else [])]
        yield f"  {run.fault}\n    {shlex.join(command)}"


def _as_written(value: Any) -> str:
    """A value as `--set` reads it."""
    from brewgraph.cli.options import parse_value

    if isinstance(value, str):
        return value if parse_value(value) == value else f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_written, value))}]"
    return str(value).lower() if isinstance(value, bool) or value is None else repr(value)


def csv_rows(result: SweepResult) -> Iterator[list[Any]]:
    """The table of scores with a column for each mean and each deviation; empty cells where there is none."""
    names = list(dict.fromkeys(name for x in result.settings for name in x.scores))
    yield [*result.swept, "model", "runs", "bytes", *(f"{name}{end}" for name in names for end in ("", " sd"))]
    for x in result.settings:
        means = ((x.mean(name), x.deviation(name)) if name in x.scores else ("", None) for name in names)
        scores = ("" if value is None else value for pair in means for value in pair)
        yield [*(x.params.get(name, "") for name in result.swept), x.model, x.runs, x.size, *scores]


def as_json(result: SweepResult) -> dict[str, Any]:
    """Scores by setting, and every run with its folder and scores."""

    def setting(x: SettingScores) -> dict[str, Any]:
        scores = {name: {"mean": x.mean(name), "sd": x.deviation(name)} for name in x.scores}
        return {"params": dict(x.params), "model": x.model, "runs": x.runs, "bytes": x.size, "scores": scores}

    def run(x: SweptRun) -> dict[str, Any]:
        scores = {row.name: dict(row.scores) for row in x.table}
        where = {"error": x.fault} if x.fault else {"folder": str(x.folder)}
        return {"params": dict(x.params), **where, "scores": scores}

    return {"settings": list(map(setting, result.settings)), "runs": list(map(run, result.runs))}
