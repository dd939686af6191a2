"""Sharded training (FSDP2 on a gloo mesh): what one process trains, with 1/n of everything on each rank."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForMaskedLM

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError
from brewgraph.graph.optimize import VOCABULARY
from brewgraph.recipe.settings.train import Train
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.runtime.distiller import Distiller
from brewgraph.training import shards as sharded
from brewgraph.training.folder import RunFolder
from brewgraph.training.loop import train
from brewgraph.training.processes import this_process, without_gain
from brewgraph.training.reporter import Reporter
from brewgraph.training.shards import ShardedModule, Sharding, Shards, gathered, scattered, sharding
from tests import warm
from tests.small import WORDS, metrics, project, rows, save, tokenizer, write_rows

ROOT = Path(__file__).resolve().parents[2]
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
"""What `accelerate launch` puts into the environment for `distributed_type: FSDP` and `fsdp_version: 2`."""


# ── what accelerate's configuration asks for ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a process that was launched with FSDP2."""
    for name, value in FSDP2.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_configuration_is_read(launched: pytest.MonkeyPatch) -> None:
    """Layers by class or by anatomy, and whether they are freed; nothing is sharded on one process or without FSDP."""
    assert sharding(2) == Sharding()
    assert sharding(1) is None
    launched.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    launched.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "BertLayer, T5Block")
    assert sharding(2) == Sharding(False, True, ("BertLayer", "T5Block"))
    launched.setenv("FSDP_AUTO_WRAP_POLICY", "NO_WRAP")
    assert sharding(2) == Sharding(False, False, ("BertLayer", "T5Block"))
    launched.setenv("ACCELERATE_USE_FSDP", "false")
    assert sharding(2) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FSDP_VERSION", "1", "FSDP version 1 is not supported: set `fsdp_version: 2`"),
        ("FSDP_OFFLOAD_PARAMS", "true", "`fsdp_offload_params: true` is not supported: set it to false"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "train { gradient_checkpointing = true }"),
        ("FSDP_IGNORED_MODULES", "lm_head", "`fsdp_ignored_modules: lm_head` is not supported: remove it"),
        ("FSDP_AUTO_WRAP_POLICY", "SIZE_BASED_WRAP", "set it to TRANSFORMER_BASED_WRAP"),
        ("PARALLELISM_CONFIG_TP_SIZE", "4", "`parallelism_config_tp_size: 4` is not supported"),
    ],
)
def test_what_is_not_supported_is_refused(name: str, value: str, message: str, launched: pytest.MonkeyPatch) -> None:
    """Each with what to write instead."""
    launched.setenv(name, value)
    with pytest.raises(RunError) as raised:
        sharding(2)
    assert message in str(raised.value)


@pytest.mark.parametrize(("flag", "engine"), [("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM")])
def test_other_engines_are_refused_before_the_processes_connect(
    flag: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the lines that shard."""
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setenv(f"ACCELERATE_USE_{flag}", "true")
    with pytest.raises(RunError, match=f"^{engine} is not supported: shard with FSDP2, `distributed_type: FSDP`"):
        this_process()


def test_a_launch_that_shards_nothing_is_reported(launched: pytest.MonkeyPatch) -> None:
    """FSDP on one process, and sharded teachers without FSDP."""
    cpu = torch.device("cpu")
    assert list(without_gain(Train(), cpu)) == ["FSDP has no effect on one process: nothing is sharded"]
    launched.setenv("ACCELERATE_USE_FSDP", "false")
    assert list(without_gain(Train(shard_teachers=True), cpu)) == [
        "`shard_teachers = true` has no effect: accelerate's configuration has no `distributed_type: FSDP`"
    ]


# ── a sharded module ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def mesh() -> Iterator[Any]:
    """A mesh of one rank."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def network() -> nn.Sequential:
    """Two layers and a last one whose weights are tied to the first's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("torch.distributed._composable.contract", "STATE_KEY"),
        ("torch.distributed._composable_state", "_module_state_mapping"),
        ("torch.distributed.fsdp:FSDPModule", "_get_fsdp_state"),
        ("torch.distributed.fsdp._fully_shard._fsdp_state:FSDPState", "_post_forward"),
    ],
)
def test_another_torch_is_refused(owner: str, name: str, mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without a name that is used inside of it: one line names it, before anything is made plain."""
    module = network()
    fully_shard(module, mesh=mesh)
    path, _, class_name = owner.partition(":")
    place = import_module(path)
    monkeypatch.delattr(getattr(place, class_name) if class_name else place, name)
    message = (
        f"cannot shard over ranks with torch {torch.__version__}: .*'{name}'; install torch 2.13, or launch without"
    )
    with pytest.raises(RunError, match=re.escape(message).replace(re.escape(".*"), ".*")):
        sharded._Part(module)


def test_a_sharded_module_steps_as_a_plain_one_and_becomes_plain_again(mesh: Any) -> None:
    """Twice, with Adam, whose state is saved whole and loaded into shards; in between it can be used and saved."""
    plain, module = network(), network()
    own = list(module.parameters())
    names = [name for name, _ in module.named_parameters()]
    x = torch.arange(8.0).view(2, 4) / 8
    states: list[dict[str, Any]] = [{}, {}]
    for _ in range(2):
        shards = ShardedModule(module, [module[0], module[1]], mesh, by_layer=True, by_root=False)
        assert all(isinstance(p, DTensor) for p in module.parameters())
        assert [isinstance(part, FSDPModule) for part in module] == [False, True, False]  # tied weights go to the root
        assert all(p.numel() == 0 for p in own)
        optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1) for m in (plain, module)]
        if states[0]:
            optimizers[0].load_state_dict(states[0])
            optimizers[1].load_state_dict(scattered(states[1], optimizers[1]))
        for m, optimizer in zip((plain, module), optimizers, strict=True):
            for _ in range(2):
                m(x).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            with shards.whole():
                assert not any(isinstance(part, FSDPModule) for part in module.modules())
                assert list(module.parameters()) == own  # tensors of one identity
                assert module(x).shape == (2, 4)
                assert list(module.state_dict())[:2] == ["0.weight", "0.bias"]
            m(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        states = [gathered(optimizer.state_dict(), keep=True) for optimizer in optimizers]
        assert not any(isinstance(v, DTensor) for of in states[1]["state"].values() for v in of.values())
        shards.end()
        assert [name for name, _ in module.named_parameters()] == names
        assert all(a is b for a, b in zip(module.parameters(), own, strict=True))
        assert type(module) is nn.Sequential
        assert type(module[1]) is nn.Linear
        assert not module._forward_hooks
        assert not module[1]._forward_pre_hooks
        for a, b in zip(plain.parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(a, b)
    module.load_state_dict(plain.state_dict())


def test_what_cannot_be_sharded_is_refused(tmp_path: Path) -> None:
    """Before anything is moved or sharded, with what to change."""
    spec = project(tmp_path)

    def refusal(distiller: Distiller, **settings: Any) -> str:
        with pytest.raises(RunError, match="^cannot shard over ranks: ") as raised:
            Shards(Sharding(), distiller, Train(**settings), torch.device("cpu"), 2)
        return str(raised.value)

    distiller = bg.load(spec).build()
    assert "use `precision = bf16`" in refusal(distiller, precision="fp16")
    assert "`compile = true` is not supported: remove it" in refusal(distiller, compile=True)
    distiller.student.config.encoder_layerdrop = 0.1
    assert "since `encoder_layerdrop` is set: set it to 0" in refusal(distiller)
    distiller.student.config.encoder_layerdrop = 0.0
    distiller.student.classifier.to(torch.bfloat16)
    assert "several number formats (`bfloat16` and `float32`): give all one" in refusal(distiller)
    distiller.student.classifier.to(torch.float32)
    distiller.student.norm = nn.BatchNorm1d(4)
    assert "`student.norm` keeps running means, which each rank would have its own of" in refusal(distiller)
    del distiller.student.norm
    distiller.student.scale = nn.Parameter(torch.tensor(1.0))
    assert "`student.scale` is a single number without an axis" in refusal(distiller)
    (teacher,) = distiller.teachers
    assert distiller.shardable_teachers() == ([teacher], ())
    teacher.scale = nn.Parameter(torch.tensor(1.0))
    assert distiller.shardable_teachers() == ([], ("bert",))
    spec.write_text(
        spec.read_text().replace("soft = ce(bert.logits", 'cache kept = bert.logits at "store"\nsoft = ce(kept')
    )
    cached = bg.load(spec).build()
    assert "remove one of them" in refusal(cached, shard_teachers=True)


# ── whole trainings on two ranks ─────────────────────────────────────────────────────────────────────────────────────

Case = tuple[str, str, Mapping[str, Any], Mapping[str, str]]
"""A spec, a folder, options of `train`, and what differs in the environment."""


class Listening(Reporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def training(spec: Path, out: Path, **options: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Train all stages of a spec; the weights at the end and what was said."""
    builder = SpecBuilder(check(read_spec(spec)))
    folder, reporter = RunFolder(out), Listening()
    if this_process().is_main_process:
        folder.prepare()
    this_process().wait_for_everyone()
    stages, student = DataCache(builder).stages(builder.checked), builder.recipe.student.name
    distiller = train(stages, student, folder, reporter, name="x", **options).distiller
    return {name: value.detach().clone() for name, value in distiller.state_dict().items()}, reporter.said


def run_cases(path: str) -> None:
    """Train the cases of a file, one after the other, on this rank; for each its weights, and the share of the trained
    parameters that this rank holds."""
    from brewgraph.training import loop

    shares: list[float] = []
    step = loop.StageRun._step

    def noted(self: Any, *rest: Any) -> None:
        step(self, *rest)
        local = [p.to_local() if isinstance(p, DTensor) else p for p in self.clipped]
        shares.append(sum(x.numel() for x in local) / sum(p.numel() for p in self.clipped))

    loop.StageRun._step = noted  # type: ignore[method-assign]
    for spec, out, options, environment in json.loads(Path(path).read_text()):
        os.environ.update({**FSDP2, **environment})
        shares.clear()
        weights, said = training(Path(spec), Path(out), **options)
        rank = this_process().process_index
        torch.save([weights, said, list(shares)], Path(out) / f"end-{rank}.pt")
    this_process().destroy_process_group()


def on_two_ranks(folder: Path, cases: Sequence[Case]) -> list[tuple[dict[str, Tensor], list[str], list[float]]]:
    """The results of the first rank, case by case, after a comparison with those of the second."""
    (folder / "cases.json").write_text(json.dumps(cases))
    worker = f"from tests.training.test_shards import run_cases; run_cases({str(folder / 'cases.json')!r})"
    warm.start_ranks("-c", worker)
    results = []
    for _, out, _, _ in cases:
        one, other = (torch.load(Path(out) / f"end-{rank}.pt", weights_only=True) for rank in range(2))
        assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
        results.append(tuple(one))
    return results


def close(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Weights agree to 1e-6."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics, numbers to 1e-6."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(x) for key, x in value.items()}
        return pytest.approx(value, abs=2e-6) if isinstance(value, float) else value

    return [rounded(line) for line in metrics(out)]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A project whose student has two layers, with an odd number of rows to evaluate."""
    project(tmp_path, batch=8)
    save(tmp_path / "tiny", width=16, layers=2, seed=2)
    write_rows(tmp_path / "dev.jsonl", rows(7))
    return tmp_path


def spec_of(world: Path, name: str, train: str, *edits: tuple[str, str]) -> Path:
    """A spec of its own beside `spec.brew`."""
    text = (world / "spec.brew").read_text().replace("train { steps = 5", f"train {{ {train}")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    path = world / f"{name}.brew"
    path.write_text(text)
    return path


def write_words(world: Path) -> Path:
    """A spec of two language models with a large vocabulary, which they tie to their embeddings."""
    kind = AutoConfig.for_model("bert", **SPEAKER)
    torch.manual_seed(3)
    for name in ("speaker", "learner"):
        AutoModelForMaskedLM.from_config(kind).save_pretrained(world / name)
        tokenizer().save_pretrained(world / name)
    (world / "words.txt").write_text("".join(" ".join(WORDS[i : i + 9]) + "\n" for i in range(12)))
    path = world / "words.brew"
    path.write_text(
        'brew 1\nteacher big = hf("speaker")\nstudent tiny = hf("learner")\n'
        'data t = text(train="words.txt", mask=15%, batch=4, max_length=16)\n'
        "loss = kd(big.logits -> tiny.logits, T=2) + ce(t.labels -> tiny.logits)\n"
        "train { steps = 3; shard_teachers = true; optimizer = adamw(lr=1e-3, eps=1e-5); logging_steps = 1 }\n"
    )
    return path


SPEAKER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "vocab_size": VOCABULARY + 7,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SAVING = "save_steps = 1 steps; save_total_limit = 9"
STAGES = """
stage first {
    loss = mse(mean.hidden[1] -> tiny.hidden[1] via linear) + sum(hidden)
    train { steps = 3 }
}
stage second {
    loss = soft + 0.5 * mse(mean.hidden[1] -> tiny.hidden[1]) + sum(hidden) + after(50%) * sum(gram)
    train { steps = 4; freeze = [tiny @ "embeddings"]; accumulate = 2 }
}
train {"""


@pytest.mark.slow
def test_two_ranks_with_shards_train_as_one_process(world: Path) -> None:
    """Taps, projections, micro-batches, clipping, reported values and losses on dev; layers that run again; sharded
    teachers; stages with an average and frozen parts; adapters; a large vocabulary, whose last linear layer runs in
    chunks after the forwards and again in the backward pass; one group for all."""
    report = f"report = [soft]; eval_steps = 2 steps; max_grad_norm = 0.05; {SAVING}"
    average = ("data d =", "teacher mean = ema(tiny, decay=0.5)\ndata d =")
    adapter = ('student tiny = hf("tiny")', 'student tiny = hf("tiny", adapter=lora(r=2, alpha=4))')
    specs = {
        "plain": spec_of(world, "plain", f"steps = 5; accumulate = 2; {report}", ("batch=8", "batch=4")),
        "again": spec_of(world, "again", f"steps = 3; gradient_checkpointing = true; {SAVING}"),
        "teachers": spec_of(
            world, "teachers", 'steps = 4; shard_teachers = true; metric_for_best_model = "loss"; eval_steps = 1 steps'
        ),
        "stages": spec_of(
            world,
            "stages",
            SAVING,
            ("loss = soft + 0.3 * hard + sum(hidden) + 0.5 * sum(gram)\n", ""),
            ("train {", STAGES),
            average,
        ),
        "adapter": spec_of(world, "adapter", f"steps = 3; {SAVING}", adapter),
        "words": write_words(world),
        "whole": spec_of(world, "whole", "steps = 3"),
    }
    one_group = {"FSDP_AUTO_WRAP_POLICY": "NO_WRAP", "FSDP_RESHARD_AFTER_FORWARD": "false"}
    cases: list[Case] = [
        (str(spec), str(world / f"{name}-ranks"), {}, one_group if name == "whole" else {})
        for name, spec in specs.items()
    ]
    for name, (weights, said, shares) in zip(specs, on_two_ranks(world, cases), strict=True):
        expected, _ = training(specs[name], world / name)
        close(weights, expected)
        assert lines_of(world / f"{name}-ranks") == metrics(world / name) != []
        assert set(shares) != set()
        assert all(0.45 < share < 0.55 for share in shares), shares
        teachers = "student, projections, teachers"
        parts = {"teachers": teachers, "words": teachers, "stages": "student, projections, averages"}
        line = f"FSDP2: {parts.get(name, 'student, projections')} are sharded over 2 ranks (cpu)"
        assert said.count(line) == (2 if name == "stages" else 1)


@pytest.mark.slow
def test_checkpoints_fit_any_number_of_ranks(world: Path) -> None:
    """Written sharded, resumed by one process; by one process or by two that do not shard, resumed sharded; in the
    second stage, too."""
    spec = spec_of(world, "spec-saving", f"steps = 5; {SAVING}")
    average = ("data d =", "teacher mean = ema(tiny, decay=0.5)\ndata d =")
    without = ("loss = soft + 0.3 * hard + sum(hidden) + 0.5 * sum(gram)\n", "")
    stages = spec_of(world, "stages", SAVING, without, ("train {", STAGES), average)
    whole, of_stages = training(spec, world / "whole")[0], training(stages, world / "whole-stages")[0]
    training(spec, world / "one", stop_after=2)
    training(stages, world / "one-stages", stop_after=5)
    plain = {"ACCELERATE_USE_FSDP": "false"}
    cases: list[Case] = [
        (str(spec), str(world / "sharded"), {"stop_after": 2}, {}),
        (str(stages), str(world / "sharded-stages"), {"stop_after": 5}, {}),
        (str(spec), str(world / "one"), {"resume": True}, {}),
        (str(stages), str(world / "one-stages"), {"resume": True}, {}),
        (str(spec), str(world / "ranks"), {"stop_after": 3}, plain),
        (str(spec), str(world / "ranks"), {"resume": True}, {}),
    ]
    results = on_two_ranks(world, cases)
    close(results[2][0], whole)
    close(results[3][0], of_stages)
    close(results[5][0], whole)
    assert results[2][1][0] == "resumed at step 2"
    assert results[3][1][0] == "resumed at step 5 of stage second"
    again, said = training(spec, world / "sharded", resume=True)
    close(again, whole)
    assert said == ["resumed at step 2"]
    close(training(stages, world / "sharded-stages", resume=True)[0], of_stages)
    for out in ("one", "sharded", "ranks"):
        assert lines_of(world / out) == metrics(world / "whole")


@pytest.mark.slow
def test_the_configuration_of_the_docs_shards_a_run(world: Path) -> None:
    """`accelerate launch --config_file fsdp2.yaml -m brewgraph run`, with sharded teachers, which the table scores."""
    spec = spec_of(world, "cli", "steps = 3; shard_teachers = true")
    page = (ROOT / "docs" / "scale.md").read_text()
    yaml = page.partition("```yaml\n")[2].partition("```")[0]
    assert "fsdp_version: 2" in yaml
    here = yaml.replace("num_processes: 8", "num_processes: 2\nmain_process_port: 0\nuse_cpu: true")
    (world / "fsdp2.yaml").write_text(here)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(world / "fsdp2.yaml")]
    command = [*launch, "-m", "brewgraph", "run", str(spec), "--out", str(world / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    said = done.stdout + done.stderr
    assert said.count("FSDP2: student, projections, teachers are sharded over 2 ranks (cpu)") == 1
    models = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("bert ", "tiny "))]
    assert models[:2] == ["bert", "tiny"]
    student = load_file(world / "run" / "student" / "model.safetensors")
    expected = {k.removeprefix("student."): v for k, v in training(spec, world / "one")[0].items() if "student." in k}
    close(student, expected)
