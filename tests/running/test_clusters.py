"""Runs of a sweep as jobs: real ones of submitit on this machine, what becomes of their faults, and time limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from brewgraph.diagnostics import UsageError
from brewgraph.running import clusters
from brewgraph.running.clusters import Cluster, run_jobs
from brewgraph.running.sweep import Work, sweep
from brewgraph.source import Source
from tests.cli.tiny import write_tiny

submitit = pytest.importorskip("submitit")
LOCAL = Cluster("local")


def divide(dividend: int, divisor: int) -> float:
    return dividend / divisor


def vanish() -> None:
    os._exit(3)


def test_jobs_give_what_they_return_or_why_not(tmp_path: Path) -> None:
    """Each with its position; a job that raises or disappears is a line that names its log, and ends no other."""
    calls = [partial(divide, 6, 3), partial(divide, 1, 0), vanish, partial(divide, 1, 4)]
    outcomes = dict(run_jobs(LOCAL, tmp_path / "jobs", calls, 2))
    assert (outcomes[0], outcomes[3]) == (2.0, 0.25)
    assert "failed; see " in outcomes[1]
    assert "ended without a result (FINISHED); see " in outcomes[2]
    log = Path(outcomes[1].partition("see ")[2])
    assert log.parent == tmp_path / "jobs"
    assert "ZeroDivisionError" in log.read_text() + log.with_suffix(".out").read_text()


def test_a_sweep_as_jobs_is_the_sweep(tmp_path: Path) -> None:
    """The same scores as in this process, and the same folders: a second sweep finds them."""
    spec = Source.read(write_tiny(tmp_path))
    jobs = sweep(Work(spec, tmp_path / "far", cluster=LOCAL, jobs=2), {"T": (2, 4)})
    here = sweep(Work(spec, tmp_path / "near"), {"T": (2, 4)})
    assert not jobs.failed
    assert [x.scores for x in jobs.settings] == [x.scores for x in here.settings]
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("far/*/finished.json")}
    assert [run.folder.name for run in sweep(Work(spec, tmp_path / "far"), {"T": (2, 4)}).runs] == [
        run.folder.name for run in jobs.runs
    ]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("far/*/finished.json")} == finished


class Requeued(Exception):
    """What the handler of submitit raises here."""


def test_near_its_time_limit_a_job_is_interrupted_and_queued_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends as by SIGTERM, with a checkpoint, before submitit's own handler queues the job again."""
    steps: list[str] = []

    def train() -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            steps.append("goes on")
        finally:
            steps.append("checkpoint")

    def requeue(number: int, frame: Any) -> None:
        steps.append("queued again")
        raise Requeued

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(Requeued):
            clusters._Job(train)()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert steps == ["checkpoint", "queued again"]
    assert clusters._Job(partial(divide, 1, 2)).checkpoint().result() == 0.5


@pytest.mark.slow
def test_ctrl_c_ends_the_jobs_of_this_machine(tmp_path: Path) -> None:
    """A terminal sends it to the jobs, too. Each run writes a checkpoint, and all that is printed is brewgraph's line."""
    spec = write_tiny(tmp_path)
    spec.write_text(spec.read_text().replace("steps = 2", "steps = 1000000"))
    command = ("sweep", spec.name, "--set", "T=2,4", "--cluster", "local", "--jobs", "2")
    process = subprocess.Popen(
        (sys.executable, "-m", "brewgraph", *command),
        cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("runs/student-*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    jobs = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, printed = process.communicate(timeout=120)
        left = [job for job in jobs if job.is_running()]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "Traceback" not in printed
    assert printed.splitlines()[-1] == "interrupted with 0 of 2 runs finished; run the same command again"
    assert len(jobs) >= 4  # of each job a controller and its task
    assert not left
    assert len({path.parents[2] for path in tmp_path.glob("runs/student-*/checkpoints/step-*/complete.json")}) == 2


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (Cluster("slurm"), "^`srun` is not found: run this where Slurm takes jobs, or with --cluster local$"),
        (Cluster("local", {"speed": "fast"}), r"^--cluster-set: .*'speed'"),
        (Cluster("local", {"slurm_speed": 1}), r"^--cluster-set: .*Unknown argument 'speed'"),
        (Cluster("local", {"timeout_min": "long"}), r'^--cluster-set: .*"timeout_min" expected type'),
        (Cluster("cloud"), r"^there is no cluster `cloud`: `--cluster slurm` or `--cluster local`$"),
    ],
)
def test_a_cluster_that_takes_no_jobs(cluster: Cluster, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as error:
        list(run_jobs(cluster, tmp_path, [partial(divide, 1, 1)], 1))
    assert "\n" not in str(error.value)
