"""Texts to token ids, once per tokenizer, and rows to padded batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import tokenizers
import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from brewgraph.data.reading import quiet
from brewgraph.diagnostics import SourceFault

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens of a vocabulary that is trained here; their ids count from 0."""


@dataclass(frozen=True)
class Encoding:
    """How one model sees the texts: `key` names it in columns and batches, `max_length` counts all its tokens.

    A tokenizer without a padding token pads with its end-of-text token, in a copy: the one given stays as it is. Raises
    `SourceFault` B407 for a slow tokenizer and for one that has neither token.
    """

    key: str
    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise SourceFault(
                "B407",
                f"`{type(self.tokenizer).__name__}` is a slow tokenizer, which does not know where its tokens stand",
                help="name one with a fast version (a folder with tokenizer.json): `tokenizer=...`",
                field="tokenizer",
            )
        if self.tokenizer.pad_token_id is not None:
            return
        if self.tokenizer.eos_token_id is None:
            raise SourceFault(
                "B407",
                f"the tokenizer `{type(self.tokenizer).__name__}` has no padding token and no end-of-text token",
                help="set its `pad_token` and save it again with `save_pretrained`",
                field="tokenizer",
            )
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
        object.__setattr__(self, "tokenizer", tokenizer)


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-case WordPiece tokenizer in BERT's manner, its vocabulary learnt from `texts`.

    `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, the second text with type 1; `[PAD]` is 0. The vocabulary may stay
    below `vocab_size` where the texts are few. The same texts give the same vocabulary.
    """
    texts = list(texts)
    # The trainer numbers characters inside words (`##x`) in the order of a hash table, which differs between processes,
    # and breaks ties between merges by number. So a first pass finds those pieces, and a second has them in order.
    pieces = sorted(token for token in _learn(texts, 0, SPECIAL) if token.startswith("##") and len(token) == 3)
    vocabulary = _learn(texts, vocab_size, (*SPECIAL, *pieces))
    made = _bert_tokenizer(vocabulary)
    made.decoder = tokenizers.decoders.WordPiece(prefix="##")
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _learn(texts: Sequence[str], vocab_size: int, first: Sequence[str]) -> dict[str, int]:
    """A WordPiece vocabulary whose first entries are given."""
    learner = _bert_tokenizer({"[UNK]": 0})
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(first), continuing_subword_prefix="##", show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = learner.get_vocab()
    return vocabulary


def _bert_tokenizer(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made


def encode(split: datasets.Dataset, encodings: Sequence[Encoding], **k) -> datasets.Dataset:
    """The texts of a split as token ids, once for each encoding, cut to `max_length` (of a pair the longer text first).

    Columns: for each encoding what its tokenizer gives, named `key/input_ids` (int32), `key/attention_mask` and, where
    there is one, `key/token_type_ids` (int8), each a list as long as the example; `label` where there is one; `index`.
    Raises `SourceFault` B407 where `max_length` leaves no room for text.
    """
    texts = [column for column in ("text_0", "text_1") if column in split.column_names]
    kept = [column for column in ("label", "index") if column in split.column_names]
    features = {}
    for encoding in encodings:
        special = encoding.tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
        if encoding.max_length < special + len(texts):
            raise SourceFault(
                "B407",
                f"max_length = {encoding.max_length} leaves no room for text beside {special} special tokens",
                help=f"at least {special + len(texts)} tokens are needed",
                field="max_length",
            )
        for name in encoding.tokenizer(*([""] * len(texts))):
            whole = "int32" if name == "input_ids" else "int8"
            features[f"{encoding.key}/{name}"] = datasets.List(datasets.Value(whole))

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {
            f"{encoding.key}/{name}": values
            for encoding in encodings
            for name, values in encoding.tokenizer(
                *(batch[column] for column in texts), truncation="longest_first", max_length=encoding.max_length
            ).items()
        }

    with quiet():
        return split.map(
            tokenise,
            batched=True,
            remove_columns=texts,
            features=datasets.Features({**{column: split.features[column] for column in kept}, **features}),
            keep_in_memory=True,
            load_from_cache_file=False,
        )


def row_lengths(encoded: datasets.Dataset) -> list[int]:
    """Tokens of each row of `encode`, in its longest encoding."""
    columns = [column for column in encoded.column_names if column.endswith("/input_ids")]
    return [max(map(len, row)) for row in zip(*(encoded[column][:] for column in columns), strict=True)]


class Collator:
    """Rows of `encode` to one batch of tensors, padded to its longest row with each tokenizer's own padding.

    One encoding gives a flat batch: `input_ids`, `attention_mask` and, where there are such, `token_type_ids` (int64,
    rows x longest row), `labels` where there are labels, and `index` (int64, rows). Several give one
    such dictionary under each encoding's key, beside `labels` and `index`.
    """

    def __init__(self, encodings: Sequence[Encoding], **k):
        keys = [encoding.key for encoding in encodings]
        if len(set(keys)) < len(keys) or not keys:
            raise ValueError(f"a collator needs encodings with keys that differ, not {keys}")
        self.encodings = tuple(encodings)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        padded = {encoding.key: self._pad(encoding, rows) for encoding in self.encodings}
        batch: dict[str, Any] = padded if len(padded) > 1 else dict(*padded.values())
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([row["label"] for row in rows], dtype=torch.int64)
        batch["index"] = torch.tensor([row["index"] for row in rows], dtype=torch.int64)
        return batch

    @staticmethod
    def _pad(encoding: Encoding, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        columns = [column for column in rows[0] if column.rpartition("/")[0] == encoding.key]
        if not columns:
            raise ValueError(f"the rows have no columns of the encoding `{encoding.key}`: encode them with it")
        inputs = {column.rpartition("/")[2]: [row[column] for row in rows] for column in columns}
        return dict(pad_without_fast_tokenizer_warning(encoding.tokenizer, inputs, padding=True, return_tensors="pt"))
