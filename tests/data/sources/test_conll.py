"""Sentences with tags: files of columns, tags in IOB2, and their places among tokens."""

from __future__ import annotations

import gzip
import pickle
import random
from pathlib import Path

import datasets
import pytest
import torch

from brewgraph.data.encoding.encode import Collator, Encoding, encode, train_wordpiece
from brewgraph.data.sources.examples import facts, open_examples, texts
from brewgraph.data.sources.reader import DataFacts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import TAGS
from brewgraph.recipe.settings.data_sources import Conll
from brewgraph.recipe.settings.metric_names import metric_names
from tests.data.texts import MANNERS, byte_level, fault

LONG = ["alice", "visited", "new", "york", "and", "never", "came", "back", "from", "there", "unbelievably"]
SENTENCES = """\
-DOCSTART- O

# sent_id = 1
Alice\tB-PER
visited\tO
New\tB-LOC
York\tI-LOC

#\tO
unbelievable\tO
"""


def write(folder: Path, text: str, name: str = "train.conll") -> Conll:
    """A source whose only file holds the text."""
    (folder / name).write_text(text, encoding="utf-8")
    return Conll(train=name)


@pytest.mark.parametrize("packed", [False, True])
def test_sentences(tmp_path: Path, packed: bool) -> None:
    """Comments and document lines go, a number sign with a tag is a word; `O` comes first, each type has both tags."""
    source = write(tmp_path, SENTENCES.replace("\n", "\r\n"))
    if packed:
        (tmp_path / "train.conll.gz").write_bytes(gzip.compress((tmp_path / "train.conll").read_bytes()))
        source = Conll(train="train.conll.gz")
    found = open_examples(source, tmp_path)
    assert found.classes == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert found.splits["train"].to_dict() == {
        "words": [["Alice", "visited", "New", "York"], ["#", "unbelievable"]],
        "tags": [[3, 0, 1, 2], [0, 0]],
        "index": [0, 1],
    }
    assert found.notes == ()
    assert facts(source, tmp_path) == DataFacts(
        found.classes, ("words", "tags", "sent_id"), {"train": 2}, seen=("O", "B-LOC", "I-LOC", "B-PER"), words=4
    )
    assert texts(found) == ["Alice visited New York", "# unbelievable"]


def test_columns_and_weights(tmp_path: Path) -> None:
    """A comment `# name = value` before a sentence is its value in a column; `weight` names one."""
    text = "# trust = 0.5\n# source = web\na\tO\n\n# trust = 2\nb\tO\n\n"
    source = write(tmp_path, text).model_copy(update={"weight": "trust"})
    assert facts(source, tmp_path).columns == ("words", "tags", "trust", "source")
    found = open_examples(source, tmp_path, ["trust"]).splits["train"]
    assert found["weights"][:] == found["column/trust"][:] == [0.5, 2.0]
    encoding = Encoding("b", train_wordpiece(["a b"], 40), 8)
    batch = Collator([encoding], columns=["trust"])(list(encode(found, [encoding], source=source)))
    assert batch["weights"].tolist() == batch["trust"].tolist() == [0.5, 2.0]
    with pytest.raises(SourceFault, match="`source` in row 1 of `train.conll` is 'web', and no finite number"):
        open_examples(source, tmp_path, ["source"])
    with pytest.raises(SourceFault, match="the weight in row 2 of `train.conll` is missing"):
        facts(write(tmp_path, text.replace("# trust = 2\n", "")).model_copy(update={"weight": "trust"}), tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_documents_end_sentences(tmp_path: Path, end: str) -> None:
    """`-DOCSTART-` stands between two sentences, with empty lines around it or without."""
    text = (
        "-DOCSTART- -X- O O\na NN B-NP O\nb NN I-NP O\n-DOCSTART- -X- -X- O\nc NN B-NP O\n\n-DOCSTART- O\n\nd X Y O\n"
    )
    source = write(tmp_path, text.replace("\n", end))
    assert open_examples(source, tmp_path).splits["train"]["words"][:] == [["a", "b"], ["c"], ["d"]]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("text", "sentences", "columns"),
    [
        ("# O\na O\n\nb B-X\n", [["#", "a"], ["b"]], {}),
        ("#\tO\na\tO\n", [["#", "a"]], {}),
        ("# B-PER\na O\n", [["#", "a"]], {}),
        ("#1 O\na O\n\n#tag B-X\nb I-X\n", [["#1", "a"], ["#tag", "b"]], {}),
        ("# newdoc\na O\n", [["a"]], {}),  # two columns, and no tag
        ("# a whole text\n# id = 3\n#\n#x\na O\n", [["a"]], {}),
        ("# O\na\tO\n", [["a"]], {}),  # others have a tab
        ("# NN B-NP O\na NN B-NP O\n\n# id = 7\nb NN B-NP O\n", [["#", "a"], ["b"]], {}),
        ("# trust = 0.8\n# NOUN\nb NOUN\n\n# VERB\na NOUN\n", [["#", "b"], ["a"]], {}),
        ("# sent_id = 1\n1 # SYM\n2 a X\n", [["#", "a"]], {"words": 1}),
        ("# text = a b\n#\na\n\n#b\n", [["#", "a"], ["#b"]], {"tags": None}),
        ("# O\na O\n\n# new\nb O\n", [["#", "a"], ["b"]], {"tags": None}),
    ],
)
def test_comments_and_number_signs(
    tmp_path: Path, text: str, sentences: list[list[str]], columns: dict, mark: str
) -> None:
    """A number sign with as many columns as other words, and with a tag, begins a sentence; a comment does not."""
    source = write(tmp_path, mark + text).model_copy(update=columns)
    assert open_examples(source, tmp_path).splits["train"]["words"][:] == sentences


@pytest.mark.parametrize(
    ("separator", "columns", "line"),
    [
        ("whitespace", {"words": 1, "tags": -2}, "1 Alice   B-PER _"),
        ("whitespace", {}, "Alice NNP B-PER"),
        ("tab", {"words": 0, "tags": 1}, "Alice \tB-PER\tx"),
        ("space", {"words": 1, "tags": 3}, "1 Alice  B-PER"),
    ],
)
def test_columns(tmp_path: Path, separator: str, columns: dict, line: str) -> None:
    """Counted from either end; with `space` two of them make an empty column."""
    write(tmp_path, line + "\n")
    source = Conll(train="train.conll", separator=separator, **columns)
    found = open_examples(source, tmp_path)
    assert found.splits["train"]["words"][:] == [["Alice"]]
    assert found.classes == ("O", "B-PER", "I-PER")


def test_words_hold_other_blanks(tmp_path: Path) -> None:
    """Only spaces and tabs separate: a blank of fixed width belongs to its word."""
    found = open_examples(write(tmp_path, "a\u00a0b O\nc O\n"), tmp_path)
    assert found.splits["train"]["words"][:] == [["a\u00a0b", "c"]]


def test_iob1_becomes_iob2(tmp_path: Path) -> None:
    """An entity gets its `B-`, two that touch stay two, and a note says what was done."""
    text = "a I-PER\nb I-PER\nc B-PER\nd O\ne I-LOC\nf I-PER\n"
    found = open_examples(write(tmp_path, text), tmp_path)
    tags = [found.classes[tag] for tag in found.splits["train"]["tags"][0]]
    assert tags == ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-PER"]
    assert found.notes == (
        "tags are IOB1 (line 1 of `train.conll` begins an entity with `I-PER`), and were read as IOB2",
    )


def test_tags_that_mark_no_entities(tmp_path: Path) -> None:
    """Parts of speech are taken as they are, `I` among them; without tags there are words alone."""
    found = open_examples(write(tmp_path, "I PRON\ngo VERB\n"), tmp_path)
    assert found.classes == ("PRON", "VERB")
    assert found.splits["train"]["tags"][:] == [[0, 1]]
    bare = open_examples(Conll(train="train.conll", tags=None), tmp_path)
    assert (bare.classes, bare.splits["train"].column_names) == ((), ["words", "index"])
    encoding = Encoding("g", byte_level([]), 8)
    batch = Collator([encoding])(list(encode(bare.splits["train"], [encoding])))
    assert (batch["words"].tolist(), "labels" in batch) == ([[0, 1]], False)


def test_iobes_is_kept(tmp_path: Path) -> None:
    """With `E-` and `S-` every type has all four."""
    found = open_examples(write(tmp_path, "a B-X\nb E-X\nc S-X\n"), tmp_path)
    assert found.classes == ("O", "B-X", "I-X", "E-X", "S-X")


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("a B-X\nb L-X\nc U-Y\nd O\n", ("O", "B-X", "I-X", "L-X", "U-X", "B-Y", "I-Y", "L-Y", "U-Y")),
        ("a B-X\nb M-X\nc E-X\nd O\n", ("O", "B-X", "M-X", "E-X", "S-X")),
        ("a B_LOC\nb I_LOC\nc O\n", ("O", "B_LOC", "I_LOC")),
        ("a LOC-B\nb LOC-I\nc O\n", ("O", "LOC-B", "LOC-I")),
        ("a B\nb M\nc E\nd S\n", ("B", "E", "M", "S")),
    ],
)
def test_other_schemes_and_forms_stay_as_they_are(tmp_path: Path, text: str, classes: tuple[str, ...]) -> None:
    """BILOU, BMES, the type first, another separator: the names are the file's, so that a teacher's fit, and they have
    scores of entities. What dev alone has tells the scheme, too."""
    found = open_examples(write(tmp_path, text), tmp_path)
    assert (found.classes, found.notes) == (classes, ())
    assert metric_names(TAGS, found.classes) == ("f1", "precision", "recall", "strict_f1", "token_accuracy")
    (tmp_path / "first.conll").write_text(text.splitlines()[0] + "\nz O\n")
    if "O" in classes and "B-Y" not in classes:
        assert open_examples(Conll(train="first.conll", dev="train.conll"), tmp_path).classes == classes


def test_iob1_in_other_forms(tmp_path: Path) -> None:
    """Converted in the form that it has."""
    found = open_examples(write(tmp_path, "a PER_I\nb PER_I\nc PER_B\nd O\n"), tmp_path)
    assert [found.classes[tag] for tag in found.splits["train"]["tags"][0]] == ["PER_B", "PER_I", "PER_B", "O"]
    assert "begins an entity with `PER_I`" in found.notes[0]


def test_what_marks_no_entities_is_said_where_it_looks_like_it(tmp_path: Path) -> None:
    """With `O` among the tags; parts of speech have none, and nothing is said of them."""
    found = open_examples(write(tmp_path, "a LOC\nb LOC\nc O\n"), tmp_path)
    (note,) = found.notes
    assert note.startswith("tags such as `LOC` mark no entities, and are scored word by word; write them as `B-PER`")
    assert open_examples(write(tmp_path, "a NOUN\nb VERB\n"), tmp_path).notes == ()


@pytest.mark.parametrize(
    ("text", "code", "field", "message", "help"),
    [
        ("", "B404", "train", "`train.conll` has no rows", "with rows"),
        ("-DOCSTART- O\n\n", "B404", "train", "`train.conll` has no rows", "with rows"),
        ("a O\nb\n", "B404", "train", "line 2 of `train.conll` has 1 column where line 1 has 2", "separator=tab"),
        ("a O\nb c O\n", "B404", "train", "line 2 of `train.conll` has 3 columns where line 1 has 2", "separator=tab"),
        ("a\n", "B404", "train", "line 1 of `train.conll` has 1 column, so that words and tags are", "`separator`"),
        ("a O\nb B-X\nc X\n", "B403", "train", "the tag in line 3 of `train.conll` is `X`, where others", "`B-…`"),
        ("a B-X\nb I-Y\n", "B403", "train", "line 2 of `train.conll` is `I-Y`, but no entity", "begins with `B-Y`"),
        ("a B-X\nb L-X\nc S-X\n", "B403", "train", "the tag in line 2 of `train.conll` is `L-X`, where", "and `S-…`"),
        ("a B_X\nb E_X\nc I_X\n", "B403", "train", "line 3 of `train.conll` is `I_X`, but no entity", "`B_X`; tags are IOBES"),
    ],
)  # fmt: skip
def test_faulty_lines(tmp_path: Path, text: str, code: str, field: str, message: str, help: str) -> None:
    """The line, and what to do about it."""
    found = fault(write(tmp_path, text), tmp_path)
    assert (found.code, found.field) == (code, field)
    assert message in found.message
    assert help in found.help


def test_other_faults(tmp_path: Path) -> None:
    """A column that is not there, an empty word, tags of dev alone, no text, no file."""
    source = write(tmp_path, "a O\n")
    found = fault(Conll(train="train.conll", tags=2), tmp_path)
    assert (found.code, found.field) == ("B404", "tags")
    assert found.message == "line 1 of `train.conll` has 2 columns, and none with number 2"
    (tmp_path / "empty.conll").write_text("\tO\n")
    found = fault(Conll(train="empty.conll", separator="tab"), tmp_path)
    assert found.message == "line 1 of `empty.conll` has an empty word or tag"
    (tmp_path / "dev.conll").write_text("a O\nb VERB\n")
    found = fault(source.model_copy(update={"dev": "dev.conll"}), tmp_path)
    assert (found.code, found.field) == ("B403", "dev")
    assert found.message == "the tag in line 2 of `dev.conll` is 'VERB', which no training row has"
    assert found.help == "the classes are `O`"
    (tmp_path / "latin.conll").write_bytes(b"a O\n\xe9 O\n")
    assert fault(Conll(train="latin.conll"), tmp_path).message.startswith("line 2 of `latin.conll` is not UTF-8")
    (tmp_path / "cut.conll.gz").write_bytes(gzip.compress(b"a O\n" * 99)[:-9])
    assert "`cut.conll.gz` cannot be unpacked" in fault(Conll(train="cut.conll.gz"), tmp_path).message
    found = fault(Conll(train="trian.conll"), tmp_path)
    assert (found.code, found.help) == ("B401", "did you mean `train.conll`?")


# ── encoded ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tags_stand_at_first_tokens(tmp_path: Path) -> None:
    """With either manner of tokenizer each word's tag is at its first token, all others have -100; padding too."""
    source = write(tmp_path, SENTENCES)
    examples = open_examples(source, tmp_path)
    words = examples.splits["train"]["words"][:]
    encodings = [Encoding("b", train_wordpiece(texts(examples), 60), 64), Encoding("g", byte_level(["New York"]), 64)]
    rows = encode(examples.splits["train"], encodings, source=source)
    batch = Collator(encodings, source=source)([rows[0], rows[1]])
    assert set(batch) == {"b", "g", "index"}
    for encoding in encodings:
        view = batch[encoding.key]
        for n, (sentence, tags) in enumerate(zip(words, examples.splits["train"]["tags"][:], strict=True)):
            places = view["words"][n, : len(sentence)].tolist()
            assert view["words"][n, len(sentence) :].eq(-1).all()
            assert view["labels"][n, places].tolist() == tags
            assert (view["labels"][n] >= 0).sum() == len(sentence)
            ends = [*places[1:], int(view["attention_mask"][n].sum()) - (encoding.key == "b")]
            for word, begin, end in zip(sentence, places, ends, strict=True):
                said = encoding.tokenizer.decode(view["input_ids"][n, begin:end].tolist()).replace(" ", "")
                assert said.lower() == word.lower()
    assert batch["b"]["words"].shape == batch["g"]["words"].shape == (2, 4)


def test_words_that_are_cut_off(tmp_path: Path) -> None:
    """They have no place, and their tags are not learnt."""
    source = write(tmp_path, SENTENCES)
    examples = open_examples(source, tmp_path)
    encoding = Encoding("b", train_wordpiece(["alice visited new york"] * 9, 99), 5)
    rows = encode(examples.splits["train"], [encoding], source=source)
    batch = Collator([encoding], source=source)([rows[0]])
    assert batch["words"].tolist() == [[1, 2, 3, -1]]
    assert batch["labels"].tolist() == [[-100, 3, 0, 1, -100]]


@pytest.mark.parametrize("room", [5, 6, 12, 40])
def test_every_word_is_tagged_in_one_window(tmp_path: Path, room: int) -> None:
    """With `whole` a long sentence has several rows: in each encoding every word has its place and its label in one of
    them, the same one, and never at the edge of a window where another holds it, too. Short sentences stay as they are."""
    chance = random.Random(0)
    lines = [[(chance.choice(LONG), chance.choice(("O", "B-X", "I-X"))) for _ in range(n)] for n in (1, 7, 31, 3)]
    lines = [[(word, "B-X" if tag == "I-X" else tag) for word, tag in line] for line in lines]
    source = write(tmp_path, "\n\n".join("\n".join("\t".join(pair) for pair in line) for line in lines))
    found = open_examples(source, tmp_path).splits["train"]
    encodings = [Encoding("b", train_wordpiece(LONG * 9, 300), room), Encoding("g", byte_level([]), 9 * room)]
    rows = encode(found, encodings, source=source, whole=True)
    assert len(encode(found, encodings, source=source)) == 4
    batch = Collator(encodings, source=source)(list(rows))
    for n, line in enumerate(lines):
        own = [(row, int(batch["first"][row])) for row in range(len(rows)) if batch["index"][row] == n]
        text = " ".join(word for word, _ in line)
        fits = [len(encoding.tokenizer(text)["input_ids"]) <= encoding.max_length for encoding in encodings]
        assert (len(own) == 1) == all(fits)
        for key in "bg":
            view, seen = batch[key], []
            for row, first in own:
                for word, place in enumerate(view["words"][row].tolist(), first):
                    if place >= 0:
                        seen.append((word, int(view["labels"][row, place])))
                assert (view["labels"][row] >= 0).sum() == (view["words"][row] >= 0).sum()
            assert seen == [(word, ("O", "B-X", "I-X").index(tag)) for word, (_, tag) in enumerate(line)]
        held = [torch.nonzero(batch["b"]["words"][row] >= 0).flatten().tolist() for row, _ in own]
        assert all(len(words) for words in held)
        if room == 12 and len(own) > 2:
            assert all(words[0] > 0 for words in held[1:]), "what a window shares with the one before is context"
    if room == 40:
        plain = encode(found, encodings, source=source)
        assert {name: plain[name][:] for name in plain.column_names} == {
            name: rows[name][:] for name in rows.column_names if name != "first"
        }


def test_positions_move_with_padding_on_the_left(tmp_path: Path) -> None:
    """Words and tags of a short sentence move as its tokens do."""
    source = write(tmp_path, "a B-X\nb O\nc O\n\nd I-X\n".replace("I-X", "B-X"))
    examples = open_examples(source, tmp_path)
    encoding = Encoding("g", byte_level([]), 8, left=True)
    rows = encode(examples.splits["train"], [encoding], source=source)
    batch = Collator([encoding], source=source)([rows[0], rows[1]])
    place = int(batch["words"][1, 0])
    assert place == batch["input_ids"].shape[1] - 1
    assert batch["labels"][1].tolist() == [-100] * place + [1]
    assert batch["attention_mask"][1].tolist() == [0] * place + [1]
    assert torch.equal(
        pickle.loads(pickle.dumps(Collator([encoding], source=source)))(list(rows))["words"], batch["words"]
    )


@pytest.mark.parametrize("name", MANNERS)
@pytest.mark.parametrize("length", [64, 9])
def test_labels_stand_where_those_of_transformers_do(tmp_path: Path, name: str, length: int) -> None:
    """The rule of its `run_ner.py`: a word's tag at its first token by `word_ids()`, -100 everywhere else.

    Words without tokens and those beyond `max_length` have no label, and `words` says where the others are.
    """
    tokenizer = MANNERS[name]()
    sentences = [["the", "東京", "was", "the cat's", "京"], ["東"], ["it", "\u200b", "tower", "zz"], []]
    tags = [[n % 3 for n, _ in enumerate(sentence)] for sentence in sentences]
    rows = datasets.Dataset.from_dict({"words": sentences, "tags": tags, "index": list(range(4))})
    done = encode(rows, [Encoding("m", tokenizer, length)])
    for sentence, own_tags, row in zip(sentences, tags, done, strict=True):
        made = tokenizer(sentence, is_split_into_words=True, truncation=True, max_length=length)
        expected, before = [], None
        for word in made.word_ids():
            expected.append(-100 if word is None or word == before else own_tags[word])
            before = word
        if made["input_ids"]:
            assert row["m/input_ids"] == made["input_ids"]
            assert row["m/labels"] == expected
        places = [made.word_ids().index(n) if n in made.word_ids() else -1 for n in range(len(sentence))]
        assert row["m/words"] == places


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_wnut17(shared_data: Path) -> None:
    """As many sentences as its description says, six types, every tag of short sentences in place."""
    folder = shared_data / "wnut17"
    source = Conll(train="train.conll.gz", dev="dev.conll.gz", test="test.conll.gz", separator="tab")
    found = open_examples(source, folder)
    assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 3394, "dev": 1009, "test": 1287}
    assert len(found.classes) == 13
    assert found.notes == ()
    assert facts(source, folder).rows == {"train": 3394, "dev": 1009, "test": 1287}
    dev = found.splits["dev"].select(range(200))
    encodings = [Encoding("b", train_wordpiece(texts(found)[:500], 2000), 256)]
    rows = encode(dev, encodings, source=source)
    tokens = 0
    for row, example in zip(rows, dev, strict=True):
        labelled = [label for label in row["b/labels"] if label >= 0]
        assert labelled == example["tags"]
        tokens += len(labelled)
    assert tokens == sum(map(len, dev["tags"][:]))


def test_tags_take_the_order_that_is_said(tmp_path: Path) -> None:
    """A teacher's order of tags; one that is left out is a fault."""
    (tmp_path / "own.conll").write_text("Anna B-PER\nSmith I-PER\nsaw O\nRome B-LOC\n")
    tags = ("O", "B-PER", "I-PER", "B-LOC")
    read = open_examples(Conll(train="own.conll", classes=tags), tmp_path)
    assert (read.classes, read.splits["train"]["tags"][0]) == (tags, [1, 2, 0, 3])
    with pytest.raises(SourceFault, match="`classes` leaves out `B-LOC`"):
        open_examples(Conll(train="own.conll", classes=tags[:3]), tmp_path)
