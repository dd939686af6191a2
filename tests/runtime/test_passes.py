"""Every pass leaves loss, gradients and trained weights as they are without it, and saves what it is there to save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers.modeling_utils
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import UsageError
from brewgraph.graph.optimize import NAMES
from brewgraph.inspect.plan_of import savings_of
from brewgraph.recipe.settings.train import Train
from brewgraph.running import teacher_check
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.optimizer import build_optimizer
from brewgraph.training.reporter import Reporter
from brewgraph.training.work import unreached_frozen
from tests.runtime.test_distiller import batch
from tests.small import metrics, save, write_data

SPEC = """brew 1
teacher bert = hf("bert")
teacher other = hf("other")
student tiny = hf("{student}")
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=32)
let map = [0, 2] -> [0, 1]
soft = kd(bert.logits -> tiny.logits, T=4)
hard = ce(d.labels -> tiny.logits)
second = kd(other.logits -> tiny.logits)
rows = mse(bert.hidden[map] -> tiny.hidden[map] via linear)
low = mse(bert.hidden[1] -> tiny.hidden[0] via linear)
again = mse(bert.hidden[1] -> tiny.hidden[0] via linear)
looks = mse(bert.attention[1] -> tiny.attention[0])
gram = nst(bert.hidden[map] -> tiny.hidden[map])
far = nst(bert.hidden[3] -> tiny.hidden[2])
twice = kl(tiny.logits -> tiny(pass=2).logits)
loss = {loss}
train {{ {train}; optimizer = adamw(lr=1e-2, eps=1e-5, weight_decay=0.1); schedule = constant(); logging_steps = 3 }}
"""
LOSSES = {
    "layers": "low + sum(gram)",
    "zero": "0 * soft + 0 * sum(rows) + hard",
    "zero inside": "0.5 * (0 * second + soft) + hard",
    "nothing left": "0 * soft",
    "schedule": "after(50%) * soft + hard + piecewise(0%: 1, 30%: 0) * sum(rows)",
    "schedule alone": "after(50%) * soft",
    "difference": "hard - after(50%) * (soft + second)",
    "two passes": "hard + after(50%) * twice",
    "attention": "looks + hard + after(50%) * low",
    "rows": "sum(rows) + 0.5 * sum(gram) + low + again",
    "same": "gram[0] + 0.5 * nst(bert.hidden[0] -> tiny.hidden[0]) + soft + kd(bert.logits -> tiny.logits, T=4)",
    "stopped": "after(50%) * kd(bert.logits -> stop(tiny.logits)) + low",
}  # fmt: skip
"""Losses in which each pass has something to do."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, two teachers of four and of two layers, and two students of two layers, one of them with dropout."""
    path = tmp_path_factory.mktemp("passes")
    write_data(path)
    save(path / "bert", width=32, layers=4, seed=1)
    save(path / "other", width=16, layers=2, seed=2)
    save(path / "plain", width=16, layers=2, seed=3)
    save(path / "drops", width=16, layers=2, seed=3, dropout=True)
    return path


def spec(folder: Path, loss: str, student: str = "plain", train: str = "steps = 6") -> Path:
    """The spec of these tests with a loss."""
    path = folder / "spec.brew"
    path.write_text(SPEC.format(loss=loss, student=student, train=train))
    return path


def bare(folder: Path, loss: str) -> Path:
    """The same spec without the equations on the teacher's logits: it is then loaded without a head."""
    path = spec(folder, loss)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(("soft", "second", "teacher other"))))
    return path


def build(folder: Path, loss: str, student: str = "plain", skip: tuple[str, ...] = ()) -> Distiller:
    """The distiller of a loss, in double precision, where rounding cannot be mistaken for another number."""
    return bg.load(spec(folder, loss, student)).build(skip=skip).double()


Step = tuple[Tensor, dict[str, Tensor | None], dict[str, Tensor]]


def steps(distiller: Distiller, count: int = 5) -> Iterator[Step]:
    """Loss, gradients and terms of some steps of AdamW through the whole of training."""
    own = dict(distiller.named_parameters())
    optimizer = torch.optim.AdamW(own.values(), lr=0.01, weight_decay=0.1)
    torch.manual_seed(11)
    for i in range(count):
        distiller.progress = i / count
        output = distiller(batch())
        output.loss.backward()
        yield (
            output.loss.detach(),
            {k: None if p.grad is None else p.grad.clone() for k, p in own.items()},
            output.terms,
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


EXACT = frozenset(NAMES) - {"merge_equal_nodes", "narrow_attention", "pack_tokens"}
"""Passes that leave every single operation as it is, and with it every bit (eager and fused attention round apart)."""


def assert_equal(folder: Path, name: str, student: str, skips: Iterable[tuple[str, ...]]) -> None:
    """Losses, terms and gradients of five steps with all passes are those without some of them.

    Packed tokens sum in another order and draw other random numbers: a student without dropout shows them by themselves.
    """
    padded = ("pack_tokens",)
    everything = list(steps(build(folder, LOSSES[name], student, padded)))
    others = [((*skip, *padded), EXACT.issuperset(skip)) for skip in skips if skip != padded]
    for skip, exact in [*others, *([((), False)] if student == "plain" else [])]:
        compare = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-6, "atol": 1e-9}
        said = lambda text, skip=skip: f"{name} without {skip}: {text}"  # noqa: E731
        for one, other in zip(everything, steps(build(folder, LOSSES[name], student, skip)), strict=True):
            torch.testing.assert_close(one[0], other[0], **compare, msg=said)
            assert {k for k, g in one[1].items() if g is None} == {k for k, g in other[1].items() if g is None}, skip
            for key, gradient in one[1].items():
                torch.testing.assert_close(gradient, other[1][key], **compare, msg=said)
            for term, value in one[2].items():
                torch.testing.assert_close(value, other[2][term], **compare, msg=said)


@pytest.mark.parametrize("name", LOSSES)
def test_all_passes_together_change_no_number(folder: Path, name: str) -> None:
    """With a student that draws dropout, and under AdamW, whose weight decay and means act where a gradient is zero."""
    assert_equal(folder, name, "drops", [NAMES])


@pytest.mark.slow
@pytest.mark.parametrize("student", ["plain", "drops"])
@pytest.mark.parametrize("name", LOSSES)
def test_no_pass_changes_a_number(folder: Path, name: str, student: str) -> None:
    """Each pass by itself, bit for bit where no operation is another one."""
    assert_equal(folder, name, student, [*((one,) for one in NAMES), NAMES])


# ── the real loop ────────────────────────────────────────────────────────────────────────────────────────────────────


def trained(folder: Path, out: Path, loss: str, train: str, skip: tuple[str, ...] = ()) -> tuple[Any, list[Any]]:
    """The weights of a run, and its lines of metrics."""
    result = bg.run(spec(folder, loss, "drops", train), out=out, skip=skip)
    files = [*sorted((result.folder / "student").glob("*.safetensors")), result.folder / "projections.safetensors"]
    weights = {f"{file.name}/{k}": v for file in files if file.exists() for k, v in load_file(file).items()}
    return weights, metrics(result.folder)


def test_training_ends_where_it_would_without_passes(folder: Path, tmp_path: Path) -> None:
    """AdamW with weight decay, dropout, split batches, a term that dies on the way and one that wakes up: every weight
    is the same to the last bit; a term's mean is over the steps in which it was computed."""
    loss = "hard + piecewise(0%: 1, 50%: 0) * sum(rows) + after(50%) * soft"
    some = tuple(sorted(set(NAMES) - EXACT))
    one, lines = trained(folder, tmp_path / "on", loss, "steps = 6; accumulate = 2", some)
    other, plain = trained(folder, tmp_path / "off", loss, "steps = 6; accumulate = 2", NAMES)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert [sorted(line["terms"]) for line in lines if "terms" in line] == [
        ["hard", "rows[0]", "rows[1]"],
        ["hard", "soft"],
    ]
    assert [line["loss"] for line in lines if "loss" in line] == [line["loss"] for line in plain if "loss" in line]
    for line, whole in zip(lines, plain, strict=True):
        for name, value in line.get("terms", {}).items():
            assert value == pytest.approx(whole["terms"][name], rel=1e-6), name


def test_a_terms_mean_is_over_the_steps_in_which_it_ran(folder: Path, tmp_path: Path) -> None:
    """A line over three steps, of which the first alone has the term."""
    loss = "hard + piecewise(0%: 1, 10%: 0) * gram[0]"
    _, lines = trained(folder, tmp_path / "one", loss, "steps = 3")
    _, plain = trained(folder, tmp_path / "all", loss, "steps = 1")
    assert lines[0]["terms"]["gram[0]"] == pytest.approx(plain[0]["terms"]["gram[0]"], rel=1e-6)


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(folder: Path, tmp_path: Path) -> None:
    """With parameters frozen and terms asleep; a step that stands between two lines is counted once."""
    loss, train = "low + after(50%) * sum(gram)", "steps = 4; save_steps = 1 step"
    whole, lines = trained(folder, tmp_path / "whole", loss, train)

    class Stopped(Reporter):
        def step(self, step: int, loss: float | None, terms: Any) -> None:
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bg.run(spec(folder, loss, "drops", train), out=tmp_path / "parts", reporter=Stopped())
    parts, again = trained(folder, tmp_path / "parts", loss, train)
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    assert again == lines


# ── counters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def calls_of(modules: Mapping[str, nn.Module]) -> Counter[str]:
    """Counts how often modules are called from now on, by their names."""
    calls: Counter[str] = Counter()
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
    return calls


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a BERT by their numbers."""
    base = getattr(model, "bert", model)
    return {str(i): layer for i, layer in enumerate(base.encoder.layer)}


def test_a_teacher_runs_as_far_as_its_last_feature(folder: Path) -> None:
    """Layer 1 of four, without pooler and head; all of them where its logits are read."""
    for loss, run in ((LOSSES["layers"], "01"), ("low + 0.5 * soft", "0123"), ("low + 0 * soft", "0")):
        distiller = build(folder, loss)
        calls = calls_of(layers(distiller.teachers[0]))
        distiller(batch())
        assert "".join(sorted(calls)) == run, loss
    distiller = build(folder, LOSSES["layers"], skip=("truncate_models",))
    calls = calls_of(layers(distiller.teachers[0]))
    distiller(batch())
    assert sorted(calls) == ["0", "1", "2", "3"]


def test_a_student_stops_too_unless_it_draws_dropout(folder: Path) -> None:
    """What comes behind would shift what it draws next; its own folder keeps all of it."""
    for student, run in (("plain", "0"), ("drops", "01")):
        distiller = build(folder, "mse(bert.hidden[1] -> tiny.hidden[1] via linear)", student)
        calls = calls_of(layers(distiller.student))
        distiller(batch())
        assert "".join(sorted(calls)) == run, student
        assert len(layers(distiller.student)) == 2


class Slices:
    """A file of weights that notes which tensors are read."""

    def __init__(self, file: Any, read: list[str]):
        self.file, self.read = file, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def get_slice(self, key: str) -> Any:
        outer, found = self, self.file.get_slice(key)

        class Slice:
            def __getattr__(self, name: str) -> Any:
                return getattr(found, name)

            def __getitem__(self, index: Any) -> Any:
                outer.read.append(key)
                return found[index]

        return Slice()


def test_layers_that_nobody_reads_are_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the teacher's file two layers and the embeddings are read; of a stage that reads more, as many as it needs."""
    read: list[str] = []
    opened = transformers.modeling_utils.safe_open
    monkeypatch.setattr(
        transformers.modeling_utils, "safe_open", lambda *args, **more: Slices(opened(*args, **more), read)
    )

    def found(path: Path, skip: tuple[str, ...] = ()) -> set[str]:
        """The parts of the teacher that are built and read."""
        read.clear()
        teacher = bg.load(path).build(skip=skip).teachers[0]
        assert not any(p.is_meta for p in teacher.parameters())
        said = {key.removeprefix("bert.") for key in read}
        names = {name.removeprefix("bert.") for name, _ in teacher.named_parameters()}
        assert names <= said
        deep = {name.split(".")[2] for name in names if name.startswith("encoder.layer")}
        # the student has two layers, and its file is read too
        assert {key.split(".")[2] for key in said if key.startswith("encoder.layer")} == deep | {"0", "1"}
        return deep | {name.split(".")[0] for name in names} - {"encoder"}

    assert found(bare(folder, LOSSES["layers"])) == {"0", "1", "embeddings"}
    assert found(bare(folder, LOSSES["layers"]), ("truncate_models",)) == {*"0123", "embeddings", "pooler"}
    assert found(spec(folder, LOSSES["layers"])) == {"0", "1", "embeddings"}
    stages = "low }\nstage second { loss = far"
    text = bare(folder, "").read_text().replace("loss = \n", f"stage first {{ loss = {stages} }}\n")
    (folder / "stages.brew").write_text(text)
    for stage, run in (("first", "0"), ("second", "012")):
        distiller = bg.load(folder / "stages.brew").build(stage=stage)
        assert "".join(layers(distiller.teachers[0])) == "012"
        calls = calls_of(layers(distiller.teachers[0]))
        distiller(batch())
        assert "".join(sorted(calls)) == run


@pytest.mark.parametrize(
    ("teacher", "data", "whole"),
    [
        ("", "text=text, label=label", False),
        (', task="sequence-classification"', "text=text, label=label", True),
        (', task="sequence-classification"', "text=text, label=none", False),
        (', task="token-classification"', "text=text, label=label", False),
    ],
)
def test_a_teacher_is_whole_where_it_is_scored(folder: Path, teacher: str, data: str, whole: bool) -> None:
    """With a head for labels that there are, in a run with its table; anywhere else it ends with its last feature."""
    text = bare(folder, "low").read_text().replace('hf("bert")', f'hf("bert"{teacher})')
    text = "".join(line for line in text.splitlines(keepends=True) if "d.labels" not in line)
    (folder / "scored.brew").write_text(text.replace("text=text, label=label", data))
    for scored, expected in ((True, "0123" if whole else "0"), (False, "0")):
        model = SpecBuilder(check(read_spec(folder / "scored.brew")), scored=scored).model("bert")
        assert "".join(layers(model)) == expected
        heads = {name.split(".")[0] for name, _ in model.named_parameters()} & {"classifier"}
        assert heads == ({"classifier"} if len(expected) > 1 else set())


@pytest.mark.parametrize(("loss", "tried"), [("low + soft", ["bert"]), ("low + 0 * soft", []), ("low + hard", [])])
def test_a_teacher_is_tried_where_its_logits_count(
    folder: Path, loss: str, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On labelled rows, before training; with a weight of zero they teach nothing, though the teacher is loaded."""
    found: list[str] = []
    monkeypatch.setattr(teacher_check._Subject, "check", lambda subject, reporter: found.append(subject.model.name))
    checked = check(read_spec(spec(folder, loss)))
    teacher_check.check_teachers_agree(DataCache(SpecBuilder(checked)), checked, Reporter())
    assert found == tried


def test_a_teacher_of_no_weight_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither built nor run nor tried on labels, and without a row in the table; with the pass off it is."""
    assert len(build(folder, "soft + 0 * second").teachers) == 1
    assert len(build(folder, "soft + 0 * second", skip=("drop_dead_terms",)).teachers) == 2
    monkeypatch.chdir(folder)
    result = bg.run(spec(folder, "soft + 0 * second", train="steps = 1"))
    assert [row.name for row in result.table] == ["bert", "tiny"]


@pytest.mark.parametrize("loss", ["hard + after(50%) * second", "hard + piecewise(0%: 1, 50%: 0) * second"])
def test_a_teacher_rests_while_its_weight_is_zero(folder: Path, loss: str) -> None:
    """Along a schedule its forward runs in the steps in which it counts, and there alone the term is reported."""
    counted = []
    for skip in ((), ("skip_scheduled_zeros",)):
        distiller = build(folder, loss, skip=skip)
        calls, reported = calls_of({"other": distiller.teachers[0]}), 0
        for output in steps(distiller, 6):
            reported += "second" in output[2]
        counted.append((calls["other"], reported))
    assert counted == [(3, 3), (6, 6)]


def test_a_feature_that_rests_lets_its_forward_end_earlier(folder: Path) -> None:
    """The forward still runs for another term, as far as that one needs it."""
    distiller = build(folder, "low + after(50%) * soft")
    calls = calls_of(layers(distiller.teachers[0]))
    found = []
    for _ in steps(distiller, 4):
        found.append("".join(sorted(calls)))
        calls.clear()
    assert found == ["0", "0", "0123", "0123"]


def test_attention_is_eager_only_where_it_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One softmax per model instead of one per layer."""
    counted = []
    softmax = F.softmax
    monkeypatch.setattr("brewgraph.runtime.program.fast_kernels", nullcontext)  # it sees each of torch's functions, too
    calls: Counter[str] = Counter()
    monkeypatch.setattr(F, "softmax", lambda *args, **more: (calls.update(["softmax"]), softmax(*args, **more))[1])
    for skip in (("truncate_models",), ("truncate_models", "narrow_attention")):
        distiller = build(folder, "looks", skip=skip)
        calls.clear()
        distiller(batch())
        counted.append(calls["softmax"])
        distiller.release()
    assert counted == [2, 6]


def test_what_no_term_reaches_stands_still_for_a_stage(folder: Path) -> None:
    """Layers behind the last feature, pooler and head are in no optimizer; afterwards they learn as before."""
    distiller = build(folder, "low", "drops")
    before = [name for name, p in distiller.named_parameters() if p.requires_grad]
    with unreached_frozen(distiller):
        learning = [name for name, p in distiller.named_parameters() if p.requires_grad]
        assert {name.split(".")[2] for name in learning if name.startswith("student")} == {"embeddings"}
        held = build_optimizer(distiller, Train(), {})
        assert sum(len(group["params"]) for group in held.param_groups) == len(learning)
    assert [name for name, p in distiller.named_parameters() if p.requires_grad] == before
    distiller(batch()).loss.backward()
    assert {name for name, p in distiller.named_parameters() if p.grad is not None} == set(learning)
    assert build(folder, "low", "drops", ("freeze_unreached",)).unreached() == []


def test_values_are_let_go_at_their_last_use(folder: Path) -> None:
    """While the last instruction runs, what earlier ones have used up is gone."""
    for skip, kept in (((), False), (("release_values",), True)):
        distiller = build(folder, LOSSES["rows"], skip=skip)
        program = distiller.program
        seen: list[Any] = []
        listing = program._list(())
        key, last, cleared = listing.steps[-1]
        watching = (key, lambda step, last=last, seen=seen: (seen.extend(step.slots), last(step))[1], cleared)
        program._listings[(), ()] = replace(listing, steps=(*listing.steps[:-1], watching))
        distiller(batch())
        assert any(isinstance(x, Tensor) and x.dim() == 3 for x in seen) == kept


class Own(nn.Module):
    """A student that no run on fake tensors tells anything of."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.spare = nn.Embedding(120, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, input_ids: Tensor) -> Any:
        x = self.embed(input_ids).mean(1)
        return SimpleNamespace(logits=self.head(x), start_logits=x)


def test_of_a_student_that_is_not_known_nothing_is_left_out(folder: Path) -> None:
    """Nobody can say which of its parameters a term reaches: the teacher runs in all steps, nothing is frozen."""
    torch.manual_seed(0)
    student = Own()
    distiller = bg.load(spec(folder, "hard + 0 * soft + after(50%) * second")).build(tiny=student)
    calls = calls_of({str(i): teacher for i, teacher in enumerate(distiller.teachers)})
    found = [output[1] for output in steps(distiller, 4)]
    assert calls == {"0": 4, "1": 4}
    assert {name for name, gradient in found[0].items() if gradient is None} == {
        "student.spare.weight", "student.spare.bias"
    }  # fmt: skip
    assert distiller.unreached() == []


# ── what is saved, in words ──────────────────────────────────────────────────────────────────────────────────────────


def test_savings_are_counted(folder: Path) -> None:
    """By pass, for what a plan prints."""
    checked = bg.load(spec(folder, "low + 0 * second + after(50%) * sum(gram)"))._checked
    (found,) = savings_of(checked, ("narrow_attention",)).values()
    assert [saved.name for saved in found] == list(NAMES)
    said = {saved.name: str(saved) for saved in found}
    assert "models that run 3 -> 2" in said["drop_dead_terms"]
    assert said["skip_scheduled_zeros"] == "terms computed while their weight is zero 1 -> 0"
    assert said["truncate_models"] == "layers run 6 -> 4"
    assert said["narrow_attention"] == "left out"
    assert said["freeze_unreached"] == "nothing"  # a term of weight zero trains its head, by gradients of zero
    assert said["release_values"].startswith("values held at once")
    (found,) = savings_of(bg.load(spec(folder, "low"))._checked).values()
    assert {saved.name: str(saved) for saved in found}["freeze_unreached"] == "parameter tensors trained 41 -> 5"


def test_an_unknown_pass_is_named(folder: Path) -> None:
    """With those that there are."""
    recipe = bg.load(spec(folder, "soft"))
    with pytest.raises(
        UsageError, match="there is no pass `truncate`; did you mean `truncate_models`.*`release_values`"
    ):
        recipe.build(skip=("truncate",))


def test_a_pass_left_out_is_no_other_spec(folder: Path) -> None:
    """The hash is taken before."""
    found = {build(folder, LOSSES["same"], skip=skip).identity for skip in ((), *((one,) for one in NAMES), NAMES)}
    assert len(found) == 1
