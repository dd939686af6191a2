"""The store of kept values: what goes in comes out, to whoever asks with the same tokens, and to nobody else."""

from __future__ import annotations

import pickle
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from brewgraph.diagnostics import RunError
from brewgraph.models.loading import put_in_order
from brewgraph.runtime.store import Store, example_digests, weights_digest

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]


def keys(*names: str) -> list[bytes]:
    """Digests as a store takes them."""
    return [name.encode() for name in names]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_goes_in_comes_out(tmp_path: Path, dtype: torch.dtype) -> None:
    """Bit for bit, in any precision and of any shape, in the order that is asked for."""
    values = [torch.randn(2, 3).to(dtype), torch.randn(1).to(dtype), torch.randn(0, 4).to(dtype)]
    store = Store(tmp_path / "a" / "b", "one")
    store.put(keys("x", "y", "z"), values)
    found = store.get(keys("z", "x", "x", "y"))
    assert found is not None
    for one, other in zip(found, [values[2], values[0], values[0], values[1]], strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other)
    assert (store.read, store.written, len(store)) == (4, 3, 3)


def test_one_that_is_missing(tmp_path: Path) -> None:
    """Then none is given, and nothing counts as read; one that is there already stays as it is."""
    store = Store(tmp_path, "one")
    store.put(keys("x"), [torch.ones(1)])
    assert store.get(keys("x", "y")) is None
    store.put(keys("x", "y"), [torch.zeros(1), torch.zeros(1)])
    found = store.get(keys("x", "y"))
    assert found is not None
    assert [float(x) for x in found] == [1, 0]
    assert (store.read, store.written) == (2, 2)


def test_another_identity_is_another_store(tmp_path: Path) -> None:
    """In the same folder; each finds its own when it is opened again, also after a copy in another process."""
    one, other = Store(tmp_path, "one"), Store(tmp_path, "other")
    one.put(keys("x"), [torch.ones(1)])
    assert other.get(keys("x")) is None
    one.close()
    assert Store(tmp_path, "one").get(keys("x")) is not None
    assert pickle.loads(pickle.dumps(one)).get(keys("x")) is not None


def test_more_rows_than_one_query_takes(tmp_path: Path) -> None:
    """Two thousand examples at once."""
    names = [f"{i}".encode() for i in range(2000)]
    store = Store(tmp_path, "one")
    store.put(names, [torch.tensor([i]) for i in range(2000)])
    found = store.get(names[::-1])
    assert found is not None
    assert [int(x) for x in found] == list(range(2000))[::-1]


def fill(folder: Path, first: int) -> int:
    """Write thirty rows one by one, of which half are the other writer's too."""
    store = Store(folder, "one")
    for i in range(first, first + 30):
        store.put([f"{i}".encode()], [torch.tensor([i])])
    return store.written


def test_two_writers(tmp_path: Path) -> None:
    """At the same time, each with a connection of its own: each row is written by one of them, and none is lost."""
    with ThreadPoolExecutor(2) as pool:
        written = list(pool.map(fill, [tmp_path, tmp_path], [0, 15]))
    assert sum(written) == 45 == len(Store(tmp_path, "one"))


FILL = """
import sys, time, torch
from pathlib import Path
from brewgraph.runtime.store import Store
store = Store(Path(sys.argv[1]), "one")
print("open", flush=True)
for i in range(10**6):
    store.put([f"{i}".encode()], [torch.full((i % 50, 64), float(i))])
"""


@pytest.mark.slow
def test_a_writer_that_is_killed(tmp_path: Path) -> None:
    """At twenty points in time: every row that was written is whole, they are the first ones, and the next goes on."""
    counts = []
    for attempt in range(20):
        with subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.01 * attempt)
            writer.kill()
        store = Store(tmp_path, "one")
        counts.append(len(store))
        values = store.get([f"{i}".encode() for i in range(counts[-1])])
        assert values is not None
        assert all(torch.equal(x, torch.full((i % 50, 64), float(i))) for i, x in enumerate(values))
        store.close()
    assert counts == sorted(counts)
    assert counts[-1] > 50


READ = """
import sys, torch
from pathlib import Path
from brewgraph.diagnostics import RunError
from brewgraph.runtime.store import Store
wrong = 0
for seed, kind in enumerate(["flipped"] * 60 + ["truncated"] * 20):
    folder = Path(sys.argv[1]) / str(seed)
    whole = bytearray((Path(sys.argv[1]) / "one.lmdb").read_bytes())
    draw = torch.Generator().manual_seed(seed)
    place = int(torch.randint(len(whole), (), generator=draw))
    if kind == "flipped":
        whole[place] ^= 1 << int(torch.randint(8, (), generator=draw))
    else:
        whole = whole[:place]
    folder.mkdir()
    (folder / "one.lmdb").write_bytes(whole)
    for i in range(200):
        try:
            found = Store(folder, "one").get([f"{i}".encode()])
        except RunError as error:
            assert "delete this one" in str(error)
            wrong += 1
        else:
            assert found is None or torch.equal(found[0], torch.full((i % 50, 8), float(i))), (seed, i)
print(wrong)
"""


@pytest.mark.slow
def test_a_damaged_file(tmp_path: Path) -> None:
    """One bit flipped, or the end cut off: an error with the remedy or a value that is missing, never a wrong one, and
    the process lives."""
    store = Store(tmp_path, "one")
    store.put([f"{i}".encode() for i in range(200)], [torch.full((i % 50, 8), float(i)) for i in range(200)])
    store.close()
    result = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 100


def test_a_folder_that_was_deleted(tmp_path: Path) -> None:
    """While it is open: the next value makes it anew."""
    store = Store(tmp_path / "a", "one")
    store.put(keys("x"), [torch.ones(1)])
    shutil.rmtree(tmp_path / "a")
    assert store.get(keys("x")) is None
    store.put(keys("x"), [torch.zeros(1)])
    assert store.get(keys("x")) == [torch.zeros(1)]
    assert len(Store(tmp_path / "a", "one")) == 1


def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    """As on a full disk: the error says why and what to do; rows before it stay."""
    store = Store(tmp_path, "one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        store.put(keys("x"), [torch.ones(1)])
        with pytest.raises(RunError, match=r"cannot be used: .*\. Name another folder"):
            store.put(keys("y"), [torch.ones(100_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.get(keys("x")) == [torch.ones(1)]
    assert store.get(keys("y")) is None
    store.put(keys("y"), [torch.ones(100_000)])
    assert len(store) == 2


def test_the_limit_of_a_folder(tmp_path: Path) -> None:
    """Values are written as long as they fit, the rest is computed each time; one that never fits is an error."""
    limit = 3_000_000
    one, other = Store(tmp_path, "one", limit), Store(tmp_path, "other", limit)
    values = [torch.full((100, 1000), float(i)) for i in range(10)]
    for i, x in enumerate(values):
        (kept,) = (one, other)[i % 2].put([f"{i}".encode()], [x])
        assert torch.equal(kept, x)
    assert (one.written + other.written, one.left_out + other.left_out) == (7, 3)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.lmdb")) <= limit
    with pytest.raises(RunError, match="one example of this value takes 401,408"):
        Store(tmp_path, "third", 300_000).put(keys("x"), values[:1])


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A file in its place, or one that is no database: the error names the folder and what to do."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="Name another folder"):
        Store(tmp_path / "file", "one")
    (tmp_path / "one.lmdb").write_text("no database, and long enough to be seen as none" * 100)
    with pytest.raises(RunError, match="delete this one"):
        Store(tmp_path, "one")


def test_the_digest_of_weights() -> None:
    """The same for a copy; another for one number, one buffer, one dtype that differs."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = weights_digest(model)
    copy = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    copy.load_state_dict(model.state_dict())
    assert weights_digest(copy) == before
    assert weights_digest(copy.half()) != before
    with torch.no_grad():
        model[1].running_mean[0] += 1
    assert weights_digest(model) != before


def test_classes_in_another_order_are_another_value() -> None:
    """The same weights whose logits were put in order give other logits than those whose classes are only called so."""

    def made(names: list[str]) -> nn.Module:
        config = BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9
        )
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
        torch.manual_seed(0)
        return BertForSequenceClassification(config)

    ordered, renamed = made(["no", "yes"]), made(["yes", "no"])
    put_in_order(ordered, [1, 0])
    assert ordered.config.id2label == renamed.config.id2label
    assert weights_digest(made(["yes", "no"])) == weights_digest(renamed) != weights_digest(ordered)


def test_the_digest_of_an_example() -> None:
    """Padding does not count, nor who else is in the batch; a token does, and so does which tensor it stands in."""

    def of(ids: list[list[int]], mask: list[list[int]], name: str = "input_ids") -> list[bytes]:
        real = torch.tensor(mask).bool()
        return example_digests([(name, torch.tensor(ids), real), ("weight", torch.ones(len(ids)), None)])

    one, other = of([[1, 2, 0], [1, 2, 3]], [[1, 1, 0], [1, 1, 1]])
    assert of([[1, 2, 9, 9]], [[1, 1, 0, 0]]) == [one]
    assert of([[0, 1, 2]], [[0, 1, 1]]) == [one]
    assert one != other
    assert of([[1, 4]], [[1, 1]])[0] != one
    assert of([[1, 2]], [[1, 1]], "decoder_input_ids")[0] != one
