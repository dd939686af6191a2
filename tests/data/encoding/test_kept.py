"""Encodings that are kept between runs: what is read, when they are made anew, and what happens where they cannot be."""

from __future__ import annotations

import errno
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

from brewgraph.data.encoding import kept
from brewgraph.data.encoding.encode import Encoding, encode, train_wordpiece
from brewgraph.data.encoding.kept import encode_kept
from brewgraph.data.sources.examples import Examples, open_examples
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.augmentations import Deleting
from brewgraph.recipe.settings.data_sources import Conll, DataSource, Files, Squad, Text
from tests.data.texts import byte_level

TEXTS = ["The cat sat on the mat.", "A dog sat, too!", "Unbelievable cats believe in mats", "dogs and cats", "", "a"]
PAIRS = [{"a": text, "b": TEXTS[-number], "label": "yn"[number % 2]} for number, text in enumerate(TEXTS)]
CONLL = "The O\ncat B-X\n\n" + "a O\ndog O\nsat O\non O\nthe O\nmat O\n" * 2
CONTEXT = " ".join(TEXTS)
QUESTIONS = [
    {"id": f"{n}", "question": "Who sat?", "context": CONTEXT, "answers": {"text": [word], "answer_start": [at]}}
    for n, word in enumerate(("cat", "dogs"))
    for at in [CONTEXT.index(word)]
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of `datasets` for one test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "brewgraph"


@pytest.fixture(scope="module")
def wordpiece() -> PreTrainedTokenizerFast:
    """A small vocabulary."""
    return train_wordpiece(TEXTS, 60)


def pairs(folder: Path, rows: Sequence[dict[str, str]] = PAIRS, **settings: object) -> tuple[Files, Examples]:
    """A table of pairs and its examples."""
    path, content = folder / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows)
    if not path.exists() or path.read_text() != content:  # other processes may be reading it
        path.write_text(content)
    source = Files(train="pairs.jsonl", text=("a", "b"), label="label", **settings)
    return source, open_examples(source, folder)


class Kept:
    """Calls of `encode_kept`, with the chunks that they tokenised and their warnings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chunks, self.said = 0, list[str]()

        def counted(*arguments: object, **named: object) -> object:
            for table in encoded_chunks(*arguments, **named):  # type: ignore[arg-type]
                self.chunks += 1
                yield table

        encoded_chunks = kept.encoded_chunks
        monkeypatch.setattr(kept, "encoded_chunks", counted)

    def __call__(
        self,
        examples: Examples,
        encodings: Sequence[Encoding],
        source: DataSource,
        *,
        tokenizers: Sequence[str] = ("one", "other"),
        words: bool = False,
        whole: bool = False,
    ) -> datasets.Dataset:
        rows = examples.splits["train"]
        prints, said = tokenizers[: len(encodings)], self.said.append
        content = examples.fingerprint
        return encode_kept(rows, encodings, content, prints, source=source, words=words, whole=whole, say=said)


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """`encode_kept`, counted."""
    return Kept(monkeypatch)


def same(one: datasets.Dataset, other: datasets.Dataset) -> bool:
    """Whether two data sets have the same columns, types and rows."""
    columns = sorted(one.column_names)
    one, other = one.select_columns(columns), other.select_columns(columns)
    return columns == sorted(other.column_names) and one.features == other.features and one[:] == other[:]


@pytest.mark.parametrize("kind", ["pairs", "augmented", "sentences", "cut sentences", "questions", "blocks"])
def test_what_is_read_is_what_was_encoded(kind: str, tmp_path: Path, wordpiece: PreTrainedTokenizerFast, keep: Kept):
    """Rows of every kind are those of `encode`, made once, whatever the models are called the next time."""
    bytes_ = byte_level(TEXTS, mask=True)
    length, source, words = 12, None, False
    if kind in ("pairs", "augmented"):
        source, examples = pairs(tmp_path, augment=(Deleting(p=0.5),) if kind == "augmented" else ())
        words = kind == "pairs"
    elif kind in ("sentences", "cut sentences"):
        (tmp_path / "a.conll").write_text(CONLL)
        source, length = Conll(train="a.conll"), 9
    elif kind == "questions":
        rows = [{"title": "", "paragraphs": [{"context": x["context"], "qas": [_asked(x)]}]} for x in QUESTIONS]
        (tmp_path / "q.json").write_text(json.dumps({"version": "1", "data": rows}))
        source, length = Squad(train="q.json", stride=4), 24
    else:
        (tmp_path / "a.txt").write_text("\n".join(TEXTS * 3))
        source, words = Text(train="a.txt", mask=0.15), True
    examples = open_examples(source, tmp_path)
    whole = kind == "cut sentences"
    for big, small in (("big", "small"), ("t", "s")):
        encodings = [Encoding(big, wordpiece, length), Encoding(small, bytes_, length + 4)]
        rows = encode(examples.splits["train"], encodings, source=source, words=words, whole=whole)
        made = keep(examples, encodings, source, words=words, whole=whole)
        assert same(made, rows)
        assert made.cache_files
    independent = kind in ("pairs", "augmented", "sentences")
    assert keep.chunks == (2 if independent else 1)
    assert keep.said == []
    keep(examples, [Encoding("alone", wordpiece, length)], source, words=words, whole=whole)
    assert keep.chunks == 2  # of independent encodings, each is kept by itself


def _asked(row: dict) -> dict:
    answers = [{"text": row["answers"]["text"][0], "answer_start": row["answers"]["answer_start"][0]}]
    return {"id": row["id"], "question": row["question"], "answers": answers, "is_impossible": False}


def test_what_changes_the_tokens_gives_another_file(
    tmp_path: Path, wordpiece: PreTrainedTokenizerFast, keep: Kept, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Data, tokenizer, length, truncation side, words, view and the encoder are part of the key; paths are not."""
    source, examples = pairs(tmp_path)

    def made(
        of: Examples = examples, tokenizer: PreTrainedTokenizerFast = wordpiece, length: int = 12, **named: object
    ) -> int:
        """How many chunks a call tokenised."""
        before = keep.chunks
        keep(of, [Encoding("a", tokenizer, length)], named.pop("source", source), **named)  # type: ignore[arg-type]
        return keep.chunks - before

    assert [made(), made()] == [1, 0]
    assert made(pairs(tmp_path, PAIRS[1:])[1]) == 1
    assert made(tokenizers=["another"]) == 1
    assert made(length=8) == 1
    assert made(words=True) == 1
    left = train_wordpiece(TEXTS, 60)
    left.truncation_side = "left"
    assert made(tokenizer=left) == 1
    assert made(source=source.model_copy(update={"augment": (Deleting(p=0.1),)})) == 1
    assert made(source=source.model_copy(update={"train": "elsewhere.jsonl", "batch": 7})) == 0
    monkeypatch.setattr(kept, "_versions", lambda: "another encoder")
    assert made() == 1
    assert len(list(folder.glob("*.arrow"))) == 8
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("damage", ["cut short", "empty", "a changed byte", "no table", "half-written"])
def test_a_damaged_file_is_made_anew(
    damage: str, tmp_path: Path, wordpiece: PreTrainedTokenizerFast, keep: Kept, folder: Path
):
    """Whatever happened to a file: the rows are right, and the file is, too, after it."""
    source, examples = pairs(tmp_path)
    rows = encode(examples.splits["train"], [Encoding("a", wordpiece, 12)], source=source)
    keep(examples, [Encoding("a", wordpiece, 12)], source)
    (file,) = folder.glob("*.arrow")
    content = bytearray(file.read_bytes())
    if damage == "a changed byte":
        content[len(content) // 2] ^= 1
    elif damage == "half-written":
        file.with_suffix(".part").write_bytes(content[:300])
    content = {"cut short": content[:-20], "empty": b"", "no table": b"nothing " * 9}.get(damage, content)
    if damage == "half-written":
        file.unlink()  # the process died before the file got its name
    else:
        file.write_bytes(content)
    for chunks in (2, 2):
        assert same(keep(examples, [Encoding("a", wordpiece, 12)], source), rows)
        assert keep.chunks == chunks
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("obstacle", ["no folder", "a full disk"])
def test_without_a_place_encodings_are_in_memory(
    obstacle: str,
    tmp_path: Path,
    wordpiece: PreTrainedTokenizerFast,
    keep: Kept,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """A folder that cannot be made, or a disk that is full, costs a warning that names the folder, and nothing else."""
    source, examples = pairs(tmp_path)
    if obstacle == "no folder":
        folder.parent.write_text("a file")
    else:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("pyarrow.ipc.new_stream", full)
    rows = encode(examples.splits["train"], [Encoding("a", wordpiece, 12)], source=source)
    made = keep(examples, [Encoding("a", wordpiece, 12)], source)
    assert same(made, rows)
    assert not made.cache_files
    (said,) = keep.said
    assert said.startswith(f"warning: encodings cannot be kept in {folder}: ")
    assert "HF_DATASETS_CACHE" in said
    assert obstacle == "no folder" or not list(folder.glob("*.p*"))


def test_no_cache_where_datasets_keeps_none(
    tmp_path: Path, wordpiece: PreTrainedTokenizerFast, keep: Kept, folder: Path
):
    """`datasets.disable_caching()` holds for encodings, too."""
    source, examples = pairs(tmp_path)
    datasets.disable_caching()
    try:
        keep(examples, [Encoding("a", wordpiece, 12)], source)
    finally:
        datasets.enable_caching()
    assert not folder.exists()


def test_a_fault_leaves_no_file(tmp_path: Path, wordpiece: PreTrainedTokenizerFast, keep: Kept, folder: Path):
    """A length without room for text is a fault of the source each time."""
    source, examples = pairs(tmp_path)
    for _ in range(2):
        with pytest.raises(SourceFault, match="max_length = 3 leaves no room"):
            keep(examples, [Encoding("a", wordpiece, 3)], source)
    assert not [*folder.glob("*.arrow"), *folder.glob("*.part")]


def _encode_in_process(folder: str, results: multiprocessing.Queue) -> None:
    datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
    source, examples = pairs(Path(folder))
    before, chunks = kept.encoded_chunks, list[int]()

    def counted(*arguments: object, **named: object) -> object:
        for table in before(*arguments, **named):  # type: ignore[arg-type]
            chunks.append(len(table))
            yield table

    kept.encoded_chunks = counted  # type: ignore[assignment]
    encodings = [Encoding("a", train_wordpiece(TEXTS, 60), 12)]
    rows = encode_kept(
        examples.splits["train"],
        encodings,
        examples.fingerprint,
        ["one"],
        source=source,
        words=False,
        whole=False,
        say=print,
    )
    results.put((len(chunks), rows[:]))


@pytest.mark.slow
def test_of_several_processes_one_encodes(tmp_path: Path):
    """Ranks that begin at the same time wait for one of them, and all read the same rows."""
    pairs(tmp_path)
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue = context.Queue()
    processes = [context.Process(target=_encode_in_process, args=(str(tmp_path), results)) for _ in range(3)]
    for process in processes:
        process.start()
    made = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(chunks for chunks, _ in made) == [0, 0, 1]
    assert made[0][1] == made[1][1] == made[2][1]
