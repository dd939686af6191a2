"""From a checked spec to models and losses: loads tokenizers and weights and makes projections, each once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import networkx as nx
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from brewgraph.checking.check import Checked
from brewgraph.data.batching.order import derive_seed
from brewgraph.data.encoding.texts import WORDPIECE_INPUTS, train_wordpiece
from brewgraph.data.sources.examples import Examples, open_examples, texts
from brewgraph.data.sources.tensor_batches import ReadyBatches, open_batches
from brewgraph.diagnostics import Diagnostic, RunError, SourceFault, SpecError, UsageError, listing, suggest
from brewgraph.digest import digest
from brewgraph.facts.memory import Memory, print_of_model, print_of_weights
from brewgraph.facts.models import UnbuiltModelFacts, changed_files, is_local
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import merge_equal_nodes
from brewgraph.graph.container import info, nodes_of, of_kind
from brewgraph.graph.optimize import check_names, needed, truncate_models
from brewgraph.models.description import ModelDescription
from brewgraph.models.ema import EmaTeacher
from brewgraph.models.fake.shapes import Reach, Shapes
from brewgraph.models.loading import (
    DTYPES,
    Without,
    build_model,
    build_outline,
    build_python,
    put_in_order,
    saved_vocabulary,
)
from brewgraph.models.places import check_format, find_device
from brewgraph.models.quantizing import check_quantizer
from brewgraph.models.standby import stand_by
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.read_class import dissect
from brewgraph.models.tokenization import giving, load_tokenizer
from brewgraph.ops.python_files import load_declared
from brewgraph.paths import locate, shown
from brewgraph.recipe.features import Feature
from brewgraph.recipe.recipe import Stage, columns_used, data_used
from brewgraph.recipe.settings.data_sources import Batches
from brewgraph.recipe.settings.model_sources import Ema, Python
from brewgraph.recipe.values import DataDeclaration, Declaration, ModelDeclaration
from brewgraph.runtime.distiller import Distiller, make_projections, optimize_all, projection_nodes
from brewgraph.runtime.store import keep_digest, weights_digest
from brewgraph.training.evaluation import can_score
from brewgraph.training.processes import this_process


@contextmanager
def blaming(declaration: Declaration) -> Iterator[None]:
    """Turn a `SourceFault` into a `SpecError` at the declaration."""
    try:
        yield
    except SourceFault as fault:
        place, help = declaration.place(fault.field), declaration.remedy(fault.help, fault.field)
        raise SpecError([Diagnostic(fault.code, fault.message, place, help)]) from fault


class SpecBuilder:
    """Builds what a checked spec names, each thing once.

    `modules` are the caller's own, by model name. `teachers` are the folders of the finished students that `brew(...)`
    stands for. `skip` are the names of passes to leave out. If nothing is `scored`, only those parts of teachers are
    loaded that losses need. `prints` are those of the run (`Identity`), whose models must stay the same until they are
    loaded; it may be set later.
    """

    def __init__(
        self,
        checked: Checked,
        *,
        modules: Mapping[str, nn.Module] | None = None,
        teachers: Mapping[str, Path] | None = None,
        allow_python: bool = False,
        skip: Collection[str] = (),
        scored: bool = True,
    ):
        check_names(skip)
        self.modules = dict(modules or {})
        self.checked, self.recipe = checked.with_modules(self.modules), checked.recipe
        self.skip = frozenset(skip)
        self.teachers = dict(teachers or {})
        self.allow_python, self.scored = allow_python, scored
        self.prints: Mapping[str, str] = {}
        self.models: dict[str, nn.Module] = {}
        self.averages: dict[str, EmaTeacher] = {}
        self._examples: dict[str, Examples] = {}
        self._tensor_batches: dict[str, ReadyBatches] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._projections: nn.ModuleDict | None = None
        self._anatomies: dict[str, Anatomy] = {}
        self._optimized: dict[int, tuple[Checked, dict[tuple[str, str], nx.DiGraph]]] = {}
        self._others: dict[str, SpecBuilder] = {}
        if unknown := self.modules.keys() - self.recipe.models.keys():
            raise UsageError(f"the spec has no model {listing(sorted(unknown))}; it has {listing(self.recipe.models)}")
        check_modules(self.checked, self.modules)
        for module in self.recipe.modules:
            load_declared(module, checked.folder, allow_python)

    def other(self, name: str) -> SpecBuilder:
        """The builder of the spec whose student a model is, with its data, until it is dropped."""
        if name not in self._others:
            self._others[name] = SpecBuilder(self.checked.others[name], allow_python=self.allow_python, skip=self.skip)
        return self._others[name]

    def drop_other(self, name: str) -> None:
        """Free what was read for another spec."""
        self._others.pop(name, None)

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def examples(self, name: str) -> Examples:
        """The rows of a data set, with the columns that the spec names."""
        if name not in self._examples:
            data = self.recipe.data[name]
            with self._as_checked(data), blaming(data):
                self._examples[name] = open_examples(data.source, self.checked.folder, columns_used(self.recipe)[name])
        return self._examples[name]

    def tensor_batches(self, name: str) -> ReadyBatches:
        """A data set of tensors."""
        if name not in self._tensor_batches:
            data = self.recipe.data[name]
            assert isinstance(data.source, Batches)
            with self._as_checked(data), blaming(data):
                self._tensor_batches[name] = open_batches(data.source, self.checked.folder, self.recipe.models)
        return self._tensor_batches[name]

    @contextmanager
    def _as_checked(self, data: DataDeclaration) -> Iterator[None]:
        """Raise `RunError` if the files of a data set are not those that the check read, whatever reading them gave."""
        try:
            yield
        finally:
            before = self.checked.facts.stamps[data.name]
            if changed := changed_files(before, data.source, self.checked.folder):
                raise RunError(
                    f"{listing(changed, 4)} of `{data.name}` changed since the spec was checked: once nothing writes "
                    "the data, run the same command again (in Python, load the spec again with `bg.load`)"
                )

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the content of each data set, by its position in the spec; names do not count."""
        return {f"data {position}": self._fingerprint(name) for position, name in enumerate(self.recipe.data)}

    def _fingerprint(self, name: str) -> str:
        tensors = self.recipe.data[name].source.holds_tensors
        return (self.tensor_batches(name) if tensors else self.examples(name)).fingerprint

    def notes(self) -> list[str]:
        """Notes on reading the data, such as tags that were converted."""
        tables = [name for name, data in self.recipe.data.items() if not data.source.holds_tensors]
        return list(dict.fromkeys(f"{name}: {note}" for name in tables for note in self.examples(name).notes))

    def classes(self, name: str) -> tuple[str, ...]:
        """The classes of a data set; of tensors those that the check knows."""
        if self.recipe.data[name].source.holds_tensors:
            return self.checked.facts.classes.get(name, ())
        return self.examples(name).classes

    def null_threshold(self, name: str) -> float | None:
        """The margin by which "no answer" must beat the best answer; None if every question has an answer."""
        source = self.recipe.data[name].source
        if source.holds_tensors or not self.examples(name).has_unanswerable:
            return None
        return float(getattr(source.sources[0], "null_threshold", 0.0))

    def marks(self, name: str) -> bool | None:
        """What labels mean that are lists of numbers; see `Examples`."""
        return None if self.recipe.data[name].source.holds_tensors else self.examples(name).marks

    # ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def description(self, name: str) -> ModelDescription | None:
        """The description of a model; None if it comes from Python code."""
        facts = self.checked.facts(self.recipe.models[name])
        return facts.description if facts is not None else None

    def tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a model: its own, another model's, or one trained on the data."""
        averaged = self.recipe.models[name].source.averaged
        if averaged is not None:
            return self.tokenizer(averaged)
        if name not in self._tokenizers:
            with blaming(self.recipe.models[name]):
                self._tokenizers[name] = self._find_tokenizer(name)
        return self._tokenizers[name]

    def _find_tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        if name in self.teachers:
            return load_tokenizer(str(self.teachers[name]))
        description = self.description(name)
        if description is None:
            others = [m for m in self.recipe.models if m != name and self.description(m) is not None]
            if not others:
                raise SourceFault("B319", f"`{name}` has no tokenizer", help="another model of the spec must have one")
            return self.tokenizer(others[0])
        if description.tokens.name is not None:
            return description.tokens.load()
        named = self.recipe.models[name].source.tokenizer_name
        for other in sorted(self.recipe.models.values(), key=lambda other: other.name != named):
            # a model from scratch that takes the tokens of another spec's student, which may be trained by now
            theirs = self.description(other.name)
            inherits = theirs is not None and theirs.tokens == description.tokens and other.source.spec is not None
            if other.name != name and inherits:
                # it was saved with the inputs of that student alone
                return giving(self.tokenizer(other.name), WORDPIECE_INPUTS)
        read = [d for d in data_used(self.recipe)[name] if not self.recipe.data[d].source.holds_tensors]
        if not read:
            help = "name a tokenizer: `tokenizer=…`, or use batches of tensors and a `vocab_size` that fits them"
            raise SourceFault("B319", f"`{name}` has no tokenizer, and no text to train one on", help=help)
        return train_wordpiece([text for d in read for text in texts(self.examples(d))], description.tokens.vocab_size)

    def reads_tensors_only(self, name: str) -> bool:
        """Whether a model reads only batches of tensors, so that it needs no tokenizer."""
        used = data_used(self.recipe)[name]
        return bool(used) and all(self.recipe.data[d].source.holds_tensors for d in used)

    # ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def model(self, name: str) -> nn.Module:
        """A model with its weights."""
        if name not in self.models:
            with blaming(self.recipe.models[name]):
                model = self.recipe.models[name]
                module = self._module(name) or self._standing_by(model) or self._build(model)
            place = self.places.get(name)
            moves = place is not None and (name in self.modules or model.source.quantization is None)
            self.models[name] = module.to(place) if moves else module
        return self.models[name]

    def _standing_by(self, model: ModelDeclaration) -> nn.Module | None:
        """A teacher of which the spec reads only values that it keeps on disk. Its weights are read at its first
        forward if their digest is known from an earlier run, else now. None for any other model.
        """
        identity = self.weights_identity(model.name) if self._is_kept(model) else None
        if identity is None:
            return None
        loaded: list[nn.Module] = []

        def load() -> nn.Module:
            with blaming(model):
                return self._build(model)

        def find() -> str:
            loaded.append(load())
            return weights_digest(loaded[0])

        weights = Memory.of_user().recall(identity, str, find)
        description = self._settled(model)
        module = loaded[0] if loaded else stand_by(build_outline(description, self._without(model, description)), load)
        keep_digest(module, weights)
        return module

    def _is_kept(self, model: ModelDeclaration) -> bool:
        """Whether a teacher with a checkpoint, loaded as it is, is read only through values that are kept on disk."""
        description = self.description(model.name)
        plain = model.role == "teacher" and model.name not in (*self.modules, *self._donors)
        if not plain or description is None:
            return False
        if description.heads or description.adapter or description.init:
            return False
        graphs = (*self.optimized().values(), *self.checked.reports.values())
        read = (x for graph in graphs for _, x in of_kind(graph, n.Forward, needed(graph, info(graph).caches)))
        return bool(self.features(model.name)) and all(x.model != model.name for x in read)

    def outputs_identity(self, model: str, data: str) -> str | None:
        """What tells a teacher's outputs on a data set from all others, without running it; None if that is unknown."""
        weights, sources = (
            self.weights_identity(model),
            (self.recipe.models[model].source, self.recipe.data[data].source),
        )
        return None if weights is None else digest(weights, self._fingerprint(data), *map(repr, sources))

    def weights_identity(self, name: str) -> str | None:
        """What tells a teacher's weights and tokens from all others without reading them into a model: the content of
        its checkpoint and how it is loaded. None for other models.
        """
        model, description = self.recipe.models[name], self.description(name)
        if description is None or name in self.modules or model.role != "teacher":
            return None
        checkpoint = self.teachers.get(name) or description.checkpoint
        tokens = description.tokens.name
        prints = [
            print_of_weights(str(checkpoint), description.revision) if checkpoint else None,
            print_of_model(tokens, description.revision) if tokens else "its own",
        ]
        if None in prints:
            return None
        description = self._settled(model)
        without = self._without(model, description)
        build = description.heads, description.adapter, description.init, description.quantization
        config, paths = description.config.to_json_string(), without.paths if without else ()
        return digest(
            *prints, description.auto_class, config, list(description.order), description.number_format, repr(build),
            list(paths),
        )  # fmt: skip

    @cached_property
    def places(self) -> dict[str, torch.device]:
        """The devices of teachers that stay where they are: where the spec says, or where a quantized one is loaded.
        Raises `RunError` for a device that this machine lacks.
        """
        places = {x.name: find_device(x.name, x.source.device) for x in self.recipe.teachers if x.source.device}
        quantized = (x.name for x in self.recipe.teachers if x.source.quantization and x.name not in self.modules)
        return {**dict.fromkeys(quantized, this_process().device), **places}

    def check_machine(self) -> None:
        """Raise `RunError` if this machine lacks the device or the library of a teacher, or its device the format."""
        for model in self.recipe.teachers:
            place = self.places.get(model.name, this_process().device)
            if (number_format := model.source.number_format) != "fp32":
                check_format(model.name, DTYPES[number_format], place)
            if (scheme := model.source.quantization) is not None and model.name not in self.modules:
                check_quantizer(model.name, scheme, DTYPES[number_format], place)
        _ = self.places

    def _module(self, name: str) -> nn.Module | None:
        """The caller's module for a model. The classes of a teacher are put in the order of the data's, by name."""
        module, description = self.modules.get(name), self.description(name)
        if module is not None and description is not None and self.recipe.models[name].role == "teacher":
            names = getattr(getattr(module, "config", None), "id2label", None) or {}
            labels, classes = tuple(names.values()), self.checked.facts.classes_of(name)
            if labels != classes and sorted(labels) == sorted(classes) and len(set(labels)) == len(labels):
                places = {label: place for place, label in enumerate(labels)}
                put_in_order(module, [places[label] for label in classes])
        return module

    def _build(self, model: ModelDeclaration, *, exact: bool = False) -> nn.Module:
        seed = derive_seed(self.recipe.train.seed, "model", model.role)
        if isinstance(model.source, Python):
            return build_python(model.source, folder=self.checked.folder, allow=self.allow_python, seed=seed)
        if isinstance(model.source, Ema):
            followed = self.model(model.source.model)
            average = EmaTeacher(followed, model.source.decay, warmup=model.source.warmup)
            self.averages[model.name] = average
            return average.module
        description = self._settled(model)
        if exact:
            description = replace(description, number_format="fp32", quantization=None)
        donors = {description.init.model: self._donor(description.init.model)} if description.init else {}
        frozen = model.role == "teacher"
        without = self._without(model, description) if frozen else None
        place = self.places.get(model.name)
        if (scheme := description.quantization) is not None:
            check_quantizer(model.name, scheme, DTYPES[description.number_format], place or this_process().device)
        built = build_model(description, seed=seed, frozen=frozen, donors=donors, without=without, device=place)
        self._demand_unchanged(model)
        return built

    def _demand_unchanged(self, model: ModelDeclaration) -> None:
        """Raise `RunError` if the folder of a model that was just loaded no longer has the content in `prints`."""
        checkpoint = model.source.checkpoint
        position = list(self.recipe.models).index(model.name)
        before = self.prints.get(f"{position}/{checkpoint}") if checkpoint else None
        if before is not None and before != print_of_weights(str(locate(str(checkpoint), self.checked.folder))):
            raise RunError(
                f"the files of `{model.name}` in {checkpoint} changed since this command began: run it again, which "
                "reads them anew, once nothing writes them"
            )

    def _settled(self, model: ModelDeclaration) -> ModelDescription:
        """The description of a model now that trained teachers and tokenizers are known."""
        description = self.description(model.name)
        if description is None:
            raise SourceFault(
                "B311", f"`{model.name}` cannot be loaded", help="connect to the hub, or name a local folder"
            )
        if model.name in self.teachers:
            description = replace(description, checkpoint=str(self.teachers[model.name]), init=None, revision=None)
        return description if self.reads_tensors_only(model.name) else self._with_vocabulary(model, description)

    @property
    def _donors(self) -> set[str]:
        """The models whose layers others start from."""
        return {x.source.start.model for x in self.recipe.models.values() if x.source.start}

    def _donor(self, name: str) -> nn.Module:
        """The model whose layers another one starts from, in fp32."""
        return self.exact(name) if self.recipe.models[name].source.is_rounded else self.model(name)

    def exact(self, name: str) -> nn.Module:
        """A model in fp32, whatever its `dtype` and `quantize`, built anew on each call."""
        return self._build(self.recipe.models[name], exact=True)

    def _without(self, model: ModelDeclaration, description: ModelDescription) -> Without | None:
        """The parts that a teacher is loaded without: everything behind the last feature that any stage takes from it.

        A model that the closing table scores is loaded whole; so is one that starts from random weights, which would
        differ, and one whose layers another model starts from.
        """
        facts = self.checked.facts(model)
        unchanged = bool(description.checkpoint) and not description.heads and description.adapter is None
        if truncate_models.__name__ in self.skip or not unchanged or model.name in self._donors or facts is None:
            return None
        if self.scored and self.scores(model.name, facts.shapes.model):
            return None
        features = self.features(model.name)
        dead = facts.reach.dead_modules(features) if features else ()
        if not dead:
            return None
        self._anatomies[model.name] = facts.reach.anatomy
        return Without(type(facts.shapes.model), dead)  # type: ignore[arg-type]

    def _with_vocabulary(self, model: ModelDeclaration, description: ModelDescription) -> ModelDescription:
        """The description with as many embeddings as its tokenizer has tokens, now that they are known."""
        tokenizer = self.tokenizer(model.name)
        if description.checkpoint is None:
            of_checkpoint = model.source.checkpoint is not None
            sized = of_checkpoint or description.tokens.name is not None
            if not sized or description.config.vocab_size < len(tokenizer):
                # a configuration may have more embeddings than tokens, so that another model's still fit it
                return description.with_vocabulary(len(tokenizer), tokenizer)
        elif model.name in self.teachers:
            # not the tokenizer's size: a pretrained model may have more embeddings than tokens
            return description.with_vocabulary(saved_vocabulary(self.teachers[model.name]), tokenizer)
        return description

    def forget_student(self) -> None:
        """Give the next distiller a new student in its initial state, with its averages and projections."""
        student = self.recipe.student.name
        for model in self.recipe.models.values():
            if model.name == student or model.source.averaged == student:
                self.models.pop(model.name, None)
                self.averages.pop(model.name, None)
        self._projections = None

    # ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def distiller(self, checked: Checked | None = None, stage: str | None = None) -> Distiller:
        """The module with the losses of the tasks of one stage, by default the first.

        `checked` is this spec, or the same without teachers. Projections and averages of the student are the same
        modules in every stage.
        """
        of = checked or self.checked
        if not of.graphs:
            raise UsageError("the spec names models that cannot be reached; see the warnings of its check")
        if self._projections is None:
            nodes = projection_nodes((*of.graphs.values(), *of.reports.values()))
            self._projections = make_projections(nodes, self.recipe.train.seed)
        chosen = find_stage(of, stage)
        name, settings = chosen.name, chosen.train
        merging, student = merge_equal_nodes.__name__ not in self.skip, self.recipe.student.name
        everywhere = (of.graphs, of.reports) if merging else (of.unmerged, of.unmerged_reports)
        graphs, reports, optimized = (
            {task: graph for (at, task), graph in of_all.items() if at == name}
            for of_all in (*everywhere, self.optimized(of))
        )
        used = {model for graph in (*optimized.values(), *reports.values()) for model in models_of(graph)}
        # an average that any stage needs follows the student through all of them
        anywhere = {m for graph in (*self.optimized(of).values(), *of.reports.values()) for m in models_of(graph)}
        used |= {model for model in anywhere if self.recipe.models[model].source.averaged}
        models = {m: self.model(m) for m in self.recipe.models if m in used or m == student}
        return Distiller(
            graphs,
            models,
            student,
            seed=self.recipe.train.seed,
            projections=self._projections,
            reports=reports,
            averages={m: average for m, average in self.averages.items() if m in models},
            anatomies=self._anatomies,
            optimized=optimized,
            reach=self._student_reach(),
            skip=self.skip,
            folder=self.checked.folder,
            recompute=settings.gradient_checkpointing,
            compiled=settings.compile,
            places={m: place for m, place in self.places.items() if m in models},
        )

    def optimized(self, checked: Checked | None = None) -> dict[tuple[str, str], nx.DiGraph]:
        """The graphs of all tasks after the passes; `checked` as for `distiller`."""
        of = checked or self.checked
        if id(of) not in self._optimized:
            merging = merge_equal_nodes.__name__ not in self.skip
            graphs = optimize_all(of.graphs if merging else of.unmerged, self._student_reach(), self.skip)
            self._optimized[id(of)] = (of, graphs)
        return self._optimized[id(of)][1]

    def _student_reach(self) -> Reach:
        student = self.recipe.student
        facts = self.checked.facts(student)
        return Reach(self.model(student.name)) if facts is None or student.name in self.modules else facts.reach

    def features(self, model: str) -> frozenset[Feature]:
        """The features that any task of any stage takes from a model, in its loss or its reports."""
        return features_of(model, (*self.optimized().values(), *self.checked.reports.values()))

    def outline(self, model: str) -> nn.Module:
        """A model to read sizes from, without weights if possible."""
        facts = self.checked.facts(self.recipe.models[model])
        return self.model(model) if facts is None or model in self.modules else facts.shapes.model

    def scores(self, name: str, module: nn.Module) -> bool:
        """Whether the closing table scores a teacher: a task that reads it has a labelled dev or test split, and the
        teacher (here `module`) has a head for these labels.
        """
        for stage, task in self.recipe.tasks:
            source = self.recipe.data[task.data[0]].source
            read = name in models_of(self.checked.graphs[stage.name, task.name])
            if read and source.label_type and not source.holds_tensors:
                examples = self.examples(task.data[0])
                if closing_split(examples.splits) and can_score(module, source.label_type, examples.classes):
                    return True
        return False

    def runs(self, model: str) -> bool:
        """Whether any task needs a forward of this model: not if all its terms have a weight of zero."""
        return bool(self.features(model))


def find_stage(checked: Checked, name: str | None) -> Stage:
    """A stage by its name, by default the first. Raises `UsageError`."""
    stages = {stage.name: stage for stage in checked.recipe.stages}
    if name is not None and name not in stages:
        there = [x for x in stages if x]
        remedy = f"it has {listing(there)}" if there else "it has no stages: leave `stage` out"
        close = suggest(name, there) if isinstance(name, str) else ""
        raise UsageError(f"the spec has no stage `{name}`: {close or remedy}")
    return checked.recipe.stages[0] if name is None else stages[name]


def closing_split(splits: Collection[str]) -> str | None:
    """The split that a closing table scores on: `test`, else `dev`; None without either."""
    return next((name for name in ("test", "dev") if name in splits), None)


def models_of(graph: nx.DiGraph) -> list[str]:
    """The models whose inputs or forwards a graph holds, each once."""
    return list(dict.fromkeys(x.model for x in nodes_of(graph).values() if isinstance(x, n.Forward | n.Input)))


def data_of(graph: nx.DiGraph) -> list[str]:
    """The data sets that a graph reads, each once."""
    return list(dict.fromkeys(x.data for x in nodes_of(graph).values() if isinstance(x, n.Input | n.Column)))


def features_of(model: str, graphs: Iterable[nx.DiGraph]) -> frozenset[Feature]:
    """The features that these graphs take from a model."""
    return frozenset(x.feature for graph in graphs for _, x in of_kind(graph, n.Tap) if x.model == model)


# ── whether models are those that were checked ───────────────────────────────────────────────────────────────────────


def check_modules(checked: Checked, modules: Mapping[str, nn.Module]) -> None:
    """Compare the caller's modules with the models that they replace: none is the student and a teacher at once, and
    each gives the features that the spec takes in the same number and shapes. Raises `UsageError`.

    A `python(…)` model may be anything. Shapes that a run on fake tensors does not give are not compared.
    """
    student = checked.recipe.student.name
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            raise UsageError(_not_a_module(name, module))
        if name != student and module is modules.get(student):
            raise UsageError(
                f"`{name}` and the student `{student}` are the same module, which would be frozen: pass a copy "
                "(`copy.deepcopy`)"
            )
        if (facts := checked.facts(checked.recipe.models[name])) is not None:
            graphs = (*checked.graphs.values(), *checked.reports.values())
            _check_features(name, module, facts, features_of(name, graphs))


def _not_a_module(name: str, value: object) -> str:
    """What is wrong with a value that is passed for a model, and the remedy."""
    message = f"`{name}={shown(repr(value))}` replaces the model `{name}` but is not a `torch.nn.Module`"
    if isinstance(value, type) and issubclass(value, nn.Module):
        return f"{message}; it is the class of one: pass an object, `{name}={value.__name__}(…)`"
    if isinstance(value, str | Path):
        load = f'{name}=AutoModelForSequenceClassification.from_pretrained("{value}")'
        return f'{message}: load it, as `{load}`, or name the folder in the spec: {name} = hf("{value}")'
    return f"{message}: pass a model, as `{name}=my_model`, or leave the argument out"


def _check_features(name: str, module: nn.Module, facts: UnbuiltModelFacts, features: Collection[Feature]) -> None:
    for row in sorted({x.name for x in features if x.index is not None}):
        try:
            declared, actual = facts.row_length(row), dissect(module).row_length(row)
        except SourceFault as fault:
            help = f" ({fault.help})" if fault.help else ""
            if hasattr(module, "_orig_mod"):  # what torch.compile returns
                help = ": pass the model itself, and `train { compile = true }` compiles its layers"
            raise UsageError(f"the module for `{name}` cannot be used: {fault.message}{help}") from fault
        if declared != actual:
            raise UsageError(
                f"`{name}` is declared with {declared} members of `{row}`, but its module has {actual}, so that the "
                "spec would name other layers. Declare the model as it is, or pass a module of the declared depth"
            )
    shapes = Shapes(module).infer(sorted(features, key=str)) if features else {}
    for feature, shape in shapes.items():
        if isinstance(shape, SourceFault):
            continue
        try:
            declared_shape = facts.shape(feature)
        except SourceFault:
            continue
        if feature.name == "logits" and facts.vocabulary(feature.head) is not None:
            # a vocabulary is as large as the tokenizer that the module comes with
            shape, declared_shape = shape[:-1], declared_shape[:-1]
        if shape != declared_shape:
            declared_text, actual_text = (f"({', '.join(map(str, x))})" for x in (declared_shape, shape))
            raise UsageError(
                f"`{name}` is declared with `{feature}` of shape {declared_text}, but its module "
                f"(`{type(module).__name__}`) gives {actual_text}. Declare the model as it is, or pass a module of the "
                "declared sizes"
            )


def check_unchanged(checked: Checked, replaced: Collection[str]) -> None:
    """Local model folders describe the same models as when the spec was checked, but of those `replaced` by modules.

    Raises `UsageError`. Weights may differ: the check reads none, and caches depend on the weights that are loaded.
    """
    for name, model in checked.recipe.models.items():
        facts = checked.facts(model) if name not in replaced and is_local(model, checked.folder) else None
        if facts is not None and replace(facts.request).identity != facts.request.identity:
            raise UsageError(
                f"the configuration or the tokenizer in the folder of `{name}` has changed since the spec was loaded: "
                "load the spec again (`bg.load`)"
            )
