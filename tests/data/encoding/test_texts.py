"""Words and their first tokens: the axis on which tokenizers agree; texts that change in training."""

from __future__ import annotations

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brewgraph.data.encoding.encode import Collator, Encoding, encode, train_wordpiece
from brewgraph.data.encoding.texts import NO_SPAN, first_tokens, word_spans, words_of_tokens
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.settings.augmentations import Deleting, Masking
from brewgraph.recipe.settings.data_sources import Files
from tests.data.texts import MANNERS, byte_level

TEXTS = ["The unbelievable cats", "战国 wu 三杰!", "one"]
PAIRS = ["a dog", "猫", "two three four"]


def rows_of(texts: list[str], others: list[str] | None = None) -> datasets.Dataset:
    """A split as `open_examples` makes it."""
    columns: dict[str, list] = {"text_0": texts, **({"text_1": others} if others else {})}
    return datasets.Dataset.from_dict({**columns, "index": list(range(len(texts)))})


@given(st.text(alphabet="ab猫科 \t\n.", max_size=20))
def test_spans_are_the_words(text: str) -> None:
    """Together with white space they are the whole text, in its order."""
    spans = word_spans(text)
    assert "".join(text[a:b] for a, b in spans) == "".join(text.split())
    assert spans == sorted(spans)


def test_words_and_their_tokens() -> None:
    """Tokens with the blank before them, pieces, tokens without characters, tokens over two words, a blank alone."""
    spans = word_spans("New York x")
    offsets = [NO_SPAN, (0, 2), (2, 3), (3, 6), (6, 8), (8, 9), (9, 10), NO_SPAN]
    assert words_of_tokens(spans, offsets) == [-1, 0, 0, 1, 1, 2, 2, -1]
    assert words_of_tokens(spans, [(0, 8), (8, 10)]) == [0, 2]
    assert words_of_tokens(word_spans("a  b"), [(0, 1), (1, 2), (2, 3), (3, 4)]) == [0, -1, 1, 1]
    assert words_of_tokens(word_spans("東 a"), [NO_SPAN, (0, 0), (0, 1), (2, 2), (2, 3)]) == [-1, 0, 0, 1, 1]
    assert first_tokens([-1, 0, 0, 2], 4) == [1, -1, 3, -1]


@pytest.mark.parametrize("name", MANNERS)
def test_words_of_texts_begin_where_the_tokenizer_says(name: str) -> None:
    """For texts whose words are those of the tokenizer, too: at the first token of each value of `word_ids()`."""
    tokenizer = MANNERS[name]()
    if len({word for word in tokenizer("the 東 was").word_ids() if word is not None}) < 3:
        pytest.skip("it does not tell the words of a text")
    for text in ("the 東 was 京 it", "東 the 京", "tower was"):
        (row,) = encode(rows_of([text]), [Encoding("m", tokenizer, 64)], words=True)
        made = tokenizer(text)
        expected = [made.word_ids().index(word) for word in range(len(text.split()))]
        assert row["m/words"] == expected, text


def test_words_of_pairs_agree() -> None:
    """Those of the first text, then those of the second; Chinese characters are words; each is at its first token."""
    wordpiece = train_wordpiece([*TEXTS, *PAIRS] * 3, 70)
    encodings = [Encoding("b", wordpiece, 64), Encoding("g", byte_level(TEXTS[:1], 300), 64, left=True)]
    rows = encode(rows_of(TEXTS, PAIRS), encodings, words=True)
    batch = Collator(encodings, words=True)(list(rows))
    for n, (text, other) in enumerate(zip(TEXTS, PAIRS, strict=True)):
        words = [t[a:b] for t in (text, other) for a, b in word_spans(t)]
        for key, encoding in zip("bg", encodings, strict=True):
            places = batch[key]["words"][n]
            assert (places >= 0).sum() == len(words)
            for word, place in zip(words, places.tolist(), strict=False):
                token = encoding.tokenizer.decode([batch[key]["input_ids"][n, place].item()]).strip().lower()
                assert token == "[unk]" or token == "�" or word.lower().startswith(token)
    assert batch["b"]["words"].shape == batch["g"]["words"].shape == (3, 7)
    with pytest.raises(ValueError, match="words=True"):
        Collator(encodings, words=True)(list(encode(rows_of(TEXTS), encodings)))


def test_words_that_are_cut_off() -> None:
    """-1, in the encoding that cut them; bytes begin a word with the blank before it."""
    encodings = [Encoding("b", train_wordpiece(TEXTS * 5, 99), 4), Encoding("g", byte_level([]), 64)]
    batch = Collator(encodings, words=True)(list(encode(rows_of(["one the one the"]), encodings, words=True)))
    assert batch["b"]["words"].tolist() == [[1, 2, -1, -1]]
    assert batch["g"]["words"].tolist() == [[0, 3, 7, 11]]


# ── augmentation ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_texts_change_in_training_alone() -> None:
    """The same change for every tokenizer, another in every epoch, words and masks with it; nothing in evaluation."""
    texts = [" ".join(f"w{n}x{i}" for i in range(20)) for n in range(6)]
    wordpiece = train_wordpiece(texts, 200)
    gpt = byte_level(texts, 400, mask=True)
    encodings = [Encoding("b", wordpiece, 200), Encoding("g", gpt, 200)]
    source = Files(train="", label=None, augment=(Deleting(p=0.3), Masking(p=0.2)))
    rows = list(encode(rows_of(texts), encodings, source=source, words=True))
    training = Collator(encodings, source=source, words=True, seed=5, training=True)
    batch = training(rows)
    for n, text in enumerate(texts):
        said = gpt.decode(batch["g"]["input_ids"][n][batch["g"]["attention_mask"][n].bool()])
        kept = said.replace("<mask>", " <mask> ").split()
        assert 0 < len(kept) < 20
        assert set(kept) - {"<mask>"} <= set(text.split())
        assert (batch["g"]["words"][n] >= 0).sum() == (batch["b"]["words"][n] >= 0).sum() == len(kept)
        masked = (batch["b"]["input_ids"][n] == wordpiece.mask_token_id).sum()
        assert masked == kept.count("<mask>")
    assert torch.equal(training(rows[3:4])["index"], torch.tensor([3]))
    alone = training(rows[3:4])["g"]["input_ids"][0]
    assert torch.equal(alone, batch["g"]["input_ids"][3][batch["g"]["attention_mask"][3].bool()])
    training.set_epoch(1)
    assert not torch.equal(training(rows)["g"]["attention_mask"].sum(1), batch["g"]["attention_mask"].sum(1))
    evaluating = Collator(encodings, source=source, words=True, seed=5)(rows)
    assert gpt.decode(evaluating["g"]["input_ids"][0][evaluating["g"]["attention_mask"][0].bool()]) == texts[0]
    with pytest.raises(SourceFault) as caught:
        encode(rows_of(texts), [Encoding("g", byte_level([]), 9)], source=source)
    assert (caught.value.code, caught.value.field) == ("B410", "augment")
