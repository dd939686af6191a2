"""The worker as the server sees it: asked in the background, cancelled when an answer is no longer wanted."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import Any

_LONGEST_ANSWER = 1 << 26
_PATIENCE = 60.0
"""Seconds that a cancelled request may take to end, before its process is ended."""


class Background:
    """Requests to a worker, which is started with the first of them, and again after it has ended."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        self._starting = asyncio.Lock()

    async def ask(self, kind: str, **values: Any) -> Any:
        """The answer; None if the worker ended first. A caller that is cancelled cancels its request."""
        process = await self._running()
        assert process.stdin is not None
        self._count += 1
        number = self._count
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(process, {"id": number, "kind": kind, **values})
            return await answer
        except asyncio.CancelledError:
            self._send(process, {"cancel": number})
            self._ends_in_time(process, number)
            raise
        except (BrokenPipeError, ConnectionResetError):
            return None

    def _send(self, process: Process, message: dict[str, Any]) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
            process.stdin.write((json.dumps(message) + "\n").encode())

    def _ends_in_time(self, process: Process, number: int) -> None:
        """End a worker that does not answer a cancelled request."""

        def check() -> None:
            if number in self._answers and process.returncode is None:
                process.kill()

        asyncio.get_running_loop().call_later(_PATIENCE, check)

    async def _running(self) -> Process:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                loud = bool(os.environ.get("BREWGRAPH_TRACEBACK"))
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "brewgraph.editor.worker"),
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=None if loud else DEVNULL,
                    limit=_LONGEST_ANSWER,
                    env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
                )
                self._reader = asyncio.create_task(self._read(self._process))
            return self._process

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            answer = json.loads(line)
            future = self._answers.pop(answer["id"], None)
            if future is not None and not future.done():
                future.set_result(answer.get("result"))
            if answer.get("ends"):
                break
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        for number in list(self._answers):  # no answer comes from a process that has ended
            future = self._answers.pop(number)
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """End the worker."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
