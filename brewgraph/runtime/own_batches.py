"""Batches of a loop of one's own: what is wrong with them is said in their own terms, before or after torch fails."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from brewgraph.diagnostics import RunError, listing
from brewgraph.graph import nodes as n
from brewgraph.graph.canonical import node
from brewgraph.models.fake.shapes import accepted, positions
from brewgraph.models.heads import trunk_of
from brewgraph.runtime.forwards import base_of

_EXAMPLE = 'distiller({"input_ids": ids, "attention_mask": mask, "labels": labels})'
_IDS = "input_ids"
_MASK = "attention_mask"
_TOKENS = (_IDS, "inputs_embeds", _MASK, "token_type_ids", "position_ids")


class BatchCheck:
    """What the batches of a graph must be, given its models."""

    def __init__(self, graph: nx.DiGraph, models: Mapping[str, nn.Module]):
        self.models = models
        nodes = {key: node(graph, key) for key in graph}
        masked = {used for x in nodes.values() if isinstance(x, n.Mask) and x.which != "labels" for used in x.inputs}
        runs = {x.entry for x in nodes.values() if isinstance(x, n.Forward)}
        # each data set as a model reads it, and whether a loss asks which of its tokens are real
        self.inputs = [
            (x, key in masked) for key, x in nodes.items() if isinstance(x, n.Input) and key in runs | masked
        ]
        self.nodes, self.classes = nodes, _class_labels(nodes)
        self._warned = False

    # ── before the forward ───────────────────────────────────────────────────────────────────────────────────────────

    def check(self, batch: Any) -> None:
        """Raise `RunError` for what is no batch, for tensors of wrong kinds and shapes, and warn once of a missing
        mask. No value of a tensor is read.
        """
        if not isinstance(batch, Mapping):
            kind = (
                f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, tuple | list) else type(batch).__name__
            )
            raise RunError(f"a batch is a dictionary of tensors, got a {kind}: {_EXAMPLE}")
        for entry, masked in self.inputs:
            self._check_input(batch, entry, masked)
        for column in self.classes:
            self._check_classes(batch, column)

    def _check_input(self, batch: Mapping[str, Any], entry: n.Input, masked: bool) -> None:
        name, encoding = entry.model, _encoding(batch, entry)
        if not isinstance(encoding, Mapping):
            kind = type(encoding).__name__
            raise RunError(
                f'`batch["{name}"]` is a {kind}; it is a dictionary of the inputs of `{name}`: {{"{_IDS}": …}}'
            )
        for key in _TOKENS:
            value = encoding.get(key)
            if key == _MASK and key in encoding and value is None:
                raise RunError(
                    f"`{key}` is None: leave it out, or give one: torch.ones_like(ids) where nothing is padded"
                )
            if value is not None and not isinstance(value, Tensor):
                raise RunError(f"`{key}` is a {type(value).__name__}, not a tensor: torch.as_tensor(batch[{key!r}])")
        first = next((encoding[key] for key in _TOKENS[:2] if encoding.get(key) is not None), None)
        if first is None:
            # other inputs than tokens are the model's own business
            if any(isinstance(x, Tensor) and x.dim() > masked for x in encoding.values()):
                return
            raise RunError(
                f'the batch has no inputs for `{name}`, neither at its top nor in `batch["{name}"]`: '
                f"it has {listing(batch) or 'nothing'}"
            )
        if encoding.get(_IDS) is not None:
            if first.is_floating_point() or first.is_complex() or first.dtype == torch.bool:
                raise RunError(f"`{_IDS}` has the type {first.dtype}; token ids are whole numbers: ids.long()")
            if first.dim() != 2:
                shape = tuple(first.shape)
                raise RunError(f"`{_IDS}` has the shape {shape}, not (batch, length): one text is ids[None], of 1 row")
        if not first.shape[0] or not first.shape[1]:
            what = "rows" if not first.shape[0] else "tokens"
            raise RunError(
                f"the batch has no {what}: `{_IDS}` has the shape {tuple(first.shape)}; leave such a batch out"
            )
        rows, length = first.shape[:2]
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

    def _check_classes(self, batch: Mapping[str, Any], column: n.Column) -> None:
        labels, like = self._find(batch, column)
        if labels is None:
            return  # said where it is asked for
        if not isinstance(labels, Tensor):
            kind = type(labels).__name__
            raise RunError(f"`{column.column}` is a {kind}, not a tensor: torch.as_tensor(batch[{column.column!r}])")
        per_token = "length" in (column.shape or ())
        what = "(batch, length)" if per_token else "(batch)"
        if labels.dtype != torch.int64:
            hint = "labels.argmax(-1)" if labels.dim() == 2 and not per_token else "labels.long()"
            raise RunError(
                f"`{column.column}` has the type {labels.dtype}; classes are of the type torch.int64, {what}: {hint}; "
                'for several classes at once or for numbers the data says `problem_type="multi_label"` or "regression"'
            )
        if like is None:
            return
        fits = labels.shape == like.shape[:2] if per_token else labels.shape in ((len(like),), (len(like), 1))
        if not fits:
            wanted = tuple(like.shape[:2]) if per_token else (len(like),)
            raise RunError(
                f"`{column.column}` has the shape {tuple(labels.shape)}, and this batch needs {wanted}: {what}"
            )

    def _find(self, batch: Mapping[str, Any], column: n.Column) -> tuple[Any, Any]:
        """Labels as the program finds them, and the tokens of the model that they belong to, or of any."""
        base = base_of(batch, column.data)
        own = [self.nodes[key] for key in column.inputs] or [x for x, _ in self.inputs if x.data == column.data]
        encodings = [
            x for entry in own if isinstance(entry, n.Input) and isinstance(x := _encoding(batch, entry), Mapping)
        ]
        first = encodings[0] if encodings else base
        labels = first.get(column.column) if column.inputs else None
        found = [x for name in _TOKENS[:2] if isinstance(x := first.get(name), Tensor)]
        return (base.get(column.column) if labels is None else labels), (found[0] if found else None)

    def _warn(self, name: str, masked: bool) -> None:
        if masked or (name in self.models and _MASK in accepted(self.models[name])[0]):
            self._warned = True
            message = f"the batch has no `{_MASK}` for `{name}`: every token counts, padding too; give one, "
            warnings.warn(message + "torch.ones_like(ids) where nothing is padded", UserWarning, stacklevel=7)

    # ── after an error ───────────────────────────────────────────────────────────────────────────────────────────────

    def explain(self, batch: Mapping[str, Any]) -> str | None:
        """Why a forward on this batch has failed, where its values tell."""
        return next(self._reasons(batch), None)

    def _reasons(self, batch: Mapping[str, Any]) -> Iterator[str]:
        for entry, _ in self.inputs:
            model, encoding = self.models.get(entry.model), _encoding(batch, entry)
            if model is None:
                continue
            ids, device = encoding.get(_IDS), next((p.device for p in model.parameters()), None)
            for key, value in ((key, encoding.get(key)) for key in (*_TOKENS, "labels")):
                if isinstance(value, Tensor) and device is not None and value.device != device:
                    yield f'`{key}` is on {value.device} and `{entry.model}` on {device}: batch["{key}"].to("{device}")'
            if not _readable(ids):
                continue
            table = getattr(trunk_of(model), "get_input_embeddings", lambda: None)()
            size = getattr(table, "num_embeddings", None)
            if size is not None and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
                yield f"`{_IDS}` holds {wrong}, and `{entry.model}` has {size} tokens, from 0 to {size - 1}"
            limit = positions(model)
            if limit is not None and ids.shape[1] > limit:
                yield f"the batch has {ids.shape[1]} tokens a row, and `{entry.model}` has {limit} positions: cut it"
        for column, count in self.classes.items():
            labels, _ = self._find(batch, column)
            if not isinstance(count, int) or not _readable(labels):
                continue
            outside = labels[((labels < 0) & (labels != -100)) | (labels >= count)]
            if outside.numel():
                yield (
                    f"`{column.column}` holds {int(outside[0])}, and there are {count} classes, from 0 to {count - 1} "
                    "(-100 for none)"
                )


def _encoding(batch: Mapping[str, Any], entry: n.Input) -> Any:
    """What a model reads of a batch; a tuple or list under its name, too, which is none."""
    base = base_of(batch, entry.data)
    own = base.get(entry.model)
    return own if isinstance(own, Mapping | tuple | list) else base


def _class_labels(nodes: Mapping[str, n.Node]) -> dict[n.Column, int | str | None]:
    """The columns that losses take as numbers of classes, and how many classes there are."""
    found: dict[n.Column, int | str | None] = {}
    for x in nodes.values():
        if not isinstance(x, n.Loss) or x.kinds[0] != "labels":
            continue
        shape = nodes[x.target].shape
        for column in (nodes[key] for key in x.inputs):
            if isinstance(column, n.Column) and column.column in ("labels", "start", "end"):
                found[column] = shape[-1] if shape else None
    return found


def _readable(x: Any) -> bool:
    """Whether the values of a tensor can be read after an error: a GPU may be out of order then."""
    return isinstance(x, Tensor) and x.device.type == "cpu" and not isinstance(x, FakeTensor) and bool(x.numel())
