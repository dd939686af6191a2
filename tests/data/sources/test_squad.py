"""Questions and answers: files in the form of SQuAD, windows of long texts, and where their answers stand."""

from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any

import datasets
import pytest
import tokenizers
import torch

from brewgraph.data.encoding.encode import Collator, Encoding, encode, train_wordpiece
from brewgraph.data.sources.examples import Examples, facts, open_examples, texts
from brewgraph.data.sources.reader import DataFacts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.data_sources import Join, Squad
from tests.data.texts import byte_level, fault

CONTEXT = "The tower was built by Ada Stone in 1889. It is 300 metres tall, and it stands in the old town of Brack."


def article(*asked: tuple[str, str | None], context: str = CONTEXT) -> dict[str, Any]:
    """One paragraph with these questions and answers."""
    qas = [
        {
            "id": f"q{n}",
            "question": question,
            "answers": [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}],
            **({"is_impossible": True} if answer is None else {}),
        }
        for n, (question, answer) in enumerate(asked)
    ]
    return {"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}


def write(folder: Path, whole: Any, name: str = "train.json", **settings: Any) -> Squad:
    """A source whose only file holds this, as json."""
    raw = json.dumps(whole, ensure_ascii=False).encode()
    (folder / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return Squad(train=name, **settings)


ASKED = [("Who built the tower?", "Ada Stone"), ("How tall is it?", "300 metres"), ("Who sold it?", None)]


@pytest.mark.parametrize("name", ["train.json", "train.json.gz"])
def test_questions(tmp_path: Path, name: str) -> None:
    """Question, context, answers and id; empty lists where there is no answer; a context is learnt from once."""
    source = write(tmp_path, article(*ASKED), name)
    found = open_examples(source, tmp_path)
    assert found.classes == ()
    assert found.splits["train"].to_dict() == {
        "text_0": [question for question, _ in ASKED],
        "text_1": [CONTEXT] * 3,
        "answers": [
            {"text": ["Ada Stone"], "start": [23]},
            {"text": ["300 metres"], "start": [48]},
            {"text": [], "start": []},
        ],
        "id": ["q0", "q1", "q2"],
        "index": [0, 1, 2],
    }
    columns = ("id", "question", "context", "answers")
    assert facts(source, tmp_path) == DataFacts((), columns, {"train": 3}, unanswerable={"train": 1}, words=23)
    both = Join(parts=(source, write(tmp_path, article(ASKED[2]), "other.json")))
    assert facts(both, tmp_path).unanswerable == {"train": 2}
    assert facts(write(tmp_path, article(ASKED[0]), "all.json"), tmp_path).unanswerable == {}
    assert texts(found) == [*(question for question, _ in ASKED), CONTEXT]


def test_columns_and_weights(tmp_path: Path) -> None:
    """What else stands beside a question is a column, kept in each of its windows; `weight` names one."""
    whole = article(*ASKED)
    more = [{"trust": 0.5, "easy": True, "by": "a"}, {"trust": 2, "easy": False, "by": 1}, {"trust": 1, "easy": True}]
    for asked, said in zip(whole["data"][0]["paragraphs"][0]["qas"], more, strict=True):
        asked |= said
    source = write(tmp_path, whole, weight="trust", stride=4)
    assert facts(source, tmp_path).columns == ("id", "question", "context", "answers", "trust", "easy", "by")
    found = open_examples(source, tmp_path, ["easy", "trust"]).splits["train"]
    assert (found["weights"][:], found["column/easy"][:]) == ([0.5, 2.0, 1.0], [True, False, True])
    encoding = Encoding("b", train_wordpiece([CONTEXT, *(question for question, _ in ASKED)], 120), 30)
    rows = encode(found, [encoding], source=source)
    assert len(rows) > 3
    batch = Collator([encoding], source=source, columns=["easy", "trust"])(list(rows))
    of_row = batch["index"]
    assert batch["weights"].tolist() == batch["trust"].tolist() == torch.tensor([0.5, 2.0, 1.0])[of_row].tolist()
    assert batch["easy"].tolist() == torch.tensor([True, False, True])[of_row].tolist()
    with pytest.raises(SourceFault, match="`by` in row 1 of `train.json` is .* and no finite number") as caught:
        open_examples(source, tmp_path, ["by"])
    assert caught.value.code == "B404"
    with pytest.raises(SourceFault, match="`train.json` has no column `trusts`") as caught:
        facts(source.model_copy(update={"weight": "trusts"}), tmp_path)
    assert (caught.value.field, caught.value.help.partition("?")[0]) == ("weight", "did you mean `trust`")


def test_faults(tmp_path: Path) -> None:
    """Where the file leaves the form, and answers that do not stand where they should."""

    def said(whole: Any) -> SourceFault:
        return fault(write(tmp_path, whole), tmp_path)

    moved = article(ASKED[0])
    moved["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 22
    found = said(moved)
    assert (found.code, found.field) == ("B403", "train")
    assert found.message == (
        "the answer to question `q0` in `train.json`, `Ada Stone`, is not at offset 22 of its text, "
        "which has ` Ada Ston` there"
    )
    assert found.help == "it is at 23"
    moved["data"][0]["paragraphs"][0]["qas"][0]["answers"][0] = {"text": "Eve", "answer_start": -1}
    assert said(moved).help == "`answer_start` counts characters from 0; the text does not hold it"
    moved["data"][0]["paragraphs"][0]["qas"][0]["answers"][0] = {"text": " ", "answer_start": 3}
    assert said(moved).message == "the answer to question `q0` in `train.json` is empty"
    del moved["data"][0]["paragraphs"][0]["context"]
    found = said(moved)
    assert found.code == "B404"
    assert "not in the form of SQuAD: `context` of paragraph 1 of article 1 is not a text" in found.message
    assert '"answer_start"' in found.help
    assert "`data` of the whole is not a list" in said([1]).message
    assert said({"data": []}).message == "`train.json` has no rows"
    (tmp_path / "train.json").write_text('{"data":\n oops}')
    assert "cannot be read as json: line 2: Expecting value" in fault(Squad(train="train.json"), tmp_path).message


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def answer_of(row: dict[str, Any], key: str, examples: datasets.Dataset) -> str:
    """The characters that a window's labels stand for."""
    offsets = row[f"{key}/offsets"]
    begin, end = offsets[row[f"{key}/start"]][0], offsets[row[f"{key}/end"]][1]
    return examples[row["index"]]["text_1"][begin:end]


def opened(folder: Path, whole: Any, **settings: Any) -> tuple[Squad, Examples]:
    """A source and what it holds."""
    source = write(folder, whole, **settings)
    return source, open_examples(source, folder)


def test_windows_overlap_and_cover_the_text(tmp_path: Path) -> None:
    """Each has the question, shares `stride` tokens with the one before, and together they are the whole text."""
    source, found = opened(tmp_path, article(*ASKED), max_length=24, stride=5)
    wordpiece = train_wordpiece([CONTEXT] * 9 + [q for q, _ in ASKED] * 9, 400)
    encoding = Encoding("b", wordpiece, 24)
    rows = encode(found.splits["train"], [encoding], source=source)
    own = [row for row in rows if row["index"] == 0]
    assert len(own) > 1
    question = wordpiece(ASKED[0][0])["input_ids"]
    joined: list[tuple[int, int]] = []
    for n, row in enumerate(own):
        assert len(row["b/input_ids"]) <= 24
        assert row["b/input_ids"][: len(question)] == question
        inside = [tuple(span) for span in row["b/offsets"] if span[0] >= 0]
        assert [span == [-1, -1] for span in row["b/offsets"]] == [
            n < len(question) or n == len(row["b/offsets"]) - 1 for n in range(len(row["b/offsets"]))
        ]
        if n:
            assert inside[:5] == joined[-5:]
        joined += inside[5 if n else 0 :]
    whole = wordpiece(CONTEXT, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert joined == whole


def test_where_answers_stand(tmp_path: Path) -> None:
    """In every window that holds the whole of it, and nowhere (-100) in others, where every question has an answer."""
    source, found = opened(tmp_path, article(*ASKED[:2]), max_length=24, stride=5)
    encoding = Encoding("b", train_wordpiece([CONTEXT] * 9, 400), 24)
    rows = encode(found.splits["train"], [encoding], source=source)
    examples = found.splits["train"]
    held = [row for row in rows if row["b/start"] > 0]
    assert {row["index"] for row in held} == {0, 1}
    for row in held:
        assert answer_of(row, "b", examples) == ASKED[row["index"]][1]
    lost = [row for row in rows if row["index"] < 2 and row["b/start"] < 0]
    assert lost
    for row in lost:
        answer, start = examples[row["index"]]["answers"]["text"][0], examples[row["index"]]["answers"]["start"][0]
        inside = [span for span in row["b/offsets"] if span[0] >= 0]
        assert (row["b/start"], row["b/end"]) == (-100, -100)
        assert inside[0][0] > start or inside[-1][1] < start + len(answer)


def as_run_qa(tokenizer: Any, examples: datasets.Dataset, source: Squad) -> list[tuple[int, int]]:
    """The labels of every window as `prepare_train_features` of transformers' `run_qa.py` finds them."""
    made = tokenizer(
        examples["text_0"][:],
        examples["text_1"][:],
        truncation="only_second",
        max_length=source.max_length,
        stride=source.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found = []
    for i, offsets in enumerate(made["offset_mapping"]):
        ids, sequence = made["input_ids"][i], made.sequence_ids(i)
        marks = (tokenizer.cls_token_id, tokenizer.bos_token_id)
        cls_index = next((ids.index(mark) for mark in marks if mark in ids), 0)
        answers = examples[made["overflow_to_sample_mapping"][i]]["answers"]
        if not answers["start"]:
            found.append((cls_index, cls_index))
            continue
        begin, end = answers["start"][0], answers["start"][0] + len(answers["text"][0])
        first = sequence.index(1)
        last = len(sequence) - 1 - sequence[::-1].index(1)
        if not (offsets[first][0] <= begin and offsets[last][1] >= end):
            found.append((cls_index, cls_index))
            continue
        while first < len(offsets) and offsets[first][0] <= begin:
            first += 1
        while offsets[last][1] >= end:
            last -= 1
        found.append((first - 1, last + 1))
    return found


def marked(where: str) -> Any:
    """A tokenizer with its CLS before the text, behind it (and padding on the left, as XLNet), BOS alone, or neither."""
    wordpiece = train_wordpiece([CONTEXT] * 9 + [question for question, _ in ASKED] * 9, 400)
    if where == "before":
        return wordpiece
    own = byte_level([CONTEXT] * 9, 400)
    if where != "none":
        own.add_special_tokens({"cls_token" if where == "behind" else "bos_token": "<cls>"})
        own.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="$A:0 <cls>:2" if where == "behind" else "<cls>:0 $A:0",
            pair="$A:0 $B:1 <cls>:2" if where == "behind" else "<cls>:0 $A:0 $B:1",
            special_tokens=[("<cls>", own.convert_tokens_to_ids("<cls>"))],
        )
    return own


@pytest.mark.parametrize("where", ["before", "behind", "bos", "none"])
def test_no_answer_stands_at_the_token_that_run_qa_takes(tmp_path: Path, where: str) -> None:
    """Of questions without one, and of windows that do not hold it: CLS wherever it is, BOS, or the first token."""
    source, found = opened(tmp_path, article(*ASKED), max_length=24, stride=5)
    encoding = Encoding("b", marked(where), 24, left=where == "behind")
    rows = encode(found.splits["train"], [encoding], source=source)
    expected = as_run_qa(encoding.tokenizer, found.splits["train"], source)
    assert list(zip(rows["b/start"][:], rows["b/end"][:], strict=True)) == expected
    ends = [len(ids) - 1 if where == "behind" else 0 for ids in rows["b/input_ids"][:]]
    assert rows["b/null"][:] == ends
    lost = [n for n, row in enumerate(rows) if row["index"] < 2 and row["b/start"] == row["b/null"]]
    assert lost, "some window does not hold the answer"
    assert len(lost) < sum(row["index"] < 2 for row in rows)
    batch = Collator([encoding], source=source)(list(rows))
    if where == "behind":
        assert batch["null"].eq(batch["input_ids"].shape[1] - 1).all()
    cls = batch["input_ids"].gather(1, batch["null"][:, None])
    assert where == "none" or len(set(cls.flatten().tolist())) == 1


def test_other_tokenizers_see_the_same_stretches(tmp_path: Path) -> None:
    """Cut by the first one; what its own length cuts off has no answer; words agree; padding moves positions."""
    source, found = opened(tmp_path, article(*ASKED), max_length=24, stride=5)
    examples = found.splits["train"]
    encodings = [
        Encoding("b", train_wordpiece([CONTEXT] * 9, 400), 24),
        Encoding("g", byte_level([CONTEXT] * 9, 300), 200, left=True),
        Encoding("s", byte_level([]), 40),
    ]
    rows = encode(examples, encodings, source=source, words=True)
    cut = 0
    for row in rows:
        assert len(row["b/words"]) == len(row["g/words"]) == len(row["s/words"])
        seen = {key: [span for span in row[f"{key}/offsets"] if span[0] >= 0] for key in "bgs"}
        assert (seen["b"][0][0], seen["b"][-1][1]) == (seen["g"][0][0], seen["g"][-1][1])
        if row["b/start"] > 0:
            assert answer_of(row, "g", examples).strip() == ASKED[row["index"]][1]
            cut += row["s/start"] == row["s/null"] == 0
    assert cut, "the third is too short for some answers"
    batch = Collator(encodings, source=source, words=True)(list(rows))
    view = batch["g"]
    assert view["offsets"].shape == (len(rows), view["input_ids"].shape[1], 2)
    assert "labels" not in view
    assert view["offsets"][view["attention_mask"] == 0].eq(-1).all()
    for n, row in enumerate(rows):
        if row["g/start"] > 0:
            begin, end = view["offsets"][n, view["start"][n], 0], view["offsets"][n, view["end"][n], 1]
            assert CONTEXT[begin:end].strip() == ASKED[row["index"]][1]
    assert torch.equal(batch["index"], torch.tensor(rows["index"][:]))


def test_a_question_without_tokens(tmp_path: Path) -> None:
    """Beside a text without any, to a tokenizer without special tokens: one window of one token, and no answer there."""
    source, _ = opened(tmp_path, article(*ASKED), max_length=24, stride=5)
    none = {"start": [], "text": []}
    rows = datasets.Dataset.from_dict({"text_0": [""], "text_1": [""], "answers": [none], "index": [0]})
    encodings = [Encoding("g", byte_level([]), 24), Encoding("h", byte_level([]), 24)]
    (row,) = encode(rows, encodings, source=source, words=True)
    for key in "gh":
        found = [row[f"{key}/{name}"] for name in ("input_ids", "offsets", "start", "end", "words")]
        assert found == [[0], [[-1, -1]], 0, 0, []]


def test_long_questions_are_cut(tmp_path: Path) -> None:
    """To `max_query_length` tokens, for every tokenizer at the same character."""
    source, found = opened(tmp_path, article(("the tower the tower the tower of Brack", "1889")), max_query_length=4)
    encodings = [Encoding("b", train_wordpiece([CONTEXT] * 9, 400), 64), Encoding("g", byte_level([]), 999)]
    row = encode(found.splits["train"], encodings, source=source.model_copy(update={"stride": 8}))[0]
    asked = row["b/input_ids"].index(encodings[0].tokenizer.sep_token_id)
    assert encodings[0].tokenizer.decode(row["b/input_ids"][1:asked]) == "the tower the tower"
    assert encodings[1].tokenizer.decode(row["g/input_ids"]).startswith("the tower the towerThe tower was")


def test_no_room_for_windows(tmp_path: Path) -> None:
    """B407: beside the longest question more must fit than windows share."""
    source, found = opened(tmp_path, article(*ASKED), max_length=24, stride=20)
    encoding = Encoding("b", train_wordpiece([CONTEXT] * 9 + [q for q, _ in ASKED] * 9, 400), 24)
    with pytest.raises(SourceFault) as caught:
        encode(found.splits["train"], [encoding], source=source)
    assert (caught.value.code, caught.value.field) == ("B407", "stride")
    assert caught.value.message == (
        "max_length = 24 leaves 16 tokens of a text beside a question of 5, and windows share 20"
    )
    assert "at least 29 tokens" in caught.value.help
    with pytest.raises(ValueError, match="encode"):
        encode(found.splits["train"], [encoding])


def test_augmentation_is_refused(tmp_path: Path) -> None:
    """B410: answers stand at places of the text."""
    from brewgraph.recipe.settings.augmentations import Deleting

    source, found = opened(tmp_path, article(*ASKED), augment=(Deleting(),))
    with pytest.raises(SourceFault, match="answers at places of the text") as caught:
        encode(found.splits["train"], [Encoding("g", byte_level([]), 300)], source=source)
    assert caught.value.code == "B410"


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────────────────


def bare(text: str) -> str:
    """Without what tokenizers of BERT's manner drop: marks on letters, and characters that are not seen."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) not in ("Mn", "Cf")).strip()


@pytest.mark.parametrize(("name", "train", "dev"), [("tydiqa_en", 3096, 600), ("cmrc2018", 3216, 997)])
def test_real_answers(shared_data: Path, name: str, train: int, dev: int) -> None:
    """As many questions as said; every label stands for its answer, in English and in Chinese, in two tokenizers."""
    folder = shared_data / name
    source = Squad(train="train.json.gz", dev="dev.json.gz")
    found = open_examples(source, folder)
    assert {field: len(rows) for field, rows in found.splits.items()} == {"train": train, "dev": dev}
    assert facts(source, folder).rows == {"train": train, "dev": dev}
    learnt = texts(found)[::8]
    encodings = [Encoding("b", train_wordpiece(learnt, 3000), 384), Encoding("g", byte_level(learnt, 1000), 2000)]
    examples = found.splits["dev"].select(range(150))
    rows = encode(examples, encodings, source=source)
    assert len(rows) >= 150
    for key in "bg":
        held, exact = set(), 0
        for row in rows:
            if row[f"{key}/start"] >= 0:
                answer = bare(examples[row["index"]]["answers"]["text"][0])
                assert answer in bare(answer_of(row, key, examples))
                exact += answer == bare(answer_of(row, key, examples))
                held.add(row["index"])
        assert len(held) >= 147, "an answer may be longer than what windows share"
        assert exact >= 0.97 * len(held), "a token may hold more than the answer's end"
