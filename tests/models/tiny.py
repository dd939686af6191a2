"""Tiny transformers models with random weights, one per architecture that the tests speak of."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

torch.set_num_threads(1)  # products this small gain nothing from threads and wait long for busy cores

_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_labels": 3,
}
_POSITIONS: dict[str, Any] = {"max_position_embeddings": 40, "pad_token_id": 0}

SETTINGS: dict[str, dict[str, Any]] = {
    "bert": _SIZES | _POSITIONS,
    "roberta": _SIZES | _POSITIONS,
    "distilbert": {"vocab_size": 64, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 40, "num_labels": 3}
    | _POSITIONS,
    "electra": _SIZES | _POSITIONS | {"embedding_size": 16},
    "gpt2": {
        "vocab_size": 64,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 40,
        "num_labels": 3,
        "pad_token_id": 0,
    }
    | {"bos_token_id": 1, "eos_token_id": 2},
    "llama": _SIZES | _POSITIONS | {"num_key_value_heads": 2},
    "qwen2": _SIZES | _POSITIONS | {"num_key_value_heads": 2},
    "modernbert": _SIZES
    | _POSITIONS
    | {"local_attention": 4, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "albert": _SIZES | _POSITIONS | {"embedding_size": 16, "num_hidden_groups": 1},
    "t5": {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 4, "num_labels": 3},
    "xlnet": {"vocab_size": 64, "d_model": 32, "d_inner": 40, "n_layer": 3, "n_head": 4, "num_labels": 3}
    | {"pad_token_id": 0},
    "deberta-v2": _SIZES
    | _POSITIONS
    | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "type_vocab_size": 0},
}

RECORDED = ("bert", "roberta", "distilbert", "electra", "gpt2", "llama", "qwen2", "modernbert", "albert")
"""Architectures whose attention runs through transformers' interface."""


def tiny_config(kind: str, **settings: Any) -> PretrainedConfig:
    """A small configuration of an architecture."""
    return AutoConfig.for_model(kind, **(SETTINGS[kind] | settings))


def tiny(kind: str, auto_class: Any = AutoModel, attention: str | None = None, **settings: Any) -> PreTrainedModel:
    """A small model with the same random weights at each call, in evaluation mode."""
    torch.manual_seed(0)
    extra = {"attn_implementation": attention} if attention else {}
    return auto_class.from_config(tiny_config(kind, **settings), **extra).eval()


def batch(*lengths: int) -> dict[str, torch.Tensor]:
    """Random token ids (none of them special), padded on the right with 0, and their mask."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    ids = torch.randint(3, 64, mask.shape, generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask}
