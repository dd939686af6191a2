"""A run's folder: its files, written so that a crash never leaves an incomplete one, and where runs are.

RUN/
  spec.brew        the spec as it was run          resolved.json   params, hash, versions, models, data
  metrics.jsonl    a line per logging interval and per evaluation
  tensorboard/ wandb/        the same numbers, by the trackers of the run that write files here
  trackers.json    until the run is finished: the tracked runs to continue, and the points that they have (trackers.py)
  checkpoints/step-000500/   student/ projections.safetensors state.safetensors state.json, and complete.json, which
                             holds size and checksum of each of them
  checkpoints/best/          with `metric_for_best_model`: the same of the best so far
  student/         the finished student, as save_pretrained writes it, with its tokenizer
  projections.safetensors    the finished projections
  alone/           with `baseline = true`: the same of the student without its teacher
  finished.json    the closing table, written last: a run without it is unfinished
  failed.json      the error that ended the run, until it is resumed
  tags.json        what `brewgraph runs tag` calls the run
  .lock            the process that runs in the folder (lock.py)
  profile.json     the trace of `run --profile`, before or after the run
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from brewgraph.diagnostics import BrewError, RunError
from brewgraph.paths import EXPORT_RECORD, at_home, is_file, parse_json, read_json

_BASELINE = "alone"
_FAILED = "failed.json"
_TAGS = "tags.json"
_EARLIER = ".before"
_LINES = 65536
"""Bytes at the end of a log in which its last line is."""
TRACKED = "trackers.json"
"""The file that tells which tracked runs a resumed run continues."""
LOCK = ".lock"
"""The file that names the process which runs in a folder."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and how they are written."""

    path: Path

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def all_checkpoints(self) -> tuple[Path, Path]:
        """The folders of checkpoints, also of the baseline."""
        return self.checkpoints, self.baseline.checkpoints

    @property
    def best(self) -> Path:
        return self.checkpoints / "best"

    @property
    def exports(self) -> Path:
        """Where `brewgraph export` writes the student for other runtimes."""
        return self.path / "export"

    def exported(self) -> list[Path]:
        """The folders in there that hold an exported student."""
        for before in self.exports.glob(f".?*{_EARLIER}"):
            put_back(before.with_name(before.name[1 : -len(_EARLIER)]))
        folders = (path.parent for path in self.exports.glob(f"*/{EXPORT_RECORD}"))
        return sorted(path for path in folders if not path.name.startswith("."))

    @property
    def board(self) -> Path:
        return self.path / "tensorboard"

    @property
    def trace(self) -> Path:
        return self.path / "profile.json"

    @property
    def baseline(self) -> RunFolder:
        """The folder of the same student trained without its teachers."""
        return RunFolder(self.path / _BASELINE)

    @property
    def whole(self) -> RunFolder:
        """The run of which this folder is the baseline; itself if it is none."""
        around = RunFolder(self.path.absolute().parent)
        return around if self.path.absolute().name == _BASELINE and self.resolved is None else self

    @property
    def finished(self) -> dict[str, Any] | None:
        """The content of `finished.json`; None for an unfinished run."""
        return read_object(self.path / "finished.json")

    @property
    def failure(self) -> str | None:
        """The error that ended the run; None if none did."""
        content = read_object(self.path / _FAILED)
        return None if content is None else str(content.get("error"))

    def record_failure(self, error: Exception) -> None:
        """Write down what ended the run, unless the disk is full."""
        first = next(iter(str(error).strip().splitlines()), "")
        what = first if isinstance(error, BrewError) else f"{type(error).__name__}: {first}"
        with suppress(OSError):
            self.write_json(_FAILED, {"error": what})

    def forget_failure(self) -> None:
        (self.path / _FAILED).unlink(missing_ok=True)

    @property
    def last_step(self) -> int | None:
        """The step of the last line in metrics.jsonl; None without any."""
        path = self.path / "metrics.jsonl"
        if not is_file(path):
            return None
        with suppress(OSError, ValueError, LookupError, TypeError, OverflowError), open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LINES))
            content: Any = parse_json(file.read().splitlines()[-1])
            return int(content["step"])
        return None

    @property
    def tags(self) -> tuple[str, ...]:
        """What the user calls the run, in order."""
        tags = (read_object(self.path / _TAGS) or {}).get("tags")
        return tuple(map(str, tags)) if isinstance(tags, list) else ()

    def set_tags(self, tags: Collection[str]) -> None:
        self.write_json(_TAGS, {"tags": sorted(tags)})

    @property
    def resolved(self) -> dict[str, Any] | None:
        return read_object(self.path / "resolved.json")

    def prepare(self, option: str = "--runs") -> None:
        """Create the folder. Raises `RunError`, with the `option` that names another one, if it is not writable."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".write-test"
            probe.write_text("")
            probe.unlink(missing_ok=True)  # another process may have probed too
        except OSError as error:
            raise RunError(
                f"the run folder `{display_path(self.path)}` cannot be written: {error.strerror}; "
                f"choose another folder with {option}"
            ) from error

    @property
    def begun(self) -> bool:
        """Whether a run has begun here, with nothing left of an earlier one."""
        return self.resolved is not None and not self.resolved.get("clearing")

    @property
    def has_progress(self) -> bool:
        """Whether there is something to resume: a checkpoint, or a finished part."""
        parts = (self, self.baseline)
        return any(part.finished is not None or bool(part.complete_checkpoints()) for part in parts)

    @property
    def holds_anything(self) -> bool:
        """Whether there is anything in the folder but the lock of a run and a trace, which may be made before it."""
        return self.path.is_dir() and any(path.name not in (LOCK, self.trace.name) for path in self.path.iterdir())

    def clear(self, run_hash: str) -> None:
        """Remove what an earlier run left, for the run of this hash. If that is broken off, the run is not `begun`."""
        if (path := self.path / "resolved.json").is_dir():
            remove(path)
        self.write_json(path.name, {"hash": run_hash, "clearing": True})
        names = "finished.json", "agreement.json", "metrics.jsonl", "spec.brew", "projections.safetensors", TRACKED
        for name in (*names, "wandb"):
            remove(self.path / name)
        for path in (self.checkpoints, self.student, self.exports, self.board, self.baseline.path):
            remove(path)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.path / name, json_text(content, indent=1) + "\n")

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json_text(line) + "\n")

    def truncate_log(self, step: int, *, unevaluated: bool = False) -> list[dict[str, Any]]:
        """Drop the lines after a step, which a resumed run writes again, and a line that a crash cut short; of an
        `unevaluated` step also the lines of its evaluation. The lines that are dropped.
        """
        path = self.path / "metrics.jsonl"
        if not is_file(path):
            remove(path)
            return []
        kept, dropped = [], []
        for line in path.read_bytes().split(b"\n"):
            with suppress(ValueError, KeyError, TypeError):
                content: Any = parse_json(line)
                if content["step"] + (unevaluated and "dev" in content) <= step:
                    kept.append(line.decode("utf-8") + "\n")
                else:
                    dropped.append(content)
        write_text(path, "".join(kept))
        return dropped

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    def checkpoint(self, step: int) -> Path:
        """The place of the checkpoint of a step."""
        return self.checkpoints / f"step-{step:06d}"

    @contextmanager
    def writing_checkpoint(self, step: int) -> Iterator[Path]:
        """A temporary folder that becomes the checkpoint when the block succeeds."""
        if (self.path / "metrics.jsonl").exists():
            sync(self.path / "metrics.jsonl")  # so that no line before the checkpoint is lost
        with replacing(self.checkpoint(step)) as temporary:
            yield temporary
            write_checksums(temporary, step)

    def complete_checkpoints(self) -> list[tuple[int, Path]]:
        """The checkpoints with their steps, oldest first, whose files have the sizes that were written."""
        sized = ((path, verify(path, content=False)) for path in self._checkpoint_folders())
        return sorted((_step(path), path) for path, fault in sized if not fault)

    def newest_checkpoint(self) -> tuple[Path | None, list[tuple[Path, str]]]:
        """The newest checkpoint whose content is what was written; and each newer one, with what is wrong with it."""
        damaged: list[tuple[Path, str]] = []
        for path in sorted(self._checkpoint_folders(), key=_step, reverse=True):
            if not (fault := verify(path)):
                return path, damaged
            damaged.append((path, fault))
        return None, damaged

    def _checkpoint_folders(self) -> list[Path]:
        """Checkpoints, also one that was written whole and not renamed yet."""
        folders = [*self.checkpoints.glob("step-*"), *self.checkpoints.glob(".step-*.part")]
        return [x for x in folders if _step(x) >= 0 and (x.name[0] != "." or (x / "complete.json").is_file())]

    def rotate(self, keep: int, newest: int) -> None:
        """Remove all but the last `keep` complete checkpoints up to the step `newest`, which was written last, and
        incomplete or replaced ones. Those of later steps are damaged ones that were passed over.
        """
        complete = [path for step, path in self.complete_checkpoints() if step <= newest]
        for path in self.checkpoints.glob("step-*"):
            if path not in complete[-keep:]:
                shutil.rmtree(path)
        for path in (*self.checkpoints.glob(".*.part"), *self.checkpoints.glob(f".step-*{_EARLIER}")):
            shutil.rmtree(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with what it holds; nothing is done where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block succeeds; until then that stays whole."""
    put_back(folder)
    temporary, before = places_beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(before, ignore_errors=True)
    try:
        while True:
            if moved := folder.is_dir():
                folder.rename(before)
            try:
                temporary.rename(folder)
                break
            except OSError:
                if not moved or not folder.is_dir():
                    raise
                # a reader has put the earlier folder back in between
    except BaseException:
        if before.is_dir() and not folder.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)
    sync(folder.parent)


def put_back(folder: Path) -> None:
    """Give a folder its name back whose process was killed in `replacing`, between the two renames: then the new one is
    not there yet, and the earlier one is called `.NAME.before`. Nothing is done in any other state.
    """
    if not folder.name or os.path.lexists(folder):
        return
    temporary, before = places_beside(folder)
    if os.path.isdir(temporary) and os.path.isdir(before):
        with suppress(OSError):  # another process was faster, or the disk is read-only
            before.rename(folder)


def places_beside(folder: Path) -> tuple[Path, Path]:
    """What `replacing` calls the new folder until it is whole, and the earlier one until it is removed."""
    return folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}{_EARLIER}")


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content written to the disk, or the names in a folder."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ── checksums ────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_checksums(folder: Path, step: int) -> None:
    """Have a folder's files written to the disk, then their sizes and checksums in `complete.json`."""
    files = {}
    for path in sorted(folder.rglob("*")):
        sync(path)
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "xxh3": _checksum(path)}
    write_text(folder / "complete.json", json_text({"step": step, "files": files}, indent=1))


def verify(folder: Path, *, content: bool = True) -> str:
    """What is wrong with a folder of `write_checksums`, "" if nothing is; without `content` only sizes are compared."""
    complete = read_object(folder / "complete.json")
    try:
        if complete is None:
            raise ValueError
        for name, wanted in complete["files"].items():
            path = folder / name
            if not path.is_file():
                return f"has no file {name}"
            if path.stat().st_size != wanted["size"]:
                return f"is damaged: {name} has {path.stat().st_size:,} bytes and should have {wanted['size']:,}"
            if content and _checksum(path) != wanted["xxh3"]:
                return f"is damaged: the checksum of {name} does not match"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "is damaged: complete.json cannot be read"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _step(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 without one."""
    name = re.fullmatch(r"step-(\d+)|[.]step-(\d+)[.]part", checkpoint.name)
    return -1 if name is None else int(name[1] or name[2])


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def json_text(content: Any, indent: int | None = None) -> str:
    """A value as JSON; infinity and NaN become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(x) for key, x in value.items()}
        if isinstance(value, list | tuple):
            return [finite(x) for x in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a file of JSON; None if there is none, or anything else."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def display_path(path: Path) -> str:
    """A path to print: relative to the working directory if that is shorter."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except (OSError, ValueError):  # another drive, or a deleted working directory
        return str(path)


def folder_size(path: Path) -> int:
    """Bytes of a folder's files. What another process removes meanwhile counts nothing."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                size += os.stat(os.path.join(folder, name)).st_size
    return size


# ── where runs are ───────────────────────────────────────────────────────────────────────────────────────────────────

VARIABLE = "BREWGRAPH_RUNS"
_RUNS = "runs"


def runs_folder(beside: Path, runs: Path | None = None) -> Path:
    """The folder of the runs of specs in `beside`: `runs`, else what BREWGRAPH_RUNS names, else `runs` in `beside`."""
    named = runs or os.environ.get(VARIABLE)
    return at_home(named) if named else beside / _RUNS


def teacher_folder(name: str, beside: Path, runs: Path | None, near: Sequence[Path]) -> RunFolder:
    """The run of that name to learn from, of a spec in `beside`: a finished one if there is one, else the place where
    it is trained.

    It is searched where runs are made, beside its spec, and in `near`, the folders of the runs that learn from it. A
    name holds the run's hash, so that runs of one name are the same run.
    """
    folders = dict.fromkeys((runs_folder(beside, runs), beside / _RUNS, *near))
    places = [RunFolder(folder / name) for folder in folders]
    return next((place for place in places if place.finished is not None), places[0])


def named_run(target: str | Path) -> RunFolder:
    """The folder that a user means by the path of a run, of a run's `alone`, or of the `student` in either.

    If there is no such path, it may be a name in the working directory's folder of runs; else it stays as it is.
    """
    path = at_home(target)
    for place in (path, runs_folder(Path()) / path):
        put_back(place)
        around = place.parent if place.name else place.absolute().parent
        if place.absolute() == RunFolder(around.absolute()).student and _is_run(around):
            return RunFolder(around)
        if place.is_dir() and (place == path or _is_run(place)):
            return RunFolder(place)
    return RunFolder(path)


def _is_run(path: Path) -> bool:
    return RunFolder(path).whole.resolved is not None
