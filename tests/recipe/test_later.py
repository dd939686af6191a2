"""What the language has and this version does not do: each is said at its place, and never passed over."""

from __future__ import annotations

import pytest

from brewgraph.recipe.calls import LATER
from tests.recipe.specs import faults, spec


def test_the_cache() -> None:
    """One B901 with its place; the rest of the spec is checked as ever."""
    found = faults(spec('cache c = big.logits at "folder"\nx = kd(bgi.logits -> tiny.logits)'))
    assert [(d.code, d.span.position) for d in found] == [("B901", (4, 1)), ("B101", (5, 8))]
    assert found[0].message == "`cache` is not supported yet"
    assert found[0].help


def test_what_follows_from_it_is_not_reported() -> None:
    """A value that could not be made is no fault of those that use it."""
    found = faults(spec('cache c = big.logits at "folder"\nx = kd(c -> tiny.logits)', "loss = x\n"))
    assert [d.code for d in found] == ["B901"]


@pytest.mark.parametrize("name", sorted(LATER))
def test_functions_that_are_to_come(name: str) -> None:
    """Each is known, as a function, inside other terms, and as a bare name."""
    found = faults(spec(f"x = 0.5 * {name}(big.logits -> tiny.logits)\ny = {name}"))
    assert [(d.code, d.span.position, d.span.text) for d in found] == [
        ("B901", (4, 11), name),
        ("B901", (5, 5), name),
    ]
    assert found[0].message == f"`{name}` is not supported yet"
