"""Callbacks of an embedded run: what they are told, how they end a run, and that a resumed run goes on telling."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import brewgraph as bg
from brewgraph.training.folder import RunFolder
from tests import warm
from tests.small import metrics, project

TRAIN = (
    'steps = 6; eval_steps = 2 steps; save_steps = 3 steps; metric_for_best_model = "loss"; greater_is_better = false'
)


class Told(bg.Callback):
    """Keeps every event; raises `error` at an event of this name and step."""

    def __init__(self, at: tuple[str, int] = ("", 0), error: Exception | SystemExit | None = None):
        self.at, self.error = at, error
        self.events: list[tuple[Any, ...]] = []

    def _keep(self, name: str, step: int, *content: Any) -> None:
        self.events.append((name, step, *content))
        if (name, step) == self.at and self.error is not None:
            raise self.error

    def on_step(self, event: bg.StepEvent) -> None:
        self._keep("step", event.step, event.loss, event.terms, event.lr)

    def on_evaluate(self, event: bg.EvaluationEvent) -> None:
        self._keep("evaluate", event.step, event.scores, event.best)

    def on_checkpoint(self, event: bg.CheckpointEvent) -> None:
        assert (event.path / "complete.json").is_file()
        assert event.path == RunFolder(event.folder).checkpoint(event.step)
        self._keep("checkpoint", event.step)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps, evaluated every two, saved every three."""
    return project(tmp_path_factory.mktemp("callbacks"), train=TRAIN)


@pytest.fixture(scope="module")
def whole(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
    """The events of an uninterrupted run, and the lines of its metrics."""
    told, out = Told(), tmp_path_factory.mktemp("whole") / "run"
    result = bg.load(spec).run(out=out, callbacks=[told])
    assert result.stopped is None
    return told.events, metrics(out)


def test_each_event_tells_what_the_run_writes_down(whole: tuple[list[Any], list[Any]]) -> None:
    """Every step with its loss and terms, every evaluation with its scores, every checkpoint when it is there."""
    events, lines = whole
    places = [event[:2] for event in events]
    assert places == [
        ("step", 1), ("step", 2), ("evaluate", 2), ("step", 3), ("checkpoint", 3), ("step", 4), ("evaluate", 4),
        ("step", 5), ("step", 6), ("evaluate", 6), ("checkpoint", 6),
    ]  # fmt: skip
    steps = [line for line in lines if "loss" in line]
    assert [event[2:] for event in events if event[0] == "step"] == [(x["loss"], x["terms"], x["lr"]) for x in steps]
    scores = [line["dev"] for line in lines if "dev" in line]
    assert [event[2] for event in events if event[0] == "evaluate"] == scores
    best, losses = [], [x["loss"] for x in scores]
    for n, loss in enumerate(losses):
        best.append(n == 0 or loss < min(losses[:n]))
    assert [event[3] for event in events if event[0] == "evaluate"] == best


@pytest.mark.parametrize(
    "at", [("step", 1), ("step", 4), ("evaluate", 4), ("checkpoint", 3), ("step", 6), ("checkpoint", 6)]
)
def test_a_run_that_a_callback_stops_goes_on(at: tuple[str, int], spec: Path, whole: Any, tmp_path: Path) -> None:
    """A checkpoint is written, the result says why and how to go on; both runs together tell what one would."""
    first, second = Told(at, bg.StopRun("enough")), Told()
    recipe, out = bg.load(spec), tmp_path / "run"
    stopped = recipe.run(out=out, callbacks=[first])
    assert (stopped.stopped, stopped.table, stopped.folder) == ("enough", (), out)
    assert str(stopped).endswith("/run: enough; the same call resumes it")
    assert not RunFolder(out).finished
    done = recipe.run(out=out, callbacks=[second])
    assert done.stopped is None
    assert len(done.table) == 2
    together = [*first.events, *second.events]
    if at[0] != "checkpoint":
        together.remove(("checkpoint", at[1]))  # that of the interruption, which is told, too
    assert together == whole[0]
    assert metrics(out) == whole[1]


def test_an_exception_of_a_callback_leaves_the_run_as_it_is(spec: Path, tmp_path: Path) -> None:
    """The same object with its cause, after a checkpoint; it notes how to go on; the run has not failed."""
    cause = KeyError("inside")
    error = OSError(28, "No space left on device", "elsewhere")  # which would read as a fault of the run folder
    error.__cause__ = cause
    out, after = tmp_path / "run", Told()
    with pytest.raises(OSError, match="elsewhere") as raised:
        bg.load(spec).run(out=out, callbacks=[Told(("step", 4), error), after])
    assert raised.value is error
    assert error.__cause__ is cause
    assert error.__notes__ == ["spec resumes at step 4"]
    assert [event[:2] for event in after.events][-2:] == [("step", 4), ("checkpoint", 4)]  # others are told
    assert [step for step, _ in RunFolder(out).complete_checkpoints()] == [3, 4]
    assert not (out / "failed.json").exists()


def test_without_checkpoints_at_signals_there_is_none(tmp_path: Path) -> None:
    """`save_on_signal = false` holds for callbacks, too: the run ends, and starts anew."""
    path = project(tmp_path, train="steps = 3; save_on_signal = false")
    told = Told(("step", 2), ValueError("no"))
    with pytest.raises(ValueError, match="no") as raised:
        bg.load(path).run(out=tmp_path / "run", callbacks=[told])
    assert raised.value.__notes__ == ["no checkpoint exists yet, so training starts anew"]
    assert [event[:2] for event in told.events] == [("step", 1), ("step", 2)]


def test_a_run_without_its_teacher_has_events_of_its_own(tmp_path: Path) -> None:
    """Each training has its name and its folder."""

    class Names(bg.Callback):
        names: list[tuple[str, str, int]] = []  # noqa: RUF012

        def on_step(self, event: bg.StepEvent) -> None:
            self.names.append((event.run, event.folder.name, event.step))

    path = project(tmp_path, train="steps = 1; baseline = true")
    bg.run(path, out=tmp_path / "run", callbacks=[Names()])
    assert Names.names == [("spec without its teacher", "alone", 1), ("spec", "run", 1)]


def test_what_is_no_callback(spec: Path) -> None:
    """A function, a class, a method that nobody calls, a returned value: each says what to write."""

    class Typo(bg.Callback):
        def on_steps(self, event: bg.StepEvent) -> None:
            raise AssertionError

    class Returns(bg.Callback):
        def on_step(self, event: bg.StepEvent) -> None:
            return False  # type: ignore[return-value]

    class Early(bg.Callback):
        def on_step(self) -> None:  # type: ignore[override]
            raise AssertionError

    class Late(bg.Callback):
        async def on_evaluate(self, event: bg.EvaluationEvent) -> None:  # type: ignore[override]
            raise AssertionError

    class Empty(bg.Callback):
        on_checkpoint = None  # type: ignore[assignment]

    recipe = bg.load(spec)
    with pytest.raises(bg.UsageError, match=r"^`callbacks` is a list, got a value of type `Told`: write `callbacks=\["):
        recipe.run(callbacks=Told())  # type: ignore[arg-type]
    for wrong, words in (
        (Early(), r"`Early.on_step` does not take one argument, the event: write `def on_step\(self, event\)`"),
        (Late(), r"`Late.on_evaluate` is async, and nobody would await it: write `def on_evaluate\(self, event\)`"),
        (Empty(), r"`Empty.on_checkpoint` is no method, but a value of type `NoneType`: write `def on_checkpoint\("),
        (print, "an object of a subclass of `brewgraph.Callback`, got a `builtin_function_or_method`"),
        (Told, r"got the class `Told`: `Told\(\)`"),
        (Typo(), r"`Typo.on_steps` is never called: did you mean `on_step`\?"),
    ):
        with pytest.raises(bg.UsageError, match=words):
            recipe.run(callbacks=[wrong])  # type: ignore[list-item]
    with pytest.raises(
        bg.UsageError, match=r"`Returns.on_step` returned False, .*: to end the run, raise brewgraph.StopRun"
    ):
        recipe.run(out=spec.parent / "returns", callbacks=[Returns()])


def test_what_a_callback_leaves_in_the_student_trains_nothing(tmp_path: Path) -> None:
    """Eval mode, gradients, an average by `deepcopy`, drawn numbers: the student, with dropout, is the same to the bit."""
    seen: list[nn.Module] = []

    class Probe(bg.Callback):
        def _probe(self, event: bg.RunEvent) -> None:
            torch.manual_seed(1)
            student = event.distiller.student.eval()
            sum(p.sum() for p in student.parameters() if p.requires_grad).backward()
            seen.append(copy.deepcopy(student))

        on_step = on_evaluate = on_checkpoint = _probe

    recipe = bg.load(project(tmp_path, train="steps = 4; save_steps = 2 steps", dropout=True))
    students = [recipe.run(out=tmp_path / name, callbacks=x) for name, x in (("a", []), ("b", [Probe()]))]
    plain, probed = (load_file(x.folder / "student" / "model.safetensors") for x in students)
    assert all(plain[name].equal(probed[name]) for name in plain)
    assert len(seen) == 4 + 2 + 1  # steps, checkpoints, and the evaluation at the end


def test_a_callback_that_exits_leaves_a_checkpoint(spec: Path, tmp_path: Path) -> None:
    """`sys.exit` in a callback is raised by `run` with its code, and the same call resumes."""
    recipe, out = bg.load(spec), tmp_path / "run"
    with pytest.raises(SystemExit) as raised:
        recipe.run(out=out, callbacks=[Told(("step", 4), SystemExit(7))])
    assert (raised.value.code, raised.value.__notes__) == (7, ["spec resumes at step 4"])
    assert recipe.run(out=out).fresh


SCRIPT = """
import json, os, sys
import brewgraph as bg

class Told(bg.Callback):
    def on_step(self, event):
        print(json.dumps(["step", os.environ["RANK"], event.step]), flush=True)
        if event.step == 2 and sys.argv[3] == "stop":
            raise bg.StopRun("two")

result = bg.run(sys.argv[1], out=sys.argv[2], callbacks=[Told()])
print(json.dumps(["end", os.environ["RANK"], result.stopped]), flush=True)
"""


@pytest.mark.slow
def test_of_two_processes_one_tells_and_both_stop(tmp_path: Path) -> None:
    """The first process calls; all end at the same step, and go on from there."""
    path = project(tmp_path, train="steps = 3")
    told = []
    for how in ("stop", "go"):
        said = "".join(warm.start_ranks("-c", SCRIPT, str(path), str(tmp_path / "run"), how))
        told.append(sorted(json.loads(line) for line in said.splitlines() if line.startswith("[")))
    assert told == [
        [["end", "0", "two"], ["end", "1", "two"], ["step", "0", 1], ["step", "0", 2]],
        [["end", "0", None], ["end", "1", None], ["step", "0", 3]],
    ]
