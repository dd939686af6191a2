"""Where returned states come from: the modules that give them, whatever dropout, adapters or axes do on the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brewgraph.models.structure.anatomy import Site
from brewgraph.models.structure.read_class import find_returned
from tests.models.tiny import tiny

FIELDS = ("hidden_states", "attentions")


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("training", [False, True])
def test_xlnet_turns_its_states(rate: float, training: bool) -> None:
    """Length comes first in its layers; dropout, whatever its rate, belongs to the embeddings and not to the last state.
    The model, its mode and the generators are as before.
    """
    model = tiny("xlnet", dropout=rate).train(training)
    state = torch.get_rng_state()
    found = find_returned(model, "transformer", FIELDS, 3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training == training for module in model.modules())
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {rate}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert found.layers == tuple(f"transformer.layer.{i}" for i in range(3))
    first = Site("output", "transformer.dropout", axes=(1, 0, 2))
    assert found.places["hidden_states"] == (
        first,
        *(Site("output", path, item=0, axes=(1, 0, 2)) for path in found.layers),
    )
    assert found.places["attentions"] == tuple(Site("output", path, item=2, axes=(2, 3, 0, 1)) for path in found.layers)


class Small(nn.Module):
    """Three layers that begin with a module which hands its input on; what is returned is made by `end`."""

    def __init__(self, end: Any):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.layer = nn.ModuleList(nn.Sequential(nn.Identity(), nn.Linear(4, 4)) for _ in range(3))
        self.end = end

    def forward(self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool) -> Any:
        states = [self.embed(input_ids)]
        for layer in self.layer:
            states.append(layer(states[-1]))
        return SimpleNamespace(hidden_states=self.end(states))


def turned(states: list[Tensor]) -> list[Tensor]:
    return [x.transpose(1, 2).contiguous().permute(1, 0, -1).view(4, 2, 5) for x in states]


def test_what_hands_a_state_on_does_not_give_it() -> None:
    """The identity inside the next layer is not where a state is met."""
    found = find_returned(Small(list), "", FIELDS[:1], 3).places["hidden_states"]
    assert [place.path for place in found] == ["embed", "layer.0", "layer.1", "layer.2"]
    assert all(place.axes == () for place in found)


def test_axes_are_put_in_order() -> None:
    """Through several turns, as the values show."""
    model = Small(turned)
    found = find_returned(model, "", FIELDS[:1], 3).places["hidden_states"]
    assert {place.axes for place in found} == {(2, 0, 1)}
    caught: list[Tensor] = []
    model.layer[1].register_forward_hook(lambda *args: caught.append(args[-1]))
    ids = torch.randint(9, (2, 5))
    returned = model(ids, ids, True).hidden_states[2]
    assert torch.equal(caught[0].permute(found[2].axes), returned)


@pytest.mark.parametrize(
    "end",
    [
        lambda states: [2 * x for x in states],
        lambda states: [*states[:2], states[2].relu_(), states[3]],
        lambda states: [states[1], *states[1:]],
        lambda states: [x.reshape(5, 2, 4) for x in states],
        lambda states: [x.tolist() for x in states],
        None,
    ],
    ids=["computed", "changed in place", "twice the same", "reshaped", "reads values", "returns nothing"],
)
def test_a_row_is_found_whole_or_not_at_all(end: Any) -> None:
    """One state that is no module's output leaves the row to what the model returns."""
    assert "hidden_states" not in find_returned(Small(end), "", FIELDS[:1], 3).places
