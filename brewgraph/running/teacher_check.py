"""Dry runs of the teachers before training: do they number their classes as the data does, and what rounding costs."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import networkx as nx
import psutil
import torch
from torch import nn

from brewgraph.checking.check import Checked
from brewgraph.data.batching.order import BatchOrder, derive_seed
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.digest import digest
from brewgraph.facts.memory import Memory
from brewgraph.graph import nodes as n
from brewgraph.graph.container import of_kind
from brewgraph.models.capture.packing import real_outputs
from brewgraph.models.heads import evaluating
from brewgraph.models.label_order import LabelOrder, OrderCheck, check_span_order
from brewgraph.models.loading import DTYPES
from brewgraph.models.places import emulated
from brewgraph.models.standby import awake
from brewgraph.recipe.label_types import Form, LabelType
from brewgraph.recipe.recipe import Stage, Task, data_used
from brewgraph.recipe.settings.data_sources import DataSource
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.running.data_cache import DataCache
from brewgraph.training.evaluation import can_score, logits_of, model_inputs, own_view
from brewgraph.training.processes import this_process
from brewgraph.training.reporter import Reporter
from brewgraph.training.work import in_order

ROWS = 512
"""The maximum number of labelled rows per teacher; as many again if some classes may be confused."""
_CHECKED: tuple[Form, ...] = (Form.CLASS, Form.CLASSES, Form.TAGS, Form.SPANS)
"""Forms of labels with an order of classes. Numbers have none, tokens that of the vocabulary."""
_FEATURES = ("logits", "start", "end")


@dataclass(frozen=True)
class _Subject:
    """A teacher or one of its heads, and the data on which a loss needs its logits."""

    data_cache: DataCache
    model: ModelDeclaration
    head: str
    data: str

    @property
    def title(self) -> str:
        """Its name in a message."""
        whole = f"the teacher `{self.model.name}`"
        return f"the head `{self.head}` of {whole}" if self.head else whole

    @property
    def source(self) -> DataSource:
        return self.data_cache.recipe.data[self.data].source

    def check(self, reporter: Reporter | None) -> None:
        """Report or refuse its order of classes; what is known of these weights and data is not found out again."""
        order = Memory.of_user().recall(self._identity, LabelOrder | None, self._order)  # type: ignore[arg-type]
        if order is None:
            return
        if order.verdict == "permuted":
            name = f"{self.model.name}.{self.head}" if self.head else self.model.name
            swap = f"swap them: match `{name}.end` with the student's `start`, and `{name}.start` with its `end`"
            code, help = ("B341", swap) if self.source.label_type.form is Form.SPANS else ("B332", order.help)
            raise SpecError([Diagnostic(code, order.message, self.model.span, help)])
        if order.verdict == "chance" and reporter is not None:
            reporter.say(f"warning: {order.message}; {order.help}")

    @property
    def _identity(self) -> str | None:
        """What the order depends on; None where that cannot be told from files."""
        builder = self.data_cache.builder
        outputs = builder.outputs_identity(self.model.name, self.data)
        return outputs and digest(outputs, self.title, list(builder.classes(self.data)), builder.recipe.train.seed)

    def _order(self) -> LabelOrder | None:
        """Compare its classes with the labels: of some rows, then of others with classes that may be confused. None
        where its predictions and the labels are of no such type.
        """
        module, label_type = awake(self.data_cache.builder.model(self.model.name)), self.source.label_type
        scored: nn.Module | None = getattr(module, "heads", {}).get(self.head) if self.head else module
        classes = self.data_cache.builder.classes(self.data)
        if not classes and self.source.holds_tensors:
            classes = tuple(map(str, range(getattr(getattr(scored, "config", None), "num_labels", 0))))
        if scored is None or label_type.form not in _CHECKED or not can_score(module, label_type, classes, self.head):
            return None
        seen: dict[str, list[torch.Tensor]] = {}

        def compared(rows: Iterator[Mapping[str, Any]]) -> LabelOrder:
            with evaluating(module), torch.no_grad():
                for batch in rows:
                    for name, values in _predictions(scored, label_type, batch).items():
                        seen.setdefault(name, []).append(values)
            order = getattr(getattr(scored, "config", None), "class_order", ())
            return _compare(label_type, {name: torch.cat(x) for name, x in seen.items()}, classes, self.title, order)

        order = compared(self.batches())
        if order.verdict != "permuted" and order.unsure:
            order = compared(self.batches(order.unsure))
        return order

    @cached_property
    def _ready(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.data_cache.builder.tensor_batches(self.data).train)

    def batches(self, classes: Collection[int] = ()) -> Iterator[Mapping[str, Any]]:
        """Batches as the teacher reads them: a random sample of rows, or other rows with these classes; of batches of
        tensors the next ones that hold enough rows.
        """
        name, data, data_cache = self.model.name, self.data, self.data_cache
        if self.source.holds_tensors:
            seen = 0
            while seen < ROWS and (batch := next(self._ready, None)) is not None:
                seen += len(batch["index"])
                yield own_view(name, batch)
            return
        train = data_cache.builder.examples(data).splits["train"]
        order = BatchOrder(len(train), len(train), seed=derive_seed(data_cache.recipe.train.seed, "trial"))
        rows = [int(row) for row in next(iter(order))]
        sample, rest = rows[:ROWS], rows[ROWS:]
        if classes:
            labels = train[self.source.label_type.column][:]
            sample = [row for row in rest if not _classes_of(labels[row], self.source.label_type).isdisjoint(classes)]
        if sample:
            encodings, _ = data_cache.encodings(data, [name])
            encoded = data_cache.encode(data, train.select(sample[:ROWS]), encodings)
            for batch in in_order(encoded, data_cache.collator(data, encodings, training=False), 64):
                yield own_view(name, batch)


def check_teachers_agree(
    data_cache: DataCache, checked: Checked, reporter: Reporter | None = None, only: Collection[str] | None = None
) -> None:
    """Raise `SpecError` B332 if another order of a teacher's classes fits the labels far better, B341 if it swaps
    starts and ends of answers; report a teacher that only guesses.

    Only teachers whose logits a loss needs are checked: with a weight of zero the head may not even be loaded. `only`
    limits the check to these teachers.
    """
    subjects = (x for stage, task in checked.recipe.tasks for x in _subjects(data_cache, checked, stage, task))
    for subject in {(x.title, x.data): x for x in subjects}.values():
        if only is None or subject.model.name in only:
            subject.check(reporter)


def check_modules_agree(data_cache: DataCache, checked: Checked, names: Collection[str]) -> None:
    """The same check for the caller's modules whose tokens are known: batches of tensors, or those of a tokenizer that
    the spec names. Modules that only guess are not reported.
    """
    known = [
        name
        for name in names
        if data_cache.builder.reads_tensors_only(name)
        or ((description := data_cache.builder.description(name)) is not None and description.tokens.name is not None)
    ]
    check_teachers_agree(data_cache, checked, only=known)


def _subjects(data_cache: DataCache, checked: Checked, stage: Stage, task: Task) -> Iterator[_Subject]:
    """The teachers whose logits a task's loss needs, and the data that they read for it."""
    graph = data_cache.builder.optimized(checked)[stage.name, task.name]
    taps = (x for _, x in of_kind(graph, n.Tap) if x.feature.name in _FEATURES)
    read = {(x.model, x.feature.head or "") for x in taps}
    for model in checked.recipe.teachers:
        heads = sorted(head for name, head in read if name == model.name)
        if heads and model.source.averaged is None and not _is_crossed(checked, stage, task, model):
            data = [x.data for _, x in of_kind(graph, n.Input) if x.model == model.name]
            yield from (_Subject(data_cache, model, head, name) for head in heads for name in data)


def _is_crossed(checked: Checked, stage: Stage, task: Task, model: ModelDeclaration) -> bool:
    """Whether a teacher's starts are matched with the student's ends and vice versa, as B341 advises."""
    graph, student, pairs = checked.graphs[stage.name, task.name], checked.recipe.student.name, []
    for key, _ in of_kind(graph, n.Loss):
        taps = [x for _, x in of_kind(graph, n.Tap, nx.ancestors(graph, key))]
        sides = [{x.feature.name for x in taps if x.model == name} for name in (model.name, student)]
        pairs.append([side & {"start", "end"} for side in sides])
    matched = [(one, other) for one, other in pairs if one and other]
    return bool(matched) and all(one.isdisjoint(other) for one, other in matched)


def _classes_of(label: Any, label_type: LabelType) -> set[int]:
    """The classes of a row's label."""
    if label_type.form is Form.CLASSES:
        return {number for number, there in enumerate(label) if there}
    return set(label) if isinstance(label, list) else {label}


def _predictions(module: nn.Module, label_type: LabelType, view: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a model predicts for a batch and the labels: of rows, or of words that have a tag."""
    logits = logits_of(module, model_inputs(module, view, next(module.parameters()).device), label_type)
    if label_type.form is Form.SPANS:
        guesses = torch.stack([part.argmax(-1).cpu() for part in logits], -1)
        return {"predicted": guesses, "true": torch.stack([view["start"], view["end"]], -1)}
    texts = _text_hashes(view)
    if label_type.form is Form.CLASSES:
        return {"predicted": logits.float().sigmoid().cpu(), "true": view["labels"], "texts": texts}
    guesses, labels = logits.argmax(-1).cpu(), view["labels"]
    if label_type.form is Form.CLASS:
        return {"predicted": guesses, "true": labels.reshape(-1), "texts": texts}
    kept = labels >= 0
    return {"predicted": guesses[kept], "true": labels[kept], "tokens": view["input_ids"][kept]}


def _text_hashes(view: Mapping[str, Any]) -> torch.Tensor:
    """A hash of each row's text."""
    ids, mask = view["input_ids"], view.get("attention_mask")
    real = torch.ones_like(ids) if mask is None or mask.dim() != 2 else mask
    return torch.tensor([hash(bytes(row[kept > 0].numpy())) for row, kept in zip(ids, real, strict=True)])


def _compare(
    kind: LabelType, seen: Mapping[str, torch.Tensor], classes: tuple[str, ...], name: str, order: Sequence[int]
) -> LabelOrder:
    predicted, true = seen["predicted"], seen["true"]
    if kind.form is Form.SPANS:
        return check_span_order(predicted, true, name)
    check = OrderCheck(classes, name, order)
    if kind.form is Form.TAGS:
        return check.tags(predicted, true, seen["tokens"])
    return (check.several if kind.form is Form.CLASSES else check.labels)(predicted, true, seen["texts"])


# ── rounding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


ROUNDED_ROWS = 32
"""Rows of the training data that both models read, where there are so many."""
_ROOM = 1.5
"""Free memory that a copy in fp32 needs, as a multiple of its weights: its outputs and its loading take some, too."""


def report_rounding(data_cache: DataCache, reporter: Reporter) -> None:
    """Say for each teacher in bf16, fp16 or fewer bits how far its outputs are from those in fp32, and its predictions:
    the Kullback-Leibler divergence from the exact distribution over classes; and which formats the processor emulates.

    The main process loads it in fp32 for that, one teacher after the other, where there is memory for it, and frees it.
    """
    builder = data_cache.builder
    for model in builder.recipe.teachers if this_process().is_main_process else ():
        data = next(iter(data_used(builder.recipe)[model.name]), None)
        if not model.source.is_rounded or data is None or not builder.runs(model.name):
            continue
        title = f"teacher {model.name} in {model.source.quantization or model.source.number_format}"
        place = builder.places.get(model.name, this_process().device)
        if why := emulated(DTYPES[model.source.number_format], place):
            reporter.say(f"{title}: `dtype` makes it slower: {why}; leave it out, unless it saves memory that you need")
        find = partial(_rounding, data_cache, model.name, data)
        try:
            identity = builder.outputs_identity(model.name, data)
            count, error, divergence = Memory.of_user().recall(identity, tuple[int, float, float | None], find)
        except _NoRoom as fault:
            reporter.say(f"{title}: what rounding costs is not measured; {fault}")
            continue
        cost = "" if divergence is None else f", its predictions {divergence:.2g} nats (KL)"
        reporter.say(f"{title}: on {count} rows its outputs are {error:.2%} (relative rms) off those in fp32{cost}")


class _NoRoom(Exception):
    """A copy in fp32 would take more memory than is free."""


def _rounding(data_cache: DataCache, name: str, data: str) -> tuple[int, float, float | None]:
    """How many rows a teacher read; on them the relative rms of its outputs against those in fp32, and the divergence
    of its predictions, if it makes any.
    """
    builder = data_cache.builder
    facts = builder.checked.facts(builder.recipe.models[name])
    assert facts is not None  # only models from hf(…) are rounded
    size = 4 * facts.parameters
    if (free := psutil.virtual_memory().available) < _ROOM * size:
        raise _NoRoom(f"in fp32 it takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    batch = own_view(name, _first_batch(data_cache, data, name))
    (lower, guesses), (exact, truth) = (
        _outputs(module, batch) for module in (awake(builder.model(name)), builder.exact(name))
    )
    gc.collect()  # modules refer to each other in circles, and the copy should not wait for a collection
    count = len(next(x for x in batch.values() if isinstance(x, torch.Tensor)))
    pairs = zip(lower, exact, strict=True)
    error = max(float((one - other).norm() / other.norm().clamp_min(1e-12)) for one, other in pairs)
    return count, error, max([divergence_of(*pair) for pair in zip(guesses, truth, strict=True)], default=None)


def divergence_of(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    """KL(exact || rounded) of the distributions over classes, in nats: logits (…, C), the mean over all but C."""
    log_q, log_p = rounded.log_softmax(-1), exact.log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def _first_batch(data_cache: DataCache, data: str, name: str) -> Mapping[str, Any]:
    """The first rows of the training data, as the model reads them."""
    if data_cache.recipe.data[data].source.holds_tensors:
        first: Mapping[str, Any] = data_cache.builder.tensor_batches(data).train[0]
        return first
    encodings, _ = data_cache.encodings(data, [name])
    rows = data_cache.builder.examples(data).splits["train"]
    encoded = data_cache.encode(data, rows.select(range(min(ROUNDED_ROWS, len(rows)))), encodings)
    collator = data_cache.collator(data, encodings, training=False)
    batch: Mapping[str, Any] = next(iter(in_order(encoded, collator, ROUNDED_ROWS)))
    return batch


def _outputs(module: nn.Module, batch: Mapping[str, Any]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """All that a model returns for real tokens, and its logits over several classes, in fp32 on the CPU."""
    parameter = next(p for p in module.parameters() if p.is_floating_point())
    inputs = model_inputs(module, batch, parameter.device)
    inputs = {key: x.to(parameter.dtype) if x.is_floating_point() else x for key, x in inputs.items()}
    mask = inputs.get("attention_mask")
    with evaluating(module), torch.no_grad():
        output = module(**inputs)
    heads = getattr(output, "heads", None) or {"": output}
    logits = [{"logits": x} for part in heads.values() if (x := getattr(part, "logits", None)) is not None]
    every, guesses = (
        [x.cpu() for x in values]
        for values in (real_outputs(output, mask), [x for part in logits for x in real_outputs(part, mask)])
    )
    return every, [x for x in guesses if x.shape[-1] > 1]
