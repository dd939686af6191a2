"""Teachers of every architecture end with the last feature that is taken from them, and are loaded no further."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.modeling_utils
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

import brewgraph as bg
from brewgraph.graph.optimize import NAMES as NAMES_OF_PASSES
from brewgraph.inspect.plan_of import savings_of
from brewgraph.models.structure.read_class import dissect
from brewgraph.runtime.distiller import Distiller
from tests.models.test_every_module import ARCHITECTURES
from tests.models.tiny import tiny
from tests.runtime.test_passes import Slices, calls_of
from tests.small import tokenizer

SPEC = """brew 1
teacher big = hf("big")
student tiny = hf(model_type="bert", hidden_size=8, num_hidden_layers=2, num_attention_heads=4, vocab_size=120)
data d = batches("ready", labels=none)
{tap}
loss = {loss}
train {{ steps = 2 }}
"""
HIDDEN = "mse(big.hidden[{}] -> tiny.hidden[1] via linear)"
TAPPED = "mse(t -> tiny.hidden[1] via linear)"
LOSSES = {
    "hidden": ("", HIDDEN.format(1), 1),
    "embeddings": ("", HIDDEN.format(0), 0),
    "attention": ("", "mse(big.attention[1] -> tiny.attention[0])", 2),
}
"""A tap, a loss and how many of the teacher's three layers it needs."""
STACKS = {
    "encoder": ('tap t = big @ "encoder.block.1"[0]', TAPPED, 2),
    "norm": ('tap t = big @ "encoder.final_layer_norm"', TAPPED, 3),
}
"""The same of an encoder-decoder with six layers, whose rows would be those of two stacks."""
CASES = [
    *((kind, *LOSSES[name]) for kind in ARCHITECTURES if kind != "t5" for name in LOSSES),
    *(("t5", *STACKS[name]) for name in STACKS),
]
NAMES = [*(f"{k}-{name}" for k in ARCHITECTURES if k != "t5" for name in LOSSES), *(f"t5-{name}" for name in STACKS)]


def inputs(kind: str) -> dict[str, Tensor]:
    """A batch with padding, and what a decoder gets."""
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6, [1, 1, 1, 1, 0, 0]])
    ids = torch.randint(3, 60, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    return {"input_ids": ids, "attention_mask": mask} | ({"decoder_input_ids": ids.clone()} if kind == "t5" else {})


def write(folder: Path, kind: str, tap: str, loss: str) -> Path:
    """A teacher of three layers without a head, a batch, and the spec, whose path is returned."""
    tiny(kind, vocab_size=120).save_pretrained(folder / "big")
    tokenizer().save_pretrained(folder / "big")
    (folder / "ready").mkdir()
    save_file({f"0.{name}": x for name, x in inputs(kind).items()}, folder / "ready" / "batches.safetensors")
    path = folder / "spec.brew"
    path.write_text(SPEC.format(tap=tap, loss=loss))
    return path


def build(path: Path, read: list[str], skip: tuple[str, ...] = ()) -> tuple[Distiller, set[str]]:
    """The distiller, and the names of the tensors that were read from the teacher's file."""
    read.clear()
    distiller = bg.load(path).build(skip=skip)
    return distiller, set(read)


def step(distiller: Distiller, kind: str) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Loss and gradients of a step with a student in training, dropout and all."""
    torch.manual_seed(5)
    distiller.train()
    output = distiller(inputs(kind))
    output.loss.backward()
    return output.loss.detach(), {name: p.grad for name, p in distiller.named_parameters()}


def packed(distiller: Distiller) -> list[bool]:
    """Of which forwards the layers ran on real tokens alone."""
    return sorted(packing is not None for packing in distiller.program.packings.values())


def test_a_plan_says_why_a_model_stays_whole(tmp_path: Path) -> None:
    """CANINE's hidden states are computed behind its layers."""
    path = write(tmp_path, "bert", "", HIDDEN.format(1))
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
    AutoModel.from_config(AutoConfig.for_model("canine", vocab_size=120, **sizes)).save_pretrained(tmp_path / "big")
    (saved,) = (x for x in next(iter(savings_of(bg.load(path)._checked).values())) if x.name == "truncate_models")
    assert str(saved) == "all layers of big run: no module of it gives its `hidden` as the model returns them"


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_a_shortened_teacher_gives_attention_without_the_pass_that_narrows_it(kind: str, tmp_path: Path) -> None:
    """All layers that are left run eagerly; the others are not asked for."""
    path = write(tmp_path, kind, *LOSSES["attention"][:2])
    found = [step(bg.load(path).build(skip=skip), kind) for skip in ((), ("narrow_attention",), NAMES_OF_PASSES)]
    for loss, gradients in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        for name, gradient in gradients.items():
            if gradient is not None:
                torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "tap", "loss", "run"), CASES, ids=NAMES)
def test_a_teacher_ends_with_its_last_feature(
    kind: str, tap: str, loss: str, run: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that run and parameters that are loaded are counted; loss and gradients are those of the whole teacher."""
    read: list[str] = []
    opened = transformers.modeling_utils.safe_open
    monkeypatch.setattr(
        transformers.modeling_utils, "safe_open", lambda *args, **more: Slices(opened(*args, **more), read)
    )
    path = write(tmp_path, kind, tap, loss)
    whole_model = tiny(kind, vocab_size=120)
    layers = dissect(whole_model).every_layer
    whole, read_whole = build(path, read, ("truncate_models",))
    less, read_less = build(path, read)

    def count(distiller: Distiller) -> tuple[Counter[str], Any]:
        teacher = distiller.teachers[0]
        there = dict(teacher.named_modules())
        calls = calls_of({layer: there[layer] for layer in layers if layer in there})
        found = step(distiller, kind)
        return calls, found

    calls_whole, expected = count(whole)
    calls, found = count(less)
    assert not run or packed(less) == packed(whole)
    present = 6 if kind == "t5" else 3
    assert (sum(calls_whole.values()), sum(calls.values())) == (present, run)
    assert torch.equal(found[0], expected[0])
    assert found[1].keys() == expected[1].keys()
    assert [name for name, g in found[1].items() if g is not None and not torch.equal(g, expected[1][name])] == []
    assert {n for n, g in found[1].items() if g is None} == {n for n, g in expected[1].items() if g is None}

    names, all_names = ({name for name, _ in x.teachers[0].named_parameters()} for x in (less, whole))
    assert all_names == {name for name, _ in whole_model.named_parameters()}
    assert not any(p.is_meta for p in less.teachers[0].parameters())
    assert read_less < read_whole
    assert names == read_less & all_names
    loaded = {layer for layer in layers if any(name.startswith(f"{layer}.") for name in names)}
    assert loaded == (set(layers[: min(run, 1)]) if kind == "albert" else set(layers[:run]))

    (saved,) = (x for x in next(iter(savings_of(bg.load(path)._checked).values())) if x.name == "truncate_models")
    assert str(saved) == f"layers run {present + 2} -> {run + 2}"  # of the student, which draws dropout, both
