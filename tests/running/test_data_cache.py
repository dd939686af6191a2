"""What runs share of their data: encodings are made once, and read by later runs of this spec and of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow
import pytest

import brewgraph as bg
from brewgraph.data.encoding import kept
from brewgraph.training.reporter import Reporter
from tests.small import metrics, project, write_data


@pytest.fixture
def tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each chunk that is tokenised for a file of encodings, in an empty cache of `datasets`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    sizes, chunks_of = list[int](), kept.encoded_chunks

    def counted(*arguments: object, **named: object) -> Iterator[pyarrow.Table]:
        for table in chunks_of(*arguments, **named):  # type: ignore[arg-type]
            sizes.append(len(table))
            yield table

    monkeypatch.setattr(kept, "encoded_chunks", counted)
    return sizes


def test_a_second_run_tokenises_nothing(tmp_path: Path, tokenised: list[int]) -> None:
    """One encoding of each split serves training, the closing table, the next run and a spec with other names; new
    rows, and another length, are encoded.
    """
    spec = project(tmp_path, train="steps = 3")
    first = bg.run(spec)
    assert sorted(tokenised) == [9, 20]
    again = bg.run(spec, out=tmp_path / "again")
    assert again.fresh
    assert sorted(tokenised) == [9, 20]
    assert metrics(again.folder) == metrics(first.folder)
    other = tmp_path / "other.brew"
    other.write_text(spec.read_text().replace("tiny", "small").replace('hf("small")', 'hf("tiny")').replace("d.", "x."))
    other.write_text(other.read_text().replace("data d", "data x").replace("batch=4", "batch=5"))
    assert bg.run(other).fresh
    assert sorted(tokenised) == [9, 20]
    spec.write_text(spec.read_text().replace("max_length=32", "max_length=8"))
    bg.run(spec)
    assert sorted(tokenised) == [9, 9, 20, 20]
    write_data(tmp_path, train=21)
    bg.run(spec)
    assert sorted(tokenised) == [9, 9, 9, 20, 20, 21]


def test_a_run_whose_encodings_cannot_be_kept_says_so(tmp_path: Path, tokenised: list[int]) -> None:
    """The cache is a file: a warning for each split, and the same run as with it."""
    spec = project(tmp_path, train="steps = 3")
    expected = metrics(bg.run(spec, out=tmp_path / "with").folder)

    class Lines(Reporter):
        def say(self, text: str) -> None:
            lines.append(text)

    lines = list[str]()
    datasets.config.HF_DATASETS_CACHE = tmp_path / "train.jsonl"
    result = bg.run(spec, out=tmp_path / "without", reporter=Lines())
    assert metrics(result.folder) == expected
    warnings = [line for line in lines if line.startswith("warning: encodings cannot be kept in ")]
    assert len(warnings) == 2
    assert "train.jsonl/brewgraph" in warnings[0]
