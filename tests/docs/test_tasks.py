"""The specs of the guides by task pass the whole check, on small models and data of their kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from brewgraph.checking.check import Checked, check
from brewgraph.data.encoding.encode import train_wordpiece
from brewgraph.diagnostics import SpecError
from brewgraph.source import Source
from tests.conftest import REPOSITORY
from tests.data.texts import byte_level

TASKS = REPOSITORY / "docs" / "tasks"
WORDS = "all these words are here where they stand one after the other in a row"


def _bert(model: type[PreTrainedModel], **settings: object) -> PreTrainedModel:
    size = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 16}
    return model(BertConfig(**size, vocab_size=100, max_position_embeddings=256, **settings))


def _named(*labels: str) -> dict[str, dict[object, object]]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def _classifier(folder: Path) -> PreTrainedModel:
    rows = [f"{WORDS[i:]},{['good', 'bad'][i % 2]}" for i in range(16)]
    for split in ("train", "dev"):
        (folder / f"{split}.csv").write_text("\n".join(["review,sentiment", *rows]))
    return _bert(BertForSequenceClassification, **_named("bad", "good"))


def _several(folder: Path) -> PreTrainedModel:
    rows = [{"text": WORDS[i:], "emotions": ["joy", "fear"][: i % 3]} for i in range(16)]
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return _bert(BertForSequenceClassification, **_named("fear", "joy"), problem_type="multi_label_classification")


def _tags(folder: Path) -> PreTrainedModel:
    for split in ("train", "dev"):
        (folder / f"{split}.conll").write_text("words B-PER\nhere I-PER\nrow O\n\n" * 8)
    return _bert(BertForTokenClassification, **_named("O", "B-PER", "I-PER"))


def _answers(folder: Path) -> PreTrainedModel:
    asked = [{"id": f"{i}", "question": "where", "answers": [{"text": "words", "answer_start": 10}]} for i in range(16)]
    for split in ("train", "dev"):
        (folder / f"{split}.json").write_text(
            json.dumps({"data": [{"paragraphs": [{"context": WORDS, "qas": asked}]}]})
        )
    return _bert(BertForQuestionAnswering)


def _language(folder: Path) -> PreTrainedModel:
    for split in ("train", "dev"):
        (folder / f"{split}.txt").write_text(f"{WORDS}\n" * 200)
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=6, n_head=2, n_positions=128, vocab_size=300))


WORLDS: dict[str, Callable[[Path], PreTrainedModel]] = {
    "classifier": _classifier, "several-labels": _several, "tags": _tags, "answers": _answers, "language-model": _language,
}  # fmt: skip


def checked(name: str, text: str, folder: Path) -> Checked:
    """A spec, checked in a folder with the teacher that it names and its data."""
    teacher = re.search(r'teacher \w+ = hf\("([^"]+)"', text)
    assert teacher
    model = WORLDS[name](folder)
    model.save_pretrained(folder / teacher[1])
    tokenizer = byte_level([WORDS], 300) if name == "language-model" else train_wordpiece([WORDS] * 3, 100)
    tokenizer.save_pretrained(folder / teacher[1])
    (folder / "spec.brew").write_text(text)
    return check(Source(text, str(folder / "spec.brew")))


def spec_of(name: str) -> str:
    """The whole spec of a guide."""
    block = re.search(r"```brew\n(.*?)```", (TASKS / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    return block[1]


def test_every_guide_has_a_world() -> None:
    assert {path.stem for path in TASKS.glob("*.md")} == WORLDS.keys()


@pytest.mark.parametrize("name", WORLDS)
def test_the_spec_of_a_guide_passes_the_whole_check(name: str, tmp_path: Path) -> None:
    """Models, shapes, classes and data included; the student starts from layers of its teacher."""
    result = checked(name, spec_of(name), tmp_path)
    assert [d.code for d in result.warnings] == []
    assert len(result.graphs) == 1


def test_a_wrong_layer_would_be_found(tmp_path: Path) -> None:
    """The world's teacher has six layers."""
    text = spec_of("classifier").replace("layers[2, 5]", "layers[2, 6]")
    with pytest.raises(SpecError, match="6"):
        checked("classifier", text, tmp_path)


@pytest.mark.parametrize("page", sorted(TASKS.glob("*.md")), ids=lambda p: p.stem)
def test_its_figures_are_those_of_the_results(page: Path) -> None:
    """Every number with four decimals stands in docs/results.md."""
    known = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    assert [x for x in re.findall(r"\b0\.\d{4}\b", page.read_text(encoding="utf-8")) if x not in known] == []
