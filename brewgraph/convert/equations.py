"""The loss of a TextBrewer configuration as equations, each with its weight, in the order in which they are added.

    L = kd_loss_weight · Σ KD(logits) + Σ weight · match + hard_label_weight · Σ losses

The sum of the KD terms goes over what a task's adaptor calls logits (a start and an end of answers), that of the losses
over what transformers calls the loss of the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from brewgraph.convert.config import PAIRED, DistillationConfig, MatchEntry, ProjectionEntry
from brewgraph.recipe.label_types import CLASS, SPANS, TAGS, LabelType

NAMES = {
    "hidden_mse": "hidden", "cos": "cosine", "pkd": "patient",
    "fsp": "flow", "gram": "flow", "nst": "gram", "mmd": "gram",
    "attention_mse": "attention", "attention_mse_sum": "heads_sum",
    "attention_ce": "attention_soft", "attention_ce_mean": "heads_mean",
}  # fmt: skip
"""What an equation of each loss is called."""


@dataclass(frozen=True)
class Adaptors:
    """What TextBrewer's adaptors say in Python, and no configuration does.

    `labels` is what a label is; masks are those that the student's adaptor gives. Attention is taken as `probabilities`
    or `scores`, from a list whose first layer stands at `first` (0, or 1 where the list begins with None).
    """

    labels: LabelType = CLASS
    inputs_mask: bool = True
    logits_mask: bool = True
    attention: Literal["probabilities", "scores"] = "probabilities"
    first: int | None = None


@dataclass(frozen=True)
class Models:
    """The names in one equation: the student, the data, and teachers, of which several are averaged."""

    student: str
    data: str
    teacher: str
    averaged: bool = False

    def soft(self, feature: str) -> str:
        """The teacher's logits."""
        return f"mean({self.teacher}.{feature})" if self.averaged else f"{self.teacher}.{feature}"


@dataclass(frozen=True)
class LossTerm:
    """`name = text`, which comes into the loss with a weight (empty: one); a list of losses is summed.

    `before` are the lines that it needs: a layer map, projections.
    """

    name: str
    text: str
    weight: str = ""
    listed: bool = False
    before: tuple[str, ...] = ()

    @property
    def addend(self) -> str:
        """What stands in the loss."""
        value = f"sum({self.name})" if self.listed else self.name
        return f"{self.weight} * {value}" if self.weight else value


def number(value: float) -> str:
    """A number as a spec writes it, every digit of it."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


# ── logits and labels ────────────────────────────────────────────────────────────────────────────────────────────────


def soft(config: DistillationConfig, models: Models, adaptors: Adaptors, cached: bool = False) -> LossTerm | None:
    """The match of the logits, those of the teachers `cached` or not; None where its weight is zero throughout."""
    weight = _weight(config.kd_loss_weight, config.kd_loss_weight_scheduler)
    if weight == "0":
        return None
    spans = adaptors.labels == SPANS
    options = f"T={_temperature(config)}" + _unmasked(_counts_padding(adaptors))
    terms, before = [], []
    for feature, label in (("start", "start"), ("end", "end")) if spans else (("logits", "labels"),):
        source = models.soft(feature)
        if cached:
            before.append(f'cache kept_{feature} = {source} at "cache"')
            source = f"kept_{feature}"
        if config.probability_shift:
            source = f"shift({source}, {models.data}.{label})"
        terms.append(f"{config.kd_loss_type}({source} -> {models.student}.{feature}, {options})")
    return LossTerm("soft", " + ".join(terms), weight, before=tuple(before))


def can_cache(adaptors: Adaptors) -> bool:
    """Whether the logits of a teacher can be kept: not where their padding counts, which changes with the batch."""
    return not _counts_padding(adaptors)


def _counts_padding(adaptors: Adaptors) -> bool:
    """A mask is there for logits of each token; TextBrewer ignores it for those of whole examples."""
    return adaptors.labels != CLASS and not (adaptors.labels == TAGS and adaptors.logits_mask)


def _temperature(config: DistillationConfig) -> str:
    own = config.temperature_scheduler
    if own is None:
        return "T"
    gamma = f", gamma={number(own.gamma)}" if own.name == "flsw" else ""
    return f"{own.name}(T, beta={number(own.beta)}{gamma})"


def hard(models: Models, adaptors: Adaptors) -> str:
    """The loss on the labels, as transformers' models compute it."""
    if adaptors.labels == SPANS:
        one, other = (f"ce({models.data}.{x} -> {models.student}.{x}, mask=none)" for x in ("start", "end"))
        return f"0.5 * ({one} + {other})"
    return f"ce({models.data}.labels -> {models.student}.logits)"


def hard_equation(config: DistillationConfig, models: Models, adaptors: Adaptors) -> LossTerm | None:
    """The loss on the labels with its weight; None where that is zero throughout."""
    weight = _weight(config.hard_label_weight, config.hard_label_weight_scheduler)
    return None if weight == "0" else LossTerm("hard", hard(models, adaptors), weight)


def _weight(static: float, schedule: str | None) -> str:
    """A weight, empty for one. TextBrewer's schedules take over after the first step, which has the static weight."""
    if schedule is None:
        return "" if static == 1 else number(static)
    first, text = (1, "ramp(1 -> 0)") if schedule == "linear_decay" else (0, "ramp(0 -> 1)")
    if static == first:
        return text
    return f"({text} + {number(static - first)} * (1 - after(1 steps)))".replace("+ -", "- ")


# ── matches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def matches(named: Sequence[tuple[str, MatchEntry]], models: Models, adaptors: Adaptors) -> Iterator[LossTerm]:
    """An equation for all matches that differ in nothing but their layers, in the order of the first of each.

    `named` gives each match with the name that its equation should have, empty for that of its loss.
    """
    groups: dict[tuple[object, ...], list[MatchEntry]] = {}
    for name, match in named:
        key: tuple[object, ...] = (name or NAMES[match.loss], match.loss, match.weight, match.proj, _tupled(match))
        groups.setdefault(key, []).append(match)
    taken: dict[str, int] = {}
    maps: dict[str, str] = {}
    for (first, *_), group in groups.items():
        if group[0].weight == 0:
            continue
        word = str(first)
        taken[word] = taken.get(word, 0) + 1
        name = word if taken[word] == 1 else f"{word}_{taken[word]}"
        yield (_of_pairs if _tupled(group[0]) else _of_layers)(name, group, models, adaptors, maps)


def _tupled(match: MatchEntry) -> bool:
    """Whether both layers of a side have to be written: `nst` of a layer with itself needs but one."""
    if match.loss not in PAIRED:
        return False
    itself = all(one == other for one, other in (_two(match.layer_T), _two(match.layer_S)))
    return match.loss in ("fsp", "gram") or not itself


def _two(layers: int | tuple[int, int]) -> tuple[int, int]:
    assert isinstance(layers, tuple)
    return layers


def _of_layers(
    name: str, group: Sequence[MatchEntry], models: Models, adaptors: Adaptors, maps: dict[str, str]
) -> LossTerm:
    """A loss between a layer of each side, over a layer map where there are several."""
    one = group[0]
    pairs = [(_layer(m.layer_T, one, adaptors), _layer(m.layer_S, one, adaptors)) for m in group]
    before: tuple[str, ...] = ()
    indices = [str(layer) for layer in pairs[0]]
    if len(pairs) > 1:
        text = f"{[a for a, _ in pairs]} -> {[b for _, b in pairs]}"
        if text not in maps:
            maps[text] = "map" if not maps else f"map_{len(maps) + 1}"
            before = (f"let {maps[text]} = {text}",)
        indices = [maps[text]] * 2
    operation, inside, feature = _words(one.loss, adaptors)
    named = zip((models.teacher, models.student), indices, strict=True)
    sides = [inside.format(f"{model}.{feature}[{i}]") for model, i in named]
    via = f" via {_projection(one.proj)}" if one.proj is not None else ""
    options = _unmasked(not adaptors.inputs_mask and one.loss != "pkd")
    text = f"{operation}({sides[0]} -> {sides[1]}{via}{options})"
    return LossTerm(name, text, _weight(one.weight, None), len(pairs) > 1, before)


def _of_pairs(
    name: str, group: Sequence[MatchEntry], models: Models, adaptors: Adaptors, maps: dict[str, str]
) -> LossTerm:
    """A loss between two layers of each side; one projection serves both of a match."""
    before, terms = [], []
    for count, match in enumerate(group, start=1):
        via = ""
        if match.proj is not None:
            shared = f"W_{name}" + (f"_{count}" if len(group) > 1 else "")
            before.append(f"proj {shared} = {_projection(match.proj)}")
            via = f" via {shared}"
        sides = ((models.teacher, match.layer_T, ""), (models.student, match.layer_S, via))
        source, target = (
            ", ".join(f"{model}.hidden[{layer}]{after}" for layer in _two(layers)) for model, layers, after in sides
        )
        operation, _, _ = _words(match.loss, adaptors)
        terms.append(f"{operation}(({source}) -> ({target}){_unmasked(not adaptors.inputs_mask)})")
    text = terms[0] + "".join(f"\n    + {term}" for term in terms[1:])
    return LossTerm(name, text, _weight(group[0].weight, None), False, tuple(before))


def _words(loss: str, adaptors: Adaptors) -> tuple[str, str, str]:
    """The operation, what it is given (`{}`: the feature), and the feature, of one of TextBrewer's losses."""
    if not loss.startswith("attention"):
        operation = {"hidden_mse": "mse", "gram": "fsp", "mmd": "nst"}.get(loss, loss)
        return operation, "{}", "hidden"
    heads = {"attention_mse_sum": "head_sum({})", "attention_ce_mean": "head_mean({})"}.get(loss, "{}")
    if "mse" in loss:
        return "mse", heads, "attention" if adaptors.attention == "probabilities" else "scores"
    if adaptors.attention == "scores":
        return "ce", heads, "scores"
    return "ce", f"probabilities({heads}, mask=none)", "attention"


def _layer(layer: int | tuple[int, int], match: MatchEntry, adaptors: Adaptors) -> int:
    """A layer's index here: attention counts from 0, and of a layer with itself one stands for both."""
    index = layer[0] if isinstance(layer, tuple) else layer
    shifted = match.feature == "attention" and index >= 0
    return index - (adaptors.first or 0) if shifted else index


def _projection(projection: ProjectionEntry) -> str:
    options = "".join(f", {name}={number(value)}" for name, value in projection.options)
    return f"{projection.kind}({projection.into} -> {projection.out}{options})"


def _unmasked(whether: bool) -> str:
    return ", mask=none" if whether else ""
