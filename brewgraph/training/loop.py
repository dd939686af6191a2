"""Trains a student stage by stage, with accelerate for devices, ranks and precision.

Each stage has its own distiller, optimizer, schedule and seeds around the same student. Optimizer steps count through
the whole run, progress within the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from brewgraph.digest import digest
from brewgraph.graph.scalars import Horizon
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.checkpoint import SavedState, State, read_checkpoint
from brewgraph.training.folder import RunFolder
from brewgraph.training.freezing import frozen, unreached_frozen
from brewgraph.training.optimizer import build_optimizer, build_schedule
from brewgraph.training.processes import make_accelerator, this_process
from brewgraph.training.records import Board
from brewgraph.training.reporter import Reporter
from brewgraph.training.stage import StageRun, Whole
from brewgraph.training.work import Placed, StageWork, place_stage


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
) -> Outcome:
    """Train stage after stage, evaluate and checkpoint. `student` is the name of the trained model.

    Without a `folder` nothing is written. `resume` continues from the folder's newest checkpoint. `stop_after` is a
    total number of steps after which training ends early, as by an interruption. Each stage's `make` builds a
    distiller, which is released at the end of its stage.
    """
    process = this_process()
    placed = [place_stage(i, work, process.process_index, process.num_processes) for i, work in enumerate(stages)]
    checkpoints = folder.complete_checkpoints() if folder is not None and resume else []
    saved = read_checkpoint(checkpoints[-1][1], len(placed)) if checkpoints else None
    training = _Training(
        placed, student, folder, reporter if process.is_main_process else Reporter(), name, stop_after, saved
    )
    try:
        for stage in placed[saved.stage if saved is not None else 0 :]:
            outcome = training.stage(stage)
            if not outcome.finished or (stop_after is not None and outcome.step >= stop_after):
                break
        return replace(outcome, finished=outcome.finished and stage is placed[-1])
    finally:
        if training.board is not None:
            training.board.close()


@dataclass
class _Training:
    """What passes from stage to stage: steps and projections. `saved` is the checkpoint to resume from."""

    placed: Sequence[Placed]
    student: str
    folder: RunFolder | None
    reporter: Reporter
    name: str
    stop_after: int | None
    saved: SavedState | None
    step: int = 0
    carried: dict[str, Tensor] = field(default_factory=dict)
    board: Board | None = None

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
        state = self._state(placed, distiller, accelerator)
        fresh = self.saved is None
        if self.saved is not None:
            self.saved.load(state)
            where = f" of stage {placed.work.name}" if placed.work.name else ""
            self.reporter.say(f"resumed at step {state.step}{where}")
            self.saved = None
        board = self._open_board(state.step, accelerator)
        wrapped = accelerator.prepare_model(Whole(distiller))
        state.optimizer = accelerator.prepare_optimizer(state.optimizer)
        run = StageRun(placed, state, wrapped, self.student, self.folder, board, self.reporter, accelerator)
        if fresh and placed.index and self.folder is not None:
            run.save()  # so that earlier stages are not repeated
        if fresh and accelerator.is_main_process:
            run.keeper.forget()
        title = f"{self.name}: {placed.work.name}" if placed.work.name else self.name
        self.reporter.begin(title, placed.length.steps, state.stage_step)
        distiller.train()
        finished = run.run(self.stop_after)
        for cache, (written, read, left_out) in distiller.cached().items():
            full = f"; {left_out:,} computed and not written: the limit is reached" if left_out else ""
            self.reporter.say(f"cache {cache}: {written:,} examples computed and written, {read:,} read{full}")
        self.step, self.carried = state.step, {**state.carried, **_projections(distiller)}
        return Outcome(distiller, run.scores, state.step, finished)

    def _state(self, placed: Placed, distiller: Distiller, accelerator: Accelerator) -> State:
        """The state at the beginning of a stage: the student as it is, with a new optimizer and schedule."""
        settings, length = placed.work.settings, placed.length
        distiller.to(accelerator.device)
        distiller.horizon = Horizon(length.steps, length.per_epoch)
        own = distiller.projections.state_dict()
        with torch.no_grad():
            for key, value in self.carried.items():
                if key in own and own[key].shape == value.shape:
                    own[key].copy_(value)
        optimizer = build_optimizer(distiller, settings, distiller.optimizer_options())
        schedule = build_schedule(optimizer, settings, length.steps, length.per_epoch)
        identity = digest(distiller.identity, *(stage.fingerprint() for stage in self.placed))
        state = State(identity, distiller, optimizer, schedule, accelerator.scaler, self.step, placed.index)
        state.carried = self.carried
        return state

    def _open_board(self, step: int, accelerator: Accelerator) -> Board:
        """The board of the run; the first stage drops what an earlier run wrote after this step."""
        main = accelerator.is_main_process
        if self.board is None:
            accelerator.wait_for_everyone()
            if self.folder is not None and main:
                self.folder.truncate_log(step)
            self.board = Board(self.folder.board if self.folder is not None and main else None, step)
        return self.board


def _projections(distiller: Distiller) -> dict[str, Tensor]:
    """Copies of the projections' parameters by name, for later stages."""
    return {name: value.detach().cpu().clone() for name, value in distiller.projections.state_dict().items()}
