"""Names in bodies: who hides whom, what is seen from outside, what may stand where, strings with names in them."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import Collector
from brewgraph.recipe.evaluate.elaborate import elaborate
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.recipe.specs import HEAD, LOSS, fault, names, spec

KD = "kd(big.logits -> tiny.logits)"


def warnings(text: str) -> list[tuple[str, tuple[int, int]]]:
    """Codes and places of the warnings of a sound spec."""
    source, collector = Source(text), Collector()
    assert elaborate(parse(source, collector), source, {}, collector) is not None
    collector.raise_errors()
    return [(d.code, d.span.position) for d in collector.warnings]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (f"soft = {KD}\ntask a {{ soft = 2 * {KD}; loss = soft }}", (5, 10)),
        (f"task a {{ soft = 2 * {KD}; loss = soft }}\nsoft = {KD}", (4, 10)),
        (f"f(x) = x\ntask a {{ f(b) = 2 * b; loss = f({KD}) }}", (5, 10)),
        (f"task a {{ teacher big = hf(\"x\"); loss = {KD} }}", (4, 18)),
        (f"task a {{ data d = files(train=\"x\"); loss = {KD} }}", (4, 15)),
        (f"stage s {{ task d {{ loss = {KD} }} }}", (4, 16)),
        (f"mse(x) = x\ntask a {{ loss = mse({KD}) }}", (4, 1)),
    ],
)  # fmt: skip
def test_an_inner_name_hides_an_outer_one(body: str, place: tuple[int, int]) -> None:
    """With one warning at the inner name, in whatever order the two stand."""
    assert warnings(f"{HEAD}{body}\n") == [("W101", place)]


def test_what_is_not_hidden() -> None:
    """Two tasks may use one name, each has its `loss`, and a value may be called as an operation is."""
    body = f"task a {{ kd = {KD}; loss = kd }}\ntask b {{ kd = {KD}; loss = kd }}\n"
    assert warnings(HEAD + body) == []


def test_names_from_outside() -> None:
    """`a.soft`, in an equation and in another task; reported as `a/soft`."""
    body = f"task a {{ soft = {KD}; loss = soft }}\ntask b {{ loss = 2 * a.soft }}\nx = 3 * a.soft"
    recipe = names(body, "")
    assert list(recipe.equations) == ["x", "a/soft", "a/loss", "b/loss"]
    assert recipe.equations["x"].operands[1] == recipe.equations["a/soft"]


@pytest.mark.parametrize(
    ("body", "code", "help"),
    [
        (f"task a {{ loss = {KD} }}\nx = a.sotf", "B101", "it has `loss`"),
        (f"task a {{ f(b) = b; loss = {KD} }}\nx = a.f", "B101", "a.f(…)"),
        (f"task a {{ loss = {KD} }}\nx = a(3)", "B202", "bert(mnli)"),
        (f"task a {{ loss = {KD} }}\na = 3", "B105", "rename"),
        (f"task a {{ param k = 3; loss = {KD} }}", "B110", "the top of a spec"),
        (f"stage a {{ import mine as m; loss = {KD} }}", "B110", "the top of a spec"),
        (f"task a {{ train {{ seed = 1 }}; loss = {KD} }}", "B110", "or into a stage"),
        ("head ner = token_classifier()", "B110", "braces of a model"),
    ],
)
def test_what_may_stand_where(body: str, code: str, help: str) -> None:
    """Each statement at its place; the others are told where they belong."""
    found = fault(body, "" if "loss" in body else LOSS)
    assert found.code == code
    assert help in found.help


def test_strings_take_numbers_and_strings() -> None:
    """A param or a `let` in braces; nothing else."""
    recipe = names('param k = 3\nlet place = "layer"\ntap t = big @ "{place}.{k}"\nx = mse(t -> tiny.hidden[0])')
    assert recipe.equations["x"].source.feature.path == "layer.3"
    for value in ("true", "[1, 2]", "big"):
        found = fault(f'let k = {value}\ntap t = big @ "layer.{{k}}"')
        assert (found.code, found.span.text) == ("B202", "{k}")


def test_a_circle_through_two_bodies() -> None:
    """Printed as the names that lead back."""
    found = fault(f"x = 2 * a.y\ntask a {{ y = x; loss = {KD} }}", "")
    assert found.code == "B108"
    assert found.message.endswith("x -> y -> x")
    assert spec("x = 1").endswith(LOSS)
