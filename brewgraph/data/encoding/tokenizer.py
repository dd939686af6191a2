"""The tokenizers of models, and one that is trained on the data."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from brewgraph.diagnostics import SourceFault

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens of a trained vocabulary; their ids count from 0."""


@dataclass(frozen=True)
class Encoding:
    """How one model encodes texts: `key` names it in columns and batches, `max_length` counts all tokens.

    Batches are padded on the right, with `left` on the left, whatever the tokenizer's `padding_side`. A tokenizer
    without a padding token pads with its end-of-text token, in a copy. Raises `SourceFault` B407 for a slow tokenizer
    and for one that has neither token.
    """

    key: str
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    left: bool = False

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            message = f"`{type(self.tokenizer).__name__}` is a slow tokenizer, which gives no offsets of its tokens"
            help = "name one with a fast version (a folder with tokenizer.json): `tokenizer=...`"
            raise SourceFault("B407", message, help=help, field="tokenizer")
        if self.tokenizer.pad_token_id is not None:
            return
        if self.tokenizer.eos_token_id is None:
            message = f"the tokenizer `{type(self.tokenizer).__name__}` has no padding token and no end-of-text token"
            help = "set its `pad_token` and save it again with `save_pretrained`"
            raise SourceFault("B407", message, help=help, field="tokenizer")
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
        object.__setattr__(self, "tokenizer", tokenizer)

    def fill_empty(self, inputs: dict[str, list[Any]]) -> None:
        """Give each row without tokens one, in place: the token for the beginning of a text, else for its end.

        Models cannot run on no token. Tokenizers that add no special tokens, such as GPT-2's, give none for an empty
        text; `generate` begins with the same token there.
        """
        tokenizer = self.tokenizer
        marks = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        token = next(x for x in marks if x is not None)
        for row in [row for row, ids in enumerate(inputs["input_ids"]) if not ids]:
            for name in inputs:
                inputs[name][row] = [token if name == "input_ids" else int(name == "attention_mask")]


def special_affixes(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer adds before and after a text."""
    made = tokenizer("a", return_special_tokens_mask=True)
    marks = made["special_tokens_mask"]
    first = marks.index(0) if 0 in marks else len(marks)
    last = len(marks) - marks[::-1].index(0) if 0 in marks else len(marks)
    return made["input_ids"][:first], made["input_ids"][last:]


def require_mask(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `SourceFault` B407 where a tokenizer has no mask token."""
    if tokenizer.mask_token_id is None:
        message = f"`mask` needs a mask token, and the tokenizer `{type(tokenizer).__name__}` has none"
        help = "remove `mask` to predict the next word, or set the tokenizer's `mask_token` and save it again"
        raise SourceFault("B407", message, help=help, field="mask")


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
