"""A training state on disk and back: student, projections, optimizer, schedule, progress, sums; and the best student.

No generator is saved: everything random follows from the seed and the step.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError
from brewgraph.models.adapters import has_adapter, merged, save_adapter
from brewgraph.models.fake.shapes import accepted
from brewgraph.models.heads import HeadedModel
from brewgraph.models.loading import quiet_transformers
from brewgraph.models.tokenization import as_loaded, giving
from brewgraph.recipe.settings.train import Train
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.folder import RunFolder, display_path, put_back, replacing, verify, write_checksums
from brewgraph.training.shards import gathered, scattered
from brewgraph.training.state_files import read_state, write_state


@dataclass
class Sums:
    """Loss and terms of each task, summed over its `steps` since the last line.

    `seen` counts the steps that computed each of them: a term that a schedule has at zero is not computed.
    """

    values: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    seen: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, task: str, output: Mapping[str, Tensor]) -> None:
        """Add a micro-batch's share of a step."""
        own = self.values.setdefault(task, {})
        for name, value in output.items():
            own[name] = own[name] + value if name in own else value

    def end_step(self, task: str, computed: Iterable[str]) -> None:
        """Count a step of a task, and the terms that it computed."""
        self.steps[task] = self.steps.get(task, 0) + 1
        own = self.seen.setdefault(task, {})
        for name in computed:
            own[name] = own.get(name, 0) + 1

    def gathered(self, accelerator: Accelerator) -> dict[str, dict[str, Tensor]]:
        """The sums over all ranks."""
        if accelerator.num_processes == 1:
            return self.values
        gathered: dict[str, dict[str, Tensor]] = accelerator.reduce(self.values, "sum")
        return gathered

    def held_by(self, accelerator: Accelerator) -> Sums:
        """The sums after a resume: the first rank holds all that was gathered over the ranks."""
        device, main = accelerator.device, accelerator.is_main_process
        values = {
            task: {k: v.to(device) if main else torch.zeros_like(v, device=device) for k, v in own.items()}
            for task, own in self.values.items()
        }
        return Sums(values, dict(self.steps), {task: dict(own) for task, own in self.seen.items()})


@dataclass
class Progress:
    """The best score of a stage, its step in the run, and the number of evaluations since without a better one.

    Of equal scores the earliest stays the best. As in transformers, only a score that is better by more than the
    threshold resets the patience.
    """

    score: float | None = None
    step: int = 0
    misses: int = 0
    scores: dict[str, float] = field(default_factory=dict)

    def take(self, value: float, step: int, scores: dict[str, float], settings: Train) -> bool:
        """Note an evaluation; whether it is the best so far. NaN never is."""
        gain = math.inf if self.score is None else value - self.score
        if self.score is not None and not settings.greater_is_better:
            gain = -gain
        better = not math.isnan(value) and gain > 0
        self.misses = 0 if better and gain > settings.early_stopping_threshold else self.misses + 1
        if better:
            self.score, self.step, self.scores = value, step, scores
        return better

    def exhausted(self, settings: Train) -> bool:
        """Whether the stage ends early."""
        patience = settings.early_stopping_patience
        return patience is not None and self.misses >= patience


@dataclass
class State:
    """The state of a training; `identity` distinguishes it from every other training.

    `step` counts the optimizer steps of the whole run, `stage_step` those of the stage with index `stage`. `sums` are
    loss and terms since the last line of metrics. `unevaluated` says that the step is done, and the evaluation that
    follows it is not. `scaler` is that of fp16. `carried` are the projections by name at
    the end of earlier stages, from which a later stage that uses them continues.
    """

    identity: str
    distiller: Distiller
    optimizer: Any
    schedule: Any
    scaler: Any = None
    step: int = 0
    stage: int = 0
    stage_step: int = 0
    unevaluated: bool = False
    sums: Sums = field(default_factory=Sums)
    progress: Progress = field(default_factory=Progress)
    carried: dict[str, Tensor] = field(default_factory=dict)


def save_student(student: nn.Module, path: Path, tokenizer: Any = None) -> None:
    """Save the student so that plain transformers loads it: a folder for each head, merged weights beside an adapter;
    a custom module becomes a bare model.safetensors. The tokenizer gives the inputs that the student's forward takes.
    """
    whole = merged(student) if has_adapter(student) else student
    with replacing(path) as temporary:
        folders = [temporary]
        with quiet_transformers():
            if isinstance(whole, HeadedModel):
                whole.save(temporary)
                folders += [temporary / head for head in whole.heads]
            elif isinstance(whole, PreTrainedModel):
                whole.save_pretrained(temporary)
            else:
                save_model(whole, str(temporary / "model.safetensors"))
            if has_adapter(student):
                save_adapter(student, temporary / "adapter")
        if tokenizer is not None:
            taken, takes_any, _ = accepted(whole)
            names = [name for name in tokenizer.model_input_names if takes_any or name in taken]
            tokenizer = as_loaded(giving(tokenizer, names))
            for folder in folders:
                tokenizer.save_pretrained(folder)


def load_student(student: nn.Module, path: Path) -> nn.Module:
    """The student that `save_student` wrote, given one of the same architecture."""
    with quiet_transformers():
        if isinstance(student, HeadedModel):
            return HeadedModel.load(path)
        if isinstance(student, PreTrainedModel):
            loaded: nn.Module = type(student).from_pretrained(path)
            return loaded
    load_model(student, str(path / "model.safetensors"))
    return student


def save_projections(distiller: Distiller, path: Path) -> None:
    """Save the projections' parameters, if there are any."""
    state = {k: v.detach().contiguous() for k, v in distiller.projections.state_dict().items()}
    if state:
        save_file(state, path)


def save_checkpoint(folder: RunFolder, state: State, *, main: bool = True) -> None:
    """Write a checkpoint to resume from. All ranks call it, with student and projections whole; the main one writes."""
    optimizer = gathered(state.optimizer.state_dict(), keep=main)
    extra = gathered(dict(state.distiller.extra_state()), keep=main)
    if not main:
        return
    with folder.writing_checkpoint(state.step) as path:
        save_student(state.distiller.student, path / "student")
        save_projections(state.distiller, path / "projections.safetensors")
        content = {
            "identity": state.identity,
            "step": state.step,
            "stage": state.stage,
            "stage_step": state.stage_step,
            "unevaluated": state.unevaluated,
            "sums": vars(state.sums),
            "progress": asdict(state.progress),
            "carried": state.carried,
            # the state dict by name, beside the student, so that loading needs no model class
            "module": state.distiller.state_dict(),
            "extra": extra,
            "optimizer": optimizer,
            "schedule": state.schedule.state_dict(),
            "scaler": state.scaler.state_dict() if state.scaler is not None else None,
        }
        write_state(content, path)


@dataclass(frozen=True)
class SavedState:
    """A checkpoint as it was read, to load into the stage with this index."""

    path: Path
    content: dict[str, Any]
    stage: int

    def load_weights(self, distiller: Distiller, identity: str) -> None:
        """Load weights into the distiller of its stage, strictly, before they are sharded. Raises `RunError` if it is
        another training's.
        """
        content = self.content
        with _fitting(self.path):
            if content["identity"] != identity:
                raise ValueError(_OTHER_TRAINING)
            distiller.load_state_dict(content["module"])
            distiller.load_extra_state(content["extra"])

    def load(self, state: State) -> None:
        """Load everything else into a state of the same training."""
        content = self.content
        with _fitting(self.path):
            state.optimizer.load_state_dict(scattered(content["optimizer"], state.optimizer))
            state.schedule.load_state_dict(content["schedule"])
            if state.scaler is not None:
                state.scaler.load_state_dict(content["scaler"])
            state.step, state.stage, state.stage_step = content["step"], content["stage"], content["stage_step"]
            state.unevaluated = content["unevaluated"]
            state.sums, state.progress = Sums(**content["sums"]), Progress(**content["progress"])
            state.carried = content["carried"]


_OTHER_TRAINING = "it belongs to another spec, other data or other settings"


def read_checkpoint(path: Path, stages: int) -> SavedState:
    """A checkpoint of a run with that many stages. Raises `RunError` if the files are not one of this version."""
    with _fitting(path):
        content: Any = read_state(path)
        if content["stage"] not in range(stages):
            raise ValueError(_OTHER_TRAINING)
        return SavedState(path, content, content["stage"])


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Report in one line why a checkpoint cannot be used."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, OSError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(
            f"the checkpoint `{display_path(path)}` does not fit this run: {reason}; start anew with --force"
        ) from error


class Keeper:
    """Keeps the weights of a stage's best student and projections, in a run's folder or else in memory."""

    def __init__(self, folder: RunFolder | None, stage: int):
        self.folder, self.stage = folder, stage
        self._held: dict[str, Any] | None = None
        if folder is not None:
            put_back(folder.best)

    def forget(self) -> None:
        """Start without a best student."""
        self._held = None
        if self.folder is not None:
            shutil.rmtree(self.folder.best, ignore_errors=True)

    def keep(self, distiller: Distiller, step: int) -> None:
        """Keep these weights as the best. With a folder only the main process does."""
        module = {name: value.detach().clone() for name, value in distiller.state_dict().items()}
        content = {"stage": self.stage, "step": step, "module": module}
        if self.folder is None:
            self._held = content
            return
        with replacing(self.folder.best) as temporary:
            save_student(distiller.student, temporary / "student")
            save_projections(distiller, temporary / "projections.safetensors")
            write_state(content, temporary)
            write_checksums(temporary, step)

    def give_back(self, distiller: Distiller, progress: Progress) -> None:
        """Load the best weights of this stage, if it has any. Raises `RunError` if they were deleted or damaged."""
        if progress.score is None:
            return
        best: Any = self._held
        if self.folder is not None:
            path = self.folder.best
            if fault := verify(path):
                raise RunError(f"the best student in `{display_path(path)}` {fault}; start anew with --force")
            with _fitting(path):
                best = read_state(path)
        if best is None or (best["stage"], best["step"]) != (self.stage, progress.step):
            raise RunError(f"the best student, of step {progress.step}, is missing; start anew with --force")
        distiller.load_state_dict(best["module"])
