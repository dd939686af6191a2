"""Models on disk and back, of every build."""

from __future__ import annotations

import pytest
import torch
from peft import PeftConfig
from torch import nn
from transformers import AutoModelForMaskedLM

from brewgraph.models.adapters import add_adapter, has_adapter
from brewgraph.models.saving import load_model, save_model
from brewgraph.recipe.sources import Lora
from tests.models.test_adapters import trained
from tests.models.test_heads import headed
from tests.models.tiny import batch, tiny


def results(model: nn.Module) -> torch.Tensor:
    output = model.eval()(**batch(6, 3))
    return output.heads["qa"].start_logits if hasattr(output, "heads") else output.logits


@pytest.mark.parametrize("adapter", [False, True], ids=["plain", "adapter"])
@pytest.mark.parametrize("build", [lambda: tiny("bert", AutoModelForMaskedLM), lambda: headed("bert")])
def test_round_trip(build, adapter, tmp_path):
    """Equal outputs; with an adapter merged, and the adapter itself in a folder beside the weights."""
    model = build()
    if adapter:
        add_adapter(model, Lora(r=2))
        trained(model)
    save_model(model, tmp_path / "student")
    found = load_model(build(), tmp_path / "student")
    assert type(found) is type(model)
    assert not has_adapter(found)
    torch.testing.assert_close(results(found), results(model), rtol=1e-5, atol=1e-5)
    assert (tmp_path / "student" / "adapter").is_dir() == adapter
    if adapter:
        assert has_adapter(model)
        configs = list((tmp_path / "student" / "adapter").rglob("adapter_config.json"))
        assert {PeftConfig.from_pretrained(str(path.parent)).r for path in configs} == {2}


def test_any_other_module(tmp_path):
    """A plain torch module takes its weights back."""
    one, two = nn.Linear(2, 3), nn.Linear(2, 3)
    save_model(one, tmp_path / "student")
    assert load_model(two, tmp_path / "student") is two
    assert torch.equal(one.weight, two.weight)
