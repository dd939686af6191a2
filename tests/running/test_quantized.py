"""`hf(…, quantize="int8")`: a teacher whose weights are rounded as they are loaded, and what it costs is said.

Neither torchao nor bitsandbytes is at hand: where models are loaded, a quantizer of these tests stands for both, which
is registered with transformers and rounds the weights of linear layers to few steps.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError
from brewgraph.models import loading
from brewgraph.running import spec_builder
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.running.teacher_check import divergence_of
from brewgraph.runtime.store import weights_digest
from tests.running.test_number_formats import Said, refused, spec
from tests.small import metrics, write_pair

STEPS = 16
ROUNDS = "brewgraph-test-rounding"


@register_quantization_config(ROUNDS)
class Rounds(QuantizationConfigMixin):
    """The configuration of the quantizer of these tests."""

    def __init__(self, **kwargs: Any):
        self.quant_method = ROUNDS
        self.modules_to_not_convert = None


@register_quantizer(ROUNDS)
class Rounding(HfQuantizer):
    """Rounds each row of a linear layer's weights to steps of its largest."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        pass

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                step = module.weight.data.abs().amax(1, keepdim=True) / STEPS
                module.weight.data = (module.weight.data / step).round() * step
        return model

    @property
    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a teacher and a student."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    return tmp_path


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantizer of these tests in place of the libraries."""
    monkeypatch.setattr(loading, "quantization_config", lambda scheme, dtype: Rounds())
    monkeypatch.setattr(spec_builder, "check_quantizer", lambda name, scheme: None)


def quantized(world: Path, scheme: str = "int8", more: str = "") -> Path:
    """The spec with a quantized teacher."""
    path = spec(world, "", "quantized.brew")
    path.write_text(path.read_text().replace('hf("bert")', f'hf("bert", quantize="{scheme}"{more})'))
    return path


@pytest.mark.usefixtures("rounding")
def test_a_quantized_teacher(world: Path) -> None:
    """It is loaded rounded, where it stays; losses are close to the exact ones; the run says the error and the KL."""
    exact = bg.run(spec(world, "", "exact.brew")).folder
    said = Said()
    lower = bg.run(quantized(world), reporter=said).folder
    losses = [[line["loss"] for line in metrics(folder) if "loss" in line] for folder in (exact, lower)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.1)
    (line,) = [line for line in said.lines if line.startswith("teacher bert in int8: on 20 rows")]
    error, nats = float(line.split("are ")[1].split("%")[0]), float(line.split("predictions ")[1].split()[0])
    assert 0.1 < error < 20
    assert 0 < nats < 0.5
    distiller = bg.load(quantized(world)).build()
    distiller.to("meta")
    assert {p.device.type for teacher in distiller.teachers for p in teacher.parameters()} == {"cpu"}


@pytest.mark.usefixtures("rounding")
def test_what_counts_as_another_spec(world: Path) -> None:
    """Fewer bits are another spec, and another teacher for a cache; a student starts from exact layers."""
    plain = check(read_spec(spec(world, "", "exact.brew")))
    hashes = {plain.spec_hash, *(check(read_spec(quantized(world, scheme))).spec_hash for scheme in ("int8", "nf4"))}
    assert len(hashes) == 3
    path = quantized(world)
    path.write_text(path.read_text().replace('hf("tiny")', 'hf("bert", init=bert.layers[1, 0], num_hidden_layers=2)'))
    builder, exact = SpecBuilder(check(read_spec(path))), SpecBuilder(plain).model("bert")
    place = "bert.encoder.layer.{}.output.dense.weight"
    own, given = (dict(m.named_parameters()) for m in (builder.model("tiny"), exact))
    assert torch.equal(own[place.format(0)], given[place.format(1)])
    assert weights_digest(builder.model("bert")) != weights_digest(exact)


def test_quantized_weights_have_a_digest() -> None:
    """Tensors that are made of others are told apart by each of them."""
    digests = set()
    for other in (0.0, 1.0, 1.0):
        module = nn.Module()
        module.weight = nn.Parameter(TwoTensor(torch.ones(2), torch.full((2,), other)), requires_grad=False)
        digests.add(weights_digest(module))
    assert len(digests) == 2


@pytest.mark.parametrize(("scheme", "library"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_library_that_is_missing(world: Path, scheme: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check passes, since another machine may have it; a run ends before it trains, and says what to install."""
    found = importlib.util.find_spec
    monkeypatch.setattr("brewgraph.models.quantizing.find_spec", lambda name: None if name == library else found(name))
    path = quantized(world, scheme)
    check(read_spec(path))
    for start in (bg.run, lambda path: bg.load(path).build()):
        with pytest.raises(RunError, match=rf"`bert` needs {library} for .* not installed: pip install {library}$"):
            start(path)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (('hf("tiny")', 'hf("tiny", quantize="int8")'), "B117", "`tiny` is trained, and rounded weights cannot be"),
        (('hf("bert")', 'hf("bert", quantize="int3")'), "B122", "`quantize` cannot be `int3`"),
        (('hf("bert")', 'hf("bert", pretrained=false, quantize="nf4")'), "B123", "only weights that are loaded"),
    ],
)
def test_what_cannot_be_quantized(world: Path, change: tuple[str, str], code: str, message: str) -> None:
    """Found when the spec is checked."""
    refused(world, change, code, message)


def test_its_bytes(world: Path) -> None:
    """A plan counts a byte for each weight of a linear layer, half of one, and four for the others."""

    def size(path: Path) -> int:
        (memory,) = bg.load(path).plan(cost=False).stages[0].memory
        return dict(memory.weights)["bert"]

    sizes = [size(spec(world, "", "exact.brew")), size(quantized(world)), size(quantized(world, "nf4"))]
    model = SpecBuilder(check(read_spec(spec(world, "", "exact.brew")))).model("bert")
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    assert sizes == [sizes[0], sizes[0] - 3 * linear, sizes[0] - 3.5 * linear]


def test_the_divergence_by_hand() -> None:
    """KL of (1/2, 1/2) from (3/4, 1/4) is ln(2/sqrt(3))."""
    found = divergence_of(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]))
    assert found == pytest.approx(math.log(2 / math.sqrt(3)), rel=1e-6)
