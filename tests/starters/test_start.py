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
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

import brewgraph as bg
from brewgraph.diagnostics import UsageError
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.starters.start import Started, Wishes, start
from tests.small import LABELS, WORDS, rows, save, tokenizer, write_rows

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
CLASSES = {
    "features": AutoModel,
    "value": AutoModelForSequenceClassification,
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
    if kind == "value":
        config.num_labels = 1
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
        "holds out 6 of 60 training rows for dev, which the teacher may have learnt from: --dev names others",
    )
    with open("new/dev.csv", newline="") as dev, open("new/train.csv", newline="") as train:
        held, left = list(csv.DictReader(dev)), list(csv.DictReader(train))
    assert len(held) == 6
    assert {x["review"] for x in held}.isdisjoint(x["review"] for x in left)
    assert {x["sentiment"] for x in left} == set(LABELS)
    everything = sorted(held + left, key=lambda row: int(row["id"]))
    assert everything == [{key: str(value) for key, value in row.items()} for row in reviews()]


def test_the_teachers_order_of_classes() -> None:
    """The data take it over; labels that are numbers take the teacher's names."""
    names = dict(enumerate(reversed(LABELS)))
    save(Path("bert"))
    change_config("bert", id2label=names, label2id={name: n for n, name in names.items()})
    _, text = made("a", teacher="bert", data=table("reviews.csv", reviews()))
    ordered = 'classes=["good", "fair", "bad"]'
    assert ordered in statement(text, "data texts")
    numbered = [row | {"sentiment": LABELS.index(row["sentiment"])} for row in reviews()]
    _, text = made("b", teacher="bert", data=table("numbers.csv", numbered))
    assert ordered in statement(text, "data texts")


def test_a_teacher_that_names_no_classes() -> None:
    """It is taken to have those of the data in their order, which is said; `labels` gives another."""
    save(Path("bert"))
    generic = {n: f"LABEL_{n}" for n in range(3)}
    change_config("bert", id2label=generic, label2id={name: n for n, name in generic.items()})
    data = table("reviews.csv", reviews())
    started, text = made("a", teacher="bert", data=data)
    assert statement(text, "teacher big") == 'hf("../bert", labels=["bad", "fair", "good"])'
    said = "takes the teacher's classes in the order bad,fair,good: it names none; --labels gives another order"
    assert said in started.notes
    _, text = made("b", teacher="bert", data=data, labels=("good", "bad", "fair"))
    assert statement(text, "teacher big") == 'hf("../bert", labels=["good", "bad", "fair"])'
    assert 'classes=["good", "bad", "fair"]' in statement(text, "data texts")


def change_config(folder: str, **settings: Any) -> None:
    """Change a saved configuration."""
    path = Path(folder, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_names_that_are_no_words() -> None:
    """Columns and classes with blanks, commas and other signs are quoted, and stay whole where lines are long."""
    names = [f"kind {n}, with a comma and a rather long name" for n in range(9)]
    model("bert", "value")
    change_config("bert", id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)})
    content = [{"The Text": f"{row['text']} {n}", "größe": names[n % 7]} for n, row in enumerate(rows(60))]
    _, text = made(teacher="bert", data=table("odd.csv", content))
    assert 'text="The Text", label="größe"' in statement(text, "data texts")
    listed = ", ".join(f'"{name}"' for name in names)
    assert f"classes=[{listed}]" in statement(text, "data texts")


def test_several_classes_in_jsonl() -> None:
    """Lists are several classes: binary cross-entropies, the soft one with its T²."""
    save(Path("bert"), problem_type="multi_label_classification")
    several = [{"text": row["text"], "label": sorted({row["label"], LABELS[n % 3]})} for n, row in enumerate(rows(60))]
    _, text = made(teacher="bert", data=str(write_rows(Path("train.jsonl"), several)))
    assert "problem_type=multi_label" in statement(text, "data texts")
    assert statement(text, "soft") == "T ** 2 * bce(big.logits -> small.logits, T=T)"
    assert statement(text, "hard") == "bce(texts.labels -> small.logits)"
    assert len(Path("new/dev.jsonl").read_text().splitlines()) == 6


def test_a_column_for_each_class() -> None:
    """Columns of 0 and 1, in the order of the teacher's classes; a class without a column is a fault."""
    save(Path("bert"), problem_type="multi_label_classification")
    marks = [{"text": row["text"], **{x: int(x == row["label"]) for x in reversed(LABELS)}} for row in rows(60)]
    data = table("marks.csv", marks)
    _, text = made(teacher="bert", data=data, label=("good", "fair", "bad"))
    assert "label=[bad, fair, good], problem_type=multi_label" in statement(text, "data texts")
    with pytest.raises(UsageError, match="--label: `bert` also knows `good`: name a column for each class"):
        start(Wishes("bert", data, label=("bad", "fair")), Path("other"))


def test_numbers() -> None:
    """One logit is a number: squared errors, and no temperature."""
    model("bert", "value")
    stars = [{"text": row["text"], "stars": n % 9 / 2} for n, row in enumerate(rows(60))]
    _, text = made(teacher="bert", data=table("stars.csv", stars))
    assert "label=stars" in statement(text, "data texts")
    assert "problem_type=regression" in statement(text, "data texts")
    assert statement(text, "soft") == "mse(big.logits -> small.logits)"
    assert "param T" not in text


def test_texts_without_labels_in_parquet() -> None:
    """Only the teacher is learnt from, and nothing is compared with a student of labels alone."""
    import pandas

    save(Path("bert"))
    pandas.DataFrame(rows(40)).drop(columns="label").to_parquet("texts.parquet")
    _, text = made(teacher="bert", data="texts.parquet", label=None)
    assert "text=text, label=none" in statement(text, "data texts")
    assert statement(text, "loss") == "soft + mean(hidden)"
    assert "baseline" not in text
    assert len(pandas.read_parquet("new/dev.parquet")) == 4


def test_tags() -> None:
    """A word and its tag per line; sentences are held out whole, in the order of the file."""
    model("bert", "tags")
    started, text = made("ner.brew", teacher="bert", data=sentences("words.conll"))
    assert [str(x) for x in started.files] == ["ner.brew", "ner-train.conll", "ner-dev.conll"]
    expected = 'conll(train="ner-train.conll", dev="ner-dev.conll", classes=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], '
    assert statement(text, "data sentences").startswith(expected)
    assert statement(text, "soft") == "kd(big.logits -> small.logits, T=T, mask=labels)"
    assert "holds out 3 of 30 training sentences for dev" in started.notes[-1]
    parts = [Path(f"ner-{split}.conll").read_text().strip().split("\n\n") for split in ("train", "dev")]
    assert [len(part) for part in parts] == [27, 3]
    assert sorted(parts[0] + parts[1]) == sorted(Path("words.conll").read_text().strip().split("\n\n"))


def test_answers() -> None:
    """Both ends of the answer; windows fit the model; texts are held out with all their questions."""
    model("bert", "spans")
    _, text = made(teacher="bert", data=questions("squad.json"))
    assert statement(text, "data questions").endswith("batch=16, max_length=40, stride=13)")
    assert statement(text, "soft") == "0.5 * kd(big.start -> small.start, T=T) + 0.5 * kd(big.end -> small.end, T=T)"
    assert len(json.loads(Path("new/dev.json").read_text())["data"][0]["paragraphs"]) == 2


@pytest.mark.parametrize(("kind", "mask"), [("masked", "mask=15%, "), ("next", "")])
def test_language_models(kind: str, mask: str) -> None:
    """The three terms of DistilBERT; the end of the text is held out."""
    model("lm", kind)
    Path("tale.txt").write_text("".join(f"{row['text']}\n" for row in rows(100)))
    _, text = made(teacher="lm", data="tale.txt")
    assert statement(text, "data corpus") == f'text(train="train.txt", dev="dev.txt", {mask}batch=16, max_length=40)'
    assert statement(text, "hidden") == "cos(big.hidden[-1] -> small.hidden[-1])"
    assert statement(text, "loss") == "5 * soft + 2 * hard + hidden"
    whole = Path("new/train.txt").read_text() + Path("new/dev.txt").read_text()
    assert whole == Path("tale.txt").read_text()


def test_a_teacher_without_a_head_is_trained_first() -> None:
    """By a spec beside, on the same data; the student starts from its layers all the same."""
    model("base", "features")
    started, text = made(teacher="base", data=table("reviews.csv", reviews()))
    assert [x.name for x in started.files] == ["student.brew", "teacher.brew", "train.csv", "dev.csv"]
    assert statement(text, "teacher big") == 'brew("teacher.brew", seed=seed)'
    assert "init=big.layers[0, 3]" in statement(text, "student small")
    assert started.notes[-2:] == (
        "`base` has no head for the labels: teacher.brew trains it first",
        "holds out 6 of 60 training rows for dev: --dev names others",
    )
    teacher = Path("new/teacher.brew").read_text()
    assert statement(teacher, "student big") == 'hf("../base")'
    assert statement(teacher, "data texts") == statement(text, "data texts")
    assert statement(teacher, "loss") == "ce(texts.labels -> big.logits)"
    assert bg.format_text(teacher) == teacher


@pytest.mark.parametrize("kind", ["masked", "next"])
def test_a_language_model_is_trained_on_labels_first(kind: str) -> None:
    """As a model without a head: most pretrained ones have the head of their pretraining."""
    model("lm", kind)
    started, text = made(teacher="lm", data=table("reviews.csv", reviews()))
    assert [x.name for x in started.files] == ["student.brew", "teacher.brew", "train.csv", "dev.csv"]
    assert statement(text, "teacher big") == 'brew("teacher.brew", seed=seed)'
    with pytest.raises(UsageError, match=r"`teacher\.brew` is the name of the teacher's spec beside it; name another"):
        start(Wishes("lm", "reviews.csv"), Path("other/teacher.brew"))
    assert not Path("other").exists()


def test_labels_that_do_not_count_from_zero() -> None:
    """Are names, as written: no class is added for 0. `labels` says their order where the teacher names others."""
    stars = table("stars.csv", [{"text": row["text"], "stars": LABELS.index(row["label"]) + 1} for row in rows(60)])
    model("base", "features")
    _, text = made("a", teacher="base", data=stars)
    assert 'label=stars, classes=["1", "2", "3"]' in statement(text, "data texts")
    save(Path("bert"))
    _, text = made("b", teacher="bert", data=stars, labels=("3", "1", "2"))
    assert 'classes=["3", "1", "2"]' in statement(text, "data texts")
    assert statement(text, "teacher big") == 'hf("../bert", labels=["3", "1", "2"])'
    generic = {n: f"LABEL_{n}" for n in range(3)}
    change_config("bert", id2label=generic, label2id={name: n for n, name in generic.items()})
    started, text = made("c", teacher="bert", data=stars)
    assert statement(text, "teacher big") == 'hf("../bert", labels=["1", "2", "3"])'
    assert any("in the order 1,2,3: it names none" in note for note in started.notes)


def test_values_of_a_teacher_without_labels() -> None:
    """One logit has no distribution: squared errors."""
    model("rater", "value")
    _, text = made(teacher="rater", data=table("reviews.csv", reviews()), label=None)
    assert statement(text, "soft") == "mse(big.logits -> small.logits)"
    assert "# The student is 2 of the teacher's layers. Its loss: the teacher's numbers, hidden states.\n" in text


def test_a_spec_in_the_folder_of_its_data() -> None:
    """Parts take its name where the data have theirs already."""
    save(Path("bert"))
    started, text = made(".", teacher="bert", data=table("train.csv", reviews()))
    assert [str(x) for x in started.files] == ["student.brew", "student-train.csv", "student-dev.csv"]
    assert statement(text, "data texts").startswith('files(train="student-train.csv", dev="student-dev.csv", ')


def test_a_dev_table_of_another_form_is_taken() -> None:
    """Where there is none of the same."""
    save(Path("bert"))
    table("data/train.csv", reviews())
    held = [{"review": row["review"], "sentiment": row["sentiment"]} for row in reviews(20)]
    write_rows(Path("data/validation.jsonl"), held)
    _, text = made(teacher="bert", data="data")
    assert 'train="../data/train.csv", dev="../data/validation.jsonl"' in statement(text, "data texts")
    table("data/dev.csv", reviews(20))
    _, text = made("other", teacher="bert", data="data")
    assert 'dev="../data/dev.csv"' in statement(text, "data texts")


def test_a_student_of_another_width() -> None:
    """Its hidden states are projected, layer by layer."""
    save(Path("bert"), width=32, layers=4)
    save(Path("tiny"), width=16, layers=2)
    _, text = made(teacher="bert", data=table("reviews.csv", reviews()), student="tiny")
    assert statement(text, "student small") == 'hf("../tiny")'
    assert "let map = [2, 4] -> [1, 2]" in text
    assert statement(text, "hidden") == "mse(big.hidden[map] -> small.hidden[map] via linear)"


def test_a_student_with_other_tokens() -> None:
    """Texts are compared whole, tags word by word."""
    save(Path("bert"))
    save(Path("other"), vocab_size=90)
    _, text = made("a", teacher="bert", data=table("reviews.csv", reviews()), student="other")
    assert "hidden" not in text
    model("tagger", "tags")
    _, text = made("b", teacher="tagger", data=sentences("words.conll"), student="other")
    assert statement(text, "soft") == "kd(words(big.logits) -> words(small.logits), T=T)"
    assert statement(text, "hidden") == "mse(words(big.hidden[map]) -> words(small.hidden[map]) via linear)"


def test_a_dev_file_beside_the_training_file_is_taken() -> None:
    """And nothing is held out; a folder is the file `train` in it."""
    save(Path("bert"))
    table("data/train.csv", reviews())
    table("data/dev.csv", reviews(20))
    started, text = made(teacher="bert", data="data", layers=1)
    assert [str(x) for x in started.files] == ["new/student.brew"]
    assert statement(text, "data texts").startswith(
        'files(train="../data/train.csv", dev="../data/dev.csv", text=review'
    )
    assert any("evaluates on `data/dev.csv`" in note for note in started.notes)


def test_pairs_of_texts() -> None:
    """Columns that data sets call so are a pair."""
    save(Path("bert"))
    pairs = [{"premise": row["text"], "hypothesis": row["text"], "gold": row["label"]} for row in rows(40)]
    _, text = made(teacher="bert", data=table("pairs.csv", pairs))
    assert "text=[premise, hypothesis], label=gold" in statement(text, "data texts")


def test_what_the_hub_holds_is_written_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network a name is enough: what is unknown is said, and the check warns."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = start(Wishes("google-bert/no-such-model", 'glue("sst2")'), Path("new"))
    text = started.spec.read_text()
    assert statement(text, "data texts") == 'glue("sst2", batch=32, max_length=128)'
    assert statement(text, "student small") == 'hf("google-bert/no-such-model", num_hidden_layers=6)'
    assert {warning.code for warning in started.warnings} == {"W301"}
    assert (
        started.notes[0]
        == "`google-bert/no-such-model` cannot be reached: its layers, classes and tokens are unchecked"
    )


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no teacher": (
        {"teacher": "models/brt"},
        "--teacher: there is no folder `models/brt`: did you mean `models/bert`?",
    ),
    "no model": ({"teacher": "data"}, "--teacher: the folder `data` holds no model: "),
    "no file": ({"data": "reviws.csv"}, "--data: there is no file `reviws.csv`: did you mean `reviews.csv`?"),
    "no dev file": ({"dev": "dev.csv"}, "--dev: there is no file `dev.csv`: "),
    "no column": ({"text": ("revew",)}, "--text: `reviews.csv` has no column `revew`: did you mean `review`?"),
    "no label": (
        {"data": "bare.csv"},
        "--label: no column of `bare.csv` is clearly that of the labels: --label names it, --label none says that there "
        "is none; the columns are `id` and `review`",
    ),
    "no text": ({"data": "numbers.jsonl"}, "--text: no column of `numbers.jsonl` holds a text in every row: "),
    "other labels": (
        {"data": "moods.csv"},
        "--teacher: the data have the labels `happy` and `sad`, and `models/bert` knows `bad`, `fair` and `good`: ",
    ),
    "another task": (
        {"data": "words.conll"},
        "--data: `words.conll` holds words with tags, and the head of `models/bert` learns one class per text: --data names rows",
    ),
    "another task, named": (
        {"task": LABEL_TYPES["tags"]},
        "--data: `reviews.csv` holds rows with columns, and --task tags learns a tag per word: --data names a word and",
    ),
    "too many layers": ({"layers": 9}, "--layers: `models/bert` has 2 layers: write a smaller number"),
    "labels by halves": ({"labels": ("a", "b")}, "--labels: it names 2 classes, and `models/bert` has 3: "),
    "a class twice": ({"labels": ("bad", "bad", "good")}, "--labels: it names a class twice: name each once"),
    "three texts": ({"text": ("id", "review", "sentiment")}, "--text: it names 3 columns: name one, or two whose"),
    "the text as label": (
        {"text": ("review",), "label": "review"},
        "--label: `review` is the text: name another column, or none",
    ),
    "a head for classes, and values": (
        {"data": "stars.csv", "task": LABEL_TYPES["value"]},
        "--teacher: `models/bert` has a head for `class`, and the data need one for `value`: name a model that is",
    ),
    "no head, and no labels": (
        {"teacher": "models/base", "label": None},
        "--teacher: `models/base` has no head, and the data without labels need one of classes or values: name a model",
    ),
    "no header": (
        {"data": "headless.csv"},
        "--data: `headless.csv` seems to have no header, and its first line is a row: write a first line with the names",
    ),
    "other separators": (
        {"data": "semicolons.csv"},
        "--data: `semicolons.csv` has one column, `review;sentiment`: its columns are separated by `;`: save it with",
    ),
    "labels that do not count from 0": (
        {"data": "stars.csv"},
        "--teacher: the data have the labels `1`, `2` and `3`, and `models/bert` knows `bad`, `fair` and `good`: ",
    ),
    "a class per row": (
        {"teacher": "models/base", "data": "each.csv"},
        "--dev: no rows of `each.csv` can be held out for dev: equal texts stay together, and no label may be left in dev",
    ),
    "one text with questions": (
        {"teacher": "models/base", "data": "one.json"},
        "--dev: `one.json` has too few texts to hold out a tenth for dev: name a file of its own",
    ),
    "few rows": ({"data": "few.csv"}, "--dev: `few.csv` has too few rows to hold out a tenth for dev: name a file"),
    "a call at fault": ({"data": 'glue("sst3")'}, "task"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_is_said_and_nothing_is_written(fault: str) -> None:
    """One line with the option at fault and the remedy."""
    save(Path("models/bert"))
    table("reviews.csv", reviews())
    table("few.csv", [{"text": "light", "label": "bad"}, {"text": "best", "label": "good"}])
    table("bare.csv", [{"id": n, "review": f"{row['text']} {n}"} for n, row in enumerate(rows(30))])
    table("moods.csv", [{"text": row["text"], "label": "happy" if n % 2 else "sad"} for n, row in enumerate(rows(30))])
    write_rows(Path("numbers.jsonl"), [{"label": row["label"], "n": n} for n, row in enumerate(rows(30))])
    sentences("words.conll")
    model("models/base", "features", layers=2)
    table("stars.csv", [{"text": row["text"], "stars": LABELS.index(row["label"]) + 1} for row in rows(30)])
    table("each.csv", [{"text": row["text"], "label": f"class {n}"} for n, row in enumerate(rows(30))])
    questions("one.json", 1)
    lines = [f"it was the {row['text']},{row['label']}\n" for row in rows(30)]
    Path("headless.csv").write_text("".join(lines))
    Path("semicolons.csv").write_text("review;sentiment\n" + "".join(lines).replace(",", ";"))
    Path("data").mkdir()
    before = sorted(Path().rglob("*"))
    wishes, message = FAULTS[fault]
    with pytest.raises(bg.BrewError) as error:
        start(Wishes(**({"teacher": "models/bert", "data": "reviews.csv"} | wishes)), Path("deep/new"))
    assert message in str(error.value)
    assert error.value.exit_code == (1 if fault == "a call at fault" else 2)
    assert isinstance(error.value, UsageError) or fault == "a call at fault"
    assert sorted(Path().rglob("*")) == before


def test_a_teacher_by_a_whole_path_is_looked_for(here: Path) -> None:
    """As by a path from here: the folder with the nearest name is offered."""
    save(Path("models/bert"))
    with pytest.raises(UsageError, match=r"there is no folder `.*/brt`: did you mean `.*/models/bert`\?"):
        start(Wishes(str(here / "models/brt"), "reviews.csv"), Path("new"))
    with pytest.raises(UsageError, match="there is no folder `/nowhere/at/all`"):
        start(Wishes("/nowhere/at/all", "reviews.csv"), Path("new"))


def test_a_spec_that_fails_its_check_takes_everything_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, parts and folders; the fault is one line."""
    save(Path("bert"))
    table("reviews.csv", reviews())
    Path("bert/tokenizer.json").write_text("{}")
    before = sorted(Path().rglob("*"))
    with pytest.raises(UsageError, match="no tokenizer can be loaded"):
        start(Wishes("bert", "reviews.csv"), Path("deep/new"))
    assert sorted(Path().rglob("*")) == before
