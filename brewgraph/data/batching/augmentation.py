"""Augmentation of texts, anew in every epoch: words masked, deleted, cut to an n-gram, or reordered.

The five are those of TextBrewer (Yang et al. 2020, `data_utils`), after Tang et al. 2019 (masking, n-gram sampling) and
Lample et al. 2018 (dropping and shuffling words). Each is a pure function of a sequence, its parameters and a
generator, and gives a new list. A sequence never becomes empty, and one that is too short stays unchanged.

They work on the words of a text, before any tokenizer, so teacher and student see the same change whatever their
tokenizers are, and special tokens stay. The texts of a pair are changed separately. Token ids without a text (a
language model's blocks) are changed by `augment_ids`, between their special tokens.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy
from transformers import PreTrainedTokenizerBase

from brewgraph.data.batching.order import derive_seed
from brewgraph.diagnostics import SourceFault
from brewgraph.recipe.label_types import LabelType
from brewgraph.recipe.settings.augmentations import (
    AUGMENTATIONS,
    Deleting,
    LongDisorder,
    Masking,
    NgramSampling,
    ShortDisorder,
)
from brewgraph.recipe.settings.base import Settings

W = TypeVar("W")
"""A word or a token id."""

_ORDERS = ((1, 0, 2), (2, 1, 0), (2, 0, 1), (1, 2, 0))
"""What three words become: bac, cba, cab, bca."""

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_IDEOGRAPH = re.compile(rf"[{_UNSPACED}]")


# ── the five ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def masking(words: Sequence[W], generator: numpy.random.Generator, *, p: float, mask: W) -> list[W]:
    """Each word replaced by `mask` with probability `p`.

    >>> masking(["a", "b"], numpy.random.default_rng(0), p=1, mask="[MASK]")
    ['[MASK]', '[MASK]']
    """
    chosen = generator.random(len(words)) < p
    return [mask if masked else word for word, masked in zip(words, chosen, strict=True)]


def deleting(words: Sequence[W], generator: numpy.random.Generator, *, p: float) -> list[W]:
    """Each word left out with probability `p`; where that leaves none, one that is drawn stays.

    >>> deleting(["a"], numpy.random.default_rng(0), p=1)
    ['a']
    """
    kept = generator.random(len(words)) >= p
    if len(words) and not kept.any():
        kept[generator.integers(len(words))] = True
    return [word for word, stays in zip(words, kept, strict=True) if stays]


def ngram_sampling(
    words: Sequence[W],
    generator: numpy.random.Generator,
    *,
    p: float,
    n: Sequence[int],
    weights: Sequence[float] | None = None,
) -> list[W]:
    """With probability `p` a run of n words, its place drawn evenly; n is drawn by `weights`, evenly without them.

    A text that is shorter than the n drawn stays whole.

        >>> ngram_sampling(["a", "b"], numpy.random.default_rng(0), p=1, n=[7])
        ['a', 'b']
    """
    if not len(words) or generator.random() >= p:
        return list(words)
    length = min(int(generator.choice(n, p=_normal(weights))), len(words))
    start = int(generator.integers(len(words) - length + 1))
    return list(words[start : start + length])


def short_disorder(
    words: Sequence[W], generator: numpy.random.Generator, *, p: float, orders: Sequence[float] = (1, 0, 0, 0)
) -> list[W]:
    """From left to right, with probability `p` at each word, it and the next two change places.

    `orders` weighs bac, cba, cab and bca for three words abc; of two words that are left at the end the places are
    swapped. After bac it goes on at the third word, after the others behind it: no word is moved twice.

        >>> short_disorder(["a", "b", "c", "d"], numpy.random.default_rng(0), p=1)
        ['b', 'a', 'd', 'c']
    """
    made, at = list(words), 0
    normal = _normal(orders)
    starts = generator.random(len(words)) < p
    kinds = generator.choice(len(_ORDERS), size=len(words), p=normal)
    while at < len(made) - 1:
        if not starts[at]:
            at += 1
        elif kinds[at] == 0 or at == len(made) - 2:
            made[at], made[at + 1] = made[at + 1], made[at]
            at += 2
        else:
            made[at : at + 3] = [made[at + i] for i in _ORDERS[kinds[at]]]
            at += 3
    return made


def long_disorder(words: Sequence[W], generator: numpy.random.Generator, *, p: float, length: float) -> list[W]:
    """From left to right, with probability `p` at each word, the two halves of the span that begins there are swapped.

    A span has `length` words, rounded up to an even number; a `length` up to 1 is a share of the text, rounded down
    first. No word is moved twice, and a text that is shorter than a span stays as it is.

        >>> long_disorder([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], numpy.random.default_rng(0), p=1, length=0.4)
        [2, 3, 0, 1, 6, 7, 4, 5, 8, 9, 10]
    """
    half = (int(length * len(words) if length <= 1 else length) + 1) // 2
    made, at = list(words), 0
    starts = generator.random(len(words)) < p
    while half and at <= len(made) - 2 * half:
        if starts[at]:
            middle, end = at + half, at + 2 * half
            made[at:end] = made[middle:end] + made[at:middle]
            at = end
        else:
            at += 1
    return made


def _normal(weights: Sequence[float] | None) -> list[float] | None:
    return None if weights is None else [weight / sum(weights) for weight in weights]


# ── all settings of a data set ─────────────────────────────────────────────────────────────────────────────────────


def augment(
    words: Sequence[W],
    settings: Sequence[Settings],
    *,
    seed: int,
    epoch: int,
    example: int,
    mask: W,
    part: int = 0,
) -> list[W]:
    """The words after each augmentation of `settings`, in their order.

    Everything random is a function of (seed, epoch, example, part) and of how many words there are; `example` is the
    row's number, `part` which text of a pair this is. `mask` takes the place of masked words and has no influence on
    which they are: called once for each tokenizer, with its own mask token, the changes are the same.
    """
    generator = numpy.random.default_rng(derive_seed(seed, "augment", epoch, example, part))
    made = list(words)
    for setting in settings:
        match setting:
            case Masking():
                made = masking(made, generator, p=setting.p, mask=mask)
            case Deleting():
                made = deleting(made, generator, p=setting.p)
            case NgramSampling():
                made = ngram_sampling(made, generator, p=setting.p, n=setting.n, weights=setting.weights)
            case ShortDisorder():
                made = short_disorder(made, generator, p=setting.p, orders=setting.orders)
            case LongDisorder():
                made = long_disorder(made, generator, p=setting.p, length=setting.length)
            case _:
                raise ValueError(f"`{type(setting).__name__}` is none of {', '.join(AUGMENTATIONS)}")
    return made


def augment_texts(
    texts: Sequence[str], settings: Sequence[Settings], *, seed: int, epoch: int, example: int, mask: str
) -> list[str]:
    """The texts of one example, each changed by itself; one that nothing happens to keeps its white space too."""
    made = []
    for part, text in enumerate(texts):
        words = split_words(text)
        changed = augment(words, settings, seed=seed, epoch=epoch, example=example, mask=mask, part=part)
        made.append(text if changed == words else join_words(changed))
    return made


def augment_ids(
    ids: Sequence[int],
    settings: Sequence[Settings],
    *,
    seed: int,
    epoch: int,
    example: int,
    mask: int,
    special: Collection[int],
) -> list[int]:
    """Token ids changed between their special tokens, which all stay, in their order; each stretch by itself."""
    made: list[int] = []
    stretches = itertools.groupby(ids, key=lambda token: token in special)
    for part, (is_special, stretch) in enumerate(stretches):
        tokens = list(stretch)
        if not is_special:
            tokens = augment(tokens, settings, seed=seed, epoch=epoch, example=example, mask=mask, part=part)
        made += tokens
    return made


def split_words(text: str) -> list[str]:
    """Words at white space, and each Chinese or Japanese character as a word of its own.

    >>> split_words("the cat's 猫科 tail")
    ['the', "cat's", '猫', '科', 'tail']
    """
    return _WORD.findall(text)


def join_words(words: Sequence[str]) -> str:
    """A text of these words, with a space between two unless both are Chinese or Japanese characters.

    >>> join_words(["the", "cat's", "猫", "科", "tail"])
    "the cat's 猫科 tail"
    """
    made = []
    for i, word in enumerate(words):
        together = i and _IDEOGRAPH.match(word) and _IDEOGRAPH.match(words[i - 1])
        made.append(word if i == 0 or together else f" {word}")
    return "".join(made)


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_augmentations(label_type: LabelType, settings: Sequence[Settings]) -> None:
    """Raise `SourceFault` B410 where labels would no longer belong to their words."""
    if settings and label_type.marks:
        name = next(name for name, kind in AUGMENTATIONS.items() if kind is type(settings[0]))
        message = f"the data has {label_type.marks}, and `{name}` moves or removes words under them"
        help = "leave `augment` out here: it is for data with one label per text, or for language models"
        raise SourceFault("B410", message, help=help, field="augment")


def mask_of(tokenizer: PreTrainedTokenizerBase, settings: Sequence[Settings]) -> str:
    """The mask token of a tokenizer, empty where nothing is masked; raises `SourceFault` B410 where it has none."""
    if not any(isinstance(setting, Masking) for setting in settings):
        return ""
    if tokenizer.mask_token is None:
        message = f"`masking` needs a mask token, and the tokenizer `{type(tokenizer).__name__}` has none"
        help = "take `deleting` instead, or set the tokenizer's `mask_token` and save it again"
        raise SourceFault("B410", message, help=help, field="augment")
    return str(tokenizer.mask_token)
