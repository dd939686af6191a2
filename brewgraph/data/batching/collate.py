"""Rows of token ids to padded batches, where masks are drawn and texts are changed: anew in every epoch.

Everything random is a function of the seed, the epoch and the row's `index`, so that it depends neither on the batch
nor on the process that a row lands in. Shapes: B rows, L tokens, W words, C classes.
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
from brewgraph.data.encoding.texts import IGNORED, encode_texts
from brewgraph.data.encoding.tokenizer import Encoding
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.sources import DataSource, Join, Text

Rows = Sequence[Mapping[str, Any]]


class Collator:
    """Rows of `encode` to one batch of tensors, padded to its longest row with each tokenizer's own padding token.

    One encoding gives a flat batch:

        input_ids, attention_mask, token_type_ids   (B, L) int64, the last where there are such
        words          (B, W) int64, the position of each word's first token, -1 where it was cut off, and as padding
        labels         (B) int64 classes, (B, C) float32 several classes, (B) float32 numbers; (B, L) int64 tags, next
                       tokens (already moved: at t stands token t + 1) and masked tokens, -100 where there is none
        start, end     (B) int64, the tokens of an answer, -100 where there is nothing to learn from the window
        null           (B) int64, the token that stands for no answer
        offsets        (B, L, 2) int64, characters of the context, -1 outside it
        weights        (B) float32
        index          (B) int64
        first          (B) int64, of sentences in evaluation: the number of a row's first word in its sentence
        NAME           each of `columns`: (B), or (B, L) for lists, padded with 0

    Several give a dictionary under each encoding's key, with what belongs to its tokens, beside what belongs to the
    example (classes and numbers as labels, weights, index, columns).

    `source` says what is masked and how texts change; with `training` they change in every epoch, which `set_epoch`
    tells. Without it nothing is changed, and masks are always those of epoch 0.
    """

    def __init__(
        self,
        encodings: Sequence[Encoding],
        *,
        source: DataSource | None = None,
        words: bool = False,
        columns: Sequence[str] = (),
        seed: int = 0,
        training: bool = False,
    ):
        keys = [encoding.key for encoding in encodings]
        if len(set(keys)) < len(keys) or not keys:
            raise ValueError(f"a collator needs encodings with keys that differ, not {keys}")
        if len(keys) > 1 and (taken := set(keys) & set(columns)):
            raise SourceFault("B402", f"`{taken.pop()}` is a model and a column", help="call the model another name")
        self.encodings, self.columns = tuple(encodings), tuple(columns)
        self.words, self.seed, self.training, self.epoch = words, seed, training, 0
        first = source.parts[0] if isinstance(source, Join) else source
        self.text = first if isinstance(first, Text) else None
        self.augment = tuple(getattr(first, "augment", ())) if training else ()

    def set_epoch(self, epoch: int) -> None:
        """Draw masks and changes of another epoch, counted from 0; in evaluation they stay as they are."""
        self.epoch = epoch if self.training else 0

    def __call__(self, rows: Rows) -> dict[str, Any]:
        views = {encoding.key: self._view(encoding, rows) for encoding in self.encodings}
        batch: dict[str, Any] = views if len(views) > 1 else dict(*views.values())
        if "label" in rows[0]:
            batch["labels"] = _labels([row["label"] for row in rows])
        if "weights" in rows[0]:
            batch["weights"] = torch.tensor([row["weights"] for row in rows], dtype=torch.float32)
        for name in ("index", "first"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.int64)
        for name in self.columns:
            batch[name] = _column([row[f"column/{name}"] for row in rows])
        return batch

    def _view(self, encoding: Encoding, rows: Rows) -> dict[str, Tensor]:
        """What belongs to the tokens of one encoding."""
        own = self._columns(encoding, rows)
        tokenizer = encoding.tokenizer
        left = encoding.left
        lengths = [len(ids) for ids in own["input_ids"]]
        longest = max(lengths)
        # with padding on the left, positions move by as much
        shift_B = torch.tensor([longest - length if left else 0 for length in lengths])
        if self.text is not None and self.text.mask:
            words = [WordGroups(of, _count_words(row)) for of, row in zip(own.pop("word_of", ()), rows, strict=False)]
            own["input_ids"], own["labels"] = self._masks[encoding.key].draw(
                own["input_ids"], words, self.seed, self.epoch, [row["index"] for row in rows]
            )
        fills = {
            "input_ids": tokenizer.pad_token_id,
            "token_type_ids": tokenizer.pad_token_type_id,
            "labels": IGNORED,
            "offsets": -1,
        }
        batch: dict[str, Tensor] = {}
        for name, values in own.items():
            if name in ("start", "end", "null"):
                at_B = torch.tensor(values, dtype=torch.int64)
                batch[name] = torch.where(at_B >= 0, at_B + shift_B, at_B)
            elif name == "words":
                places_BW = _pad(values, -1)
                batch[name] = torch.where(places_BW >= 0, places_BW + shift_B[:, None], places_BW)
            else:
                batch[name] = _pad(values, fills.get(name, 0), left=left)
        if self.text is not None and not self.text.mask:
            batch["labels"] = next_tokens(batch["input_ids"], batch["attention_mask"])
        return batch

    def _columns(self, encoding: Encoding, rows: Rows) -> dict[str, list[Any]]:
        """The columns of one encoding, changed where augmentation is asked for."""
        prefix = f"{encoding.key}/"
        names = [c.removeprefix(prefix) for c in rows[0] if c.rpartition("/")[0] == encoding.key]
        if not names:
            raise ValueError(f"the rows have no columns of the encoding `{encoding.key}`: encode them with it")
        if self.words and "words" not in names:
            raise ValueError("the rows do not tell their words: encode(…, words=True)")
        own = {name: [row[f"{prefix}{name}"] for row in rows] for name in names}
        if not self.augment:
            return own
        if self.text is None:
            return self._changed_texts(encoding, rows, words="words" in names)
        return self._changed_ids(encoding, rows, own)

    def _changed_texts(self, encoding: Encoding, rows: Rows, *, words: bool) -> dict[str, list[Any]]:
        names = [name for name in ("text_0", "text_1") if name in rows[0]]
        mask = mask_of(encoding.tokenizer, self.augment)
        changed = [
            augment_texts(
                [row[name] for name in names],
                self.augment,
                seed=self.seed,
                epoch=self.epoch,
                example=row["index"],
                mask=mask,
            )
            for row in rows
        ]
        return encode_texts(encoding, list(zip(*changed, strict=True)), words=words)

    def _changed_ids(self, encoding: Encoding, rows: Rows, own: dict[str, list[Any]]) -> dict[str, list[Any]]:
        special = frozenset(encoding.tokenizer.all_special_ids)
        mask_id = encoding.tokenizer.mask_token_id
        ids = [
            augment_ids(
                row,
                self.augment,
                seed=self.seed,
                epoch=self.epoch,
                example=example["index"],
                mask=-1 if mask_id is None else mask_id,
                special=special,
            )
            for row, example in zip(own["input_ids"], rows, strict=True)
        ]
        # of what else there is (masks, types) a block has the same everywhere
        return {name: ids if name == "input_ids" else [v[:1] * len(i) for v, i in zip(values, ids, strict=True)]
                for name, values in own.items()}  # fmt: skip

    @cached_property
    def _masks(self) -> dict[str, Masks]:
        assert self.text is not None
        return {encoding.key: Masks.of(encoding.tokenizer, self.text.mask) for encoding in self.encodings}


def _count_words(row: Mapping[str, Any]) -> int:
    """Words of a block, those among them that some encoding has no room for."""
    return 1 + max(max(of, default=-1) for name, of in row.items() if name.endswith("/word_of"))


def next_tokens(ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """At each token the one that follows it; -100 at the last one and where either is padding."""
    labels_BL = torch.full_like(ids_BL, IGNORED)
    both = mask_BL[:, :-1].bool() & mask_BL[:, 1:].bool()
    labels_BL[:, :-1] = torch.where(both, ids_BL[:, 1:], IGNORED)
    return labels_BL


def _labels(values: list[Any]) -> Tensor:
    """Classes as whole numbers; several classes and numbers as fractions."""
    return torch.tensor(values, dtype=torch.int64 if isinstance(values[0], int) else torch.float32)


def _column(values: list[Any]) -> Tensor:
    if not isinstance(values[0], list):
        return torch.tensor(values)
    fractions = any(isinstance(x, float) for row in values for x in row)
    return _pad(values, 0, kind=torch.float32 if fractions else torch.int64)


def _pad(rows: list[list[Any]], fill: int, *, left: bool = False, kind: torch.dtype = torch.int64) -> Tensor:
    """Lists of different lengths as one tensor, (B, longest) or, for pairs of numbers, (B, longest, 2)."""
    longest = max(map(len, rows))
    pairs = any(row and isinstance(row[0], list | tuple) for row in rows)
    made = torch.full((len(rows), longest, 2) if pairs else (len(rows), longest), fill, dtype=kind)
    for n, row in enumerate(rows):
        if row:
            begin = longest - len(row) if left else 0
            made[n, begin : begin + len(row)] = torch.from_numpy(numpy.asarray(row)).to(kind)
    return made
