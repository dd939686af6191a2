"""Recipe to graph: its nodes, their shapes and units, and the faults that shapes show."""

from __future__ import annotations

import networkx as nx
import pytest

from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.graph import nodes as n
from brewgraph.graph.container import info, node
from brewgraph.graph.nodes import DEFAULT_MASKS
from tests.graph.graphs import SIZES, below, graph, kinds, of_kind, raw, recipe_of
from tests.recipe.specs import LOSS, FakeFacts, spec

WHOLE = spec(
    "let map = [0, 12] -> [0, 3]\n"
    "soft = kd(big.logits -> tiny.logits, T=ramp(8 -> 1))\n"
    "hard = ce(d.labels -> tiny.logits)\n"
    "rows = mse(big.hidden[map] -> tiny.hidden[map] via linear)",
    "loss = 0.5 * soft + hard + sum(rows)\n",
)


def shape_faults(body: str, loss: str = LOSS, **sizes: FakeFacts) -> list[Diagnostic]:
    """The faults that the shapes of a spec show."""
    with pytest.raises(SpecError) as error:
        raw(spec(body, loss), {**SIZES, **sizes})
    return list(error.value.diagnostics)


def test_a_graph_is_frozen_and_typed() -> None:
    """A `networkx.DiGraph` that nobody can change, a `Node` at every key, edges as the nodes' inputs say."""
    for found in (raw(WHOLE), graph(WHOLE)):
        assert type(found) is nx.DiGraph
        assert nx.is_frozen(found)
        assert nx.is_directed_acyclic_graph(found)
        assert all(isinstance(node(found, key), n.Node) for key in found)
        assert set(found.edges) == {(used, key) for key in found for used in node(found, key).inputs}
        with pytest.raises(nx.NetworkXError, match="Frozen graph"):
            found.add_node("more")
        with pytest.raises(nx.NetworkXError, match="Frozen graph"):
            found.remove_edge(*next(iter(found.edges)))


def test_what_a_graph_is_made_of() -> None:
    """Inputs, forwards, taps, projections, labels, masks, numbers, schedules, losses, sums."""
    assert kinds(graph(WHOLE)) == {
        "column": 1,
        "combine": 2,
        "forward": 2,
        "input": 2,
        "loss": 4,
        "mask": 2,
        "number": 2,
        "projection": 2,
        "schedule": 1,
        "tap": 6,
    }


def test_terms_are_the_named_scalars() -> None:
    """Every scalar equation that the loss reaches, and each member of a list; the loss itself is no term."""
    found = graph(WHOLE)
    assert sorted(info(found).terms) == ["hard", "rows[0]", "rows[1]", "soft"]
    assert all(isinstance(node(found, key), n.Loss) for key in info(found).terms.values())
    assert isinstance(node(found, info(found).objective), n.Combine)


def test_shapes() -> None:
    """Features have the model's, projections end where the arrow wants, losses are scalars."""
    found = raw(WHOLE)
    assert {t.shape for t in of_kind(found, n.Tap)} == {
        ("batch", 3),
        ("batch", "length", 768),
        ("batch", "length", 384),
    }
    assert [(p.into, p.out, p.shape) for p in of_kind(found, n.Projection)] == [
        (384, 768, ("batch", "length", 768))
    ] * 2
    assert {x.shape for x in (*of_kind(found, n.Loss), *of_kind(found, n.Combine))} == {()}


@pytest.mark.parametrize(
    ("call", "unit", "mask"),
    [
        ("kd(big.logits -> tiny.logits)", "example", None),
        ("ce(d.labels -> tiny.logits)", "label", "labels"),
        ("nst(big.hidden[1] -> tiny.hidden[1])", "pair", "pairs"),
        ("cos(big.hidden[1] -> tiny.hidden[1] via linear)", "token", "tokens"),
        ("mse(big.hidden[1] -> tiny.hidden[1] via linear, mask=none)", "token", "none"),
        ("mse(big.attention[1] -> tiny.attention[1])", "pair", "pairs"),
        ("mse(big.attention[1] -> tiny.attention[1], mask=none)", "pair", "none"),
        ("ce(big.attention[1] -> tiny.attention[1])", "token", "tokens"),
        ("mse(big.pooled -> tiny.pooled via linear)", "example", None),
        ('nst(big @ "layer.1" -> tiny @ "layer.1")', "pair", "pairs"),
    ],
)
def test_units_and_masks(call: str, unit: str, mask: str | None) -> None:
    """The kind of what a loss gets chooses its mask, and `mask=` replaces it."""
    found = graph(spec(f"x = {call}", f"loss = x + {LOSS[7:]}" if "tiny.logits" not in call else "loss = x\n"))
    key = info(found).terms["x"]
    loss = node(found, key)
    assert isinstance(loss, n.Loss)
    assert (loss.unit, loss.masked) == (unit, mask is not None)
    assert [m.which for m in below(found, key) if isinstance(m, n.Mask)] == ([mask] if mask else [])
    assert set(DEFAULT_MASKS) == {"token", "pair", "label", "word"}


def test_logits_per_token_count_tokens() -> None:
    """Whether a position is an example or a token follows from the logits' shape."""

    class PerToken(FakeFacts):
        def shape(self, feature):  # type: ignore[no-untyped-def]
            return ("batch", "length", 3) if feature.name == "logits" else super().shape(feature)

    sizes = {"teacher": PerToken(2, 8), "student": PerToken(2, 8)}
    loss = of_kind(graph(spec("", "loss = kd(big.logits -> tiny.logits)\n"), sizes), n.Loss)[0]
    assert isinstance(loss, n.Loss)
    assert (loss.unit, loss.masked) == ("token", True)


@pytest.mark.parametrize(
    ("projection", "into", "out"),
    [("linear", 384, 768), ("linear(384 -> 768)", 384, 768), ("tanh", 384, 768)],
)
def test_projections_size_themselves(projection: str, into: int, out: int) -> None:
    """What is left out follows from the arrow."""
    found = of_kind(
        graph(spec(f"x = mse(big.hidden[0] -> tiny.hidden[0] via {projection})", "loss = x\n")), n.Projection
    )
    assert [(p.into, p.out) for p in found] == [(into, out)]


def test_the_teachers_side_may_be_projected() -> None:
    """Then the student's width decides."""
    found = of_kind(graph(spec("x = mse(big.hidden[0] via linear -> tiny.hidden[0])", "loss = x\n")), n.Projection)
    assert [(p.into, p.out) for p in found] == [(768, 384)]


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_widths() -> None:
    """The caret is under the right side, a label under the left, both with their numbers."""
    (found,) = shape_faults("x = mse(big.hidden[0] -> tiny.hidden[0])")
    assert (found.code, found.message) == ("B204", "widths differ and nothing projects between them")
    assert (found.span.text, found.note) == ("tiny.hidden[0]", "384")
    assert [(label.span.text, label.text) for label in found.labels] == [("big.hidden[0]", "768")]
    assert found.help == "add a projection: `tiny.hidden[0] via linear`"


def test_classes_and_heads() -> None:
    """Logits differ in classes, attention in heads."""
    (found,) = shape_faults("x = kd(big.logits -> tiny.logits)", teacher=FakeFacts(12, 768, classes=5))
    assert (found.code, found.message, found.note) == ("B204", "the numbers of classes differ", "3")
    assert "`labels=[…]`" in found.help

    class Heads(FakeFacts):
        def shape(self, feature):  # type: ignore[no-untyped-def]
            return ("batch", 12, "length", "length") if feature.name == "attention" else super().shape(feature)

    (found,) = shape_faults("x = mse(big.attention[0] -> tiny.attention[0])", teacher=Heads(12, 768))
    assert (found.code, found.message, found.note) == ("B204", "the numbers of heads differ", "4")
    assert "`num_attention_heads=…`" in found.help


@pytest.mark.parametrize(
    ("body", "code", "text", "message", "help"),
    [
        (
            "x = mse(big.hidden[0] -> tiny.hidden[0] via linear(300 -> 768))",
            "B204",
            "tiny.hidden[0] via linear(300 -> 768)",
            "the projection takes width 300, but this has width 384",
            "write `384 -> …`",
        ),
        (
            "x = mse(big.hidden[0] -> tiny.hidden[0] via linear(384 -> 700))",
            "B204",
            "tiny.hidden[0] via linear(384 -> 700)",
            "widths differ and nothing projects between them",
            "make the projection end in 768",
        ),
        (
            "x = tiny.hidden[0] via linear\ny = nst(big.hidden[0] -> x)",
            "B215",
            "tiny.hidden[0] via linear",
            "outside an arrow a projection needs its sizes",
            "write `linear(384 -> …)`",
        ),
        (
            "x = nst(big.hidden[0] -> tiny.hidden[0] + big.hidden[0])",
            "B204",
            "tiny.hidden[0] + big.hidden[0]",
            "shapes differ: (batch, length, 384) and (batch, length, 768)",
            "only values of one shape",
        ),
        (
            "x = mse(big.hidden[0] -> tiny.hidden[0] via linear, mask=pairs)",
            "B217",
            "mse(big.hidden[0] -> tiny.hidden[0] via linear, mask=pairs)",
            "`mse` gives one value per token here, which `mask=pairs` cannot choose from",
            "write `mask=tokens`",
        ),
        (
            "x = kd(big.logits -> tiny.logits, mask=tokens)",
            "B217",
            "kd(big.logits -> tiny.logits, mask=tokens)",
            "`kd` gives one value per example here, which `mask=tokens` cannot choose from",
            "leave `mask` out",
        ),
        (
            "x = ce(d.labels -> tiny.logits, mask=none)",
            "B217",
            "ce(d.labels -> tiny.logits, mask=none)",
            "a label of -100 has no loss, but `mask=none` would count it as a loss of zero",
            "leave `mask` out: every other label counts",
        ),
        (
            'x = kd(big @ "layer.1" -> tiny @ "layer.1")',
            "B210",
            'kd(big @ "layer.1" -> tiny @ "layer.1")',
            "`kd` does not compare hidden with hidden",
            "it takes logits -> logits",
        ),
    ],
)
def test_faults_of_shapes(body: str, code: str, text: str, message: str, help: str) -> None:
    """Each once, with the culprit underlined and a remedy."""
    (found,) = shape_faults(body)
    assert (found.code, found.span.text, found.message) == (code, text, message)
    assert help in found.help


def test_one_named_projection_has_one_size() -> None:
    """The second use is the culprit, the first a label."""
    body = (
        "proj W = linear\nx = mse(big.hidden[0] -> tiny.hidden[0] via W)\n"
        "y = mse(tiny.hidden[1] -> tiny.hidden[0] via W)"
    )
    (found,) = (d for d in shape_faults(body) if d.severity == "error")
    assert found.code == "B204"
    assert found.message == "`W` is one module, but it is used as 384 -> 768 and as 384 -> 384"
    assert (found.span.position[0], found.labels[0].span.position[0]) == (6, 5)
    assert found.help == "name two projections"


def test_other_tokens() -> None:
    """Token by token only makes sense where both models cut the text alike; logits per example have no tokens."""
    other = FakeFacts(12, 384, tokenizer="two")
    (found,) = shape_faults("x = mse(big.hidden[0] -> tiny.hidden[0])", teacher=other)
    assert (found.code, found.message) == ("B214", "the two models cut the text into different tokens")
    assert (found.span.text, found.labels[0].span.text) == ("tiny.hidden[0]", "big.hidden[0]")
    assert "tokenizer=big" in found.help
    graph(spec("x = kd(big.logits -> tiny.logits)\ny = mse(big.pooled -> tiny.pooled)"), {**SIZES, "teacher": other})


def test_all_faults_of_shapes_at_once() -> None:
    """They come in the order of the text."""
    body = (
        "x = mse(big.hidden[0] -> tiny.hidden[0])\ny = kd(big.logits -> tiny.logits, mask=pairs)\n"
        "z = cos(big.hidden[1] -> tiny.hidden[1])"
    )
    assert [(d.code, d.span.position[0]) for d in shape_faults(body)] == [("B204", 4), ("B217", 5), ("B204", 6)]


@pytest.mark.parametrize(
    ("match", "code", "help"),
    [
        ("kl(big.logits -> tiny.logits)", None, ""),
        ("kl(tiny.logits -> big.logits)", "W202", "reverse it: `big.logits -> tiny.logits`"),
        ("mse(tiny.hidden[0] -> tiny.hidden[1])", "W204", "stop one: `stop(tiny.hidden[0]) -> tiny.hidden[1]`"),
        ("mse(stop(tiny.hidden[0]) -> tiny.hidden[1])", None, ""),
        ("nst(big.hidden[0] -> big.hidden[1])", None, ""),
    ],
)
def test_arrows_that_are_legal_and_rare(match: str, code: str | None, help: str) -> None:
    """A reverse divergence, and a match whose two sides learn, are more often slips."""
    from brewgraph.facts.models import identities
    from brewgraph.graph.build import build_graph

    recipe, collector = recipe_of(spec(f"x = {match}"))
    known = identities(recipe, lambda model: "another spec")
    assert build_graph(recipe, lambda model: SIZES[model.role], collector, known) is not None
    assert [w.code for w in collector.warnings] == ([code] if code else [])
    assert all(w.help.endswith(help) for w in collector.warnings)
