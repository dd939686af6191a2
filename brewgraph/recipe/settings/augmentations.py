"""How the texts of a data set are changed while it is trained on: `augment=[masking(p=10%), short_disorder(p=0.1)]`.

One frozen model per augmentation. Their functions are in `brewgraph.data.batching.augmentation`.
Chances are numbers from 0 to 1, or percentages.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from brewgraph.recipe.settings.base import Settings, Share

Chance = Annotated[float, Share, Field(ge=0, le=1)]


class Masking(Settings):
    """`masking(p=10%)`: words replaced by the tokenizer's mask token, each with chance p."""

    positional: ClassVar[tuple[str, ...]] = ("p",)

    p: Chance = Field(default=0.15, description="chance of each word to be masked")


class Deleting(Settings):
    """`deleting(p=10%)`: words left out, each with chance p; one of them always stays."""

    positional: ClassVar[tuple[str, ...]] = ("p",)

    p: Chance = Field(default=0.15, description="chance of each word to be left out")


class NgramSampling(Settings):
    """`ngram_sampling(p=25%, n=[1, 2, 3])`: with chance p nothing of a text but n words that follow each other."""

    positional: ClassVar[tuple[str, ...]] = ("p",)

    p: Chance = Field(default=0.25, description="chance of each text to be cut down")
    n: tuple[PositiveInt, ...] = Field(default=(1, 2, 3, 4, 5), description="how many words may be left", min_length=1)
    weights: tuple[NonNegativeFloat, ...] | None = Field(
        default=None, description="relative frequency of each of `n`; default: all equal"
    )

    @model_validator(mode="after")
    def _fits(self) -> NgramSampling:
        if self.weights is not None and (len(self.weights) != len(self.n) or not sum(self.weights)):
            raise ValueError("`weights` has one number for each of `n`, and not only zeros")
        return self


class ShortDisorder(Settings):
    """`short_disorder(p=10%)`: two or three words that follow each other change places, with chance p at each word.

    `orders` says how often three words a b c become b a c, c b a, c a b and b c a.
    """

    positional: ClassVar[tuple[str, ...]] = ("p",)

    p: Chance = Field(default=0.1, description="chance of each word to begin a disorder")
    orders: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = Field(
        default=(1.0, 0.0, 0.0, 0.0), description="how often a b c becomes bac, cba, cab and bca, in any unit"
    )

    @model_validator(mode="after")
    def _fits(self) -> ShortDisorder:
        if not sum(self.orders):
            raise ValueError("`orders` cannot be only zeros")
        return self


class LongDisorder(Settings):
    """`long_disorder(p=10%, length=20)`: the halves of a span change places, with chance p at each word.

    `length` is a number of words, an odd one rounded up; up to 1 it is a share of the text.
    """

    positional: ClassVar[tuple[str, ...]] = ("p",)

    p: Chance = Field(default=0.1, description="chance of each word to begin such a span")
    length: Annotated[PositiveFloat, Share] = Field(
        default=20.0, description="words in a span; up to 1, its share of the text"
    )


AUGMENTATIONS: dict[str, type[Settings]] = {
    "masking": Masking,
    "deleting": Deleting,
    "ngram_sampling": NgramSampling,
    "short_disorder": ShortDisorder,
    "long_disorder": LongDisorder,
}
