"""Files that were cut short, changed or made longer: a clear error or the file made anew, never a wrong value."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from brewgraph.diagnostics import RunError
from brewgraph.facts.memory import Memory
from brewgraph.runtime.store import _HEAD, Store, _checksum, _value
from brewgraph.training.checkpoint import read_checkpoint
from brewgraph.training.state_files import FILES, write_state

COUNT = int(os.environ.get("BREWGRAPH_FUZZ", "100"))
pytestmark = pytest.mark.timeout(0 if COUNT > 1000 else 300)


def damaged(content: bytes, seed: int) -> bytes:
    """The bytes cut short, with some of them changed, zeroed or doubled, or with others behind them."""
    chance, data = random.Random(seed), bytearray(content)
    at = chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            del data[at:]
        case 1:
            for _ in range(chance.choice((1, 1, 4, 32))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 2:
            data[at : at + chance.choice((1, 8, 512))] = bytes(chance.choice((1, 8, 512)))
        case 3:
            data += chance.randbytes(chance.choice((1, 100, 5000)))
        case _:
            data[at:at] = data[at : at + 64]
    return bytes(data)


def versions(path: Path) -> Iterator[int]:
    """The file, damaged in one way after the other."""
    content = path.read_bytes()
    for seed in range(COUNT):
        path.write_bytes(damaged(content, seed))
        yield seed


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    """It is read, or `RunError` names it in one line."""
    content = {"stage": 0, "module": {"w": torch.arange(64.0)}, "progress": {"score": 0.5}, "identity": "x"}
    write_state(content, tmp_path)
    for seed in versions(tmp_path / name):
        said = ""
        try:
            assert read_checkpoint(tmp_path, 1).stage == 0, seed
        except RunError as error:
            said = str(error)
        assert not said or (str(tmp_path) in said and "\n" not in said), seed


def test_a_damaged_fact_is_found_anew(tmp_path: Path) -> None:
    """What cannot be read, or has another checksum, is found again."""
    memory = Memory(tmp_path)
    fact = {"hidden": (1, 2, 3), "logits": (4,)}
    memory.recall("one", dict[str, tuple[int, ...]], lambda: fact)
    (path,) = tmp_path.iterdir()
    for seed in versions(path):
        got = memory.recall("one", dict[str, tuple[int, ...]], lambda: fact)
        assert got == fact, seed


def test_a_damaged_store_gives_no_wrong_value(tmp_path: Path) -> None:
    """Each row has a checksum: it is as it was written, or missing, or the store is at fault in a line. Pages of the
    file itself belong to LMDB, which trusts them, so only the rows are damaged here; `docs/security.md` says so.
    """
    keys = [bytes([i]) * 16 for i in range(8)]
    values = [torch.arange(40.0) + i for i in range(8)]
    store = Store(tmp_path, "kept")
    store.put(keys, values)
    store.close()
    content = store.path.read_bytes()
    inside = content.find(values[3].numpy().tobytes())
    assert inside > 0
    chance = random.Random(0)
    for seed in range(COUNT):
        data = bytearray(content)
        data[inside + chance.randrange(160)] ^= 1 << chance.randrange(8)
        store.path.write_bytes(data)
        with pytest.raises(RunError, match="a value in it is damaged"):
            Store(tmp_path, "kept").get(keys)
        (other,) = Store(tmp_path, "kept").get(keys[:1]) or ()
        assert other.equal(values[0]), seed


@pytest.mark.parametrize(
    "shape", [(921036261, 4274862323, 137630545, 0, 16777216), (1 << 31, 1 << 31, 4), (0, 1 << 31, 1 << 31)]
)
def test_a_row_of_an_impossible_shape_is_damaged(shape: tuple[int, ...]) -> None:
    """Also where its checksum is right, and where its sizes multiply to nothing, or to nothing in 64 bits."""
    rest, types = struct.pack(f"<{len(shape)}I", *shape), (0, len(shape))
    row = _HEAD.pack(_checksum(b"x", types, rest), *types) + rest
    with pytest.raises(ValueError, match="a value in it is damaged"):
        _value(b"x", memoryview(row))
