"""What each model and data set of a spec is, whatever its name: the identities that graph hashes are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from brewgraph.digest import digest
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.settings.model_sources import ModelSource
from brewgraph.recipe.values import ModelDeclaration


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
            source = model.source.model_dump(exclude={"model"})
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
