"""Rows, indices, layer maps, arrows: how lists come about and how they pair."""

from __future__ import annotations

import math
from typing import Any

import pytest

from brewgraph.recipe.numbers import at_progress
from brewgraph.recipe.values import Apply, Combine, Group, Number, Scheduled, Take, members, walk
from tests.recipe.specs import fault, faults, known, known_fault, names, spec


def layers(value: Any) -> list[int | None]:
    """The layers of the features in a value, in order."""
    return [take.feature.index for take in members(value) if isinstance(take, Take)]


def pairs(value: Any) -> list[tuple[int | None, int | None]]:
    """For each loss of a list the layers on its two sides."""
    return [(x.source.feature.index, x.target.feature.index) for x in members(value) if isinstance(x, Apply)]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("3", [3]),
        ("-1", [12]),
        ("0, 4, 8", [0, 4, 8]),
        ("[0, 4, 8]", [0, 4, 8]),
        ("::4", [0, 4, 8, 12]),
        (":", list(range(13))),
        (":-10", [0, 1, 2]),
        ("5:2:-1", [5, 4, 3]),
        ("-2, -1", [11, 12]),
        ("k", [2]),
        ("picks", [1, 3]),
        ("k, picks", [2, 1, 3]),
    ],
)
def test_indices_count_as_in_torch(index: str, expected: list[int]) -> None:
    """A whole number gives one value; a list, a slice and a name of either give a list."""
    found = known(f"param k = 2\nlet picks = [1, 3]\nx = big.hidden[{index}]").equations["x"]
    assert layers(found) == expected
    assert isinstance(found, Group) == (index not in ("3", "-1", "k"))


def test_a_list_of_one_is_a_list() -> None:
    """`[[3]]` and a slice of one member give a list of length one."""
    assert isinstance(known("x = big.hidden[[3]]").equations["x"], Group)
    assert isinstance(known("x = big.hidden[3:4]").equations["x"], Group)


def test_an_index_may_follow_an_index() -> None:
    """A list is indexed like a row."""
    assert layers(known("x = big.hidden[::4][-1]").equations["x"]) == [12]


def test_a_row_may_be_named_and_indexed_later() -> None:
    """A row is a value."""
    assert layers(known("let row = big.hidden\nx = row[2]").equations["x"]) == [2]


def test_attention_counts_from_zero_without_embeddings() -> None:
    """Twelve layers have twelve attentions, and thirteen hidden states."""
    assert layers(known("x = big.attention[-1]").equations["x"]) == [11]


@pytest.mark.parametrize(
    ("body", "place", "message", "help"),
    [
        ("x = big.hidden[13]", (4, 16), "13 is out of range", "`hidden` has 13 members, 0 to 12"),
        ("x = big.hidden[-14]", (4, 16), "-14 is out of range", "`hidden` has 13 members, 0 to 12"),
        ("x = big.hidden[0, 99]", (4, 19), "99 is out of range", "`hidden` has 13 members, 0 to 12"),
        ("x = big.attention[12]", (4, 19), "12 is out of range", "`attention` has 12 members, 0 to 11"),
        ("x = [1, 2][2]", (4, 12), "2 is out of range", "the list has 2 members, 0 to 1"),
    ],
)
def test_out_of_range(body: str, place: tuple[int, int], message: str, help: str) -> None:
    """The number itself is underlined, and the help gives the count."""
    found = known_fault(body)
    assert (found.code, found.span.position, found.message, found.help) == ("B206", place, message, help)


@pytest.mark.parametrize(
    ("index", "place", "message"),
    [
        ("0.5", (4, 16), "an index must be an integer, got a number"),
        ('"a"', (4, 16), "an index must be an integer, got a string"),
        ("true", (4, 16), "an index must be an integer, got a truth value"),
        ("::0", (4, 16), "a slice cannot step by zero"),
        ('0:"a"', (4, 16), "a slice needs integers"),
        ("0, ::2", (4, 19), "a slice must be the only index"),
        ("5:5", (4, 16), "this selects nothing"),
        ("[]", (4, 16), "this selects nothing"),
    ],
)
def test_what_is_no_index(index: str, place: tuple[int, int], message: str) -> None:
    """Each has its place and a remedy."""
    found = known_fault(f"x = big.hidden[{index}]")
    assert (found.code, found.span.position, found.message) == ("B203", place, message)
    assert found.help


@pytest.mark.parametrize(
    ("expression", "message", "help"),
    [
        ("big.logits[0]", "logits cannot be indexed", "rows"),
        ("big[0]", "a model cannot be indexed", "big.hidden[3]"),
        ("d[0]", "a data set cannot be indexed", "rows"),
        ("big.hidden[0][0]", "hidden states cannot be indexed", "rows"),
        ('(big @ "layer") * 1', "", ""),
    ],
)
def test_what_cannot_be_indexed(expression: str, message: str, help: str) -> None:
    """Only rows and lists are; a single feature is a tensor, whose axes a spec does not name."""
    found = faults(spec(f"x = {expression}"))
    assert [(d.code, d.message) for d in found] == ([("B202", message)] if message else [])
    assert all(help in d.help for d in found)


# ── layer maps ───────────────────────────────────────────────────────────────────────────────────────────────────────

MAP = "let map = [0, 4, 8] -> [0, 1, 2]\n"


@pytest.mark.parametrize(
    "equation",
    [
        "x = mse(big.hidden[map] -> tiny.hidden[map])",
        "x = mse(2 * big.hidden[map] -> -tiny.hidden[map])",
        "x = mse(big.hidden[map] / 2 -> (tiny.hidden[map] + tiny.hidden[map]))",
        "x = mse(big.hidden[map] -> tiny.hidden[map] via linear)",
        "x = mse(big.hidden[map.from] -> tiny.hidden[map.to])",
        "let other = map\nx = mse(big.hidden[other] -> tiny.hidden[other])",
    ],
)
def test_a_layer_map_takes_its_column_from_the_side_of_the_arrow(equation: str) -> None:
    """The left column left of the arrow, the right one right of it, through every sub-expression."""
    found = known(MAP + equation).equations["x"]
    seen = [
        (_takes(x.source)[0].feature.index, _takes(x.target)[0].feature.index)
        for x in members(found)
        if isinstance(x, Apply)
    ]
    assert seen == [(0, 0), (4, 1), (8, 2)]


def _takes(value: Any) -> list[Take]:
    from brewgraph.recipe.values import walk

    return [x for x in walk(value) if isinstance(x, Take)]


def test_the_side_is_lexical() -> None:
    """It does not reach through a name: there the column must be picked."""
    found = faults(spec(MAP + "let picked = big.hidden[map]\nx = mse(picked -> tiny.hidden[map])"))
    assert [d.code for d in found] == ["B205"]
    assert found[0].span.position == (5, 25)
    assert found[0].span.text == "map"
    assert found[0].help == "pick a column: `map.from` or `map.to`"


def test_a_picked_column_reaches_through_names() -> None:
    """`map.from` is a plain list of layers."""
    found = known(MAP + "let picked = big.hidden[map.from]\nx = mse(picked -> tiny.hidden[map])")
    assert pairs(found.equations["x"]) == [(0, 0), (4, 1), (8, 2)]


def test_an_arrow_inside_an_argument_has_sides_of_its_own() -> None:
    """Across a call the innermost arrow counts."""
    found = known(MAP + "x = sum(mse(big.hidden[map] -> tiny.hidden[map]))").equations["x"]
    assert [(x.source.feature.index, x.target.feature.index) for x in found.operands] == [(0, 0), (4, 1), (8, 2)]


@pytest.mark.parametrize(
    ("body", "code", "place", "message"),
    [
        ("let m = [0, 4] -> [0]", "B201", (4, 9), "a layer map needs equally many layers on both sides, got 2 and 1"),
        ("let m = [0] -> [1]\nlet x = m.left", "B103", (5, 11), "a layer map has no `left`"),
        ("let m = 3 -> 4", "B209", (4, 9), "an arrow alone is a value only between layers"),
        ("x = big.logits -> tiny.logits", "B209", (4, 5), "an arrow alone is a value only between layers"),
        ("let m = [0.5] -> [1]", "B209", (4, 9), "an arrow alone is a value only between layers"),
        ("let m = [0] -> [1]\nx = m[0]", "B202", (5, 5), "a layer map cannot be indexed"),
        ("let m = [0] -> [1]\nx = 2 * m", "B202", (5, 5), "`*` joins numbers, schedules and features"),
    ],
)
def test_faulty_layer_maps(body: str, code: str, place: tuple[int, int], message: str) -> None:
    """A map is two lists of layers of equal length."""
    found = fault(body)
    assert (found.code, found.span.position) == (code, place)
    assert found.message.startswith(message)
    assert found.help


def test_a_map_beyond_the_model_is_out_of_range_at_its_use() -> None:
    """The map itself knows no model."""
    found = known_fault("let m = [0, 12] -> [0, 7]\nx = mse(big.hidden[m] -> tiny.hidden[m])")
    assert (found.code, found.span.position, found.message) == ("B206", (5, 38), "7 is out of range")
    assert found.help == "`hidden` has 4 members, 0 to 3"


# ── pairing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_rows_pair_by_position() -> None:
    """Across an arrow the first goes with the first."""
    found = known("x = mse(big.hidden[9, 10, 11, 12] -> tiny.hidden[:])").equations["x"]
    assert pairs(found) == [(9, 0), (10, 1), (11, 2), (12, 3)]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("big.hidden[0, 1] -> tiny.hidden[3]", [(0, 3), (1, 3)]),
        ("big.hidden[5] -> tiny.hidden[0, 1]", [(5, 0), (5, 1)]),
        ("[big.hidden[0], big.hidden[2]] -> tiny.hidden[0, 1]", [(0, 0), (2, 1)]),
    ],
)
def test_a_single_value_goes_with_every_member(match: str, expected: list) -> None:
    """Both sides of an arrow broadcast."""
    assert pairs(known(f"x = mse({match})").equations["x"]) == expected


def test_a_list_of_models_has_their_features() -> None:
    """A feature of a list of models is the list of their features."""
    found = names('teacher two = hf("two")\nlet both = [big, two]\nx = kd(both.logits -> tiny.logits)').equations["x"]
    assert [x.source.model for x in members(found)] == ["big", "two"]


def test_a_keyword_may_be_a_list() -> None:
    """One temperature for each pair."""
    found = names("x = kd([big.logits, big.logits] -> tiny.logits, T=[2, 4])").equations["x"]
    assert [x.options[0][1].value for x in members(found)] == [2.0, 4.0]


def test_weights_pair_with_a_list_of_losses() -> None:
    """`[0.7, 0.3] * losses` weights each."""
    found = known("x = [0.7, 0.3] * mse(big.hidden[0, 1] -> tiny.hidden[0, 1])").equations["x"]
    assert [x.operands[0].value for x in members(found)] == [0.7, 0.3]


@pytest.mark.parametrize(
    ("equation", "place", "message"),
    [
        (
            "x = mse(big.hidden[0, 1] -> tiny.hidden[0, 1, 2])",
            (4, 5),
            "a list of 2 cannot be paired with a list of 3",
        ),
        ("x = mse(big.hidden[:] -> tiny.hidden[:])", (4, 5), "a list of 13 cannot be paired with a list of 4"),
        (
            "x = [1, 2, 3] * mse(big.hidden[0, 1] -> tiny.hidden[0, 1])",
            (4, 5),
            "a list of 3 cannot be paired with a list of 2",
        ),
        (
            "x = kd([big.logits, big.logits] -> tiny.logits, T=[1, 2, 3])",
            (4, 51),
            "`T` has 3 values, and the match 2 pairs",
        ),
        (
            "x = kd([big.logits, big.logits] -> [tiny.logits], T=[1, 2])",
            (4, 5),
            "a list of 2 cannot be paired with a list of 1",
        ),
    ],
)
def test_lists_of_unequal_length(equation: str, place: tuple[int, int], message: str) -> None:
    """Nothing is cut short or repeated to make lists fit."""
    found = known_fault(equation)
    assert (found.code, found.span.position, found.message) == ("B201", place, message)
    assert found.help


def test_open_lists_pass_until_the_model_is_known() -> None:
    """Without a configuration `[:]` has no length, and what is built on it is checked by kind alone."""
    body = (
        "x = 0.5 * sum(mse(big.hidden[:] -> tiny.hidden[:] via linear))\n"
        "y = mean(kd(big.logits -> tiny.logits, T=[1, 2]))"
    )
    assert faults(spec(body, "loss = x + y\n")) == ()
    assert faults(spec('x = sum(nst(big @ "layer.*" -> tiny.hidden[:]))', "loss = x\n")) == ()
    found = faults(spec("x = sum(big.hidden[:])", "loss = x + ce(d.labels -> tiny.logits)\n"))
    assert [d.code for d in found] == ["B208"]


def test_a_pattern_of_paths_is_a_row() -> None:
    """`*` gives one tap for each module, in the model's order."""
    found = known('x = nst(big @ "layer.*" -> tiny.hidden[3])').equations["x"]
    assert [x.source.feature.path for x in members(found)] == [f"layer.{i}" for i in range(12)]


def _softmax(*numbers: float) -> list[float]:
    """Written out: each power of e beside the sum of all."""
    return [math.e**x / sum(math.e**y for y in numbers) for x in numbers]


CONSTANTS = [
    ("0.5 * softmax([1, 2])", [0.5 * x for x in _softmax(1, 2)]),
    ("1 - softmax([1, 2, 4])", [1 - x for x in _softmax(1, 2, 4)]),
    ("-softmax([0, 0])[1]", [-0.5]),
    ("softmax(softmax([1, 2]))", _softmax(*_softmax(1, 2))),
    ("max(softmax([1, 2])) / mean([3, 5])", [max(_softmax(1, 2)) / 4]),
    ("sum([[1, 2], [3, 4]])", [10]),
    ("max([[1, 5], [3, 4]])", [5]),
    ("softmax([1000, 0])[0]", [1]),
    ("softmax([1, 2])[0] ** -2", [_softmax(1, 2)[0] ** -2]),
]


@pytest.mark.parametrize(("text", "expected"), CONSTANTS)
def test_constants_are_computed_as_python_does(text: str, expected: list[float]) -> None:
    """Functions across literal lists give plain numbers: as weights, as temperatures, in schedules and as params."""
    found = names(f"let n = {text}\nx = n * kd(big.logits -> tiny.logits)").equations["x"]
    weights = [x.operands[0] for x in members(found) if isinstance(x, Combine)]
    assert [x.value for x in weights if isinstance(x, Number)] == pytest.approx(expected)
    positive = ", ".join(f"{abs(x)!r}" for x in expected)
    same = f"kd(big.logits -> tiny.logits, T=[{positive}])"
    if min(expected) > 0:
        several = f"[{text}]" if len(expected) == 1 else text
        found = names(f"x = kd(big.logits -> tiny.logits, T={several})\ny = {same}").equations
        temperatures = [
            [
                value.value
                for m in members(found[name])
                for _, value in getattr(m, "options", ())
                if isinstance(value, Number)
            ]
            for name in "xy"
        ]
        assert temperatures[0] == pytest.approx(temperatures[1])
        assert len(temperatures[0]) == len(expected)


def test_schedules_of_constants_and_constants_of_schedules() -> None:
    """A share of a softmax may move; what starts it, and a setting or a param, may be a share of one."""
    recipe = names(
        "param w = softmax([1, 3])[1]\nlet s = softmax([ramp(1 -> 0), 2])\n"
        "x = 0.5 * s * kd(big.logits -> tiny.logits)\ny = ramp(max(softmax([1, 2])) -> w) * kd(big.logits -> tiny.logits)\n"
        "train { steps = sum([2, 3]); optimizer = adamw(lr=softmax([0, 1])[0]) }"
    )
    first, second = (x.operands[0] for x in members(recipe.equations["x"]) if isinstance(x, Combine))
    for progress in (0.0, 0.25, 1.0):
        expected = _softmax(1 - progress, 2)
        assert [at_progress(x, progress) for x in (first, second)] == pytest.approx([0.5 * x for x in expected])
    (schedule,) = (x for m in members(recipe.equations["y"]) for x in walk(m) if isinstance(x, Scheduled))
    assert schedule.arguments == pytest.approx((_softmax(1, 2)[1], _softmax(1, 3)[1]))
    train = recipe.stages[0].train
    assert train.steps == 5
    assert train.optimizer.lr == pytest.approx(_softmax(0, 1)[0])


@pytest.mark.parametrize("text", ["sum([1e308, 1e308])", "mean([1e308, 1e308])"])
def test_constants_that_grow_too_large(text: str) -> None:
    """They are said to, as those that an operator makes."""
    assert fault(f"let n = {text}").code == "B207"


def test_an_option_of_a_transform_is_one_number() -> None:
    """A list of them is a fault, and no crash."""
    assert fault("x = relation(big.hidden[0], heads=softmax([2, 4]))").code == "B202"
    assert fault("x = relation(big.hidden[0], heads=[2, 4])").code == "B202"
