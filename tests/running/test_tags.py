"""Words with tags in whole runs: every word of every sentence is scored and predicted, in every scheme."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from seqeval.metrics import f1_score
from seqeval.scheme import BILOU, IOBES
from transformers import AutoModelForTokenClassification, AutoTokenizer

import brewgraph as bg
from brewgraph.recipe.tag_schemes import find_scheme
from brewgraph.running.finished import open_run
from brewgraph.running.predict import labelled_rows, load_student, predict, score
from tests.training.test_tags import MARKS

NAMES = (("anna", "boris", "clara"), ("van", "der"), ("stone", "hill", "anna"), ("zoe", "max", "boris"))
"""First, inside and last words of persons, and whole ones; two words are more than one of these."""
OTHERS = ["the", "went", "home", "again", "and", "saw", "a", "large", "green", "house", "near", "old", "town"]

SPEC = """
teacher big = brew("big.brew")
student tiny = hf(model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
data d = conll(train="train.conll", dev="dev.conll", batch=8, max_length=16)
loss = kd(big.logits -> tiny.logits) + ce(d.labels -> tiny.logits)
train { steps = 150; optimizer = adamw(lr=1e-2); schedule = linear(warmup=10%) }
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lie below the test's own folder."""
    monkeypatch.chdir(tmp_path)


def sentence(chance: random.Random, length: int, marks: str, form: str = "{}-{}") -> list[tuple[str, str]]:
    """Words with their tags: persons of one to three words, each behind another word."""
    found: list[tuple[str, str]] = []
    while len(found) < length:
        if chance.random() < 0.4:
            count = min(chance.randint(1, 3), length - len(found))
            parts = [3] if count == 1 else [0, *[1] * (count - 2), 2]
            tags = {"BI": "BIIB"}.get(marks, marks)
            if not found or found[-1][1] == "O":
                found += [(chance.choice(NAMES[part]), form.format(tags[part], "PER")) for part in parts]
        else:
            found.append((chance.choice(OTHERS), "O"))
    return found


def write(
    path: Path, lengths: list[int], marks: str, form: str = "{}-{}", seed: int = 0
) -> list[list[tuple[str, str]]]:
    """A file of sentences of these lengths, which are returned."""
    chance = random.Random(seed)
    lines = [sentence(chance, length, marks, form) for length in lengths]
    path.write_text("\n".join("".join(f"{word}\t{tag}\n" for word, tag in line) for line in lines))
    return lines


def write_spec(folder: Path, text: str = SPEC) -> Path:
    """The spec, and that of its teacher, which learns the same from the labels alone."""
    big = "\n".join(line for line in text.splitlines() if not line.startswith("teacher"))
    big = (
        big.replace("kd(big.logits -> tiny.logits) + ", "")
        .replace("tiny", "big")
        .replace("hidden_size=16", "hidden_size=32")
    )
    (folder / "big.brew").write_text(big)
    (folder / "spec.brew").write_text(text)
    return folder / "spec.brew"


REFERENCES: dict[str, dict[str, Any]] = {
    "IOB2": {},
    "IOBES": {"mode": "strict", "scheme": IOBES},
    "BILOU": {"mode": "strict", "scheme": BILOU},
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_whole_file_is_scored(tmp_path: Path, name: str) -> None:
    """Sentences of up to fifty words in encodings of sixteen tokens: the table has what seqeval says of the whole file and
    of what `predict` writes, for the student and for its teacher; each word of it has a tag."""
    lengths = [3, 50, 9, 1, 33, 12, 20, 8]
    write(tmp_path / "train.conll", [8] * 40, MARKS[name], seed=1)
    lines = write(tmp_path / "dev.conll", lengths, MARKS[name])
    result = bg.run(write_spec(tmp_path))
    (big_folder,) = (folder for folder in (tmp_path / "runs").iterdir() if folder.name.startswith("big"))
    for row, folder in zip(result.table, (big_folder, result.folder), strict=True):
        task = open_run(folder).task(None)
        student, rows = load_student(task), labelled_rows(task, "dev")
        found = list(predict(student, rows))
        assert [prediction["words"] for prediction in found] == [[word for word, _ in line] for line in lines]
        guesses = [prediction["tags"] for prediction in found]
        assert all(tag is not None for tags in guesses for tag in tags)
        gold = [[tag for _, tag in line] for line in lines]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = f1_score(gold, guesses, **REFERENCES[name])
        assert row.scores["f1"] == pytest.approx(expected)
        assert score(student, rows).values == pytest.approx(row.scores)
        right = [a == b for one, two in zip(gold, guesses, strict=True) for a, b in zip(one, two, strict=True)]
        assert row.scores["token_accuracy"] == pytest.approx(sum(right) / sum(lengths))
        assert 0.3 < expected < 1, "the model has learnt something, so that the comparison says something"
        check_by_hand(task.model, lines, guesses, task.classes)


@torch.no_grad()
def check_by_hand(folder: Path, lines: Any, guesses: Any, classes: Any) -> None:
    """Of what fits into one encoding, transformers' own reading: a word's tag is that of its first token."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder)
    seen = 0
    for line, tags in zip(lines, guesses, strict=True):
        made = tokenizer([word for word, _ in line], is_split_into_words=True, return_tensors="pt")
        if made["input_ids"].shape[1] > 16:
            continue
        seen += 1
        own = model.eval()(**made).logits[0].argmax(-1).tolist()
        words = made.word_ids()
        assert [classes[own[words.index(n)]] for n in range(len(line))] == tags
    assert seen >= 3


@pytest.mark.parametrize(
    ("marks", "form"), [("BMES", "{}-{}"), ("BI", "{}_{}"), ("BI", "{1}-{0}"), ("BIES", "{1}_{0}")]
)
def test_other_schemes_and_forms_have_scores_of_entities(tmp_path: Path, marks: str, form: str) -> None:
    """BMES, `B_PER`, `PER-B`: the table shows F1, which is seqeval's of the same tags written as it knows them."""
    write(tmp_path / "train.conll", [8] * 40, marks, form, seed=1)
    lines = write(tmp_path / "dev.conll", [9, 5, 30, 7, 3, 8], marks, form)
    (row, _) = bg.run(write_spec(tmp_path)).table
    assert row.columns == ("f1", "token_accuracy")
    (folder,) = (folder for folder in (tmp_path / "runs").iterdir() if folder.name.startswith("big"))
    task = open_run(folder).task(None)
    found = [prediction["tags"] for prediction in predict(load_student(task), labelled_rows(task, "dev"))]
    scheme = find_scheme(task.classes)
    assert scheme is not None

    def told(tag: str) -> str:
        return "-".join(scheme.split(tag) or ("O",))

    how = REFERENCES["IOBES" if scheme.closes else "IOB2"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gold = [[told(tag) for _, tag in line] for line in lines]
        expected = f1_score(gold, [[told(tag) for tag in tags] for tags in found], **how)
    assert row.scores["f1"] == pytest.approx(expected)
    assert expected > 0.3
