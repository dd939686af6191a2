"""Losses: matches and their kinds, weights, sums, projections, masks, temperatures."""

from __future__ import annotations

import pytest

from brewgraph.recipe.values import Apply, Combine, Group, Number, Project, Scheduled, Value, members, walk
from tests.recipe.specs import LOSS, fault, faults, known, names, spec

M = "mse(big.hidden[0] -> tiny.hidden[0])"


def projectors(value: Value) -> list[str]:
    """The sites of the projections in a value, each as often as it is used."""
    return [x.projector.site for member in members(value) for x in walk(member) if isinstance(x, Project)]


# ── what is compared ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "call",
    [
        "ce(d.labels -> tiny.logits)",
        "ce(big.logits -> tiny.logits, T=8)",
        "kd(big.logits -> tiny.logits)",
        "kl(big.logits -> tiny.logits, T=ramp(8 -> 1))",
        "mse(big.attention[0] -> tiny.attention[0])",
        "mse(big.scores[0] -> tiny.scores[0])",
        "mse(big.pooled -> tiny.pooled)",
        "cos(big.embeddings -> tiny.embeddings)",
        "nst(big.hidden[2] -> tiny.hidden[1])",
        "ce(big.start -> tiny.start)",
        'nst((big @ "layer")[1] -> tiny @ input "layer")',
        "mse(T=3, big.logits -> tiny.logits)",
    ],
)
def test_what_operations_take(call: str) -> None:
    """Each of these is one loss."""
    found = names(f"x = {call}").equations["x"]
    assert isinstance(found, Apply)
    assert found.kind == "loss"


@pytest.mark.parametrize(
    ("call", "code", "place", "message", "help"),
    [
        (
            "ce(tiny.logits -> d.labels)",
            "B210",
            (4, 8),
            "`ce` does not compare logits with labels",
            "reverse the arrow",
        ),
        ("mse(big.hidden[0] -> tiny.logits)", "B210", (4, 9), "`mse` does not compare hidden with", "it takes"),
        ("nst(big.pooled -> tiny.pooled)", "B210", (4, 9), "`nst` does not compare vector with", "hidden -> hidden"),
        ("mse(big.query[0] -> tiny.query[0])", "B210", (4, 9), "`mse` does not compare states", "it takes"),
        ("mse(big.hidden -> tiny.hidden)", "B202", (4, 9), "`hidden` is one value per layer", "`big.hidden[:]`"),
        ("mse(big -> tiny)", "B202", (4, 9), "`mse` compares features, got a model", "`big.logits`"),
        ("mse(3 -> tiny.hidden[0])", "B202", (4, 9), "`mse` compares features, got a number", "it takes"),
        (f"mse({M} -> tiny.hidden[0])", "B202", (4, 9), "`mse` compares features, got a loss", "it takes"),
        ("mse(big.hidden[0])", "B209", (4, 9), "`mse` compares the two sides of an arrow", "teacher.… -> student.…"),
        ("kd(big.logits, tiny.logits)", "B209", (4, 8), "`kd` compares the two sides", "write `kd(teacher"),
        ("kd()", "B209", (4, 5), "`kd` needs a match", "write `kd(teacher"),
        (
            "kd(big.logits -> tiny.logits, 3)",
            "B120",
            (4, 35),
            "`kd` takes only one match",
            "`a -> b`, `T`, `mask` and `reduce`",
        ),
        ("kd(big.logits -> tiny.logits, t=3)", "B120", (4, 35), "`kd` takes no option `t`", "`T=4`"),
        (
            "cos(big.pooled -> tiny.pooled, T=3)",
            "B120",
            (4, 36),
            "`cos` takes no option `T`",
            "`a -> b`, `mask` and `reduce`",
        ),
        ("kd(big.logits -> tiny.logits, T=1, T=2)", "B125", (4, 40), "`T` is given twice", "remove one"),
    ],
)
def test_what_operations_do_not_take(call: str, code: str, place: tuple[int, int], message: str, help: str) -> None:
    """The caret stands under the side, the match or the argument at fault."""
    found = fault(f"x = {call}")
    assert (found.code, found.span.position) == (code, place)
    assert found.message.startswith(message)
    assert help in found.help


@pytest.mark.parametrize("T", ["0", "-1", "0.0", "ramp(0 -> 4)", "2 - ramp(1 -> 3)", "[1, 0]", "-ramp(1 -> 2)"])
def test_a_temperature_is_above_zero(T: str) -> None:
    """A number is looked at, and a schedule over the whole of the training; the caret is under the value."""
    found = fault(f"x = kd(big.logits -> tiny.logits, T={T})")
    assert (found.code, found.message) == ("B207", "a temperature must be positive")
    assert (found.span.position, found.span.text) == ((4, 37), T)
    assert found.help == "T=1 leaves the logits unchanged"


@pytest.mark.parametrize("T", ["0.5", "ramp(4 -> 0)", "2 * ramp(4 -> 1)", "[1, 2]"])
def test_temperatures(T: str) -> None:
    """Numbers, schedules that stay above zero while training lasts, and lists of either."""
    assert faults(spec(f"x = kd(big.logits -> tiny.logits, T={T})")) == ()


@pytest.mark.parametrize(
    ("T", "what"),
    [
        ('"a"', "a string"),
        ("big", "a model"),
        ("true", "a truth value"),
        ("none", "none"),
        ("30%", "a length"),
        ("big.logits", "logits"),
        ("[1, big]", "a model"),
        (M, "a loss"),
    ],
)
def test_what_is_no_temperature(T: str, what: str) -> None:
    """Only numbers and schedules divide logits."""
    found = fault(f"x = kd(big.logits -> tiny.logits, T={T})")
    assert (found.code, found.span.position) == ("B202", (4, 37))
    assert found.message == f"`T` is a number or a schedule, got {what}"
    assert "`T=4`" in found.help


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "expression",
    [
        f"0.5 * {M}",
        f"{M} * 0.5",
        f"{M} / 2",
        f"-{M}",
        f"ramp(1 -> 0) * {M}",
        f"{M} / ramp(1 -> 2)",
        f"(1 - ramp(1 -> 0)) * {M}",
        f"2 ** ramp(0 -> 1) * {M}",
        f"{M} + {M}",
        f"{M} - {M}",
        f"sum([{M}])",
    ],
)
def test_weighted_losses_are_losses(expression: str) -> None:
    """Numbers and schedules multiply and divide; losses are added and subtracted."""
    assert names(f"x = {expression}", "loss = x\n").loss.kind == "loss"


@pytest.mark.parametrize(
    ("expression", "code", "message", "help"),
    [
        (f"{M} + 1", "B208", "a number cannot be added to a loss", "weights multiply: `0.5 * x`"),
        (f"1 - {M}", "B208", "a number cannot be added to a loss", "weights multiply"),
        (f"ramp(1 -> 0) + {M}", "B208", "a number cannot be added to a loss", "weights multiply"),
        (f"{M} * {M}", "B208", "two losses cannot be multiplied", "how the batch is split"),
        (f"{M} / {M}", "B208", "only a number or a schedule can divide", "how the batch is split"),
        (f"1 / {M}", "B208", "only a number or a schedule can divide", "how the batch is split"),
        (f"{M} ** 2", "B208", "powers are for numbers and schedules", "`mse` squares"),
        ("big.logits * tiny.logits", "B208", "features are multiplied by numbers only", "batch"),
        ("big.logits + big.hidden[0]", "B208", "logits and hidden states cannot be combined by `+`", "one kind"),
        (f"{M} + big.logits", "B208", "a loss and logits cannot be combined by `+`", "one kind"),
        ("d.labels * 2", "B202", "labels do not support arithmetic", "ce(data.labels"),
        ("2 * big", "B202", "`*` joins numbers, schedules and features, got a model", "`big.logits`"),
        ("2 * big.hidden", "B202", "`*` joins numbers, schedules and features, got a row", "`[:]`"),
        ("30% * 2", "B202", "`*` joins numbers, schedules and features, got a length", "`0.3`"),
        ('"a" + 1', "B202", "`+` joins numbers, schedules and features, got a string", "0.5 * soft"),
        (f"{M} / 0", "B207", "this divides by zero", "not zero"),
        (f"{M} / ramp(0 -> 1)", "B207", "this divides by zero at the first step", "not zero"),
        ("1 / ramp(0 -> 1)", "B207", "this cannot be computed at the first step: division by zero", "above zero"),
    ],
)
def test_arithmetic_that_has_no_meaning(expression: str, code: str, message: str, help: str) -> None:
    """Each is a fault at the expression, with what to write instead."""
    found = fault(f"x = {expression}")
    assert found.code == code
    assert found.message.startswith(message)
    assert found.span.position[0] == 4
    assert help in found.help


def test_ramp() -> None:
    """`ramp(1 -> 0)` is a schedule of two numbers, params among them."""
    found = names("param end = 0.5\nw = ramp(end * 2 -> end)").equations["w"]
    assert found == Scheduled("schedule", "ramp", (1.0, 0.5), span=found.span)


@pytest.mark.parametrize("call", ["ramp(1)", "ramp(1, 0)", "ramp(1 -> big)", "ramp([1, 2] -> [3, 4])", "ramp()"])
def test_a_ramp_goes_between_two_numbers(call: str) -> None:
    """Anything else is told how it is written."""
    found = fault(f"x = {call}")
    assert (found.code, found.message) == ("B209", "`ramp` needs two numbers")
    assert (found.span.position, found.help) == ((4, 5), "write `ramp(1 -> 0)`")


# ── sum and mean ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sum_and_mean_go_across_a_list() -> None:
    """The one adds, the other also divides by the count."""
    found = known(
        "x = sum(mse(big.hidden[0, 1] -> tiny.hidden[0, 1]))\ny = mean([x, x, x])", "loss = x + y\n"
    ).equations
    assert isinstance(found["x"], Combine)
    assert (found["x"].operator, len(found["x"].operands)) == ("+", 2)
    assert (found["y"].operator, len(found["y"].operands)) == ("mean", 3)


def test_features_are_averaged_before_a_loss() -> None:
    """An ensemble: the mean of the teachers' logits is logits."""
    found = names('teacher two = hf("two")\nx = kd(mean([big, two].logits) -> tiny.logits)').equations["x"]
    assert found.source.kind == "logits"
    assert found.source.operator == "mean"


def test_a_sum_of_numbers_and_schedules_is_a_weight() -> None:
    """Numbers are added up beside schedules."""
    found = names(f"x = sum([1, ramp(1 -> 0), 2]) * {M}", "loss = x\n").loss
    assert found.operands[0].kind == "schedule"
    assert len(found.operands[0].operands) == 3


@pytest.mark.parametrize(
    ("expression", "code", "message", "help"),
    [
        ("sum(big.hidden[0])", "B211", "`sum` reduces a list, got hidden states", "mse(teacher.…"),
        ("mean(big.logits)", "B211", "`mean` reduces a list, got logits", "mse(teacher.…"),
        (f"sum({M})", "B211", "`sum` reduces a list, got a loss", "remove it"),
        ("sum(big.hidden)", "B211", "`sum` reduces a list, got a row of features", "`big.hidden[:]`"),
        ("sum(3)", "B211", "`sum` reduces a list, got a number", ""),
        ("sum([])", "B211", "`sum` of an empty list", "name its members"),
        ("mean([])", "B211", "`mean` of an empty list", "name its members"),
        ("sum()", "B209", "`sum` takes one list", "write `sum([a, b])`"),
        ("mean(1, 2)", "B209", "`mean` takes one list", "write `mean([a, b])`"),
        (f"sum([{M}, 1])", "B202", "`sum` needs values of one kind, but the list holds a loss and", "add"),
        (f"sum([{M}, big.logits])", "B202", "`sum` needs values of one kind", "losses to losses"),
        ("sum([big, tiny])", "B202", "`sum` needs values of one kind, but the list holds a model", "add"),
        ("sum([true, false])", "B202", "`sum` needs values of one kind, but the list holds a truth", "add"),
    ],
)  # fmt: skip
def test_what_cannot_be_added_up(expression: str, code: str, message: str, help: str) -> None:
    """No member of a list is dropped in silence."""
    found = fault(f"x = {expression}")
    assert (found.code, found.span.position) == (code, (4, 5))
    assert found.message.startswith(message)
    assert help in found.help


# ── the loss ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("loss", "message", "help"),
    [
        ("mse(big.hidden[0, 1] -> tiny.hidden[0, 1])", "the loss is a list, not one number", "`sum(…)` or `mean(…)`"),
        ("3", "the loss is a number; it must be a sum of losses", "made by an operation"),
        ("tiny.logits", "the loss is logits; it must be a sum of losses", "made by an operation"),
        ("ramp(1 -> 0)", "the loss is a schedule; it must be a sum of losses", "made by an operation"),
        ("big", "the loss is a model; it must be a sum of losses", "made by an operation"),
        ("ce(d.labels -> big.logits)", "nothing in the loss depends on the student", "match something with `tiny`"),
    ],
)
def test_the_loss_is_one_number_that_training_can_lower(loss: str, message: str, help: str) -> None:
    """The caret stands under the word `loss`."""
    found = fault("", f"loss = {loss}\n")
    assert (found.code, found.message) == ("B213", message)
    assert (found.span.text, found.span.position) == ("loss", (5, 1))
    assert help in found.help


# ── projections ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inline_each_pair_has_its_own_projection() -> None:
    """`via linear` in a list makes one module per pair, named by its place."""
    found = known("x = mse(big.hidden[0, 4] -> tiny.hidden[0, 1] via linear)").equations["x"]
    assert projectors(found) == ["x.0", "x.1"]


def test_inline_two_places_never_share() -> None:
    """Two `via linear` in one equation are two modules."""
    found = names(
        "x = mse(big.hidden[0] -> tiny.hidden[0] via linear) + mse(big.hidden[0] -> tiny.hidden[0] via linear)"
    )
    sites = projectors(found.equations["x"])
    assert len(set(sites)) == 2


def test_a_name_makes_one_projection_that_is_shared() -> None:
    """Wherever a `proj` is named, it is the same module."""
    body = (
        "proj W = tanh(lr=1e-3)\n"
        "x = mse(big.hidden[0, 4] -> tiny.hidden[0, 1] via W)\n"
        "y = cos(big.pooled -> tiny.pooled via W)"
    )
    found = known(body).equations
    assert projectors(found["x"]) + projectors(found["y"]) == ["W", "W", "W"]
    projector = next(x for x in walk(found["y"]) if isinstance(x, Project)).projector
    assert (projector.name, projector.activation, projector.options) == ("W", "tanh", (("lr", 0.001),))


def test_via_binds_looser_than_arithmetic() -> None:
    """`a + b via linear` projects the sum."""
    found = names("x = mse(big.hidden[0] -> tiny.hidden[0] + tiny.hidden[1] via linear)").equations["x"]
    assert isinstance(found.target, Project)
    assert isinstance(found.target.value, Combine)


def test_sizes_of_a_projection() -> None:
    """`linear(312 -> 768)` gives both; left out, an arrow fixes them."""
    found = names("param w = 312\nx = mse(big.hidden[0] -> tiny.hidden[0] via relu(w -> 768))").equations["x"]
    assert (found.target.projector.into, found.target.projector.out) == (312, 768)
    assert found.target.projector.activation == "relu"


@pytest.mark.parametrize(
    ("body", "code", "place", "message"),
    [
        ("x = big.hidden[0] via linea", "B101", (4, 23), "there is no projection `linea`"),
        ("x = big.hidden[0] via adamw(lr=3)", "B101", (4, 23), "there is no projection `adamw(lr=3)`"),
        ("x = big.hidden[0] via big", "B212", (4, 23), "`via` needs a projection, got a model"),
        ("x = big via linear", "B212", (4, 5), "a projection maps features, got a model"),
        ("x = big.attention[0] via linear", "B212", (4, 5), "a projection maps features, got attention"),
        ("x = big.hidden[0] via linear(3)", "B120", (4, 30), "`linear` does not take this"),
        ("x = big.hidden[0] via linear(0 -> -4)", "B120", (4, 30), "`linear` does not take this"),
        ("x = big.hidden[0] via linear(true -> 4)", "B120", (4, 30), "`linear` does not take this"),
        ("x = big.hidden[0] via linear(3 -> 4, lr=0)", "B120", (4, 38), "`linear` does not take this"),
        ('x = big.hidden[0] via linear(3 -> 4, lr="a")', "B120", (4, 38), "`linear` does not take this"),
        ("x = big.hidden[0] via linear(bias=true)", "B120", (4, 30), "`linear` does not take this"),
        ("proj W = linear(3 -> 4, 5 -> 6)", "B125", (4, 25), "the sizes are given twice"),
        ("proj W = linear(lr=1, lr=2)", "B125", (4, 23), "`lr` is given twice"),
        ("proj W = 3", "B101", (4, 10), "there is no projection `3`"),
        ("proj linear = tanh", "B105", (4, 6), "`linear` is already the name of a projection"),
        ("proj W = linear\nx = 2 * W", "B202", (5, 5), "`*` joins numbers, schedules and features"),
    ],
)  # fmt: skip
def test_faulty_projections(body: str, code: str, place: tuple[int, int], message: str) -> None:
    """Each with its place and a remedy."""
    found = fault(body)
    assert (found.code, found.span.position) == (code, place)
    assert found.message.startswith(message)
    assert found.help


# ── masks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mask", ["none", "tokens", "pairs", "labels"])
def test_masks_are_bare_words(mask: str) -> None:
    """They are no names of the spec."""
    found = names(f"let tokens = 3\nx = mse(big.hidden[0] -> tiny.hidden[0], mask={mask})").equations["x"]
    assert found.mask == mask


@pytest.mark.parametrize(
    ("mask", "code", "help"),
    [
        ("tokns", "B122", "did you mean `tokens`?"),
        ('"tokens"', "B122", "without quotes: `mask=tokens`"),
        ("3", "B122", "it is one of `none`, `tokens`, `pairs` and `labels`, or a column of the data"),
        ("big.pooled", "B122", "or a column of the data"),
    ],
)
def test_faulty_masks(mask: str, code: str, help: str) -> None:
    """The caret is under the word behind `mask=`."""
    found = fault(f"x = mse(big.hidden[0] -> tiny.hidden[0], mask={mask})")
    assert (found.code, found.span.position, found.span.text) == (code, (4, 47), mask)
    assert help in found.help


def test_a_mask_given_twice() -> None:
    """The second is the culprit."""
    found = fault("x = mse(big.hidden[0] -> tiny.hidden[0], mask=none, mask=none)")
    assert (found.code, found.span.position) == ("B125", (4, 53))


@pytest.mark.parametrize(
    ("value", "mask"),
    [
        ("relation(big.value[0], mask=none)", "none"),
        ("relation(big.value[0], heads=4, mask=tokens)", None),
        ("probabilities(big.scores[0], mask=none)", "none"),
        ("probabilities(big.scores[0])", None),
        ("token_mean(big.hidden[0], mask=none)", "none"),
        ("token_mean(big.hidden[0], mask=tokens)", None),
    ],
)
def test_masks_of_values_made_from_others(value: str, mask: str | None) -> None:
    """`none` counts padding; `tokens` says what they do by themselves, and is the same value."""
    found = names(f"x = {value}").equations["x"]
    assert found.mask == mask
    assert found == names(f"x = {value.replace(', mask=tokens', '')}").equations["x"]


def test_masks_of_values_in_a_list() -> None:
    """Each member has it."""
    found = names("x = token_mean([big.hidden[0], big.hidden[1]], mask=none)").equations["x"]
    assert [member.mask for member in found] == ["none", "none"]


@pytest.mark.parametrize(
    ("value", "code", "culprit", "help"),
    [
        ("relation(big.value[0], mask=tokn)", "B122", "tokn", "did you mean `tokens`?"),
        ("relation(big.value[0], mask=3)", "B122", "3", "it is one of `none` and `tokens`"),
        ('relation(big.value[0], mask="none")', "B122", '"none"', "write it without quotes: `mask=none`"),
        ("probabilities(big.scores[0], mask=pairs)", "B122", "pairs", "the loss around it takes the others"),
        ("probabilities(big.scores[0], mask=d.keep)", "B122", "d.keep", "the loss around it takes the others"),
        ("relation(big.value[0], mask=none, mask=none)", "B125", "mask", "remove one of them"),
        ("head_sum(big.scores[0], mask=none)", "B120", "mask", "`head_sum` includes padding"),
        ("token_mean(big.hidden[0], mask=labels)", "B122", "labels", "the loss around it takes the others"),
        ("token_mean(big.hidden[0], over=d)", "B120", "over", "mask=none: padding counts"),
        (
            "token_mean(mse(big.hidden[0] -> tiny.hidden[0], reduce=none), mask=none)",
            "B122",
            "mask=none",
            "the loss chooses their mask",
        ),
    ],
)
def test_faulty_masks_of_values_made_from_others(value: str, code: str, culprit: str, help: str) -> None:
    """What is wrong is underlined, with a remedy."""
    found = fault(f"x = {value}")
    assert (found.code, found.span.text) == (code, culprit)
    assert help in found.help


def test_equations_hold_numbers_as_values() -> None:
    """A plain number becomes one that the graph can hold."""
    found = names("x = 3", LOSS).equations["x"]
    assert found == Number("number", 3.0, span=found.span)
    assert not isinstance(found, Group)
