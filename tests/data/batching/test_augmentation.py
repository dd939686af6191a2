"""Words masked, left out, cut down and out of order: at the rates asked for, the same again, and never nothing left."""

from __future__ import annotations

import doctest
from collections import Counter
from collections.abc import Callable

import numpy
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from brewgraph.data.batching import augmentation
from brewgraph.data.batching.augmentation import (
    augment,
    augment_ids,
    augment_texts,
    check_augmentations,
    deleting,
    join_words,
    long_disorder,
    mask_of,
    masking,
    ngram_sampling,
    short_disorder,
    split_words,
)
from brewgraph.data.encoding.encode import train_wordpiece
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.recipe.settings.augmentations import Deleting, LongDisorder, Masking, NgramSampling, ShortDisorder
from brewgraph.recipe.settings.base import Settings

ALL = (Masking(), Deleting(), NgramSampling(), ShortDisorder(), LongDisorder(length=4))
ALWAYS = (Masking(p=1), Deleting(p=1), NgramSampling(p=1), ShortDisorder(p=1), LongDisorder(p=1, length=2))
LONG = [f"w{i}" for i in range(20_000)]


def rng(seed: int = 0) -> numpy.random.Generator:
    """A generator of this seed."""
    return numpy.random.default_rng(seed)


def share_of(outcomes: Callable[[numpy.random.Generator], object], times: int = 4000) -> dict[object, float]:
    """How often each outcome comes, of so many draws from one generator."""
    generator = rng(3)
    counts = Counter(outcomes(generator) for _ in range(times))
    return {outcome: count / times for outcome, count in counts.items()}


def test_the_examples_in_the_docstrings() -> None:
    """They are true."""
    assert doctest.testmod(augmentation).failed == 0


# ── the five ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_masking_masks_at_the_rate_and_nothing_else() -> None:
    """0.15 of 20,000 words give or take four standard deviations; the others stay where they are."""
    made = masking(LONG, rng(), p=0.15, mask="[MASK]")
    masked = [i for i, word in enumerate(made) if word == "[MASK]"]
    assert abs(len(masked) / len(LONG) - 0.15) < 4 * (0.15 * 0.85 / len(LONG)) ** 0.5
    assert [word for i, word in enumerate(LONG) if i not in set(masked)] == [w for w in made if w != "[MASK]"]
    assert masking(LONG, rng(), p=0, mask="[MASK]") == LONG


def test_deleting_deletes_at_the_rate_and_keeps_the_order() -> None:
    """0.2 of 20,000 words are gone, the others in their order."""
    made = deleting(LONG, rng(), p=0.2)
    assert abs(1 - len(made) / len(LONG) - 0.2) < 4 * (0.2 * 0.8 / len(LONG)) ** 0.5
    assert made == sorted(made, key=lambda word: int(word[1:]))
    assert deleting(LONG, rng(), p=0) == LONG


def test_deleting_all_leaves_one_word_of_any_place() -> None:
    """Where chance leaves nothing, one word stays, each as often as the others."""
    shares = share_of(lambda generator: tuple(deleting(["a", "b", "c"], generator, p=1)))
    assert set(shares) == {("a",), ("b",), ("c",)}
    assert all(abs(share - 1 / 3) < 0.03 for share in shares.values())


def test_ngrams_are_drawn_by_weight_and_evenly_over_places() -> None:
    """Lengths 1 and 3 at 1 : 3 of the half of the texts that is cut; each place of a length is as likely."""
    words = ["a", "b", "c", "d"]
    shares = share_of(lambda g: tuple(ngram_sampling(words, g, p=0.5, n=[1, 3], weights=[1, 3])), 20_000)
    assert set(shares) == {tuple(words), ("a",), ("b",), ("c",), ("d",), ("a", "b", "c"), ("b", "c", "d")}
    assert abs(shares[tuple(words)] - 0.5) < 0.02
    for word in words:
        assert abs(shares[(word,)] - 0.5 * 0.25 / 4) < 0.006
    assert abs(shares[("a", "b", "c")] - 0.5 * 0.75 / 2) < 0.02


def test_an_ngram_that_is_too_long_is_the_whole_text() -> None:
    """No error where the text is shorter than n."""
    assert ngram_sampling(["a", "b"], rng(), p=1, n=[5]) == ["a", "b"]


@pytest.mark.parametrize(
    ("orders", "made"),
    [((1, 0, 0, 0), "badc"), ((0, 1, 0, 0), "cbad"), ((0, 0, 1, 0), "cabd"), ((0, 0, 0, 1), "bcad")],
)
def test_short_disorders(orders: tuple[float, ...], made: str) -> None:
    """Each of the four at the first word; after three words one is left, which has nothing to change with."""
    assert "".join(short_disorder(list("abcd"), rng(), p=1, orders=orders)) == made


def test_a_short_disorder_of_the_last_two_is_a_swap() -> None:
    """Whatever the order drawn, two words can only be swapped."""
    for orders in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]:
        assert short_disorder(["a", "b"], rng(), p=1, orders=orders) == ["b", "a"]


def test_short_disorder_at_its_rates() -> None:
    """Three words, p = 0.4, bac and cab at 1 : 3, by hand.

    At the first word 0.1 bac and 0.3 cab; else (0.6) the second and third are swapped with 0.4.
    """
    shares = share_of(lambda g: "".join(short_disorder(list("abc"), g, p=0.4, orders=(1, 0, 3, 0))), 20_000)
    expected = {"abc": 0.36, "bac": 0.1, "cab": 0.3, "acb": 0.24}
    assert set(shares) == set(expected)
    assert all(abs(shares[made] - expected[made]) < 0.015 for made in expected)


def test_long_disorder_swaps_halves() -> None:
    """Spans of four from the first word on; an odd length is rounded up; the rest stays."""
    assert long_disorder(list(range(10)), rng(), p=1, length=4) == [2, 3, 0, 1, 6, 7, 4, 5, 8, 9]
    assert long_disorder(list(range(10)), rng(), p=1, length=3) == [2, 3, 0, 1, 6, 7, 4, 5, 8, 9]
    assert long_disorder(list(range(4)), rng(), p=1, length=1) == [2, 3, 0, 1]


def test_long_disorder_at_its_rates() -> None:
    """Five words, spans of four, p = 0.3: at the first word 0.3, else at the second 0.7 · 0.3."""
    shares = share_of(lambda g: "".join(long_disorder(list("abcde"), g, p=0.3, length=4)), 20_000)
    expected = {"cdabe": 0.3, "adebc": 0.21, "abcde": 0.49}
    assert set(shares) == set(expected)
    assert all(abs(shares[made] - expected[made]) < 0.015 for made in expected)


def test_long_disorder_leaves_short_texts_alone() -> None:
    """Shorter than a span, or a share of it that holds no word."""
    assert long_disorder(["a", "b", "c"], rng(), p=1, length=20) == ["a", "b", "c"]
    assert long_disorder(["a", "b"], rng(), p=1, length=0.4) == ["a", "b"]


# ── all together ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("setting", [*ALL, *ALWAYS], ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_short_inputs(setting: Settings, count: int) -> None:
    """Nothing fails; what was not empty stays so; no word comes from nowhere; the input is left as it was."""
    words = LONG[:count]
    for example in range(50):
        made = augment(words, [setting], seed=1, epoch=0, example=example, mask="[MASK]")
        assert bool(made) == bool(words)
        assert set(made) <= {*words, "[MASK]"}
    assert words == LONG[:count]


@given(st.lists(st.integers(), max_size=30), st.integers(0, 2**63), st.integers(0, 9), st.integers(0, 10**6))
def test_all_in_a_row(words: list[int], seed: int, epoch: int, example: int) -> None:
    """All five, one after the other, on anything: the same again, never empty, and words come at most as often."""
    ways = {"seed": seed, "epoch": epoch, "example": example}
    made = augment(words, ALL, **ways, mask=-1)
    assert made == augment(words, ALL, **ways, mask=-1)
    assert bool(made) == bool(words)
    assert not Counter(x for x in made if x != -1) - Counter(words)


def test_it_follows_seed_epoch_example_and_part() -> None:
    """The same four give the same words, another of any of them gives others."""
    base = {"seed": 7, "epoch": 2, "example": 5, "part": 0}
    words = LONG[:200]
    made = augment(words, ALL[:2], **base, mask="[MASK]")
    assert made == augment(words, ALL[:2], **base, mask="[MASK]")
    for key in base:
        assert made != augment(words, ALL[:2], **{**base, key: base[key] + 1}, mask="[MASK]")


def test_no_global_generator_is_touched() -> None:
    """Numpy's global state stays what it is."""
    before = numpy.random.get_state()[1].tolist()
    augment(LONG[:100], ALL, seed=1, epoch=1, example=1, mask="[MASK]")
    assert numpy.random.get_state()[1].tolist() == before


def test_the_mask_token_does_not_change_what_is_masked() -> None:
    """Two tokenizers see the same change, each with its own mask token."""
    ways = {"seed": 1, "epoch": 0, "example": 3}
    one = augment(LONG[:100], ALL, **ways, mask="[MASK]")
    other = augment(LONG[:100], ALL, **ways, mask="<mask>")
    assert "[MASK]" in one
    assert [word.replace("[MASK]", "<mask>") for word in one] == other


def test_the_order_of_augmentations_counts() -> None:
    """Masks that are moved are no masks of moved words."""
    ways = {"seed": 1, "epoch": 0, "example": 3, "mask": "[MASK]"}
    pair = (Masking(p=0.3), ShortDisorder(p=0.5))
    assert augment(LONG[:100], pair, **ways) != augment(LONG[:100], pair[::-1], **ways)


def test_settings_of_another_sort_are_refused() -> None:
    """What is no augmentation is an error of the caller's."""
    with pytest.raises(ValueError, match="`Settings` is none of masking, deleting"):
        augment(["a"], [Settings()], seed=0, epoch=0, example=0, mask="")


def test_texts_of_a_pair_are_changed_each_by_itself() -> None:
    """Words stay in their text, and equal texts do not change alike."""
    first, second = " ".join(LONG[:50]), " ".join(LONG[50:100])
    ways = {"seed": 1, "epoch": 0, "example": 3, "mask": "[MASK]"}
    one, two = augment_texts([first, second], ALL, **ways)
    assert set(one.split()) <= {*LONG[:50], "[MASK]"}
    assert set(two.split()) <= {*LONG[50:100], "[MASK]"}
    one, two = augment_texts([first, first], ALL[:2], **ways)
    assert one != two


def test_a_text_that_nothing_happens_to_stays_as_it_is() -> None:
    """White space included; a blank text stays blank."""
    texts = ["  two  spaces\tand a tab\n", " "]
    assert augment_texts(texts, [Masking(p=0)], seed=1, epoch=0, example=3, mask="[MASK]") == texts
    assert augment_texts([" "], ALWAYS, seed=1, epoch=0, example=3, mask="[MASK]") == [" "]


def test_the_tokenizer_reads_the_mask() -> None:
    """A masked word is one mask token of the tokenizer, whatever it was."""
    tokenizer = train_wordpiece(["the cat sat on the mat"] * 3, 60)
    (text,) = augment_texts(["the cats sat"], [Masking(p=1)], seed=1, epoch=0, example=3,
                            mask=mask_of(tokenizer, [Masking()]))  # fmt: skip
    assert tokenizer(text)["input_ids"] == [
        tokenizer.cls_token_id,
        *[tokenizer.mask_token_id] * 3,
        tokenizer.sep_token_id,
    ]


def test_a_tokenizer_without_a_mask_token() -> None:
    """It is a fault only where something is masked."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    bare = PreTrainedTokenizerFast(tokenizer_object=made)
    assert mask_of(bare, [Deleting()]) == ""
    with pytest.raises(SourceFault, match="needs a mask token") as fault:
        mask_of(bare, [Deleting(), Masking()])
    assert (fault.value.code, fault.value.field) == ("B410", "augment")
    assert "take `deleting` instead" in fault.value.help


@given(st.text(alphabet="ab 猫科カ\n", max_size=30))
def test_words_split_and_joined(text: str) -> None:
    """Nothing but white space is lost, and splitting again gives the same words."""
    words = split_words(text)
    assert "".join(words) == "".join(text.split())
    assert split_words(join_words(words)) == words


def test_ids_change_between_special_tokens() -> None:
    """Of `[CLS] a [SEP] b [SEP] [PAD]` the special ids stay, in order, and no id crosses them."""
    ids = [101, *range(1000, 1030), 102, *range(2000, 2030), 102, 0, 0]
    ways = {"seed": 1, "epoch": 0, "mask": 103, "special": {0, 101, 102}}
    changed = 0
    for example in range(20):
        made = augment_ids(ids, ALL, **ways, example=example)
        assert [x for x in made if x < 103] == [101, 102, 102, 0, 0]
        cut = made.index(102)
        assert set(made[1:cut]) <= {*range(1000, 1030), 103}
        assert set(made[cut + 1 : made.index(102, cut + 1)]) <= {*range(2000, 2030), 103}
        changed += made != ids
    assert changed > 15


@pytest.mark.parametrize("label_type", ["class", "classes", "value", "masked", "next", ""])
def test_labels_of_whole_texts_allow_it(label_type: str) -> None:
    """So do no labels at all."""
    check_augmentations(LABEL_TYPES[label_type], ALL)


@pytest.mark.parametrize(("label_type", "what"), [("tags", "a tag for each word"), ("spans", "answers at places")])
def test_labels_of_places_do_not(label_type: str, what: str) -> None:
    """The fault names the augmentation and what to do; without any there is none."""
    check_augmentations(LABEL_TYPES[label_type], ())
    with pytest.raises(SourceFault, match=what) as fault:
        check_augmentations(LABEL_TYPES[label_type], (ShortDisorder(),))
    assert (fault.value.code, fault.value.field) == ("B410", "augment")
    assert "`short_disorder`" in fault.value.message
    assert "leave `augment` out" in fault.value.help
