"""Where the specs of these tests live: a folder with data, tokenizers and another spec, and tiny models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

from brewgraph.checking.check import Checked, check
from brewgraph.data.encoding.encode import train_wordpiece
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.source import Source

TINY = 'model_type="bert", num_attention_heads=2, intermediate_size=8, vocab_size=60, max_position_embeddings=32'
HEAD = f"""\
teacher big  = hf({TINY}, hidden_size=16, num_hidden_layers=3)
student tiny = hf({TINY}, hidden_size=8, num_hidden_layers=2)
data d       = files(train="train.jsonl", batch=4, max_length=16)
"""
LOSS = "loss = ce(d.labels -> tiny.logits)\n"


def make_world(folder: Path) -> Path:
    """Fill a folder with what the specs name."""
    rows = [{"text": f"word {i} stands here", "label": "yn"[i % 2], "number": i % 2} for i in range(8)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "holes.jsonl").write_text("".join(json.dumps(row | {"label": None}) + "\n" for row in rows))
    (folder / "strange.jsonl").write_text("".join(json.dumps(row | {"label": "yes"}) + "\n" for row in rows))
    (folder / "tags.txt").write_text("word N\nhere O\n\nword N\nthere O\n\n" * 4)
    (folder / "twice.csv").write_text("text,label,label\na,n,1\nb,y,2\n")
    (folder / "open.csv").write_text('text,label\na,n\n"b,y\nc,n\n')
    (folder / "tabs.tsv").write_text('text\tlabel\na\tn\n"b\tc"\ty\n')
    (folder / "grades.csv").write_text("text,label\na,2.50\nb,3.00\nc,2.50\n")
    (folder / "zeros.csv").write_text("text,label\na,01\nb,1\nc,2\n")
    (folder / "stars.csv").write_text("text,label\n" + "".join(f"word {n},{n}\n" for n in range(1, 6)))
    for name, labels in (("same", "yy"), ("spaces", ["y", "n", "y "])):
        lines = (
            json.dumps({"text": f"word {n}", "label": label, "number": 3, "sparse": 7 + 93 * (n % 2)}) + "\n"
            for n, label in enumerate(labels)
        )
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "cases.txt").write_text("word N\nhere O\n\nword n\nthere O\n\n" * 4)
    (folder / "odd.xyz").write_text("no format")
    (folder / "teacher.brew").write_text(HEAD + LOSS)
    (folder / "around.brew").write_text(HEAD + 'teacher again = brew("around.brew")\n' + LOSS)
    for name, words in (("one", "all these words are here"), ("two", "others stand in this one")):
        train_wordpiece([words] * 3, 40).save_pretrained(folder / name)
    (folder / "empty").mkdir()
    return folder


def add_model(folder: Path) -> None:
    """Save a tiny classifier as `saved`, in the folder of a run and in one of checkpoints; its classes are the data's."""
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=60,
        max_position_embeddings=32, id2label={0: "n", 1: "y"}, label2id={"n": 0, "y": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder / "saved")
    for file in (folder / "one").iterdir():
        (folder / "saved" / file.name).write_bytes(file.read_bytes())
    for name in ("runs/one/student", "out/step-5"):
        shutil.copytree(folder / "saved", folder / name)
    (folder / "runs" / "one" / "resolved.json").write_text("{}")


def find(text: str, folder: Path) -> list[Diagnostic]:
    """Every error of a spec that stands in this folder, by the whole check; empty where it is sound."""
    try:
        whole(text, folder)
    except SpecError as error:
        return [d for d in error.diagnostics if d.severity == "error"]
    return []


def whole(text: str, folder: Path) -> Checked:
    """The spec, checked against its models and data."""
    path = folder / "spec.brew"
    path.write_text(text)
    return check(Source.read(path))
