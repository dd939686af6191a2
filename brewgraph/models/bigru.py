"""A bidirectional GRU as a transformers model: `model_type="bigru"`, registered with the auto classes.

The small recurrent student of much distillation work (Tang et al. 2019 distil BERT into a BiLSTM; TextBrewer's recipes
have a BiGRU). Shapes: B examples, L tokens, E embedding size, H units per direction.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import capture_outputs


class BigruConfig(PreTrainedConfig):
    """Sizes of a bidirectional GRU; `hidden_size` counts the units of one direction, states are twice as wide."""

    model_type = "bigru"

    vocab_size: int = 30522
    embedding_size: int = 256
    hidden_size: int = 256
    num_hidden_layers: int = 1
    dropout: float | int = 0.1
    initializer_range: float = 0.02
    pad_token_id: int | None = 0


class BigruLayer(nn.Module):
    """One bidirectional layer that never sees padding, wherever that stands.

    Each direction is a GRU of its own over the real tokens, moved to the front in its reading order. That equals a
    packed sequence and needs no lengths on the host.
    """

    def __init__(self, in_size: int, hidden_size: int):
        super().__init__()
        self.forwards = nn.GRU(in_size, hidden_size, batch_first=True)
        self.backwards = nn.GRU(in_size, hidden_size, batch_first=True)

    def forward(self, x_BLE: Tensor, order_DBL: Tensor, mask_BL: Tensor) -> Tensor:
        """States (B, L, 2H), zero at padding. `order_DBL` holds both directions' reading orders, of positions."""
        states = []
        for gru, order_BL in zip((self.forwards, self.backwards), order_DBL, strict=True):
            read_BLH, _ = gru(_take(x_BLE, order_BL))
            states.append(_take(read_BLH, order_BL.argsort(-1)))
        return torch.cat(states, dim=-1) * mask_BL.unsqueeze(-1)


class BigruPooler(nn.Module):
    """The last state of each direction: that of the last token forwards, that of the first token backwards."""

    def forward(self, x_BLD: Tensor, order_DBL: Tensor, mask_BL: Tensor) -> Tensor:
        last_B1 = mask_BL.long().sum(-1, keepdim=True).clamp_min(1) - 1
        halves = zip(x_BLD.chunk(2, dim=-1), order_DBL, strict=True)
        return torch.cat([_take(half, order.gather(-1, last_B1)).squeeze(1) for half, order in halves], dim=-1)


class BigruPreTrainedModel(PreTrainedModel):
    """Initial weights, and the modules that give hidden states."""

    config: BigruConfig
    config_class = BigruConfig
    base_model_prefix = "bigru"
    _input_embed_layer = "embeddings"
    _can_record_outputs = {"hidden_states": BigruLayer}  # noqa: RUF012  (transformers declares it so)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.GRU):  # as torch begins them
            bound = module.hidden_size**-0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        else:
            super()._init_weights(module)


class BigruModel(BigruPreTrainedModel):
    """Embeddings and bidirectional layers; `pooler_output` (B, 2H) joins the last states of both directions."""

    def __init__(self, config: BigruConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        sizes = [config.embedding_size, *[2 * config.hidden_size] * (config.num_hidden_layers - 1)]
        self.layers = nn.ModuleList([BigruLayer(size, config.hidden_size) for size in sizes])
        self.pooler = BigruPooler()
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Ids or embeddings (B, L) or (B, L, E), mask (B, L) with 1 at real tokens (left out: all are)."""
        x = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        mask_BL = x.new_ones(x.shape[:2]) if attention_mask is None else attention_mask.to(x.dtype)
        order_DBL = _orders(mask_BL)
        for layer in self.layers:
            x = layer(self.dropout(x), order_DBL, mask_BL)
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=self.pooler(x, order_DBL, mask_BL))


class _Classifier(BigruPreTrainedModel):
    """A linear map of one output of the base model."""

    _states: str
    _loss_argument: str
    _output: Any

    def __init__(self, config: BigruConfig):
        super().__init__(config)
        self.num_labels = config.num_labels or 2
        self.bigru = BigruModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(2 * config.hidden_size, self.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """Logits, and the loss where `labels` are given."""
        base = self.bigru(input_ids, attention_mask, inputs_embeds, **kwargs)
        logits = self.classifier(self.dropout(base[self._states]))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, config=self.config, **{self._loss_argument: logits})
        return cast(ModelOutput, self._output(loss=loss, logits=logits, hidden_states=base.get("hidden_states")))


class BigruForSequenceClassification(_Classifier):
    """Logits (B, C) from the last states of both directions."""

    _states, _loss_argument, _output = "pooler_output", "pooled_logits", SequenceClassifierOutput


class BigruForTokenClassification(_Classifier):
    """Logits (B, L, C) from each token's states."""

    _states, _loss_argument, _output = "last_hidden_state", "logits", TokenClassifierOutput


def _orders(mask_BL: Tensor) -> Tensor:
    """Positions in the order in which each direction reads them (2, B, L): real tokens first, padding after them."""
    length = mask_BL.shape[1]
    position_L = torch.arange(length, device=mask_BL.device)
    padding_BL = (mask_BL == 0).long() * 2 * length
    return torch.stack([(padding_BL + position_L).argsort(-1), (padding_BL - position_L).argsort(-1)])


def _take(x_BLE: Tensor, positions_BK: Tensor) -> Tensor:
    return x_BLE.gather(1, positions_BK.unsqueeze(-1).expand(-1, -1, x_BLE.shape[-1]))


AutoConfig.register("bigru", BigruConfig, exist_ok=True)
AutoModel.register(BigruConfig, BigruModel, exist_ok=True)
AutoModelForSequenceClassification.register(BigruConfig, BigruForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(BigruConfig, BigruForTokenClassification, exist_ok=True)
