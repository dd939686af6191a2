"""Runs of a sweep as jobs: real ones of submitit on this machine, what becomes of their faults, and time limits."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

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


@pytest.mark.slow
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


@pytest.mark.slow
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
