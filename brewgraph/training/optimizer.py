"""Optimizers and schedules of torch and transformers from the settings of a spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from brewgraph.diagnostics import RunError
from brewgraph.recipe.settings.train import Adamw, Constant, Cosine, Slanted, Train

_SCHEDULES = {Cosine: "cosine", Constant: "constant_with_warmup"}


class BertAdamw(torch.optim.Optimizer):
    """AdamW without bias correction, as BERT was trained.

    m and v are the running means of gradient and squared gradient; p <- p - lr (m / (sqrt(v) + eps) + decay p). Its
    first steps are longer than AdamW's, which a warm-up compensates.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient do not change."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["exp_avg"].lerp_(p.grad, 1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-group["lr"])


def build_optimizer(
    module: nn.Module, settings: Train, own: Mapping[str, Mapping[str, float]]
) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters. Weight decay spares biases and norms, which have one axis, unless the
    spec decays all.

    `own` gives settings for parameters by prefixes of their names, such as the `lr` of a projection. Layer-wise decay
    below 1 reduces the rate of the student's layers towards the embeddings; projections and everything above the layers
    learn at the full rate.
    """
    optimizer = settings.optimizer
    decay = optimizer.layerwise_decay if isinstance(optimizer, Adamw) else 1.0
    spared = not (isinstance(optimizer, Adamw) and optimizer.decay_all)
    depths = layer_depths(module.get_submodule("student")) if decay < 1 else {}
    top = max(depths.values(), default=0)
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        special = next((dict(options) for prefix, options in own.items() if name.startswith(prefix)), {})
        options = {"weight_decay": optimizer.weight_decay, **special}
        depth = depths.get(name.removeprefix("student."), top) if name.startswith("student.") else top
        if depth < top:
            options["lr"] = optimizer.lr * decay ** (top - depth)
        if spared and parameter.ndim < 2:
            options["weight_decay"] = 0.0
        group = groups.setdefault(tuple(sorted(options.items())), {"params": [], **options})
        group["params"].append(parameter)
    if isinstance(optimizer, Adamw):
        listed, (lr, betas, eps) = list(groups.values()), (optimizer.lr, optimizer.betas, optimizer.eps)
        if not optimizer.correct_bias:
            return BertAdamw(listed, lr=lr, betas=betas, eps=eps)
        devices = {p.device for group in listed for p in group["params"]}
        if optimizer.fused:
            _demand_fused(devices)
        # on a CPU one pass over each parameter instead of ten, which matters for large embeddings
        fused = optimizer.fused if optimizer.fused is not None else all(d.type == "cpu" for d in devices) or None
        return torch.optim.AdamW(listed, lr=lr, betas=betas, eps=eps, fused=fused)
    return torch.optim.SGD(list(groups.values()), lr=optimizer.lr, momentum=optimizer.momentum)


def _demand_fused(devices: Iterable[torch.device]) -> None:
    """Raise `RunError` for a device whose fused kernel cannot take a step on one number."""
    for device in devices:
        probe = nn.Parameter(torch.zeros(1, device=device))
        probe.grad = torch.zeros_like(probe)
        try:
            torch.optim.AdamW([probe], fused=True).step()
        except (RuntimeError, NotImplementedError) as error:
            message = f"AdamW has no fused kernel on the device `{device.type}`: remove `fused=true`"
            raise RunError(message) from error


def layer_depths(student: nn.Module) -> dict[str, int]:
    """The depth of each parameter: 0 for embeddings, i for the i-th layer counted from 1, one more above the layers.

    The layers are the longest list of modules; embeddings are recognized by their names.
    """
    lists = [(len(m), name) for name, m in student.named_modules() if isinstance(m, nn.ModuleList)]
    count, path = max(lists, default=(0, ""), key=lambda item: item[0])
    depths = {}
    for name, _ in student.named_parameters():
        if count and name.startswith(f"{path}."):
            depths[name] = int(name.removeprefix(f"{path}.").split(".")[0]) + 1
        else:
            depths[name] = 0 if _EMBEDDING.search(name) else count + 1
    return depths


_EMBEDDING = re.compile(r"(^|\.)(embeddings?|embeddings_project|embed_\w+|wte|wpe|word_embedding|shared)\.")


def build_schedule(optimizer: torch.optim.Optimizer, settings: Train, steps: int, per_epoch: int) -> Any:
    """The schedule of the learning rate over `steps` optimizer steps."""
    schedule = settings.schedule
    warmup = schedule.warmup.steps(steps, per_epoch)
    if isinstance(schedule, Slanted):
        return LambdaLR(optimizer, lambda step: slanted(step, warmup, steps, schedule.ratio))
    name = _SCHEDULES.get(type(schedule), "linear")
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)


def slanted(step: int, warmup: int, total: int, ratio: float) -> float:
    """The fraction of the full rate at a step, counted from 0: 1 / ratio at both ends of training, 1 at the end of the
    warm-up (Howard and Ruder 2018, arXiv:1801.06146, eq. 3).
    """
    p = step / warmup if step < warmup else 1 - (step - warmup) / max(1, total - warmup)
    return (1 + max(0.0, p) * (ratio - 1)) / ratio
