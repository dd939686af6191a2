"""What the command line says of commands and options that it does not have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from brewgraph.diagnostics import suggest

_SETTING = "it is a setting of the spec: write `param {1} = …` and {0} there, then `--set {1}=…` here"
_TRAIN = {
    "epochs": "epochs",
    "num-epochs": "epochs",
    "num-train-epochs": "epochs",
    "max-steps": "steps",
    "steps": "steps",
    "seed": "seed",
    "fp16": "precision",
    "bf16": "precision",
    "precision": "precision",
    "accumulate": "accumulate",
    "gradient-accumulation-steps": "accumulate",
    "max-grad-norm": "max_grad_norm",
    "eval-steps": "eval_steps",
    "save-steps": "save_steps",
    "logging-steps": "logging_steps",
}
"""Options of other tools -> the setting of `train { }`."""
_ELSEWHERE = {
    **dict.fromkeys(("lr", "learning-rate"), _SETTING.format("`train { optimizer = adamw(lr=lr) }`", "lr")),
    **dict.fromkeys(("weight-decay",), _SETTING.format("`train { optimizer = adamw(weight_decay=decay) }`", "decay")),
    **dict.fromkeys(
        ("warmup", "warmup-steps", "warmup-ratio"),
        _SETTING.format("`train { schedule = linear(warmup=10%) }`", "warmup"),
    ),
    **dict.fromkeys(
        ("batch-size", "batch", "per-device-train-batch-size", "train-batch-size"),
        _SETTING.format("`data d = files(…, batch=batch)`", "batch"),
    ),
    **dict.fromkeys(
        ("max-length", "max-seq-length"), _SETTING.format("`data d = files(…, max_length=length)`", "length")
    ),
    **dict.fromkeys(("temperature", "t", "alpha"), _SETTING.format("`kd(big.logits -> tiny.logits, T=T)`", "T")),
    **dict.fromkeys(
        ("teacher", "student", "model", "model-name-or-path", "train-file", "data", "dataset"),
        "the spec names models and data; `param` and `--set` change them",
    ),
    **dict.fromkeys(
        ("output-dir", "output", "save-dir", "out-dir", "work-dir"),
        "write `--out FOLDER` for this run, `--runs FOLDER` for all runs",
    ),
    **dict.fromkeys(("config", "config-file", "spec"), "the spec needs no option: write `brewgraph run SPEC`"),
    **dict.fromkeys(
        ("gpus", "num-gpus", "devices", "nproc-per-node", "ddp", "deepspeed", "n-gpu"),
        "on several GPUs: `accelerate launch -m brewgraph run SPEC`",
    ),
    **dict.fromkeys(
        ("device", "gpu", "cuda", "no-cuda", "cpu"), "a GPU is used where there is one; `CUDA_VISIBLE_DEVICES` chooses"
    ),
    **dict.fromkeys(
        ("resume", "resume-from-checkpoint", "continue"),
        "an interrupted run resumes by itself when the same command is given again",
    ),
    **dict.fromkeys(("overwrite", "overwrite-output-dir", "restart"), "write `--force`"),
    **dict.fromkeys(("do-train", "train"), "`brewgraph run SPEC` trains"),
    **dict.fromkeys(("do-eval", "eval"), "`brewgraph eval RUN` scores a finished run"),
    **dict.fromkeys(
        ("do-predict", "predict"), "`brewgraph predict RUN` writes what the student of a finished run says"
    ),
    **dict.fromkeys(("verbose", "debug"), "`BREWGRAPH_TRACEBACK=1` shows the traceback of an error"),
    **dict.fromkeys(("report-to", "wandb", "tensorboard"), "scores are written to `metrics.jsonl` in the run's folder"),
}
"""Options of other tools -> what to do here."""
WORDS = (*_TRAIN, *_ELSEWHERE)


def about_option(option: str, known: Sequence[str]) -> str:
    """The remedy for an option that a command does not have; empty where none is known."""
    word = option.lstrip("-").replace("_", "-").lower()
    if word in _TRAIN:
        name = _TRAIN[word]
        return _SETTING.format(f"`train {{ {name} = {name} }}`", name)
    if remedy := _ELSEWHERE.get(word):
        return remedy
    return suggest(option.replace("_", "-"), known)


def about_command(word: str, rest: Sequence[str], commands: Sequence[str]) -> str:
    """The whole message for a first argument that names no command."""
    if word.endswith(".brew") or Path(word).is_file():
        words = " ".join([word, *rest])
        return f"a command stands before the spec: write `brewgraph run {words}`, or `brewgraph check {word}` first"
    others = {
        "train": "run",
        "distill": "run",
        "start": "run",
        "test": "eval",
        "evaluate": "eval",
        "lint": "check",
        "validate": "check",
        "format": "fmt",
        "init": "new",
        "create": "new",
        "infer": "predict",
        "help": "--help",
        "draw": "graph",
        "list": "ops",
        "show": "plan",
        "version": "--version",
    }
    if word in others:
        return f"there is no command `{word}`: write `brewgraph {others[word]}`"
    return f"there is no command `{word}`: {suggest(word, commands) or '`brewgraph --help` lists the commands'}"


class Command(TyperCommand):
    """A command that says what to do instead of an option it does not have."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)
            if type(error).__name__ == "NoSuchOption" and option:
                known = [name for parameter in self.params for name in parameter.opts if name.startswith("--")]
                if remedy := about_option(option, known):
                    error.message = f"{error.message}: {remedy}"  # type: ignore[attr-defined]
                    error.possibilities = None  # type: ignore[attr-defined]
            raise


class Group(TyperGroup):
    """The table of commands, which says what to do where the first argument is none."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(about_command(args[0], args[1:], list(self.commands)))
        return super().resolve_command(ctx, args)
