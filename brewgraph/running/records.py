"""The runs in a folder, as values: what each is, its state, its scores and its size. Loads no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from brewgraph.diagnostics import RunError, UsageError
from brewgraph.paths import shown
from brewgraph.running.damage import damage, rows_of
from brewgraph.running.scores import ScoreRow
from brewgraph.training.folder import RunFolder, display_path, folder_size, named_run
from brewgraph.training.lock import is_owned, locked

State = Literal["finished", "running", "interrupted", "failed", "damaged"]
"""`failed` is a run that an error ended, `interrupted` one that ended without a word or by a signal, and of a `damaged`
one the files cannot be read.
"""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it. `when` is the time of its last line or end, in seconds since 1970; `step` the last
    step that an unfinished run has logged; `error` what ended a failed one, or what is wrong with a damaged one.
    """

    folder: RunFolder
    state: State
    hash: str
    params: Mapping[str, Any]
    table: tuple[ScoreRow, ...]
    when: float
    step: int | None
    error: str
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.path.name

    @property
    def spec(self) -> str:
        """The name of the spec, of a folder that a run named itself: NAME-HASH."""
        return self.name.rpartition("-")[0] or self.name

    @property
    def student(self) -> ScoreRow | None:
        """The row of the student: the last one."""
        return self.table[-1] if self.table else None

    @cached_property
    def size(self) -> int:
        """Bytes on disk."""
        return folder_size(self.folder.path)


def read_record(folder: RunFolder) -> RunRecord | None:
    """The run in a folder; None if none has begun there."""
    resolved, finished, failure = folder.resolved, folder.finished, folder.failure
    wrong = damage(folder)
    if resolved is None and not wrong:
        return None
    known = resolved if resolved is not None and not wrong else {}
    state: State = "interrupted" if failure is None else "failed"
    if is_owned(folder.path):
        state = "running"
    elif wrong:
        state = "damaged"
    elif finished is not None:
        state = "finished"
    times = []
    for name in ("resolved.json", "metrics.jsonl", "finished.json", "failed.json"):
        with suppress(OSError):
            times.append((folder.path / name).stat().st_mtime)
    return RunRecord(
        folder=folder,
        state=state,
        hash=str(known.get("hash", "")),
        params=known.get("params", {}),
        table=rows_of(finished or {}) if not wrong else (),
        when=max(times, default=0.0),
        step=None if state == "finished" else folder.last_step,
        error={"failed": failure or "", "damaged": wrong}.get(state, ""),
        tags=folder.tags,
    )


@dataclass(frozen=True)
class Filter:
    """Which runs are meant: those that fit all of these. An empty collection means any."""

    names: Collection[str] = ()
    states: Collection[str] = ()
    tags: Collection[str] = ()
    params: Mapping[str, Any] | None = None

    def fits(self, record: RunRecord) -> bool:
        return (
            (not self.names or any(fnmatch(record.name, name) for name in self.names))
            and (not self.states or record.state in self.states)
            and set(self.tags) <= set(record.tags)
            and all(name in record.params and _same(record.params[name], x) for name, x in (self.params or {}).items())
        )


def _same(value: Any, wanted: Any) -> bool:
    """Whether a param in a file has a value: lists there are tuples here."""
    return bool((tuple(value) if isinstance(value, list) else value) == wanted)


def records(home: Path, wanted: Filter = Filter()) -> tuple[RunRecord, ...]:
    """The runs in a folder of runs, the newest first. Raises `UsageError` if there is no such folder."""
    if not home.is_dir():
        where = display_path(home)
        raise UsageError(f"there is no folder `{where}`: runs are in `runs/` beside each spec; name it with --runs")
    every = (read_record(RunFolder(path)) for path in home.iterdir() if os.path.lexists(path / "resolved.json"))
    return tuple(sorted(filter(wanted.fits, filter(None, every)), key=lambda record: record.when, reverse=True))


def record_of(target: str, home: Path) -> RunRecord:
    """The run of this name in a folder of runs, or in the folder of this path. Raises `UsageError`."""
    for folder in (RunFolder(home / target), named_run(target).whole):
        if (record := read_record(folder)) is not None:
            return record
    there = sorted(path.parent.name for path in home.glob("*/resolved.json"))
    near = [name for name in there if name.startswith(target)]
    if len(near) == 1 and (record := read_record(RunFolder(home / near[0]))) is not None:
        return record
    known = ", ".join((near or there)[:5])
    help = f"{display_path(home)} has {known}" if known else "name the folder that `brewgraph run` made"
    raise UsageError(f"there is no run `{target}`: {help}")


def remove(record: RunRecord) -> None:
    """Remove a run's folder. Raises `RunError` if another process is at it."""
    path = record.folder.path
    with locked(path, lambda text: None):
        for part in sorted(path.iterdir(), key=lambda part: part.name == "resolved.json"):
            if part.name != ".lock":  # which others see until the end
                shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
    with suppress(OSError):  # another process may have begun there
        path.rmdir()


def change_tags(record: RunRecord, tags: Collection[str], *, delete: bool) -> tuple[str, ...]:
    """Add tags to a run, or take them away; the tags that it has then. Raises `UsageError`, `RunError`."""
    tags = [" ".join(tag.split()) for tag in tags]
    for tag in tags:
        if not tag.isprintable() or not tag or "," in tag:
            raise UsageError(f"`{shown(tag)}` cannot be a tag: write words that can be printed, without a comma")
    kept = set(record.tags) - set(tags) if delete else {*record.tags, *tags}
    try:
        record.folder.set_tags(kept)
    except OSError as error:
        raise RunError(f"`{display_path(record.folder.path)}` cannot be written: {error.strerror}") from error
    return tuple(sorted(kept))


def differing_params(of: Collection[RunRecord]) -> Iterator[str]:
    """The params in which runs of one spec differ."""
    by_spec: dict[str, list[Mapping[str, Any]]] = {}
    for record in of:
        by_spec.setdefault(record.spec, []).append(record.params)
    names = dict.fromkeys(name for runs in by_spec.values() for params in runs for name in params)
    for name in names:
        if any(len({repr(params.get(name)) for params in runs}) > 1 for runs in by_spec.values()):
            yield name
