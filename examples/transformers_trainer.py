"""The distiller inside `transformers.Trainer`.

    python examples/transformers_trainer.py

`Trainer` brings its devices, callbacks and checkpoints; the spec brings the loss. Three things are ours: batches go to
the model as one dictionary, progress is told to schedules, and checkpoints hold the student as plain transformers saves
it (so that tied weights are its business) beside the projections.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainerCallback, TrainingArguments

import brewgraph as bg

SPEC = """brew 1
teacher big = hf(model_type="bert", task="masked-lm", hidden_size=32, num_hidden_layers=3, num_attention_heads=2)
student tiny = hf(model_type="bert", task="masked-lm", hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
data docs = builtin("python-docs", batch=8)

let map = [0, 3] -> [0, 1]
soft   = kd(big.logits -> tiny.logits, T=2)
hidden = mse(big.hidden[map] -> tiny.hidden[map] via linear)
loss   = ramp(1 -> 0.5) * soft + sum(hidden)
"""


class TellProgress(TrainerCallback):
    """What `ramp` goes by: optimizer steps done, of all."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        model.progress = state.global_step / state.max_steps


class DistillationTrainer(Trainer):
    """A `Trainer` whose model is a `brewgraph` distiller."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        output = model(inputs)
        return (output.loss, output) if return_outputs else output.loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        distiller, folder = self.accelerator.unwrap_model(self.model), Path(output_dir or self.args.output_dir)
        distiller.student.save_pretrained(folder / "student")
        projections = {name: value.contiguous() for name, value in distiller.projections.state_dict().items()}
        save_file(projections, folder / "projections.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        distiller, folder = self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint)
        # strict, and weights that are tied are read once
        load_model(distiller.student, str(folder / "student" / "model.safetensors"))
        distiller.projections.load_state_dict(load_file(folder / "projections.safetensors"))


def masked_lm(width: int, layers: int) -> BertForMaskedLM:
    """A small BERT whose output layer is tied to its embeddings."""
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForMaskedLM(BertConfig(vocab_size=100, max_position_embeddings=32, **sizes, **quiet))


def make_trainer(folder: Path, steps: int = 6) -> DistillationTrainer:
    """A trainer on random token ids that writes a checkpoint in the middle."""
    torch.manual_seed(0)
    distiller = bg.loads(SPEC).build(big=masked_lm(32, 3), tiny=masked_lm(16, 1))
    ids = torch.randint(5, 100, (32, 10))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        logging_steps=1,
        save_steps=steps // 2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,  # the distiller's forward takes a batch, and names no column
        label_names=["labels"],
        logging_nan_inf_filter=False,  # a loss that is no number is to be seen
        ddp_find_unused_parameters=False,
    )
    return DistillationTrainer(model=distiller, args=arguments, train_dataset=rows, callbacks=[TellProgress()])


def main(folder: Path) -> list[float]:
    """Train, and train again from the middle: the losses of both are the same. Returns those of the first."""
    trainer = make_trainer(folder / "first")
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]

    again = make_trainer(folder / "first")
    again.train(resume_from_checkpoint=str(folder / "first" / "checkpoint-3"))
    resumed = [line["loss"] for line in again.state.log_history if "loss" in line]
    print("losses:", ", ".join(f"{loss:.4f}" for loss in losses))
    assert resumed == losses

    student = again.model.student
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight, "still tied"
    return losses


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
