"""Small maths that several families of losses share; torch is reached when they are called."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import Shape


def per_item(T: Any, x: Any) -> Any:
    """A temperature that divides `x`: a number as it is, a tensor (B) or (B, L) spread over the other axes of `x`."""
    if not hasattr(T, "dim") or T.dim() == 0:
        return T
    return T.reshape(*T.shape, *[1] * (x.dim() - T.dim()))


def directions(x_X_H: Any) -> Any:
    """Vectors of length one; a zero vector stays zero, and no gradient reaches it."""
    import torch

    length_X_1 = x_X_H.norm(dim=-1, keepdim=True)
    some = length_X_1 > 1e-12
    return torch.where(some, x_X_H / torch.where(some, length_X_1, 1), 0)


def log(p: Any) -> Any:
    """The logarithm of probabilities, those of zero counted as very small."""
    import torch

    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def softmax_over_keys(scores_BNLL: Any, layout: Any, *, logarithm: bool = False) -> Any:
    """Softmax over the keys that are no padding, which get zero (and their logarithm a very low number)."""
    import torch

    function = torch.log_softmax if logarithm else torch.softmax
    # the lowest number, not infinity: an example without any token would give no number, and a gradient to match
    lowest = torch.finfo(scores_BNLL.dtype).min
    return function(scores_BNLL if layout is None else layout.hide_keys(scores_BNLL, lowest), dim=-1)


def one_per_example(x: Any, layout: Any) -> Any:
    """One vector per example: (B, H) as it is, of (B, L, H) the first real token."""
    if x.dim() == 2:
        return x
    return x[:, 0] if layout is None else layout.first(x)


def same_shape(shapes: tuple[Shape, ...], **options: Any) -> Shape:
    """The shape of the first argument."""
    return shapes[0]
