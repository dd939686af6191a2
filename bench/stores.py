"""Which file format keeps values of examples best: SQLite rows, an LMDB tree, or Arrow files. Ratios inside one run.

    python bench/stores.py [FOLDER]

Each writes the same values batch by batch, a commit for each batch, then reads random batches. A value is a score
(3 numbers) or the hidden states of an example of 8 to 64 tokens (768 numbers each), in fp32.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa

BATCH, BATCHES, ROUNDS = 16, 128, 5
Rows = Sequence[tuple[bytes, bytes]]


class Sqlite:
    def __init__(self, folder: Path):
        self.connection = sqlite3.connect(folder / "rows.sqlite")
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.execute("CREATE TABLE kept (example BLOB PRIMARY KEY, value BLOB)")

    def write(self, rows: Rows) -> None:
        with self.connection:
            self.connection.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?)", rows)

    def read(self, keys: Sequence[bytes]) -> list[np.ndarray]:
        marks = ", ".join("?" * len(keys))
        found = dict(self.connection.execute(f"SELECT example, value FROM kept WHERE example IN ({marks})", keys))
        return [np.frombuffer(found[key], np.float32) for key in keys]


class Lmdb:
    def __init__(self, folder: Path, **options: bool):
        self.environment = lmdb.open(str(folder), map_size=1 << 40, **options)

    def write(self, rows: Rows) -> None:
        with self.environment.begin(write=True) as transaction:
            for key, value in rows:
                transaction.put(key, value, overwrite=False)

    def read(self, keys: Sequence[bytes]) -> list[np.ndarray]:
        with self.environment.begin(buffers=True) as transaction:
            return [np.frombuffer(transaction.get(key), np.float32).copy() for key in keys]


class Arrow:
    """A file for each batch, mapped into memory, and an index of where each example stands."""

    def __init__(self, folder: Path):
        self.folder, self.index = folder, dict[bytes, tuple[int, int]]()
        self.files: list[pa.Array] = []
        self.schema = pa.schema([("example", pa.binary()), ("value", pa.binary())])

    def write(self, rows: Rows) -> None:
        path = self.folder / f"{len(self.files)}.arrow"
        keys, values = zip(*rows, strict=True)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, self.schema) as writer:
            writer.write(pa.record_batch([pa.array(keys), pa.array(values)], schema=self.schema))
        self.index |= {key: (len(self.files), i) for i, key in enumerate(keys)}
        self.files.append(pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column(1))

    def read(self, keys: Sequence[bytes]) -> list[np.ndarray]:
        places = (self.index[key] for key in keys)
        return [np.frombuffer(self.files[n][i].as_buffer(), np.float32).copy() for n, i in places]


FORMATS: dict[str, Callable[[Path], Sqlite | Lmdb | Arrow]] = {
    "sqlite": Sqlite,
    "lmdb, each commit synced": Lmdb,
    "lmdb, synced by the system": lambda folder: Lmdb(folder, sync=False),
    "arrow files": Arrow,
}


def values(kind: str, seed: int) -> list[tuple[bytes, bytes]]:
    draw = random.Random(seed)
    sizes = [3 if kind == "scores" else draw.randint(8, 64) * 768 for _ in range(BATCH * BATCHES)]
    return [(draw.randbytes(16), np.full(size, n, np.float32).tobytes()) for n, size in enumerate(sizes)]


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def main(folder: Path) -> None:
    for kind in ("scores", "hidden states"):
        written, read = ({name: list[float]() for name in FORMATS} for _ in range(2))
        for round in range(ROUNDS):
            rows = values(kind, round)
            batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
            order = random.Random(round).sample([key for key, _ in rows], len(rows))
            for name, make in FORMATS.items():
                place = folder / name
                place.mkdir()
                store = make(place)
                written[name].append(seconds(lambda: [store.write(batch) for batch in batches]))  # noqa: B023
                wanted = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
                read[name].append(seconds(lambda: [store.read(keys) for keys in wanted]))  # noqa: B023
                for key, value in rows[:: BATCH * 8]:
                    assert store.read([key])[0].tobytes() == value
                shutil.rmtree(place)
        print(f"\n{kind}: batches of {BATCH}, {BATCHES} of them, median of {ROUNDS} rounds")
        print(f"  {'':28} write  read (times as fast as sqlite)")
        for name in FORMATS:
            faster = [statistics.median(x["sqlite"]) / statistics.median(x[name]) for x in (written, read)]
            print(f"  {name:28} {faster[0]:5.2f} {faster[1]:5.2f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        main(Path(folder))
