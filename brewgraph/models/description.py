"""A model before it is built, decided from configurations alone: class, configuration, weights, tokens."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from brewgraph.diagnostics import SourceFault, suggest
from brewgraph.models import bigru  # noqa: F401  (registers the architecture with transformers)
from brewgraph.models.task_heads import (
    AUTO_CLASSES,
    Head,
    has_classes,
    name_classes,
    several_outputs,
    task_of,
    with_problem,
)
from brewgraph.models.tokenization import Tokens, check_plain, first_line, local, own_tokens, stamp_of
from brewgraph.paths import no_path, read_json
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import LABEL_TYPES, VALUE, Form, LabelType
from brewgraph.recipe.settings.model_sources import Hf, Layers, Lora
from brewgraph.syntax.foreign import instead

_DECIDED = ("id2label", "label2id", "dtype", "torch_dtype")
"""Keys of configurations that other parts of a spec decide."""


@dataclass(frozen=True)
class ModelDescription:
    """A model before it is built. `checkpoint` is where its weights are, None for random ones.

    With `heads` (by name), the model is a `HeadedModel` and `auto_class` that of its trunk alone. An `adapter` is
    trained instead of the trunk. `order` reorders its classes, by their places in the configuration; empty for none.
    `number_format` is that of its weights in memory, `quantization` how those of its linear layers are rounded.
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
    number_format: str = "fp32"
    quantization: str | None = None

    @property
    def model_class(self) -> Any:
        return getattr(transformers, self.auto_class)

    @property
    def labels(self) -> tuple[str, ...]:
        if not has_classes(self.auto_class) or self.config.problem_type == VALUE.problem_type:
            return ()
        labels = tuple(str(label) for _, label in sorted((self.config.id2label or {}).items()))
        return tuple(labels[i] for i in self.order) if self.order else labels

    def vocabulary(self, head: str | None = None) -> int | None:
        """How many entries the logits of a head have where they are over a vocabulary; None where they are not."""
        guesses = {x.auto_class for x in LABEL_TYPES.values() if x.over_vocabulary}
        auto_class = self.heads[head].auto_class if head is not None else self.auto_class
        size: int | None = getattr(self.config.get_text_config(), "vocab_size", None)
        return size if auto_class in guesses else None

    def with_vocabulary(self, size: int, tokenizer: PreTrainedTokenizerBase) -> ModelDescription:
        """The same model from scratch, for a vocabulary of this size."""
        config = type(self.config)(
            **{**self.config.to_dict(), "vocab_size": size, "pad_token_id": tokenizer.pad_token_id}
        )
        return replace(self, config=config)


def describe_model(
    source: Hf,
    *,
    role: str,
    folder: Path,
    features: Collection[Feature],
    classes: Sequence[str],
    inherited: Tokens | None,
    label_types: Collection[LabelType] = (),
    heads: Mapping[str, Head] | None = None,
) -> ModelDescription:
    """The description of `hf(...)`. `inherited` is the tokenizer that a model takes over from another, if any.

    `label_types` are those of the data that the model's logits are matched with, `heads` the heads of a student with
    several.
    """
    headed = bool(heads)
    numbers = bool(label_types) and all(kind.form is Form.NUMBER for kind in label_types)
    if role == "student" and numbers and not headed and len(source.labels or ()) > 1:
        raise several_outputs(len(source.labels or ()))
    labels = source.labels or (tuple(classes) if role == "student" else None)
    if source.adapter is not None and source.is_random and source.init is None:
        message = "an adapter needs pretrained weights: random ones would stay untrained"
        help = (
            'name a model with weights: hf("folder", adapter=…)' if source.name is None else "remove `pretrained=false`"
        )
        raise SourceFault("B329", message, help=f"{help}, or remove the adapter", field="adapter")
    if source.name is None:
        auto_class = AUTO_CLASSES["features" if headed else source.task or task_of(features, label_types)]
        tokens = own_tokens(source, folder, inherited)
        config = _config_from_scratch(source, tokens)
        if labels and auto_class != "AutoModel":
            name_classes(config, labels)
        checkpoint, revision = None, None
    else:
        name = local(source.name, folder)
        config = read_config(name, source.revision)
        task = "features" if headed else source.task or task_of(features, label_types, config.architectures or ())
        auto_class = AUTO_CLASSES[task]
        _check_overrides(source, config, source.name)
        tokens = own_tokens(source, folder, inherited)
        if source.pretrained and tokens.name != name:
            _check_room(config, tokens, source.name)
        config = _adapted(source, config, tokens, labels, auto_class)
        checkpoint, revision = name if source.pretrained else None, source.revision
    return ModelDescription(
        auto_class,
        with_problem(config, role, auto_class, label_types),
        tokens,
        checkpoint,
        revision,
        source.init,
        heads=dict(heads or {}),
        adapter=source.adapter,
        number_format=source.number_format,
        quantization=source.quantization,
    )


def _adapted(
    source: Hf, config: PreTrainedConfig, tokens: Tokens, labels: Sequence[str] | None, auto_class: str
) -> PreTrainedConfig:
    """A checkpoint's configuration with what the source overrides, its classes, and the padding token."""
    with _refusals(source.name or ""):
        layers = getattr(config, "num_hidden_layers", None)
        for key, value in _as_json(source.config).items():
            setattr(config, key, value)
        if source.config:
            _fit_kinds(config, layers, source.config)
            config.validate()  # which saving does as well, after the training
    if labels and has_classes(auto_class) and _needs_labels(source, config, labels):
        name_classes(config, labels)
    if getattr(config, "pad_token_id", None) is None:
        with suppress(SourceFault):  # which says itself that there is no tokenizer, once tokens are asked for
            config.pad_token_id = tokens.padding
    return config


def _fit_kinds(config: PreTrainedConfig, before: int | None, overrides: Collection[str]) -> None:
    """Fit settings with one value per layer, such as `layer_types`, to another number of layers: fewer layers take the
    first values, more take those of the architecture.
    """
    now = getattr(config, "num_hidden_layers", None)
    settings = config.to_dict()
    lists = {key: value for key, value in settings.items() if "layer" in key and isinstance(value, list)}
    kinds = [key for key, value in lists.items() if len(value) == before and key not in overrides]
    if before is None or now is None or now == before or not kinds:
        return
    longer = type(config)(**{key: value for key, value in settings.items() if key not in kinds})
    for key in kinds:
        setattr(config, key, settings[key][:now] if now < before else getattr(longer, key))


_COUNTS = ((re.compile(r"layer|block|stage|depth"), 512), (re.compile(r"expert|num_labels"), 100_000))
"""Settings that count modules or classes, each of which takes time and memory before any weight is read, with the
most of them that are built.
"""
_LARGEST_CONFIG = 1 << 24
"""Bytes."""


def _beyond(settings: Mapping[str, Any]) -> tuple[str, int, int] | None:
    """A setting that asks for more modules or classes than are built: its name, its value, and the most."""
    for key, value in settings.items():
        most = next((most for name, most in _COUNTS if name.search(key)), None)
        if most is not None and isinstance(value, int | float) and value > most:
            return key, int(min(value, 1 << 62)), most
        if isinstance(value, Mapping) and (beyond := _beyond(value)) is not None:
            return beyond
    return None


def _check_file(name: str) -> None:
    """SourceFault B310 for a config.json that is no object, or that asks for far too much, and for what is no file."""
    check_plain(name, "B310", "name")
    path = Path(name, "config.json")
    if not path.is_file():
        return
    what, beyond = "it is not an object of settings", None
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has more than {_LARGEST_CONFIG:,} bytes")
        if isinstance(content := read_json(path), dict):
            if (beyond := _beyond(content)) is None:
                return
            what = f"`{beyond[0]}` is {beyond[1]:,}, and at most {beyond[2]:,} are built"
    except (OSError, ValueError) as error:
        what = first_line(error)
    help = "copy the folder again: save_pretrained writes it"
    raise SourceFault("B310", f"config.json in the folder `{name}` cannot be used: {what}", help=help, field="name")


@lru_cache(maxsize=32)
def _read_config(name: str, revision: str | None, _stamp: object) -> PreTrainedConfig:
    _check_file(name)
    try:
        return cast(PreTrainedConfig, AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        if Path(name).is_dir():
            message = f"the folder `{name}` holds no model: {first_line(error)}"
            help = "it needs config.json, weights and a tokenizer, as save_pretrained writes them"
            raise SourceFault("B310", message, help=help, field="name") from error
        looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
        if looks_local:
            help = no_path(name) or "paths start at the spec's folder"
            raise SourceFault("B310", f"there is no folder `{name}`", help=help, field="name") from error
        message = f"the configuration of `{name}` cannot be reached: {first_line(error)}"
        help = "check the name, connect to the hub, or name a local folder"
        raise SourceFault("B311", message, help=help, field="name") from error


def read_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    """A copy of a model's configuration, by folder or hub name. SourceFault B310 or B311 where there is none."""
    config = _read_config(name, revision, stamp_of(name))
    return type(config).from_dict(config.to_dict())


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
        return config_class(**{**sized, **_as_json(source.config)})


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's overrides as `config.json` would have them: lists, where the spec's values are immutable."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}


def _check_room(config: PreTrainedConfig, tokens: Tokens, name: str) -> None:
    """SourceFault B313 where pretrained weights have no embeddings for all tokens of a tokenizer from elsewhere."""
    message = f"the weights of `{name}` cannot read a vocabulary that is trained on the data"
    if tokens.name is not None:
        room, size = getattr(config.get_text_config(), "vocab_size", None), 0
        with suppress(SourceFault):  # which says itself that there is none, once tokens are asked for
            size = len(tokens.load())
        if room is None or size <= room:
            return
        message = f"the weights of `{name}` have {room} embeddings, and its tokenizer has {size} tokens"
    help = "leave `tokenizer` out, or let it begin at random: pretrained=false"
    raise SourceFault("B313", message, field="tokenizer", help=help)


@contextmanager
def _refusals(kind: str) -> Iterator[None]:
    """Turns a configuration's error about its values into SourceFault B313."""
    try:
        yield
    except (ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        help = "correct the argument that is named; sizes must fit each other"
        raise SourceFault("B313", f"`{kind}` refuses this configuration: {reason}", help=help) from error


def _check_overrides(source: Hf, config: PreTrainedConfig, name: str) -> None:
    """transformers takes any keyword in silence; a name that the configuration lacks is a fault here."""
    keys = set(config.to_dict()) | set(config.attribute_map)
    if (beyond := _beyond(source.config)) is not None:
        key, value, most = beyond
        message = f"`{key}` is {value:,}, and at most {most:,} are built"
        raise SourceFault("B313", message, field=key, help="write a smaller number")
    for key in source.config:
        if key in _DECIDED:
            help = instead("configuration", key, Hf.model_fields)
            raise SourceFault("B313", f"a spec decides `{key}` elsewhere", field=key, help=help)
        if key not in keys:
            shown = sorted(k for k in keys if not k.startswith("_"))
            help = instead("configuration", key, [*shown, *Hf.model_fields])
            help = help or "see the configuration's page in transformers"
            raise SourceFault("B313", f"the configuration of `{name}` has no `{key}`", field=key, help=help)


def _needs_labels(source: Hf, config: PreTrainedConfig, labels: Sequence[str]) -> bool:
    """Whether the classes are set anew: not where a pretrained head of as many classes already names them."""
    return (
        bool(source.labels)
        or config.num_labels != len(labels)
        or set(config.label2id or {}) == {f"LABEL_{i}" for i in range(len(labels))}
    )
