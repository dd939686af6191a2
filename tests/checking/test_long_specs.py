"""Specs of many terms: sums of any length, and what is nested too deeply to be walked."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.graph.container import info, node
from tests.small import write_pair

HEAD = """teacher bert = hf("bert")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4, max_length=32)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and two models."""
    folder = tmp_path_factory.mktemp("long")
    write_pair(folder)
    return folder


def spec(world: Path, lines: str, name: str = "spec.brew") -> Path:
    """A spec with these equations."""
    path = world / name
    path.write_text(f"{HEAD}{lines}\n")
    return path


def term(number: int) -> str:
    """A loss that no other number gives."""
    return f"{1 + number / 1000:.3f} * kd(bert.logits -> tiny.logits, T={1 + number / 100:.2f})"


@pytest.mark.parametrize("operator", [" + ", " - "])
def test_a_chain_is_what_its_brackets_say(world: Path, operator: str) -> None:
    """One sum in the graph, in any order of brackets; a difference is one of its left side."""
    chain = spec(world, "loss = " + operator.join(map(term, range(5))), "chain.brew")
    nested = f"(({term(0)}{operator}{term(1)}){operator}{term(2)}){operator}{term(3)}"
    brackets = spec(world, f"loss = ({nested}){operator}{term(4)}", "brackets.brew")
    (one,), (other,) = (check(read_spec(path)).graphs.values() for path in (chain, brackets))
    assert info(one).objective == info(other).objective
    assert len(node(one, info(one).objective).inputs) == (5 if operator == " + " else 2)


def test_a_sum_of_a_thousand_terms(world: Path) -> None:
    """In one equation, or as names: no limit, and nothing is left switched off."""
    limit = sys.getrecursionlimit()
    lines = "\n".join(f"t{number} = {term(number)}" for number in range(1000))
    total = spec(world, f"{lines}\nloss = " + " + ".join(f"t{number}" for number in range(1000)))
    (graph,) = check(read_spec(total)).graphs.values()
    assert len(node(graph, info(graph).objective).inputs) == 1000
    assert len(info(graph).terms) == 1000
    bg.load(total).build()
    assert sys.getrecursionlimit() == limit
    assert gc.isenabled()


def test_every_fault_of_a_long_sum_is_found(world: Path) -> None:
    """Each addend that cannot be, not only the first."""
    terms = [term(0), "nothing", term(1), "2", "neither", term(2)]
    found = bg.check(spec(world, "loss = " + " + ".join(terms)))
    assert [(d.code, d.span.text) for d in found if d.code == "B101"] == [("B101", "nothing"), ("B101", "neither")]


def test_what_cannot_be_walked_is_a_diagnostic(world: Path) -> None:
    """A difference a thousand deep: no traceback, and what to write instead."""
    (found,) = bg.check(spec(world, "loss = " + " - ".join(map(term, range(1000)))))
    assert (found.code, found.message) == ("B012", "nested too deeply")
    assert "as a list" in (found.help or "")
    assert gc.isenabled()
