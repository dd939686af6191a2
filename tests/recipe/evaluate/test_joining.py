"""Lists and their axes: how two meet, tables of models and layers, what goes across which axis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brewgraph.recipe.evaluate.joining import pair
from brewgraph.recipe.values import Apply, Axis, Bundle, Faulty, Group, members
from brewgraph.source import Source, Span
from tests.recipe.specs import fault, faults, known, names, spec

PLACE = Span(Source("x"), 0, 1)
TEACHERS = 'teacher mid = hf("mid")\nlet ts = [big, mid]\nlet m = [0, 2] -> [0, 1]\n'


def layers(value: Any) -> list[tuple[str, int | None]]:
    """Model and layer of what stands left of each arrow, in order."""
    return [(x.source.model, x.source.feature.index) for x in members(value)]


def listed(key: str, kind: str, items: tuple[Any, ...]) -> Group:
    return Group(items, span=PLACE, axis=Axis(key, kind, key))


def no_fault(*told: Any, **more: Any) -> Any:
    raise AssertionError(told)


@given(st.lists(st.integers(), min_size=1, max_size=4), st.lists(st.integers(), min_size=1, max_size=4))
@settings(derandomize=True, deadline=None, database=None, max_examples=60)
def test_pairing_is_naive_nested_loops(models: list[int], rows: list[int]) -> None:
    """One axis pairs member by member, a list of models and a row make a table; whichever side is the first."""
    many, row = listed("ts", "models", tuple(models)), listed("m", "row", tuple(rows))
    table = pair(many, row, PLACE, no_fault, lambda a, b: pair(a, b, PLACE, no_fault, lambda c, d: (c, d)))
    turned = pair(row, many, PLACE, no_fault, lambda a, b: pair(a, b, PLACE, no_fault, lambda c, d: (d, c)))
    assert [list(inner) for inner in table] == [[(a, b) for b in rows] for a in models]
    assert table == turned
    assert [axis.name for axis in table.axes] == ["ts", "m"]
    same = pair(row, listed("m", "row", tuple(-x for x in rows)), PLACE, no_fault, lambda a, b: a + b)
    assert same.items == tuple(0 for _ in rows)
    assert pair(row, 3, PLACE, no_fault, lambda a, b: a - b).items == tuple(x - 3 for x in rows)
    assert pair(3, row, PLACE, no_fault, lambda a, b: a - b).items == tuple(3 - x for x in rows)


def test_equal_indices_are_one_axis() -> None:
    """However they are spaced, also before the lengths of rows are known."""
    found = names("x = big.hidden[:2]\ny = tiny.hidden[: 2]\nz = tiny.hidden[1:2]").equations
    assert found["x"].axis == found["y"].axis != found["z"].axis


def test_a_table_of_models_and_layers() -> None:
    """The models stand outside; each sum goes across the axis that it names."""
    body = TEACHERS + "x = nst(ts.hidden[m] -> tiny.hidden[m])\na = sum(x, over=ts)\nb = sum(x, over=m)\nc = sum(x)"
    found = names(body).equations
    assert layers(found["x"]) == [("big", 0), ("big", 2), ("mid", 0), ("mid", 2)]
    assert [layers_of.axis.name for layers_of in (found["a"], found["b"])] == ["m", "ts"]
    assert [[o.source.model for o in x.operands] for x in found["a"]] == [["big", "mid"], ["big", "mid"]]
    assert [[o.source.feature.index for o in x.operands] for x in found["b"]] == [[0, 2], [0, 2]]
    assert len(found["c"].operands) == 4


@pytest.mark.parametrize(
    ("weights", "ok"),
    [("[1, 2]", True), ("[1, 2, 3]", False), ("softmax([1, 2])", True), ("2", True)],
)
def test_weights_of_teachers(weights: str, ok: bool) -> None:
    """A list that is written out pairs with one of the same length, a number with each member."""
    found = faults(spec(TEACHERS + f"x = {weights} * kd(ts.logits -> tiny.logits)"))
    assert [d.code for d in found] == ([] if ok else ["B201"])


def test_an_axis_follows_its_name() -> None:
    """Through a second name and through the parameter of a function; two maps of one length stay apart."""
    body = (
        "let m = [0, 2] -> [0, 1]\nlet n = m\nlet o = [1, 3] -> [0, 1]\nf(k) = nst(big.hidden[k] -> tiny.hidden[k])\n"
    )
    found = names(body + "x = sum(f(m) + f(n), over=m)\ny = sum(f(n), over=n)").equations
    assert [len(found[name].operands) for name in ("x", "y")] == [2, 2]
    told = fault(body + "x = f(m) + f(o)")
    assert (told.code, told.message) == ("B201", "`m` of 2 and `o` of 2 have different axes")


def test_both_columns_of_a_map_are_one_axis() -> None:
    """`m.from` and `m.to` are picked along `m`."""
    found = names("let m = [0, 2] -> [0, 1]\nh = big.hidden[m.from]\nx = sum(nst(h -> tiny.hidden[m]), over=m)")
    assert [o.source.feature.index for o in found.equations["x"].operands] == [0, 2]


@pytest.mark.parametrize(
    "loss",
    ["sum(x)", "sum(sum(x, over=ts))", "sum(x[0])", "x[0][1]", "mean(x)", "max(2 * x)", "sum(softmax([1, 2]) * x[1])"],
)
def test_tables_whose_rows_are_not_known_yet(loss: str) -> None:
    """What names and kinds allow is allowed before any model is read, and after."""
    body = TEACHERS + "x = nst(ts.hidden[::4] -> tiny.hidden[:])"
    facts = {"big": _facts(12), "mid": _facts(12), "tiny": _facts(3)}
    assert names(body, f"loss = {loss}\n").loss.kind == "loss"
    assert known(body, f"loss = {loss}\n", facts).loss.kind == "loss"


def test_what_names_alone_leave_open_is_still_a_use() -> None:
    """A row of which nobody knows the length belongs to its model and its data."""
    recipe = names("x = sum(nst(big.hidden[:] -> tiny.hidden[:]))")
    assert [(t.model, t.data, t.feature.name) for t in recipe.open] == [("big", "d", "hidden"), ("tiny", "d", "hidden")]
    assert known("x = sum(nst(big.hidden[:4] -> tiny.hidden[:]))").open == ()


def test_whole_rows_and_tuples() -> None:
    """One argument each: a row for each model of a list, a tuple whatever else is a list."""
    facts = {"big": _facts(4), "mid": _facts(4), "tiny": _facts(2)}
    rows = known(TEACHERS + "x = emd(ts.hidden[1:] -> tiny.hidden[1:])", facts=facts).equations["x"]
    assert [(x.source.kind, len(x.source.items), len(x.target.items)) for x in rows] == [("hidden...", 4, 2)] * 2
    pairs = names("x = fsp((big.hidden[0], big.hidden[2]) -> (tiny.hidden[0], tiny.hidden[1]))").equations["x"]
    assert isinstance(pairs, Apply)
    assert isinstance(pairs.source, Bundle)
    assert pairs.source.kind == "(hidden, hidden)"
    assert names("x = emd(big.hidden[1:] -> tiny.hidden[1:])", "loss = x\n").loss.kind == "loss"


def test_a_fault_spreads_silently() -> None:
    """A pair with a fault in it is a fault."""
    seen: list[int] = []

    def refuse(a: Any, b: Any) -> Any:
        seen.append(a)
        raise Faulty

    with pytest.raises(Faulty):
        pair(listed("a", "row", (1, 2)), 1, PLACE, no_fault, refuse)
    assert seen == [1, 2]


def _facts(count: int) -> Any:
    from tests.recipe.specs import FakeFacts

    return FakeFacts(count, 8)
