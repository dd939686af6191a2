"""Lints: functions from a checked recipe to warnings about what is legal but probably not intended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, info, node, of_kind
from brewgraph.ops import TEMPERATURES
from brewgraph.ops.schedules import FORMS
from brewgraph.ops.temperatures import FLOOR
from brewgraph.recipe import values as v
from brewgraph.recipe.label_types import Form
from brewgraph.recipe.numbers import WEIGHTS, factors, scalar_value
from brewgraph.recipe.recipe import Recipe, Stage
from brewgraph.recipe.settings.data_sources import Join
from brewgraph.recipe.values import Length, Value

MOMENTS = tuple(step / 64 for step in range(65))
"""The shares of training at which a schedule is evaluated; at the last one it has the value that it comes close to."""


@dataclass(frozen=True)
class Subject:
    """A checked recipe and its canonical `graphs` by stage and task. `count` tells how many members a model's row of
    features has (None: not known), `ranks` how many processes train.
    """

    recipe: Recipe
    graphs: Mapping[tuple[str, str], Graph]
    count: Callable[[str, str], int | None]
    ranks: int = 1

    @property
    def losses(self) -> tuple[Value, ...]:
        """The losses of every task of every stage."""
        return tuple(task.loss for _, task in self.recipe.tasks)

    @cached_property
    def trained(self) -> tuple[Value, ...]:
        """Everything that a loss sends a gradient through: not what is behind `stop` or a weight of zero."""
        return tuple(part for loss in self.losses for part in learning(loss))


def learning(value: Value) -> Iterator[Value]:
    """A value and what it is made from, as far as its gradient reaches."""
    waiting = [value]
    while waiting:
        yield (part := waiting.pop())
        if isinstance(part, v.Transform) and part.declared.stops:
            continue
        if isinstance(part, v.Combine) and part.operator == "*" and any(map(is_zero, part.operands)):
            continue
        waiting.extend(reversed(v.parts(part)))


def is_zero(value: Value) -> bool:
    """Whether a value is a weight that is zero from the first step to the last."""
    return value.kind in WEIGHTS and all(at(value, moment) == 0 for moment in MOMENTS)


def at(value: Value, progress: float, stage: Stage | None = None) -> float | None:
    """The value of a number or a schedule at this share of a stage; None where only a run can tell."""
    try:
        return scalar_value(value, progress, partial(share, stage=stage))
    except ArithmeticError:
        return None


def share(length: Length, stage: Stage | None) -> float | None:
    """A length as a share of a stage, above one if it ends later; None where that depends on the data."""
    if length.unit == "share":
        return length.value
    if stage is None:
        return None
    whole = stage.train.steps if length.unit == "step" else stage.train.epochs
    return length.value / whole if whole is not None else None


def weighted(value: Value, weight: float, progress: float) -> Iterator[tuple[v.Apply, float]]:
    """The matches in a loss with their weights, as far as numbers and schedules tell."""
    if isinstance(value, v.Apply):
        yield value, weight
    elif isinstance(value, v.Transform) and value.declared.mean == "batch":
        yield from weighted(value.values[0], weight, progress)
    elif isinstance(value, v.Combine):
        scalars = [at(x, progress) if x.kind in WEIGHTS else None for x in value.operands]
        for operand, scalar, factor in zip(value.operands, scalars, factors(value.operator, scalars), strict=True):
            if scalar is None and factor is not None:
                yield from weighted(operand, weight * factor, progress)


# ── what no loss reaches: terms, projections, heads, weights of examples ──────────────────────────────────────────────


def find_unreached_terms(subject: Subject) -> Iterator[Diagnostic]:
    """W205: an equation of a loss that no task's loss uses and no `report` names."""
    recipe = subject.recipe
    reached = {id(part) for loss in subject.losses for part in v.walk(loss)}
    reached |= {id(part) for _, task in recipe.tasks for x in task.reports.values() for part in v.walk(x)}
    lost: dict[str, list[Value]] = {}
    bodies = {name for stage, task in recipe.tasks for name in (stage.name, task.name)}
    for name, value in recipe.equations.items():
        members = list(v.members(value))
        # a task that no stage trains has its own warning
        ours = recipe.places[name].source == recipe.source and set(name.split("/")[:-1]) <= bodies
        if ours and members and all(x.kind in ("loss", "values") and id(x) not in reached for x in members):
            lost[name] = members
    ids = {name: {id(x) for x in members} for name, members in lost.items()}
    inside = {name: {id(part) for x in members for part in v.walk(x)} for name, members in lost.items()}
    order = list(lost)
    for i, name in enumerate(order):
        around = [other for other in order if other != name and ids[name] & inside[other]]
        # report the outermost of nested equations, and the last of several names for one value
        if any(order.index(other) > i or not inside[name] & ids[other] for other in around):
            continue
        message = f"no loss reaches `{name}`: it is never computed"
        help = f"add it to the loss, or to `train {{ report = [{name.replace('/', '.')}] }}`; else remove it"
        if name.rpartition("/")[2] == "loss":
            message, help = "nothing trains this loss: every stage or task has its own", "remove it, or theirs"
        yield Diagnostic("W205", message, recipe.places[name], help)


def find_dead_losses(subject: Subject) -> Iterator[Diagnostic]:
    """W218: a loss without a gradient for the student: weights of zero, `stop`, terms that cancel each other."""
    student = subject.recipe.student.name
    for _, task in subject.recipe.tasks:
        live = list(learning(task.loss))
        taken = any(isinstance(x, v.Take) and x.model == student for x in live)
        if taken and not _cancels(task.loss, live):
            continue
        reason = "its terms cancel each other" if taken else "every term has a weight of zero, or is behind `stop`"
        message = f"this loss trains nothing of `{student}`: {reason}"
        yield Diagnostic("W218", message, task.span, "give a term a weight: `loss = 0.5 * soft + hard`")


def _cancels(loss: Value, live: list[Value]) -> bool:
    """Whether a sum of matches is always zero, whatever their values: the weights of equal matches sum to zero."""
    seen: set[v.Apply] = set()
    for moment in MOMENTS:
        sums: dict[v.Apply, float] = defaultdict(float)
        for x, weight in weighted(loss, 1.0, moment):
            sums[x] += weight
        if any(abs(total) >= 1e-12 for total in sums.values()):
            return False
        seen.update(sums)
    return {x for x in live if isinstance(x, v.Apply)} <= seen


def find_unread_weights(subject: Subject) -> Iterator[Diagnostic]:
    """W402: weights of examples or classes that no loss reads, though one reads their data."""
    recipe = subject.recipe
    read = {name for _, task in recipe.tasks for name in task.data}
    values = [x for _, task in recipe.tasks for x in (task.loss, *task.reports.values())]
    # a term that reads them, but that no loss reaches, has its own warning
    values += [x for x in recipe.values() if x.kind in ("loss", "values")]
    columns = {(x.data, x.column) for value in values for x in v.walk(value) if isinstance(x, v.Column)}
    for name, data in recipe.data.items():
        parts = data.source.parts if isinstance(data.source, Join) else (data.source,)
        settings = [
            (part, setting)
            for part in parts
            for setting in ("class_weights", "weight")
            if getattr(part, setting, None) is not None
        ]
        by_name = all(setting == "weight" and (name, getattr(part, setting)) in columns for part, setting in settings)
        if name not in read or (name, "weights") in columns or by_name:
            continue
        part, setting = settings[0]
        declared = next((d for d in recipe.data.values() if d.source is part), data)
        kind = part.label_type
        student, first = recipe.student.name, next((t.name for t in recipe.teachers), "…")
        sides: dict[Form, str] = {
            Form.SPANS: f"{name}.start -> {student}.start",
            Form.NONE: f"{first}.logits -> {student}.logits",
        }
        term = f'{kind.loss}({sides.get(kind.form, f"{name}.labels -> {student}.logits")}, reduce="none")'
        term = f"token_mean({term})" if kind.per_token else term
        yield Diagnostic(
            "W402",
            f"no loss reads the weights of `{name}`: all its examples count the same",
            declared.place(setting),
            f"multiply a term by them: `batch_mean({name}.weights * {term})`; or remove `{setting}`",
        )


def find_untrained_projections(subject: Subject) -> Iterator[Diagnostic]:
    """W211: a projection that gets no gradient in any stage."""
    recipe = subject.recipe
    trained = {x.projector.site for x in subject.trained if isinstance(x, v.Project)}
    inside = {x.projector.site: x for loss in subject.losses for x in v.walk(loss) if isinstance(x, v.Project)}
    anywhere = {x.projector.site for value in recipe.values() for x in v.walk(value) if isinstance(x, v.Project)}
    still = [{x.name for x in stage.freeze if x.kind == "projection"} for stage in recipe.stages]
    for site, project in inside.items():
        if site in trained or all(project.projector.name in names for names in still):
            continue
        words = f"the projection `{project.projector.name}`" if project.projector.name else "this projection"
        message = f"{words} stays random: it is behind `stop`, or in terms whose weight is zero"
        labels = (Label(project.span, "used here"),) if project.projector.name else ()
        named = project.projector.name or "a `proj` for it"
        help = f"put `stop(…)` around what it projects, give the term a weight, or freeze {named} if this is intended"
        yield Diagnostic("W211", message, project.projector.span, help, labels=labels)
    for name, projector in recipe.projections.items():
        if projector.site not in anywhere and projector.span.source == recipe.source:
            help = f"use it, `x via {name}`, or remove it"
            yield Diagnostic("W211", f"the projection `{name}` projects nothing", projector.span, help)


def find_untrained_heads(subject: Subject) -> Iterator[Diagnostic]:
    """W214: a head of the student that begins at random and that no loss reaches."""
    student = subject.recipe.student
    taken = [x.feature for x in subject.trained if isinstance(x, v.Take) and x.model == student.name]
    for head in student.heads:
        if not any(feature.head == head for feature in taken):
            message = f"no loss reaches the head `{head}`: it would be saved untrained"
            help = f"match it: `ce(data.labels -> {student.name}.{head}.logits)`, or remove it"
            yield Diagnostic("W214", message, student.place(f"head {head}"), help)
    source = student.source
    if student.heads or getattr(source, "task", None) in (None, "features"):
        return
    if source.is_random and not any(feature.name in ("logits", "start", "end", "tap") for feature in taken):
        message = f"no loss reaches the head of `{student.name}`: it would be saved untrained"
        help = 'match its logits, or write task="features" for a model without a head'
        yield Diagnostic("W214", message, student.place("task"), help)


def find_idle_adapters(subject: Subject) -> Iterator[Diagnostic]:
    """W215: an adapter on a teacher, which never learns, so that it keeps its initial zeros."""
    for model in subject.recipe.teachers:
        if model.source.lora is not None:
            place = model.place("adapter")
            message = f"an adapter on the teacher `{model.name}` does nothing: teachers never learn"
            help = "remove it, or put it on the student"
            yield Diagnostic("W215", message, place, help)


# ── how losses take features ──────────────────────────────────────────────────────────────────────────────────────────


PER_LAYER = ("attention", "scores", "query", "key", "value")
"""Rows of features that count from the first layer, 0 to n - 1; `hidden` counts from the embeddings, 0 to n."""


Pairs = dict[tuple[int, int], v.Apply]
"""The indices that an operation compares between a row of two models, each with one place of it."""


def find_shifted_maps(subject: Subject) -> Iterator[Diagnostic]:
    """W206: layers that are counted as another row counts them."""
    maps = _layer_maps(subject)
    for (_, teacher, student, feature), pairs in maps.items():
        if feature != "hidden" or len(pairs) < 2:
            continue
        if (shifted := _shifted(subject, teacher, student, pairs)) is not None:
            yield shifted
            continue
        for (_, *models, row), others in maps.items():
            if row in PER_LAYER and models == [teacher, student] and others.keys() == pairs.keys():
                one, two = next(iter(pairs.values())), next(iter(others.values()))
                message = f"the same indices as for `hidden`, but `{row}[i]` belongs to the layer after"
                i, j = max(pairs)
                help = (
                    f"`hidden[{i}]` is the output of layer {i}, `{row}[{i}]` belongs to layer {i + 1}: "
                    f"write one less here, {i - 1} -> {j - 1} for {i} -> {j}"
                )
                labels = (Label(one.source.span, "these count from the embeddings"),)
                yield Diagnostic("W206", message, two.source.span.to(two.target.span), help, labels=labels)
                break


def _shifted(subject: Subject, teacher: str, student: str, pairs: Pairs) -> Diagnostic | None:
    """What is wrong with pairs of hidden states; None where nothing is."""
    counts = subject.count(teacher, "hidden"), subject.count(student, "hidden")
    if counts[0] is None or counts[1] is None or (0, 0) in pairs:
        return None
    last = counts[0] - 1, counts[1] - 1
    highest = max(i for i, _ in pairs), max(j for _, j in pairs)
    pair = next((pair for pair in pairs if 0 in pair), None)
    if pair is not None and highest != last:
        i, j = pair
        layer = f"the teacher's layer {i}" if j == 0 else f"the student's layer {j}"
        message = f"this matches embeddings with {layer}: `hidden[0]` is before the first layer"
    elif highest == (last[0] - 1, last[1]):
        pair = max(pairs)
        message = f"the student's last layer learns from the teacher's last but one: `hidden` goes to {last[0]}"
    else:
        return None
    apply = pairs[pair]
    ends = f"0 to {last[0]} of `{teacher}` and 0 to {last[1]} of `{student}`"
    help = f"`hidden[n]` is the output of layer n, {ends}"
    return Diagnostic("W206", message, apply.source.span.to(apply.target.span), help)


def _layer_maps(subject: Subject) -> dict[tuple[str, str, str, str], Pairs]:
    """The matches of single layers in all losses, by operation, the two models, and the row."""
    maps: dict[tuple[str, str, str, str], Pairs] = {}
    for x in (x for loss in subject.losses for x in v.walk(loss) if isinstance(x, v.Apply)):
        sides = [v.takes_in(x.source), v.takes_in(x.target)]
        if [len(takes) for takes in sides] != [1, 1]:
            continue
        one, two = sides[0][0], sides[1][0]
        i, j = one.feature.index, two.feature.index
        if one.model == two.model or one.feature.name != two.feature.name or i is None or j is None:
            continue
        maps.setdefault((x.operation, one.model, two.model, one.feature.name), {}).setdefault((i, j), x)
    return maps


Forward = tuple[str, str, int]
"""A model, the data that it runs on, and the pass."""


def find_idle_caches(subject: Subject) -> Iterator[Diagnostic]:
    """W216: a cache of a teacher whose forward runs anyway, for a feature that is not kept."""
    reported: set[Forward] = set()
    for loss in subject.losses:
        kept: dict[Forward, list[v.Cached]] = defaultdict(list)
        uncached: list[v.Take] = []
        _sort(loss, kept, uncached)
        for take in uncached:
            forward = _forward(take)
            # what is taken beside its cache is one value with it
            if not kept[forward] or forward in reported or any(cached.value == take for cached in kept[forward]):
                continue
            reported.add(forward)
            cached = kept[forward][0]
            message = f"the forward of `{take.model}` runs for this, so the cache `{cached.name}` saves nothing"
            labels = (Label(cached.span, "what is kept"),)
            help = f'keep it too: `cache NAME = {take.model}.{take.feature} at "{cached.path}"`'
            yield Diagnostic("W216", message, take.span, help, labels=labels)


def find_empty_auto_caches(subject: Subject) -> Iterator[Diagnostic]:
    """W219: `cache auto` where no value both stays the same in every epoch and lets a teacher rest."""
    auto = subject.recipe.auto_cache
    kept = {x.name for graph in subject.graphs.values() for x in info(graph).caches.values()}
    if auto is not None and subject.graphs and auto.name not in kept:
        message, help = "`cache auto` keeps nothing: no teacher's output is the same in every epoch", "remove it"
        if auto.limit is not None:
            message, help = f"{message} and within the limit", "set a larger limit, or remove it"
        yield Diagnostic("W219", message, auto.place, help)


def _forward(take: v.Take) -> Forward:
    return take.model, take.data, take.passing


def _sort(x: Value, kept: dict[Forward, list[v.Cached]], uncached: list[v.Take]) -> None:
    """Sort the features in a value into those inside of caches and the others."""
    if isinstance(x, v.Cached):
        for take in v.takes_in(x):
            kept[_forward(take)].append(x)
    elif isinstance(x, v.Take):
        uncached.append(x)
    else:
        for part in v.parts(x):
            _sort(part, kept, uncached)


# ── losses that compare the examples of a batch ───────────────────────────────────────────────────────────────────────


def find_split_batches(subject: Subject) -> Iterator[Diagnostic]:
    """W212: a loss or a temperature that compares examples of a batch, where a step has several batches. Ranks share
    each of them, and compare its examples together.
    """
    for stage in subject.recipe.stages:
        parts = stage.train.accumulate
        if parts == 1 or stage.train.normalise == "micro":
            continue
        place = stage.places.get("accumulate")
        for task in stage.tasks:
            graph = subject.graphs.get((stage.name, task.name))
            for _, x in of_kind(graph, n.Node) if graph is not None else ():
                if (name := n.compares_examples(x)) is None:
                    continue
                message = f"`{name}` compares examples within a batch, but each step is split into {parts} batches"
                help = "use a larger `batch=` and `accumulate = 1`; `normalise = micro` if this is intended"
                same = place is not None and place.source == x.span.source
                labels = (Label(place, "each batch by itself"),) if place is not None and same else ()
                yield Diagnostic("W212", message, x.span, help, labels=labels)


def find_small_batches(subject: Subject) -> Iterator[Diagnostic]:
    """W310: a loss that compares the examples of a batch, where a batch has too few."""
    alone = {stage.name for stage in subject.recipe.stages if stage.train.normalise == "micro"}
    for (stage, _), graph in subject.graphs.items():
        for _, x in of_kind(graph, n.Loss):
            if x.least == 1 or x.data not in subject.recipe.data:
                continue
            data = subject.recipe.data[x.data]
            if data.source.holds_tensors or not isinstance(data.source.batch, int):
                continue
            ranks = subject.ranks if stage in alone else 1
            count = data.source.batch // ranks
            if count >= x.least:
                continue
            message = f"`{x.operation}` compares at least {x.least} examples, but a batch has {count}: it is always 0"
            labels = (Label(data.place("batch"), "examples of a batch"),)
            yield Diagnostic("W310", message, x.span, f"a larger batch: `batch={8 * ranks}`", labels=labels)


NEARLY = (0.75, 1.25)
"""Sums of weights that look like a failed mean of teachers; others are taken as intended."""
ROUNDED = 0.015
"""How far from one a sum of rounded weights may lie: 0.33 + 0.33 + 0.33."""


# ── schedules and temperatures ───────────────────────────────────────────────────────────────────────────────────────


def find_late_schedules(subject: Subject) -> Iterator[Diagnostic]:
    """W207: a point of a schedule, of weights or of the learning rate, that lies after the end of its stage."""
    for stage in subject.recipe.stages:
        where = f"the stage `{stage.name}`" if stage.name else "training"
        for x in _scheduled(stage):
            starts = FORMS[x.name] == "start"  # one that starts at the very end never counts
            late = [a for a in x.arguments if isinstance(a, Length) and _is_late(a, stage, at_end=starts)]
            if late:
                never = "nothing ever counts" if starts else "what comes there is never reached"
                help = f"write a share of it: `{x.name}(30%)`" if starts else "write shares: `30%: 0.2`"
                yield Diagnostic("W207", f"{where} is over {_ends(stage, late[0])}: {never}", x.span, help)
        warmup = getattr(stage.train.schedule, "warmup", None)
        if isinstance(warmup, Length) and _is_late(warmup, stage, at_end=True):
            message = f"{where} is over {_ends(stage, warmup)}: the full rate is never reached"
            place = stage.places.get("schedule", subject.recipe.train_span)
            yield Diagnostic("W207", message, place, "write a share of it: `warmup=10%`")


def _is_late(length: Length, stage: Stage, *, at_end: bool) -> bool:
    part = share(length, stage)
    return part is not None and (part >= 1 if at_end else part > 1)


def _ends(stage: Stage, length: Length) -> str:
    """When a stage is over, in the unit of a length."""
    if length.unit == "share":
        return "at 100%"
    if length.unit == "step":
        return f"after {stage.train.steps} steps"
    return f"after {Length(stage.train.epochs or 0, 'epoch')}"


def find_still_schedules(subject: Subject) -> Iterator[Diagnostic]:
    """W208: a schedule that has one value from the first step to the last."""
    for stage in subject.recipe.stages:
        for x in _scheduled(stage):
            if len(values := _values(x)) == 1:
                (value,) = values
                help = "write the number" if value != 1 else "leave it out, or let it go somewhere: `ramp(1 -> 0)`"
                yield Diagnostic("W208", f"this schedule never moves: it is {value:g} throughout", x.span, help)


def _values(x: v.Scheduled) -> set[float]:
    """The values that a schedule starts from or comes near to."""
    first, form = x.arguments[0], FORMS[x.name]
    if form == "start":
        return {1.0} if isinstance(first, Length) and first.value <= 0 else {0.0, 1.0}
    numbers = x.arguments[1::2] if form == "points" else x.arguments
    return {a for a in numbers if not isinstance(a, Length)}


def find_vanishing_temperatures(subject: Subject) -> Iterator[Diagnostic]:
    """W209: a temperature that reaches zero, or whose formula could take it there."""
    for stage in subject.recipe.stages:
        for x in (x for x in _parts(stage) if isinstance(x, v.Apply | v.Transform)):
            for name, option in x.options:
                if name == "T" and isinstance(option, Value) and (fault := _vanishes(option, stage)):
                    yield Diagnostic("W209", fault[0], option.span if option.span.text else x.span, fault[1])
        for task in stage.tasks:
            graph = subject.graphs.get((stage.name, task.name))
            yield from _falling_by_classes(graph) if graph is not None else ()


def _falling_by_classes(graph: Graph) -> Iterator[Diagnostic]:
    """W209 of temperatures whose fall depends on the number of classes, which only a graph knows."""
    for _, loss in of_kind(graph, n.Loss):
        shape = node(graph, loss.target).shape
        classes = shape[-1] if shape else None
        for _, x in of_kind(graph, n.Temperature, loss.arguments.values()):
            known = TEMPERATURES[x.name].fall(None, **dict(x.options)) is not None
            if not known and isinstance(classes, int) and (fault := _falls(x, classes)):
                yield Diagnostic("W209", f"with {classes} classes {fault[0]}", x.span, fault[1])


def _falls(x: v.Temperature | n.Temperature, classes: int | None) -> tuple[str, str] | None:
    """Message and remedy where the formula of a temperature could take it below zero."""
    options = dict(x.options)
    fall = TEMPERATURES[x.name].fall(classes, **options)
    if fall is None or x.base >= fall:
        return None
    message = f"`{x.name}` can lower T={x.base:g} by up to {fall:.3g}; it would be clamped at {FLOOR:g}"
    return message, f"a smaller {' or '.join(f'`{name}`' for name in options)}, or a base above that"


def _vanishes(option: Value, stage: Stage) -> tuple[str, str] | None:
    """Message and remedy where a temperature reaches zero; None also where that depends on the classes."""
    if isinstance(option, v.Temperature):
        return _falls(option, None)
    values = [x for moment in MOMENTS if (x := at(option, moment, stage)) is not None]
    if not values and isinstance(option, v.Scheduled) and FORMS[option.name] == "points":
        values = list(_values(option))
    if not values or min(values) > 0:
        return None
    message = f"this temperature falls to {min(values):g}: logits are divided by it, and grow without bound"
    return message, "end at 1: `ramp(4 -> 1)`"


def _parts(stage: Stage) -> list[Value]:
    """Everything that the losses of a stage are made from, each once."""
    return list({id(x): x for task in stage.tasks for x in v.walk(task.loss)}.values())


def _scheduled(stage: Stage) -> list[v.Scheduled]:
    return [x for x in _parts(stage) if isinstance(x, v.Scheduled)]


# ── weights of terms ─────────────────────────────────────────────────────────────────────────────────────────────────

Weighted = tuple[str, float, Value]
"""A teacher, a weight, and the value that has it."""


def find_uneven_means(subject: Subject) -> Iterator[Diagnostic]:
    """W210: one operation onto one feature from several teachers, with weights that nearly sum to one."""
    seen: set[int] = set()
    for x in (x for loss in subject.losses for x in v.walk(loss)):
        if not isinstance(x, v.Combine) or x.operator != "+" or id(x) in seen:
            continue
        addends = list(_addends(x, seen))
        total = sum(weight for _, weight in addends)
        groups: dict[object, list[Weighted]] = {}
        for value, weight in addends:
            if (match := _teacher_of(value)) is not None:
                groups.setdefault(match[1], []).append((match[0], weight, value))
        for group in groups.values():
            if (message := _uneven(group, total)) is not None:
                first, last = group[0][2].span, group[-1][2].span
                place = x.span if first.source != last.source or last.start < first.start else first.to(last)
                help = "make them sum to one, or write `mean(…)` over the list of teachers"
                yield Diagnostic("W210", message, place, help)


def _uneven(group: list[Weighted], total: float) -> str | None:
    weights = [weight for _, weight, _ in group]
    several = len({teacher for teacher, _, _ in group}) == len(group) > 1
    if not several or not all(0 < weight < 1 for weight in weights) or not NEARLY[0] <= sum(weights) <= NEARLY[1]:
        return None
    if abs(total - 1) <= ROUNDED or abs(sum(weights) - 1) <= ROUNDED:
        return None
    return f"the weights of the teachers sum to {sum(weights):.4g}, not to 1: {' + '.join(f'{w:g}' for w in weights)}"


def _addends(x: Value, seen: set[int]) -> Iterator[tuple[Value, float]]:
    """The addends of a sum and of the sums in it, each with its weight where that is one number."""
    match x:
        case v.Combine(operator="+"):
            seen.add(id(x))
            for operand in x.operands:
                yield from _addends(operand, seen)
        case v.Combine(operator="*", operands=(v.Number() as weight, value)):
            yield value, weight.value
        case v.Combine(operator="*", operands=(value, v.Number() as weight)):
            yield value, weight.value
        case v.Apply() | v.Take():
            yield x, 1.0


def _teacher_of(x: Value) -> tuple[str, object] | None:
    """The model of a feature, or of a match's source, and the rest of it, which other teachers may share."""
    if isinstance(x, v.Take):
        return x.model, ("feature", x.data, x.feature, x.passing)
    if isinstance(x, v.Apply) and isinstance(x.source, v.Take):
        source = x.source
        feature = (source.data, source.feature.name, source.feature.head)
        return source.model, (x.operation, feature, x.target, x.options, x.mask)
    return None


def find_unscaled_targets(subject: Subject) -> Iterator[Diagnostic]:
    """W213: cross-entropy with a model at a high temperature beside a loss on labels, without the factor T²."""
    for loss in subject.losses:
        moments = [{id(x): (x, w) for x, w in weighted(loss, 1.0, progress)} for progress in (0.0, 0.5, 63 / 64)]
        applied = {key: x for moment in moments for key, (x, _) in moment.items()}
        heights = {key: max(abs(m[key][1]) for m in moments if key in m) for key in applied}
        columns = {key: x.source.kind for key, x in applied.items() if isinstance(x.source, v.Column)}
        on_labels = [key for key, kind in columns.items() if kind in ("labels", "targets")]
        if not on_labels:
            continue
        highest = max(on_labels, key=lambda key: heights[key])
        for key, x in applied.items():
            T = _temperature(x)
            if T is None or T < 2 or not heights[key] or heights[key] / (heights[highest] or 1.0) >= T * T / 2:
                continue
            name, factor = x.declared.name, f"{T * T:g}"
            message = f"`{name}` has no factor T²: at T={T:g} its gradient is about {factor} times smaller than at 1"
            remedy = x.declared.unscaled
            help = f"{remedy}, or `{factor} * {name}(…)`, to bring its weight to the scale of the labels' loss"
            same_file = applied[highest].span.source == x.span.source
            labels = (Label(applied[highest].span, "the loss on labels"),) if same_file else ()
            yield Diagnostic("W213", message, x.span, help, labels=labels)
            break  # once for start and end, or for several teachers


def _temperature(x: v.Apply) -> float | None:
    """The temperature at which a match of two models' logits begins; None for other losses."""
    if not x.declared.unscaled or isinstance(x.source, v.Column):
        return None
    if not {x.source.kind, x.target.kind} <= {"logits", "positions"}:
        return None
    option = dict(x.options).get("T")
    if isinstance(option, v.Temperature):
        return option.base
    return at(option, 0.0) if isinstance(option, Value) else None


Lint = Callable[[Subject], Iterator[Diagnostic]]
LINTS: tuple[Lint, ...] = (
    find_unreached_terms,
    find_shifted_maps,
    find_late_schedules,
    find_still_schedules,
    find_vanishing_temperatures,
    find_uneven_means,
    find_untrained_projections,
    find_split_batches,
    find_unscaled_targets,
    find_untrained_heads,
    find_idle_adapters,
    find_idle_caches,
    find_empty_auto_caches,
    find_dead_losses,
    find_unread_weights,
    find_small_batches,
)
WHOLE = {
    find_empty_auto_caches,
    find_unreached_terms,
    find_untrained_projections,
    find_untrained_heads,
    find_dead_losses,
    find_unread_weights,
}
"""Those that must know losses in full: not while a list has no length because its model cannot be reached."""


def lint(subject: Subject) -> Iterator[Diagnostic]:
    """The warnings of all lints, in the order of their codes."""
    for look in LINTS:
        yield from look(subject) if not (subject.recipe.open and look in WHOLE) else ()
