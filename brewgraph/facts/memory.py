"""Facts about models and data, kept on disk, so that checking a spec again need not load torch.

A fact's key is what it is about (the content of a model's configuration and tokenizer, the files of a data set) and the
versions of the libraries that found it: a stored fact is never out of date, and all of them may be deleted. The folder
is `facts` in the user's cache, or what BREWGRAPH_FACTS names; `BREWGRAPH_FACTS=off` keeps nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from brewgraph.diagnostics import Refusal, SourceFault
from brewgraph.digest import digest
from brewgraph.models.tokenization import describing_files, stamp_of
from brewgraph.paths import facts_folder, is_file, keep_fact, parse_json

T = TypeVar("T")

_BY_CHANCE = frozenset({"B311", "B314", "B405"})
"""Faults that depend on the network: a later check may not find them."""

_KEPT = 1000
"""The number of facts to keep; beyond it the least recently used fifth is deleted."""

_LIBRARIES = ("brewgraph", "torch", "transformers", "tokenizers", "datasets", "peft", "torchao", "bitsandbytes")


class Memory:
    """Facts in a folder, one file each; without a folder nothing is kept. A memory never fails: what cannot be read or
    written is found anew.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    @classmethod
    def of_user(cls) -> Memory:
        """The memory of the user who runs this process."""
        return cls(facts_folder())

    def recall(self, identity: str | None, kind: type[T], find: Callable[[], T]) -> T:
        """The fact of this identity and type, read from the folder, or found now and kept. A `SourceFault` that `find`
        raises is kept, too. Without an identity nothing is kept.
        """
        if self.folder is None or identity is None:
            return find()
        path = self.folder / f"{digest(repr(kind), identity, _versions())}.json"
        stored = _read(path, kind)
        if isinstance(stored, Refusal):
            raise stored.fault
        if stored is not None:
            return stored[0]
        try:
            fact = find()
        except SourceFault as fault:
            if fault.code not in _BY_CHANCE:
                self._write(path, {"refused": _adapter(Refusal).dump_python(Refusal.of(fault))})
            raise
        self._write(path, {"found": _adapter(cast(Any, kind)).dump_python(fact, mode="json")})
        return fact

    def _write(self, path: Path, content: Any) -> None:
        body = json.dumps(content, ensure_ascii=False)
        keep_fact(path, f"{digest(body)}\n{body}")
        with suppress(OSError):
            files = [entry.path for entry in os.scandir(path.parent)]
            if len(files) > _KEPT:
                for old in sorted(files, key=os.path.getmtime)[: _KEPT // 5]:
                    os.unlink(old)


def _read(path: Path, kind: type[T]) -> tuple[T] | Refusal | None:
    """The content of a file; None if there is no file or it cannot be read."""
    try:
        if not is_file(path):
            return None
        checksum, _, body = path.read_text(encoding="utf-8").partition("\n")
        if digest(body) != checksum:
            return None
        content: Any = parse_json(body)
        os.utime(path)
        if "refused" in content:
            return cast(Refusal, _adapter(Refusal).validate_python(content["refused"]))
        return (_adapter(cast(Any, kind)).validate_python(content["found"]),)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _versions() -> str:
    """The versions of everything that finds facts, this package's own sources among them."""
    package = Path(__file__).parents[1]
    rooms = ("recipe", "models", "data", "runtime", "facts", "running")
    sources = (path for room in rooms for path in (package / room).rglob("*.py"))
    stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path in sorted(sources) if (stat := path.stat())]
    return digest(platform.python_version(), *map(_version, _LIBRARIES), stats)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def print_of_model(name: str, revision: str | None = None) -> str | None:
    """A fingerprint of a model's configuration and tokenizer: the content of a folder, or the commit of a name on the
    hub. None if it cannot be known.
    """
    folder = Path(name)
    if folder.is_dir():
        return _content(folder, tuple(sorted(path.name for path in folder.iterdir())), stamp_of(name))
    with suppress(Exception):  # errors of the network and refusals of the hub: then nothing is remembered
        return _commit(name, revision)
    return None


def print_of_weights(name: str, revision: str | None = None) -> str | None:
    """A fingerprint of a model's configuration, weights and tokenizer, as `print_of_model` otherwise."""
    from brewgraph.models.heads import saved_heads

    folder = Path(name)
    if not folder.is_dir():
        return print_of_model(name, revision)
    files = [
        (file, (stat.st_size, stat.st_mtime_ns))
        for part in (folder, *(folder / head for head in saved_heads(folder)))
        for file in sorted(part.iterdir())
        if file.suffix in _WEIGHTS_AND_WORDS and is_file(file) and (stat := file.stat())
    ]
    total = hashlib.sha256()
    for file, stamp in files:
        total.update(str(file.relative_to(folder)).encode())
        total.update(_file_hash(file, stamp))
    return total.hexdigest()[:16]


_WEIGHTS_AND_WORDS = frozenset({".json", ".safetensors", ".bin", ".txt", ".model"})


@lru_cache(maxsize=256)
def _file_hash(file: Path, _stamp: object) -> bytes:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


@lru_cache(maxsize=64)
def _content(folder: Path, names: tuple[str, ...], _stamp: object) -> str:
    """A hash of all file names of a folder and of the files that describe its model, read once per stamp."""
    return digest(names, *(path.read_bytes() for path in describing_files(folder)))


@lru_cache(maxsize=64)  # for as long as the configuration of this commit is cached
def _commit(name: str, revision: str | None) -> str | None:
    """The commit that a name on the hub stands for; offline the one that was loaded last."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
        return Path(config).parent.name if isinstance(config, str) else None
    return get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision)).commit_hash
