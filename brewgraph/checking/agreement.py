"""What only models and data together show: classes, lengths, teachers that know nothing, metrics that will not be."""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewgraph.data.sources.source_facts import DataFacts
from brewgraph.diagnostics import Collector, SourceFault, UsageError, listing, suggest
from brewgraph.paths import locate, near_folder
from brewgraph.recipe import values as v
from brewgraph.recipe.label_types import CLASS, LOSS, NONE, SPANS, LabelType
from brewgraph.recipe.needs import columns_used, data_used
from brewgraph.recipe.recipe import Recipe, Task
from brewgraph.recipe.settings.metric_names import missing_metrics, validate_metric
from brewgraph.recipe.settings.sources import Batches, DataSource, Hf, Hub, Join
from brewgraph.recipe.without_teachers import without_teacher
from brewgraph.source import Source, Span

if TYPE_CHECKING:
    from brewgraph.facts.book import CheckContext, FactsBook
    from brewgraph.facts.memory import Memory

HOLDS = ("*.jsonl", "*.json", "*.csv", "*.tsv", "*.parquet")
"""Files that make a folder one of data."""


def find_classes(recipe: Recipe, source: Source, collector: Collector, memory: Memory) -> dict[str, tuple[str, ...]]:
    """The classes of every data set, and whether each has the columns that the spec names."""
    found: dict[str, tuple[str, ...]] = {}
    columns = columns_used(recipe)
    read = {data for used in data_used(recipe).values() for data in used}
    for name, data in recipe.data.items():
        found[name] = ()
        try:
            known = data_facts(data.source, source.folder, memory)
        except SourceFault as fault:
            if fault.code == "B405" and (meant := _meant(data.source, source.folder)):
                help = f"did you mean `{meant}`? the folder holds data; a name on the hub could not be reached, either"
                collector.add("B401", fault.message, data.place(fault.field), help=help)
            elif fault.code == "B405":
                help = f"{data.remedy(fault.help, fault.field)}; until then classes and columns are not checked"
                collector.add("W401", fault.message, data.place(fault.field), help=help)
            else:
                collector.add(
                    fault.code, fault.message, data.place(fault.field), help=data.remedy(fault.help, fault.field)
                )
            continue
        found[name] = known.classes
        if known.columns:
            _check_columns(recipe, name, columns[name], known, collector)
        if name in read:
            _check_labels(data, known, collector)
    return found


def _check_labels(data: v.DataDeclaration, known: DataFacts, collector: Collector) -> None:
    """Labels that are legal and hardly meant: one for all rows, classes that are written almost alike, numbers with
    gaps, numbers with decimals that are classes.
    """
    column = data.source.label_type.column
    own, name, place = known.classes, data.name, data.place(column)
    parts = data.source.parts if isinstance(data.source, Join) else (data.source,)
    named = any(getattr(part, "classes", None) for part in parts)
    if known.alike:
        which = f", `{known.seen[0]}`" if known.seen is not None and len(known.seen) == 1 else ""
        message = f"all training rows of `{name}` have the same label{which}: there is nothing to learn from it"
        collector.add("W404", message, place, help=f"add rows with other labels, or name another column: `{column}=…`")
    alike: dict[str, list[str]] = {}
    for written in () if named else own:
        alike.setdefault(_likeness(written), []).append(written)
    for names in alike.values():
        if len(names) > 1:
            which = f"{listing(names)} are {len(names)} classes of `{name}`"
            message = f"{which}, and differ only in white space, case or number format"
            collector.add(
                "W405", message, place, help="write them alike in the data, or name all that are meant: classes=[…]"
            )
    numbers = [number for written in own if (number := _number(written)) is not None]
    if data.source.label_type == CLASS and not named and len(numbers) == len(own) and any(x % 1 for x in numbers):
        message = f"the labels of `{name}` are numbers with decimals, and are read as {len(own)} classes"
        help = 'where they are quantities to predict: problem_type="regression"; where they are classes: classes=[…]'
        collector.add("W407", message, place, help=help)
    if data.source.label_type == CLASS and not named and (gap := _gap(known)):
        message = f"`{name}` has {len(own)} classes, 0 to {len(own) - 1}, and no training row has {gap[0]}"
        collector.add("W403", message, place, help=gap[1])


def _likeness(written: str) -> str:
    """What two classes share that are hardly meant to be two: white space, case and forms of a number left out."""
    text = " ".join(unicodedata.normalize("NFKC", written).casefold().split())
    number = _number(text)
    return text if number is None else str(number.normalize())


def _number(written: str) -> Decimal | None:
    """The number that a class is named as; None for other names, and for numbers beyond any quantity."""
    try:
        number = Decimal(written)
    except ArithmeticError:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 20 else None


def _gap(known: DataFacts) -> tuple[str, str] | None:
    """Labels that are numbers where 0, or most of those below the largest, never occur: which, and what to do."""
    seen = known.seen
    if not seen or known.classes != tuple(map(str, range(len(known.classes)))):
        return None
    absent = [name for name in known.classes if name not in seen]
    if "0" in seen and len(absent) <= len(seen):
        return None
    which = ", ".join(f"`{name}`" for name in absent[:6]) + (f" and {len(absent) - 6} more" if len(absent) > 6 else "")
    quoted = ", ".join(f'"{name}"' for name in seen[:12]) + (", …" if len(seen) > 12 else "")
    help = f"labels that are numbers count classes from 0; name them as they are written: classes=[{quoted}]"
    return which, help


def _meant(source: DataSource | Join, folder: Path) -> str:
    """The folder of data that a name which leads nowhere nearly is; empty where there is none."""
    named = (x for x in (source.parts if isinstance(source, Join) else (source,)) if isinstance(x, Hub))
    paths = (locate(x.name, folder) for x in named)
    return next((near for path in paths if not path.is_dir() and (near := near_folder(path, HOLDS))), "")


def data_facts(source: DataSource | Join, folder: Path, memory: Memory) -> DataFacts:
    """What is known of a data set before its rows are prepared. SourceFault where it is not what it is said to be."""
    if isinstance(source, Batches):
        from brewgraph.data.sources.tensor_batches import batch_facts

        return batch_facts(source, folder)
    if augment := getattr(source, "augment", ()):
        from brewgraph.data.batching.augmentation import check_augmentations

        check_augmentations(source.label_type, augment)
    from brewgraph.facts.memory import print_of_data

    def find() -> DataFacts:
        from brewgraph.data.sources.examples import facts

        return facts(source, folder)

    return memory.recall(print_of_data(source, folder), DataFacts, find)


def _check_columns(recipe: Recipe, data: str, wanted: tuple[str, ...], known: DataFacts, collector: Collector) -> None:
    """A column that an equation or `inputs` names must be there, and once."""
    there = known.columns
    for column in wanted:
        if column in there and column not in known.twice:
            continue
        place: Span = recipe.data[data].span
        for value in recipe.values():
            for part in v.walk(value):
                if isinstance(part, v.Column) and (part.data, part.column) == (data, column):
                    place = part.span
        for model in recipe.models.values():
            if (
                isinstance(model.source, Hf)
                and column in model.source.inputs.values()
                and place == recipe.data[data].span
            ):
                place = model.place("inputs")
        if column in there:
            collector.add("B411", f"`{data}` has two columns `{column}`", place, help="rename one in the header")
            continue
        help = suggest(column, there) or f"the columns are {listing(there)}"
        collector.add("B402", f"`{data}` has no column `{column}`", place, help=help)


def check_teachers(context: CheckContext) -> None:
    """A teacher is never trained: one that begins at random teaches noise. Legal, for some experiments want it."""
    recipe, _, collector = context
    for model in recipe.teachers:
        source = model.source
        if isinstance(source, Hf) and (source.name is None or not source.pretrained):
            message = f"the teacher `{model.name}` keeps random weights: teachers are never trained"
            help = 'name a trained model, or train it by a spec of its own: brew("teacher.brew")'
            collector.add("W302", message, model.span, help=help)


def check_trained(context: CheckContext) -> None:
    """A teacher whose logits are taken has a head in its checkpoint: one that begins at random teaches noise."""
    recipe, facts, collector = context
    for model in recipe.teachers:
        known = facts(model) if isinstance(model.source, Hf) else None
        if known is None:
            continue
        try:
            known.check_head()
        except SourceFault as fault:
            if fault.code == "B325":
                collector.add(fault.code, fault.message, model.place(fault.field), help=fault.help)


def check_starts(context: CheckContext) -> None:
    """Layers that a model starts from must be there, as many as its own, and of their shapes."""
    recipe, facts, collector = context
    for model in recipe.models.values():
        known = facts(model) if isinstance(model.source, Hf) and model.source.init is not None else None
        init = known.outline.init if known is not None else None
        donor = facts(recipe.models[init.model]) if init is not None else None
        if known is None or donor is None:
            continue
        try:
            known.check_start(donor, model.name)
        except SourceFault as fault:
            if fault.code in ("B303", "B316"):
                collector.add(fault.code, fault.message, model.place("init"), help=fault.help or "name other layers")


def check_metrics(context: CheckContext) -> None:
    """A metric that decides which model is best must exist in every stage that it is asked of."""
    recipe, facts, collector = context
    student = recipe.student.name
    for stage in recipe.stages:
        metric = stage.train.metric_for_best_model
        if metric is None:
            continue
        place = stage.places.get("metric_for_best_model", recipe.train_span)
        tasks = {task.name: task_label_type(recipe, task.name, task.loss, student) for task in stage.tasks}
        classes = {task.name: facts.classes.get(task.data[0], ()) for task in stage.tasks if task.data}
        missing = {t.name: _missing(t, facts) for t in stage.tasks if t.data and tasks[t.name] == SPANS}
        try:
            name = validate_metric(metric, tasks, classes, missing)
        except SourceFault as fault:
            collector.add(fault.code, fault.message, place, help=fault.help or "name another metric")
            continue
        scored = next(t for t in stage.tasks if not t.name or name.startswith(f"{t.name}/"))
        _check_evaluated(recipe, scored, name, place, collector)
        if scored.data and not _has_dev(recipe.data[scored.data[0]].source):
            help = "name a file to evaluate on: `dev=…`"
            collector.add("B126", f"`{scored.data[0]}` has no `dev` to score the student on", place, help=help)


def _check_evaluated(recipe: Recipe, task: Task, name: str, place: Span, collector: Collector) -> None:
    """B126 for a score of ready batches, which give losses alone, and for a loss of several data sets, without rows."""
    is_loss = name.rpartition("/")[2] == LOSS
    if task.data and isinstance(recipe.data[task.data[0]].source, Batches) and not is_loss:
        message = f"`{task.data[0]}` are ready batches, on which losses are evaluated, and no scores"
        collector.add("B126", message, place, help='write metric_for_best_model = "loss"')
    elif len(task.data) > 1 and is_loss:
        message = f"the loss reads {listing(task.data)}, and is evaluated where it reads one data set"
        collector.add("B126", message, place, help="name a score, or leave metric_for_best_model out")


def _missing(task: Task, facts: FactsBook) -> tuple[str, ...]:
    """The metrics that an evaluation on a task's questions does not give; none for data at fault, which is said."""
    try:
        known = data_facts(facts.recipe.data[task.data[0]].source, facts.folder, facts.memory)
    except SourceFault:
        return ()
    return missing_metrics(known.unanswerable)


def _has_dev(source: Any) -> bool:
    """Whether a data set may have a split to evaluate on; whether it does, sometimes only reading it tells."""
    return any(getattr(part, "dev", "") is not None for part in getattr(source, "parts", (source,)))


def check_baseline(context: CheckContext) -> None:
    """With `baseline = true` something has to be left to train without a teacher; stages that fall away are named."""
    recipe, _, collector = context
    if not recipe.has_baseline:
        return
    place = recipe.stages[0].places.get("baseline", recipe.train_span)
    try:
        kept = {stage.name for stage in without_teacher(recipe).stages}
    except UsageError:
        message = "`baseline = true`, but every term of the loss needs a teacher"
        help = "there is nothing to train without it: take the baseline out, or add a term on the labels"
        collector.add("B335", message, place, help=help)
        return
    lost = [stage.name for stage in recipe.stages if stage.name not in kept]
    if lost:
        message = f"the baseline has no {listing(lost)}: every term there needs a teacher"
        help = "it trains for so many steps fewer than the student with its teacher"
        collector.add("W303", message, place, help=help)


def task_label_type(recipe: Recipe, name: str, loss: v.Value, student: str) -> LabelType:
    """The type of the labels that a task's student is scored on: those of the data that its loss reads first."""
    from brewgraph.recipe.recipe import data_of

    data = data_of(loss)
    return recipe.data[data[0]].source.label_type if data else NONE


def check_heads(context: CheckContext) -> None:
    """Labels must lie inside the classes of every model whose logits they are compared with, in the same order; so must
    the classes of two models whose logits are compared."""
    recipe, facts, collector = context

    def labels(x: v.Value) -> tuple[str, tuple[str, ...]]:
        take = next((t for t in v.walk(x) if isinstance(t, v.Take) and t.kind == "logits"), None)
        known = facts(recipe.models[take.model]) if take is not None else None
        if take is None or known is None:
            return "", ()
        return take.model, known.head_labels(take.feature.head)

    _check_joined(recipe, facts, collector)
    for x in _applications(recipe):
        (one, ones), (other, others) = labels(x.source), labels(x.target)
        if ones != others and set(ones) == set(others):
            # a teacher is put in the order of the data, a student keeps its own
            kept = ones if one == recipe.student.name else others
            message = f"`{one}` orders its classes differently from `{other}`"
            help = f"`{one}`: {', '.join(ones[:6])}; `{other}`: {', '.join(others[:6])}: {_remedy(recipe, kept)}"
            collector.add("B324", message, x.span, help=help)
        column = next((c for c in v.walk(x.source) if isinstance(c, v.Column) and c.kind == "labels"), None)
        classes = facts.classes.get(column.data, ()) if column is not None else ()
        if not classes or not others:
            continue
        if len(classes) > len(others):
            message = f"the data has {len(classes)} classes, `{other}` only {len(others)}"
            help = f"the data's are {', '.join(classes[:12])}; give the model as many: labels=[…]"
            assert column is not None
            if gap := _gap(data_facts(recipe.data[column.data].source, facts.folder, facts.memory)):
                message, help = f"{message}; no training row has {gap[0]}", gap[1]
            collector.add("B323", message, x.span, help=help)
        elif others != classes and set(others) == set(classes):
            message = f"the data orders its classes differently from `{other}`"
            help = (
                f"the model's: {', '.join(others[:6])}; the data's: {', '.join(classes[:6])}: {_remedy(recipe, others)}"
            )
            collector.add("B324", message, x.span, help=help)


def _check_joined(recipe: Recipe, facts: FactsBook, collector: Collector) -> None:
    """Models whose logits are averaged, or otherwise joined, must mean the same by each class."""
    combined = (x for value in recipe.values() for x in v.walk(value) if isinstance(x, v.Combine))
    said: set[frozenset[str]] = set()
    # the innermost first, so that each pair is said where it is joined
    for joined in sorted((x for x in combined if x.kind == "logits"), key=lambda x: x.span.end - x.span.start):
        takes = {x.model: x for x in v.walk(joined) if isinstance(x, v.Take) and x.feature.name == "logits"}
        named: dict[str, tuple[str, ...]] = {}
        for model, take in takes.items():
            known = facts(recipe.models[model])
            labels = known.head_labels(take.feature.head) if known is not None else ()
            if labels and not all(label.startswith("LABEL_") for label in labels):
                named[model] = labels
        one = next(iter(named), "")
        other = next((model for model in named if named[model] != named[one]), "")
        if other and frozenset((one, other)) not in said:
            said.add(frozenset((one, other)))
            message = f"the logits of `{one}` and `{other}` are joined, and their classes are not the same"
            shown = (f"`{name}`: {', '.join(named[name][:6])}" for name in (one, other))
            help = f"{'; '.join(shown)}: name those of one as the other's: labels=[…]"
            collector.add("B222", message, joined.span, help=help)


def _remedy(recipe: Recipe, names: tuple[str, ...]) -> str:
    """How the data takes over a model's order of classes, where one of its sources can."""
    if not any("classes" in type(data.source).model_fields for data in recipe.data.values()):
        return "use one order"
    listed = ", ".join(f'"{name}"' for name in names)
    return f"give the data the model's order: classes=[{listed}]"


def _applications(recipe: Recipe) -> list[v.Apply]:
    found: dict[int, v.Apply] = {}
    for value in recipe.values():
        found.update({id(x): x for x in v.walk(value) if isinstance(x, v.Apply)})
    return list(found.values())


def has_open_lists(recipe: Recipe) -> bool:
    """Whether a list's length waits for a model that cannot be reached."""

    def is_open(x: Any) -> bool:
        if isinstance(x, v.Group):
            return x.items is None or any(is_open(i) for i in x.items)
        return isinstance(x, v.Value) and any(
            (isinstance(p, v.Combine) and not p.operands) or (isinstance(p, v.Bundle) and not p.items)
            for p in v.walk(x)
        )

    return any(is_open(x) for x in (*recipe.equations.values(), *(task.loss for _, task in recipe.tasks)))
