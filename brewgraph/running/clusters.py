"""The runs of a sweep as jobs of a cluster, through submitit: of Slurm, or in processes of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from brewgraph.diagnostics import UsageError
from brewgraph.display.lines import one_line
from brewgraph.training.signals import INTERRUPTIONS, caught_signals, starting_a_process

KINDS = ("slurm", "local")
_MINUTES = 24 * 60
"""How long a job may take unless `timeout_min` says; then it is requeued and goes on. submitit itself stops after 5."""
_POLL = 1.0
"""Seconds between two looks at the jobs; how often the cluster itself is asked is up to submitit."""

_GRACE = 30.0
"""Seconds in which a run ends, as many as Slurm gives it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Cluster:
    """Where jobs go: `slurm`, or `local` for this machine. `options` are those of submitit, such as `timeout_min`,
    `gpus_per_node` and `slurm_partition`.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job(Generic[T]):
    """A call as a job that submitit starts. Near its time limit the call is interrupted as by SIGTERM, so that it
    writes a checkpoint, and the job is queued again.
    """

    call: Callable[[], T]

    def __call__(self) -> T:
        # the signal that submitit asks the cluster for, and its own handler, which queues the job again
        number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
        requeue, asked = signal.getsignal(number), list[int]()

        def receive(number: int, frame: Any) -> None:
            asked.append(number)
            signal.raise_signal(signal.SIGTERM)

        signal.signal(number, receive)
        try:
            with caught_signals():
                return self.call()
        except INTERRUPTIONS:
            if asked and callable(requeue):
                requeue(asked[0], None)
            raise

    def checkpoint(self) -> Any:
        """What submitit queues again: the same call, whose run resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_jobs(
    cluster: Cluster, folder: Path, calls: Sequence[Callable[[], T]], at_once: int
) -> Iterator[tuple[int, T | str]]:
    """Run calls as jobs, at most so many at once, and give what each returns, or its fault as a line, as they end, with
    its position. What submitit writes lies in `folder`, which all machines have to see.

    Raises UsageError where the cluster takes no jobs. Jobs that are left at an interruption are ended, as by SIGTERM.
    """
    executor = _executor(cluster, folder)
    left, running = iter(enumerate(calls)), dict[Any, int]()

    def start() -> None:
        for position, call in left:
            with starting_a_process():
                running[_submit(executor, cluster, call)] = position
            return

    try:
        for _ in range(at_once):
            start()
        while running:
            ended = [job for job in running if job.done()]
            for job in ended:
                position = running.pop(job)
                start()
                yield position, _outcome(job)
            if not ended:
                time.sleep(_POLL)
    finally:
        _end(cluster, list(running))


def _executor(cluster: Cluster, folder: Path) -> Any:
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise UsageError("--cluster needs submitit: `pip install brewgraph[cluster]`") from None
    if cluster.kind not in KINDS:
        raise UsageError(f"there is no cluster `{cluster.kind}`: `--cluster {'` or `--cluster '.join(KINDS)}`")
    if cluster.kind == "slurm" and shutil.which("srun") is None:
        raise UsageError("`srun` is not found: run this where Slurm takes jobs, or with --cluster local")
    try:
        executor = AutoExecutor(folder.absolute(), cluster=cluster.kind)
        executor.update_parameters(**{"name": "brewgraph", "timeout_min": _MINUTES, **cluster.options})
    except (NameError, AssertionError, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"--cluster-set: {one_line(str(error))}") from None
    return executor


def _submit(executor: Any, cluster: Cluster, call: Callable[[], Any]) -> Any:
    from submitit.core.utils import FailedSubmissionError

    try:
        return executor.submit(_Job(call))
    except (FailedSubmissionError, OSError) as error:
        last = next(reversed(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"{cluster.kind} takes no job: {one_line(last)}; see --cluster-set") from None


def _end(cluster: Cluster, jobs: Sequence[Any]) -> None:
    """End jobs, whose runs write checkpoints. Those of this machine are waited for: submitit would kill them after a
    second.
    """
    if cluster.kind != "local":
        for job in jobs:
            job.cancel(check=False)
        return
    for _ in range(2):  # a job that is starting up does not hear the first signal
        jobs = [job for job in jobs if not job.done()]
        for job in jobs:
            os.kill(int(job.job_id), signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while any(not job.done() for job in jobs) and time.monotonic() < deadline:
            time.sleep(_POLL / 10)


def _outcome(job: Any) -> Any:
    """What a job's call returned, or why there is nothing."""
    from submitit.core.utils import FailedJobError

    error = job.exception()
    if error is None:
        return job.result()
    what = "failed" if isinstance(error, FailedJobError) else f"ended without a result ({job.state})"
    return f"its job {job.job_id} {what}; see {job.paths.stderr}"
