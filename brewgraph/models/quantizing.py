"""Teachers in fewer bits: whose weights of linear layers transformers rounds as it loads them.

`int8` keeps a weight in eight bits with a scale for each row (torchao, on any device), `nf4` in four bits of a normal
distribution (bitsandbytes; Dettmers et al. 2023, arXiv:2305.14314). Embeddings, norms and the head stay as they are.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, TorchAoConfig

from brewgraph.diagnostics import RunError

LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}
_BYTES = {"int8": 1.0, "nf4": 0.5}


def check_quantizer(name: str, scheme: str) -> None:
    """Raise `RunError` if the library that quantizes the teacher `name` is not installed."""
    library = LIBRARIES[scheme]
    if find_spec(library) is None:
        message = f'the teacher `{name}` needs {library} for quantize="{scheme}", which is not installed'
        raise RunError(f"{message}: pip install {library}")


def quantization_config(scheme: str, dtype: torch.dtype) -> Any:
    """The configuration with which transformers loads a model; it computes in `dtype`."""
    if scheme == "int8":
        return TorchAoConfig(import_module("torchao.quantization").Int8WeightOnlyConfig())
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=scheme, bnb_4bit_compute_dtype=dtype)


def quantized_bytes(model: nn.Module, scheme: str, dtype: torch.dtype) -> int:
    """About how many bytes the parameters of a model take: scales, one for some dozen weights or more, do not count."""
    total = sum(p.numel() for p in model.parameters())
    output = getattr(model, "get_output_embeddings", lambda: None)()
    few = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not output}
    return round(sum(few.values()) * _BYTES[scheme] + (total - sum(few.values())) * dtype.itemsize)
