"""What stages are trained on: the data of each task, encoded for the models that read it, and how tasks are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from torch import nn
from transformers import PreTrainedTokenizerBase

from brewgraph.checking.check import Checked
from brewgraph.data.encoding.encode import Collator, Encoding, encode
from brewgraph.data.encoding.texts import IGNORED
from brewgraph.data.sources.tensor_batches import ReadyBatches
from brewgraph.diagnostics import SourceFault
from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import node
from brewgraph.models.fake.shapes import positions
from brewgraph.models.padding import padding_side
from brewgraph.models.tokenization import tokenizer_fingerprint
from brewgraph.recipe.needs import columns_used, words_used
from brewgraph.recipe.numbers import at_progress
from brewgraph.recipe.recipe import Sample, Stage, Task
from brewgraph.recipe.settings.sources import Batches
from brewgraph.running.spec_builder import SpecBuilder, blaming, data_of, models_of
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.draws import Draw
from brewgraph.training.feeds import Feed, RowFeed
from brewgraph.training.freezing import Freeze
from brewgraph.training.work import Material, StageWork

_LONGEST = 512
"""Tokens per example where neither the spec, the tokenizer nor the model sets a limit."""


@dataclass(frozen=True)
class Encoded:
    """A data set as some models see it: its splits as token ids, and how their rows become batches."""

    splits: Mapping[str, datasets.Dataset]
    collator: Any
    evaluating: Any


@dataclass(frozen=True)
class Ready:
    """Ready tensors as a feed."""

    whole: ReadyBatches
    seed: int

    @property
    def rows(self) -> int:
        return sum(len(batch["index"]) for batch in self.whole.train)

    def __len__(self) -> int:
        return len(self.whole)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        return self.whole.epoch(epoch, seed=self.seed, start=start)


@dataclass(frozen=True)
class Shared:
    """A collator whose batches show an encoding under the name of every model that reads it."""

    collator: Any
    aliases: Mapping[str, str]

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.collator, "set_epoch"):
            self.collator.set_epoch(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        return {**batch, **{name: batch[key] for name, key in self.aliases.items()}}


class DataCache:
    """The data of a builder's spec, each split encoded once for each set of tokenizers and lengths that read it."""

    def __init__(self, builder: SpecBuilder):
        self.builder, self.recipe = builder, builder.recipe
        self._encoded: dict[tuple[str, tuple[str, ...]], Encoded] = {}
        self._encodings: dict[tuple[str, int, bool], Encoding] = {}
        self._splits: dict[tuple[str, str, tuple[int, ...]], datasets.Dataset] = {}

    def encodings(
        self, data: str, names: Sequence[str], modules: Mapping[str, nn.Module] | None = None
    ) -> tuple[list[Encoding], dict[str, str]]:
        """One encoding per distinct tokenizer, and for each model the key of its own.

        Models of one tokenizer see the same tokens, as many as the shortest of them takes. They are padded on the right
        unless a module of other code reads them and its tokenizer pads on the left. `modules` stand for the models of
        these names, where not the builder's own are meant.
        """
        builder, source = self.builder, self.recipe.data[data].source
        module_of = modules or {
            name: builder.model(name) if builder.runs(name) else builder.outline(name) for name in names
        }
        prints = {name: tokenizer_fingerprint(builder.tokenizer(name)) for name in names}
        limits: dict[str, int] = {}
        left: set[str] = set()
        for name, distinct in prints.items():
            if padding_side(module_of[name]) is None and builder.tokenizer(name).padding_side == "left":
                left.add(distinct)
            own = token_limit(builder.tokenizer(name), module_of[name], source.max_length)
            limits[distinct] = min(own, limits.get(distinct, own))
        found: dict[str, Encoding] = {}
        keys: dict[str, str] = {}
        for name, distinct in prints.items():
            if distinct not in found:
                own_encoding = (distinct, limits[distinct], distinct in left)
                if own_encoding not in self._encodings:
                    with blaming(self.recipe.models[name]):
                        tokenizer, (_, limit, side) = builder.tokenizer(name), own_encoding
                        self._encodings[own_encoding] = Encoding(name, tokenizer, limit, side)
                found[distinct] = self._encodings[own_encoding]
            encoding = found[distinct]
            keys[name] = encoding.key
            config = getattr(module_of[name], "config", None)
            if config is not None and getattr(config, "pad_token_id", None) is None:
                config.pad_token_id = encoding.tokenizer.pad_token_id
        return list(found.values()), keys

    def encoded(self, data: str, names: Sequence[str]) -> Encoded:
        """The splits of a data set for these models; `test` is left alone."""
        key = (data, tuple(names))
        if key not in self._encoded:
            encodings, keys = self.encodings(data, names)
            examples = self.builder.examples(data)
            with blaming(self.recipe.data[data]):
                splits = {name: self.split(data, name, encodings) for name in examples.splits if name != "test"}
                if "answers" in examples.splits["train"].column_names and self._reads_labels(data):
                    check_answers(data, examples.splits["train"], splits["train"])
            training, evaluating = (self.collator(data, encodings, training=t) for t in (True, False))
            aliases = {name: own for name, own in keys.items() if name != own} if len(encodings) > 1 else {}
            if aliases:
                training, evaluating = Shared(training, aliases), Shared(evaluating, aliases)
            self._encoded[key] = Encoded(splits, training, evaluating)
        return self._encoded[key]

    def _reads_labels(self, data: str) -> bool:
        """Whether a loss is computed from the labels of a data set."""
        graphs = self.builder.checked.graphs.values()
        columns = (x for graph in graphs for key in graph if isinstance(x := node(graph, key), n.Column))
        return any(x.data == data and x.column in ("labels", "start", "end") for x in columns)

    def split(self, data: str, name: str, encodings: Sequence[Encoding]) -> datasets.Dataset:
        """A split as token ids; of what is evaluated on no sentence is cut off."""
        key = (data, name, tuple(map(id, encodings)))
        if key not in self._splits:
            rows = self.builder.examples(data).splits[name]
            self._splits[key] = self.encode(data, rows, encodings, whole=name != "train")
        return self._splits[key]

    def encode(
        self, data: str, split: datasets.Dataset, encodings: Sequence[Encoding], *, whole: bool = False
    ) -> datasets.Dataset:
        """A split as token ids, with labels and words where they are asked for; `whole` cuts off no sentence."""
        source = self.recipe.data[data].source
        return encode(split, encodings, source=source, words=data in words_used(self.recipe), whole=whole)

    def collator(self, data: str, encodings: Sequence[Encoding], *, training: bool) -> Any:
        """How rows become batches; masks and augmentation are drawn from the run's seed, in training only."""
        return Collator(
            encodings,
            source=self.recipe.data[data].source,
            words=data in words_used(self.recipe),
            columns=columns_used(self.recipe)[data],
            seed=self.recipe.train.seed,
            training=training,
        )

    # ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def stages(self, checked: Checked) -> tuple[StageWork, ...]:
        """What is trained, stage after stage."""
        return tuple(self._stage(checked, stage) for stage in checked.recipe.stages)

    def _stage(self, checked: Checked, stage: Stage) -> StageWork:
        def make() -> Distiller:
            return self.builder.distiller(checked, stage.name)

        materials = {task.name: self.material(checked, stage, task) for task in stage.tasks}
        graphs = [checked.graphs[stage.name, task.name].graph["objective"] for task in stage.tasks]
        freeze = tuple(Freeze(x.kind, x.name, x.path) for x in stage.freeze)  # type: ignore[arg-type]
        draw = None
        if stage.sample is not None and len(materials) > 1:
            # in the order of what they compute: neither names nor places decide what is drawn
            batches = {name: [self.recipe.data[d].source.batch for d in of.feeds] for name, of in materials.items()}
            key = {task.name: (graph, batches[task.name]) for task, graph in zip(stage.tasks, graphs, strict=True)}
            draw = _draw(stage.sample, {name: materials[name] for name in sorted(materials, key=key.__getitem__)})
        return StageWork(stage.name, make, materials, stage.train, draw, freeze, digest(*graphs))

    def material(self, checked: Checked, stage: Stage, task: Task) -> Material:
        """What one task is trained and evaluated on: the data sets of its loss, the first of which makes the epochs."""
        graphs = graphs_of(checked, stage, task)
        names = [name for name in task.data if any(name in data_of(g) for g in graphs)]
        feeds: dict[str, Feed] = {}
        for name in names:
            source = self.recipe.data[name].source
            if isinstance(source, Batches):
                feeds[name] = Ready(self.builder.ready(name), stage.train.seed)
            else:
                made = self.encoded(name, self.readers(graphs, name))
                feeds[name] = RowFeed(made.splits["train"], made.collator, source.batch)
        first = names[0]
        source = self.recipe.data[first].source
        if isinstance(source, Batches):
            ready = self.builder.ready(first)
            dev = ready if ready.dev else None
            return Material(feeds, dev, name=first, label_type=source.label_type, classes=self.builder.classes(first))
        made = self.encoded(first, self.readers(graphs, first))
        examples = self.builder.examples(first)
        return Material(
            feeds,
            dev=made.splits.get("dev"),
            collator=made.evaluating,
            batch=source.batch,
            classes=examples.classes,
            name=first,
            label_type=source.label_type,
            examples=examples.splits.get("dev"),
            head=head_of(checked, task, first) or "",
            null_threshold=self.builder.null_threshold(first),
        )

    def readers(self, graphs: Sequence[Any], data: str) -> list[str]:
        """The models that read a data set in these graphs, in the order of the spec; the student among them."""
        found = {
            x.model
            for graph in graphs
            for key in graph
            if isinstance(x := node(graph, key), n.Input) and x.data == data and x.model in models_of(graph)
        }
        found.add(self.recipe.student.name)
        return [name for name in self.recipe.models if name in found]


def graphs_of(checked: Checked, stage: Stage, task: Task) -> list[Any]:
    """The graph of a task's loss, and that of what it reports beside."""
    key = stage.name, task.name
    return [checked.graphs[key], *([checked.reports[key]] if key in checked.reports else [])]


def head_of(checked: Checked, task: Task, data: str) -> str | None:
    """The head of the student that learns a task, the one that its labels are matched with; None without heads."""
    student = checked.recipe.student
    if not student.heads:
        return None
    own = {x.feature.head for x in _takes(checked, task) if x.model == student.name and x.feature.head is not None}
    learnt = [head for head in own if any(lesson.data == data for lesson in checked.facts.learns(student.name, head))]
    return next((head for head in student.heads if head in (learnt or own)), None)


def _takes(checked: Checked, task: Task) -> Iterator[Any]:
    from brewgraph.recipe.values import Take, walk

    return (x for x in walk(task.loss) if isinstance(x, Take))


def check_answers(data: str, split: datasets.Dataset, rows: datasets.Dataset) -> None:
    """B412 where no window of the questions of a split, encoded as `rows`, holds an answer."""
    answered = {number for number, answers in enumerate(split["answers"][:]) if answers["start"]}
    keys = [column.rpartition("/")[0] for column in rows.column_names if column.endswith("/start")]
    held = any(
        start not in (IGNORED, null)
        for key in keys
        for start, null, number in zip(rows[f"{key}/start"][:], rows[f"{key}/null"][:], rows["index"][:], strict=True)
        if number in answered
    )
    if answered and not held:
        help = "a larger `max_length`, or a `stride` of more tokens than an answer has"
        message = f"no window of `{data}` holds a whole answer: its training rows have nothing to learn from"
        raise SourceFault("B412", message, help=help, field="max_length")


def token_limit(tokenizer: PreTrainedTokenizerBase, module: nn.Module, asked: int | None) -> int:
    """The longest encoding: what the spec asks for, else what the tokenizer names, as far as there are positions."""
    limits = [asked or min(_LONGEST, int(tokenizer.model_max_length))]
    own = positions(module)
    return min(limits if own is None else [*limits, own])


# ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw(sample: Sample, materials: Mapping[str, Material]) -> Draw:
    """How often each task is drawn, now that the sizes of their data are known."""
    weights = {}
    for name, material in materials.items():
        first = next(iter(material.feeds.values()))
        weights[name] = at_progress(sample.law, 0.0, {"size": float(first.rows), "batches": float(len(first))})
    return Draw(weights, sample.floor, sample.order)
