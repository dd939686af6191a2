"""A run's folder: what lies where, written so that a crash never leaves a half file under a whole name.

RUN/
  spec.brew        the spec as it was run          resolved.json   params, hash, versions, models, data
  metrics.jsonl    a line per logging interval and per evaluation
  tensorboard/     the same numbers for TensorBoard, where the `board` extra is installed
  checkpoints/step-000500/   student/ projections.safetensors state.pt complete.json
  checkpoints/best/          with `metric_for_best_model`: student/ projections.safetensors state.pt of the best so far
  student/         the finished student, as save_pretrained writes it, with its tokenizer
  projections.safetensors    the finished projections
  alone/           with `baseline = true`: the same of the student without its teacher
  finished.json    the closing table, written last: a run without it is unfinished
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import RunError

_BASELINE = "alone"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run and the few ways in which they are written."""

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
    def baseline(self) -> RunFolder:
        """Where the same student without its teachers lies."""
        return RunFolder(self.path / _BASELINE)

    @property
    def whole(self) -> RunFolder:
        """The run that this one is the baseline of; itself where it is none."""
        around = RunFolder(self.path.absolute().parent)
        return around if self.path.absolute().name == _BASELINE and self.resolved is None else self

    @property
    def finished(self) -> dict[str, Any] | None:
        """What `finished.json` says, or None for a run that has not ended."""
        return read_json(self.path / "finished.json")

    @property
    def resolved(self) -> dict[str, Any] | None:
        return read_json(self.path / "resolved.json")

    def prepare(self, option: str = "--runs") -> None:
        """Make the folder. Raises `RunError` where it cannot be written, with the `option` that names another."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".write-test"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise RunError(
                f"the run folder `{shown(self.path)}` cannot be written: {error.strerror}; "
                f"choose another folder with {option}"
            ) from error

    def clear(self) -> None:
        """Remove what an earlier run left, so that nothing old is taken for new."""
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
        """Drop the lines after a step, which a resumed run is going to write again, and one that a crash cut short."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                continue
        write_text(path, "".join(kept))

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def writing_checkpoint(self, step: int) -> Iterator[Path]:
        """A temporary folder that becomes the checkpoint when the block ends well."""
        name = f"step-{step:06d}"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoints / f".{name}.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        sizes = {str(p.relative_to(temporary)): p.stat().st_size for p in sorted(temporary.rglob("*")) if p.is_file()}
        for file in sizes:
            with open(temporary / file, "rb") as handle:
                os.fsync(handle.fileno())
        write_text(temporary / "complete.json", json.dumps({"step": step, "files": sizes}, indent=1))
        shutil.rmtree(self.checkpoints / name, ignore_errors=True)
        temporary.rename(self.checkpoints / name)
        _sync_folder(self.checkpoints)

    def complete_checkpoints(self) -> list[tuple[int, Path]]:
        """The checkpoints that are whole, oldest first: every file is there in the size that was written."""
        found = []
        for path in sorted(self.checkpoints.glob("step-*")):
            said = read_json(path / "complete.json")
            if said is not None and all(
                (path / f).is_file() and (path / f).stat().st_size == size for f, size in said["files"].items()
            ):
                found.append((int(said["step"]), path))
        return sorted(found)

    def rotate(self, keep: int) -> None:
        """Remove the oldest whole checkpoints, the last `keep` stay; and what an interrupted run left half written."""
        for _, path in self.complete_checkpoints()[:-keep]:
            shutil.rmtree(path)
        for path in self.checkpoints.glob(".*.part"):
            shutil.rmtree(path)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one move."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(path: Path) -> None:
    """Have the names in a folder written to the disk, as `fsync` has a file's content."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def json_text(content: Any, indent: int | None = None) -> str:
    """A value as JSON, which knows no infinity and no `NaN`: both are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(x) for key, x in value.items()}
        if isinstance(value, list | tuple):
            return [plain(x) for x in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(content), indent=indent, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return None


def shown(path: Path) -> str:
    """A path to print: relative to the working directory where that is shorter."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except (OSError, ValueError):  # another drive, or a working directory that is gone
        return str(path)


def folder_size(path: Path) -> int:
    """Bytes of a folder's files."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
