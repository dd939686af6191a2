"""What can fail while a run is on its way: how a test brings it about, and what the user sees."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import pyarrow
from pyarrow import parquet

Change = Callable[[Path], None]
"""Something done to the folder of a spec."""


@dataclass(frozen=True)
class RunFault:
    """One fault. Where it is something that happens to files after an interruption, `between` is done to the folder of a
    run that was killed at step 5. Then a command runs into the fault, with the environment `env` and files of at most
    `largest` bytes: it prints `said` and ends with `exit`. Then the machine is well again, by `mend` where there is more
    to do, and the same command runs to its end. `keeps` says what was not lost, and `resumes` the checkpoint from which
    the last command that trained went on, 0 for none. An `embedded` run is one of a Python program, whose callback
    raises that after step 4.
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
    embedded: str = ""
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


def _cut_resolved(folder: Path) -> None:
    (path,) = folder.glob("runs/*/resolved.json")
    shutil.copy(path, folder / "before")
    os.truncate(path, 40)


def _whole_resolved(folder: Path) -> None:
    (path,) = folder.glob("runs/*/resolved.json")
    shutil.copy(folder / "before" / "resolved.json", path)


def _writable(folder: Path) -> None:
    for path in folder.glob("runs/*"):
        path.chmod(0o755)


def _no_blockade(folder: Path) -> None:
    for path in folder.glob("runs/*/checkpoints"):
        path.unlink()


@dataclass(frozen=True)
class DataFault:
    """A file of data that nobody should have to read: `write` puts it into the place `name`, and a check says `said` in
    a diagnostic. Root, who may read everything, gives that up before.
    """

    what: str
    name: str
    said: str
    write: Change

    def __str__(self) -> str:
        return self.what


def _rows(more: bytes, *, csv: bool = False) -> Change:
    """Writes eight sound rows, then what is at fault."""
    pairs = [(f"a tale {i}", ("bad", "good", "fair")[i % 3]) for i in range(8)]
    lines = [f"{text},{label}" if csv else json.dumps({"text": text, "label": label}) for text, label in pairs]
    sound = "\n".join([*(["text,label"] if csv else []), *lines, ""]).encode()
    return lambda path: Path.write_bytes(path, sound + more) and None


def _row(text: str, label: str = '"good"') -> Change:
    return _rows(f'{{"text": {text}, "label": {label}}}\n'.encode())


def _unreadable(path: Path) -> None:
    _row('"x"')(path)
    path.chmod(0)


def _endless_line(path: Path) -> None:
    """500 MB of one row, as a hole in the file."""
    with path.open("wb") as file:
        file.write(b'{"text": "')
        file.truncate(500_000_000)
    with path.open("r+b") as file:
        for place in range(10, 80_000_000, 1 << 20):
            file.seek(place)
            file.write(b" " * (1 << 20))


def _cut_parquet(path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": ["a", "b"] * 500, "label": ["bad", "good"] * 500}), path)
    os.truncate(path, path.stat().st_size // 2)


def _one_text_often(path: Path) -> None:
    """A text of a megabyte that 10,000 rows share: 10 GB from a few kB."""
    numbers = pyarrow.array([0] * 10_000, pyarrow.int32())
    text = pyarrow.DictionaryArray.from_arrays(numbers, pyarrow.array(["tale " * 200_000]))
    table = pyarrow.table({"text": text, "label": ["good"] * 10_000})
    parquet.write_table(table, path, compression="zstd", store_schema=False)


def _large_class(path: Path) -> None:
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1' + "0" * 30 + "}\n")


def _packed_blanks(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        for _ in range(200):
            file.write(b" " * 10**6)


DATA_FAULTS = [
    DataFault("a pipe", "train.jsonl", "`train.jsonl` is no plain file, but a pipe or a device", os.mkfifo),
    DataFault("a folder", "train.jsonl", "there is no file `train.jsonl`", Path.mkdir),
    DataFault("a link to nowhere", "train.jsonl", "`train.jsonl` is a link to", lambda path: path.symlink_to("gone")),
    DataFault("a link to itself", "train.jsonl", "too many levels of symbolic links", lambda path: path.symlink_to(path.name)),
    DataFault("a file that this user may not read", "train.jsonl", "`train.jsonl` cannot be read: permission denied", _unreadable),
    DataFault("values inside each other 100,000 times", "train.jsonl", "line 9 of `train.jsonl` has values nested in more than 500 lists", _row("[" * 10**5 + "]" * 10**5)),
    DataFault("a line of 500 MB", "train.jsonl", "line 1 of `train.jsonl` is longer than 64 MiB", _endless_line),
    DataFault("20,000 columns", "train.jsonl", "`train.jsonl` has more than 10,000 columns", _rows(json.dumps({f"c{n}": 1 for n in range(20_000)}).encode())),
    DataFault("a null byte in JSON", "train.jsonl", "line 9: Invalid control character", _row('"a\0b"')),
    DataFault("a null byte in csv", "train.csv", "line 10 of `train.csv` has a null byte", _rows(b"a\0b,good\n", csv=True)),
    DataFault("another encoding", "train.jsonl", "line 9 of `train.jsonl` is not UTF-8: byte 12 is 0xE9", _rows(b'{"text": "a\xe9", "label": "good"}\n')),
    DataFault("half of a surrogate pair", "train.jsonl", "line 9: the text has half of a surrogate pair", _row('"\\ud800"')),
    DataFault("a key that occurs twice", "train.jsonl", "line 9: the key `text` occurs twice", _row('"a", "text": "b"')),
    DataFault("a line that is no object", "train.jsonl", "line 9 is no object", _rows(b"[1, 2]\n")),
    DataFault("a quote that is never closed", "train.csv", "has a quote in row 9 that is never closed", _rows(b'"a,good\n' + b"b,good\n" * 20_000, csv=True)),
    DataFault("a column that occurs twice", "train.csv", "`train.csv` has two columns `text`", lambda path: path.write_text("text,label,text\na,good,b\n") and None),
    DataFault("a text of 20 MB", "train.csv", "`text` in row 9 of `train.csv` is longer than 16,777,216 characters", _rows(b"tale " * 4_000_000 + b",good\n", csv=True)),
    DataFault("a label of 5 MB", "train.jsonl", "the label in row 9 of `train.jsonl` is a text of 5,000,000 characters", _row('"a"', f'"{"g" * 5_000_000}"')),
    DataFault("texts and numbers in one column", "train.jsonl", "`text` in row 9 of `train.jsonl` is no text: 3", _row("3")),
    DataFault("an integer beyond 64 bits as a class", "train.jsonl", "the label in row 2 of `train.jsonl` is 1000000000000000", _large_class),
    DataFault("a number beyond floats", "train.jsonl", "line 9: the number 1e400 is too large", _row("1e400")),
    DataFault("a parquet file that is cut short", "train.parquet", "cannot be read as parquet", _cut_parquet),
    DataFault("a parquet file of one long text in many rows", "train.parquet", "`train.parquet` unpacks to more than 1,024 MiB", _one_text_often),
    DataFault("no gzip file after all", "train.jsonl.gz", "`train.jsonl.gz` cannot be unpacked: Not a gzipped file", _row('"a"')),
    DataFault("blanks without end in a gzip file", "train.jsonl.gz", "unpacks to more than 200 times its size", _packed_blanks),
]  # fmt: skip
"""Files that a check must refuse in one diagnostic, soon and with little memory."""

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
        "a teacher changes while its weights are loaded", "the files of `bert` in bert changed since this command began",
        "nothing has begun", env={"FAULT": "a teacher is replaced", "STEP": "weights"}, resumes=0, mend=_same_weights,
    ),
    *(
        RunFault(
            f"{what}, after the check", "`train.jsonl` of `d` changed since the spec was checked",
            "nothing has begun: with the file as it was the run is the same", env={"FAULT": what, "STEP": "rows"},
            resumes=0, mend=_same_rows,
        )
        for what in ("a data file grows", "a data file loses rows", "a data file is replaced")
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
        "the facts of an interrupted run are damaged",
        "resolved.json cannot be read: restore it, or begin anew with --force, which removes what the run has made",
        "everything: with the file as it was the run resumes", between=_cut_resolved, mend=_whole_resolved,
    ),
    RunFault(
        "a kept value is damaged", "the cache in kept cannot be used: a value in it is damaged", CHECKPOINTS,
        spec="kept.brew", between=_flip_kept, mend=lambda folder: shutil.rmtree(folder / "kept"),
    ),
    RunFault(
        "remembered facts are damaged", "resumed at step 4", "everything: they are found anew", exit=0,
        env={"BREWGRAPH_FACTS": "facts"}, between=_flip_facts,
    ),
    RunFault(
        "a tracker loses its network",
        "the tracker `tensorboard` failed at step 5 and records no more: the network is gone; the run goes on, and "
        "metrics.jsonl has every line",
        "everything: the run finishes without the tracker", exit=0, resumes=0,
        env={"FAULT": "a tracker has no network", "STEP": "4"},
    ),
    RunFault(
        "a callback raises an exception", "ValueError: a fault of the callback\nspec resumes at step 4",
        "everything: a checkpoint is written at the step of the callback", exit=1,
        embedded='ValueError("a fault of the callback")', env={"FAULT": "callback"},
    ),
    RunFault(
        "a callback stops the run",
        "no better than before; the same call resumes it",
        "everything: a checkpoint is written at the step of the callback", exit=0,
        embedded='bg.StopRun("no better than before")', env={"FAULT": "callback"},
    ),
    RunFault(
        "a callback ends the program", "", "everything: a checkpoint is written at the step of the callback", exit=7,
        embedded="SystemExit(7)", env={"FAULT": "callback"},
    ),
]  # fmt: skip
"""Faults that end a run with an error, or that it survives with a note."""
