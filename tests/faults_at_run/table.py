"""What can fail while a run is on its way: how a test brings it about, and what the user sees."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RunFault:
    """One fault. The first command runs into it, with the environment `env` and files of at most `largest` bytes: it
    prints `said` and ends with `exit`. Then the machine is well again, and the same command runs to its end; `keeps`
    says what was not lost, and `resumes` whether the command goes on from the checkpoint after step 4.
    """

    what: str
    said: str
    keeps: str
    exit: int = 3
    env: dict[str, str] = field(default_factory=dict)
    largest: int | None = None
    spec: str = "spec.brew"
    resumes: bool = True

    def __str__(self) -> str:
        return self.what


CHECKPOINTS = "everything up to the last checkpoint"
FAULTS = [
    RunFault(
        "the disk is full while a checkpoint is written", "cannot be written: no space left on the disk",
        "the run so far is trained again: no checkpoint was complete", largest=30_000, resumes=False,
    ),
    RunFault(
        "the disk is full while metrics are written", "cannot be written: No space left on device", CHECKPOINTS,
        env={"FULL": "metrics.jsonl"}, resumes=False,
    ),
    RunFault(
        "the disk is full while a cache is filled", "the cache in kept cannot be used", "values that are written are read again",
        largest=20_000, spec="kept.brew", resumes=False,
    ),
    RunFault(
        "the run folder is deleted", "cannot be written: it is no longer there", "nothing is left to keep: the run starts anew",
        env={"FAULT": "the folder is deleted"}, resumes=False,
    ),
    RunFault(
        "checkpoints can no longer be written", "cannot be written: ", "metrics and the spec",
        env={"FAULT": "a file in place of the checkpoints", "STEP": "3"}, resumes=False,
    ),
    RunFault(
        "a GPU has too little memory", "out of memory: use smaller batches", CHECKPOINTS, env={"FAULT": "no memory", "STEP": "5"},
    ),
    RunFault(
        "a machine has too little memory", "out of memory: use smaller batches", CHECKPOINTS,
        env={"FAULT": "no memory on a CPU", "STEP": "5"},
    ),
    RunFault(
        "a loss is no number", "is not a finite number at step 6 (training rows ", CHECKPOINTS,
        env={"FAULT": "no number", "STEP": "5"},
    ),
]  # fmt: skip
"""Faults that end a run with an error."""
