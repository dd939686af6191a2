"""Words of a text and their tokens: the axis on which different tokenizers agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brewgraph.data.augmentation import split_words

Span = tuple[int, int]
"""Characters of a text, from and to, the last one excluded."""


def word_spans(text: str) -> list[Span]:
    """Where the words stand: between white space, and each Chinese or Japanese character for itself.

    >>> word_spans("the cat's 猫科")
    [(0, 3), (4, 9), (10, 11), (11, 12)]
    """
    found, at = [], 0
    for word in split_words(text):
        start = text.index(word, at)
        at = start + len(word)
        found.append((start, at))
    return found


def given_spans(words: Sequence[str]) -> tuple[str, list[Span]]:
    """Given words as one text with spaces between them, and where each of them stands in it."""
    spans, at = [], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), spans


def words_of_tokens(spans: Sequence[Span], offsets: Iterable[Span]) -> list[int]:
    """The word of each token by its characters, -1 where it has none; a token over several words is the first one's."""
    found, word = [], 0
    for start, end in offsets:
        while word < len(spans) and spans[word][1] <= start:
            word += 1
        found.append(word if start < end and word < len(spans) and spans[word][0] < end else -1)
    return found


def first_tokens(words: Sequence[int], count: int) -> list[int]:
    """The position of the first token of each of `count` words, given each token's word; -1 where there is none."""
    found = [-1] * count
    for position in range(len(words) - 1, -1, -1):
        if words[position] >= 0:
            found[words[position]] = position
    return found
