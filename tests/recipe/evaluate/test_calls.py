"""Functions of one's own: a call equals its expression written out; names of the definition, data of the call."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brewgraph.diagnostics import Collector
from brewgraph.graph.container import info
from brewgraph.recipe.evaluate.elaborate import elaborate
from brewgraph.recipe.values import members
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.graph.graphs import graph
from tests.recipe.specs import LOSS, fault, faults, names, spec

WEIGHTS = st.sampled_from(("0.5", "2", "ramp(1 -> 0)", "(1 - 0.25)"))


@given(WEIGHTS, WEIGHTS, st.integers(0, 3), st.integers(0, 3), st.booleans())
@settings(derandomize=True, deadline=None, database=None, max_examples=25)
def test_a_call_equals_its_expansion(one: str, other: str, layer: int, second: int, named: bool) -> None:
    """The same graph hash, defaults and nested calls included, projections too."""
    definition = (
        "f(a, b, w=2) = w * mse(a -> b via linear)\ng(i, v) = f(big.hidden[i], tiny.hidden[0]) + f(w=v, a=big.hidden[i],"
        " b=tiny.hidden[1])\n"
    )
    call = f"{one} * g({layer}, {'v=' if named else ''}{other}) + f(big.hidden[{second}], tiny.hidden[0])"
    hand = (
        f"{one} * (2 * mse(big.hidden[{layer}] -> tiny.hidden[0] via linear)"
        f" + {other} * mse(big.hidden[{layer}] -> tiny.hidden[1] via linear))"
        f" + 2 * mse(big.hidden[{second}] -> tiny.hidden[0] via linear)"
    )
    called = graph(spec(definition, f"loss = {call}\n"))
    written = graph(spec("", f"loss = {hand}\n"))
    assert info(called).objective == info(written).objective


def test_defaults_see_other_parameters() -> None:
    """Those before them, and names of the place of definition."""
    found = names("let k = 3\nf(a, b=k, c=b) = a * b * c\nx = f(2)\ny = f(2, c=1)").equations
    assert [found["x"].value, found["y"].value] == [18, 6]


def test_names_are_those_of_the_definition() -> None:
    """What a task calls the same hides nothing in a function from outside."""
    task = "task a { let k = 5; loss = f(kd(big.logits -> tiny.logits)) }"
    recipe = names(f"let k = 3\nf(a) = k * a\n{task}", "")
    assert recipe.tasks[0][1].loss.operands[0].value == 3


def test_a_parameter_hides_a_name() -> None:
    """Inside the function alone."""
    found = names(
        'teacher mid = hf("m")\nf(big) = kd(big.logits -> tiny.logits)\nx = f(mid) + kd(big.logits -> tiny.logits)'
    )
    assert [x.source.model for x in found.equations["x"].operands] == ["mid", "big"]


def test_lists_and_maps_as_arguments() -> None:
    """A list goes through a function member by member; a map picks its side where the arrow stands."""
    body = "let m = [0, 2] -> [0, 1]\nf(k, T=2) = T * nst(big.hidden[k] -> tiny.hidden[k])\nx = f(m)"
    found = [x.operands[1] for x in members(names(body).equations["x"])]
    assert [(x.source.feature.index, x.target.feature.index) for x in found] == [(0, 0), (2, 1)]


@pytest.mark.parametrize(
    ("body", "code", "place", "help"),
    [
        ("f(a) = f(a)\nx = f(1)", "B108", (4, 8), "recursion is not supported"),
        ("f(a) = g(a)\ng(a) = 2 * f(a)\nx = g(1)", "B108", (4, 8), "recursion is not supported"),
        ("f(a, b) = a\nx = f(1)", "B209", (5, 5), "f(a, b)"),
        ("f(a) = a\nx = f(1, 2)", "B120", (5, 10), "it takes `a`"),
        ("f() = 3\nx = f(1)", "B120", (5, 7), "it takes nothing"),
        ("f(a) = a\nx = f(1, a=2)", "B125", (5, 10), "remove one"),
        ("f(a) = a\nx = f(30%: 1)", "B120", (5, 7), "it takes `a`"),
        ("f(alpha) = alpha\nx = f(alhpa=1)", "B120", (5, 7), "did you mean `alpha`?"),
        ("f(a, a) = a", "B105", (4, 6), "rename"),
        ("f(a) = a\nf(b) = b", "B105", (5, 1), "rename"),
        ("f(a) = a\nx = f", "B102", (5, 5), "`f(…)`"),
        ("f(a) = zz * a\nx = f(1)", "B101", (4, 8), "the spec has"),
    ],
)
def test_faulty_functions(body: str, code: str, place: tuple[int, int], help: str) -> None:
    """One fault each, where it lies."""
    found = fault(body)
    assert (found.code, found.span.position) == (code, place)
    assert help in found.help


def test_a_function_that_hides_an_operation() -> None:
    """Legal, with a warning; calling the operation from it is a call of itself."""
    recipe = names("kd(a) = 2 * a\nx = kd(3)")
    assert recipe.equations["x"].value == 6
    found = faults(spec("kd() = kd(big.logits -> tiny.logits)\nx = kd()", LOSS))
    assert [d.code for d in found if d.severity == "error"] == ["B108"]
    assert "hides a built-in function" in next(d.message for d in found if d.code == "W101")


def test_a_parameter_that_hides_a_name_is_worth_a_word() -> None:
    """A warning at the parameter, with the place of the name outside; of the function's own task too."""
    collector = Collector()
    text = spec("let w = 2\nf(w, big) = w * kd(big.logits -> tiny.logits)\nx = f(1, big)")
    elaborate(parse(Source(text), collector), Source(text), {}, collector)
    found = [(d.code, d.message, d.span.position, d.labels[0].span.position) for d in collector.diagnostics]
    assert found == [
        ("W101", "`w` hides an outer definition", (5, 3), (4, 5)),
        ("W101", "`big` hides an outer definition", (5, 6), (1, 9)),
    ]


@pytest.mark.parametrize(
    "function",
    [
        "f(m) = sum(mse(big.hidden[m] -> tiny.hidden[:] via linear), over=m)", "f(m) = m(d, pass=2).logits",
        "f() = kd(big.logits -> tiny(pass=2).logits)", "f(x) = x.y[0] @ \"{x}\"", "f(x) = [x, (x, x)]",
        "f(x) = piecewise(0%: x, x: 1) * sum(x) + words(x) + relation(x, heads=x) + ramp(x -> 0) + after(x)",
        "f(n, k=n * 2) = tiny.hidden[k] + big.hidden[k:]", "f(a, T=4) = kd(a -> tiny.logits, T=T)",
    ],
)  # fmt: skip
def test_of_a_function_that_nobody_calls_nothing_is_presumed(function: str) -> None:
    """Whatever its parameters may be, and though there is no data where it stands."""
    tasks = 'task a { data d = files(train="x"); loss = ce(d.labels -> tiny.logits) }'
    head = 'teacher big = hf("big")\nstudent tiny = hf(model_type="bert")\ndata d = files(train="y")\n'
    assert faults(f"{head}{function}\n{tasks}\n") == ()
    recipe = names(function)
    assert recipe.open == ()


def test_a_task_outside_that_no_stage_trains_is_worth_a_word() -> None:
    """Where a stage has neither a loss nor tasks, it trains them."""
    ce = "loss = ce(d.labels -> tiny.logits)"
    for stages, warnings in ((f"stage one {{ {ce} }}", ["W102"]), (f"stage one {{ {ce} }}\nstage two {{ }}", [])):
        collector, source = Collector(), Source(spec(f"task a {{ {ce} }}\n{stages}", ""))
        elaborate(parse(source, collector), source, {}, collector)
        assert [d.code for d in collector.diagnostics] == warnings
