"""Kinds of layers: sliding or full attention, rotary positions or none, with or without a norm or experts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

Value = str | int | None


@dataclass(frozen=True)
class Kind:
    """A layer's parameters with their shapes, and the settings of its modules by `path.attribute`: texts, switches, and
    whether a size is set.
    """

    parameters: Mapping[str, tuple[int, ...]]
    settings: Mapping[str, Value]


def kinds_of(model: nn.Module, paths: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds of these layers. `layer_types` of the configuration is the setting of that name."""
    layers = [model.get_submodule(path) for path in paths]
    types = getattr(getattr(model, "config", None), "layer_types", None) or ()
    settings = [_settings(layer) for layer in layers]
    counters = {key for key in set().union(*settings) if _counts(key, settings)}
    return tuple(
        Kind(
            {name: tuple(value.shape) for name, value in layer.state_dict(keep_vars=True).items()},
            ({"layer_types": types[i]} if len(types) == len(layers) else {})
            | {key: _switch(value) for key, value in values.items() if key not in counters},
        )
        for i, (layer, values) in enumerate(zip(layers, settings, strict=True))
    )


def telling(*models: Collection[Kind]) -> frozenset[str]:
    """The settings that tell layers apart: those that vary within one of the models, and those named as a type.

    A setting that is equal in all layers of a model, such as a dropout, belongs to its configuration.
    """
    telling_keys: set[str] = set()
    for kinds in models:
        for key in set().union(*(kind.settings for kind in kinds)):
            values = {kind.settings[key] for kind in kinds if key in kind.settings}
            if len(values) > 1 or key.endswith(("_type", "_types")):
                telling_keys.add(key)
    return frozenset(telling_keys)


def difference(one: Kind, other: Kind, keys: Collection[str]) -> tuple[str, Value, Value] | None:
    """The first setting in which two layers differ, with both values; None where they are of one kind."""
    for key in sorted(keys, key=lambda key: (key != "layer_types", key)):
        if key in one.settings and key in other.settings and one.settings[key] != other.settings[key]:
            return key, one.settings[key], other.settings[key]
    return None


def _settings(layer: nn.Module) -> dict[str, Value]:
    return {
        f"{path}.{name}" if path else name: value
        for path, module in layer.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and (value is None or isinstance(value, str | int))
    }


def _counts(key: str, layers: Sequence[Mapping[str, Value]]) -> bool:
    """Whether a setting is the layer's own number."""
    return all(layer.get(key, i) == i for i, layer in enumerate(layers)) and not isinstance(layers[0].get(key), bool)


def _switch(value: Value) -> Value:
    """A size as `set`, whatever it is; 1 and 0, which may mean yes and no, stay."""
    return value if not isinstance(value, int) or value in (0, 1) else "set"
