"""Names of a spec explained: each kind of thing, in each task, and names that are none."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import Collector, UsageError
from brewgraph.display.cost import Cost, ForwardCost
from brewgraph.display.explain_name import Explained, explain_name
from brewgraph.display.render import named
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.graph.graphs import recipe_of
from tests.graph.written import side

SPEC = """\
teacher big = hf("first")
student tiny = hf(model_type="bert")
data d = files(train="d.jsonl")
tap t = big @ "layer.7.output"
proj W = linear(384 -> 768)
soft = kd(big.logits -> tiny.logits, T=3)
hidden = mse(big.hidden[0, 12] -> tiny.hidden[0, 3] via W)
tapped = mse(t -> tiny.hidden[1] via linear)
unused = nst(big.hidden[1] -> tiny.hidden[1])
loss = 0.5 * soft + sum(hidden) + tapped + ce(d.labels -> tiny.logits)
"""


def explain(name: str, text: str = SPEC, cost: Cost | str | None = None) -> tuple[Explained, ...]:
    """What a name of a spec means."""
    found = side(text)
    recipe, _ = recipe_of(text)
    statements = parse(Source(text), Collector()).statements
    return explain_name(name, recipe, statements, named(found.graphs), lambda graph, key: cost)


def test_a_term() -> None:
    """Its equation, weight and unit, what it takes and where it goes."""
    (soft,) = explain("soft")
    assert (soft.kind, soft.line, soft.where) == ("term", 6, "")
    assert dict(soft.facts) == {
        "equation": "kd(big.logits -> tiny.logits, T=3)", "weight": "0.5", "mean": "over examples", "shape": "one number"
    }  # fmt: skip
    assert soft.upstream == ("big.logits", "tiny.logits", "teacher big", "student tiny", "data d")
    assert soft.downstream == ("loss",)


def test_a_list_of_terms() -> None:
    """All its members, or the one that is named."""
    assert [x.name for x in explain("hidden")] == ["hidden[0]", "hidden[1]"]
    (last,) = explain("hidden[1]")
    assert dict(last.facts)["equation"] == "mse(big.hidden[12] -> tiny.hidden[3] via linear(384 -> 768))"


@pytest.mark.parametrize(
    ("name", "kind", "line", "feeds"),
    [
        ("big", "teacher model", 1, ("0.5 * soft", "hidden[0]", "hidden[1]", "tapped")),
        ("tiny.hidden[3]", "tap", 7, ("hidden[1]",)),
        ("t", "tap", 4, ("tapped",)),
        ("d", "data", 3, ("0.5 * soft", "hidden[0]", "hidden[1]", "tapped", "ce(d.labels -> tiny.logits)")),
        ("d.labels", "column", 10, ("ce(d.labels -> tiny.logits)",)),
        ("W", "projection", 7, ("hidden[0]", "hidden[1]")),
    ],
)
def test_other_things(name: str, kind: str, line: int, feeds: tuple[str, ...]) -> None:
    """Models, features, named taps, data, columns and projections, with the terms that they feed."""
    found = explain(name)
    assert {x.kind for x in found} == {kind}
    assert line in {x.line for x in found} or kind in ("tap", "projection")
    assert tuple(dict.fromkeys(term for x in found for term in x.downstream)) == feeds


def test_costs() -> None:
    """A term's is that of a step on it alone, a model's its share; what is not known says why."""
    cost = Cost(8, 16, 3000, 2000, 4096, 2048, (ForwardCost("big", 1500, 5, 12), ForwardCost("tiny", 1000, 3, 3)))
    (soft,) = explain("soft", cost=cost)
    assert dict(soft.facts)["cost alone"] == (
        "3 kFLOP forward, 2 kFLOP backward, 4.1 kB at most, for 8 examples of 16 tokens"
    )
    (big,) = explain("big", cost=cost)
    assert ("layers", "5 of 12 run") in big.facts
    assert ("cost", "1.5 kFLOP of 3 kFLOP forward") in big.facts
    (soft,) = explain("soft", cost="no weights")
    assert dict(soft.facts)["cost"] == "unknown: no weights"


def test_names_that_are_none() -> None:
    """A near one is offered; one that exists and that nothing uses is told from one that does not."""
    with pytest.raises(UsageError, match="nothing called `sft`: did you mean `soft`"):
        explain("sft")
    with pytest.raises(UsageError, match="nothing that is trained uses `unused`"):
        explain("unused")


def test_in_each_task() -> None:
    """A model that two tasks use has two meanings; a term is called as in reports or as in the spec."""
    text = """\
teacher big = hf("first")
student tiny = hf(model_type="bert")
data d = files(train="d.jsonl")
task one { soft = kd(big.logits -> tiny.logits); loss = soft }
task two { loss = mse(big.hidden[1] -> tiny.hidden[1] via linear) }
"""
    assert [(x.where, x.downstream) for x in explain("big", text)] == [
        ("one", ("one/soft",)),
        ("two", ("mse(big.hidden[1] -> tiny.hidden[1] via linear(384 -> 768))",)),
    ]
    assert explain("one.soft", text) == explain("one/soft", text)
