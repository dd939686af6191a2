"""Losses of two distributions with their gradient in closed form: less is held, and computed, than autograd would."""

from __future__ import annotations

from functools import cache
from typing import Any


def soft_loss(source: Any, target: Any, T: Any, *, entropy: bool) -> Any:
    """Σ p (log p - log q) of logits, or -Σ p log q with the `entropy` of p; p = softmax(from / T), q = softmax(to / T).

    `T` is a number, or a tensor that broadcasts over classes. No gradient reaches `source` or `T`.
    """
    return _soft_loss().apply(source, target, T, entropy)


@cache
def _soft_loss() -> Any:
    """The function of autograd, made when torch is there."""
    import torch
    from torch.autograd.function import once_differentiable

    class SoftLoss(torch.autograd.Function):
        """The gradient for the target's logits is (q - p) / T (Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 2)."""

        @staticmethod
        def forward(ctx: Any, source_X_C: Any, target_X_C: Any, T: Any, entropy: bool) -> Any:
            log_p, log_q = (torch.log_softmax(_divided(x, T), -1) for x in (source_X_C, target_X_C))
            p = log_p.exp()
            loss_X = -(log_q * p).sum(-1) if entropy else log_p.sub_(log_q).mul_(p).sum(-1)
            if ctx.needs_input_grad[1]:
                ctx.save_for_backward(log_q.exp_().sub_(p))
                ctx.T = T
            return loss_X

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
            (difference_X_C,) = ctx.saved_tensors
            return None, difference_X_C * _divided(gradients[0][..., None], ctx.T), None, None

    return SoftLoss


def _divided(x: Any, T: Any) -> Any:
    """`x / T`; `x` itself for a temperature of one."""
    return x if isinstance(T, float | int) and T == 1 else x / T
