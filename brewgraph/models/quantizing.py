"""Teachers in fewer bits: whose weights of linear layers transformers rounds as it loads them.

`int8` keeps a weight in eight bits with a scale for each row (torchao), `nf4` in four bits of a normal distribution
with a scale for each 64 weights (bitsandbytes; Dettmers et al. 2023, arXiv:2305.14314). Embeddings, norms and heads
stay as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, TorchAoConfig
from transformers.pytorch_utils import Conv1D

from brewgraph.diagnostics import RunError

LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}
KINDS: dict[str, tuple[type[nn.Module], ...]] = {"int8": (nn.Linear,), "nf4": (nn.Linear, Conv1D)}
"""The modules whose weights each scheme rounds."""
_BLOCK = 64
"""Weights that share a scale in `nf4`, as transformers sets it."""


def check_quantizer(name: str, scheme: str, dtype: torch.dtype, place: torch.device) -> None:
    """Raise `RunError` if the library that quantizes the teacher `name` is not installed, or cannot compute a small
    layer in `dtype` on the device `place`.
    """
    library = LIBRARIES[scheme]
    if find_spec(library) is None:
        message = f'the teacher `{name}` needs {library} for quantize="{scheme}", which is not installed'
        raise RunError(f"{message}: pip install {library}")
    if (fault := _fault(scheme, dtype, place)) is not None:
        short = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
        message = f'the teacher `{name}` cannot compute with quantize="{scheme}" in {short} on `{place.type}`'
        raise RunError(
            f"{message}: {library} {version(library)} says: {fault}; pip install -U {library}, or leave `quantize` out"
        )


@cache
def _fault(scheme: str, dtype: torch.dtype, place: torch.device) -> str | None:
    """What the library says of a layer of 64 by 64 that is quantized and called; None if it works."""
    try:
        quantization_config(scheme, dtype)
        layer: nn.Module = nn.Linear(_BLOCK, _BLOCK, dtype=dtype, device=place)
        if scheme == "int8":
            torchao = import_module("torchao.quantization")
            torchao.quantize_(layer, torchao.Int8WeightOnlyConfig())
        else:
            bitsandbytes = import_module("bitsandbytes.nn")
            rounded = bitsandbytes.Linear4bit(_BLOCK, _BLOCK, compute_dtype=dtype, quant_type=scheme, device=place)
            rounded.load_state_dict(layer.state_dict())
            layer = rounded.to(place)
        with torch.no_grad():
            keep_plain(layer.eval())(torch.ones(2, _BLOCK, dtype=dtype, device=place))
    except Exception as error:  # each version of the libraries has errors of its own
        lines = str(error).strip().splitlines()
        return f"{lines[0][:200] if lines else type(error).__name__}"
    return None


def quantized_layers(model: nn.Module, scheme: str) -> dict[str, nn.Module]:
    """The modules whose weights are rounded, by their paths: linear ones of the trunk, whose weights no other has."""
    trunk = getattr(model, "base_model", model)
    output = getattr(model, "get_output_embeddings", lambda: None)()
    owners = Counter(id(weight) for m in model.modules() if (weight := getattr(m, "weight", None)) is not None)
    inside = set(trunk.modules()) - {output}
    return {
        path: module
        for path, module in model.named_modules()
        if module in inside and isinstance(module, KINDS[scheme]) and owners[id(module.weight)] == 1
    }


def quantization_config(scheme: str, dtype: torch.dtype, empty: nn.Module | None = None) -> Any:
    """The configuration with which transformers loads a model; it computes in `dtype`. `empty` is the model without its
    weights, of which all linear layers but `quantized_layers` stay as they are.
    """
    kept = None
    if empty is not None:
        rounded = quantized_layers(empty, scheme)
        linear = (path for path, module in empty.named_modules() if isinstance(module, (nn.Linear, Conv1D)))
        kept = [f"^{re.escape(path)}" for path in linear if path not in rounded]
    if scheme == "int8":
        quantizer = import_module("torchao.quantization").Int8WeightOnlyConfig()
        return TorchAoConfig(quantizer, modules_to_not_convert=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=scheme, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=kept
    )


def round_outline(outline: nn.Module, scheme: str, dtype: torch.dtype) -> None:
    """Give a model on the meta device the modules of the quantized one: those of bitsandbytes are its own, torchao
    changes parameters alone.
    """
    if scheme == "nf4":
        replace = import_module("transformers.integrations").replace_with_bnb_linear
        config = quantization_config(scheme, dtype, outline)
        replace(outline, modules_to_not_convert=config.llm_int8_skip_modules, quantization_config=config)
        keep_plain(outline)


def keep_plain(model: nn.Module) -> nn.Module:
    """The model, whose layers of bitsandbytes compute as on any other processor.

    On a CPU with AVX512-BF16 such a layer rearranges its weights at its first forward: it then computes in bf16 in any
    dtype, has another digest, and fails where rows or columns are no multiples of 32 and 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return model


def quantized_bytes(model: nn.Module, scheme: str, dtype: torch.dtype) -> int:
    """How many bytes the parameters of a model take with their scales in fp32: one for each row, which has a zero point
    of one byte, too, or one for each block.
    """
    total = sum(p.numel() for p in model.parameters())
    weights = [model.get_parameter(f"{path}.weight") for path in quantized_layers(model, scheme)]
    count = sum(x.numel() for x in weights)
    if scheme == "int8":
        rounded = count + 5 * sum(len(x) for x in weights)
    else:
        rounded = sum(-(-x.numel() // 2) + 4 * -(-x.numel() // _BLOCK) for x in weights)
    return rounded + (total - count) * dtype.itemsize
