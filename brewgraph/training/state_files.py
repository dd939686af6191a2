"""A nested state on disk: tensors in `state.safetensors`, everything else in `state.json`. Neither can hold code.

In the JSON a tensor is `{"tensor": NAME}`, a tuple `{"tuple": […]}`, a dictionary `{"items": [[key, value], …]}`, whose
keys need not be strings; lists, numbers, strings and None stand for themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

from safetensors.torch import load_file, save_file
from torch import Tensor

from brewgraph.paths import is_file, read_json

Nested: TypeAlias = "bool | int | float | str | Tensor | list[Nested] | tuple[Nested, ...] | dict[Any, Any] | None"
_Plain: TypeAlias = "bool | int | float | str | list[_Plain] | dict[str, _Plain] | None"

FILES = ("state.safetensors", "state.json")


def write_state(content: Nested, folder: Path) -> None:
    """Write a state into a folder. Raises `TypeError` for what it cannot hold."""
    tensors: dict[str, Tensor] = {}
    plain = _plain(content, tensors, {}, set())
    save_file(tensors, folder / FILES[0])
    (folder / FILES[1]).write_text(json.dumps(plain), encoding="utf-8")


def read_state(folder: Path) -> Nested:
    """The state that `write_state` wrote, with its tensors on the CPU. Raises `OSError`, `ValueError`, `KeyError`,
    `TypeError` or `SafetensorError` for other files.
    """
    if not is_file(folder / FILES[0]):
        raise FileNotFoundError(f"it has no file {FILES[0]}")
    tensors = load_file(folder / FILES[0])
    plain: Any = read_json(folder / FILES[1])
    try:
        return _nested(plain, tensors)
    except RecursionError:
        raise ValueError(f"{FILES[1]} is nested too deeply") from None


def _plain(x: Nested, tensors: dict[str, Tensor], names: dict[object, str], storages: set[int]) -> _Plain:
    """A value as JSON holds it. Its tensors go to `tensors`, each once: `names` tells which memory is there under which
    name, `storages` of which storage some memory is.
    """
    match x:
        case None | bool() | int() | float() | str():
            return x
        case Tensor():
            x = x.detach().contiguous()
            memory = (x.device, x.data_ptr(), x.dtype, tuple(x.shape)) if x.numel() else (None, len(tensors))
            if memory not in names:
                names[memory] = str(len(tensors))
                storage = x.untyped_storage().data_ptr()
                # safetensors refuses tensors that share a part of their memory
                tensors[names[memory]] = x.clone() if storage in storages else x
                storages.add(storage)
            return {"tensor": names[memory]}
        case list():
            return [_plain(item, tensors, names, storages) for item in x]
        case tuple():
            return {"tuple": [_plain(item, tensors, names, storages) for item in x]}
        case dict():
            return {"items": [[key, _plain(item, tensors, names, storages)] for key, item in x.items()]}
    raise TypeError(f"a state cannot hold a value of type {type(x).__name__}")


def _nested(x: _Plain, tensors: dict[str, Tensor]) -> Nested:
    match x:
        case {"tensor": str(name)}:
            return tensors[name]
        case {"tuple": list(items)}:
            return tuple(_nested(item, tensors) for item in items)
        case {"items": list(pairs)}:
            return dict(_pair(pair, tensors) for pair in pairs)
        case list():
            return [_nested(item, tensors) for item in x]
        case dict():
            raise ValueError(f"{FILES[1]} is not a saved state")
    return x


def _pair(pair: _Plain, tensors: dict[str, Tensor]) -> tuple[_Plain, Nested]:
    match pair:
        case [str() | int() as key, item]:
            return key, _nested(item, tensors)
    raise ValueError(f"{FILES[1]} is not a saved state")
