"""A checked spec to models and losses: tokenizers at hand, weights loaded, projections made, each thing once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import networkx as nx
from torch import nn
from transformers import PreTrainedTokenizerBase

from brewgraph.checking.check import Checked, given_models
from brewgraph.data.batching.order import derive_seed
from brewgraph.data.sources.examples import Examples, open_examples, texts
from brewgraph.data.sources.tensor_batches import ReadyBatches, open_batches
from brewgraph.diagnostics import Diagnostic, SourceFault, SpecError, UsageError, listing, suggest
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import merge_equal_nodes
from brewgraph.graph.container import node
from brewgraph.graph.optimize import check_names, truncate_models
from brewgraph.models.description import ModelDescription
from brewgraph.models.ema import EmaTeacher
from brewgraph.models.fake.reach import Reach
from brewgraph.models.loading import Without, build_model, build_python, put_in_order, saved_vocabulary
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.tokenization import load_tokenizer
from brewgraph.ops.python_files import load_declared
from brewgraph.recipe.features import Feature
from brewgraph.recipe.needs import columns_used, data_used
from brewgraph.recipe.settings.sources import Batches, Ema, Python
from brewgraph.recipe.values import Declaration, ModelDeclaration
from brewgraph.running.unchanged import check_given
from brewgraph.runtime.distiller import Distiller, make_projections, optimize_all, projection_nodes
from brewgraph.training.evaluation import scores as can_score


@contextmanager
def blaming(declaration: Declaration) -> Iterator[None]:
    """Turn a `SourceFault` into the spec's fault, with its place."""
    try:
        yield
    except SourceFault as fault:
        place, help = declaration.place(fault.field), declaration.remedy(fault.help, fault.field)
        raise SpecError([Diagnostic(fault.code, fault.message, place, help)]) from fault


class SpecBuilder:
    """Builds what a checked spec names, each thing once.

    `given` are modules of the caller's own, by model name. `teachers` are the folders of finished students that
    `brew(...)` stands for. `skip` are passes that are left out, by name. Where nothing is `scored`, only what losses
    need of teachers is loaded.
    """

    def __init__(
        self,
        checked: Checked,
        *,
        given: Mapping[str, nn.Module] | None = None,
        teachers: Mapping[str, Path] | None = None,
        allow_python: bool = False,
        skip: Collection[str] = (),
        scored: bool = True,
    ):
        check_names(skip)
        self.given = dict(given or {})
        self.checked, self.recipe = given_models(checked, self.given), checked.recipe
        self.skip = frozenset(skip)
        self.teachers = dict(teachers or {})
        self.allow_python, self.scored = allow_python, scored
        self.models: dict[str, nn.Module] = {}
        self.averages: dict[str, EmaTeacher] = {}
        self._examples: dict[str, Examples] = {}
        self._ready: dict[str, ReadyBatches] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._projections: nn.ModuleDict | None = None
        self._anatomies: dict[str, Anatomy] = {}
        self._optimized: dict[int, tuple[Checked, dict[tuple[str, str], nx.DiGraph]]] = {}
        self._others: dict[str, SpecBuilder] = {}
        if unknown := self.given.keys() - self.recipe.models.keys():
            raise UsageError(f"the spec has no model {listing(sorted(unknown))}; it has {listing(self.recipe.models)}")
        check_given(self.checked, self.given)
        for module in self.recipe.modules:
            load_declared(module, checked.folder, allow_python)

    def other(self, name: str) -> SpecBuilder:
        """The builder of the spec whose student a model is; its data are read once, until it is dropped."""
        if name not in self._others:
            self._others[name] = SpecBuilder(self.checked.others[name], allow_python=self.allow_python, skip=self.skip)
        return self._others[name]

    def drop_other(self, name: str) -> None:
        """Let go of what was read for another spec."""
        self._others.pop(name, None)

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def examples(self, name: str) -> Examples:
        """What a data set holds, with the columns that the spec names."""
        if name not in self._examples:
            data = self.recipe.data[name]
            with blaming(data):
                columns = columns_used(self.recipe)[name]
                self._examples[name] = open_examples(data.source, self.checked.folder, columns)
        return self._examples[name]

    def ready(self, name: str) -> ReadyBatches:
        """A data set of ready tensors."""
        if name not in self._ready:
            data = self.recipe.data[name]
            assert isinstance(data.source, Batches)
            with blaming(data):
                self._ready[name] = open_batches(data.source, self.checked.folder, self.recipe.models)
        return self._ready[name]

    def fingerprints(self) -> dict[str, str]:
        """What the content of each data set is, in the order of the spec; names do not count."""
        return {
            f"data {position}": (self.ready(name) if data.source.holds_tensors else self.examples(name)).fingerprint
            for position, (name, data) in enumerate(self.recipe.data.items())
        }

    def notes(self) -> list[str]:
        """What reading the data has to say: tags that were converted, and the like."""
        tables = [name for name, data in self.recipe.data.items() if not data.source.holds_tensors]
        return list(dict.fromkeys(f"{name}: {note}" for name in tables for note in self.examples(name).notes))

    def classes(self, name: str) -> tuple[str, ...]:
        """The classes of a data set; of ready tensors those that the check knows."""
        if self.recipe.data[name].source.holds_tensors:
            return self.checked.facts.classes.get(name, ())
        return self.examples(name).classes

    def null_threshold(self, name: str) -> float | None:
        """By how much no answer must exceed the best one; None for data in which every question has an answer."""
        source = self.recipe.data[name].source
        if source.holds_tensors or not self.examples(name).has_unanswerable:
            return None
        return float(getattr(source.sources[0], "null_threshold", 0.0))

    def marks(self, name: str) -> bool | None:
        """What the lists of numbers are that a data set has as labels; see `Examples`."""
        return None if self.recipe.data[name].source.holds_tensors else self.examples(name).marks

    # ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def description(self, name: str) -> ModelDescription | None:
        """What a model is going to be; None for a module of the caller's or of Python code."""
        facts = self.checked.facts(self.recipe.models[name])
        return facts.description if facts is not None else None

    def tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a model: its own, its teacher's, or one trained on the data."""
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
            # a model from scratch whose tokens are another model's: that one may be trained by now
            theirs = self.description(other.name)
            inherits = theirs is not None and theirs.tokens == description.tokens and other.source.spec is not None
            if other.name != name and inherits:
                return self.tokenizer(other.name)
        read = [d for d in data_used(self.recipe)[name] if not self.recipe.data[d].source.holds_tensors]
        if not read:
            help = "name a tokenizer: `tokenizer=…`, or ready tensors with a `vocab_size` that fits them"
            raise SourceFault("B319", f"`{name}` has no tokenizer, and no text to train one on", help=help)
        from brewgraph.data.encoding.encode import train_wordpiece

        return train_wordpiece([text for d in read for text in texts(self.examples(d))], description.tokens.vocab_size)

    def reads_tensors_only(self, name: str) -> bool:
        """Whether a model only ever sees ready tensors, so that it needs no tokenizer."""
        used = data_used(self.recipe)[name]
        return bool(used) and all(self.recipe.data[d].source.holds_tensors for d in used)

    # ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def model(self, name: str) -> nn.Module:
        """A model with its weights."""
        if name not in self.models:
            with blaming(self.recipe.models[name]):
                self.models[name] = self._given(name) or self._build(self.recipe.models[name])
        return self.models[name]

    def _given(self, name: str) -> nn.Module | None:
        """A module of the caller's; of a teacher the classes are put in the order of the data's, by their own names."""
        module, description = self.given.get(name), self.description(name)
        if module is not None and description is not None and self.recipe.models[name].role == "teacher":
            names = getattr(getattr(module, "config", None), "id2label", None) or {}
            own, classes = tuple(names.values()), self.checked.facts.classes_of(name)
            if own != classes and sorted(own) == sorted(classes) and len(set(own)) == len(own):
                put_in_order(module, [own.index(label) for label in classes])
        return module

    def _build(self, model: ModelDeclaration) -> nn.Module:
        seed = derive_seed(self.recipe.train.seed, "model", model.role)
        if isinstance(model.source, Python):
            return build_python(model.source, folder=self.checked.folder, allow=self.allow_python, seed=seed)
        if isinstance(model.source, Ema):
            followed = self.model(model.source.model)
            average = EmaTeacher(followed, model.source.decay, warmup=model.source.warmup)
            self.averages[model.name] = average
            return average.module
        description = self.description(model.name)
        if description is None:
            raise SourceFault(
                "B311", f"`{model.name}` cannot be loaded", help="connect to the hub, or name a local folder"
            )
        if model.name in self.teachers:
            description = replace(description, checkpoint=str(self.teachers[model.name]), init=None, revision=None)
        if not self.reads_tensors_only(model.name):
            description = self._with_vocabulary(model, description)
        donors = {description.init.model: self.model(description.init.model)} if description.init else {}
        frozen = model.role == "teacher"
        without = self._without(model, description) if frozen else None
        return build_model(description, seed=seed, frozen=frozen, donors=donors, without=without)

    def _without(self, model: ModelDeclaration, description: ModelDescription) -> Without | None:
        """What a teacher is loaded without: everything behind the last feature that any stage takes from it.

        A model that is scored in the closing table is loaded whole; so is one that begins at random, whose weights
        would be others, and one whose layers another model begins with.
        """
        begun = {x.source.start.model for x in self.recipe.models.values() if x.source.start}
        facts = self.checked.facts(model)
        plain = bool(description.checkpoint) and not description.heads and description.adapter is None
        if truncate_models.__name__ in self.skip or not plain or model.name in begun or facts is None:
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
        """The description with as many rows of embeddings as its tokenizer has tokens, now that they are known."""
        tokenizer = self.tokenizer(model.name)
        if description.checkpoint is None:
            named = model.source.checkpoint is not None
            sized = named or description.tokens.name is not None
            if not sized or description.config.vocab_size < len(tokenizer):
                # a configuration may hold more places than there are tokens: another model's rows still fit it
                return description.with_vocabulary(len(tokenizer), tokenizer)
        elif model.name in self.teachers:
            # not the tokenizer's size: a pretrained model may hold more places than there are tokens
            return description.with_vocabulary(saved_vocabulary(self.teachers[model.name]), tokenizer)
        return description

    def forget_student(self) -> None:
        """The next distiller gets a student of its own, as it was at the beginning, and all that follows or fits it."""
        student = self.recipe.student.name
        for model in self.recipe.models.values():
            if model.name == student or model.source.averaged == student:
                self.models.pop(model.name, None)
                self.averages.pop(model.name, None)
        self._projections = None

    # ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def distiller(self, checked: Checked | None = None, stage: str | None = None) -> Distiller:
        """The module whose losses training lowers: those of the tasks of one stage, the first where none is named.

        `checked` is the same spec reduced, where not the whole is meant. Projections and averages of the student are
        the same modules in every stage.
        """
        of = checked or self.checked
        if not of.graphs:
            raise UsageError("the spec names models that cannot be reached; see the warnings of its check")
        if self._projections is None:
            found = projection_nodes((*of.graphs.values(), *of.reports.values()))
            self._projections = make_projections(found, self.recipe.train.seed)
        name = _stage_named(stage, [x.name for x in of.recipe.stages])
        merging = merge_equal_nodes.__name__ not in self.skip
        graphs = {task: g for (at, task), g in (of.graphs if merging else of.written).items() if at == name}
        reports = {task: g for (at, task), g in (of.reports if merging else of.written_reports).items() if at == name}
        student = self.recipe.student.name
        optimized = self.optimized(of)
        used = {model for (at, _), graph in optimized.items() if at == name for model in models_of(graph)}
        used |= {model for graph in reports.values() for model in models_of(graph)}
        # an average that any stage needs follows the student through all of them
        anywhere = {model for graph in (*optimized.values(), *of.reports.values()) for model in models_of(graph)}
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
            optimized={task: graph for (at, task), graph in optimized.items() if at == name},
            reach=self._student_reach(),
            skip=self.skip,
            folder=self.checked.folder,
        )

    def optimized(self, checked: Checked | None = None) -> dict[tuple[str, str], nx.DiGraph]:
        """The graphs of all tasks after the passes; `checked` as for `distiller`."""
        of = checked or self.checked
        if id(of) not in self._optimized:
            merging = merge_equal_nodes.__name__ not in self.skip
            found = optimize_all(of.graphs if merging else of.written, self._student_reach(), self.skip)
            self._optimized[id(of)] = (of, found)
        return self._optimized[id(of)][1]

    def _student_reach(self) -> Reach:
        student = self.recipe.student
        facts = self.checked.facts(student)
        return Reach(self.model(student.name)) if facts is None or student.name in self.given else facts.reach

    def features(self, model: str) -> frozenset[Feature]:
        """What any task of any stage takes from a model, in its loss or in what it reports."""
        graphs = [*self.optimized().values(), *self.checked.reports.values()]
        taps = (x for graph in graphs for key in graph if isinstance(x := node(graph, key), n.Tap))
        return frozenset(x.feature for x in taps if x.model == model)

    def outline(self, model: str) -> nn.Module:
        """A model that nothing runs, for the sizes of its parts: without weights where it can be."""
        facts = self.checked.facts(self.recipe.models[model])
        return self.model(model) if facts is None or model in self.given else facts.shapes.model

    def scores(self, name: str, module: nn.Module) -> bool:
        """Whether the closing table scores a teacher: a task that reads it has a labelled dev or test split, and
        `module`, which stands for it, has a head for these labels.
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
        """Whether any task needs a forward of this model: not where a weight of zero is all that it has."""
        return bool(self.features(model))


def _stage_named(stage: str | None, names: Sequence[str]) -> str:
    """The stage that is meant, the first where none is named; `UsageError` for one that the spec does not have."""
    if stage is None or stage in names:
        return names[0] if stage is None else stage
    there = [name for name in names if name]
    remedy = f"it has {listing(there)}" if there else "it has no stages: leave `stage` out"
    close = suggest(stage, there) if isinstance(stage, str) else ""
    raise UsageError(f"the spec has no stage `{stage}`: {close or remedy}")


def closing_split(splits: Collection[str]) -> str | None:
    """The split that a closing table scores on: `test` where the data has one, else `dev`; None without either."""
    return next((name for name in ("test", "dev") if name in splits), None)


def models_of(graph: nx.DiGraph) -> list[str]:
    """The models whose inputs or forwards a graph holds, each once."""
    found = (node(graph, key) for key in graph)
    return list(dict.fromkeys(x.model for x in found if isinstance(x, n.Forward | n.Input)))


def data_of(graph: nx.DiGraph) -> list[str]:
    """The data sets that a graph reads, each once."""
    found = (node(graph, key) for key in graph)
    return list(dict.fromkeys(x.data for x in found if isinstance(x, n.Input | n.Column)))
