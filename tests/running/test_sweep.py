"""Sweeps: which runs they make, what they share, what they say of runs that fail, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import brewgraph as bg
from brewgraph.diagnostics import SpecError, UsageError
from brewgraph.running.scores import ScoreRow
from brewgraph.running.sweep import Between, SweepResult, SweptRun, Work, cells_of, check_axes, count_runs, sweep
from brewgraph.source import Source
from brewgraph.training.folder import RunFolder
from brewgraph.training.signals import Terminated
from tests.cli.tiny import write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """The tiny student with a param `seed`, and a teacher that has to be trained."""
    path = write_tiny(tmp_path)
    text = path.read_text().replace("param T = 2\n", "param T = 2\nparam seed = 0\n")
    path.write_text(text.replace("steps = 2 }", "steps = 2; seed = seed }"))
    return path


def row(name: str, **scores: float) -> ScoreRow:
    return ScoreRow(name, scores, {"": "class"}, 10, 40, 0.0)


def swept(params: Mapping[str, Any], student: float, alone: float | None = None) -> SweptRun:
    others = (
        (row("big", accuracy=0.9),) if alone is None else (row("big", accuracy=0.9), row("tiny alone", accuracy=alone))
    )
    return SweptRun(params, Path("x"), (*others, row("tiny", accuracy=student)))


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_scores_are_means_and_deviations_over_seeds():
    """0.5, 0.6 and 0.7 have the mean 0.6 and the sample deviation 0.1; a setting with one run has no deviation."""
    runs = [swept({"T": 2, "seed": seed}, score) for seed, score in enumerate((0.5, 0.6, 0.7))]
    result = SweepResult((*runs, swept({"T": 4, "seed": 0}, 0.8)), ("T",))
    assert cells_of(result) == [
        ("T", "model", "accuracy", "runs"),
        ("any", "big", "0.9000", "1"),
        ("2", "tiny", "0.6000 ±0.1000", "3"),
        ("4", "tiny", "0.8000", "1"),
    ]
    assert result.best is not None
    assert result.best.params == {"T": 4}


def test_what_no_setting_changes_is_told_once():
    """The student alone depends on the seed and not on T; the student itself has a row for each T in any case."""
    runs = [swept({"T": t, "seed": s}, 0.5, alone=0.2 + 0.2 * s) for t in (2, 4) for s in (0, 1)]
    assert [cells[:3] for cells in cells_of(SweepResult(tuple(runs), ("T",)))[1:]] == [
        ("any", "big", "0.9000"),
        ("any", "tiny alone", "0.3000 ±0.1414"),
        ("2", "tiny", "0.5000 ±0.0000"),
        ("4", "tiny", "0.5000 ±0.0000"),
    ]


def test_values_that_are_equal_in_python_are_settings_of_their_own():
    """1 and true, and lists, which are no keys."""
    runs = [swept({"T": value}, score) for value, score in ((1, 0.5), (True, 0.75), ([1, 2], 0.25))]
    cells = cells_of(SweepResult(tuple(runs), ("T",)))
    assert [row[0] for row in cells if "tiny" in row] == ["1", "true", "[1, 2]"]
    assert [row[2] for row in cells if "tiny" in row] == ["0.5000", "0.7500", "0.2500"]


def test_a_smaller_error_is_better():
    """The best setting by perplexity has the lowest; a score that is no number is the worst."""
    runs = [
        SweptRun({"T": t}, Path(), (ScoreRow("s", {"perplexity": x}, {"": "next"}, 1, 4, 0.0),))
        for t, x in ((1, 0.5), (2, 0.25), (3, float("nan")))
    ]
    best = SweepResult(tuple(runs), ("T",)).best
    assert best is not None
    assert best.params == {"T": 2}


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_number_of_runs_is_known_without_making_them():
    """Of a grid the product, also of ranges too long to list; of a search the trials times the seeds."""
    axes = {"T": range(10**6), "lr": (0.1, 0.2), "seed": range(5)}
    assert count_runs(axes) == 10**7
    assert count_runs(axes, trials=30) == 150


def test_every_value_is_checked_before_any_run(spec: Path):
    """A param that is not there and a value of another type are told together."""
    with pytest.raises(SpecError) as error:
        sweep(Work(Source.read(spec)), {"T": (2, "hot"), "sed": (1, 2)})
    said = str(error.value)
    assert "the spec has no param `sed` to set" in said
    assert "did you mean `seed`?" in said
    assert "the param `T` must be int, got 'hot'" in said
    assert not (spec.parent / "runs").exists()


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"T": Between(1, 2.5)}, "`T=1..2.5` is a range of real numbers: write values, `T=A,B,C`, or add --search tpe"),
        ({"seed": Between(1, 2.5)}, "`seed=1..2.5` is a range of real numbers: write `seed=0..4`"),
        ({"T": ()}, "`T` has no values: write `T=A,B,C`"),
    ],
)
def test_values_that_are_no_grid(spec: Path, axes, said: str):
    """A grid needs values that can be counted."""
    with pytest.raises(UsageError) as error:
        check_axes(Source.read(spec), axes, searched="seed" in axes)
    assert str(error.value) == said


def test_a_search_that_does_not_exist(spec: Path):
    """One search is there."""
    with pytest.raises(UsageError, match="there is no search `random`: `--search tpe`"):
        sweep(Work(Source.read(spec)), {"T": (2, 3)}, search="random")


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failed_run_ends_no_other_and_finished_runs_are_found(spec: Path, monkeypatch: pytest.MonkeyPatch):
    """The run of T=3 fails; the sweep goes on, and its repetition makes that run alone. The teacher is trained once."""
    import brewgraph.running.run as run

    train, trained = run.train, []

    def failing(stages, student, folder, *args, **kwargs):
        trained.append(folder.path.name.split("-")[0])
        if fails and (folder.resolved or {}).get("params", {}).get("T") == 3:
            raise ValueError("odd numbers\nare odd")
        return train(stages, student, folder, *args, **kwargs)

    monkeypatch.setattr(run, "train", failing)
    said: list[str] = []
    fails, work = True, Work(Source.read(spec))
    result = sweep(work, {"T": (2, 3, 4)}, say=said.append)
    assert trained == ["teacher", "student", "student", "student"]
    assert [x.fault for x in result.runs] == ["", "ValueError: odd numbers", ""]
    assert said[1] == "2 of 3: T=3: failed: ValueError: odd numbers"
    assert [x.params for x in result.settings] == [{}, {"T": 2}, {"T": 4}]
    failed = [x.parent for x in (spec.parent / "runs").glob("*/failed.json")]
    assert len(failed) == 1
    assert json.loads((failed[0] / "failed.json").read_text()) == {"error": "ValueError: odd numbers"}
    fails = False
    again = sweep(work, {"T": (2, 3, 4)})
    assert trained[4:] == ["student"]
    assert again.failed == ()
    assert not (failed[0] / "failed.json").exists()
    assert again.runs[0].table == result.runs[0].table


def test_a_run_has_a_name_where_no_param_varies(spec: Path):
    """The params of the one point, or else the spec."""
    said: list[str] = []
    sweep(Work(Source.read(spec)), {"T": (2,)}, say=said.append)
    sweep(Work(Source.read(spec)), {}, say=said.append)
    assert [line.partition(": accuracy")[0] for line in said] == ["1 of 1: T=2", "1 of 1: student"]


def command(spec: Path, *options: str, **of_process: Any) -> subprocess.Popen[str]:
    """A sweep in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "brewgraph", "sweep", spec.name, "--format", "json", *options]
    return subprocess.Popen(call, cwd=spec.parent, env=environment, stdout=-1, stderr=-1, text=True, **of_process)


def is_finished(runs: Path, count: int) -> bool:
    return len(list(runs.glob("student-*/finished.json"))) >= count


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_killed_goes_on_where_it_was(spec: Path):
    """Two at a time, killed without warning after the first has finished: the runs end with the sweep, and the same
    command makes those that are missing. Its scores are those of a sweep that nobody disturbed.
    """
    spec.write_text(spec.read_text().replace("steps = 2;", "steps = 40; save_steps = 10 steps; eval_steps = 100%;"))
    options = ("--set", "T=2,4", "--set", "seed=0..1", "--jobs", "2")
    process = command(spec, *options)
    end = time.monotonic() + 300
    while not is_finished(spec.parent / "runs", 1) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    while any(spec.parent.glob("runs/*/.lock")) and time.monotonic() < end:
        time.sleep(0.05)
    kept = {x.parent.name: x.read_bytes() for x in spec.parent.glob("runs/*/finished.json")}
    assert 2 <= len(kept) < 5, "the teacher, and not yet all students"
    resumed = command(spec, *options)
    output, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    for name, content in kept.items():
        assert (spec.parent / "runs" / name / "finished.json").read_bytes() == content
    undisturbed = sweep(Work(Source.read(spec), spec.parent / "others"), {"T": (2, 4), "seed": range(2)})
    resumed_scores = [(x["params"], x["model"], x["runs"], x["scores"]) for x in json.loads(output)["settings"]]
    assert resumed_scores == [
        (x.params, x.model, x.runs, {name: {"mean": x.mean(name), "sd": x.deviation(name)} for name in x.scores})
        for x in undisturbed.settings
    ]
    assert [runs for _, _, runs, _ in resumed_scores] == [1, 2, 2]


def test_a_signal_while_a_process_starts_ends_that_process_too(spec: Path, monkeypatch: pytest.MonkeyPatch):
    """The sweep has noted it before it is interrupted; it would wait for a run that nobody ends."""
    done: list[str] = []

    class Starting:
        def start(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("started")

        def terminate(self) -> None:
            done.append("terminated")

        def join(self) -> None:
            done.append("joined")

    monkeypatch.setattr("multiprocessing.context.ForkServerContext.Process", lambda context, **given: Starting())
    with pytest.raises(Terminated):
        sweep(Work(Source.read(spec), jobs=2), {"T": (2, 4)})
    assert done == ["started", "terminated", "joined"]


def hears_ctrl_c(process: int) -> bool:
    """Whether SIGINT reaches a process: it neither blocks nor ignores it."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended
        return False
    status = dict(x.split(":", 1) for x in text.splitlines())
    return not (int(status["SigBlk"], 16) | int(status["SigIgn"], 16)) >> (signal.SIGINT - 1) & 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("moment", "cluster"), [("starting", ""), ("training", ""), ("training", "local")])
def test_ctrl_c_ends_a_sweep_of_processes_in_one_line(spec: Path, moment: str, cluster: str):
    """A terminal sends it to all of them. Each writes a checkpoint, none a traceback, and none is left."""
    if cluster:
        pytest.importorskip("submitit")
    spec.write_text(spec.read_text().replace("steps = 2;", "steps = 100000; eval_steps = 100%; logging_steps = 1;"))
    assert bg.run(spec.parent / "teacher.brew").fresh
    options = ("--set", "T=2,4", "--jobs", "2", *(("--cluster", cluster) if cluster else ()))
    process = command(spec, *options, start_new_session=True)
    end, runs = time.monotonic() + 300, spec.parent / "runs"
    while time.monotonic() < end:
        time.sleep(0.02)
        if moment == "training" and len(list(runs.glob("student-*/metrics.jsonl"))) == 2:
            break
        if moment == "starting" and len(psutil.Process(process.pid).children(recursive=True)) > 1:
            break
    started = psutil.Process(process.pid).children(recursive=True)
    hearing = [x.cmdline() for x in started if hears_ctrl_c(x.pid)]
    os.killpg(process.pid, signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=120)
        _, left = psutil.wait_procs(started, timeout=10)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, output) == (130, "")
    assert len(started) >= (4 if cluster else 2)  # of each job of a cluster a controller and its task
    assert not left
    assert not hearing, "one that hears it while it starts prints a traceback"
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "interrupted with 0 of 2 runs finished; run the same command again"
    if moment == "training":
        assert [bool(RunFolder(path).complete_checkpoints()) for path in runs.glob("student-*")] == [True, True]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_process_that_is_killed_is_a_failed_run(spec: Path):
    """As the system does where memory runs out: the others end well."""
    spec.write_text(spec.read_text().replace("steps = 2;", "steps = 200; eval_steps = 100%; logging_steps = 1;"))
    process = command(spec, "--set", "T=2,4", "--jobs", "2")
    end, victim = time.monotonic() + 300, 0
    while not victim and time.monotonic() < end:
        locks = [x for x in spec.parent.glob("runs/student-*/.lock") if (x.parent / "metrics.jsonl").exists()]
        victim = json.loads(locks[0].read_text())["process"] if len(locks) == 2 else 0
        time.sleep(0.05)
    os.kill(victim, signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 3
    assert (
        "1 run failed; the same command repeats it:\n  its process was killed, perhaps because memory ran out" in errors
    )
    assert [bool(run.get("error")) for run in json.loads(output)["runs"]].count(False) == 1


def test_a_search_is_resumed_by_its_repetition(spec: Path):
    """Four settings of one range, each with two seeds; the same search chooses the same ones and finds their runs."""
    pytest.importorskip("optuna")
    work, axes = Work(Source.read(spec)), {"T": range(1, 100), "seed": range(2)}
    first = sweep(work, axes, search="tpe", trials=4)
    tried = [run.params for run in first.runs]
    assert [params["seed"] for params in tried] == [0, 1] * 4
    assert len({params["T"] for params in tried}) > 1
    assert all(1 <= params["T"] < 100 for params in tried)
    finished = {path: path.stat().st_mtime_ns for path in spec.parent.glob("runs/*/finished.json")}
    again = sweep(work, axes, search="tpe", trials=4)
    assert [run.params for run in again.runs] == tried
    assert {path: path.stat().st_mtime_ns for path in spec.parent.glob("runs/*/finished.json")} == finished
    assert {x.runs for x in again.settings if x.params} == {2}


def test_a_search_that_chooses_a_setting_again_counts_its_runs_once(spec: Path):
    """Of two values, six trials try one again and again: its mean is over two seeds, not over twelve."""
    pytest.importorskip("optuna")
    result = sweep(Work(Source.read(spec)), {"T": (2, 4), "seed": range(2)}, search="tpe", trials=6)
    assert sorted((run.params["T"], run.params["seed"]) for run in result.runs) == [(2, 0), (2, 1), (4, 0), (4, 1)]
    assert [x.runs for x in result.settings if x.params] == [2, 2]


def test_in_python_lists_and_ranges_are_values(spec: Path):
    """Anything else is one value. The result prints as the table, and shows it in a notebook."""
    result = bg.sweep(spec, T=[2, 4], seed=range(1), runs=spec.parent / "here")
    assert [run.params for run in result.runs] == [{"T": 2, "seed": 0}, {"T": 4, "seed": 0}]
    assert {run.folder.parent for run in result.runs} == {spec.parent / "here"}
    lines = str(result).splitlines()
    assert [line.split()[:2] for line in lines] == [["T", "model"], ["any", "big"], ["2", "small"], ["4", "small"]]
    assert result._repr_html_().count("<tr>") == 4
    with pytest.raises(SpecError, match="the spec has no param `t` to set"):
        bg.sweep(spec, t=[1])
