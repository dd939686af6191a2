"""What can fail while a run is on its way: how a test brings it about, and what the user sees."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

Change = Callable[[Path], None]
"""Something done to the folder of a spec."""


@dataclass(frozen=True)
class RunFault:
    """One fault. Where it is something that happens to files after an interruption, `between` is done to the folder of a
    run that was killed at step 5. Then a command runs into the fault, with the environment `env` and files of at most
    `largest` bytes: it prints `said` and ends with `exit`. Then the machine is well again, by `mend` where there is more
    to do, and the same command runs to its end. `keeps` says what was not lost, and `resumes` the checkpoint from which
    the last command that trained went on, 0 for none.
    """

    what: str
    said: str
    keeps: str
    exit: int = 3
    env: dict[str, str] = field(default_factory=dict)
    largest: int | None = None
    spec: str = "spec.brew"
    options: tuple[str, ...] = ()
    resumes: int = 4
    between: Change | None = None
    mend: Change | None = None

    def __str__(self) -> str:
        return self.what


def flip(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def _flip_checkpoints(*steps: int) -> Change:
    def change(folder: Path) -> None:
        for step in steps:
            (checkpoint,) = folder.glob(f"runs/*/checkpoints/step-{step:06d}")
            flip(checkpoint / "student" / "model.safetensors")

    return change


def _flip_kept(folder: Path) -> None:
    """The last byte of each row."""
    (path,) = (folder / "kept").glob("*.lmdb")
    with lmdb.open(str(path), subdir=False) as store, store.begin(write=True) as transaction:
        for key, row in list(transaction.cursor()):
            transaction.put(key, row[:-1] + bytes([row[-1] ^ 0xFF]))


def _flip_facts(folder: Path) -> None:
    for path in (folder / "facts").iterdir():
        flip(path)


def _other_row(folder: Path) -> None:
    path = folder / "train.jsonl"
    path.write_text(path.read_text().replace("a tale", "the tale", 1) + '{"text": "winter", "label": "good"}\n')


def _same_rows(folder: Path) -> None:
    path = folder / "train.jsonl"
    path.write_text((folder / "before" / "train.jsonl").read_text())


def _other_weights(folder: Path) -> None:
    flip(folder / "bert" / "model.safetensors")


def _same_weights(folder: Path) -> None:
    shutil.copy(folder / "before" / "bert" / "model.safetensors", folder / "bert")


def _writable(folder: Path) -> None:
    for path in folder.glob("runs/*"):
        path.chmod(0o755)


def _no_blockade(folder: Path) -> None:
    for path in folder.glob("runs/*/checkpoints"):
        path.unlink()


CHECKPOINTS = "everything up to the last checkpoint"
TERMS = "`soft`, `hard`, `hidden[0]`, `hidden[1]`, `gram[0]`, `gram[1]`"
FAULTS = [
    RunFault(
        "the disk is full while a checkpoint is written", "cannot be written: no space left on the disk",
        "the run so far is trained again: no checkpoint was complete", largest=30_000, resumes=0,
    ),
    RunFault(
        "the disk is full while metrics are written", "cannot be written: File too large", CHECKPOINTS,
        env={"FAULT": "no room for metrics", "STEP": "5"},
    ),
    RunFault(
        "the disk is full while a cache is filled", "the cache in kept cannot be used", "values that are written are read again",
        largest=20_000, spec="kept.brew", resumes=0,
    ),
    RunFault(
        "the disk is full while the student is written", "cannot be written: no space left on the disk",
        "everything: the same command only writes the student", env={"FAULT": "no room", "STEP": "student"}, resumes=6,
    ),
    RunFault(
        "the run folder is deleted", "cannot be written: it is no longer there", "nothing is left to keep: the run starts anew",
        env={"FAULT": "the folder is deleted"}, resumes=0,
    ),
    RunFault(
        "the run folder becomes read-only", "cannot be written: Permission denied", CHECKPOINTS,
        env={"FAULT": "no permission", "STEP": "5"}, mend=_writable,
    ),
    RunFault(
        "checkpoints can no longer be written", "cannot be written: ", "metrics and the spec",
        env={"FAULT": "a file in place of the checkpoints", "STEP": "3"}, resumes=0, mend=_no_blockade,
    ),
    RunFault(
        "a GPU has too little memory", "out of memory: use smaller batches", CHECKPOINTS, env={"FAULT": "no memory", "STEP": "5"},
    ),
    RunFault(
        "a machine has too little memory", "out of memory: use smaller batches", CHECKPOINTS,
        env={"FAULT": "no memory on a CPU", "STEP": "5"},
    ),
    RunFault(
        "a loss is no number", f"{TERMS} are not finite numbers at step 6 (training rows 10, 4, 16, 3)", CHECKPOINTS,
        env={"FAULT": "no number", "STEP": "5"},
    ),
    RunFault(
        "a loss is infinite", f"{TERMS} are not finite numbers at step 6 (training rows 10, 4, 16, 3)", CHECKPOINTS,
        env={"FAULT": "infinity", "STEP": "5"},
    ),
    RunFault(
        "a data file changed since the run in `--out` was interrupted", "~ data d: content",
        "everything: with the file as it was the run resumes", exit=2, options=("--out", "runs/one"), between=_other_row,
        mend=_same_rows,
    ),
    RunFault(
        "a data file changed since the run was interrupted", "is not continued, because this changed:\n  ~ data d: content",
        "everything: a run of its own begins beside it, and with the file as it was the interrupted one resumes", exit=0,
        between=_other_row, mend=_same_rows,
    ),
    RunFault(
        "a teacher changed since the run in `--out` was interrupted", "~ teacher bert: content",
        "everything: with the teacher as it was the run resumes", exit=2, options=("--out", "runs/one"),
        between=_other_weights, mend=_same_weights,
    ),
    RunFault(
        "a teacher changes while the run begins", "the files of `bert` in bert changed since this command began",
        "nothing has begun", env={"FAULT": "a teacher is written anew", "STEP": "models"}, resumes=0, mend=_same_weights,
    ),
    RunFault(
        "the newest checkpoint is damaged",
        "is damaged: the checksum of student/model.safetensors does not match; step-000002 is used instead",
        "everything up to the checkpoint before it", exit=0, resumes=2, between=_flip_checkpoints(4),
    ),
    RunFault(
        "all checkpoints are damaged", "does not match; training starts anew", "metrics and the spec", exit=0, resumes=0,
        between=_flip_checkpoints(2, 4),
    ),
    RunFault(
        "a kept value is damaged", "the cache in kept cannot be used: a value in it is damaged", CHECKPOINTS,
        spec="kept.brew", between=_flip_kept, mend=lambda folder: shutil.rmtree(folder / "kept"),
    ),
    RunFault(
        "remembered facts are damaged", "resumed at step 4", "everything: they are found anew", exit=0,
        env={"BREWGRAPH_FACTS": "facts"}, between=_flip_facts,
    ),
]  # fmt: skip
"""Faults that end a run with an error, or that it survives with a note."""
