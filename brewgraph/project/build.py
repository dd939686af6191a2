"""A checked spec to something that trains: examples read, tokenizers at hand, models built, batches laid out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from brewgraph.data.batches import derive_seed
from brewgraph.data.encoding import Collator, Encoding, encode, train_wordpiece
from brewgraph.data.examples import Examples, open_examples
from brewgraph.diagnostics import Diagnostic, SourceFault, SpecError, UsageError, listing
from brewgraph.graph import nodes as n
from brewgraph.graph.passes import node
from brewgraph.models.blueprint import Blueprint, load_tokenizer, tokenizer_fingerprint
from brewgraph.models.loading import build_model, build_python
from brewgraph.project.check import Checked
from brewgraph.recipe.sources import Brew, Hf, Python
from brewgraph.recipe.values import Declaration, ModelDeclaration
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.feeds import Rows
from brewgraph.training.work import Material

_LONGEST = 512
"""Tokens per example where neither the spec, the tokenizer nor the model sets a limit."""


@contextmanager
def blaming(declaration: Declaration) -> Iterator[None]:
    """Turn a `SourceFault` into the spec's fault, with its place."""
    try:
        yield
    except SourceFault as fault:
        raise SpecError([Diagnostic(fault.code, fault.message, declaration.place(fault.field), fault.help)]) from fault


class Workshop:
    """Builds what a checked spec names, each thing once.

    `given` are modules of the caller's own, by model name. `teachers` are the folders of finished students that
    `brew(...)` stands for.
    """

    def __init__(
        self,
        checked: Checked,
        *,
        given: Mapping[str, nn.Module] | None = None,
        teachers: Mapping[str, Path] | None = None,
        allow_python: bool = False,
    ):
        self.checked, self.recipe = checked, checked.recipe
        self.given = dict(given or {})
        self.teachers = dict(teachers or {})
        self.allow_python = allow_python
        self.models: dict[str, nn.Module] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        if unknown := self.given.keys() - self.recipe.models.keys():
            raise UsageError(f"the spec has no model {listing(sorted(unknown))}; it has {listing(self.recipe.models)}")

    # ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def examples(self) -> Examples:
        data = next(iter(self.recipe.data.values()))
        with blaming(data):
            return open_examples(data.source, self.checked.folder)

    def texts(self) -> list[str]:
        train = self.examples.splits["train"]
        return [text for column in train.column_names if column.startswith("text_") for text in train[column]]

    # ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def blueprint(self, name: str) -> Blueprint | None:
        facts = self.checked.facts(self.recipe.models[name])
        return facts.blueprint if facts is not None else None

    def tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a model: its own, its teacher's, or one trained on the data."""
        if name not in self._tokenizers:
            with blaming(self.recipe.models[name]):
                self._tokenizers[name] = self._find_tokenizer(name)
        return self._tokenizers[name]

    def _find_tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        if name in self.teachers:
            return load_tokenizer(str(self.teachers[name]))
        blueprint = self.blueprint(name)
        if blueprint is None:
            others = [m for m in self.recipe.models if m != name and self.blueprint(m) is not None]
            if not others:
                raise SourceFault("B319", f"`{name}` has no tokenizer", help="another model of the spec must have one")
            return self.tokenizer(others[0])
        if blueprint.tokens.name is not None:
            return blueprint.tokens.load()
        for other in self.recipe.models.values():
            # a model from scratch whose tokens are another model's: that one may be trained by now
            theirs = self.blueprint(other.name)
            if (
                other.name != name
                and theirs is not None
                and theirs.tokens == blueprint.tokens
                and isinstance(other.source, Brew)
            ):
                return self.tokenizer(other.name)
        return train_wordpiece(self.texts(), blueprint.tokens.vocab_size)

    # ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def model(self, name: str) -> nn.Module:
        """A model with its weights."""
        if name not in self.models:
            with blaming(self.recipe.models[name]):
                self.models[name] = self.given.get(name) or self._build(self.recipe.models[name])
        return self.models[name]

    def _build(self, model: ModelDeclaration) -> nn.Module:
        seed = derive_seed(self.recipe.train.seed, "model", model.role)
        if isinstance(model.source, Python):
            return build_python(model.source, folder=self.checked.folder, allow=self.allow_python, seed=seed)
        blueprint = self.blueprint(model.name)
        if blueprint is None:
            raise SourceFault(
                "B311", f"`{model.name}` cannot be loaded", help="connect to the hub, or name a local folder"
            )
        if model.name in self.teachers:
            blueprint = replace(blueprint, checkpoint=str(self.teachers[model.name]), init=None, revision=None)
        if blueprint.checkpoint is None:
            tokenizer = self.tokenizer(model.name)
            named = isinstance(model.source, Hf) and model.source.name is not None
            if not named or blueprint.config.vocab_size < len(tokenizer):
                # a named configuration may hold more places than there are tokens: another model's rows still fit it
                blueprint = blueprint.with_vocabulary(len(tokenizer), tokenizer)
        elif model.name in self.teachers:
            blueprint = blueprint.with_vocabulary(len(self.tokenizer(model.name)), self.tokenizer(model.name))
        donors = {blueprint.init.model: self.model(blueprint.init.model)} if blueprint.init else {}
        return build_model(blueprint, seed=seed, frozen=model.role == "teacher", donors=donors)

    def forget_student(self) -> None:
        """The next distiller gets a student of its own, as it was at the beginning."""
        self.models.pop(self.recipe.student.name, None)

    def distiller(self, checked: Checked | None = None) -> Distiller:
        """The module whose loss training lowers; `checked` is the same spec reduced, where not the whole is meant."""
        graph = (checked or self.checked).graph
        if graph is None:
            raise UsageError("the spec names models that cannot be reached; see the warnings of its check")
        used = {f.model for key in graph if isinstance(f := node(graph, key), n.Forward)}
        student = self.recipe.student.name
        models = {name: self.model(name) for name in self.recipe.models if name in used or name == student}
        return Distiller(graph, models, student, seed=self.recipe.train.seed)

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def encodings(
        self, names: Sequence[str], modules: Mapping[str, nn.Module] | None = None
    ) -> tuple[list[Encoding], dict[str, str]]:
        """One encoding per distinct tokenizer, and for each model the key of its own.

        Models of one tokenizer see the same tokens, as many as the shortest of them takes. `modules` stand for the
        models of these names, where not the workshop's own are meant.
        """
        data = next(iter(self.recipe.data.values()))
        module_of = modules or {name: self.model(name) for name in names}
        prints = {name: tokenizer_fingerprint(self.tokenizer(name)) for name in names}
        limits: dict[str, int] = {}
        for name, distinct in prints.items():
            own = min(_limits(self.tokenizer(name), module_of[name]), data.source.max_length or _LONGEST)
            limits[distinct] = min(own, limits.get(distinct, own))
        found: dict[str, Encoding] = {}
        keys: dict[str, str] = {}
        for name, distinct in prints.items():
            if distinct not in found:
                with blaming(self.recipe.models[name]):
                    found[distinct] = Encoding(name, self.tokenizer(name), limits[distinct])
            encoding = found[distinct]
            keys[name] = encoding.key
            config = getattr(module_of[name], "config", None)
            if config is not None and getattr(config, "pad_token_id", None) is None:
                config.pad_token_id = encoding.tokenizer.pad_token_id
        return list(found.values()), keys

    def material(self, distiller: Distiller) -> Material:
        """The encoded splits and the collator for the models that the loss runs."""
        graph = distiller.graph
        running = {f.model for key in graph if isinstance(f := node(graph, key), n.Forward | n.Input)}
        names = [name for name in self.recipe.models if name in running]
        encodings, keys = self.encodings(names)
        splits = {name: encode(split, encodings) for name, split in self.examples.splits.items() if name != "test"}
        collator = Collator(encodings)
        if len(encodings) > 1:
            aliases = {name: key for name, key in keys.items() if name != key}
            return self._material(splits, Shared(collator, aliases) if aliases else collator)
        return self._material(splits, collator)

    def _material(self, splits: Mapping[str, Any], collator: Any) -> Material:
        data = next(iter(self.recipe.data.values()))
        batch, examples = data.source.batch, self.examples
        feeds = {data.name: Rows(splits["train"], collator, batch)}
        return Material(
            feeds, splits.get("dev"), collator, batch, examples.classes, data.name, examples=examples.splits.get("dev")
        )


@dataclass(frozen=True)
class Shared:
    """A collator whose batches show an encoding under the name of every model that reads it."""

    collator: Collator
    aliases: Mapping[str, str]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        return {**batch, **{name: batch[key] for name, key in self.aliases.items()}}


def _limits(tokenizer: PreTrainedTokenizerBase, module: nn.Module) -> int:
    """The longest encoding that tokenizer and position embeddings allow."""
    limits = [int(tokenizer.model_max_length)] if tokenizer.model_max_length < 10**6 else []
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in ("position_embeddings", "wpe"):
            offset = 0 if part.padding_idx is None else part.padding_idx + 1  # RoBERTa counts from behind its padding
            limits.append(part.num_embeddings - offset)
    return min(limits, default=10**6)
