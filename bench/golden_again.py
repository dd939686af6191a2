"""The recorded runs of TextBrewer once more, by TextBrewer itself: how far it is from its own recording.

    python bench/golden_again.py RECORDING [--threads N] [--reversed] [--optimizer loop|foreach|fused] [--only NAME ...]

RECORDING is the folder that `tests/golden` reads. `--reversed` adds up each product of a linear layer from its other
end: the same mathematics, rounded otherwise. A line for each run: how far losses are off, relatively; then the final
weights of the student, those that `tests/golden` compares, and biases that no softmax sees, trained by rounding.
Needs textbrewer 0.2.1 (`pip install textbrewer`).
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import textbrewer as tb
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

OVER = 1e-4


def main() -> None:
    """Train every run again, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reversed", action="store_true")
    parser.add_argument("--optimizer", choices=("loop", "foreach", "fused"))
    parser.add_argument("--only", nargs="+", default=[])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    logging.disable(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    options = {} if asked.optimizer is None else {x: x == asked.optimizer for x in ("foreach", "fused")}
    tb.presets.MATCH_LOSS_MAP |= {"mmd": by_width, "nst": by_width}
    for place in sorted(asked.recording.glob("*/case.json")):
        if not asked.only or place.parent.name in asked.only:
            with reversed_products() if asked.reversed else nullcontext():
                print(train(place.parent, options), flush=True)


def by_width(student: list[Tensor], teacher: list[Tensor], mask: Tensor) -> Tensor:
    """TextBrewer's `mmd` as its newest source has it, and the recording: Gram matrices divided by the width."""
    ours, theirs = (a @ b.transpose(1, 2) / a.size(2) for a, b in (student, teacher))
    mask = mask.to(ours)
    return ((ours - theirs) ** 2 * mask[:, :, None] * mask[:, None]).sum() / mask.sum(1).square().sum()


@contextmanager
def reversed_products() -> Iterator[None]:
    """Linear layers add up their products from the last to the first."""
    linear = F.linear
    with patch.object(F, "linear", lambda x, w, b=None: linear(x.flip(-1), w.flip(-1), b)):
        yield


def train(folder: Path, options: Mapping[str, Any]) -> str:
    """One run: what its line says."""
    case = json.loads((folder / "case.json").read_text())
    student, losses = load(folder / "student_init"), []
    with tempfile.TemporaryDirectory() as place:
        distiller = build(case, folder, student, place)
        note(distiller, losses)
        kind = torch.optim.AdamW if case["optimizer"] == "adamw" else torch.optim.SGD
        optimizer = kind(student.parameters(), lr=case["lr"], **(options if kind is torch.optim.AdamW else {}))
        with distiller:
            run(distiller, case, optimizer, batches(folder))
    off = max(abs(a[k] - b[k]) / abs(b[k]) for a, b in zip(losses, case["per_step_losses"], strict=True) for k in b)
    recorded = load_file(folder / "student_final" / "model.safetensors")
    apart = {k: float((v - recorded[k]).abs().max()) for k, v in student.state_dict().items() if k in recorded}
    ends = ("self.key.bias", *(("qa_outputs.bias", "layer.1.output.LayerNorm.bias") if case["task"] == "qa" else ()))
    unseen = {k: v for k, v in apart.items() if k.endswith(ends)}
    seen = max(v for k, v in apart.items() if k not in unseen)
    over = sum(v > OVER for v in unseen.values())
    return (
        f"{folder.name:28} losses {off:.1e}, weights {seen:.1e}, unseen biases {max(unseen.values()):.1e}, "
        f"{over} of {len(unseen)} over {OVER:g}"
    )


def load(folder: Path) -> Any:
    """A model as it was recorded, with eager attention."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    return kind.from_pretrained(folder, attn_implementation="eager")


def batches(folder: Path) -> list[dict[str, Any]]:
    """The recorded batches in their order."""
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "batches.safetensors").items():
        index, _, name = key.partition(".")
        found.setdefault(int(index), {})[name] = value
    return [split(found[i]) for i in sorted(found)]


def split(batch: dict[str, Tensor]) -> dict[str, Any]:
    """A batch, in two where the teacher has inputs of its own."""
    own = {k.removeprefix("teacher."): v for k, v in batch.items() if k.startswith("teacher.")}
    rest = {k: v for k, v in batch.items() if not k.startswith("teacher.")}
    return {"teacher": rest | own, "student": rest} if own else rest


def adaptor_of(case: Mapping[str, Any]) -> Any:
    """What the recording's adaptors return."""

    def adaptor(batch: Mapping[str, Tensor], out: Any) -> dict[str, Any]:
        answers = case["task"] == "qa"
        found = {
            "logits": (out.start_logits, out.end_logits) if answers else out.logits,
            "losses": out.loss, "hidden": out.hidden_states, "attention": out.attentions,
            "inputs_mask": batch["attention_mask"],
        }  # fmt: skip
        found |= {"labels": batch["labels"]} if "labels" in batch else {}
        return found | ({"logits_mask": batch["attention_mask"]} if case["logits_mask"] else {})

    return adaptor


def build(case: Mapping[str, Any], folder: Path, student: nn.Module, place: str) -> Any:
    """The distiller of a run, its projections as they began."""
    settings = dict(case["training_config"])
    if case["task_order"] is not None:
        settings["ckpt_steps"] = len(case["task_order"])
    training = tb.TrainingConfig(device="cpu", output_dir=place, **settings)
    adaptor = adaptor_of(case)
    if case["distiller"] == "Trainer":
        return tb.BasicTrainer(training, student, adaptor)
    teachers: Any = [load(folder / f"teacher{i}") for i in range(case["teachers"])]
    adaptors: Any = adaptor
    if case["distiller"] == "MultiTask":
        teachers = {f"task{i}": teacher for i, teacher in enumerate(teachers)}
        adaptors = dict.fromkeys(teachers, adaptor)
    elif case["distiller"] != "MultiTeacher":
        (teachers,) = teachers
    kind = getattr(tb, f"{case['distiller']}Distiller")
    config = tb.DistillationConfig(**copy.deepcopy(case["distillation_config"]))
    distiller = kind(training, config, teachers, student, adaptors, adaptors)
    if (file := folder / "projections_init.safetensors").is_file():
        begun = load_file(file)
        for i, projection in enumerate(distiller.projs):
            if projection is not None:
                own = {k.removeprefix(f"{i}."): v for k, v in begun.items() if k.startswith(f"{i}.")}
                projection.load_state_dict(own)
    return distiller


def note(distiller: Any, losses: list[dict[str, float]]) -> None:
    """Have every micro-batch's losses written down."""
    if isinstance(distiller, tb.BasicTrainer):
        distiller.rank, distiller.tb_writer = 0, _Writer(losses)
        return
    distiller.write_loss = lambda total, step, terms=None: losses.append(
        {"total_loss": total.item()} | {k: v.item() for k, v in (terms or {}).items()}
    )


class _Writer:
    """A TensorBoard of the total loss alone, which is all that BasicTrainer writes."""

    def __init__(self, losses: list[dict[str, float]]):
        self.losses = losses

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """A micro-batch's loss."""
        self.losses.append({name.removeprefix("scalar/"): value})


def run(distiller: Any, case: Mapping[str, Any], optimizer: Any, data: list[Any]) -> None:
    """Train; tasks are drawn as they were."""
    said: dict[str, Any] = {"max_grad_norm": case["max_grad_norm"]}
    if case["linear_warmup_steps"]:
        said["scheduler_class"] = transformers.get_linear_schedule_with_warmup
        said["scheduler_args"] = {
            "num_warmup_steps": case["linear_warmup_steps"], "num_training_steps": case["total_optimizer_steps"],
        }  # fmt: skip
    outputs = {"output_hidden_states": True, "output_attentions": True}
    if case["task_order"] is None:
        distiller.train(optimizer, data, num_epochs=case["epochs"], **said, **outputs)
        return
    order, half = iter(case["task_order"]), len(data) // 2
    with patch.object(np.random, "choice", lambda *_, **__: next(order)):
        loaders = {"task0": data[:half], "task1": data[half:]}
        distiller.train(optimizer, loaders, num_steps=len(case["task_order"]), **said, **outputs)


if __name__ == "__main__":
    main()
