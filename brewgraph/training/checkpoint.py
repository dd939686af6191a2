"""A training state on disk and back: student, projections, optimizer, schedule, generators, how far it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError
from brewgraph.models.loading import quiet_transformers
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.folder import RunFolder


def save_student(student: nn.Module, path: Path, tokenizer: Any = None) -> None:
    """The student as plain transformers loads it; a module that is none of its models as a bare model.safetensors."""
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(student, PreTrainedModel):
        with quiet_transformers():
            student.save_pretrained(temporary)
    else:
        temporary.mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in student.state_dict().items()}, temporary / "model.safetensors")
    if tokenizer is not None:
        tokenizer.save_pretrained(temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def save_projections(distiller: Distiller, path: Path) -> None:
    """The projections' parameters, where there are any."""
    state = {k: v.detach().contiguous() for k, v in distiller.projections.state_dict().items()}
    if state:
        save_file(state, path)


def save_checkpoint(folder: RunFolder, step: int, distiller: Distiller, optimizer: Any, schedule: Any) -> None:
    """Write a checkpoint that `load_checkpoint` goes on from."""
    with folder.writing_checkpoint(step) as path:
        save_student(distiller.student, path / "student")
        save_projections(distiller, path / "projections.safetensors")
        # beside the readable student: the state dict by name, so that loading needs no model class
        generators = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state()
        state = {
            "step": step,
            "module": distiller.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "generators": generators,
        }
        torch.save(state, path / "state.pt")


def load_checkpoint(path: Path, distiller: Distiller, optimizer: Any, schedule: Any) -> int:
    """Load what `save_checkpoint` wrote, strictly, and return the steps done. Nothing but tensors and numbers is unpickled."""
    try:
        state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        distiller.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"the checkpoint `{path}` does not fit this run: {reason}; start anew with --force") from error
    torch.set_rng_state(state["generators"]["cpu"])
    if "cuda" in state["generators"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["generators"]["cuda"])
    return int(state["step"])
