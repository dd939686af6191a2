"""What a model runs on: the data in scope, a named input, a second pass; and what follows from two data sets."""

from __future__ import annotations

import pytest

from brewgraph.recipe.values import Apply, Take
from tests.recipe.specs import HEAD, fault, faults, names

TWO = 'data e = files(train="u.jsonl")\n'
BARE = HEAD[: HEAD.index("data")]


def sides(
    body: str, name: str = "x", loss: str = "loss = ce(d.labels -> tiny(d).logits)\n"
) -> list[tuple[str, str, int]]:
    """Model, data and pass of both sides of an equation."""
    found = names(body, loss).equations[name]
    assert isinstance(found, Apply)
    return [(t.model, t.data, t.passing) for t in (found.source, found.target) if isinstance(t, Take)]


def test_the_one_data_set_in_scope() -> None:
    """`M.x` is `M(D).x`, and they are the same forward."""
    short = names("x = kd(big.logits -> tiny.logits)").equations["x"]
    assert short == names("x = kd(big(d).logits -> tiny(d).logits)").equations["x"]
    assert sides("x = kd(big.logits -> tiny.logits)") == [("big", "d", 1), ("tiny", "d", 1)]


def test_a_pass_is_a_forward_of_its_own() -> None:
    """The same model and input, told apart by the pass; the first is the one without a number."""
    assert sides("x = kl(tiny(d, pass=1).logits -> tiny(pass=2).logits)") == [("tiny", "d", 1), ("tiny", "d", 2)]


def test_two_data_sets_in_scope() -> None:
    """Either is named; without a name both are listed."""
    assert sides(TWO + "x = kd(big(e).logits -> tiny(e).logits)") == [("big", "e", 1), ("tiny", "e", 1)]
    found = faults(HEAD + TWO + "loss = kd(big(d).logits -> tiny.logits)\n")
    assert [(d.code, d.span.text) for d in found] == [("B112", "tiny.logits")]
    assert "`d` and `e`" in found[0].message
    assert "tiny(d)" in found[0].help


def test_a_list_of_models_on_one_input() -> None:
    """The input goes to each."""
    found = names('teacher mid = hf("m")\nlet ts = [big, mid]\nx = kd(ts(d, pass=3).logits -> tiny.logits)').equations[
        "x"
    ]
    assert [(x.source.model, x.source.passing) for x in found] == [("big", 3), ("mid", 3)]


def test_data_of_the_innermost_body_wins() -> None:
    """A task's own data set hides the outer one for what stands in the task."""
    text = (
        HEAD + 'task a { data e = files(train="u"); loss = kd(big.logits -> tiny.logits) }\ntask b { loss = a.loss }\n'
    )
    assert faults(text) == ()


def test_an_equation_outside_the_data() -> None:
    """A value has one input; a function is asked anew wherever it is called."""
    task = 'task {0} {{ data {0}d = files(train="{0}"); loss = {1} }}\n'
    found = faults(BARE + "h = big.hidden[0]\n" + task.format("a", "nst(h -> tiny.hidden[0])"))
    assert [(d.code, d.span.text) for d in found] == [("B112", "big.hidden")]
    assert "make it a function" in found[0].help
    call = "nst(h() -> tiny.hidden[0])"
    assert faults(BARE + "h() = big.hidden[0]\n" + task.format("a", call) + task.format("b", call)) == ()


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("big(tiny).logits", "B209"), ("big(d, d).logits", "B209"), ("big(d, pass=0).logits", "B209"),
        ("big(d, pass=1.5).logits", "B209"), ("big(d, pass=1, pass=2).logits", "B125"), ("big(d)(d).logits", "B202"),
        ("d(big).logits", "B202"), ("big.hidden(d)[0]", "B202"), ('big("d").logits', "B209"),
    ],
)  # fmt: skip
def test_calls_that_name_no_input(expression: str, code: str) -> None:
    """Each at its place, with what to write instead."""
    found = fault(f"x = {expression}")
    assert found.code == code
    assert found.help
