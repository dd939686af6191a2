"""Examples to token ids, once per tokenizer and length, with the labels that belong to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import pyarrow

from brewgraph.data.batching.augmentation import check_augmentations, mask_of
from brewgraph.data.batching.collate import Collator
from brewgraph.data.encoding.blocks import encode_blocks
from brewgraph.data.encoding.texts import KEPT, check_room, encode_sentences, encode_texts
from brewgraph.data.encoding.tokenizer import Encoding, train_wordpiece
from brewgraph.data.encoding.windows import cut_sentences, encode_windows
from brewgraph.data.sources.rows import quiet
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import NONE, SPANS, TAGS
from brewgraph.recipe.settings.data_sources import DataSource, Join, Squad, Text

__all__ = ["Collator", "Encoding", "encode", "row_lengths", "train_wordpiece"]

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
        return _dataset(encode_blocks(split, encodings, first, words), split.features)
    if kind == SPANS:
        if not isinstance(first, Squad):
            raise ValueError("questions are cut into windows as their source says: encode(…, source=…)")
        return _dataset(encode_windows(split, encodings, first, words), split.features)
    if "words" in split.column_names and whole:
        for encoding in encodings:
            check_room(encoding, 1)
        split = cut_sentences(split, encodings)
    return _encode_rows(split, encodings, words=words, texts=bool(augment))


def row_lengths(encoded: datasets.Dataset) -> list[int]:
    """Tokens of each row of `encode`, in its longest encoding."""
    columns = [column for column in encoded.column_names if column.endswith("/input_ids")]
    return [max(map(len, row)) for row in zip(*(encoded[column][:] for column in columns), strict=True)]


# ── one row for each example ─────────────────────────────────────────────────────────────────────────────────────────


def _encode_rows(
    split: datasets.Dataset, encodings: Sequence[Encoding], *, words: bool, texts: bool
) -> datasets.Dataset:
    sentences = "words" in split.column_names
    columns = ["words"] if sentences else [c for c in ("text_0", "text_1") if c in split.column_names]
    kept = [c for c in split.column_names if c in KEPT or c.startswith("column/") or (texts and c in columns)]
    tags = "tags" in split.column_names
    features = {column: split.features[column] for column in kept}
    for encoding in encodings:
        check_room(encoding, len(columns))
        names = [*encoding.tokenizer(*([""] * len(columns)))]
        names += ["words"] if words or sentences else []
        names += ["labels"] if tags else []
        features |= {f"{encoding.key}/{name}": _feature(name) for name in names}

    def tokenise(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        made: dict[str, list[Any]] = {}
        for encoding in encodings:
            if sentences:
                encoded = encode_sentences(encoding, batch["words"], batch.get("tags"), batch.get("tagged"))
            else:
                encoded = encode_texts(encoding, [batch[column] for column in columns], words=words)
            made |= {f"{encoding.key}/{name}": values for name, values in encoded.items()}
        return made

    with quiet():
        return split.map(
            tokenise,
            batched=True,
            remove_columns=[column for column in split.column_names if column not in kept],
            features=datasets.Features(features),
            keep_in_memory=True,
            load_from_cache_file=False,
        )


def _dataset(columns: dict[str, list[Any]], kept: datasets.Features) -> datasets.Dataset:
    """The columns of windows or blocks as rows; `kept` has the features of the columns kept from examples."""
    features = {column: kept.get(column) or _feature(column.rpartition("/")[2]) for column in columns}
    schema = datasets.Features(features).arrow_schema
    # straight to arrow: `from_dict` inspects every number by itself, which takes many times as long
    arrays = [pyarrow.array(columns[field.name], type=field.type) for field in schema]
    return datasets.Dataset(datasets.table.InMemoryTable(pyarrow.table(arrays, schema=schema)))


def _feature(name: str) -> datasets.Value | datasets.List:
    return _FEATURES.get(name, datasets.List(datasets.Value("int8")))
