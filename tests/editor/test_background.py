"""The worker: what is cancelled ends early, and an ended worker is started again."""

from __future__ import annotations

import asyncio
import io
import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brewgraph.editor.background import Background
from brewgraph.editor.worker import KINDS, Worker


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """SIGINT as the worker has it, whatever other tests made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


FAULTY = """\
brew 1
teacher big = hf("b")
student tiny = hf("t")
data d = glue("mnli")
loss = ce(d.labels -> tinny.logits)
"""


def test_a_check_answers_with_its_faults(tmp_path: Path):
    """The faults of a text, at their offsets, from a process that is started for it, and once more after it was
    ended.
    """

    async def session() -> list[list[tuple[str, int]]]:
        background, answers = Background(), []
        try:
            for _ in range(2):
                answer = await background.ask("check", name=str(tmp_path / "s.brew"), text=FAULTY)
                answers.append([(x["code"], x["start"]) for x in answer["faults"]])
                background.close()
                await background._process.wait()  # type: ignore[union-attr]
            return answers
        finally:
            background.close()

    assert asyncio.run(session()) == [[("B101", FAULTY.index("tinny"))]] * 2


def test_a_worker_that_ends_answers_nothing(tmp_path: Path):
    """Whoever waits for an answer gets None, and does not wait forever."""

    async def session() -> object:
        background = Background()
        asked = asyncio.create_task(background.ask("check", name=str(tmp_path / "s.brew"), text=FAULTY))
        while background._process is None:
            await asyncio.sleep(0.01)
        background.close()
        return await asyncio.wait_for(asked, 60)

    assert asyncio.run(session()) is None


def test_what_is_cancelled_ends_at_once(monkeypatch: pytest.MonkeyPatch):
    """The running request is interrupted, a waiting one dropped, and the next is answered."""
    begun = threading.Event()

    def long(worker: Worker, request: dict[str, object]) -> object:
        begun.set()
        time.sleep(200)
        return "never"

    monkeypatch.setattr("brewgraph.editor.worker.KINDS", {**KINDS, "long": long, "short": lambda *_: "done"})
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    worker = Worker(iter(asked.get, ""), io.StringIO())  # type: ignore[arg-type]
    threading.Thread(target=worker._read, daemon=True).start()

    def cancel() -> None:
        begun.wait(200)
        for number in (2, 1):
            asked.put(json.dumps({"cancel": number}))

    threading.Thread(target=cancel, daemon=True).start()
    for number, kind in enumerate(("long", "short", "short"), 1):
        asked.put(json.dumps({"id": number, "kind": kind}))
    for _ in range(2):
        worker._next()
    said = [worker.written.get(timeout=10) for _ in range(3)]
    assert {x["id"]: x.get("result", "cancelled") for x in said} == {1: "cancelled", 2: "cancelled", 3: "done"}


def test_an_import_is_not_cut_in_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is being imported when a request is cancelled is loaded whole; the request ends after that, and the worker
    goes on.
    """
    (tmp_path / "slow_to_load.py").write_text("import time\nBEGUN.set()\ntime.sleep(0.5)\nLOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    begun = threading.Event()
    monkeypatch.setattr("builtins.BEGUN", begun, raising=False)

    def long(worker: Worker, request: dict[str, object]) -> object:
        import slow_to_load  # noqa: F401

        time.sleep(200)
        return "never"

    monkeypatch.setattr("brewgraph.editor.worker.KINDS", {"long": long})
    worker = Worker(io.StringIO(), io.StringIO())
    worker.waiting.append({"id": 1, "kind": "long"})

    def cancel() -> None:
        begun.wait(200)
        worker._cancel(1)

    threading.Thread(target=cancel, daemon=True).start()
    worker._next()
    assert worker.written.get(timeout=10) == {"id": 1, "cancelled": True, "ends": False}
    assert sys.modules["slow_to_load"].LOADED is True
    del sys.modules["slow_to_load"]
