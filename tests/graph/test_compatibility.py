"""What may meet in a loss: each check by itself, on sides made by hand; labels and logits of examples and of tokens, by whole specs.

No model is built.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from brewgraph.diagnostics import Collector, Diagnostic, SpecError
from brewgraph.facts.models import identities
from brewgraph.graph.build import build_graph
from brewgraph.graph.compatibility import CHECKS, COMPARING, BuiltLoss, Context, LossSide, check_match
from brewgraph.recipe import values as v
from brewgraph.recipe.features import Feature, Shape
from tests.graph.graphs import recipe_of
from tests.recipe.specs import FakeFacts

DATA = {
    "class": 'files(train="t.jsonl")',
    "tags": 'conll(train="t.txt")',
    "next": 'text(train="t.txt")',
    "masked": 'text(train="t.txt", mask=15%)',
    "spans": 'squad(train="t.json")',
}
HEAD = 'teacher big = hf("big")\nstudent tiny = hf(model_type="bert")'


@dataclass(frozen=True)
class Tagger(FakeFacts):
    """A model whose logits lie along the tokens."""

    def shape(self, feature: Feature) -> Shape:
        if feature.name in ("start", "end"):
            return ("batch", "length")
        return ("batch", "length", self.classes) if feature.name == "logits" else super().shape(feature)


CLASSIFIER, TAGGER = FakeFacts(2, 8), Tagger(2, 8)
AXES = {"each token": TAGGER, "a whole example": CLASSIFIER}


def said(
    loss: str, data: str = "class", big: FakeFacts = CLASSIFIER, tiny: FakeFacts = CLASSIFIER, heads: str = ""
) -> list[Diagnostic]:
    """The errors of a spec with this loss."""
    sizes = {"big": big, "tiny": tiny}
    recipe, _ = recipe_of(f"{HEAD}{heads}\ndata d = {DATA[data]}\nloss = {loss}\n", sizes)
    collector = Collector()
    build_graph(recipe, lambda model: sizes[model.name], collector, identities(recipe, lambda model: ""))
    try:
        collector.raise_errors()
    except SpecError as error:
        return [x for x in error.diagnostics if x.severity == "error"]
    return []


@pytest.mark.parametrize(
    ("data", "wanted", "remedy"),
    [
        ("class", "a whole example", 'give `tiny` the matching head: task="sequence-classification"'),
        ("tags", "each token", 'give `tiny` the matching head: task="token-classification"'),
        ("next", "each token", 'give `tiny` the matching head: task="causal-lm"'),
        ("masked", "each token", 'give `tiny` the matching head: task="masked-lm"'),
    ],
)
def test_labels_meet_logits_of_their_extent(data: str, wanted: str, remedy: str) -> None:
    """Of the other extent there is one fault, with the head that the labels want."""
    for given, facts in AXES.items():
        found = said("ce(d.labels -> tiny.logits)", data, tiny=facts)
        if given == wanted:
            assert found == []
            continue
        assert [(x.code, x.span.text, x.help) for x in found] == [("B224", "tiny.logits", remedy)]
        assert found[0].message == f"`d` has a label for {wanted}, but `tiny` has logits for {given}"


@pytest.mark.parametrize("operation", ["kd", "ce", "kl", "mse", "bce"])
def test_logits_meet_logits_of_their_extent(operation: str) -> None:
    """Whichever operation compares them, and whichever side is which."""
    for one, big in AXES.items():
        for other, tiny in AXES.items():
            found = said(f"{operation}(big.logits -> tiny.logits)", big=big, tiny=tiny)
            if one == other:
                assert found == []
                continue
            task = "token-classification" if one == "each token" else "sequence-classification"
            assert [(x.code, x.help) for x in found] == [("B224", f'give `tiny` the matching head: task="{task}"')]
            assert found[0].message == f"`big` has logits for {one}, but `tiny` has them for {other}"


def test_logits_per_word_lie_along_the_text_as_well() -> None:
    """Words and tokens are told apart by B214, not here."""
    both = "kd(words(big.logits) -> words(tiny.logits))"
    assert said(both, big=TAGGER, tiny=TAGGER) == []
    found = said("kd(words(big.logits) -> tiny.logits)", big=TAGGER)
    assert [(x.code, x.message) for x in found] == [
        ("B224", "`big` has logits for each token, but `tiny` has them for a whole example")
    ]


@pytest.mark.parametrize(
    ("data", "column", "facts", "head"),
    [
        ("class", "labels", TAGGER, "sequence_classifier"),
        ("spans", "start", TAGGER, "span_classifier"),
        ("tags", "labels", CLASSIFIER, "token_classifier"),
        ("next", "labels", CLASSIFIER, "causal_lm"),
        ("masked", "labels", CLASSIFIER, "masked_lm"),
    ],
)
def test_the_head_of_a_student_with_several_is_named(data: str, column: str, facts: FakeFacts, head: str) -> None:
    """The remedy is a head of another kind, not another task of the model."""
    heads = " { head ner = token_classifier(labels=3) }"
    (found,) = said(f"ce(d.{column} -> tiny.ner.logits)", data, tiny=facts, heads=heads)
    assert (found.code, found.span.text) == ("B224", "tiny.ner.logits")
    assert found.help == f"make the head `ner` a `{head}(…)`, or match another head"


def test_answers_want_a_head_for_answers() -> None:
    """A start is one position of a text, which neither a class of the text nor one of a token is."""
    (found,) = said("ce(d.start -> tiny.logits)", "spans", tiny=TAGGER)
    assert (found.code, found.help) == ("B224", 'give `tiny` the matching head: task="question-answering"')


def test_classes_are_no_positions() -> None:
    """Scores over positions want a start or an end of an answer."""
    (found,) = said("ce(d.labels -> tiny.start)", tiny=TAGGER)
    assert (found.code, found.span.text) == ("B224", "tiny.start")
    assert found.message == "the labels of `d` are classes, but `tiny.start` scores positions of a text"
    assert said("ce(d.start -> tiny.start) + ce(d.end -> tiny.end)", "spans", tiny=TAGGER) == []


def test_what_is_not_known_is_not_at_fault() -> None:
    """A model that cannot be reached has no shapes, and may yet turn out to fit."""
    recipe, _ = recipe_of(f"{HEAD}\ndata d = {DATA['class']}\nloss = kd(big.logits -> tiny.logits)\n")
    collector = Collector()
    known = {"tiny": replace(CLASSIFIER)}
    build_graph(recipe, lambda model: known.get(model.name), collector, identities(recipe, lambda model: ""))
    assert not collector.failed


@pytest.mark.parametrize("loss", ["mse(big.hidden[0] -> tiny.hidden[0])", "mse(big.pooled -> tiny.pooled)"])
def test_other_features_are_none_of_its_business(loss: str) -> None:
    """Hidden states lie along tokens, vectors do not, whatever the logits do."""
    assert said(loss, big=TAGGER) == []


PAIRS: Shape = ("batch", 2, "length", "length")
UNREDUCED = 'batch_mean(mse(big.attention[0] -> tiny.attention[0], reduce="none"))'
HIDDEN = "mse(big.hidden[0] -> tiny.hidden[0])"
TOKENS, WORDS = ("batch", "length", 8), ("batch", "words", 8)
ALONE: list[tuple[str, str, tuple[str, Shape], tuple[str, Shape], str]] = [
    ("check_axes", HIDDEN, ("tensor", (8, "batch")), ("hidden", TOKENS), "B221"),
    ("check_kinds", HIDDEN, ("hidden", TOKENS), ("attention", PAIRS), "B210"),
    ("check_extent", "kd(big.logits -> tiny.logits)", ("logits", TOKENS), ("logits", ("batch", 8)), "B224"),
    ("check_sizes", HIDDEN, ("hidden", ("batch", "length", 4)), ("hidden", TOKENS), "B204"),
    ("check_tokens", HIDDEN, ("hidden", WORDS), ("hidden", TOKENS), "B214"),
    ("check_mask", "mse(big.hidden[0] -> tiny.hidden[0], mask=pairs)", ("hidden", TOKENS), ("hidden", TOKENS), "B217"),
    ("check_direction", "mse(tiny.hidden[0] -> big.hidden[0])", ("hidden", TOKENS), ("hidden", TOKENS), "W202"),
    ("check_reduction", UNREDUCED, ("attention", PAIRS), ("attention", PAIRS), "B219"),
]  # fmt: skip
"""A check, a loss, kind and shape of its sides as if they were built, and the one fault of it that this check reports."""


def built(
    loss: str, one: tuple[str, Shape], other: tuple[str, Shape], comparable: bool = True
) -> tuple[Context, BuiltLoss]:
    """A loss whose sides were made by hand, one number per token; of attention one per pair."""
    sizes = {"big": CLASSIFIER, "tiny": CLASSIFIER}
    recipe, _ = recipe_of(f"{HEAD}\ndata d = {DATA['class']}\nloss = {loss}\n", sizes)
    apply = next(x for x in v.walk(recipe.stages[0].tasks[0].loss) if isinstance(x, v.Apply))
    match = BuiltLoss(
        apply,
        LossSide(apply.source, *one),
        LossSide(apply.target, *other),
        "pair" if one[0] == "attention" else "token",
        comparable,
    )
    return Context(recipe, lambda model: sizes[model.name], Collector()), match


@pytest.mark.parametrize(("name", "loss", "one", "other", "code"), ALONE, ids=[case[0] for case in ALONE])
def test_each_check_by_itself(
    name: str, loss: str, one: tuple[str, Shape], other: tuple[str, Shape], code: str
) -> None:
    """It needs no builder, and reports one fault of its own; nothing on sides that agree."""
    (check,) = [x for x in CHECKS if x.__name__ == name]
    context, match = built(loss, one, other)
    check(context, match)
    assert [x.code for x in context.collector.sorted()] == [code]
    context, match = built(HIDDEN, ("hidden", TOKENS), ("hidden", TOKENS))
    check(context, match)
    assert not context.collector.sorted()


@pytest.mark.parametrize(("name", "loss", "one", "other", "code"), ALONE, ids=[case[0] for case in ALONE])
def test_vocabularies_with_nothing_in_common_say_enough(
    name: str, loss: str, one: tuple[str, Shape], other: tuple[str, Shape], code: str
) -> None:
    """After B223 nothing is said of sizes and tokens; masks, kinds and directions are judged all the same."""
    context, match = built(loss, one, other, comparable=False)
    check_match(context, match)
    compares = name in [x.__name__ for x in COMPARING]
    assert (code in [x.code for x in context.collector.sorted()]) is not compares


def test_every_check_has_a_case() -> None:
    """Whoever adds a check to `CHECKS` shows it by itself."""
    assert [case[0] for case in ALONE] == [x.__name__ for x in CHECKS]
