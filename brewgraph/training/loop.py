"""The loop: batches in, a trained student out. It stands on accelerate for devices, ranks and precision.

A step: take its micro-batches; count each unit over all of them and over ranks, once; for each micro-batch forward, with the
loss divided by the global counts, and backward (ranks talk on the last one only); clip student and projections together;
optimizer; schedule. Terms stay on the device until the logging interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import Tensor

from brewgraph.data.batches import BatchOrder, derive_seed, loader
from brewgraph.diagnostics import RunError
from brewgraph.recipe.settings import Train
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.checkpoint import load_checkpoint, save_checkpoint
from brewgraph.training.evaluate import Scores, evaluate
from brewgraph.training.folder import RunFolder
from brewgraph.training.optimizing import build_optimizer, build_schedule
from brewgraph.training.reporter import Reporter


@dataclass(frozen=True)
class Material:
    """What is trained on: encoded splits, how rows become batches, the global batch size, and the classes."""

    train: datasets.Dataset
    dev: datasets.Dataset | None
    collator: Any
    batch: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Length:
    """How long training goes on, in optimizer steps."""

    steps: int
    per_epoch: int
    batches_per_epoch: int


def make_accelerator(settings: Train) -> Accelerator:
    """Devices, ranks and precision, as the machine and `accelerate launch` give them."""
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    precision = "no" if settings.precision == "fp32" else settings.precision
    return Accelerator(mixed_precision=precision, kwargs_handlers=[unused])


def training_length(settings: Train, batches: int) -> Length:
    """Optimizer steps from `epochs` or `steps`; the last step of an epoch may hold fewer micro-batches."""
    if not batches:
        raise RunError("there is no whole batch to train on: the data has fewer rows than ranks")
    per_epoch = math.ceil(batches / settings.accumulate)
    epochs = settings.epochs or 3.0
    return Length(settings.steps or max(1, round(epochs * per_epoch)), per_epoch, batches)


def train(
    distiller: Distiller,
    student: str,
    material: Material,
    settings: Train,
    folder: RunFolder | None,
    reporter: Reporter,
    *,
    name: str,
    accelerator: Accelerator | None = None,
    resume: bool = False,
    stop_after: int | None = None,
) -> Scores | None:
    """Train, evaluate and checkpoint; returns the last evaluation, None where there is nothing to evaluate on.

    Without a `folder` nothing is written. `stop_after` ends early, as an interruption would.
    """
    accelerator = accelerator or make_accelerator(settings)
    rank, world = accelerator.process_index, accelerator.num_processes
    order = BatchOrder(
        len(material.train), material.batch, seed=derive_seed(settings.seed, "order"), rank=rank, world=world
    )
    length = training_length(settings, len(order))
    distiller.to(accelerator.device)
    optimizer = build_optimizer(distiller, settings, distiller.optimizer_options())
    schedule = build_schedule(optimizer, settings, length.steps, length.per_epoch)
    torch.manual_seed(derive_seed(settings.seed, "dropout", rank))
    done = 0
    if folder is not None and resume and (found := folder.complete_checkpoints()):
        done = load_checkpoint(found[-1][1], distiller, optimizer, schedule)
        folder.truncate_log(done)
        reporter.say(f"resumed at step {done}")
    wrapped = accelerator.prepare_model(distiller)
    optimizer = accelerator.prepare_optimizer(optimizer)
    run = _Run(
        distiller, wrapped, optimizer, schedule, material, settings, folder, reporter, accelerator, length, student
    )
    reporter.begin(name, length.steps, done)
    try:
        distiller.train()
        return run.steps(order, done, stop_after)
    finally:
        reporter.end()


class _Run:
    """The state of one training."""

    def __init__(
        self,
        distiller: Distiller,
        wrapped: Any,
        optimizer: Any,
        schedule: Any,
        material: Material,
        settings: Train,
        folder: RunFolder | None,
        reporter: Reporter,
        accelerator: Accelerator,
        length: Length,
        student: str,
    ):
        self.distiller, self.wrapped, self.optimizer, self.schedule = distiller, wrapped, optimizer, schedule
        self.material, self.settings, self.folder, self.reporter = material, settings, folder, reporter
        self.accelerator, self.length, self.student = accelerator, length, student
        self.main = accelerator.is_main_process
        self.sums: dict[str, Tensor] = {}
        self.since = 0
        self.trainable = [p for p in distiller.parameters() if p.requires_grad]
        self.check_every = 1 if accelerator.device.type == "cpu" else settings.logging_steps

    def steps(self, order: BatchOrder, done: int, stop_after: int | None) -> Scores | None:
        total, settings = self.length.steps, self.settings
        evaluate_every = max(1, settings.eval_steps.steps(total, self.length.per_epoch))
        save_every = max(1, settings.save_steps.steps(total, self.length.per_epoch))
        scores: Scores | None = None
        for step, batches in self._micro_batches(order, done):
            loss = self._step(step, batches)
            step += 1
            self._note(step, loss, batches)
            if step % evaluate_every == 0 or step == total:
                scores = self._evaluate(step)
            if self.folder is not None and (step % save_every == 0) and step < total:
                self._save(step)
            if stop_after is not None and step >= stop_after:
                break
        return scores if scores is not None else self._evaluate(total)

    def _micro_batches(self, order: BatchOrder, done: int) -> Iterator[tuple[int, list[Any]]]:
        """The micro-batches of each step from `done` on, epoch after epoch."""
        step = done
        while step < self.length.steps:
            epoch, in_epoch = divmod(step, self.length.per_epoch)
            order.set_epoch(epoch)
            order.start_at(in_epoch * self.settings.accumulate)
            batches: list[Any] = []
            for batch in loader(self.material.train, order, self.material.collator):
                batches.append(batch)
                if len(batches) == self.settings.accumulate:
                    yield step, batches
                    step, batches = step + 1, []
                    if step == self.length.steps:
                        return
            if batches:
                yield step, batches
                step += 1

    def _step(self, step: int, batches: list[Any]) -> Tensor:
        """One optimizer step; the loss of the global batch on this rank's share of it."""
        accelerator, world = self.accelerator, self.accelerator.num_processes
        self.distiller.progress = step / self.length.steps
        batches[:] = [send_to_device(batch, accelerator.device) for batch in batches]
        counts = torch.stack([self.distiller.count(batch) for batch in batches]).sum(0)
        if world > 1:
            counts = accelerator.reduce(counts, "sum")
        losses = []
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.wrapped), accelerator.autocast():
                output = self.wrapped(batch, counts)
                # ranks average their gradients, and each holds a share of one sum
                accelerator.backward(output.loss * world)
            losses.append(output.loss.detach())
            for name, term in (output.terms or {}).items():
                self._add(name, term.detach() if isinstance(term, Tensor) else torch.tensor(float(term)))
        if self.settings.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.trainable, self.settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(losses).sum()
        self._add("loss", loss)
        return loss

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def _note(self, step: int, loss: Tensor, batches: list[Any]) -> None:
        """Report a step; read the terms from the device at the logging interval only."""
        self.since += 1
        interval = step % self.settings.logging_steps == 0 or step == self.length.steps
        if (interval or step % self.check_every == 0) and not bool(torch.isfinite(self.sums["loss"])):
            self._not_finite(step, batches)
        if not interval:
            self.reporter.step(step, None, {})
            return
        sums = {name: value.to(self.accelerator.device) for name, value in self.sums.items()}
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, "sum")
        terms = {name: float(value) / self.since for name, value in sums.items()}
        total = terms.pop("loss")
        self.sums, self.since = {}, 0
        weights = self.distiller.weights()
        self.reporter.step(step, total, terms)
        if self.folder is not None and self.main:
            self.folder.log(
                {
                    "step": step,
                    "epoch": step / self.length.per_epoch,
                    "loss": total,
                    "terms": terms,
                    "weighted": {name: terms[name] * weights[name] for name in terms},
                    "lr": self.schedule.get_last_lr()[0],
                }
            )

    def _not_finite(self, step: int, batches: list[Any]) -> None:
        bad = [name for name, value in self.sums.items() if name != "loss" and not bool(torch.isfinite(value))]
        rows = [int(i) for batch in batches for i in batch.get("index", [])]
        where = (
            f" (training rows {', '.join(map(str, rows[:8]))}{', …' if len(rows) > 8 else ''})"
            if self.check_every == 1
            else ""
        )
        terms = ", ".join(f"`{name}`" for name in bad) or "the loss"
        raise RunError(
            f"{terms} is not a finite number at step {step}{where}; a smaller learning rate, a longer warm-up or a higher "
            "temperature usually helps; the last checkpoint is intact"
        )

    def _evaluate(self, step: int) -> Scores | None:
        dev, classes = self.material.dev, self.material.classes
        if dev is None or not classes or not hasattr(self.distiller.student, "config"):
            return None
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        share = dev.shard(world, rank, contiguous=True) if world > 1 else dev
        order = BatchOrder(len(share), self.material.batch, seed=0, shuffle=False)
        batches = loader(share, order, self.material.collator)
        scores = evaluate(self.distiller.student, self.student, batches, len(classes), self.accelerator.device)
        self.distiller.train()
        self.reporter.evaluated(step, scores.as_dict())
        if self.folder is not None and self.main:
            self.folder.log({"step": step, "epoch": step / self.length.per_epoch, "dev": scores.as_dict()})
        return scores

    def _save(self, step: int) -> None:
        assert self.folder is not None
        if self.main:
            save_checkpoint(self.folder, step, self.distiller, self.optimizer, self.schedule)
            self.folder.rotate(self.settings.save_total_limit)
        self.accelerator.wait_for_everyone()
