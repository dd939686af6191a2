"""A finished run of a tiny student for each kind of labels, one made of the other's sizes."""

from __future__ import annotations

import json
from pathlib import Path

import brewgraph as bg
from brewgraph.recipe.label_types import LABEL_TYPES
from tests.running.test_answers import KINDS as ANSWERED
from tests.running.test_answers import write as write_questions
from tests.running.test_tags import write as write_tags
from tests.small import WORDS, rows, write_rows

BERT = """hf(model_type="bert", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=40, initializer_range=0.3{})"""
GPT2 = """hf(model_type="gpt2", n_embd=16, n_layer=2, n_head=2, n_positions=40, initializer_range=0.3{})"""

TABLE = 'files(train="train.jsonl", dev="dev.jsonl", batch=8, max_length=16{})'
TEXT = 'text(train="train.txt", dev="dev.txt", batch=4, max_length=16{})'
# the student's and the data's source, and the loss
SPECS: dict[str, tuple[str, str, str]] = {
    "class": (BERT.format(""), TABLE.format(""), "ce(d.labels -> s.logits)"),
    "classes": (BERT.format(""), TABLE.format(', problem_type="multi_label"'), "bce(d.labels -> s.logits)"),
    "value": (BERT.format(""), TABLE.format(', problem_type="regression"'), "mse(d.labels -> s.logits)"),
    "tags": (
        BERT.format(""),
        'conll(train="train.conll", dev="dev.conll", batch=8, max_length=16)',
        "ce(d.labels -> s.logits)",
    ),
    "spans": (
        BERT.format(""),
        'squad(train="train.json", dev="dev.json", batch=16, max_length=20, stride=6)',
        "ce(d.start -> s.start) + ce(d.end -> s.end)",
    ),
    "masked": (BERT.format(""), TEXT.format(", mask=15%"), "ce(d.labels -> s.logits)"),
    "next": (GPT2.format(""), TEXT.format(""), "ce(d.labels -> s.logits)"),
    "": (
        BERT.format(', task="features"'),
        TABLE.format(", label=none"),
        "mse(t.hidden[-1] -> s.hidden[-1])",
    ),
}
assert {LABEL_TYPES[kind].form for kind in SPECS} == {x.form for x in LABEL_TYPES.values()}


def write_data(folder: Path, kind: str) -> None:
    """`train` and `dev` of a kind of labels."""
    if kind in ("class", "classes", "value", ""):
        for name, count, seed in (("train", 24, 0), ("dev", 12, 1)):
            content = [dict(row) for row in rows(count, seed)]
            for row in content:
                words = str(row["text"]).split()
                if kind == "classes":
                    row["label"] = [name for name in ("tale", "best", "it") if name in words]  # type: ignore[assignment]
                elif kind == "value":
                    row["label"] = len(words) / 4  # type: ignore[assignment]
            write_rows(folder / f"{name}.jsonl", content)
    elif kind == "tags":
        write_tags(folder / "train.conll", [5, 9, 12, 3] * 4, "BI")
        write_tags(folder / "dev.conll", [4, 8, 30, 2], "BI", seed=1)
    elif kind == "spans":
        write_questions(folder / "train.json", ANSWERED[:24])
        write_questions(folder / "dev.json", ANSWERED[24:])
    else:
        for name, start in (("train", 0), ("dev", 3)):
            (folder / f"{name}.txt").write_text("".join(" ".join(WORDS[i : i + 9]) + "\n" for i in range(start, 12)))


def write_spec(folder: Path, kind: str, student: str | None = None, train: str = "steps = 3") -> Path:
    """Data and a spec whose student has labels of a kind."""
    write_data(folder, kind)
    own, data, loss = SPECS[kind]
    teacher = f"teacher t = {BERT.format(', task=' + chr(34) + 'features' + chr(34))}\n" if kind == "" else ""
    spec = folder / "spec.brew"
    spec.write_text(
        f"brew 1\n{teacher}student s = {student or own}\ndata d = {data}\nloss = {loss}\n"
        f"train {{ {train}; optimizer = adamw(lr=1e-2) }}\n"
    )
    return spec


def finished(folder: Path, kind: str, **settings: str) -> Path:
    """The folder of a finished run."""
    return bg.run(write_spec(folder, kind, **settings)).folder


def record(folder: Path) -> dict:
    return json.loads((folder / "export.json").read_text())
