"""Rows from files and from the hub, through `datasets`: what stands there, not yet checked."""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import pandas

from brewgraph.data.sources.delimited import bad_row, csv_layout, folder_layout
from brewgraph.data.sources.file_forms import binary, check_form
from brewgraph.data.sources.source_facts import stamp
from brewgraph.diagnostics import SourceFault, listing, suggest
from brewgraph.paths import locate, nearby, no_path
from brewgraph.source import EncodingError, decode

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""The reader of `datasets` for each suffix; every one may be followed by `.gz`."""

_KEPT = 16
"""How many files, and how many local folders, are kept in memory once they are read."""
_LOOK = 65536
"""How many bytes of a file are looked at to tell its form."""

_BLOCK = 1 << 20
"""Bytes that are looked at together."""


@dataclass(frozen=True)
class Split:
    """One split as it stands in its source. `place` names it in messages; `typed` is false where all is text.

    `twice` are names that stand twice in a header: which of the columns is meant nobody knows.
    """

    rows: datasets.Dataset
    place: str
    typed: bool = True
    twice: tuple[str, ...] = ()

    def require(self, column: str, field: str | None = None, remedy: str = "") -> None:
        """Raise `SourceFault` B402 for a column that is not there, B411 for one that is there twice."""
        there = self.rows.column_names
        if column not in there:
            help = f"{suggest(column, there)} the columns are {listing(there)}{remedy}".strip()
            if len(there) == 1 and not self.typed and (other := re.search(r"[;,|\t]", there[0])):
                sign = "tabs" if other[0] == "\t" else f"`{other[0]}`"
                where = {",": "a file with commas is called .csv", "\t": "a file with tabs is called .tsv"}
                remedy = where.get(other[0], "save it with commas as .csv, or with tabs as .tsv")
                help = f"its columns stand between {sign}: {remedy}"
            raise SourceFault("B402", f"{self.place} has no column `{column}`", help=help, field=field)
        if column in self.twice:
            raise two_columns(self.place, column, field)


def two_columns(place: str, column: str, field: str | None = None) -> SourceFault:
    """The fault of a column that is asked for and whose name stands twice in the header."""
    return SourceFault(
        "B411", f"{place} has two columns `{column}`", help="rename one of them in the header", field=field
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no log lines of `datasets` inside; afterwards both are as they were before."""
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


def read_file(name: str, folder: Path, field: str, quoting: bool | None = None) -> Split:
    """All rows of one file, in memory; `name` is relative to `folder`, `field` the split (`train`, `dev`, `test`).

    In csv a field may stand in double quotes, in tsv a quote is a character like any other; `quoting` says otherwise.

    Read once for all who ask, while the file stays as it is: a check, and a run that trains its teachers, ask many
    times. Raises `SourceFault` B401 for a missing file and B404 for one that cannot be read.
    """
    path = find_file(name, folder, field)
    return _read_file(name, path, field, quoting, stamp([path]))


def find_file(name: str, folder: Path, field: str) -> Path:
    """The path of a file that is there; `name` is relative to `folder`. Raises `SourceFault` B401."""
    path = locate(name, folder, field).resolve()
    if not path.is_file():
        raise SourceFault("B401", f"there is no file `{name}`", help=no_path(name) or nearby(path), field=field)
    return path


def read_text(name: str, path: Path, field: str) -> str:
    """All of a text file in UTF-8, plain or, where its name ends in `.gz`, gzipped. Line ends are `\\n` alone.

    Raises `SourceFault` B404 for a file that is empty, no text, or cut short.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        if raw[:4] == b"PAR1":
            raise binary(name, field)
        text = decode(raw, f"`{name}`").removeprefix("\ufeff")
    except EncodingError as error:
        raise SourceFault("B404", error.message, help=error.help, field=field) from error
    except (OSError, EOFError, zlib.error) as error:
        raise SourceFault(
            "B404",
            f"`{name}` cannot be unpacked: {_cause(error)}",
            help="look at the file: one that was cut short, or no gzip file after all?",
            field=field,
        ) from error
    if not text.strip():
        raise no_rows(f"`{name}`", field)
    return text.replace("\r\n", "\n")


@lru_cache(maxsize=_KEPT)
def _read_file(name: str, path: Path, field: str, quoting: bool | None, _stamp: object) -> Split:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".tsv" or suffix not in FORMATS:
        check_form(name, path.read_bytes()[:_LOOK].decode("utf-8", "ignore"), field, "files")
    if suffix not in FORMATS:
        raise SourceFault(
            "B404",
            f"`{name}` has no format that is known here",
            help=f"a file's name ends in {listing(FORMATS)}, each also followed by `.gz`; `conll(train=…)` reads words "
            "with tags, `text(train=…)` plain text",
            field=field,
        )
    twice: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    quoted = suffix != ".tsv" if quoting is None else quoting
    # In a folder of its own, so that nothing is written beside the user's data and no older copy is taken for this one.
    with quiet(), tempfile.TemporaryDirectory(prefix="brewgraph-") as cache:
        try:
            if FORMATS[suffix] != "parquet":
                _check_utf8(name, path, field)
            if FORMATS[suffix] == "csv":
                options, twice = csv_layout(path, suffix, field, quoted)
            if FORMATS[suffix] == "parquet" and path.name.endswith(".gz"):  # the one reader that does not unpack
                path = _unpacked(path, Path(cache))
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
            what, help = bad_row(_cause(error), suffix, quoted) or (
                f"cannot be read as {suffix[1:]}: {_bad_line(path, suffix) or _cause(error)}",
                "look at the file: one that was cut short, or has another format than its name says?",
            )
            raise SourceFault("B404", f"`{name}` {what}", help=help, field=field) from error
    if suffix == ".json" and "paragraphs" in str(rows.features.get("data")):
        check_form(name, read_text(name, path, field), field, "files")
    return Split(rows, f"`{name}`", typed=FORMATS[suffix] != "csv", twice=twice)


def read_hub(
    name: str,
    subset: str | None,
    revision: str | None,
    splits: Mapping[str, str],
    folder: Path,
    optional: frozenset[str],
) -> dict[str, Split]:
    """Some splits of a data set of the hub, or of a local folder below `folder` that is laid out like one.

    `splits` maps `train`, `dev`, `test` to names there; those in `optional` may be missing. A local folder is read once
    for all who ask, as a file is; the hub's data `datasets` keeps itself. Raises `SourceFault`: B401 for a folder or a
    split that is not there, B402 for a subset, B404 for unreadable files, B405 for the hub.
    """
    wanted = tuple(splits.items())
    if not _local(name, folder):
        return _read_hub(name, subset, revision, wanted, folder, optional)
    files = sorted(path for path in (folder / Path(name).expanduser()).rglob("*") if path.is_file())
    return dict(_read_folder(name, subset, revision, wanted, folder.resolve(), optional, stamp(files)))


@lru_cache(maxsize=_KEPT)
def _read_folder(
    name: str,
    subset: str | None,
    revision: str | None,
    splits: tuple[tuple[str, str], ...],
    folder: Path,
    optional: frozenset[str],
    _stamp: object,
) -> dict[str, Split]:
    return _read_hub(name, subset, revision, splits, folder, optional)


def _read_hub(
    name: str,
    subset: str | None,
    revision: str | None,
    splits: tuple[tuple[str, str], ...],
    folder: Path,
    optional: frozenset[str],
) -> dict[str, Split]:
    local = _local(name, folder)
    with quiet(), tempfile.TemporaryDirectory(prefix="brewgraph-") as cache:
        builder = _builder(name, subset, revision, folder, cache if local else None)
        try:
            builder.download_and_prepare()
        except Exception as error:
            if local:
                raise SourceFault(
                    "B404",
                    f"the files in `{name}` cannot be read: {_cause(error)}",
                    help="look at its files, or name those that are good with `files(train=...)`",
                    field="name",
                ) from error
            raise _unreachable(name, subset, error) from error
        there = list(builder.info.splits or {})
        found = {}
        for field, wanted in splits:
            base = re.split(r"[\[+]", wanted)[0]
            if base not in there:
                if field in optional:
                    continue
                raise SourceFault(
                    "B401",
                    f"`{name}` has no split `{base}`",
                    help=f"{suggest(base, there)} the splits are {listing(there)}".strip(),
                    field=field,
                )
            place = f"split `{wanted}` of `{name}`"
            try:
                rows = builder.as_dataset(split=wanted, in_memory=local)
            except ValueError as error:
                if _is_empty(error):
                    raise no_rows(place, field) from error
                raise SourceFault(
                    "B401",
                    f"there is no {place}: {_cause(error)}",
                    help=f"name a split, or a part of one as `{base}[:10%]`: the splits are {listing(there)}",
                    field=field,
                ) from error
            found[field] = Split(rows, place, typed=not getattr(builder.config, "converters", None))
        return found


def hub_info(name: str, subset: str | None, revision: str | None, folder: Path) -> datasets.DatasetInfo:
    """What is known of a data set before its rows are fetched; raises like `read_hub`."""
    with quiet(), tempfile.TemporaryDirectory(prefix="brewgraph-") as cache:
        return _builder(name, subset, revision, folder, cache if _local(name, folder) else None).info


def _check_utf8(name: str, path: Path, field: str) -> None:
    """SourceFault B404 for text in another encoding: the reader of JSON lets it pass until a row is asked for."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            sound = 0 not in file.read(2)  # ASCII in UTF-16 without a byte order mark
            file.seek(0)
            while sound and (block := file.read(_BLOCK)):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except (UnicodeDecodeError, OSError, EOFError, zlib.error):
        sound = False
    if not sound:
        read_text(name, path, field)


def no_rows(place: str, field: str) -> SourceFault:
    """The fault of a split without a single row."""
    return SourceFault(
        "B404", f"{place} has no rows", help=f"name a file or split with rows for `{field}`", field=field
    )


def _builder(name: str, subset: str | None, revision: str | None, folder: Path, cache: str | None) -> Any:
    local = _local(name, folder)
    path = str(locate(name, folder, "name").resolve()) if local else name
    if locate(name, folder, "name").is_file():
        help = f'`files(train="{name}")` reads a file of rows'
        raise SourceFault("B415", f"`{name}` is a file, and `hub` reads folders", help=help, field="name")
    if not local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise SourceFault(
            "B401",
            f"there is no folder `{name}`",
            help=no_path(name) or nearby(locate(name, folder).resolve()),
            field="name",
        )
    try:
        layout = folder_layout(Path(path), FORMATS) if local else {}
        builder = datasets.load_dataset_builder(path, subset, revision=revision, cache_dir=cache, **layout)
        if builder.info.features is not None and layout.pop("converters", None):  # the folder's card tells the types
            del layout["na_filter"]
            builder = datasets.load_dataset_builder(path, subset, revision=revision, cache_dir=cache, **layout)
        return builder
    except Exception as error:  # the network, the hub's answers and the folder's layout all have errors of their own
        available = re.search(r"Available: \[(.*?)\]|available configs: \[(.*?)\]", str(error), re.DOTALL)
        if available:
            names = re.findall(r"'([^']+)'", available.group(0))
            said = f"there is no subset `{subset}` in `{name}`" if subset else f"`{name}` has several subsets"
            help = f"{suggest(subset or '', names)} the subsets are {listing(names)}".strip()
            raise SourceFault("B402", said, help=help, field="subset") from error
        if local:
            raise SourceFault(
                "B404",
                f"the folder `{name}` cannot be read as a data set: {_cause(error)}",
                help="put its files there as train.jsonl and validation.jsonl, or name them with `files(train=...)`",
                field="name",
            ) from error
        raise _unreachable(name, subset, error) from error


def _local(name: str, folder: Path) -> bool:
    return locate(name, folder, "name").is_dir()


def _unreachable(name: str, subset: str | None, error: Exception) -> SourceFault:
    arguments = f'"{name}"' + (f', "{subset}"' if subset else "")
    offline = datasets.config.HF_HUB_OFFLINE
    why = (
        "the hub is switched off here by HF_HUB_OFFLINE, and it was not downloaded before" if offline else _cause(error)
    )
    return SourceFault(
        "B405",
        f"the data set `{name}` cannot be fetched from the hub: {why}",
        help=f"download it before, where there is a network, with `datasets.load_dataset({arguments})`, "
        'or name a local folder or files instead: `hub("folder", ...)`, `files(train=...)`',
        field="name",
    )


def _bad_line(path: Path, suffix: str) -> str:
    """Where a file of one JSON object per line goes wrong: the readers count within the chunk that they are at."""
    if suffix != ".jsonl":
        return ""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    if line.strip():
                        json.loads(line)
                except ValueError as error:
                    return f"line {number}: {getattr(error, 'msg', error)}"
    except OSError:
        pass  # no gzip file after all: the reader's own words say so
    return ""


def _unpacked(path: Path, folder: Path) -> Path:
    target = folder / path.name.removesuffix(".gz")
    with gzip.open(path) as packed, target.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return target


def _is_empty(error: BaseException | None) -> bool:
    """Whether a reader failed because there was nothing to read: each format has its own way to say so."""
    while error is not None:
        if isinstance(error, StopIteration | pandas.errors.EmptyDataError):
            return True
        if "corresponds to no data" in str(error) or "BatchSize must be greater than 0" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _cause(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
