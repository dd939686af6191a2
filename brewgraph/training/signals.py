"""Ctrl-C (SIGINT) and SIGTERM: an exception at once, or noted until a run has written a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_REQUEST = 1.0
"""Signals within so many seconds are one request: launchers pass on what a terminal sends to all processes."""


class Terminated(SystemExit):
    """What SIGTERM raises, as SIGINT raises `KeyboardInterrupt`. The exit code is 143, also if nobody catches it."""

    def __init__(self, message: str = ""):
        super().__init__(128 + signal.SIGTERM)
        self.message = message

    def __str__(self) -> str:
        return self.message


INTERRUPTIONS = (KeyboardInterrupt, Terminated)


def exit_code(interruption: BaseException) -> int:
    """130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT)


class Signals:
    """The request to end that a process has received. While `deferring`, the first signal only sets `number`; a second
    one is raised in any case.
    """

    def __init__(self) -> None:
        self.number = 0
        self.deferring = False
        self._last = 0.0
        self._process = os.getpid()

    def receive(self, number: int, frame: Any) -> None:
        """The handler of both signals."""
        if os.getpid() != self._process:  # a child process inherits the handler, and ends as it would without
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        now, second = time.monotonic(), self.number != 0
        if second and now - self._last < _ONE_REQUEST:
            return
        self.number, self._last = self.number or number, now
        if second or not self.deferring:
            self.end()

    def end(self, number: int = 0) -> None:
        """Raise what belongs to a signal, by default the one received; nothing without any."""
        match number or self.number:
            case signal.SIGINT:
                raise KeyboardInterrupt
            case signal.SIGTERM:
                raise Terminated

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block a signal is raised, also one that was noted before."""
        before, self.deferring = self.deferring, False
        try:
            self.end()
            yield
        finally:
            self.deferring = before


_current: Signals | None = None


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catch both signals within the block, and restore the handlers behind it; blocks may be nested.

    Nothing is caught outside the main thread, where Python handles no signals, and no signal that this process ignores
    (`nohup`). A signal whose exception was lost, as in a destructor, is raised at the end of the block; Python's own
    report of the loss is left out.
    """
    global _current
    if _current is not None:
        before = _current.deferring
        try:
            yield _current
        finally:
            _current.deferring = before
        _current.end()
        return
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    # a handler that was not set from Python reads as None, and could not be set again
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    _current, report = signals, sys.unraisablehook

    def report_others(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, INTERRUPTIONS):
            report(lost)

    try:
        for number in handlers:
            signal.signal(number, signals.receive)
        sys.unraisablehook = report_others
        yield signals
    finally:
        sys.unraisablehook = report
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _current = None
    signals.end()


@contextmanager
def starting_a_process() -> Iterator[None]:
    """Within the block a process is started and noted as one to end. It never receives SIGINT, which a terminal sends
    to all processes: this one ends it, also where it has not come to the point at which it catches signals. What this
    process receives meanwhile is raised behind the block, when it knows of the other.
    """
    blocks = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else set()
    try:
        with caught_signals() as signals:
            signals.deferring = True
            yield
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
