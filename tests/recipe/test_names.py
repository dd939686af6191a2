"""Names, params, strings: what a name stands for, and what is said where it stands for nothing."""

from __future__ import annotations

import pytest

from brewgraph.diagnostics import SpecError
from brewgraph.recipe.values import Apply, Combine, Number, Scheduled
from tests.recipe.specs import HEAD, LOSS, fault, faults, names, spec


def test_a_value_may_be_called_like_an_operation() -> None:
    """A name with a bracket behind it is a function, any other a value: two name spaces."""
    recipe = names("kd = kd(big.logits -> tiny.logits)\nsum = 0.5 * kd", "loss = sum + kd\n")
    assert isinstance(recipe.loss, Combine)
    assert isinstance(recipe.loss.operands[1], Apply)
    assert recipe.loss.operands[1].operation == "kd"


def test_order_of_statements_does_not_count() -> None:
    """A name may be used above the line that gives it its value."""
    recipe = names("x = w * soft\nlet w = 0.5\nsoft = kd(big.logits -> tiny.logits)", "loss = x\n")
    assert recipe.loss.operands[0] == Number("number", 0.5, span=recipe.loss.span)


@pytest.mark.parametrize(
    ("body", "circle", "column"),
    [
        ("let a = a", "a -> a", 5),
        ("let a = b\nlet b = c * 2\nlet c = a", "a -> b -> c -> a", 5),
        ('let a = "x{b}"\nlet b = "y{a}"', "a -> b -> a", 5),
        ("x = 2 * y\ny = x + x", "x -> y -> x", 1),
    ],
)
def test_circles_are_printed(body: str, circle: str, column: int) -> None:
    """A name that depends on itself is one fault, which shows the way round."""
    found = fault(body)
    assert found.code == "B108"
    assert found.message == f"a name depends on itself: {circle}"
    assert found.span.position == (4, column)
    assert "break the circle" in found.help


def test_a_second_name_for_a_model_is_no_second_model() -> None:
    """`let` gives a model another name; the recipe still has two models."""
    recipe = names("let teacher_model = big\nx = kd(teacher_model.logits -> tiny.logits)")
    assert list(recipe.models) == ["big", "tiny"]
    assert recipe.equations["x"].source.model == "big"


@pytest.mark.parametrize(
    ("body", "place", "message", "help"),
    [
        ("x = kd(bigg.logits -> tiny.logits)", (4, 8), "there is no `bigg`", "did you mean `big`?"),
        ("x = kd(big.logitz -> tiny.logits)", (4, 12), "models have no feature `logitz`", "did you mean `logits`?"),
        ("x = kdd(big.logits -> tiny.logits)", (4, 5), "there is no operation `kdd`", "did you mean `kd`?"),
        ("x = ce(d.label -> tiny.logits)", (4, 10), "data has no `label`", "did you mean `labels`?"),
        ("x = zebra", (4, 5), "there is no `zebra`", "the spec has `big`, `tiny`, `d`, `x` and `loss`"),
    ],
)
def test_unknown_names_get_a_suggestion(body: str, place: tuple[int, int], message: str, help: str) -> None:
    """The caret stands under the word itself, and the help offers a near one or lists what there is."""
    found = fault(body)
    assert (found.span.position, found.message, found.help) == (place, message, help)


@pytest.mark.parametrize(
    ("body", "help"),
    [
        ("x = kd", "`kd` is an operation: write `kd(teacher.… -> student.…)`"),
        ('x = hf("a")', "`hf` is a model source"),
        ("x = adamw(lr=1)", "`adamw` is an optimizer: write `optimizer = adamw(…)` in `train { }`"),
        ("x = linear(3 -> 4)", "`linear` is a projection: write `x via linear`"),
        ("teacher t = adamw(lr=1)", "`adamw` is an optimizer"),
        ("teacher t = kd(1)", "`kd` is an operation"),
        ("train { optimizer = linear() }", "`linear` is a projection"),
        ("train { schedule = ramp(1 -> 0) }", "`ramp` is a weight that changes with training"),
    ],
)
def test_a_word_of_another_registry(body: str, help: str) -> None:
    """Which registry a call uses is fixed by its place; a word from elsewhere is sent there."""
    found = fault(body)
    assert found.code == "B102"
    assert found.help.startswith(help)


def test_a_name_given_twice_shows_both_places() -> None:
    """The second is the culprit, the first a label."""
    found = fault("x = kd(big.logits -> tiny.logits)\nx = 3")
    assert (found.code, found.span.position) == ("B105", (5, 1))
    assert found.labels[0].span.position == (4, 1)


# ── params ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "given", "value"),
    [
        ("param T = 4", {}, 4),
        ("param T = 4", {"T": 8}, 8),
        ("param T = 4", {"T": 0.5}, 0.5),
        ("param T: float = 4", {}, 4.0),
        ("param T: float", {"T": 2}, 2.0),
        ("param T: int", {"T": 2}, 2),
        ('param T = "a"', {"T": "b"}, "b"),
        ("param T: bool = false", {"T": True}, True),
        ("param T = [1, 2]", {"T": (3,)}, (3,)),
        ("param T = [1, 2]", {"T": [3]}, (3,)),
        ("param T = none", {}, None),
        ("param S = 2\nparam T = S * 3", {"S": 4}, 12),
    ],
)
def test_params(body: str, given: dict, value: object) -> None:
    """A param has its default, or what is given from outside; a whole number serves where a float is wanted."""
    found = names(body, **given).params["T"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("body", "given", "code", "message", "help"),
    [
        ("param T", {}, "B106", "the param `T` has no value", "`--set T=…`"),
        ("param T = 4", {"S": 1}, "B106", "the spec has no param `S` to set", "it has `T`"),
        ("param width = 4", {"widht": 1}, "B106", "the spec has no param `widht` to set", "did you mean `width`?"),
        ("", {"T": 1}, "B106", "the spec has no param `T` to set", "write `param T = 4`"),
        ("", {"steps": 1}, "B106", "the spec has no param `steps` to set", "and `train { steps = steps }`"),
        ("param T: int = 4", {"T": 4.5}, "B109", "the param `T` must be int, got 4.5", "correct the value"),
        ("param T: int = true", {}, "B109", "the param `T` must be int, got True", "correct the value"),
        ("param T = 4", {"T": "x"}, "B109", "the param `T` must be int, got 'x'", "correct the value"),
        ('param T = "x"', {"T": 4}, "B109", "the param `T` must be str, got 4", "correct the value"),
        ("param T: flot = 4", {}, "B109", "there is no type `flot`", "did you mean `float`?"),
        ("param T = big", {}, "B109", "the param `T` must be a constant, got a model", "use `let` for other values"),
    ],
)
def test_faulty_params(body: str, given: dict, code: str, message: str, help: str) -> None:
    """What is given from outside is held to the same rules as what the spec says."""
    found = fault(body, **given)
    assert (found.code, found.message) == (code, message)
    assert help in found.help


# ── strings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_strings_are_filled_in() -> None:
    """`{name}` stands for a number or a string; other braces stay as they are."""
    recipe = names('param k = 7\nlet dir = "out-{k}"\nparam path = "{dir}/{k}/{}/{1}"')
    assert recipe.params["path"] == "out-7/7/{}/{1}"


def test_an_unknown_name_in_a_string_has_its_own_caret() -> None:
    """Only the braces are underlined, not the whole string."""
    found = fault('let s = "layer.{kk}.output"')
    assert (found.code, found.span.text, found.span.position) == ("B101", "{kk}", (4, 16))


def test_only_plain_values_stand_in_a_string() -> None:
    """A model has no spelling."""
    found = fault('let s = "a {big}"')
    assert (found.code, found.span.text) == ("B202", "{big}")
    assert found.message == "only numbers and strings can be interpolated, got a model"
    assert "param" in found.help


# ── plain arithmetic ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("-2 ** 2", -4),
        ("2 ** 3 ** 2", 512),
        ("7 / 2", 3.5),
        ("(1 - 3) * 2", -4),
        ("10 ** -2", 0.01),
        ("[1, 2] * 3", (3, 6)),
        ("[1, 2] + [10, 20]", (11, 22)),
        ("sum([1, 2, 3])", 6),
        ("mean([1, 2, 3])", 2),
        ("[5, 6, 7][1]", 6),
        ("[5, 6, 7][-1]", 7),
        ("[5, 6, 7][::2]", (5, 7)),
    ],
)
def test_numbers(expression: str, value: object) -> None:
    """Constants are folded when the spec is read, member by member where lists are."""
    assert names(f"param x = {expression}").params["x"] == value


@pytest.mark.parametrize(
    ("expression", "place", "message"),
    [
        ("1 / 0", (4, 9), "this cannot be computed: division by zero"),
        ("0 ** -1", (4, 9), "this cannot be computed: division by zero"),
        ("(-8) ** 0.5", (4, 9), "this cannot be computed: a negative number has no such root"),
        ("2 ** 100000000", (4, 9), "this cannot be computed: the result is too large"),
        ("10.0 ** 400", (4, 9), "this cannot be computed: the result is too large"),
        ("1e400", (4, 9), "this number is too large"),
    ],
)
def test_numbers_that_cannot_be(expression: str, place: tuple[int, int], message: str) -> None:
    """No constant is infinite, complex, or longer to compute than to read."""
    found = fault(f"let x = {expression}")
    assert (found.code, found.message) == ("B207", message)
    assert found.span.position == place
    assert found.help


# ── several faults ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_faults_of_a_spec_come_at_once_and_in_order() -> None:
    """Nothing that one fault causes is reported again, and nothing hides behind it."""
    body = "let a = 1 / 0\nx = kd(bigg.logits -> tiny.logits, T=a)\ny = x + 1\nz = mse(big.hiden[0] -> tiny.hidden[0])"
    found = faults(spec(body, "loss = y + z\ntrain { epohcs = 3; seed = -1 }\n"))
    assert [(d.code, d.span.position) for d in found] == [
        ("B207", (4, 9)),
        ("B101", (5, 8)),
        ("B103", (7, 13)),
        ("B120", (9, 9)),
        ("B122", (9, 28)),
    ]


def test_an_error_is_one_exception_with_every_diagnostic_in_its_text() -> None:
    """Who catches nothing sees it all."""
    with pytest.raises(SpecError) as error:
        names("let a = 1 / 0\nx = zebra")
    assert str(error.value).count("error[") == 2
    assert "  |         ^^^^^" in str(error.value)


def test_what_is_missing_is_said_at_the_end() -> None:
    """A spec without student, data or loss is told so, where it ends."""
    found = faults('teacher big = hf("a")\n')
    assert [d.code for d in found] == ["B107"] * 3
    assert {d.span.position for d in found} == {(1, 21)}
    assert all(d.help.startswith("add `") for d in found)


def test_a_schedule_may_have_a_name() -> None:
    """A weight that changes with training is a value like others."""
    recipe = names("w = ramp(1 -> 0)", "loss = w * ce(d.labels -> tiny.logits)\n")
    assert recipe.loss.operands[0] == Scheduled("schedule", "ramp", (1.0, 0.0), span=recipe.loss.span)


def test_the_head_is_sound() -> None:
    """What every test here begins with has no fault of its own."""
    assert faults(HEAD + LOSS) == ()
