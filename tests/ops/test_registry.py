"""How operations, transforms and temperatures are declared, named and found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from brewgraph.diagnostics import SourceFault
from brewgraph.ops import (
    KINDS,
    OPERATIONS,
    TEMPERATURES,
    TRANSFORMS,
    UNITS,
    is_row,
    is_tuple,
    operation,
    side_kinds,
    temperature,
    transform,
)
from brewgraph.ops.registry import is_own, refusal

HERE = __name__


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """What a test declares is gone afterwards."""
    registries: tuple[dict[str, Any], ...] = (OPERATIONS, TRANSFORMS, TEMPERATURES)
    known = [dict(x) for x in registries]
    yield
    for registry, before in zip(registries, known, strict=True):
        registry.clear()
        registry.update(before)


def declare(name: str = "nonsense") -> Any:
    """A declaration of a loss on hidden states under a name."""

    def function(source: Any, target: Any, *, beta: float = 2.0) -> Any:
        """Some loss."""
        return beta

    function.__name__ = name
    return operation(takes={"hidden -> hidden": "token"}, source="a test", beta=("number", "a number"))(function)


def test_the_spellings_of_sides() -> None:
    """A kind, a tuple of kinds, a whole row; blanks inside a tuple do not matter."""

    @operation(takes={"(hidden,hidden) -> (hidden,  hidden)": "example", "hidden... -> hidden...": "batch"}, source="x")
    def pairs(source: Any, target: Any) -> Any:
        """Some loss."""

    found = OPERATIONS["pairs"]
    assert found.takes == {
        ("(hidden, hidden)", "(hidden, hidden)"): "example",
        ("hidden...", "hidden..."): "batch",
    }
    assert found.unit("(hidden, hidden)", "(hidden, hidden)") == "example"
    assert found.unit("hidden", "hidden") is None
    assert side_kinds("(hidden, attention)") == ("hidden", "attention")
    assert side_kinds("hidden...") == side_kinds("hidden") == ("hidden",)
    assert (is_row("hidden..."), is_row("hidden"), is_tuple("(hidden, hidden)"), is_tuple("hidden")) == (1, 0, 1, 0)


def test_a_name_from_outside_is_known_with_and_without_its_module() -> None:
    """Its key is the one that always finds it."""
    declare()
    assert OPERATIONS["nonsense"] is OPERATIONS[f"{HERE}:nonsense"]
    assert OPERATIONS["nonsense"].key == f"{HERE}:nonsense"
    assert OPERATIONS["mse"].key == "mse"


@pytest.mark.parametrize("taken", ["mse", "ramp"])
def test_a_name_of_the_package_is_not_overwritten(taken: str) -> None:
    """The other one is found by its module alone."""
    before = OPERATIONS.get(taken)
    declare(taken)
    assert OPERATIONS.get(taken) is before
    assert OPERATIONS[f"{HERE}:{taken}"].options[0].default == 2.0


def test_a_module_may_be_imported_again() -> None:
    """What it declares then takes the place of what it declared before, as it does for the first of two modules."""
    first = declare()
    second = declare()
    assert OPERATIONS["nonsense"].function is second is not first
    second.__module__ = "elsewhere"
    operation(takes={"hidden -> hidden": "token"}, source="a test", beta=("number", "a number"))(second)
    assert OPERATIONS["nonsense"].module == HERE
    assert OPERATIONS["elsewhere:nonsense"].function is second


def test_another_name_is_the_same_operation() -> None:
    """`also` gives further names; the operation keeps its own."""

    @operation(takes={"hidden -> hidden": "token"}, source="x", also=("selfsame",))
    def same(source: Any, target: Any) -> Any:
        """Some loss."""

    assert OPERATIONS["selfsame"] is OPERATIONS["same"]
    assert OPERATIONS["selfsame"].name == "same"


def test_maths_that_depends_on_the_kinds_is_told_them() -> None:
    """Where the function names `kinds`; others are left as they are."""

    @operation(takes={"logits -> logits": "position", "probabilities -> logits": "position"}, source="x")
    def told(source: Any, target: Any, *, kinds: tuple[str, str] = ("logits", "logits")) -> Any:
        """Some loss."""
        return kinds

    assert OPERATIONS["told"].maths("probabilities", "logits")(1, 2) == ("probabilities", "logits")
    assert OPERATIONS["told"].options == ()
    untold = declare()
    assert OPERATIONS["nonsense"].maths("hidden", "hidden") is untold


def test_a_transform_of_several_arguments() -> None:
    """Kinds of arguments are separated by commas; the shape is a function of their shapes."""

    @transform(takes={"logits, labels": "logits"}, shape=lambda shapes: shapes[0], source="x")
    def mixed(logits: Any, labels: Any, *, layout: Any) -> Any:
        """Some value."""

    found = TRANSFORMS["mixed"]
    assert found.result("logits", "labels") == "logits"
    assert found.result("logits") is None
    assert found.needs_layout
    assert found.shape((("batch", 3), ("batch",))) == ("batch", 3)


def test_a_temperature_says_whether_it_couples_the_batch() -> None:
    """One that looks at each example alone may be split."""

    @temperature(source="x", base_beta=("number", "a number"))
    def mild(source: Any, target: Any, base: Any, *, base_beta: float = 1.0) -> Any:
        """Some temperature."""

    assert not TEMPERATURES["mild"].couples_batch
    assert [o.name for o in TEMPERATURES["mild"].options] == ["base_beta"]


def nonsense(source: Any, target: Any, *, T: float = 1.0) -> Any:
    """Nothing."""


@pytest.mark.parametrize(
    ("takes", "options", "message", "help"),
    [
        ({"logits -> logits": "example"}, {}, "options and signature differ", "has `T`, the decorator none"),
        ({"logit -> logits": "example"}, {"T": ("number", "t")}, "unknown kind in logit -> logits", "`logits`, "),
        ({"logits -> logits": "words"}, {"T": ("number", "t")}, "unknown unit words", "`word`, "),
        ({"logits": "example"}, {"T": ("number", "t")}, "`logits` needs two sides", "hidden -> hidden"),
        ({"logits -> logits": "example"}, {"T": ("numbr", "t")}, "`T` needs a kind and words", "number"),
        ({"logits -> logits": "example"}, {"T": ("number", "")}, "`T` needs a kind and words", "number"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(
    takes: dict[str, str], options: dict[str, tuple[str, str]], message: str, help: str
) -> None:
    """Options and signature must agree, kinds and units be known, and words be there."""
    with pytest.raises(SourceFault) as caught:
        operation(takes=takes, source="none", **options)(nonsense)
    assert caught.value.code == "B330"
    assert str(caught.value).startswith(f"invalid declaration of `nonsense`: {message}")
    assert help in caught.value.help
    assert "nonsense" not in OPERATIONS


@pytest.mark.parametrize("name", ["same", "also"])
def test_a_text_is_no_tuple_of_words(name: str) -> None:
    """`same=("width")` is a text: its letters are no axes."""
    words: Any = {name: "width"}
    with pytest.raises(SourceFault) as caught:
        operation(takes={"logits -> logits": "example"}, source="none", T=("number", "t"), **words)(nonsense)
    assert caught.value.message == f"invalid declaration of `nonsense`: `{name}` is a text"
    assert caught.value.help == f'write a tuple: `{name}=("width",)`'
    assert "nonsense" not in OPERATIONS


@pytest.mark.parametrize("option", ["number", ("number",), ("number", "t", 1)])
def test_an_option_is_a_kind_and_words(option: Any) -> None:
    with pytest.raises(SourceFault, match="`T` needs a kind and words"):
        operation(takes={"logits -> logits": "example"}, source="none", T=option)(nonsense)


def test_words_and_defaults_are_needed() -> None:
    """A docstring, and a default for every option."""

    def silent(source: Any, target: Any) -> Any:
        return None

    def bare(source: Any, target: Any, *, T: float) -> Any:
        """Nothing."""

    with pytest.raises(SourceFault, match="it has no docstring"):
        operation(takes={"logits -> logits": "example"}, source="none")(silent)
    with pytest.raises(SourceFault, match="`T` has no default"):
        operation(takes={"logits -> logits": "example"}, source="none", T=("number", "t"))(bare)


@pytest.mark.parametrize("kind", ["targets", "values", "probabilities", "integer", "temperature"])
def test_kinds_have_words(kind: str) -> None:
    """Every kind says what it is."""
    assert KINDS[kind]


def test_units() -> None:
    """What a loss may be a mean over."""
    assert list(UNITS) == ["example", "token", "word", "pair", "label", "position", "batch"]


def test_labels_and_targets_name_the_operations_that_take_them() -> None:
    """The remedy for labels at an operation that does not take them lists those that do, whatever their names."""
    for name, kind in (("ce", "targets"), ("kd", "labels"), ("bce", "labels")):
        takers = {x.name for x in OPERATIONS.values() if is_own(x.module) and x.unit(kind, "logits")}
        message, help = refusal(OPERATIONS[name], kind, "logits")
        assert message == f"`{name}` does not compare {kind} with logits"
        assert takers
        assert set(re.findall(r"`(\w+)`", help)) == takers
    assert refusal(OPERATIONS["bce"], "labels", "logits")[1].endswith('problem_type="multi_label"')
    assert "reverse the arrow" in refusal(OPERATIONS["ce"], "logits", "labels")[1]
    assert refusal(OPERATIONS["cos"], "logits", "hidden")[1] == "it takes hidden -> hidden, vector -> vector"
