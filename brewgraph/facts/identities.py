"""What each model and data set of a spec is, whatever its name: the identities that graph hashes are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from brewgraph.digest import digest
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.settings.sources import Brew, Conll, DataSource, Ema, Hf, Join, Python, Squad
from brewgraph.recipe.values import ModelDeclaration

_NOT_CONTENT: dict[str, Any] = {"batch": True, "parts": {"__all__": {"batch"}}}


def _content(source: DataSource | Join) -> dict[str, Any]:
    """What a data set is, as far as its settings tell; the batch size does not count."""
    content: dict[str, Any] = source.model_dump(exclude=_NOT_CONTENT)
    parts = source.parts if isinstance(source, Join) else (source,)
    for settings, part in zip(content.get("parts", (content,)), parts, strict=True):
        if augment := getattr(part, "augment", ()):
            settings["augment"] = repr(augment)  # a dump has fields alone: it does not tell masking from deleting
        for name in ("classes", "quoting"):  # an unset one changes nothing
            if settings.get(name, ()) is None:
                del settings[name]
        if isinstance(part, Conll | Squad) and part.weight is None:  # nor does an unset weight, a later addition
            del settings["weight"]
        if isinstance(part, Squad) and not part.null_threshold:
            del settings["null_threshold"]
    return content


def _settled(source: Hf | Python, identity: Callable[[str], str], names: Collection[str]) -> Hf | Python:
    """A model's source with the identities of other models in place of their names, and keyword arguments sorted."""
    update: dict[str, Any] = {
        key: dict(sorted(value.items()))
        for key in type(source).model_fields
        if isinstance(value := getattr(source, key), dict)
    }
    if isinstance(source, Hf) and source.init is not None:
        update["init"] = source.init.model_copy(update={"model": identity(source.init.model)})
    if isinstance(source, Hf) and source.tokenizer is not None and source.tokenizer in names:
        update["tokenizer"] = identity(source.tokenizer)
    return source.model_copy(update=update)


def identities(recipe: Recipe, other_spec: Callable[[ModelDeclaration], str]) -> Mapping[str, str]:
    """The identity of each model and data set, by name; `other_spec` gives the hash of a `brew(...)` spec."""
    # the batch size is no part of a data set's identity: projections start alike however a batch is split
    known: dict[str, str] = {
        name: digest("data", type(data.source).__name__, repr(_content(data.source)))
        for name, data in recipe.data.items()
    }
    visiting: set[str] = set()

    def identity(name: str) -> str:
        if name in known or name in visiting:
            return known.get(name, "circle")
        visiting.add(name)
        model = recipe.models[name]
        if isinstance(model.source, Brew):
            known[name] = digest(model.role, other_spec(model))
        elif isinstance(model.source, Ema):
            source = model.source.model_dump(exclude={"model"})
            known[name] = digest(model.role, "ema", sorted(source.items()), identity(model.source.model))
        else:
            text = repr(_settled(model.source, identity, recipe.models))
            text += repr(sorted(model.heads.items())) if model.heads else ""
            known[name] = digest(model.role, text)
            # two calls of a factory may give two models
            twins = [x for x in known if x != name and known[x] == known[name] and isinstance(model.source, Python)]
            if twins:
                known[name] = digest(model.role, text, len(twins))
        return known[name]

    for name in recipe.models:
        identity(name)
    return known
