"""`convert`: a TextBrewer configuration as a spec: equations, declarations by open params, notes on what differs.

    L = kd_loss_weight · Σ KD(logits) + Σ weight · match + hard_label_weight · Σ losses

The KD terms are those of everything that a task's adaptor calls logits (for answers a start and an end); the losses are
what transformers calls the loss of the task.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from brewgraph.checking.check import check_names
from brewgraph.convert.config import (
    PAIRED,
    DistillationConfig,
    MatchEntry,
    ProjectionEntry,
    TrainingConfig,
    chosen_lists,
    distillers_called,
    matches_of,
    parts_of,
    settled,
)
from brewgraph.diagnostics import Collector, UsageError, listing
from brewgraph.lints import Subject, find_unscaled_targets
from brewgraph.recipe.label_types import CLASS, LABEL_TYPES, SPANS, TAGS, LabelType
from brewgraph.source import Source
from brewgraph.syntax.format import format_source
from brewgraph.syntax.parser import KEYWORDS

Distiller = Literal[
    "GeneralDistiller", "BasicDistiller", "MultiTeacherDistiller", "MultiTaskDistiller", "BasicTrainer"
]  # fmt: skip
NAMES = {
    "hidden_mse": "hidden", "cos": "cosine", "pkd": "patient",
    "fsp": "flow", "gram": "flow", "nst": "gram", "mmd": "gram",
    "attention_mse": "attention", "attention_mse_sum": "heads_sum",
    "attention_ce": "attention_soft", "attention_ce_mean": "heads_mean",
}  # fmt: skip
"""The name of the equation of each loss."""
STUDENT, TEACHER, DATA = "tiny", "big", "d"
_TAKEN = frozenset({
    "soft", "hard", "loss", "student", "dev", "batch", "max_length", "T", "lr", "steps", "epochs", "tau", STUDENT, DATA,
})  # fmt: skip
"""Names that the spec itself uses."""
_WIDTH = 116


@dataclass(frozen=True)
class Script:
    """What the script around a configuration defines: the distiller, the number of teachers, tasks; of its adaptors the
    type of labels, the masks that the student's returns, and whether attention is `probabilities` or `scores`, in a
    list whose first layer has the index `first` (0, or 1 if the list begins with None).
    """

    distiller: Distiller = "GeneralDistiller"
    teachers: int = 1
    tasks: tuple[str, ...] = ()
    labels: LabelType = CLASS
    inputs_mask: bool = True
    logits_mask: bool = True
    attention: Literal["probabilities", "scores"] = "probabilities"
    first: int | None = None

    @property
    def supervised(self) -> bool:
        """Whether it trains on the labels alone."""
        return self.distiller == "BasicTrainer"

    @property
    def ignores_matches(self) -> bool:
        """Whether the distiller silently ignores intermediate matches; the others ignore the caching of logits."""
        return self.distiller in ("BasicDistiller", "MultiTeacherDistiller")

    @property
    def counts_padding(self) -> bool:
        """Whether padding counts in logits: TextBrewer masks logits per token, but not those of whole examples."""
        return self.labels != CLASS and not (self.labels == TAGS and self.logits_mask)

    @property
    def teacher_params(self) -> list[str]:
        """The params for the teachers."""
        if self.supervised:
            return []
        if self.distiller == "MultiTaskDistiller":
            return [f"teacher_{task}" for task in self.tasks]
        several = self.distiller == "MultiTeacherDistiller"
        return [f"teacher_{i}" for i in range(1, self.teachers + 1)] if several else ["teacher"]


@dataclass(frozen=True)
class LossTerm:
    """An equation `name = text` and its weight in the loss (empty: one); a list of losses is summed.

    `before` are lines that it needs: a layer map, projections.
    """

    name: str
    text: str
    weight: str = ""
    listed: bool = False
    before: tuple[str, ...] = ()

    @property
    def addend(self) -> str:
        """The addend of the loss."""
        value = f"sum({self.name})" if self.listed else self.name
        return f"{self.weight} * {value}" if self.weight else value


@dataclass(frozen=True)
class Note:
    """A note on the setting or argument `key`."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


@dataclass(frozen=True)
class Configuration:
    """A configuration and its script. `settings` names those of `train` that it sets; `matches` come with the names of
    their equations, empty for that of the loss.
    """

    name: str
    distill: DistillationConfig
    train: TrainingConfig
    settings: frozenset[str]
    matches: tuple[tuple[str, MatchEntry], ...]
    script: Script

    def spec(self) -> str:
        """The formatted text of the spec."""
        sections = [
            ["brew 1"],
            list(self._head()),
            list(self._params()),
            *(self._tasks() if self.script.distiller == "MultiTaskDistiller" else self._single()),
            ["train {", *(f"    {line}" for line in _aligned(self._settings())), "}"],
        ]
        text = "\n\n".join("\n".join(section) for section in sections if section) + "\n"
        return format_source(Source(text, "<converted>"))

    def _head(self) -> Iterator[str]:
        yield f"# From {self.name}, a configuration of TextBrewer, as its {self.script.distiller} computes it."
        yield "#"
        yield "# What could not be carried over, is written differently, or was assumed:"
        for note in self.notes:
            first, *rest = textwrap.wrap(str(note), _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
            yield f"# - {first}"
            yield from (f"#   {line}" for line in rest)

    # ── declarations and settings ────────────────────────────────────────────────────────────────────────────────────

    def _params(self) -> Iterator[str]:
        script = self.script
        for name in [*script.teacher_params, "student"]:
            yield f"param {name}"
        for end in [f"_{task}" for task in script.tasks] or [""]:
            yield f"param train{end}"
            yield f"param dev{end}"
        yield "param batch = 32"
        yield f"param max_length = {384 if script.labels == SPANS else 128}"
        if not script.supervised:
            yield f"param T = {_number(self.distill.temperature)}"
        yield "param lr = 1e-4"
        yield "param steps = 10000" if self._by_steps else "param epochs = 30"
        if script.distiller == "MultiTaskDistiller":
            yield "param tau = 1"

    @property
    def _by_steps(self) -> bool:
        """Whether training counts steps: TextBrewer then needs `ckpt_steps`, and always does so with several tasks."""
        return self.train.ckpt_steps is not None or self.script.distiller == "MultiTaskDistiller"

    def _data(self, end: str = "") -> str:
        source = LABEL_TYPES[self.script.labels].source
        stride = ", stride=128" if source == "squad" else ""
        return f"data {DATA} = {source}(train=train{end}, dev=dev{end}, batch=batch, max_length=max_length{stride})"

    def _single(self) -> Iterator[list[str]]:
        """Models, data, and one loss."""
        params = self.script.teacher_params
        several = self.script.distiller == "MultiTeacherDistiller"
        bigs = [f"{TEACHER}_{i}" if several else TEACHER for i in range(1, len(params) + 1)]
        teachers = [f"teacher {big} = hf({param})" for big, param in zip(bigs, params, strict=True)]
        yield [*teachers, f"student {STUDENT} = hf(student)", self._data()]
        if several:
            yield [f"let teachers = [{', '.join(bigs)}]"]
        yield from self._loss()

    def _tasks(self) -> Iterator[list[str]]:
        """A student of several tasks, each with its teacher and data, and all with the same settings."""
        yield [f"student {STUDENT} = hf(student)"]
        for task, teacher in zip(self.script.tasks, self.script.teacher_params, strict=True):
            inner = [[f"teacher {TEACHER} = hf({teacher})", self._data(f"_{task}")], *self._loss()]
            yield [f"task {task} {{", "\n\n".join("\n".join(section) for section in inner), "}"]
        yield [f"sample [{', '.join(self.script.tasks)}] ~ batches ** tau"]

    def _settings(self) -> Iterator[tuple[str, str]]:
        train = self.train
        yield ("steps", "steps") if self._by_steps else ("epochs", "epochs")
        yield "optimizer", "adamw(lr=lr)"
        yield "schedule", "linear(warmup=10%)"
        yield "max_grad_norm", "none"
        if train.gradient_accumulation_steps > 1:
            yield "accumulate", str(train.gradient_accumulation_steps)
            yield "normalise", "micro"
        if train.fp16 and train.fp16_opt_level != "O0":
            yield "precision", "fp16"
        if train.ckpt_steps is not None:
            period = f"{train.ckpt_steps} steps"
        else:
            often = train.ckpt_frequency > 1
            period = f"{1 / train.ckpt_frequency if often else train.ckpt_epoch_frequency:.6g} epochs"
        if train.ckpt_steps is not None or {"ckpt_frequency", "ckpt_epoch_frequency"} & self.settings:
            yield "save_steps", period
            yield "eval_steps", period

    # ── equations ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _loss(self) -> Iterator[list[str]]:
        if before := [line for term in self.terms for line in term.before]:
            yield before
        yield _aligned((term.name, term.text) for term in self.terms)
        first, *others = (term.addend for term in self.terms)
        addends = [first, *(addend if addend[0] == "-" else f"+ {addend}" for addend in others)]
        short = len(" ".join(addends)) < _WIDTH - 8
        yield [f"loss = {' '.join(addends)}"] if short else ["loss = " + "\n    ".join(addends)]

    @cached_property
    def terms(self) -> list[LossTerm]:
        """The equations of the loss in the order of addition, without those whose weight is always zero."""
        distill = self.distill
        if self.script.supervised:
            return [LossTerm("hard", self._hard())]
        terms = []
        if (weight := _weight(distill.kd_loss_weight, distill.kd_loss_weight_scheduler)) != "0":
            terms.append(self._soft(weight))
        if not self.script.ignores_matches:
            terms += self._matches()
        if (weight := _weight(distill.hard_label_weight, distill.hard_label_weight_scheduler)) != "0":
            terms.append(LossTerm("hard", self._hard(), weight))
        return terms

    def _soft(self, weight: str) -> LossTerm:
        """The match of the logits; several teachers are averaged."""
        distill, script = self.distill, self.script
        scheduler, temperature = distill.temperature_scheduler, "T"
        if scheduler is not None:
            gamma = f", gamma={_number(scheduler.gamma)}" if scheduler.name == "flsw" else ""
            temperature = f"{scheduler.name}(T, beta={_number(scheduler.beta)}{gamma})"
        cached = distill.is_caching_logits and script.ignores_matches and not script.counts_padding
        several = script.distiller == "MultiTeacherDistiller"
        terms, before = [], []
        for feature in ("start", "end") if script.labels == SPANS else ("logits",):
            source = f"mean(teachers.{feature})" if several else f"{TEACHER}.{feature}"
            if cached:
                before.append(f'cache kept_{feature} = {source} at "cache"')
                source = f"kept_{feature}"
            if distill.probability_shift:
                label = "labels" if feature == "logits" else feature
                source = f"shift({source}, {DATA}.{label})"
            options = f"T={temperature}{_unmasked(script.counts_padding)}"
            terms.append(f"{distill.kd_loss_type}({source} -> {STUDENT}.{feature}, {options})")
        return LossTerm("soft", " + ".join(terms), weight, before=tuple(before))

    def _hard(self) -> str:
        """The loss on the labels, as transformers' models compute it."""
        if self.script.labels == SPANS:
            one, other = (f"ce({DATA}.{x} -> {STUDENT}.{x}, mask=none)" for x in ("start", "end"))
            return f"0.5 * ({one} + {other})"
        return f"ce({DATA}.labels -> {STUDENT}.logits)"

    def _matches(self) -> Iterator[LossTerm]:
        """An equation for each group of matches that differ only in their layers, in order of the first of each."""
        groups: dict[tuple[object, ...], list[MatchEntry]] = {}
        for name, match in self.matches:
            key: tuple[object, ...] = (name or NAMES[match.loss], match.loss, match.weight, match.proj, _paired(match))
            groups.setdefault(key, []).append(match)
        uses: Counter[str] = Counter()
        maps: dict[str, str] = {}
        for (first, *_), group in groups.items():
            if group[0].weight == 0:
                continue
            name = str(first)
            uses[name] += 1
            name = name if uses[name] == 1 else f"{name}_{uses[name]}"
            yield self._of_pairs(name, group) if _paired(group[0]) else self._of_layers(name, group, maps)

    def _of_layers(self, name: str, group: Sequence[MatchEntry], maps: dict[str, str]) -> LossTerm:
        """A loss between a layer of each side, with a layer map if there are several."""
        one = group[0]
        pairs = [(self._layer(match, match.layer_T), self._layer(match, match.layer_S)) for match in group]
        before: tuple[str, ...] = ()
        indices = [str(layer) for layer in pairs[0]]
        if len(pairs) > 1:
            text = f"{[a for a, _ in pairs]} -> {[b for _, b in pairs]}"
            if text not in maps:
                maps[text] = "map" if not maps else f"map_{len(maps) + 1}"
                before = (f"let {maps[text]} = {text}",)
            indices = [maps[text]] * 2
        operation, template, feature = self._operation(one.loss)
        source, target = (
            template.format(f"{model}.{feature}[{i}]") for model, i in zip((TEACHER, STUDENT), indices, strict=True)
        )
        via = f" via {_projection(one.proj)}" if one.proj is not None else ""
        unmasked = _unmasked(not self.script.inputs_mask and one.loss != "pkd")
        text = f"{operation}({source} -> {target}{via}{unmasked})"
        return LossTerm(name, text, _weight(one.weight, None), len(pairs) > 1, before)

    def _of_pairs(self, name: str, group: Sequence[MatchEntry]) -> LossTerm:
        """A loss between two layers of each side, which share a projection."""
        before, terms = [], []
        for count, match in enumerate(group, start=1):
            via = ""
            if match.proj is not None:
                shared = f"W_{name}" + (f"_{count}" if len(group) > 1 else "")
                before.append(f"proj {shared} = {_projection(match.proj)}")
                via = f" via {shared}"
            source, target = (
                ", ".join(f"{model}.hidden[{layer}]{after}" for layer in _two(layers))
                for model, layers, after in ((TEACHER, match.layer_T, ""), (STUDENT, match.layer_S, via))
            )
            operation = self._operation(match.loss)[0]
            terms.append(f"{operation}(({source}) -> ({target}){_unmasked(not self.script.inputs_mask)})")
        return LossTerm(name, "\n    + ".join(terms), _weight(group[0].weight, None), before=tuple(before))

    def _operation(self, loss: str) -> tuple[str, str, str]:
        """The operation for a loss of TextBrewer, a template for its arguments (`{}`: the feature), and the feature."""
        if not loss.startswith("attention"):
            return {"hidden_mse": "mse", "gram": "fsp", "mmd": "nst"}.get(loss, loss), "{}", "hidden"
        heads = {"attention_mse_sum": "head_sum({})", "attention_ce_mean": "head_mean({})"}.get(loss, "{}")
        scores = self.script.attention == "scores"
        if "ce" in loss and not scores:
            heads = f"probabilities({heads}, mask=none)"
        return "mse" if "mse" in loss else "ce", heads, "scores" if scores else "attention"

    def _layer(self, match: MatchEntry, layer: int | tuple[int, int]) -> int:
        """The index of a layer in a spec, where attention counts from 0; the first of two equal layers."""
        index = layer[0] if isinstance(layer, tuple) else layer
        return index - (self.script.first or 0) if match.feature == "attention" and index >= 0 else index

    # ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """What the spec cannot carry over, changes, or assumes."""
        script, distill = self.script, self.distill
        notes: list[Note] = []
        if not script.supervised:
            notes += [*self._of_distillation(), *self._of_matches(), *self._of_adaptors()]
        elif distill != DistillationConfig() or self.matches:
            notes.append(Note("DistillationConfig", "left out: BasicTrainer trains on the labels alone"))
        return (
            *notes,
            *self._of_training(),
            Note(
                "train(...)",
                "optimizer, learning rate, its schedule, epochs or steps, max_grad_norm and the data with its batch "
                "size are arguments in TextBrewer: the values here are those of its examples, and max_grad_norm = none "
                "is its default",
            ),
            Note(
                "weight decay",
                "adamw spares biases and norms, as TextBrewer's examples do by hand; `decay_all=true` decays all, as "
                "torch's own AdamW does",
            ),
        )

    def _of_distillation(self) -> Iterator[Note]:
        distill, script = self.distill, self.script
        scheduler = distill.temperature_scheduler
        if scheduler is not None:
            text = "no temperature falls below 0.1 here; TextBrewer's may turn negative, which inverts the targets"
            yield Note("temperature_scheduler", text)
            if scheduler.name == "flsw" and scheduler.eps != 1e-4:
                eps = f"the cosine's eps is 0.0001 here, not {scheduler.eps:g}"
                yield Note("temperature_scheduler", f"{eps}: of no effect on logits that are not nearly zero")
        for name, static, schedule in (
            ("kd_loss_weight", distill.kd_loss_weight, distill.kd_loss_weight_scheduler),
            ("hard_label_weight", distill.hard_label_weight, distill.hard_label_weight_scheduler),
        ):
            if schedule is not None and static != (1 if schedule == "linear_decay" else 0):
                text = f"TextBrewer uses {static:g} in the first step only, and so does the spec"
                yield Note(f"{name}_scheduler", f"{text}; `ramp(…)` alone is probably intended")
        if not distill.is_caching_logits:
            return
        if not script.ignores_matches:
            text = f"left out: {script.distiller} silently sets it to false, so that it never had an effect"
        elif script.counts_padding:
            text = (
                "left out, the teacher runs in every epoch: padding counts in these logits, as in TextBrewer, and "
                "depends on the batch"
            )
        else:
            text = (
                "`cache` keeps the teachers' logits on disk, also for later runs. TextBrewer keeps them in memory and "
                "never reshuffles its batches; here they are shuffled"
            )
        yield Note("is_caching_logits", text)

    def _of_matches(self) -> Iterator[Note]:
        script, matches = self.script, [match for _, match in self.matches]
        if script.ignores_matches:
            if matches:
                text = f"left out: {script.distiller} silently ignores them; GeneralDistiller does not"
                yield Note("intermediate_matches", text)
            return
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
            text = "the first token that is not padding counts; zero vectors give zero, where TextBrewer gives NaN"
            yield Note("pkd", text)
        if any(match.feature == "attention" for match in matches):
            where = "layers count from 1 in the file and from 0 in the spec" if script.first else "layers count from 0"
            yield Note("attention", f"{where}; it is taken as {script.attention}")
            if not script.inputs_mask and script.attention == "scores":
                text = "without a mask TextBrewer zeroes scores up to -0.001, genuine ones too; brewgraph does not"
                yield Note("attention", text)

    def _of_adaptors(self) -> Iterator[Note]:
        """Notes on assumptions about the adaptors that matter."""
        script, distill = self.script, self.distill
        if distill.hard_label_weight or distill.hard_label_weight_scheduler is not None:
            text = "the loss of the student's own model on the labels; add an equation for each other adaptor loss"
            yield Note("losses", text)
        for key, what, masked, applies in (
            ("inputs_mask", "matches", script.inputs_mask, self.matches and not script.ignores_matches),
            ("logits_mask", "logits", script.logits_mask, script.labels == TAGS),
        ):
            if applies and masked:
                option = f"add --no-{key.replace('_', '-')} if yours does not"
                text = f"padding does not count in {what}, assuming that the adaptor returns it; {option}"
                yield Note(key, text)
            elif applies:
                yield Note(key, f"padding counts in {what}, as in TextBrewer without it")

    def _of_training(self) -> Iterator[Note]:
        train, names = self.train, self.settings
        if train.ckpt_steps is None and train.ckpt_frequency > 1 and train.ckpt_epoch_frequency > 1:
            text = f"checkpoints are written in every epoch, not only in one of {train.ckpt_epoch_frequency}"
            yield Note("ckpt_epoch_frequency", text)
        if train.ckpt_steps is not None and {"ckpt_frequency", "ckpt_epoch_frequency"} & names:
            yield Note("ckpt_frequency", "left out: with ckpt_steps TextBrewer ignores it")
        if {"ckpt_frequency", "ckpt_epoch_frequency", "ckpt_steps"} & names:
            text = "checkpoints serve to resume; the last two are kept (save_total_limit), TextBrewer keeps all"
            yield Note("ckpt_*", text)
        if train.gradient_accumulation_steps > 1:
            text = (
                "normalise = micro is the mean of the micro-batches' means, as in TextBrewer; without it all examples "
                "of a step count alike. `batch` is the size of a micro-batch; the last ones of an epoch make a step "
                "here, but TextBrewer drops them"
            )
            yield Note("gradient_accumulation_steps", text)
        if train.log_dir is not None:
            yield Note("log_dir", "left out: a run's folder contains metrics.jsonl and tensorboard/")
        if "output_dir" in names:
            yield Note("output_dir", f"left out: `brewgraph run … --out {train.output_dir}` names the folder")
        if "device" in names:
            text = "left out: accelerate uses the available devices; set CUDA_VISIBLE_DEVICES= for the CPU"
            yield Note("device", text)
        if train.fp16 and train.fp16_opt_level != "O1":
            used = "O0 is full precision, which is the default"
            if train.fp16_opt_level != "O0":
                used = f"{train.fp16_opt_level} is apex's; precision = fp16 is autocast, which is O1"
            yield Note("fp16_opt_level", used)
        if train.data_parallel or train.local_rank != -1:
            text = "left out: `accelerate launch -m brewgraph run …` starts the processes; `batch` counts all rows"
            yield Note("data_parallel" if train.data_parallel else "local_rank", text)


def _aligned(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """`name = value` with the `=` aligned, which the formatter keeps."""
    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}} = {value}" for name, value in rows]


def _number(value: float) -> str:
    """A number with every digit, as in a spec."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _weight(static: float, schedule: str | None) -> str:
    """A weight, empty for one. TextBrewer's schedules start after the first step, which has the static weight."""
    if schedule is None:
        return "" if static == 1 else _number(static)
    first, text = (1, "ramp(1 -> 0)") if schedule == "linear_decay" else (0, "ramp(0 -> 1)")
    if static == first:
        return text
    return f"({text} + {_number(static - first)} * (1 - after(1 steps)))".replace("+ -", "- ")


def _paired(match: MatchEntry) -> bool:
    """Whether both layers of a side are written: `nst` of a layer with itself needs only one."""
    if match.loss not in PAIRED:
        return False
    itself = all(one == other for one, other in (_two(match.layer_T), _two(match.layer_S)))
    return match.loss in ("fsp", "gram") or not itself


def _two(layers: int | tuple[int, int]) -> tuple[int, int]:
    assert isinstance(layers, tuple)
    return layers


def _projection(projection: ProjectionEntry) -> str:
    options = "".join(f", {name}={_number(value)}" for name, value in projection.options)
    return f"{projection.kind}({projection.into} -> {projection.out}{options})"


def _unmasked(unmasked: bool) -> str:
    return ", mask=none" if unmasked else ""


# ── converting ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Converted:
    """A formatted spec, and notes on it."""

    text: str
    notes: tuple[Note, ...]


def convert(
    sources: Sequence[Source], script: Script, chosen: Sequence[str] = (), *, supervised: bool | None = None
) -> Converted:
    """One spec from one or more files: a distillation, a training configuration, lists of matches.

    `chosen` are the names of the lists of matches to convert. If `supervised` is None, a file with only training
    settings is one of BasicTrainer. Raises `SpecError` with every fault of the files, `UsageError` if they are
    ambiguous.
    """
    collector = Collector()
    parts = parts_of(sources, collector)
    if supervised is None:
        script, supervised = _as_called(sources, script)
    lists = chosen_lists([read for kind, read in parts if kind == "matches"], chosen)
    distill = settled(parts, "distill", DistillationConfig, collector)
    train = settled(parts, "train", TrainingConfig, collector)
    unnamed = [("", match) for match in distill.intermediate_matches or ()]
    named = [(_equation_name(read.name), match) for read in lists for match in matches_of(read, collector)]
    collector.raise_errors()
    if supervised or (supervised is None and not lists and all(kind == "train" for kind, _ in parts)):
        script = replace(script, distiller="BasicTrainer")
    matches = (*unnamed, *named)
    settings = frozenset(key for kind, read in parts if kind == "train" for key in read.value)
    name = ", ".join(source.name.replace("\\", "/").rpartition("/")[2] for source in sources)
    configuration = Configuration(name, distill, train, settings, matches, _with_first(script, matches))
    if not configuration.terms:
        raise UsageError("every weight of the loss is zero: there is nothing to train; correct one of them")
    return Converted(_with_ignores(configuration.spec()), configuration.notes)


def _as_called(sources: Sequence[Source], script: Script) -> tuple[Script, bool | None]:
    """The distiller that a script calls, if none is named, and whether it trains without a teacher.

    Raises `UsageError` if it calls several, or one that needs more options.
    """
    called = distillers_called(sources)
    if not called:
        return script, None
    if len(called) > 1:
        raise UsageError(f"the script calls {listing(called)}: choose one, as --distiller {next(iter(called))}")
    (name,) = called
    more = {"MultiTeacherDistiller": " --teachers 2", "MultiTaskDistiller": " --task ner --task qa"}.get(name)
    if more is not None:
        raise UsageError(f"{called[name].name} calls {name}: add --distiller {name}{more}")
    return replace(script, distiller=name), name == "BasicTrainer"  # type: ignore[arg-type]


def _with_ignores(text: str) -> str:
    """The spec with a comment that silences W213 at each term without a factor T², which TextBrewer does not have."""
    open_params = re.findall(r"^param (\w+)$", text, re.MULTILINE)
    recipe = check_names(Source(text), dict.fromkeys(open_params, "given later"))
    warnings = find_unscaled_targets(Subject(recipe, {}, lambda model, feature: None))
    lines = text.splitlines()
    for row in sorted({d.span.source.position(d.span.start)[0] for d in warnings}, reverse=True):
        line, comment = lines[row - 1], "# brew: ignore[W213] TextBrewer has no T²"
        extended = f"{line}    {comment}"
        indent = " " * (len(line) - len(line.lstrip()))
        lines[row - 1 : row] = [extended] if len(extended) <= 120 else [f"{indent}{comment}", line]
    return "\n".join(lines) + "\n"


def _with_first(script: Script, matches: Sequence[tuple[str, MatchEntry]]) -> Script:
    """The script with the index of its first attention layer, which a layer 0 reveals. Raises `UsageError`."""
    attention = [match for _, match in matches if match.feature == "attention"]
    if script.supervised or script.ignores_matches or not attention or script.first == 0:
        return script
    from_zero = any(0 in (match.layer_T, match.layer_S) for match in attention)
    if script.first is None and not from_zero:
        raise UsageError(
            "attention layers may count from 0, as transformers' `attentions` do, or from 1, as in the lists of "
            "TextBrewer's examples, which begin with None: add --attention-from 0 or --attention-from 1"
        )
    if script.first == 1 and from_zero:
        raise UsageError("attention layers count from 0, because there is a layer 0: remove --attention-from 1")
    return replace(script, first=0 if from_zero else script.first)


def _equation_name(name: str) -> str:
    """The name of an equation for a list, which no other statement of the spec has; empty for a list without a name."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)
    taken = word in KEYWORDS | _TAKEN or word[:1].isdigit() or word.startswith(("map", "teacher", "big"))
    return f"matches_{word}" if word and taken else word
