"""The distiller inside `transformers.Trainer`.

    python examples/transformers_trainer.py

`Trainer` provides devices, callbacks and checkpoints; the spec provides the loss. The subclass adds what a `Trainer`
cannot know: a batch is passed to the model as one dictionary; predictions are the student's logits; checkpoints hold
the student as transformers saves it, which handles tied weights, and the projections; the best checkpoint is loaded
from there, too. A callback sets the progress that schedules depend on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, load_model, save_file
from transformers import BertConfig, BertForMaskedLM, EvalPrediction, Trainer, TrainerCallback, TrainingArguments

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


MASK_ID = 4


class TellProgress(TrainerCallback):
    """Sets what `ramp` depends on: the optimizer steps done, as a fraction of all."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        model.progress = state.global_step / state.max_steps


class DistillationTrainer(Trainer):
    """A `Trainer` whose model is a `brewgraph` distiller."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        output = model(inputs)
        return (output.loss, output) if return_outputs else output.loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The distillation loss, the student's logits and the labels of a batch; `compute_metrics` gets the last two.

        A distiller's output holds the loss and its terms, not the logits: the student runs alone for them.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
            if prediction_loss_only:
                return loss, None, None
            student = self.accelerator.unwrap_model(model).student
            logits = student(**{name: value for name, value in inputs.items() if name != "labels"}).logits
        return loss, logits.float(), inputs.get("labels")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        distiller, folder = self.accelerator.unwrap_model(self.model), Path(output_dir or self.args.output_dir)
        distiller.student.save_pretrained(folder / "student")
        projections = {name: value.contiguous() for name, value in distiller.projections.state_dict().items()}
        save_file(projections, folder / "projections.safetensors")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        distiller, folder = self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint)
        # strict; reads tied weights once
        load_model(distiller.student, str(folder / "student" / "model.safetensors"))
        distiller.projections.load_state_dict(load_file(folder / "projections.safetensors"))

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def masked_lm(width: int, layers: int) -> BertForMaskedLM:
    """A small BERT whose output layer is tied to its embeddings."""
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForMaskedLM(BertConfig(vocab_size=100, max_position_embeddings=32, **sizes, **quiet))


def make_rows(count: int) -> list[dict[str, torch.Tensor]]:
    """Random token ids, two of ten masked; labels are the ids at the masked positions and -100 elsewhere."""
    ids = torch.randint(5, 100, (count, 10))
    masked = torch.zeros_like(ids, dtype=torch.bool)
    masked[:, [2, 7]] = True
    inputs, labels = ids.masked_fill(masked, MASK_ID), ids.masked_fill(~masked, -100)
    return [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": label}
        for row, label in zip(inputs, labels, strict=True)
    ]


def compute_metrics(p: EvalPrediction) -> dict[str, float]:
    """The cross-entropy and the accuracy of the student at the masked positions."""
    chosen = p.label_ids != -100
    logits, labels = p.predictions[chosen].astype(numpy.float64), p.label_ids[chosen]
    log_normalizer = numpy.log(numpy.exp(logits).sum(-1))
    return {
        "cross_entropy": float((log_normalizer - logits[numpy.arange(len(labels)), labels]).mean()),
        "accuracy": float((logits.argmax(-1) == labels).mean()),
    }


def make_trainer(folder: Path, steps: int = 6) -> DistillationTrainer:
    """A trainer on random token ids that evaluates and writes a checkpoint every two steps."""
    torch.manual_seed(0)
    distiller = bg.loads(SPEC).build(big=masked_lm(32, 3), tiny=masked_lm(16, 1))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="cross_entropy",  # not `loss`: with a `ramp`, losses of two steps are not comparable
        greater_is_better=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,  # the distiller's forward takes a batch, not named columns
        label_names=["labels"],
        logging_nan_inf_filter=False,  # show losses that are not finite
        ddp_find_unused_parameters=False,
    )
    return DistillationTrainer(
        model=distiller,
        args=arguments,
        train_dataset=make_rows(32),
        eval_dataset=make_rows(12),
        compute_metrics=compute_metrics,
        callbacks=[TellProgress()],
    )


def main(folder: Path) -> list[float]:
    """Train, then train again from the first checkpoint: the losses and metrics are equal. Returns the first losses."""
    trainer = make_trainer(folder)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    print("losses:", ", ".join(f"{loss:.4f}" for loss in losses))
    print(f"best: {Path(trainer.state.best_model_checkpoint).name}, cross-entropy {trainer.state.best_metric:.4f}")

    again = make_trainer(folder)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    resumed = [line["loss"] for line in again.state.log_history if "loss" in line]
    assert resumed == losses
    assert again.state.best_metric == trainer.state.best_metric

    student = again.model.student  # the best one
    assert student.cls.predictions.decoder.weight is student.bert.embeddings.word_embeddings.weight, "still tied"
    return losses


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
