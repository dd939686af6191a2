"""The hash of a spec and the diff of two: names, order and spacing count for nothing, every other field for something."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from brewgraph.display.diff import Change, compare
from tests.graph.written import Style, Written, mutations, side, specs, styles, text

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def differences(one: str, other: str) -> tuple[Change, ...]:
    """The changes between two texts."""
    return compare(side(one), side(other)).changes


@FEW
@given(specs(), styles(), styles())
def test_however_a_spec_is_written_its_hash_is_one(spec: Written, one: Style, other: Style) -> None:
    """Other names of everything, another order of statements, addends, arguments and settings, other spacing."""
    first, second = side(text(spec, one)), side(text(spec, other))
    assert first.hash == second.hash
    assert compare(first, second).same


@FEW
@given(specs(), styles(), st.data())
def test_every_changed_field_is_another_hash_and_is_named(spec: Written, style: Style, data: st.DataObject) -> None:
    """One change, named with both values, however the second spec is written; the other way round there is one too."""
    mutation = data.draw(st.sampled_from(list(mutations(spec))))
    assume(mutation.spec != spec)
    assume(len({replace(term, weight="1") for term in mutation.spec.terms}) == len(mutation.spec.terms))
    before, after = side(text(spec)), side(text(mutation.spec, style))
    assert before.hash != after.hash
    change, *more = compare(before, after).changes
    # another operation has another default, which is another temperature
    assert {x.aspect for x in more} <= ({"T"} if mutation.aspect == "operation" else set())
    assert change.subject == mutation.subject
    assert mutation.aspect in (change.aspect, change.name, change.how)
    assert all(value in f"{change.before} {change.after}" for value in mutation.values)
    assert len(compare(after, before).changes) == 1 + len(more)


HEAD = """\
teacher a = hf("first")
teacher b = hf("second")
student s = hf(model_type="bert", hidden_size=384)
data d = files(train="d.jsonl", batch=8)
data e = files(train="e.jsonl", batch=8)
proj W = linear(384 -> 768)
proj V = linear(384 -> 768)
"""
TWO_TASKS = """\
task one { loss = ce(d.labels -> s(d).logits) }
task two { loss = ce(e.labels -> s(e).logits) }
sample [one, two] ~ size
"""
STAGES = """\
stage warm for 1 epochs { loss = kd(a(d).logits -> s(d).logits); train { freeze = [W] } }
stage main for 2 epochs { loss = mse(a(d).hidden[1] -> s(d).hidden[1] via W) + cos(a(d).hidden[2] -> s(d).hidden[2] via V) }
"""


def said(before: str, after: str) -> list[tuple[str, str, str, str, str]]:
    """The changes between two specs of HEAD, as (how, subject, name, aspect, after or before)."""
    return [(c.how, c.subject, c.name, c.aspect, c.after or c.before) for c in differences(HEAD + before, HEAD + after)]


@pytest.mark.parametrize(
    ("body", "old", "new", "wanted"),
    [
        (TWO_TASKS, "~ size", "~ size ** 0.5", ("changed", "sample", "", "law", "size ** 0.5")),
        (TWO_TASKS, "~ size", ", order = [two, one, two]", ("changed", "sample", "", "order", "two, one, two")),
        (TWO_TASKS, "ce(e.labels", "2 * ce(e.labels", ("changed", "term", "ce(e.labels -> s.logits)", "weight", "2")),
        (STAGES, "freeze = [W]", "freeze = [V]", ("changed", "setting", "freeze", "", "[V]")),
        (STAGES, "for 2 epochs", "for 5 epochs", ("changed", "setting", "epochs", "", "5")),
        (STAGES, "hidden[2] via V", "hidden[2] via W", ("changed", "projection", "W, V", "shared", "one module")),
        (STAGES, "kd(a(d)", "kd(b(d)", ("changed", "term", "kd(a.logits -> s.logits)", "tap", "b.logits")),
        (STAGES, "s(d).logits)", "s(d, pass=2).logits)", ("changed", "term", "kd(a.logits -> s.logits)", "pass", "2")),
    ],
)  # fmt: skip
def test_stages_tasks_and_projections(body: str, old: str, new: str, wanted: tuple[str, ...]) -> None:
    """One change each, among the changes that it brings along."""
    found = said(body, body.replace(old, new, 1))
    assert wanted in found, found


def test_stages_that_change_places() -> None:
    """Their order is what is trained first."""
    first, second = STAGES.splitlines()
    moved = said(STAGES, f"{second}\n{first}\n")
    assert ("changed", "stages", "", "order", "main, warm") in moved
    added = "stage more for 1 epochs { loss = nst(a(d).hidden[3] -> s(d).hidden[3]) }\n"
    assert [x[:3] for x in said(STAGES, STAGES + added)] == [("added", "stage", "more")]


def test_tasks_and_data_in_another_order_are_the_same() -> None:
    """Nor does it matter what tasks are called, or that something is declared that nothing uses."""
    one, two, sample = TWO_TASKS.splitlines()
    other = f'{two}\n{one}\n{sample}\nteacher unused = hf("third")\n'.replace("one", "eins").replace(
        "[eins, two]", "[two, eins]"
    )
    lines = HEAD.splitlines()
    assert compare(side(HEAD + TWO_TASKS), side("\n".join(reversed(lines)) + "\n" + other)).same


def test_what_is_not_trained_is_a_note() -> None:
    """How often something is written down leaves the hash as it is."""
    body = "loss = ce(d.labels -> s(d).logits)\ntrain { logging_steps = 5 }\n"
    found = compare(side(HEAD + body), side(HEAD + body.replace("5 }", "50 }")))
    assert found.same
    assert found.notes == ("logging_steps: 5 -> 50, which changes nothing that is trained",)


def test_a_loss_put_together_otherwise_is_said() -> None:
    """The same terms with the same weights, and yet other arithmetic, whose last digits may differ."""
    terms = "x = kd(a(d).logits -> s(d).logits)\ny = ce(d.labels -> s(d).logits)\n"
    found = said(terms + "loss = 0.5 * x + 0.5 * y\n", terms + "loss = 0.5 * (x + y)\n")
    assert [x[:4] for x in found] == [("changed", "loss", "", "form")]
