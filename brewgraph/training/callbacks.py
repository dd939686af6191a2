"""What code around a run is told, and how it ends the run: `recipe.run(callbacks=[…])`."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from brewgraph.diagnostics import RunError, UsageError, listing, suggest
from brewgraph.training.signals import Terminated

if TYPE_CHECKING:
    from brewgraph.runtime.distiller import Distiller


@dataclass(frozen=True)
class RunEvent:
    """Where a training is.

    `run` is its name, that of the spec's file; a run may also train teachers that are specs and a student without its
    teacher, each under a name and in a folder of its own. `step` counts the optimizer steps of the training,
    `stage_step` those of the stage, of `stage_steps`. `distiller` holds the student as it is now, if models are sharded
    this process's shards: look at it, do not change its weights. It trains on in train mode and without the gradients
    that a callback leaves.
    """

    run: str
    folder: Path
    stage: str
    step: int
    stage_step: int
    stage_steps: int
    distiller: Distiller = field(repr=False)


@dataclass(frozen=True)
class StepEvent(RunEvent):
    """A step is done. `loss` and its unweighted `terms` are means since the last logging interval (`logging_steps`),
    None and empty in between; `lr` is the learning rate of the next step.
    """

    task: str
    loss: float | None
    terms: Mapping[str, float]
    lr: float


@dataclass(frozen=True)
class EvaluationEvent(RunEvent):
    """The student was evaluated: its `scores` on the dev split by `metric`, with several tasks by `task/metric`. `best`
    says whether they are the best so far by `metric_for_best_model`; None without that setting.
    """

    scores: Mapping[str, float]
    best: bool | None


@dataclass(frozen=True)
class CheckpointEvent(RunEvent):
    """A checkpoint is written, whole and in its place. The run deletes it once it has `save_total_limit` newer ones,
    and at its end: copy what is to be kept.
    """

    path: Path


class Callback:
    """Override what you want to be told. Of several processes only the first one calls callbacks.

    To end the run, raise `StopRun("reason")`: a checkpoint is written, `run` returns with `stopped` set, and the same
    call resumes. Any other exception is raised by `run` after a checkpoint. With `save_on_signal = false` there is no
    checkpoint, as after Ctrl-C. What a callback returns must be None.

    A resumed run goes on with the next event, so that together both call what one uninterrupted run would; only
    `on_checkpoint` is also called for the checkpoint of the interruption. After a crash the steps since the last
    checkpoint are run again, and told again.
    """

    def on_step(self, event: StepEvent) -> None:
        """An optimizer step is done."""

    def on_evaluate(self, event: EvaluationEvent) -> None:
        """The student was evaluated on the dev split."""

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """A checkpoint was written."""


class StopRun(Exception):
    """Raised by a callback to end the run after a checkpoint."""


class EndedByCallback(Exception):
    """Carries what a callback raised through the run, past whoever explains the machine's own failures."""

    def __init__(self, error: Exception | SystemExit):
        super().__init__(str(error))
        self.error = error


_EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class Callbacks:
    """The callbacks of a run, as its processes hold them; only the `main` one calls them. What they raise is kept until
    all processes are at a place where the run can end.
    """

    def __init__(self, callbacks: Collection[Callback] = (), *, main: bool = True):
        try:
            self.callbacks = tuple(callbacks)
        except TypeError:
            what = f"a value of type `{type(callbacks).__name__}`"
            raise UsageError(f"`callbacks` is a list, got {what}: write `callbacks=[…]`") from None
        for callback in self.callbacks:
            _check(callback)
        self.main = main
        self.error: Exception | SystemExit | None = None

    def __bool__(self) -> bool:
        return bool(self.callbacks)

    def tell(self, name: str, event: RunEvent) -> None:
        """Call a method of all callbacks; the first exception is kept."""
        for callback in self.callbacks if self.main else ():
            try:
                if (returned := getattr(callback, name)(event)) is not None:
                    raise UsageError(
                        f"`{type(callback).__name__}.{name}` returned {returned!r:.60}, and callbacks return None: to "
                        'end the run, raise brewgraph.StopRun("reason")'
                    )
            except Terminated:
                raise
            except (Exception, SystemExit) as error:
                self.error = self.error or error

    def end(self) -> NoReturn:
        """Raise on all processes what was kept; on others than the first what it says."""
        from accelerate.utils import broadcast_object_list

        stops, text = broadcast_object_list([(isinstance(self.error, StopRun), str(self.error))])[0]
        if self.error is not None:
            raise EndedByCallback(self.error)
        raise EndedByCallback(StopRun(text) if stops else RunError(f"a callback of the first process failed: {text}"))


def _check(callback: object) -> None:
    """Raise `UsageError` for what is no callback, or has a method of a name that is never called."""
    if not isinstance(callback, Callback):
        what = f"the class `{callback.__name__}`" if isinstance(callback, type) else f"a `{type(callback).__name__}`"
        remedy = f"`{callback.__name__}()`" if isinstance(callback, type) else f"with {listing(_EVENTS)}"
        raise UsageError(f"a callback is an object of a subclass of `brewgraph.Callback`, got {what}: {remedy}")
    for name in dir(callback):
        if name.startswith("on_") and name not in _EVENTS:
            close = suggest(name, _EVENTS) or f"there are {listing(_EVENTS)}"
            raise UsageError(f"`{type(callback).__name__}.{name}` is never called: {close}")
    for name in _EVENTS:
        if fault := _misfit(getattr(callback, name)):
            raise UsageError(f"`{type(callback).__name__}.{name}` {fault}: write `def {name}(self, event)`")


def _misfit(method: object) -> str:
    """Why a method cannot be called with one event; "" if it can."""
    if not callable(method):
        return f"is no method, but a value of type `{type(method).__name__}`"
    if inspect.iscoroutinefunction(method):
        return "is async, and nobody would await it"
    try:
        inspect.signature(method).bind(None)
    except TypeError:
        return "does not take one argument, the event"
    except ValueError:  # code without a signature
        pass
    return ""
