"""Plain text as blocks of tokens for language models; blocks run across the ends of lines."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import datasets
import numpy

from brewgraph.data.batching.augmentation import split_words
from brewgraph.data.encoding.texts import NO_SPAN, Span, word_places, word_spans, words_of_tokens
from brewgraph.data.encoding.tokenizer import Encoding, require_mask, special_affixes
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Text

_CHUNK = 1000
"""Lines that are tokenised together."""
_LEAST = 2
"""The least tokens of text in a block: one to read, one to predict."""


def encode_blocks(
    split: datasets.Dataset, encodings: Sequence[Encoding], source: Text, words: bool
) -> dict[str, list[Any]]:
    """Columns of all blocks, in the order of the text, named as in `encode`; `index` counts the blocks.

    With one encoding every block but the last is full. With several the first one's tokenizer cuts between words, and
    the others see the same pieces of text, each up to its own length; for `mask` each row also has the words of its
    tokens (`key/word_of`), which are then masked as a whole, the same ones in all encodings.

    Raises `SourceFault` B407 for a block that is too small or longer than an encoding, B404 for too little text.
    """
    first, several = encodings[0], len(encodings) > 1
    if source.mask:
        for encoding in encodings:
            require_mask(encoding.tokenizer)
    lines = split["text_0"][:]
    text = "".join(f"{line}\n" for line in lines)
    ids, spans = _tokens(first, lines)
    parts = list(itertools.pairwise(_cuts(text, spans[:, 0], _room(first, source), between_words=several)))
    stretches = [(int(spans[a, 0]), int(spans[b, 0]) if b < len(spans) else len(text)) for a, b in parts]
    columns: dict[str, list[Any]] = {"index": list(range(len(parts)))}
    of_text = [word_spans(text[a:b]) for a, b in stretches] if words or (source.mask and several) else []
    for encoding in encodings:
        if encoding is first:
            rows = [(ids[a:b].tolist(), (spans[a:b] - spans[a, 0]).tolist()) for a, b in parts]
            inputs, offsets = _with_affixes(encoding, rows)
        else:
            inputs, offsets = _tokenise(encoding, [text[a:b] for a, b in stretches])
        columns |= {f"{encoding.key}/{name}": values for name, values in inputs.items()}
        pairs = list(zip(of_text, offsets, strict=False))
        if words:
            columns[f"{encoding.key}/words"] = [word_places(block, row) for block, row in pairs]
        if source.mask and several:
            columns[f"{encoding.key}/word_of"] = [words_of_tokens(block, row) for block, row in pairs]
    return columns


def _with_affixes(
    encoding: Encoding, rows: list[tuple[list[int], list[Span]]]
) -> tuple[dict[str, list[list[int]]], list[list[Span]]]:
    """Inputs and offsets of blocks, from their ids and offsets without special tokens."""
    before, behind = special_affixes(encoding.tokenizer)
    whole = [[*before, *ids, *behind] for ids, _ in rows]
    inputs: dict[str, list[list[int]]] = {}
    for name in encoding.tokenizer("a"):  # the inputs of the model, in the tokenizer's order
        fill = 1 if name == "attention_mask" else 0
        inputs[name] = whole if name == "input_ids" else [[fill] * len(row) for row in whole]
    return inputs, [[*[NO_SPAN] * len(before), *offsets, *[NO_SPAN] * len(behind)] for _, offsets in rows]


def _tokenise(encoding: Encoding, pieces: list[str]) -> tuple[dict[str, list[list[int]]], list[list[Span]]]:
    made = encoding.tokenizer(pieces, truncation=True, max_length=encoding.max_length, return_offsets_mapping=True)
    offsets = [
        [NO_SPAN if sequence is None else span for span, sequence in zip(row, made.sequence_ids(n), strict=True)]
        for n, row in enumerate(made.pop("offset_mapping"))
    ]
    return dict(made.items()), offsets


def _room(encoding: Encoding, source: Text) -> int:
    """Tokens of text in a block."""
    size = source.block or encoding.max_length
    special = sum(map(len, special_affixes(encoding.tokenizer)))
    if size > encoding.max_length:
        message = f"block = {size} is longer than max_length = {encoding.max_length}"
        help = f"block={encoding.max_length}, or a larger `max_length` where the models allow it"
        raise SourceFault("B407", message, help=help, field="block")
    if size < special + _LEAST:
        message = f"a block of {size} tokens leaves no room for text beside {special} special tokens"
        help = f"at least {special + _LEAST} tokens are needed"
        raise SourceFault("B407", message, help=help, field="block" if source.block else "max_length")
    return size - special


def _tokens(encoding: Encoding, lines: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The ids of all lines, one after the other, and the characters of each token (N, 2), line ends counted."""
    ids: list[numpy.ndarray] = []
    spans: list[numpy.ndarray] = []
    at = 0
    for begin in range(0, len(lines), _CHUNK):
        chunk = [f"{line}\n" for line in lines[begin : begin + _CHUNK]]
        made = encoding.tokenizer(
            chunk, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        for line, row, offsets in zip(chunk, made["input_ids"], made["offset_mapping"], strict=True):
            ids.append(numpy.array(row, dtype=numpy.int64))
            spans.append(numpy.array(offsets, dtype=numpy.int64).reshape(-1, 2) + at)
            at += len(line)
    return numpy.concatenate(ids), numpy.concatenate(spans)


def _cuts(text: str, starts: numpy.ndarray, room: int, *, between_words: bool) -> list[int]:
    """The first token of each block, then the number of tokens. Raises B404 for too little text."""
    if len(starts) < _LEAST:
        raise SourceFault("B404", "there is too little text", help="a file with more of it", field="train")
    cuts = [0]
    while len(starts) - cuts[-1] > room:
        at = cuts[-1] + room
        if between_words:
            fits = (i for i in range(at, cuts[-1] + _LEAST - 1, -1) if _begins_word(text, int(starts[i])))
            at = next(fits, at)
        cuts.append(at)
    if len(starts) - cuts[-1] < _LEAST and len(cuts) > 1:
        return cuts  # a single token at the end has nothing to guess
    return [*cuts, len(starts)]


def _begins_word(text: str, at: int) -> bool:
    before, here = text[at - 1 : at], text[at : at + 1]
    return not before.strip() or not here.strip() or len(split_words(before + here)) > 1
