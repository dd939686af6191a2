"""Every call recorded from TextBrewer, number by number, to a millionth.

Two of its ways are faults that no operation here has. Their rows are compared all the same, with the fault brought into
what the operation gets, so that it is seen to be the only difference.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from brewgraph.ops import TEMPERATURES, TRANSFORMS
from brewgraph.runtime.layouts import Padded
from tests.ops.test_ops import loss

Row = dict[str, Any]

WIPED = "without a mask TextBrewer takes every score up to -0.001 for a masked one, so that genuine scores are lost"
BY_PADDING = "TextBrewer's packaged release divides by the padded length, so that the loss changes with the padding"
ROWS = 51
"""How many calls a recording has, whatever numbers they are made with."""
COUNTED = {
    "kd_ce": 7, "kd_mse": 4, "attention_mse": 4, "attention_mse_sum": 4, "attention_ce": 4, "attention_ce_mean": 4,
    "hidden_mse": 2, "cos": 2, "pkd": 3, "fsp": 2, "nst": 3, "nst_by_length": 3, "flsw": 3, "cwsm": 3,
    "probability_shift": 2, "select_logits": 1,
}  # fmt: skip
FAULTY = {
    "attention_mse": 1, "attention_mse_sum": 1, "attention_ce": 1, "attention_ce_mean": 1, "nst_by_length": 2,
}  # fmt: skip
"""How many of them a fault makes."""


def fault_of(call: Row, inputs: dict[str, Any]) -> str:
    """The fault of TextBrewer that makes a call's number; empty where none does."""
    if call["op"].startswith("attention_") and "mask" not in inputs:
        return WIPED if any((x <= -1e-3).any() for x in inputs.values()) else ""
    return BY_PADDING if call["op"] == "nst_by_length" and "mask" in inputs else ""


@pytest.fixture(scope="module")
def recorded(shared: Path) -> tuple[list[Row], dict[str, Tensor]]:
    """The recorded calls and their tensors."""
    from safetensors.torch import load_file

    return json.loads((shared / "ops.json").read_text()), load_file(shared / "ops.safetensors")


class PaddedLength(Padded):
    """A layout whose examples all count as long as the batch: TextBrewer's divisor."""

    def lengths(self, x_BL_: Tensor) -> Tensor:
        """The padded length for every example."""
        return x_BL_.new_full((len(x_BL_),), x_BL_.shape[1])


def transformed(name: str, x: Tensor, mask: Tensor | None, **options: Any) -> Tensor:
    """What a transform makes of a value."""
    extra = {"layout": Padded(mask)} if TRANSFORMS[name].needs_layout else {}
    return TRANSFORMS[name].function(x, **options, **extra)


def attention(fault: str, name: str, unit: str, mask: Tensor | None, source: Tensor, target: Tensor) -> Tensor:
    """TextBrewer's four losses of attention, as a spec writes them.

    `mse(a -> b)`, `mse(head_sum(a) -> head_sum(b))`, `ce(probabilities(a) -> probabilities(b))` with `head_mean` where
    the name has `mean`. The softmax runs over all keys (`mask=none` on the transform).
    """
    heads = {"attention_mse_sum": "head_sum", "attention_ce_mean": "head_mean"}.get(name)
    if heads is not None:
        source, target = transformed(heads, source, mask), transformed(heads, target, mask)
    wiped = source <= -1e-3 if fault else torch.zeros_like(source, dtype=torch.bool)
    if "ce" in name:
        source, target = transformed("probabilities", source, None), transformed("probabilities", target, None)
    elif fault:
        target = target.masked_fill(target <= -1e-3, 0)
    source = source.masked_fill(wiped, 0)
    return loss("ce" if "ce" in name else "mse", source, target, unit, mask, kinds=("attention", "attention"))


def compute(fault: str, call: Row, inputs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Our number for a recorded call, and what to compare it with where that is not the recorded number itself."""
    name, options = call["op"], call["kwargs"]
    mask = inputs["mask"].bool() if "mask" in inputs else None
    # ours go from the teacher to the student
    target, source = (next((v for k, v in inputs.items() if k.endswith(f"_{side}")), None) for side in "ST")
    if name.startswith("kd_"):
        T = inputs.get("temperature", options.get("temperature"))
        return loss(name.removeprefix("kd_"), source, target, "token", None, T=T), None
    if name.startswith("attention_"):
        return attention(fault, name, "pair" if "mse" in name else "token", mask, source, target), None
    if name in ("flsw", "cwsm"):
        named = {k: v for k, v in options.items() if k != "base_temperature"}
        return TEMPERATURES[name].function(source, target, options["base_temperature"], **named), None
    if name == "probability_shift":
        return TRANSFORMS["shift"].function(inputs["tensor"], inputs["labels"]), None
    if name == "select_logits":
        # what a mask chooses, seen in a loss: its mean over the chosen ones
        other = inputs["logits"].flip(-1)
        ours = loss("ce", inputs["logits"], other, "token", mask)
        return ours, loss("ce", (chosen := call["recorded"]), chosen.flip(-1), "example", None)
    if name == "nst_by_length" and mask is None:
        name = "nst"  # without a mask the packaged release divides by the width, too
    ours, unit = {
        "hidden_mse": ("mse", "token"), "cos": ("cos", "token"), "pkd": ("pkd", "example"), "fsp": ("fsp", "example"),
        "nst": ("nst", "pair"), "nst_by_length": ("nst_by_length", "pair"),
    }[name]  # fmt: skip
    layout: Callable[..., Padded] = PaddedLength if fault == BY_PADDING else Padded
    return loss(ours, source, target, unit, mask, layout=layout(mask)), None


def call_of(row: int, recorded: tuple[list[Row], dict[str, Tensor]]) -> tuple[Row, dict[str, Any]]:
    """A recorded call with its number, and its inputs."""
    rows, tensors = recorded
    call = {**rows[row], "recorded": tensors[rows[row]["out"]]}
    return call, {
        key: tuple(tensors[x] for x in at) if isinstance(at, list) else tensors[at]
        for key, at in call["inputs"].items()
    }


@pytest.mark.parametrize("row", range(ROWS))
def test_recorded_values(row: int, recorded: tuple[list[Row], dict[str, Tensor]]) -> None:
    """Each call gives the recorded number, computed in single precision as it was recorded."""
    call, inputs = call_of(row, recorded)
    assert call["recorded"].dtype == torch.float32
    fault = fault_of(call, inputs)
    ours, expected = compute(fault, call, inputs)
    expected = call["recorded"] if expected is None else expected
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0, msg=lambda m: f"{call['op']}: {m}")
    if fault:
        without, _ = compute("", call, inputs)
        assert abs(float(without / expected) - 1) > 1e-3, "the fault is not ours, and without it the number is another"


def test_every_recorded_call_is_compared(recorded: tuple[list[Row], dict[str, Tensor]]) -> None:
    """No row is left out, and those with a fault are as many as are known."""
    rows, _ = recorded
    assert Counter(call["op"] for call in rows) == COUNTED
    assert sum(COUNTED.values()) == ROWS
    faults = [fault_of(*call_of(row, recorded)) for row in range(ROWS)]
    assert Counter(rows[row]["op"] for row, fault in enumerate(faults) if fault) == FAULTY
