"""Random specs. `make fuzz` tries many more of them: BREWGRAPH_FUZZ is their number."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from tests.faults.world import HEAD, LOSS
from tests.fuzz.judge import judge
from tests.fuzz.specs import STRATEGIES

EXAMPLES = int(os.environ.get("BREWGRAPH_FUZZ", "100"))


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
@pytest.mark.parametrize("name", STRATEGIES)
def test_any_text_is_a_spec_or_has_diagnostics(name: str) -> None:
    """No text gives another error; what parses has one layout, which means the same."""

    @settings(
        derandomize=EXAMPLES <= 1000, deadline=None, database=None, max_examples=EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(STRATEGIES[name])
    def holds(text: str) -> None:
        judge(text)

    holds()


FINDS = [
    "x = " + " + ".join(["a"] * 300),
    "let y = [" + "[" * 70 + "]" * 70 + "]",
    'let s = "' + "{a}" * 2000 + '"',
    "let a = b\n" * 120,
    "/*\n" * 120,
    "-- x\n" * 120,
    "y = [" + ",".join(["1"] * 19_990) + "]",
    "sample {a: 1 -\n2} ~ 3\n",
    'x = f(  #\n"naïve\t→") [:from\t#\n**a]\n',
    'y = a(b +  #\n"a\tb"    #\n+ c)\n',
    "x = {a:\n- -\nb}\n",
    "sample {\n- -  # c\na: 1}\n",
    f'{HEAD}train {{ freeze = [tiny @"embeddings"] }}\n{LOSS}',
    f"{HEAD}train {{ report = [2*\n  # twice\nmse(big.logits->tiny.logits)] }}\n{LOSS}",
]
"""Texts that once gave another error than a diagnostic, or a layout that was not stable."""


@pytest.mark.parametrize("text", FINDS)
def test_what_was_once_a_find(text: str) -> None:
    """It stays found."""
    judge(text)
