"""Each lint on specs that it is about, and on their neighbours that it must leave alone; no model is built."""

from __future__ import annotations

import re

import pytest

from brewgraph.checking.check import check_names
from brewgraph.lints import LINTS, Subject, lint
from brewgraph.recipe.recipe import Recipe
from brewgraph.source import Source
from tests.graph.graphs import graph, recipe_of
from tests.recipe.specs import FACTS, FakeFacts, known, spec

SOFT = "soft = kd(big.logits -> tiny.logits)\n"
HARD = "hard = ce(d.labels -> tiny.logits)\n"
TWO = 'teacher other = hf("other")\nlet ts = [big, other]\n'


def said(recipe: Recipe, ranks: int = 1, graphs: object = None) -> list[tuple[str, str]]:
    """The codes of all warnings with what they underline."""
    facts = {**FACTS, "other": FACTS["big"]}
    subject = Subject(recipe, graphs or {}, lambda model, row: facts[model].row_length(row), ranks)  # type: ignore[arg-type]
    found = list(lint(subject))
    assert all(d.help and d.severity == "warning" for d in found)
    return [(d.code, d.span.text) for d in found]


def check(body: str, *wanted: tuple[str, str]) -> None:
    """The warnings of a spec with these lines; a loss on labels is added where it has none."""
    loss = "" if "loss =" in body else "loss = ce(d.labels -> tiny.logits)\n"
    facts = {**FACTS, "other": FACTS["big"]}
    assert said(known(body, loss, facts)) == list(wanted)


def test_every_lint_is_in_the_list_once() -> None:
    """Functions named by verbs."""
    assert len({look.__name__ for look in LINTS}) == len(LINTS)
    assert all(look.__name__.startswith("find_") and look.__doc__ for look in LINTS)


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        (SOFT, ["soft"]),
        (f"{SOFT}loss = soft", []),
        (f"{SOFT}half = 0.5 * soft", ["half"]),  # and not what it is made from
        (f"half = 0.5 * soft\n{SOFT}", ["half"]),
        (f"{SOFT}{HARD}loss = hard\ntrain {{ report = [soft] }}", []),
        ("x = nst(big.hidden[0, 4] -> tiny.hidden[0, 1])", ["x"]),
        ("x = nst(big.hidden[0, 4] -> tiny.hidden[0, 1])\nloss = x[0]", []),
        ('x = kd(big.logits -> tiny.logits, reduce="none")', ["x"]),
        ("h = big.hidden[0]\nw = 0.5", []),  # features and numbers are no terms
        (f"{SOFT}f(x) = 2 * x\nloss = f(soft)", []),
        (f"{SOFT}loss = soft\nagain = soft", []),
        (f"{SOFT}{HARD}stage one {{ loss = soft }}\nstage two {{ loss = hard }}", []),
        (f"{SOFT}{HARD}loss = hard\nstage one {{ loss = soft }}", ["loss"]),
        (f"{HARD}stage one {{ soft = kd(big.logits -> tiny.logits); loss = hard }}", ["soft"]),
        (f"{SOFT}{HARD}loss = hard\nstage one {{ train {{ report = [soft] }} }}", []),
    ],
)
def test_terms_that_no_loss_reaches(body: str, lost: list[str]) -> None:
    """W205, at the name; what is reported is computed."""
    check(body, *(("W205", name) for name in lost))


MAP = "let m = {}\nloss = sum(nst(big.hidden[m] -> tiny.hidden[m]))"
BOTH = "big.hidden[m] -> tiny.hidden[m]"


@pytest.mark.parametrize(
    ("map", "wrong"),
    [
        ("[0, 4, 8, 12] -> [0, 1, 2, 3]", False),
        ("[4, 8, 12] -> [1, 2, 3]", False),
        ("[3, 7, 11] -> [0, 1, 2]", True),  # counted as attention is
        ("[3, 7, 11] -> [1, 2, 3]", True),  # the teacher's so
        ("[0, 4, 8] -> [1, 2, 3]", True),  # the student's last learns from layer 8, its first from embeddings
        ("[7, 9, 11] -> [1, 2, 3]", True),
        ("[2, 4] -> [1, 2]", False),  # PKD skips the last
        ("[10, 11] -> [1, 2]", False),  # PKD takes the last but one
        ("[0, 0, 8] -> [0, 1, 2]", False),
        ("[11] -> [3]", False),  # one pair is no map
    ],
)
def test_maps_of_hidden_states(map: str, wrong: bool) -> None:
    """W206: embeddings matched with a layer while the last is left out, or the last but one for the last."""
    check(MAP.format(map), *([("W206", BOTH)] if wrong else []))


def test_one_map_for_hidden_states_and_attention() -> None:
    """W206: one of the two is off by one."""
    terms = "let m = [4, 8] -> [1, 2]\nh = sum(nst(big.hidden[m] -> tiny.hidden[m]))\n"
    attention = "a = sum(mse(big.attention[{0}] -> tiny.attention[{0}]))\nloss = h + a"
    check(terms + attention.format("m"), ("W206", "big.attention[m] -> tiny.attention[m]"))
    check(terms + "let n = [3, 7] -> [0, 1]\n" + attention.format("n"))


def test_a_map_in_separate_lines() -> None:
    """Pairs of one operation belong together, wherever they stand."""
    lines = "".join(f"x{j} = nst(big.hidden[{i}] -> tiny.hidden[{j}])\n" for j, i in enumerate((3, 7, 11)))
    check(f"{lines}loss = x0 + x1 + x2", ("W206", "big.hidden[3] -> tiny.hidden[0]"))


@pytest.mark.parametrize(
    ("weight", "train", "code"),
    [
        ("after(100%)", "epochs = 3", "W207"),
        ("after(30%)", "epochs = 3", ""),
        ("after(300 steps)", "steps = 300", "W207"),
        ("after(299 steps)", "steps = 300", ""),
        ("after(5000 steps)", "epochs = 3", ""),  # how many steps that is, only the data tell
        ("after(3 epochs)", "epochs = 3", "W207"),
        ("after(3 epochs)", "seed = 1", "W207"),  # three is what is left out
        ("after(2 epochs)", "steps = 10", ""),
        ("piecewise(0 steps: 1, 400 steps: 0.2)", "steps = 300", "W207"),
        ("piecewise(0 steps: 1, 300 steps: 0.2)", "steps = 300", ""),
        ("piecewise(0%: 1, 100%: 0.2)", "steps = 300", ""),
        ("ramp(1 -> 1)", "steps = 300", "W208"),
        ("cosine(0 -> 0)", "steps = 300", "W208"),
        ("ramp(1 -> 0)", "steps = 300", ""),
        ("piecewise(0%: 2, 50%: 2)", "steps = 300", "W208"),
        ("after(0%)", "steps = 300", "W208"),
    ],
)
def test_schedules_of_weights(weight: str, train: str, code: str) -> None:
    """W207 past the end, W208 standing still, at the call."""
    check(f"{SOFT}{HARD}loss = hard + {weight} * soft\ntrain {{ {train} }}", *([(code, weight)] if code else []))


def test_schedules_by_stage() -> None:
    """What fits one stage may be too long for another, and is said of that one."""
    stages = "stage one for 9 steps { loss = x }\nstage two for 99 steps { loss = x }"
    recipe = known(f"{SOFT}x = after(20 steps) * soft\n{stages}", "")
    assert said(recipe) == [("W207", "after(20 steps)")]
    (found,) = lint(Subject(recipe, {}, lambda model, row: None))
    assert "the stage `one` is over after 9 steps" in found.message


def test_a_rate_that_warms_up_for_too_long() -> None:
    """W207, at the schedule of the learning rate."""
    long = "linear(warmup=300 steps)"
    check(f"{SOFT}loss = soft\ntrain {{ steps = 300; schedule = {long} }}", ("W207", long))
    check(f"{SOFT}loss = soft\ntrain {{ steps = 301; schedule = {long} }}")


@pytest.mark.parametrize(
    ("T", "wrong"),
    [
        ("4", False),
        ("ramp(4 -> 0)", True),
        ("cosine(4 -> 0)", True),
        ("ramp(4 -> 1)", False),
        ("5 - ramp(0 -> 5)", True),
        ("5 - ramp(0 -> 4)", False),
        ("piecewise(0 steps: 4, 100 steps: 0)", True),
        ("flsw(4)", False),
        ("flsw(1)", True),
        ("flsw(4, beta=2, gamma=2)", True),
        ("cwsm(4)", False),
    ],
)
def test_temperatures_that_vanish(T: str, wrong: bool) -> None:
    """W209, at the temperature."""
    check(f"loss = kd(big.logits -> tiny.logits, T={T})", *([("W209", T)] if wrong else []))


@pytest.mark.parametrize(
    ("T", "classes", "wrong"),
    [
        ("cwsm(4)", 2, False),
        ("cwsm(4)", 5, False),
        ("cwsm(4)", 6, True),
        ("cwsm(4, beta=0.5)", 6, False),
        ("cwsm(4, beta=-2)", 3, False),
        ("cwsm(4, beta=-3)", 3, True),
        ("cwsm(0.5)", 2, True),
        ("cwsm(900)", 30522, True),
        ("cwsm(1000)", 30522, False),
        ("flsw(4)", 30522, False),
    ],
)
def test_temperatures_of_unsure_students(T: str, classes: int, wrong: bool) -> None:
    """W209 of `cwsm` follows from how many classes there are, and is said where the formula itself would turn negative."""
    sizes = {"teacher": FakeFacts(12, 768, classes=classes), "student": FakeFacts(3, 384, classes=classes)}
    text = spec("", f"loss = kd(big.logits -> tiny.logits, T={T}) + ce(d.labels -> tiny.logits)\n")
    recipe, _ = recipe_of(text, sizes)
    assert said(recipe, graphs={("", ""): graph(text, sizes)}) == ([("W209", T)] if wrong else [])


@pytest.mark.parametrize(
    ("loss", "wrong"),
    [
        ("0.5 * a + 0.3 * b", True),
        ("0.6 * a + 0.4 * b", False),
        ("0.33 * a + 0.66 * b", False),  # rounded
        ("a + b", False),  # a sum
        ("2 * a + 3 * b", False),
        ("0.1 * a + 0.2 * b", False),  # far from a mean
        ("0.4 * a + 0.4 * b + 0.2 * ce(d.labels -> tiny.logits)", False),  # all terms together are one
        ("0.9 * (0.5 * a + 0.5 * b)", False),
        ("0.9 * (0.5 * a + 0.3 * b)", True),
        ("sum([0.5, 0.3] * kd(ts.logits -> tiny.logits))", True),
        ("sum([0.5, 0.5] * kd(ts.logits -> tiny.logits))", False),
        ("mean(kd(ts.logits -> tiny.logits))", False),
        ("kd(0.5 * big.logits + 0.3 * other.logits -> tiny.logits)", True),
        ("kd(0.5 * big.logits + 0.5 * other.logits -> tiny.logits)", False),
        ("0.5 * a + 0.3 * ce(other.logits -> tiny.logits)", False),  # not one operation
        ("0.5 * a + 0.3 * kd(big.logits -> tiny.logits, T=2)", False),  # one teacher
    ],
)
def test_means_of_teachers(loss: str, wrong: bool) -> None:
    """W210: the same operation onto the same feature from several teachers, and nearly one."""
    lines = "".join(
        f"{name} = kd({model}.logits -> tiny.logits)\n"
        for name, model in (("a", "big"), ("b", "other"))
        if re.search(rf"\b{name}\b", loss)
    )
    recipe = known(f"{TWO}{lines}loss = {loss}", "", {**FACTS, "other": FACTS["big"]})
    assert [code for code, _ in said(recipe)] == (["W210"] if wrong else [])


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ("proj W = linear(9 -> 9)", "W"),
        ("proj W = linear\nloss = hard + mse(big.hidden[0] -> tiny.hidden[0] via W)", ""),
        ("loss = mse(big.hidden[0] -> stop(tiny.hidden[0] via linear(3 -> 7))) + hard", "linear(3 -> 7)"),
        ("loss = hard + 0 * mse(big.hidden[0] -> tiny.hidden[0] via linear)", "linear"),
        ("loss = hard + ramp(0 -> 0) * mse(big.hidden[0] -> tiny.hidden[0] via linear)", "linear"),
        ("loss = hard + after(50%) * mse(big.hidden[0] -> tiny.hidden[0] via linear)", ""),
        ("proj W = linear(3 -> 7)\nloss = hard + mse(big.hidden[0] -> stop(tiny.hidden[0] via W))", "W"),
        (
            "proj W = linear(3 -> 7)\nloss = hard + mse(big.hidden[0] -> stop(tiny.hidden[0] via W))\ntrain { freeze = [W] }",
            "",
        ),
        ("loss = hard + mse(big.hidden[0] via linear -> stop(tiny.hidden[0]))", ""),  # it learns, alone
    ],
)
def test_projections_that_stay_random(body: str, place: str) -> None:
    """W211: no gradient comes through; frozen on purpose is no fault."""
    found = [x for x in said(known(HARD + body, "" if "loss =" in body else "loss = hard")) if x[0] != "W208"]
    assert found == ([("W211", place)] if place else [])


def test_a_term_that_is_lost_takes_its_projection_with_it() -> None:
    """One mistake, one warning."""
    check(f"{HARD}proj W = linear\nx = mse(big.hidden[0] -> tiny.hidden[0] via W)\nloss = hard", ("W205", "x"))


@pytest.mark.parametrize(
    ("train", "ranks", "parts"),
    [
        ("", 1, 1),
        ("accumulate = 2", 1, 2),
        ("", 2, 1),
        ("accumulate = 4", 2, 4),
        ("accumulate = 2; normalise = micro", 1, 1),
    ],
)
@pytest.mark.parametrize(
    ("loss", "whole"),
    [
        ("rkd_angle(big.hidden[0] -> tiny.hidden[0])", True),
        ("emd(big.hidden[:] -> tiny.hidden[:] via linear)", True),
        ("kd(big.logits -> tiny.logits, T=flsw(4))", True),
        ("nst(big.hidden[0] -> tiny.hidden[0])", False),
        ("kd(big.logits -> tiny.logits)", False),
    ],
)
def test_losses_on_whole_batches(loss: str, whole: bool, train: str, ranks: int, parts: int) -> None:
    """W212, only where a step has several batches, and nobody said that each is by itself; with how many. Ranks share a
    batch and compare its examples together.
    """
    text = spec(f"loss = {loss}\ntrain {{ {train} }}", "")
    subject = Subject(
        recipe_of(text)[0], {("", ""): graph(text)}, lambda model, row: FACTS[model].row_length(row), ranks
    )
    found = list(lint(subject))
    assert [x.code for x in found] == (["W212"] if parts > 1 and whole else [])
    assert all(f"each step is split into {parts} batches" in x.message for x in found)


@pytest.mark.parametrize(
    ("train", "ranks", "small"), [("", 4, False), ("normalise = micro", 4, True), ("normalise = micro", 1, False)]
)
def test_batches_too_small_to_compare(train: str, ranks: int, small: bool) -> None:
    """W310 where ranks compare their own examples and each has too few; ranks that compare together share one batch."""
    text = spec(f"loss = rkd_angle(big.hidden[0] -> tiny.hidden[0])\ntrain {{ {train} }}", "")
    text = text.replace('files(train="train.jsonl")', 'files(train="train.jsonl", batch=8)')
    subject = Subject(
        recipe_of(text)[0], {("", ""): graph(text)}, lambda model, row: FACTS[model].row_length(row), ranks
    )
    found = list(lint(subject))
    assert [x.code for x in found] == (["W310"] if small else [])
    assert all("a batch has 2" in x.message for x in found)


@pytest.mark.parametrize(
    ("soft", "wrong"),
    [
        ("ce(big.logits -> tiny.logits, T=8)", True),
        ("0.9 * ce(big.logits -> tiny.logits, T=8)", True),
        ("kl(big.logits -> tiny.logits, T=2)", True),
        ("ce(big.logits -> tiny.logits, T=ramp(8 -> 1))", True),
        ("ce(big.logits -> tiny.logits)", False),
        ("ce(big.logits -> tiny.logits, T=1.5)", False),
        ("64 * ce(big.logits -> tiny.logits, T=8)", False),
        ("8 ** 2 * ce(big.logits -> tiny.logits, T=8)", False),
        ("kd(big.logits -> tiny.logits, T=8)", False),
        ("0 * ce(big.logits -> tiny.logits, T=8)", False),
        ("ce(big.attention[0] -> tiny.attention[0], T=8)", False),
    ],
)
def test_soft_targets_without_their_factor(soft: str, wrong: bool) -> None:
    """W213, at the match, and only beside labels."""
    place = soft.split("* ")[-1]
    check(f"{HARD}loss = {soft} + hard", *([("W213", place)] if wrong else []))
    dead = [("W218", "loss")] if soft.startswith("0 *") else []
    check(f"loss = {soft}", *dead)
    check(f"{HARD}stage one {{ loss = {soft} }}\nstage two {{ loss = hard }}", *dead)


HEADS = 'student tiny = hf(model_type="bert") { head a = token_classifier(labels=3); head b = span_classifier() }\n'


@pytest.mark.parametrize(
    ("student", "loss", "place"),
    [
        (HEADS, "kd(big.logits -> tiny.a.logits)", "b"),
        (HEADS, "kd(big.logits -> tiny.a.logits) + kd(big.start -> tiny.b.start)", ""),
        (HEADS, "kd(big.logits -> tiny.a.logits) + 0 * kd(big.start -> tiny.b.start)", "b"),
        (
            'student tiny = hf(model_type="bert", task="masked-lm")\n',
            "nst(big.hidden[0] -> tiny.hidden[0])",
            '"masked-lm"',
        ),
        ('student tiny = hf(model_type="bert")\n', "nst(big.hidden[0] -> tiny.hidden[0])", ""),
        ('student tiny = hf("small", task="masked-lm")\n', "nst(big.hidden[0] -> tiny.hidden[0])", ""),
    ],
)
def test_heads_that_stay_random(student: str, loss: str, place: str) -> None:
    """W214, at the head's name or the task that asks for one."""
    text = f'teacher big = hf("big")\n{student}data d = files(train="x.jsonl")\nloss = {loss}\n'
    found = said(check_names(Source(text), {}))
    assert found == ([("W214", place)] if place else [])


def test_adapters_of_teachers() -> None:
    """W215, at the argument; a student's learns."""
    check('teacher t = hf("x", adapter=lora(r=4))', ("W215", "lora(r=4)"))


def test_open_lists_hide_what_a_loss_reaches() -> None:
    """Where a model cannot be reached, nobody knows what is not reached either."""
    body = "x = nst(big.hidden[:] -> tiny.hidden[:])\nproj W = linear\nloss = sum(x)"
    assert said(known(body, "", {"tiny": FACTS["tiny"]})) == []


@pytest.mark.parametrize(
    ("body", "culprit"),
    [
        ("cache c = big.logits at \"x\"\nloss = kd(c -> tiny.logits) + nst(big.hidden[4] -> tiny.hidden[1])", "big.hidden[4]"),
        ("cache c = big.logits at \"x\"\nloss = kd(c -> tiny.logits)", ""),
        ("cache c = big.logits at \"x\"\nloss = kd(c -> tiny.logits) + mse(big.logits -> tiny.logits)", ""),
        ("cache c = big.hidden[4, 8] at \"x\"\nloss = sum(nst(c -> tiny.hidden[1, 2]))", ""),
        (f"{TWO}cache c = big.logits at \"x\"\nloss = kd(c -> tiny.logits) + kd(other.logits -> tiny.logits)", ""),
    ],
)  # fmt: skip
def test_caches_that_save_nothing(body: str, culprit: str) -> None:
    """Something else of the same forward is taken; another teacher's is not, and what is kept may be named itself."""
    found = [text for code, text in said(known(body, "", {**FACTS, "other": FACTS["big"]})) if code == "W216"]
    assert found == ([culprit] if culprit else [])


WEIGHED = 'data e = files(train="b.jsonl", {})\n'
ALIKE = "loss = ce(e.labels -> tiny(e).logits)\n"
BY_WEIGHT = 'hard = batch_mean(e.weights * ce(e.labels -> tiny(e).logits, reduce="none"))\n'


@pytest.mark.parametrize("settings", ["weight=trust", "class_weights=balanced", "weight=trust, class_weights=[1, 2]"])
def test_weights_that_no_loss_reads(settings: str) -> None:
    """W402, at the setting: data of the loss alone, and not where a term, a report or another equation reads them."""
    data, value = WEIGHED.format(settings), settings.rpartition("=")[2]
    check(data + ALIKE, ("W402", value))
    check(data + BY_WEIGHT + "loss = hard")
    check(f"{data}{BY_WEIGHT}{ALIKE}train {{ report = [hard] }}")
    check(data + BY_WEIGHT + ALIKE, ("W205", "hard"))  # which says it
    check(f"{data}loss = ce(d.labels -> tiny(d).logits)")  # no loss is on that data
    check(f"{data}h = e.weights\n{ALIKE}", ("W205", "h"))
    check(f"{data}stage one {{ {ALIKE.strip()} }}\nstage two {{ {BY_WEIGHT.replace('hard', 'loss').strip()} }}")
    check(f"{data}task a {{ {ALIKE.strip()} }}\ntask b {{ loss = ce(d.labels -> tiny(d).logits) }}", ("W402", value))


def test_weights_of_joined_data() -> None:
    """Those of its parts count for the whole; a column that is read by its own name is read."""
    parts = WEIGHED.format("weight=trust") + "data f = d + e\n"
    term = 'batch_mean(f.weights * ce(f.labels -> tiny(f).logits, reduce="none"))'
    check(f"{parts}loss = ce(f.labels -> tiny(f).logits)", ("W402", "trust"))
    check(f"{parts}loss = {term}")
    check(WEIGHED.format("weight=trust") + BY_WEIGHT.replace("weights", "trust").replace("hard", "loss"))


@pytest.mark.parametrize(
    ("loss", "said_"),
    [
        ("0 * hard", "every term has a weight of zero"),
        ("(2 - 2) * hard", "every term has a weight of zero"),
        ("0 * (hard + soft)", "every term has a weight of zero"),
        ("0 * hard + 0 / 3 * soft", "every term has a weight of zero"),
        ("mean([0 * hard, hard * 0])", "every term has a weight of zero"),
        ("stop(hard)", "or is behind `stop`"),
        ("kd(big.logits -> stop(tiny.logits))", "or is behind `stop`"),
        ("hard - hard", "its terms cancel each other"),
        ("2 * hard + soft - (soft + 4 * hard / 2)", "its terms cancel each other"),
        ("hard - soft", ""),
        ("2 * hard - hard", ""),
        ("0 * hard + 1e-9 * soft", ""),
        ("ramp(0 -> 1) * hard", ""),
        ("hard - ramp(1 -> 0.5) * hard", ""),
    ],
)
def test_losses_that_train_nothing(loss: str, said_: str) -> None:
    """W218: nothing comes to the student; a weight that only begins at zero is none."""
    recipe = known(f"soft = kd(big.logits -> tiny.logits)\nhard = ce(d.labels -> tiny.logits)\nloss = {loss}", "")
    subject = Subject(recipe, {}, lambda model, row: FACTS[model].row_length(row), 1)
    found = [d.message for d in lint(subject) if d.code == "W218"]
    assert len(found) == bool(said_)
    assert all(said_ in message for message in found)
