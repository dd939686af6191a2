"""Layouts of any drawing: boxes apart, lines from left to right, nothing outside."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brewgraph.display.layered_layout import lay_out


@st.composite
def drawings(draw: st.DrawFn) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str]]]:
    """Boxes of many sizes, and lines from earlier ones to later ones."""
    count = draw(st.integers(1, 14))
    sizes = {f"b{i}": (draw(st.integers(20, 300)) * 1.0, draw(st.integers(20, 90)) * 1.0) for i in range(count)}
    pairs = [(f"b{i}", f"b{j}") for i in range(count) for j in range(i + 1, count)]
    return sizes, draw(st.lists(st.sampled_from(pairs), max_size=25)) if pairs else []


@settings(max_examples=60, deadline=None)
@given(drawings())
def test_nothing_overlaps(drawn: tuple[dict[str, tuple[float, float]], list[tuple[str, str]]]) -> None:
    """Boxes keep their distance, each as wide as it asked at least; lines go forward from box to box, past others."""
    sizes, lines = drawn
    found = lay_out(sizes, lines, apart=10, margin=12)
    for key, (x, y, width, height) in found.places.items():
        assert width >= sizes[key][0]
        assert height == pytest.approx(sizes[key][1])
        assert x >= 12
        assert y >= 12 - 1e-6
        assert x + width <= found.width - 12 + 1e-6
        assert y + height <= found.height - 12 + 1e-6
    for (x, y, width, height), (u, v, wide, high) in combinations(found.places.values(), 2):
        assert x + width < u or u + wide < x or y + height + 10 <= v + 1e-6 or v + high + 10 <= y + 1e-6
    for (source, target), points in found.lines.items():
        x, y, width, height = found.places[source]
        assert points[0] == pytest.approx((x + width, y + height / 2))
        left, top, _, high = found.places[target]
        assert points[-1][0] == left
        assert top - 1e-6 <= points[-1][1] <= top + high + 1e-6
        assert all(a[0] < b[0] for a, b in pairwise(points))
        for start, end in zip(points[1::2], points[2::2], strict=False):
            for u, v, wide, high in found.places.values():
                if start[0] < u + wide and u < end[0]:
                    assert not v + 1e-6 < start[1] < v + high - 1e-6, "a line goes through a box"


def test_lines_are_untangled() -> None:
    """Four pairs in a crossed order end without a crossing."""
    sizes = dict.fromkeys(("a", "b", "c", "d", "D", "C", "B", "A"), (40.0, 20.0))
    found = lay_out(sizes, [(x, x.upper()) for x in "abcd"])
    rows = [sorted(column, key=lambda key: found.places[key][1]) for column in ("abcd", "ABCD")]
    assert [x.upper() for x in rows[0]] == rows[1], "no two of the four lines cross"
