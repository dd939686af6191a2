"""`sweep`: runs of one spec over values of its params, and their scores by mean and standard deviation.

A sweep keeps nothing of its own: each of its runs has its folder, which the same sweep finds again by hash. So it is
resumed by repeating it, and shares teachers and finished runs with every other run. Loads no torch before a run begins.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import connection, get_all_start_methods, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, TypeAlias

from brewgraph.checking.check import check, check_names
from brewgraph.diagnostics import BrewError, Collector, SpecError, UsageError
from brewgraph.display.lines import count, number, one_line
from brewgraph.recipe.settings.base import setting_text
from brewgraph.recipe.settings.metric_names import greater_is_better, metric_words
from brewgraph.running.clusters import Cluster, run_jobs
from brewgraph.running.scores import ScoreRow
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder, runs_folder
from brewgraph.training.reporter import Reporter
from brewgraph.training.signals import INTERRUPTIONS, Terminated, caught_signals, starting_a_process

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

    from optuna import Trial

_AGAIN = "run the same command again"
_JOBS = ".jobs"
REPEATED = "seed"
"""The param whose values repeat a setting: scores are means over it."""

Params: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Between:
    """The real numbers from `low` to `high`, to search in: on a logarithmic scale if they span a factor of ten."""

    low: float
    high: float

    @property
    def logarithmic(self) -> bool:
        return 0 < 10 * self.low <= self.high


Axes: TypeAlias = Mapping[str, Sequence[Any] | Between]
"""The values of each param; a `range` holds whole numbers, which a search orders."""


@dataclass(frozen=True)
class SweptRun:
    """A run of a sweep: its params, its folder and its closing table; or the `fault` that ended it."""

    params: Params
    folder: Path = Path()
    table: tuple[ScoreRow, ...] = ()
    fault: str = ""

    @property
    def student(self) -> ScoreRow | None:
        """The row of the student: the last one."""
        return self.table[-1] if self.table else None


@dataclass(frozen=True)
class SettingScores:
    """The scores of a model in one setting of the swept params: by name, a value for each of its runs.

    `params` is empty for a model beside the student that is the same in all settings. One that is also the same for all
    seeds, such as a teacher, counts as one run. `columns` are the scores of the closing table, `size` is in bytes.
    """

    params: Params
    model: str
    scores: Mapping[str, tuple[float, ...]]
    columns: tuple[str, ...]
    size: int
    runs: int

    def mean(self, name: str) -> float:
        return fmean(self.scores[name])

    def deviation(self, name: str) -> float | None:
        """The sample standard deviation; None for a single run, or for a score that is no number."""
        values = self.scores[name]
        return stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None


@dataclass(frozen=True)
class SweepResult:
    """The runs of a sweep, in the order of the grid or the search, each once: a search may choose a setting again.
    `swept` are the params with several values, other than `seed`.
    """

    runs: tuple[SweptRun, ...]
    swept: tuple[str, ...]

    @property
    def failed(self) -> tuple[SweptRun, ...]:
        return tuple(run for run in self.runs if run.fault)

    @property
    def settings(self) -> tuple[SettingScores, ...]:
        """Scores by model and setting; first those of models that are the same in all settings."""
        by_model: dict[str, dict[str, list[ScoreRow]]] = {}
        params_of: dict[str, Params] = {}
        for run in self.runs:
            params = {name: run.params[name] for name in self.swept}
            setting = repr(params)  # 1 and true are equal, and a list is no key
            params_of[setting] = params
            for row in run.table:
                by_model.setdefault(row.name, {}).setdefault(setting, []).append(row)
        same: list[SettingScores] = []
        varying: dict[str, list[SettingScores]] = {}
        students = {run.student.name for run in self.runs if run.student is not None}
        several = sum(bool(run.table) for run in self.runs) > 1
        for name, groups in by_model.items():
            values = [[repr(row.scores) for row in rows] for rows in groups.values()]
            if name not in students and several and len({value for x in values for value in x}) == 1:
                same.append(_setting_scores({}, next(iter(groups.values()))[:1]))
            elif name not in students and len(groups) > 1 and all(x == values[0] for x in values):
                same.append(_setting_scores({}, next(iter(groups.values()))))
            else:
                for setting, rows in groups.items():
                    varying.setdefault(setting, []).append(_setting_scores(params_of[setting], rows))
        return (*same, *(scores for of_setting in varying.values() for scores in of_setting))

    @property
    def best(self) -> SettingScores | None:
        """The setting of the student with the best mean of the main score; None without a score or a choice."""
        name, student = self.main, next((run.student for run in self.runs if run.student is not None), None)
        if name is None or student is None:
            return None
        settings = [x for x in self.settings if x.model == student.name and x.params]
        return max(settings, key=lambda x: _worth(name, x.mean(name))) if len(settings) > 1 else None

    @property
    def main(self) -> str | None:
        """The name of the student's main score, of the first task that has one."""
        return next((name for run in self.runs if run.student is not None for name in run.student.main), None)

    def __str__(self) -> str:
        """The table of scores."""
        from brewgraph.display.lines import table

        return table(cells_of(self))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from brewgraph.display.lines import html_table

        return html_table(cells_of(self))


def _setting_scores(params: Params, rows: Sequence[ScoreRow]) -> SettingScores:
    scores = {name: tuple(row.scores.get(name, math.nan) for row in rows) for name in rows[0].scores}
    return SettingScores(params, rows[0].name, scores, rows[0].columns, rows[0].size, len(rows))


def _worth(name: str, score: float) -> float:
    """A score as a number that is greater for a better model."""
    return -math.inf if math.isnan(score) else score if greater_is_better(name) else -score


def cells_of(result: SweepResult) -> list[tuple[str, ...]]:
    """The cells of the table: a header, then params, model, mean and standard deviation of each score, and runs."""
    columns = list(dict.fromkeys(name for x in result.settings for name in x.columns))

    def score(x: SettingScores, name: str) -> str:
        if name not in x.scores:
            return "-"
        deviation = x.deviation(name)
        return number(x.mean(name)) + ("" if deviation is None else f" ±{number(deviation)}")

    header = (*result.swept, "model", *map(metric_words, columns), "runs")
    return [header] + [
        (
            *(setting_text(x.params[name]) if x.params else "any" for name in result.swept),
            x.model,
            *(score(x, name) for name in columns),
            str(x.runs),
        )
        for x in result.settings
    ]


# ── the settings of a sweep ──────────────────────────────────────────────────────────────────────────────────────────


def count_runs(axes: Axes, trials: int | None = None) -> int:
    """The number of runs of a grid; with `trials` that of a search."""
    sizes = [len(values) for name, values in axes.items() if not isinstance(values, Between) and _counts(name, trials)]
    return math.prod(sizes) * (1 if trials is None else trials)


def _counts(name: str, trials: int | None) -> bool:
    return trials is None or name == REPEATED


def check_axes(source: Source, axes: Axes, *, searched: bool) -> None:
    """Check each value of each param as far as names and kinds go. Raises `SpecError` for all faults, `UsageError` for
    a range of real numbers that is not searched in.
    """
    for name, values in axes.items():
        if isinstance(values, Between) and (not searched or name == REPEATED):
            remedy = "write `seed=0..4`" if name == REPEATED else f"write values, `{name}=A,B,C`, or add --search tpe"
            raise UsageError(f"`{name}={values.low:g}..{values.high:g}` is a range of real numbers: {remedy}")
        if not isinstance(values, Between) and not len(values):
            raise UsageError(f"`{name}` has no values: write `{name}=A,B,C`")
    first, collector = first_point(axes), Collector()
    for name, values in axes.items():
        for value in _ends(values) if isinstance(values, Between | range) else values:
            try:
                check_names(source, {**first, name: value})
            except SpecError as error:
                collector.diagnostics += [d for d in error.diagnostics if d not in collector.diagnostics]
    collector.raise_errors()


def _ends(values: range | Between) -> tuple[Any, Any]:
    return (values.low, values.high) if isinstance(values, Between) else (values[0], values[-1])


def first_point(axes: Axes) -> Params:
    """The first value of each param."""
    return {name: _ends(v)[0] if isinstance(v, Between) else v[0] for name, v in axes.items()}


def last_point(axes: Axes) -> Params:
    """The last value of each param."""
    return {name: _ends(v)[1] if isinstance(v, Between) else v[-1] for name, v in axes.items()}


def _points(axes: Mapping[str, Sequence[Any]]) -> Iterator[Params]:
    """Each combination of values; those of the last param change fastest."""
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _silent(label: str) -> Reporter:
    return Reporter()


@dataclass(frozen=True)
class Work:
    """What the runs of a sweep share; `jobs` are made at a time, on this machine or on a cluster. `reporter` gives the
    reporter of a run by its label, in the process of that run. `report` is that of `Options`.
    """

    source: Source
    runs: Path | None = None
    allow_python: bool = False
    reporter: Callable[[str], Reporter] = _silent
    jobs: int = 1
    cluster: Cluster | None = None
    report: Callable[[RunFolder], Path] | None = None


class _Sweeping:
    """A sweep on its way: the runs that have ended, which it reports as `SweptRun`s of `total`."""

    def __init__(self, work: Work, axes: Axes, total: int, say: Callable[[str], None]):
        self.work, self.total, self.say = work, total, say
        self.ended: list[SweptRun] = []
        self.named = [name for name, values in axes.items() if isinstance(values, Between) or len(values) > 1]

    def label(self, params: Params) -> str:
        """`T=2 seed=0`: the params that have several values, or all of them if none has."""
        named = " ".join(f"{name}={setting_text(params[name])}" for name in self.named or params)
        return named or Path(self.work.source.name).stem

    def run(self, points: Iterable[Params]) -> list[SweptRun]:
        """Run the spec at each point; the runs in the order of the points."""
        jobs = [(self.label(params), params) for params in points]
        ended: dict[int, SweptRun] = {}
        before = len(self.ended)
        for position, run in self._runs()(self.work, jobs):
            ended[position] = run
            self.ended.append(run)
            self.say(f"{len(self.ended):,} of {self.total:,}: {jobs[position][0]}: {_outcome(run)}")
        del self.ended[before:]
        self.ended += [ended[position] for position in sorted(ended)]
        return self.ended[before:]

    def _runs(self) -> Callable[[Work, Sequence[tuple[str, Params]]], Iterator[tuple[int, SweptRun]]]:
        if self.work.cluster is not None:
            return _on_cluster
        return _in_turn if self.work.jobs == 1 else _side_by_side


def _outcome(run: SweptRun) -> str:
    if run.fault:
        return f"failed: {run.fault}"
    row = run.student
    return ", ".join(f"{metric_words(n)} {number(row.scores[n])}" for n in row.columns) if row else "finished"


def sweep(
    work: Work,
    axes: Axes,
    *,
    search: str | None = None,
    trials: int = 30,
    say: Callable[[str], None] = lambda text: None,
) -> SweepResult:
    """Run a spec at every combination of values, or at `trials` settings that a search (`tpe`) chooses by the mean over
    seeds of the student's main score. `work.jobs` runs are made at a time, each in a process of its own.

    A run that fails is listed with its fault and ends no other. Raises `SpecError` and `UsageError` before any run.
    """
    check_axes(work.source, axes, searched=search is not None)
    if work.jobs > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a sweep on several ranks makes one run at a time: leave out --jobs")
    sweeping = _Sweeping(work, axes, count_runs(axes, trials if search is not None else None), say)
    try:
        if search is None:
            sweeping.run(_points({name: v for name, v in axes.items() if not isinstance(v, Between)}))
        else:
            _search(sweeping, axes, search, trials)
    except INTERRUPTIONS as interruption:
        whole = sum(not run.fault for run in sweeping.ended)
        remedy = str(interruption) or _AGAIN
        what = "terminated" if isinstance(interruption, Terminated) else "interrupted"
        total = count(sweeping.total, "run")
        raise type(interruption)(f"{what} with {whole:,} of {total} finished; {remedy}") from None
    swept = tuple(name for name in sweeping.named if name != REPEATED)
    return SweepResult(_each_once(sweeping.ended), swept)


def _each_once(runs: Iterable[SweptRun]) -> tuple[SweptRun, ...]:
    """The runs by their params: a mean over seeds counts each run once."""
    return tuple({repr(sorted(run.params.items())): run for run in runs}.values())


def _run_one(work: Work, label: str, params: Params) -> SweptRun:
    """One run in this process, or the finished one. Its faults are values."""
    from brewgraph.running.run import Options, run_checked

    try:
        options = Options(runs=work.runs, allow_python=work.allow_python, wait=True, report=work.report)
        result = run_checked(check(work.source, params), options, work.reporter(label))
        return SweptRun(params, result.folder.absolute(), result.table)
    except SpecError as error:
        fault = "; ".join(f"{d.code}: {d.message}" for d in error.diagnostics if d.severity == "error")
    except BrewError as error:
        fault = one_line(str(error))
    except Exception as error:
        fault = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    return SweptRun(params, fault=fault)


def _in_turn(work: Work, jobs: Sequence[tuple[str, Params]]) -> Iterator[tuple[int, SweptRun]]:
    """One run after the other in this process."""
    for position, (label, params) in enumerate(jobs):
        yield position, _run_one(work, label, params)
        gc.collect()  # models in circles of references


def _side_by_side(work: Work, jobs: Sequence[tuple[str, Params]]) -> Iterator[tuple[int, SweptRun]]:
    """`work.jobs` runs at a time, each in a process of its own, which share this machine's threads; as they end.

    The processes are forked from one that has imported torch once, where the system can. A process that ends without a
    word, as one that the system killed for its memory, is a failed run. When this one ends, so do they, each with a
    checkpoint.
    """
    forks = "forkserver" in get_all_start_methods()
    context: ForkServerContext | SpawnContext = get_context("forkserver") if forks else get_context("spawn")
    context.set_forkserver_preload(["brewgraph.running.run"])
    if forks:
        resource_tracker.ensure_running()  # it would be started with the first process, and unblocks SIGINT
    left = iter(enumerate(jobs))
    running: dict[Connection, tuple[int, Params, BaseProcess]] = {}

    def start() -> None:
        for position, (label, params) in left:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run_and_send, args=(sender, work, label, params), name=label)
            with starting_a_process():
                process.start()
                running[receiver] = position, params, process
            sender.close()
            return

    try:
        for _ in range(work.jobs):
            start()
        while running:
            for receiver in connection.wait(list(running)):
                assert isinstance(receiver, Connection)
                position, params, process = running[receiver]
                try:
                    run = receiver.recv()
                except EOFError:
                    process.join()
                    run = SweptRun(params, fault=_ending(process.exitcode or 0))
                process.join()
                del running[receiver]
                start()
                yield position, run
    finally:
        for _, _, process in running.values():
            process.terminate()
        for _, _, process in running.values():
            process.join()


def _ending(code: int) -> str:
    """What became of a process that said nothing."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps because memory ran out; the same command resumes it"
    what = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its process ended with {what}; the same command resumes it"


def _run_and_send(sender: Connection, work: Work, label: str, params: Params) -> None:
    """One run in a process of its own, which ends with its parent."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // work.jobs))
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    try:
        with caught_signals():
            run = _run_one(work, label, params)
    except INTERRUPTIONS as interruption:
        run = SweptRun(params, fault=f"interrupted; {str(interruption) or _AGAIN}")
    with suppress(OSError):  # nobody reads it once the sweep is gone
        sender.send(run)


def _on_cluster(work: Work, jobs: Sequence[tuple[str, Params]]) -> Iterator[tuple[int, SweptRun]]:
    """Each run as a job of the cluster, as they end. The jobs' files lie in `.jobs` beside the runs."""
    assert work.cluster is not None
    alone = replace(work, jobs=1, runs=work.runs and work.runs.absolute(), cluster=None)
    calls = [partial(_run_one, alone, label, params) for label, params in jobs]
    for position, outcome in run_jobs(
        work.cluster, runs_folder(work.source.folder, work.runs) / _JOBS, calls, work.jobs
    ):
        params = jobs[position][1]
        yield position, SweptRun(params, fault=f"{outcome}; {_AGAIN}") if isinstance(outcome, str) else outcome


# ── search ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _search(sweeping: _Sweeping, axes: Axes, search: str, trials: int) -> None:
    """Run the settings that Optuna chooses, each with all seeds.

    Its choices follow from the scores before them and a fixed seed, so that the same search makes the same runs, which
    are found finished. As many settings are chosen at once as `jobs` allows.
    """
    if search != "tpe":
        raise UsageError(f"there is no search `{search}`: `--search tpe`")
    try:
        import optuna
    except ImportError:
        raise UsageError("--search needs Optuna: `pip install brewgraph[sweep]`") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chosen = {name: values for name, values in axes.items() if name != REPEATED}
    seeds = axes.get(REPEATED)
    repeated = {} if seeds is None or isinstance(seeds, Between) else {REPEATED: seeds}
    repeats = count_runs(repeated)
    sampler = optuna.samplers.TPESampler(seed=0, constant_liar=sweeping.work.jobs > 1)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    for start in range(0, trials, width := max(1, sweeping.work.jobs // repeats)):
        asked = [study.ask() for _ in range(min(width, trials - start))]
        settings = [{name: _suggest(trial, name, values) for name, values in chosen.items()} for trial in asked]
        runs = sweeping.run({**setting, **seed} for setting in settings for seed in _points(repeated))
        for position, trial in enumerate(asked):
            worths = [_worth_of(run) for run in runs[position * repeats : (position + 1) * repeats]]
            if all(map(math.isfinite, worths)):
                study.tell(trial, fmean(worths))
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _suggest(trial: Trial, name: str, values: Sequence[Any] | Between) -> Any:
    if isinstance(values, Between):
        return trial.suggest_float(name, values.low, values.high, log=values.logarithmic)
    if isinstance(values, range) and values.step > 0:
        return trial.suggest_int(name, values[0], values[-1], step=values.step)
    return values[trial.suggest_categorical(name, range(len(values)))]


def _worth_of(run: SweptRun) -> float:
    row = run.student
    if row is None or not row.main:
        return -math.inf
    return _worth(row.main[0], row.scores[row.main[0]])
