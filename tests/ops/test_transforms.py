"""Functions from values to a value, beside their plainly written references, and their shapes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from brewgraph.diagnostics import SourceFault
from brewgraph.ops import KINDS, OPERATIONS, TRANSFORMS
from brewgraph.runtime.layouts import Padded
from tests.ops import naive
from tests.ops.test_ops import MASK, MASK_ROWS, fill, loss, random

BERT = ("batch", 12, "length", 64)


def apply(name: str, *values: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """A transform as the runtime calls it."""
    extra = {"layout": Padded(mask)} if TRANSFORMS[name].needs_layout else {}
    result: Tensor = TRANSFORMS[name].function(*values, **options, **extra)
    return result


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_is_documented(name: str) -> None:
    """A summary, a source, words for every option, known kinds."""
    found = TRANSFORMS[name]
    assert found.summary.endswith(".")
    assert found.source
    assert all(option.text and option.kind in KINDS for option in found.options)
    assert all({*arguments, result} <= KINDS.keys() for arguments, result in found.takes.items())


def test_kinds_of_transforms() -> None:
    """What goes in and what comes out; no name is a loss's."""
    found = {x.name: {", ".join(a): b for a, b in x.takes.items()} for x in TRANSFORMS.values()}
    assert found == {
        "relation": {"states": "attention", "hidden": "attention"},
        "probabilities": {
            "logits": "probabilities",
            "positions": "places",
            "scores": "attention",
            "attention": "attention",
        },
        "shift": {"logits, labels": "logits", "positions, labels": "positions"},
        "head_sum": {"attention": "attention", "scores": "scores"},
        "head_mean": {"attention": "attention", "scores": "scores"},
    }
    assert not TRANSFORMS.keys() & OPERATIONS.keys()


# ── relation ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def real(x: Tensor) -> Tensor:
    """The rows of real queries: (rows, heads, keys); those of padding mean nothing."""
    return x.transpose(1, 2)[MASK]


@pytest.mark.parametrize("heads", [0, 1, 2, 3, 6])
def test_relation_of_states(heads: int) -> None:
    """Two heads of three, grouped anew: heads lie side by side in the width."""
    x = random(3, 2, 4, 3)
    merged = [torch.cat([x[b, 0], x[b, 1]], -1) for b in range(3)]
    expected = torch.tensor(naive.relation(merged, MASK_ROWS, heads or 2), dtype=torch.float64)
    torch.testing.assert_close(real(apply("relation", x, mask=MASK, heads=heads)), real(expected))


@pytest.mark.parametrize("heads", [0, 1, 3])
def test_relation_of_hidden_states(heads: int) -> None:
    """They have one head of their own."""
    x = random(3, 4, 6)
    expected = torch.tensor(naive.relation(list(x), MASK_ROWS, heads or 1), dtype=torch.float64)
    torch.testing.assert_close(real(apply("relation", x, mask=MASK, heads=heads)), real(expected))


def test_a_relation_without_a_mask_has_every_token() -> None:
    """As with a mask of ones."""
    x = random(3, 2, 4, 3)
    torch.testing.assert_close(apply("relation", x), apply("relation", x, mask=torch.ones_like(MASK)))
    torch.testing.assert_close(TRANSFORMS["relation"].function(x), apply("relation", x))


def test_relations_of_models_of_other_widths_compare() -> None:
    """MiniLM v2: a divergence of relations, whatever padding holds and however much of it there is."""
    wide, narrow = random(3, 4, 4, 6, seed=1), random(3, 2, 4, 3, seed=2)
    expected = [
        torch.tensor(naive.relation(list(x.transpose(1, 2).flatten(2)), MASK_ROWS, 3), dtype=torch.float64)
        for x in (wide, narrow)
    ]

    def distance(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        relations = [apply("relation", x, mask=mask, heads=3) for x in (a, b)]
        return loss("kl", *relations, "token", mask, kinds=("attention", "attention"))

    found = distance(wide, narrow, MASK)
    assert math.isclose(float(found), naive.over_keys("kl", *expected, MASK_ROWS, scores=False), rel_tol=1e-10)
    for value in (0.0, 1e30, math.inf, math.nan):
        filled = [x.masked_fill(~MASK[:, None, :, None], value) for x in (wide, narrow)]
        torch.testing.assert_close(distance(*filled, MASK), found)
        more = [torch.nn.functional.pad(x, (0, 0, 0, 2), value=value) for x in filled]
        torch.testing.assert_close(distance(*more, torch.nn.functional.pad(MASK, (0, 2))), found)


@pytest.mark.parametrize(
    ("shape", "heads", "expected"),
    [
        (BERT, 0, ("batch", 12, "length", "length")),
        (BERT, 48, ("batch", 48, "length", "length")),
        (BERT, 48.0, ("batch", 48, "length", "length")),
        (("batch", "length", 768), 0, ("batch", 1, "length", "length")),
        (("batch", "length", 768), 12, ("batch", 12, "length", "length")),
        (("batch", None, "length", None), 7, ("batch", 7, "length", "length")),
    ],
)
def test_shape_of_a_relation(shape: tuple[Any, ...], heads: float, expected: tuple[Any, ...]) -> None:
    """Known from the shape of the states."""
    assert TRANSFORMS["relation"].shape((shape,), heads=heads) == expected


@pytest.mark.parametrize(("heads", "near"), [(5, "4 or 6"), (1000, "768"), (2.5, "2 or 3"), (-1, "1")])
def test_heads_have_to_divide_the_width(heads: float, near: str) -> None:
    """The nearest ones that do are said."""
    with pytest.raises(SourceFault, match=f"{heads:g} relation heads do not divide a width of 768") as caught:
        TRANSFORMS["relation"].shape((BERT,), heads=heads)
    assert (caught.value.code, caught.value.field) == ("B219", "heads")
    assert caught.value.help == f"write heads={near}, or remove it"


# ── probabilities ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 5)])
def test_probabilities_of_logits(shape: tuple[int, ...], T: float) -> None:
    """Softmax of x / T over the last axis."""
    x = random(*shape)
    expected = torch.tensor([naive.softmax(row, T) for row in x.flatten(0, -2).tolist()], dtype=torch.float64)
    torch.testing.assert_close(apply("probabilities", x, T=T), expected.view(shape))


def test_a_loss_of_probabilities_is_the_loss_of_logits() -> None:
    """At their temperature."""
    source, target = random(3, 5, seed=1), random(3, 5, seed=2)
    for name in ("ce", "kl"):
        found = loss(
            name,
            apply("probabilities", source, T=2.0),
            target,
            "example",
            None,
            T=2.0,
            kinds=("probabilities", "logits"),
        )
        torch.testing.assert_close(found, loss(name, source, target, "example", None, T=2.0))


@pytest.mark.parametrize("value", [0.0, -1e4, math.inf, math.nan])
def test_probabilities_of_scores(value: float) -> None:
    """Over the keys that are no padding, whatever the others hold: the loss is that of the scores."""
    source, target = random(3, 2, 4, 4, seed=1), random(3, 2, 4, 4, seed=2)
    expected = loss("ce", source, target, "token", MASK, kinds=("scores", "scores"))
    found = [apply("probabilities", fill(x, value), mask=MASK) for x in (source, target)]
    assert all((x.masked_select(~MASK[:, None, None, :]) == 0).all() for x in [torch.nan_to_num(y) for y in found])
    torch.testing.assert_close(loss("ce", *found, "token", MASK, kinds=("attention", "attention")), expected)


def test_an_example_without_tokens_gives_numbers() -> None:
    """And gradients that are numbers, too."""
    x = random(2, 1, 3, 3, grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    found = apply("probabilities", x, mask=mask)
    loss("ce", found.detach(), found, "token", mask, kinds=("attention", "attention")).backward()
    assert torch.isfinite(found).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


# ── shift ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((4, 5), [0, -100, 4, 2]),
        ((2, 3, 5), [[0, -1, 4], [2, 2, -100]]),
    ],
)
def test_shift(shape: tuple[int, ...], labels: list[Any]) -> None:
    """The label's logit becomes the highest; negative labels change nothing, and the teacher's tensor is left alone."""
    x = random(*shape)
    before, given = x.clone(), torch.tensor(labels)
    found = apply("shift", x, given)
    rows = zip(x.flatten(0, -2).tolist(), given.flatten().tolist(), strict=True)
    expected = torch.tensor([naive.shift(row, label) for row, label in rows], dtype=torch.float64)
    torch.testing.assert_close(found, expected.view(shape), rtol=0, atol=0)
    assert torch.equal(x, before)
    right = given >= 0
    assert torch.equal(found.argmax(-1)[right], given[right])


# ── heads ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "share"), [("head_sum", 1.0), ("head_mean", 0.5)])
def test_heads_together(name: str, share: float) -> None:
    """One head remains."""
    x = random(3, 2, 4, 4)
    torch.testing.assert_close(apply(name, x), (x[:, :1] + x[:, 1:]) * share)
    assert TRANSFORMS[name].shape((("batch", 12, "length", "length"),)) == ("batch", 1, "length", "length")
