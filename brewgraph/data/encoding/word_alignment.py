"""Words of a text and their tokens: the axis on which different tokenizers agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brewgraph.data.batching.augmentation import split_words

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
