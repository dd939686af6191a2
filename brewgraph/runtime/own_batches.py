"""Checks of the batches of a user's own loop: what is wrong with one, before torch fails or after."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from brewgraph.diagnostics import RunError, listing
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, nodes_of
from brewgraph.models.fake.shapes import accepted, positions
from brewgraph.models.heads import trunk_of
from brewgraph.runtime.instructions import Batch, base_of

_EXAMPLE = 'distiller({"input_ids": ids, "attention_mask": mask, "labels": labels})'
_IDS = "input_ids"
_MASK = "attention_mask"
_TOKENS = (_IDS, "inputs_embeds", _MASK, "token_type_ids", "position_ids")


class BatchCheck:
    """What the batches of a graph must be, given its models.

    `inputs` are the data sets as models read them, each with whether a loss asks which of its tokens are real;
    `classes` the columns that losses take as class indices, each with the number of classes.
    """

    def __init__(self, graph: Graph, models: Mapping[str, nn.Module]):
        self.models, self.nodes = models, nodes_of(graph)
        nodes = self.nodes.values()
        masked = {used for x in nodes if isinstance(x, n.Mask) and x.which != "labels" for used in x.inputs}
        read = masked | {x.entry for x in nodes if isinstance(x, n.Forward)}
        self.inputs = [(x, key in masked) for key, x in self.nodes.items() if isinstance(x, n.Input) and key in read]
        self.classes: dict[n.Column, int | str | None] = {}
        for loss in (x for x in nodes if isinstance(x, n.Loss) and x.kinds[0] == "labels"):
            shape = self.nodes[loss.target].shape
            for column in map(self.nodes.__getitem__, loss.inputs):
                if isinstance(column, n.Column) and column.column in ("labels", "start", "end"):
                    self.classes[column] = shape[-1] if shape else None
        self._warned = False

    # ── before the forward ───────────────────────────────────────────────────────────────────────────────────────────

    def check(self, batch: object) -> None:
        """Raise `RunError` for a batch that is no dictionary of tensors of the right types and shapes, and warn once of
        a missing mask. No value of a tensor is read.
        """
        if not isinstance(batch, Mapping):
            size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise RunError(f"a batch is a dictionary of tensors, got a {type(batch).__name__}{size}: {_EXAMPLE}")
        for entry, masked in self.inputs:
            self._check_input(batch, entry, masked)
        for column in self.classes:
            self._check_classes(batch, column)

    def _check_input(self, batch: Batch, entry: n.Input, masked: bool) -> None:
        name, encoding = entry.model, _encoding(batch, entry)
        if not isinstance(encoding, Mapping):
            kind = type(encoding).__name__
            raise RunError(
                f'`batch["{name}"]` is a {kind}; it is a dictionary of the inputs of `{name}`: {{"{_IDS}": …}}'
            )
        if _MASK in encoding and encoding[_MASK] is None:
            raise RunError(f"`{_MASK}` is None: leave it out, or give torch.ones_like(ids) if nothing is padded")
        for key in _TOKENS:
            if encoding.get(key) is not None:
                _check_tensor(key, encoding[key])
        first = next((encoding[key] for key in _TOKENS[:2] if encoding.get(key) is not None), None)
        if first is None:
            # other inputs than tokens are the model's own business
            if any(isinstance(x, Tensor) and x.dim() > masked for x in encoding.values()):
                return
            raise RunError(
                f'the batch has no inputs for `{name}`, neither at its top nor in `batch["{name}"]`: '
                f"it has {listing(batch) or 'nothing'}"
            )
        shape = tuple(first.shape)
        if encoding.get(_IDS) is not None:
            if first.is_floating_point() or first.is_complex() or first.dtype == torch.bool:
                raise RunError(f"`{_IDS}` has the type {first.dtype}; token ids are whole numbers: ids.long()")
            if first.dim() != 2:
                raise RunError(f"`{_IDS}` has the shape {shape}, not (batch, length): one text is ids[None], of 1 row")
        rows, length = shape[:2]
        if not rows or not length:
            missing = "tokens" if rows else "rows"
            raise RunError(f"the batch has no {missing}: `{_IDS}` has the shape {shape}; leave such a batch out")
        for key in _TOKENS[2:]:
            value = encoding.get(key)
            if value is None or (key == _MASK and value.dim() > 2 and not masked):
                continue  # a mask of pairs is the model's own business where no loss asks which tokens are real
            fits = value.dim() == 2 and value.shape[1] == length and value.shape[0] in (rows, key == "position_ids")
            if not fits:
                raise RunError(
                    f"`{key}` has the shape {tuple(value.shape)}, and the tokens of `{name}` have ({rows}, {length}): "
                    "both are (batch, length)"
                )
        if encoding.get(_MASK) is None and not self._warned:
            self._warn(name, masked)

    def _check_classes(self, batch: Batch, column: n.Column) -> None:
        name, (labels, tokens) = column.column, self._labels(batch, column)
        if labels is None:
            return  # the program reports it
        _check_tensor(name, labels)
        per_token = "length" in (column.shape or ())
        axes = "(batch, length)" if per_token else "(batch)"
        if labels.dtype != torch.int64:
            hint = "labels.argmax(-1)" if labels.dim() == 2 and not per_token else "labels.long()"
            raise RunError(
                f"`{name}` has the type {labels.dtype}; classes are of the type torch.int64, {axes}: {hint}; "
                'for several classes at once or for numbers the data says `problem_type="multi_label"` or "regression"'
            )
        if tokens is not None:
            wanted = tuple(tokens.shape[:2]) if per_token else (len(tokens),)
            if tuple(labels.shape) != wanted and (per_token or tuple(labels.shape) != (len(tokens), 1)):
                shape = tuple(labels.shape)
                raise RunError(f"`{name}` has the shape {shape}, and this batch needs {wanted}: {axes}")

    def _labels(self, batch: Batch, column: n.Column) -> tuple[Any, Tensor | None]:
        """Labels as the program finds them, and the tokens of the model that they belong to, or of any."""
        base = base_of(batch, column.data)
        entries = [self.nodes[key] for key in column.inputs] or [x for x, _ in self.inputs if x.data == column.data]
        encodings = [_encoding(batch, entry) for entry in entries if isinstance(entry, n.Input)]
        first = next((x for x in encodings if isinstance(x, Mapping)), base)
        labels = first.get(column.column) if column.inputs else None
        tokens = next((x for name in _TOKENS[:2] if isinstance(x := first.get(name), Tensor)), None)
        return (base.get(column.column) if labels is None else labels), tokens

    def _warn(self, name: str, masked: bool) -> None:
        if masked or (name in self.models and _MASK in accepted(self.models[name])[0]):
            self._warned = True
            message = f"the batch has no `{_MASK}` for `{name}`: every token counts, padding too; give one, "
            warnings.warn(message + "torch.ones_like(ids) where nothing is padded", UserWarning, stacklevel=7)

    # ── after an error ───────────────────────────────────────────────────────────────────────────────────────────────

    def explain(self, batch: Batch) -> str | None:
        """Why a forward on this batch has failed, where its values tell."""
        return next(self._reasons(batch), None)

    def _reasons(self, batch: Batch) -> Iterator[str]:
        for entry, _ in self.inputs:
            name, model, encoding = entry.model, self.models.get(entry.model), _encoding(batch, entry)
            if model is None:
                continue
            ids, device = encoding.get(_IDS), next((p.device for p in model.parameters()), None)
            for key in (*_TOKENS, "labels"):
                value = encoding.get(key)
                if isinstance(value, Tensor) and device is not None and value.device != device:
                    yield f'`{key}` is on {value.device} and `{name}` on {device}: batch["{key}"].to("{device}")'
            if not _readable(ids):
                continue
            table = getattr(trunk_of(model), "get_input_embeddings", lambda: None)()
            size, least, most = getattr(table, "num_embeddings", None), int(ids.min()), int(ids.max())
            if size is not None and not 0 <= least <= most < size:
                wrong = least if least < 0 else most
                yield f"`{_IDS}` holds {wrong}, and `{name}` has {size} tokens, from 0 to {size - 1}"
            limit = positions(model)
            if limit is not None and ids.shape[1] > limit:
                yield f"the batch has {ids.shape[1]} tokens a row, and `{name}` has {limit} positions: cut it"
        for column, count in self.classes.items():
            labels, _ = self._labels(batch, column)
            if not isinstance(count, int) or not _readable(labels):
                continue
            outside = labels[((labels < 0) & (labels != -100)) | (labels >= count)]
            if outside.numel():
                classes = f"there are {count} classes, from 0 to {count - 1} (-100 for none)"
                yield f"`{column.column}` holds {int(outside[0])}, and {classes}"


def _check_tensor(key: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise RunError(f"`{key}` is a {type(value).__name__}, not a tensor: torch.as_tensor(batch[{key!r}])")


def _encoding(batch: Batch, entry: n.Input) -> Any:
    """What a model reads of a batch; also a tuple or list under its name, which is a fault."""
    base = base_of(batch, entry.data)
    encoding = base.get(entry.model)
    return encoding if isinstance(encoding, Mapping | tuple | list) else base


def _readable(x: object) -> TypeGuard[Tensor]:
    """Whether the values of a tensor can be read after an error, which may leave a GPU out of order."""
    return isinstance(x, Tensor) and x.device.type == "cpu" and not isinstance(x, FakeTensor) and bool(x.numel())
