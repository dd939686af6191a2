"""The layout of tokens in the tensors of a batch, and what depends on it: Gram matrices, masks, counts, masked sums.

A value has a row for each place of a batch (`Padded` says which are real), or, as `Packed`, for each real token alone.
Logits over a vocabulary may be `SplitLogits`, which are computed where they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from brewgraph.diagnostics import RunError, listing
from brewgraph.models.capture.attention import WORTHWHILE, PackedTokens, is_zero_outside
from brewgraph.models.structure.decoder import Decoder
from brewgraph.runtime.ranks import Share

HIDDEN_SCORE = -1e4
"""A score whose exponential is zero, and finite: zero times its logarithm is zero, in half precision too."""


_PART = 1 << 13
"""So many numbers of each tensor are compared at a time."""


class _Shield(torch.autograd.Function):
    """The same value, with a gradient of zero where `mask`, which broadcasts, is false.

    That costs nothing in the forward pass, where masking the value itself would copy it, even logits over a vocabulary.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return torch.where(mask, gradients[0], 0), None


class _Gram(torch.autograd.Function):
    """Inner products of all pairs of tokens, (B, L, H) to (B, L, L). The gradient takes one product, not two:
    dX = (dG + dGᵀ) X.
    """

    @staticmethod
    def forward(ctx: Any, x_BLH: Tensor) -> Tensor:
        ctx.save_for_backward(x_BLH)
        return x_BLH @ x_BLH.transpose(-1, -2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x_BLH: Tensor = ctx.saved_tensors[0]
        return (gradients[0] + gradients[0].transpose(-1, -2)) @ x_BLH


class _Distances(torch.autograd.Function):
    """Sums of squared differences of all pairs of two stacks, S and T tensors of one size, to (S, T), as one product
    instead of S T differences: Σ a² + Σ b² - 2 a·b.

    In double precision, a part of the tensors at a time: where a and b are close, the difference of these sums would
    lose their digits. With G the gradient of the result, da = 2 (ΣG a - G b), and the same for b.
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(*tensors)
        first = tensors[0]
        sums_ST = first.new_zeros(count, len(tensors) - count, dtype=torch.float64)
        for part in _parts(first):
            a_SM, b_TM = _stacked(tensors[:count], part), _stacked(tensors[count:], part)
            squares_S, squares_T = a_SM.square().sum(1), b_TM.square().sum(1)
            sums_ST += squares_S[:, None] + squares_T - 2 * (a_SM @ b_TM.t())
        return sums_ST.clamp_min_(0).to(first.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors, count, g_ST = ctx.saved_tensors, ctx.count, gradients[0].double()
        needed = ctx.needs_input_grad[1:]
        results = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]
        for part in _parts(tensors[0]):
            a_SM, b_TM = _stacked(tensors[:count], part), _stacked(tensors[count:], part)
            to_a = 2 * (g_ST.sum(1)[:, None] * a_SM - g_ST @ b_TM) if any(needed[:count]) else ()
            to_b = 2 * (g_ST.sum(0)[:, None] * b_TM - g_ST.t() @ a_SM) if any(needed[count:]) else ()
            for result, values in [
                *zip(results[:count], to_a, strict=False),
                *zip(results[count:], to_b, strict=False),
            ]:
                result.view(-1)[part] = values.to(result.dtype)
        return None, *(result if wanted else None for result, wanted in zip(results, needed, strict=True))


def _parts(x: Tensor) -> Iterator[slice]:
    """Parts of the numbers of a tensor that fit into a cache."""
    return (slice(begin, begin + _PART) for begin in range(0, x.numel(), _PART))


def _stacked(tensors: Sequence[Tensor], part: slice) -> Tensor:
    """A part of each tensor, in double precision."""
    return torch.stack([x.reshape(-1)[part] for x in tensors]).double()


@dataclass
class Packed:
    """A value on the real tokens of a batch, (1, N, …), which `tokens` unpacks to (B, L, …) when it is asked for."""

    x_N: Tensor
    tokens: PackedTokens
    _padded: Tensor | None = None

    def padded(self) -> Tensor:
        """The same with zeros at padding."""
        if self._padded is None:
            self._padded = self.tokens.unpack(self.x_N)
        return self._padded


@dataclass(frozen=True)
class SplitLogits:
    """Logits over a vocabulary that are not computed yet, of hidden states (B, L, H) and the last linear layer of their
    model. `full` brings them to fp32.
    """

    hidden_BLH: Tensor
    layer: nn.Linear
    decoder: Decoder
    full: bool = False

    def of(self, product: Tensor) -> Tensor:
        """Logits of what the layer gives."""
        logits = self.decoder.finish(product)
        return logits.float() if self.full else logits

    def padded(self) -> Tensor:
        """All of them: (B, L, V)."""
        return self.of(F.linear(self.hidden_BLH, self.layer.weight, self.layer.bias))


class Slots(list[Any]):
    """The values of a step. Who reads one gets it padded and whole; who can work on packed or split ones asks for `raw`
    or `rows`.
    """

    def __getitem__(self, i: Any) -> Any:
        x = super().__getitem__(i)
        return x.padded() if isinstance(x, Packed | SplitLogits) else x

    def raw(self, i: int) -> Any:
        return super().__getitem__(i)

    def rows(self, i: int, tokens: PackedTokens) -> Tensor:
        """A value on these tokens alone: (1, N, …)."""
        x = self.raw(i)
        if isinstance(x, Packed) and torch.equal(x.tokens.mask_BL, tokens.mask_BL):
            return x.x_N
        return tokens.pack(self[i])


@dataclass(frozen=True)
class Padded:
    """Examples of one length, with real tokens marked by `mask_BL` (bool), None if all tokens count.

    `which` is the mask that a loss names: `tokens`, `pairs`, `labels` or `none`. Where the examples are one rank's
    `share` of a batch, `mean` and `distances` are those of the batch.
    """

    mask_BL: Tensor | None
    which: str = "none"
    share: Share | None = None

    @cached_property
    def tokens(self) -> PackedTokens | None:
        """The real tokens by themselves; None if there is next to no padding, so that it costs more to leave it out."""
        if type(self.mask_BL) is not Tensor or self.mask_BL.dim() != 2 or self.which != "tokens":  # none, or a fake one
            return None
        real = int(self.mask_BL.sum())
        return PackedTokens(self.mask_BL) if 0 < real <= WORTHWHILE * self.mask_BL.numel() else None

    def shield(self, x: Tensor, *, pairs: bool = False) -> Tensor:
        """The same value, without a gradient for padding: there zero times infinity would be NaN.

        For (B, L, H) and (B, N, L, …), where `pairs` says that the last axis holds tokens, too; values of other shapes
        are not per token, and stay as they are.
        """
        if self.mask_BL is None or self.mask_BL.dim() < 2 or not x.requires_grad or x.dim() not in (3, 4):
            return x
        if x.shape[-2] != self.mask_BL.shape[1] or is_zero_outside(x, self.mask_BL):
            return x
        mask = self._pairs(self.mask_BL) if pairs else self.mask_BL[:, :, None]
        mask = mask[:, None] if x.dim() == 4 else mask
        shielded: Tensor = _Shield.apply(x, mask)
        return shielded

    def gram(self, x_BLH: Tensor, y_BLH: Tensor | None = None) -> Tensor:
        """Inner products of all pairs of an example's tokens, of `x` with `y` or with itself: (B, L, L).

        Zero where one of them is padding, since every product is part of the gradient of every token.
        """
        x_BLH = self.clean(x_BLH)
        if y_BLH is None:
            gram_BLL: Tensor = _Gram.apply(x_BLH)
            return gram_BLL
        return x_BLH @ self.clean(y_BLH).transpose(-1, -2)

    def cross(self, x_BLH: Tensor, y_BLG: Tensor) -> Tensor:
        """Inner products of the channels of `x` and of `y`, averaged over an example's real tokens: (B, H, G)."""
        products_BHG = self.clean(x_BLH).transpose(-1, -2) @ self.clean(y_BLG)
        return products_BHG / self.lengths(x_BLH)[:, None, None]

    def distances(self, source: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """Mean squared differences of each of S tensors (B, L, H) with each of T, over real tokens: (S, T)."""
        first = source[0]
        if first.device.type == "mps" or isinstance(first, FakeTensor):  # without double precision, or without numbers
            pairs = [[self.mean((a - b).square().mean(-1), "token") for b in target] for a in source]
            return torch.stack([torch.stack(row) for row in pairs])
        sums_ST: Tensor = _Distances.apply(len(source), *map(self.clean, (*source, *target)))
        tokens = torch.tensor(first.shape[:2].numel()) if self.mask_BL is None else self.mask_BL.sum()
        return self._ratio(sums_ST, tokens) / first.shape[-1]

    def clean(self, x_BL_: Tensor) -> Tensor:
        """The same with zeros for padded tokens: (B, L, …)."""
        if self.mask_BL is None or self.mask_BL.dim() < 2 or is_zero_outside(x_BL_, self.mask_BL):
            return x_BL_
        return torch.where(_widened(self.mask_BL, x_BL_), x_BL_, 0)

    def hide_keys(self, x_BNLL: Tensor, value: float) -> Tensor:
        """The same with `value` where the key, the last axis, is padding: (B, N, L, L)."""
        if self.mask_BL is None or self.mask_BL.dim() < 2:
            return x_BNLL
        return x_BNLL.masked_fill(~self.mask_BL[:, None, None, :], value)

    def first(self, x_BLH: Tensor) -> Tensor:
        """The first real token of each example, zeros for an example without any: (B, H)."""
        if self.mask_BL is None or self.mask_BL.dim() < 2:
            return x_BLH[:, 0]
        first_B = self.mask_BL.int().argmax(1)
        first_BH = x_BLH[torch.arange(len(x_BLH), device=x_BLH.device), first_B]
        return torch.where(self.mask_BL.any(1)[:, None], first_BH, 0)

    def lengths(self, x_BL_: Tensor) -> Tensor:
        """The number of real tokens of each example, at least one: (B), as a floating-point number."""
        if self.mask_BL is None or self.mask_BL.dim() < 2:
            return x_BL_.new_full((len(x_BL_),), x_BL_.shape[1])
        return self.mask_BL.sum(1).clamp_min(1).to(x_BL_.dtype)

    def mean(self, values: Tensor, unit: str) -> Tensor:
        """The mean over the batch of values per unit, without those that are masked: a scalar."""
        mask = self._mask(unit)
        return self._ratio(self.sum(values, unit), torch.tensor(values.numel()) if mask is None else mask.sum())

    def _ratio(self, sums: Tensor, count: Tensor) -> Tensor:
        """Sums over their count, both of all ranks where this is one's share."""
        if self.share is not None:
            both = self.share.sum(torch.cat([sums.reshape(-1), count.to(sums).reshape(1)]))
            sums, count = both[:-1].view_as(sums), both[-1]
        return sums / count.clamp_min(1)

    def sum(self, values: Tensor, unit: str) -> Tensor:
        """The sum of values per unit, shaped (B), (B, L) or (B, L, L), without those that are masked."""
        return self.hide(values, unit).sum()

    def hide(self, values: Tensor, unit: str) -> Tensor:
        """The same values, zero where they are masked."""
        mask = self._mask(unit)
        # `where`, not a product: padding may hold infinities
        return values if mask is None else torch.where(mask, values, 0)

    def mean_over_tokens(self, x: Tensor) -> Tensor:
        """(B, L, …) to (B, …): the mean over each example's own tokens; zero for an example without any."""
        if self.mask_BL is None:
            return x.mean(1)
        mask = _widened(self.mask_BL, x)
        return torch.where(mask, x, 0).sum(1) / mask.sum(1).clamp_min(1)

    def count(self, unit: str) -> Tensor:
        """The number of units of the batch that count: a scalar."""
        if unit == "batch":
            return torch.tensor(1, device=None if self.mask_BL is None else self.mask_BL.device)
        assert self.mask_BL is not None, "a count without a mask needs the shapes of the batch"
        mask = self._mask(unit)
        return torch.tensor(len(self.mask_BL), device=self.mask_BL.device) if mask is None else mask.sum()

    def _mask(self, unit: str) -> Tensor | None:
        if self.mask_BL is None or unit == "batch" or (unit == "example" and self.mask_BL.dim() > 1):
            return None  # a mask of tokens does not choose among examples; one of labels, (B), does
        return self._pairs(self.mask_BL) if unit == "pair" else self.mask_BL

    @staticmethod
    def _pairs(mask_BL: Tensor) -> Tensor:
        """Pairs of real tokens: (B, L, L)."""
        return mask_BL[:, :, None] & mask_BL[:, None, :]


def _widened(mask: Tensor, x: Tensor) -> Tensor:
    """A mask with axes of one behind its own, as many as `x` has."""
    return mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim()))


def token_mask(encoding: Mapping[str, Tensor]) -> Tensor:
    """Real tokens of an encoding: (batch, length), bool; all of them without an attention mask."""
    if "attention_mask" in encoding:
        return encoding["attention_mask"].bool()
    first = next((x for x in encoding.values() if isinstance(x, Tensor) and x.dim() >= 2), None)
    if first is None:
        raise RunError(f"no tensor of the batch has tokens: it has {listing(encoding)}")
    return torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)


def hide_padding(x_BL: Tensor, encoding: Mapping[str, Tensor]) -> Tensor:
    """Scores over the tokens of an example, those of padding so low that a softmax makes them zero: (B, L).

    Else a distribution over positions would change with the longest example of its batch.
    """
    return x_BL if "attention_mask" not in encoding else x_BL.masked_fill(~token_mask(encoding), HIDDEN_SCORE)


def label_mask(labels: Tensor) -> Tensor:
    """Labels that count: all but -100."""
    return labels != -100
