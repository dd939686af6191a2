"""Losses on distributions: cross-entropy and divergences of logits, labels and attention probabilities."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.closed_form import soft_loss
from brewgraph.ops.registry import operation
from brewgraph.ops.tensors import log, per_item, softmax_over_keys

_TEMPERATURE = ("temperature", "temperature: both sides' logits are divided by it")


_LOGITS = {"logits -> logits": "position", "positions -> positions": "example"}
_DISTRIBUTIONS = {
    "attention -> attention": "token",
    "scores -> scores": "token",
    "probabilities -> logits": "position",
    "probabilities -> probabilities": "position",
    "places -> positions": "example",
    "places -> places": "example",
}


@operation(
    takes={**_LOGITS, "labels -> logits": "label", "labels -> positions": "label", **_DISTRIBUTIONS},
    same=("classes", "heads"),
    least={"classes": 2},
    source="Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 1, without the factor T² (as TextBrewer); "
    "labels: the usual cross-entropy; attention: Jiao et al. 2020 variant on probabilities",
    unscaled="write `kd(…)`, which has it",
    T=_TEMPERATURE,
)
def ce(source: Any, target: Any, *, T: Any = 1.0, layout: Any = None, kinds: tuple[str, ...] = ()) -> Any:
    """Cross-entropy from a distribution or from labels.

        -Σ_c p_c log q_c,  p = softmax(from / T),  q = softmax(to / T)

    There is no factor T²: its gradient shrinks by about T² as T grows; `kd` has the factor.
    Labels of -100 are left out. Probabilities, those of attention too, are taken as they are; attention scores go
    through a softmax over the keys that are no padding. Attention is summed over keys and averaged over heads.
    """
    from torch.nn import functional as F

    if not source.is_floating_point():
        # labels_X -> logits_X_C, labels of -100 give zero
        logits_X_C = target / per_item(T, target)
        loss_X = F.cross_entropy(logits_X_C.flatten(0, -2), source.flatten(), reduction="none", ignore_index=-100)
        return loss_X.view_as(source)
    if _has_closed_form(source, target, T, kinds):
        return soft_loss(source, target, per_item(T, source), entropy=True)
    p, _ = _distribution(source, T, kinds[:1], layout)
    _, log_q = _distribution(target, T, kinds[1:], layout)
    return _over_heads(-(p * log_q).sum(-1))


@operation(
    takes={**_LOGITS, **_DISTRIBUTIONS},
    same=("classes", "heads"),
    least={"classes": 2},
    source="Kullback and Leibler 1951; at temperature T as in arXiv:1503.02531, without the factor T²; "
    "attention and relations: Wang et al. 2020, arXiv:2002.10957 (MiniLM); Wang et al. 2021, arXiv:2012.15828 (v2)",
    unscaled="write `kd(…)`, which has it",
    T=_TEMPERATURE,
)
def kl(source: Any, target: Any, *, T: Any = 1.0, layout: Any = None, kinds: tuple[str, ...] = ()) -> Any:
    """Divergence of the second distribution from the first; zero where they agree.

        Σ_c p_c (log p_c - log q_c),  p = softmax(from / T),  q = softmax(to / T)

    There is no factor T²; `kd` has it. Probabilities, those of attention and of relations too, are taken as they are;
    attention scores go through a softmax over the keys that are no padding. Attention is averaged over heads.
    """
    if _has_closed_form(source, target, T, kinds):
        return soft_loss(source, target, per_item(T, source), entropy=False)
    p, log_p = _distribution(source, T, kinds[:1], layout)
    _, log_q = _distribution(target, T, kinds[1:], layout)
    return _over_heads((p * (log_p - log_q)).sum(-1))


@operation(
    takes=_LOGITS,
    same=("classes",),
    least={"classes": 2},
    source="Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2: soft targets multiplied by T²",
    T=_TEMPERATURE,
)
def kd(source: Any, target: Any, *, T: Any = 4.0) -> Any:
    """Distillation as Hinton printed it: T² times the divergence of the softened distributions.

        T² Σ_c p_c (log p_c - log q_c),  p = softmax(from / T),  q = softmax(to / T)

    The factor keeps the gradient's size when T changes, so weights beside a loss on labels keep their meaning.
    """
    loss_X = kl(source, target, T=T)
    T_X = per_item(T, loss_X)
    return T_X * T_X * loss_X


@operation(
    takes={"logits -> logits": "position", "targets -> logits": "example"},
    same=("classes",),
    source="the usual binary cross-entropy of several labels per example; "
    "between models: the mean over classes of Hinton, Vinyals, Dean 2015, arXiv:1503.02531, eq. 1 with two outcomes",
    unscaled="weigh it by T²",
    T=_TEMPERATURE,
)
def bce(source: Any, target: Any, *, T: Any = 1.0, kinds: tuple[str, ...] = ("targets", "logits")) -> Any:
    """Binary cross-entropy, the mean over classes.

        -mean_c (p_c log q_c + (1 - p_c) log(1 - q_c)),  q = sigmoid(to / T)

    For classes that do not exclude each other. Targets are p themselves, zeros and ones or between; of logits on the
    left p = sigmoid(from / T). There is no factor T².
    """
    from torch.nn import functional as F

    if kinds[0] == "logits":
        p_X_C = (source / per_item(T, source)).sigmoid()
    else:
        p_X_C = source if source.dim() == target.dim() else source.unsqueeze(-1)
    logits_X_C = target / per_item(T, target)
    return F.binary_cross_entropy_with_logits(logits_X_C, p_X_C.to(logits_X_C.dtype), reduction="none").mean(-1)


def _has_closed_form(source: Any, target: Any, T: Any, kinds: tuple[str, ...]) -> bool:
    """Whether both sides are logits, of which the target's alone learn."""
    logits = kinds == ("logits", "logits") if kinds else source.dim() < 4
    learns = source.requires_grad or getattr(T, "requires_grad", False)
    return logits and not learns and source.shape == target.shape and source.dtype == target.dtype


def _distribution(x: Any, T: Any, kinds: tuple[str, ...], layout: Any) -> tuple[Any, Any]:
    """A side's probabilities over the last axis and their logarithms. Without kinds four axes are attention."""
    from torch.nn import functional as F

    kind = kinds[0] if kinds else "attention" if x.dim() == 4 else "logits"
    if kind in ("probabilities", "places"):
        return x, log(x)
    if kind == "attention":
        # padded keys may hold anything: zero times the logarithm of one, in the gradient too
        p, q = (x, x) if layout is None else (layout.hide_keys(x, 0.0), layout.hide_keys(x, 1.0))
        return p, log(q)
    scaled = x / per_item(T, x)
    if kind == "scores":
        return softmax_over_keys(scaled, layout), softmax_over_keys(scaled, layout, logarithm=True)
    return F.softmax(scaled, dim=-1), F.log_softmax(scaled, dim=-1)


def _over_heads(x: Any) -> Any:
    """Attention's values per head and token, (B, N, L), averaged over heads; others as they are.

    A loss on logits has at most two axes left here.
    """
    return x.mean(1) if x.dim() == 3 else x
