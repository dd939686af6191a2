"""Heads on a shared trunk, averages of a student, adapters, joined data."""

from __future__ import annotations

import pytest

from brewgraph.recipe.recipe import lessons
from brewgraph.recipe.settings.data_sources import Join
from brewgraph.recipe.settings.model_sources import Ema, Hf, Lora
from tests.recipe.specs import HEAD, LOSS, fault, faults, names

HEADS = HEAD.replace('bert")', 'bert") { head ner = token_classifier(labels=9); head cls = sequence_classifier() }')
CLS = LOSS.replace("tiny.", "tiny.cls.")


def head_faults(line: str) -> list[tuple[str, str]]:
    """Code and remedy of every fault of a line beside a student with two heads."""
    return [(d.code, d.help) for d in faults(f"{HEADS}{line}\n{CLS}")]


def test_heads_have_results_and_the_trunk_has_states() -> None:
    """`tiny.cls.logits` is of a head, `tiny.hidden` of the trunk; the input stands behind the trunk."""
    good = (
        "x = kd(big.logits -> tiny.cls.logits)\ny = nst(big.hidden[0] -> tiny.hidden[0])\n"
        "z = kd(big.logits -> tiny(d, pass=2).cls.logits)"
    )
    assert head_faults(good) == []
    for wrong, help in (
        ("tiny.logits", "tiny.ner.logits"),
        ("tiny.csl.logits", "did you mean `cls`?"),
        ("tiny.cls.ner.logits", "tiny.ner"),
        ("tiny.cls", "tiny.cls.logits"),
        ("tiny.cls(d).logits", "tiny(mnli).cls"),
        ("tiny.cls.hidden[0]", "tiny.hidden"),
    ):
        ((_, told),) = head_faults(f"x = kd(big.logits -> {wrong})")
        assert help in told


def test_what_heads_learn() -> None:
    """The labels that each is compared with."""
    from brewgraph.checking.check import check_names
    from brewgraph.source import Source

    recipe = check_names(Source(f"{HEADS}x = kd(big.logits -> tiny.cls.logits)\n{CLS}"), {})
    assert {key: [x.data for x in found] for key, found in lessons(recipe).items()} == {
        ("tiny", "cls"): ["d"],
        ("big", None): ["d"],
    }


@pytest.mark.parametrize(
    ("head", "code", "help"),
    [
        ("head logits = token_classifier()", "B105", "logits_head"),
        ("head a = token_classifier; ", "B101", "token_classifier(…)"),
        ("head a = token_clasifier()", "B101", "did you mean"),
        ("head a = linear()", "B102", "via linear"),
        ("head a = token_classifier(labls=3)", "B120", "`labels`"),
        ("head a = masked_lm(); head a = masked_lm()", "B105", "rename"),
        ("let a = 3", "B110", "head ner"),
    ],
)
def test_faulty_heads(head: str, code: str, help: str) -> None:
    """Each is told what may stand in a model's braces."""
    found = fault(f'teacher t = hf("x") {{ {head} }}')
    assert found.code == code
    assert help in found.help


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('"yn"', "`labels`: expected an integer or a list, got `yn`"),
        ('["a", 2]', "`labels`: expected a string, got `2`"),
        ("0", "`labels`: it must be greater than 0, got `0`"),
    ],
)
def test_a_setting_of_several_types(labels: str, message: str) -> None:
    """All types that fit are named; of a list it is its member that is at fault."""
    assert fault(f'teacher t = hf("x") {{ head a = token_classifier(labels={labels}) }}').message == message


def test_an_average_has_the_heads_of_its_student() -> None:
    """It is named by the student, and is a teacher."""
    text = f"{HEADS}teacher e = ema(tiny, decay=0.9)\nx = kd(e.cls.logits -> tiny.cls.logits)\n{CLS}"
    assert faults(text) == ()
    source = names("teacher e = ema(tiny)").models["e"].source
    assert source == Ema(model="tiny")
    codes = [fault(f"teacher e = ema({x})").code for x in ("big", '"tiny"', "tinny", "d")]
    assert codes == ["B331", "B122", "B101", "B202"]


def test_an_adapter() -> None:
    """A call of its own; a bare name leaves everything at its default, a string is told what to write."""
    source = names('teacher t = hf("x", adapter=lora(r=4))').models["t"].source
    assert isinstance(source, Hf)
    assert source.adapter == Lora(r=4)
    bare = names('teacher t = hf("x", adapter=lora)').models["t"].source
    assert isinstance(bare, Hf)
    assert bare.adapter == Lora()
    assert fault('teacher t = hf("x", adapter=lra)').code == "B122"
    assert "adapter=lora(…)" in fault('teacher t = hf("x", adapter="lora")').help


def test_joined_data() -> None:
    """Sources, names, and a second name for the same; of one kind of labels."""
    bare, loss = HEAD[: HEAD.index("data")], "loss = ce(c.labels -> tiny(c).logits)\n"
    from brewgraph.checking.check import check_names
    from brewgraph.source import Source

    text = (
        f'{bare}data a = files(train="a.jsonl", batch=8)\ndata b = a + files(train="b.jsonl")\ndata c = a + b\n{loss}'
    )
    found = check_names(Source(text), {}).data
    assert isinstance(found["c"].source, Join)
    assert [part.train for part in found["c"].source.parts] == ["a.jsonl", "a.jsonl", "b.jsonl"]
    assert found["c"].source.batch == 8
    again = check_names(Source(f'{bare}data a = files(train="a.jsonl")\ndata c = a\n{loss}'), {}).data
    assert again["c"].source == again["a"].source
    for wrong in ("a - a", "[a]", "2 * a", "a + 3", "a + big", "3"):
        told = faults(f'{bare}data a = files(train="a.jsonl")\ndata c = {wrong}\n{loss}')
        assert [d.code for d in told] in (["B202"], ["B101"]), wrong
        assert all(d.help for d in told)


def test_a_frozen_head() -> None:
    """A head is a module of its name; the whole model is written without an input."""
    from brewgraph.checking.check import check_names
    from brewgraph.source import Source

    recipe = check_names(Source(f"{HEADS}train {{ freeze = [tiny.ner] }}\n{CLS}"), {})
    (found,) = recipe.stages[0].freeze
    assert (found.kind, found.name, found.path, found.span.text) == ("module", "tiny", "ner", "tiny.ner")
    assert head_faults("train { freeze = [tiny.nr] }") == [("B103", "did you mean `ner`?")]
    assert head_faults("train { freeze = [tiny(d)] }") == [("B202", "a model is frozen on any input: write `tiny`")]
