"""Tokenizers, one of them trained on the data; texts, pairs and sentences as token ids, with their words."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from brewgraph.data.batching.augmentation import split_words
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


WORDPIECE_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
"""What a tokenizer that is trained on the data gives a model that takes all of it, as BERT does."""


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
        model_input_names=list(WORDPIECE_INPUTS),
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


# ── texts as token ids ───────────────────────────────────────────────────────────────────────────────────────────────


KEPT = ("label", "weights", "index", "first")
"""Columns of the examples that encoded rows keep, beside `column/NAME`."""
IGNORED = -100
"""The label of a token that has none."""


def check_room(encoding: Encoding, texts: int) -> None:
    """Raise `SourceFault` B407 where `max_length` leaves no room for so many texts beside special tokens."""
    special = encoding.tokenizer.num_special_tokens_to_add(pair=texts == 2)
    if encoding.max_length < special + texts:
        message = f"max_length = {encoding.max_length} leaves no room for text beside {special} special tokens"
        raise SourceFault("B407", message, help=f"at least {special + texts} tokens are needed", field="max_length")


def encode_texts(encoding: Encoding, texts: Sequence[Sequence[str]], *, words: bool) -> dict[str, list[Any]]:
    """The inputs of one or two columns of texts, the longer of a pair cut first; with `words` the places of words.

    The words of a pair are those of the first text, then those of the second.
    """
    made = encoding.tokenizer(
        *map(list, texts), truncation="longest_first", max_length=encoding.max_length, return_offsets_mapping=words
    )
    offsets = made.pop("offset_mapping", ())
    inputs = dict(made.items())
    encoding.fill_empty(inputs)
    if not words:
        return inputs
    rows = []
    for row, spans in enumerate(offsets):
        sequences = made.sequence_ids(row)
        places: list[int] = []
        for number, column in enumerate(texts):
            own_spans = [
                span if sequence == number else NO_SPAN for span, sequence in zip(spans, sequences, strict=True)
            ]
            places += word_places(word_spans(column[row]), own_spans)
        rows.append(places)
    return {**inputs, "words": rows}


def encode_sentences(
    encoding: Encoding,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[int]] | None,
    tagged: Sequence[Sequence[bool]] | None = None,
) -> dict[str, list[Any]]:
    """The inputs of sentences that are split into words, with `words`, and `labels` if there are tags.

    The label of a word is at its first token by `word_ids()`, as in transformers' token classification; all other
    tokens have -100, also a lone `▁` inside a word. A word without tokens has no label, nor one that is not
    `tagged` in this row.
    """
    made = encoding.tokenizer(
        [list(sentence) for sentence in sentences],
        is_split_into_words=True,
        truncation=True,
        max_length=encoding.max_length,
    )
    columns = dict(made.items())
    encoding.fill_empty(columns)
    columns["words"] = []
    for row, sentence in enumerate(sentences):
        word_of = [-1 if word is None else word for word in made.word_ids(row)]
        places = first_tokens(word_of, len(sentence))
        if tagged is not None:
            places = [place if here else -1 for place, here in zip(places, tagged[row], strict=True)]
        columns["words"].append(places)
    if tags is not None:
        columns["labels"] = []
        for ids, word_tokens, word_tags in zip(columns["input_ids"], columns["words"], tags, strict=True):
            labels = [IGNORED] * len(ids)
            for place, tag in zip(word_tokens, word_tags, strict=True):
                if place >= 0:
                    labels[place] = tag
            columns["labels"].append(labels)
    return columns


# ── words and their tokens ───────────────────────────────────────────────────────────────────────────────────────────


Span = tuple[int, int]
"""Characters of a text, from and to, the last one excluded."""
NO_SPAN = (-1, -1)
"""The span of a token without characters."""


def word_spans(text: str) -> list[Span]:
    """The spans of words: between white space, and each Chinese or Japanese character by itself.

    >>> word_spans("the cat's 猫科")
    [(0, 3), (4, 9), (10, 11), (11, 12)]
    """
    spans, at = [], 0
    for word in split_words(text):
        start = text.index(word, at)
        at = start + len(word)
        spans.append((start, at))
    return spans


def words_of_tokens(spans: Sequence[Span], offsets: Iterable[Span]) -> list[int]:
    """The word of each token by its characters, -1 for none; a token over several words belongs to the first.

    A token of white space right before a word belongs to that word, as a lone `▁` or `Ġ` does by `word_ids()`. Special
    tokens have `NO_SPAN`.
    """
    words, word = [], 0
    for start, end in offsets:
        while word < len(spans) and spans[word][1] <= start:
            word += 1
        begins = spans[word][0] if word < len(spans) else end + 1
        words.append(word if (start < end and begins < end) or (start <= end and begins == end) else -1)
    return words


def first_tokens(words: Sequence[int], count: int) -> list[int]:
    """The position of the first token of each of `count` words, from each token's word; -1 for words without one."""
    places = [-1] * count
    for position in range(len(words) - 1, -1, -1):
        if words[position] >= 0:
            places[words[position]] = position
    return places


def word_places(spans: Sequence[Span], offsets: Iterable[Span]) -> list[int]:
    """The position of the first token of each word, -1 for words without one."""
    return first_tokens(words_of_tokens(spans, offsets), len(spans))
