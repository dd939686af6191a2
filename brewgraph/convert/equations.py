"""The loss of a TextBrewer configuration as equations with weights, in the order of addition.

    L = kd_loss_weight · Σ KD(logits) + Σ weight · match + hard_label_weight · Σ losses

The KD terms are those of everything that a task's adaptor calls logits (for answers a start and an end); the losses are
what transformers calls the loss of the task.
"""

from __future__ import annotations

from collections import Counter
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
"""The name of the equation of each loss."""


@dataclass(frozen=True)
class Adaptors:
    """What TextBrewer's adaptors define in Python, and no configuration.

    `labels` is the type of labels. The masks are those that the student's adaptor returns. Attention is `probabilities`
    or `scores`, in a list whose first layer has the index `first` (0, or 1 if the list begins with None).
    """

    labels: LabelType = CLASS
    inputs_mask: bool = True
    logits_mask: bool = True
    attention: Literal["probabilities", "scores"] = "probabilities"
    first: int | None = None


@dataclass(frozen=True)
class Models:
    """The names of models and data in one equation; several teachers are averaged."""

    student: str
    data: str
    teacher: str
    averaged: bool = False

    def soft(self, feature: str) -> str:
        """The teacher's logits."""
        return f"mean({self.teacher}.{feature})" if self.averaged else f"{self.teacher}.{feature}"


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


def number(value: float) -> str:
    """A number with every digit, as in a spec."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


# ── logits and labels ────────────────────────────────────────────────────────────────────────────────────────────────


def soft(config: DistillationConfig, models: Models, adaptors: Adaptors, cached: bool = False) -> LossTerm | None:
    """The match of the logits, with those of the teachers `cached` or not; None if its weight is always zero."""
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
    """Whether a teacher's logits can be cached: not if their padding counts, which depends on the batch."""
    return not _counts_padding(adaptors)


def _counts_padding(adaptors: Adaptors) -> bool:
    """Whether padding counts in logits: TextBrewer masks logits per token, but not those of whole examples."""
    return adaptors.labels != CLASS and not (adaptors.labels == TAGS and adaptors.logits_mask)


def _temperature(config: DistillationConfig) -> str:
    scheduler = config.temperature_scheduler
    if scheduler is None:
        return "T"
    gamma = f", gamma={number(scheduler.gamma)}" if scheduler.name == "flsw" else ""
    return f"{scheduler.name}(T, beta={number(scheduler.beta)}{gamma})"


def hard(models: Models, adaptors: Adaptors) -> str:
    """The loss on the labels, as transformers' models compute it."""
    if adaptors.labels == SPANS:
        one, other = (f"ce({models.data}.{x} -> {models.student}.{x}, mask=none)" for x in ("start", "end"))
        return f"0.5 * ({one} + {other})"
    return f"ce({models.data}.labels -> {models.student}.logits)"


def hard_equation(config: DistillationConfig, models: Models, adaptors: Adaptors) -> LossTerm | None:
    """The loss on the labels with its weight; None if that is always zero."""
    weight = _weight(config.hard_label_weight, config.hard_label_weight_scheduler)
    return None if weight == "0" else LossTerm("hard", hard(models, adaptors), weight)


def _weight(static: float, schedule: str | None) -> str:
    """A weight, empty for one. TextBrewer's schedules start after the first step, which has the static weight."""
    if schedule is None:
        return "" if static == 1 else number(static)
    first, text = (1, "ramp(1 -> 0)") if schedule == "linear_decay" else (0, "ramp(0 -> 1)")
    if static == first:
        return text
    return f"({text} + {number(static - first)} * (1 - after(1 steps)))".replace("+ -", "- ")


# ── matches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def matches(named: Sequence[tuple[str, MatchEntry]], models: Models, adaptors: Adaptors) -> Iterator[LossTerm]:
    """An equation for each group of matches that differ only in their layers, in order of the first of each group.

    `named` pairs matches with the names of their equations, empty for that of the loss.
    """
    groups: dict[tuple[object, ...], list[MatchEntry]] = {}
    for name, match in named:
        key: tuple[object, ...] = (name or NAMES[match.loss], match.loss, match.weight, match.proj, _tupled(match))
        groups.setdefault(key, []).append(match)
    uses: Counter[str] = Counter()
    maps: dict[str, str] = {}
    for (first, *_), group in groups.items():
        if group[0].weight == 0:
            continue
        name = str(first)
        uses[name] += 1
        name = name if uses[name] == 1 else f"{name}_{uses[name]}"
        yield (_of_pairs if _tupled(group[0]) else _of_layers)(name, group, models, adaptors, maps)


def _tupled(match: MatchEntry) -> bool:
    """Whether both layers of a side are written: `nst` of a layer with itself needs only one."""
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
    """A loss between a layer of each side, with a layer map if there are several."""
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
    operation, template, feature = _words(one.loss, adaptors)
    named = zip((models.teacher, models.student), indices, strict=True)
    sides = [template.format(f"{model}.{feature}[{i}]") for model, i in named]
    via = f" via {_projection(one.proj)}" if one.proj is not None else ""
    options = _unmasked(not adaptors.inputs_mask and one.loss != "pkd")
    text = f"{operation}({sides[0]} -> {sides[1]}{via}{options})"
    return LossTerm(name, text, _weight(one.weight, None), len(pairs) > 1, before)


def _of_pairs(
    name: str, group: Sequence[MatchEntry], models: Models, adaptors: Adaptors, maps: dict[str, str]
) -> LossTerm:
    """A loss between two layers of each side, which share a projection."""
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
    """The operation for a loss of TextBrewer, a template for its arguments (`{}`: the feature), and the feature."""
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
    """The index of a layer in a spec, where attention counts from 0; the first of two equal layers."""
    index = layer[0] if isinstance(layer, tuple) else layer
    shifted = match.feature == "attention" and index >= 0
    return index - (adaptors.first or 0) if shifted else index


def _projection(projection: ProjectionEntry) -> str:
    options = "".join(f", {name}={number(value)}" for name, value in projection.options)
    return f"{projection.kind}({projection.into} -> {projection.out}{options})"


def _unmasked(unmasked: bool) -> str:
    return ", mask=none" if unmasked else ""
