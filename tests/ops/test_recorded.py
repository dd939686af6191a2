"""The same calls as recorded from TextBrewer, number by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from brewgraph.ops import OPERATIONS
from brewgraph.runtime.layouts import Padded
from tests.ops.test_ops import loss

ROWS = {
    # recorded name: ours, the unit without and with a mask
    "kd_ce": ("ce", "token", "token"),
    "kd_mse": ("mse", "token", "token"),
    "attention_mse": ("mse", "pair", "pair"),
    "hidden_mse": ("mse", "token", "token"),
    "cos": ("cos", "token", "token"),
}


@pytest.fixture(scope="module")
def recorded(shared: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """The recorded calls and their tensors."""
    return json.loads((shared / "ops.json").read_text()), load_file(shared / "ops.safetensors")


@pytest.mark.parametrize("name", ROWS)
def test_recorded_values(name: str, recorded: tuple[list[dict[str, Any]], dict[str, torch.Tensor]]) -> None:
    """Each call gives the recorded number to a millionth."""
    rows, tensors = recorded
    compared = 0
    for row in (r for r in rows if r["op"] == name):
        inputs = {key: tensors[at] for key, at in row["inputs"].items()}
        temperature = row["kwargs"].get("temperature", 1.0)
        sides = [next((v for k, v in inputs.items() if k.endswith(f"_{side}")), None) for side in "TS"]
        if "temperature" in inputs or any(x is None or x.dim() < 2 for x in sides):
            continue  # one temperature per sample is to come
        mask = inputs["mask"].bool() if "mask" in inputs else None
        if name == "attention_mse" and mask is None and min(x.min() for x in sides) <= -1e-3:
            continue  # without a mask TextBrewer sets such scores to zero
        options = {"T": temperature} if name.startswith("kd_") else {}
        found = loss(ROWS[name][0], *[x.double() for x in sides], ROWS[name][1], mask, **options)
        torch.testing.assert_close(found, tensors[row["out"]].double(), rtol=2e-6, atol=1e-7)
        compared += 1
    assert compared > 0, f"no recorded call of {name} was compared"


class Crossed(Padded):
    """A layout whose Gram matrix is that of two states, stacked along a first axis."""

    @staticmethod
    def gram(x_2BLH: torch.Tensor) -> torch.Tensor:
        """Inner products of the first state's tokens with the second's: (B, L, L)."""
        return x_2BLH[0] @ x_2BLH[1].transpose(-1, -2)


def test_recorded_neuron_selectivity(recorded: tuple[list[dict[str, Any]], dict[str, torch.Tensor]]) -> None:
    """Recorded between two layers of each model; ours is the case where both are one layer, by the same formula."""
    rows, tensors = recorded
    compared = [row for row in rows if row["op"] == "nst"]
    for row in compared:
        source, target = (torch.stack([tensors[x].double() for x in row["inputs"][f"state_{side}"]]) for side in "TS")
        layout = Crossed(tensors[row["inputs"]["mask"]].bool() if "mask" in row["inputs"] else None)
        values = OPERATIONS["nst"].function(source, target, layout=layout)
        count = values.numel() if layout.mask_BL is None else layout.count("pair")
        torch.testing.assert_close(
            layout.sum(values, "pair") / count, tensors[row["out"]].double(), rtol=2e-6, atol=1e-7
        )
    assert len(compared) == 3
