"""What a lower number format costs: a teacher's outputs on its first rows, compared with those in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from brewgraph.models.capture.packing import real_outputs
from brewgraph.models.heads import evaluating
from brewgraph.recipe.recipe import data_used
from brewgraph.running.data_cache import DataCache
from brewgraph.training.evaluation import model_inputs, own_view
from brewgraph.training.feeds import in_order
from brewgraph.training.reporter import Reporter

ROWS = 32
"""Rows of the training data that both models read."""


def report_rounding(data_cache: DataCache, reporter: Reporter) -> None:
    """Say for each teacher in bf16 or fp16 how far its outputs are from those in fp32, which is loaded for it once."""
    builder = data_cache.builder
    for model in builder.recipe.teachers:
        data = next(iter(data_used(builder.recipe)[model.name]), None)
        if model.source.number_format == "fp32" or data is None or not builder.runs(model.name):
            continue
        batch = own_view(model.name, _first_batch(data_cache, data, model.name))
        lower, exact = (_outputs(module, batch) for module in (builder.model(model.name), builder.exact(model.name)))
        sizes = zip(lower, exact, strict=True)
        error = max(float((one - other).norm() / other.norm().clamp_min(1e-12)) for one, other in sizes)
        reporter.say(
            f"teacher {model.name} in {model.source.number_format}: on {ROWS} rows its outputs are "
            f"{error:.2%} (relative rms) off those in fp32"
        )


def _first_batch(data_cache: DataCache, data: str, name: str) -> Mapping[str, Any]:
    """The first rows of the training data, as the model reads them."""
    if data_cache.recipe.data[data].source.holds_tensors:
        first: Mapping[str, Any] = data_cache.builder.tensor_batches(data).train[0]
        return first
    encodings, _ = data_cache.encodings(data, [name])
    rows = data_cache.builder.examples(data).splits["train"]
    encoded = data_cache.encode(data, rows.select(range(min(ROWS, len(rows)))), encodings)
    batch: Mapping[str, Any] = next(iter(in_order(encoded, data_cache.collator(data, encodings, training=False), ROWS)))
    return batch


def _outputs(module: nn.Module, batch: Mapping[str, Any]) -> list[torch.Tensor]:
    parameter = next(module.parameters())
    inputs = model_inputs(module, batch, parameter.device)
    inputs = {key: x.to(parameter.dtype) if x.is_floating_point() else x for key, x in inputs.items()}
    with evaluating(module), torch.no_grad():
        return real_outputs(module(**inputs), inputs.get("attention_mask"))
