"""Texts, pairs and sentences as token ids: one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brewgraph.data.tokens import Encoding
from brewgraph.data.words import first_tokens, given_spans, word_spans, words_of_tokens
from brewgraph.diagnostics import SourceFault

KEPT = ("label", "weights", "index", "first")
"""Columns of the examples that rows keep, beside `column/NAME`."""
IGNORED = -100
"""The label of a token that has none."""


def check_room(encoding: Encoding, texts: int) -> None:
    """Raise `SourceFault` B407 where `max_length` leaves no room for so many texts beside special tokens."""
    special = encoding.tokenizer.num_special_tokens_to_add(pair=texts == 2)
    if encoding.max_length < special + texts:
        raise SourceFault(
            "B407",
            f"max_length = {encoding.max_length} leaves no room for text beside {special} special tokens",
            help=f"at least {special + texts} tokens are needed",
            field="max_length",
        )


def encode_texts(encoding: Encoding, texts: Sequence[Sequence[str]], *, words: bool) -> dict[str, list[Any]]:
    """What a tokenizer gives for columns of texts, one or two, the longer of a pair cut first; `words` where asked.

    The words of a pair are those of the first text, then those of the second.
    """
    made = encoding.tokenizer(
        *map(list, texts), truncation="longest_first", max_length=encoding.max_length, return_offsets_mapping=words
    )
    if not words:
        return dict(made.items())
    offsets = made.pop("offset_mapping")
    found = []
    for row, spans in enumerate(offsets):
        sequences = made.sequence_ids(row)
        places: list[int] = []
        for number, column in enumerate(texts):
            own = [span if sequence == number else (0, 0) for span, sequence in zip(spans, sequences, strict=True)]
            of_text = word_spans(column[row])
            places += first_tokens(words_of_tokens(of_text, own), len(of_text))
        found.append(places)
    return {**made, "words": found}


def encode_sentences(
    encoding: Encoding,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[int]] | None,
    own: Sequence[Sequence[bool]] | None = None,
) -> dict[str, list[Any]]:
    """What a tokenizer gives for given words with a space between any two; `words`, and `labels` where there are tags.

    The label of a word stands at its first token; all others have -100. Where a token covers two words it is the first
    one's, and the second has none. Nor have words a place or a label that are not the row's `own`.
    """
    joined = [given_spans(sentence) for sentence in sentences]
    made = encoding.tokenizer(
        [text for text, _ in joined], truncation=True, max_length=encoding.max_length, return_offsets_mapping=True
    )
    offsets = made.pop("offset_mapping")
    found = dict(made.items())
    places = [
        first_tokens(words_of_tokens(spans, row), len(spans)) for (_, spans), row in zip(joined, offsets, strict=True)
    ]
    if own is not None:
        places = [[p if kept else -1 for p, kept in zip(*row, strict=True)] for row in zip(places, own, strict=True)]
    found["words"] = places
    if tags is not None:
        found["labels"] = []
        for row, own_places, own_tags in zip(offsets, places, tags, strict=True):
            labels = [IGNORED] * len(row)
            for place, tag in zip(own_places, own_tags, strict=True):
                if place >= 0:
                    labels[place] = tag
            found["labels"].append(labels)
    return found
