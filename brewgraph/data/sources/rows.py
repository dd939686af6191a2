"""Unchecked rows of files and of the hub, read through `datasets`; the form of a file tells which source reads it."""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import math
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from csv import QUOTE_MINIMAL, QUOTE_NONE
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import datasets
import numpy
import pandas
import pyarrow
import pyarrow.compute
from pyarrow import parquet

from brewgraph.data.sources.reader import Contents, DataFacts, facts, read, stamp
from brewgraph.diagnostics import MOST_NAMES, SourceFault, listing, suggest
from brewgraph.paths import locate, nearby, no_path, shown
from brewgraph.recipe.settings.data_sources import Conll, Files, Hub, Squad, Text
from brewgraph.recipe.tag_schemes import OUTSIDE, find_scheme
from brewgraph.source import EncodingError, decode

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""The reader of `datasets` for each suffix; every one may be followed by `.gz`."""

_KEPT = 16
"""How many files, and how many local folders, are kept in memory once they are read."""
_LOOK = 65536
"""Bytes of a file that tell its form."""
_BLOCK = 1 << 20
"""Bytes that are decoded together."""
_UNPACKED, _RATIO = 1 << 27, 200
"""A file may unpack to so many bytes, or to so many times its size: text packs to a twentieth at best."""

_LONGEST_LINE = 1 << 26
"""Bytes of a line of JSON."""
LONGEST_TEXT = 1 << 24
"""Characters of a text: a tokenizer takes a hundred bytes and more for each word of it."""
_COLUMNS, _FIRST = 10_000, 1 << 24
"""A table may have so many columns; those of JSON are the keys in so many bytes at its beginning."""
_DECODED = 1 << 30
"""The values of a parquet file may take so many bytes, or `_RATIO` times its size: equal ones are stored once."""

CUT_SHORT = "look at the file: one that was cut short, or has another format than its name says?"

T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """One split as its source holds it. `place` names it in messages; `typed` is false where every value is text.

    `twice` are names that occur twice in a header, so that it is unclear which column they mean.
    """

    rows: datasets.Dataset
    place: str
    typed: bool = True
    twice: tuple[str, ...] = ()

    def require(self, column: str, field: str | None = None, remedy: str = "") -> None:
        """Raise `SourceFault` B402 for a column that is missing, B411 for one whose name occurs twice."""
        names = self.rows.column_names
        if column not in names:
            help = f"{suggest(column, names)} the columns are {listing(names, MOST_NAMES)}{remedy}".strip()
            message = f"{self.place} has no column `{column}`"
            raise SourceFault("B402", message, help=self.separator_help or help, field=field)
        if column in self.twice:
            help = "rename one of them in the header"
            raise SourceFault("B411", f"{self.place} has two columns `{column}`", help=help, field=field)

    @property
    def separator_help(self) -> str:
        """What to do about a file whose columns are separated by another sign than its name says; else empty."""
        names = self.rows.column_names
        if len(names) != 1 or self.typed or not (other := re.search(r"[;,|\t]", names[0])):
            return ""
        sign = "tabs" if other[0] == "\t" else f"`{other[0]}`"
        where = {",": "a file with commas is called .csv", "\t": "a file with tabs is called .tsv"}
        remedy = where.get(other[0], "save it with commas as .csv, or with tabs as .tsv")
        return f"its columns are separated by {sign}: {remedy}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silences progress bars and log lines of `datasets`, and restores both at the end."""
    bars, level = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    if bars:
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def named_splits(source: Files | Hub | Conll | Squad | Text) -> dict[str, str]:
    """The names that a source gives its splits; `train` comes first."""
    return {field: name for field in ("train", "dev", "test") if (name := getattr(source, field)) is not None}


def read_each(
    source: Files | Conll | Squad | Text, folder: Path, read: Callable[[str, Path, str, object], T]
) -> dict[str, T]:
    """The result of `read(name, path, field, stamp)` for each file of a source, by split.

    File names are relative to `folder`. The stamp changes when the file does, so that `read` may cache its results: a
    check, and a run that trains its teachers, read the same file many times. Raises `SourceFault` B401.
    """
    splits = {}
    for field, name in named_splits(source).items():
        path = plain_file(name, locate(name, folder, field), field)
        splits[field] = read(name, path, field, stamp([path]))
    return splits


def plain_file(name: str, place: Path, field: str) -> Path:
    """The path of a file that this user may read, without links.

    Raises `SourceFault`: B401 if there is none or anything else, B404 if it cannot be opened.
    """
    path = place.resolve()
    if not path.is_file():
        what, help = f"there is no file `{name}`", no_path(name)
        if place.is_symlink() and not path.exists():
            what, help = f"`{name}` is a link to `{path}`, which does not exist", "restore it, or name another file"
        elif path.exists() and not path.is_dir():
            what, help = f"`{name}` is no plain file, but a pipe or a device", "save what it gives as a file"
        raise SourceFault("B401", what, help=help or nearby(path), field=field)
    try:
        path.open("rb").close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        help = "allow this user to read it (`chmod u+r`), or name another file"
        raise SourceFault("B404", f"`{name}` cannot be read: {reason}", help=help, field=field) from error
    return path


def read_text(name: str, path: Path, field: str) -> str:
    """All of a text file in UTF-8, plain or, where its name ends in `.gz`, gzipped. Line ends are `\\n` alone.

    Raises `SourceFault` B404 for a file that is empty, no text, or cut short.
    """
    try:
        with _opened(path) as file:
            raw = file.read()
        if raw[:4] == b"PAR1":
            raise _form_fault(name, field, "files", "", "`files(train=…)` reads it, where its name ends in .parquet")
        text = decode(raw, f"`{name}`").removeprefix("\ufeff")
    except EncodingError as error:
        raise SourceFault("B404", error.message, help=error.help, field=field) from error
    except (OSError, EOFError, zlib.error) as error:
        help = "look at the file: one that was cut short, or no gzip file after all?"
        raise SourceFault("B404", f"`{name}` cannot be unpacked: {_cause(error)}", help=help, field=field) from error
    if not text.strip():
        raise no_rows(f"`{name}`", field)
    return text.replace("\r\n", "\n")


@read.register
def read_lines(source: Text, folder: Path, columns: Sequence[str] = (), marks: bool | None = None) -> Contents:
    """Every split of plain text as its lines (`text_0`) without empty ones. Raises `SourceFault` B401 and B404."""
    return Contents(read_each(source, folder, _read_lines))


@facts.register
def _facts(source: Text, folder: Path) -> DataFacts:
    read_lines(source, folder)  # how many blocks its lines make, only a tokenizer tells
    return DataFacts((), ("text",), {})


@lru_cache(maxsize=_KEPT)
def _read_lines(name: str, path: Path, field: str, _stamp: object) -> datasets.Dataset:
    text = read_text(name, path, field)
    check_form(name, text, field, "text")
    for number, line in enumerate(text.split("\n") if len(text) > LONGEST_TEXT else (), 1):
        if len(line) > LONGEST_TEXT:
            message = f"line {number} of `{name}` is longer than {LONGEST_TEXT:,} characters"
            raise SourceFault("B404", message, help="break it: `fold -s -w 1000 OLD > NEW`", field=field)
    return datasets.Dataset.from_dict({"text_0": [line for line in text.split("\n") if line.strip()]})


@lru_cache(maxsize=_KEPT)
def read_table(quoting: bool | None, name: str, path: Path, field: str, _stamp: object) -> Split:
    """All rows of one table, in memory. Raises `SourceFault` B404 for an unreadable one.

    In csv a field may stand in double quotes, in tsv a quote is an ordinary character; `quoting` overrides this.
    """
    suffix = plain_suffix(path.name)
    if suffix == ".tsv" or suffix not in FORMATS:
        check_form(name, path.read_bytes()[:_LOOK].decode("utf-8", "ignore"), field, "files")
    if suffix not in FORMATS:
        help = f"a file's name ends in {listing(FORMATS)}, each also followed by `.gz`; "
        help += "`conll(train=…)` reads words with tags, `text(train=…)` plain text"
        raise SourceFault("B404", f"`{name}` has no format that is known here", help=help, field=field)
    twice: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    quoted = suffix != ".tsv" if quoting is None else quoting
    # In a folder of its own, so that nothing is written beside the user's data and no older copy is taken for this one.
    with quiet(), tempfile.TemporaryDirectory(prefix="brewgraph-") as cache:
        try:
            if FORMATS[suffix] != "parquet":
                _check_utf8(name, path, field)
            if FORMATS[suffix] == "json":
                _check_depth(name, path, field)
            if FORMATS[suffix] == "csv":
                _check_nulls(name, path, field)
                options, twice = _csv_layout(path, suffix, field, quoted)
            if FORMATS[suffix] == "parquet" and path.name.endswith(".gz"):  # the one reader that does not unpack
                with _opened(path) as packed:
                    path = Path(cache) / path.name.removesuffix(".gz")
                    path.write_bytes(packed.read())
            if FORMATS[suffix] == "parquet":
                _check_parquet(name, path, field)
            rows = datasets.load_dataset(
                FORMATS[suffix],
                data_files={field: glob.escape(path.as_posix())},
                split=field,
                cache_dir=cache,
                keep_in_memory=True,
                **options,
            )
        except Exception as error:  # readers raise whatever their format's library raises
            if isinstance(error, SourceFault):
                raise
            if _is_empty(error):
                raise no_rows(f"`{name}`", field) from error
            what, help = _bad_row(_cause(error), suffix, quoted) or (
                f"cannot be read as {suffix[1:]}: {_bad_line(path, suffix) or _cause(error)}",
                CUT_SHORT,
            )
            raise SourceFault("B404", f"`{name}` {what}", help=help, field=field) from error
    if suffix == ".json" and "paragraphs" in str(rows.features.get("data")):
        check_form(name, read_text(name, path, field), field, "files")
    return Split(rows, f"`{name}`", typed=FORMATS[suffix] != "csv", twice=twice)


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


_OF_ROWS = {"name", "subset", "revision", "train", "dev", "test"}
"""The settings of `hub` that decide which rows are read."""


def read_hub(source: Hub, folder: Path) -> dict[str, Split]:
    """The splits of a data set of the hub, or of a local folder laid out like one; relative paths start at `folder`.

    The split for `dev` may be missing where the spec does not name it. A local folder is cached while its files do not
    change; `datasets` caches the hub's data. Raises `SourceFault`: B401 for a missing folder or split, B402 for a
    subset, B404 for unreadable files, B405 for the hub.
    """
    place = locate(source.name, folder, "name")
    if not place.is_dir():
        return _read_hub.__wrapped__(source, folder, None)
    rows = Hub(**source.model_dump(include=_OF_ROWS, exclude_unset=True))
    return dict(_read_hub(rows, folder.resolve(), stamp(sorted(x for x in place.rglob("*") if x.is_file()))))


@lru_cache(maxsize=_KEPT)
def _read_hub(source: Hub, folder: Path, _stamp: object) -> dict[str, Split]:
    name, local = source.name, locate(source.name, folder, "name").is_dir()
    with quiet(), tempfile.TemporaryDirectory(prefix="brewgraph-") as cache:
        for path in sorted(locate(name, folder).rglob("*")) if local else ():
            form = FORMATS.get(plain_suffix(path.name)) if path.is_file() else None
            if form == "json":
                _check_utf8(path.name, path, "name")
                _check_depth(path.name, path, "name")
            elif form == "parquet" and path.suffix == ".parquet":
                with suppress(pyarrow.ArrowException, OSError):  # which its reader reports
                    _check_parquet(path.name, path, "name")
        builder = _builder(source, folder, cache)
        try:
            builder.download_and_prepare()
        except Exception as error:
            if local:
                message = f"the files in `{name}` cannot be read: {_cause(error)}"
                help = "look at its files, or name those that are good with `files(train=...)`"
                raise SourceFault("B404", message, help=help, field="name") from error
            raise _unreachable(source, error) from error
        available = list(builder.info.splits or {})
        read = {}
        for field, wanted in named_splits(source).items():
            base = re.split(r"[\[+]", wanted)[0]
            if base not in available:
                if field == "dev" and "dev" not in source.model_fields_set:
                    continue  # nobody asked for the default by name
                help = f"{suggest(base, available)} the splits are {listing(available, MOST_NAMES)}".strip()
                raise SourceFault("B401", f"`{name}` has no split `{base}`", help=help, field=field)
            place = f"split `{wanted}` of `{name}`"
            try:
                rows = builder.as_dataset(split=wanted, in_memory=local)
            except ValueError as error:
                if _is_empty(error):
                    raise no_rows(place, field) from error
                help = (
                    f"name a split, or a part of one as `{base}[:10%]`: the splits are {listing(available, MOST_NAMES)}"
                )
                raise SourceFault("B401", f"there is no {place}: {_cause(error)}", help=help, field=field) from error
            read[field] = Split(rows, place, typed=not getattr(builder.config, "converters", None))
        return read


def hub_info(source: Hub, folder: Path) -> datasets.DatasetInfo:
    """What a data set says of itself before its rows are fetched; raises like `read_hub`."""
    with quiet(), tempfile.TemporaryDirectory(prefix="brewgraph-") as cache:
        return _builder(source, folder, cache).info


def _builder(source: Hub, folder: Path, cache: str) -> datasets.DatasetBuilder:
    """The builder of a data set; that of a local folder keeps its files in `cache`."""
    name, subset, place = source.name, source.subset, locate(source.name, folder, "name")
    local = place.is_dir()
    if place.is_file():
        help = f'`files(train="{name}")` reads a file of rows'
        raise SourceFault("B415", f"`{name}` is a file, and `hub` reads folders", help=help, field="name")
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        help = no_path(name) or nearby(place.resolve())
        raise SourceFault("B401", f"there is no folder `{name}`", help=help, field="name")
    path, cache_dir = (str(place.resolve()), cache) if local else (name, None)
    build = partial(datasets.load_dataset_builder, path, subset, revision=source.revision, cache_dir=cache_dir)
    try:
        layout = _folder_layout(Path(path)) if local else {}
        builder = build(**layout)
        if builder.info.features is not None and layout.pop("converters", None):  # the folder's card tells the types
            del layout["na_filter"]
            builder = build(**layout)
        return builder
    except Exception as error:  # the network, the hub's answers and the folder's layout all have errors of their own
        available = re.search(r"Available: \[(.*?)\]|available configs: \[(.*?)\]", str(error), re.DOTALL)
        if available:
            names = re.findall(r"'([^']+)'", available.group(0))
            message = f"there is no subset `{subset}` in `{name}`" if subset else f"`{name}` has several subsets"
            help = f"{suggest(subset or '', names)} the subsets are {listing(names, MOST_NAMES)}".strip()
            raise SourceFault("B402", message, help=help, field="subset") from error
        if local:
            message = f"the folder `{name}` cannot be read as a data set: {_cause(error)}"
            help = "put its files there as train.jsonl and validation.jsonl, or name them with `files(train=...)`"
            raise SourceFault("B404", message, help=help, field="name") from error
        raise _unreachable(source, error) from error


def _unreachable(source: Hub, error: Exception) -> SourceFault:
    arguments = f'"{source.name}"' + (f', "{source.subset}"' if source.subset else "")
    why = _cause(error)
    if datasets.config.HF_HUB_OFFLINE:
        why = "the hub is switched off here by HF_HUB_OFFLINE, and it was not downloaded before"
    message = f"the data set `{source.name}` cannot be fetched from the hub: {why}"
    help = f"download it before, where there is a network, with `datasets.load_dataset({arguments})`, "
    help += 'or name a local folder or files instead: `hub("folder", ...)`, `files(train=...)`'
    return SourceFault("B405", message, help=help, field="name")


# ── what readers say ─────────────────────────────────────────────────────────────────────────────────────────────────


def _check_utf8(name: str, path: Path, field: str) -> None:
    """SourceFault B404 for text in another encoding, which the reader of JSON accepts until a row is asked for."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _opened(path) as file:
            sound = 0 not in file.read(2)  # ASCII in UTF-16 without a byte order mark
            file.seek(0)
            while sound and (block := file.read(_BLOCK)):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except (UnicodeDecodeError, OSError, EOFError, zlib.error):
        sound = False
    if not sound:
        read_text(name, path, field)


def _check_nulls(name: str, path: Path, field: str) -> None:
    """SourceFault B404 for a null byte in csv or tsv, at which pandas ends the value, and loses the rest."""
    line = 1
    with _opened(path) as file:
        while block := file.read(_BLOCK):
            if (at := block.find(0)) >= 0:
                message = f"line {line + block[:at].count(10)} of `{name}` has a null byte"
                raise SourceFault("B404", message, help="remove it: the rest of its value would be lost", field=field)
            line += block.count(10)


_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_KEY = re.compile(rb'"([^"\\]{0,200})"\s*:')
_DEEPEST = 500
"""How many lists and objects may stand inside each other: deeper ones end the process in the reader of JSON."""


def _check_depth(name: str, path: Path, field: str) -> None:
    """SourceFault B404 for JSON that is nested too deeply, by lines or as a whole, for lines without end and for more
    columns than a table has.
    """
    keys: set[bytes] = set()
    size = 0
    with _opened(path) as file:
        by_lines = plain_suffix(path.name) == ".jsonl"
        lines = iter(partial(file.readline, _LONGEST_LINE + 1), b"") if by_lines else (file.read(),)
        for number, line in enumerate(lines, 1):
            if by_lines and len(line) > _LONGEST_LINE:
                message = f"line {number} of `{name}` is longer than {_LONGEST_LINE >> 20} MiB"
                raise SourceFault("B404", message, help="write a line for each row, and split long texts", field=field)
            if size < _FIRST:
                keys.update(_KEY.findall(line[: _FIRST - size]))
                size += len(line)
                if len(keys) > _COLUMNS:
                    raise _many_columns(name, field)
            if line.count(b"[") + line.count(b"{") <= _DEEPEST:
                continue
            signs = numpy.frombuffer(_TEXT.sub(b"", line), dtype=numpy.uint8)
            opens, closes = (numpy.isin(signs, numpy.frombuffer(x, dtype=numpy.uint8)) for x in (b"[{", b"]}"))
            if (
                numpy.cumsum(opens.astype(numpy.int8) - closes.astype(numpy.int8), dtype=numpy.int64).max(initial=0)
                > _DEEPEST
            ):
                where = f"line {number} of " if by_lines else ""
                message = f"{where}`{name}` has values nested in more than {_DEEPEST} lists"
                raise SourceFault("B404", message, help=CUT_SHORT, field=field)


def _many_columns(name: str, field: str) -> SourceFault:
    """The fault of a table that is far too wide."""
    help = "a row holds what belongs to one example: a text, its label and a few more columns"
    return SourceFault("B404", f"`{name}` has more than {_COLUMNS:,} columns", help=help, field=field)


def value_text(value: object) -> str:
    """A value as a message shows it, not longer than a line."""
    return shown(repr(value))


def no_rows(place: str, field: str) -> SourceFault:
    """The fault of a split without a single row."""
    help = "name a file or split with rows"
    return SourceFault("B404", f"{place} has no rows", help=help, field=field)


def _bad_line(path: Path, suffix: str) -> str:
    """The first faulty line of a file of one JSON object per line; the readers' own numbers count within a chunk."""
    count = 0
    try:
        with _opened(path) as lines:
            for line in lines if suffix == ".jsonl" else ():
                count += 1
                if line.strip():
                    row = json.loads(line, object_pairs_hook=_once, parse_float=_finite)
                    if not isinstance(row, dict):
                        return f"line {count} is no object, `{{…}}`"
                    json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"line {count}: the text has half of a surrogate pair, `\\u{ord(error.object[error.start]):x}`"
    except ValueError as error:
        return f"line {count}: {getattr(error, 'msg', error)}"
    except RecursionError:
        return f"line {count} holds values nested too deeply"
    except OSError:
        pass  # no gzip file after all: the reader's own words say so
    return ""


def _finite(number: str) -> float:
    """A number of JSON. `ValueError` for one that no float can hold."""
    if math.isinf(value := float(number)):
        raise ValueError(f"the number {shown(number)} is too large")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON. `ValueError` for a key that occurs twice."""
    made: dict[str, object] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key `{key}` occurs twice")
        made[key] = value
    return made


def _opened(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in `.gz`."""
    return cast(IO[bytes], _Unpacked(path)) if path.name.endswith(".gz") else path.open("rb")


class _Unpacked(gzip.GzipFile):
    """A gzipped file. Raises `OSError` where it unpacks to far more than text and numbers ever do."""

    def __init__(self, path: Path):
        super().__init__(path, "rb")
        self._most = max(_UNPACKED, _RATIO * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes; all of them if negative."""
        content = super().read(self._most + 1 if size is None or size < 0 else size)
        if self.tell() > self._most:
            raise OSError(f"it unpacks to more than {_RATIO} times its size")
        return content


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a value of parquet's types."""


def _check_parquet(name: str, path: Path, field: str) -> None:
    """SourceFault B404 for a parquet file whose rows or values are far more than its bytes."""
    content, size = parquet.read_metadata(path), path.stat().st_size
    what = ""
    if content.num_rows > max(_UNPACKED, _RATIO * size):
        what = f"says that it has {content.num_rows:,} rows, in {size:,} bytes"
    elif _decoded_size(path, content, most := max(_DECODED, _RATIO * size)) > most:
        what = f"unpacks to more than {most >> 20:,} MiB, from {size:,} bytes"
    if what:
        raise SourceFault("B404", f"`{name}` {what}", help=CUT_SHORT, field=field)


def _decoded_size(path: Path, content: parquet.FileMetaData, most: int) -> int:
    """Bytes of the values of a parquet file, or some number above `most`.

    A text that occurs often may be stored once, in the dictionary of its column: such columns are read with their
    dictionaries where these could hold enough to matter.
    """
    total = 0
    for group in range(content.num_row_groups):
        for column in map(content.row_group(group).column, range(content.num_columns)):
            total += int(column.num_values * _WIDTHS.get(column.physical_type, 1) + column.total_uncompressed_size)
            if total > most:
                return total
            if column.has_dictionary_page and column.num_values * column.total_uncompressed_size > most:
                leaf = column.path_in_schema
                file = parquet.ParquetFile(path, read_dictionary=[leaf])
                for batch in file.iter_batches(row_groups=[group], columns=[leaf]):
                    total += sum(map(_text_size, _leaves(batch.column(0))))
                    if total > most:
                        return total
    return total


def _leaves(array: pyarrow.Array) -> Iterator[pyarrow.Array]:
    """The arrays within lists and structs."""
    if isinstance(array, pyarrow.StructArray):
        for child in array.flatten():
            yield from _leaves(child)
    elif isinstance(array, pyarrow.ListArray | pyarrow.LargeListArray | pyarrow.FixedSizeListArray):
        yield from _leaves(array.flatten())
    else:
        yield array


def _text_size(array: pyarrow.Array) -> int:
    """Bytes of texts that are stored with a dictionary; 0 for other values."""
    if not isinstance(array, pyarrow.DictionaryArray) or pyarrow.types.is_primitive(array.type.value_type):
        return 0
    lengths = pyarrow.compute.binary_length(array.dictionary)
    return int(pyarrow.compute.sum(lengths.take(array.indices)).as_py() or 0)


def _is_empty(error: BaseException | None) -> bool:
    """Whether a reader failed because the file is empty: each format has an error of its own for that."""
    while error is not None:
        if isinstance(error, StopIteration | pandas.errors.EmptyDataError):
            return True
        if "corresponds to no data" in str(error) or "BatchSize must be greater than 0" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cause(error: BaseException) -> str:
    """The first line of an error's root cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


# ── csv and tsv, before pandas reads them ────────────────────────────────────────────────────────────────────────────


def _csv_layout(path: Path, suffix: str, field: str, quoted: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options that keep every value as text, and the names that occur twice in the header.

    By default pandas reads `NA` as a missing value and `007` as a number, and renames the second of two equal names.
    """
    layout: dict[str, Any] = {
        "sep": "\t" if suffix == ".tsv" else ",",
        "quoting": QUOTE_MINIMAL if quoted else QUOTE_NONE,
    }
    with _opened(path) as file:
        if file.readline(_LONGEST_LINE).count(layout["sep"].encode()) > _COLUMNS:
            raise _many_columns(path.name, field)
    head = pandas.read_csv(path, nrows=1, **layout)
    if not quoted and all(re.fullmatch('".*"', str(name)) for name in head.columns):
        message = f"`{path.name}` has its header in quotes, which are read as part of the names"
        raise SourceFault("B404", message, help="`quoting=true` removes them, here and in the rows", field=field)
    # pandas takes surplus fields for names of rows, and shifts the others
    if not isinstance(head.index, pandas.RangeIndex):
        message = f"`{path.name}` has more fields in row 1 than names in its header"
        there = f"the header is {listing(head.columns, MOST_NAMES)}"
        help = f"name every column in the header, and {_quoting(quoted)}: {there}"
        raise SourceFault("B404", message, help=help, field=field)
    names = pandas.read_csv(path, nrows=1, header=None, dtype=str, na_filter=False, **layout).iloc[0].tolist()
    features = datasets.Features({column: datasets.Value("string") for column in head.columns})
    twice = tuple(name for name, count in Counter(names).items() if count > 1)
    return {**layout, "features": features, "na_filter": False}, twice


def _quoting(quoted: bool) -> str:
    """The remedy for a separator within a value."""
    return 'put values with a separator in them into "quotes"' + ("" if quoted else " and say `quoting=true`")


def _bad_row(error: str, suffix: str, quoted: bool) -> tuple[str, str] | None:
    """The fault of a row of csv or tsv and its remedy, from the error of pandas' reader; None for other faults."""
    if more := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", error):
        what = f"has {more[3]} fields in line {more[2]}, and {more[1]} names in its header"
        return what, f"{_quoting(quoted)}, or correct the line"
    if left := re.search(r"EOF inside string starting at row (\d+)", error):
        other = "" if suffix == ".tsv" else ", or say `quoting=false` where quotes are part of the text"
        return f"has a quote in row {left[1]} that is never closed", f'close it; within a quoted field write ""{other}'
    return None


def _folder_layout(folder: Path) -> dict[str, Any]:
    """The options with which `datasets` reads a folder of csv or of tsv as `read_table` reads one file: every value as
    text, and in tsv a quote as an ordinary character. Empty for other folders, and for mixed ones.
    """
    paths = [path for path in folder.rglob("*") if path.is_file()]
    suffixes = {path: plain_suffix(path.name) for path in paths}
    present = set(suffixes.values()) & set(FORMATS)
    if present not in ({".csv"}, {".tsv"}):
        return {}
    layout: dict[str, Any] = {"quoting": QUOTE_NONE} if present == {".tsv"} else {}
    sep = "\t" if present == {".tsv"} else ","
    tables = (pandas.read_csv(path, nrows=0, sep=sep, **layout) for path in paths if suffixes[path] in present)
    return {**layout, "na_filter": False, "converters": {column: str for table in tables for column in table.columns}}


# ── the form of a file ───────────────────────────────────────────────────────────────────────────────────────────────


_WORDS = {
    "files": "rows with named columns",
    "conll": "lines of a word and its tag",
    "squad": "questions in the form of SQuAD",
}
_LINES = 50
"""How many lines are inspected."""


def plain_suffix(name: str) -> str:
    """The suffix of a file's name in lower case, without `.gz`."""
    return Path(name.removesuffix(".gz")).suffix.lower()


def check_form(name: str, text: str, field: str, source: str) -> None:
    """Raise B415 for a text that another source reads than `source` (`files`, `conll`, `squad`, `text`)."""
    suffix = plain_suffix(name)
    if source == "text" and suffix in FORMATS:
        help = "write its texts into a plain file; a plain file that is called so needs another suffix, such as .txt"
        raise _form_fault(name, field, "files", source, help)
    form = _form_of(text, suffix) if source != "text" else ""
    if form and form != source:
        raise _form_fault(name, field, form, source, f"`{form}(train=…)` reads it")


def form_of_file(name: str, path: Path, field: str) -> str:
    """The source that reads a file: `files`, `conll`, `squad`, or `text` where none of these does. Raises `SourceFault`
    B404 for a file that is no text.
    """
    suffix = plain_suffix(path.name)
    if suffix in FORMATS and suffix not in (".json", ".tsv"):
        return "files"
    return _form_of(read_text(name, path, field), suffix) or ("files" if suffix in FORMATS else "text")


def _form_of(text: str, suffix: str) -> str:
    """The source that reads a text: `squad` or `files` for json, `conll` for tags, `files` for csv, or ""."""
    text = text.lstrip()
    lines = [line for line in text.split("\n", _LINES)[:_LINES] if line.strip()]
    if text[:1] in ("{", "["):
        whole = None
        for piece in (lines[0], text) if len(lines) > 1 else (text,):
            with suppress(ValueError, RecursionError):
                whole = whole or json.loads(piece)
        data = whole.get("data") if isinstance(whole, dict) else None
        if isinstance(data, list) and data and isinstance(data[0], dict) and "paragraphs" in data[0]:
            return "squad"
        rows = whole if isinstance(whole, list) else [whole]
        return "files" if rows and all(isinstance(row, dict) and "data" not in row for row in rows) else ""
    words = [line.split() for line in lines if not line.startswith(("#", "-DOCSTART-"))]
    tags = [row[-1] for row in words if len(row) > 1]
    scheme = find_scheme(tags) if suffix != ".csv" and len(set(map(len, words))) == 1 else None
    if scheme is not None and scheme.separator and all(tag == OUTSIDE or scheme.split(tag) for tag in tags):
        return "conll"
    return "files" if suffix == ".csv" and lines and "," in lines[0] else ""


def _form_fault(name: str, field: str, form: str, source: str, help: str) -> SourceFault:
    read = f", which `{source}` does not read" if source else ", and no text"
    return SourceFault("B415", f"`{name}` holds {_WORDS[form]}{read}", help=help, field=field)
