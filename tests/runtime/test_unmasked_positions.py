"""`mask=none`: padding counts like any token, in a softmax over positions or keys too, where and only where it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import brewgraph as bg
from brewgraph.display.equation import spell
from brewgraph.graph.container import info

SIZES = "num_attention_heads=2, intermediate_size=12, vocab_size=30, max_position_embeddings=16"
SPEC = f"""brew 1
teacher big = hf(model_type="bert", hidden_size=8, num_hidden_layers=2, {SIZES})
student tiny = hf(model_type="bert", hidden_size=8, num_hidden_layers=1, {SIZES})
data d = batches("ready", labels="spans")
"""
LENGTHS = (6, 4, 3)


def batch() -> dict[str, Tensor]:
    """Three examples of 6, 4 and 3 real tokens, and where their answers are."""
    mask = (torch.arange(6) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(1, 30, (3, 6), generator=torch.Generator().manual_seed(3)) * mask
    places = {"start": torch.tensor([2, 1, 0]), "end": torch.tensor([5, 3, 0])}
    return {"input_ids": ids, "attention_mask": mask, **places}


def cross_entropy(source: Tensor, target: Tensor) -> Tensor:
    """-Σ p log q of two sides' scores, the mean over what is left."""
    return -(source.softmax(-1) * target.log_softmax(-1)).sum(-1).mean()


def real(x: Tensor) -> Tensor:
    """Scores over positions, those of padding far below the others."""
    return x.masked_fill(batch()["attention_mask"] == 0, -1e4)


def shifted(x: Tensor) -> Tensor:
    """The highest score of each row and that of the start, exchanged."""
    x, rows, start = x.clone(), torch.arange(3), batch()["start"]
    top = x.argmax(-1)
    x[rows, top], x[rows, start] = x[rows, start].clone(), x[rows, top].clone()
    return x


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("ce(big.start -> tiny.start)", lambda b, t: cross_entropy(real(b.start_logits), real(t.start_logits))),
        ("ce(big.start -> tiny.start, mask=none)", lambda b, t: cross_entropy(b.start_logits, t.start_logits)),
        ("ce(big.end -> tiny.end, T=2, mask=none)", lambda b, t: cross_entropy(b.end_logits / 2, t.end_logits / 2)),
        ("ce(d.end -> tiny.end)", lambda b, t: F.cross_entropy(real(t.end_logits), batch()["end"])),
        ("ce(d.end -> tiny.end, mask=none)", lambda b, t: F.cross_entropy(t.end_logits, batch()["end"])),
        (
            "ce(shift(big.start, d.start) -> tiny.start, mask=none)",
            lambda b, t: cross_entropy(shifted(b.start_logits), t.start_logits),
        ),
        (
            "ce(big.start -> tiny.start) + ce(big.start -> tiny.start, mask=none)",
            lambda b, t: (
                cross_entropy(real(b.start_logits), real(t.start_logits))
                + cross_entropy(b.start_logits, t.start_logits)
            ),
        ),
        (
            "ce(probabilities(big.attention[1], mask=none) -> probabilities(tiny.attention[0], mask=none), mask=none)",
            lambda b, t: cross_entropy(b.attentions[1], t.attentions[0]),
        ),
        (
            "ce(probabilities(big.attention[1], mask=none) -> probabilities(tiny.attention[0], mask=none))",
            lambda b, t: (
                sum(
                    -(b.attentions[1].softmax(-1) * t.attentions[0].log_softmax(-1))[i, :, :n, :n].sum() / 2
                    for i, n in enumerate(LENGTHS)
                )
                / sum(LENGTHS)
            ),
        ),
    ],
)
def test_what_padding_has_a_part_in(expression: str, expected: Callable, tmp_path: Path) -> None:
    """The loss by hand, from what the two models give; and the plan says the same as the spec."""
    (tmp_path / "ready").mkdir()
    save_file({f"0.{field}": tensor for field, tensor in batch().items()}, tmp_path / "ready" / "batches.safetensors")
    (tmp_path / "spec.brew").write_text(SPEC + f"loss = {expression}\n")
    recipe = bg.load(tmp_path / "spec.brew")
    distiller = recipe.build().eval()
    loss = distiller(batch()).loss
    inputs = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    models = (*distiller.teachers, distiller.student)  # without the teacher where the loss does not read it
    for model in models:
        model.set_attn_implementation("eager")
    outputs = [model(**inputs, output_attentions=True) for model in models]
    torch.testing.assert_close(loss, expected(outputs[0], outputs[-1]), rtol=1e-5, atol=1e-6)
    assert sorted(spell(recipe.graph, info(recipe.graph).objective).split(" + ")) == sorted(expression.split(" + "))


def test_labels_that_are_none_have_no_part(tmp_path: Path) -> None:
    """`mask=none` on a loss from labels is about positions; elsewhere it would count a label of -100 as right."""
    (tmp_path / "ready").mkdir()
    save_file({f"0.{field}": tensor for field, tensor in batch().items()}, tmp_path / "ready" / "batches.safetensors")
    (tmp_path / "spec.brew").write_text(SPEC + "loss = ce(d.start -> tiny.start, mask=none)\n")
    distiller = bg.load(tmp_path / "spec.brew").build().eval()
    whole = {**batch(), "start": torch.tensor([2, 1, -100])}
    part = {name: tensor[:2] for name, tensor in batch().items()}
    torch.testing.assert_close(distiller(whole).loss, distiller(part).loss)
    text = (SPEC + "loss = ce(d.labels -> tiny.logits, mask=none)\n").replace('labels="spans"', 'labels="tags"')
    save_file(
        {f"0.{key}": batch()[key] for key in ("input_ids", "attention_mask")} | {"0.labels": batch()["input_ids"] % 3},
        tmp_path / "ready" / "batches.safetensors",
    )
    (tmp_path / "spec.brew").write_text(text)
    (found,) = [d for d in bg.check(tmp_path / "spec.brew") if d.code.startswith("B")]
    assert (found.code, found.span.text) == ("B217", "ce(d.labels -> tiny.logits, mask=none)")
    assert found.help == "leave `mask` out: every other label counts"
