"""Texts, pairs and sentences as token ids, one row each; words are the axis on which tokenizers agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from brewgraph.data.batching.augmentation import split_words
from brewgraph.data.encoding.tokenizer import Encoding
from brewgraph.diagnostics import SourceFault

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
