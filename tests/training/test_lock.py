"""One run folder, one run: who may enter, and what others are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brewgraph.diagnostics import RunError
from brewgraph.training import lock
from brewgraph.training.folder import LOCK
from brewgraph.training.lock import Owner, locked, one_at_a_time

HOLDER = """
import sys, time
from pathlib import Path
from brewgraph.training.lock import locked
with locked(Path(sys.argv[1]), print):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_the_folder_is_free_before_and_after(tmp_path: Path, said: list[str]) -> None:
    """Also after an exception; within the block the file names this process."""
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path, said.append):
            assert Owner.read((tmp_path / LOCK).read_text()) == Owner.this()
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []
    assert said == []


def test_a_second_process_is_told_who_owns_the_folder(
    holder: subprocess.Popen[str], tmp_path: Path, said: list[str]
) -> None:
    """And owns it as soon as the other has ended, however it did."""
    for _ in range(2):
        message = rf"is in use by process {holder.pid} on {os.uname().nodename}; wait for it"
        with pytest.raises(RunError, match=message), locked(tmp_path, said.append):
            pytest.fail("two owners")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path, said.append):
        assert Owner.read((tmp_path / LOCK).read_text()) == Owner.this()
    assert said == [f"process {holder.pid}, which ran in {tmp_path}, is gone; this process takes over"]
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("without", ["fcntl", "flock"])
def test_without_locks_of_the_file_system_the_file_decides(
    holder: subprocess.Popen[str], tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    """On Windows, and on network file systems that have none."""
    if without == "fcntl":
        monkeypatch.setattr(lock, "fcntl", None)
    else:

        def refuse(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.raises(RunError, match=f"is in use by process {holder.pid} "), locked(tmp_path, said.append):
        pytest.fail("two owners")
    holder.kill()
    holder.wait()
    with locked(tmp_path, said.append):
        pass
    assert len(said) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"host": "elsewhere"},
            r"belongs to process \d+ on elsewhere; wait for it, or if it has ended, delete .*lock$",
        ),
        ({}, "is in use by process"),
        ({"started": 1.0}, ""),
        ({"process": 2**22 + 5}, ""),
        ({"process": -1}, ""),
        ({"process": 2**80}, ""),
    ],
)
def test_who_counts_as_alive(change: dict[str, object], message: str, tmp_path: Path, said: list[str]) -> None:
    """A process of this machine with the id and the start time; on another machine always."""
    parent = lock.psutil.Process(os.getppid())
    owner = {"host": Owner.this().host, "process": parent.pid, "started": parent.create_time()} | change
    (tmp_path / LOCK).write_text(json.dumps(owner))
    if message:
        with pytest.raises(RunError, match=message), locked(tmp_path, said.append):
            pytest.fail("two owners")
        assert json.loads((tmp_path / LOCK).read_text()) == owner
    else:
        with locked(tmp_path, said.append):
            pass
        assert said == [f"process {owner['process']}, which ran in {tmp_path}, is gone; this process takes over"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "x"}', "\xff\xfe"])
def test_an_unfinished_lock_has_no_owner(text: str, tmp_path: Path, said: list[str]) -> None:
    """Its process ended while it wrote."""
    (tmp_path / LOCK).write_bytes(text.encode("latin-1"))
    with locked(tmp_path, said.append):
        pass
    assert said == []


def test_who_waits_is_told_for_whom_and_enters_next(
    holder: subprocess.Popen[str], tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the owner lives; it is reported once. One that has ended is dead also while its parent has not asked."""
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            holder.kill()
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(lock.time, "sleep", sleep)
    with locked(tmp_path, said.append, wait=True):
        assert Owner.read((tmp_path / LOCK).read_text()) == Owner.this()
    assert len(looks) == 3
    assert said[0] == f"waiting for process {holder.pid} on {os.uname().nodename}, which runs in {tmp_path}"
    assert [line.split(",")[0] for line in said[1:]] == [f"process {holder.pid}"]


TURN = """
import sys, time
from pathlib import Path
from brewgraph.training.lock import one_at_a_time
with one_at_a_time(Path(sys.argv[1])), open(Path(sys.argv[1]) / "log", "a") as log:
    for word in ("in", "out"):
        print(word, file=log, flush=True)
        time.sleep(0.1)
"""


def test_processes_go_through_a_block_one_at_a_time(tmp_path: Path) -> None:
    """And leave nothing in the folder; one that is killed in it holds nobody up, and a folder that is not there neither."""
    with one_at_a_time(tmp_path):
        killed = subprocess.Popen([sys.executable, "-c", TURN.replace("0.1", "60"), str(tmp_path)])
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    processes = [subprocess.Popen([sys.executable, "-c", TURN, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["in", *("in", "out") * 3]
    with one_at_a_time(tmp_path / "gone"):
        assert [path.name for path in tmp_path.iterdir()] == ["log"]
