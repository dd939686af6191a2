"""Ready tensors in order: `batches("folder")`.

A folder holds `batches.safetensors` and perhaps `dev.safetensors`. Their keys are `INDEX.FIELD`, or
`INDEX.MODEL.FIELD` for what a model of the spec sees in place of the common field; INDEX counts from 0, and all of one
index are one micro-batch, with its rows along the first axis of each tensor. For example:

    safetensors.torch.save_file({"0.input_ids": ids, "0.attention_mask": mask, "0.labels": labels}, path)

Fields are called as in any other batch (`input_ids`, `attention_mask`, `labels`, `start`, `end`, `weights`, …);
`start_positions` and `end_positions`, transformers' names, mean `start` and `end`. A model with fields of its own takes
the other inputs from the common ones.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from brewgraph.data.batching.order import derive_seed
from brewgraph.data.sources.reader import DataFacts
from brewgraph.diagnostics import SourceFault, listing, suggest
from brewgraph.paths import locate, nearby
from brewgraph.recipe.label_types import TAGS, VALUE
from brewgraph.recipe.settings.data_sources import Batches

Batch = dict[str, Any]
"""Tensors by field, and under the name of a model such a dictionary of its own."""
Key = tuple[str, str]
"""The model, empty for all of them, and the field."""

FILES = {"train": "batches.safetensors", "dev": "dev.safetensors"}
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "words")
"""Fields that a model without its own shares with the others."""

_OTHER_NAMES = {"start_positions": "start", "end_positions": "end"}


@dataclass(frozen=True)
class ReadyBatches:
    """The batches of a folder, on the CPU: whole numbers int64, labels of type `classes` and `value` float32.

    Each holds `index` (int64, rows): the row's number in its file, counted over all batches before it. `models` are the
    names of the models with fields of their own, `fingerprint` is a sha256 in hex of all tensors that are trained and
    evaluated on, whatever their folder.
    """

    train: tuple[Batch, ...]
    dev: tuple[Batch, ...]
    shuffle: bool
    models: frozenset[str]
    fingerprint: str

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.train)

    def epoch(self, epoch: int, *, seed: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, from number `start` on. The order of shuffled batches is a function
        of (seed, epoch).
        """
        order = numpy.arange(len(self.train))
        if self.shuffle:
            order = numpy.random.default_rng(derive_seed(seed, epoch)).permutation(order)
        return (self.train[number] for number in order[start:])


def open_batches(source: Batches, folder: Path, models: Collection[str] | None = None) -> ReadyBatches:
    """Read what `source` names; a relative path starts at `folder`. `models` are those of the spec, if known.

    Raises `SourceFault`: B401 for a missing folder or file, B403 for labels, B404 for any other fault of the files, all
    of them before a tensor is read.
    """
    paths, layouts = _read_headers(source, folder)
    owners = frozenset(model for layout in layouts.values() for batch in layout for model, _ in batch if model)
    if models is not None and (unknown := sorted(owners - set(models))):
        help = f"call the model so, or rename the fields: the spec has {listing(models)}"
        message = f"`{source.folder}` has fields of `{unknown[0]}`, and the spec has no such model"
        raise _fault(message, f"{suggest(unknown[0], models)} {help}".strip())
    read = {split: _read(paths[split], layout, source) for split, layout in layouts.items()}
    read["train"] = read["train"][_chosen(source)]
    return ReadyBatches(tuple(read["train"]), tuple(read.get("dev", ())), source.shuffle, owners, _fingerprint(read))


def batch_facts(source: Batches, folder: Path) -> DataFacts:
    """Fields and rows, from the files' headers alone; the classes are unknown. Raises like `open_batches`."""
    _, layouts = _read_headers(source, folder)
    used = {**layouts, "train": layouts["train"][_chosen(source)]}
    rows = {split: sum(_rows(batch) for batch in layout) for split, layout in used.items()}
    return DataFacts((), tuple(dict.fromkeys(field for model, field in used["train"][0] if not model)), rows)


def batch_fields(source: Batches, folder: Path, model: str) -> frozenset[str]:
    """The fields of a batch for a model: its own, and the common ones. Raises like `open_batches`."""
    _, layouts = _read_headers(source, folder)
    return frozenset(field for owner, field in layouts["train"][0] if owner in ("", model))


def largest_batch(source: Batches, folder: Path) -> Batch:
    """Zeros in the sizes of the largest training batch, from the files' headers alone. Raises like `open_batches`."""
    _, layouts = _read_headers(source, folder)
    largest = max(layouts["train"][_chosen(source)], key=lambda batch: sum(math.prod(x.shape) for x in batch.values()))
    tensors = {
        key: torch.zeros(x.shape, dtype=torch.int64 if x.whole and not _is_float(key, source) else torch.float32)
        for key, x in largest.items()
    }
    return _nested({**tensors, ("", "index"): torch.arange(_rows(largest))})


def _chosen(source: Batches) -> slice:
    """The batches of a file that a source trains on."""
    return slice(source.first, None if source.last is None else source.last + 1)


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Stored:
    """A tensor that is not read yet."""

    name: str
    shape: tuple[int, ...]
    whole: bool


_Layout = list[dict[Key, _Stored]]


def _read_headers(source: Batches, folder: Path) -> tuple[dict[str, Path], dict[str, _Layout]]:
    """The paths of the existing files, and their layouts, checked."""
    place = locate(source.folder, folder, "folder").resolve()
    if not place.is_dir():
        raise SourceFault("B401", f"there is no folder `{source.folder}`", help=nearby(place), field="folder")
    paths = {split: place / name for split, name in FILES.items() if (place / name).is_file()}
    if "train" not in paths:
        help = f"{nearby(place)}; write the file with `safetensors.torch.save_file`, keys `INDEX.FIELD`"
        raise SourceFault("B401", f"there is no `{FILES['train']}` in `{source.folder}`", help=help, field="folder")
    layouts = {split: _layout(path, source) for split, path in paths.items()}
    for field, number in (("first", source.first), ("last", source.last)):
        if number is not None and number >= len(layouts["train"]):
            message = f"`{source.folder}` has {len(layouts['train'])} batches, and no batch {number}"
            help = f"they are counted from 0: the last one is {len(layouts['train']) - 1}"
            raise SourceFault("B404", message, help=help, field=field)
    return paths, layouts


def _layout(path: Path, source: Batches) -> _Layout:
    """The tensors of each batch of a file."""
    batches: dict[int, dict[Key, _Stored]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                index, key = _parse(name, path)
                tensor = file.get_slice(name)
                kind = tensor.get_dtype()
                stored = _Stored(name, tuple(tensor.get_shape()), kind[0] in "IU" or kind == "BOOL")
                batches.setdefault(index, {})[key] = stored
    except (SafetensorError, OSError) as error:
        help = "write it again with `safetensors.torch.save_file`"
        raise _fault(f"`{path.name}` cannot be read: {error}", help) from error
    if not batches:
        raise _fault(f"`{path.name}` holds no tensor", "its keys are `INDEX.FIELD`: `0.input_ids`, `0.labels`, …")
    gap = next(index for index in count() if index not in batches)
    if gap < len(batches):
        help = "number the batches from 0 on, without a gap"
        raise _fault(f"`{path.name}` has a batch {max(batches)}, and no batch {gap}", help)
    layout = [batches[index] for index in range(len(batches))]
    for index, batch in enumerate(layout):
        _check_batch(path.name, index, batch, layout[0])
        _check_labels(path.name, index, batch, source)
    return layout


def _parse(name: str, path: Path) -> tuple[int, Key]:
    """`3.input_ids`, `3.teacher.input_ids`."""
    parts = re.fullmatch(r"(0|[1-9][0-9]*)(?:\.([^.]+))?\.([^.]+)", name)
    if parts is None:
        help = "keys are `INDEX.FIELD` or `INDEX.MODEL.FIELD`: `0.input_ids`, `0.bert.input_ids`"
        raise _fault(f"`{name}` in `{path.name}` is not a key of ready batches", help)
    return int(parts[1]), (parts[2] or "", _OTHER_NAMES.get(parts[3], parts[3]))


def _check_batch(file: str, index: int, batch: Mapping[Key, _Stored], first: Mapping[Key, _Stored]) -> None:
    """The fields of the first batch, one number of rows, and inputs of one length for each model."""
    for key in first.keys() ^ batch.keys():
        has, lacks = (0, index) if key in first else (index, 0)
        message = f"batch {has} of `{file}` has `{'.'.join(filter(None, key))}`, and batch {lacks} has not"
        raise _fault(message, "write the same fields in every batch")
    some = next(iter(batch.values()))
    for tensor in batch.values():
        if not tensor.shape or tensor.shape[0] == 0:
            raise _fault(f"`{tensor.name}` in `{file}` has no rows", "the first axis of each tensor counts its rows")
        if tensor.shape[0] != some.shape[0]:
            message = f"`{some.name}` in `{file}` has {some.shape[0]} rows, and `{tensor.name}` has {tensor.shape[0]}"
            raise _fault(message, "the first axis of each tensor counts the rows of its batch")
    for model in dict.fromkeys(model for model, _ in batch):
        inputs = [batch[place] for field in INPUTS[:3] if (place := _key(batch, model, field)) is not None]
        for tensor in inputs[1:]:
            if tensor.shape[:2] != inputs[0].shape[:2]:
                help = "the inputs of one model are equally long"
                if model:
                    field = tensor.name.rpartition(".")[2]
                    help = f"write `{index}.{model}.{field}` too, as long as its own `input_ids`"
                size = f"`{inputs[0].name}` in `{file}` is {_size(inputs[0])}"
                raise _fault(f"{size}, and `{tensor.name}` is {_size(tensor)}", help)


def _check_labels(file: str, index: int, batch: Mapping[Key, _Stored], source: Batches) -> None:
    """The label fields that the label type asks for, with its axes."""
    kind = source.label_type
    for field in kind.fields:
        places = [key for key in batch if key[1] == field and (not key[0] or kind.aligned)]
        if not places:
            raise _label_fault(f"batch {index} of `{file}` has no `{field}`", source, f"write `{index}.{field}`, or")
        for key in places:
            tensor, inputs = batch[key], _key(batch, key[0], "input_ids")
            if len(tensor.shape) != kind.axes or (kind.per_token and inputs and batch[inputs].shape != tensor.shape):
                wanted = "one for each token" if kind.per_token else ("rows", "rows × classes")[kind.axes - 1]
                message = f"`{tensor.name}` in `{file}` is {_size(tensor)}, and not {wanted}"
                raise _label_fault(message, source, "write them in this shape, or")
            if not (kind.is_float or tensor.whole):
                raise _label_fault(f"`{tensor.name}` in `{file}` holds floats", source, "write them as int64, or")


def _label_fault(message: str, source: Batches, help: str) -> SourceFault:
    message = f"{message}: expected labels of type `{source.label_type}`"
    help += f' say what the labels are: `labels="{VALUE}"`, `labels="{TAGS}"`, …, or `labels=none` for none at all'
    return SourceFault("B403", message, help=help, field="labels")


def _key(batch: Mapping[Key, _Stored], model: str, field: str) -> Key | None:
    """The key of a model's field: its own, or the common one."""
    return next((key for key in ((model, field), ("", field)) if key in batch), None)


def _is_float(key: Key, source: Batches) -> bool:
    """Whether a field holds labels that are floats."""
    return source.label_type.is_float and key[1] in source.label_type.fields


def _rows(batch: Mapping[Key, _Stored]) -> int:
    return next(iter(batch.values())).shape[0]


def _size(tensor: _Stored) -> str:
    return " × ".join(map(str, tensor.shape))


def _fault(message: str, help: str) -> SourceFault:
    return SourceFault("B404", message, help=help, field="folder")


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(path: Path, layout: _Layout, source: Batches) -> list[Batch]:
    starts = accumulate((_rows(batch) for batch in layout), initial=0)
    with safe_open(path, framework="pt") as file:
        read = []
        for batch, start in zip(layout, starts, strict=False):
            tensors = {}
            for key, stored in batch.items():
                tensor = file.get_tensor(stored.name)
                number = torch.float32 if _is_float(key, source) else torch.int64 if stored.whole else tensor.dtype
                tensors[key] = tensor.to(number, copy=True)  # who writes the file during the run changes no batch of it
            tensors.setdefault(("", "index"), torch.arange(start, start + _rows(batch)))
            read.append(_nested(tensors))
    return read


def _nested(tensors: Mapping[Key, Tensor]) -> Batch:
    """The common fields, and under each model with fields of its own all its fields."""
    batch: Batch = {field: tensor for (model, field), tensor in tensors.items() if not model}
    for model in dict.fromkeys(model for model, _ in tensors if model):
        fields = {field: tensor for (name, field), tensor in tensors.items() if name == model}
        batch[model] = {**{field: batch[field] for field in INPUTS if field in batch}, **fields}
    return batch


def _fingerprint(splits: Mapping[str, list[Batch]]) -> str:
    """A sha256 of all tensors with their names, kinds and shapes."""
    digest = hashlib.sha256()
    for split, batches in splits.items():
        for number, batch in enumerate(batches):
            for key in sorted(batch.keys() - {"index"}):
                value = batch[key]
                for field, tensor in sorted(value.items() if isinstance(value, dict) else [("", value)]):
                    name = f"{key}.{field}" if field else key
                    digest.update(f"{split} {number} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
