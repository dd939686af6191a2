"""Encodings in the cache of `datasets`, from one run to the next: Arrow files that are read where they lie.

A file's name is a digest of all that decides its content: the data, the tokenizers, the lengths, how the source is cut
into rows, this package's encoder and the versions of the libraries below it. A file is never out of date, and all of
them may be deleted. It ends with a checksum of what stands before it; one that is damaged is written anew.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from filelock import FileLock

from brewgraph.data.encoding.encode import Encoding, encode, encoded_chunks, gives_one_row_each
from brewgraph.digest import digest
from brewgraph.recipe.settings.data_sources import DataSource

_READ = 1 << 20
"""Bytes that are read together."""
_TAIL = 8
"""Bytes of the checksum behind the table: CRC-32 in hexadecimal digits."""
_OF_FILES = {"train", "dev", "test", "name", "subset", "revision", "max_length"}
"""Settings of a source that only say where its rows lie; of `max_length`, an encoding says what became of it."""


def folder_of_encodings() -> Path:
    """Where encodings are kept: below HF_DATASETS_CACHE."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "brewgraph"


def encode_kept(
    split: datasets.Dataset,
    encodings: Sequence[Encoding],
    content: str,
    tokenizers: Sequence[str],
    *,
    source: DataSource,
    words: bool,
    whole: bool,
    say: Callable[[str], None],
) -> datasets.Dataset:
    """As `encode`, read from the folder of encodings, where they are made if they are not there yet.

    `content` is a print of the split's rows, `tokenizers` one of each encoding's tokenizer. Processes that want the
    same rows wait for the first of them, which encodes. Where the folder cannot be written, `say` gets a warning and
    the rows are in memory.
    """
    if not datasets.is_caching_enabled():
        return encode(split, encodings, source=source, words=words, whole=whole)
    settings = {name: value for name, value in source.sources[0].content.items() if name not in _OF_FILES}
    view = (content, split.column_names, type(source.sources[0]).__name__, sorted(settings.items()), words, whole)

    def kept(these: Sequence[Encoding], prints: Sequence[str]) -> datasets.Dataset:
        tokens = [(of, *_of_tokenizer(encoding)) for of, encoding in zip(prints, these, strict=True)]
        path = folder_of_encodings() / f"{digest(view, tokens, _versions())}.arrow"
        places = {encoding.key: f"{place}" for place, encoding in enumerate(these)}

        def chunks() -> Iterable[pyarrow.Table]:
            for table in encoded_chunks(split, these, source=source, words=words, whole=whole):
                yield _renamed(table, places)

        try:
            rows = _read(path) or _made(path, chunks)
        except (OSError, NotImplementedError) as error:  # the latter where a file system has no locks
            reason = getattr(error, "strerror", None) or str(error)
            say(
                f"warning: encodings cannot be kept in {path.parent}: {reason}; they are in memory, and the next run "
                "makes them again; HF_DATASETS_CACHE names another folder"
            )
            return encode(split, these, source=source, words=words, whole=whole)
        return _renamed(rows, {place: key for key, place in places.items()})

    if not gives_one_row_each(split, source, whole=whole):
        return kept(encodings, tokenizers)
    first, *others = (kept([one], [of]) for one, of in zip(encodings, tokenizers, strict=True))
    beside = [rows.select_columns([x for x in rows.column_names if x not in first.column_names]) for rows in others]
    return datasets.concatenate_datasets([first, *beside], axis=1) if beside else first


def _of_tokenizer(encoding: Encoding) -> tuple[Any, ...]:
    """What an encoding asks a tokenizer for beside its text to tokens."""
    tokenizer = encoding.tokenizer
    marks = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    names, sides = tuple(tokenizer.model_input_names), (tokenizer.truncation_side, tokenizer.padding_side)
    return encoding.max_length, type(tokenizer).__name__, marks, names, sides


@cache
def _versions() -> str:
    """The encoder's own text and the versions of the libraries that it calls."""
    sources = [Path(__file__).with_name(name) for name in ("encode.py", "texts.py", "kept.py")]
    sources.append(Path(__file__).parents[1] / "batching" / "augmentation.py")  # which says what a word is
    libraries = [version(name) for name in ("tokenizers", "transformers", "pyarrow")]
    return digest(libraries, *(path.read_bytes() for path in sources))


def _renamed(rows: Any, keys: dict[str, str]) -> Any:
    """A table or data set whose columns `key/name` have other keys: models' names are no part of what is kept."""
    names = [(name.rpartition("/"), name) for name in rows.column_names]
    renamed = {name: f"{keys[key]}/{last}" for (key, _, last), name in names if key in keys}
    if isinstance(rows, datasets.Dataset):
        return rows.rename_columns(renamed)
    features = datasets.Features.from_arrow_schema(rows.schema)
    schema = datasets.Features({renamed.get(name, name): feature for name, feature in features.items()}).arrow_schema
    return pyarrow.table(rows.columns, schema=schema)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _made(path: Path, chunks: Callable[[], Iterable[pyarrow.Table]]) -> datasets.Dataset:
    """The rows of a file that is written now, or that another process wrote in the meantime."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if (rows := _read(path)) is not None:
            return rows
        part = path.with_suffix(".part")  # what an interrupted process left under this name is written over
        try:
            with part.open("wb") as file:
                writer = None
                for table in chunks():
                    writer = writer or pyarrow.ipc.new_stream(file, table.schema)
                    writer.write_table(table)
                assert writer is not None
                writer.close()
            with part.open("r+b") as file:
                checksum = _checksum(file, part.stat().st_size)
                file.seek(0, os.SEEK_END)
                file.write(checksum)
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        rows = _read(path)
    if rows is None:
        raise OSError(f"{path.name} does not hold what was written to it")
    return rows


def _read(path: Path) -> datasets.Dataset | None:
    """The rows of a file, mapped into memory; None if there is none, or one that was cut short or changed."""
    try:
        size = path.stat().st_size - _TAIL
        with path.open("rb") as file:
            if size < 0 or _checksum(file, size) != file.read():
                return None
        return datasets.Dataset.from_file(str(path))
    except (OSError, pyarrow.ArrowInvalid):
        return None


def _checksum(file: Any, size: int) -> bytes:
    """The checksum of a file's first bytes, behind which it stands then."""
    total = 0
    while size > 0 and (block := file.read(min(_READ, size))):
        total, size = zlib.crc32(block, total), size - len(block)
    return f"{total:08x}".encode()
