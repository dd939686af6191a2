"""Rows of token ids to padded batches; masks and augmentation are drawn anew in every epoch.

Everything random is a function of the seed, the epoch and the row's `index`, independent of the batch and process of
a row. Shapes: B rows, L tokens, W words, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy
import torch
from torch import Tensor

from brewgraph.data.batching.augmentation import augment_ids, augment_texts, mask_of
from brewgraph.data.batching.masking import Masks, WordGroups
from brewgraph.data.encoding.texts import IGNORED, Encoding, Span, encode_texts
from brewgraph.diagnostics import SourceFault, UsageError, listing
from brewgraph.recipe.settings.data_sources import DataSource, Join, Text

Rows = Sequence[Mapping[str, Any]]


class Collator:
    """Rows of `encode` to one batch of tensors, padded to its longest row with each tokenizer's own padding token.

    One encoding gives a flat batch:

        input_ids, attention_mask, token_type_ids   (B, L) int64, the last where there are such
        words          (B, W) int64, the position of each word's first token, -1 if it was cut off, and as padding
        labels         (B) int64 classes, (B, C) float32 several classes, (B) float32 numbers; (B, L) int64 tags, next
                       tokens (already shifted: token t + 1 at t) and masked tokens, -100 for none
        start, end     (B) int64, the tokens of an answer, -100 for windows without a label
        null           (B) int64, the token for no answer
        offsets        (B, L, 2) int64, characters of the context, -1 outside it
        weights        (B) float32
        index          (B) int64
        first          (B) int64, of sentences in evaluation: the number of a row's first word in its sentence
        NAME           each of `columns`: (B), or (B, L) for lists, padded with 0

    Several give a dictionary under each encoding's key for the values of tokens, beside the values of examples (classes
    and numbers as labels, weights, index, columns); the same under the names in `aliases`, which map to keys.

    `source` holds the masking and the augmentation; with `training` both are drawn anew in every epoch (`set_epoch`).
    Without it texts are not augmented, and masks are those of epoch 0.
    """

    def __init__(
        self,
        encodings: Sequence[Encoding],
        *,
        source: DataSource | None = None,
        words: bool = False,
        columns: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        seed: int = 0,
        training: bool = False,
    ):
        keys = [encoding.key for encoding in encodings]
        if len(set(keys)) < len(keys) or not keys:
            raise ValueError(f"a collator needs encodings with keys that differ, not {keys}")
        if len(keys) > 1 and (taken := set(keys) & set(columns)):
            raise SourceFault("B402", f"`{taken.pop()}` is a model and a column", help="call the model another name")
        self.encodings, self.columns, self.aliases = tuple(encodings), tuple(columns), aliases or {}
        self.words, self.seed, self.training, self.epoch = words, seed, training, 0
        first = source.parts[0] if isinstance(source, Join) else source
        self.text = first if isinstance(first, Text) else None
        self.augment = tuple(getattr(first, "augment", ())) if training else ()

    def set_epoch(self, epoch: int) -> None:
        """Draw masks and changes of another epoch, counted from 0; in evaluation they stay as they are."""
        self.epoch = epoch if self.training else 0

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """A batch of these rows. Raises `ValueError` where there are none, or columns in their place."""
        if isinstance(rows, Mapping):
            remedy = "`[dataset[n] for n in range(8)]`, or `dataset.select(range(8))`"
            raise ValueError(f"a batch is made of a list of rows, got a dictionary of columns: give {remedy}")
        if not len(rows):
            raise ValueError("there are no rows to make a batch of: skip empty batches, or sample at least one row")
        views = {encoding.key: self._view(encoding, rows) for encoding in self.encodings}
        several = {**views, **{name: views[key] for name, key in self.aliases.items()}}
        batch: dict[str, Any] = several if len(views) > 1 else dict(*views.values())
        if "label" in rows[0]:
            # classes as whole numbers; several classes and numbers as fractions
            kind = torch.int64 if isinstance(rows[0]["label"], int) else torch.float32
            batch["labels"] = torch.tensor([row["label"] for row in rows], dtype=kind)
        if "weights" in rows[0]:
            batch["weights"] = torch.tensor([row["weights"] for row in rows], dtype=torch.float32)
        for name in ("index", "first"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.int64)
        for name in self.columns:
            batch[name] = _column([row[f"column/{name}"] for row in rows])
        return batch

    def _view(self, encoding: Encoding, rows: Rows) -> dict[str, Tensor]:
        """The tensors of one encoding's tokens."""
        columns = self._columns(encoding, rows)
        tokenizer, left = encoding.tokenizer, encoding.left
        lengths = [len(ids) for ids in columns["input_ids"]]
        longest = max(lengths)
        # with padding on the left, positions move by as much
        shift_B = torch.tensor([longest - length if left else 0 for length in lengths])
        if self.text is not None and self.text.mask:
            pairs = zip(columns.pop("word_of", ()), rows, strict=False)
            groups = [WordGroups(of, _count_words(row)) for of, row in pairs]
            columns["input_ids"], columns["labels"] = self._masks[encoding.key].draw(
                columns["input_ids"], groups, self.seed, self.epoch, [row["index"] for row in rows]
            )
        fills = {
            "input_ids": tokenizer.pad_token_id,
            "token_type_ids": tokenizer.pad_token_type_id,
            "labels": IGNORED,
            "offsets": -1,
        }
        batch: dict[str, Tensor] = {}
        for name, values in columns.items():
            if name in ("start", "end", "null"):
                at_B = torch.tensor(values, dtype=torch.int64)
                batch[name] = torch.where(at_B >= 0, at_B + shift_B, at_B)
            elif name == "words":
                places_BW = _pad(values, -1)
                batch[name] = torch.where(places_BW >= 0, places_BW + shift_B[:, None], places_BW)
            else:
                batch[name] = _pad(values, fills.get(name, 0), left=left)
        if self.text is not None and not self.text.mask:
            batch["labels"] = _next_tokens(batch["input_ids"], batch["attention_mask"])
        return batch

    def _columns(self, encoding: Encoding, rows: Rows) -> dict[str, list[Any]]:
        """The columns of one encoding, augmented if requested."""
        prefix = f"{encoding.key}/"
        names = [c.removeprefix(prefix) for c in rows[0] if c.rpartition("/")[0] == encoding.key]
        if not names:
            raise UsageError(
                f"the rows have no token ids for `{encoding.key}`, only {listing(rows[0]) or 'no column at all'}: "
                'collate rows of `recipe.dataloaders()["train"].dataset`, whole '
                "(transformers' Trainer takes columns away unless `remove_unused_columns=False`)"
            )
        if self.words and "words" not in names:
            raise ValueError("the rows do not tell their words: encode(…, words=True)")
        columns = {name: [row[f"{prefix}{name}"] for row in rows] for name in names}
        if not self.augment:
            return columns
        if self.text is None:
            return self._changed_texts(encoding, rows, words="words" in names)
        return self._changed_ids(encoding, rows, columns)

    def _changed_texts(self, encoding: Encoding, rows: Rows, *, words: bool) -> dict[str, list[Any]]:
        names = [name for name in ("text_0", "text_1") if name in rows[0]]
        mask = mask_of(encoding.tokenizer, self.augment)
        ways = {"seed": self.seed, "epoch": self.epoch}
        changed = [
            augment_texts([row[name] for name in names], self.augment, **ways, example=row["index"], mask=mask)
            for row in rows
        ]
        return encode_texts(encoding, list(zip(*changed, strict=True)), words=words)

    def _changed_ids(self, encoding: Encoding, rows: Rows, columns: dict[str, list[list[int]]]) -> dict[str, list[Any]]:
        special, mask = frozenset(encoding.tokenizer.all_special_ids), encoding.tokenizer.mask_token_id
        ways = {"seed": self.seed, "epoch": self.epoch, "mask": -1 if mask is None else mask}
        ids = [
            augment_ids(tokens, self.augment, **ways, example=row["index"], special=special)
            for tokens, row in zip(columns["input_ids"], rows, strict=True)
        ]
        # the other inputs (masks, types) of a block are constant
        others = {name: [v[:1] * len(i) for v, i in zip(values, ids, strict=True)] for name, values in columns.items()}
        return {**others, "input_ids": ids}

    @cached_property
    def _masks(self) -> dict[str, Masks]:
        assert self.text is not None
        return {encoding.key: Masks.of(encoding.tokenizer, self.text.mask) for encoding in self.encodings}


def _count_words(row: Mapping[str, Any]) -> int:
    """Words of a block, with those that do not fit into some encoding."""
    return 1 + max(max(of, default=-1) for name, of in row.items() if name.endswith("/word_of"))


def _next_tokens(ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """The next token at each token; -100 at the last one and where either is padding."""
    labels_BL = torch.full_like(ids_BL, IGNORED)
    both = mask_BL[:, :-1].bool() & mask_BL[:, 1:].bool()
    labels_BL[:, :-1] = torch.where(both, ids_BL[:, 1:], IGNORED)
    return labels_BL


def _column(values: list[float] | list[list[float]]) -> Tensor:
    rows = [row for row in values if isinstance(row, list)]
    if not rows:
        return torch.tensor(values)
    fractions = any(isinstance(x, float) for row in rows for x in row)
    return _pad(rows, 0, kind=torch.float32 if fractions else torch.int64)


def _pad(
    rows: Sequence[Sequence[float | Span]], fill: int, *, left: bool = False, kind: torch.dtype = torch.int64
) -> Tensor:
    """Lists of different lengths as one tensor, (B, longest) or, for pairs of numbers, (B, longest, 2)."""
    longest = max(map(len, rows))
    pairs = any(row and isinstance(row[0], list | tuple) for row in rows)
    made = torch.full((len(rows), longest, 2) if pairs else (len(rows), longest), fill, dtype=kind)
    for n, row in enumerate(rows):
        if row:
            begin = longest - len(row) if left else 0
            made[n, begin : begin + len(row)] = torch.from_numpy(numpy.asarray(row)).to(kind)
    return made
