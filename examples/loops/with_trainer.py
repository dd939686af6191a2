"""The distiller inside `transformers.Trainer`, on the batches of the run.

    python examples/loops/with_trainer.py

`Trainer` takes a distiller as it takes a model: it calls `distiller(**batch)`. `../transformers_trainer.py` also saves
and loads checkpoints, and scores the student.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from task import STEPS, load, make_optimizer  # the file beside this one
from torch.optim.lr_scheduler import ConstantLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

import brewgraph as bg


class TellProgress(TrainerCallback):
    """Sets what `ramp` depends on: the optimizer steps done, as a fraction of all."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        model.progress = state.global_step / state.max_steps


class DistillationTrainer(Trainer):
    """A `Trainer` on the batches of a recipe, which shuffles and collates them itself."""

    def __init__(self, recipe: bg.Recipe, arguments: TrainingArguments):
        distiller, self.loaders = recipe.build(), recipe.dataloaders()
        optimizer = make_optimizer(distiller)
        constant = ConstantLR(optimizer, factor=1.0)
        super().__init__(distiller, arguments, optimizers=(optimizer, constant), callbacks=[TellProgress()])

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = self.accelerator.prepare(self.loaders["train"])
        return loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        loader: DataLoader[Any] = self.accelerator.prepare(self.loaders["dev"])
        return loader


def main(folder: Path) -> list[float]:
    """Train for two epochs; returns the loss of each step."""
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=STEPS,
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,  # a distiller takes a batch, not columns named in its forward
        label_names=["labels"],  # so that an evaluation computes the loss
        prediction_loss_only=True,
    )
    trainer = DistillationTrainer(load(folder), arguments)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(", ".join(f"{loss:.4f}" for loss in main(Path(scratch))))
