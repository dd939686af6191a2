"""How the tokens of a batch lie in its tensors, and what follows: Gram matrices, masks, counts, masked sums.

Today every batch is padded. What depends on that stands here and nowhere else, so that another layout (real tokens
only, packed) is another class with the same methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from brewgraph.diagnostics import RunError, listing

_LOW = -1e4
"""A score whose exponential is zero, and finite: zero times its logarithm is zero, in half precision too."""


@dataclass(frozen=True)
class Padded:
    """Examples of one length, real tokens marked by `mask_BL` (bool); None where all of them count.

    `which` is the mask that a loss asked for: `tokens`, `pairs`, `labels` or `none`.
    """

    mask_BL: Tensor | None
    which: str = "none"

    @staticmethod
    def gram(x_BLH: Tensor, y_BLH: Tensor | None = None) -> Tensor:
        """Inner products of all pairs of an example's tokens, of `x` with `y` or with itself: (B, L, L)."""
        return x_BLH @ (x_BLH if y_BLH is None else y_BLH).transpose(-1, -2)

    def cross(self, x_BLH: Tensor, y_BLG: Tensor) -> Tensor:
        """Inner products of the channels of `x` and of `y`, averaged over an example's real tokens: (B, H, G)."""
        products_BHG = self.clean(x_BLH).transpose(-1, -2) @ self.clean(y_BLG)
        return products_BHG / self.lengths(x_BLH)[:, None, None]

    def clean(self, x_BL_: Tensor) -> Tensor:
        """The same with zeros for padded tokens: (B, L, …)."""
        if self.mask_BL is None or self.mask_BL.dim() < 2:
            return x_BL_
        return torch.where(self.mask_BL.view(*self.mask_BL.shape, *[1] * (x_BL_.dim() - 2)), x_BL_, 0)

    def hide_keys(self, x_BNLL: Tensor, value: float) -> Tensor:
        """The same with `value` where the key, the last axis, is padding: (B, N, L, L)."""
        if self.mask_BL is None or self.mask_BL.dim() < 2:
            return x_BNLL
        return x_BNLL.masked_fill(~self.mask_BL[:, None, None, :], value)

    def first(self, x_BLH: Tensor) -> Tensor:
        """The first real token of each example: (B, H)."""
        if self.mask_BL is None or self.mask_BL.dim() < 2:
            return x_BLH[:, 0]
        first_B = self.mask_BL.int().argmax(1)
        return x_BLH[torch.arange(len(x_BLH), device=x_BLH.device), first_B]

    def lengths(self, x_BL_: Tensor) -> Tensor:
        """How many real tokens each example has, one at least: (B), as a floating-point number."""
        if self.mask_BL is None or self.mask_BL.dim() < 2:
            return x_BL_.new_full((len(x_BL_),), x_BL_.shape[1])
        return self.mask_BL.sum(1).clamp_min(1).to(x_BL_.dtype)

    def mean(self, values: Tensor, unit: str) -> Tensor:
        """The mean over this batch of values per unit, without those that the mask hides: a scalar."""
        mask = self._mask(unit)
        return self.sum(values, unit) / (values.numel() if mask is None else mask.sum().clamp_min(1))

    def sum(self, values: Tensor, unit: str) -> Tensor:
        """The sum of values per unit, shaped (B), (B, L) or (B, L, L); those that the mask hides are left out."""
        mask = self._mask(unit)
        # `where`, not a product: padding may hold infinities
        return values.sum() if mask is None else torch.where(mask, values, 0).sum()

    def hide(self, values: Tensor, unit: str) -> Tensor:
        """The same values, zero where the mask hides them."""
        mask = self._mask(unit)
        return values if mask is None else torch.where(mask, values, 0)

    def mean_over_tokens(self, x: Tensor) -> Tensor:
        """(B, L, …) to (B, …): the mean over each example's own tokens; zero for an example without any."""
        if self.mask_BL is None:
            return x.mean(1)
        mask = self.mask_BL.reshape(*self.mask_BL.shape, *[1] * (x.dim() - 2))
        return torch.where(mask, x, 0).sum(1) / mask.sum(1).clamp_min(1)

    def count(self, unit: str) -> Tensor:
        """How many units of the batch count: a scalar."""
        if unit == "batch":
            return torch.tensor(1, device=None if self.mask_BL is None else self.mask_BL.device)
        assert self.mask_BL is not None, "a count without a mask needs the shapes of the batch"
        mask = self._mask(unit)
        return torch.tensor(len(self.mask_BL), device=self.mask_BL.device) if mask is None else mask.sum()

    def _mask(self, unit: str) -> Tensor | None:
        if self.mask_BL is None or unit == "batch" or (unit == "example" and self.mask_BL.dim() > 1):
            return None  # a mask of tokens says nothing about examples; one value per example, as labels give, does
        if unit == "pair":
            return self.mask_BL[:, :, None] & self.mask_BL[:, None, :]
        return self.mask_BL


def token_mask(encoding: Mapping[str, Tensor]) -> Tensor:
    """Real tokens of an encoding: (batch, length), bool; all of them where it has no attention mask."""
    if "attention_mask" in encoding:
        return encoding["attention_mask"].bool()
    first = next((x for x in encoding.values() if isinstance(x, Tensor) and x.dim() >= 2), None)
    if first is None:
        raise RunError(f"no tensor of the batch has tokens: it has {listing(encoding)}")
    return torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)


def hide_padding(x_BL: Tensor, encoding: Mapping[str, Tensor]) -> Tensor:
    """Scores over the tokens of an example, those of padding so low that a softmax gives them nothing: (B, L).

    Without it a distribution over positions would change with the length of the longest example of its batch.
    """
    return x_BL if "attention_mask" not in encoding else x_BL.masked_fill(~token_mask(encoding), _LOW)


def pick_words(x: Tensor, words_BW: Tensor) -> Tensor:
    """(B, L, …) to (B, W, …): what stands at the first token of each word; for labels -100 where there is none."""
    index = words_BW.clamp_min(0)
    picked = x[torch.arange(len(x), device=x.device)[:, None], index]
    return picked if x.is_floating_point() else torch.where(words_BW >= 0, picked, -100)


def label_mask(labels: Tensor) -> Tensor:
    """Labels that count: all but -100."""
    return labels != -100
