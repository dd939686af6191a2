"""New specs: for every kind of labels a sound one, from what the teacher and the data hold; faults leave nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
)

import brewgraph as bg
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.starters.start import Started, Wishes, start
from tests.small import LABELS, WORDS, rows, save, tokenizer, write_rows

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
CLASSES = {
    "features": AutoModel,
    "tags": AutoModelForTokenClassification,
    "spans": AutoModelForQuestionAnswering,
    "masked": AutoModelForMaskedLM,
    "next": AutoModelForCausalLM,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with facts of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREWGRAPH_FACTS", "off")
    return tmp_path


def model(folder: str, kind: str, *, layers: int = 4, width: int = 32, labels: Sequence[str] = TAGS) -> str:
    """A random model with a head for these labels, and its tokenizer, in a folder."""
    architecture = "gpt2" if kind == "next" else "bert"
    sizes: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2}
    sizes |= {"n_positions" if kind == "next" else "max_position_embeddings": 40, "vocab_size": 120, "pad_token_id": 0}
    sizes |= {"bos_token_id": 2, "eos_token_id": 3} if kind == "next" else {"intermediate_size": 24}
    config = AutoConfig.for_model(architecture, **sizes)
    if kind == "tags":
        config.id2label, config.label2id = dict(enumerate(labels)), {label: n for n, label in enumerate(labels)}
    CLASSES[kind].from_config(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def table(path: str, content: Sequence[dict[str, Any]]) -> str:
    """Rows as csv."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return path


def reviews(count: int = 60) -> list[dict[str, Any]]:
    """Rows with a number, a text and a class, under names of their own."""
    return [{"id": n, "review": row["text"], "sentiment": row["label"]} for n, row in enumerate(rows(count))]


def sentences(path: str, count: int = 30) -> str:
    """Words with tags."""
    lines = [
        [f"{WORDS[(n + k) % len(WORDS)]}\t{TAGS[(n + k) % 2 * (1 + n % 2 * 2)]}" for k in range(5)]
        for n in range(count)
    ]
    Path(path).write_text("\n\n".join("\n".join(sentence) for sentence in lines) + "\n")
    return path


def questions(path: str, count: int = 20) -> str:
    """Questions in the form of SQuAD, one per text."""
    paragraphs = []
    for n in range(count):
        words = [WORDS[(n + k) % len(WORDS)] for k in range(8)] + [str(n)]
        context, answer = " ".join(words), words[2]
        asked = {"id": str(n), "question": "what", "answers": [{"text": answer, "answer_start": context.index(answer)}]}
        paragraphs.append({"context": context, "qas": [asked]})
    Path(path).write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return path


def made(path: str = "new", **wishes: Any) -> tuple[Started, str]:
    """What is started, and the text of its spec, which is formatted and sound."""
    started = start(Wishes(**wishes), Path(path))
    text = started.spec.read_text()
    assert bg.format_text(text) == text
    assert max(map(len, text.splitlines())) <= 120
    assert started.warnings == ()
    return started, text


def statement(text: str, name: str) -> str:
    """What follows a name's sign, in one line."""
    lines = text.split(f"\n{name}", 1)[1].split("\n\n")[0].split("\n")
    joined = lines[0]
    for line in lines[1:]:
        if not line.startswith("    "):
            break
        joined += " " + line.strip()
    return joined.partition("=")[2].strip()


def test_classes_in_a_csv() -> None:
    """Columns are found, a tenth is held out, the student is half of the teacher, and everything guessed is said."""
    save(Path("bert"), width=32, layers=4)
    started, text = made(teacher="bert", data=table("reviews.csv", reviews()))
    assert [str(x) for x in started.files] == ["new/student.brew", "new/train.csv", "new/dev.csv"]
    assert statement(text, "teacher big") == 'hf("../bert")'
    sizes = "pretrained=false, num_hidden_layers=2, init=big.layers[0, 3]"
    assert statement(text, "student small") == f'hf("../bert", {sizes})'
    said = 'train="train.csv", dev="dev.csv", text=review, label=sentiment, batch=32, max_length=16'
    assert statement(text, "data texts") == f"files({said})"
    assert "let map = [2, 4] -> [1, 2]" in text
    assert statement(text, "hidden") == "mse(big.hidden[map] -> small.hidden[map])"
    assert statement(text, "loss") == "0.7 * soft + 0.3 * hard + mean(hidden)"
    assert started.notes == (
        "takes `sentiment` for the label: --label names another, --label none says that there is none",
        "takes `review` for the text: --text names one column, or two as `--text first,second`",
        "the student has 2 of 4 layers: --layers says how many, --student names another model",
        "holds out 6 of 60 training rows for dev: --dev names a file of its own",
    )
    with open("new/dev.csv", newline="") as dev, open("new/train.csv", newline="") as train:
        held, left = list(csv.DictReader(dev)), list(csv.DictReader(train))
    assert len(held) == 6
    assert {x["review"] for x in held}.isdisjoint(x["review"] for x in left)
    assert {x["sentiment"] for x in left} == set(LABELS)
    everything = sorted(held + left, key=lambda row: int(row["id"]))
    assert everything == [{key: str(value) for key, value in row.items()} for row in reviews()]
