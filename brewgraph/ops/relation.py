"""Losses on relations inside an example: between its tokens, whose widths may differ, or between channels of layers."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import operation

_TAKES = {"hidden -> hidden": "pair", "(hidden, hidden) -> (hidden, hidden)": "pair"}
_SOURCE = (
    "Huang, Wang 2017, arXiv:1707.01219, eq. 7: neuron selectivity transfer, with the squared inner product as kernel"
)


@operation(takes=_TAKES, source=_SOURCE, also=("mmd",))
def nst(source: Any, target: Any, *, layout: Any) -> Any:
    """Squared distance of the two sides' Gram matrices over tokens, each divided by its width: (X Xᵀ / H) per pair.

    Of two layers per side, `nst((a, b) -> (c, d))`, the Gram matrix is that of one with the other: X Yᵀ / H.
    """
    return (_gram(source, layout) / _width(source) - _gram(target, layout) / _width(target)).square()


@operation(takes=_TAKES, source=f"{_SOURCE}; divided as in TextBrewer's packaged release")
def nst_by_length(source: Any, target: Any, *, layout: Any) -> Any:
    """As `nst`, the Gram matrices divided by the number of real tokens of the example instead of by the width.

    TextBrewer's packaged release divides by the padded length where it has a mask, so that its loss changes with the
    padding, and by the width where it has none.
    """
    first = source[0] if isinstance(source, tuple) else source
    length_B11 = layout.lengths(first)[:, None, None]
    return ((_gram(source, layout) - _gram(target, layout)) / length_B11).square()


@operation(
    takes={"(hidden, hidden) -> (hidden, hidden)": "example"},
    same=("width",),
    source="Yim et al. 2017, A Gift from Knowledge Distillation, eq. 1 and 2: flow of the solution procedure",
    also=("gram",),
)
def fsp(source: Any, target: Any, *, layout: Any) -> Any:
    """Squared distance of the two sides' matrices between two layers: Xᵀ Y / length, the mean over their entries.

    `fsp((a, b) -> (c, d))`; the sum runs over the real tokens of an example. `(a, a)` is one layer with itself.
    """
    return (layout.cross(*source) - layout.cross(*target)).square().mean((-1, -2))


def _gram(side: Any, layout: Any) -> Any:
    return layout.gram(*side) if isinstance(side, tuple) else layout.gram(side)


def _width(side: Any) -> int:
    width: int = (side[0] if isinstance(side, tuple) else side).shape[-1]
    return width
