"""Which tensors a folder of saved weights holds, by name, without reading one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from brewgraph.diagnostics import SourceFault

if TYPE_CHECKING:
    from torch import nn

_LEGACY = {"gamma": "weight", "beta": "bias"}
"""Last parts of names that transformers renames when it loads them."""


def saved_names(checkpoint: str) -> frozenset[str]:
    """The names of the tensors in a local folder, from the header of model.safetensors or the index of several files.

    Empty where they are not known: for a name on the hub, one pytorch_model.bin, an adapter's folder, a broken file.
    """
    folder = Path(checkpoint)
    if (folder / "adapter_config.json").exists():
        return frozenset()
    try:
        # in the order in which from_pretrained looks for them
        if (one := folder / "model.safetensors").is_file():
            with one.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")  # of the JSON header that follows
                found = json.loads(file.read(size)) if size < one.stat().st_size else {}
            return frozenset(found) - {"__metadata__"}
        if (folder / "model.safetensors.index.json").is_file():
            index = folder / "model.safetensors.index.json"
        elif (folder / "pytorch_model.bin").is_file():
            return frozenset()
        else:
            index = folder / "pytorch_model.bin.index.json"
        return frozenset(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def missing_head(model: nn.Module, names: frozenset[str]) -> str | None:
    """The first parameter of a transformers model's head, where tensors of these `names` hold its base and none of the
    head. None where they hold any of it, where it has no head of its own (a tied one is the base's), and where its
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
    """A name as it may stand in a model, without each of its prefixes."""
    *path, last = name.split(".")
    path.append(_LEGACY.get(last, last))
    return [".".join(path[i:]) for i in range(len(path))]


def headless(checkpoint: str | None, name: str) -> SourceFault:
    """The fault of a teacher whose parameter `name`, of its head, no checkpoint holds."""
    return SourceFault(
        "B325",
        f"`{checkpoint}` has no trained head for this task: {name} would be random in the teacher",
        field="name",
        help='fine-tune it first, as the student of a spec of its own, and name that: brew("teacher.brew")',
    )
