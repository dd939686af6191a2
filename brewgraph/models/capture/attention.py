"""An attention function that captures can watch and that runs on packed tokens, registered with transformers under the
name `brewgraph`.

Modules that are watched for `attention` run their own eager attention, all others what they ran before (such as scaled
dot product attention). No model's code is changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask

from brewgraph.diagnostics import SourceFault

NAME = "brewgraph"


@dataclass
class _Borrowed:
    config: PretrainedConfig
    former: str
    holders: int = 0


Record = Callable[[dict[str, Tensor]], None]

_WATCHERS = "brewgraph_watchers"
"""The attribute of a watched module. A table of all modules would be one that `torch.compile` guards as a whole: code
compiled for one model would depend on which others are alive."""


class _Watchers(list[tuple[frozenset[str], Record]]):
    """What watches a module. A copy of the module starts without, and so does one that is read back."""

    def __reduce_ex__(self, protocol: object) -> tuple[type[_Watchers], tuple[()]]:
        return _Watchers, ()


_borrowed: dict[int, _Borrowed] = {}  # by id of the config: models built from one config share its setting


def watch(module: nn.Module, wants: Collection[str], record: Record) -> Callable[[], None]:
    """Give the named values of each call of an attention module to `record`; returns the function that ends it."""
    watchers, watcher = vars(module).setdefault(_WATCHERS, _Watchers()), (frozenset(wants), record)
    watchers.append(watcher)

    def end() -> None:
        watchers.remove(watcher)
        if not watchers and vars(module).get(_WATCHERS) is watchers:
            delattr(module, _WATCHERS)

    return end


def borrow(model: PreTrainedModel, name: str) -> Callable[[], None]:
    """Switch a model to the attention implementation `name`; returns the function that restores the former one.

    Holders are counted per configuration, and the last one restores. SourceFault B304 for a model that cannot switch.
    """
    config = model.config
    entry = _borrowed.get(id(config))
    if entry is None:
        former = config._attn_implementation
        if former == NAME:  # a copy of a model that was being watched
            former = "sdpa" if model._supports_sdpa else "eager"
        entry = _borrowed[id(config)] = _Borrowed(config, former)
    entry.holders += 1

    def give_back() -> None:
        entry.holders -= 1
        if not entry.holders:
            _borrowed.pop(id(config), None)
            model.set_attn_implementation(entry.former)

    model.set_attn_implementation(name)
    if config._attn_implementation != name:
        give_back()
        message = f"{type(model).__name__} cannot switch its attention from {entry.former} to {name}"
        help = "its attention weights are not available; match hidden states instead, or tap modules by path"
        raise SourceFault("B304", message, help=help)
    return give_back


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention for transformers' interface.

    query (batch, heads, length, size), key and value (batch, key heads, length, size), mask additive
    (batch, 1, length, length) or None. Returns output (batch, length, heads, size), and the probabilities if the module
    runs eagerly. What runs depends on the watchers, never on whether a capture is armed, so that activation
    checkpointing recomputes the same graph.
    """
    entry = _borrowed.get(id(getattr(module, "config", None)))
    eagerly = entry is not None and entry.former == "eager"
    watchers = getattr(module, _WATCHERS, ())
    if _packed is not None and _packed.is_packed(query.transpose(1, 2)):
        if not watchers and not eagerly and query.device.type == "cpu":
            rate, causal = dropout if module.training else 0.0, bool(getattr(module, "is_causal", True))
            qkv = query, _spread(key, query), _spread(value, query)
            return _packed.attend(qkv, attention_mask, rate=rate, scaling=scaling, causal=causal), None
        # on other devices one masked call beats a call for each example
        q, k, v = (_packed.unpack(x.transpose(1, 2)).transpose(1, 2) for x in (query, key, value))
        output_BL, weights = attention_forward(module, q, k, v, attention_mask, dropout, scaling, **kwargs)
        return _packed.pack(output_BL), weights
    wanted = {want for wants, _ in watchers for want in wants}
    values = {"query": query, "key": key, "value": value}
    if "scores" in wanted:
        values["scores"] = _scores(query, key, scaling)
    weights = None
    if "attention" in wanted or eagerly:
        # The module's own eager function is called without dropout: what it returns is then the probabilities as such,
        # with every peculiarity of the architecture (softcap, sinks, the dtype of the softmax).
        eager = _own_eager(module)
        output, weights = eager(module, query, key, value, attention_mask, scaling=scaling, dropout=0.0, **kwargs)
        values["attention"] = weights
        if dropout and module.training:
            weights = nn.functional.dropout(weights, p=dropout)
            output = torch.matmul(weights, _spread(value, query)).transpose(1, 2).contiguous()
    else:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    for _, record in watchers:
        record(values)
    return output, weights


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention without dropout, for modules whose file has no `eager_attention_forward` of its own."""
    scores = _scores(query, key, scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, _spread(value, query)).transpose(1, 2).contiguous(), weights


def _scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """Attention scores before mask and softmax."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return torch.matmul(query, _spread(key, query).transpose(2, 3)) * scale


def _own_eager(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """The eager attention of the file that a module's class comes from (a base class's, where it was wrapped)."""
    for kind in type(module).__mro__:
        eager: Callable[..., tuple[Tensor, Tensor]] | None = getattr(
            sys.modules.get(kind.__module__), "eager_attention_forward", None
        )
        if eager is not None:
            return eager
    return plain_attention


def _spread(x: Tensor, query: Tensor) -> Tensor:
    """Repeat grouped key or value heads until there is one for each head of the query."""
    return repeat_kv(x, query.shape[1] // x.shape[1])


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, eager_mask)


# ── packed tokens ────────────────────────────────────────────────────────────────────────────────────────────────────


WORTHWHILE = 0.95
"""The share of real tokens in a batch up to which packing pays."""
_SHORT = 256
"""Tokens up to which plain products of an example take less time on a CPU than torch's fused attention."""


class PackedTokens:
    """Where the real tokens of a batch stand: B examples of L places, N real tokens, packed one after the other."""

    def __init__(self, mask_BL: Tensor):
        self.mask_BL = mask_BL.bool()
        self.lengths: list[int] = self.mask_BL.sum(1).tolist()
        self._places_N = self.mask_BL.flatten().nonzero().squeeze(1)
        self._kinds: dict[int, tuple[Tensor, str]] = {}

    def to(self, device: torch.device) -> PackedTokens:
        """The same tokens on another device."""
        return self if self.mask_BL.device == device else PackedTokens(self.mask_BL.to(device))

    def is_padded(self, x: Tensor) -> bool:
        """Whether a tensor has a row for each place: (B, L, …) or (1, L, …)."""
        return x.dim() > 1 and x.shape[0] in (1, len(self.mask_BL)) and x.shape[1] == self.mask_BL.shape[1]

    def is_packed(self, x: Tensor) -> bool:
        """Whether a tensor has a row for each real token: (1, N, …)."""
        return x.dim() > 1 and x.shape[:2] == (1, len(self._places_N))

    def pack(self, x_BL: Tensor) -> Tensor:
        """(B, L, …) to (1, N, …)."""
        return x_BL.expand(*self.mask_BL.shape, *x_BL.shape[2:]).flatten(0, 1).index_select(0, self._places_N)[None]

    def unpack(self, x_N: Tensor) -> Tensor:
        """(1, N, …) to (B, L, …), zeros at padding, where no gradient counts: `is_zero_outside` tells."""
        x_M = x_N.new_zeros(self.mask_BL.numel(), *x_N.shape[2:]).index_copy_(0, self._places_N, x_N[0])
        x_BL = x_M.view(*self.mask_BL.shape, *x_N.shape[2:])
        setattr(x_BL, _MARK, self.mask_BL)
        return x_BL

    def kind(self, mask: Tensor | None, *, causal: bool) -> str:
        """What a mask (B, 1, L, L), zero where attention is allowed, means among real tokens: `full`, `causal`, or
        `other`. Without one the module says whether it is causal.
        """
        if mask is None:
            return "causal" if causal else "full"
        known = self._kinds.get(id(mask))
        if known is None or known[0] is not mask:
            allowed_BLL = mask[:, 0] == 0 if mask.is_floating_point() else mask[:, 0]
            free_BLL = allowed_BLL | ~(self.mask_BL[:, :, None] & self.mask_BL[:, None, :])
            past_LL = torch.ones_like(free_BLL[0]).tril()
            if bool(free_BLL.all()):
                kind = "full"
            else:
                kind = "causal" if bool((free_BLL | ~past_LL).all() & ~(allowed_BLL & ~past_LL).any()) else "other"
            known = self._kinds[id(mask)] = mask, kind
        return known[1]

    def attend(
        self, qkv: tuple[Tensor, ...], mask: Tensor | None, *, rate: float, scaling: float | None, causal: bool
    ) -> Tensor:
        """Attention on each example by itself, of query, key and value: (1, heads, N, size) to (1, N, heads, size)."""
        kind = self.kind(mask, causal=causal)
        if kind == "full" and qkv[0].dtype == torch.float32 and fast_kernels_are_on():
            scale = qkv[0].shape[-1] ** -0.5 if scaling is None else scaling
            lengths = [n for n in self.lengths if n]
            query, key, value = (x[0].transpose(0, 1) for x in qkv)
            with torch._C.DisableTorchFunction():  # no mode has to look at hundreds of small operations
                if rate:
                    packed: Tensor = PackedAttention.apply(query, key, value, lengths, scale, rate)
                    return packed[None]
                if not torch.is_grad_enabled() and max(lengths, default=0) <= _SHORT:
                    return _attention(query, key, value, lengths, scale)[None]
        outputs = []
        for example, (q, k, v) in enumerate(zip(*(x.split(self.lengths, 2) for x in qkv), strict=True)):
            if not q.shape[2]:
                continue
            part = None
            if kind == "other" and mask is not None:
                real = self.mask_BL[example]
                part = mask[example, :, real][:, :, real][None]
            is_causal = kind == "causal" and q.shape[2] > 1
            outputs.append(
                nn.functional.scaled_dot_product_attention(
                    q, k, v, attn_mask=part, dropout_p=rate, is_causal=is_causal, scale=scaling
                )
            )
        return torch.cat(outputs, 2).transpose(1, 2).contiguous()


_MARK = "brewgraph_zero_outside"


def is_zero_outside(x: Tensor, mask_BL: Tensor) -> bool:
    """Whether a tensor was unpacked with this mask, so that it is zero where the mask is false."""
    known = getattr(x, _MARK, None)
    return known is not None and torch.equal(known, mask_BL)


_packed: PackedTokens | None = None


@contextmanager
def on(tokens: PackedTokens) -> Iterator[None]:
    """Attention inside the block is that of packed tokens."""
    global _packed
    _packed = tokens
    try:
        yield
    finally:
        _packed = None


class PackedAttention(torch.autograd.Function):
    """Attention with dropout on each example by itself, its gradient in closed form: (N, heads, size) to the same.

    With P = softmax(scale Q Kᵀ), M the mask of dropout and c = 1 / (1 - rate): O = c (P * M) V, dV = c (P * M)ᵀ dO,
    dP = c M * dO Vᵀ, dS = P * (dP - rowsum(dP * P)), dQ = scale dS K, dK = scale dSᵀ Q (Vaswani et al. 2017, eq. 1,
    differentiated). The probabilities of all examples lie behind each other, so that dropout is one operation for all
    of them; P is kept with the sign of what M leaves, so that one tensor holds both.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float, rate: float
    ) -> Tensor:
        heads, output = query.shape[1], torch.empty_like(value)
        signed = query.new_empty(heads * sum(n * n for n in lengths))
        for square, q, k in zip(_squares(signed, heads, lengths), *_examples(lengths, query, key), strict=True):
            scores = torch.baddbmm(square, q, k.transpose(1, 2), beta=0, alpha=scale)
            torch._softmax(scores, -1, False, out=square)
        signed.mul_(keep_mask(signed.shape, rate).view(torch.int8).mul_(2).sub_(1))
        kept = _squares(signed.relu(), heads, lengths)
        for square, v, out in zip(kept, *_examples(lengths, value, output), strict=True):
            torch.mul(torch.bmm(square, v), 1 / (1 - rate), out=out)
        ctx.save_for_backward(query, key, value, signed)
        ctx.lengths, ctx.scale, ctx.rate = lengths, scale, rate
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, signed = ctx.saved_tensors
        heads, lengths = query.shape[1], ctx.lengths
        gradient, weights, to_weights = gradients[0] / (1 - ctx.rate), signed.relu(), torch.empty_like(signed)
        results = [torch.empty_like(x) for x in (query, key, value)]
        squares = _squares(weights, heads, lengths), _squares(to_weights, heads, lengths)
        for square, to_square, v, g, to_value in zip(
            *squares, *_examples(lengths, value, gradient, results[2]), strict=True
        ):
            to_value.copy_(torch.bmm(square.transpose(1, 2), g))
            torch.bmm(g, v.transpose(1, 2), out=to_square)
        torch.ops.aten.threshold_backward.grad_input(to_weights, signed, 0, grad_input=to_weights)
        torch.abs(signed, out=weights)
        for square, to_square, q, k, to_query, to_key in zip(
            *squares, *_examples(lengths, query, key, *results[:2]), strict=True
        ):
            to_scores = torch._softmax_backward_data(to_square, square, -1, square.dtype)
            torch.mul(torch.bmm(to_scores, k), ctx.scale, out=to_query)
            torch.mul(torch.bmm(to_scores.transpose(1, 2), q), ctx.scale, out=to_key)
        return (*results, None, None, None)


def _attention(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float) -> Tensor:
    """Attention without dropout and without a gradient on each example by itself: (N, heads, size) to the same."""
    output = torch.empty_like(value)
    for q, k, v, out in zip(*_examples(lengths, query, key, value, output), strict=True):
        scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale)
        out.copy_(torch.bmm(torch.softmax(scores, -1), v))
    return output


def _squares(flat: Tensor, heads: int, lengths: list[int]) -> list[Tensor]:
    """The (heads, length, length) of each example, as views of a tensor that holds them behind each other."""
    parts = flat.split([heads * n * n for n in lengths])
    return [part.view(heads, n, n) for part, n in zip(parts, lengths, strict=True)]


def _examples(lengths: list[int], *packed: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The parts (heads, length, size) of each (N, heads, size) tensor that belong to the examples."""
    return (x.transpose(0, 1).split(lengths, 1) for x in packed)


def fast_kernels_are_on() -> bool:
    """Whether kernels of this package may take the place of torch's: not with `BREWGRAPH_KERNELS=off`."""
    return os.environ.get("BREWGRAPH_KERNELS") != "off"


def keep_mask(shape: torch.Size, rate: float) -> Tensor:
    """True with the chance 1 - `rate`, in steps of 2⁻¹⁶: four draws from each random number of 64 bits."""
    size = shape.numel()
    draws = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[:size].view(shape) >= round(rate * 2**16) - 2**15
