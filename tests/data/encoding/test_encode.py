"""Token ids and padded batches."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import tokenizers
import torch
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from brewgraph.data.encoding.encode import Collator, Encoding, encode, train_wordpiece
from brewgraph.diagnostics import SourceFault, UsageError

TEXTS = [
    "The cat sat on the mat.",
    "A dog sat, too!",
    "Unbelievable cats believe in mats",
    "dogs and cats and mats",
] * 3


@pytest.fixture(scope="module")
def wordpiece() -> PreTrainedTokenizerFast:
    """A small vocabulary."""
    return train_wordpiece(TEXTS, 60)


def gpt_like(**tokens: str) -> PreTrainedTokenizerFast:
    """A tokenizer of words without a padding token, and with no special tokens around a text."""
    vocabulary = {"<unk>": 0, "<|endoftext|>": 1, "the": 2, "cat": 3, "sat": 4, "dog": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=["input_ids", "attention_mask"], **tokens)


def rows_of(text_0: list[str], text_1: list[str] | None = None, label: list[int] | None = None) -> datasets.Dataset:
    """A split as `open_examples` makes it."""
    columns: dict[str, list] = {"text_0": text_0}
    if text_1 is not None:
        columns["text_1"] = text_1
    if label is not None:
        columns["label"] = label
    return datasets.Dataset.from_dict({**columns, "index": list(range(len(text_0)))})


def test_wordpiece_encodes_pairs_as_bert_does(wordpiece: PreTrainedTokenizerFast) -> None:
    """Special tokens and types stand where BERT has them; case does not matter; `##` joins."""
    assert wordpiece.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert wordpiece.pad_token_id == 0
    pair = wordpiece("The cat", "A DOG")
    assert wordpiece.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "the", "cat", "[SEP]", "a", "dog", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert wordpiece("The cat") == wordpiece("the CAT")
    pieces = wordpiece.tokenize("unbelievables")
    assert len(pieces) > 1
    assert all(piece.startswith("##") for piece in pieces[1:])
    assert (
        wordpiece.decode(wordpiece("Unbelievable cats")["input_ids"], skip_special_tokens=True) == "unbelievable cats"
    )
    assert wordpiece.tokenize("x🙂") == ["[UNK]"]


def test_wordpiece_size(wordpiece: PreTrainedTokenizerFast) -> None:
    """The vocabulary has the size asked for where the texts suffice, else all there is to learn; no id is left out."""
    assert len(wordpiece) == 60
    all_of_it = train_wordpiece(TEXTS, 10_000)
    assert 60 < len(all_of_it) < 100
    assert sorted(all_of_it.get_vocab().values()) == list(range(len(all_of_it)))


def test_wordpiece_round_trip(wordpiece: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Saved and loaded, it gives the same ids and knows its special tokens."""
    wordpiece.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.get_vocab() == wordpiece.get_vocab()
    for text in TEXTS:
        assert dict(loaded(text, "another cat")) == dict(wordpiece(text, "another cat"))
    assert loaded.all_special_ids == wordpiece.all_special_ids
    assert (loaded.pad_token, loaded.mask_token, loaded.cls_token) == ("[PAD]", "[MASK]", "[CLS]")


def test_wordpiece_is_the_same_every_time(wordpiece: PreTrainedTokenizerFast) -> None:
    """The trainer's hash tables have another order each time they are made; the vocabulary must not."""
    for _ in range(5):
        assert train_wordpiece(iter(TEXTS), 60).get_vocab() == wordpiece.get_vocab()


def test_encode_columns(wordpiece: PreTrainedTokenizerFast) -> None:
    """Every encoding's columns under its key, label and index kept, the texts gone; lists as long as the example."""
    split = rows_of(["The cat sat", "A dog"], ["on the mat", "too"], label=[1, 0])
    small = Encoding("gpt", gpt_like(pad_token="<unk>"), 4)
    done = encode(split, [Encoding("bert", wordpiece, 64), small])
    assert set(done.column_names) == {
        "bert/input_ids", "bert/token_type_ids", "bert/attention_mask", "gpt/input_ids", "gpt/attention_mask",
        "label", "index",
    }  # fmt: skip
    for number, row in enumerate(split):
        expected = wordpiece(row["text_0"], row["text_1"])
        assert {name: done[number][f"bert/{name}"] for name in expected} == dict(expected)
    assert done["label"][:] == [1, 0]
    assert done["index"][:] == [0, 1]
    assert done.features["bert/input_ids"] == datasets.List(datasets.Value("int32"))
    assert done.cache_files == []


def test_encode_cuts_the_longer_text_first(wordpiece: PreTrainedTokenizerFast) -> None:
    """A pair is cut to `max_length`, special tokens counted, and the short text stays whole."""
    split = rows_of(["cat cat cat cat cat cat"], ["dog"])
    done = encode(split, [Encoding("m", wordpiece, 7)])
    tokens = wordpiece.convert_ids_to_tokens(done[0]["m/input_ids"])
    assert tokens == ["[CLS]", "cat", "cat", "cat", "[SEP]", "dog", "[SEP]"]
    one = encode(rows_of(["cat cat cat cat"]), [Encoding("m", wordpiece, 4)])
    assert wordpiece.convert_ids_to_tokens(one[0]["m/input_ids"]) == ["[CLS]", "cat", "cat", "[SEP]"]


def test_no_room_for_text(wordpiece: PreTrainedTokenizerFast) -> None:
    """B407 with the least that would do."""
    with pytest.raises(SourceFault) as caught:
        encode(rows_of(["cat"], ["dog"]), [Encoding("m", wordpiece, 4)])
    assert (caught.value.code, caught.value.field) == ("B407", "max_length")
    assert caught.value.message == "max_length = 4 leaves no room for text beside 3 special tokens"
    assert caught.value.help == "at least 5 tokens are needed"
    assert len(encode(rows_of(["cat"], ["dog"]), [Encoding("m", wordpiece, 5)])) == 1


def test_one_encoding_gives_a_flat_batch(wordpiece: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]) -> None:
    """Padded to the longest row; the mask is 1 on real tokens alone; labels and index are int64; nothing is printed."""
    encodings = [Encoding("bert", wordpiece, 64)]
    done = encode(rows_of(["the cat sat on the mat", "dog"], label=[3, 0]), encodings)
    batch = Collator(encodings)([done[0], done[1]])
    assert list(batch) == ["input_ids", "token_type_ids", "attention_mask", "labels", "index"]
    lengths = [len(done[number]["bert/input_ids"]) for number in (0, 1)]
    assert batch["input_ids"].shape == (2, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["input_ids"][1, lengths[1] :].eq(0).all()
    assert batch["input_ids"][1, : lengths[1]].tolist() == done[1]["bert/input_ids"]
    assert torch.equal(batch["labels"], torch.tensor([3, 0]))
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert batch["index"].tolist() == [0, 1]
    assert capfd.readouterr() == ("", "")


def test_several_encodings_give_a_nested_batch(wordpiece: PreTrainedTokenizerFast) -> None:
    """Each under its key with its own padding and length; no labels, no such key. Keys may have a slash."""
    encodings = [Encoding("a", wordpiece, 64), Encoding("a/b", gpt_like(eos_token="<|endoftext|>"), 64)]
    done = encode(rows_of(["the cat sat", "dog"]), encodings)
    batch = Collator(encodings)([done[1], done[0]])
    assert list(batch) == ["a", "a/b", "index"]
    assert set(batch["a"]) == {"input_ids", "token_type_ids", "attention_mask"}
    assert set(batch["a/b"]) == {"input_ids", "attention_mask"}
    assert batch["a/b"]["input_ids"].tolist() == [[5, 1, 1], [2, 3, 4]]
    assert batch["a/b"]["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch["a"]["input_ids"].shape == (2, 5)
    assert batch["index"].tolist() == [1, 0]


def test_padding_on_the_left() -> None:
    """Where the encoding asks for it, whatever the tokenizer does by itself."""
    encodings = [Encoding("m", gpt_like(pad_token="<unk>"), 8, left=True)]
    done = encode(rows_of(["the cat", "dog"]), encodings)
    batch = Collator(encodings)([done[0], done[1]])
    assert batch["input_ids"].tolist() == [[2, 3], [0, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 1]]
    right = Collator([Encoding("m", gpt_like(pad_token="<unk>", padding_side="left"), 8)])([done[0], done[1]])
    assert right["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_rows_without_tokens() -> None:
    """One token each, the one for a text's beginning, else for its end; words and labels have no place in them."""
    tokenizer = gpt_like(eos_token="<|endoftext|>", bos_token="<unk>")
    encodings = [Encoding("m", tokenizer, 8), Encoding("n", gpt_like(eos_token="<|endoftext|>"), 8)]
    pairs = rows_of(["", "the", "", " "]).add_column("text_1", ["", "", "cat", ""])
    done = encode(pairs, encodings, words=True)
    assert [len(ids) for ids in done["m/input_ids"]] == [1, 1, 1, 1]
    assert [done[0][name] for name in ("m/input_ids", "m/attention_mask", "m/words")] == [[0], [1], []]
    assert done[3]["n/input_ids"] == [1]
    batch = Collator(encodings, words=True)(list(done))
    assert batch["m"]["attention_mask"].tolist() == [[1]] * 4
    sentences = datasets.Dataset.from_dict({"words": [[], ["the"]], "tags": [[], [2]], "index": [0, 1]})
    row = encode(sentences, encodings[:1])[0]
    assert (row["m/input_ids"], row["m/labels"], row["m/words"]) == ([0], [-100], [])


def test_the_given_tokenizer_stays_as_it_is() -> None:
    """A padding token is set in a copy."""
    tokenizer = gpt_like(eos_token="<|endoftext|>")
    encoding = Encoding("m", tokenizer, 8)
    assert encoding.tokenizer.pad_token_id == 1
    assert tokenizer.pad_token_id is None


def test_a_tokenizer_that_cannot_pad() -> None:
    """B407: neither a padding token nor an end of text."""
    with pytest.raises(SourceFault) as caught:
        Encoding("m", gpt_like(), 8)
    assert (caught.value.code, caught.value.field) == ("B407", "tokenizer")
    assert "has no padding token and no end-of-text token" in caught.value.message
    assert "`pad_token`" in caught.value.help


def test_a_slow_tokenizer() -> None:
    """B407: a tokenizer in Python alone."""

    class Slow(PreTrainedTokenizer):
        """Single characters."""

        vocab_size = 256

        def get_vocab(self) -> dict[str, int]:
            return {chr(number): number for number in range(256)}

        def _tokenize(self, text: str, **_: object) -> list[str]:
            return list(text)

    with pytest.raises(SourceFault) as caught:
        Encoding("m", Slow(), 8)
    assert (caught.value.code, caught.value.field) == ("B407", "tokenizer")
    assert caught.value.message.startswith("`Slow` is a slow tokenizer")


def test_collator_and_rows_must_fit(wordpiece: PreTrainedTokenizerFast) -> None:
    """Keys that differ, and rows encoded with them."""
    encoding = Encoding("a", wordpiece, 8)
    with pytest.raises(ValueError, match=r"keys that differ, not \['a', 'a'\]"):
        Collator([encoding, encoding])
    done = encode(rows_of(["cat"]), [encoding])
    with pytest.raises(UsageError, match="the rows have no token ids for `b`, only `index`, `a/input_ids`"):
        Collator([Encoding("b", wordpiece, 8)])([done[0]])
