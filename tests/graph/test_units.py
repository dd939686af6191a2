"""What a loss is a mean over: units, masks, values that are not reduced, means of them, and which sides may meet."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import Collector, SpecError
from brewgraph.display.equation import spell
from brewgraph.facts.models import identities
from brewgraph.graph import nodes as n
from brewgraph.graph.build import build_graph
from brewgraph.graph.canonical import canonical
from brewgraph.graph.container import info, node
from brewgraph.ops import OPERATIONS
from tests.graph.graphs import SIZES, graph, of_kind, raw, recipe_of
from tests.recipe.specs import LOSS, FakeFacts, spec

EVEN = {**SIZES, "student": FakeFacts(3, 768)}
TWO = 'data e = files(train="u.jsonl")\n'


def loss(expression: str) -> n.Loss:
    """The node of the one loss of a spec."""
    (found,) = of_kind(graph(spec("", f"loss = {expression}\n"), EVEN), n.Loss)
    return found


def codes(body: str, last: str = LOSS) -> list[str]:
    """Codes of the faults that shapes and units show."""
    with pytest.raises(SpecError) as error:
        raw(spec(body, last), EVEN)
    return [d.code for d in error.value.diagnostics]


@pytest.mark.parametrize(
    ("expression", "unit", "mask"),
    [
        ("mse(big.hidden[0] -> tiny.hidden[0])", "token", "tokens"),
        ("mse(big.hidden[0] -> tiny.hidden[0], mask=none)", "token", "none"),
        ("mse(big.hidden[0] -> tiny.hidden[0], mask=d.keep)", "token", "column"),
        ("mse(big.attention[0] -> tiny.attention[0])", "pair", "pairs"),
        ("mse(big.pooled -> tiny.pooled)", "example", None),
        ("kd(big.logits -> tiny.logits)", "example", None),
        ("kd(big.logits -> tiny.logits, mask=d.keep)", "example", "column"),
        ("mse(words(big.hidden[0]) -> words(tiny.hidden[0]))", "word", "words"),
        ("nst(words(big.hidden[0]) -> words(tiny.hidden[0]))", "pair", "words"),
        ("pkd(words(big.hidden[0]) -> words(tiny.hidden[0]))", "example", "words"),
        ("nst(words(big.hidden[0]) -> words(tiny.hidden[0]), mask=none)", "pair", "none"),
        ("cos(token_mean(big.hidden[0]) -> token_mean(tiny.hidden[0]))", "example", None),
        ("mse((big @ \"layer.1\") -> tiny.hidden[0])", "token", "tokens"),
    ],
)  # fmt: skip
def test_units_and_their_masks(expression: str, unit: str, mask: str | None) -> None:
    """The kind of the sides chooses the unit and the mask; `mask=` overrides it."""
    text = spec("", f"loss = {expression}\n")
    found = graph(text, EVEN)
    (term,) = of_kind(found, n.Loss)
    assert term.unit == unit
    masks = [x.which for key in term.inputs[2:3] if isinstance(x := node(found, key), n.Mask)]
    assert masks == ([mask] if mask else [])


@pytest.mark.parametrize(
    ("value", "mask"),
    [
        ("relation({0}.hidden[0], heads=4)", "tokens"),
        ("relation({0}.hidden[0], heads=4, mask=none)", None),
        ("probabilities({0}.scores[0], mask=none)", None),
        ("relation(words({0}.hidden[0]))", "words"),
    ],
)
def test_masks_of_transforms(value: str, mask: str | None) -> None:
    """Tokens, words where the value has one per word, nothing with `mask=none`; written as in the spec."""
    loss = f"kl({value.format('big')} -> {value.format('tiny')})"
    found = graph(spec("", f"loss = {loss}\n"), EVEN)
    for transform in of_kind(found, n.Transform):
        if transform.name == "words":
            continue
        masks = [x.which for key in transform.inputs if isinstance(x := node(found, key), n.Mask)]
        assert masks == ([mask] if mask else [])
        assert transform.masked is (mask is not None)
    assert spell(found, info(found).objective) == loss


def test_a_mask_of_a_transform_is_part_of_what_it_computes() -> None:
    """Two hashes, and two values where both stand in one spec."""
    hidden = "mse(token_mean(big.hidden[0]{0}) -> token_mean(tiny.hidden[0]{0}))"
    one, other = (graph(spec("", f"loss = {hidden.format(x)}\n"), EVEN) for x in ("", ", mask=none"))
    assert info(one).objective != info(other).objective
    both = graph(spec("", f"loss = {hidden.format('')} + {hidden.format(', mask=none')}\n"), EVEN)
    assert len([x for x in of_kind(both, n.Transform) if x.name == "token_mean"]) == 4
    assert spell(other, info(other).objective) == hidden.format(", mask=none")


@pytest.mark.parametrize(
    ("expression", "unit", "shape"),
    [
        ("kd(big.logits -> tiny.logits, reduce=\"none\")", "example", ("batch",)),
        ("mse(big.hidden[0] -> tiny.hidden[0], reduce=\"none\")", "token", ("batch", "length")),
        ("mse(words(big.hidden[0]) -> words(tiny.hidden[0]), reduce=none)", "word", ("batch", "words")),
    ],
)  # fmt: skip
def test_values_and_their_mean(expression: str, unit: str, shape: tuple[str, ...]) -> None:
    """`reduce="none"` gives one number per unit, `batch_mean` the mean over the same units and mask."""
    found = graph(spec("", f"loss = batch_mean({expression})\n"), EVEN)
    (term,), (mean,) = of_kind(found, n.Loss), of_kind(found, n.Mean)
    assert (term.unit, term.shape, term.reduced, mean.unit, mean.shape) == (unit, shape, False, unit, ())
    assert mean.masked is (unit != "example")


def test_a_token_mean_counts_examples() -> None:
    """Of values per token one number per example is left."""
    value = 'token_mean(mse(big.hidden[0] -> tiny.hidden[0], reduce="none"))'
    (mean,) = of_kind(graph(spec("", f"loss = batch_mean({value} * d.trust)\n"), EVEN), n.Mean)
    assert (mean.unit, mean.masked, mean.data) == ("example", False, "d")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (
            'x = mse(big.hidden[0] -> tiny.hidden[0], reduce="none") + kd(big.logits -> tiny.logits, reduce="none")',
            "B219",
        ),
        ('x = token_mean(kd(big.logits -> tiny.logits, reduce="none"))', "B219"),
        ('x = mse(big.attention[0] -> tiny.attention[0], reduce="none")', "B219"),
        ("x = mse(words(big.hidden[0]) -> tiny.hidden[0])", "B214"),
        ("x = mse(big.hidden[0] -> tiny.hidden[0], mask=labels)", "B217"),
        ("x = mse(big.hidden[0] -> tiny.hidden[0], mask=pairs)", "B217"),
        ("x = kd(big.logits -> tiny.logits, mask=tokens)", "B217"),
        ("x = mse(big.hidden[0] via linear -> tiny.hidden[0] via linear)", "B215"),
    ],
)
def test_units_that_do_not_fit(body: str, code: str) -> None:
    """One fault for one mistake."""
    assert codes(body) == [code]


@pytest.mark.parametrize(
    "body",
    [
        "x = kd(big(d).logits -> tiny(e).logits)",
        "x = ce(e.labels -> tiny(d).logits)",
        "x = infonce(big(d).pooled -> tiny(e).pooled via linear)",
        "x = rkd_angle(big(d).pooled -> tiny(e).pooled)",
        "x = kd((big(d).logits + big(e).logits) / 2 -> tiny(d).logits)",
        "x = kd(mean([big(d).logits, big(e).logits]) -> tiny(d).logits)",
        "x = kd(big(d).logits -> tiny(d).logits - tiny(e).logits)",
        "x = mse(big(d).hidden[0] -> tiny(d).hidden[0], mask=e.keep)",
        'x = kd(big(d).logits -> tiny(d).logits, reduce="none") * kd(big(e).logits -> tiny(e).logits, reduce="none")',
    ],
)
def test_examples_of_two_data_sets_do_not_meet(body: str) -> None:
    """Neither in a match, nor in a mask, nor number by number."""
    assert codes(TWO + body, "loss = ce(d.labels -> tiny(d).logits)\n") == ["B220"]


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("kl(tiny.logits -> tiny(pass=2).logits)", "W204"),
        ("kl(stop(tiny.logits) -> tiny(pass=2).logits)", None),
        ("kl(tiny.logits -> stop(tiny(pass=2).logits))", None),
        ("kl(tiny.logits -> big.logits)", "W202"),
        ("kl(big.logits -> tiny.logits)", None),
    ],
)
def test_who_learns_from_whom(expression: str, code: str | None) -> None:
    """Both sides of a match learn, or the teacher's does not, or the arrow leads the other way: words of warning."""
    text = spec("", f"loss = {expression}\n")
    recipe, collector = recipe_of(text)
    build_graph(recipe, lambda model: SIZES[model.role], collector, identities(recipe, lambda model: ""))
    assert [d.code for d in collector.warnings] == ([code] if code else [])
    assert all(d.help for d in collector.warnings)


ALONG = ("hidden", "attention", "scores")
"""Kinds of which a model has a row."""


@pytest.mark.parametrize(
    ("left", "right", "count"), [("[1:3]", "[2]", 2), ("[2]", "[1:3]", 2), ("[2:3]", "[2]", 1), ("[2]", "[2:3]", 1)]
)
@pytest.mark.parametrize(
    ("operation", "kind"),
    [(name, one) for name, found in OPERATIONS.items() for one, other in found.takes if one == other and one in ALONG],
)
def test_a_list_goes_with_one_value(operation: str, kind: str, left: str, right: str, count: int) -> None:
    """Whatever compares two values compares a list of them, even of one, with a single one, and every pair alike."""
    found = raw(spec("", f"loss = sum({operation}(big.{kind}{left} -> tiny.{kind}{right}))\n"), EVEN)
    terms = of_kind(found, n.Loss)
    alone = of_kind(raw(spec("", f"loss = {operation}(big.{kind}[2] -> tiny.{kind}[2])\n"), EVEN), n.Loss)
    assert len(terms) == count
    assert {(x.unit, x.masked, x.kinds) for x in terms} == {(x.unit, x.masked, x.kinds) for x in alone}


@pytest.mark.parametrize(("operation", "told"), [("nst", ["B214"]), ("mse", ["B214"]), ("pkd", []), ("infonce", [])])
def test_lists_of_other_tokens_are_one_mistake(operation: str, told: list[str]) -> None:
    """B214 is for tokens that differ, once for a list however long; what compares examples needs none that agree."""
    sizes = {"teacher": FakeFacts(12, 768, tokenizer="one"), "student": FakeFacts(3, 768, tokenizer="two")}
    text = spec("", f"loss = sum({operation}(big.hidden[3:] -> tiny.hidden[2]))\n")
    recipe, collector = recipe_of(text, sizes)
    build_graph(recipe, lambda model: sizes[model.role], collector, identities(recipe, lambda model: ""))
    try:
        collector.raise_errors()
        found = []
    except SpecError as error:
        found = [d.code for d in error.diagnostics]
    assert found == told


def test_inputs_and_passes_are_spelled() -> None:
    """A pass beyond the first is named, and the data where there are several."""
    one = graph(spec("", "loss = kl(stop(tiny.logits) -> tiny(pass=2).logits)\n"))
    assert spell(one, info(one).objective) == "kl(stop(tiny.logits) -> tiny(d, pass=2).logits)"
    two = graph(spec(TWO, "loss = kd(big(d).logits -> tiny(d).logits) + ce(e.labels -> tiny(e).logits)\n"))
    assert spell(two, info(two).objective) == "kd(big(d).logits -> tiny(d).logits) + ce(e.labels -> tiny(e).logits)"


def test_each_task_has_a_graph() -> None:
    """A function of two tasks is computed on the data of each."""
    head = spec("", "")[: spec("", "").index("data d")]
    task = 'task {0} {{ data {0}d = files(train="{0}.jsonl"); loss = soft() }}\n'
    text = head + "soft() = kd(big.logits -> tiny.logits)\n" + task.format("a") + task.format("b")
    recipe, collector = recipe_of(text)
    known = identities(recipe, lambda model: "")
    found = []
    for _, one in recipe.tasks:
        built = build_graph(recipe, lambda model: SIZES[model.role], Collector(), known, one)
        assert built is not None
        found.append({x.data for x in of_kind(canonical(built), n.Input)})
    assert not collector.failed
    assert found == [{"a.ad"}, {"b.bd"}]
