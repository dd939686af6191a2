"""The text of a spec for a TextBrewer configuration: its equations, and declarations by open params."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from brewgraph.convert.config import DistillationConfig, MatchEntry, TrainingConfig
from brewgraph.convert.equations import (
    Adaptors,
    LossTerm,
    Models,
    can_cache,
    hard,
    hard_equation,
    matches,
    number,
    soft,
)
from brewgraph.convert.notes import CACHES, Note, of_adaptors, of_distillation, of_python, of_training
from brewgraph.recipe.label_types import CLASS, SPANS, TAGS
from brewgraph.source import Source
from brewgraph.syntax.format import format_source

Distiller = Literal[
    "GeneralDistiller", "BasicDistiller", "MultiTeacherDistiller", "MultiTaskDistiller", "BasicTrainer"
]  # fmt: skip
STUDENT, TEACHER, DATA = "tiny", "big", "d"
TAKEN = frozenset(
    {
        *["soft", "hard", "loss", "student", "dev", "batch", "max_length", "T", "lr", "steps", "epochs", "tau"],
        STUDENT,
        DATA,
    }
)
"""Names that the spec itself uses."""
_WIDTH = 116


@dataclass(frozen=True)
class Script:
    """What the script around a configuration defines: the distiller, the number of teachers, tasks, adaptors."""

    distiller: Distiller = "GeneralDistiller"
    teachers: int = 1
    tasks: tuple[str, ...] = ()
    adaptors: Adaptors = field(default_factory=Adaptors)


@dataclass(frozen=True)
class Configuration:
    """A configuration. `settings` names those of `train` that it sets; `matches` come with the names of their lists."""

    name: str
    distill: DistillationConfig
    train: TrainingConfig
    settings: frozenset[str]
    matches: tuple[tuple[str, MatchEntry], ...]


def write_spec(configuration: Configuration, script: Script) -> tuple[str, tuple[Note, ...]]:
    """The formatted text of the spec, and notes on it."""
    notes = tuple(_notes(configuration, script))
    sections = [
        ["brew 1"],
        list(_head(configuration, script, notes)),
        list(_params(configuration, script)),
        *(
            _tasks(configuration, script)
            if script.distiller == "MultiTaskDistiller"
            else _single(configuration, script)
        ),
        _train(configuration, script),
    ]
    text = "\n\n".join("\n".join(section) for section in sections if section) + "\n"
    return format_source(Source(text, "<converted>")), notes


def _notes(configuration: Configuration, script: Script) -> Iterator[Note]:
    distill, matched = configuration.distill, list(configuration.matches)
    if script.distiller == "BasicTrainer":
        if configuration.distill != DistillationConfig() or matched:
            yield Note("DistillationConfig", "left out: BasicTrainer trains on the labels alone")
    else:
        yield from of_distillation(distill, script.distiller, matched, script.adaptors)
        labelled = bool(distill.hard_label_weight) or distill.hard_label_weight_scheduler is not None
        yield from of_adaptors(script.adaptors, bool(matched) and script.distiller not in CACHES, labelled)
    yield from of_training(configuration.train, configuration.settings)
    yield from of_python(script.distiller)


def _head(configuration: Configuration, script: Script, notes: Sequence[Note]) -> Iterator[str]:
    yield f"# From {configuration.name}, a configuration of TextBrewer, as its {script.distiller} computes it."
    yield "#"
    yield "# What could not be carried over, is written differently, or was assumed:"
    for note in notes:
        first, *rest = textwrap.wrap(str(note), _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
        yield f"# - {first}"
        yield from (f"#   {line}" for line in rest)


# ── declarations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _teachers(script: Script) -> list[str]:
    """The params for the teachers."""
    if script.distiller == "BasicTrainer":
        return []
    if script.distiller == "MultiTaskDistiller":
        return [f"teacher_{task}" for task in script.tasks]
    several = script.distiller == "MultiTeacherDistiller"
    return [f"teacher_{i}" for i in range(1, script.teachers + 1)] if several else ["teacher"]


def _params(configuration: Configuration, script: Script) -> Iterator[str]:
    for name in [*_teachers(script), "student"]:
        yield f"param {name}"
    for end in [f"_{task}" for task in script.tasks] or [""]:
        yield f"param train{end}"
        yield f"param dev{end}"
    yield "param batch = 32"
    yield f"param max_length = {384 if script.adaptors.labels == SPANS else 128}"
    if script.distiller != "BasicTrainer":
        yield f"param T = {number(configuration.distill.temperature)}"
    yield "param lr = 1e-4"
    yield "param steps = 10000" if _by_steps(configuration, script) else "param epochs = 30"
    if script.distiller == "MultiTaskDistiller":
        yield "param tau = 1"


def _by_steps(configuration: Configuration, script: Script) -> bool:
    """Whether training counts steps: TextBrewer then needs `ckpt_steps`, and always does so with several tasks."""
    return configuration.train.ckpt_steps is not None or script.distiller == "MultiTaskDistiller"


def _data(script: Script, end: str = "") -> str:
    source = {CLASS: "files", TAGS: "conll", SPANS: "squad"}[script.adaptors.labels]
    strides = ", stride=128" if source == "squad" else ""
    return f"data {DATA} = {source}(train=train{end}, dev=dev{end}, batch=batch, max_length=max_length{strides})"


# ── equations ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _single(configuration: Configuration, script: Script) -> Iterator[list[str]]:
    """Models, data, and one loss."""
    names = _teachers(script)
    several = script.distiller == "MultiTeacherDistiller"
    bigs = [f"{TEACHER}_{i}" for i in range(1, len(names) + 1)] if several else [TEACHER] * len(names)
    yield [
        *(f"teacher {big} = hf({name})" for big, name in zip(bigs, names, strict=True)),
        f"student {STUDENT} = hf(student)",
        _data(script),
    ]
    if several:
        yield [f"let teachers = [{', '.join(bigs)}]"]
    models = Models(STUDENT, DATA, "teachers" if several else TEACHER, several)
    yield from _loss(configuration, script, models)


def _loss(configuration: Configuration, script: Script, models: Models) -> Iterator[list[str]]:
    equations = _equations(configuration, script, models)
    before = [line for equation in equations for line in equation.before]
    if before:
        yield before
    yield _aligned([(equation.name, equation.text) for equation in equations])
    addends = [equations[0].addend, *(e.addend if e.addend[0] == "-" else f"+ {e.addend}" for e in equations[1:])]
    short = len(" ".join(addends)) < _WIDTH - 8
    yield [f"loss = {' '.join(addends)}"] if short else ["loss = " + "\n    ".join(addends)]


def _aligned(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """`name = value` with the `=` aligned, which the formatter keeps."""
    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}} = {value}" for name, value in rows]


def _equations(configuration: Configuration, script: Script, models: Models) -> list[LossTerm]:
    if script.distiller == "BasicTrainer":
        return [LossTerm("hard", hard(models, script.adaptors))]
    cached = configuration.distill.is_caching_logits and script.distiller in CACHES and can_cache(script.adaptors)
    equations = [soft(configuration.distill, models, script.adaptors, cached)]
    if script.distiller not in CACHES:
        equations += matches(configuration.matches, models, script.adaptors)
    equations.append(hard_equation(configuration.distill, models, script.adaptors))
    return [equation for equation in equations if equation is not None]


def is_empty(configuration: Configuration, script: Script) -> bool:
    """Whether every weight of the loss is zero."""
    return not _equations(configuration, script, Models(STUDENT, DATA, TEACHER))


def _tasks(configuration: Configuration, script: Script) -> Iterator[list[str]]:
    """A student of several tasks, each with its teacher and data, and all with the same settings."""
    yield [f"student {STUDENT} = hf(student)"]
    for task, teacher in zip(script.tasks, _teachers(script), strict=True):
        inner = [[f"teacher {TEACHER} = hf({teacher})", _data(script, f"_{task}")]]
        inner += _loss(configuration, script, Models(STUDENT, DATA, TEACHER))
        body = "\n\n".join("\n".join(section) for section in inner)
        yield [f"task {task} {{", body, "}"]
    yield [f"sample [{', '.join(script.tasks)}] ~ batches ** tau"]


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _train(configuration: Configuration, script: Script) -> list[str]:
    lines = _aligned(_settings(configuration, script))
    return ["train {", *(f"    {line}" for line in lines), "}"]


def _settings(configuration: Configuration, script: Script) -> Iterator[tuple[str, str]]:
    settings = configuration.train
    yield ("steps", "steps") if _by_steps(configuration, script) else ("epochs", "epochs")
    yield "optimizer", "adamw(lr=lr)"
    yield "schedule", "linear(warmup=10%)"
    yield "max_grad_norm", "none"
    if settings.gradient_accumulation_steps > 1:
        yield "accumulate", str(settings.gradient_accumulation_steps)
        yield "normalise", "micro"
    if settings.fp16 and settings.fp16_opt_level != "O0":
        yield "precision", "fp16"
    if settings.ckpt_steps is not None:
        period = f"{settings.ckpt_steps} steps"
    else:
        often = settings.ckpt_frequency > 1
        period = f"{1 / settings.ckpt_frequency if often else settings.ckpt_epoch_frequency:.6g} epochs"
    if settings.ckpt_steps is not None or {"ckpt_frequency", "ckpt_epoch_frequency"} & configuration.settings:
        yield "save_steps", period
        yield "eval_steps", period
