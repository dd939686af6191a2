"""Small data sets, tokenizers and saved models for whole runs that take a second."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from brewgraph.data.encoding.encode import train_wordpiece

torch.set_num_threads(1)

LABELS = ("bad", "fair", "good")
TALE = "a tale of two cities was the best of times it was worst age wisdom foolishness epoch belief season light"
WORDS = TALE.split()


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Texts of 1 to 12 words and their labels, which follow from the first word's length."""
    chance = random.Random(seed)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 12))) for _ in range(count)]
    return [{"text": text, "label": LABELS[(len(text.split()[0]) + n) % 3]} for n, text in enumerate(texts)]


def write_rows(path: Path, content: Sequence[Mapping[str, Any]]) -> Path:
    """A file of one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def write_pair(folder: Path, *, width: int = 32, layers: int = 2) -> None:
    """Data, a teacher in `bert` and a student of one layer in `tiny`."""
    write_data(folder)
    save(folder / "bert", width=width, layers=layers, seed=1)
    save(folder / "tiny", layers=1, seed=2)


def write_data(folder: Path, train: int = 20, dev: int = 9, seed: int = 0) -> None:
    """`train.jsonl` and `dev.jsonl`."""
    write_rows(folder / "train.jsonl", rows(train, seed))
    write_rows(folder / "dev.jsonl", rows(dev, seed + 1))


def tokenizer(vocab_size: int = 120) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer that knows the words."""
    return train_wordpiece([" ".join(WORDS)], vocab_size)


_BERT = {"num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
_KINDS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "bert": (("hidden_size", "num_hidden_layers"), _BERT),
    "roberta": (("hidden_size", "num_hidden_layers"), _BERT),
    "electra": (("hidden_size", "num_hidden_layers"), _BERT | {"embedding_size": 16}),
    "distilbert": (("dim", "n_layers"), {"n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40}),
    "gpt2": (("n_embd", "n_layer"), {"n_head": 2, "n_positions": 40, "bos_token_id": 2, "eos_token_id": 3}),
}
_NO_DROPOUT = {
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


def classifier(
    kind: str = "bert", *, width: int = 16, layers: int = 2, seed: int = 0, dropout: bool = False, **settings: Any
) -> PreTrainedModel:
    """A random classifier of an architecture over `LABELS`, without dropout unless asked."""
    (width_name, layers_name), fixed = _KINDS[kind]
    quiet = _NO_DROPOUT.get(kind, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    sizes = {width_name: width, layers_name: layers, "vocab_size": 120, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **(fixed | sizes | ({} if dropout else quiet) | settings))
    config.id2label, config.label2id = dict(enumerate(LABELS)), {label: n for n, label in enumerate(LABELS)}
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    # weights of 0.02 give logits and gradients that are lost in rounding
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return model


def save(folder: Path, kind: str = "bert", vocab_size: int = 120, **settings: Any) -> Path:
    """A classifier and its tokenizer as `save_pretrained` writes them."""
    classifier(kind, **settings).save_pretrained(folder)
    tokenizer(vocab_size).save_pretrained(folder)
    return folder


SPEC = """brew 1
param T = 4
teacher bert = hf("{teacher}")
student tiny = hf("{student}")
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch={batch}, max_length=32)
let map = [0, 2] -> [0, 1]
soft = ce(bert.logits -> tiny.logits, T=T){note}
hard = ce(d.labels -> tiny.logits)
hidden = mse(bert.hidden[map] -> tiny.hidden[map] via linear)
gram = nst(bert.hidden[map] -> tiny.hidden[map])
loss = {loss}
train {{ {train}; optimizer = adamw(lr=1e-3, eps=1e-5); schedule = linear(warmup=40%); logging_steps = 1 }}
"""
LOSS = "soft + 0.3 * hard + sum(hidden) + 0.5 * sum(gram)"


def write_spec(
    folder: Path,
    *,
    name: str = "spec.brew",
    teacher: str = "bert",
    student: str = "tiny",
    batch: int = 4,
    loss: str = LOSS,
    train: str = "steps = 5",
) -> Path:
    """The spec of these tests beside the models that it names."""
    path = folder / name
    note = "    # brew: ignore[W213] as TextBrewer" if "hard" in loss else ""
    path.write_text(SPEC.format(teacher=teacher, student=student, batch=batch, loss=loss, train=train, note=note))
    return path


def project(folder: Path, **settings: Any) -> Path:
    """A folder with data, a teacher of width 32, a student of width 16, and the spec, whose path is returned."""
    write_data(folder)
    save(folder / "bert", width=32, seed=1)
    save(folder / "tiny", width=16, layers=1, seed=2, dropout=settings.pop("dropout", False))
    return write_spec(folder, **settings)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
