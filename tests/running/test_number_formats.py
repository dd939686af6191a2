"""`hf(…, dtype=bf16)`: a teacher in a lower number format, a student and losses in fp32, and what it costs is said."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.initialization import no_init_weights

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError, SpecError
from brewgraph.graph import nodes as n
from brewgraph.graph.scalars import Horizon
from brewgraph.models.capture.capture import Capture
from brewgraph.models.places import check_format
from brewgraph.recipe.features import Feature
from brewgraph.recipe.settings.train import Train
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.runtime.instructions import Step, forward_instruction
from brewgraph.runtime.layouts import Slots
from brewgraph.source import Source, Span
from brewgraph.training import processes
from brewgraph.training.reporter import Reporter
from tests.small import metrics, write_pair

SPEC = """teacher bert = hf("bert"{dtype})
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4, max_length=32)
loss = kd(bert.logits -> tiny.logits) + mse(bert.hidden[1] -> tiny.hidden[1] via linear)
train {{ epochs = 2; optimizer = adamw(lr=1e-3); logging_steps = 1 }}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a teacher and a student."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    return tmp_path


def spec(world: Path, dtype: str, name: str = "spec.brew") -> Path:
    """The spec with the teacher in this format."""
    path = world / name
    path.write_text(SPEC.format(dtype=f', dtype="{dtype}"' if dtype else ""))
    return path


class Said(Reporter):
    """Remembers what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("dtype", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_a_teacher_in_a_lower_format(world: Path, dtype: str) -> None:
    """Losses are close to those in fp32 and not equal; the run says how far the teacher's outputs are off."""
    exact = bg.run(spec(world, "", "exact.brew")).folder
    said = Said()
    lower = bg.run(spec(world, dtype), reporter=said).folder
    losses = [[line["loss"] for line in metrics(folder) if "loss" in line] for folder in (exact, lower)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.03)
    (line,) = [line for line in said.lines if line.startswith(f"teacher bert in {dtype}: on ")]
    assert "on 20 rows" in line  # all that there are
    error = float(line.split("are ")[1].split("%")[0])
    assert 0.01 < error < 5 if dtype == "bf16" else error < 0.5


def test_the_copy_in_fp32_is_gone_before_training(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured against and freed, whatever refers to it in circles."""
    copies = []
    exact = SpecBuilder.exact

    def remembered(builder: SpecBuilder, name: str) -> torch.nn.Module:
        module = exact(builder, name)
        module.itself = [module]  # a circle, which only a collection frees
        copies.append(weakref.ref(module))
        return module

    class AtStart(Reporter):
        def begin(self, name: str, steps: int, done: int) -> None:
            alive.extend(copy() is not None for copy in copies)

    alive: list[bool] = []
    monkeypatch.setattr(SpecBuilder, "exact", remembered)
    bg.run(spec(world, "bf16"), reporter=AtStart())
    assert alive == [False]


def test_without_memory_for_a_copy_nothing_is_measured(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run says why, and goes on."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(SpecBuilder, "exact", None)
    said = Said()
    assert bg.run(spec(world, "bf16"), reporter=said).fresh
    (line,) = [line for line in said.lines if line.startswith("teacher bert in bf16: what ")]
    assert (
        line
        == "teacher bert in bf16: what rounding costs is not measured; in fp32 it takes 0.0 GB, and 0.0 GB are free"
    )


@pytest.mark.parametrize("native", [True, False])
def test_formats_that_the_processor_lacks(world: Path, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a teacher's `dtype` and of `precision`: the run says that they make it slower."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    path = spec(world, "bf16")
    path.write_text(path.read_text().replace("train { epochs = 2", "train { precision = bf16; steps = 1"))
    said = Said()
    bg.run(path, reporter=said)
    lines = [line for line in said.lines if "this processor has no instructions for bf16; leave it out" in line]
    assert [line.partition(" makes ")[0] for line in lines] == (
        [] if native else ["teacher bert in bf16: `dtype`", "`precision = bf16`"]
    )


def test_only_the_teacher_is_in_it(world: Path) -> None:
    """The student, the projection, the gradients and the loss stay in fp32."""
    distiller = bg.load(spec(world, "bf16")).build()
    assert {p.dtype for teacher in distiller.teachers for p in teacher.parameters()} == {torch.bfloat16}
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
    loss = distiller({"input_ids": ids, "attention_mask": (ids > 0).long()}).loss
    loss.backward()
    assert {x.dtype for p in distiller.parameters() for x in (p, p.grad) if x is not None} == {torch.float32}
    assert loss.dtype == torch.float32


def test_a_student_starts_from_exact_layers(world: Path) -> None:
    """Layers of a teacher in bf16 are copied in fp32: master weights are never rounded."""
    path = spec(world, "bf16")
    student = 'hf("bert", init=bert.layers[1, 0], num_hidden_layers=2)'
    path.write_text(path.read_text().replace('hf("tiny")', student))
    exact = SpecBuilder(check(read_spec(spec(world, "", "exact.brew")))).model("bert")
    copied = SpecBuilder(check(read_spec(path))).model("tiny")
    own, given = (dict(m.named_parameters()) for m in (copied, exact))
    place = "bert.encoder.layer.{}.output.dense.weight"
    assert torch.equal(own[place.format(0)], given[place.format(1)])


def test_the_hash(world: Path) -> None:
    """Another format is another spec; fp32 by default is the same one as before."""
    hashes = [check(read_spec(spec(world, dtype))).spec_hash for dtype in ("", "bf16", "fp16")]
    assert len(set(hashes)) == 3
    assert "dtype" not in repr(check(read_spec(spec(world, ""))).recipe.models["bert"].source)


@pytest.mark.parametrize(
    ("change", "code", "help"),
    [
        ('hf("tiny", dtype="bf16")', "B117", "leave `dtype` out; `train { precision = bf16 }`"),
        ('hf("tiny", dtype="int7")', "B122", "it is one of"),
    ],
)
def test_formats_that_cannot_be(world: Path, change: str, code: str, help: str) -> None:
    """A student's weights stay in fp32; a format must be known."""
    path = spec(world, "")
    path.write_text(path.read_text().replace('hf("tiny")', change))
    with pytest.raises(SpecError) as error:
        check(read_spec(path))
    (found,) = error.value.diagnostics
    assert found.code == code
    assert help in found.help


def test_a_precision_that_a_machine_lacks(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU fp16 is fp32, and the run says so; a device that refuses a precision ends the run in one line."""
    said = Said()
    path = spec(world, "")
    path.write_text(path.read_text().replace("train { epochs = 2", "train { precision = fp16; steps = 1"))
    bg.run(path, reporter=said)
    assert len([line for line in said.lines if line.startswith("`precision = fp16` needs a GPU")]) == 1

    def refuse(*args: object, **kwargs: object) -> None:
        raise ValueError("bf16 mixed precision requires PyTorch >= 1.10 and a supported device.")

    monkeypatch.setattr(processes, "Accelerator", refuse)
    with pytest.raises(
        RunError, match=r"`cpu` cannot compute with `precision = bf16`: choose another, or leave it out"
    ):
        processes.make_accelerator(Train(precision="bf16"))


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def placed(world: Path, device: str, name: str = "placed.brew", more: str = "") -> Path:
    """The spec with the teacher on this device."""
    path = spec(world, "", name)
    path.write_text(path.read_text().replace('hf("bert")', f'hf("bert", device="{device}"{more})'))
    return path


def test_a_device_changes_neither_the_hash_nor_a_number(world: Path) -> None:
    """The teacher stays where it is while the rest moves; losses are the same."""
    plain, other = (check(read_spec(path)) for path in (spec(world, "", "exact.brew"), placed(world, "cuda:1")))
    assert plain.spec_hash == other.spec_hash
    there = bg.run(placed(world, "cpu"), out=world / "there")
    here = bg.run(spec(world, "", "exact.brew"), out=world / "here")
    losses = [[line["loss"] for line in metrics(x.folder) if "loss" in line] for x in (there, here)]
    assert losses[0] == losses[1]
    distiller = bg.load(placed(world, "cpu")).build()
    distiller.to(device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in distiller.parameters()} == {("meta", torch.float64)}
    (teacher,) = distiller.teachers
    assert {(p.device.type, p.dtype) for p in teacher.parameters()} == {("cpu", torch.float64)}


def test_averages_have_places_too(world: Path) -> None:
    """The average of the student stays on its device; its hash has no device."""
    path = spec(world, "", "mean.brew")
    teacher = "teacher mean = ema(tiny, decay=0.9{})\ndata d"
    loss = "loss = mse(mean.logits -> tiny.logits) + "
    path.write_text(path.read_text().replace("loss = ", loss).replace("data d", teacher.format(', device="cpu"')))
    distiller = bg.load(path).build()
    other = path.with_name("other.brew")
    other.write_text(path.read_text().replace(', device="cpu"', ""))
    assert check(read_spec(path)).spec_hash == check(read_spec(other)).spec_hash
    distiller.to("meta")
    assert sorted({p.device.type for p in teacher.parameters()}.pop() for teacher in distiller.teachers) == [
        "cpu",
        "meta",
    ]
    assert bg.run(path).folder.exists()


class Small(torch.nn.Module):
    """One linear map of token ids, without memory for its weights."""

    def __init__(self, place: torch.device):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4, bias=False, device=place)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.linear(input_ids.float())


def test_inputs_and_features_move() -> None:
    """A forward with a place gets its inputs there and gives its features where the batch is: on fake devices."""
    nowhere, place, seen = Span(Source(""), 0, 0), torch.device("cuda:1"), set[str]()
    with FakeTensorMode(), no_init_weights():
        teacher = Small(place)
        teacher.linear.register_forward_pre_hook(lambda module, args: seen.add(str(args[0].device)))
        feature = Feature("tap", path="linear")
        tap = n.Tap(("f",), "big", feature, shape=None, span=nowhere)
        forward = n.Forward(("x",), "big", "teacher", "", shape=None, span=nowhere)
        run = forward_instruction(forward, teacher, Capture(teacher, [feature]), 1, {0: tap}, "d", None, place=place)
        step = Step({}, Slots([None, {"input_ids": torch.ones(2, 4, dtype=torch.long)}]), 0.0, None, Horizon())
        run(step)
    assert seen == {"cuda:1"}
    assert str(step.slots[0].device) == "cpu"


@pytest.mark.skipif(torch.cuda.device_count() > 8, reason="a machine with this device")
def test_devices_that_are_not_there(world: Path) -> None:
    """A legal device passes every check; a run on a machine without it ends at once and names what there is."""
    path = placed(world, "cuda:9")
    check(read_spec(path))
    with pytest.raises(RunError, match=r"the teacher `bert` is to run on `cuda:9`, .*it has `?cpu.*leave `device` out"):
        bg.run(path)
    assert not list(world.glob("runs/*/checkpoints/*"))
    with pytest.raises(RunError, match="cuda:9"):
        bg.load(path).build()


def refused(world: Path, change: tuple[str, str], code: str, message: str) -> None:
    """A check of the spec with one part replaced ends with one diagnostic, which has a remedy."""
    path = spec(world, "")
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(SpecError) as error:
        check(read_spec(path))
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == code
    assert message in diagnostic.message
    assert diagnostic.help


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (('hf("bert")', 'hf("bert", device="gpu")'), "B122", "unknown device `gpu`; torch has cpu, cuda"),
        (('hf("bert")', 'hf("bert", device="cuda:one")'), "B122", "unknown device `cuda:one`"),
        (('hf("tiny")', 'hf("tiny", device="cpu")'), "B117", "`tiny` is trained, and has no device of its own"),
    ],
)
def test_devices_that_cannot_be(world: Path, change: tuple[str, str], code: str, message: str) -> None:
    """Found when the spec is checked."""
    refused(world, change, code, message)


def test_formats_that_a_device_cannot_compute_in() -> None:
    """Nothing multiplies these eight bits on a CPU."""
    check_format("bert", torch.bfloat16, torch.device("cpu"))
    with pytest.raises(RunError, match=r"`bert` cannot compute in float8_e4m3fn on `cpu`: leave `dtype` out"):
        check_format("bert", torch.float8_e4m3fn, torch.device("cpu"))
