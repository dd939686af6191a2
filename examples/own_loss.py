"""A loss of your own in one decorated function, used in a spec like any other.

    python examples/own_loss.py

The function gets both sides and returns one value per unit, here per token. brewgraph masks padding, averages over the
tokens of the global batch, and computes in full precision.
"""

from __future__ import annotations

from typing import Any

import torch

import brewgraph as bg
from brewgraph.ops import operation

from own_loop import classifier  # isort: skip  # the example beside this one


@operation(
    takes={"hidden -> hidden": "token"},
    same=("width",),
    source="Huber 1964, doi:10.1214/aoms/1177703732",
    beta=("number", "where the square turns into a straight line"),
)
def huber(source: Any, target: Any, *, beta: Any = 1.0) -> Any:
    """Huber's loss: half the square below `beta`, a straight line above; the mean over the width of each token."""
    return torch.nn.functional.huber_loss(target, source, reduction="none", delta=beta).mean(-1)


SPEC = """brew 1
teacher bert = hf(model_type="bert", hidden_size=32, num_hidden_layers=4, num_attention_heads=2, labels=["no", "yes"])
student tiny = hf(model_type="bert", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, labels=["no", "yes"])
data docs = builtin("python-docs", batch=8)

let map = [0, 4] -> [0, 2]
hidden = huber(bert.hidden[map] -> tiny.hidden[map] via linear, beta=0.5)
loss   = sum(hidden)
"""


def main() -> torch.Tensor:
    """The loss on one batch with padding; values in the padding do not count."""
    torch.manual_seed(0)
    distiller = bg.loads(SPEC).build(bert=classifier(32, 4), tiny=classifier(16, 2))
    ids = torch.randint(5, 100, (4, 10))
    mask = torch.ones_like(ids)
    mask[0, 3:] = 0
    output = distiller.eval()({"input_ids": ids, "attention_mask": mask})
    output.loss.backward()
    print(f"loss {output.loss.item():.4f}")
    loss: torch.Tensor = output.loss.detach()
    return loss


if __name__ == "__main__":
    main()
