"""Every operation beside its plainly written reference, its gradient, and what padding may hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from brewgraph.ops import KINDS, OPERATIONS, PROJECTIONS, SCHEDULES, UNITS
from brewgraph.runtime.layouts import Padded, label_mask
from tests.ops import naive

torch.set_num_threads(1)

LENGTHS = (4, 2, 3)
MASK = torch.tensor([[i < length for i in range(max(LENGTHS))] for length in LENGTHS])
MASK_ROWS: list[list[bool]] = MASK.tolist()
TEMPERATURES = (0.5, 1.0, 4.0)
HAS_T = [name for name, operation in OPERATIONS.items() if any(o.name == "T" for o in operation.options)]


def loss(name: str, source: Any, target: Any, unit: str, mask: Tensor | None, **options: Any) -> Tensor:
    """One loss as the runtime computes it: values per unit, masked, summed, divided by how many count."""
    layout = options.pop("layout", Padded(mask))
    operation = OPERATIONS[name]
    kinds = options.pop("kinds", ("", ""))
    function = operation.maths(*kinds) if any(kinds) else operation.function
    extra = {"layout": layout} if operation.needs_layout else {}
    values = function(source, target, **options, **extra)
    count = layout.count(unit) if mask is not None else torch.tensor(values.numel())
    return layout.sum(values, unit) / count


def random(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    """Normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def pair(kind: str, grad: bool = False) -> tuple[Tensor, Tensor]:
    """A source and a target of a kind: 3 examples of 4 tokens, 5 wide (nst: 5 and 7), 2 heads."""
    shapes = {
        "logits": (3, 5),
        "token logits": (3, 4, 5),
        "positions": (3, 4),
        "hidden": (3, 4, 5),
        "vector": (3, 5),
        "attention": (3, 2, 4, 4),
        "scores": (3, 2, 4, 4),
    }
    one, other = random(*shapes[kind], seed=1), random(*shapes[kind], seed=2)
    if kind == "attention":
        one, other = one.softmax(-1), other.softmax(-1)
    return one.requires_grad_(grad), other.requires_grad_(grad)


def close(found: Tensor, expected: float) -> bool:
    """Equal to ten digits."""
    return math.isclose(float(found), expected, rel_tol=1e-10, abs_tol=1e-12)


# ── declarations ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_documented(name: str) -> None:
    """A summary, a source, words for every option, known kinds and units."""
    found = OPERATIONS[name]
    assert found.summary.endswith((".", "per pair.")), found.summary
    assert found.source
    assert all(option.text and option.kind in KINDS for option in found.options)
    assert all(set(kinds) <= KINDS.keys() and unit in UNITS for kinds, unit in found.takes.items())
    assert found.same <= {"classes", "width", "heads"}


def test_projections_and_schedules_are_documented() -> None:
    """Each has a summary or a docstring."""
    assert all(p.summary for p in PROJECTIONS.values())
    assert all(function.__doc__ for function in SCHEDULES.values())


def test_units_of_operations() -> None:
    """What each is a mean over, by the kinds that it compares; anything else is not taken."""
    units = {(name, *kinds): unit for name, found in OPERATIONS.items() for kinds, unit in found.takes.items()}
    assert units == {
        ("mse", "logits", "logits"): "position",
        ("mse", "hidden", "hidden"): "token",
        ("mse", "attention", "attention"): "pair",
        ("mse", "scores", "scores"): "pair",
        ("mse", "vector", "vector"): "example",
        ("cos", "hidden", "hidden"): "token",
        ("cos", "vector", "vector"): "example",
        ("nst", "hidden", "hidden"): "pair",
        ("ce", "logits", "logits"): "position",
        ("ce", "positions", "positions"): "example",
        ("ce", "labels", "logits"): "label",
        ("ce", "labels", "positions"): "label",
        ("ce", "attention", "attention"): "token",
        ("kl", "logits", "logits"): "position",
        ("kl", "positions", "positions"): "example",
        ("kd", "logits", "logits"): "position",
        ("kd", "positions", "positions"): "example",
    }
    assert OPERATIONS["ce"].unit("logits", "labels") is None


# ── against the references ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("name", HAS_T)
def test_logits_per_example(name: str, T: float) -> None:
    """(B, C): a mean over examples."""
    source, target = pair("logits")
    assert close(loss(name, source, target, "example", None, T=T), naive.per_example(name, source, target, T))


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("name", HAS_T)
def test_logits_per_token(name: str, T: float) -> None:
    """(B, L, C): a mean over real tokens."""
    source, target = pair("token logits")
    expected = naive.per_token(name, source, target, MASK_ROWS, T)
    assert close(loss(name, source, target, "token", MASK, T=T), expected)


@pytest.mark.parametrize("name", ["ce", "kl", "kd"])
def test_positions(name: str) -> None:
    """(B, L) scores over tokens are logits whose classes are the tokens."""
    source, target = pair("positions")
    assert close(loss(name, source, target, "example", None, T=2.0), naive.per_example(name, source, target, 2.0))


@pytest.mark.parametrize("name", ["mse", "cos"])
def test_hidden_states(name: str) -> None:
    """(B, L, H): a mean over real tokens."""
    source, target = pair("hidden")
    assert close(loss(name, source, target, "token", MASK), naive.per_token(name, source, target, MASK_ROWS))


@pytest.mark.parametrize("name", ["mse", "cos"])
def test_vectors(name: str) -> None:
    """(B, H): a mean over examples, which no mask of tokens touches."""
    source, target = pair("vector")
    expected = naive.per_example(name, source, target)
    assert close(loss(name, source, target, "example", None), expected)
    assert close(loss(name, source, target, "example", MASK), expected)


@pytest.mark.parametrize("kind", ["attention", "scores"])
def test_attention_by_squares(kind: str) -> None:
    """(B, N, L, L): a mean over heads and pairs of real tokens."""
    source, target = pair(kind)
    assert close(loss("mse", source, target, "pair", MASK), naive.attention_mse(source, target, MASK_ROWS))


def test_attention_by_entropy() -> None:
    """(B, N, L, L) of probabilities: a mean over heads and real tokens."""
    source, target = pair("attention")
    assert close(loss("ce", source, target, "token", MASK), naive.attention_ce(source, target, MASK_ROWS))


def test_attention_of_zero_gives_no_infinity() -> None:
    """A probability of zero on the right, and one on the left, count as very small."""
    source = torch.eye(2, dtype=torch.float64)[None, None]
    target = 1 - source
    found = loss("ce", source, target, "token", torch.ones(1, 2, dtype=torch.bool))
    assert torch.isfinite(found)
    assert found > 100


def test_neuron_selectivity() -> None:
    """Gram matrices of other widths: a mean over pairs of real tokens."""
    source, target = random(3, 4, 5, seed=1), random(3, 4, 7, seed=2)
    assert close(loss("nst", source, target, "pair", MASK), naive.nst(source, target, MASK_ROWS))


@pytest.mark.parametrize("T", TEMPERATURES)
def test_labels_per_example(T: float) -> None:
    """(B) class indices; -100 is left out of the sum and of the count."""
    _, target = pair("logits")
    for written in ([0, 4, 2], [0, -100, 2]):
        source = torch.tensor(written)
        found = loss("ce", source, target, "label", label_mask(source), T=T)
        assert close(found, naive.labels(target.tolist(), written, T))


def test_labels_per_token() -> None:
    """(B, L) class indices beside (B, L, C)."""
    _, target = pair("token logits")
    source = torch.tensor([[1, -100, 0, 4], [2, -100, -100, -100], [-100, 3, 3, -100]])
    found = loss("ce", source, target, "label", label_mask(source))
    assert close(found, naive.labels(target.flatten(0, 1).tolist(), source.flatten().tolist()))


def test_an_ignored_label_has_no_gradient() -> None:
    """Nothing flows into the logits beside -100."""
    target = random(3, 5, grad=True)
    source = torch.tensor([1, -100, 2])
    loss("ce", source, target, "label", label_mask(source)).backward()
    assert target.grad is not None
    assert target.grad[1].abs().sum() == 0
    assert (target.grad[[0, 2]].abs().sum(-1) > 0).all()


# ── identities ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("T", TEMPERATURES)
def test_kd_is_kl_times_temperature_squared(T: float) -> None:
    """Hinton's factor, in the value and in the gradient."""
    source, target = pair("logits")
    kl, kd = (OPERATIONS[name].function(source, target, T=T) for name in ("kl", "kd"))
    torch.testing.assert_close(kd, T**2 * kl, rtol=1e-14, atol=0)


def test_kd_has_temperature_four_by_itself() -> None:
    """As the usual recipes do; the others have one."""
    source, target = pair("logits")
    kd = OPERATIONS["kd"].function
    torch.testing.assert_close(kd(source, target), kd(source, target, T=4.0))
    defaults = {name: OPERATIONS[name].options[0].default for name in HAS_T}
    assert defaults == {"mse": 1.0, "ce": 1.0, "kl": 1.0, "kd": 4.0}


@pytest.mark.parametrize("T", TEMPERATURES)
def test_entropy_and_divergence(T: float) -> None:
    """ce(p → q) = kl(p → q) + ce(p → p), and a divergence from itself is zero."""
    source, target = pair("token logits")
    ce, kl = OPERATIONS["ce"].function, OPERATIONS["kl"].function
    torch.testing.assert_close(ce(source, target, T=T), kl(source, target, T=T) + ce(source, source, T=T))
    assert kl(source, source, T=T).abs().max() < 1e-15
    assert (kl(source, target, T=T) > 0).all()


@pytest.mark.parametrize("name", ["mse", "cos", "nst"])
def test_a_distance_from_itself_is_zero(name: str) -> None:
    """And it is the same in both directions."""
    source, target = pair("hidden")
    unit = "pair" if name == "nst" else "token"
    assert abs(loss(name, source, source, unit, MASK)) < 1e-14
    torch.testing.assert_close(loss(name, source, target, unit, MASK), loss(name, target, source, unit, MASK))


def test_the_first_side_of_a_divergence_is_the_teacher() -> None:
    """Swapped sides give another number."""
    source, target = pair("logits")
    one, other = (loss("kl", a, b, "example", None) for a, b in ((source, target), (target, source)))
    assert abs(one - other) > 1e-3


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────────

GRADIENTS = [
    ("mse", "logits", "example", {"T": 2.0}),
    ("mse", "hidden", "token", {}),
    ("mse", "attention", "pair", {}),
    ("mse", "scores", "pair", {}),
    ("mse", "vector", "example", {}),
    ("cos", "hidden", "token", {}),
    ("cos", "vector", "example", {}),
    ("nst", "hidden", "pair", {}),
    ("ce", "logits", "example", {"T": 2.0}),
    ("ce", "token logits", "token", {}),
    ("ce", "positions", "example", {}),
    ("ce", "attention", "token", {}),
    ("kl", "logits", "example", {"T": 2.0}),
    ("kl", "token logits", "token", {}),
    ("kd", "logits", "example", {"T": 2.0}),
    ("kd", "positions", "example", {}),
]


@pytest.mark.parametrize(("name", "kind", "unit", "options"), GRADIENTS)
def test_gradients_against_finite_differences(name: str, kind: str, unit: str, options: dict[str, float]) -> None:
    """With respect to both sides: projections and mutual learning train the left one too."""
    source, target = pair(kind, grad=True)
    assert torch.autograd.gradcheck(lambda a, b: loss(name, a, b, unit, MASK, **options), (source, target))


def test_gradients_of_labels() -> None:
    """With respect to the logits."""
    source = torch.tensor([0, -100, 2])
    target = random(3, 5, grad=True)
    assert torch.autograd.gradcheck(lambda x: loss("ce", source, x, "label", label_mask(source), T=2.0), (target,))


# ── padding ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MASKED = [
    ("mse", "token logits", "token"),
    ("ce", "token logits", "token"),
    ("kl", "token logits", "token"),
    ("kd", "token logits", "token"),
    ("mse", "hidden", "token"),
    ("cos", "hidden", "token"),
    ("nst", "hidden", "pair"),
    ("mse", "attention", "pair"),
    ("mse", "scores", "pair"),
]


def fill(x: Tensor, value: float) -> Tensor:
    """The tensor with this value wherever padding stands: tokens, or rows and columns of attention."""
    if x.dim() == 4:
        hidden = ~(MASK[:, None, :, None] & MASK[:, None, None, :])
        return x.masked_fill(hidden, value)
    return x.masked_fill(~MASK[..., None], value)


@pytest.mark.parametrize("value", [0.0, 1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("name", "kind", "unit"), MASKED)
def test_what_padding_holds_does_not_count(name: str, kind: str, unit: str, value: float) -> None:
    """Zeros, infinities and no numbers at all leave the loss alone."""
    source, target = pair(kind)
    expected = loss(name, source, target, unit, MASK)
    torch.testing.assert_close(loss(name, fill(source, value), fill(target, value), unit, MASK), expected)


@pytest.mark.parametrize(("name", "kind", "unit"), MASKED)
def test_more_padding_changes_nothing(name: str, kind: str, unit: str) -> None:
    """A batch padded to 4 and the same one padded to 7 give one loss."""
    source, target = pair(kind)
    wide = torch.nn.functional.pad(MASK, (0, 3))
    amounts = (0, 3, 0, 3) if source.dim() == 4 else (0, 0, 0, 3)
    padded = [torch.nn.functional.pad(x, amounts, value=9.0) for x in (source, target)]
    torch.testing.assert_close(loss(name, *padded, unit, wide), loss(name, source, target, unit, MASK))


def test_entropy_of_attention_with_more_padding() -> None:
    """Padded keys have probability zero on both sides, padded queries do not count."""
    source, target = pair("attention")
    padded = [torch.nn.functional.pad(x, (0, 2, 0, 2)) for x in (source, target)]
    wide = torch.nn.functional.pad(MASK, (0, 2))
    torch.testing.assert_close(loss("ce", *padded, "token", wide), loss("ce", source, target, "token", MASK))


@pytest.mark.parametrize(("name", "kind", "unit"), MASKED)
def test_a_batch_is_the_sum_of_its_examples(name: str, kind: str, unit: str) -> None:
    """Sums and counts of parts add up to those of the whole: accumulation and ranks change no number."""
    source, target = pair(kind)
    function, needs_layout = OPERATIONS[name].function, OPERATIONS[name].needs_layout
    total, count = 0.0, 0
    for b in range(3):
        layout = Padded(MASK[b : b + 1])
        extra = {"layout": layout} if needs_layout else {}
        total += float(layout.sum(function(source[b : b + 1], target[b : b + 1], **extra), unit))
        count += int(layout.count(unit))
    assert close(loss(name, source, target, unit, MASK), total / count)
