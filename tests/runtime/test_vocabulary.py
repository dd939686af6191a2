"""Losses on logits over a vocabulary run a chunk of tokens at a time: loss and gradients are those of whole logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import brewgraph as bg
from brewgraph.runtime import vocabulary
from brewgraph.runtime.distiller import Distiller
from brewgraph.runtime.layouts import SplitLogits
from tests.small import tokenizer

V = 4200
_BERT = {
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 0,
    "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
_LLAMA = _BERT | {"num_key_value_heads": 2, "head_dim": 8}
_QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (AutoModelForCausalLM, {"n_head": 2, "bos_token_id": 2, "eos_token_id": 3,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "llama": (AutoModelForCausalLM, _LLAMA | {"tie_word_embeddings": False}),
    "gemma2": (AutoModelForCausalLM, _LLAMA | {"final_logit_softcapping": 2.0}),
    "granite": (AutoModelForCausalLM, _LLAMA | {"logits_scaling": 0.5}),
    "cohere": (AutoModelForCausalLM, _LLAMA | {"logit_scale": 0.5}),
    "bert": (AutoModelForMaskedLM, _BERT | _QUIET),
    "roberta": (AutoModelForMaskedLM, _BERT | _QUIET),
    "distilbert": (AutoModelForMaskedLM, {"n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40,
                   "dropout": 0.0, "attention_dropout": 0.0}),
    "opt": (AutoModelForCausalLM, _BERT | {"ffn_dim": 24, "dropout": 0.0, "attention_dropout": 0.0}),
}  # fmt: skip
"""Language models, without dropout: with tied and untied weights, heads that transform before, softcap and scales."""
_SIZES = {"gpt2": ("n_embd", "n_layer"), "distilbert": ("dim", "n_layers")}

SPEC = """brew 1
teacher big = hf("big")
teacher old = hf("old")
student tiny = hf("tiny")
data d = text(train="train.txt", dev="train.txt", {mask}batch=4, max_length=16)
soft = kd(big.logits -> tiny.logits, T={T})
hard = ce(d.labels -> tiny.logits)
loss = {loss}
train {{ steps = 4 }}
"""


def model(kind: str, seed: int, width: int = 16, layers: int = 1, **more: Any) -> PreTrainedModel:
    """A random language model whose logits are far from even."""
    made, settings = SETTINGS[kind]
    width_name, layers_name = _SIZES.get(kind, ("hidden_size", "num_hidden_layers"))
    sizes = {width_name: width, layers_name: layers, "vocab_size": V}
    if kind == "opt":
        sizes |= {"word_embed_proj_dim": width}
    torch.manual_seed(seed)
    net: PreTrainedModel = made.from_config(AutoConfig.for_model(kind, **(settings | sizes | more)))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(5) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn(parameter.shape))
            if name.endswith("bias"):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def project(folder: Path, kind: str, loss: str, T: str = "2", **more: Any) -> Path:
    """A spec with two teachers and a student of one architecture."""
    for name, seed, width in (("big", 1, 24), ("old", 3, 16), ("tiny", 2, 16)):
        if not (folder / name).exists():
            model(kind, seed, width, **more).save_pretrained(folder / name)
            tokenizer().save_pretrained(folder / name)
    (folder / "train.txt").write_text("a tale of two cities\nthe best of times\n" * 8)
    mask = "" if SETTINGS[kind][0] is AutoModelForCausalLM else "mask=15%, "
    spec = folder / "spec.brew"
    spec.write_text(SPEC.format(mask=mask, loss=loss, T=T))
    return spec


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Random tokens with padding, and labels of some of them."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[0, 4:] = 0
    ids = torch.randint(5, V, (3, 9), generator=generator) * mask
    labels = torch.where((torch.rand(3, 9, generator=generator) < 0.4) & mask.bool(), ids.flip(1), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def step(distiller: Distiller, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, terms and gradients of a batch."""
    distiller.zero_grad()
    distiller.progress = progress
    output = distiller(batch())
    output.loss.backward()
    grads = {name: p.grad.clone() for name, p in distiller.named_parameters() if p.grad is not None}
    return output.loss.detach(), output.terms, grads


def assert_same(one: Distiller, other: Distiller, *, progress: float = 0.0, close: float = 1e-6) -> None:
    """Loss, terms and gradients agree; lengths of differences, in parts of the gradient of all parameters."""
    (loss, terms, grads), (expected, others, wanted) = step(one, progress), step(other, progress)
    assert loss.item() == pytest.approx(expected.item(), rel=close)
    assert terms.keys() == others.keys()
    for name, term in terms.items():
        assert term.item() == pytest.approx(others[name].item(), rel=close), name
    assert grads.keys() == wanted.keys()
    length = torch.stack([x.norm() for x in wanted.values()]).norm()
    for name, gradient in grads.items():
        assert (gradient - wanted[name]).norm() <= close * length, name


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tokens at a time."""
    monkeypatch.setattr(vocabulary, "CHUNK", 4 * V)


def both(spec: Path) -> tuple[Distiller, Distiller]:
    """The loss in chunks, and on whole logits."""
    return bg.load(spec).build(), bg.load(spec).build(skip=["split_vocabularies"])


@pytest.mark.parametrize("loss", ["soft", "soft + 0.5 * hard"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_chunks_are_whole_logits(kind: str, loss: str, tmp_path: Path) -> None:
    """Every head, with one loss and with two on the same logits, in fp32."""
    chunks, whole = both(project(tmp_path, kind, loss))
    assert len(chunks.program.decoders) == 2
    assert_same(chunks, whole)
    assert_same(chunks.double(), whole.double(), close=1e-12)
