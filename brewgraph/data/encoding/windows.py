"""Texts longer than an encoding as windows: of questions, whose labels are positions, and of sentences with tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy

from brewgraph.data.encoding.texts import KEPT, encode_sentences
from brewgraph.data.encoding.tokenizer import Encoding
from brewgraph.data.encoding.word_alignment import NO_SPAN, Span, first_tokens, word_spans, words_of_tokens
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.sources import Squad

_CHUNK = 200
"""Questions that are tokenised together."""
NOWHERE = (-100, -100)
"""Start and end where a window does not hold the answer, and every question has one."""


def encode_windows(
    split: datasets.Dataset, encodings: Sequence[Encoding], source: Squad, words: bool
) -> dict[str, list[Any]]:
    """Columns of the windows of all questions, in their order, as `encode` names them.

    The first encoding's tokenizer cuts the context; the others see the same stretches of characters, each as far as its
    own length goes. Offsets count characters of the whole context. `null` is the token that stands for no answer; where
    some question of the split has none, it is also the label of windows that do not hold the answer, as in `run_qa.py`
    of transformers' examples. Raises `SourceFault` B407 where the windows would not move on.
    """
    kept = [name for name in split.column_names if name in KEPT or name.startswith("column/")]
    cut = _cut(encodings[0], split["text_0"][:], source.max_query_length)
    _check_room(encodings[0], cut, source)
    has_null = not all(answers["start"] for answers in split["answers"][:])
    columns: dict[str, list[Any]] = {}

    def add(name: str, value: Any) -> None:
        columns.setdefault(name, []).append(value)

    for begin in range(0, len(split), _CHUNK):
        chunk = split[begin : begin + _CHUNK]
        questions, contexts = cut[begin : begin + _CHUNK], chunk["text_1"]
        windows = list(_windows(encodings[0], questions, contexts, source.stride))
        stretches = [_stretch(window) for _, window in windows]
        for row, _ in windows:
            for name in kept:
                add(name, chunk[name][row])
        seen = [[window for _, window in windows]]
        for encoding in encodings[1:]:
            pieces = [contexts[row][a:b] for (row, _), (a, b) in zip(windows, stretches, strict=True)]
            asked = [questions[row] for row, _ in windows]
            made = encoding.tokenizer(
                asked, pieces, truncation="only_second", max_length=encoding.max_length, return_offsets_mapping=True
            )
            seen.append([_window(encoding, made, i, shift=a) for i, (a, _) in enumerate(stretches)])
        for encoding, views in zip(encodings, seen, strict=True):
            for (row, _), (a, b), view in zip(windows, stretches, views, strict=True):
                for name, values in view["inputs"].items():
                    add(f"{encoding.key}/{name}", values)
                offsets = [span if inside == 1 else NO_SPAN for span, inside in view["tokens"]]
                null = _null_token(encoding, view)
                held = _positions(view, _first_answer(chunk["answers"][row]))
                start, end = held or ((null, null) if has_null else NOWHERE)
                add(f"{encoding.key}/offsets", offsets)
                add(f"{encoding.key}/start", start)
                add(f"{encoding.key}/end", end)
                add(f"{encoding.key}/null", null)
                if words:
                    add(f"{encoding.key}/words", _words(questions[row], contexts[row], (a, b), view["tokens"]))
    return columns


def _cut(encoding: Encoding, questions: Sequence[str], longest: int) -> list[str]:
    """Questions as far as their first `longest` tokens go."""
    made = encoding.tokenizer(
        list(questions),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    return [
        question if len(offsets) <= longest else question[: offsets[longest - 1][1]]
        for question, offsets in zip(questions, made["offset_mapping"], strict=True)
    ]


def _check_room(encoding: Encoding, questions: Sequence[str], source: Squad) -> None:
    """Raise B407 where beside the longest question no more of a context fits than two windows share."""
    special = encoding.tokenizer.num_special_tokens_to_add(pair=True)
    made = encoding.tokenizer(list(questions), add_special_tokens=False, return_attention_mask=False, verbose=False)
    longest = max(map(len, made["input_ids"]))
    room = encoding.max_length - special - longest
    if room <= source.stride:
        least = special + longest + source.stride + 1
        raise SourceFault(
            "B407",
            f"max_length = {encoding.max_length} leaves {max(0, room)} tokens of a text beside a question of "
            f"{longest}, and windows share {source.stride}",
            help=f"a `stride` or a `max_query_length` that is smaller, or at least {least} tokens",
            field="stride" if "stride" in source.model_fields_set else "max_length",
        )


def _windows(
    encoding: Encoding, questions: Sequence[str], contexts: Sequence[str], stride: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The row of each window within the chunk, and the window."""
    made = encoding.tokenizer(
        list(questions),
        list(contexts),
        truncation="only_second",
        max_length=encoding.max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    rows = made.pop("overflow_to_sample_mapping")
    for i, row in enumerate(rows):
        yield row, _window(encoding, made, i)


def _window(encoding: Encoding, made: Any, i: int, shift: int = 0) -> dict[str, Any]:
    """Its inputs, and the offsets and sequence (0, 1 or None for special tokens) of each token."""
    inputs = {name: [values[i]] for name, values in made.items() if name != "offset_mapping"}
    empty = not made["input_ids"][i]
    encoding.fill_empty(inputs)
    inputs = {name: values[0] for name, values in inputs.items()}
    if empty:
        return {"inputs": inputs, "tokens": [(NO_SPAN, None)]}
    tokens = [
        ((a + shift, b + shift) if sequence == 1 else (a, b), sequence)
        for (a, b), sequence in zip(made["offset_mapping"][i], made.sequence_ids(i), strict=True)
    ]
    return {"inputs": inputs, "tokens": tokens}


def _stretch(window: dict[str, Any]) -> Span:
    """The characters of the context that a window holds."""
    inside = [span for span, sequence in window["tokens"] if sequence == 1 and span[0] < span[1]]
    return (inside[0][0], max(end for _, end in inside)) if inside else (0, 0)


def _first_answer(answers: dict[str, list[Any]]) -> Span | None:
    """The characters of the first answer, white space around it left out; None where there is none."""
    if not answers["start"]:
        return None
    start, text = answers["start"][0], answers["text"][0]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def _null_token(encoding: Encoding, view: dict[str, Any]) -> int:
    """The token that stands for no answer: CLS, wherever a tokenizer puts it, or else BOS, or else the first token."""
    ids, tokenizer = view["inputs"]["input_ids"], encoding.tokenizer
    return next((ids.index(mark) for mark in (tokenizer.cls_token_id, tokenizer.bos_token_id) if mark in ids), 0)


def _positions(view: dict[str, Any], answer: Span | None) -> tuple[int, int] | None:
    """First and last token of the answer; None where there is none, or the window does not hold the whole of it."""
    if answer is None:
        return None
    inside = [(i, a, b) for i, ((a, b), sequence) in enumerate(view["tokens"]) if sequence == 1 and a < b]
    held = [i for i, a, b in inside if b > answer[0] and a < answer[1]]
    if not held or inside[0][1] > answer[0] or inside[-1][2] < answer[1]:
        return None
    return held[0], held[-1]


def _words(question: str, context: str, stretch: Span, tokens: Sequence[tuple[Span, int | None]]) -> list[int]:
    """First tokens of the words of the question, then of those of the stretch."""
    a, b = stretch
    of_question = word_spans(question)
    of_stretch = [(start + a, end + a) for start, end in word_spans(context[a:b])]
    first = words_of_tokens(of_question, [span if sequence == 0 else NO_SPAN for span, sequence in tokens])
    second = words_of_tokens(of_stretch, [span if sequence == 1 else NO_SPAN for span, sequence in tokens])
    return [*first_tokens(first, len(of_question)), *first_tokens(second, len(of_stretch))]


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def cut_sentences(split: datasets.Dataset, encodings: Sequence[Encoding]) -> datasets.Dataset:
    """The sentences of a split, those that are too long for an encoding in several rows with the same `index`.

    Each row has some of the words, as many as all encodings hold; a window shares a quarter of its words with the next.
    `first` is the number of the row's first word in the sentence, and `own` tells which of its words are this row's to
    tag: each is that of one row, the one in which more words stand on either side of it.
    """
    held = [_held(encoding, split["words"][:]) for encoding in encodings]
    if all(counts[n] == len(words) for counts in held for n, words in enumerate(split["words"][:])):
        return split.add_column("first", numpy.zeros(len(split), dtype=numpy.int64))
    columns: dict[str, list[Any]] = {name: [] for name in (*split.column_names, "first", "own")}
    for n, row in enumerate(split):
        for start, stop, own in _own_words(row["words"], min(counts[n] for counts in held), encodings):
            for name, value in row.items():
                columns[name].append(value[start:stop] if name in ("words", "tags") else value)
            columns["first"].append(start)
            columns["own"].append([number in own for number in range(start, stop)])
    features = split.features | {"first": datasets.Value("int64"), "own": datasets.List(datasets.Value("bool"))}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _held(encoding: Encoding, sentences: Sequence[Sequence[str]]) -> list[int]:
    """How many words of each sentence an encoding holds: all, or those up to the last one that has a token."""
    made = encode_sentences(encoding, sentences, None)
    found = []
    for words, ids, places in zip(sentences, made["input_ids"], made["words"], strict=True):
        last = max((number for number, place in enumerate(places, 1) if place >= 0), default=0)
        found.append(len(words) if len(ids) < encoding.max_length else last)
    return found


def _own_words(words: Sequence[str], held: int, encodings: Sequence[Encoding]) -> Iterator[tuple[int, int, range]]:
    """Of each window of a sentence: its first word, the one behind its last, and the numbers of those that it tags."""
    longest = max(encoding.max_length for encoding in encodings)
    start, owned = 0, 0
    while True:
        stop = start + max(1, held)
        if stop >= len(words):
            yield start, len(words), range(owned, len(words))
            return
        after = stop - (stop - start) // 4
        middle = (after + stop + 1) // 2
        yield start, stop, range(owned, middle)
        start, owned = after, middle
        piece = words[start : start + longest]
        held = min(_held(encoding, [piece])[0] for encoding in encodings)
