"""A run's folder: its files, written so that a crash never leaves an incomplete one, and where runs are.

RUN/
  spec.brew        the spec as it was run          resolved.json   params, hash, versions, models, data
  metrics.jsonl    a line per logging interval and per evaluation
  tensorboard/     the same numbers for TensorBoard, if the `board` extra is installed
  checkpoints/step-000500/   student/ projections.safetensors state.pt complete.json
  checkpoints/best/          with `metric_for_best_model`: student/ projections.safetensors state.pt of the best so far
  student/         the finished student, as save_pretrained writes it, with its tokenizer
  projections.safetensors    the finished projections
  alone/           with `baseline = true`: the same of the student without its teacher
  finished.json    the closing table, written last: a run without it is unfinished
  profile.json     the trace of `run --profile`, before or after the run
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import RunError

_BASELINE = "alone"


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
    def best(self) -> Path:
        return self.checkpoints / "best"

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
        return read_json(self.path / "finished.json")

    @property
    def resolved(self) -> dict[str, Any] | None:
        return read_json(self.path / "resolved.json")

    def prepare(self, option: str = "--runs") -> None:
        """Create the folder. Raises `RunError`, with the `option` that names another one, if it is not writable."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".write-test"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise RunError(
                f"the run folder `{display_path(self.path)}` cannot be written: {error.strerror}; "
                f"choose another folder with {option}"
            ) from error

    def clear(self) -> None:
        """Remove what an earlier run left."""
        for name in ("finished.json", "metrics.jsonl", "resolved.json", "spec.brew", "projections.safetensors"):
            (self.path / name).unlink(missing_ok=True)
        for path in (self.checkpoints, self.student, self.board, self.baseline.path):
            shutil.rmtree(path, ignore_errors=True)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.path / name, json_text(content, indent=1) + "\n")

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json_text(line) + "\n")

    def truncate_log(self, step: int) -> None:
        """Drop the lines after a step, which a resumed run writes again, and a line that a crash cut short."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        write_text(path, "".join(kept))

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def writing_checkpoint(self, step: int) -> Iterator[Path]:
        """A temporary folder that becomes the checkpoint when the block succeeds."""
        with replacing(self.checkpoints / f"step-{step:06d}") as temporary:
            yield temporary
            files = sorted(path for path in temporary.rglob("*") if path.is_file())
            sizes = {str(path.relative_to(temporary)): path.stat().st_size for path in files}
            for file in files:
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
            write_text(temporary / "complete.json", json.dumps({"step": step, "files": sizes}, indent=1))
        if os.name == "posix":  # have the names in the folder written to disk, as `fsync` has a file's content
            descriptor = os.open(self.checkpoints, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def complete_checkpoints(self) -> list[tuple[int, Path]]:
        """The complete checkpoints with their steps, oldest first: every file has the size that was written."""
        complete = []
        for path in self.checkpoints.glob("step-*"):
            content = read_json(path / "complete.json")
            if content is not None and all(
                (path / f).is_file() and (path / f).stat().st_size == size for f, size in content["files"].items()
            ):
                complete.append((int(content["step"]), path))
        return sorted(complete)

    def rotate(self, keep: int) -> None:
        """Remove all but the last `keep` complete checkpoints, and incomplete ones."""
        for _, path in self.complete_checkpoints()[:-keep]:
            shutil.rmtree(path)
        for path in self.checkpoints.glob(".*.part"):
            shutil.rmtree(path)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block succeeds."""
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def json_text(content: Any, indent: int | None = None) -> str:
    """A value as JSON; infinity and NaN become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(x) for key, x in value.items()}
        if isinstance(value, list | tuple):
            return [finite(x) for x in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(content), indent=indent, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError):
        return None


def display_path(path: Path) -> str:
    """A path to print: relative to the working directory if that is shorter."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except (OSError, ValueError):  # another drive, or a deleted working directory
        return str(path)


def folder_size(path: Path) -> int:
    """Bytes of a folder's files."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


# ── where runs are ───────────────────────────────────────────────────────────────────────────────────────────────────

VARIABLE = "BREWGRAPH_RUNS"
_RUNS = "runs"


def runs_folder(beside: Path, runs: Path | None = None) -> Path:
    """The folder of the runs of specs in `beside`: `runs`, else what BREWGRAPH_RUNS names, else `runs` in `beside`."""
    named = runs or os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else beside / _RUNS


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
    path = Path(target).expanduser()
    for place in (path, runs_folder(Path()) / path):
        around = place.parent if place.name else place.absolute().parent
        if place.absolute() == RunFolder(around.absolute()).student and _is_run(around):
            return RunFolder(around)
        if place.is_dir() and (place == path or _is_run(place)):
            return RunFolder(place)
    return RunFolder(path)


def _is_run(path: Path) -> bool:
    return RunFolder(path).whole.resolved is not None
