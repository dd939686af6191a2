"""`brewgraph plan`: what a run will do, before any weight is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from brewgraph.cli.options import Set, SkipPass, Spec
from brewgraph.cli.output import count, hush, parse_sets, print_diagnostics, read, table

if TYPE_CHECKING:
    from brewgraph.graph.plan import HeadPlan, ModelPlan, PartPlan, Plan, StagePlan
    from brewgraph.graph.spell import TermPlan
    from brewgraph.project.check import Checked

UNKNOWN = "unknown"
MEANS = {
    ("example", ""): "mean over examples",
    ("position", ""): "mean over examples, or over tokens where the logits are per token",
    ("label", "labels"): "mean over labels, -100 left out",
    ("token", "tokens"): "mean over tokens, padding left out",
    ("pair", "pairs"): "mean over pairs of tokens, padding left out",
    ("word", "words"): "mean over words",
    ("batch", "tokens"): "one number per batch, padding left out",
    ("batch", ""): "one number per batch",
}


def command(spec: Spec, set: Set = None, skip_pass: SkipPass = None) -> None:
    """Say what a run will do: models, the loss spelled out, forwards, projections, settings, and what passes save."""
    from brewgraph.graph.optimizing import check_names as check_passes
    from brewgraph.project.check import check, check_names

    source, params = read(spec), parse_sets(set or [])
    check_passes(skip_pass or ())
    check_names(source, params)
    hush()
    from brewgraph.graph.plan import make_plan
    from brewgraph.project.facts import copies

    checked = check(source, params)
    print_diagnostics(checked.warnings, sys.stderr)
    plan = make_plan(
        checked.recipe, checked.graphs or None, checked.facts, checked.classes, _rows(checked), copies(checked)
    )
    print("\n".join(text(plan)))
    for title, lines in _saved(checked, tuple(skip_pass or ())):
        print("\n".join(_section(title, lines)))


def _saved(checked: Checked, skip: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """What each pass saves in the loss of each task, those that find something to do."""
    from brewgraph.project.facts import savings_of

    for (stage, task), found in savings_of(checked, skip).items():
        where = " of ".join(filter(None, (f"task {task}" if task else "", f"stage {stage}" if stage else "")))
        rows = [(saved.name, str(saved)) for saved in found if saved.changes or saved.skipped or saved.notes]
        if rows:
            yield f"saved{f' in {where}' if where else ''} by", table(rows).splitlines()


def _rows(checked: Checked) -> dict[str, int | None]:
    """Training rows of each data set, where they are known without preparing it."""
    from brewgraph.data.examples import facts
    from brewgraph.data.ready import ready_facts
    from brewgraph.diagnostics import SourceFault
    from brewgraph.recipe.sources import Batches

    found: dict[str, int | None] = {}
    for data in checked.recipe.data.values():
        try:
            source, folder = data.source, checked.folder
            known = ready_facts(source, folder) if isinstance(source, Batches) else facts(source, folder)
            found[data.name] = known.rows.get("train")
        except SourceFault:
            found[data.name] = None  # the check has said so
    return found


def text(plan: Plan) -> Iterator[str]:
    """The plan in lines."""
    given = ", ".join(f"{name} = {value}" for name, value in plan.params)
    yield plan.spec + (f"   ({given})" if given else "")
    yield from _section("models", (line for model in plan.models for line in _model(model)))
    yield from _section("data", _data(plan))
    if plan.parts is None:
        yield from _section(
            "loss", [f"{UNKNOWN}: its lists cannot be spelled out before the models above can be reached"]
        )
    for part in plan.parts or ():
        title = f" of {_named(part)}" if _named(part) else ""
        yield from _section(f"loss{title}", _loss(part))
        yield from _section(f"each batch{title} runs", _forwards(part))
    yield from _section("projections", _projections(plan))
    yield from _section("trained", [_trained(plan)])
    first, *later = plan.stages
    yield from _section(f"stage {first.name}" if first.name else "training", table(_settings(first)).splitlines())
    for stage in later:
        yield from _section(f"stage {stage.name}, apart from what {first.name} has too", _other(stage, first))


def _named(part: PartPlan) -> str:
    """`task ner`, `task ner in stage warm`, `stage warm`; empty where the spec has neither."""
    where = f"stage {part.stage}" if part.stage else ""
    return f"task {part.task}{f' in {where}' if where else ''}" if part.task else where


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield ""
    yield title
    yield from (f"  {line}" for line in lines)


def _model(model: ModelPlan) -> Iterator[str]:
    yield f"{model.role} {model.name} = {model.source}"
    facts = [
        ("is", _what(model)),
        *((f"head {head.name}", _head(head)) for head in model.heads),
        ("parameters", _parameters(model)),
        ("starts as", model.start),
        ("tokenizer", model.tokens or UNKNOWN),
    ]
    if not model.used:
        facts.append(("used", "no: the loss takes nothing from it, so it is never loaded"))
    width = max(11, *(len(name) + 1 for name, _ in facts))
    yield from (f"  {name:<{width}}{words}" for name, words in facts)


def _head(head: HeadPlan) -> str:
    classes = f", {head.classes} class{'' if head.classes == 1 else 'es'}" if head.classes is not None else ""
    return f"{head.model_class}{classes}"


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
        yield f"{data.name} = {data.source}"
        rows = f"{data.rows:,} rows to train on" if data.rows is not None else "rows not counted yet"
        length = f"at most {data.max_length} tokens" if data.max_length else "as long as the models allow"
        yield f"  {rows}, {data.batch} per batch over all ranks, {length}"
        if data.classes:
            shown = ", ".join(data.classes[:8]) + (", …" if len(data.classes) > 8 else "")
            yield f"  {len(data.classes)} class{'es' if len(data.classes) > 1 else ''}: {shown}"


def _loss(part: PartPlan) -> Iterator[str]:
    rows = []
    for i, term in enumerate(part.terms):
        rows.append(("loss =" if i == 0 else "     +", _weighted(term), _about(term)))
    yield from table([(f"{sign} {equation}", about) for sign, equation, about in rows], gap="   ").splitlines()


def _weighted(term: TermPlan) -> str:
    return term.equation if term.weight == "1" else f"{term.weight} * {term.equation}"


def _about(term: TermPlan) -> str:
    """The comment behind a term: its name and what it is a mean over."""
    mean = MEANS.get((term.unit, term.mask))
    if mean is None and term.unit:
        mean = f"mean over {term.unit}s, " + ("padding included" if term.mask == "none" else f"mask: {term.mask}")
    words = ": ".join(x for x in (" = ".join(term.names), mean or "") if x)
    return f"# {words}" if words else ""


def _forwards(part: PartPlan) -> Iterator[str]:
    several = len({forward.data for forward in part.forwards}) > 1
    rows = []
    for forward in part.forwards:
        how = "without gradients" if forward.role == "teacher" else "with gradients"
        on = f" on {forward.data}" if several else ""
        again = f", pass {forward.passing}" if forward.passing > 1 else ""
        rows.append((f"{forward.role} {forward.model}{on}{again}", how, f"for {', '.join(forward.features)}"))
    yield from table(rows).splitlines()


def _projections(plan: Plan) -> Iterator[str]:
    if plan.projections is None:
        yield UNKNOWN
        return
    if not plan.projections:
        yield "none"
        return
    rows = []
    for p in plan.projections:
        sizes = f"{p.into or '?'} -> {p.out or '?'}" if p.into or p.out else "sizes"
        own = "".join(f", {name} = {value:g}" for name, value in p.options)
        parameters = f"{p.parameters:,} parameters" if p.parameters is not None else UNKNOWN
        rows.append((p.site, f"{p.kind} {sizes}", parameters, f"of {', '.join(p.values)}{own}"))
    yield from table(rows, right=(2,)).splitlines()


def _trained(plan: Plan) -> str:
    if plan.trainable is None:
        return f"parameters: {UNKNOWN}"
    student, projections = plan.student.trainable, plan.projection_parameters
    parts = f"{student:,} of {plan.student.name}" + (f" + {projections:,} of projections" if projections else "")
    return f"{plan.trainable:,} parameters" + (f" ({parts})" if projections else "")


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
    """How long a stage goes on, and what else it does not share with the first one."""
    known, own = _settings(first), _settings(stage)
    rows = [row for row in own if row[0] in _LENGTH or row not in known]
    rows += [(name, "none") for name, _ in known if name not in (*_LENGTH, *dict(own))]
    yield from table(rows).splitlines()


_LENGTH = ("epochs", "steps")
_BEST = ("greater_is_better", "load_best_model_at_end", "early_stopping_threshold")
"""Settings that mean nothing where no metric says which model is best."""
