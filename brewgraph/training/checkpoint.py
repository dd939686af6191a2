"""A training state on disk and back: student, projections, optimizer, schedule, how far it was, what it has summed up.

No generator is kept: everything random follows from the seed and the step.
"""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError
from brewgraph.models.loading import quiet_transformers
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.folder import RunFolder


@dataclass
class State:
    """What a training is made of apart from its settings. `identity` tells it from every other training.

    `sums` are loss and terms added up over the `since` steps after the last line of metrics. `scaler` is that of fp16.
    """

    identity: str
    distiller: Distiller
    optimizer: Any
    schedule: Any
    scaler: Any = None
    step: int = 0
    since: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)


def save_student(student: nn.Module, path: Path, tokenizer: Any = None) -> None:
    """The student as plain transformers loads it; a module that is none of its models as a bare model.safetensors."""
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(student, PreTrainedModel):
        with quiet_transformers():
            student.save_pretrained(temporary)
    else:
        temporary.mkdir(parents=True)
        save_model(student, str(temporary / "model.safetensors"))
    if tokenizer is not None:
        tokenizer.save_pretrained(temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def load_student(student: nn.Module, path: Path) -> nn.Module:
    """The student that `save_student` wrote, given one of the same build; returns it with those weights."""
    if isinstance(student, PreTrainedModel):
        with quiet_transformers():
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
    """Write a checkpoint that `load_checkpoint` goes on from."""
    with folder.writing_checkpoint(state.step) as path:
        save_student(state.distiller.student, path / "student")
        save_projections(state.distiller, path / "projections.safetensors")
        content = {
            "identity": state.identity,
            "step": state.step,
            "since": state.since,
            "sums": state.sums,
            # beside the readable student: the state dict by name, so that loading needs no model class
            "module": state.distiller.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "schedule": state.schedule.state_dict(),
            "scaler": state.scaler.state_dict() if state.scaler is not None else None,
        }
        torch.save(content, path / "state.pt")


def load_checkpoint(path: Path, state: State) -> None:
    """Load what `save_checkpoint` wrote into `state`, strictly. Nothing but tensors and numbers is unpickled.

    Raises `RunError` where the file cannot be read or is another training's.
    """
    try:
        said = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        if said["identity"] != state.identity:
            raise ValueError("it is of another spec, other data or other settings")
        state.distiller.load_state_dict(said["module"])
        state.optimizer.load_state_dict(said["optimizer"])
        state.schedule.load_state_dict(said["schedule"])
        if state.scaler is not None:
            state.scaler.load_state_dict(said["scaler"])
        state.step, state.since, state.sums = said["step"], said["since"], said["sums"]
    except (RuntimeError, KeyError, ValueError, TypeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(f"the checkpoint `{path}` does not fit this run: {reason}; start anew with --force") from error
