"""brewgraph's Distiller on given models and batches, for a race beside other loops.

A race calls `make(context)` once and `step(batch, key)` per batch. The context has `teachers`, `student()`, `projs()`
(the same initial weights for every contestant), `ms` (matches: layers of both sides and a loss each) and `w`.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import brewgraph as bg
from brewgraph.graph.scalars import Horizon

SIZES = {
    "T3": "num_hidden_layers=3",
    "T4tiny": "num_hidden_layers=4, hidden_size=312, intermediate_size=1200, num_attention_heads=12",
}
SPEC = """brew 1
{teachers}
student tiny = hf(model_type="bert", vocab_size=30522, labels=["a", "b", "c"], task="sequence-classification", {size})
data d = files(train="rows.jsonl", batch=16, max_length=128)
{caches}
soft = ce({logits} -> tiny.logits, T=8)
loss = soft{matches}
train {{ epochs = 1 }}
"""
TEACHER = (
    'teacher {name} = hf(model_type="bert", vocab_size=30522, labels=["a", "b", "c"], task="sequence-classification")'
)


def layer(match: Mapping[str, Any], side: str) -> int:
    """The layer of one side of a match, which may be given twice."""
    layers = match[f"layer_{side}"]
    return int(layers[0] if isinstance(layers, list) else layers)


def equation(match: Mapping[str, Any], *, cached: bool) -> str:
    """A match as a term."""
    name = "nst" if match["loss"] == "mmd" else "mse"
    source = f"kept_{layer(match, 'T')}" if cached else f"t0.hidden[{layer(match, 'T')}]"
    return f"{name}({source} -> tiny.hidden[{layer(match, 'S')}]{' via linear' if 'proj' in match else ''})"


class Contestant:
    """One student, trained by the Distiller, AdamW and nothing else.

    `teachers` is the number format of their weights. With a `store`, what they compute is read from disk in the format
    that it names: the race fills it outside of its clock, through `T`, or gives the logits in `cache`.
    """

    def __init__(
        self,
        context: Any,
        *,
        precision: str = "fp32",
        teachers: torch.dtype = torch.float32,
        store: str | None = None,
        skip: tuple[str, ...] = (),
    ):
        self.precision, self.is_given = precision, context.w["cache"]
        self.cache: dict[Any, Any] = {}
        self.T, self.tt = [self._fill], [0]
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        names = [f"t{i}" for i in range(len(context.teachers))]
        logits = f"mean([{', '.join(f'{name}.logits' for name in names)}])" if len(names) > 1 else "t0.logits"
        store = store or ("fp32" if context.w["cache"] else None)
        layers = sorted({layer(match, "T") for match in context.ms})
        kept = {"kept": logits} | {f"kept_{i}": f"t0.hidden[{i}]" for i in layers}
        rows = [{"text": "a b c", "label": label} for label in "abc"]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        caches = [f'cache {name} = {value} at "store" as {store}' for name, value in kept.items()]
        (folder / "race.brew").write_text(
            SPEC.format(
                teachers="\n".join(TEACHER.format(name=name) for name in names),
                size=SIZES[context.w["student"]],
                caches="\n".join(caches) if store else "",
                logits="kept" if store else logits,
                matches="".join(f"\n    + {equation(match, cached=store is not None)}" for match in context.ms),
            )
        )
        given = [copy.deepcopy(x).to(teachers) for x in context.teachers]
        modules = dict(zip(names, given, strict=True))
        self.distiller = bg.load(folder / "race.brew").build(**modules, tiny=context.student().train(), skip=skip)
        projections = [p for p in context.projs() if p is not None]
        for own, other in zip(self.distiller.projections.values(), projections, strict=True):
            own.load_state_dict(linear_state(own, other))
        self.distiller.train()
        self.optimizer = torch.optim.AdamW(self.distiller.parameters(), lr=1e-5, fused=True)
        self.device = next(self.distiller.parameters()).device.type

    def _fill(self, ids: Tensor, types: Tensor, index: Any, taps: Any) -> tuple[dict[int, Tensor], Tensor]:
        """As `fill`, for packed tokens, whose examples have the lengths `index.lens`."""
        batch = {"input_ids": ids, "token_type_ids": types, "attention_mask": torch.ones_like(ids)}
        pad = torch.nn.utils.rnn.pad_sequence
        self.fill({key: pad(x.split(index.lens), batch_first=True) for key, x in batch.items()})
        return {}, torch.zeros(())

    def fill(self, batch: Mapping[str, Tensor]) -> None:
        """Write what the teachers compute for a batch."""
        with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            self.distiller(batch)

    def _keep(self, batch: Mapping[str, Tensor], logits: Tensor) -> None:
        """Write logits that the race gives, so that the step reads them from disk; inside the clock."""
        program = self.distiller.program
        (kept,) = program.caches
        step = program._begin(batch, 0.0, Horizon())
        if not kept.find(step, {}):
            step.slots[kept.slot] = logits
            kept.keep(step)

    def step(self, batch: Mapping[str, Tensor], key: Any = None) -> float:
        """One optimizer step; the loss before it."""
        longest = int(batch["attention_mask"].sum(1).max())
        batch = {name: value[:, :longest] for name, value in batch.items()}
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.is_given:
                self._keep(batch, self.cache[key])
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
    return Contestant(context, precision="bf16", teachers=torch.bfloat16)


def make_ep2(context: Any) -> Contestant:
    return Contestant(context, store="bf16")


def make_bf16_ep2(context: Any) -> Contestant:
    return Contestant(context, precision="bf16", teachers=torch.bfloat16, store="bf16")
