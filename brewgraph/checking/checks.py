"""Checks of a spec against its models and data, one function each: inputs, labels, classes, metrics, cache folders."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from brewgraph.data.sources.reader import DataFacts
from brewgraph.diagnostics import MOST_NAMES, Collector, SourceFault, UsageError, few, listing, shortened, suggest
from brewgraph.paths import CACHE_SUFFIX, locate
from brewgraph.recipe import values as v
from brewgraph.recipe.label_types import LOSS, NONE, Form
from brewgraph.recipe.length import Length, check_batch
from brewgraph.recipe.recipe import Recipe, Task, columns_used, data_of, data_used, without_teacher
from brewgraph.recipe.settings.data_sources import LONGEST, Batches
from brewgraph.recipe.settings.metric_names import missing_metrics, validate_metric
from brewgraph.source import Span

if TYPE_CHECKING:
    from brewgraph.facts.models import FactsBook, UnbuiltModelFacts


T = TypeVar("T")


class CheckContext(NamedTuple):
    """The one argument of a check."""

    recipe: Recipe
    facts: FactsBook
    collector: Collector

    def models(self) -> Iterator[tuple[v.ModelDeclaration, UnbuiltModelFacts]]:
        """Every model whose facts are known."""
        for model in self.recipe.models.values():
            if (facts := self.facts(model)) is not None:
                yield model, facts

    def readers(self) -> Iterator[tuple[v.ModelDeclaration, UnbuiltModelFacts, v.DataDeclaration]]:
        """Every model whose facts are known, with each data set that it reads."""
        for model, facts in self.models():
            for name in self.facts.data.get(model.name, ()):
                yield model, facts, self.recipe.data[name]

    def values(self, kind: type[T]) -> list[T]:
        """Every value of a kind in the equations and losses, each once, in order."""
        every = (x for value in self.recipe.values() for x in v.walk(value))
        return list({id(x): x for x in every if isinstance(x, kind)}.values())


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_columns(context: CheckContext) -> None:
    """B402, B411: a column that an equation or `inputs` names exists, once."""
    for name, columns in columns_used(context.recipe).items():
        facts = context.facts.data_facts[name]
        for column in columns if facts is not None and facts.columns else ():
            assert facts is not None
            place = _place_of_column(context, name, column)
            if column not in facts.columns:
                help = suggest(column, facts.columns) or f"the columns are {listing(facts.columns, MOST_NAMES)}"
                context.collector.add("B402", f"`{name}` has no column `{column}`", place, help=help)
            elif column in facts.twice:
                help = "rename one in the header"
                context.collector.add("B411", f"`{name}` has two columns `{column}`", place, help=help)


def _place_of_column(context: CheckContext, data: str, column: str) -> Span:
    """Where the spec last names a column of a data set, in an equation or else in `inputs`."""
    if places := [x.span for x in context.values(v.Column) if (x.data, x.column) == (data, column)]:
        return places[-1]
    models = context.recipe.models.values()
    named = (model.place("inputs") for model in models if column in model.source.forward_columns.values())
    return next(named, context.recipe.data[data].span)


def check_labels(context: CheckContext) -> None:
    """W403 to W407: labels of training data that are legal but unlikely to be meant."""
    used = {name for names in data_used(context.recipe).values() for name in names}
    for name, facts in context.facts.data_facts.items():
        if name in used and facts is not None:
            _check_labels(context.recipe.data[name], facts, context.collector)


def _check_labels(data: v.DataDeclaration, facts: DataFacts, collector: Collector) -> None:
    column = data.source.label_type.column
    classes, name, place = facts.classes, data.name, data.place(column)
    if facts.alike:
        which = f", `{facts.seen[0]}`" if facts.seen is not None and len(facts.seen) == 1 else ""
        message = f"all training rows of `{name}` have the same label{which}: there is nothing to learn"
        collector.add("W404", message, place, help=f"add rows with other labels, or name another column: `{column}=…`")
    if any(getattr(part, "classes", None) for part in data.source.sources):
        return
    alike: dict[str, list[str]] = {}
    for label in classes:
        alike.setdefault(_normal_form(label), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            which = f"{listing(labels, MOST_NAMES)} are {len(labels)} classes of `{name}`"
            message = f"{which}, and differ only in white space, case or number format"
            collector.add("W405", message, place, help="write them alike in the data, or name all classes: classes=[…]")
    if data.source.label_type.form is not Form.CLASS:
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
    quoted = ", ".join(f'"{label}"' for label in seen[:12]) + (", …" if len(seen) > 12 else "")
    return listing(
        absent, 6
    ), f"numeric labels are class indices from 0; name the classes as the data does: classes=[{quoted}]"


# ── weights that models start from ───────────────────────────────────────────────────────────────────────────────────


def check_teachers(context: CheckContext) -> None:
    """W302: a teacher is never trained, so that one with random weights teaches noise. Some experiments want it."""
    for model in context.recipe.teachers:
        if model.source.is_random:
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


def check_quantized(context: CheckContext) -> None:
    """B343: a teacher that is to be quantized has linear layers."""
    for model, facts in context.models():
        try:
            facts.check_quantized() if model.source.quantization is not None else None
        except SourceFault as fault:
            context.facts.report(model, fault)


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


def check_recomputed(context: CheckContext) -> None:
    """B342: with `gradient_checkpointing = true` the layers of the student can run again."""
    student = context.recipe.student
    facts = context.facts(student)
    for stage in context.recipe.stages if facts is not None and not facts.outline.recomputes else ():
        if stage.train.gradient_checkpointing:
            message = f"the layers of `{student.name}` cannot run again: its architecture does not support it"
            help = "remove `gradient_checkpointing`; a smaller `batch` with `accumulate = 4` needs less memory, too"
            place = stage.places.get("gradient_checkpointing", context.recipe.train_span)
            context.collector.add("B342", message, place, help=help)


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def check_metrics(context: CheckContext) -> None:
    """B126 and others: the metric that decides which student is best exists in every stage that names one."""
    recipe, facts, collector = context
    for stage in recipe.stages:
        metric = stage.train.metric_for_best_model
        if metric is None:
            continue
        place = stage.places.get("metric_for_best_model", recipe.train_span)
        types, classes, missing = {}, {}, {}
        for task in stage.tasks:
            read = data_of(task.loss)
            types[task.name] = recipe.data[read[0]].source.label_type if read else NONE
            if task.data and (known := facts.data_facts[task.data[0]]) is not None:
                classes[task.name] = known.classes
                missing[task.name] = missing_metrics(types[task.name], known.unanswerable)
        try:
            name = validate_metric(metric, types, classes, missing)
        except SourceFault as fault:
            collector.add(fault.code, fault.message, place, help=fault.help or "name another metric")
            continue
        scored = next(t for t in stage.tasks if not t.name or name.startswith(f"{t.name}/"))
        _check_evaluated(recipe, scored, name, place, collector)


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
    if all(getattr(part, "dev", "") is None for part in source.sources):  # sometimes only reading the data tells
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

    for x in context.values(v.Apply):
        (one, ones), (other, others) = classes_of(x.source), classes_of(x.target)
        if ones != others and set(ones) == set(others):
            # a teacher takes the order of the data, a student keeps its own
            kept = ones if one == recipe.student.name else others
            message = f"`{one}` orders its classes differently from `{other}`"
            help = f"`{one}`: {_order(ones)}; `{other}`: {_order(others)}: {_reorder(recipe, kept)}"
            collector.add("B324", message, x.span, help=help)
        column = next((c for c in v.walk(x.source) if isinstance(c, v.Column) and c.kind == "labels"), None)
        data = facts.data_facts[column.data] if column is not None else None
        if data is None or not data.classes or not others:
            continue
        if len(data.classes) > len(others):
            message = f"the data has {len(data.classes)} classes, `{other}` only {len(others)}"
            help = f"the data's are {_order(data.classes, MOST_NAMES)}; give the model as many: labels=[…]"
            if gap := _gap(data):
                message, help = f"{message}; no training row has {gap[0]}", gap[1]
            collector.add("B323", message, x.span, help=help)
        elif others != data.classes and set(others) == set(data.classes):
            message = f"the data orders its classes differently from `{other}`"
            orders = f"the model's: {_order(others)}; the data's: {_order(data.classes)}"
            collector.add("B324", message, x.span, help=f"{orders}: {_reorder(recipe, others)}")


def check_combined(context: CheckContext) -> None:
    """B222: models whose logits are averaged or otherwise combined have the same classes."""
    recipe, facts, collector = context
    combined = [x for x in context.values(v.Combine) if x.kind == "logits"]
    reported: set[frozenset[str]] = set()
    # the innermost first, so that each pair is reported where it is combined
    for x in sorted(combined, key=lambda x: x.span.end - x.span.start):
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
            both = "; ".join(f"`{name}`: {_order(classes[name])}" for name in (one, other))
            collector.add("B222", message, x.span, help=f"{both}: give both the same names: labels=[…]")


def _order(classes: tuple[str, ...], most: int = 6) -> str:
    return few(map(shortened, classes), most)


_COPIED = 100
"""The most classes that a remedy writes out, to be copied."""


def _reorder(recipe: Recipe, classes: tuple[str, ...]) -> str:
    """How the data takes over a model's order of classes, if one of its sources can."""
    if not any("classes" in type(data.source).model_fields for data in recipe.data.values()):
        return "use one order"
    quoted = few((f'"{name}"' for name in classes), _COPIED)
    return f"give the data the model's order: classes=[{quoted}]"


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_built(context: CheckContext) -> None:
    """Every model that reads data can be built from its configuration, even if no shape of it was needed so far."""
    for model, facts in context.models():
        try:
            _ = facts.call if context.facts.data.get(model.name) else None
        except SourceFault as fault:
            context.facts.report(model, fault)
            context.facts.models[model.name] = None  # for the checks that follow


def check_weights(context: CheckContext) -> None:
    """B315: weights are tensors, and loading them runs nothing."""
    for model, facts in context.models():
        if not model.source.has_configuration:
            continue
        try:
            facts.check_weights()
        except SourceFault as fault:
            context.facts.report(model, fault)


def check_lengths(context: CheckContext) -> None:
    """B320: no model gets more tokens than it has positions."""
    for model, facts, data in context.readers():
        wanted = data.source.max_length
        limit = facts.positions if wanted else None
        if wanted and limit is not None and limit < wanted:
            message = f"`{model.name}` has {limit} positions, but examples have up to {wanted} tokens"
            help = f"set max_length={limit}, or use a model with more positions"
            context.collector.add("B320", message, data.place("max_length"), help=help)


def check_batches(context: CheckContext) -> None:
    """B413: a batch of tokens has room for the longest example, as far as its words tell; a run counts its tokens."""
    limits: dict[str, int] = {}
    for _, facts, data in context.readers():
        if not isinstance(data.source.batch, Length):
            continue
        try:
            known = (facts.positions, data.source.max_length or facts.token_facts.longest or LONGEST)
        except SourceFault:
            continue  # reported where the model is declared
        own = min(limit for limit in (*known, data.source.max_length or LONGEST) if limit is not None)
        limits[data.name] = min(own, limits.get(data.name, own))
    for name, limit in limits.items():
        data, of_data = context.recipe.data[name], context.facts.data_facts[name]
        try:
            check_batch(data.source.batch, min(limit, of_data.words if of_data is not None else 0), "at least ")
        except SourceFault as fault:
            context.collector.add(fault.code, fault.message, data.place(fault.field), help=fault.help)


def check_inputs(context: CheckContext) -> None:
    """B337, B338: the tokenizer, the data or `inputs` supply every argument that a model's forward needs, and the
    forward takes every argument that `inputs` names.
    """
    for model, facts, data in context.readers():
        if not model.source.has_configuration:
            continue
        call = facts.call
        unknown = [name for name in model.source.forward_columns if name not in call.names and not call.rest]
        if unknown:
            message = f"the forward of `{model.name}` takes no `{unknown[0]}`"
            help = suggest(unknown[0], call.names) or f"it takes {listing(sorted(call.names)[:8])}"
            context.collector.add("B338", message, model.place("inputs"), help=help)
            continue
        required, supplied = call.needs, set(model.source.forward_columns)
        if isinstance(data.source, Batches):
            from brewgraph.data.sources.tensor_batches import batch_fields

            try:
                supplied |= batch_fields(data.source, context.recipe.source.folder, model.name)
            except SourceFault:
                continue  # reported with the data
            required -= {"input_ids"} if "inputs_embeds" in supplied else set()
        elif required - supplied - _FROM_EVERY_TOKENIZER:
            supplied |= facts.token_facts.inputs
        else:
            continue
        if missing := sorted(required - supplied):
            needed = f"the forward of `{model.name}` needs {listing(missing)}"
            message = f"{needed}, which neither its tokenizer nor `{data.name}` supplies"
            help = f"name a column: inputs={{{missing[0]}: column}}"
            if missing[0] == "decoder_input_ids" and facts.outline.classifies_tokens:
                help += '; or use its encoder alone: task="token-classification"'
            context.collector.add("B337", message, model.span, help=help)


_FROM_EVERY_TOKENIZER = frozenset({"input_ids", "attention_mask"})


def check_tokenizers(context: CheckContext) -> None:
    """B314, B339, W307: every model that reads text has a tokenizer, with a token to pad batches with, that keeps words
    apart: it must not read `the cat` as `thecat`.
    """
    for model, facts, data in context.readers():
        of_text, of_words = not data.source.holds_tensors, data.source.label_type.form is Form.TAGS
        if facts.tokens.name is None or not (of_text or of_words):
            continue
        try:
            tokenizer = facts.token_facts
        except SourceFault as fault:
            if of_text:
                context.facts.report(model, fault)
            continue
        if of_text and not tokenizer.pads:
            message = f"the tokenizer of `{model.name}` has no padding token, which the batches of `{data.name}` need"
            help = "set its `pad_token` and save it with `save_pretrained`, or name another tokenizer: tokenizer=…"
            context.collector.add("B339", message, model.place("tokenizer"), help=help)
        if of_words and tokenizer.joins:
            message = f"the tokenizer of `{model.name}` puts no space between the words of `{data.name}`"
            help = "load it with `add_prefix_space=True`, save it, and name that folder: tokenizer=…"
            context.collector.add("W307", message, model.place("tokenizer"), help=help)


def check_own_tokens(context: CheckContext) -> None:
    """W306: pretrained weights read the token ids of the tokenizer that they were trained with."""
    for model, facts in context.models():
        if model.source.has_configuration and not facts.reads_its_own_tokens:
            message = f"the weights of `{model.name}` were trained with another tokenizer"
            help = "remove `tokenizer`, or start from random weights: pretrained=false"
            context.collector.add("W306", message, model.place("tokenizer"), help=help)


def check_ends(context: CheckContext) -> None:
    """B340: classifiers of encoder-decoders pool the state at `eos_token_id`, and fail on a text without that token."""
    for model, facts in context.models():
        read = [context.recipe.data[name].source for name in context.facts.data.get(model.name, ())]
        end = None if all(source.holds_tensors for source in read) else facts.outline.reads_end
        if end is None:
            continue
        try:
            appended = _appended(facts)
        except SourceFault:
            continue  # reported where the model is declared
        if end not in appended:
            where = f"`{model.name}` classifies at token id {end} (`eos_token_id`)"
            message = f"{where}, but its tokenizer never appends that token"
            help = "name a tokenizer that ends texts with a token: tokenizer=…"
            if appended:
                help = f"name the token that it appends: eos_token_id={appended[-1]}"
            context.collector.add("B340", message, model.place("eos_token_id"), help=help)


def _appended(facts: UnbuiltModelFacts) -> tuple[int, ...]:
    """The ids that a model's tokenizer appends to every text; one trained on the data appends what BERT's does."""
    if facts.tokens.name is not None:
        return facts.token_facts.behind
    from brewgraph.data.encoding.encode import train_wordpiece
    from brewgraph.models.tokenization import ids_behind

    return ids_behind(train_wordpiece(["a"], 8))


def check_nulls(context: CheckContext) -> None:
    """W320: "no answer" is learnt at a token of the question if the tokenizer adds no special one."""
    student = context.recipe.student
    for model, facts, data in context.readers():
        if model.name != student.name or data.source.label_type.form is not Form.SPANS or data.source.holds_tensors:
            continue
        known = context.facts.data_facts[data.name]
        unanswerable = known.unanswerable.get("train", 0) if known is not None else 0
        try:
            marked = not unanswerable or facts.token_facts.null
        except SourceFault:
            continue  # reported where the model is declared
        if not marked:
            message = (
                f"{unanswerable} questions of `{data.name}` have no answer, which `{student.name}` learns at their "
                "first token: its tokenizer adds neither CLS nor BOS"
            )
            help = "use a tokenizer that adds such a token at either end, and a model that attends in both directions"
            context.collector.add("W320", message, student.span, help=help)


# ── caches ───────────────────────────────────────────────────────────────────────────────────────────────────────────


_MAGIC, _AT = bytes.fromhex("dec0efbe"), 16
"""Four bytes that each file of a cache has at this place; a new one may be empty."""


def check_cache_folders(context: CheckContext) -> None:
    """B244, once for each `cache` whose folder a run cannot use."""
    folder = context.recipe.source.folder
    for cache in context.recipe.caches.values():
        try:
            problem = _problem(locate(cache.path, folder))
        except SourceFault as fault:
            problem = fault.message, fault.help
        if problem is not None:
            message, help = problem
            context.collector.add("B244", f"`{cache.name}` cannot be kept here: {message}", cache.place, help=help)


def _problem(path: Path) -> tuple[str, str] | None:
    """What is wrong with the folder of a cache, and the remedy; None if a run can use it or create it."""
    help = "name another folder"
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        what = "this is a file" if there == path else f"{there} is a file"
        return f"{what}, but a cache is a folder", f"{help}, which need not exist"
    if not os.access(there, os.W_OK | os.X_OK):
        what = "write to it" if there == path else f"create a folder in {there}"
        return f"this user may not {what}", f"{help}, or change its permissions"
    if old := sorted(path.glob("*.sqlite")):
        what = f"{old[0].name} in it was written by an earlier version of brewgraph, whose format is no longer read"
        return what, "delete that file, or name another folder: its values are computed again"
    for file in sorted(path.glob(f"*{CACHE_SUFFIX}")):
        try:
            with file.open("rb") as opened:
                first = opened.read(_AT + len(_MAGIC))
        except OSError as error:
            return f"{file.name} in it cannot be read ({error.strerror})", f"{help}, or move that file away"
        if first and first[_AT:] not in (_MAGIC, _MAGIC[::-1]):
            return f"{file.name} in it is not a cache", f"{help}, or move that file away"
        if not os.access(file, os.W_OK):
            return f"this user may not write to {file.name} in it", f"{help}, or change its permissions"
    return None


Check = Callable[[CheckContext], None]

DATA_CHECKS: tuple[Check, ...] = (check_columns, check_labels)
"""Checks of data alone, which run before the length of every list is known."""

CHECKS: tuple[Check, ...] = (
    check_teachers,
    check_built,
    check_weights,
    check_lengths,
    check_batches,
    check_starts,
    check_recomputed,
    check_quantized,
    check_inputs,
    check_tokenizers,
    check_own_tokens,
    check_ends,
    check_nulls,
    check_combined,
    check_heads,
    check_metrics,
    check_baseline,
    check_cache_folders,
    check_trained,
)
"""Checks of models and data that run before there is a graph, in this order."""
