"""What the language has and this version does not do: each is said at its place, and never passed over."""

from __future__ import annotations

import pytest

from brewgraph.recipe.calls import LATER
from brewgraph.recipe.settings import LATER as LATER_SETTINGS
from brewgraph.recipe.sources import LATER_DATA, LATER_MODELS
from tests.recipe.specs import HEAD, LOSS, faults, spec

CONSTRUCTS = [
    ('cache c = big.logits at "folder"', 1, "`cache` is not supported yet"),
    ("task t { loss = ce(d.labels -> tiny.logits) }", 1, "`task` is not supported yet"),
    ("sample [a, b] ~ size ** 0.5", 1, "`sample` is not supported yet"),
    ("stage s for 3 epochs { loss = ce(d.labels -> tiny.logits) }", 1, "`stage` is not supported yet"),
    ('import "other.brew" as other', 1, "`import` is not supported yet"),
    ("import package.losses as mine", 1, "`import` is not supported yet"),
    ("f(a, b) = mse(a -> b)", 1, "a function of one's own is not supported yet"),
    ("x = mse((big.hidden[0], big.hidden[1]) -> tiny.hidden[0])", 9, "tuples are not supported yet"),
    ('x = mse(big.hidden[0] -> tiny.hidden[0], reduce="none")', 42, "`reduce` is not supported yet"),
    ("x = kd(big(d).logits -> tiny.logits)", 8, "naming a model's input, `M(D)`, is not supported yet"),
    ("x = kd(big(d, pass=2).logits -> tiny.logits)", 8, "naming a model's input, `M(D)`, is not supported yet"),
    ("x = kd(big.logits -> tiny.logits, mask=d.column)", 40, "masks from a column are not supported yet"),
    ("x = sum([kd(big.logits -> tiny.logits)], over=teachers)", 42, "`over=` is not supported yet"),
    ("x = other.kd(big.logits -> tiny.logits)", 5, "names of imported specs are not supported yet"),
    ('student second = hf("small")', 9, "several students are not supported yet"),
    ('data e = files(train="u.jsonl")', 6, "several data sets are not supported yet"),
    ('teacher t = hf("a", adapter="lora")', 29, "`adapter` is not supported yet"),
    ("teacher t = hf(\"a\", inputs=d)", 28, "`inputs` is not supported yet"),
    ("x = cosine * ce(d.labels -> tiny.logits)", 5, "`cosine` is not supported yet"),
    ("x = piecewise(0%: 1, 30%: 0.2)", 5, "`piecewise` is not supported yet"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "column", "message"), CONSTRUCTS)
def test_constructs_that_are_to_come(line: str, column: int, message: str) -> None:
    """One B901 with its place; the rest of the spec is checked as ever."""
    found = faults(spec(line))
    assert [(d.code, d.span.position, d.message) for d in found] == [("B901", (4, column), message)]
    assert found[0].help


@pytest.mark.parametrize("name", sorted(LATER))
def test_functions_that_are_to_come(name: str) -> None:
    """Each name of the language's list is known, as a function and inside other terms."""
    found = faults(spec(f"x = 0.5 * {name}(big.logits -> tiny.logits)"))
    assert [(d.code, d.span.position, d.span.text) for d in found] == [("B901", (4, 11), name)]
    assert found[0].message == f"`{name}` is not supported yet"


@pytest.mark.parametrize("name", sorted(LATER_MODELS))
def test_models_that_are_to_come(name: str) -> None:
    """As a teacher's source."""
    found = faults(spec(f"teacher t = {name}(tiny, decay=0.9)"))
    assert [(d.code, d.span.position, d.message) for d in found] == [
        ("B901", (4, 13), f"`{name}` is not supported yet")
    ]


@pytest.mark.parametrize("name", sorted(LATER_DATA))
def test_data_that_is_to_come(name: str) -> None:
    """As the source of the only data set."""
    text = HEAD.replace("files(", f"{name}(") + LOSS
    found = faults(text)
    assert [(d.code, d.span.position, d.message) for d in found] == [
        ("B901", (3, 10), f"`{name}` is not supported yet")
    ]


@pytest.mark.parametrize("name", sorted(LATER_SETTINGS))
def test_settings_that_are_to_come(name: str) -> None:
    """In `train { }`, whatever their value."""
    found = faults(spec(f"train {{ epochs = 2; {name} = 3 }}"))
    assert [(d.code, d.span.position, d.message) for d in found] == [
        ("B901", (4, 21), f"the setting `{name}` is not supported yet")
    ]


def test_heads() -> None:
    """A student's block stands for heads."""
    text = HEAD.replace('hf(model_type="bert")', 'hf(model_type="bert") { head ner = token_classifier(labels=9) }')
    found = faults(text + LOSS)
    assert [(d.code, d.span.position, d.message) for d in found] == [("B901", (2, 38), "heads are not supported yet")]


def test_joined_data() -> None:
    """`a + b` joins two data sets."""
    text = HEAD.replace('files(train="train.jsonl")', 'files(train="a.jsonl") + files(train="b.jsonl")') + LOSS
    assert [(d.code, d.message) for d in faults(text)] == [("B901", "joining data sets is not supported yet")]


def test_calls_of_own_functions() -> None:
    """The definition and each call are at fault; what only follows from them is not reported."""
    found = faults(spec("f(a) = 2 * a\nx = f(ce(d.labels -> tiny.logits))", "loss = x\n"))
    assert [(d.code, d.span.position) for d in found] == [("B901", (4, 1)), ("B901", (5, 5))]


def test_several_at_once() -> None:
    """Each is reported in one run, in the order of the text."""
    body = "\n".join(line for line, _, _ in CONSTRUCTS[:7])
    assert [d.span.position[0] for d in faults(spec(body)) if d.code == "B901"] == list(range(4, 11))
