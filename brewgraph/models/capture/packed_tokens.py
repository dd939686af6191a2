"""Real tokens of a batch, one after the other: where they stand, and attention with dropout on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

WORTHWHILE = 0.95
"""The share of real tokens in a batch up to which packing pays."""


class PackedTokens:
    """Where the real tokens of a batch stand: B examples of L places, N real tokens, packed one after the other."""

    def __init__(self, mask_BL: Tensor):
        self.mask_BL = mask_BL.bool()
        self.lengths: list[int] = self.mask_BL.sum(1).tolist()
        self._places_N = self.mask_BL.flatten().nonzero().squeeze(1)
        self._kinds: dict[int, tuple[Tensor, str]] = {}

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
        x_M = x_N.new_zeros(self.mask_BL.numel(), *x_N.shape[2:]).index_copy(0, self._places_N, x_N[0])
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


_MARK = "brewgraph_zero_outside"


def is_zero_outside(x: Tensor, mask_BL: Tensor) -> bool:
    """Whether a tensor was unpacked with this mask, so that it is zero where the mask is false."""
    known = getattr(x, _MARK, None)
    return known is not None and torch.equal(known, mask_BL)


_packed: PackedTokens | None = None


def current() -> PackedTokens | None:
    """The tokens that attention runs on now; None where it runs on padded tensors."""
    return _packed


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
    """Attention with dropout on each example by itself, its gradient in closed form: (heads, N, size) to the same.

    With P = softmax(scale Q Kᵀ) and D the dropout of P: dS = P * (dD - rowsum(dD * P)), dQ = scale dS K,
    dK = scale dSᵀ Q, dV = Dᵀ dO (Vaswani et al. 2017, eq. 1, differentiated).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float, rate: float
    ) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        output = torch.empty_like(value)
        kept: list[Tensor] = []
        for q, k, v, out in _examples(lengths, query, key, value, output):
            weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)).mul_(scale), -1)
            mask = keep_mask(weights.shape, rate)
            torch.bmm((weights * mask).mul_(1 / (1 - rate)), v, out=out)
            kept += [weights, mask]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.lengths, ctx.scale, ctx.rate = lengths, scale, rate
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        results = [torch.empty_like(x) for x in (query, key, value)]
        examples = _examples(ctx.lengths, query, key, value, gradient, *results)
        for n, (q, k, v, g, to_query, to_key, to_value) in enumerate(examples):
            weights, mask = kept[2 * n : 2 * n + 2]
            factor = 1 / (1 - ctx.rate)
            to_value.copy_(torch.bmm((weights * mask).mul_(factor).transpose(1, 2), g))
            to_scores = torch.bmm(g, v.transpose(1, 2)).mul_(mask).mul_(factor)
            to_scores.sub_((to_scores * weights).sum(-1, keepdim=True)).mul_(weights).mul_(ctx.scale)
            to_query.copy_(torch.bmm(to_scores, k))
            to_key.copy_(torch.bmm(to_scores.transpose(1, 2), q))
        return (*results, None, None, None)


def _examples(lengths: list[int], *packed: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The parts of (heads, N, size) tensors that belong to each example with tokens."""
    start = 0
    for length in lengths:
        if length:
            yield tuple(x[:, start : start + length] for x in packed)
        start += length


def fast_kernels_are_on() -> bool:
    """Whether kernels of this package may take the place of torch's: not with `BREWGRAPH_KERNELS=off`."""
    return os.environ.get("BREWGRAPH_KERNELS") != "off"


def keep_mask(shape: torch.Size, rate: float) -> Tensor:
    """True with the chance 1 - `rate`, in steps of 2⁻¹⁶: four draws from each random number of 64 bits."""
    size = shape.numel()
    draws = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return draws.view(torch.int16)[:size].view(shape) >= round(rate * 2**16) - 2**15
