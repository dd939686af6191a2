"""Values of frozen models on disk: each is computed once, written, and read from then on.

A store is a folder with one LMDB file for each kept value, named by what the value is (its equation, the weights of its
models, the precision), so that values of other weights are never read. In a file each example has a row, found by a
digest of its tokens: neither the order of the data nor the batches matter. A row holds its type, its shape, a checksum
of all of it and of the example's digest, and the numbers one after the other; it is read from mapped memory.
`bench/stores.py` compares LMDB with SQLite and Arrow files.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from threading import RLock
from weakref import WeakKeyDictionary, finalize

import lmdb
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from xxhash import xxh3_64_intdigest

from brewgraph.diagnostics import RunError
from brewgraph.paths import CACHE_SUFFIX

_DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64,
    torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool,
)  # fmt: skip
"""A row names its type by the place in this table: only append."""
_HEAD = struct.Struct("<QBB6x")
"""Checksum, type, number of axes; the sizes of the axes follow, then the numbers."""
_LARGEST = 1 << 40
"""Bytes of address space for a file: it takes as much of the disk as it holds."""
_SYNCED_EVERY = 10.0
"""Seconds between two times that a file is forced onto the disk: a killed process loses nothing, a machine that loses
its power at most the rows of these seconds."""
_OVERHEAD = 1 << 16
"""Bytes that a commit may add to a file beside its rows."""


class Store:
    """One kept value. `identity` says what it is; `read` and `written` count examples of this process.

    With a `limit`, in bytes, nothing is written by which the files of the folder could become larger. Several processes
    of one machine may read and write one store at the same time.
    """

    def __init__(self, folder: Path, identity: str, limit: int | None = None):
        self.path, self.limit = folder / f"{identity}{CACHE_SUFFIX}", limit
        self.read = self.written = self.left_out = 0
        self._file: _File | None = None
        try:
            self._open()
        except (OSError, lmdb.Error) as error:
            raise self._fault(error) from error

    def _open(self) -> lmdb.Environment:
        """The file, opened or created; again if a child process or a deleted folder asks for another one."""
        file = self._file
        if file is None or file.process != os.getpid() or not self.path.exists():
            self.close()
            self._file = file = _File.borrow(self.path)
            self._give_back = finalize(self, file.give_back)
        return file.environment

    def get(self, examples: Sequence[bytes]) -> list[Tensor] | None:
        """The values of these examples, in their order; None where one of them is missing."""
        values = self._find(examples)
        self.read += 0 if values is None else len(examples)
        return values

    def _find(self, examples: Sequence[bytes]) -> list[Tensor] | None:
        try:
            with self._open().begin(buffers=True) as transaction:
                rows = (transaction.get(example) for example in examples)
                values: list[Tensor] = []
                for example, row in zip(examples, rows, strict=True):
                    if row is None:
                        return None
                    values.append(_value(example, row))
                return values
        except (OSError, lmdb.Error, ValueError) as error:
            raise self._fault(error) from error

    def put(self, examples: Sequence[bytes], values: Iterable[Tensor]) -> list[Tensor]:
        """Write values, (…) each, and return what the store holds then: values that are there already stay. Where the
        limit leaves no room nothing is written.
        """
        computed = [x.detach().cpu().contiguous() for x in values]
        rows = [(key, _row(key, x)) for key, x in zip(examples, computed, strict=True)]
        try:
            if not self._has_room(rows):
                self.left_out += len(rows)
                return computed
            with self._open().begin(write=True) as transaction:
                added = sum(transaction.put(key, row, overwrite=False) for key, row in rows)
            assert self._file is not None
            self._file.sync(every=_SYNCED_EVERY)
        except (OSError, lmdb.Error) as error:
            raise self._fault(error) from error
        self.written += added
        return computed if added == len(computed) else self._find(examples) or computed

    def _has_room(self, rows: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether the folder may hold these rows too. Raises `RunError` if it may not even hold one of them alone."""
        if self.limit is None or not rows:
            return True
        pages = [-(-len(row) // 4096) * 4096 for _, row in rows]
        if min(pages) + _OVERHEAD > self.limit:
            raise RunError(
                f"the limit of the cache in {self.path.parent} is {self.limit:,} bytes, and one example of this value "
                f"takes {min(pages):,} and the file itself {_OVERHEAD:,}: set a larger limit, or leave the `cache` out"
            )
        used = sum(file.stat().st_size for file in os.scandir(self.path.parent) if file.name.endswith(CACHE_SUFFIX))
        return used + sum(pages) + _OVERHEAD <= self.limit

    def __len__(self) -> int:
        return int(self._open().stat()["entries"])

    def close(self) -> None:
        """Force the file onto the disk and give it back; it is opened again when needed."""
        if self._file is not None:
            self._give_back()
            self._file = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None, "_give_back": None}

    def _fault(self, error: Exception) -> RunError:
        return RunError(
            f"the cache in {self.path.parent} cannot be used: {error}. Name another folder in the `cache` statement, "
            "or delete this one: its values are computed again"
        )


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _File:
    """An open file. All stores of a process share it, since LMDB opens a file once in a process; the last closes it."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.process, self.users, self._synced = os.getpid(), 0, time.monotonic()
        self.environment = lmdb.open(
            str(path), subdir=False, map_size=_LARGEST, sync=False, max_readers=1024, readahead=False
        )
        # of a truncated file, fill up what is missing: to read past its end would end the process, and a row of zeros
        # has a wrong checksum
        length = (self.environment.info()["last_pgno"] + 1) * self.environment.stat()["psize"]
        if path.stat().st_size < length:
            os.truncate(path, length)

    @classmethod
    def borrow(cls, path: Path) -> _File:
        place = os.getpid(), path.absolute()
        with _opening:
            if place not in _files or not path.exists():
                _files[place] = cls(path)
            _files[place].users += 1
            return _files[place]

    def give_back(self) -> None:
        with _opening:
            self.users -= 1
            if self.users or self.process != os.getpid():
                return
            for place in [place for place, file in _files.items() if file is self]:
                del _files[place]
            self.sync()
            self.environment.close()

    def sync(self, every: float = 0.0) -> None:
        """Force it onto the disk if this was not done for so many seconds."""
        now = time.monotonic()
        if now - self._synced >= every:
            self.environment.sync(True)
            self._synced = now


_files: dict[tuple[int, Path], _File] = {}
"""Open files by process and path."""
_opening = RLock()


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(example: bytes, x: Tensor) -> bytes:
    rest = struct.pack(f"<{x.dim()}I", *x.shape) + _bytes(x)
    types = _DTYPES.index(x.dtype), x.dim()
    return _HEAD.pack(_checksum(example, types, rest), *types) + rest


def _value(example: bytes, row: memoryview) -> Tensor:
    """The value of a row, copied out of the mapped memory. Raises `ValueError` where anything in it was changed."""
    damaged = "a value in it is damaged"
    if len(row) < _HEAD.size:
        raise ValueError(damaged)
    checksum, dtype, axes = _HEAD.unpack_from(row)
    rest = row[_HEAD.size :]
    if len(rest) < 4 * axes or dtype >= len(_DTYPES):
        raise ValueError(damaged)
    shape = struct.unpack_from(f"<{axes}I", rest)
    beyond = math.prod(max(1, size) for size in shape) > _LARGEST  # which no tensor has, even of no numbers
    if beyond or len(rest) != 4 * axes + _DTYPES[dtype].itemsize * math.prod(shape):
        raise ValueError(damaged)  # before a length that is wrong leads past the end of the file
    if _checksum(example, (dtype, axes), rest) != checksum:
        raise ValueError(damaged)
    x = torch.empty(shape, dtype=_DTYPES[dtype])
    _bytes(x)[:] = rest[4 * axes :]
    return x


def _checksum(example: bytes, types: tuple[int, int], rest: bytes | memoryview) -> int:
    return xxh3_64_intdigest(rest, seed=xxh3_64_intdigest(example + bytes(types)))


# ── digests ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def weights_digest(model: nn.Module) -> str:
    """A digest of what a model computes with: its class, configuration, weights and buffers; of modules of other code
    than torch's and transformers' also the text of their classes and their plain attributes.

    Its path and its name do not count. A digest that `keep_digest` was given holds until weights change.
    """
    stamp, kept = _kept_digests.get(model, (None, ""))
    if stamp == weights_stamp(model):
        return kept
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
        for part in _plain_parts(tensor.detach()):
            hashed.update(_bytes(part.cpu()))
    return hashed.hexdigest()


def keep_digest(model: nn.Module, weights: str) -> None:
    """Remember the digest of a model's weights, which may lie on disk yet, for as long as its tensors stay the same."""
    _kept_digests[model] = (weights_stamp(model), weights)


_kept_digests: WeakKeyDictionary[nn.Module, tuple[tuple[tuple[int, int], ...], str]] = WeakKeyDictionary()
_PLAIN = (Tensor, nn.Parameter)
_LIBRARIES = frozenset({"torch", "transformers", "brewgraph"})
"""Packages whose modules follow from class, configuration and weights."""


def _plain_parts(x: Tensor) -> Iterator[Tensor]:
    """A tensor, or those that a quantized one is made of."""
    if not is_traceable_wrapper_subclass(x):
        yield x
        return
    for name in x.__tensor_flatten__()[0]:
        yield from _plain_parts(getattr(x, name))


def _bytes(x: Tensor) -> memoryview:
    return x.contiguous().flatten().view(torch.uint8).numpy().data


def weights_stamp(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """A value that changes whenever weights are written in place or replaced, while the model is in memory."""
    stamps: list[tuple[int, int]] = []
    seen, waiting = set[nn.Module](), [model]
    while waiting:  # each batch asks, and `parameters()` takes twice as long
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            for x in chain(module._parameters.values(), module._buffers.values()):
                if x is None:
                    continue
                if type(x) in _PLAIN:
                    stamps.append((x.data_ptr(), x._version))
                else:
                    stamps += [(part.data_ptr(), part._version) for part in _plain_parts(x)]
            waiting += [x for x in module._modules.values() if x is not None]
    return tuple(stamps)


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
        real = None if real_BL is None else real_BL.cpu().numpy()
        per_place = math.prod(tensor.shape[2:]) * tensor.element_size()
        examples = np.asarray(_bytes(tensor.detach().cpu())).reshape(*tensor.shape[:2], per_place)
        digests = digests or [hashlib.blake2b(digest_size=16) for _ in examples]
        for i, example in enumerate(digests):
            row, shape = examples[i], tuple(tensor.shape[1:])
            if real is not None:  # numpy's calls cost less than torch's, and rows are short
                row = row[real[i]]
                shape = len(row), *shape[1:]
            example.update(f"{name} {tensor.dtype} {shape}".encode())
            example.update(row.data)
    return [example.digest() for example in digests]
