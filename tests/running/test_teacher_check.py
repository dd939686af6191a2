"""Teachers whose classes stand in another order than the data's: found before anything trains, for every type of label.

Teachers are trained here, then the rows of their heads are moved and their classes called `LABEL_0`, `LABEL_1`, … ."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer
from transformers import AutoModelForTokenClassification as Tagger

import brewgraph as bg
from brewgraph.training.reporter import Reporter
from tests.running.test_tags import write as write_tags

STUDENT = 'hf(model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)'
DATA = {
    "tags": 'conll(train="train.conll", dev="dev.conll", batch=16, max_length=32)',
    "classes": 'files(train="train.jsonl", dev="dev.jsonl", problem_type="multi_label", batch=16, max_length=32)',
    "spans": 'squad(train="train.json", dev="dev.json", batch=16, max_length=32, stride=8)',
}
LABELS = ("joy", "fear", "anger", "trust")
WORDS = {"joy": "laughs", "fear": "trembles", "anger": "shouts", "trust": "believes"}
MATCHES = {
    "tags": "kd(big.logits -> tiny.logits) + ce(d.labels -> tiny.logits)",
    "classes": "bce(big.logits -> tiny.logits) + bce(d.labels -> tiny.logits)",
    "spans": "kd(big.start -> tiny.start) + kd(big.end -> tiny.end) + ce(d.start -> tiny.start) + ce(d.end -> tiny.end)",
}
TAUGHT = {
    "tags": "ce(d.labels -> big.logits)",
    "classes": "bce(d.labels -> big.logits)",
    "spans": "ce(d.start -> big.start) + ce(d.end -> big.end)",
}
AUTO: dict[str, Any] = {
    "tags": Tagger,
    "classes": AutoModelForSequenceClassification,
    "spans": AutoModelForQuestionAnswering,
}
STEPS = {"tags": 60, "classes": 300, "spans": 200}
BIG = {"hidden_size=16": "hidden_size=32"}
"""What makes a teacher of the student."""
BIGGER = {"hidden_size=16": "hidden_size=64", "num_hidden_layers=1": "num_hidden_layers=2", "lr=5e-3": "lr=2e-3"}
"""The same for several classes, which the smaller one learns in part, and on some processors not at all."""


class Says(Reporter):
    """Remembers what was said, and what began to train."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.trained: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, name: str, steps: int, done: int) -> None:
        self.trained.append(name)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lie below the test's own folder."""
    monkeypatch.chdir(tmp_path)


def write_data(folder: Path, kind: str, count: int = 120) -> None:
    """What a small teacher can learn; most words are `O`, and the labels are not equally frequent."""
    chance = random.Random(0)
    for split, rows in (("train", count), ("dev", 12)):
        if kind == "tags":
            write_tags(folder / f"{split}.conll", [chance.randint(4, 12) for _ in range(rows)], "BI", seed=rows)
        elif kind == "classes":
            lines = []
            for _ in range(rows):
                labels = [label for n, label in enumerate(LABELS) if chance.random() < 0.6 / (1 + 0.3 * n)]
                words = [
                    *(WORDS[label] for label in labels),
                    *chance.choices(["she", "then", "and", "there", "quickly"], k=4),
                ]
                chance.shuffle(words)
                lines.append(json.dumps({"text": " ".join(words), "label": labels}))
            (folder / f"{split}.jsonl").write_text("\n".join(lines))
        else:
            paragraphs = []
            for n in range(rows):
                before = " ".join(chance.choices(["she", "then", "went", "there", "quickly"], k=chance.randint(1, 9)))
                context = f"{before} to old green town and stayed"
                answer = {"text": "old green town", "answer_start": context.index("old green town")}
                paragraphs.append(
                    {"context": context, "qas": [{"id": str(n), "question": "where", "answers": [answer]}]}
                )
            (folder / f"{split}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))


def teach(folder: Path, kind: str, steps: int) -> Path:
    """A teacher trained on the labels for so many steps; its folder."""
    text = f"student big = {STUDENT}\ndata d = {DATA[kind]}\nloss = {TAUGHT[kind]}\n"
    text += f"train {{ steps = {steps}; optimizer = adamw(lr=5e-3); schedule = linear(warmup=10%) }}\n"
    for small, big in (BIGGER if kind == "classes" else BIG).items():
        text = text.replace(small, big)
    (folder / "big.brew").write_text(text)
    return bg.run(folder / "big.brew").folder / "student"


@torch.no_grad()
def move(folder: Path, kind: str, order: Sequence[int], names: Sequence[str] = ()) -> None:
    """Let a saved model's class i be what was order[i]; without `names` its classes are called `LABEL_0`, …"""
    model = AUTO[kind].from_pretrained(folder)
    head = model.qa_outputs if kind == "spans" else model.classifier
    for parameter in head.parameters():
        parameter.copy_(parameter[list(order)].clone())
    own = list(names) or [f"LABEL_{n}" for n in range(len(order))]
    if kind != "spans":
        model.config.id2label, model.config.label2id = dict(enumerate(own)), {name: n for n, name in enumerate(own)}
    model.save_pretrained(folder)


def classes_of(folder: Path) -> list[str]:
    config = AutoConfig.from_pretrained(folder)
    return [config.id2label[n] for n in range(len(config.id2label))]


def write_spec(folder: Path, teacher: Path, kind: str, *, more: str = "", loss: str = "", head: str = "") -> Path:
    """A student of the teacher in a folder, with a baseline that would train first."""
    text = f'teacher big = hf("{teacher}"{more})\nstudent tiny = {STUDENT}\ndata d = {DATA[kind]}\n{head}'
    text += f"loss = {loss or MATCHES[kind]}\ntrain {{ steps = 2; baseline = true }}\n"
    (folder / "spec.brew").write_text(text)
    return folder / "spec.brew"


def stopped(spec: Path) -> tuple[Any, Says]:
    """The one fault of a run that stops before anything is trained."""
    reporter = Says()
    with pytest.raises(bg.SpecError) as raised:
        bg.run(spec, reporter=reporter)
    (fault,) = raised.value.diagnostics
    assert reporter.trained == []
    assert (
        fault.span.text.startswith('teacher big = hf("')
        or fault.span.text.startswith("hf(")
        or "big" in fault.span.text
    )
    return fault, reporter


@pytest.mark.parametrize("kind", ["tags", "classes"])
def test_moved_classes_stop_and_the_remedy_works(tmp_path: Path, kind: str) -> None:
    """As trained it passes; moved it stops at the teacher before the baseline; the `labels=` that the message gives lets
    it pass, and the table shows the scores that it had. So too where its names say one order and its rows have another."""
    write_data(tmp_path, kind)
    teacher = teach(tmp_path, kind, STEPS[kind])
    names = classes_of(teacher)
    write_spec(tmp_path, teacher, kind)
    reporter = Says()
    before = bg.run(tmp_path / "spec.brew", reporter=reporter)
    assert not any("chance" in text for text in reporter.said)
    assert before.table[0].scores["f1" if kind == "tags" else "micro_f1"] > 0.6
    order = [*range(1, len(names)), 0]
    for own in ((), names, names[::-1]):
        move(teacher, kind, order, own)
        fault, _ = stopped(write_spec(tmp_path, teacher, kind))
        assert fault.code == "B332"
        assert "in another order: its `" in fault.message
        remedy = fault.help.removeprefix("name its classes: ")
        assert json.loads(remedy.removeprefix("labels=")) == [names[i] for i in order]
        reporter = Says()
        after = bg.run(write_spec(tmp_path, teacher, kind, more=f", {remedy}"), reporter=reporter)
        assert len(reporter.trained) == 2
        assert after.table[0].scores == pytest.approx(before.table[0].scores)
        move(teacher, kind, [order.index(n) for n in range(len(order))], names)


def test_swapped_starts_and_ends_stop_and_the_remedy_works(tmp_path: Path) -> None:
    """Matched as they are named they stop the run; crosswise, as the message says, they teach."""
    write_data(tmp_path, "spans")
    teacher = teach(tmp_path, "spans", STEPS["spans"])
    reporter = Says()
    before = bg.run(write_spec(tmp_path, teacher, "spans"), reporter=reporter)
    assert before.table[0].scores["exact_match"] > 0.8
    move(teacher, "spans", (1, 0))
    fault, _ = stopped(write_spec(tmp_path, teacher, "spans"))
    assert fault.code == "B341"
    assert fault.message.endswith("with its starts and ends swapped")
    assert fault.help == "swap them: match `big.end` with the student's `start`, and `big.start` with its `end`"
    loss = MATCHES["spans"].replace("big.start -> tiny.start", "big.end -> tiny.start")
    loss = loss.replace("big.end -> tiny.end", "big.start -> tiny.end")
    assert loss.count("big.end -> tiny.start") == loss.count("big.start -> tiny.end") == 1
    reporter = Says()
    bg.run(write_spec(tmp_path, teacher, "spans", loss=loss), reporter=reporter)
    assert len(reporter.trained) == 2


@pytest.mark.parametrize("kind", ["tags", "classes", "spans"])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_weak_teachers_pass(tmp_path: Path, kind: str, steps: int) -> None:
    """One that has learnt next to nothing teaches as it did, with a warning at most."""
    write_data(tmp_path, kind)
    reporter = Says()
    bg.run(write_spec(tmp_path, teach(tmp_path, kind, steps), kind), reporter=reporter)
    assert len(reporter.trained) == 2


@pytest.mark.parametrize("kind", ["tags", "classes", "spans"])
def test_random_teachers_pass(tmp_path: Path, kind: str) -> None:
    """Whatever order of its classes fits one best, it is luck."""
    write_data(tmp_path, kind)
    for seed in range(4):
        write_spec(tmp_path, tmp_path, kind)
        labels = {"tags": ', labels=["O", "B-PER", "I-PER"]', "classes": f", labels={json.dumps(sorted(LABELS))}"}
        random_one = STUDENT[:-1] + labels.get(kind, "") + ")"
        text = (tmp_path / "spec.brew").read_text().replace(f'hf("{tmp_path}")', random_one)
        text = text.replace("steps = 2", f"steps = 1; seed = {seed}").replace("baseline = true", "baseline = false")
        (tmp_path / "spec.brew").write_text(text)
        reporter = Says()
        bg.run(tmp_path / "spec.brew", reporter=reporter)
        assert len(reporter.trained) == 1


def test_few_rows_pass(tmp_path: Path) -> None:
    """Of fewer than sixty-four words nothing is concluded."""
    write_data(tmp_path, "tags")
    teacher = teach(tmp_path, "tags", STEPS["tags"])
    move(teacher, "tags", (1, 2, 0))
    write_tags(tmp_path / "train.conll", [8] * 7, "BI")
    reporter = Says()
    bg.run(write_spec(tmp_path, teacher, "tags"), reporter=reporter)
    assert len(reporter.trained) == 2


def test_every_task_stage_and_cache_is_looked_at(tmp_path: Path) -> None:
    """The teacher of the second task, of the second stage, one whose logits are kept, one of a mean; none of weight 0."""
    write_data(tmp_path, "tags")
    teacher = teach(tmp_path, "tags", STEPS["tags"])
    good = tmp_path / "good"
    AUTO["tags"].from_pretrained(teacher).save_pretrained(good)
    for file in teacher.glob("token*"):
        (good / file.name).write_bytes(file.read_bytes())
    names = classes_of(teacher)
    move(teacher, "tags", (1, 2, 0))
    head = f'teacher fine = hf("{good}")\n'
    hard = "ce(d.labels -> tiny.logits)"
    tail = {
        "stages": f"stage one for 1 steps {{ loss = {hard} + kd(fine.logits -> tiny.logits) }}\n"
        f"stage two for 1 steps {{ loss = {hard} + kd(big.logits -> tiny.logits) }}\n",
        "cache": f'cache kept = big.logits at "cache"\nloss = {hard} + kd(kept -> tiny.logits) + kd(fine.logits -> tiny.logits)\n',
        "mean": f"loss = {hard} + ce(mean([fine.logits, big.logits]) -> tiny.logits)\n",
    }
    for name, end in tail.items():
        spec = write_spec(tmp_path, teacher, "tags", head=head)
        text = spec.read_text()
        spec.write_text(text[: text.index("loss =")] + end + ("" if name == "stages" else "train { steps = 1 }\n"))
        fault, _ = stopped(spec)
        assert (fault.code, f'labels=["{names[1]}"' in fault.help) == ("B332", True), name
    spec = write_spec(
        tmp_path,
        teacher,
        "tags",
        head=head,
        loss=f"{hard} + kd(fine.logits -> tiny.logits) + 0 * kd(big.logits -> tiny.logits)",
    )
    reporter = Says()
    bg.run(spec, reporter=reporter)
    assert len(reporter.trained) == 2


def test_heads_modules_given_at_build_and_ready_batches(tmp_path: Path) -> None:
    """Wherever a teacher comes from, and whatever it reads: as trained it passes, moved it stops."""
    write_data(tmp_path, "tags")
    teacher = teach(tmp_path, "tags", STEPS["tags"])
    names, order = classes_of(teacher), (1, 2, 0)
    write_ready(tmp_path / "ready", teacher, names)
    head = write_spec(tmp_path, teacher, "tags").read_text().replace(f'("{teacher}")', f'("{teacher}") {{ NER }}')
    head = head.replace("NER", "head ner = token_classifier()").replace("big.logits", "big.ner.logits")
    ready = write_spec(tmp_path, teacher, "tags").read_text().replace("baseline = true", "baseline = false")
    ready = ready.replace(DATA["tags"], 'batches("ready", labels="tags")')
    ready = ready.replace(STUDENT, STUDENT[:-1] + ', vocab_size=400, labels=["O", "B-PER", "I-PER"])')
    plain = write_spec(tmp_path, teacher, "tags").read_text()
    for text in (head, ready):
        (tmp_path / "spec.brew").write_text(text)
        bg.run(tmp_path / "spec.brew", reporter=(reporter := Says()))
        assert reporter.trained
        assert not any("chance" in said for said in reporter.said)
    right = Tagger.from_pretrained(teacher)
    move(teacher, "tags", order)
    moved = Tagger.from_pretrained(teacher)
    for text, title in ((head, "the head `ner` of the teacher `big`"), (ready, "the teacher `big`")):
        (tmp_path / "spec.brew").write_text(text)
        fault, _ = stopped(tmp_path / "spec.brew")
        assert fault.code == "B332"
        assert fault.message.startswith(title)
        assert len(re.findall("is the data's", fault.message)) == 3
    for text in (plain, ready):
        (tmp_path / "spec.brew").write_text(text)
        recipe = bg.load(tmp_path / "spec.brew")
        with pytest.raises(bg.SpecError) as raised:
            recipe.build(big=moved)
        assert [d.code for d in raised.value.diagnostics] == ["B332"]
        recipe.build(big=right)


def write_ready(folder: Path, teacher: Path, names: Sequence[str]) -> None:
    """The training sentences as ready tensors of the teacher's own tokens."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    sentences = [
        [line.split() for line in part.splitlines()] for part in Path("train.conll").read_text().strip().split("\n\n")
    ]
    tensors: dict[str, torch.Tensor] = {}
    for number in range(0, len(sentences), 16):
        chosen = sentences[number : number + 16]
        words = [[row[0] for row in sentence] for sentence in chosen]
        made = tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")
        labels = torch.full_like(made["input_ids"], -100)
        for i, sentence in enumerate(chosen):
            ids = made.word_ids(i)
            for word, row in enumerate(sentence):
                labels[i, ids.index(word)] = names.index(row[-1])
        for name, value in (("input_ids", made["input_ids"]), ("attention_mask", made["attention_mask"])):
            tensors[f"{number // 16}.{name}"] = value
        tensors[f"{number // 16}.labels"] = labels
    folder.mkdir()
    save_file(tensors, folder / "batches.safetensors")
