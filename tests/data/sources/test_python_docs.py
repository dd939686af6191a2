"""Built-in text: the standard library's docstrings."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from brewgraph.data.sources import python_docs as module
from brewgraph.data.sources.examples import open_examples
from brewgraph.data.sources.python_docs import LABELS, Paragraph, python_docs
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Builtin

Splits = Mapping[str, tuple[Paragraph, ...]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    """What this machine's Python has, read once."""
    return python_docs()


def test_sizes(splits: Splits) -> None:
    """Some 6,500 paragraphs, a good fifth of them for evaluation, all of 20 characters or more on one line."""
    assert list(splits) == ["train", "dev"]
    rows, dev = sum(map(len, splits.values())), len(splits["dev"])
    assert 5000 < rows < 9000
    assert 0.18 < dev / rows < 0.24
    for paragraph in (*splits["train"], *splits["dev"]):
        assert len(paragraph.text) >= 20
        assert paragraph.text == " ".join(paragraph.text.split())


def test_every_class_is_in_both_splits(splits: Splits) -> None:
    """And has enough of both to learn from and to be measured by."""
    assert len(LABELS) == 28
    assert sorted(LABELS) == list(LABELS)
    for name, fewest in [("train", 50), ("dev", 10)]:
        counts = Counter(paragraph.label for paragraph in splits[name])
        assert set(counts) == set(LABELS)
        assert min(counts.values()) >= fewest


def test_nothing_is_in_both_splits(splits: Splits) -> None:
    """Neither a text, nor a top-level class or function; nor does any text come twice."""
    texts = [paragraph.text.casefold() for paragraphs in splits.values() for paragraph in paragraphs]
    assert len(set(texts)) == len(texts)
    train, dev = ({paragraph.unit for paragraph in splits[name]} for name in ("train", "dev"))
    assert train.isdisjoint(dev)
    assert len(dev) > 100


def test_units_are_top_level_names(splits: Splits) -> None:
    """A method belongs to its class; a module's own docstring has no name; tests are left out."""
    units = {paragraph.unit: paragraph.label for paragraphs in splits.values() for paragraph in paragraphs}
    assert units["logging.__init__", "Handler"] == "logging"
    assert units["logging.__init__", ""] == "logging"
    assert ("logging.__init__", "emit") not in units
    assert not any({"test", "tests"} & set(module.split(".")) for module, _ in units)


def test_another_process_reads_the_same(splits: Splits) -> None:
    """The rows depend on the sources alone: not on the process, nor on the seed of its hashes."""
    code = (
        "import hashlib; from brewgraph.data.sources.python_docs import python_docs; "
        "print(hashlib.sha256(repr(python_docs()).encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(repr(splits).encode()).hexdigest()


def test_as_examples(splits: Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`builtin("python-docs")` in a spec: the same columns as every other source."""
    monkeypatch.setattr(module, "python_docs", lambda: splits)
    found = open_examples(Builtin(name="python-docs"), tmp_path)
    assert found.classes == LABELS
    train = found.splits["train"]
    assert train.column_names == ["text_0", "label", "index"]
    assert train["text_0"][:] == [paragraph.text for paragraph in splits["train"]]
    assert [LABELS[label] for label in train["label"][:]] == [paragraph.label for paragraph in splits["train"]]
    assert found.splits["dev"]["index"][:] == list(range(len(splits["dev"])))
    assert found.fingerprint == open_examples(Builtin(name="python-docs"), tmp_path).fingerprint


def small_library(folder: Path) -> Path:
    """A standard library with just enough text in every class, but for two that share one."""
    for label in LABELS:
        name = {"decimal": "_pydecimal"}.get(label, label)
        functions = "".join(f"def f{n}():\n    '''What {label} does in case number {n}.'''\n" for n in range(50))
        (folder / f"{name}.py").write_text(f"'''All about the module {label}.'''\n{functions}", encoding="utf-8")
    return folder


def test_repeated_text(tmp_path: Path) -> None:
    """What two classes say goes, however it is spelt; what one says twice is kept once; short and wordless go."""
    small_library(tmp_path)
    shared, twice, lines = "Return a copy of the thing.", "Close the connection for good.", "-" * 30
    for label, text in [("email", shared), ("http", "return a COPY of\n    the `thing`")]:
        with (tmp_path / f"{label}.py").open("a") as source:
            source.write(f"def shared():\n    '''{text}'''\n")
    with (tmp_path / "http.py").open("a") as source:
        source.write(f"class A:\n    '''{twice}\n\n    {lines}\n\n    Short.'''\nclass B:\n    '''{twice}'''\n")
    found = python_docs(tmp_path)
    texts = [paragraph.text for paragraphs in found.values() for paragraph in paragraphs]
    assert [text for text in texts if "copy" in text.lower()] == []
    assert [paragraph.unit for rows in found.values() for paragraph in rows if paragraph.text == twice] == [
        ("http", "A")
    ]
    assert lines not in texts
    assert "Short." not in texts
    assert len(texts) == 28 * 51 + 1


def test_too_little_text(tmp_path: Path) -> None:
    """B406 says where it looked, what was missing, and what else to use."""
    small_library(tmp_path)
    (tmp_path / "asyncio.py").write_text("this is no Python")
    (tmp_path / "xml.py").unlink()
    with pytest.raises(SourceFault) as caught:
        python_docs(tmp_path)
    assert (caught.value.code, caught.value.field) == ("B406", "name")
    assert caught.value.message == (
        f"too few docstrings in the standard library at {tmp_path}: "
        "`asyncio` has 0 paragraphs, `xml` has 0 paragraphs, 40 are needed"
    )
    assert "`files(train=...)`" in caught.value.help
    with pytest.raises(SourceFault, match="`decimal` has 0 paragraphs|and 24 more, 40 are needed"):
        python_docs(tmp_path / "python311.zip")
