"""Losses on relations between tokens: their widths may differ on the two sides."""

from __future__ import annotations

from typing import Any

from brewgraph.ops.registry import operation


@operation(
    takes={"hidden -> hidden": "pair"},
    source="Huang, Wang 2017, arXiv:1707.01219, eq. 7: neuron selectivity transfer, "
    "with the squared inner product as kernel",
)
def nst(source: Any, target: Any, *, layout: Any) -> Any:
    """Squared distance of the two sides' Gram matrices over tokens, each divided by its width: (X Xᵀ / H) per pair."""
    return (layout.gram(source) / source.shape[-1] - layout.gram(target) / target.shape[-1]).square()
