"""Teachers on trial: on some labelled rows, before training, does each number its classes as the data does?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import networkx as nx
import torch
from torch import nn

from brewgraph.checking.check import Checked
from brewgraph.data.batching.order import BatchOrder, derive_seed, loader
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import node
from brewgraph.models.fake.reach import evaluating
from brewgraph.models.label_order import (
    LabelOrder,
    check_label_order,
    check_labels_order,
    check_span_order,
    check_tag_order,
)
from brewgraph.recipe.label_types import CLASS, CLASSES, SPANS, TAGS, LabelType
from brewgraph.recipe.recipe import Stage, Task
from brewgraph.recipe.settings.sources import Batches, Ema
from brewgraph.recipe.values import ModelDeclaration
from brewgraph.running.data_cache import DataCache
from brewgraph.training.evaluation import logits_of, model_inputs, own_view
from brewgraph.training.evaluation import scores as can_score
from brewgraph.training.reporter import Reporter

ROWS = 512
"""Labelled rows that a teacher is tried on, at most; once more as many where some classes only seem to be others."""
_TRIED = (CLASS, CLASSES, TAGS, SPANS)
"""Types of labels whose order a teacher may have otherwise. Numbers have none, tokens that of the vocabulary."""
_FEATURES = ("logits", "start", "end")


@dataclass(frozen=True)
class _Grader:
    """A teacher, one of its heads where it has several, and data that a loss needs its logits of."""

    model: ModelDeclaration
    head: str
    data: str

    @property
    def title(self) -> str:
        """What it is called in a message."""
        whole = f"the teacher `{self.model.name}`"
        return f"the head `{self.head}` of {whole}" if self.head else whole


def check_teachers_agree(
    data_cache: DataCache, checked: Checked, reporter: Reporter | None = None, only: Collection[str] | None = None
) -> None:
    """Stop where another order of a teacher's classes fits the labels far better; say so where it only guesses.

    Raises `SpecError` B332 at the teacher, B341 where its starts of answers are their ends. Only teachers whose logits
    a loss needs are tried: where they have a weight of zero they teach nothing, and the head may not even be loaded.
    `only` names those to try, where not all.
    """
    tried: set[tuple[str, str, str]] = set()
    for stage, task in checked.recipe.tasks:
        for grader in _graders(data_cache, checked, stage, task):
            key = (grader.model.name, grader.head, grader.data)
            if key not in tried and (only is None or grader.model.name in only):
                tried.add(key)
                _try(data_cache, grader, reporter)


def check_given_agree(data_cache: DataCache, checked: Checked, given: Collection[str]) -> None:
    """The same for modules of the caller's own, as far as it is known which tokens they read: those of ready batches,
    or of a tokenizer that the spec names. Whether they only guess is the caller's own business.
    """
    known = [
        name
        for name in given
        if data_cache.builder.reads_tensors_only(name)
        or ((description := data_cache.builder.description(name)) is not None and description.tokens.name is not None)
    ]
    check_teachers_agree(data_cache, checked, only=known)


def _graders(data_cache: DataCache, checked: Checked, stage: Stage, task: Task) -> Iterator[_Grader]:
    """The teachers whose logits a task's loss needs, and the data that they see there."""
    graph = data_cache.builder.optimized(checked)[stage.name, task.name]
    nodes = [node(graph, key) for key in graph]
    read = {(x.model, x.feature.head or "") for x in nodes if isinstance(x, n.Tap) and x.feature.name in _FEATURES}
    for model in checked.recipe.teachers:
        heads = sorted(head for name, head in read if name == model.name)
        if heads and not isinstance(model.source, Ema) and not _is_crossed(checked, stage, task, model):
            data = [x.data for x in nodes if isinstance(x, n.Input) and x.model == model.name]
            yield from (_Grader(model, head, name) for head in heads for name in data)


def _is_crossed(checked: Checked, stage: Stage, task: Task, model: ModelDeclaration) -> bool:
    """Whether each of a teacher's starts and ends is matched with the student's other one, as B341 advises."""
    graph, student, pairs = checked.graphs[stage.name, task.name], checked.recipe.student.name, []
    for key in graph:
        if isinstance(node(graph, key), n.Loss):
            taps = [x for above in nx.ancestors(graph, key) if isinstance(x := node(graph, above), n.Tap)]
            own = [{x.feature.name for x in taps if x.model == name} for name in (model.name, student)]
            pairs.append([names & {"start", "end"} for names in own])
    matched = [(one, other) for one, other in pairs if one and other]
    return bool(matched) and all(one.isdisjoint(other) for one, other in matched)


def _try(data_cache: DataCache, grader: _Grader, reporter: Reporter | None) -> None:
    source, module = data_cache.recipe.data[grader.data].source, data_cache.builder.model(grader.model.name)
    classes = _classes(data_cache, grader, module)
    if source.label_type not in _TRIED or not can_score(module, source.label_type, classes, grader.head):
        return
    own = cast(Mapping[str, nn.Module], module.heads)[grader.head] if grader.head else module
    batches = _ready(data_cache, grader) if isinstance(source, Batches) else _chosen(data_cache, grader)
    seen: dict[str, list[torch.Tensor]] = {}

    def judged(rows: Iterator[Mapping[str, Any]]) -> LabelOrder:
        with evaluating(module), torch.no_grad():
            for batch in rows:
                for name, values in _said(own, source.label_type, batch).items():
                    seen.setdefault(name, []).append(values)
        return _judge(source.label_type, {name: torch.cat(x) for name, x in seen.items()}, classes, grader, own)

    found = judged(batches(()))
    if found.verdict != "permuted" and found.unsure:
        found = judged(batches(found.unsure))
    if found.verdict == "permuted" and source.label_type == SPANS:
        name = f"{grader.model.name}.{grader.head}" if grader.head else grader.model.name
        help = f"match them crosswise: `{name}.end` with the student's `start`, and `{name}.start` with its `end`"
        raise SpecError([Diagnostic("B341", found.message, grader.model.span, help)])
    if found.verdict == "permuted":
        raise SpecError([Diagnostic("B332", found.message, grader.model.span, found.help)])
    if found.verdict == "chance" and reporter is not None:
        reporter.say(f"warning: {found.message}; {found.help}")


def _classes(data_cache: DataCache, grader: _Grader, module: nn.Module) -> tuple[str, ...]:
    """The names of a data set's classes; of ready tensors the numbers, as many as the teacher has."""
    found = data_cache.builder.classes(grader.data)
    if found or not isinstance(data_cache.recipe.data[grader.data].source, Batches):
        return found
    of = getattr(module, "heads", {}).get(grader.head) if grader.head else module
    return tuple(map(str, range(getattr(getattr(of, "config", None), "num_labels", 0))))


Choice = Callable[[Collection[int]], Iterator[Mapping[str, Any]]]
"""Batches as a teacher sees them: some of any rows, and then others that have these classes."""


def _chosen(data_cache: DataCache, grader: _Grader) -> Choice:
    """Rows of a table, a sample of all, then what else has these classes."""
    name, data, train = grader.model.name, grader.data, data_cache.builder.examples(grader.data).splits["train"]
    order = BatchOrder(len(train), len(train), seed=derive_seed(data_cache.recipe.train.seed, "trial"))
    shuffled = [int(row) for row in next(iter(order))]
    encodings, _ = data_cache.encodings(data, [name])
    collator = data_cache.collator(data, encodings, training=False)

    def batches(classes: Collection[int]) -> Iterator[Mapping[str, Any]]:
        rows = shuffled[:ROWS]
        if classes:
            kind = data_cache.recipe.data[data].source.label_type
            labels = train[kind.column][:]
            rows = [row for row in shuffled[ROWS:] if not _held(labels[row], kind).isdisjoint(classes)][:ROWS]
        if rows:
            encoded = data_cache.encode(data, train.select(rows), encodings)
            for batch in loader(encoded, BatchOrder(len(encoded), 64, shuffle=False), collator):
                yield own_view(name, batch)

    return batches


def _held(label: Any, label_type: LabelType) -> set[int]:
    """The classes that a row has."""
    if label_type == CLASSES:
        return {number for number, there in enumerate(label) if there}
    return set(label) if isinstance(label, list) else {label}


def _ready(data_cache: DataCache, grader: _Grader) -> Choice:
    """Ready batches until there are enough rows, then once more as many."""
    rest = iter(data_cache.builder.ready(grader.data).train)

    def batches(classes: Collection[int]) -> Iterator[Mapping[str, Any]]:
        rows = 0
        while rows < ROWS and (batch := next(rest, None)) is not None:
            rows += len(batch["index"])
            yield own_view(grader.model.name, batch)

    return batches


def _said(module: nn.Module, label_type: LabelType, view: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a model says of a batch, and what is right: rows, or for tags the words that have one."""
    logits = logits_of(module, model_inputs(module, view, next(module.parameters()).device), label_type)
    if label_type == SPANS:
        guesses = torch.stack([part.argmax(-1).cpu() for part in logits], -1)
        return {"said": guesses, "true": torch.stack([view["start"], view["end"]], -1)}
    texts = _numbered(view)
    if label_type == CLASSES:
        return {"said": logits.float().sigmoid().cpu(), "true": view["labels"], "texts": texts}
    guesses, labels = logits.argmax(-1).cpu(), view["labels"]
    if label_type == CLASS:
        return {"said": guesses, "true": labels.reshape(-1), "texts": texts}
    kept = labels >= 0
    return {"said": guesses[kept], "true": labels[kept], "tokens": view["input_ids"][kept]}


def _numbered(view: Mapping[str, Any]) -> torch.Tensor:
    """A number for each row's text, the same for equal ones."""
    ids, mask = view["input_ids"], view.get("attention_mask")
    real = torch.ones_like(ids) if mask is None or mask.dim() != 2 else mask
    return torch.tensor([hash(bytes(row[kept > 0].numpy())) for row, kept in zip(ids, real, strict=True)])


def _judge(
    kind: LabelType, seen: Mapping[str, torch.Tensor], classes: tuple[str, ...], grader: _Grader, module: nn.Module
) -> LabelOrder:
    said, true, name = seen["said"], seen["true"], grader.title
    places = getattr(getattr(module, "config", None), "class_order", ())
    if kind == SPANS:
        return check_span_order(said, true, name)
    if kind == TAGS:
        return check_tag_order(said, true, seen["tokens"], classes, name, places)
    if kind == CLASSES:
        return check_labels_order(said, true, classes, name, places, seen["texts"])
    return check_label_order(said, true, classes, name, places, seen["texts"])
