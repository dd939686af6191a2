"""A plan: what a run will do, before weights are loaded, as data, as lines and as a part of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

from brewgraph.display.cost import Cost, DeviceMemory, flops, megabytes
from brewgraph.display.equation import TermPlan
from brewgraph.display.lines import MONO, count, table
from brewgraph.recipe.length import Length

UNKNOWN = "unknown"
WIDTH = 80
"""Columns of a line; a longer path or equation without a space stays whole."""
MEANS = {
    ("example", ""): "mean over examples",
    ("example", "tokens"): "mean over examples",
    ("position", ""): "mean over examples, or over tokens where the logits are per token",
    ("label", "labels"): "mean over labels, -100 left out",
    ("token", "tokens"): "mean over tokens, padding left out",
    ("pair", "pairs"): "mean over pairs of tokens, padding left out",
    ("word", "words"): "mean over words",
    ("batch", "tokens"): "one number per batch, padding left out",
    ("batch", ""): "one number per batch",
}
_FIXED = f"white-space: pre; font-family: {MONO}"


@dataclass(frozen=True)
class HeadPlan:
    """A head of a model, the class of transformers that loads its folder, and the number of its classes."""

    name: str
    model_class: str
    classes: int | None


@dataclass(frozen=True)
class ModelPlan:
    """A model; numbers are None and texts empty where nothing is known of it. `parameters` counts tied ones once,
    `trainable` those that may learn: not the trunk of a model with an adapter. `model_class` is that of the trunk where
    the model has `heads` of its own. `estimated`: its vocabulary is still to be trained, so that its embeddings may be
    smaller. A model that is not `used` never runs; `idle` says why.
    """

    name: str
    role: str
    source: str
    model_class: str = ""
    architecture: str = ""
    layers: int | None = None
    width: int | None = None
    classes: int | None = None
    parameters: int | None = None
    trainable: int | None = None
    estimated: bool = False
    tokens: str = ""
    start: str = ""
    used: bool = True
    idle: str = ""
    heads: tuple[HeadPlan, ...] = ()


@dataclass(frozen=True)
class DataPlan:
    """A data set: examples or tokens per global batch, longest encoding in tokens, classes, training rows if known."""

    name: str
    source: str
    batch: int | Length
    max_length: int | None
    classes: tuple[str, ...]
    rows: int | None


@dataclass(frozen=True)
class ForwardPlan:
    """A forward per batch and the features that are taken from it, in the order of the model.

    `dropped` features are only taken by terms of weight zero, and not computed; without other `features` the forward
    does not run.
    """

    model: str
    role: str
    data: str
    features: tuple[str, ...]
    passing: int = 1
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartPlan:
    """What one task of one stage computes per batch; both names are empty where the spec has neither.

    `cost` is that of a batch, words where it is not known, None where it was not counted; `saved` what each pass saved,
    by its name; `caches` the name, value and folder of what is kept on disk.
    """

    stage: str
    task: str
    terms: tuple[TermPlan, ...]
    forwards: tuple[ForwardPlan, ...]
    cost: Cost | str | None = None
    saved: tuple[tuple[str, str], ...] = ()
    caches: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class StagePlan:
    """The length of a stage, in optimizer steps (None: rows not known), how its tasks are drawn, what is frozen, and
    how many parameters of the student and of projections it trains (None: not known), and its memory by device, the
    student's first.
    """

    name: str
    settings: tuple[tuple[str, str], ...]
    steps: int | None
    draws: str
    freeze: tuple[str, ...]
    trainable: tuple[int, int] | None = None
    memory: tuple[DeviceMemory, ...] = ()


@dataclass(frozen=True)
class ProjectionPlan:
    """A projection module: widths (None: not known yet), parameters, what it projects, its own optimizer settings."""

    site: str
    kind: str
    into: int | None
    out: int | None
    parameters: int | None
    values: tuple[str, ...]
    options: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Plan:
    """The whole plan. `parts` and `projections` are None where a model cannot be reached, so that they stay open."""

    spec: str
    params: tuple[tuple[str, object], ...]
    models: tuple[ModelPlan, ...]
    data: tuple[DataPlan, ...]
    parts: tuple[PartPlan, ...] | None
    projections: tuple[ProjectionPlan, ...] | None
    stages: tuple[StagePlan, ...]

    def __str__(self) -> str:
        """The plan in lines, as `brewgraph plan` prints it."""
        return "\n".join(text(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return html(self)

    @property
    def terms(self) -> tuple[TermPlan, ...] | None:
        """The terms of the first task: the only one in a spec without tasks and stages."""
        return self.parts[0].terms if self.parts is not None else None

    @property
    def forwards(self) -> tuple[ForwardPlan, ...] | None:
        return self.parts[0].forwards if self.parts is not None else None

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        return self.stages[0].settings

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole training, where the rows are known."""
        return _total(stage.steps for stage in self.stages)

    @property
    def student(self) -> ModelPlan:
        return next(m for m in self.models if m.role == "student")

    @property
    def projection_parameters(self) -> int | None:
        """Parameters of all projections; None where one is not known."""
        return _total(p.parameters for p in self.projections) if self.projections is not None else None

    @property
    def trainable(self) -> int | None:
        """What the optimizer updates: the student and the projections."""
        return _total((self.student.trainable, self.projection_parameters))


def _total(numbers: Iterable[int | None]) -> int | None:
    """Their sum; None where one is not known."""
    known = list(numbers)
    return None if None in known else sum(x for x in known if x is not None)


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def text(plan: Plan) -> Iterator[str]:
    """The plan in lines."""
    yield from _broken(_title(plan), 4)
    for title, lines in _sections(plan):
        yield ""
        yield title
        yield from (f"  {line}" for line in lines)


def html(plan: Plan) -> str:
    """The plan as a part of a page: its sections can be folded, and inherit colours and sizes."""
    folds = "".join(
        f'<details open="" style="margin: 0.4em 0"><summary style="cursor: pointer; font-weight: bold">{escape(title)}'
        '</summary><pre style="margin: 0.2em 0 0 1.2em; overflow-x: auto; background: none; line-height: 1.35; '
        f'{_FIXED}">'
        f"{escape(chr(10).join(lines))}</pre></details>"
        for title, lines in _sections(plan)
    )
    return f'<div class="brewgraph-plan"><code style="{_FIXED}">{escape(_title(plan))}</code>{folds}</div>'


def _title(plan: Plan) -> str:
    params = ", ".join(f"{name} = {value}" for name, value in plan.params)
    return plan.spec + (f"   ({params})" if params else "")


def _sections(plan: Plan) -> Iterator[tuple[str, Iterable[str]]]:
    """Titles, each with its lines."""
    yield "models", (line for model in plan.models for line in _model(model))
    yield "data", _data(plan)
    if plan.parts is None:
        yield "loss", _broken(f"{UNKNOWN}: its lists cannot be spelled out before the models above can be reached", 2)
    for part in plan.parts or ():
        title = f" of {_named(part)}" if _named(part) else ""
        yield f"loss{title}", _loss(part)
        yield f"each batch{title} runs", _forwards(part)
        if part.caches:
            rows = ((name, f"{value}, in {at}: read if present, else computed") for name, value, at in part.caches)
            yield f"kept on disk{title}", _table(rows)
        if part.cost is not None:
            yield f"each batch{title} costs", _cost(part.cost, [x.model for x in part.forwards])
        if part.saved:
            yield f"saved{title} by", _table(part.saved)
    yield "projections", _projections(plan)
    yield "trained", _trained(plan)
    for stage in plan.stages:
        if stage.memory:
            yield f"memory{f' of stage {stage.name}' if stage.name else ''}", _table(map(_memory, stage.memory))
    first, *later = plan.stages
    yield f"stage {first.name}" if first.name else "training", _table(_settings(first))
    for stage in later:
        yield f"stage {stage.name}, apart from what {first.name} has too", _other(stage, first)


def _named(part: PartPlan) -> str:
    """`task ner`, `task ner in stage warm`, `stage warm`; empty where the spec has neither."""
    where = f"stage {part.stage}" if part.stage else ""
    return f"task {part.task}{f' in {where}' if where else ''}" if part.task else where


def _broken(text: str, hanging: int, first: int = 0) -> list[str]:
    """A text in lines of at most `WIDTH` columns; beyond the two columns of a section the first line is indented by
    `first`, the others by `hanging`.
    """
    return wrap(
        text, WIDTH - 2, initial_indent=" " * first, subsequent_indent=" " * hanging, break_long_words=False,
        break_on_hyphens=False,
    ) or [""]  # fmt: skip


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and words in two columns."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0) + 2
    for name, words in rows:
        first, *more = _broken(words, width, width)
        yield f"{name:<{width}}{first.lstrip()}"
        yield from more


def _model(model: ModelPlan) -> Iterator[str]:
    yield from _broken(f"{model.role} {model.name} = {model.source}", 4)
    facts = [
        ("is", _what(model)),
        *((f"head {x.name}", ", ".join([x.model_class, *_classes(x.classes)])) for x in model.heads),
        ("parameters", _parameters(model)),
        ("starts as", model.start),
        ("tokenizer", model.tokens or UNKNOWN),
    ]
    if not model.used:
        facts.append(("used", f"no: {model.idle}"))
    yield from _table((f"  {name}", words) for name, words in facts)


def _classes(number: int | None) -> list[str]:
    return [f"{number} class{'' if number == 1 else 'es'}"] if number is not None else []


def _what(model: ModelPlan) -> str:
    if not model.model_class:
        return UNKNOWN
    parts = [model.architecture if model.heads else f"{model.architecture}, {model.model_class}"]
    parts += [count(model.layers, "layer")] if model.layers is not None else []
    parts += [f"width {model.width}"] if model.width is not None else []
    parts += [f"{model.classes} classes"] if model.classes is not None and not model.heads else []
    return ", ".join(parts)


def _parameters(model: ModelPlan) -> str:
    if model.parameters is None:
        return UNKNOWN
    return f"{model.parameters:,}" + (" at most: the vocabulary is still to be trained" if model.estimated else "")


def _data(plan: Plan) -> Iterator[str]:
    for data in plan.data:
        yield from _broken(f"{data.name} = {data.source}", 4)
        rows = f"{data.rows:,} rows to train on" if data.rows is not None else "rows not counted yet"
        length = f"at most {data.max_length} tokens" if data.max_length else "as long as the models allow"
        yield from _broken(f"{rows}, {data.batch} per batch over all ranks, {length}", 4, 2)
        if data.classes:
            shown = ", ".join(data.classes[:8]) + (", …" if len(data.classes) > 8 else "")
            yield from _broken(f"{len(data.classes)} class{'es' if len(data.classes) > 1 else ''}: {shown}", 4, 2)


def _loss(part: PartPlan) -> Iterator[str]:
    """The terms, each with its name, and what each is a mean over.

    Names that do not fit into the line stand below it, those of a list together.
    """
    names = [" = ".join(term.names) for term in part.terms]
    lines = [f"{'loss =' if i == 0 else '     +'} {term.weighted}" for i, term in enumerate(part.terms)]
    fits = [len(line) + len(name) + 6 <= WIDTH for line, name in zip(lines, names, strict=True)]
    column = max((len(line) for line, fit in zip(lines, fits, strict=True) if fit), default=0)
    below: list[str] = []
    for i, (line, name) in enumerate(zip(lines, names, strict=True)):
        inline = fits[i] and column + len(name) + 6 <= WIDTH
        yield from [f"{line:<{column}}  # {name}" if name else line] if inline else _broken(line, 9)
        below += [name] if name and not inline else []
        following = names[i + 1].partition("[")[0] if i + 1 < len(names) and not fits[i + 1] else ""
        if below and following != name.partition("[")[0]:
            yield f"         # {_ranges(below)}"
            below = []
    means: dict[str, list[str]] = {}
    for i, term in enumerate(part.terms):
        if mean := _mean(term):
            means.setdefault(mean, []).append(" = ".join(term.names) or f"term {i + 1}")
    yield from _table((mean, _ranges(names)) for mean, names in means.items())


def _ranges(names: list[str]) -> str:
    """`hidden[0], hidden[1], hidden[2]` as `hidden[0..2]`."""
    parts = [re.fullmatch(r"(.*)\[(\d+)\]", name) for name in names]
    runs: list[list[str]] = []
    for i, name in enumerate(names):
        one, before = parts[i], parts[i - 1] if i else None
        follows = one and before and (one[1], int(one[2])) == (before[1], int(before[2]) + 1)
        runs[-1:] = [[*runs[-1], name]] if follows else [*runs[-1:], [name]]
    return ", ".join(run[0] if len(run) == 1 else f"{run[0][:-1]}..{run[-1].rpartition('[')[2]}" for run in runs)


def _mean(term: TermPlan) -> str:
    """What a term is a mean over."""
    mask = "padding included" if term.mask == "none" else f"mask: {term.mask}"
    return MEANS.get((term.unit, term.mask), f"mean over {term.unit}s, {mask}" if term.unit else "")


def _forwards(part: PartPlan) -> Iterator[str]:
    several = len({forward.data for forward in part.forwards}) > 1
    counted = {x.model: x for x in part.cost.forwards} if part.cost and not isinstance(part.cost, str) else {}
    rows = []
    for forward in part.forwards:
        on = f" on {forward.data}" if several else ""
        again = f", pass {forward.passing}" if forward.passing > 1 else ""
        cost = counted.get(forward.model)
        layers = f"{cost.layers} of {count(cost.present, 'layer')}, " if cost is not None and cost.present else ""
        how = "without gradients" if forward.role == "teacher" else "with gradients"
        words = f"{layers}{how}, for {', '.join(forward.features)}" if forward.features else "not run"
        if forward.dropped:
            words += f"; only terms of weight zero take {', '.join(forward.dropped)}"
        rows.append((f"{forward.role} {forward.model}{on}{again}", words))
    yield from _table(rows)


def _cost(cost: Cost | str, order: list[str]) -> Iterator[str]:
    if isinstance(cost, str):
        yield from _broken(f"{UNKNOWN}: {cost}", 2)
        return
    shares = [f"{x.model} {flops(x.flops)}" for x in sorted(cost.forwards, key=lambda x: order.index(x.model))]
    if cost.losses:
        shares.append(f"projections and losses {flops(cost.losses)}")
    yield from _table([
        ("forward", f"{flops(cost.forward)}: {', '.join(shares)}"),
        ("backward", flops(cost.backward)),
        ("memory", f"{megabytes(cost.peak)} at most, {megabytes(cost.kept)} of it between forward and backward"),
        ("of", f"{cost.batch} examples of {cost.length} tokens, as a CPU computes them; memory is beside parameters, "
               "their gradients and the optimizer"),
    ])  # fmt: skip


def _projections(plan: Plan) -> Iterator[str]:
    if not plan.projections:
        yield UNKNOWN if plan.projections is None else "none"
        return
    rows = []
    for p in plan.projections:
        sizes = f"{p.into or '?'} -> {p.out or '?'}" if p.into or p.out else "sizes"
        options = "".join(f", {name} = {value:g}" for name, value in p.options)
        parameters = f"{p.parameters:,} parameters" if p.parameters is not None else UNKNOWN
        rows.append((p.site, f"{p.kind} {sizes}", parameters, f"of {', '.join(p.values)}{options}"))
    heads = table([row[:3] for row in rows], right=(2,)).splitlines()
    yield from _table(zip(heads, (row[3] for row in rows), strict=True))


def _trained(plan: Plan) -> Iterator[str]:
    """Parameters that learn: in one line where all stages train the same."""
    several = len({stage.trainable for stage in plan.stages}) > 1
    for stage in plan.stages if several else plan.stages[:1]:
        if stage.trainable is None:
            yield f"parameters: {UNKNOWN}"
            continue
        student, projections = stage.trainable
        parts = f"{student:,} of {plan.student.name} + {projections:,} of projections"
        where = f" in stage {stage.name}" if several else ""
        yield from _broken(f"{student + projections:,} parameters{where}" + (f" ({parts})" if projections else ""), 2)


def _memory(memory: DeviceMemory) -> tuple[str, str]:
    """A device and its bytes: all of them, and what they are."""
    sizes = [size for _, size in memory.weights]
    names = [f"{name} {megabytes(size)}" if sizes[1:] else name for name, size in memory.weights]
    parts = [f"weights {megabytes(sum(sizes))} ({', '.join(names)})"] if names else []
    kinds = [("gradients", memory.gradients), ("optimizer", memory.optimizer), ("activations", memory.activations)]
    kinds += [("gathered at most", memory.gathered)]
    parts += [f"{kind} {megabytes(size)}" for kind, size in kinds if size]
    parts += ["activations not counted"] if memory.activations is None else []
    parts += [f"{name} is not known before it is built" for name in memory.unknown]
    each = f", each of {memory.ranks} ranks" if memory.ranks > 1 else ""
    device = memory.device or "student's device"
    return f"{device}{each}", f"{megabytes(memory.total)}: {', '.join(parts)}"


def _settings(stage: StagePlan) -> list[tuple[str, str]]:
    """Names and values of a stage's settings."""
    best = "metric_for_best_model" in dict(stage.settings)
    rows = [row for row in stage.settings if best or row[0] not in _BEST]
    if stage.steps is not None and "steps" not in dict(rows):
        rows.insert(1, ("steps", f"{stage.steps:,} on one rank or many"))
    if stage.draws:
        rows.append(("tasks", f"drawn {stage.draws}"))
    return rows


def _other(stage: StagePlan, first: StagePlan) -> Iterator[str]:
    """The length of a stage, and its settings that the first one does not share."""
    before, after = _settings(first), _settings(stage)
    rows = [row for row in after if row[0] in _LENGTH or row not in before]
    rows += [(name, "none") for name, _ in before if name not in (*_LENGTH, *dict(after))]
    yield from _table(rows)


_LENGTH = ("epochs", "steps")
_BEST = ("greater_is_better", "load_best_model_at_end", "early_stopping_threshold")
"""Settings that have no effect without a metric for the best model."""
