"""`mask=none` in a spec: TextBrewer's losses that have no mask, and its softmax over padded keys, number by number."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brewgraph.recipe.features import Feature, Shape
from tests.recipe.specs import FakeFacts
from tests.runtime.given import HEAD, bench_of, said

SPELLED = {
    "kd_ce": "ce({T}.logits -> {S}.logits, T=TEMPERATURE, mask=none)",
    "kd_mse": "mse({T}.logits -> {S}.logits, T=TEMPERATURE, mask=none)",
    "attention_mse": "mse({T}.scores[0] -> {S}.scores[0], mask=none)",
    "attention_mse_sum": "mse(head_sum({T}.scores[0]) -> head_sum({S}.scores[0]), mask=none)",
    "attention_ce": "ce(probabilities({T}.scores[0], mask=none) -> probabilities({S}.scores[0], mask=none), mask=none)",
    "attention_ce_mean": "ce(probabilities(head_mean({T}.scores[0]), mask=none)"
    " -> probabilities(head_mean({S}.scores[0]), mask=none), mask=none)",
    "hidden_mse": "mse({T}.hidden[0] -> {S}.hidden[0], mask=none)",
    "cos": "cos({T}.hidden[0] -> {S}.hidden[0], mask=none)",
    "pkd": "pkd({T}.hidden[0] -> {S}.hidden[0], mask=none)",
    "fsp": "fsp(({T}.hidden[0], {T}.hidden[1]) -> ({S}.hidden[0], {S}.hidden[1]), mask=none)",
    "nst": "nst(({T}.hidden[0], {T}.hidden[1]) -> ({S}.hidden[0], {S}.hidden[1]), mask=none)",
}
"""Each loss as a spec writes it where TextBrewer is given no mask."""

SOFTMAX_OVER_ALL = ("attention_ce", "attention_ce_mean")
"""With a mask these, too, take a softmax over all keys, and leave the padded ones out afterwards."""


@dataclass(frozen=True)
class Recorded(FakeFacts):
    """What the recorded tensors tell of a model."""

    layers: int = 2
    width: int = 0
    shapes: dict[str, Shape] = field(default_factory=dict)

    def shape(self, feature: Feature) -> Shape:
        """As recorded, whatever its index."""
        return self.shapes[feature.name]


def features_of(call: dict[str, Any], tensors: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """The inputs of a call as features of two models."""
    found: dict[tuple[str, str], Tensor] = {}
    for name, at in call["inputs"].items():
        kind, _, side = name.rpartition("_")
        if side not in ("S", "T"):
            continue
        feature = {"logits": "logits", "attention": "scores", "state": "hidden"}[kind]
        for i, place in enumerate(at if isinstance(at, list) else [at]):
            x = tensors[place]
            if feature == "hidden" and x.dim() == 2:
                feature = "pooled"
            index = "" if feature in ("logits", "pooled") else f"[{i}]"
            found[{"S": "tiny", "T": "big"}[side], feature + index] = x
    return found


def shape_of(name: str, x: Tensor) -> Shape:
    """A feature's shape with its symbols."""
    if x.dim() == 4:
        return ("batch", x.shape[1], "length", "length")
    return ("batch", "length", x.shape[2]) if x.dim() == 3 else ("batch", x.shape[1])


def compute(loss: str, values: dict[tuple[str, str], Tensor], mask: Tensor) -> Tensor:
    """A loss of these features through spec, graph and program."""
    facts = {
        role: Recorded(shapes={n.partition("[")[0]: shape_of(n, x) for (of, n), x in values.items() if of == model})
        for role, model in (("teacher", "big"), ("student", "tiny"))
    }
    bench = bench_of(HEAD.format(labels="class") + f"loss = {loss}\n", facts)
    return bench.run(values, {"attention_mask": mask, "labels": torch.zeros(len(mask), dtype=torch.long)})


def spelled(call: dict[str, Any], values: dict[tuple[str, str], Tensor]) -> str:
    """The loss of a recorded call."""
    loss = SPELLED[call["op"]].format(T="big", S="tiny")
    loss = loss.replace("TEMPERATURE", f"{call['kwargs'].get('temperature', 1.0):g}")
    return loss.replace("hidden[0]", "pooled") if ("big", "pooled") in values else loss


def test_losses_without_a_mask(shared: Path) -> None:
    """The batch has padding, and what is recorded has counted it: the numbers are the recorded ones to a millionth.

    Rows in which TextBrewer wipes genuine scores, and those with a temperature that is a tensor, no spec can write.
    """
    from safetensors.torch import load_file

    tensors = load_file(shared / "ops.safetensors")
    compared = set()
    for row, call in enumerate(json.loads((shared / "ops.json").read_text())):
        values = features_of(call, tensors)
        wiped = call["op"].startswith("attention") and bool((next(iter(values.values())) <= -1e-3).any())
        if call["op"] not in SPELLED or {"mask", "temperature"} & call["inputs"].keys() or wiped:
            continue
        first = next(iter(values.values()))
        mask = torch.ones(len(first), first.shape[-2] if first.dim() > 2 else 3, dtype=torch.long)
        mask[0, 1:] = 0
        loss = spelled(call, values)
        expected = tensors[call["out"]]
        torch.testing.assert_close(
            compute(loss, values, mask), expected, rtol=1e-6, atol=0, msg=said(f"row {row}: {loss}")
        )
        compared.add(call["op"])
        if first.dim() > 2 and call["op"] != "pkd":
            masked = compute(loss.replace(", mask=none", ""), values, mask)
            assert abs(float(masked / expected) - 1) > 1e-5, f"row {row}: {loss}"
    assert compared == SPELLED.keys()


def test_a_softmax_over_padded_keys(shared: Path) -> None:
    """`mask=none` on the transform alone: the loss still leaves padding out, as TextBrewer's does with a mask.

    Where the padded scores are those of a model, so low that a softmax gives them nothing, both softmaxes are one.
    """
    from safetensors.torch import load_file

    tensors = load_file(shared / "ops.safetensors")
    compared, others = 0, set()
    for call in json.loads((shared / "ops.json").read_text()):
        if call["op"] not in SOFTMAX_OVER_ALL or "mask" not in call["inputs"]:
            continue
        values, mask = features_of(call, tensors), tensors[call["inputs"]["mask"]]
        loss = spelled(call, values).removesuffix(", mask=none)") + ")"
        expected = tensors[call["out"]]
        torch.testing.assert_close(compute(loss, values, mask), expected, rtol=1e-6, atol=0)
        if abs(float(compute(loss.replace(", mask=none", ""), values, mask) / expected) - 1) > 1e-3:
            others.add(call["op"])
        compared += 1
    assert compared >= len(others) == len(SOFTMAX_OVER_ALL)
