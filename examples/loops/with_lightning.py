"""The distiller inside a `LightningModule`: `pip install lightning`.

python examples/loops/with_lightning.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from task import STEPS, load, make_optimizer  # the file beside this one

import brewgraph as bg


class Distillation(lightning.LightningModule):
    """A distiller, with its loss as the loss of a step."""

    def __init__(self, recipe: bg.Recipe):
        super().__init__()
        self.distiller = recipe.build()
        self.losses: list[float] = []

    def on_fit_start(self) -> None:
        self.distiller.to(self.device)  # with its teachers, which are beside the module

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        self.distiller.progress = self.global_step / STEPS  # `ramp` depends on it
        output = self.distiller(batch)
        self.log_dict({name: term.detach() for name, term in output.terms.items()})
        self.losses.append(output.loss.item())
        loss: torch.Tensor = output.loss
        return loss

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.log("dev_loss", self.distiller(batch).loss, batch_size=len(batch["index"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.distiller)


def main(folder: Path) -> list[float]:
    """Train for two epochs; returns the loss of each step."""
    recipe = load(folder)
    module, loaders = Distillation(recipe), recipe.dataloaders()
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="auto",
        default_root_dir=folder,
        enable_checkpointing=False,  # keep the student: module.distiller.student.save_pretrained(...)
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the order of rows is the recipe's
    )
    trainer.fit(module, loaders["train"], loaders["dev"])
    return module.losses


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(", ".join(f"{loss:.4f}" for loss in main(Path(scratch))))
