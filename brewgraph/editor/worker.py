"""The process that checks specs in full, beside the server: it may load torch, and take its time.

It reads a request per line from stdin, `{"id", "kind", …}` in JSON, and writes an answer per line to stdout, `{"id",
"result"}`; a cancelled one is answered by `{"id", "cancelled"}`. The kinds: `check` with `name` and `text` answers
`SpecFacts`; `explain` with `name`, `text` and `what` the facts of a name, its cost among them.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

from brewgraph.diagnostics import BrewError, SpecError
from brewgraph.editor.analysis import faults_of
from brewgraph.editor.facts import SpecFacts
from brewgraph.editor.gather import models_alone, models_of, shapes_of, terms_of
from brewgraph.source import Source

if TYPE_CHECKING:
    from brewgraph.checking.check import Checked


class Worker:
    """Answers one request after another in the main thread; another one reads what is asked and what is cancelled."""

    def __init__(self, requests: IO[str], answers: IO[str]):
        self.requests, self.answers = requests, answers
        self.waiting: deque[Mapping[str, Any]] = deque()
        self.changed = threading.Condition()
        self.running: int | None = None
        self.written: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.checked: tuple[Source, Checked] | None = None

    def serve(self) -> None:
        """Answer requests until stdin ends."""
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._write, daemon=True).start()
        while True:
            try:
                self._next()
            except KeyboardInterrupt:  # of a request that ended in the same moment
                continue

    def _next(self) -> None:
        with self.changed:
            while not self.waiting:
                self.changed.wait()
            request = self.waiting.popleft()
            self.running = request["id"]
        try:
            answer = {"id": request["id"], "result": KINDS[request["kind"]](self, request)}
        except KeyboardInterrupt as interrupt:
            # what was interrupted while it was imported is half there: a new process takes over
            answer = {"id": request["id"], "cancelled": True, "ends": _was_importing(interrupt)}
        except Exception as error:  # a fault of brewgraph or of a library must not end the session
            answer = {"id": request["id"], "error": f"{type(error).__name__}: {error}"}
        with self.changed:
            self.running = None
        self.written.put(answer)

    def _read(self) -> None:
        for line in self.requests:
            request = json.loads(line)
            with self.changed:
                if "cancel" not in request:
                    self.waiting.append(request)
                    self.changed.notify()
                elif request["cancel"] == self.running:
                    threading.Thread(target=self._cancel, args=(self.running,), daemon=True).start()
                else:
                    dropped = [x for x in self.waiting if x["id"] == request["cancel"]]
                    self.waiting = deque(x for x in self.waiting if x not in dropped)
                    for x in dropped:
                        self.written.put({"id": x["id"], "cancelled": True, "ends": False})
        os._exit(0)  # the server is gone

    def _cancel(self, number: int) -> None:
        """Interrupt a running request, but let what is being imported finish: the next request needs it, too."""
        while True:
            with self.changed:
                if self.running != number:
                    return
                if not _is_importing():
                    _interrupt()
                    return
            time.sleep(_STEP)

    def _write(self) -> None:
        while True:
            answer = self.written.get()
            print(json.dumps(answer), file=self.answers, flush=True)
            if answer.get("ends"):
                os._exit(0)

    # ── what can be asked ────────────────────────────────────────────────────────────────────────────────────────────

    def check(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of a text."""
        from brewgraph.checking.check import check
        from brewgraph.diagnostics import Collector
        from brewgraph.syntax.parser import parse

        source = Source(request["text"], request["name"])
        try:
            checked = check(source)
        except SpecError as error:
            spec = parse(source, Collector())
            faults = faults_of(error.diagnostics, spec, source)
            return SpecFacts(faults, models=models_alone(spec, source)).as_json()
        self.checked = source, checked
        spec = parse(source, Collector())
        return SpecFacts(
            faults_of(checked.warnings, spec, source),
            tuple(shapes_of(checked, source)),
            tuple(terms_of(checked, source)),
            models_of(checked),
        ).as_json()

    def explain(self, request: Mapping[str, Any]) -> list[list[str]]:
        """What a name of the last sound text means: titles and words, costs among them."""
        from brewgraph.inspect.graph_of import explain

        if self.checked is None or self.checked[0] != Source(request["text"], request["name"]):
            return []
        try:
            meanings = explain(self.checked[1], request["what"])
        except BrewError:
            return []
        rows = []
        for x in meanings:
            rows += [["in", x.where]] if x.where and len(meanings) > 1 else []
            rows += [list(fact) for fact in x.facts]
            rows += [["feeds", ", ".join(x.downstream)]] if x.downstream else []
        return rows


KINDS: Mapping[str, Callable[[Worker, Mapping[str, Any]], Any]] = {"check": Worker.check, "explain": Worker.explain}


_STEP = 0.05
"""Seconds between two looks at what is being imported."""


def _is_importing() -> bool:
    """Whether a module is being loaded."""
    specs = (getattr(module, "__spec__", None) for module in list(sys.modules.values()))
    return any(getattr(spec, "_initializing", False) for spec in specs)


def _was_importing(interrupt: KeyboardInterrupt) -> bool:
    """Whether an interrupt came while a module was loaded."""
    frames = traceback.walk_tb(interrupt.__traceback__)
    return any(frame.f_code.co_filename.startswith("<frozen importlib") for frame, _ in frames)


def _interrupt() -> None:
    """`KeyboardInterrupt` in the main thread, also where it waits for a file or the network."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def main() -> None:
    """Serve on stdin and stdout. What libraries print goes to stderr."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    Worker(os.fdopen(os.dup(0), encoding="utf-8"), answers).serve()


if __name__ == "__main__":
    main()
