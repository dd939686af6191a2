"""Examples to token ids, once per tokenizer and length, with the labels that belong to tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy
import pyarrow
import pyarrow.compute
from transformers import BatchEncoding

from brewgraph.data.batching.augmentation import check_augmentations, mask_of, split_words
from brewgraph.data.batching.collate import Collator
from brewgraph.data.encoding.texts import (
    KEPT,
    NO_SPAN,
    Encoding,
    Span,
    check_room,
    encode_sentences,
    encode_texts,
    require_mask,
    special_affixes,
    train_wordpiece,
    word_places,
    word_spans,
    words_of_tokens,
)
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import NONE, SPANS, TAGS
from brewgraph.recipe.settings.data_sources import DataSource, Join, Squad, Text

__all__ = ["Collator", "Encoding", "encode", "row_lengths", "train_wordpiece"]

_CHUNK = 1000
"""Rows, questions, lines or blocks that are tokenised together; of more, no lists of Python are in memory."""
_FEATURES = {
    **dict.fromkeys(("input_ids", "words", "word_of"), datasets.List(datasets.Value("int32"))),
    **dict.fromkeys(("start", "end", "null"), datasets.Value("int64")),
    "labels": datasets.List(datasets.Value("int64")),
    "offsets": datasets.List(datasets.List(datasets.Value("int32"))),
}
"""Features of the columns of an encoding; all others (masks, types) are `int8`."""


def encode(
    split: datasets.Dataset,
    encodings: Sequence[Encoding],
    *,
    source: DataSource | None = None,
    words: bool = False,
    whole: bool = False,
) -> datasets.Dataset:
    """The examples of a split as token ids, once for each encoding, cut to `max_length` (of a pair the longer text).

    Columns for each encoding, under its key: the inputs of its tokenizer, `key/input_ids` (int32), `key/attention_mask`
    and perhaps `key/token_type_ids` (int8), each a list as long as the example; `key/words`, the position of the first
    token of each word, -1 if it was cut off (always for sentences, otherwise with `words`); for tags `key/labels`, -100
    off first tokens; for answers `key/start`, `key/end`, `key/null` and `key/offsets`. `label`, `weights`, `index` and
    `column/NAME` are kept, and texts if `source` asks for augmentation.

    Texts, pairs and sentences give one row each. A question gives one row for each window of its text, all with the
    question's `index`; plain text gives blocks; both need `source`. With `whole`, for evaluation, a sentence that is
    too long gives several rows with its `index`; `first` is the number of a row's first word, and only words that
    belong to the row have places and labels (see `cut_sentences`).

    Raises `SourceFault` B407 where `max_length` leaves no room for text, B404 where no row is left, B410 for an
    augmentation that the data or a tokenizer does not allow.
    """
    tables = encoded_chunks(split, encodings, source=source, words=words, whole=whole)
    return datasets.Dataset(datasets.table.InMemoryTable(pyarrow.concat_tables(tables)))


def encoded_chunks(
    split: datasets.Dataset,
    encodings: Sequence[Encoding],
    *,
    source: DataSource | None = None,
    words: bool = False,
    whole: bool = False,
) -> Iterator[pyarrow.Table]:
    """The rows of `encode` in tables of one schema, each of some thousand rows, at least one. Raises as `encode`."""
    first = source.parts[0] if isinstance(source, Join) else source
    augment = getattr(first, "augment", ())
    kind = next((x for x in (SPANS, TAGS) if x.column in split.column_names), NONE)
    check_augmentations(kind, augment)
    for encoding in encodings:
        mask_of(encoding.tokenizer, augment)
    if isinstance(first, Text):
        if augment and (words or len(encodings) > 1):
            message = "plain text is changed token by token: several tokenizers would not see the same words"
            help = "leave `augment` out, or let all models share a tokenizer: `tokenizer=…`"
            raise SourceFault("B410", message, help=help, field="augment")
        return _tables(encode_blocks(split, encodings, first, words), split.features)
    if kind == SPANS:
        if not isinstance(first, Squad):
            raise ValueError("questions are cut into windows as their source says: encode(…, source=…)")
        return _tables(encode_windows(split, encodings, first, words), split.features)
    if "words" in split.column_names and whole:
        for encoding in encodings:
            check_room(encoding, 1)
        split = cut_sentences(split, encodings)
    return _tables(_encode_rows(split, encodings, words=words, texts=bool(augment)), split.features)


def gives_one_row_each(split: datasets.Dataset, source: DataSource | None, *, whole: bool) -> bool:
    """Whether `encode` gives one row for each of a split's, so that its encodings do not depend on each other."""
    first = source.sources[0] if source is not None else None
    cut = SPANS.column in split.column_names or ("words" in split.column_names and whole)
    return not isinstance(first, Text) and not cut


def row_lengths(encoded: datasets.Dataset) -> numpy.ndarray:
    """Tokens of each row of `encode`, in its longest encoding: int64, (rows)."""
    columns = [column for column in encoded.column_names if column.endswith("/input_ids")]
    ids = encoded.select_columns(columns).with_format("arrow")[:]
    lengths = [pyarrow.compute.list_value_length(ids[column]).to_numpy() for column in columns]
    longest: numpy.ndarray = numpy.maximum.reduce(lengths).astype(numpy.int64)
    return longest


Columns = Mapping[str, Sequence[Any]]
"""Some rows of an encoding: the values of each column."""


def _tables(chunks: Iterator[Columns], kept: datasets.Features) -> Iterator[pyarrow.Table]:
    """Chunks of rows in Arrow; `kept` has the features of the columns kept from examples."""
    for columns in chunks:
        features = {column: kept.get(column) or _feature(column.rpartition("/")[2]) for column in columns}
        schema = datasets.Features(features).arrow_schema
        # straight to arrow: `from_dict` inspects every number by itself, which takes many times as long
        yield pyarrow.table([pyarrow.array(columns[x.name], type=x.type) for x in schema], schema=schema)


def _feature(name: str) -> datasets.Value | datasets.List:
    return _FEATURES.get(name, datasets.List(datasets.Value("int8")))


# ── one row for each example ─────────────────────────────────────────────────────────────────────────────────────────


def _encode_rows(
    split: datasets.Dataset, encodings: Sequence[Encoding], *, words: bool, texts: bool
) -> Iterator[Columns]:
    sentences = "words" in split.column_names
    columns = ["words"] if sentences else [c for c in ("text_0", "text_1") if c in split.column_names]
    kept = [c for c in split.column_names if c in KEPT or c.startswith("column/") or (texts and c in columns)]
    for encoding in encodings:
        check_room(encoding, len(columns))
    for begin in range(0, max(1, len(split)), _CHUNK):
        rows = split[begin : begin + _CHUNK]
        made = {name: rows[name] for name in kept}
        for encoding in encodings:
            if sentences:
                encoded = encode_sentences(encoding, rows["words"], rows.get("tags"), rows.get("tagged"))
            else:
                encoded = encode_texts(encoding, [rows[column] for column in columns], words=words)
            made |= {f"{encoding.key}/{name}": values for name, values in encoded.items()}
        yield made


# ── windows of questions ─────────────────────────────────────────────────────────────────────────────────────────────


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
) -> Iterator[Columns]:
    """The windows of all questions, in their order, columns named as in `encode`.

    The first encoding's tokenizer cuts the context; the others see the same characters, each up to its own length.
    Offsets count characters of the whole context. `null` is the token for no answer; if some question of the split has
    none, it is also the label of windows without the answer, as in `run_qa.py` of transformers' examples. Raises
    `SourceFault` B407 where the windows would not advance.
    """
    kept = [name for name in split.column_names if name in KEPT or name.startswith("column/")]
    cut = _cut(encodings[0], split["text_0"][:], source.max_query_length)
    _check_stride(encodings[0], cut, source)
    has_null = not all(answers["start"] for answers in split["answers"][:])
    for begin in range(0, len(split), _CHUNK):
        columns: dict[str, list[Any]] = {}
        chunk = split[begin : begin + _CHUNK]
        questions, contexts = cut[begin : begin + _CHUNK], chunk["text_1"]
        whole = [(question, text, (0, len(text))) for question, text in zip(questions, contexts, strict=True)]
        windows = _windows(encodings[0], whole, source.stride)
        for row, _ in windows:
            for name in kept:
                columns.setdefault(name, []).append(chunk[name][row])
        pieces = [(questions[row], contexts[row], window.stretch) for row, window in windows]
        for encoding in encodings:
            views = windows if encoding is encodings[0] else _windows(encoding, pieces, None)
            for (row, _), piece, (_, view) in zip(windows, pieces, views, strict=True):
                null = _null_token(encoding, view)
                place = _answer_tokens(view, chunk["answers"][row])
                start, end = place or ((null, null) if has_null else NOWHERE)
                labels: dict[str, object] = {"offsets": view.spans_of(1), "start": start, "end": end, "null": null}
                if words:
                    labels["words"] = _words(*piece, view)
                for name, values in (view.inputs | labels).items():
                    columns.setdefault(f"{encoding.key}/{name}", []).append(values)
        yield columns


def _plain(encoding: Encoding, texts: Sequence[str]) -> BatchEncoding:
    """Texts without special tokens and uncut, with the characters of each token."""
    made: BatchEncoding = encoding.tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    return made


def _cut(encoding: Encoding, questions: Sequence[str], longest: int) -> list[str]:
    """Questions cut behind their first `longest` tokens."""
    return [
        question if len(offsets) <= longest else question[: offsets[longest - 1][1]]
        for question, offsets in zip(questions, _plain(encoding, questions)["offset_mapping"], strict=True)
    ]


def _check_stride(encoding: Encoding, questions: Sequence[str], source: Squad) -> None:
    """Raise B407 where no more of a context fits beside the longest question than two windows share."""
    special = encoding.tokenizer.num_special_tokens_to_add(pair=True)
    longest = max(map(len, _plain(encoding, questions)["input_ids"]))
    room = encoding.max_length - special - longest
    if room <= source.stride:
        least = special + longest + source.stride + 1
        message = f"max_length = {encoding.max_length} leaves {max(0, room)} tokens of a text beside a question of "
        message += f"{longest}, and windows share {source.stride}"
        help = f"a `stride` or a `max_query_length` that is smaller, or at least {least} tokens"
        field = "stride" if "stride" in source.model_fields_set else "max_length"
        raise SourceFault("B407", message, help=help, field=field)


def _windows(
    encoding: Encoding, pieces: Sequence[tuple[str, str, Span]], stride: int | None
) -> list[tuple[int, _Window]]:
    """The windows of questions with pieces of their contexts, each with its row, and offsets counted in the whole
    context; without a `stride` each piece gives one window, which is cut off.
    """
    made = encoding.tokenizer(
        [question for question, _, _ in pieces],
        [context[start:end] for _, context, (start, end) in pieces],
        truncation="only_second",
        max_length=encoding.max_length,
        stride=stride or 0,
        return_overflowing_tokens=stride is not None,
        return_offsets_mapping=True,
    )
    rows, offsets = made.pop("overflow_to_sample_mapping", range(len(pieces))), made.pop("offset_mapping")
    inputs = dict(made.items())
    encoding.fill_empty(inputs)
    windows = []
    for i, row in enumerate(rows):
        shift, sequences = pieces[row][2][0], made.sequence_ids(i)
        pairs = zip(offsets[i], sequences, strict=True)
        spans = [(a + shift, b + shift) if sequence == 1 else (a, b) for (a, b), sequence in pairs]
        window = {name: values[i] for name, values in inputs.items()}
        windows.append((row, _Window(window, spans or [NO_SPAN], sequences or [None])))
    return windows


def _null_token(encoding: Encoding, view: _Window) -> int:
    """The token for no answer: CLS, wherever a tokenizer puts it, or else BOS, or else the first token."""
    ids, tokenizer = view.inputs["input_ids"], encoding.tokenizer
    return next((ids.index(mark) for mark in (tokenizer.cls_token_id, tokenizer.bos_token_id) if mark in ids), 0)


def _answer_tokens(view: _Window, answers: dict[str, list[Any]]) -> tuple[int, int] | None:
    """First and last token of the first answer, without white space around it; None if there is no answer, or the
    window does not hold the whole of it.
    """
    if not answers["start"]:
        return None
    first, text = answers["start"][0], answers["text"][0]
    begin, end = first + len(text) - len(text.lstrip()), first + len(text.rstrip())
    inside = [(i, a, b) for i, (a, b) in enumerate(view.spans_of(1)) if a < b]
    tokens = [i for i, a, b in inside if b > begin and a < end]
    if not tokens or inside[0][1] > begin or inside[-1][2] < end:
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


# ── blocks of plain text ─────────────────────────────────────────────────────────────────────────────────────────────


_LEAST = 2
"""The least tokens of text in a block: one to read, one to predict."""


def encode_blocks(
    split: datasets.Dataset, encodings: Sequence[Encoding], source: Text, words: bool
) -> Iterator[Columns]:
    """All blocks, in the order of the text, columns named as in `encode`; `index` counts the blocks.

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
    cuts = _cuts(text, spans[:, 0], _room(first, source), between_words=several)
    for begin in range(0, len(cuts) - 1, _CHUNK):
        parts = list(itertools.pairwise(cuts[begin : begin + _CHUNK + 1]))
        stretches = [(int(spans[a, 0]), int(spans[b, 0]) if b < len(spans) else len(text)) for a, b in parts]
        columns: dict[str, Sequence[Any]] = {"index": range(begin, begin + len(parts))}
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
        yield columns


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
    place = numpy.int32 if sum(map(len, lines)) + len(lines) < 2**31 else numpy.int64
    at = 0
    for begin in range(0, len(lines), _CHUNK):
        chunk = [f"{line}\n" for line in lines[begin : begin + _CHUNK]]
        made = _plain(encoding, chunk)
        starts = [at, *(at + total for total in itertools.accumulate(map(len, chunk)))]
        offsets = (numpy.array(row, dtype=place).reshape(-1, 2) for row in made["offset_mapping"])
        ids.append(numpy.array([*itertools.chain.from_iterable(made["input_ids"])], dtype=numpy.int32))
        spans.append(numpy.concatenate([row + start for row, start in zip(offsets, starts, strict=False)]))
        at = starts[-1]
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
