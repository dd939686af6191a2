"""Files of data that nobody should have to read: the table of `tests.faults_at_run`, and the limits of other readers."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from brewgraph.data.sources.examples import open_examples
from brewgraph.data.sources.rows import _decoded_size
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.base import Settings
from brewgraph.recipe.settings.data_sources import Conll, Files, Text
from tests.faults_at_run.table import DATA_FAULTS, DataFault

pytestmark = pytest.mark.timeout(60)  # a reader that waits for a pipe is at fault


@pytest.mark.parametrize("fault", DATA_FAULTS, ids=str)
def test_a_file_of_the_table(fault: DataFault, tmp_path: Path) -> None:
    """One line names the file, and the remedy is another; a fault of a whole file names its argument."""
    fault.write(tmp_path / fault.name)
    if os.access(tmp_path / fault.name, os.R_OK) and "may not read" in fault.what:
        pytest.skip("root may read everything; the slow test gives that up")
    with pytest.raises(SourceFault) as caught:
        open_examples(Files(train=fault.name), tmp_path)
    assert fault.said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.help


@pytest.mark.parametrize(
    ("source", "content", "said"),
    [
        (
            Text(train="x", mask=0.15),
            "words\n" + "word " * 4_000_000,
            "line 2 of `x` is longer than 16,777,216 characters",
        ),
        (
            Conll(train="x"),
            "a O\n" + "b" * 20_000_000 + " O\n",
            "line 2 of `x` has a word of more than 16,777,216 characters",
        ),
        (Conll(train="x"), "a O\nb B-" + "x" * 5_000 + "\n", "line 2 of `x` has a tag of 5,002 characters"),
        (
            Files(train="x.csv", problem_type="regression"),
            "text,label\na,1.5\nb,1e39\n",
            "the label in row 2 of `x.csv` is '1e39', and no finite number of 32 bits",
        ),
        (Files(train="x.csv"), ",".join(f"c{n}" for n in range(20_000)), "`x.csv` has more than 10,000 columns"),
        (Files(train="x.tsv"), "text\tlabel\na\0b\tx\n", "line 2 of `x.tsv` has a null byte"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_limits_of_other_readers(source: Settings, content: str, said: str, tmp_path: Path) -> None:
    """The place is named."""
    (tmp_path / source.train).write_text(content)
    with pytest.raises(SourceFault) as caught:
        open_examples(source, tmp_path)
    assert said in caught.value.message


def test_the_bytes_of_a_parquet_file(tmp_path: Path) -> None:
    """Values as often as they occur, also within lists and structs; counting ends above the limit."""
    numbers = pyarrow.array([0, 1] * 10, pyarrow.int32())
    often = pyarrow.DictionaryArray.from_arrays(numbers, pyarrow.array(["long " * 1000, "short"]))
    nested = pyarrow.array([[{"a": "long " * 1000}], [], [], []] * 5)
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"often": often, "nested": nested, "n": list(range(20))})
    parquet.write_table(table, path, store_schema=False)
    content = parquet.read_metadata(path)
    stored = sum(content.row_group(0).column(n).total_uncompressed_size for n in range(3))
    texts = 10 * 5000 + 10 * 5 + 5 * 5000
    assert _decoded_size(path, content, 95_000) == stored + texts + 20 + 20 + 20 * 8
    assert _decoded_size(path, content, 100) > 100


def test_what_looks_hostile_and_is_not(tmp_path: Path) -> None:
    """A byte order mark, line ends of several kinds, a field longer than Python's csv reads, a null as JSON writes it."""
    long = "tale " * 50_000
    (tmp_path / "a.csv").write_bytes(f"\ufefftext,label\r\na,x\nb,y\r\n{long},x\n".encode())
    (tmp_path / "a.jsonl").write_bytes(
        '\ufeff{"text": "a\\u0000b", "label": "x"}\r\n{"text": "c", "label": "y"}\n'.encode()
    )
    rows = open_examples(Files(train="a.csv"), tmp_path).splits["train"]
    assert rows["text_0"][:] == ["a", "b", long]
    assert open_examples(Files(train="a.jsonl"), tmp_path).splits["train"]["text_0"][:] == ["a\0b", "c"]
