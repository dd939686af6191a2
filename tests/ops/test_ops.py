"""Every operation beside its plainly written reference. Gradients and padding: `runtime/test_exactness.py`."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from brewgraph.diagnostics import RunError
from brewgraph.ops import KINDS, OPERATIONS, PROJECTIONS, SCHEDULES, UNITS, side_kinds
from brewgraph.runtime.layouts import Padded, label_mask
from tests.ops import naive

torch.set_num_threads(1)

LENGTHS = (4, 2, 3)
MASK = torch.tensor([[i < length for i in range(max(LENGTHS))] for length in LENGTHS])
LOGITS = ("logits", "logits")
MASK_ROWS: list[list[bool]] = MASK.tolist()
TEMPERATURES = (0.5, 1.0, 4.0)
HAS_T = ["mse", "ce", "kl", "kd", "bce"]


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
    assert found.summary.endswith("."), found.summary
    assert found.source
    assert all(option.text and option.kind in KINDS for option in found.options)
    assert all(set(side_kinds(side)) <= KINDS.keys() for sides in found.takes for side in sides)
    assert set(found.takes.values()) <= UNITS.keys()
    assert found.same <= {"classes", "width", "heads"}


def test_projections_and_schedules_are_documented() -> None:
    """Each has a summary or a docstring."""
    assert all(p.summary for p in PROJECTIONS.values())
    assert all(function.__doc__ for function in SCHEDULES.values())


def test_units_of_operations() -> None:
    """What each is a mean over, by the kinds that it compares; anything else is not taken."""
    found = {o.name: [f"{a} -> {b}: {unit}" for (a, b), unit in o.takes.items()] for o in OPERATIONS.values()}
    assert found == {
        "mse": [
            "logits -> logits: position",
            "hidden -> hidden: token",
            "attention -> attention: pair",
            "scores -> scores: pair",
            "vector -> vector: example",
            "probabilities -> probabilities: position",
            "targets -> logits: example",
        ],
        "cos": [
            "hidden -> hidden: token",
            "vector -> vector: example",
        ],
        "pkd": [
            "hidden -> hidden: example",
            "vector -> vector: example",
        ],
        "nst": [
            "hidden -> hidden: pair",
            "(hidden, hidden) -> (hidden, hidden): pair",
        ],
        "nst_by_length": [
            "hidden -> hidden: pair",
            "(hidden, hidden) -> (hidden, hidden): pair",
        ],
        "fsp": [
            "(hidden, hidden) -> (hidden, hidden): example",
        ],
        "emd": [
            "hidden... -> hidden...: batch",
        ],
        "rkd_distance": [
            "hidden -> hidden: batch",
            "vector -> vector: batch",
        ],
        "rkd_angle": [
            "hidden -> hidden: batch",
            "vector -> vector: batch",
        ],
        "infonce": [
            "hidden -> hidden: batch",
            "vector -> vector: batch",
        ],
        "ce": [
            "logits -> logits: position",
            "positions -> positions: example",
            "labels -> logits: label",
            "labels -> positions: label",
            "attention -> attention: token",
            "scores -> scores: token",
            "probabilities -> logits: position",
            "probabilities -> probabilities: position",
            "places -> positions: example",
            "places -> places: example",
        ],
        "kl": [
            "logits -> logits: position",
            "positions -> positions: example",
            "attention -> attention: token",
            "scores -> scores: token",
            "probabilities -> logits: position",
            "probabilities -> probabilities: position",
            "places -> positions: example",
            "places -> places: example",
        ],
        "kd": [
            "logits -> logits: position",
            "positions -> positions: example",
        ],
        "bce": [
            "logits -> logits: position",
            "targets -> logits: example",
        ],
    }
    assert {name: o.name for name, o in OPERATIONS.items() if o.name != name} == {"mmd": "nst", "gram": "fsp"}
    assert OPERATIONS["ce"].unit("logits", "labels") is None


# ── against the references ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("name", HAS_T)
def test_logits_per_example(name: str, T: float) -> None:
    """(B, C): a mean over examples."""
    source, target = pair("logits")
    found = loss(name, source, target, "example", None, T=T, kinds=LOGITS)
    assert close(found, naive.per_example(name, source, target, T))


@pytest.mark.parametrize("name", HAS_T)
def test_a_temperature_for_each_example_and_token(name: str) -> None:
    """T may be a tensor over the leading axes, or over the examples alone; a tensor of one number is a number."""
    rows, temperatures = pair("logits"), torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    found = loss(name, *rows, "example", None, T=temperatures, kinds=LOGITS)
    each = [naive.per_example(name, *(x[b : b + 1] for x in rows), float(temperatures[b])) for b in range(3)]
    assert close(found, sum(each) / 3)
    tokens = pair("token logits")
    spread = temperatures[:, None].expand(3, 4)
    one, other, single = (
        loss(name, *tokens, "token", MASK, T=T, kinds=LOGITS)
        for T in (temperatures, spread, torch.tensor(2.0, dtype=torch.float64))
    )
    each = [
        naive.per_token(name, *(x[b : b + 1] for x in tokens), MASK_ROWS[b : b + 1], float(temperatures[b]))
        for b in range(3)
    ]
    assert close(one, sum(value * length for value, length in zip(each, LENGTHS, strict=True)) / sum(LENGTHS))
    assert close(other, float(one))
    assert close(single, float(loss(name, *tokens, "token", MASK, T=2.0, kinds=LOGITS)))


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("name", HAS_T)
def test_logits_per_token(name: str, T: float) -> None:
    """(B, L, C): a mean over real tokens."""
    source, target = pair("token logits")
    expected = naive.per_token(name, source, target, MASK_ROWS, T)
    assert close(loss(name, source, target, "token", MASK, T=T, kinds=LOGITS), expected)


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


@pytest.mark.parametrize("kind", ["attention", "scores"])
@pytest.mark.parametrize("name", ["ce", "kl"])
def test_attention_as_distributions(name: str, kind: str) -> None:
    """(B, N, L, L): probabilities as they are, scores through softmax; over real keys, the mean over real tokens."""
    source, target = pair(kind)
    expected = naive.over_keys(name, source, target, MASK_ROWS, scores=kind == "scores")
    assert close(loss(name, source, target, "token", MASK, kinds=(kind, kind)), expected)


@pytest.mark.parametrize("name", ["ce", "kl"])
def test_probabilities_on_the_left(name: str) -> None:
    """They are taken as they are; the temperature is the right side's alone."""
    source, target = pair("token logits")
    given, T = (source / 2).softmax(-1), 2.0
    expected = naive.per_token(name, source, target, MASK_ROWS, T)
    assert close(loss(name, given, target, "token", MASK, T=T, kinds=("probabilities", "logits")), expected)
    both = (given, (target / 2).softmax(-1))
    assert close(loss(name, *both, "token", MASK, kinds=("probabilities", "probabilities")), expected)


def test_attention_of_zero_gives_no_infinity() -> None:
    """A probability of zero on the right, and one on the left, count as very small."""
    source = torch.eye(2, dtype=torch.float64)[None, None]
    target = 1 - source
    found = loss("ce", source, target, "token", torch.ones(1, 2, dtype=torch.bool))
    assert torch.isfinite(found)
    assert found > 100


@pytest.mark.parametrize("name", ["nst", "nst_by_length"])
def test_neuron_selectivity(name: str) -> None:
    """Gram matrices of other widths, of one layer or of one with another: a mean over pairs of real tokens."""
    source, target = random(3, 4, 5, seed=1), random(3, 4, 7, seed=2)
    by_length = name == "nst_by_length"
    expected = naive.nst((source, source), (target, target), MASK_ROWS, by_length=by_length)
    assert close(loss(name, source, target, "pair", MASK), expected)
    pairs = (source, random(3, 4, 5, seed=3)), (target, random(3, 4, 7, seed=4))
    assert close(loss(name, *pairs, "pair", MASK), naive.nst(*pairs, MASK_ROWS, by_length=by_length))
    same = (source, source), (target, target)
    assert close(loss(name, *same, "pair", MASK), expected)


def test_flow_of_the_solution_procedure() -> None:
    """Channels of one layer against those of another, over real tokens: a mean over examples."""
    source, target = ((random(3, 4, 5, seed=i), random(3, 4, 2, seed=i + 2)) for i in (1, 2))
    assert close(loss("fsp", source, target, "example", MASK), naive.fsp(source, target, MASK_ROWS))


def test_patient_distillation() -> None:
    """The first real token of each example, wherever padding stands."""
    source, target = pair("hidden")
    expected = naive.per_example("pkd", source[:, 0], target[:, 0])
    assert close(loss("pkd", source, target, "example", MASK), expected)
    assert close(loss("pkd", source[:, 0], target[:, 0], "example", None), expected)
    flipped = [x.flip(1) for x in (source, target)]
    rows = torch.stack([source[b, length - 1] for b, length in enumerate(LENGTHS)])
    others = torch.stack([target[b, length - 1] for b, length in enumerate(LENGTHS)])
    assert close(loss("pkd", *flipped, "example", MASK.flip(1)), naive.per_example("pkd", rows, others))


@pytest.mark.parametrize("name", ["pkd", "cos"])
def test_a_vector_of_zero_has_no_direction_and_no_gradient(name: str) -> None:
    """Neither no number nor an endless gradient comes of it."""
    source, target = random(3, 5, seed=1), random(3, 5, seed=2)
    target[1] = 0
    target.requires_grad_()
    found = loss(name, source, target, "example", None)
    found.backward()
    assert target.grad is not None
    assert torch.isfinite(found)
    assert target.grad[1].abs().max() == 0
    assert target.grad[0].abs().max() > 0


@pytest.mark.parametrize("name", ["mse", "bce"])
def test_targets(name: str) -> None:
    """One number per example beside one output, or as many as there are outputs."""
    target, wanted = random(3, 5, seed=1), (random(3, 5, seed=2) > 0).double()
    kinds = ("targets", "logits")
    expected = naive.targets(name, wanted.tolist(), target.tolist())
    assert close(loss(name, wanted, target, "example", None, kinds=kinds), expected)
    expected = naive.targets(name, wanted[:, :1].tolist(), target[:, :1].tolist())
    assert close(loss(name, wanted[:, 0], target[:, :1], "example", None, kinds=kinds), expected)


def test_earth_movers_distance() -> None:
    """With as many layers on both sides each goes to one other; the cheapest pairing was found by trying all."""
    source, target = ([random(3, 4, 5, seed=10 * k + i) for i in range(4)] for k in (1, 2))
    found = loss("emd", tuple(source), tuple(target), "batch", MASK)
    assert close(found, naive.emd(source, target, MASK_ROWS))
    shuffled = tuple(target[i] for i in (2, 0, 3, 1))
    assert close(loss("emd", tuple(source), shuffled, "batch", MASK), float(found))
    assert abs(loss("emd", tuple(source), (*source[1:], source[0]), "batch", MASK)) < 1e-14


def test_earth_movers_distance_between_other_numbers_of_layers() -> None:
    """Each of two layers takes a half of what one has."""
    source, (one, other) = random(3, 4, 5, seed=1), pair("hidden")
    halves = [naive.per_token("mse", source, x, MASK_ROWS) / 2 for x in (one, other)]
    assert close(loss("emd", (source,), (one, other), "batch", MASK), sum(halves))


def test_earth_movers_distance_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra by its name."""
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(RunError, match=r"`emd` needs the package POT: pip install 'brewgraph\[emd\]'"):
        loss("emd", pair("hidden"), pair("hidden"), "batch", MASK)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_relations_between_examples(name: str) -> None:
    """Of vectors of other widths, or of first tokens."""
    source, target = random(6, 5, seed=1), random(6, 7, seed=2)
    expected = getattr(naive, name)(source.tolist(), target.tolist())
    assert close(loss(name, source, target, "batch", None), expected)
    wide = [torch.stack([x, x.flip(0)], 1) for x in (source, target)]
    assert close(loss(name, *wide, "batch", torch.ones(6, 2, dtype=torch.bool)), expected)
    assert close(loss(name, source, 3 * source, "batch", None), 0)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle", "infonce"])
def test_small_batches_have_relations_of_zero(name: str, size: int) -> None:
    """One example is alone, two are a pair whose distance is its own mean; equal ones are at no distance."""
    source, target = random(size, 5, seed=1), random(size, 5, seed=2, grad=True)
    found = loss(name, source, target, "batch", None)
    found.backward()
    assert torch.isfinite(found)
    assert name == "infonce" or found == 0
    equal = torch.ones(3, 5, dtype=torch.float64, requires_grad=True)
    loss(name, random(3, 5), equal, "batch", None).backward()
    assert equal.grad is not None
    assert torch.isfinite(equal.grad).all()


@pytest.mark.parametrize("T", TEMPERATURES)
def test_contrastive(T: float) -> None:
    """Each example against all of the batch."""
    source, target = random(4, 5, seed=1), random(4, 5, seed=2)
    assert close(
        loss("infonce", source, target, "batch", None, T=T), naive.infonce(source.tolist(), target.tolist(), T)
    )


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
    assert defaults == {"mse": 1.0, "ce": 1.0, "kl": 1.0, "kd": 4.0, "bce": 1.0}


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


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

MASKED = [
    ("mse", "token logits", "token"),
    ("ce", "token logits", "token"),
    ("kl", "token logits", "token"),
    ("kd", "token logits", "token"),
    ("mse", "hidden", "token"),
    ("cos", "hidden", "token"),
    ("nst", "hidden", "pair"),
    ("nst_by_length", "hidden", "pair"),
    ("pkd", "hidden", "example"),
    ("mse", "attention", "pair"),
    ("mse", "scores", "pair"),
    ("ce", "attention", "token"),
    ("ce", "scores", "token"),
    ("kl", "attention", "token"),
    ("kl", "scores", "token"),
]


def told(name: str, kind: str) -> dict[str, Any]:
    """The kinds, where the maths depends on them."""
    return {"kinds": (kind, kind)} if OPERATIONS[name].needs_kinds and kind in ("attention", "scores") else {}


def fill(x: Tensor, value: float) -> Tensor:
    """The tensor with this value wherever padding stands: tokens, or rows and columns of attention."""
    if x.dim() == 4:
        hidden = ~(MASK[:, None, :, None] & MASK[:, None, None, :])
        return x.masked_fill(hidden, value)
    return x.masked_fill(~MASK[..., None], value)


@pytest.mark.parametrize(("name", "kind", "unit"), MASKED)
def test_a_batch_is_the_sum_of_its_examples(name: str, kind: str, unit: str) -> None:
    """Sums and counts of parts add up to those of the whole: accumulation and ranks change no number."""
    source, target = pair(kind)
    function, needs_layout = OPERATIONS[name].maths(kind, kind), OPERATIONS[name].needs_layout
    total, count = 0.0, 0
    for b in range(3):
        layout = Padded(MASK[b : b + 1])
        extra = {"layout": layout} if needs_layout else {}
        total += float(layout.sum(function(source[b : b + 1], target[b : b + 1], **extra), unit))
        count += int(layout.count(unit))
    assert close(loss(name, source, target, unit, MASK, **told(name, kind)), total / count)


@pytest.mark.parametrize("name", sorted({o.name for o in OPERATIONS.values() if o.least}))
def test_with_fewer_entries_than_it_needs_an_operation_never_changes(name: str) -> None:
    """What `least` says is true of the maths: below it no gradient reaches the target, from it on one does."""
    operation = OPERATIONS[name]
    kind = "logits" if ("logits", "logits") in operation.takes else "vector"

    def largest_gradient(batch: int, last: int) -> float:
        generator = torch.Generator().manual_seed(last + batch)
        source = torch.randn(batch, last, generator=generator, dtype=torch.float64)
        target = torch.randn(batch, last, generator=generator, dtype=torch.float64).requires_grad_()
        operation.maths(kind, kind)(source, target).sum().backward()
        assert target.grad is not None
        return float(target.grad.abs().max())

    last = operation.least.get("classes", operation.least.get("width", 3))
    batch = operation.least.get("batch", 4)
    assert largest_gradient(batch, last) > 1e-3
    if "batch" in operation.least:
        assert largest_gradient(batch - 1, last) < 1e-9
    if operation.least.keys() & {"classes", "width"}:
        assert largest_gradient(batch, last - 1) < 1e-9
