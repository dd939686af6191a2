"""`hf(…, quantize="int8")`: a teacher whose weights are rounded as they are loaded, and what it costs is said.

Where the libraries are not needed, a quantizer of these tests stands for both, which is registered with transformers
and rounds the weights of linear layers to few steps. Tests of the libraries themselves are skipped where they are absent.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from transformers import AutoModelForSequenceClassification
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError, SpecError
from brewgraph.models import loading, quantizing
from brewgraph.models.bigru import BigruConfig
from brewgraph.models.quantizing import LIBRARIES, quantized_layers
from brewgraph.running import spec_builder
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.running.teacher_check import divergence_of
from brewgraph.runtime.store import _plain_parts, weights_digest
from brewgraph.training.reporter import Reporter
from tests.running.test_number_formats import Said, refused, spec
from tests.small import LABELS, WORDS, metrics, save, tokenizer, write_pair

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
    monkeypatch.setattr(loading, "quantization_config", lambda scheme, dtype, empty: Rounds())
    monkeypatch.setattr(spec_builder, "check_quantizer", lambda *args: None)


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
    found = find_spec
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
    """A plan counts a byte for each weight of a linear layer and five for each row, or half a byte for each weight and
    four for 64, and four for each of the others, the head among them.
    """

    def size(path: Path) -> int:
        (memory,) = bg.load(path).plan(cost=False).stages[0].memory
        return dict(memory.weights)["bert"]

    sizes = [size(spec(world, "", "exact.brew")), size(quantized(world)), size(quantized(world, "nf4"))]
    model = SpecBuilder(check(read_spec(spec(world, "", "exact.brew")))).model("bert")
    weights = [m.weight for m in model.bert.modules() if isinstance(m, nn.Linear)]
    linear, rows = sum(x.numel() for x in weights), sum(len(x) for x in weights)
    assert sizes == [sizes[0], sizes[0] - 3 * linear + 5 * rows, sizes[0] - 3.5 * linear + linear / 16]


@pytest.mark.parametrize(
    ("kind", "message"), [("gpt2", 'quantize="nf4" rounds its Conv1D layers; or remove'), ("bigru", "remove")]
)
def test_layers_that_cannot_be_quantized(world: Path, kind: str, message: str) -> None:
    """A check finds that int8 would round nothing, and offers what would."""
    if kind == "bigru":
        save_bigru(world / "other")
    else:
        save(world / "other", kind, seed=1)
    path = spec(world, "")
    path.write_text(SPEC_OF_ANOTHER)
    with pytest.raises(SpecError) as error:
        check(read_spec(path))
    (diagnostic,) = error.value.diagnostics
    assert (diagnostic.code, diagnostic.span.text) == ("B343", '"int8"')
    assert diagnostic.message == 'quantize="int8" would round no weight: this architecture has no linear layers'
    assert diagnostic.help.startswith(message)


SPEC_OF_ANOTHER = """teacher other = hf("other", quantize="int8")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4, max_length=32)
loss = kd(other.logits -> tiny.logits)
"""


def save_bigru(folder: Path) -> None:
    """A bidirectional GRU with its tokenizer."""
    config = BigruConfig(vocab_size=120, hidden_size=8, embedding_size=8, pad_token_id=0)
    config.id2label, config.label2id = dict(enumerate(LABELS)), {label: n for n, label in enumerate(LABELS)}
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


# ── the libraries ─────────────────────────────────────────────────────────────────────────────────────────────────────


WITH_LIBRARIES = pytest.mark.parametrize(
    "scheme",
    [
        pytest.param(scheme, marks=pytest.mark.skipif(find_spec(library) is None, reason=f"{library} is not installed"))
        for scheme, library in LIBRARIES.items()
    ],
)
TAPPED = """teacher bert = hf("bert"{})
student tiny = hf("tiny")
tap inner = bert @ "bert.encoder.layer.0.intermediate.dense"
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4, max_length=32)
loss = kd(bert.logits -> tiny.logits) + mse(inner -> tiny.hidden[1] via linear) + mse(bert.hidden[1] -> tiny.hidden[1] via linear)
{}train {{ epochs = 2; optimizer = adamw(lr=1e-3); logging_steps = 1; save_steps = 2 steps }}
"""


def tapped(world: Path, options: str, more: str = "", name: str = "tapped.brew") -> Path:
    """A spec that taps a linear layer of its teacher."""
    path = world / name
    path.write_text(TAPPED.format(options, more))
    return path


def texts() -> dict[str, Any]:
    """A batch of a long text and a short one."""
    return dict(tokenizer()([" ".join(WORDS), " ".join(WORDS[:2])], padding=True, return_tensors="pt"))


@WITH_LIBRARIES
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_is_rounded(world: Path, scheme: str, dtype: str) -> None:
    """Linear layers of the trunk; embeddings, norms and the head are as in the file. A plan's bytes are those in memory,
    and neither packed tokens nor a forward change what comes out or its digest.
    """
    exact = SpecBuilder(check(read_spec(tapped(world, f', dtype="{dtype}"')))).model("bert")
    path = tapped(world, f', quantize="{scheme}", dtype="{dtype}"')
    distiller = bg.load(path).build()
    (teacher,) = distiller.teachers
    theirs = teacher.state_dict()
    same = {
        name for name, x in exact.state_dict().items() if name in theirs and torch.equal(x, dequantized(theirs[name]))
    }
    assert exact.state_dict().keys() - same == {f"{x}.weight" for x in quantized_layers(exact, scheme)}
    (memory,) = bg.load(path).plan(cost=False).stages[0].memory
    assert dict(memory.weights)["bert"] == in_memory(teacher)
    before, loss = weights_digest(teacher), distiller(texts()).loss
    assert weights_digest(teacher) == before == weights_digest(bg.load(path).build().teachers[0])
    padded = bg.load(path).build(skip=("pack_tokens",))(texts()).loss
    assert loss.item() == pytest.approx(padded.item(), rel=1e-5 if dtype == "fp32" else 1e-2)


def dequantized(x: torch.Tensor) -> torch.Tensor:
    """The values of a weight of torchao; any other as it is."""
    return x.dequantize() if type(x) not in (torch.Tensor, nn.Parameter) else x


def in_memory(model: nn.Module) -> int:
    """The bytes of parameters, with all tensors that they are made of."""
    parts = [part for p in model.parameters() for part in _plain_parts(p)]
    parts += [p.quant_state.absmax for p in model.parameters() if hasattr(p, "quant_state")]
    return sum(x.numel() * x.element_size() for x in parts)


@WITH_LIBRARIES
def test_a_run(world: Path, scheme: str) -> None:
    """Losses are close to exact ones, the run says what rounding costs, and a resumed run is equal to a whole one."""
    exact, said = bg.run(tapped(world, "", name="exact.brew")).folder, Said()
    path = tapped(world, f', quantize="{scheme}"')
    whole = bg.run(path, reporter=said, out=world / "whole").folder
    losses = [[line["loss"] for line in metrics(folder) if "loss" in line] for folder in (exact, whole)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.1 if scheme == "int8" else 0.2)
    (line,) = [line for line in said.lines if line.startswith(f"teacher bert in {scheme}: on 20 rows")]
    error, nats = float(line.split("are ")[1].split("%")[0]), float(line.split("predictions ")[1].split()[0])
    assert 0.1 < error < (4 if scheme == "int8" else 40)
    assert 0 < nats < 0.05

    class Ends(Reporter):
        def step(self, step: int, loss: float | None, terms: Any) -> None:
            if step == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bg.run(path, reporter=Ends(), out=world / "stopped")
    stopped = bg.run(path, out=world / "stopped").folder
    assert [line.get("loss") for line in metrics(stopped)] == [line.get("loss") for line in metrics(whole)]


@WITH_LIBRARIES
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_kept_values(world: Path, scheme: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While all values are on disk the teacher has no weights; its first forward reads them."""
    monkeypatch.setenv("BREWGRAPH_FACTS", str(world / "facts"))
    options = f', quantize="{scheme}", dtype="{dtype}"'
    path = tapped(world, options, 'cache auto at "store"\n')
    first = bg.load(path).build()(texts()).loss
    distiller = bg.load(path).build()
    (teacher,) = distiller._teachers
    assert distiller(texts()).loss == first
    assert all(p.is_meta for p in teacher.parameters())
    other = dict(tokenizer()([" ".join(WORDS[3:9])], return_tensors="pt"))
    assert distiller(other).loss == bg.load(tapped(world, options)).build()(other).loss
    assert not any(p.is_meta for p in teacher.parameters())


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_layers_of_gpt2(world: Path) -> None:
    """nf4 rounds them."""
    save(world / "bert", "gpt2", seed=1)
    path = quantized(world, "nf4")
    model = SpecBuilder(check(read_spec(path))).model("bert")
    rounded = {name.rpartition(".")[2] for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"}
    assert rounded == {"c_attn", "c_proj", "c_fc"}
    assert bg.load(path).build()(texts()).loss.isfinite()


@pytest.mark.parametrize("scheme", LIBRARIES)
def test_a_library_that_fails(world: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends before it trains, with what the library says and what to do."""

    def refuse(name: str) -> None:
        raise RuntimeError("this needs another torch\nat length")

    monkeypatch.setattr("brewgraph.models.quantizing.import_module", refuse)
    monkeypatch.setattr("brewgraph.models.quantizing.quantization_config", lambda *args: None)
    monkeypatch.setattr("brewgraph.models.quantizing.find_spec", lambda name: True)
    monkeypatch.setattr("brewgraph.models.quantizing.version", lambda name: "0.1")
    quantizing._fault.cache_clear()
    library = LIBRARIES[scheme]
    message = (
        rf"^the teacher `bert` cannot compute with quantize=\"{scheme}\" in fp32 on `cpu`: {library} 0.1 says: this "
        rf"needs another torch; pip install -U {library}, or leave `quantize` out$"
    )
    with pytest.raises(RunError, match=message):
        bg.run(quantized(world, scheme))
    quantizing._fault.cache_clear()


def test_the_divergence_by_hand() -> None:
    """KL of (1/2, 1/2) from (3/4, 1/4) is ln(2/sqrt(3))."""
    found = divergence_of(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]))
    assert found == pytest.approx(math.log(2 / math.sqrt(3)), rel=1e-6)
