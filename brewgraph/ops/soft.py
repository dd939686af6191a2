"""Losses on distributions: cross-entropy and divergences of logits, labels and attention probabilities."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import operation

_TEMPERATURE = ("number", "temperature: both sides' logits are divided by it")


@operation(
    takes={
        "logits -> logits": "position",
        "positions -> positions": "example",
        "labels -> logits": "label",
        "labels -> positions": "label",
        "attention -> attention": "token",
    },
    same=("classes", "heads"),
    source="Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 1, without the factor T² (as TextBrewer); "
    "labels: the usual cross-entropy; attention: Jiao et al. 2020 variant on probabilities",
    T=_TEMPERATURE,
)
def ce(source: Any, target: Any, *, T: Any = 1.0) -> Any:
    """Cross-entropy from a distribution or from labels: -Σ p log q, p = softmax(from / T), q = softmax(to / T).

    There is no factor T²: its gradient shrinks by about T² as T grows; `kd` has the factor.
    Labels of -100 are left out. Attention probabilities are taken as they are, summed over keys, averaged over heads.
    """
    import torch
    from torch.nn import functional as F

    if not source.is_floating_point():
        # labels_X -> logits_X_C, labels of -100 give zero
        loss_X = F.cross_entropy(target.flatten(0, -2) / T, source.flatten(), reduction="none", ignore_index=-100)
        return loss_X.view_as(source)
    if source.dim() == 4:
        p_BNLL, q_BNLL = source, target
        tiny = torch.finfo(q_BNLL.dtype).tiny
        return -(p_BNLL * q_BNLL.clamp_min(tiny).log()).sum(-1).mean(1)
    return -(F.softmax(source / T, dim=-1) * F.log_softmax(target / T, dim=-1)).sum(-1)


@operation(
    takes={"logits -> logits": "position", "positions -> positions": "example"},
    same=("classes",),
    source="Kullback and Leibler 1951; at temperature T as in arXiv:1503.02531, without the factor T²",
    T=_TEMPERATURE,
)
def kl(source: Any, target: Any, *, T: Any = 1.0) -> Any:
    """Divergence of the second distribution from the first: Σ p (log p - log q); zero where they agree.

    There is no factor T²; `kd` has it.
    """
    from torch.nn import functional as F

    log_p_X_C, log_q_X_C = F.log_softmax(source / T, dim=-1), F.log_softmax(target / T, dim=-1)
    return F.kl_div(log_q_X_C, log_p_X_C, reduction="none", log_target=True).sum(-1)


@operation(
    takes={"logits -> logits": "position", "positions -> positions": "example"},
    same=("classes",),
    source="Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2: soft targets multiplied by T²",
    T=_TEMPERATURE,
)
def kd(source: Any, target: Any, *, T: Any = 4.0) -> Any:
    """Distillation as Hinton printed it: T² · KL(softmax(from / T) ‖ softmax(to / T)).

    The factor keeps the gradient's size when T changes, so weights beside a loss on labels keep their meaning.
    """
    return T * T * kl(source, target, T=T)
