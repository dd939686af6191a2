"""Models on disk, as plain transformers loads them, and back."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_model as load_weights
from safetensors.torch import save_model as save_weights
from torch import nn
from transformers import PreTrainedModel

from brewgraph.models.adapters import has_adapter, merged, save_adapter
from brewgraph.models.heads import HeadedModel
from brewgraph.models.loading import quiet_transformers

ADAPTER = "adapter"
"""The folder, inside a model's own, of what was trained beside frozen weights."""


def save_model(model: nn.Module, folder: Path) -> None:
    """Write a model into a folder that is there or not.

    A transformers model is written as such; one with heads as a folder per head; an adapter is merged into the weights,
    and once more by itself in `adapter/`, in peft's format. Any other module becomes a bare `model.safetensors`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        plain = model
        if has_adapter(model):
            save_adapter(model, folder / ADAPTER)
            plain = merged(model)
        if isinstance(plain, HeadedModel):
            plain.save(folder)
        elif isinstance(plain, PreTrainedModel):
            plain.save_pretrained(folder)
        else:
            save_weights(plain, str(folder / "model.safetensors"))


def load_model(like: nn.Module, folder: Path) -> nn.Module:
    """The model that `save_model` wrote, given one of the same build: an adapted one comes back merged.

    Any other module than transformers' own takes the weights itself and is returned.
    """
    with quiet_transformers():
        if isinstance(like, HeadedModel):
            return HeadedModel.load(folder)
        if isinstance(like, PreTrainedModel):
            loaded: nn.Module = type(like).from_pretrained(folder)
            return loaded
    load_weights(like, str(folder / "model.safetensors"))
    return like
