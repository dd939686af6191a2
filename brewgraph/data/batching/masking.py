"""The tokens of a row to predict, and their replacements (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from transformers import PreTrainedTokenizerBase

from brewgraph.data.batching.order import derive_seed
from brewgraph.data.encoding.texts import IGNORED, require_mask

_MASKED, _OTHER = 0.8, 0.1
"""The shares of the tokens to predict that become the mask, and another token; the others stay."""


@dataclass(frozen=True)
class WordGroups:
    """The word of each token of a row, -1 for none, and the number of words."""

    of: Sequence[int]
    count: int


@dataclass(frozen=True)
class Masks:
    """Masks of a tokenizer: `share` of a row's tokens are predicted, at least one, special tokens never.

    `ordinary` are the ids that may replace a token.
    """

    share: float
    mask: int
    special: numpy.ndarray
    ordinary: numpy.ndarray

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, share: float) -> Masks:
        """Raises `SourceFault` B407 where a tokenizer has no mask token."""
        require_mask(tokenizer)
        special = numpy.array(sorted(set(tokenizer.all_special_ids)), dtype=numpy.int64)
        every = numpy.array(sorted(set(tokenizer.get_vocab().values())), dtype=numpy.int64)
        return cls(share, tokenizer.mask_token_id, special, numpy.setdiff1d(every, special))

    def draw(
        self,
        rows: Sequence[Sequence[int]],
        words: Sequence[WordGroups],
        seed: int,
        epoch: int,
        examples: Sequence[int],
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Inputs and labels of each row, drawn by (seed, epoch, example) alone.

        With `words`, one for each row, words are masked as a whole, the same ones whatever the tokenizer is; without,
        each token by itself.
        """
        made = [
            self._draw(
                numpy.array(ids, dtype=numpy.int64),
                words[n] if words else None,
                numpy.random.default_rng(derive_seed(seed, "mask", epoch, example)),
            )
            for n, (ids, example) in enumerate(zip(rows, examples, strict=True))
        ]
        return [ids for ids, _ in made], [labels for _, labels in made]

    def _draw(
        self, ids: numpy.ndarray, words: WordGroups | None, generator: numpy.random.Generator
    ) -> tuple[list[int], list[int]]:
        free = ~numpy.isin(ids, self.special)
        # the group of each token: itself, or its word; -1 for what is never masked
        places = numpy.flatnonzero(free)
        group_of = numpy.full(len(ids), -1)
        if words is None:
            group_of[places] = numpy.arange(len(places))
            groups = len(places)
        else:
            group_of[places] = numpy.array(words.of)[places]
            groups = words.count
        labels = numpy.full(len(ids), IGNORED)
        if not groups:
            return ids.tolist(), labels.tolist()
        order = generator.permutation(groups)[: max(1, round(self.share * groups))]
        fate = generator.random(groups)
        chosen = numpy.isin(group_of, order) & (group_of >= 0)
        fate_of = fate[numpy.maximum(group_of, 0)]
        labels[chosen] = ids[chosen]
        inputs = ids.copy()
        inputs[chosen & (fate_of < _MASKED)] = self.mask
        other = chosen & (fate_of >= _MASKED) & (fate_of < _MASKED + _OTHER)
        inputs[other] = generator.choice(self.ordinary, size=int(other.sum()))
        return inputs.tolist(), labels.tolist()
