"""The names of the tensors in a folder of saved weights, without reading the tensors."""

from __future__ import annotations

import json
from pathlib import Path
from pickletools import genops
from typing import TYPE_CHECKING
from zipfile import BadZipFile, ZipFile

from brewgraph.diagnostics import SourceFault

if TYPE_CHECKING:
    from torch import nn

_LEGACY = {"gamma": "weight", "beta": "bias"}
"""Last parts of names that transformers renames when it loads them."""


def saved_names(checkpoint: str, revision: str | None = None) -> frozenset[str]:
    """The names of the tensors in a folder, or in the downloaded files of a hub name: from the header of
    model.safetensors, the index of several files, or the pickle of pytorch_model.bin, which is read and never run.

    Empty if they are unknown: not downloaded, an adapter's folder, a broken file.
    """
    folder = _folder_of(checkpoint, revision)
    if folder is None or (folder / "adapter_config.json").exists():
        return frozenset()
    try:
        # in the order in which from_pretrained looks for them
        if (one := folder / "model.safetensors").is_file():
            with one.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")  # of the JSON header that follows
                header = json.loads(file.read(size)) if size < one.stat().st_size else {}
            return frozenset(header) - {"__metadata__"}
        if (folder / "model.safetensors.index.json").is_file():
            index = folder / "model.safetensors.index.json"
        elif (one := folder / "pytorch_model.bin").is_file():
            return _pickled_names(one)
        else:
            index = folder / "pytorch_model.bin.index.json"
        return frozenset(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration, BadZipFile):
        return frozenset()


def _folder_of(checkpoint: str, revision: str | None) -> Path | None:
    """The folder itself, or that of the downloaded files of a hub name."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(checkpoint, "config.json", revision=revision)
    except HFValidationError:  # no name of the hub
        return None
    return Path(file).parent if isinstance(file, str) else None


def _pickled_names(path: Path) -> frozenset[str]:
    """The texts in the pickle of a file that `torch.save` wrote, which include the names of the tensors."""
    with ZipFile(path) as file:
        pickle = file.read(next(name for name in file.namelist() if name.endswith("/data.pkl")))
    return frozenset(argument for _, argument, _ in genops(pickle) if isinstance(argument, str))


def missing_head(model: nn.Module, names: frozenset[str]) -> str | None:
    """The first parameter of a transformers model's head, if tensors of these `names` hold its base and none of the
    head. None if they hold any of it, if it has no head of its own (a tied one belongs to the base), and if its
    architecture is saved under other names.
    """
    from transformers import PreTrainedModel
    from transformers.conversion_mapping import get_model_conversion_mapping

    if not isinstance(model, PreTrainedModel) or not hasattr(model, model.base_model_prefix):
        return None
    if get_model_conversion_mapping(model, add_legacy=False):
        return None
    prefix = model.base_model_prefix + "."
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    head = [name for name in every if not name.startswith(prefix) and name not in model.all_tied_weights_keys]
    base = {name.removeprefix(prefix) for name in every if name.startswith(prefix)}
    ends = {end for name in names for end in _ends(name)}
    return head[0] if head and base & ends and not ends.intersection(head) else None


def _ends(name: str) -> list[str]:
    """The possible names of a tensor in a model: the name without each of its prefixes."""
    *path, last = name.split(".")
    path.append(_LEGACY.get(last, last))
    return [".".join(path[i:]) for i in range(len(path))]


def headless(checkpoint: str | None, name: str) -> SourceFault:
    """The fault of a teacher whose checkpoint lacks the parameter `name` of its head."""
    message = f"`{checkpoint}` has no trained head for this task: {name} would be random in the teacher"
    help = 'fine-tune it first, as the student of a spec of its own, and name that: brew("teacher.brew")'
    return SourceFault("B325", message, help=help, field="name")
