"""The command in this process, and a spec with everything it needs in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from brewgraph.cli.main import application

TEACHER = """\
brew 1

student big = hf(model_type="bert", num_hidden_layers=2, hidden_size=32, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=32, vocab_size=200)
data rows   = files(train="train.jsonl", dev="dev.jsonl", batch=8, max_length=16)

loss = ce(rows.labels -> big.logits)

train { steps = 2 }
"""
STUDENT = """\
brew 1

param T = 2

teacher big   = brew("teacher.brew")
student small = hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=32)
data rows     = files(train="train.jsonl", dev="dev.jsonl", batch=8, max_length=16)

soft   = kd(big.logits -> small.logits, T=T)
hard   = ce(rows.labels -> small.logits)
hidden = mse(big.hidden[0, 2] -> small.hidden[0, 1] via linear)

loss = soft + 0.5 * hard + mean(hidden)

train { steps = 2 }
"""
APP = application()
WORDS = {"good": "good fine nice great", "bad": "bad poor sad awful"}


def command(*arguments: str, input: str | None = None, env: dict[str, Any] | None = None) -> Result:
    """Run the command in this process; stdout and stderr apart."""
    return CliRunner().invoke(APP, list(arguments), input=input, env=env)


def write_tiny(folder: Path) -> Path:
    """Teacher, student and 24 rows of data; gives the student's spec."""
    for name, count in (("train", 16), ("dev", 8)):
        rows = [{"text": " ".join(WORDS[w].split()[: 1 + i % 4]), "label": w} for i in range(count // 2) for w in WORDS]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "teacher.brew").write_text(TEACHER)
    (folder / "student.brew").write_text(STUDENT)
    return folder / "student.brew"
