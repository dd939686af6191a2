"""Low-rank adapters (LoRA) through peft: added to a model in place, merged for saving.

The model keeps its class and its module paths: each adapted linear map is replaced by one that holds the frozen map and
two small matrices beside it (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1).
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from brewgraph.diagnostics import RunError, SourceFault
from brewgraph.models.heads import HeadedModel, trunk_of
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.settings.model_sources import Lora


def add_adapter(model: nn.Module, lora: Lora, *, empty: bool = False) -> None:
    """Add an adapter to the trunk of a transformers model, in place.

    Afterwards the adapter's matrices and everything outside the trunk (the heads) are trainable, the rest is frozen.
    The model's outputs stay the same, as one of each two matrices begins at zero; the other draws from the global
    generator. With `empty` the matrices have no values (meta device).
    Raises SourceFault B334 if the targets are no linear maps of the model, RunError if peft is not installed.
    """
    peft = _peft()
    trunk, training = _base(model), model.training
    targets = list(lora.target or _usual_targets(model, trunk))
    linear = [m for path, m in trunk.named_modules() if any(path == t or path.endswith(f".{t}") for t in targets)]
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in linear),
    )
    try:
        peft.inject_adapter_in_model(config, trunk, low_cpu_mem_usage=empty)
    except ValueError as error:
        message = f"{type(model).__name__} cannot have this adapter: {str(error).splitlines()[0]}"
        help = "target= names linear maps by the ends of their paths, such as " + ", ".join(_linear_names(trunk)[:8])
        raise SourceFault("B334", message, help=help, field="adapter") from error
    inside = {id(p) for p in trunk.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in inside:  # a tied output layer is the trunk's, and frozen with it
            parameter.requires_grad_(True)
    model.train(training)


def has_adapter(model: nn.Module) -> bool:
    """Whether `add_adapter` has changed this model."""
    return hasattr(_base(model), "peft_config")


def merged(model: nn.Module) -> nn.Module:
    """A copy of an adapted model with each adapter added to the weights beside it."""
    layer_class = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    copied = copy.deepcopy(model)
    for path, module in list(copied.named_modules()):
        if isinstance(module, layer_class):
            layer: Any = module
            layer.merge(safe_merge=True)  # raises instead of writing weights that are not finite
            parent, _, name = path.rpartition(".")
            setattr(copied.get_submodule(parent), name, layer.get_base_layer())
    del _base(copied).peft_config
    return copied.requires_grad_(True)


def save_adapter(model: nn.Module, folder: Path | str) -> None:
    """Write the trained parameters alone in peft's format: `PeftModel.from_pretrained(base, folder)` loads them.

    A model with heads gets one folder per head.
    """
    folder = Path(folder)
    if isinstance(model, HeadedModel):
        for name, head in model.heads.items():
            save_adapter(head, folder / name)
        return
    trunk = _base(model)
    path = next(name for name, module in model.named_modules() if module is trunk)
    prefix = f"{path}." if path else ""
    lora = {f"{prefix}{key}": value for key, value in _peft().get_peft_model_state_dict(trunk).items()}
    children = ((name, child) for name, child in model.named_children() if path and child is not trunk)
    heads = [name for name, child in children if any(parameter.requires_grad for parameter in child.parameters())]
    of_heads = {key: value for key, value in model.state_dict().items() if key.split(".")[0] in heads}
    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, Tensor] = {
        f"base_model.model.{key}": value.detach().clone().contiguous() for key, value in {**lora, **of_heads}.items()
    }
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: Any = copy.deepcopy(trunk.peft_config["default"])
    config.modules_to_save = heads or None
    config.base_model_name_or_path = getattr(getattr(model, "config", None), "_name_or_path", None) or None
    config.inference_mode = True
    config.save_pretrained(str(folder))


def _base(model: nn.Module) -> Any:
    trunk: Any = trunk_of(model)
    return getattr(trunk, "base_model", trunk)


def _usual_targets(model: nn.Module, trunk: nn.Module) -> list[str]:
    """peft's default targets of this architecture, or else every linear map inside the attention modules."""
    kind = getattr(getattr(trunk, "config", None), "model_type", "")
    targets = importlib.import_module("peft.utils").TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    if kind in targets:
        return list(targets[kind])
    inside = [model.get_submodule(path) for path in dissect(model).attention_paths]
    names = list(dict.fromkeys(name for module in inside for name in _linear_names(module)))
    if not names:
        message = f"the linear maps of {type(model).__name__} to adapt are unknown"
        help = "name them by the ends of their paths: target=[…], such as " + ", ".join(_linear_names(trunk)[:8])
        raise SourceFault("B334", message, help=help, field="adapter")
    return names


def _linear_names(module: nn.Module) -> list[str]:
    """The last segments of the paths of linear maps, each once."""
    paths = (path for path, part in module.named_modules() if isinstance(part, nn.Linear | Conv1D))
    return list(dict.fromkeys(path.rsplit(".", 1)[-1] for path in paths if path))


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise RunError("adapters need peft: pip install 'brewgraph[lora]'") from error
