"""What is known of one model before a weight is loaded: from memory, or from its configuration and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.diagnostics import SourceFault
from brewgraph.digest import digest
from brewgraph.facts.memory import Memory, print_of_model
from brewgraph.models.saved_tensors import headless, missing_head, saved_names
from brewgraph.models.structure.feature_table import CallSignature, FeatureRecord, FeatureTable, Recorded
from brewgraph.models.task_heads import Head, label_type_of
from brewgraph.models.tokenization import (
    Tokens,
    ids_behind,
    joins_words,
    local,
    marks_nothing,
    named_tokens,
    own_tokens,
)
from brewgraph.recipe.features import Feature, Shape
from brewgraph.recipe.label_types import CLASS, NONE, LabelType
from brewgraph.recipe.settings.sources import Hf, Layers

if TYPE_CHECKING:
    from brewgraph.models.description import ModelDescription
    from brewgraph.models.fake.reach import Reach
    from brewgraph.models.fake.shapes import Shapes


@dataclass(frozen=True)
class Request:
    """All that decides what a model is going to be: what `description` is called with."""

    source: Hf
    role: str
    folder: Path
    features: frozenset[Feature]
    classes: tuple[str, ...]
    inherited: Tokens | None
    label_types: tuple[LabelType, ...]
    heads: tuple[tuple[str, Head], ...]

    def draw(self) -> ModelDescription:
        """The description. SourceFault where there cannot be one."""
        from brewgraph.models.description import describe_model

        return describe_model(
            self.source,
            role=self.role,
            folder=self.folder,
            features=self.features,
            classes=self.classes,
            inherited=self.inherited,
            label_types=self.label_types,
            heads=dict(self.heads),
        )

    @cached_property
    def identity(self) -> str | None:
        """What tells what is asked for from anything else, the content of files and of the hub with it; None where that
        cannot be known. What columns fill is none of it.
        """
        found = [print_of_model(tokens.name, tokens.revision) for tokens in self._tokens if tokens.name is not None]
        if self.source.name is not None:
            found.append(print_of_model(local(self.source.name, self.folder), self.source.revision))
        if None in found:
            return None
        asked = (self.role, sorted(map(str, self.features)), self.classes, self._tokens, self.label_types, self.heads)
        return digest(repr(self.source.model_copy(update={"inputs": {}})), asked, found)

    @property
    def _tokens(self) -> tuple[Tokens, ...]:
        return tuple(tokens for tokens in (named_tokens(self.source, self.folder), self.inherited) if tokens)


@dataclass(frozen=True)
class Outline:
    """What a check asks of a description: its class, its own `labels`, the size of logits over a vocabulary,
    where they are, by head (``""`` without one), the `limit` of tokens that its configuration names, the layers that it
    starts from, whether its architecture has a head that classifies tokens, the token at whose place its own head
    reads the classes of a text, where it does that, and the type of labels that a classifier of texts was made for,
    where its configuration says so.
    """

    auto_class: str
    labels: tuple[str, ...]
    vocabularies: Mapping[str, int | None]
    limit: int | None
    init: Layers | None
    classifies_tokens: bool
    reads_end: int | None
    label_type: LabelType

    @classmethod
    def of(cls, made: ModelDescription) -> Outline:
        from transformers import MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING

        sizes = {"": made.vocabulary(), **{head: made.vocabulary(head) for head in made.heads}}
        limit = getattr(made.config, "max_position_embeddings", None)
        known = limit if isinstance(limit, int) and limit > 0 else None
        tags = type(made.config) in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
        kind = label_type_of(made.config) if made.auto_class == CLASS.auto_class else NONE
        return cls(made.auto_class, made.labels, sizes, known, made.init, tags, _read_end(made), kind)


def _read_end(made: ModelDescription) -> int | None:
    """`eos_token_id` where a head reads the classes at its place, as those of encoder-decoders do."""
    end = getattr(made.config, "eos_token_id", None)
    encodes = getattr(made.config, "is_encoder_decoder", False)
    classifies = made.auto_class == CLASS.auto_class
    return end if classifies and encodes and isinstance(end, int) else None


@dataclass(frozen=True)
class TokenFacts:
    """What a check asks of a tokenizer: its fingerprint, the arguments that it gives, whether it can pad a batch, the
    ids that it puts `behind` every text, whether it writes a token that can stand for no answer (`null`), and whether
    it loses the blanks between given words (`joins`).
    """

    fingerprint: str
    inputs: frozenset[str]
    pads: bool
    behind: tuple[int, ...]
    null: bool
    joins: bool


@dataclass(frozen=True)
class UnbuiltModelFacts:
    """Facts of a transformers model that is not built yet (a `ModelFacts`).

    Those that a check asks for come from the memory where it has them, and then no configuration is read; all else is
    worked out from `description` and `shapes` when it is first asked for.
    """

    request: Request
    memory: Memory
    data: str = ""
    """Identity of the data that a tokenizer would be trained on."""
    taken: frozenset[str] = frozenset()
    """Names of the features that the spec takes: their shapes are found together."""
    order: tuple[int, ...] = ()
    """Places of its own classes in the order in which they are put; empty where they stay as they are."""

    @cached_property
    def outline(self) -> Outline:
        return self.memory.recall(self.request.identity, Outline, lambda: Outline.of(self._drawn))

    @cached_property
    def _drawn(self) -> ModelDescription:
        return self.request.draw()

    @cached_property
    def description(self) -> ModelDescription:
        return replace(self._drawn, order=self.order)

    @property
    def auto_class(self) -> str:
        return self.outline.auto_class

    @property
    def tokens(self) -> Tokens:
        """Its tokenizer. Where that lies depends on where the spec stands, and is not remembered."""
        request = self.request
        return own_tokens(request.source, request.folder, request.inherited)

    @property
    def heads(self) -> Mapping[str, Head]:
        return dict(self.request.heads)

    @property
    def labels(self) -> tuple[str, ...]:
        own = self.outline.labels
        return tuple(own[i] for i in self.order) if self.order else own

    def head_labels(self, head: str | None) -> tuple[str, ...]:
        """The classes of one head, of those that a model has; without a name its own."""
        return self.labels if head is None else self.heads[head].labels

    def vocabulary(self, head: str | None) -> int | None:
        """How many entries the logits of a head have, where they are over a vocabulary."""
        return self.outline.vocabularies[head or ""]

    @cached_property
    def token_facts(self) -> TokenFacts:
        """What its tokenizer does. SourceFault B314 where there is none."""
        return self._known_of(self.tokens)

    def _known_of(self, tokens: Tokens) -> TokenFacts:
        identity = None
        if tokens.name is not None and (known := print_of_model(tokens.name, tokens.revision)) is not None:
            identity = digest(tokens, known)
        return self.memory.recall(identity, TokenFacts, lambda: _token_facts(tokens))

    @property
    def reads_its_own_tokens(self) -> bool:
        """Whether pretrained weights get the tokens of their own checkpoint's tokenizer, as far as there is one."""
        source = self.request.source
        if source.name is None or not source.pretrained:
            return True
        own = own_tokens(source.model_copy(update={"tokenizer": None}), self.request.folder, None)
        try:
            return own == self.tokens or self._known_of(own).fingerprint == self.token_facts.fingerprint
        except SourceFault:
            return True  # a checkpoint without a tokenizer takes what is named

    @property
    def tokenizer(self) -> str:
        """What tells its tokenizer from others; empty where it cannot be loaded."""
        try:
            return self.token_facts.fingerprint + (self.data if self.tokens.name is None else "")
        except SourceFault:
            return ""

    @cached_property
    def shapes(self) -> Shapes:
        """The model's shapes, of the model itself on fake tensors."""
        from brewgraph.models.fake.shapes import Shapes

        return Shapes.of_description(self.description)

    @cached_property
    def feature_table(self) -> FeatureTable:
        """The model's shapes as they are remembered, where they can be."""
        identity = self.request.identity
        if self.memory.folder is None or identity is None:
            return self.shapes
        return Recorded(self.memory.recall(identity, FeatureRecord, lambda: self.shapes.record()))

    @property
    def call(self) -> CallSignature:
        """How the model can be called."""
        return self.feature_table.call

    @cached_property
    def positions(self) -> int | None:
        """How many tokens the model has positions for; None where nothing limits them."""
        return (self.call.positions or self.outline.limit) if self.outline.limit is not None else None

    @cached_property
    def reach(self) -> Reach:
        """What the model needs for which of its features."""
        from brewgraph.models.fake.reach import reach_of

        return reach_of(self.shapes)

    @cached_property
    def parameters(self) -> int:
        """How many parameters the model has, tied ones counted once."""
        from brewgraph.models.fake.shapes import count_parameters

        return count_parameters(self.shapes.model)

    @cached_property
    def trainable(self) -> int:
        """How many of them may learn: of a model with an adapter not those of its trunk."""
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
        """SourceFault B325 where its results are taken, and a checkpoint on this machine holds nothing of the head that
        gives them. What other checkpoints lack is found when they are loaded.
        """
        request = self.request
        if request.source.name is None or not request.source.pretrained or request.heads or not request.features:
            return
        checkpoint = local(request.source.name, request.folder)
        names = saved_names(checkpoint, request.source.revision)
        if not names:
            return

        def find() -> str:
            return missing_head(self.shapes.model, names) or ""

        identity = request.identity
        known = None if identity is None else digest("head", identity, sorted(names))
        if missing := self.memory.recall(known, str, find):
            raise headless(checkpoint, missing)

    def check_start(self, donor: UnbuiltModelFacts, name: str) -> None:
        """SourceFault B303 or B316 where the layers that this model, of that name, starts from are not a donor's."""

        def find() -> bool:
            from brewgraph.models.copying import planned_copy

            planned_copy(self.description, donor.description, name)
            return True

        both = (self.request.identity, donor.request.identity)
        self.memory.recall(None if None in both else digest("start", both), bool, find)


def _token_facts(tokens: Tokens) -> TokenFacts:
    if tokens.name is None:
        return TokenFacts(tokens.fingerprint, tokens.inputs, pads=True, behind=(), null=True, joins=False)
    made, pads = tokens.load(), tokens.padding is not None
    own = ids_behind(made), marks_nothing(made), joins_words(made)
    return TokenFacts(tokens.fingerprint, tokens.inputs, pads, *own)
