"""What only models and data together show: columns, labels, classes, teachers with random weights, missing metrics."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.data.sources.source_facts import DataFacts
from brewgraph.diagnostics import Collector, SourceFault, UsageError, listing, suggest
from brewgraph.paths import locate, near_folder
from brewgraph.recipe import values as v
from brewgraph.recipe.label_types import CLASS, LOSS, NONE, SPANS, LabelType
from brewgraph.recipe.recipe import Recipe, Task, columns_used, data_of, data_used, without_teacher
from brewgraph.recipe.settings.data_sources import DataSource
from brewgraph.recipe.settings.metric_names import missing_metrics, validate_metric
from brewgraph.source import Span

if TYPE_CHECKING:
    from brewgraph.checking.context import CheckContext
    from brewgraph.facts.memory import Memory

_DATA_FILES = ("*.jsonl", "*.json", "*.csv", "*.tsv", "*.parquet")
"""Files that make a folder a data set."""


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def find_data(recipe: Recipe, collector: Collector, memory: Memory) -> dict[str, DataFacts | None]:
    """The facts of every data set; None, with a diagnostic, for one that cannot be read."""
    from brewgraph.facts.data_facts import data_facts

    facts: dict[str, DataFacts | None] = {}
    folder = recipe.source.folder
    for name, data in recipe.data.items():
        facts[name] = None
        try:
            facts[name] = data_facts(data.source, folder, memory)
        except SourceFault as fault:
            code, help = fault.code, data.remedy(fault.help, fault.field)
            if code == "B405" and (similar := _similar_folder(data.source, folder)):
                code = "B401"
                help = f"did you mean `{similar}`? that folder holds data; the hub could not be reached, either"
            elif code == "B405":
                code, help = "W401", f"{help}; until then classes and columns are not checked"
            collector.add(code, fault.message, data.place(fault.field), help=help)
    return facts


def _similar_folder(source: DataSource, folder: Path) -> str:
    """A folder of data with nearly the name that leads nowhere; empty if there is none."""
    paths = (locate(part.hub_name, folder) for part in source.sources if part.hub_name)
    return next((near for path in paths if not path.is_dir() and (near := near_folder(path, _DATA_FILES))), "")


def check_columns(context: CheckContext) -> None:
    """B402, B411: a column that an equation or `inputs` names exists, once."""
    for name, columns in columns_used(context.recipe).items():
        facts = context.facts.data_facts[name]
        for column in columns if facts is not None and facts.columns else ():
            assert facts is not None
            if column not in facts.columns:
                help = suggest(column, facts.columns) or f"the columns are {listing(facts.columns)}"
                place = _place_of_column(context.recipe, name, column)
                context.collector.add("B402", f"`{name}` has no column `{column}`", place, help=help)
            elif column in facts.twice:
                message, place = f"`{name}` has two columns `{column}`", _place_of_column(context.recipe, name, column)
                context.collector.add("B411", message, place, help="rename one in the header")


def _place_of_column(recipe: Recipe, data: str, column: str) -> Span:
    """Where the spec last names a column of a data set, in an equation or else in `inputs`."""
    values = (x for value in recipe.values() for x in v.walk(value))
    places = [x.span for x in values if isinstance(x, v.Column) and (x.data, x.column) == (data, column)]
    for model in recipe.models.values() if not places else ():
        if column in model.source.forward_columns.values():
            return model.place("inputs")
    return places[-1] if places else recipe.data[data].span


def check_labels(context: CheckContext) -> None:
    """W403 to W407: labels of training data that are legal but unlikely to be meant."""
    used = {name for names in data_used(context.recipe).values() for name in names}
    for name, data in context.recipe.data.items():
        facts = context.facts.data_facts[name]
        if name in used and facts is not None:
            _check_labels(data, facts, context.collector)


def _check_labels(data: v.DataDeclaration, facts: DataFacts, collector: Collector) -> None:
    column = data.source.label_type.column
    classes, name, place = facts.classes, data.name, data.place(column)
    parts = data.source.sources
    if facts.alike:
        which = f", `{facts.seen[0]}`" if facts.seen is not None and len(facts.seen) == 1 else ""
        message = f"all training rows of `{name}` have the same label{which}: there is nothing to learn"
        collector.add("W404", message, place, help=f"add rows with other labels, or name another column: `{column}=…`")
    if any(getattr(part, "classes", None) for part in parts):
        return
    alike: dict[str, list[str]] = {}
    for label in classes:
        alike.setdefault(_normal_form(label), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            which = f"{listing(labels)} are {len(labels)} classes of `{name}`"
            message = f"{which}, and differ only in white space, case or number format"
            collector.add("W405", message, place, help="write them alike in the data, or name all classes: classes=[…]")
    if data.source.label_type != CLASS:
        return
    numbers = [number for label in classes if (number := _number(label)) is not None]
    if len(numbers) == len(classes) and any(x % 1 for x in numbers):
        message = f"the labels of `{name}` are decimal numbers, and are read as {len(classes)} classes"
        help = 'for quantities to predict set problem_type="regression"; for classes name them: classes=[…]'
        collector.add("W407", message, place, help=help)
    if gap := _gap(facts):
        message = f"`{name}` has {len(classes)} classes, 0 to {len(classes) - 1}, and no training row has {gap[0]}"
        collector.add("W403", message, place, help=gap[1])


def _normal_form(label: str) -> str:
    """A label without the differences that hardly tell two classes apart: white space, case, number format."""
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    number = _number(text)
    return text if number is None else str(number.normalize())


def _number(label: str) -> Decimal | None:
    """The number that a label is; None for any other label, and for numbers beyond any quantity."""
    try:
        number = Decimal(label)
    except ArithmeticError:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 20 else None


def _gap(facts: DataFacts) -> tuple[str, str] | None:
    """Numeric labels of which 0, or most below the largest, never occur: which these are, and the remedy."""
    seen = facts.seen
    if not seen or facts.classes != tuple(map(str, range(len(facts.classes)))):
        return None
    absent = [label for label in facts.classes if label not in seen]
    if "0" in seen and len(absent) <= len(seen):
        return None
    which = ", ".join(f"`{label}`" for label in absent[:6]) + (
        f" and {len(absent) - 6} more" if len(absent) > 6 else ""
    )
    quoted = ", ".join(f'"{label}"' for label in seen[:12]) + (", …" if len(seen) > 12 else "")
    return which, f"numeric labels are class indices from 0; name the classes as the data does: classes=[{quoted}]"


# ── weights that models start from ───────────────────────────────────────────────────────────────────────────────────


def check_teachers(context: CheckContext) -> None:
    """W302: a teacher is never trained, so that one with random weights teaches noise. Some experiments want it."""
    for model in context.recipe.teachers:
        source = model.source
        if source.is_random:
            message = f"the teacher `{model.name}` keeps random weights: teachers are never trained"
            help = 'name a trained model, or train it by a spec of its own: brew("teacher.brew")'
            context.collector.add("W302", message, model.span, help=help)


def check_trained(context: CheckContext) -> None:
    """B325: the checkpoint of a teacher whose logits are taken holds their head."""
    for model, facts in context.models():
        if model.role != "teacher" or not model.source.has_configuration:
            continue
        try:
            facts.check_head()
        except SourceFault as fault:
            if fault.code == "B325":
                context.collector.add(fault.code, fault.message, model.place(fault.field), help=fault.help)


def check_starts(context: CheckContext) -> None:
    """B303, B316: the layers that a model starts from exist, as many as its own and of the same shapes."""
    for model, facts in context.models():
        init = facts.outline.init if model.source.start is not None else None
        donor = context.facts(context.recipe.models[init.model]) if init is not None else None
        if donor is None:
            continue
        try:
            facts.check_start(donor, model.name)
        except SourceFault as fault:
            if fault.code in ("B303", "B316"):
                help = fault.help or "name other layers"
                context.collector.add(fault.code, fault.message, model.place("init"), help=help)


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def check_metrics(context: CheckContext) -> None:
    """B126 and others: the metric that decides which student is best exists in every stage that names one."""
    recipe, facts, collector = context
    for stage in recipe.stages:
        metric = stage.train.metric_for_best_model
        if metric is None:
            continue
        place = stage.places.get("metric_for_best_model", recipe.train_span)
        types = {task.name: _label_type(recipe, task) for task in stage.tasks}
        classes = {task.name: facts.facts.classes.get(task.data[0], ()) for task in stage.tasks if task.data}
        missing: dict[str, tuple[str, ...]] = {}
        for task in stage.tasks:
            if task.data and types[task.name] == SPANS:
                known = facts.data_facts[task.data[0]]
                missing[task.name] = missing_metrics(known.unanswerable) if known is not None else ()
        try:
            name = validate_metric(metric, types, classes, missing)
        except SourceFault as fault:
            collector.add(fault.code, fault.message, place, help=fault.help or "name another metric")
            continue
        scored = next(t for t in stage.tasks if not t.name or name.startswith(f"{t.name}/"))
        _check_evaluated(recipe, scored, name, place, collector)


def _label_type(recipe: Recipe, task: Task) -> LabelType:
    """The type of the labels that a task is scored on: those of the data that its loss reads first."""
    data = data_of(task.loss)
    return recipe.data[data[0]].source.label_type if data else NONE


def _check_evaluated(recipe: Recipe, task: Task, name: str, place: Span, collector: Collector) -> None:
    """B126 if a task cannot be evaluated: batches of tensors give losses only, a loss of several data sets no loss."""
    if not task.data:
        return
    data, is_loss = task.data[0], name.rpartition("/")[2] == LOSS
    source = recipe.data[data].source
    if source.holds_tensors and not is_loss:
        message = f"`{data}` holds batches of tensors, which give losses but no scores"
        collector.add("B126", message, place, help='write metric_for_best_model = "loss"')
    elif len(task.data) > 1 and is_loss:
        message = f"a loss that reads several data sets ({listing(task.data)}) cannot be evaluated"
        collector.add("B126", message, place, help="name a score, or remove metric_for_best_model")
    parts = source.sources
    if all(getattr(part, "dev", "") is None for part in parts):  # sometimes only reading the data tells
        help = "name a file to evaluate on: `dev=…`"
        collector.add("B126", f"`{data}` has no `dev` to score the student on", place, help=help)


def check_baseline(context: CheckContext) -> None:
    """B335, W303: with `baseline = true` some loss needs no teacher; stages without such a loss are named."""
    recipe, _, collector = context
    if not recipe.has_baseline:
        return
    place = recipe.stages[0].places.get("baseline", recipe.train_span)
    try:
        kept = {stage.name for stage in without_teacher(recipe).stages}
    except UsageError:
        message = "`baseline = true`, but every term of the loss needs a teacher"
        help = "without a teacher there is nothing to train: remove `baseline`, or add a term on the labels"
        collector.add("B335", message, place, help=help)
        return
    if lost := [stage.name for stage in recipe.stages if stage.name not in kept]:
        message = f"the baseline skips {listing(lost)}: every term there needs a teacher"
        help = "it trains for fewer steps than the student with its teacher"
        collector.add("W303", message, place, help=help)


# ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_heads(context: CheckContext) -> None:
    """B323, B324: labels lie inside the classes of every model whose logits they are compared with, in the same order;
    models whose logits are compared have the same classes in the same order.
    """
    recipe, facts, collector = context

    def classes_of(x: v.Value) -> tuple[str, tuple[str, ...]]:
        take = next((t for t in v.walk(x) if isinstance(t, v.Take) and t.kind == "logits"), None)
        known = facts(recipe.models[take.model]) if take is not None else None
        return ("", ()) if take is None or known is None else (take.model, known.head_labels(take.feature.head))

    for x in _applications(recipe):
        (one, ones), (other, others) = classes_of(x.source), classes_of(x.target)
        if ones != others and set(ones) == set(others):
            # a teacher takes the order of the data, a student keeps its own
            kept = ones if one == recipe.student.name else others
            message = f"`{one}` orders its classes differently from `{other}`"
            help = f"`{one}`: {', '.join(ones[:6])}; `{other}`: {', '.join(others[:6])}: {_reorder(recipe, kept)}"
            collector.add("B324", message, x.span, help=help)
        column = next((c for c in v.walk(x.source) if isinstance(c, v.Column) and c.kind == "labels"), None)
        data = facts.data_facts[column.data] if column is not None else None
        if data is None or not data.classes or not others:
            continue
        if len(data.classes) > len(others):
            message = f"the data has {len(data.classes)} classes, `{other}` only {len(others)}"
            help = f"the data's are {', '.join(data.classes[:12])}; give the model as many: labels=[…]"
            if gap := _gap(data):
                message, help = f"{message}; no training row has {gap[0]}", gap[1]
            collector.add("B323", message, x.span, help=help)
        elif others != data.classes and set(others) == set(data.classes):
            message = f"the data orders its classes differently from `{other}`"
            orders = f"the model's: {', '.join(others[:6])}; the data's: {', '.join(data.classes[:6])}"
            collector.add("B324", message, x.span, help=f"{orders}: {_reorder(recipe, others)}")


def check_combined(context: CheckContext) -> None:
    """B222: models whose logits are averaged or otherwise combined have the same classes."""
    recipe, facts, collector = context
    combined = (x for value in recipe.values() for x in v.walk(value) if isinstance(x, v.Combine))
    reported: set[frozenset[str]] = set()
    # the innermost first, so that each pair is reported where it is combined
    for x in sorted((x for x in combined if x.kind == "logits"), key=lambda x: x.span.end - x.span.start):
        takes = {t.model: t for t in v.walk(x) if isinstance(t, v.Take) and t.feature.name == "logits"}
        classes: dict[str, tuple[str, ...]] = {}
        for model, take in takes.items():
            known = facts(recipe.models[model])
            labels = known.head_labels(take.feature.head) if known is not None else ()
            if labels and not all(label.startswith("LABEL_") for label in labels):
                classes[model] = labels
        one = next(iter(classes), "")
        other = next((model for model in classes if classes[model] != classes[one]), "")
        if other and frozenset((one, other)) not in reported:
            reported.add(frozenset((one, other)))
            message = f"the logits of `{one}` and `{other}` are combined, but their classes differ"
            both = "; ".join(f"`{name}`: {', '.join(classes[name][:6])}" for name in (one, other))
            collector.add("B222", message, x.span, help=f"{both}: give both the same names: labels=[…]")


def _reorder(recipe: Recipe, classes: tuple[str, ...]) -> str:
    """How the data takes over a model's order of classes, if one of its sources can."""
    if not any("classes" in type(data.source).model_fields for data in recipe.data.values()):
        return "use one order"
    quoted = ", ".join(f'"{name}"' for name in classes)
    return f"give the data the model's order: classes=[{quoted}]"


def _applications(recipe: Recipe) -> Iterator[v.Apply]:
    """Every match and call of the equations, each once."""
    applies = {id(x): x for value in recipe.values() for x in v.walk(value) if isinstance(x, v.Apply)}
    yield from applies.values()
