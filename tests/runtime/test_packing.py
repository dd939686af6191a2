"""Packed tokens: the layers run on real tokens alone, and nothing that a loss reads is another number."""

from __future__ import annotations

import copy
import gc
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.models.capture import attention
from brewgraph.models.capture.packing import Packing, packing_of
from brewgraph.models.structure.read_class import dissect
from tests.conftest import REPOSITORY
from tests.models.tiny import RECORDED, SETTINGS
from tests.runtime.test_padding import HIDDEN, LABELS, MAPS, SIDES, SPEC, TEXTS, model, project, word_level

PACKED = set(RECORDED)
INSIDE = 'mse(big @ "{layer}" -> tiny @ "{layer}")'


def whole(side: str) -> dict[str, Any]:
    """The five texts as one batch, padded on this side."""
    made = word_level(side)(TEXTS, padding=True, padding_side=side, return_tensors="pt")
    return {**made, "labels": torch.tensor(LABELS)}


def step(distiller: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a batch and the gradients of all parameters."""
    distiller.zero_grad()
    output = distiller(batch)
    output.loss.backward()
    return float(output.loss.detach()), {
        n: p.grad.clone() for n, p in distiller.named_parameters() if p.grad is not None
    }


def places_seen(distiller: Any, batch: dict[str, Any]) -> set[tuple[int, ...]]:
    """The leading sizes of the states that the student's layers get in a step."""
    seen: set[tuple[int, ...]] = set()
    anatomy = dissect(distiller.student)
    hooks = [
        distiller.student.get_submodule(path).register_forward_pre_hook(
            lambda module, args, kwargs: seen.add(tuple((args or tuple(kwargs.values()))[0].shape[:2])),
            with_kwargs=True,
        )
        for path in anatomy.layer_paths
    ]
    step(distiller, batch)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("more", [HIDDEN, MAPS], ids=["hidden", "attention"])
@pytest.mark.parametrize("kind", RECORDED)
def test_packed_is_padded(kind: str, more: str, tmp_path: Path) -> None:
    """Loss and gradients of padded and packed layers agree, whichever side is padded; the layers saw 48 real tokens,
    43 words and an end of each text, instead of 5 x 16 places."""
    spec = project(tmp_path, kind, "right")
    spec.write_text(SPEC.format(more=more))
    packed, padded = bg.load(spec).build(), bg.load(spec).build(skip=["pack_tokens"])
    padded.load_state_dict(packed.state_dict())
    for side in SIDES:
        batch = whole(side)
        loss, gradients = step(packed, batch)
        expected, others = step(padded, batch)
        assert loss == pytest.approx(expected, rel=1e-6), side
        assert gradients.keys() == others.keys()
        scale = max(float(g.abs().max()) for g in others.values())
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, others[name], rtol=1e-5, atol=1e-6 * scale, msg=name)
    real = sum(map(len, (text.split() for text in TEXTS))) + len(TEXTS)
    assert places_seen(packed, whole("right")) == {(1, real)}
    assert places_seen(padded, whole("right")) == {(5, 16)}


def documented() -> dict[str, str]:
    """What docs/speed.md says of each architecture: yes, or why it does not pack."""
    rows = re.findall(
        r"^\| [^|]+ \| `([^|]+)` \| ([^|]+) \|$", (REPOSITORY / "docs/speed.md").read_text(), re.MULTILINE
    )
    return {kind: word.removeprefix("no: ") for kind, word in rows[1:]}  # behind the head of the table


def test_the_table_of_architectures_is_complete() -> None:
    """Each has a row, and what is said to pack is what is tested for equality above."""
    rows = documented()
    assert rows.keys() == SETTINGS.keys()
    assert {kind for kind, word in rows.items() if word == "yes"} == PACKED


@pytest.mark.parametrize("kind", SETTINGS)
def test_which_models_pack(kind: str) -> None:
    """Models whose attention runs through transformers' interface do; others say why not, and keep no hook."""
    net = model(kind, 1)
    found = packing_of(net, dissect(net))
    assert isinstance(found, Packing) == (kind in PACKED)
    if isinstance(found, Packing):
        found.release()
    else:
        assert documented()[kind] == found
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert net.config._attn_implementation != "brewgraph"


def test_a_model_that_mixes_tokens_elsewhere_is_found() -> None:
    """A layer that looks at its neighbours outside of attention gives other values when packed: it stays padded."""

    class Shifting(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return self.inner(states + states.roll(1, 1))

    net = model("bert", 1)
    net.bert.encoder.layer[1].intermediate.dense = Shifting(net.bert.encoder.layer[1].intermediate.dense)
    found = packing_of(net, dissect(net))
    assert isinstance(found, str)
    assert found.startswith("its layers give other values on packed tokens")


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ("mse(big.hidden[1] -> tiny.hidden[1])", True),
        ("mse(big.hidden[1] -> tiny.hidden[1], mask=none)", False),
        ("cos(token_mean(big.hidden[1]) -> token_mean(tiny.hidden[1]))", True),
        ("cos(token_mean(big.hidden[1], mask=none) -> token_mean(tiny.hidden[1], mask=none))", False),
        ("kl(relation(big.hidden[2], heads=2) -> relation(tiny.hidden[2], heads=2))", True),
        ("kl(probabilities(big.scores[1], mask=none) -> probabilities(tiny.scores[1], mask=none))", False),
        ('mse(big @ "bert.encoder.layer.1.output" -> tiny @ "bert.encoder.layer.2.output")', True),
        (
            'mse(big @ input "bert.encoder.layer.1.output.dense" -> tiny @ input "bert.encoder.layer.0.output.dense")',
            True,
        ),
        ('mse(big @ "bert.encoder.layer.0" -> tiny @ "bert.encoder.layer.0")', True),
        ("mse(big.embeddings -> tiny.embeddings)", True),
    ],
)
def test_padding_that_counts_is_not_left_out(more: str, tokens: bool, tmp_path: Path) -> None:
    """A loss or transform without a mask reads what stands at padding: its models keep it. All else is packed, with the
    values of the padded program."""
    spec = project(tmp_path, "bert", "right")
    spec.write_text(SPEC.format(more=more))
    packed, padded = bg.load(spec).build(), bg.load(spec).build(skip=["pack_tokens"])
    batch = whole("right")
    loss, gradients = step(packed, batch)
    expected, others = step(padded, batch)
    assert loss == pytest.approx(expected, rel=1e-6)
    scale = max(float(g.abs().max()) for g in others.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-5, atol=1e-6 * scale, msg=name)
    assert (places_seen(packed, batch) == {(5, 16)}) is not tokens


def test_a_batch_without_padding_runs_as_it_is(tmp_path: Path) -> None:
    """Where there is next to nothing to leave out, nothing is rearranged."""
    distiller = bg.load(project(tmp_path, "bert", "right")).build()
    ids = torch.randint(3, 60, (5, 8), generator=torch.Generator().manual_seed(1))
    full = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(LABELS)}
    assert places_seen(distiller, full) == {(5, 8)}


def test_copies_and_released_models_run_padded(tmp_path: Path) -> None:
    """Hooks act for their own model alone, and `release` takes them away."""
    distiller = bg.load(project(tmp_path, "bert", "right")).build()
    packing = distiller.program.packings[next(iter(distiller.program.packings))]
    batch = whole("right")
    other = copy.deepcopy(distiller.student).eval()
    inputs = {name: x for name, x in batch.items() if name != "labels"}
    expected = other(**inputs).logits
    with packing.packed(batch["attention_mask"]):
        assert torch.equal(other(**inputs).logits, expected)
    distiller.release()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in distiller.student.modules())


def test_an_empty_text_has_no_tokens(tmp_path: Path) -> None:
    """A row in which every place is padding gives nothing, and breaks nothing."""
    distiller = bg.load(project(tmp_path, "bert", "right")).build()
    batch = whole("right")
    batch["attention_mask"][2] = 0
    loss, gradients = step(distiller, batch)
    assert loss == loss
    assert all(bool(g.isfinite().all()) for g in gradients.values())


def test_dropout_is_drawn_for_real_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student with dropout draws: two steps differ, a seed repeats one; `BREWGRAPH_KERNELS=off` leaves it to torch."""
    spec = project(tmp_path, "bert", "right")
    student = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "tiny", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3
    )
    student.save_pretrained(tmp_path / "tiny")
    distiller = bg.load(spec).build()
    applied: list[int] = []
    apply = attention.PackedAttention.apply
    monkeypatch.setattr(attention.PackedAttention, "apply", lambda *args: (applied.append(1), apply(*args))[1])
    losses = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        losses.append(step(distiller, whole("right"))[0])
    assert losses[0] == losses[2] != losses[1]
    assert len(applied) == 3 * 2  # of three layers one is watched, and attends padded
    monkeypatch.setenv("BREWGRAPH_KERNELS", "off")
    step(distiller, whole("right"))
    assert len(applied) == 3 * 2


@pytest.mark.filterwarnings("ignore::FutureWarning")  # newer transformers call it activation checkpointing
def test_gradient_checkpointing_runs_padded(tmp_path: Path) -> None:
    """Layers that run again in the backward pass find the batch as it was: turned on after `build`, too."""
    distiller = bg.load(project(tmp_path, "bert", "right")).build()
    batch = whole("right")
    loss, gradients = step(distiller, batch)
    distiller.student.gradient_checkpointing_enable({"use_reentrant": False})
    distiller.train()
    assert places_seen(distiller, batch) == {(5, 16)}
    again, others = step(distiller, batch)
    assert again == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself
def test_a_compiled_model_stays_as_it_is() -> None:
    """Its graph was traced without packing."""
    net = model("bert", 1)
    net.bert.encoder.layer[1].output = torch.compile(net.bert.encoder.layer[1].output)
    assert packing_of(net, dissect(net)) == "it is compiled"


def test_models_are_let_go(tmp_path: Path) -> None:
    """Nothing global keeps a model alive that was packed and never released."""
    distiller = bg.load(project(tmp_path, "bert", "right")).build()
    step(distiller, whole("right"))
    student = weakref.ref(distiller.student)
    del distiller
    gc.collect()
    assert student() is None
