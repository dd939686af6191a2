"""A frozen model that reads its weights at its first forward: with all of its values on disk it never does."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import nn

_waiting: WeakKeyDictionary[nn.Module, Callable[[], None]] = WeakKeyDictionary()
"""What loads the models that stand by."""


def awake(model: nn.Module) -> nn.Module:
    """The model with its weights, for whoever reads more of it than a forward's output, such as its device."""
    _waiting.get(model, lambda: None)()
    return model


def stands_by(model: nn.Module) -> bool:
    """Whether a model waits for its weights."""
    return model in _waiting


def changes_format(change: Callable[[torch.Tensor], torch.Tensor], model: nn.Module) -> bool:
    """Whether a change of tensors gives any weight of a model, wherever it is, another number format."""
    formats = {x.dtype for x in model.parameters() if x.is_floating_point()}
    return any(change(torch.empty(0, dtype=known)).dtype != known for known in formats)


def stand_by(outline: nn.Module, load: Callable[[], nn.Module]) -> nn.Module:
    """The `outline`, a model on the meta device, which takes the tensors of the model that `load` gives before its
    first forward. Modules, hooks and configuration stay the outline's.

    It may be moved between devices before, which is done then. Another number format gives other values than those on
    disk, so that it is loaded for it.
    """
    postponed: list[Callable[[torch.Tensor], torch.Tensor]] = []

    def postpone(change: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        postponed.append(change)
        return awake(outline) if changes_format(change, outline) else outline

    def wake() -> None:
        loaded = load()
        hook.remove()
        del outline._apply, _waiting[outline]
        for path, part in outline.named_modules():
            source = loaded.get_submodule(path)
            part._parameters, part._buffers = source._parameters, source._buffers
        outline.requires_grad_(False)
        for change in postponed:
            outline._apply(change)

    outline._apply = postpone  # type: ignore[method-assign]
    hook = outline.register_forward_pre_hook(lambda model, args: wake())
    _waiting[outline] = wake
    return outline.requires_grad_(False).eval()
