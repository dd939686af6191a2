"""What a plan says that a batch costs, beside torch's own counters around a real step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import brewgraph as bg
from brewgraph.checking.check import Checked
from brewgraph.data.sources.tensor_batches import open_batches
from brewgraph.display.cost import Cost, DeviceMemory
from brewgraph.inspect.plan_of import costs, plan_of
from brewgraph.recipe.label_types import CLASS
from brewgraph.runtime.count_cost import example_batch
from brewgraph.runtime.distiller import Distiller

SPEC = """\
teacher big = hf(model_type="bert", num_hidden_layers=3, hidden_size=64, num_attention_heads=4, intermediate_size=256,
    vocab_size=500, labels=["a", "b"])
student small = hf(model_type="bert", num_hidden_layers=2, hidden_size=32, num_attention_heads=4,
    intermediate_size=128, vocab_size=500, labels=["a", "b"])
data d = files(train="rows.jsonl", batch=16, max_length=48)
soft = kd(big.logits -> small.logits)
hard = ce(d.labels -> small.logits)
hidden = mse(big.hidden[0, 3] -> small.hidden[0, 2] via linear)
{more}
"""
LOSSES = [
    "loss = soft + hard",
    "loss = soft + 0.3 * hard + sum(hidden)",
    "loss = sum(hidden) + nst(big.hidden[1] -> small.hidden[1])",
    "loss = mse(big.attention[0] -> small.attention[0]) + soft",
    "loss = mse(relation(big.value[2]) -> relation(small.value[1]))",  # of the last layers only a part is computed
    "loss = mse(big.attention[0] -> small.attention[0])",
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows in the working directory."""
    (tmp_path / "rows.jsonl").write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n')
    monkeypatch.chdir(tmp_path)


def checked(more: str) -> Checked:
    """The checked spec."""
    return bg.loads(SPEC.format(more=more))._checked


def real_step(of: Checked) -> tuple[Distiller, Any]:
    """The loss with weights, and a batch of the same size."""
    distiller = bg.Recipe(of).build()
    program = distiller.program
    models = {"big": distiller.teachers[0], "small": distiller.student}
    batch = example_batch(program.graph, models, {"d": CLASS}, {"d": 2}, {"d": (16, 48)})
    distiller(batch).loss.backward()  # gradients of parameters are there from now on
    return distiller, batch


def measured_peak(distiller: Distiller, batch: Any) -> int:
    """The most bytes that torch's allocator holds at once in a step, beside what it holds before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = distiller(batch).loss
        loss.backward()
    now = peak = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def compare(of: Checked, distiller: Distiller, batch: Any) -> Cost:
    """The cost that a plan says, beside what torch counts in a step on this batch."""
    (found,) = costs(of).values()
    assert isinstance(found, Cost), found
    # torch's counter knows nothing of the fused attention of a CPU, so attention is two products here
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            out = distiller(batch).loss
        with FlopCounterMode(display=False) as backward:
            out.backward()
    assert found.forward == pytest.approx(forward.get_total_flops(), rel=0.1)
    assert found.backward == pytest.approx(backward.get_total_flops(), rel=0.1)
    peak = measured_peak(distiller, batch)
    print(found, forward.get_total_flops(), backward.get_total_flops(), peak, found.peak / peak)
    assert found.peak == pytest.approx(peak, rel=0.25)
    assert 0 < found.kept <= found.peak
    return found


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("loss", LOSSES)
def test_flops_and_bytes_are_those_of_a_real_step(loss: str) -> None:
    """Within 10 % of torch's `FlopCounterMode` and 25 % of its allocator, forward and backward."""
    of = checked(loss)
    compare(of, *real_step(of))


@pytest.mark.usefixtures("data")
def test_a_teacher_costs_what_it_runs() -> None:
    """Of three layers one, where nothing behind it is taken; all of them where that pass is left out."""
    of = checked("loss = hard + mse(big.hidden[1] -> small.hidden[2] via linear)")
    (short,), (whole,) = costs(of).values(), costs(of, ["truncate_models"]).values()
    assert isinstance(short, Cost)
    assert isinstance(whole, Cost)
    big = [next(x for x in cost.forwards if x.model == "big") for cost in (short, whole)]
    assert [(x.layers, x.present) for x in big] == [(1, 3), (3, 3)]
    assert big[0].flops < 0.4 * big[1].flops


@pytest.mark.usefixtures("data")
def test_stages_of_one_loss_cost_what_their_own_batches_do() -> None:
    """A loss has one name whatever the size of its batches and the precision of its stage, and costs accordingly."""
    smaller = 'data d = files(train="rows.jsonl", batch=4, max_length=48)'
    stages = f"stage one {{ loss = soft }}\nstage two {{ {smaller}\nloss = kd(big.logits -> small.logits) }}"
    one, two, three = costs(checked(f"{stages}\nstage three {{ loss = soft\ntrain {{ precision = bf16 }} }}")).values()
    assert isinstance(one, Cost)
    assert isinstance(two, Cost)
    assert isinstance(three, Cost)
    assert (one.batch, two.batch, three.batch) == (16, 4, 16)
    assert one.forward == 4 * two.forward == three.forward
    assert three.peak < 0.9 * one.peak


@pytest.mark.usefixtures("data")
def test_recomputed_layers_keep_less_and_cost_more() -> None:
    """What is counted with `gradient_checkpointing` is again within 10 % and 25 % of what torch counts."""
    kept, again = (checked(f"loss = soft + hard\ntrain {{ {word} }}") for word in ("", "gradient_checkpointing = true"))
    (one,), cost = costs(kept).values(), compare(again, *real_step(again))
    assert isinstance(one, Cost)
    assert cost.kept < 0.6 * one.kept
    assert cost.peak < one.peak
    assert one.forward == cost.forward
    assert cost.backward > 1.3 * one.backward


@pytest.mark.usefixtures("data")
def test_memory_by_device() -> None:
    """Weights, gradients, what the optimizer keeps and activations; a teacher counts on its own device, at its format."""

    def memories(text: str, teacher: str = "", train: str = "") -> tuple[DeviceMemory, ...]:
        spec = SPEC.format(more=f"loss = {text}\ntrain {{ {train} }}").replace("big = hf(", f"big = hf({teacher}")
        of = bg.loads(spec)._checked
        (stage,) = plan_of(of).stages
        return stage.memory

    (one,) = memories("soft + sum(hidden)")
    plan = plan_of(checked("loss = soft + sum(hidden)"), cost=False)
    sizes = [4 * (model.parameters or 0) for model in plan.models]
    projections = 4 * 2 * (32 * 64 + 64)  # two linear maps with biases
    assert one.weights == (("big", sizes[0]), ("small", sizes[1]), ("projections", projections))
    assert one.gradients == sizes[1] + projections
    assert plan.stages[0].memory[0].activations is None
    assert one.optimizer == 2 * one.gradients
    here, there = memories("soft + sum(hidden)", 'device="cuda:1", dtype="bf16", ', "optimizer = sgd(lr=0.1)")
    assert (here.device, there.device) == ("", "cuda:1")
    assert (here.weights, here.optimizer) == (one.weights[1:], 0)
    assert (there.weights, there.gradients, there.optimizer) == ((("big", sizes[0] // 2),), 0, 0)
    assert here.activations is not None
    assert one.activations is not None
    # a teacher's forward needs more than its logits and hidden states, which are kept where the student is
    assert 0 < (there.activations or 0) < one.activations
    assert here.activations < one.activations
    (less,) = memories("soft + sum(hidden)", "", "gradient_checkpointing = true")
    assert less.activations is not None
    assert less.activations < one.activations
    assert replace(less, activations=0) == replace(one, activations=0)


@pytest.mark.usefixtures("data")
def test_memory_of_one_of_several_ranks() -> None:
    """A quarter of what is sharded; the student is gathered as a whole, the teacher stays whole unless it is sharded."""

    def memory(train: str, ranks: int) -> DeviceMemory:
        (stage,) = plan_of(checked(f"loss = soft + sum(hidden)\ntrain {{ {train} }}"), ranks=ranks).stages
        return stage.memory[0]

    one, part = memory("steps = 2", 1), memory("steps = 2", 4)
    (big, small, projections), parts = dict(one.weights).values(), dict(part.weights)
    assert parts == {"big": big, "small": -(-small // 4), "projections": projections // 4}
    assert (part.gradients, part.optimizer) == (-(-one.gradients // 4), -(-one.optimizer // 4))
    assert (part.gathered, part.activations) == (small + projections, -(-(one.activations or 0) // 4))
    sharded = memory("steps = 2; shard_teachers = true", 4)
    assert dict(sharded.weights)["big"] == -(-big // 4)
    assert part.total - sharded.total == big - -(-big // 4)


@pytest.mark.usefixtures("data")
def test_what_is_not_known_says_why() -> None:
    """A module of Python code has no configuration; nothing is guessed."""
    of = checked('teacher own = python("pkg.mod:factory")\nloss = hard + mse(own.hidden[1] -> small.hidden[2])')
    assert list(costs(of).values()) == ["nothing is known of own before it is loaded"]


@pytest.mark.usefixtures("data")
def test_a_cache_stays_as_it_is() -> None:
    """What is counted is a step without it, and nothing is written."""
    plain = checked("loss = soft + hard")
    kept = checked('cache kept = big.logits at "cache"\nloss = kd(kept -> small.logits) + hard')
    assert costs(kept) == costs(plain)
    assert not Path("cache").exists()


def write_ready(folder: Path, *sizes: tuple[int, int, int]) -> None:
    """Batches of so many rows, tokens of both models, and tokens that `big` has of its own."""
    fields = {}
    for i, (rows, length, own) in enumerate(sizes):
        ids, longer = torch.ones(rows, length, dtype=torch.long), torch.ones(rows, own, dtype=torch.long)
        fields |= {f"{i}.input_ids": ids, f"{i}.attention_mask": ids.clone(), f"{i}.token_type_ids": ids.clone() * 0}
        fields |= {f"{i}.big.{name}": longer.clone() for name in ("input_ids", "attention_mask")}
        fields |= {f"{i}.big.token_type_ids": longer * 0, f"{i}.labels": torch.zeros(rows, dtype=torch.long)}
    folder.mkdir()
    save_file(fields, folder / "batches.safetensors")


@pytest.mark.parametrize("more", ["loss = soft + hard", "loss = hard + mse(big.pooled -> small.pooled via linear)"])
def test_ready_tensors_have_the_cost_of_the_largest_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """What a real step on it takes, however the batches differ, and among those alone that are trained on."""
    monkeypatch.chdir(tmp_path)
    write_ready(tmp_path / "ready", (4, 20, 30), (16, 24, 40), (8, 24, 40), (64, 48, 48))
    text = SPEC.replace('files(train="rows.jsonl", batch=16, max_length=48)', 'batches("ready", last=2)').replace(
        "hidden = mse(big.hidden[0, 3] -> small.hidden[0, 2] via linear)\n", ""
    )
    recipe = bg.loads(text.format(more=more))
    batch = open_batches(recipe._checked.recipe.data["d"].source, tmp_path).train[1]
    distiller = recipe.build()
    distiller(batch).loss.backward()
    found = compare(recipe._checked, distiller, batch)
    assert (found.batch, found.length) == (16, 24)
