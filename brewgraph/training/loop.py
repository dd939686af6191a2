"""Trains a student stage by stage, with accelerate for devices, ranks and precision.

Each stage has its own distiller, optimizer, schedule and seeds around the same student. Optimizer steps count through
the whole run, progress within the stage.

A step draws its task, takes its micro-batches, and counts each unit once over all of them and all ranks. Each
micro-batch runs forward, with the loss divided by the global counts, and backward (ranks communicate on the last one
only). Then follow clipping of student and projections together or of the student alone, optimizer, and schedule. Terms
stay on the device until the logging interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, send_to_device
from torch import Tensor, nn

from brewgraph.data.batching.order import derive_seed, is_idle
from brewgraph.diagnostics import RunError, listing
from brewgraph.digest import digest
from brewgraph.graph.scalars import Horizon
from brewgraph.recipe.label_types import LOSS
from brewgraph.recipe.settings.train import GRADIENT_SHARES
from brewgraph.runtime.distiller import Distiller
from brewgraph.runtime.program import with_zeros
from brewgraph.training.callbacks import Callbacks, CheckpointEvent, EvaluationEvent, RunEvent, StepEvent
from brewgraph.training.checkpoint import Keeper, SavedState, State, Sums, read_checkpoint, save_checkpoint
from brewgraph.training.evaluation import is_scored, losses_on_dev, report_on_dev, score
from brewgraph.training.folder import RunFolder, display_path
from brewgraph.training.gradient_shares import GradientShares, measure_gradients
from brewgraph.training.optimizer import build_optimizer, build_schedule
from brewgraph.training.processes import (
    largest_of_ranks,
    make_accelerator,
    on_main_process,
    this_process,
    without_gain,
)
from brewgraph.training.reporter import Reporter
from brewgraph.training.shards import Shards, sharding
from brewgraph.training.signals import INTERRUPTIONS, Signals, caught_signals
from brewgraph.training.trackers import Trackers, full_name
from brewgraph.training.work import Placed, StageWork, frozen, micro_batches, place_stage, unreached_frozen


@dataclass(frozen=True)
class Outcome:
    """The result of training: the last stage's distiller around the finished student, and the number of steps.

    `scores` are those of the last evaluation, or of the best student if that was kept, by `task/metric`. `finished` is
    False if `stop_after` ended training.
    """

    distiller: Distiller
    scores: Mapping[str, float]
    step: int
    finished: bool


def train(
    stages: Sequence[StageWork],
    student: str,
    folder: RunFolder | None,
    reporter: Reporter,
    *,
    name: str,
    resume: bool = False,
    stop_after: int | None = None,
    callbacks: Callbacks | None = None,
    trackers: Trackers | None = None,
) -> Outcome:
    """Train stage after stage, evaluate and checkpoint. `student` is the name of the trained model.

    Without a `folder` nothing is written. `resume` continues from the folder's newest checkpoint. `stop_after` is a
    total number of steps after which training ends early, as by an interruption. Each stage's `make` builds a
    distiller, which is released at the end of its stage. `trackers`, begun for this folder, record what it logs.

    A run with a folder that gets SIGINT or SIGTERM ends its step, or breaks its evaluation off, writes a checkpoint and
    raises `KeyboardInterrupt` or `Terminated`, on all ranks at the same step. It ends in the same way with
    `EndedByCallback` if one of the `callbacks`, which need a folder, raises anything.
    """
    process = this_process()
    placed = [place_stage(i, work, process.process_index, process.num_processes) for i, work in enumerate(stages)]
    reporter = reporter if process.is_main_process else Reporter()
    saved = _newest(folder, len(placed), reporter) if folder is not None and resume else None
    with caught_signals() as signals:
        told = callbacks or Callbacks()
        trackers = trackers if trackers is not None else Trackers()
        training = _Training(placed, student, folder, reporter, trackers, name, stop_after, saved, signals, told)
        for stage in placed[saved.stage if saved is not None else 0 :]:
            outcome = training.stage(stage)
            if not outcome.finished or (stop_after is not None and outcome.step >= stop_after):
                break
        return replace(outcome, finished=outcome.finished and stage is placed[-1])


def _newest(folder: RunFolder, stages: int, reporter: Reporter) -> SavedState | None:
    """The newest checkpoint whose content is what was written; a damaged one is reported. The first rank chooses."""
    newest, damaged = broadcast_object_list([on_main_process(folder.newest_checkpoint)])[0] or (None, [])
    follows = "training starts anew" if newest is None else f"{newest.name} is used instead"
    for path, fault in damaged:
        reporter.say(f"the checkpoint {display_path(path)} {fault}; {follows}")
    return None if newest is None else read_checkpoint(newest, stages)


@dataclass
class _Training:
    """What passes from stage to stage: steps and projections. `saved` is the checkpoint to resume from."""

    placed: Sequence[Placed]
    student: str
    folder: RunFolder | None
    reporter: Reporter
    trackers: Trackers
    name: str
    stop_after: int | None
    saved: SavedState | None
    signals: Signals
    callbacks: Callbacks
    step: int = 0
    carried: dict[str, Tensor] = field(default_factory=dict)
    begun: bool = False

    def stage(self, placed: Placed) -> Outcome:
        """Run one stage from its beginning, or from a checkpoint of it."""
        accelerator = make_accelerator(placed.work.settings)
        distiller = placed.work.make()
        try:
            with frozen(distiller, placed.work.freeze, self.student), unreached_frozen(distiller):
                return self._stage(placed, distiller, accelerator)
        finally:
            self.reporter.end()
            distiller.release()
            accelerator.free_memory()

    def _stage(self, placed: Placed, distiller: Distiller, accelerator: Accelerator) -> Outcome:
        shards = self._shards(placed, distiller, accelerator)
        identity = self._load_weights(distiller, accelerator)
        wrapped, unreached = self._wrapped(placed, distiller, accelerator, shards)
        state = self._state(placed, distiller, accelerator, identity)
        fresh = self.saved is None
        if self.saved is not None:
            self.saved.load(state)
            where = f" of stage {placed.work.name}" if placed.work.name else ""
            self.reporter.say(f"resumed at step {state.step}{where}")
            self.saved = None
        self._forget_lines_after(state, accelerator)
        state.optimizer = accelerator.prepare_optimizer(state.optimizer)
        run = StageRun(self, placed, state, wrapped, accelerator, unreached, shards)
        if not fresh:
            run.saved = run.place
        if fresh and placed.index and self.folder is not None:
            run.save()  # so that earlier stages are not repeated
        if fresh and accelerator.is_main_process:
            run.keeper.forget()
        title = f"{self.name}: {placed.work.name}" if placed.work.name else self.name
        for note in without_gain(placed.work.settings, accelerator.device):
            self.reporter.say(note)
        if shards is not None:
            self.reporter.say(shards.note)
        self.reporter.begin(title, placed.length.steps, state.stage_step)
        distiller.train()
        finished = run.run(self.stop_after)
        if shards is not None:
            shards.end()
        for cache, (written, read, left_out) in distiller.cached().items():
            full = f"; {left_out:,} computed and not written: the limit is reached" if left_out else ""
            self.reporter.say(f"cache {cache}: {written:,} examples computed and written, {read:,} read{full}")
        self.step, self.carried = state.step, {**state.carried, **_projections(distiller)}
        return Outcome(distiller, run.scores, state.step, finished)

    def _shards(self, placed: Placed, distiller: Distiller, accelerator: Accelerator) -> Shards | None:
        """What shards the models of a stage, if the processes were launched for it. Teachers are sharded at once,
        before they are moved to a device that may be too small for them.
        """
        world = accelerator.num_processes
        if (how := sharding(world)) is None:
            return None
        return Shards(how, distiller, placed.work.settings, accelerator.device, world)

    def _load_weights(self, distiller: Distiller, accelerator: Accelerator) -> str:
        """Put the distiller on its device, with the weights of earlier stages or of the checkpoint; the identity of the
        training.
        """
        distiller.to(accelerator.device)
        own = distiller.projections.state_dict()
        with torch.no_grad():
            for key, value in self.carried.items():
                if key in own and own[key].shape == value.shape:
                    own[key].copy_(value)
        identity = digest(distiller.identity, *(stage.fingerprint() for stage in self.placed))
        if self.saved is not None:
            self.saved.load_weights(distiller, identity)
        return identity

    def _wrapped(
        self, placed: Placed, distiller: Distiller, accelerator: Accelerator, shards: Shards | None
    ) -> tuple[nn.Module, Mapping[str, Sequence[nn.Parameter]]]:
        """The distiller as the ranks train it, sharded or as accelerate prepares it; and by task the parameters that
        have to get a gradient of zero there.
        """
        gather = placed.work.settings.normalise != "micro"
        if shards is not None:
            whole = Whole(distiller, gather, {})
            shards.shard(whole)
            return whole, {}
        others = {task: distiller.unreached_by(task) for task in placed.work.materials}
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=None in others.values())
        unreached = {task: found for task, found in others.items() if found and accelerator.num_processes > 1}
        return accelerator.prepare_model(Whole(distiller, gather, unreached)), unreached

    def _state(self, placed: Placed, distiller: Distiller, accelerator: Accelerator, identity: str) -> State:
        """The state at the beginning of a stage: the student as it is, with a new optimizer and schedule."""
        settings, length = placed.work.settings, placed.length
        distiller.horizon = Horizon(length.steps, length.per_epoch)
        optimizer = build_optimizer(distiller, settings, distiller.optimizer_options())
        schedule = build_schedule(optimizer, settings, length.steps, length.per_epoch)
        state = State(identity, distiller, optimizer, schedule, accelerator.scaler, self.step, placed.index)
        state.carried = self.carried
        return state

    def _forget_lines_after(self, state: State, accelerator: Accelerator) -> None:
        """The first stage drops the lines that an earlier run logged after this state, and that this one logs again."""
        if self.begun:
            return
        self.begun = True
        accelerator.wait_for_everyone()
        if self.folder is not None and accelerator.is_main_process:
            self.trackers.already(self.folder.truncate_log(state.step, unevaluated=state.unevaluated))


def _projections(distiller: Distiller) -> dict[str, Tensor]:
    """Copies of the projections' parameters by name, for later stages."""
    return {name: value.detach().cpu().clone() for name, value in distiller.projections.state_dict().items()}


# ── the steps of a stage ──────────────────────────────────────────────────────────────────────────────────────────────


class Whole(nn.Module):
    """A distiller as accelerate wraps it for one stage: a single module that returns the loss.

    Each stage wraps it anew, because accelerate would leave a prepared module at its former precision. Terms are
    detached, so that only the loss decides which parameters a step reaches. Ranks `gather` what compares examples.
    Those `unreached` by a task get a gradient of zero, which several ranks wait for.
    """

    def __init__(self, distiller: Distiller, gather: bool, unreached: Mapping[str, Sequence[nn.Parameter]]):
        super().__init__()
        self.distiller, self.gather, self.unreached = distiller, gather, unreached

    def forward(self, batch: Any, counts: Tensor | None, task: str) -> dict[str, Tensor]:
        output = self.distiller(batch, counts, task=task, gather=self.gather)
        loss = with_zeros(output.loss, others) if (others := self.unreached.get(task)) else output.loss
        return {"loss": loss, **{name: term.detach() for name, term in output.terms.items()}}


class StageRun:
    """One stage on one rank. `wrapped` is the distiller as accelerate has prepared it, or as `shards` sharded it;
    `unreached` are the parameters that no step of a task reaches, which several ranks give a gradient of zero.
    """

    def __init__(
        self,
        training: _Training,
        placed: Placed,
        state: State,
        wrapped: Any,
        accelerator: Accelerator,
        unreached: Mapping[str, Sequence[nn.Parameter]],
        shards: Shards | None = None,
    ):
        self.student, self.folder, self.reporter = training.student, training.folder, training.reporter
        self.signals, self.is_last = training.signals, placed is training.placed[-1]
        self.callbacks, self.name = training.callbacks, training.name
        self.saved: tuple[int, bool] | None = None
        self.placed, self.state, self.wrapped, self.accelerator = placed, state, wrapped, accelerator
        self.trackers = training.trackers
        self.unreached = unreached
        self.work, self.settings, self.length = placed.work, placed.work.settings, placed.length
        self.distiller = state.distiller
        self.main, self.world = accelerator.is_main_process, accelerator.num_processes
        self.device, self.shards = accelerator.device, shards
        self.keeper = Keeper(training.folder, placed.index)
        clipped = self.distiller if self.settings.clip_projections else self.distiller.student
        self.clipped = [p for p in clipped.parameters() if p.requires_grad]
        self.check_every = 1 if self.device.type == "cpu" else self.settings.logging_steps
        self.scores: dict[str, float] = {}
        self.reports_values = bool(set(self.settings.report) - {GRADIENT_SHARES})
        self.gradients: GradientShares | None = None
        state.sums = state.sums.held_by(accelerator)
        self._demand_a_metric()

    def run(self, stop_after: int | None) -> bool:
        """Train to the stage's end, then load its best student if the settings say so; False if stopped early."""
        state, settings, total = self.state, self.settings, self.length.steps
        evaluate_every = max(1, settings.eval_steps.steps(total, self.length.per_epoch))
        save_every = max(1, settings.save_steps.steps(total, self.length.per_epoch))
        self.signals.deferring = self.folder is not None and settings.save_on_signal
        self._stop_if_asked()
        for task, batches in self._steps():
            if not state.unevaluated:
                self._step(task, batches)
            step = state.stage_step
            saving = self.folder is not None and step % save_every == 0 and step < total
            if not state.unevaluated:
                if saving or step % self.check_every == 0 or step == total:
                    self._check_finite(task, batches)
                loss, terms = self._report(task, batches, due=self._logs(step))
                rate = state.schedule.get_last_lr()[0]
                self._tell(StepEvent, task=task, loss=loss, terms=terms, lr=rate)
                state.unevaluated = step % evaluate_every == 0 or step == total
                self._stop_if_asked(task, batches)
            if state.unevaluated:
                self._evaluate()
                if state.progress.exhausted(settings) and state.sums.steps:
                    self._report(task, batches, due=True)
                self._stop_if_asked(task, batches)
            if saving:
                self.save()
                self._stop_if_asked(task, batches)
            if stop_after is not None and state.step >= stop_after and step < total:
                return False
        if self.is_last and self.folder is not None:
            self.save()  # so that what follows the training, if it is interrupted, does not repeat it
            self._stop_if_asked()
        if settings.load_best_model_at_end:
            if self.shards is not None:
                self.shards.end()
            self.accelerator.wait_for_everyone()
            self.keeper.give_back(self.distiller, state.progress)
            self.scores = dict(state.progress.scores) or self.scores
        return True

    def _logs(self, step: int) -> bool:
        """Whether a line is due after this step of the stage."""
        return step % self.settings.logging_steps == 0 or step == self.length.steps

    def _steps(self) -> Iterator[tuple[str, list[Any]]]:
        """The task and the micro-batches of each remaining step, on the device, and of a step of which only the
        evaluation remains.

        Each task continues in its own order: the draw tells how often it was drawn before.
        """
        state, index = self.state, self.placed.index
        drawn = self.work.drawn(index, state.stage_step - state.unevaluated)
        streams: dict[str, Iterator[list[Any]]] = {}
        while not state.progress.exhausted(self.settings):
            step = state.stage_step - state.unevaluated
            if step >= self.length.steps:
                return
            task = self.work.task(index, step)
            if task not in streams:
                streams[task] = micro_batches(self.placed.feeds[task], self.settings.accumulate, drawn[task])
            self.distiller.progress = step / self.length.steps
            yield task, [send_to_device(batch, self.device) for batch in next(streams[task])]

    def _stop_if_asked(self, task: str = "", batches: Sequence[Any] = ()) -> None:
        """On a signal to any rank, or after an exception of a callback, write a checkpoint and raise what belongs to
        it, on all ranks. The task and its batches are those of the last step.
        """
        deferring = self.signals.deferring
        if not deferring and not self.callbacks:
            return
        noted = self.signals.number if deferring else 0
        number = largest_of_ranks(noted if self.callbacks.error is None else _CALLBACK)
        if number:
            self._check_finite(task, batches)
            if deferring:
                self.save()
            if number == _CALLBACK:
                self.callbacks.end()
            self.signals.end(number)

    def _tell(self, event: type[RunEvent], **content: Any) -> None:
        """Call the callbacks, if there are any, with an event of this place."""
        if not self.callbacks or self.folder is None:
            return
        place = self.folder.path, self.work.name, self.state.step, self.state.stage_step, self.length.steps
        self.callbacks.tell(_METHODS[event], event(self.name, *place, self.distiller, **content))
        self.distiller.train()
        self.state.optimizer.zero_grad(set_to_none=True)

    # ── a step ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, task: str, batches: list[Any]) -> None:
        """One optimizer step on this rank's share of the global batch."""
        accelerator, state = self.accelerator, self.state
        self._seed()
        counts, share = self._counts(task, batches), 1.0
        if self.settings.normalise == "micro":
            share = 1 / (len(batches) * self.world)
        if GRADIENT_SHARES in self.settings.report and self._logs(state.stage_step + 1):
            self._measure_gradients(task, batches, counts, share)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            if self.shards is not None:
                self.shards.synchronise(last)
            with nullcontext() if last or self.shards is not None else accelerator.no_sync(self.wrapped):
                with accelerator.autocast():
                    output = self.wrapped(batch, counts, task)
                # ranks average their gradients, but each holds a share of one sum
                accelerator.backward(output["loss"] * (self.world * share))
            if self.shards is not None:
                self.shards.free()
            state.sums.add(task, {name: term.detach() * share for name, term in output.items()})
        # parameters that this step did not reach have no gradient (not zero), so their weights and running means stay
        for parameter in self.unreached.get(task, ()):
            parameter.grad = None
        self._clip()
        state.optimizer.step()
        if not accelerator.optimizer_step_was_skipped:  # fp16 skips steps whose gradients overflow
            state.schedule.step()
            self.distiller.after_step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.stage_step += 1
        state.sums.end_step(task, output)

    def _measure_gradients(self, task: str, batches: list[Any], counts: Tensor | None, share: float) -> None:
        """Measure the gradients of the step that follows, which then draws the same dropout again."""
        gather = self.settings.normalise != "micro"
        with self._whole():
            self.gradients = measure_gradients(
                self.distiller, task, batches, counts, share, self.accelerator, gather=gather
            )
        self._seed()

    def _clip(self) -> None:
        """Clip gradients to the spec's norm: all of them as one vector, or each parameter's."""
        longest = self.settings.max_grad_norm
        if longest is None:
            return
        if not self.settings.clip_each:
            self.accelerator.clip_grad_norm_(self.clipped, longest)
            return
        self.accelerator.unscale_gradients()
        for parameter in self.clipped:
            nn.utils.clip_grad_norm_(parameter, longest)

    def _seed(self) -> None:
        """Seed dropout by seed, stage, step and rank, so that a resumed run draws the same."""
        index = self.placed.index
        place = (index, self.state.stage_step) if index else (self.state.stage_step,)
        torch.manual_seed(derive_seed(self.settings.seed, "dropout", *place, self.accelerator.process_index))

    def _counts(self, task: str, batches: list[Any]) -> Tensor | None:
        """The units of the global batch; None if each batch counts its own."""
        if self.settings.normalise == "micro" or (len(batches) == 1 and self.world == 1):
            return None
        counts = torch.stack([self.distiller.count(batch, task=task, gather=True) for batch in batches]).sum(0)
        return self.accelerator.reduce(counts, "sum") if self.world > 1 else counts

    def _check_finite(self, task: str = "", batches: Sequence[Any] = ()) -> None:
        """Stop if a loss is not finite. Its rows are known if every step is checked, as on a CPU, at no cost."""
        for which, sums in self.state.sums.values.items():
            if bool(torch.isfinite(sums["loss"])):
                continue
            bad = [
                f"`{full_name(which, name)}`"
                for name, value in sums.items()
                if name != "loss" and not bool(torch.isfinite(value))
            ]
            rows = [row for batch in batches for row in _rows(batch)] if which == task else []
            where = f" (training rows {', '.join(rows[:8])}{', …' if len(rows) > 8 else ''})"
            raise RunError(
                f"{', '.join(bad) or 'the loss'} "
                f"{'are not finite numbers' if bad[1:] else 'is not a finite number'} at step {self.state.step}"
                f"{f' of stage `{self.work.name}`' if self.work.name else ''}{f', task `{which}`' if which else ''}"
                f"{where if rows and self.check_every == 1 else ''}; a smaller learning rate, a longer "
                "warm-up or a higher temperature usually helps; the last checkpoint is intact"
            )

    # ── what is written down ─────────────────────────────────────────────────────────────────────────────────────────

    def _report(self, task: str, batches: list[Any], *, due: bool) -> tuple[float | None, dict[str, float]]:
        """At the logging interval read the terms from the device, and write a line per task that was drawn: the means
        over its steps of the loss, of its terms unweighted and weighted, and of the reported values. Returns the means
        over all tasks; None and none in between.
        """
        state = self.state
        if not due:
            self.reporter.step(state.stage_step, None, {})
            return None, {}
        sums, steps, seen = state.sums.gathered(self.accelerator), state.sums.steps, state.sums.seen
        reported = self._reported(task, batches) if self.reports_values else {}
        gradients, self.gradients = self.gradients, None
        state.sums = Sums()
        total, rate = 0.0, state.schedule.get_last_lr()[0]
        terms: dict[str, float] = {}
        for which in filter(steps.__contains__, self.work.materials):
            means = {full_name(which, name): float(x) / seen[which][name] for name, x in sums[which].items()}
            loss = means.pop(full_name(which, LOSS))
            weights = {full_name(which, name): weight for name, weight in self.distiller.weights(which).items()}
            weighted = {name: value * weights[name] for name, value in means.items()}
            beside: dict[str, Any] = {"report": reported} if reported and which == task else {}
            if gradients is not None and which == task:
                beside |= {
                    group: {full_name(task, name): value for name, value in values.items()}
                    for group, values in gradients.content.items()
                }
            self._write(which, {"loss": loss, "terms": means, "weighted": weighted, **beside, "lr": rate})
            total += loss * steps[which]
            terms |= means
        loss = total / sum(steps.values())
        self.reporter.step(state.stage_step, loss, terms)
        return loss, terms

    @torch.no_grad()
    def _reported(self, task: str, batches: list[Any]) -> dict[str, float]:
        """The values reported beside the terms on the batches of this step: means over batches and ranks."""
        values: list[Mapping[str, Tensor]] = []
        for batch in batches:
            with self._whole(), self.accelerator.autocast():
                values.append(self.distiller.report(batch, task, gather=self.settings.normalise != "micro"))
        busy = torch.tensor([not is_idle(first_part(batch)) for batch in batches], device=self.device)
        sums = {
            name: torch.stack([x[name].detach().float() for x in values])[busy].sum().reshape(1) for name in values[0]
        }
        count = busy.sum().reshape(1)
        if self.world > 1:
            sums, count = self.accelerator.reduce(sums, "sum"), self.accelerator.reduce(count, "sum")
        return {full_name(task, name): float(value / count) for name, value in sums.items()}

    def _write(self, task: str, content: Mapping[str, Any]) -> None:
        """Record a line; only the first process of a run with a folder does. `step` counts the whole run, `stage_step`
        and `epoch` the stage.
        """
        if self.folder is None or not self.main:
            return
        state = self.state
        line: dict[str, Any] = {"step": state.step}
        if self.work.name:
            line |= {"stage": self.work.name, "stage_step": state.stage_step}
        line["epoch"] = state.stage_step / self.length.per_epoch
        if task:
            line["task"] = task
        line |= content
        self.folder.log(line)
        self.trackers.log(line)

    # ── evaluation, the best student, checkpoints ────────────────────────────────────────────────────────────────────

    def _evaluate(self) -> None:
        """Score the student on every task, record the scores, and keep the student if it is the best so far.

        A signal breaks the evaluation off, and a resumed run begins with it. Several ranks finish it first.
        """
        try:
            with self._whole(), self.signals.at_once() if self.world == 1 else nullcontext():
                values_of = self._values()
        except INTERRUPTIONS:
            if self.signals.deferring:
                self._check_finite()
                self.save()
            raise
        self.scores = {}
        for task, values in values_of.items():
            self._write(task, {"dev": values})
            self.scores |= {full_name(task, name): value for name, value in values.items()}
        if self.scores:
            self.reporter.evaluated(self.state.stage_step, self.scores)
        self.state.unevaluated = False
        metric, best = self.settings.metric_for_best_model, None
        if metric is not None:
            value = self._metric(metric)
            if best := self.state.progress.take(value, self.state.step, dict(self.scores), self.settings):
                self._keep()
        if self.scores:
            self._tell(EvaluationEvent, scores=dict(self.scores), best=best)

    def _values(self) -> dict[str, dict[str, float]]:
        """What the dev split of each task says of the student, for tasks that have one.

        A task without scores is evaluated on its losses; so is every task if the loss decides which student is best.
        """
        metric, values_of = self.settings.metric_for_best_model, {}
        for task, material in self.work.materials.items():
            values: dict[str, float] = {}
            in_step = self.shards is not None and self.shards.in_step
            if self.reports_values:
                values |= report_on_dev(self.distiller, task, material, self.accelerator, in_step=in_step)
            scored = is_scored(self.distiller.student, material)
            if scored:
                values |= score(self.distiller.student, self.student, material)
            if material.has_losses and (not scored or metric == full_name(task, LOSS) or metric == LOSS):
                values |= losses_on_dev(self.distiller, task, material, self.accelerator, in_step=in_step)
            if values:
                values_of[task] = values
        return values_of

    def _demand_a_metric(self) -> None:
        """Raise `RunError` before training, not at its first evaluation, if nothing will ever be scored."""
        metric, student = self.settings.metric_for_best_model, self.distiller.student
        scores = any(material.has_losses or is_scored(student, material) for material in self.work.materials.values())
        if metric is not None and not scores and not self.reports_values:
            message = f"metric_for_best_model = `{metric}`: there is nothing to evaluate the student on"
            raise RunError(f"{message}; give the data a dev split, or remove metric_for_best_model")

    def _metric(self, name: str) -> float:
        """The score that students are compared by; its task may be omitted if only one has it."""
        fits = [name] if name in self.scores else [k for k in self.scores if k.rpartition("/")[2] == name]
        if len(fits) != 1:
            there = listing(self.scores) or "none"
            raise RunError(f"metric_for_best_model = `{name}` is not one score; an evaluation gives {there}")
        return self.scores[fits[0]]

    def _keep(self) -> None:
        if not self.settings.load_best_model_at_end:
            return
        with self._whole():
            if self.folder is None or self.main:
                self.keeper.keep(self.distiller, self.state.step)
        self.accelerator.wait_for_everyone()

    def _whole(self) -> AbstractContextManager[None]:
        """A context in which student and projections are plain modules with all of their parameters."""
        return nullcontext() if self.shards is None else self.shards.whole()

    @property
    def place(self) -> tuple[int, bool]:
        """Where the run is: its step, and whether the evaluation that follows it remains."""
        return self.state.step, self.state.unevaluated

    def save(self) -> None:
        """Write a checkpoint with the sums over all ranks, unless the last one is of the same place."""
        assert self.folder is not None
        if self.place == self.saved:
            return
        mine = self.state.sums
        self.state.sums = Sums(mine.gathered(self.accelerator), mine.steps, mine.seen)
        with self._whole():
            save_checkpoint(self.folder, self.state, main=self.main)
        if self.main:
            self.folder.rotate(self.settings.save_total_limit, self.state.step)
        self.state.sums = mine
        self.saved = self.place
        self._tell(CheckpointEvent, path=self.folder.checkpoint(self.state.step))
        self.accelerator.wait_for_everyone()


_CALLBACK = 1000
"""In place of the number of a signal: a callback ends the run."""
_METHODS: Mapping[type[RunEvent], str] = {
    StepEvent: "on_step", EvaluationEvent: "on_evaluate", CheckpointEvent: "on_checkpoint",
}  # fmt: skip


def first_part(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch of the first data set, which defines epochs; the batch itself if there is only one."""
    return next((part for part in batch.values() if isinstance(part, Mapping) and "index" not in batch), batch)


def _rows(batch: Any) -> list[str]:
    """The indices of a batch's rows, if it has them, for one data set after the other."""
    if not isinstance(batch, Mapping):
        return []
    own = batch.get("index")
    if isinstance(own, Tensor):
        return [str(int(i)) for i in own]
    return [row for part in batch.values() for row in _rows(part)]
