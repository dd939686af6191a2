"""Ctrl-C and SIGTERM: a training ends with a checkpoint of the step, and goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from brewgraph.diagnostics import RunError
from brewgraph.recipe.length import Length
from brewgraph.training import loop, signals
from brewgraph.training.folder import RunFolder
from brewgraph.training.reporter import Reporter
from brewgraph.training.signals import Signals, Terminated, caught_signals, exit_code, starting_a_process
from brewgraph.training.work import StageWork
from tests.small import metrics
from tests.training.toy import TASKS, Student, Toy, material, run, settings, two_stages, weights

NEVER = Length(50, "step")
KINDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


class At(Reporter):
    """Acts once, behind a step of the whole run."""

    def __init__(self, step: int, act: Callable[[], None]):
        self.left, self.act = step, act

    def step(self, step: int, loss: float | None, terms: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in KINDS]


def test_signals_are_exceptions_in_a_block_and_handlers_are_restored() -> None:
    """Both, at once; blocks are nested; the exit codes are those of a shell."""
    before = handlers()
    for number, kind in KINDS.items():
        with pytest.raises(kind) as raised, caught_signals() as outer, caught_signals() as inner:
            assert inner is outer
            os.kill(os.getpid(), number)
            time.sleep(1)
            pytest.fail("not raised")
        assert exit_code(raised.value) == 128 + number
        assert handlers() == before
    assert Terminated().code == 143


def test_a_deferred_signal_is_noted_and_a_second_one_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second both are one: launchers pass on what a terminal has sent already."""
    now = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    with pytest.raises(Terminated), caught_signals() as caught:
        caught.deferring = True
        os.kill(os.getpid(), signal.SIGTERM)
        now += 0.5
        os.kill(os.getpid(), signal.SIGINT)
        assert caught.number == signal.SIGTERM
        now += 0.6
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("not raised")
    with pytest.raises(KeyboardInterrupt), caught_signals() as caught:
        caught.deferring = True
        os.kill(os.getpid(), signal.SIGINT)
        with caught.at_once():
            pytest.fail("not raised")


def test_a_signal_whose_exception_was_lost_is_raised_at_the_end() -> None:
    """As in a destructor, which raises nothing."""
    reached = False
    with pytest.raises(Terminated), caught_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            reached = True
    assert reached


class Ended:
    """An object in whose destructor signals arrive, and which reports another fault of its own."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __del__(self) -> None:
        for number in self.numbers:
            signal.raise_signal(number)
        raise ValueError("its own")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_is_raised_without_a_report_of_its_loss(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else a destructor raises is reported as before."""
    reported: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda lost: reported.append(str(lost.exc_value)))
    reached = False
    with pytest.raises((KeyboardInterrupt, Terminated)), caught_signals():
        Ended()
        Ended(number)
        reached = True
    assert reached
    Ended()
    assert reported == ["its own", "its own"]


def test_a_signal_while_a_process_starts_is_raised_when_it_is_noted() -> None:
    """Of a start that is broken off nobody knows what to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        noted = False
        with pytest.raises((KeyboardInterrupt, Terminated)), caught_signals():
            with starting_a_process():
                os.kill(os.getpid(), number)
                time.sleep(0.01)
                noted = True
            pytest.fail("not raised")
        assert noted
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_is_ignored_stays_ignored() -> None:
    """`nohup` and background jobs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with caught_signals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_caught() -> None:
    """Python handles signals in the main thread alone."""
    found: list[Any] = []

    def block() -> None:
        with caught_signals() as caught:
            found.extend([type(caught), handlers()])

    before = handlers()
    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert found == [Signals, before]


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", KINDS)
@pytest.mark.parametrize("step", [1, 3, 4, 5, 7, 10])
def test_a_training_stops_with_a_checkpoint_and_goes_on(step: int, number: int, tmp_path: Path) -> None:
    """In any stage, at its end, behind the last step: same weights, same metrics, and no step is repeated."""
    changes = {"save_steps": NEVER}
    whole, lines = run(two_stages(Student(TASKS, 0.2), [], **changes), tmp_path / "whole")
    before = handlers()
    with pytest.raises(KINDS[number]):
        run(two_stages(Student(TASKS, 0.2), [], **changes), tmp_path / "run", At(step, send(number)))
    assert handlers() == before
    assert RunFolder(tmp_path / "run").complete_checkpoints()[-1][0] == step
    reporter = Steps()
    again, found = run(two_stages(Student(TASKS, 0.2), [], **changes), tmp_path / "run", reporter, resume=True)
    assert reporter.steps == whole.step - step
    assert found == lines
    expected = weights(whole.distiller)
    assert all(torch.equal(value, expected[name]) for name, value in weights(again.distiller).items())


class Steps(Reporter):
    """Counts steps."""

    steps = 0

    def step(self, step: int, loss: float | None, terms: Any) -> None:
        self.steps += 1


def one(student: Student, **changes: Any) -> list[StageWork]:
    return [StageWork("", lambda: Toy(student), {"": material(dev=5)}, settings(steps=6, **changes))]


@pytest.mark.parametrize("at", [1, 3, 6])
def test_an_evaluation_is_broken_off_and_comes_first_afterwards(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its step is not repeated, its lines are there once, and the best student and early stopping come out the same."""
    changes: dict[str, Any] = {"metric_for_best_model": "loss", "early_stopping_patience": 2, "report": ("size",)}
    whole, lines = run(one(Student(), **changes), tmp_path / "whole")
    losses_on_dev, calls = loop.losses_on_dev, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses_on_dev(*arguments, **options)

    monkeypatch.setattr(loop, "losses_on_dev", interrupted)
    with pytest.raises(Terminated):
        run(one(Student(), **changes), tmp_path / "run")
    before = [line for line in lines if line["step"] + ("dev" in line) <= at]
    assert metrics(tmp_path / "run") == before
    reporter = Steps()
    again, found = run(one(Student(), **changes), tmp_path / "run", reporter, resume=True)
    assert found == lines
    assert reporter.steps == whole.step - at
    assert again.scores == whole.scores
    expected = weights(whole.distiller)
    assert all(torch.equal(value, expected[name]) for name, value in weights(again.distiller).items())


def test_without_a_folder_or_the_setting_a_signal_ends_at_once(tmp_path: Path) -> None:
    """Nothing is written then."""
    off = {"save_on_signal": False, "save_steps": NEVER}
    for folder, changes in ((None, {}), (tmp_path / "run", off)):
        with pytest.raises(Terminated):
            run(one(Student(), **changes), folder, At(2, send(signal.SIGTERM)))
    assert RunFolder(tmp_path / "run").complete_checkpoints() == []


def test_a_loss_that_is_no_number_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where losses are checked at the logging interval only, as on a GPU, also before the checkpoint of a signal."""
    forward, make = Toy.forward, loop.StageRun.__init__

    def broken(self: Toy, *arguments: Any, **named: Any) -> Any:
        output = forward(self, *arguments, **named)
        if self.progress >= 0.5:
            output.loss = output.loss * float("nan")
            os.kill(os.getpid(), signal.SIGTERM)
        return output

    def seldom(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        self.check_every = 100

    monkeypatch.setattr(Toy, "forward", broken)
    monkeypatch.setattr(loop.StageRun, "__init__", seldom)
    with pytest.raises(RunError, match="the loss is not a finite number at step 4"):
        run(one(Student(), save_steps=NEVER, logging_steps=100, eval_steps=NEVER), tmp_path / "run")
    assert RunFolder(tmp_path / "run").complete_checkpoints() == []
