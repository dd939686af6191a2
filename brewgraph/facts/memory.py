"""What was found out about models and data, kept on disk, so that a spec that is checked again need not load torch.

A fact is found by what it is about (the content of a model's configuration and tokenizer, the files of a data set) and
by the versions of the libraries that told it; nothing in here is ever out of date, and all of it can be deleted. The
folder is `facts` in the user's cache, or what BREWGRAPH_FACTS names; `BREWGRAPH_FACTS=off` keeps nothing.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from brewgraph.data.sources.source_facts import stamp
from brewgraph.diagnostics import Refusal, SourceFault
from brewgraph.digest import digest
from brewgraph.models.tokenization import describing_files, stamp_of
from brewgraph.paths import locate
from brewgraph.recipe.settings.sources import DataSource, Join

T = TypeVar("T")

VARIABLE = "BREWGRAPH_FACTS"

_BY_CHANCE = frozenset({"B311", "B314", "B405"})
"""Faults that depend on the network: the next time may tell otherwise."""

_KEPT = 1000
"""How many facts are kept; of more the fifth that was not asked for the longest time goes."""

_TELLING = ("brewgraph", "torch", "transformers", "tokenizers", "datasets", "peft")


class Memory:
    """Facts in a folder, one file each; without a folder nothing is kept. What cannot be read or written is found anew:
    a memory never fails.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    @classmethod
    def of_user(cls) -> Memory:
        """The memory of whoever runs this process."""
        said = os.environ.get(VARIABLE, "")
        if said.lower() == "off":
            return cls(None)
        if said:
            return cls(Path(said).expanduser())
        import platformdirs

        return cls(platformdirs.user_cache_path("brewgraph") / "facts")

    def recall(self, identity: str | None, kind: Any, find: Callable[[], T]) -> T:
        """The fact of this identity, of the type `kind`: from the folder, or found now and kept, as is a `SourceFault`
        that `find` raises. Without an identity it is found each time.
        """
        if self.folder is None or identity is None:
            return find()
        path = self.folder / f"{digest(repr(kind), identity, _versions())}.json"
        known = _read(path, kind)
        if isinstance(known, Refusal):
            raise known.fault
        if known is not None:
            return cast(T, known[0])
        try:
            found = find()
        except SourceFault as fault:
            if fault.code not in _BY_CHANCE:
                self._write(path, {"refused": _adapter(Refusal).dump_python(Refusal.of(fault))})
            raise
        self._write(path, {"found": _adapter(kind).dump_python(found, mode="json")})
        return found

    def _write(self, path: Path, content: Any) -> None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False)
            os.replace(file.name, path)
            self._forget()

    def _forget(self) -> None:
        """Delete the facts that were not asked for the longest time, where there are too many."""
        assert self.folder is not None
        files = [entry.path for entry in os.scandir(self.folder)]
        if len(files) > _KEPT:
            for path in sorted(files, key=os.path.getmtime)[: _KEPT // 5]:
                os.unlink(path)


def _read(path: Path, kind: Any) -> tuple[Any] | Refusal | None:
    """What stands in a file; None where there is none, or nothing that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        os.utime(path)
        if "refused" in said:
            return cast(Refusal, _adapter(Refusal).validate_python(said["refused"]))
        return (_adapter(kind).validate_python(said["found"]),)
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _versions() -> str:
    """The versions of all that facts are told by, this package's own sources among them."""
    package = Path(__file__).parents[1]
    sources = (path for room in ("recipe", "models", "data") for path in (package / room).glob("*.py"))
    stats = [(path.name, stat.st_size, stat.st_mtime_ns) for path in sorted(sources) if (stat := path.stat())]
    return digest(platform.python_version(), *map(_version, _TELLING), stats)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def print_of_model(name: str, revision: str | None = None) -> str | None:
    """What tells a model's configuration and tokenizer from those of any other: of a folder their content, of a name on
    the hub its commit there. None where this cannot be known.
    """
    folder = Path(name)
    if folder.is_dir():
        return _content(folder, tuple(sorted(path.name for path in folder.iterdir())), stamp_of(name))
    with suppress(Exception):  # the network's, and the hub's refusals: then nothing is remembered
        return _commit(name, revision)
    return None


@lru_cache(maxsize=64)
def _content(folder: Path, names: tuple[str, ...], _stamp: object) -> str:
    """The names of all files of a folder and the content of those that describe its model, read once while they stay
    as they are.
    """
    return digest(names, *(path.read_bytes() for path in describing_files(folder)))


@lru_cache(maxsize=64)  # as long as the configuration that was read of it is kept, too
def _commit(name: str, revision: str | None) -> str | None:
    """The commit that a name on the hub stands for now; offline the one that was loaded last."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
        return Path(found).parent.name if isinstance(found, str) else None
    return get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision)).commit_hash


def print_of_data(source: DataSource | Join, folder: Path) -> str | None:
    """What tells the content of a data set's files from any other; None where only the hub knows."""
    found: list[object] = []
    for part in source.sources:
        if part.holds_tensors or (part.hub_name and not locate(part.hub_name, folder, "name").is_dir()):
            return None
        try:
            found.append(stamp(_files(part, folder)))
        except OSError:
            return None  # a file that is not there: whoever reads it says so
    return digest(repr(source), *found)


def _files(source: DataSource, folder: Path) -> Iterator[Path]:
    """The local files that a data set consists of."""
    if source.hub_name:
        yield from sorted(path for path in locate(source.hub_name, folder, "name").rglob("*") if path.is_file())
    for field, name in source.files.items():
        yield locate(name, folder, field).resolve()
