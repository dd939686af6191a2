"""An attention function that probes can watch, registered with transformers under the name `brewgraph`.

Modules that are watched for `attention` run their own eager attention, all others what they ran before (such as scaled
dot product attention). No model's code is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask

from brewgraph.diagnostics import SourceFault
from brewgraph.models.capture import packed_tokens
from brewgraph.models.capture.packed_tokens import PackedAttention, PackedTokens, fast_kernels_are_on

NAME = "brewgraph"


@dataclass(frozen=True, eq=False)
class Probe:
    """A watcher of an attention module: the names of the values it wants, and the function that gets them."""

    wants: frozenset[str]
    record: Callable[[dict[str, Tensor]], None]


@dataclass
class _Borrowed:
    config: PretrainedConfig
    former: str
    holders: int = 0


_probes: WeakKeyDictionary[nn.Module, list[Probe]] = WeakKeyDictionary()
_borrowed: dict[int, _Borrowed] = {}  # by id of the config: models built from one config share its setting


def watch(module: nn.Module, probe: Probe) -> Callable[[], None]:
    """Watch an attention module; returns the function that ends it."""
    probes = _probes.setdefault(module, [])
    probes.append(probe)
    return lambda: probes.remove(probe)


def borrow(model: PreTrainedModel, name: str) -> Callable[[], None]:
    """Switch a model to the attention implementation `name`; returns the function that restores the former one.

    Holders are counted per configuration, and the last one restores. SourceFault B304 for a model that cannot switch.
    """
    config = model.config
    entry = _borrowed.get(id(config))
    if entry is None:
        former = config._attn_implementation
        if former == NAME:  # a copy of a model that was being watched
            former = "sdpa" if model._supports_sdpa else "eager"
        entry = _borrowed[id(config)] = _Borrowed(config, former)
    entry.holders += 1

    def give_back() -> None:
        entry.holders -= 1
        if not entry.holders:
            _borrowed.pop(id(config), None)
            model.set_attn_implementation(entry.former)

    model.set_attn_implementation(name)
    if config._attn_implementation != name:
        give_back()
        message = f"{type(model).__name__} cannot switch its attention from {entry.former} to {name}"
        help = "its attention weights are not available; match hidden states instead, or tap modules by path"
        raise SourceFault("B304", message, help=help)
    return give_back


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention for transformers' interface.

    query (batch, heads, length, size), key and value (batch, key heads, length, size), mask additive
    (batch, 1, length, length) or None. Returns output (batch, length, heads, size), and the probabilities if the module
    runs eagerly. What runs depends on the probes, never on whether a capture is armed, so that activation checkpointing
    recomputes the same graph.
    """
    tokens = packed_tokens.current()
    if tokens is not None and tokens.is_packed(query.transpose(1, 2)):
        # on other devices one masked call beats a call for each example
        if _probes.get(module) or _former(module) == "eager" or query.device.type != "cpu":
            q, k, v = (tokens.unpack(x.transpose(1, 2)).transpose(1, 2) for x in (query, key, value))
            output_BL, weights = _attend(module, q, k, v, attention_mask, dropout, scaling, **kwargs)
            return tokens.pack(output_BL), weights
        return _attend_packed(module, tokens, query, key, value, attention_mask, dropout, scaling), None
    return _attend(module, query, key, value, attention_mask, dropout, scaling, **kwargs)


def _attend_packed(
    module: nn.Module,
    tokens: PackedTokens,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention on a CPU, on each example by itself: (1, heads, N, size) to (1, N, heads, size)."""
    key, value = _spread(key, query), _spread(value, query)
    kind = tokens.kind(mask, causal=bool(getattr(module, "is_causal", True)))
    rate = dropout if module.training else 0.0
    if rate and kind == "full" and query.dtype == torch.float32 and fast_kernels_are_on():
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        packed: Tensor = PackedAttention.apply(query[0], key[0], value[0], tokens.lengths, scale, rate)
        return packed.transpose(0, 1)[None]
    outputs = []
    examples = zip(*(x.split(tokens.lengths, 2) for x in (query, key, value)), strict=True)
    for example, (q, k, v) in enumerate(examples):
        if not q.shape[2]:
            continue
        own = None
        if kind == "other" and mask is not None:
            real = tokens.mask_BL[example]
            own = mask[example, :, real][:, :, real][None]
        causal = kind == "causal" and q.shape[2] > 1
        outputs.append(
            nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=own, dropout_p=rate, is_causal=causal, scale=scaling
            )
        )
    return torch.cat(outputs, 2).transpose(1, 2).contiguous()


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention on padded tensors, as `attention_forward` describes it."""
    probes = _probes.get(module, ())
    wanted = frozenset[str]().union(*(probe.wants for probe in probes))
    values = {"query": query, "key": key, "value": value}
    if "scores" in wanted:
        values["scores"] = _scores(query, key, scaling)
    weights: Tensor | None = None
    if "attention" in wanted or _former(module) == "eager":
        # The module's own eager function is called without dropout: what it returns is then the probabilities as such,
        # with every peculiarity of the architecture (softcap, sinks, the dtype of the softmax).
        eager = _own_eager(module)
        output, weights = eager(module, query, key, value, attention_mask, scaling=scaling, dropout=0.0, **kwargs)
        values["attention"] = weights
        if dropout and module.training:
            weights = nn.functional.dropout(weights, p=dropout)
            output = torch.matmul(weights, _spread(value, query)).transpose(1, 2).contiguous()
    else:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    for probe in probes:
        probe.record(values)
    return output, weights


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention without dropout, for modules whose file has no `eager_attention_forward` of its own."""
    scores = _scores(query, key, scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, _spread(value, query)).transpose(1, 2).contiguous(), weights


def _scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """Attention scores before mask and softmax."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return torch.matmul(query, _spread(key, query).transpose(2, 3)) * scale


def _own_eager(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """The eager attention of the file that a module's class comes from (a base class's, where it was wrapped)."""
    for kind in type(module).__mro__:
        eager: Callable[..., tuple[Tensor, Tensor]] | None = getattr(
            sys.modules.get(kind.__module__), "eager_attention_forward", None
        )
        if eager is not None:
            return eager
    return plain_attention


def _spread(x: Tensor, query: Tensor) -> Tensor:
    """Repeat grouped key or value heads until there is one for each head of the query."""
    return repeat_kv(x, query.shape[1] // x.shape[1])


def _former(module: nn.Module) -> str:
    entry = _borrowed.get(id(getattr(module, "config", None)))
    return entry.former if entry else "sdpa"


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, eager_mask)
