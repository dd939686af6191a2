"""Distillation in your own training loop: the spec defines the loss; the rest of the loop is unchanged.

    python examples/own_loop.py

Two small models with random weights stand in for your teacher and student, random token ids for your batches.
"""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForSequenceClassification

import brewgraph as bg

SPEC = """brew 1
teacher bert = hf(model_type="bert", hidden_size=32, num_hidden_layers=4, num_attention_heads=2, labels=["no", "yes"])
student tiny = hf(model_type="bert", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, labels=["no", "yes"])
data docs = builtin("python-docs", batch=8)

let map = [0, 2, 4] -> [0, 1, 2]
soft   = kd(bert.logits -> tiny.logits, T=2)
hidden = mse(bert.hidden[map] -> tiny.hidden[map] via linear)
loss   = ramp(1 -> 0.2) * sum(hidden) + soft
"""


def classifier(width: int, layers: int) -> BertForSequenceClassification:
    """A small BERT of your own."""
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=100, max_position_embeddings=32, **sizes))


def main(steps: int = 20) -> list[float]:
    """Train for some steps; returns the losses."""
    torch.manual_seed(0)
    recipe = bg.loads(SPEC)
    # keywords are the spec's model names; models you omit are loaded as the spec says
    distiller = recipe.build(bert=classifier(32, 4), tiny=classifier(16, 2))
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=5e-3)  # student and projections, never the teacher
    ids = torch.randint(5, 100, (8, 12))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    losses = []
    for step in range(steps):
        distiller.progress = step / steps  # `ramp` depends on this
        output = distiller(batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
        if step % 5 == 0:
            terms = ", ".join(f"{name} {float(term.detach()):.4f}" for name, term in output.terms.items())
            print(f"step {step}: loss {losses[-1]:.4f} ({terms})")
    distiller.release()  # removes all hooks from the student: distiller.student.save_pretrained(...)
    return losses


if __name__ == "__main__":
    main()
