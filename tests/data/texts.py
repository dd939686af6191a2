"""What tests of encodings share: tokenizers learnt from a few texts, of two manners, and files to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from brewgraph.data.encoding.encode import train_wordpiece
from brewgraph.data.sources.examples import open_examples
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


_LEARNT = ["the tower was the cat's", "a tower it was the the"] * 9


def unigram(scheme: str = "always", *, split: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer in SentencePiece's manner: `▁` for a blank, by itself before characters that it has not learnt."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=40, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(_LEARNT, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def llama() -> PreTrainedTokenizerFast:
    """A tokenizer in Llama's manner: one stretch of `▁` and letters, merged by pairs."""
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    learner.train_from_iterator(
        _LEARNT, trainers.BpeTrainer(vocab_size=40, special_tokens=special, show_progress=False)
    )
    learner.model.unk_token = "<unk>"
    learner.pre_tokenizer = None
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names: dict[str, Any] = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=learner, **names)


def spaced_bytes(*, trim: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer in RoBERTa's manner with `add_prefix_space`: every word begins with `Ġ`."""
    tokenizer = byte_level(_LEARNT, 300)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    return tokenizer


MANNERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "wordpiece": lambda: train_wordpiece(_LEARNT, 80),
    "unigram": unigram,
    "unigram, first": lambda: unigram("first"),
    "unigram, never": lambda: unigram("never"),
    "unigram, unsplit": lambda: unigram(split=False),
    "llama": llama,
    "bytes": lambda: byte_level(_LEARNT, 300),
    "bytes, spaced": spaced_bytes,
    "bytes, spaced, untrimmed": lambda: spaced_bytes(trim=False),
}
"""A tokenizer of each manner, by its name."""


def fault(source: object, folder: Path) -> SourceFault:
    """What is wrong with a source."""
    with pytest.raises(SourceFault) as caught:
        open_examples(source, folder)
    return caught.value
