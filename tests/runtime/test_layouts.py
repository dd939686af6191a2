"""Packed values and masks: equal to the padded ones in value and gradient, whatever stands at padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brewgraph.models.capture.attention import PackedTokens, is_zero_outside
from brewgraph.runtime import layouts
from brewgraph.runtime.layouts import Packed, Padded, Slots

MASK = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0]]).bool()


def value(seed: int, *rest: int) -> Tensor:
    """A value per place, (3, 6, …), that a gradient reaches."""
    torch.manual_seed(seed)
    return torch.randn(3, 6, *rest, dtype=torch.float64, requires_grad=True)


def test_the_gradient_of_a_gram_matrix() -> None:
    """One product gives what differentiating the two factors gives; padding gets none."""
    x, y = value(0, 4), value(0, 4)
    weights = torch.randn(3, 6, 6, dtype=torch.float64)
    (Padded(MASK, "tokens").gram(x) * weights).sum().backward()
    clean = torch.where(MASK[..., None], y, 0)
    (torch.einsum("bih,bjh->bij", clean, clean) * weights).sum().backward()
    assert torch.allclose(x.grad, y.grad)
    assert torch.all(x.grad[~MASK] == 0)
    assert torch.autograd.gradcheck(Padded(None).gram, (value(1, 2),))


def test_a_packed_value_is_read_padded_or_by_row() -> None:
    """Padded it has zeros at padding, and knows it; by row it is what went in. Other masks take rows of their own."""
    tokens, x = PackedTokens(MASK), value(0, 4)
    slots = Slots([Packed(tokens.pack(x), tokens), x])
    padded = slots[0]
    assert torch.equal(padded, torch.where(MASK[..., None], x, 0))
    assert slots[0] is padded
    assert is_zero_outside(padded, MASK)
    assert not is_zero_outside(padded, ~MASK)
    assert not is_zero_outside(x, MASK)
    assert torch.equal(slots.rows(0, tokens), x[MASK][None])
    assert torch.equal(slots.rows(1, tokens), x[MASK][None])
    other = PackedTokens(MASK & (torch.arange(6) < 2))
    assert torch.equal(slots.rows(0, other), x[other.mask_BL][None])


def test_what_is_zero_already_is_not_cleaned_again() -> None:
    """Of an unpacked value no gradient reaches padding, even an infinite one; a narrower mask is applied."""
    tokens, x = PackedTokens(MASK), value(0, 4)
    unpacked = tokens.unpack(tokens.pack(x))
    layout = Padded(MASK, "tokens")
    assert layout.clean(unpacked) is unpacked
    assert layout.shield(unpacked) is unpacked
    narrower = Padded(MASK & (torch.arange(6) < 1), "column")
    assert torch.equal(narrower.clean(unpacked), torch.where(narrower.mask_BL[..., None], unpacked, 0))
    (unpacked * torch.where(MASK[..., None], 1.0, torch.inf)).sum().backward()
    assert torch.equal(x.grad, MASK[..., None].expand_as(x).double())


def test_batches_with_next_to_no_padding_stay_padded() -> None:
    """To leave out a few rows costs more than it saves."""
    full = torch.ones(4, 40, dtype=torch.bool)
    full[0, -1] = False
    assert Padded(full, "tokens").tokens is None
    assert Padded(MASK, "tokens").tokens is not None
    assert Padded(MASK, "none").tokens is None


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("apart", [1.0, 1e-3])
def test_distances_of_stacks_are_those_of_pairs(apart: float, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean squared differences over real tokens, and gradients for both sides, against each pair by itself in double
    precision; also where values are large and close, as hidden states of a student that has learned."""
    monkeypatch.setattr(layouts, "_PART", 50)
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False], [True, False, False]]) if masked else None
    base = 5 * torch.randn(2, 3, 16)
    source, target = ([(base + apart * torch.randn(2, 3, 16)).requires_grad_() for _ in range(n)] for n in (3, 2))
    weights = torch.rand(3, 2)
    found = Padded(mask).distances(source, target)
    grads = torch.autograd.grad((found * weights).sum(), [*source, *target])
    exact = [x.detach().double().requires_grad_() for x in (*source, *target)]
    pairs = [[Padded(mask).mean((a - b).square().mean(-1), "token") for b in exact[3:]] for a in exact[:3]]
    wanted = torch.stack([torch.stack(row) for row in pairs])
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)
    for gradient, other in zip(grads, torch.autograd.grad((wanted * weights).sum(), exact), strict=True):
        assert (gradient.double() - other).norm() <= 1e-6 * other.norm()


def test_distances_of_a_student_alone() -> None:
    """A teacher gets no gradient, and a value with itself is no distance apart."""
    teacher, student = torch.randn(2, 3, 8), torch.randn(2, 3, 8, requires_grad=True)
    Padded(None).distances([teacher, teacher], [student])[0, 0].backward()
    torch.testing.assert_close(student.grad, 2 * (student.detach() - teacher) / teacher.numel())
    assert Padded(None).distances([teacher], [teacher]).item() <= 1e-14
