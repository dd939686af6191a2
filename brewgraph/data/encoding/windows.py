"""Texts longer than an encoding as windows: those of questions, whose labels are positions, and tagged sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy
from transformers import BatchEncoding

from brewgraph.data.encoding.texts import KEPT, NO_SPAN, Span, encode_sentences, word_places, word_spans
from brewgraph.data.encoding.tokenizer import Encoding
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Squad

_CHUNK = 200
"""Questions that are tokenised together."""
NOWHERE = (-100, -100)
"""Start and end where a window does not hold the answer, and every question has one."""


@dataclass(frozen=True)
class _Window:
    """One window's inputs, and for each token its characters of the text and its sequence: 0 the question, 1 the
    context, None for special tokens.
    """

    inputs: dict[str, list[int]]
    spans: list[Span]
    sequences: list[int | None]

    def spans_of(self, sequence: int) -> list[Span]:
        """The spans of all tokens, `NO_SPAN` for those outside a sequence."""
        return [span if of == sequence else NO_SPAN for span, of in zip(self.spans, self.sequences, strict=True)]

    @property
    def stretch(self) -> Span:
        """The characters of the context that it holds."""
        inside = [(start, end) for start, end in self.spans_of(1) if start < end]
        return (inside[0][0], max(end for _, end in inside)) if inside else (0, 0)


def encode_windows(
    split: datasets.Dataset, encodings: Sequence[Encoding], source: Squad, words: bool
) -> dict[str, list[Any]]:
    """Columns of the windows of all questions, in their order, named as in `encode`.

    The first encoding's tokenizer cuts the context; the others see the same characters, each up to its own length.
    Offsets count characters of the whole context. `null` is the token for no answer; if some question of the split has
    none, it is also the label of windows without the answer, as in `run_qa.py` of transformers' examples. Raises
    `SourceFault` B407 where the windows would not advance.
    """
    kept = [name for name in split.column_names if name in KEPT or name.startswith("column/")]
    cut = _cut(encodings[0], split["text_0"][:], source.max_query_length)
    _check_room(encodings[0], cut, source)
    has_null = not all(answers["start"] for answers in split["answers"][:])
    columns: dict[str, list[Any]] = {}

    def add(name: str, value: object) -> None:
        columns.setdefault(name, []).append(value)

    for begin in range(0, len(split), _CHUNK):
        chunk = split[begin : begin + _CHUNK]
        questions, contexts = cut[begin : begin + _CHUNK], chunk["text_1"]
        windows = list(_windows(encodings[0], questions, contexts, source.stride))
        for row, _ in windows:
            for name in kept:
                add(name, chunk[name][row])
        pieces = [(questions[row], contexts[row], window.stretch) for row, window in windows]
        for encoding in encodings:
            first = encoding is encodings[0]
            views = [window for _, window in windows] if first else _encode_pieces(encoding, pieces)
            for (row, _), piece, view in zip(windows, pieces, views, strict=True):
                null = _null_token(encoding, view)
                place = _answer_tokens(view, _first_answer(chunk["answers"][row]))
                start, end = place or ((null, null) if has_null else NOWHERE)
                labels: dict[str, object] = {"offsets": view.spans_of(1), "start": start, "end": end, "null": null}
                if words:
                    labels["words"] = _words(*piece, view)
                for name, values in (view.inputs | labels).items():
                    add(f"{encoding.key}/{name}", values)
    return columns


def _cut(encoding: Encoding, questions: Sequence[str], longest: int) -> list[str]:
    """Questions cut behind their first `longest` tokens."""
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
    """Raise B407 where no more of a context fits beside the longest question than two windows share."""
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
) -> Iterator[tuple[int, _Window]]:
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
    for i, row in enumerate(made.pop("overflow_to_sample_mapping")):
        yield row, _window(encoding, made, i)


def _encode_pieces(encoding: Encoding, pieces: Sequence[tuple[str, str, Span]]) -> list[_Window]:
    """A window of each question with a piece of its context, offsets counted in the whole context."""
    made = encoding.tokenizer(
        [question for question, _, _ in pieces],
        [context[start:end] for _, context, (start, end) in pieces],
        truncation="only_second",
        max_length=encoding.max_length,
        return_offsets_mapping=True,
    )
    return [_window(encoding, made, i, shift=start) for i, (_, _, (start, _)) in enumerate(pieces)]


def _window(encoding: Encoding, made: BatchEncoding, i: int, shift: int = 0) -> _Window:
    inputs = {name: [values[i]] for name, values in made.items() if name != "offset_mapping"}
    empty = not made["input_ids"][i]
    encoding.fill_empty(inputs)
    inputs = {name: values[0] for name, values in inputs.items()}
    if empty:
        return _Window(inputs, [NO_SPAN], [None])
    sequences = made.sequence_ids(i)
    offsets = zip(made["offset_mapping"][i], sequences, strict=True)
    spans = [(a + shift, b + shift) if sequence == 1 else (a, b) for (a, b), sequence in offsets]
    return _Window(inputs, spans, sequences)


def _first_answer(answers: dict[str, list[Any]]) -> Span | None:
    """The characters of the first answer without white space around it; None if there is no answer."""
    if not answers["start"]:
        return None
    start, text = answers["start"][0], answers["text"][0]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def _null_token(encoding: Encoding, view: _Window) -> int:
    """The token for no answer: CLS, wherever a tokenizer puts it, or else BOS, or else the first token."""
    ids, tokenizer = view.inputs["input_ids"], encoding.tokenizer
    return next((ids.index(mark) for mark in (tokenizer.cls_token_id, tokenizer.bos_token_id) if mark in ids), 0)


def _answer_tokens(view: _Window, answer: Span | None) -> tuple[int, int] | None:
    """First and last token of the answer; None if there is no answer, or the window does not hold the whole of it."""
    if answer is None:
        return None
    inside = [(i, a, b) for i, (a, b) in enumerate(view.spans_of(1)) if a < b]
    tokens = [i for i, a, b in inside if b > answer[0] and a < answer[1]]
    if not tokens or inside[0][1] > answer[0] or inside[-1][2] < answer[1]:
        return None
    return tokens[0], tokens[-1]


def _words(question: str, context: str, stretch: Span, view: _Window) -> list[int]:
    """First tokens of the words of the question, then of those of the stretch."""
    begin, end = stretch
    of_stretch = [(start + begin, stop + begin) for start, stop in word_spans(context[begin:end])]
    of_question = word_spans(question)
    return [*word_places(of_question, view.spans_of(0)), *word_places(of_stretch, view.spans_of(1))]


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def cut_sentences(split: datasets.Dataset, encodings: Sequence[Encoding]) -> datasets.Dataset:
    """The sentences of a split, those that are too long for an encoding in several rows with the same `index`.

    Each row has as many words as fit into all encodings; a window shares a quarter of its words with the next. `first`
    is the number of the row's first word in the sentence, and `tagged` marks the words that this row tags: each word
    belongs to one row, the one with more words on either side of it.
    """
    sentences = split["words"][:]
    fitting = [min(counts) for counts in zip(*(_fitting(encoding, sentences) for encoding in encodings), strict=True)]
    if fitting == [len(words) for words in sentences]:
        return split.add_column("first", numpy.zeros(len(split), dtype=numpy.int64))
    columns: dict[str, list[Any]] = {name: [] for name in (*split.column_names, "first", "tagged")}
    for row, count in zip(split, fitting, strict=True):
        for start, stop, tagged in _tagged_words(row["words"], count, encodings):
            for name, value in row.items():
                columns[name].append(value[start:stop] if name in ("words", "tags") else value)
            columns["first"].append(start)
            columns["tagged"].append([number in tagged for number in range(start, stop)])
    features = split.features | {"first": datasets.Value("int64"), "tagged": datasets.List(datasets.Value("bool"))}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _fitting(encoding: Encoding, sentences: Sequence[Sequence[str]]) -> list[int]:
    """How many words of each sentence fit into an encoding: all, or those up to the last one that has a token."""
    made = encode_sentences(encoding, sentences, None)
    counts = []
    for words, ids, places in zip(sentences, made["input_ids"], made["words"], strict=True):
        last = max((number for number, place in enumerate(places, 1) if place >= 0), default=0)
        counts.append(len(words) if len(ids) < encoding.max_length else last)
    return counts


def _tagged_words(words: Sequence[str], count: int, encodings: Sequence[Encoding]) -> Iterator[tuple[int, int, range]]:
    """Of each window of a sentence: its first word, the word after its last, and the numbers of those that it tags.

    The first window has `count` words.
    """
    longest = max(encoding.max_length for encoding in encodings)
    start, owned = 0, 0
    while True:
        stop = start + max(1, count)
        if stop >= len(words):
            yield start, len(words), range(owned, len(words))
            return
        after = stop - (stop - start) // 4
        middle = (after + stop + 1) // 2
        yield start, stop, range(owned, middle)
        start, owned = after, middle
        piece = words[start : start + longest]
        count = min(_fitting(encoding, [piece])[0] for encoding in encodings)
