"""The running average of a student: the equation, what stays untouched, checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from brewgraph.diagnostics import RunError
from brewgraph.models.adapters import add_adapter
from brewgraph.models.bigru import BigruConfig
from brewgraph.models.capture.capture import Capture
from brewgraph.models.ema import EmaTeacher
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.model_sources import Lora
from tests.models.test_heads import headed
from tests.models.tiny import batch, tiny


def student(kind: str) -> nn.Module:
    if kind == "heads":
        return headed("bert")
    if kind == "bigru":
        config = BigruConfig(vocab_size=64, embedding_size=12, hidden_size=8)
        return AutoModelForSequenceClassification.from_config(config)
    model = tiny("bert", AutoModelForMaskedLM if kind == "tied" else AutoModelForSequenceClassification)
    if kind == "lora":
        add_adapter(model, Lora())
    return model


def move(model: nn.Module, by: float) -> None:
    """Change every trainable weight, as an optimizer step would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(by)


KINDS = ("plain", "tied", "heads", "bigru", "lora")


@pytest.mark.parametrize("kind", KINDS)
def test_average_follows_the_equation(kind):
    """Three updates equal the recurrence in double precision; the student is not touched."""
    model = student(kind).train()
    teacher = EmaTeacher(model, decay=0.9)
    expected = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    for step in range(3):
        move(model, 0.1 * (step + 1))
        before = [p.detach().clone() for p in model.parameters()]
        teacher.update(model)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        for name, parameter in model.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * parameter.detach().double()
    for name, parameter in teacher.module.named_parameters():
        torch.testing.assert_close(parameter.double(), expected[name], rtol=1e-6, atol=1e-6)
    assert teacher.updates == 3


@pytest.mark.parametrize("kind", KINDS)
def test_begins_as_a_frozen_copy(kind):
    """Same class, same outputs, evaluation mode, nothing to train, no memory shared with the student."""
    model = student(kind)
    teacher = EmaTeacher(model.train())
    assert type(teacher.module) is type(model)
    assert not any(m.training for m in teacher.module.modules())
    assert model.training
    assert not any(p.requires_grad for p in teacher.module.parameters())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in teacher.module.parameters()}
    feature = Feature("hidden", -1)
    found = []
    for one in (model.eval(), teacher.module):
        capture = Capture(one, [feature])
        with torch.no_grad(), capture.armed():
            output = one(**batch(6, 3))
        found.append(capture.collect(output)[feature])
        capture.remove()
    # another kernel may run where no gradient is wanted
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_runs_on_its_own_weights(kind):
    """After an update the copy's outputs move, and by less than the student's."""
    model = student(kind).eval()
    teacher = EmaTeacher(model, decay=0.5)
    with torch.no_grad():
        before = model(**batch(6, 3))
        first = before.heads["ner"].logits if kind == "heads" else before.logits
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
        teacher.update(model)
        after = teacher.module(**batch(6, 3))
        second = after.heads["ner"].logits if kind == "heads" else after.logits
    assert (first - second).abs().max() > 1e-5


def test_weights_that_never_move_stay_exact():
    """The frozen weights beside an adapter are the same bits after many updates."""
    model = student("lora")
    teacher = EmaTeacher(model, decay=0.999)
    for _ in range(20):
        move(model, 0.01)
        teacher.update(model)
    frozen = dict(model.named_parameters())
    for name, parameter in teacher.module.named_parameters():
        assert torch.equal(parameter, frozen[name]) == (not frozen[name].requires_grad), name


def test_warmup_forgets_the_beginning_sooner():
    """Decays 1/10, 2/11, 3/12, … up to the decay that is set."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    teacher = EmaTeacher(model, decay=0.25, warmup=True)
    nn.init.ones_(model.weight)
    expected = 0.0
    for decay in (0.1, 2 / 11, 0.25, 0.25):
        teacher.update(model)
        expected = decay * expected + 1 - decay
        assert teacher.module.weight.item() == pytest.approx(expected)


def test_buffers_are_copied():
    """Running statistics are the student's own."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).train()
    teacher = EmaTeacher(model)
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    teacher.update(model)
    assert torch.equal(teacher.module[1].running_mean, model[1].running_mean)
    assert teacher.module[1].num_batches_tracked == 1


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_on_where_it_was(kind, tmp_path):
    """Through a safetensors file: the next update gives the same average, bit by bit."""
    model = student(kind)
    teacher = EmaTeacher(model, decay=0.9, warmup=True)
    for _ in range(2):
        move(model, 0.1)
        teacher.update(model)
    save_file(teacher.state(), tmp_path / "ema.safetensors")
    again = EmaTeacher(student(kind), decay=0.9, warmup=True)
    again.load_state(load_file(tmp_path / "ema.safetensors"))
    assert again.updates == 2
    move(model, 0.1)
    teacher.update(model)
    again.update(model)
    for one, two in zip(teacher.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_another_models_state_is_refused():
    """A missing weight or another shape, before anything is copied."""
    teacher = EmaTeacher(nn.Linear(2, 3))
    state = teacher.state()
    with pytest.raises(RunError, match=r"`module.weight` do not fit"):
        EmaTeacher(nn.Linear(4, 3)).load_state(state)
    del state["module.bias"]
    before = copy.deepcopy(teacher.module.weight)
    with pytest.raises(RunError, match=r"module\.bias"):
        teacher.load_state(state)
    assert torch.equal(before, teacher.module.weight)
