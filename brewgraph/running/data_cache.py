"""The data that stages are trained on: encoded once for the models that read it, with how tasks are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import datasets
import networkx as nx
from torch import nn
from transformers import PreTrainedTokenizerBase

from brewgraph.checking.check import Checked
from brewgraph.data.encoding.encode import Collator, Encoding, encode, row_lengths
from brewgraph.data.encoding.kept import encode_kept
from brewgraph.data.encoding.texts import IGNORED
from brewgraph.diagnostics import SourceFault
from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.container import info, of_kind
from brewgraph.models.exported import ExportedModel
from brewgraph.models.fake.shapes import positions
from brewgraph.models.padding import padding_side
from brewgraph.models.tokenization import tokenizer_fingerprint
from brewgraph.recipe.length import Length, check_batch
from brewgraph.recipe.numbers import at_progress
from brewgraph.recipe.recipe import Sample, Stage, Task, columns_used, words_used
from brewgraph.recipe.settings.data_sources import LONGEST
from brewgraph.recipe.values import takes_in
from brewgraph.running.spec_builder import SpecBuilder, blaming, data_of
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.work import Draw, Feed, Material, RowFeed, StageWork, TensorFeed


class DataCache:
    """The data of a builder's spec. Each split is encoded once per set of tokenizers and lengths, and kept from one run
    to the next (`data/encoding/kept.py`); `say` gets a warning where it cannot be kept. With `outlines` no weights are
    loaded to read the sizes of models.
    """

    def __init__(self, builder: SpecBuilder, say: Callable[[str], None] = lambda text: None, *, outlines: bool = False):
        self.builder, self.recipe, self.say, self.outlines = builder, builder.recipe, say, outlines
        self._encodings: dict[tuple[Any, ...], Encoding] = {}
        self._splits: dict[tuple[str, str, tuple[int, ...]], datasets.Dataset] = {}

    def encodings(
        self, data: str, names: Sequence[str], modules: Mapping[str, nn.Module] | None = None
    ) -> tuple[list[Encoding], dict[str, str]]:
        """One encoding per distinct tokenizer, and for each model the key of its own.

        Models with one tokenizer get the same tokens, as many as the shortest of them takes, with the token types that
        any of them takes, padded on the right unless custom code reads them and its tokenizer pads on the left.
        `modules` replace the builder's models.
        """
        builder, source = self.builder, self.recipe.data[data].source
        module_of = modules or {
            name: builder.model(name) if not self.outlines and builder.runs(name) else builder.outline(name)
            for name in names
        }
        prints = {name: tokenizer_fingerprint(builder.tokenizer(name)) for name in names}
        limits: dict[str, int] = {}
        left: set[str] = set()
        for name, fingerprint in prints.items():
            if padding_side(module_of[name]) is None and builder.tokenizer(name).padding_side == "left":
                left.add(fingerprint)
            limit = token_limit(builder.tokenizer(name), module_of[name], source.max_length)
            limits[fingerprint] = min(limit, limits.get(fingerprint, limit))
        encodings: dict[str, Encoding] = {}
        for name, fingerprint in prints.items():
            alike = [builder.tokenizer(other) for other, of in prints.items() if of == fingerprint]
            tokenizer = max(alike, key=lambda x: len(x.model_input_names))  # a model takes of its inputs what it knows
            limit, on_the_left = limits[fingerprint], fingerprint in left
            key = (fingerprint, limit, on_the_left, *tokenizer.model_input_names)
            if key not in self._encodings:
                with blaming(self.recipe.models[name]):
                    self._encodings[key] = Encoding(name, tokenizer, limit, on_the_left)
            encodings[fingerprint] = encoding = self._encodings[key]
            config = getattr(module_of[name], "config", None)
            if config is not None and getattr(config, "pad_token_id", None) is None:
                config.pad_token_id = encoding.tokenizer.pad_token_id
        return list(encodings.values()), {name: encodings[fingerprint].key for name, fingerprint in prints.items()}

    def _reads_labels(self, data: str) -> bool:
        """Whether a loss reads the labels of a data set."""
        graphs = self.builder.checked.graphs.values()
        columns = (x for graph in graphs for _, x in of_kind(graph, n.Column))
        return any(x.data == data and x.column in ("labels", "start", "end") for x in columns)

    def split(self, data: str, name: str, encodings: Sequence[Encoding]) -> datasets.Dataset:
        """A split as token ids; only sentences to train on are truncated."""
        key = (data, name, tuple(map(id, encodings)))
        if key not in self._splits:
            examples, source = self.builder.examples(data), self.recipe.data[data].source
            rows = examples.splits[name]
            with blaming(self.recipe.data[data]):
                self._splits[key] = encode_kept(
                    rows,
                    encodings,
                    digest(examples.fingerprint, name),
                    [tokenizer_fingerprint(self.builder.tokenizer(encoding.key)) for encoding in encodings],
                    source=source,
                    words=data in words_used(self.recipe),
                    whole=name != "train",
                    say=self.say,
                )
                if name == "train" and "answers" in rows.column_names and self._reads_labels(data):
                    check_answers(data, rows, self._splits[key])
        return self._splits[key]

    def encode(
        self, data: str, split: datasets.Dataset, encodings: Sequence[Encoding], *, whole: bool = False
    ) -> datasets.Dataset:
        """A split as token ids, with labels and words if the spec uses them; `whole` truncates no sentence."""
        source = self.recipe.data[data].source
        return encode(split, encodings, source=source, words=data in words_used(self.recipe), whole=whole)

    def collator(
        self, data: str, encodings: Sequence[Encoding], keys: Mapping[str, str] | None = None, *, training: bool
    ) -> Collator:
        """What makes batches of rows; in training it draws masks and augmentation from the run's seed. Batches of
        several encodings hold them under the names of `keys`, too.
        """
        return Collator(
            encodings,
            source=self.recipe.data[data].source,
            words=data in words_used(self.recipe),
            columns=columns_used(self.recipe)[data],
            aliases=keys,
            seed=self.recipe.train.seed,
            training=training,
        )

    # ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def stages(self, checked: Checked) -> tuple[StageWork, ...]:
        """The stages to train, in order."""
        return tuple(self.stage(checked, stage) for stage in checked.recipe.stages)

    def stage(self, checked: Checked, stage: Stage) -> StageWork:
        """One stage: the data of its tasks, and how it draws them."""

        def make() -> Distiller:
            return self.builder.distiller(checked, stage.name)

        materials = {task.name: self.material(checked, stage, task) for task in stage.tasks}
        graphs = [info(checked.graphs[stage.name, task.name]).objective for task in stage.tasks]
        draw = None
        if stage.sample is not None and len(materials) > 1:
            # ordered by what they compute, so that neither names nor positions decide what is drawn
            batches = {name: [self.recipe.data[d].source.batch for d in of.feeds] for name, of in materials.items()}
            key = {task.name: (graph, batches[task.name]) for task, graph in zip(stage.tasks, graphs, strict=True)}
            draw = _draw(stage.sample, {name: materials[name] for name in sorted(materials, key=key.__getitem__)})
        return StageWork(stage.name, make, materials, stage.train, draw, stage.freeze, digest(*graphs))

    def material(self, checked: Checked, stage: Stage, task: Task) -> Material:
        """What one task is trained and evaluated on: the data sets of its loss, the first of which defines epochs."""
        graphs = graphs_of(checked, stage, task)
        names = [name for name in task.data if any(name in data_of(g) for g in graphs)]
        feeds: dict[str, Feed] = {}
        builder, first = self.builder, names[0]
        material = Material(
            feeds,
            classes=builder.classes(first),
            name=first,
            label_type=self.recipe.data[first].source.label_type,
            null_threshold=builder.null_threshold(first),
        )
        for name in names:
            source = self.recipe.data[name].source
            if source.holds_tensors:
                batches = builder.tensor_batches(name)
                feeds[name] = TensorFeed(batches, stage.train.seed)
                if name == first and batches.dev:
                    material = replace(material, dev=batches)
                continue
            encodings, keys = self.encodings(name, self.readers(graphs, name))
            training, evaluating = (self.collator(name, encodings, keys, training=t) for t in (True, False))
            rows = self.split(name, "train", encodings)
            feeds[name] = RowFeed(rows, training, source.batch)
            with blaming(self.recipe.data[name]):
                if isinstance(source.batch, Length):
                    check_batch(source.batch, int(row_lengths(rows).max(initial=0)))
            if name == first:
                dev = builder.examples(name).splits.get("dev")
                encoded = None if dev is None else self.split(name, "dev", encodings)
                head, batch = head_of(checked, task, name), source.batch
                material = replace(material, dev=encoded, examples=dev, collator=evaluating, batch=batch, head=head)
        return material

    def readers(self, graphs: Sequence[nx.DiGraph], data: str) -> list[str]:
        """The models that read a data set in these graphs, in the order of the spec, and always the student."""
        readers = {x.model for graph in graphs for _, x in of_kind(graph, n.Input) if x.data == data}
        readers.add(self.recipe.student.name)
        return [name for name in self.recipe.models if name in readers]


def graphs_of(checked: Checked, stage: Stage, task: Task) -> list[nx.DiGraph]:
    """The graph of a task's loss, and that of its reports."""
    key = stage.name, task.name
    return [checked.graphs[key], *([checked.reports[key]] if key in checked.reports else [])]


def head_of(checked: Checked, task: Task, data: str) -> str:
    """The head of the student that learns a task: the one that labels are matched with; empty without heads."""
    student = checked.recipe.student
    taken = {x.feature.head for x in takes_in(task.loss) if x.model == student.name and x.feature.head is not None}
    learnt = [head for head in taken if any(lesson.data == data for lesson in checked.facts.learns(student.name, head))]
    return next((head for head in student.heads if head in (learnt or taken)), "")


def check_answers(data: str, split: datasets.Dataset, rows: datasets.Dataset) -> None:
    """Raise `SourceFault` B412 if no window of a split's questions, encoded as `rows`, holds an answer."""
    answered = {number for number, answers in enumerate(split["answers"][:]) if answers["start"]}
    keys = [column.rpartition("/")[0] for column in rows.column_names if column.endswith("/start")]
    held = any(
        start not in (IGNORED, null)
        for key in keys
        for start, null, number in zip(rows[f"{key}/start"][:], rows[f"{key}/null"][:], rows["index"][:], strict=True)
        if number in answered
    )
    if answered and not held:
        help = "set a larger `max_length`, or a `stride` of more tokens than an answer has"
        message = f"no window of `{data}` holds a whole answer: there is nothing to learn from its training rows"
        raise SourceFault("B412", message, help=help, field="max_length")


def token_limit(tokenizer: PreTrainedTokenizerBase, module: nn.Module, asked: int | None) -> int:
    """The longest encoding: the limit of the spec, else of the tokenizer, and at most the model's positions, or what
    an exported model's student had of them.
    """
    limit = asked or min(LONGEST, int(tokenizer.model_max_length))
    available = module.record.max_length if isinstance(module, ExportedModel) else positions(module)
    return limit if available is None else min(limit, available)


# ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw(sample: Sample, materials: Mapping[str, Material]) -> Draw:
    """How tasks are drawn, given the sizes of their data."""
    weights = {}
    for name, material in materials.items():
        first = next(iter(material.feeds.values()))
        weights[name] = at_progress(sample.law, 0.0, {"size": float(first.rows), "batches": float(len(first))})
    return Draw(weights, sample.floor, sample.order)
