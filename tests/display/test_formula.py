"""Formulas of declarations as LaTeX."""

from __future__ import annotations

import inspect

import pytest

from brewgraph.display.formula import FormulaError, latex
from brewgraph.ops import OPERATIONS, SCHEDULES, TEMPERATURES, TRANSFORMS, split_formula


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x²", "x^{2}"),
        ("-Σ_c p_c log q_c", r"- \sum_{c} p_{c} \log q_{c}"),
        ("a / b c", r"\frac{a}{b c}"),
        ("(a + b) / c", r"\frac{a + b}{c}"),
        ("(a + b) (c + d) / e", r"\frac{\left( a + b \right) \left( c + d \right)}{e}"),
        ("1 - from · to / (‖from‖ ‖to‖)",
         r"1 - \frac{\mathrm{from} \cdot \mathrm{to}}{\lVert \mathrm{from} \rVert \lVert \mathrm{to} \rVert}"),
        ("softmax(x / T)", r"\operatorname{softmax}\left( x / T \right)"),
        ("softmax(x xᵀ / √d)", r"\operatorname{softmax}\left( \frac{x x^{\top}}{\sqrt{d}} \right)"),
        ("mean_{i < j} d_ij", r"\operatorname*{mean}_{i < j} d_{ij}"),
        ("max(0.1, β w)", r"\max\left( 0.1, \beta w \right)"),
        ("(1 - w)^γ", r"\left( 1 - w \right)^{\gamma}"),
        ("x_label ↔ x_m", r"x_{\mathrm{label}} \leftrightarrow x_{m}"),
        ("p q,  p = x", r"\begin{gathered} p q \\ p = x \end{gathered}"),
    ],
)  # fmt: skip
def test_a_formula(text: str, expected: str) -> None:
    assert latex(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(a + b", "expected `)`, not `the end`"),
        ("a +", "expected a value, not `the end`"),
        ("a / b / c", "parentheses around one of two quotients"),
        ("a ) b", "`)` has no meaning here"),
        ("‖a", "expected `‖`, not `the end`"),
        ("x_", "expected an index, not `the end`"),
        ("", "expected a value"),
    ],
)
def test_no_formula(text: str, said: str) -> None:
    """The message quotes the place and the text."""
    with pytest.raises(FormulaError, match="in `") as error:
        latex(text)
    assert said in str(error.value)


DECLARED = {**OPERATIONS, **TRANSFORMS, **TEMPERATURES}


@pytest.mark.parametrize("name", DECLARED)
def test_every_declaration_states_its_formula(name: str) -> None:
    """In LaTeX all brackets are closed, and every index and name of the text is there."""
    text = DECLARED[name].formula
    converted = latex(text)
    assert converted.count("{") == converted.count("}")
    assert converted.count(r"\left(") == converted.count(r"\right)")
    assert converted.count("=") == text.count("=")
    assert ("from" in text) is ("from" in converted)


@pytest.mark.parametrize("name", ["ramp", "cosine"])
def test_schedules_that_are_formulas(name: str) -> None:
    """The others are cases."""
    formula, _ = split_formula(inspect.cleandoc(SCHEDULES[name].__doc__ or "").partition("\n")[2])
    assert r"\mathrm{progress}" in latex(formula)


def test_a_declaration_without_a_formula() -> None:
    """A docstring of prose alone is all text."""
    assert split_formula("\nMore words.\n\nAnd more.") == ("", "More words.\n\nAnd more.")
    assert split_formula("\n    a +\n    b\n\nWords.") == ("a + b", "Words.")
