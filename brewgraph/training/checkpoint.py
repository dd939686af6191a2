"""A training state on disk and back: student, projections, optimizer, schedule, how far it was, what it has summed up.

No generator is kept: everything random follows from the seed and the step.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError
from brewgraph.models.adapters import has_adapter, merged, save_adapter
from brewgraph.models.heads import HeadedModel
from brewgraph.models.loading import quiet_transformers
from brewgraph.models.tokenization import as_loaded
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.best import Progress
from brewgraph.training.folder import RunFolder
from brewgraph.training.records import Sums


@dataclass
class State:
    """What a training is made of apart from its settings. `identity` tells it from every other training.

    `step` counts the optimizer steps of the whole run, `stage_step` those of the stage at place `stage`. `sums` are
    loss and terms since the last line of metrics. `scaler` is that of fp16. `carried` are projections by name as
    earlier stages left them: a later stage that uses one of them again goes on with it.
    """

    identity: str
    distiller: Distiller
    optimizer: Any
    schedule: Any
    scaler: Any = None
    step: int = 0
    stage: int = 0
    stage_step: int = 0
    sums: Sums = field(default_factory=Sums)
    progress: Progress = field(default_factory=Progress)
    carried: dict[str, Tensor] = field(default_factory=dict)


def save_student(student: nn.Module, path: Path, tokenizer: Any = None) -> None:
    """The student as plain transformers loads it: of a model with heads a folder for each, of one with an adapter the
    merged weights, the adapter beside them. A module that is none of its models as a bare model.safetensors.
    """
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    whole = merged(student) if has_adapter(student) else student
    folders = [temporary]
    with quiet_transformers():
        if isinstance(whole, HeadedModel):
            whole.save(temporary)
            folders += [temporary / head for head in whole.heads]
        elif isinstance(whole, PreTrainedModel):
            whole.save_pretrained(temporary)
        else:
            temporary.mkdir(parents=True)
            save_model(whole, str(temporary / "model.safetensors"))
        if has_adapter(student):
            save_adapter(student, temporary / "adapter")
    if tokenizer is not None:
        tokenizer = as_loaded(tokenizer)
        for folder in folders:
            tokenizer.save_pretrained(folder)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def load_student(student: nn.Module, path: Path) -> nn.Module:
    """The student that `save_student` wrote, given one of the same build; returns it with those weights."""
    with quiet_transformers():
        if isinstance(student, HeadedModel):
            return HeadedModel.load(path)
        if isinstance(student, PreTrainedModel):
            loaded: nn.Module = type(student).from_pretrained(path)
            return loaded
    load_model(student, str(path / "model.safetensors"))
    return student


def save_projections(distiller: Distiller, path: Path) -> None:
    """The projections' parameters, where there are any."""
    state = {k: v.detach().contiguous() for k, v in distiller.projections.state_dict().items()}
    if state:
        save_file(state, path)


def save_checkpoint(folder: RunFolder, state: State) -> None:
    """Write a checkpoint that a run goes on from."""
    with folder.writing_checkpoint(state.step) as path:
        save_student(state.distiller.student, path / "student")
        save_projections(state.distiller, path / "projections.safetensors")
        content = {
            "identity": state.identity,
            "step": state.step,
            "stage": state.stage,
            "stage_step": state.stage_step,
            "sums": state.sums.values,
            "since": state.sums.steps,
            "seen": state.sums.seen,
            "progress": asdict(state.progress),
            "carried": state.carried,
            # beside the readable student: the state dict by name, so that loading needs no model class
            "module": state.distiller.state_dict(),
            "extra": dict(state.distiller.extra_state()),
            "optimizer": state.optimizer.state_dict(),
            "schedule": state.schedule.state_dict(),
            "scaler": state.scaler.state_dict() if state.scaler is not None else None,
        }
        torch.save(content, path / "state.pt")


@dataclass(frozen=True)
class SavedState:
    """A checkpoint as it was read; it is loaded into the stage that it is of."""

    path: Path
    content: dict[str, Any]

    @property
    def stage(self) -> int:
        return int(self.content["stage"])

    @property
    def step(self) -> int:
        return int(self.content["step"])

    def load(self, state: State) -> None:
        """Put it into a state of the same stage, strictly. Raises `RunError` where it is another training's."""
        said = self.content
        with _fitting(self.path):
            if said["identity"] != state.identity:
                raise ValueError("it is of another spec, other data or other settings")
            state.distiller.load_state_dict(said["module"])
            state.distiller.load_extra_state(said["extra"])
            state.optimizer.load_state_dict(said["optimizer"])
            state.schedule.load_state_dict(said["schedule"])
            if state.scaler is not None:
                state.scaler.load_state_dict(said["scaler"])
            state.step, state.stage, state.stage_step = said["step"], said["stage"], said["stage_step"]
            state.sums = Sums(said["sums"], said["since"], said["seen"])
            state.progress, state.carried = Progress(**said["progress"]), said["carried"]


def read_checkpoint(path: Path, stages: int) -> SavedState:
    """A checkpoint of a run of so many stages. Nothing but tensors, numbers and names is unpickled.

    Raises `RunError` where the file cannot be read.
    """
    with _fitting(path):
        saved = SavedState(path, torch.load(path / "state.pt", map_location="cpu", weights_only=True))
        if not (0 <= saved.stage < stages and saved.step >= 0):
            raise ValueError("it is of another spec, other data or other settings")
    return saved


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Say in one line why a checkpoint cannot be gone on from."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f"the checkpoint `{path}` does not fit this run: {reason}; start anew with --force") from error


class Keeper:
    """Keeps the weights of a stage's best student and projections: in a run's folder, without one in memory."""

    def __init__(self, folder: RunFolder | None, stage: int):
        self.folder, self.stage = folder, stage
        self._held: dict[str, Any] | None = None

    def forget(self) -> None:
        """Begin without a best one."""
        self._held = None
        if self.folder is not None:
            shutil.rmtree(self.folder.best, ignore_errors=True)

    def keep(self, distiller: Distiller, step: int) -> None:
        """Take these weights for the best. In a folder the main process alone does."""
        module = {name: value.detach().clone() for name, value in distiller.state_dict().items()}
        content = {"stage": self.stage, "step": step, "module": module}
        if self.folder is None:
            self._held = content
            return
        temporary = self.folder.checkpoints / ".best.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_student(distiller.student, temporary / "student")
        save_projections(distiller, temporary / "projections.safetensors")
        torch.save(content, temporary / "state.pt")
        shutil.rmtree(self.folder.best, ignore_errors=True)
        temporary.rename(self.folder.best)

    def give_back(self, distiller: Distiller) -> None:
        """Load the best weights; nothing where no evaluation of this stage was one."""
        said = self._held
        if self.folder is not None and (path := self.folder.best / "state.pt").is_file():
            said = torch.load(path, map_location="cpu", weights_only=True)
        if said is not None and said["stage"] == self.stage:
            distiller.load_state_dict(said["module"])
