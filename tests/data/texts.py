"""What tests of encodings share: tokenizers learnt from a few texts, of two manners, and files to read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from brewgraph.data.examples import open_examples
from brewgraph.diagnostics import SourceFault

END = "<|endoftext|>"


def byte_level(texts: Iterable[str], size: int = 400, *, mask: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer in GPT-2's manner: bytes, a space before a word, no special tokens around a text."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [END, "<mask>"] if mask else [END]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END,
        model_input_names=["input_ids", "attention_mask"],
        **({"mask_token": "<mask>"} if mask else {}),
    )


def fault(source: object, folder: Path) -> SourceFault:
    """What is wrong with a source."""
    with pytest.raises(SourceFault) as caught:
        open_examples(source, folder)
    return caught.value
