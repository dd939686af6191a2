"""What no loss reaches: terms, projections, heads, weights of examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from brewgraph.diagnostics import Diagnostic, Label
from brewgraph.lints.subject import MOMENTS, Subject, learning, weighted
from brewgraph.recipe import values as v
from brewgraph.recipe.label_types import NONE, SPANS
from brewgraph.recipe.settings.data_sources import Join
from brewgraph.source import Span


def find_unreached_terms(subject: Subject) -> Iterator[Diagnostic]:
    """W205: an equation of a loss that no task's loss uses and no `report` names."""
    recipe = subject.recipe
    reached = {id(part) for loss in subject.losses for part in v.walk(loss)}
    reached |= {id(part) for _, task in recipe.tasks for x in task.reports.values() for part in v.walk(x)}
    lost: dict[str, list[v.Value]] = {}
    bodies = {name for stage, task in recipe.tasks for name in (stage.name, task.name)}
    for name, value in recipe.equations.items():
        members = list(v.members(value))
        # a task that no stage trains has its own warning
        ours = recipe.places[name].source == recipe.source and set(name.split("/")[:-1]) <= bodies
        if ours and members and all(x.kind in ("loss", "values") and id(x) not in reached for x in members):
            lost[name] = members
    if subject.is_open:
        return
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
    for _, task in () if subject.is_open else subject.recipe.tasks:
        live = list(learning(task.loss))
        taken = any(isinstance(x, v.Take) and x.model == student for x in live)
        if taken and not _cancels(task.loss, live):
            continue
        reason = "its terms cancel each other" if taken else "every term has a weight of zero, or is behind `stop`"
        message = f"this loss trains nothing of `{student}`: {reason}"
        yield Diagnostic("W218", message, task.span, "give a term a weight: `loss = 0.5 * soft + hard`")


def _cancels(loss: v.Value, live: list[v.Value]) -> bool:
    """Whether a sum of matches is always zero, whatever their values: the weights of equal matches sum to zero."""
    sums: dict[tuple[float, v.Apply], float] = defaultdict(float)
    for moment in MOMENTS:
        for x, weight in weighted(loss, 1.0, moment):
            sums[moment, x] += weight
    whole = {x for x in live if isinstance(x, v.Apply)} <= {x for _, x in sums}
    return whole and all(abs(total) < 1e-12 for total in sums.values())


def find_unread_weights(subject: Subject) -> Iterator[Diagnostic]:
    """W402: weights of examples or classes that no loss reads, though one reads their data."""
    if subject.is_open:
        return
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
        sides = {SPANS: f"{name}.start -> {student}.start", NONE: f"{first}.logits -> {student}.logits"}
        term = f'{kind.loss}({sides.get(kind, f"{name}.labels -> {student}.logits")}, reduce="none")'
        term = f"token_mean({term})" if kind.per_token else term
        yield Diagnostic(
            "W402",
            f"no loss reads the weights of `{name}`: all its examples count the same",
            declared.place(setting),
            f"multiply a term by them: `batch_mean({name}.weights * {term})`; or remove `{setting}`",
        )


def find_untrained_projections(subject: Subject) -> Iterator[Diagnostic]:
    """W211: a projection that gets no gradient in any stage."""
    if subject.is_open:
        return
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
    if subject.is_open:
        return
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
            place: Span = model.place("adapter")
            message = f"an adapter on the teacher `{model.name}` does nothing: teachers never learn"
            help = "remove it, or put it on the student"
            yield Diagnostic("W215", message, place, help)
