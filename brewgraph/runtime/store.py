"""Values of frozen models on disk: each is computed once, written, and read from then on.

A store is a folder with one SQLite file for each kept value, named by what the value is (its equation, the weights of
its models, the precision), so that values of other weights are never read. In a file each example has a row, found by a
digest of its tokens: neither the order of the data nor the batches matter.
"""

from __future__ import annotations

import hashlib
import inspect
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from brewgraph.diagnostics import RunError

_TABLE = "CREATE TABLE IF NOT EXISTS kept (example BLOB PRIMARY KEY, value BLOB)"
_WAIT = 60.0
"""Seconds to wait while another process writes."""
_AT_ONCE = 500
"""Rows of one query; SQLite allows some thousand parameters."""


class Store:
    """One kept value. `identity` says what it is; `read` and `written` count examples of this process.

    Several processes may read and write one store at the same time, on a file system that locks files.
    """

    def __init__(self, folder: Path, identity: str):
        self.path = folder / f"{identity}.sqlite"
        self.read = self.written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._create()
        except (OSError, sqlite3.Error) as error:
            raise self._fault(error) from error
        self._connection: sqlite3.Connection | None = None

    def _create(self) -> None:
        """Make the table; wait while another process does, since SQLite does not wait to change the journal's mode."""
        until = time.monotonic() + _WAIT
        while True:
            try:
                with closing(self._connect()) as connection, connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute(_TABLE)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT)

    def _open(self) -> sqlite3.Connection:
        # opened when needed: a connection survives neither a fork nor a copy of the module that holds it
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute("PRAGMA synchronous=NORMAL")
        return self._connection

    def get(self, examples: Sequence[bytes]) -> list[Tensor] | None:
        """The values of these examples, in their order; None where one of them is missing."""
        values = self._find(examples)
        self.read += 0 if values is None else len(examples)
        return values

    def _find(self, examples: Sequence[bytes]) -> list[Tensor] | None:
        rows: dict[bytes, bytes] = {}
        wanted = list(dict.fromkeys(examples))
        try:
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(part))
                rows |= dict(self._open().execute(f"SELECT example, value FROM kept WHERE example IN ({marks})", part))
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return [load(rows[example])["value"] for example in examples] if len(rows) == len(wanted) else None

    def put(self, examples: Sequence[bytes], values: Iterable[Tensor]) -> list[Tensor]:
        """Write values, (…) each, and return what the store holds then: values that are there already stay."""
        computed = [x.detach().cpu().contiguous() for x in values]
        rows = [(key, save({"value": x})) for key, x in zip(examples, computed, strict=True)]
        try:
            with self._open() as connection:
                before = connection.total_changes
                connection.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?)", rows)
                added = connection.total_changes - before
        except sqlite3.Error as error:
            raise self._fault(error) from error
        self.written += added
        return computed if added == len(computed) else self._find(examples) or computed

    def __len__(self) -> int:
        (count,) = self._open().execute("SELECT count(*) FROM kept").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_connection": None}

    def _fault(self, error: Exception) -> RunError:
        return RunError(
            f"the cache in {self.path.parent} cannot be used: {error}. Name another folder in the `cache` statement, "
            "or delete this one: its values are computed again"
        )


def weights_digest(model: nn.Module) -> str:
    """A digest of what a model computes with: its class, configuration, weights and buffers; of modules of other code
    than torch's and transformers' also the text of their classes and their plain attributes.

    Its path and its name do not count.
    """
    hashed = hashlib.sha256(type(model).__qualname__.encode())
    config = getattr(model, "config", None)
    if config is not None:
        fields = {k: v for k, v in config.to_dict().items() if not k.startswith("_") and k != "transformers_version"}
        hashed.update(repr(sorted(fields.items(), key=lambda pair: pair[0])).encode())
    for path, module in model.named_modules():
        if type(module).__module__.partition(".")[0] not in _LIBRARIES:
            plain = {k: v for k, v in vars(module).items() if k[:1] != "_" and k != "training" and _is_plain(v)}
            hashed.update(repr((path, type(module).__qualname__, _text(type(module)), sorted(plain.items()))).encode())
    for name, tensor in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(_bytes(tensor.detach().cpu()))
    return hashed.hexdigest()


_LIBRARIES = frozenset({"torch", "transformers", "brewgraph"})
"""Packages whose modules follow from class, configuration and weights."""


def _bytes(x: Tensor) -> memoryview:
    return x.contiguous().flatten().view(torch.uint8).numpy().data


def weights_stamp(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """A value that changes whenever weights are written in place or replaced, while the model is in memory."""
    return tuple((x.data_ptr(), x._version) for x in chain(model.parameters(), model.buffers()))


def _is_plain(x: object) -> bool:
    if isinstance(x, list | tuple):
        return all(map(_is_plain, x))
    if isinstance(x, dict):
        return all(map(_is_plain, chain(x.keys(), x.values())))
    return x is None or isinstance(x, bool | int | float | str)


def _text(of: type) -> str:
    """The source of a class, empty where it has no file."""
    try:
        return inspect.getsource(of)
    except (OSError, TypeError):
        return ""


def example_digests(parts: Iterable[tuple[str, Tensor, Tensor | None]]) -> list[bytes]:
    """A digest for each example of a batch, of all tensors (B, …) that enter, each with its name and the real places of
    its second axis, (B, L) bool, so that padding does not count; None where all places do.
    """
    digests: list[hashlib.blake2b] = []
    for name, tensor, real_BL in parts:
        x, real = tensor.detach().cpu(), None if real_BL is None else real_BL.cpu()
        digests = digests or [hashlib.blake2b(digest_size=16) for _ in x]
        for i, example in enumerate(digests):
            row = x[i] if real is None else x[i][real[i]]
            example.update(f"{name} {row.dtype} {tuple(row.shape)}".encode())
            example.update(_bytes(row))
    return [example.digest() for example in digests]
