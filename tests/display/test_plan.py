"""Plans: the loss spelled out, and the facts about models, projections and training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from brewgraph import loads
from brewgraph.diagnostics import UsageError
from brewgraph.display.equation import TermPlan, spell_out
from brewgraph.display.plan import Plan
from brewgraph.inspect.plan_of import plan_of
from brewgraph.recipe.settings.base import setting_text
from brewgraph.recipe.settings.train import Adamw
from brewgraph.recipe.values import Length

HEAD = """
brew 1
teacher big   = hf(model_type="bert", num_hidden_layers=2, hidden_size=32, num_attention_heads=2,
    intermediate_size=64, vocab_size=100, labels=["a", "b"])
student small = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2,
    intermediate_size=32, labels=["a", "b"])
data d        = files(train="none.jsonl", label=none, batch=8)
soft = kd(big.logits -> small.logits)
cosine = cos(big.hidden[2] -> small.hidden[1] via linear)
pairs = mse(big.attention[0, 1] -> small.attention[0])
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A file of texts without labels in the working directory."""
    (tmp_path / "none.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    monkeypatch.chdir(tmp_path)


def terms(loss: str, more: str = "") -> tuple[TermPlan, ...]:
    """The addends of a loss over the equations of HEAD."""
    return spell_out(loads(f"{HEAD}{more}\nloss = {loss}\n").graph)


def plan(loss: str, more: str = "", rows: int | None = None, text: str = HEAD, skip: tuple[str, ...] = ()) -> Plan:
    """The plan of such a spec."""
    checked = loads(f"{text}{more}\nloss = {loss}\n")._checked
    known = checked.facts.data_facts["d"]
    assert known is not None
    data_facts = {"d": replace(known, rows={} if rows is None else {"train": rows})}
    return plan_of(replace(checked, facts=replace(checked.facts, data_facts=data_facts)), cost=False, skip=skip)


pytestmark = pytest.mark.usefixtures("data")


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        ("soft + cosine", {"soft": "1", "cosine": "1"}),
        ("0.5 * (soft + 0.5 * cosine)", {"soft": "0.5", "cosine": "0.25"}),
        ("soft - cosine / 4", {"soft": "1", "cosine": "-0.25"}),
        ("soft - (cosine - sum(pairs))", {"soft": "1", "cosine": "-1", "pairs[0]": "1", "pairs[1]": "1"}),
        ("3 * mean(pairs)", {"pairs[0]": "1.5", "pairs[1]": "1.5"}),
        ("ramp(1 -> 0) * soft + cosine", {"soft": "ramp(1 -> 0)", "cosine": "1"}),
        ("0.5 * ramp(1 -> 0) * (soft + cosine)", {"soft": "0.5 * ramp(1 -> 0)", "cosine": "0.5 * ramp(1 -> 0)"}),
        ("(1 - ramp(1 -> 0)) * soft", {"soft": "(1 - ramp(1 -> 0))"}),
        ("(1 / after(100 steps)) * soft", {"soft": "(1 / after(100 steps))"}),
    ],
)
def test_weights_are_multiplied_out(loss: str, weights: dict[str, str]):
    """Sums, differences, means, quotients and schedules end as one weight in front of each term."""
    assert {" = ".join(t.names): t.weight for t in terms(loss)} == weights


def test_terms_stand_in_the_order_of_the_spec():
    """However the loss is written, equations keep their order, and so do the members of a list."""
    names = [t.names for t in terms("sum(pairs) + cosine + soft")]
    assert names == [("soft",), ("cosine",), ("pairs[0]",), ("pairs[1]",)]


def test_equations_are_written_as_a_spec_would():
    """Lists spelled out, projections with their sizes, options only where they differ from the default."""
    assert [t.equation for t in terms("soft + cosine + sum(pairs)")] == [
        "kd(big.logits -> small.logits)",
        "cos(big.hidden[2] -> small.hidden[1] via linear(16 -> 32))",
        "mse(big.attention[0] -> small.attention[0])",
        "mse(big.attention[1] -> small.attention[0])",
    ]


@pytest.mark.parametrize(
    ("loss", "equation"),
    [
        ("kd(big.logits -> small.logits, T=2.5)", "kd(big.logits -> small.logits, T=2.5)"),
        ("kd(big.logits -> small.logits)", "kd(big.logits -> small.logits)"),
        ("kd(big.logits -> small.logits, T=4)", "kd(big.logits -> small.logits, T=4)"),
        ("kd(big.logits -> small.logits, T=ramp(4 -> 1))", "kd(big.logits -> small.logits, T=ramp(4 -> 1))"),
        (
            "cos(big.hidden[2] -> small.hidden[1] via linear, mask=none)",
            "cos(big.hidden[2] -> small.hidden[1] via linear(16 -> 32), mask=none)",
        ),
        (
            "nst(big.hidden[0] + big.hidden[1] -> small.hidden[1])",
            "nst(big.hidden[0] + big.hidden[1] -> small.hidden[1])",
        ),
    ],
)
def test_options_masks_and_arithmetic_of_features(loss: str, equation: str):
    """What the spec says and no more."""
    (term,) = terms(loss)
    assert term.equation == equation


def test_units_and_masks_are_told():
    """What each term is a mean over, and what is left out."""
    found = {t.names[0]: (t.unit, t.mask) for t in terms("soft + cosine + sum(pairs)")}
    assert found == {
        "soft": ("example", ""), "cosine": ("token", "tokens"), "pairs[0]": ("pair", "pairs"),
        "pairs[1]": ("pair", "pairs"),
    }  # fmt: skip


def test_two_names_of_one_value_are_both_told():
    """Equal equations are computed once."""
    found = terms("soft + again", "again = kd(big.logits -> small.logits)")
    assert [(t.names, t.weight) for t in found] == [(("soft", "again"), "1"), (("soft", "again"), "1")]


def test_forwards_and_what_is_taken_from_them():
    """One forward per model, teachers first, features in order; a model that nothing takes from is not run."""
    found = plan("soft + cosine")
    assert [(f.model, f.data, f.features) for f in found.forwards or ()] == [
        ("big", "d", ("hidden[2]", "logits")),
        ("small", "d", ("hidden[1]", "logits")),
    ]
    other = 'teacher spare = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2)\n'
    found = plan("soft", other)
    assert {m.name: m.used for m in found.models} == {"big": True, "small": True, "spare": False}
    assert [f.model for f in found.forwards or ()] == ["big", "small"]


OWN = "own = kl(stop(small.logits) -> small(pass=2).logits)"
ZERO = "whatever the loss takes from it has a weight of zero"
SPARE = 'teacher spare = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2)\n'


@pytest.mark.parametrize(
    ("loss", "skip", "used", "taken", "dropped"),
    [
        ("soft + 0 * cosine", (), True, ("logits",), ("hidden[2]",)),
        ("cosine + (1 - 1) * soft", (), True, ("hidden[2]",), ("logits",)),
        ("0 * (soft + cosine) + own", (), False, (), ("hidden[2]", "logits")),
        ("0 * soft + own", ("drop_dead_terms",), True, ("logits",), ()),
        ("ramp(1 -> 0) * soft + own", (), True, ("logits",), ()),
    ],
)
def test_what_only_weights_of_zero_take_is_not_run(loss, skip, used, taken, dropped):
    """As a run does: a feature, and a teacher that has no other one."""
    found = plan(loss, OWN, skip=skip)
    (teacher,) = [f for f in found.forwards or () if f.model == "big"]
    assert (teacher.features, teacher.dropped) == (taken, dropped)
    big = next(m for m in found.models if m.name == "big")
    assert (big.used, big.idle) == (used, "" if used else f"{ZERO}, so it is never loaded")


def test_a_model_that_is_only_reported_is_loaded():
    """And one that nothing takes anything from is not."""
    more = f"{SPARE}seen = pkd(spare.hidden[1] -> small.hidden[1])\ntrain {{ report = [seen] }}\n"
    assert {m.name: m.idle for m in plan("soft", more).models} == {"big": "", "spare": "", "small": ""}
    (why,) = [m.idle for m in plan("soft", SPARE).models if not m.used]
    assert why == "the loss takes nothing from it, so it is never loaded"
    begun = HEAD.replace("hidden_size=16", "hidden_size=32").replace("intermediate_size=32", "intermediate_size=64")
    begun = begun.replace("student small = hf(", "student small = hf(init=big.layers[0, 1], ")
    begun = begun.replace("num_hidden_layers=1", "num_hidden_layers=2")
    (why,) = [m.idle for m in plan("0 * soft + own", OWN, text=begun).models if not m.used]
    assert why == f"{ZERO}, so it is loaded only to begin small"


def test_projections_count_their_weights_and_biases():
    """A shared one is counted once and names all that it projects."""
    found = plan(
        "a + cosine", "proj W = relu(16 -> 32, lr=0.01)\na = sum(mse(big.hidden[0, 2] -> small.hidden[0, 1] via W))"
    )
    assert [(p.site, p.kind, p.into, p.out, p.parameters, p.options) for p in found.projections or ()] == [
        ("W", "relu", 16, 32, 17 * 32, (("lr", 0.01),)),
        ("cosine", "linear", 16, 32, 17 * 32, ()),
    ]
    assert [p.values for p in found.projections or ()] == [("small.hidden[0]", "small.hidden[1]"), ("small.hidden[1]",)]
    assert found.projection_parameters == 2 * 17 * 32
    assert found.trainable == (found.student.parameters or 0) + 2 * 17 * 32


def test_models_are_described():
    """Class, sizes, where tokens and weights come from."""
    big, small = plan("soft").models
    assert (big.architecture, big.model_class) == ("bert", "AutoModelForSequenceClassification")
    assert (big.layers, big.width, big.classes, big.start) == (2, 32, 2, "random weights")
    assert big.tokens == "WordPiece, trained on the data, at most 100 pieces"
    assert small.tokens == "that of big"
    assert small.estimated


def test_a_start_from_layers_is_told():
    """`init` names the layers and the model."""
    text = HEAD.replace(
        "num_hidden_layers=1, hidden_size=16", "num_hidden_layers=2, hidden_size=32, init=big.layers[0, 1]"
    )
    text = text.replace("size=32, labels", "size=64, labels")
    assert (
        loads(f"{text}\nloss = soft\n")._checked.recipe.student.source.weights == "layers 0, 1 of big, the rest random"
    )
    copied = "layers 0, 1: 41 tensors with 37,922 parameters copied; nothing at random"
    assert plan("soft", text=text).student.start == f"a part of big: {copied}"


@pytest.mark.parametrize(
    ("train", "rows", "steps"),
    [
        ("", 17, 9),
        ("train { epochs = 2 }", 16, 4),
        ("train { epochs = 2; accumulate = 3 }", 32, 4),
        ("train { steps = 7 }", None, 7),
        ("train { epochs = 2 }", None, None),
    ],
)
def test_steps_follow_from_rows_batches_and_accumulation(train: str, rows: int | None, steps: int | None):
    """Three epochs unless the spec says otherwise; unknown where the rows are."""
    found = plan("soft", train, rows)
    assert found.steps == steps
    assert ("epochs" in dict(found.settings)) is ("steps" not in train)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (None, "none"), (1e-4, "0.0001"), (3, "3"), ("bf16", "bf16"), (Length(0.1, "share"), "10%"),
        (Adamw(lr=1e-3), "adamw(lr=0.001, betas=[0.9, 0.999], eps=1e-08, weight_decay=0.01, decay_all=false, layerwise_decay=1, correct_bias=true)"),
    ],
)  # fmt: skip
def test_settings_are_written_as_in_a_spec(value: Any, text: str):
    """Truth values, none, numbers, words, lengths, calls."""
    assert setting_text(value) == text


def test_a_notebook_shows_all_that_a_terminal_does():
    """Section by section, nothing cut short, and no text of the spec read as markup."""
    head = HEAD.replace('labels=["a", "b"]', 'labels=["a<b>", "b&c"]')
    recipe = loads(f"{head}\nloss = soft + 0.5 * cosine\n")
    found = recipe.plan(cost=False)
    shown = found._repr_html_()
    page = ElementTree.fromstring(shown)
    titles = [x.text for x in page.iter("summary")]
    assert titles == [
        "models",
        "data",
        "loss",
        "each batch runs",
        "saved by",
        "projections",
        "trained",
        "memory",
        "training",
    ]
    sections = dict(zip(titles, ("".join(x.itertext()) for x in page.iter("pre")), strict=True))
    assert "0.5 * cos(big.hidden[2] -> small.hidden[1] via linear(16 -> 32))" in sections["loss"]
    assert 'labels=["a<b>",' in sections["models"]
    lines = str(found).splitlines()
    for title, words in sections.items():
        assert title in lines
        assert all(f"  {line}".rstrip() in lines for line in words.splitlines())
    with pytest.raises(UsageError, match="there is no pass `drop`"):
        recipe.plan(skip=["drop"])
