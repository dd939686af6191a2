"""Notes on what a spec cannot carry over from a TextBrewer configuration, changes, or assumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from brewgraph.convert.config import DistillationConfig, MatchEntry, TrainingConfig
from brewgraph.convert.equations import Adaptors, can_cache
from brewgraph.recipe.label_types import TAGS

CACHES = ("BasicDistiller", "MultiTeacherDistiller")
"""The distillers that can keep a teacher's logits; the others silently ignore the setting."""


@dataclass(frozen=True)
class Note:
    """A note on the setting or argument `key`."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


def of_python(distiller: str) -> Iterator[Note]:
    """Notes on what every TextBrewer script defines in Python."""
    yield Note(
        "train(...)",
        "optimizer, learning rate, its schedule, epochs or steps, max_grad_norm and the data with its batch size are "
        "arguments in TextBrewer: the values here are those of its examples, and max_grad_norm = none is its default",
    )
    yield Note(
        "weight decay",
        "adamw spares biases and norms, as TextBrewer's examples do by hand; `decay_all=true` decays all, as torch's "
        "own AdamW does",
    )


def of_distillation(
    config: DistillationConfig, distiller: str, matches: list[tuple[str, MatchEntry]], adaptors: Adaptors
) -> Iterator[Note]:
    """Notes on a `DistillationConfig`."""
    scheduler = config.temperature_scheduler
    if scheduler is not None:
        text = "no temperature falls below 0.1 here; TextBrewer's may turn negative, which inverts the targets"
        yield Note("temperature_scheduler", text)
        if scheduler.name == "flsw" and scheduler.eps != 1e-4:
            eps = f"the cosine's eps is 0.0001 here, not {scheduler.eps:g}"
            text = f"{eps}: of no effect on logits that are not nearly zero"
            yield Note("temperature_scheduler", text)
    for name, static, schedule in (
        ("kd_loss_weight", config.kd_loss_weight, config.kd_loss_weight_scheduler),
        ("hard_label_weight", config.hard_label_weight, config.hard_label_weight_scheduler),
    ):
        if schedule is not None and static != (1 if schedule == "linear_decay" else 0):
            text = (
                f"TextBrewer uses {static:g} in the first step only, and so does the spec; "
                f"`ramp(…)` alone is probably intended"
            )
            yield Note(f"{name}_scheduler", text)
    if config.is_caching_logits:
        if distiller in CACHES and can_cache(adaptors):
            text = (
                "`cache` keeps the teachers' logits on disk, also for later runs. TextBrewer keeps them in memory and "
                "never reshuffles its batches; here they are shuffled"
            )
        elif distiller in CACHES:
            text = (
                "left out, the teacher runs in every epoch: padding counts in these logits, as in TextBrewer, and "
                "depends on the batch"
            )
        else:
            text = f"left out: {distiller} silently sets it to false, so that it never had an effect"
        yield Note("is_caching_logits", text)
    if matches and distiller in CACHES:
        yield Note("intermediate_matches", f"left out: {distiller} silently ignores them; GeneralDistiller does not")
        return
    yield from _of_matches([match for _, match in matches], adaptors)


def _of_matches(matches: list[MatchEntry], adaptors: Adaptors) -> Iterator[Note]:
    losses = {match.loss for match in matches}
    for option in sorted({name for match in matches if match.proj for name in match.proj.others}):
        yield Note("proj", f"`{option}` of a projection is left out: the optimizer's value applies")
    if losses & {"nst", "mmd"}:
        text = (
            "Gram matrices are divided by the width, as in TextBrewer's newest source and without a mask; "
            "its packaged release divides by the padded length: `nst_by_length` counts the real tokens"
        )
        yield Note("nst", text)
    if "pkd" in losses:
        yield Note(
            "pkd", "the first token that is not padding counts; zero vectors give zero, where TextBrewer gives NaN"
        )
    if any(match.feature == "attention" for match in matches):
        where = "layers count from 1 in the file and from 0 in the spec" if adaptors.first else "layers count from 0"
        yield Note("attention", f"{where}; it is taken as {adaptors.attention}")
        if not adaptors.inputs_mask and adaptors.attention == "scores":
            text = "without a mask TextBrewer sets scores up to -0.001 to zero, genuine ones too; brewgraph does not"
            yield Note("attention", text)


def of_adaptors(adaptors: Adaptors, has_matches: bool, has_labels: bool) -> Iterator[Note]:
    """Notes on assumptions about the adaptors that matter."""
    if has_labels:
        text = "the loss of the student's own model on the labels; add an equation for each other loss of your adaptor"
        yield Note("losses", text)
    if has_matches:
        yield Note("inputs_mask", _masked("matches", adaptors.inputs_mask, "--no-inputs-mask"))
    if adaptors.labels == TAGS:
        yield Note("logits_mask", _masked("logits", adaptors.logits_mask, "--no-logits-mask"))


def _masked(what: str, masked: bool, option: str) -> str:
    if masked:
        return f"padding does not count in {what}, assuming that the adaptor returns it; add {option} if yours does not"
    return f"padding counts in {what}, as in TextBrewer without it"


def of_training(config: TrainingConfig, names: frozenset[str]) -> Iterator[Note]:
    """Notes on the settings that a `TrainingConfig` sets (`names`)."""
    if config.ckpt_steps is None and config.ckpt_frequency > 1 and config.ckpt_epoch_frequency > 1:
        text = f"checkpoints are written in every epoch, not only in one of {config.ckpt_epoch_frequency}"
        yield Note("ckpt_epoch_frequency", text)
    if config.ckpt_steps is not None and {"ckpt_frequency", "ckpt_epoch_frequency"} & names:
        yield Note("ckpt_frequency", "left out: with ckpt_steps TextBrewer ignores it")
    if {"ckpt_frequency", "ckpt_epoch_frequency", "ckpt_steps"} & names:
        text = "checkpoints serve to resume, and only the last two are kept (save_total_limit); TextBrewer keeps all"
        yield Note("ckpt_*", text)
    if "gradient_accumulation_steps" in names and config.gradient_accumulation_steps > 1:
        text = (
            "normalise = micro is the mean of the micro-batches' means, as in TextBrewer; without it all examples of a "
            "step count alike. `batch` is the size of a micro-batch; the last ones of an epoch make a step here, but "
            "TextBrewer drops them"
        )
        yield Note("gradient_accumulation_steps", text)
    if config.log_dir is not None:
        yield Note("log_dir", "left out: a run's folder contains metrics.jsonl and tensorboard/")
    if "output_dir" in names:
        yield Note("output_dir", f"left out: `brewgraph run … --out {config.output_dir}` names the folder")
    if "device" in names:
        yield Note("device", "left out: accelerate uses the available devices; set CUDA_VISIBLE_DEVICES= for the CPU")
    if config.fp16 and config.fp16_opt_level != "O1":
        used = "O0 is full precision, which is the default"
        if config.fp16_opt_level != "O0":
            used = f"{config.fp16_opt_level} is apex's; precision = fp16 is autocast, which is O1"
        yield Note("fp16_opt_level", used)
    if config.data_parallel or config.local_rank != -1:
        key = "data_parallel" if config.data_parallel else "local_rank"
        text = "left out: `accelerate launch -m brewgraph run …` starts the processes; `batch` counts all rows"
        yield Note(key, text)
