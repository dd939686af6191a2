"""The loop: batches in, a trained student out. It stands on accelerate for devices, ranks and precision.

A step: take its micro-batches; count each unit over all of them and over ranks, once; for each micro-batch forward,
with the loss divided by the global counts, and backward (ranks talk on the last one only); clip student and projections
together; optimizer; schedule. Terms stay on the device until the logging interval.
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
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    send_to_device,
)
from torch import Tensor

from brewgraph.data.batches import BatchOrder, derive_seed, loader
from brewgraph.data.encoding import row_lengths
from brewgraph.diagnostics import RunError
from brewgraph.graph.passes import digest
from brewgraph.recipe.settings import Train
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.board import Board
from brewgraph.training.checkpoint import State, load_checkpoint, save_checkpoint
from brewgraph.training.evaluate import Scores, evaluate
from brewgraph.training.evaluate import scores as can_score
from brewgraph.training.folder import RunFolder
from brewgraph.training.optimizing import build_optimizer, build_schedule
from brewgraph.training.processes import own_share, this_process
from brewgraph.training.reporter import Reporter


@dataclass(frozen=True)
class Material:
    """What is trained on: encoded splits, how rows become batches, the global batch size, the classes.

    `label_type` says what the labels are, `examples` are the rows of `dev` before they were encoded.
    """

    train: datasets.Dataset
    dev: datasets.Dataset | None
    collator: Any
    batch: int
    classes: tuple[str, ...]
    label_type: str = "class"
    examples: datasets.Dataset | None = None


@dataclass(frozen=True)
class Length:
    """How long training goes on, in optimizer steps."""

    steps: int
    per_epoch: int


def make_accelerator(settings: Train) -> Accelerator:
    """Devices, ranks and precision, as the machine and `accelerate launch` give them.

    Raises `RunError` where parameters would be split over ranks, which checkpoints here do not know about.
    """
    this_process()
    precision = "no" if settings.precision == "fp32" else settings.precision
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        # accelerate keeps one precision per process and refuses a second; a teacher may have been trained in another
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=precision,
        # micro-batches are counted here: what `accelerate launch` was told must not divide the loss again
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1, sync_with_dataloader=False),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in sharded:
        said = accelerator.distributed_type.value
        raise RunError(
            f"{said} is not supported yet: launch with plain data parallelism (`accelerate launch --multi_gpu`)"
        )
    return accelerator


def training_length(settings: Train, batches: int) -> Length:
    """Optimizer steps from `epochs` or `steps`; the last step of an epoch may hold fewer micro-batches."""
    if not batches:
        raise RunError("there is no whole batch to train on: the data has fewer rows than ranks")
    per_epoch = math.ceil(batches / settings.accumulate)
    epochs = settings.epochs or 3.0
    return Length(settings.steps or max(1, round(epochs * per_epoch)), per_epoch)


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
    order = BatchOrder(
        len(material.train),
        material.batch,
        seed=derive_seed(settings.seed, "order"),
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        lengths=row_lengths(material.train) if settings.group_by_length else None,
    )
    length = training_length(settings, len(order))
    distiller.to(accelerator.device)
    optimizer = build_optimizer(distiller, settings, distiller.optimizer_options())
    schedule = build_schedule(optimizer, settings, length.steps, length.per_epoch)
    parts = (order.rows, order.batch, order.lengths is not None, settings.accumulate, settings.seed)
    what = (distiller.graph.graph["objective"], length, *parts)
    state = State(digest(*what), distiller, optimizer, schedule, accelerator.scaler)
    if folder is not None:
        found = folder.complete_checkpoints() if resume else []
        if found:
            load_checkpoint(found[-1][1], state)
            reporter.say(f"resumed at step {state.step}")
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            folder.truncate_log(state.step)
    wrapped = accelerator.prepare_model(distiller)
    state.optimizer = accelerator.prepare_optimizer(optimizer)
    reporter = reporter if accelerator.is_main_process else Reporter()
    board = Board(folder.board if folder is not None and accelerator.is_main_process else None, state.step)
    run = _Run(state, wrapped, student, material, settings, length, folder, board, reporter, accelerator)
    reporter.begin(name, length.steps, state.step)
    try:
        distiller.train()
        return run.steps(order, stop_after)
    finally:
        reporter.end()
        board.close()
        # take precision's wrapper off the forward, and its mark: another training may want another one
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        distiller.__dict__.pop("_is_accelerate_prepared", None)
        accelerator.free_memory()


@dataclass
class _Run:
    """One training. `wrapped` is the distiller as ranks and precision need it."""

    state: State
    wrapped: Any
    student: str
    material: Material
    settings: Train
    length: Length
    folder: RunFolder | None
    board: Board
    reporter: Reporter
    accelerator: Accelerator

    def __post_init__(self) -> None:
        self.distiller, self.main = self.state.distiller, self.accelerator.is_main_process
        self.device, self.world = self.accelerator.device, self.accelerator.num_processes
        # of the ranks' sums the first rank holds the whole after a resume
        self.state.sums = {k: v.to(self.device) if self.main else torch.zeros_like(v, device=self.device)
                           for k, v in self.state.sums.items()}  # fmt: skip
        self.trainable = [p for p in self.distiller.parameters() if p.requires_grad]
        self.check_every = 1 if self.device.type == "cpu" else self.settings.logging_steps

    def steps(self, order: BatchOrder, stop_after: int | None) -> Scores | None:
        total, per_epoch, settings = self.length.steps, self.length.per_epoch, self.settings
        evaluate_every = max(1, settings.eval_steps.steps(total, per_epoch))
        save_every = max(1, settings.save_steps.steps(total, per_epoch))
        scores: Scores | None = None
        for batches in self._micro_batches(order):
            batches = [send_to_device(batch, self.device) for batch in batches]
            self._step(batches)
            step = self.state.step
            saving = self.folder is not None and step % save_every == 0 and step < total
            if saving or step % self.check_every == 0 or step == total:
                self._check_finite(batches)
            self._report()
            if step % evaluate_every == 0 or step == total:
                scores = self._evaluate()
            if saving:
                self._save()
            if stop_after is not None and step >= stop_after:
                break
        return scores

    def _micro_batches(self, order: BatchOrder) -> Iterator[list[Any]]:
        """The micro-batches of each step that is still to be done, epoch after epoch."""
        while self.state.step < self.length.steps:
            epoch, in_epoch = divmod(self.state.step, self.length.per_epoch)
            order.set_epoch(epoch)
            order.start_at(in_epoch * self.settings.accumulate)
            batches: list[Any] = []
            for batch in loader(self.material.train, order, self.material.collator):
                batches.append(batch)
                if len(batches) == self.settings.accumulate:
                    yield batches
                    batches = []
                    if self.state.step == self.length.steps:
                        return
            if batches:
                yield batches

    def _step(self, batches: list[Any]) -> None:
        """One optimizer step; of the global batch this rank holds its share."""
        accelerator, state = self.accelerator, self.state
        self.distiller.progress = state.step / self.length.steps
        # dropout by seed, step and rank: a resumed run draws what the uninterrupted one drew
        torch.manual_seed(derive_seed(self.settings.seed, "dropout", state.step, accelerator.process_index))
        counts = self._counts(batches)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                with accelerator.autocast():
                    output = self.wrapped(batch, counts)
                # ranks average their gradients, and each holds a share of one sum
                accelerator.backward(output.loss * self.world)
            for name, term in {"loss": output.loss, **output.terms}.items():
                self._add(name, term.detach())
        if self.settings.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.trainable, self.settings.max_grad_norm)
        state.optimizer.step()
        if not accelerator.optimizer_step_was_skipped:  # as fp16 does where its gradients overflow
            state.schedule.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.since += 1

    def _counts(self, batches: list[Any]) -> Tensor | None:
        """The units of the global batch; None where it is one batch, which counts its own."""
        if len(batches) == 1 and self.world == 1:
            return None
        counts = torch.stack([self.distiller.count(batch) for batch in batches]).sum(0)
        return self.accelerator.reduce(counts, "sum") if self.world > 1 else counts

    def _add(self, name: str, value: Tensor) -> None:
        sums = self.state.sums
        sums[name] = sums[name] + value if name in sums else value

    def _gathered_sums(self) -> dict[str, Tensor]:
        """Loss and terms since the last line, over all ranks; those of one process as they are."""
        sums = self.state.sums
        return self.accelerator.reduce(sums, "sum") if self.world > 1 else sums

    def _report(self) -> None:
        """Read the terms from the device at the logging interval, and only then."""
        state, step = self.state, self.state.step
        if step % self.settings.logging_steps and step != self.length.steps:
            self.reporter.step(step, None, {})
            return
        terms = {name: float(value) / state.since for name, value in self._gathered_sums().items()}
        total = terms.pop("loss")
        state.sums, state.since = {}, 0
        self.reporter.step(step, total, terms)
        weights = self.distiller.weights()
        self._log(
            loss=total,
            terms=terms,
            weighted={name: terms[name] * weights[name] for name in terms},
            lr=state.schedule.get_last_lr()[0],
        )

    def _log(self, **content: Any) -> None:
        if self.folder is not None and self.main:
            self.folder.log({"step": self.state.step, "epoch": self.state.step / self.length.per_epoch, **content})
            self.board.log(self.state.step, content)

    def _check_finite(self, batches: list[Any]) -> None:
        """Stop where the loss is no number. Its rows are known where each step is checked: on a CPU, at no cost."""
        sums = self.state.sums
        if bool(torch.isfinite(sums["loss"])):
            return
        bad = [f"`{name}`" for name, value in sums.items() if name != "loss" and not bool(torch.isfinite(value))]
        rows = [str(int(i)) for batch in batches for i in batch.get("index", [])]
        where = f" (training rows {', '.join(rows[:8])}{', …' if len(rows) > 8 else ''})"
        raise RunError(
            f"{', '.join(bad) or 'the loss'} is not a finite number at step "
            f"{self.state.step}{where if rows and self.check_every == 1 else ''}; a smaller learning rate, a longer "
            "warm-up or a higher temperature usually helps; the last checkpoint is intact"
        )

    def _evaluate(self) -> Scores | None:
        material, student = self.material, self.distiller.student
        if material.dev is None or not can_score(student, material.label_type, material.classes):
            return None
        share = own_share(material.dev)
        batches = loader(share, BatchOrder(len(share), material.batch, shuffle=False), material.collator)
        scores = evaluate(
            student,
            self.student,
            batches,
            label_type=material.label_type,
            classes=material.classes,
            examples=material.examples,
            device=self.device,
        )
        self.reporter.evaluated(self.state.step, scores.as_dict())
        self._log(dev=scores.as_dict())
        return scores

    def _save(self) -> None:
        assert self.folder is not None
        mine, self.state.sums = self.state.sums, self._gathered_sums()
        if self.main:
            save_checkpoint(self.folder, self.state)
            self.folder.rotate(self.settings.save_total_limit)
        self.state.sums = mine
        self.accelerator.wait_for_everyone()
