"""A plain torch loop over the batches of the run.

python examples/loops/plain.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from task import STEPS, load, make_optimizer  # the file beside this one


def main(folder: Path) -> list[float]:
    """Train for two epochs; returns the loss of each step."""
    recipe = load(folder)
    distiller, loaders = recipe.build(), recipe.dataloaders()
    optimizer = make_optimizer(distiller)
    losses: list[float] = []
    while len(losses) < STEPS:
        for batch in loaders["train"]:  # each iteration over it is the next epoch
            distiller.progress = len(losses) / STEPS  # `ramp` depends on it
            loss = distiller(batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    distiller.release()  # removes the hooks: distiller.student.save_pretrained(...)
    return losses


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(", ".join(f"{loss:.4f}" for loss in main(Path(scratch))))
