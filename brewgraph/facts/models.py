"""What is known of models and data before they are loaded: from memory, configurations, files, other specs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewgraph.data.sources.reader import DataFacts, stamp
from brewgraph.diagnostics import Collector, SourceFault, few, listing, shortened
from brewgraph.digest import digest
from brewgraph.facts.memory import Memory, print_of_model
from brewgraph.models.structure.anatomy import RESULTS, CallSignature, FeatureRecord, FeatureTable, Recorded
from brewgraph.models.task_heads import (
    AUTO_CLASSES,
    Head,
    check_pickles,
    headless,
    label_type_of,
    missing_head,
    saved_names,
)
from brewgraph.models.tokenization import (
    Tokens,
    ids_behind,
    joins_words,
    local,
    marks_nothing,
    named_tokens,
    own_tokens,
)
from brewgraph.paths import locate, near_folder
from brewgraph.recipe.features import Feature, Shape
from brewgraph.recipe.label_types import CLASS, NONE, LabelType
from brewgraph.recipe.recipe import Lesson, Recipe, data_used, features_used, lessons, partners
from brewgraph.recipe.settings.data_sources import Batches, DataSource
from brewgraph.recipe.settings.model_sources import Hf, Layers, ModelSource
from brewgraph.recipe.values import DataDeclaration, ModelDeclaration

if TYPE_CHECKING:
    from brewgraph.models.description import ModelDescription
    from brewgraph.models.fake.shapes import Reach, Shapes

# ── one model ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Request:
    """Everything that decides what a model will be: the arguments of `describe_model`."""

    source: Hf
    role: str
    folder: Path
    features: frozenset[Feature]
    classes: tuple[str, ...] = ()
    inherited: Tokens | None = None
    label_types: tuple[LabelType, ...] = ()
    heads: Mapping[str, Head] = field(default_factory=dict)

    def describe(self) -> ModelDescription:
        """The model's description. Raises `SourceFault` if there cannot be one."""
        from brewgraph.models.description import describe_model

        return describe_model(**{argument.name: getattr(self, argument.name) for argument in fields(self)})

    @cached_property
    def identity(self) -> str | None:
        """A hash of the request and of the content of its files or hub commits; None if that content is unknown. The
        columns of `inputs` do not count.
        """
        tokenizers = tuple(x for x in (named_tokens(self.source, self.folder), self.inherited) if x)
        prints = [print_of_model(tokens.name, tokens.revision) for tokens in tokenizers if tokens.name is not None]
        if self.source.name is not None:
            prints.append(print_of_model(local(self.source.name, self.folder), self.source.revision))
        if None in prints:
            return None
        asked = (
            self.role,
            sorted(map(str, self.features)),
            self.classes,
            tokenizers,
            self.label_types,
            dict(self.heads),
        )
        return digest(repr(self.source.model_copy(update={"inputs": {}})), asked, prints)


@dataclass(frozen=True)
class Outline:
    """What a check asks of a model description. `labels` are its own classes; `vocabularies` gives, by head ("" without
    one), the size of logits over a vocabulary; `limit` is the maximum number of tokens; `reads_end` is the id of the
    token at which the head classifies a text, if it does; `label_type` is that of a text classifier's configuration;
    `recomputes` tells whether its layers can run again in the backward pass.
    """

    auto_class: str
    labels: tuple[str, ...]
    vocabularies: Mapping[str, int | None]
    limit: int | None
    init: Layers | None
    classifies_tokens: bool
    reads_end: int | None
    label_type: LabelType
    recomputes: bool

    @classmethod
    def of(cls, model: ModelDescription) -> Outline:
        from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

        config = model.config
        limit, end = getattr(config, "max_position_embeddings", None), getattr(config, "eos_token_id", None)
        classifies = model.auto_class == CLASS.auto_class
        built = model.model_class._model_mapping.get(type(config), None)
        # the classifiers of encoder-decoders pool at `eos_token_id`
        reads_end = classifies and getattr(config, "is_encoder_decoder", False) and isinstance(end, int)
        return cls(
            model.auto_class,
            model.labels,
            {"": model.vocabulary(), **{head: model.vocabulary(head) for head in model.heads}},
            limit if isinstance(limit, int) and limit > 0 else None,
            model.init,
            type(config) in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
            end if reads_end else None,
            label_type_of(config) if classifies else NONE,
            getattr(built, "supports_gradient_checkpointing", True),
        )


@dataclass(frozen=True)
class TokenFacts:
    """What a check asks of a tokenizer: the model arguments that it gives (`inputs`), whether it can pad batches, the
    ids that it appends to every text (`behind`), whether it adds a token that can mean "no answer" (`null`), whether it
    loses the spaces between words (`joins`), the most tokens of a text by its own account (`longest`, None for any
    number).
    """

    fingerprint: str
    inputs: frozenset[str]
    pads: bool
    behind: tuple[int, ...]
    null: bool
    joins: bool
    longest: int | None = None

    @classmethod
    def of(cls, tokens: Tokens) -> TokenFacts:
        if tokens.name is None:
            return cls(tokens.fingerprint, tokens.inputs, pads=True, behind=(), null=True, joins=False)
        tokenizer = tokens.load()
        behind, null, joins = ids_behind(tokenizer), marks_nothing(tokenizer), joins_words(tokenizer)
        longest = int(tokenizer.model_max_length)  # without a limit a number that no format of facts holds
        limit = longest if longest < 2**31 else None
        return cls(tokens.fingerprint, tokens.inputs, tokens.padding is not None, behind, null, joins, limit)


@dataclass(frozen=True)
class UnbuiltModelFacts:
    """Facts of a transformers model that is not built yet (a `ModelFacts`), from `memory` if possible, which needs no
    configuration; otherwise from `description` and `shapes`, on first use.

    `data` identifies the data that a tokenizer would be trained on. `taken` are the features that the spec takes: their
    shapes are inferred together. `order` holds the indices of the model's classes in a new order; empty for their own.
    """

    request: Request
    memory: Memory
    data: str = ""
    taken: frozenset[str] = frozenset()
    order: tuple[int, ...] = ()

    @cached_property
    def outline(self) -> Outline:
        return self.memory.recall(self.request.identity, Outline, lambda: Outline.of(self._unordered))

    @cached_property
    def _unordered(self) -> ModelDescription:
        return self.request.describe()

    @cached_property
    def description(self) -> ModelDescription:
        return replace(self._unordered, order=self.order)

    @property
    def auto_class(self) -> str:
        return self.outline.auto_class

    @cached_property
    def tokens(self) -> Tokens:
        """The model's tokenizer. Its path depends on the spec's folder and is not remembered."""
        request = self.request
        return own_tokens(request.source, request.folder, request.inherited)

    @property
    def heads(self) -> Mapping[str, Head]:
        return self.request.heads

    @property
    def labels(self) -> tuple[str, ...]:
        labels = self.outline.labels
        return tuple(labels[i] for i in self.order) if self.order else labels

    def head_labels(self, head: str | None) -> tuple[str, ...]:
        """The classes of a named head; without a name those of the model itself."""
        return self.labels if head is None else self.heads[head].labels

    def vocabulary(self, head: str | None) -> int | None:
        return self.outline.vocabularies[head or ""]

    @cached_property
    def token_facts(self) -> TokenFacts:
        """Facts of the tokenizer. Raises `SourceFault` B314 if there is none."""
        return self._facts_of(self.tokens)

    def _facts_of(self, tokens: Tokens) -> TokenFacts:
        content = print_of_model(tokens.name, tokens.revision) if tokens.name is not None else None
        identity = None if content is None else digest(tokens, content)
        return self.memory.recall(identity, TokenFacts, lambda: TokenFacts.of(tokens))

    @property
    def reads_its_own_tokens(self) -> bool:
        """Whether pretrained weights read the tokens of their checkpoint's own tokenizer, if it has one."""
        source = self.request.source
        if source.name is None or not source.pretrained:
            return True
        of_checkpoint = own_tokens(source.model_copy(update={"tokenizer": None}), self.request.folder, None)
        if of_checkpoint == self.tokens:
            return True
        try:
            return self._facts_of(of_checkpoint).fingerprint == self.token_facts.fingerprint
        except SourceFault:
            return True  # a checkpoint without a tokenizer takes the one that is named

    @property
    def tokenizer(self) -> str:
        """A fingerprint of the tokenizer; empty if it cannot be loaded."""
        try:
            return self.token_facts.fingerprint + (self.data if self.tokens.name is None else "")
        except SourceFault:
            return ""

    @cached_property
    def shapes(self) -> Shapes:
        """The model's shapes, inferred from the model itself on fake tensors."""
        from brewgraph.models.fake.shapes import Shapes

        return Shapes.of_description(self.description)

    @cached_property
    def feature_table(self) -> FeatureTable:
        """The model's shapes, from memory if possible."""
        identity = self.request.identity
        if self.memory.folder is None or identity is None:
            return self.shapes
        return Recorded(self.memory.recall(identity, FeatureRecord, lambda: self.shapes.record()))

    @property
    def call(self) -> CallSignature:
        return self.feature_table.call

    @cached_property
    def positions(self) -> int | None:
        """The maximum number of tokens; None if unlimited."""
        return (self.call.positions or self.outline.limit) if self.outline.limit is not None else None

    @cached_property
    def reach(self) -> Reach:
        """Which parts of the model each feature needs."""
        return self.shapes.reach

    @cached_property
    def parameters(self) -> int:
        """The number of parameters, tied ones counted once."""
        from brewgraph.models.fake.shapes import count_parameters

        return count_parameters(self.shapes.model)

    @cached_property
    def trainable(self) -> int:
        """The number of trainable parameters: without the trunk of a model that has an adapter."""
        from brewgraph.models.fake.shapes import count_parameters

        return count_parameters(self.shapes.model, trainable=True)

    def row_length(self, name: str) -> int:
        return self.feature_table.row_length(name)

    def paths(self, pattern: str) -> tuple[str, ...]:
        return self.feature_table.anatomy.paths(pattern)

    def calls(self, paths: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        return self.feature_table.calls(paths)

    def shape(self, feature: Feature) -> Shape:
        return self.feature_table.shape(feature, self.taken)

    def check_head(self) -> None:
        """Raise `SourceFault` B325 if the spec takes results of a head that is missing in a local checkpoint.

        For other checkpoints this is found when they are loaded.
        """
        request = self.request
        if request.source.name is None or not request.source.pretrained or request.heads or not request.features:
            return
        checkpoint = local(request.source.name, request.folder)
        names = saved_names(checkpoint, request.source.revision)
        if not names:
            return

        identity = None if request.identity is None else digest("head", request.identity, sorted(names))
        if missing := self.memory.recall(identity, str, lambda: missing_head(self.shapes.model, names) or ""):
            raise headless(checkpoint, missing)

    def check_weights(self) -> None:
        """Raise `SourceFault` B315 if the weights are pickled with anything but tensors."""
        source = self.request.source
        if source.name is not None and source.pretrained:
            check_pickles(local(source.name, self.request.folder), source.revision)

    def check_quantized(self) -> None:
        """Raise `SourceFault` B343 if `quantize` would round no weight of this model."""
        scheme = self.request.source.quantization
        if scheme is None:
            return

        def find() -> tuple[str, ...]:
            from brewgraph.models.quantizing import LIBRARIES, quantized_layers

            return tuple(x for x in LIBRARIES if quantized_layers(self.shapes.model, x))

        identity = None if self.request.identity is None else digest("quantized", self.request.identity)
        if scheme not in (able := self.memory.recall(identity, tuple[str, ...], find)):
            message = f'quantize="{scheme}" would round no weight: this architecture has no linear layers'
            help = "".join(f'quantize="{x}" rounds its Conv1D layers; or ' for x in able) + "remove `quantize`"
            raise SourceFault("B343", message, help=help, field="quantize")

    def check_start(self, donor: UnbuiltModelFacts, name: str) -> None:
        """Raise `SourceFault` B303 or B316 if this model, called `name`, cannot start from the donor's layers."""

        def find() -> bool:
            from brewgraph.models.loading import planned_copy

            planned_copy(self.description, donor.description, name)
            return True

        both = (self.request.identity, donor.request.identity)
        self.memory.recall(None if None in both else digest("start", both), bool, find)


# ── the models of a spec ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Facts:
    """What a check knows of a spec's models and data, by name: None for a model of which nothing is known before
    loading, and for data at fault. `data` are the data sets that each model reads, `lessons` what its heads are matched
    with, `stamps` those of the files of each data set before they were read (`stamps_of_data`).
    """

    models: Mapping[str, UnbuiltModelFacts | None]
    data_facts: Mapping[str, DataFacts | None]
    data: Mapping[str, tuple[str, ...]]
    lessons: Mapping[tuple[str, str | None], tuple[Lesson, ...]]
    stamps: Mapping[str, Mapping[Path, object]]

    def __call__(self, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        return self.models[model.name]

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes of each data set."""
        return {name: facts.classes if facts is not None else () for name, facts in self.data_facts.items()}

    @property
    def rows(self) -> Mapping[str, int]:
        """The training rows of each data set, where they are known."""
        known = ((name, facts.rows.get("train")) for name, facts in self.data_facts.items() if facts is not None)
        return {name: rows for name, rows in known if rows is not None}

    def learns(self, model: str, head: str | None = None) -> tuple[Lesson, ...]:
        """What a head is matched with; for a model without a match of its own, the labels of the data it reads."""
        lessons = self.lessons.get((model, head), ())
        if lessons or head is not None:
            return lessons
        return tuple(Lesson(NONE, data) for data in self.data.get(model, ())[:1])

    def classes_of(self, model: str, head: str | None = None) -> tuple[str, ...]:
        """The classes that a head learns."""
        return next((c for lesson in self.learns(model, head) if (c := self.classes.get(lesson.data, ()))), ())

    def label_type_of(self, model: str, head: str | None = None) -> LabelType:
        return next((lesson.label_type for lesson in self.learns(model, head) if lesson.label_type), NONE)


@dataclass
class FactsBook:
    """Looks up the facts of every model and data set of a recipe once; faults become diagnostics at their sources.

    `other_spec` gives the facts of the student of a `brew(...)` spec.
    """

    recipe: Recipe
    collector: Collector
    other_spec: Callable[[ModelDeclaration], UnbuiltModelFacts]
    memory: Memory
    models: dict[str, UnbuiltModelFacts | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.recipe.source.folder
        self.features = features_used(self.recipe)
        self.data = data_used(self.recipe)
        self.partners = partners(self.recipe)
        self.stamps: dict[str, Mapping[Path, object]] = {}
        self.data_facts = {name: self._of_data(data) for name, data in self.recipe.data.items()}
        self.facts = Facts(self.models, self.data_facts, self.data, lessons(self.recipe), self.stamps)

    def _of_data(self, data: DataDeclaration) -> DataFacts | None:
        """The facts of a data set; None, with a diagnostic, if it cannot be read, or changes while it is."""
        try:
            self.stamps[data.name] = before = stamps_of_data(data.source, self.folder)
            try:
                return data_facts(data.source, self.folder, self.memory)
            finally:
                if changed := changed_files(before, data.source, self.folder):
                    help = "check again, once nothing writes it"
                    raise SourceFault("B404", f"{listing(changed, 4)} changed while it was read", help=help)
        except SourceFault as fault:
            code, help = fault.code, data.remedy(fault.help, fault.field)
            if code == "B405":
                code, help = "W401", f"{help}; until then classes and columns are not checked"
                names = (part.hub_name for part in data.source.sources)
                if similar := next(filter(None, (_similar_folder(x, self.folder, _DATA_FILES) for x in names)), ""):
                    code = "B401"
                    help = f"did you mean `{similar}`? that folder holds data; the hub could not be reached, either"
            self.collector.add(code, fault.message, data.place(fault.field), help=help)
            return None

    def __call__(self, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        if model.name not in self.models:
            self.models[model.name] = None
            try:
                self.models[model.name] = self._of(model.source, model)
            except SourceFault as fault:
                if fault.code == "B314":  # the fault of the model whose tokenizer this one takes
                    model = self._tokenizer_owner(self._first_lender(model) or model)
                self.report(model, fault)
        return self.models[model.name]

    def settled(self) -> Facts:
        """What is known at the end of a check, as an immutable value."""
        return replace(self.facts, models=dict(self.models))

    def report(self, model: ModelDeclaration, fault: SourceFault) -> None:
        """Report a fault at the model's source; as a warning if only the network is at fault."""
        code, message, place = fault.code, fault.message, model.place(fault.field)
        help = model.remedy(fault.help, fault.field)
        source, similar = model.source, ""
        if source.has_configuration and code in ("B310", "B311", "B314"):
            of_tokenizer = source.tokenizer_name is not None and code == "B314"
            name = source.tokenizer_name if of_tokenizer else source.checkpoint
            similar = _similar_folder(name, self.folder, _TOKENIZER_FILES if of_tokenizer else ("config.json",))
        if similar:
            kind = "tokenizer" if code == "B314" else "model"
            help = f"did you mean `{similar}`? that folder holds a {kind}; the hub could not be reached, either"
            code, message = "B310", f"there is no folder `{place.text.strip(chr(34))}`"
        elif code == "B311" or (code == "B314" and "/" in message and not is_local(model, self.folder, fault.field)):
            taken = listing(sorted(map(str, self.features[model.name]))[:6])
            unchecked = f"{taken}, their shapes, " if taken else ""
            code, help = "W301", f"{help}; until then {unchecked}classes, tokens and positions are not checked"
        self.collector.add(code, message, place, help=help)

    @singledispatchmethod
    def _of(self, source: ModelSource, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        """The facts of a model by its source; None where nothing is known before it is built."""
        if source.averaged is not None:
            return self(self._averaged(model))
        return self.other_spec(model) if source.spec is not None else None

    @_of.register(Hf)
    def _of_configuration(self, source: Hf, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        known = self.facts
        heads = {
            head: Head.of(settings, known.classes_of(model.name, head), known.label_type_of(model.name, head))
            for head, settings in model.heads.items()
        }
        types = tuple(lesson.label_type for lesson in known.learns(model.name) if lesson.label_type)
        classes = known.classes_of(model.name)
        taken = self.features[model.name]
        inherited = self._inherited(model, source)
        if source.tokenizer in self.recipe.models:
            source = source.model_copy(update={"tokenizer": None})
        if not types and not heads and model.role == "student":
            source, classes, types = self._as_its_teacher(model, source, classes)
        request = Request(
            source,
            model.role,
            self.folder,
            frozenset(feature for feature in taken if feature.name in RESULTS),  # only these decide which head
            classes,
            inherited,
            types,
            heads,
        )
        lender = self._finished_lender(model) if inherited is not None and inherited.name is None else None
        sources = [self.recipe.data[name].source for name in self.data[model.name]]
        texts = lender.data if lender is not None else digest(*(repr(_texts_of(x, self.folder)) for x in sources))
        facts = UnbuiltModelFacts(request, self.memory, texts, frozenset(feature.name for feature in taken))
        _ = facts.outline  # reports here, and not where it is used, that no such model can exist
        if is_local(model, self.folder):
            _ = request.identity  # of the files as they are now
        return self._in_order(model, facts) if model.role == "teacher" else facts

    def _in_order(self, model: ModelDeclaration, facts: UnbuiltModelFacts) -> UnbuiltModelFacts:
        """A teacher with its classes in the order of the data's, if they have the same names."""
        labels, classes = facts.labels, self.facts.classes_of(model.name)
        if labels == classes or sorted(labels) != sorted(classes) or len(set(labels)) < len(labels):
            return facts
        message = f"`{model.name}` orders its classes differently from the data; its logits will be reordered"
        help = f"no action needed: {few(map(shortened, labels))} becomes {few(map(shortened, classes))}"
        self.collector.add("W304", message, model.span, help=help)
        places = {label: place for place, label in enumerate(labels)}
        return replace(facts, order=tuple(places[label] for label in classes))

    def _as_its_teacher(
        self, model: ModelDeclaration, source: Hf, classes: tuple[str, ...]
    ) -> tuple[Hf, tuple[str, ...], tuple[LabelType, ...]]:
        """The source with its teacher's kind of head, classes and type of labels: a student that is matched with no
        labels has no other hint, because its checkpoint was mostly made to predict masked tokens.
        """
        if source.task is not None or not any(feature.name == "logits" for feature in self.features[model.name]):
            return source, classes, ()
        others = (self.recipe.models[name] for name in self.partners.get(model.name, ()) if name != model.name)
        for teacher in (other for other in others if other.role == "teacher" and other.source.averaged is None):
            facts = self(teacher)
            task = _TASK_OF_CLASS.get(facts.auto_class) if facts is not None else None
            if facts is not None and task is not None and not facts.heads:
                types = tuple(filter(None, (facts.outline.label_type,)))
                return source.model_copy(update={"task": task}), classes or facts.labels, types
        return source, classes, ()

    def _averaged(self, model: ModelDeclaration) -> ModelDeclaration:
        """The student that an average follows."""
        name = model.source.averaged or ""
        student = self.recipe.models.get(name)
        if student is None or student.role != "student":
            help = f"write `ema({self.recipe.student.name})`"
            raise SourceFault("B331", f"`{name}` is no student to average", field="model", help=help)
        return student

    # ── tokenizers that models take from each other ──────────────────────────────────────────────────────────────────

    def _inherited(self, model: ModelDeclaration, source: Hf) -> Tokens | None:
        """The tokenizer of the model that `tokenizer=` names; else, for a student from scratch, its first lender's."""
        if source.tokenizer is not None:
            lender = self.recipe.models.get(source.tokenizer)
            return self._tokens_of(lender) if lender is not None else None
        lender = self._first_lender(model)
        return self._tokens_of(lender) if lender is not None and self(lender) is not None else None

    def _finished_lender(self, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        """The facts of the `brew(...)` teacher whose trained tokenizer a model takes, whatever data it reads itself."""
        lender = self.recipe.models.get(model.source.tokenizer_name or "") or self._first_lender(model)
        return self(lender) if lender is not None and lender.source.spec is not None else None

    def _first_lender(self, model: ModelDeclaration) -> ModelDeclaration | None:
        """The teacher whose tokenizer a student from scratch takes if the spec names none."""
        source = model.source
        from_scratch = source.has_configuration and source.checkpoint is None
        if model.role != "student" or not from_scratch or source.tokenizer_name:
            return None
        lending = (t for t in self.recipe.teachers if self._tokenizer_owner(t).name != model.name)
        return next((t for t in lending if t.source.is_known), None)

    def _tokenizer_owner(self, model: ModelDeclaration) -> ModelDeclaration:
        """The model whose tokenizer a model has: itself, or one that its source names."""
        lender = self.recipe.models.get(model.source.tokenizer_name or "")
        return self._tokenizer_owner(lender) if lender is not None else model

    def _tokens_of(self, model: ModelDeclaration) -> Tokens | None:
        """A model's tokenizer. Its facts need not be known: they may wait for those of the model that asks."""
        source = model.source
        if source.averaged is not None:
            return self._tokens_of(self._averaged(model))
        if not source.is_known:
            help = "name another model, a folder, or a name on the hub"
            raise SourceFault("B319", f"`{model.name}` has no tokenizer", field="tokenizer", help=help)
        if isinstance(source, Hf):
            return own_tokens(source, self.folder, self._inherited(model, source))
        facts = self(model)
        return facts.tokens if facts is not None else None


def _similar_folder(name: str | None, folder: Path, files: tuple[str, ...]) -> str:
    """The folder with such files whose name is close to one that leads nowhere; empty if there is none."""
    path = locate(name, folder) if name else None
    near = near_folder(path, files) if path is not None and not path.is_dir() else ""
    return str(Path(name or "").with_name(near)) if near else ""


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_DATA_FILES = ("*.jsonl", "*.json", "*.csv", "*.tsv", "*.parquet")
_TASK_OF_CLASS = {auto_class: task for task, auto_class in AUTO_CLASSES.items()}


def is_local(model: ModelDeclaration, folder: Path, field: str | None = "name") -> bool:
    """Whether a model is read from a local folder; with the field `tokenizer` also whether its tokenizer is."""
    source = model.source
    names = (source.checkpoint, source.tokenizer_name if field == "tokenizer" else None)
    return any(locate(name, folder).is_dir() for name in names if name)


_NO_TEXT = frozenset({"batch", "max_length", "stride"})
"""Settings of data that change nothing in its texts."""


def _texts_of(source: DataSource, folder: Path) -> dict[str, Any]:
    """What determines the texts of a data set; files by their resolved paths, however the spec spells them."""
    if source.sources != (source,):
        return {"parts": [_texts_of(part, folder) for part in source.sources]}
    settings = {key: value for key, value in source.model_dump().items() if key not in _NO_TEXT}
    for key, value in settings.items():
        if key in ("train", "dev", "test", "name", "folder") and isinstance(value, str):
            with suppress(SourceFault):  # an invalid path is reported where the data are read
                place = locate(value, folder).resolve()
                settings[key] = str(place) if place.exists() else value
    return {"source": type(source).__name__, **settings}


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def data_facts(source: DataSource, folder: Path, memory: Memory) -> DataFacts:
    """The facts of a data set. Raises `SourceFault` if it does not match its source."""
    if isinstance(source, Batches):
        from brewgraph.data.sources.tensor_batches import batch_facts

        return batch_facts(source, folder)
    if augment := getattr(source, "augment", ()):
        from brewgraph.data.batching.augmentation import check_augmentations

        check_augmentations(source.label_type, augment)

    def find() -> DataFacts:
        from brewgraph.data.sources.examples import facts

        return facts(source, folder)

    return memory.recall(print_of_data(source, folder), DataFacts, find)


def print_of_data(source: DataSource, folder: Path) -> str | None:
    """A fingerprint of the content of a data set's files; None if only the hub knows it."""
    if any(x.holds_tensors or (x.hub_name and not locate(x.hub_name, folder, "name").is_dir()) for x in source.sources):
        return None
    stamps = stamps_of_data(source, folder)
    return None if None in stamps.values() else digest(repr(source), *stamps.items())


def stamps_of_data(source: DataSource, folder: Path) -> dict[Path, object]:
    """A value for each local file of a data set that changes when the file does; None for one that is not there, which
    whoever reads it reports.
    """
    stamps: dict[Path, object] = {}
    for path in (path for part in source.sources for path in _files(part, folder)):
        try:
            stamps[path] = stamp([path])
        except OSError:
            stamps[path] = None
    return stamps


def changed_files(before: Mapping[Path, object], source: DataSource, folder: Path) -> list[str]:
    """The names of a data set's files that are not as they were when `stamps_of_data` gave `before`."""
    now = stamps_of_data(source, folder)
    return [path.name for path in {**before, **now} if before.get(path) != now.get(path)]


def _files(source: DataSource, folder: Path) -> Iterator[Path]:
    """The local files of a data set."""
    if isinstance(source, Batches):
        yield from sorted(locate(source.folder, folder, "folder").resolve().glob("*.safetensors"))
    if source.hub_name:
        yield from sorted(path for path in locate(source.hub_name, folder, "name").rglob("*") if path.is_file())
    for argument, name in source.files.items():
        yield locate(name, folder, argument).resolve()


# ── identities ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _settled(source: ModelSource, identity: Callable[[str], str], names: Collection[str]) -> ModelSource:
    """A model's source with the identities of other models in place of their names, and keyword arguments sorted."""
    update: dict[str, Any] = {
        key: dict(sorted(value.items()))
        for key in type(source).model_fields
        if isinstance(value := getattr(source, key), dict)
    }
    if source.start is not None:
        update["init"] = source.start.model_copy(update={"model": identity(source.start.model)})
    if source.tokenizer_name is not None and source.tokenizer_name in names:
        update["tokenizer"] = identity(source.tokenizer_name)
    return source.model_copy(update=update)


def identities(recipe: Recipe, other_spec: Callable[[ModelDeclaration], str]) -> Mapping[str, str]:
    """The identity of each model and data set, by name; `other_spec` gives the hash of a `brew(...)` spec."""
    # the batch size is no part of a data set's identity: projections start alike however a batch is split
    known: dict[str, str] = {
        name: digest("data", type(data.source).__name__, repr(data.source.content))
        for name, data in recipe.data.items()
    }
    visiting: set[str] = set()

    def identity(name: str) -> str:
        if name in known or name in visiting:
            return known.get(name, "circle")
        visiting.add(name)
        model = recipe.models[name]
        if model.source.spec is not None:
            known[name] = digest(model.role, other_spec(model))
        elif model.source.averaged is not None:
            source = model.source.model_dump(exclude={"model", *model.source.placing})
            known[name] = digest(model.role, "ema", sorted(source.items()), identity(model.source.averaged))
        else:
            text = repr(_settled(model.source, identity, recipe.models))
            text += repr(sorted(model.heads.items())) if model.heads else ""
            known[name] = digest(model.role, text)
            # two calls of a factory may give two models
            twins = [x for x in known if x != name and known[x] == known[name] and not model.source.is_known]
            if twins:
                known[name] = digest(model.role, text, len(twins))
        return known[name]

    for name in recipe.models:
        identity(name)
    return known
