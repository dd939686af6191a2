"""`gradient_checkpointing = true`: layers run again in the backward pass, and no number changes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError, SpecError
from brewgraph.models.capture.capture import Capture
from brewgraph.models.capture.recompute import recompute_layers
from brewgraph.models.structure.read_class import dissect
from brewgraph.runtime import kernels
from tests.models.tiny import RECORDED, tiny
from tests.runtime.test_packing import places_seen, step, whole
from tests.runtime.test_padding import project
from tests.small import metrics
from tests.small import project as small_project

INSIDE = 'mse(big.hidden[2] -> tiny @ "{path}")'
ALONE = {"bert": "bert.encoder.layer.1.output.dense", "gpt2": "transformer.h.1.mlp.c_proj"}
KINDS = [kind for kind in RECORDED if kind != "albert"]


def dropping(tmp_path: Path, kind: str, more: str = "") -> Path:
    """A spec whose student, of this architecture, draws dropout."""
    spec = project(tmp_path, kind, "right")
    rates = {"dropout": 0.1, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    rates |= {"attention_dropout": 0.1, "resid_pdrop": 0.1, "attn_pdrop": 0.1, "embd_pdrop": 0.1}
    file = tmp_path / "tiny" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {name: rate for name, rate in rates.items() if name in config}))
    if more:
        spec.write_text(spec.read_text().replace("+ sum(", f"+ {more} + sum("))
    return spec


def recomputed(spec: Path, word: str = "gradient_checkpointing = true") -> Path:
    """The same spec with the setting."""
    other = spec.with_name(f"again-{spec.name}")
    other.write_text(spec.read_text().replace("train { ", f"train {{ {word}; "))
    return other


def drawn(distiller: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """A step whose dropout is drawn from one seed."""
    torch.manual_seed(3)
    return step(distiller, batch)


def assert_equal(one: Any, other: Any) -> None:
    """Losses and gradients agree to 1e-6."""
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[1].keys() == other[1].keys()
    scale = max(float(g.abs().max()) for g in other[1].values())
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-6, atol=1e-6 * scale, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip", [(), ("pack_tokens",)], ids=["packed", "padded"])
def test_nothing_changes(kind: str, skip: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and gradients are those of the run that keeps activations, with the same draws of dropout, packed or
    padded, with taps inside of the layers and on attention; every layer runs twice.
    """
    monkeypatch.setattr(kernels, "_FEW", 1)  # even small dropouts are drawn by the faster kernel
    spec = dropping(tmp_path, kind, INSIDE.format(path=ALONE[kind]) if kind in ALONE else "")
    kept, again = bg.load(spec).build(skip=skip), bg.load(recomputed(spec)).build(skip=skip)
    batch = whole("right")
    again.load_state_dict(kept.state_dict())
    assert_equal(drawn(again, batch), drawn(kept, batch))
    assert drawn(again, batch)[0] != pytest.approx(step(again, batch)[0], rel=1e-6)  # dropout is on
    assert places_seen(again, batch) == ({(5, 16)} if skip else {(1, int(batch["attention_mask"].sum()))})
    assert runs(again, batch) == {2}
    assert runs(kept, batch) == {1}


def runs(distiller: Any, batch: dict[str, Any]) -> set[int]:
    """How often the first linear map inside of each of the student's layers runs in a step."""
    counts: Counter[str] = Counter()
    hooks = []
    for path in dissect(distiller.student).layer_paths:
        layer = distiller.student.get_submodule(path)
        first = next(m for m in layer.modules() if not list(m.children()) and m is not layer and m._parameters)
        hooks.append(first.register_forward_pre_hook(lambda m, args, path=path: counts.update([path])))
    step(distiller, batch)
    for hook in hooks:
        hook.remove()
    return set(counts.values())


def test_taps_fire_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that runs again gives nothing to a tap."""
    seen: list[str] = []
    take = Capture._take
    monkeypatch.setattr(Capture, "_take", lambda self, place, value: (seen.append(place[1]), take(self, place, value)))
    counts = []
    spec = dropping(tmp_path, "bert", INSIDE.format(path=ALONE["bert"]))
    for path in (spec, recomputed(spec)):
        distiller = bg.load(path).build()
        seen.clear()
        step(distiller, whole("right"))
        counts.append(Counter(seen))
    assert counts[0] == counts[1]


def test_bf16_and_frozen_layers(tmp_path: Path) -> None:
    """Under autocast, and with the lower layers frozen, which keep no graph and do not run again."""
    spec = dropping(tmp_path, "bert")
    made = [bg.load(path).build() for path in (spec, recomputed(spec))]
    batch = whole("right")
    for distiller in made:
        distiller.load_state_dict(made[0].state_dict())
    for frozen in (False, True):
        results = []
        for distiller in made:
            parts = (distiller.student.bert.embeddings, *distiller.student.bert.encoder.layer[:2])
            for part in parts:
                part.requires_grad_(not frozen)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                results.append(drawn(distiller, batch))
        assert_equal(*results)


@pytest.mark.parametrize("more", ["", "accumulate = 2; ", "precision = bf16; "], ids=["fp32", "micro", "bf16"])
def test_whole_runs(more: str, tmp_path: Path) -> None:
    """A run with an average of the student as a second teacher logs the same losses, and is the same run."""
    spec = small_project(
        tmp_path, dropout=True, loss="kd(bert.logits -> tiny.logits) + mse(mean.logits -> tiny.logits)"
    )
    spec.write_text(
        spec.read_text()
        .replace("data d", "teacher mean = ema(tiny, decay=0.9)\ndata d")
        .replace("train {", f"train {{ {more}")
    )
    other = recomputed(spec)
    hashes = {check(read_spec(path)).spec_hash for path in (spec, other)}
    assert len(hashes) == 1
    folders = [bg.run(path, out=tmp_path / path.stem).folder for path in (spec, other)]
    losses = [[line["loss"] for line in metrics(folder) if "loss" in line] for folder in folders]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    configs = [json.loads((folder / "student" / "config.json").read_text()) for folder in folders]
    assert configs[0] == configs[1]


def test_stages_and_heads(tmp_path: Path) -> None:
    """The setting holds for its stage alone; heads on one trunk share its layers."""
    spec = small_project(tmp_path)
    spec.write_text(
        spec.read_text()
        .replace('hf("tiny")', 'hf("tiny") { head one = sequence_classifier(3)\nhead two = sequence_classifier(3) }')
        .split("let map")[0]
        + "loss = kd(bert.logits -> tiny.one.logits) + ce(d.labels -> tiny.two.logits)\n"
        + "stage first for 1 steps { train { gradient_checkpointing = true } }\nstage second for 1 steps { }\n"
    )
    recipe = bg.load(spec)
    for stage, times in (("first", {2}), ("second", {1})):
        distiller = recipe.build(stage=stage)
        ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
        batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([0, 1])}
        layer = distiller.student.trunk.encoder.layer[0]
        seen: list[int] = []
        hook = layer.intermediate.dense.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        distiller(batch).loss.backward()
        hook.remove()
        assert {len(seen)} == times
        distiller.release()
        assert not any(getattr(m, "gradient_checkpointing", False) for m in distiller.student.modules())


def test_other_contexts_stay_padded(tmp_path: Path) -> None:
    """`release` gives back what was set; a model that recomputes by itself is left as it is."""
    model = tiny("gpt2", AutoModelForSequenceClassification)
    end = recompute_layers(model)
    assert not model.config.use_cache
    recompute_layers(model)()
    assert model.transformer.h[0].gradient_checkpointing
    end()
    assert model.config.use_cache
    assert not model.transformer.h[0].gradient_checkpointing


@pytest.mark.parametrize("kind", ["albert", "bigru"])
def test_models_that_cannot(kind: str, tmp_path: Path) -> None:
    """A check says so at the setting; a model that is only known when it is built, when the run begins."""
    if kind == "albert":
        spec = recomputed(project(tmp_path, "albert", "right"))
    else:
        spec = small_project(tmp_path, loss="kd(bert.logits -> tiny.logits)")
        spec.write_text(spec.read_text().replace('hf("tiny")', "bigru(hidden_size=16)"))
        spec = recomputed(spec)
    with pytest.raises(SpecError) as error:
        check(read_spec(spec))
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "B342"
    assert diagnostic.span.text.startswith("gradient_checkpointing") or diagnostic.span.text == "true"
    with pytest.raises(RunError, match=r"Linear does not support `gradient_checkpointing`: remove it"):
        recompute_layers(torch.nn.Linear(2, 2))
