"""From settings to optimizer and schedule, torch's and transformers' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from brewgraph.recipe.settings import Adamw, Constant, Cosine, Train

_SCHEDULES = {Cosine: "cosine", Constant: "constant_with_warmup"}


def build_optimizer(
    module: nn.Module, settings: Train, own: Mapping[str, Mapping[str, float]]
) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters. Weight decay spares biases and norms, which have one axis.

    `own` gives settings for parameters by the beginning of their names (projections with an `lr` of their own).
    """
    optimizer = settings.optimizer
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        special = next((dict(options) for prefix, options in own.items() if name.startswith(prefix)), {})
        options = {"weight_decay": optimizer.weight_decay, **special}
        if parameter.ndim < 2:
            options["weight_decay"] = 0.0
        group = groups.setdefault(tuple(sorted(options.items())), {"params": [], **options})
        group["params"].append(parameter)
    if isinstance(optimizer, Adamw):
        return torch.optim.AdamW(list(groups.values()), lr=optimizer.lr, betas=optimizer.betas, eps=optimizer.eps)
    return torch.optim.SGD(list(groups.values()), lr=optimizer.lr, momentum=optimizer.momentum)


def build_schedule(optimizer: torch.optim.Optimizer, settings: Train, steps: int, per_epoch: int) -> Any:
    """The schedule of the learning rate over `steps` optimizer steps."""
    schedule = settings.schedule
    warmup = schedule.warmup.steps(steps, per_epoch)
    name = _SCHEDULES.get(type(schedule), "linear")
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
