"""Plain text: blocks of tokens, next and masked words, drawn anew in every epoch and the same for everyone."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from brewgraph.data.batching.masking import Masks
from brewgraph.data.encoding.encode import Collator, Encoding, encode, row_lengths, train_wordpiece
from brewgraph.data.sources.examples import facts, open_examples, texts
from brewgraph.data.sources.reader import DataFacts
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.augmentations import Deleting
from brewgraph.recipe.settings.data_sources import Text
from tests.data.texts import byte_level, fault

LINES = [f"the {number} cats sat on the unbelievable mat {number}" for number in range(40)]


def opened(folder: Path, **settings: Any) -> tuple[Text, Any]:
    """A source of a few lines, with empty ones between them, and what it holds."""
    (folder / "train.txt").write_text("\n\n".join(LINES), encoding="utf-8")
    source = Text(train="train.txt", **settings)
    return source, open_examples(source, folder)


@pytest.fixture(scope="module")
def wordpiece() -> Any:
    """A vocabulary that splits some words."""
    return train_wordpiece(LINES, 120)


def test_lines(tmp_path: Path) -> None:
    """Empty lines go; plain and packed are the same; nothing has a class."""
    source, found = opened(tmp_path)
    assert found.classes == ()
    assert found.splits["train"].to_dict() == {"text_0": LINES, "index": list(range(40))}
    assert texts(found) == LINES
    assert facts(source, tmp_path) == DataFacts((), ("text",), {})
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress((tmp_path / "train.txt").read_bytes()))
    assert open_examples(Text(train="train.txt.gz"), tmp_path).fingerprint == found.fingerprint
    (tmp_path / "empty.txt").write_text(" \n\n")
    assert fault(Text(train="empty.txt"), tmp_path).message == "`empty.txt` has no rows"
    assert fault(Text(train="train.tx"), tmp_path).code == "B401"
    assert fault(Text(train="train.txt"), tmp_path / "nowhere").code == "B401"


def test_no_columns_to_keep(tmp_path: Path) -> None:
    """B402 says whose columns are kept."""
    source, _ = opened(tmp_path)
    with pytest.raises(SourceFault, match="`text` has no column `rank`: blocks run across lines") as caught:
        open_examples(source, tmp_path, ["rank"])
    assert caught.value.code == "B402"
    assert caught.value.help.startswith("columns come with rows: `files(…)`")


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_blocks_are_full(tmp_path: Path, wordpiece: Any) -> None:
    """All but the last; special tokens stand around each; together they are the text, in its order."""
    source, found = opened(tmp_path, block=17)
    rows = encode(found.splits["train"], [Encoding("b", wordpiece, 32)], source=source)
    lengths = row_lengths(rows)
    assert set(lengths[:-1]) == {17}
    assert 4 <= lengths[-1] <= 17
    ids = [row["b/input_ids"] for row in rows]
    assert all(row[0] == wordpiece.cls_token_id and row[-1] == wordpiece.sep_token_id for row in ids)
    joined = [token for row in ids for token in row[1:-1]]
    assert joined == [token for line in LINES for token in wordpiece(line, add_special_tokens=False)["input_ids"]]
    assert rows["index"][:] == list(range(len(rows)))
    assert rows[0]["b/token_type_ids"] == [0] * 17
    assert (
        len(encode(found.splits["train"], [Encoding("b", wordpiece, 99)], source=Text(train=""))[0]["b/input_ids"])
        == 99
    )


def test_line_ends_belong_to_the_text(tmp_path: Path) -> None:
    """For a tokenizer that has them; without special tokens blocks are text alone."""
    source, found = opened(tmp_path)
    encoding = Encoding("g", byte_level(LINES, 300), 50)
    rows = encode(found.splits["train"], [encoding], source=source)
    whole = encoding.tokenizer.decode([token for row in rows for token in row["g/input_ids"]])
    assert whole == "".join(f"{line}\n" for line in LINES)


def test_several_tokenizers_see_the_same_text(tmp_path: Path, wordpiece: Any) -> None:
    """Blocks end between words, the second encoding has the same words, and its own length cuts it off."""
    source, found = opened(tmp_path, block=17)
    encodings = [
        Encoding("b", wordpiece, 32),
        Encoding("g", byte_level(LINES, 300), 64),
        Encoding("s", byte_level([]), 30),
    ]
    rows = encode(found.splits["train"], encodings, source=source, words=True)
    for row in rows:
        said = encodings[0].tokenizer.decode(row["b/input_ids"][1:-1])
        assert encodings[1].tokenizer.decode(row["g/input_ids"]).split() == said.split()
        count = len(said.split())
        assert len(row["b/words"]) == len(row["g/words"]) == len(row["s/words"]) == count
        assert -1 not in row["b/words"] + row["g/words"]
        characters = len(encodings[1].tokenizer.decode(row["g/input_ids"]))  # the third has one token for each
        assert len(row["s/input_ids"]) == min(30, characters)
        assert (row["s/words"][-1] == -1) == (characters > 40)


def test_blocks_that_cannot_be(tmp_path: Path, wordpiece: Any) -> None:
    """B407 for lengths, and for a tokenizer without a mask; B404 for a single token."""
    _, found = opened(tmp_path)
    split = found.splits["train"]

    def said(source: Text, tokenizer: Any, length: int) -> SourceFault:
        with pytest.raises(SourceFault) as caught:
            encode(split, [Encoding("m", tokenizer, length)], source=source)
        return caught.value

    found = said(Text(train="", block=65), wordpiece, 64)
    assert (found.code, found.field) == ("B407", "block")
    assert found.message == "block = 65 is longer than max_length = 64"
    found = said(Text(train=""), wordpiece, 3)
    assert (found.code, found.field) == ("B407", "max_length")
    assert (found.message, found.help) == (
        "a block of 3 tokens leaves no room for text beside 2 special tokens", "at least 4 tokens are needed"
    )  # fmt: skip
    found = said(Text(train="", mask=0.15), byte_level([]), 64)
    assert (found.code, found.field) == ("B407", "mask")
    assert "`mask` needs a mask token" in found.message
    split = split.select([0]).remove_columns("text_0").add_column("text_0", ["the"])
    assert said(Text(train=""), wordpiece, 64).message == "there is too little text"


# ── next words ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("left", [False, True])
def test_next_words(tmp_path: Path, left: bool) -> None:
    """Labels are moved already: at each token the one behind it, nothing at the last one and on padding."""
    source, found = opened(tmp_path, block=16)
    encoding = Encoding("g", byte_level(LINES, 300), 64, left=left)
    rows = encode(found.splits["train"], [encoding], source=source)
    chosen = [rows[0], rows[len(rows) - 1]]
    assert len(chosen[1]["g/input_ids"]) < 16
    batch = Collator([encoding], source=source)(chosen)
    assert batch["labels"].dtype == torch.int64
    for n, row in enumerate(chosen):
        real = batch["attention_mask"][n].bool()
        ids = row["g/input_ids"]
        assert batch["labels"][n][real].tolist() == [*ids[1:], -100]
        assert batch["labels"][n][~real].eq(-100).all()


# ── masked words ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_masks_are_a_function_of_seed_epoch_and_row(tmp_path: Path, wordpiece: Any) -> None:
    """Whatever the batch and the process; another epoch draws others, evaluation always those of epoch 0."""
    source, found = opened(tmp_path, mask=0.15, block=32)
    encodings = [Encoding("b", wordpiece, 32)]
    rows = list(encode(found.splits["train"], encodings, source=source))
    before = numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    collator = Collator(encodings, source=source, seed=3, training=True)
    whole = collator(rows)
    assert torch.equal(collator([rows[5], rows[2]])["labels"][0], whole["labels"][5])
    assert torch.equal(pickle.loads(pickle.dumps(collator))(rows)["input_ids"], whole["input_ids"])
    assert (numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    collator.set_epoch(1)
    assert not torch.equal(collator(rows)["labels"], whole["labels"])
    collator.set_epoch(0)
    assert torch.equal(collator(rows)["labels"], whole["labels"])
    other = Collator(encodings, source=source, seed=4, training=True)
    assert not torch.equal(other(rows)["labels"], whole["labels"])
    evaluating = Collator(encodings, source=source, seed=3)
    evaluating.set_epoch(7)
    assert torch.equal(evaluating(rows)["labels"], whole["labels"])


def test_what_masks_look_like(wordpiece: Any) -> None:
    """15% of the tokens, 80% of them masked, 10% another, 10% the same; never a special one; labels are what was there."""
    ordinary = sorted(set(wordpiece.get_vocab().values()) - set(wordpiece.all_special_ids))
    generator = numpy.random.default_rng(0)
    rows = [[2, *generator.choice(ordinary, 100).tolist(), 1, 3, *[0] * 5] for _ in range(400)]
    inputs, labels = Masks.of(wordpiece, 0.15).draw(rows, (), 1, 0, range(400))
    ids, made, wanted = map(numpy.array, (rows, inputs, labels))
    guessed = wanted != -100
    assert guessed.sum(1).tolist() == [15] * 400
    assert (wanted[guessed] == ids[guessed]).all()
    assert (made[~guessed] == ids[~guessed]).all()
    assert not guessed[:, [0, *range(101, 108)]].any()
    shares = [
        (made[guessed] == wordpiece.mask_token_id).mean(),
        (made[guessed] == ids[guessed]).mean(),
    ]
    assert shares == pytest.approx([0.8, 0.1 + 0.1 / len(ordinary)], abs=0.015)
    stand_ins = set(made[guessed & (made != ids) & (made != wordpiece.mask_token_id)].tolist())
    assert stand_ins <= set(ordinary)
    assert len(stand_ins) > 0.9 * len(ordinary)


def test_a_short_row_has_one_word_to_guess(wordpiece: Any) -> None:
    """And one of special tokens alone has none."""
    _, labels = Masks.of(wordpiece, 0.15).draw([[2, 9, 3], [2, 3]], (), 0, 0, [0, 1])
    assert labels == [[-100, 9, -100], [-100, -100]]


def test_several_tokenizers_guess_the_same_words(tmp_path: Path, wordpiece: Any) -> None:
    """Words are masked as a whole, in both encodings the same."""
    source, found = opened(tmp_path, mask=0.2, block=24)
    encodings = [Encoding("b", wordpiece, 24), Encoding("g", byte_level(LINES, 280, mask=True), 60)]
    rows = encode(found.splits["train"], encodings, source=source, words=True)
    batch = Collator(encodings, source=source, words=True, training=True)(list(rows))
    seen = 0
    for n, row in enumerate(rows):
        guessed = {}
        for key in "bg":
            of, labels = row[f"{key}/word_of"], batch[key]["labels"][n].tolist()
            words = {word for word, label in zip(of, labels, strict=False) if label >= 0}
            for word, label in zip(of, labels, strict=False):
                assert (label >= 0) == (word in words), "no word is masked in part"
            guessed[key] = words
        assert guessed["b"] == guessed["g"]
        assert len(guessed["b"]) == max(1, round(0.2 * len(row["b/words"])))
        seen += len(guessed["b"])
    assert seen > len(rows)
    assert "word_of" not in batch["b"]


# ── augmentation ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_blocks_change_in_training(tmp_path: Path, wordpiece: Any) -> None:
    """Tokens between the special ones, another time in every epoch; labels fit what is left."""
    source, found = opened(tmp_path, block=24, augment=(Deleting(p=0.3),))
    encodings = [Encoding("b", wordpiece, 24)]
    rows = list(encode(found.splits["train"], encodings, source=source))
    training = Collator(encodings, source=source, training=True)
    batch = training(rows[:4])
    real = batch["attention_mask"].sum(1)
    assert (real < 24).all()
    for n, row in enumerate(rows[:4]):
        kept = batch["input_ids"][n, : real[n]].tolist()
        assert (kept[0], kept[-1]) == (wordpiece.cls_token_id, wordpiece.sep_token_id)
        left = iter(row["b/input_ids"])
        assert all(token in left for token in kept), "what is kept is in its order"
        assert batch["labels"][n, : real[n]].tolist() == [*kept[1:], -100]
    training.set_epoch(1)
    assert not torch.equal(training(rows[:4])["attention_mask"].sum(1), real)
    plain = Collator(encodings, source=source)(rows[:4])
    assert plain["input_ids"].tolist() == [row["b/input_ids"] for row in rows[:4]]
    with pytest.raises(SourceFault) as caught:
        encode(found.splits["train"], [*encodings, Encoding("g", byte_level([]), 64)], source=source)
    assert (caught.value.code, caught.value.field) == ("B410", "augment")


# ── real data ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_wikitext(shared_data: Path) -> None:
    """As many words as its description says; blocks hold them all."""
    source = Text(train="train.txt.gz", dev="dev.txt.gz", mask=0.15)
    found = open_examples(source, shared_data / "wikitext2")
    # its tokens are those between blanks, and one for the end of each line, empty ones too
    with gzip.open(shared_data / "wikitext2" / "dev.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().count("\n")
    words = sum(len(text.split()) for text in found.splits["dev"]["text_0"][:])
    assert words + lines == 217_646
    dev = found.splits["dev"].select(range(300))
    encoding = Encoding("b", train_wordpiece(dev["text_0"][:], 2000), 128)
    rows = encode(dev, [encoding], source=source)
    assert set(row_lengths(rows)[:-1]) == {128}
    ids = encoding.tokenizer(dev["text_0"][:], add_special_tokens=False)["input_ids"]
    assert sum(row_lengths(rows)) - 2 * len(rows) == sum(map(len, ids))
    labels = Collator([encoding], source=source)([rows[n] for n in range(16)])["labels"]
    assert ((labels >= 0).sum(1) - 0.15 * 126).abs().max() < 3
