"""brewgraph's Distiller on given models and batches, for a race beside other loops.

A race calls `make(context)` once and `step(batch, key)` per batch. The context has `teachers`, `student()`, `projs()`
(the same initial weights for every contestant), `ms` (matches: layers of both sides and a loss each) and `w`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import brewgraph as bg

SIZES = {
    "T3": "num_hidden_layers=3",
    "T4tiny": "num_hidden_layers=4, hidden_size=312, intermediate_size=1200, num_attention_heads=12",
}
SPEC = """brew 1
{teachers}
student tiny = hf(model_type="bert", vocab_size=30522, labels=["a", "b", "c"], task="sequence-classification", {size})
data d = files(train="rows.jsonl", batch=16, max_length=128)
soft = ce({logits} -> tiny.logits, T=8)
loss = soft{matches}
train {{ epochs = 1 }}
"""
TEACHER = (
    'teacher {name} = hf(model_type="bert", vocab_size=30522, labels=["a", "b", "c"], task="sequence-classification")'
)


def equation(match: Mapping[str, Any]) -> str:
    """A match as a term."""
    first = lambda layers: layers[0] if isinstance(layers, list) else layers  # noqa: E731
    via = " via linear" if "proj" in match else ""
    name = "nst" if match["loss"] == "mmd" else "mse"
    return f"{name}(t0.hidden[{first(match['layer_T'])}] -> tiny.hidden[{first(match['layer_S'])}]{via})"


class Contestant:
    """One student, trained by the Distiller, AdamW and nothing else."""

    def __init__(self, context: Any, *, precision: str = "fp32", skip: tuple[str, ...] = ()):
        self.precision = precision
        self.cache: dict[Any, Tensor] = {}
        names = [f"t{i}" for i in range(len(context.teachers))]
        logits = f"mean([{', '.join(f'{name}.logits' for name in names)}])" if len(names) > 1 else "t0.logits"
        with tempfile.TemporaryDirectory() as folder:
            rows = [{"text": "a b c", "label": label} for label in "abc"]
            (Path(folder) / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            spec = Path(folder) / "race.brew"
            spec.write_text(
                SPEC.format(
                    teachers="\n".join(TEACHER.format(name=name) for name in names),
                    size=SIZES[context.w["student"]],
                    logits=logits,
                    matches="".join(f"\n    + {equation(match)}" for match in context.ms),
                )
            )
            modules = dict(zip(names, context.teachers, strict=True))
            self.distiller = bg.load(spec).build(**modules, tiny=context.student().train(), skip=skip)
        projections = [p for p in context.projs() if p is not None]
        for own, given in zip(self.distiller.projections.values(), projections, strict=True):
            own.load_state_dict(linear_state(own, given))
        self.distiller.train()
        self.optimizer = torch.optim.AdamW(self.distiller.parameters(), lr=1e-5, fused=True)

    def step(self, batch: Mapping[str, Tensor], key: Any = None) -> float:
        """One optimizer step; the loss before it."""
        longest = int(batch["attention_mask"].sum(1).max())
        batch = {name: value[:, :longest] for name, value in batch.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.distiller(batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


def linear_state(own: nn.Module, given: nn.Linear) -> dict[str, Tensor]:
    """The weights of a linear map, by the names of a projection."""
    weights = given.state_dict()
    return {name: weights[name.rpartition(".")[2]] for name in own.state_dict()}


def make(context: Any) -> Contestant:
    return Contestant(context)


def make_padded(context: Any) -> Contestant:
    return Contestant(context, skip=("pack_tokens",))


def make_bf16(context: Any) -> Contestant:
    return Contestant(context, precision="bf16")
