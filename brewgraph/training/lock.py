"""One run folder, one run: a lock that names its owner and outlives no process.

The owner's host, process id and start time stand in a file of the folder, on which the process holds a lock of the
operating system while it runs. A free lock alone does not prove that nobody owns the folder: on a network file system
other machines may not see it. So the owner counts as alive until its process is gone from this machine; the start time
tells a new process with a reused id from it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from brewgraph.diagnostics import RunError
from brewgraph.paths import is_file, parse_json
from brewgraph.training.folder import LOCK, display_path

try:
    import fcntl
except ImportError:  # on Windows the file alone decides
    fcntl = None  # type: ignore[assignment]

_CLOCK = 2.0
"""Seconds by which two readings of one start time may differ: the system derives it from its clock."""
_POLL = 1.0
"""Seconds between two looks at a folder that another process owns."""


class InUse(RunError):
    """A live process of this machine owns the folder."""

    def __init__(self, folder: Path, owner: Owner | None):
        self.owner = "another process" if owner is None else f"process {owner.process} on {owner.host}"
        self.folder = display_path(folder)
        remedy = "wait for it, or choose another folder with --out or --runs"
        super().__init__(f"{self.folder} is in use by {self.owner}; {remedy}")


@dataclass(frozen=True)
class Owner:
    """A process: its host, its id there, and when it started, in seconds since 1970."""

    host: str
    process: int
    started: float

    @classmethod
    def this(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    @classmethod
    def read(cls, text: str) -> Owner | None:
        """The owner in a lock file; None for an empty file, or one that a crash left unfinished."""
        try:
            content: Any = parse_json(text)
            return cls(str(content["host"]), int(content["process"]), float(content["started"]))
        except (ValueError, KeyError, TypeError, OverflowError):
            return None

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether a process of this machine is the owner. One that has ended and whose parent has not asked is none."""
        try:
            process = psutil.Process(self.process)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and bool(abs(process.create_time() - self.started) < _CLOCK)
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            return False
        except psutil.AccessDenied:
            return True


def is_owned(folder: Path) -> bool:
    """Whether a process of another machine, or a live one of this machine, owns a folder."""
    if not is_file(folder / LOCK):
        return False
    owner = Owner.read((folder / LOCK).read_text(encoding="utf-8", errors="replace"))
    return owner is not None and (not owner.is_here or owner.is_alive)


@contextmanager
def locked(folder: Path, say: Callable[[str], None], *, wait: bool = False) -> Iterator[None]:
    """Own a run folder within the block. Raises `RunError` if another process does; a dead owner is reported.

    With `wait`, an owner of this machine is waited for and reported once.
    """
    waits = False
    while True:
        try:
            descriptor = _owned(folder, say)
            break
        except InUse as fault:
            if not wait:
                raise
            if not waits:
                say(f"waiting for {fault.owner}, which runs in {fault.folder}")
            waits = True
            time.sleep(_POLL)
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone
            (folder / LOCK).unlink()
        os.close(descriptor)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let the processes that name this folder through the block one after the other, and leave nothing there. Where the
    system or the file system has no such locks, or there is no such folder, nobody waits.
    """
    descriptor = None
    with suppress(OSError):
        if fcntl is not None:
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # which a child process may have inherited
            os.close(descriptor)


def _owned(folder: Path, say: Callable[[str], None]) -> int:
    """The descriptor of a folder's lock, which names this process. Raises `RunError` if another process owns it."""
    path = folder / LOCK
    descriptor = _lock(path)
    try:
        owner = Owner.read(os.read(descriptor, 4096).decode("utf-8", "replace"))
        if owner is not None:
            if not owner.is_here:
                raise RunError(
                    f"{display_path(folder)} belongs to process {owner.process} on {owner.host}; wait for it, or if "
                    f"it has ended, delete {display_path(path)}"
                )
            if owner.is_alive and owner.process != os.getpid():
                raise InUse(folder, owner)
            say(f"process {owner.process}, which ran in {display_path(folder)}, is gone; this process takes over")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(Owner.this())).encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(path: Path) -> int:
    """A descriptor of the lock file, with the lock where the file system has locks. Raises `RunError`."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                owner = Owner.read(os.read(descriptor, 4096).decode("utf-8", "replace"))
                os.close(descriptor)
                raise InUse(path.parent, owner) from None
            # file systems without locks: the content decides
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its owner has just deleted it
