"""Tasks, how they are drawn, stages, and settings that override others key by key."""

from __future__ import annotations

import pytest

from brewgraph.recipe.settings.train import Adamw, Sgd
from tests.recipe.specs import fault, faults, names, spec

KD, CE = "kd(big.logits -> tiny.logits)", "ce(d.labels -> tiny.logits)"
TWO = f"task a {{ loss = {KD} }}\ntask b {{ loss = {CE} }}\n"


def test_tasks_are_in_one_unnamed_stage() -> None:
    """Each with its loss and the data that it reads; drawn in proportion to their sizes where nothing else is said."""
    (stage,) = names(TWO, "").stages
    assert [(task.name, task.loss.operation, task.data) for task in stage.tasks] == [
        ("a", "kd", ("d",)),
        ("b", "ce", ("d",)),
    ]
    assert stage.name == ""
    assert stage.sample is not None
    assert stage.sample.law.name == "size"


@pytest.mark.parametrize(
    ("sample", "kind", "order", "floor"),
    [
        ("sample [a, b]", "Number", (), 0), ("sample [b, a] ~ size ** 0.5", "Combine", (), 0),
        ("sample [a, b] ~ batches", "Symbol", (), 0), ("sample [a, b], order = [a, b, b]", "Number", ("a", "b", "b"), 0),
        ("sample [a, b] ~ size, floor = 0.1", "Symbol", (), 0.1), ("sample [a, b] ~ size - 3", "Combine", (), 0),
    ],
)  # fmt: skip
def test_how_tasks_are_drawn(sample: str, kind: str, order: tuple[str, ...], floor: float) -> None:
    """A law over sizes, an order, a floor."""
    found = names(TWO + sample, "").stages[0].sample
    assert found is not None
    assert (type(found.law).__name__, found.order, found.floor) == (kind, order, floor)


@pytest.mark.parametrize(
    "sample",
    [
        "sample [a]", "sample [a, c]", "sample [a, b, b]", "sample []", "sample 3", 'sample [a, b] ~ "x"',
        "sample [a, b] ~ 0", "sample [a, b] ~ -1 * size", "sample [a, b] ~ ramp(1 -> 0)", "sample [a, b], order = [a]",
        "sample [a, b], order = []", "sample [a, b] ~ size, order = [a, b]", "sample [a, b], order = [a, b], floor = 0.1",
        "sample [a, b], floor = 0.6", 'sample [a, b], floor = "x"', f"sample [a, b] ~ {KD}",
    ],
)  # fmt: skip
def test_draws_that_have_no_meaning(sample: str) -> None:
    """One B116 with a remedy."""
    found = fault(TWO + sample, "")
    assert found.code == "B116"
    assert found.help


@pytest.mark.parametrize("written", ['param turns = ["a", "b", "b"]', 'let turns = ["a", "b", "b"]'])
def test_an_order_may_be_a_param(written: str) -> None:
    """So that the spec need not change with the order; whoever runs it may give another list."""
    found = names(f"{written}\n{TWO}sample [a, b], order = turns", "").stages[0].sample
    assert found is not None
    assert found.order == ("a", "b", "b")


def test_an_order_is_given_from_outside() -> None:
    """By `--set "turns=[b, a]"`."""
    body = f'param turns = ["a", "b"]\n{TWO}sample [a, b], order = turns'
    found = names(body, "", turns=("b", "a")).stages[0].sample
    assert found is not None
    assert found.order == ("b", "a")


@pytest.mark.parametrize(
    ("value", "message", "help"),
    [
        ('["a", "c"]', "there is no task `c` here", "the tasks are `a` and `b`"),
        ("3", "there is no task `turns` here", "the tasks are `a` and `b`"),
        ('["a"]', "`b` is missing from this order", "name every task"),
    ],
)
def test_a_param_that_is_no_order(value: str, message: str, help: str) -> None:
    """B116 where it is used."""
    found = fault(f"param turns = {value}\n{TWO}sample [a, b], order = turns", "")
    assert (found.code, found.message) == ("B116", message)
    assert help in found.help
    assert "turns" in found.span.text


def test_a_stage_without_a_loss_has_the_outer_one() -> None:
    """And one with a loss, or with tasks, its own."""
    body = f"stage one {{ }}\nstage two {{ loss = {CE} }}\nstage three {{ {TWO.replace(chr(10), ';')} }}"
    found = names(body, f"loss = {KD}\n").stages
    assert [(s.name, [t.name for t in s.tasks], s.tasks[0].loss.operation) for s in found] == [
        ("one", [""], "kd"),
        ("two", [""], "ce"),
        ("three", ["a", "b"], "kd"),
    ]


def test_stages_run_the_outer_tasks() -> None:
    """Each draws them in its own way, or as the outer `sample` says."""
    body = TWO + "sample [a, b] ~ size\nstage one { }\nstage two { sample [a, b], order = [a, b] }"
    one, two = names(body, "").stages
    assert one.sample is not None
    assert two.sample is not None
    assert [one.sample.law.name, two.sample.order] == ["size", ("a", "b")]


def test_settings_are_overridden_key_by_key() -> None:
    """What a stage says wins, what it leaves out is the outer one's; its length is never both."""
    body = (
        f"loss = {KD}\ntrain {{ epochs = 5; seed = 3; precision = bf16; optimizer = adamw(lr=1e-3) }}\n"
        "stage one for 100 steps { train { seed = 4 } }\nstage two { train { optimizer = sgd(lr=0.1) } }"
    )
    one, two = (stage.train for stage in names(body, "").stages)
    assert (one.steps, one.epochs, one.seed, one.precision, one.optimizer) == (100, None, 4, "bf16", Adamw(lr=1e-3))
    assert (two.steps, two.epochs, two.seed, two.precision, two.optimizer) == (None, 5, 3, "bf16", Sgd(lr=0.1))


@pytest.mark.parametrize(
    ("stage", "code"),
    [
        ("stage s for 2 epochs { train { epochs = 3 } }", "B122"), ("stage s for 2 epochs { train { steps = 3 } }", "B122"),
        ("stage s for 30% { }", "B122"), ("stage s for 2 { }", "B122"), ("stage s for 0 epochs { }", "B122"),
        ("stage s for 1.5 steps { }", "B122"), (f"stage s {{ loss = {KD}; task a {{ loss = {KD} }} }}", "B115"),
        ("stage s { }\nstage s { }", "B105"), ("stage s { stage t { } }", "B110"),
    ],
)  # fmt: skip
def test_faulty_stages(stage: str, code: str) -> None:
    """Each at its place."""
    found = fault(stage, f"loss = {KD}\n")
    assert found.code == code
    assert found.help


def test_what_is_frozen() -> None:
    """Modules of the student, named projections, the whole student; per stage."""
    body = (
        "proj W = linear\nx = mse(big.hidden[0] -> tiny.hidden[0] via W)\n"
        'stage one { train { freeze = [tiny @ "embeddings", W] } }\nstage two { train { freeze = tiny } }\nstage three { }'
    )
    found = [[(x.kind, x.path or x.name) for x in s.freeze] for s in names(body, f"loss = x + {KD}\n").stages]
    assert found == [[("module", "embeddings"), ("projection", "W")], [("model", "tiny")], []]
    for wrong in ("big", 'big @ "embeddings"', "tiny.hidden[0]", "tiny.embeddings", '"embeddings"', "x", "3"):
        told = fault(f"x = {KD}\ntrain {{ freeze = [tiny, {wrong}] }}")
        assert (told.code, told.span.text) == ("B202", wrong)
    (stage,) = names(f'x = {KD}\ntrain {{ freeze = [tiny  @  # its\n"embeddings"] }}').stages
    assert stage.train.freeze == ('tiny @ "embeddings"',)
    told = fault(f"x = {KD}\ntrain {{ freeze = [tiny.embeddings] }}")
    assert told.help.startswith('name the module by its path: `tiny @ "')
    assert fault(f'x = {KD}\ntrain {{ freeze = ["pooler"] }}').help == 'say whose module it is: `tiny @ "pooler"`'


def test_what_is_reported() -> None:
    """Scalars under their names, members of a list numbered; only where a task has their data."""
    body = f"soft = {KD}\nx = nst(big.hidden[0, 1] -> tiny.hidden[0, 1])\ntrain {{ report = [soft, x, 2*  soft] }}"
    (stage,) = names(body).stages
    assert list(stage.tasks[0].reports) == ["soft", "x[0]", "x[1]", "2 * soft"]
    other = 'data e = files(train="u.jsonl")\ntrain { report = [kd(big(e).logits -> tiny(e).logits)] }'
    told = fault(other, "loss = ce(d.labels -> tiny(d).logits)\n")
    assert (told.code, told.span.text) == ("B220", "kd(big(e).logits -> tiny(e).logits)")


def test_a_loss_beside_tasks_and_a_task_without_one() -> None:
    """Either leaves open what is trained."""
    assert fault(TWO, f"loss = {KD}\n").code == "B115"
    assert [d.code for d in faults(spec(TWO + "task c { x = 3 }", ""))] == ["B107"]
