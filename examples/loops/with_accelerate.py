"""The same loop with accelerate, which chooses the device, the precision and the processes.

    accelerate launch examples/loops/with_accelerate.py

Of several processes each gets batches of its own. Then one step is several batches; `recipe.run()` under the same
launcher divides each batch among the processes, so that a step stays what it is.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from accelerate import Accelerator
from task import STEPS, load, make_optimizer  # the file beside this one


def main(folder: Path) -> list[float]:
    """Train for two epochs; returns the loss of each step."""
    accelerator, recipe = Accelerator(), load(folder)
    distiller = recipe.build()
    model, optimizer, batches = accelerator.prepare(distiller, make_optimizer(distiller), recipe.dataloaders()["train"])
    losses: list[float] = []
    while len(losses) < STEPS:
        for batch in batches:
            distiller.progress = len(losses) / STEPS
            loss = model(batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(", ".join(f"{loss:.4f}" for loss in main(Path(scratch))))
