"""What the loops of this folder share: small data, models with random weights, and the spec that they train."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch

import brewgraph as bg

SPEC = """brew 1
teacher big = hf(model_type="bert", hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
                 labels=["bad", "good"])  # brew: ignore[W302] an example without a trained model
student tiny = hf(model_type="bert", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                  labels=["bad", "good"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=8, max_length=32)

let map = [0, 2, 4] -> [0, 1, 2]
soft   = kd(big.logits -> tiny.logits, T=2)
hard   = ce(d.labels -> tiny.logits)
hidden = mse(big.hidden[map] -> tiny.hidden[map] via linear)
loss   = ramp(1 -> 0.5) * sum(hidden) + 0.9 * soft + 0.1 * hard

train {
    steps = 12
    optimizer = adamw(lr=5e-3, weight_decay=0.0)
    schedule = constant
    max_grad_norm = none
    logging_steps = 1
}
"""
STEPS = 12
GOOD, BAD = ("fine", "lovely", "sharp", "warm"), ("dull", "flat", "weak", "cold")


def write_rows(path: Path, count: int, seed: int) -> None:
    """Reviews of a few words, good or bad by one of them."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label = chance.choice(["bad", "good"])
        telling = chance.choice(GOOD if label == "good" else BAD)
        words = [telling, *chance.choices(["a", "film", "with", "much", "talk"], k=chance.randint(2, 9))]
        rows.append({"text": " ".join(words), "label": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def load(folder: Path) -> bg.Recipe:
    """The recipe, with its data in `folder`: 48 rows to train on, six batches an epoch."""
    write_rows(folder / "train.jsonl", 48, seed=0)
    write_rows(folder / "dev.jsonl", 16, seed=1)
    (folder / "spec.brew").write_text(SPEC, encoding="utf-8")
    return bg.load(folder / "spec.brew")


def make_optimizer(distiller: torch.nn.Module) -> torch.optim.Optimizer:
    """That of the spec, for the student and its projections; fused, as a run's is on a CPU."""
    return torch.optim.AdamW(distiller.parameters(), lr=5e-3, weight_decay=0.0, fused=True)
