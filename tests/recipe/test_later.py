"""What the language has and this version does not do: each is said at its place, and never passed over."""

from __future__ import annotations

import pytest

from brewgraph.recipe.evaluate.scope import LATER
from tests.recipe.specs import faults, spec


@pytest.mark.parametrize("name", sorted(LATER))
def test_functions_that_are_to_come(name: str) -> None:
    """Each is known, as a function, inside other terms, and as a bare name."""
    found = faults(spec(f"x = 0.5 * {name}(big.logits -> tiny.logits)\ny = {name}"))
    assert [(d.code, d.span.position, d.span.text) for d in found] == [
        ("B901", (4, 11), name),
        ("B901", (5, 5), name),
    ]
    assert found[0].message == f"`{name}` is not supported yet"
