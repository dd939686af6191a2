"""What a model is going to be, decided from configurations alone: class, configuration, weights, tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from brewgraph.diagnostics import SourceFault, suggest
from brewgraph.models import bigru  # noqa: F401  (registers the architecture with transformers)
from brewgraph.models.heads import Head
from brewgraph.models.tasks import AUTO_CLASSES, has_classes, task_of, with_problem
from brewgraph.recipe.features import Feature
from brewgraph.recipe.sources import Hf, Layers, Lora

_VOCABULARY = 8000
"""Size of a vocabulary that is trained on the data where the spec does not say."""

_SAID_OTHERWISE = {
    "num_labels": 'the classes follow from the data; to name them: labels=["no", "yes"]',
    "id2label": 'the classes follow from the data; to name them: labels=["no", "yes"]',
    "layers": "the number of layers is num_hidden_layers=…",
    "attn_implementation": "left out: attention runs eagerly in just those layers whose attention is used",
    "torch_dtype": "the precision is a setting of training: train { precision = bf16 }",
    "dtype": "the precision is a setting of training: train { precision = bf16 }",
}
"""Keywords that users of transformers try, and how it is said here."""


@dataclass(frozen=True)
class Tokens:
    """How text becomes tokens: from a folder or hub name, or (`name` None) a vocabulary trained on the data."""

    name: str | None
    revision: str | None = None
    vocab_size: int = _VOCABULARY

    def load(self) -> PreTrainedTokenizerBase:
        assert self.name is not None
        return load_tokenizer(self.name, self.revision)

    @property
    def padding(self) -> int | None:
        """The id of the token that batches are padded with: that for the end of a text where there is none for it."""
        tokenizer = self.load()
        found: int | None = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return found

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers that cut every text into the same tokens."""
        if self.name is None:
            return f"trained on the data: {self.vocab_size}"
        return tokenizer_fingerprint(self.load())


@dataclass(frozen=True)
class Blueprint:
    """A model before it is built. `checkpoint` is where its weights are, None for random ones.

    With `heads` (by name), the model is a `HeadedModel` and `auto_class` that of its trunk alone. An `adapter` is what
    is trained instead of the trunk. `order` is that in which its classes are put, by their places in the configuration;
    empty where they stay as they are.
    """

    auto_class: str
    config: PreTrainedConfig
    tokens: Tokens
    checkpoint: str | None = None
    revision: str | None = None
    init: Layers | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)
    adapter: Lora | None = None
    order: tuple[int, ...] = ()

    @property
    def model_class(self) -> Any:
        return getattr(transformers, self.auto_class)

    @property
    def labels(self) -> tuple[str, ...]:
        if (
            self.auto_class
            in (
                "AutoModel",
                "AutoModelForMaskedLM",
                "AutoModelForCausalLM",
                "AutoModelForQuestionAnswering",
            )
            or self.config.problem_type == "regression"
        ):
            return ()
        found = tuple(str(label) for _, label in sorted((self.config.id2label or {}).items()))
        return tuple(found[i] for i in self.order) if self.order else found

    def ordered(self, classes: Sequence[str]) -> Blueprint:
        """The same model with its classes in the order of `classes`, where these are the same names in another one."""
        own = self.labels
        if own == tuple(classes) or sorted(own) != sorted(classes) or len(set(own)) < len(own):
            return self
        return replace(self, order=tuple(own.index(label) for label in classes))

    def vocabulary(self, head: str | None = None) -> int | None:
        """How many entries the logits of a head have where they are over a vocabulary; None where they are not."""
        guesses = (AUTO_CLASSES["masked-lm"], AUTO_CLASSES["causal-lm"])
        auto_class = self.heads[head].auto_class if head is not None else self.auto_class
        size: int = self.config.get_text_config().vocab_size
        return size if auto_class in guesses else None

    def with_vocabulary(self, size: int, tokenizer: PreTrainedTokenizerBase) -> Blueprint:
        """The same model from scratch for a vocabulary that is known now."""
        config = type(self.config)(
            **{**self.config.to_dict(), "vocab_size": size, "pad_token_id": tokenizer.pad_token_id}
        )
        return replace(self, config=config)


def blueprint(
    source: Hf,
    *,
    role: str,
    folder: Path,
    features: Collection[Feature],
    classes: Sequence[str],
    inherited: Tokens | None,
    label_types: Collection[str] = (),
    heads: Mapping[str, Head] | None = None,
) -> Blueprint:
    """The blueprint of `hf(...)`. `inherited` is the tokenizer that a model from scratch takes over, if any.

    `label_types` are those of the data that the model's logits are matched with, `heads` the heads of a student that
    has several.
    """
    made = _blueprint(source, role, folder, features, classes, inherited, label_types, bool(heads))
    return replace(made, heads=dict(heads or {}), adapter=source.adapter)


def _blueprint(
    source: Hf,
    role: str,
    folder: Path,
    features: Collection[Feature],
    classes: Sequence[str],
    inherited: Tokens | None,
    label_types: Collection[str],
    headed: bool,
) -> Blueprint:
    labels = source.labels or (tuple(classes) if role == "student" else None)
    if source.name is None:
        if source.adapter is not None and source.init is None:
            raise SourceFault(
                "B329",
                "an adapter would stand beside random weights that nothing trains",
                field="adapter",
                help='name a model with weights: hf("folder", adapter=…), or leave the adapter out',
            )
        auto_class = AUTO_CLASSES["features" if headed else source.task or task_of(features, label_types)]
        tokens = _named_tokens(source, folder) or inherited or Tokens(None, vocab_size=source.vocab_size or _VOCABULARY)
        config = _config_from_scratch(source, tokens)
        config = with_problem(_label(config, labels, auto_class), role, auto_class, label_types)
        return Blueprint(auto_class, config, tokens, init=source.init)
    name = local(source.name, folder)
    config = read_config(name, source.revision)
    task = "features" if headed else source.task or task_of(features, label_types, config.architectures or ())
    auto_class = AUTO_CLASSES[task]
    _check_overrides(source, config, name)
    tokens = _named_tokens(source, folder) or Tokens(name, source.revision)
    with _refusals(name):
        for key, value in source.config.items():
            setattr(config, key, value)
    if labels and has_classes(auto_class) and _needs_labels(source, config, labels):
        config = _label(config, labels, auto_class)
    if getattr(config, "pad_token_id", None) is None:
        with suppress(SourceFault):  # which says itself that there is no tokenizer, once tokens are asked for
            config.pad_token_id = tokens.padding
    config = with_problem(config, role, auto_class, label_types)
    return Blueprint(auto_class, config, tokens, name if source.pretrained else None, source.revision, source.init)


def local(name: str, folder: Path) -> str:
    """A folder beside the spec where there is one of that name, else the name itself, for the hub."""
    path = (folder / name).expanduser()
    return str(path) if path.is_dir() else name


def _named_tokens(source: Hf, folder: Path) -> Tokens | None:
    if source.tokenizer is None:
        return None
    # a revision is one of the repository that `name` is in, and says nothing about another
    return Tokens(local(source.tokenizer, folder), source.revision if source.tokenizer == source.name else None)


@lru_cache(maxsize=32)
def _read_config(name: str, revision: str | None, _stamp: object) -> PreTrainedConfig:
    try:
        found: PreTrainedConfig = AutoConfig.from_pretrained(name, revision=revision)
        return found
    except (OSError, ValueError, KeyError) as error:
        if Path(name).is_dir():
            raise SourceFault(
                "B310",
                f"the folder `{name}` holds no model: {_first_line(error)}",
                field="name",
                help="it needs config.json, weights and a tokenizer, as save_pretrained writes them",
            ) from error
        looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
        if looks_local:
            raise SourceFault(
                "B310", f"there is no folder `{name}`", field="name", help="paths start at the spec's folder"
            ) from error
        raise SourceFault(
            "B311",
            f"the configuration of `{name}` cannot be reached: {_first_line(error)}",
            field="name",
            help="check the name, connect to the hub, or name a local folder",
        ) from error


def read_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    """A copy of a model's configuration, by folder or hub name. SourceFault B310 or B311 where there is none."""
    config = _read_config(name, revision, _stamp(name))
    copy: PreTrainedConfig = type(config).from_dict(config.to_dict())
    return copy


def _config_from_scratch(source: Hf, tokens: Tokens) -> PreTrainedConfig:
    kind = source.model_type or ""
    if kind not in CONFIG_MAPPING:
        raise SourceFault(
            "B312", f"transformers has no architecture `{kind}`", field="model_type", help=suggest(kind, CONFIG_MAPPING)
        )
    config_class = CONFIG_MAPPING[kind]
    _check_overrides(source, config_class(), kind)
    sized: dict[str, Any] = {"vocab_size": tokens.vocab_size, "pad_token_id": 0}  # the first that is trained here
    if tokens.name is not None:
        size = len(tokens.load())
        if source.vocab_size is not None and source.vocab_size < size:
            message = f"a vocabulary of {source.vocab_size} has no room for the {size} tokens of its tokenizer"
            raise SourceFault("B313", message, field="vocab_size", help="leave it out, or make it larger")
        sized = {"vocab_size": source.vocab_size or size, "pad_token_id": tokens.padding}
    with _refusals(kind):
        return config_class(**{**sized, **source.config})


@contextmanager
def _refusals(kind: str) -> Iterator[None]:
    """What a configuration says to values that it cannot have."""
    try:
        yield
    except (ValueError, TypeError, StrictDataclassError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceFault(
            "B313",
            f"`{kind}` refuses this configuration: {said}",
            help="correct the argument that is named; sizes must fit each other",
        ) from error


def _check_overrides(source: Hf, config: PreTrainedConfig, name: str) -> None:
    """transformers takes any keyword in silence; a name that the configuration lacks is a fault here."""
    known = set(config.to_dict()) | set(config.attribute_map)
    for key in source.config:
        if key not in known:
            shown = sorted(k for k in known if not k.startswith("_"))
            help = _SAID_OTHERWISE.get(key) or suggest(key, shown) or "see the configuration's page in transformers"
            raise SourceFault("B313", f"the configuration of `{name}` has no `{key}`", field=key, help=help)


def _needs_labels(source: Hf, config: PreTrainedConfig, labels: Sequence[str]) -> bool:
    """Whether the classes are set anew: not where a pretrained head of as many classes already names them."""
    return (
        bool(source.labels)
        or config.num_labels != len(labels)
        or set(config.label2id or {}) == {f"LABEL_{i}" for i in range(len(labels))}
    )


def _label(config: PreTrainedConfig, labels: Sequence[str] | None, auto_class: str) -> PreTrainedConfig:
    if labels and auto_class != "AutoModel":
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    return config


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer by folder or hub name; a `SourceFault` where there is none."""
    return _load_tokenizer(name, revision, _stamp(name))


def _stamp(name: str) -> object:
    """What changes when the files of a local folder do: a long session must not go on with those of before."""
    files = Path(name).glob("*.*") if Path(name).is_dir() else ()
    return tuple(
        sorted((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.suffix in (".json", ".txt"))
    )


@lru_cache(maxsize=32)
def _load_tokenizer(name: str, revision: str | None, _stamp: object) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        help = (
            "name one: tokenizer=…"
            if Path(name).is_dir()
            else "connect to the hub, or name a local folder: tokenizer=…"
        )
        raise SourceFault(
            "B314", f"no tokenizer can be loaded from `{name}`: {_first_line(error)}", field="tokenizer", help=help
        ) from error


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what a tokenizer does to text; truncation and padding, which belong to a batch, do not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(sorted(tokenizer.get_vocab().items()))
    copy = type(backend).from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return hashlib.sha256(copy.to_str().encode()).hexdigest()[:16]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
