"""`cache` in whole runs: the teacher's forward runs once for each example, and the numbers stay what they were."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.bert.modeling_bert import BertEmbeddings

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError, SpecError
from brewgraph.graph.container import Kept, info
from brewgraph.inspect.plan_of import plan_of
from brewgraph.models.loading import build_model
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.runtime.program import Program
from brewgraph.runtime.store import Store
from brewgraph.training.reporter import Reporter
from tests.cli.tiny import command
from tests.small import metrics, rows, save, write_pair, write_rows

PLAIN = """teacher bert = hf("bert")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", batch=4, max_length=32)
loss = ce(d.labels -> tiny.logits) + {loss}
train {{ epochs = 2; optimizer = adamw(lr=1e-3); logging_steps = 1 }}
"""
VALUES = {
    "logits": ("bert.logits", "kd({} -> tiny.logits)"),
    "hidden": ("bert.hidden[2]", "mse({} -> tiny.hidden[1] via linear) + nst({} -> tiny.hidden[0])"),
    "attention": ("bert.attention[1]", "mse({} -> tiny.attention[0])"),
    "queries": ("bert.query[1]", "kl(relation({}, heads=2) -> relation(tiny.query[0], heads=2))"),
    "relation": ("relation(bert.query[1], heads=2)", "kl({} -> relation(tiny.query[0], heads=2))"),
    "words": ("words(bert.hidden[1])", "mse({} -> words(tiny.hidden[1]) via linear)"),
    "mean": ("mean([bert.logits, other.logits])", "kd({} -> tiny.logits)"),
    "doubt": ('kd(bert.logits -> other.logits, reduce="none")', "batch_mean({} * kd(bert.logits -> tiny.logits, "
              'reduce="none"))'),
}  # fmt: skip
"""What is kept, and a loss that reads it."""


class Said(Reporter):
    """Remembers what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def caches(self) -> list[str]:
        """What it says of caches."""
        return [line for line in self.lines if line.startswith("cache ")]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, two teachers, and a student without dropout."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    save(tmp_path / "other", width=16, seed=3)
    return tmp_path


def spec(world: Path, value: str, loss: str, *, cached: bool, name: str = "spec.brew", where: str = "store") -> Path:
    """A spec that keeps this value, or computes it each time."""
    text = PLAIN.format(loss=loss.format(*["kept" if cached else value] * loss.count("{}")))
    if "other" in value:
        text = text.replace("student", 'teacher other = hf("other")\nstudent', 1)
    path = world / name
    path.write_text(text + (f'cache kept = {value} at "{where}"\n' if cached else ""))
    return path


def run(path: Path, **options: Any) -> tuple[Path, list[str]]:
    """A whole run: its folder, and what it says of caches."""
    said = Said()
    return bg.run(path, reporter=said, **options).folder, said.caches()


def whole(builder: SpecBuilder) -> Any:
    """All rows of the data in one batch."""
    (work,) = DataCache(builder).stages(builder.checked)
    return replace(work.materials[""].feeds["d"], batch=20).batches(0)


def losses(folder: Path) -> list[float]:
    """The losses of a run, step by step."""
    return [line["loss"] for line in metrics(folder) if "loss" in line]


@pytest.mark.parametrize(
    "value", [pytest.param(name, marks=[] if name == "words" else pytest.mark.slow) for name in VALUES]
)
def test_the_second_run_reads(world: Path, value: str) -> None:
    """Epoch one writes, all later ones read; losses are those of the spec without a cache."""
    kept, loss = VALUES[value]
    plain, _ = run(spec(world, kept, loss, cached=False, name="plain.brew"))
    first, said = run(spec(world, kept, loss, cached=True))
    assert said == ["cache kept: 20 examples computed and written, 20 read"]
    second, said = run(world / "spec.brew", force=True)
    assert said == ["cache kept: 0 examples computed and written, 40 read"]
    assert len(losses(plain)) == 10
    for folder in (first, second):
        assert losses(folder) == pytest.approx(losses(plain), rel=2e-6)


def test_the_teacher_does_not_run(world: Path) -> None:
    """Not for a batch that is there as a whole; it does for one of which an example is missing, and where not all that
    is asked of it is kept."""
    path = spec(world, *VALUES["logits"], cached=True)
    builder = SpecBuilder(check(read_spec(path)))
    (batch,) = whole(builder)
    distiller = builder.distiller()
    calls = []
    distiller.teachers[0].register_forward_hook(lambda *_: calls.append(1))
    part = {k: {m: x[:12] for m, x in v.items()} if isinstance(v, dict) else v[:12] for k, v in batch.items()}
    for given, count in ((part, 1), (part, 1), (batch, 2), (batch, 2)):
        distiller(given)
        assert len(calls) == count


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_cold_store_gives_the_bits_of_a_warm_one(world: Path, value: str, precision: torch.dtype | None) -> None:
    """A run that was killed while its store was being filled reads, when it goes on, what it computed before: losses
    and gradients of each batch are equal to the bit, also of examples that several batches hold.
    """
    builder = SpecBuilder(check(read_spec(spec(world, *VALUES[value], cached=True))))
    (batch,) = whole(builder)
    batches = [[0, 1, 2, 3], [2, 4, 5, 3], [6, 7, 8, 9, 10, 0, 11], [3, 3, 12], [13, 14, 15, 16, 17, 18, 19, 12]]
    distiller = builder.distiller()
    for teacher in distiller.teachers:  # rounding that depends on the size of a batch, made large
        teacher.get_input_embeddings().register_forward_hook(lambda _, args, out: out + 1e-3 * len(args[0]))

    def steps() -> list[torch.Tensor]:
        found = []
        for chosen in batches:
            own = {
                k: {m: x[chosen] for m, x in v.items()} if isinstance(v, dict) else v[chosen] for k, v in batch.items()
            }
            distiller.zero_grad()
            with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
                loss = distiller(own).loss
            loss.backward()
            found += [loss.detach(), *(p.grad.clone() for p in distiller.parameters() if p.grad is not None)]
        return found

    cold, warm = steps(), steps()
    assert len(cold) == len(warm) > len(batches)
    assert all(map(torch.equal, cold, warm))


CACHES = """cache seen = bert.logits at "store"
cache rows = bert.hidden[0, 2] at "store"
cache doubt = kd(bert.logits -> other.logits, reduce="none") at "store"
"""
DATA = 'data {} = files(train="{}.jsonl", dev="dev.jsonl", batch=4, max_length=32)\n'
ROWS, SEEN = "sum(mse(rows -> tiny.hidden[0, 1] via linear))", "kd(seen -> tiny.logits)"
ONE = f"{DATA.format('d', 'train')}{CACHES}"
TASK = f"task {{}} {{{{\n{{}}{CACHES}loss = {ROWS} + {SEEN} + batch_mean(doubt)\n}}}}\n"
FILLING = {
    "shuffled": (f"{ONE}loss = {ROWS} + {SEEN} + batch_mean(doubt)\n", ""),
    "reported": (f"{ONE}gap = mse(seen -> tiny.logits)\nloss = {ROWS}\n", "; report = [gap]; accumulate = 2"),
    "by length": (f"{ONE}loss = {ROWS} + {SEEN} + batch_mean(doubt)\n", "; group_by_length = true"),
    "later": (f"{ONE}loss = {ROWS} + after(40%) * {SEEN}\n", ""),
    "stages": (f"{ONE}stage one {{\nloss = {ROWS}\n}}\nstage two {{\nloss = {SEEN} + {ROWS}\n}}\n", ""),
    "tasks": (
        "".join(TASK.format(name, DATA.format("d", name)) for name in ("train", "more"))
        + "sample [train, more] ~ size\n",
        "",
    ),
    "two data sets": (
        f"{DATA.format('d', 'train')}{DATA.format('e', 'more')}"
        'cache one = bert(d).logits at "store"\ncache other_one = bert(e).logits at "store"\n'
        "loss = kd(one -> tiny(d).logits) + kd(other_one -> tiny(e).logits)\n",
        "",
    ),
}
"""Specs of which a killed run may have written some values for a batch and not the others: what they read, and settings."""


@pytest.mark.parametrize("seed", [pytest.param(i, marks=[] if i == 3 else pytest.mark.slow) for i in range(5)])
@pytest.mark.parametrize("case", FILLING)
def test_a_run_killed_while_it_fills_a_cache(
    world: Path, monkeypatch: pytest.MonkeyPatch, case: str, seed: int
) -> None:
    """Killed behind any write and resumed, uninterrupted from a cold cache, and from a warm one: equal to the bit.

    The first and the last texts are alike and others are in both files, so that batches hold examples that another
    batch has written; what the embeddings give depends on the size of the batch, as rounding does, only more.
    """
    few = rows(14, seed)
    write_rows(world / "train.jsonl", few + few[:5] + few[:3])
    write_rows(world / "more.jsonl", rows(6, seed + 7) + few[4:10] + few[:1])
    embed = BertEmbeddings.forward

    def rounded(self: Any, input_ids: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        size = 1e-3 * input_ids.shape[0] + 1e-3 * input_ids.shape[1] + 1e-6 * input_ids.sum()
        return embed(self, input_ids, *args, **named) + size

    monkeypatch.setattr(
        BertEmbeddings, "forward", lambda self, input_ids=None, *a, **k: rounded(self, input_ids, *a, **k)
    )
    what, settings = FILLING[case]
    text = (
        'teacher bert = hf("bert")\nteacher other = hf("other")\nstudent tiny = hf("tiny")\n'
        f"{what}train {{ steps = 14; save_steps = 3 steps; eval_steps = 4 steps; logging_steps = 2; seed = {seed}; "
        f"optimizer = adamw(lr=1e-3){settings} }}\n"
    )
    puts, last, put = 0, 10**9, Store.put

    def write(store: Store, *args: Any) -> list[torch.Tensor]:
        nonlocal puts
        found = put(store, *args)
        puts += 1
        if puts == last:
            raise KeyboardInterrupt
        return found

    def weights(name: str) -> dict[str, torch.Tensor]:
        found = bg.run(spec_of(name), force=name == "cold" and last < 0).folder
        return load_file(found / "student" / "model.safetensors") | {
            f"line {i}": torch.tensor(line["loss"]) for i, line in enumerate(metrics(found)) if "loss" in line
        }

    def spec_of(name: str) -> Path:
        path = world / f"{name}.brew"
        path.write_text(text.replace('"store"', f'"{name}"'))
        return path

    monkeypatch.setattr(Store, "put", write)
    cold = weights("cold")
    every, puts = puts, 0
    assert every > 4
    last = random.Random(f"{case} {seed}").randint(every // 3, every - 1)
    with pytest.raises(KeyboardInterrupt):
        weights("killed")
    resumed = weights("killed")
    last = -1
    warm = weights("cold")
    for other in (resumed, warm):
        assert [name for name in cold if not torch.equal(cold[name], other[name])] == []


def test_other_weights_are_another_value(world: Path) -> None:
    """A teacher that was trained on is not what was kept of it, even under its old name; another place of the same one
    is."""
    path = spec(world, *VALUES["logits"], cached=True)
    run(path)
    shutil.move(world / "bert", world / "moved")
    path.write_text(path.read_text().replace('"bert"', '"moved"'))
    _, said = run(path)
    assert said == ["cache kept: 0 examples computed and written, 40 read"]
    save(world / "moved", width=32, seed=5)
    _, said = run(path, force=True)
    assert said == ["cache kept: 20 examples computed and written, 20 read"]


def test_a_list_has_a_file_for_each_member(world: Path) -> None:
    """All layers of a row under one name."""
    loss = "sum(mse(kept -> tiny.hidden[0, 1] via linear))"
    path = world / "spec.brew"
    path.write_text(PLAIN.format(loss=loss) + 'cache kept = bert.hidden[0, 2] at "store"\n')
    _, said = run(path)
    assert said == ["cache kept: 40 examples computed and written, 40 read"]
    assert len(list((world / "store").glob("*.lmdb"))) == 2


def test_the_spec_is_the_same_one(world: Path) -> None:
    """A cache changes what is computed anew, not what is computed: the run's hash stays, and so does the store's."""
    plain = check(read_spec(spec(world, *VALUES["logits"], cached=False, name="plain.brew")))
    cached = check(read_spec(spec(world, *VALUES["logits"], cached=True)))
    assert cached.spec_hash == plain.spec_hash
    assert list(info(bg.load(world / "spec.brew").graph).caches.values()) == [Kept("kept", "store")]
    assert plan_of(cached, cost=False).parts[0].caches == (
        ("kept", "bert.logits", '"store", 240 bytes at full length'),
    )


@pytest.mark.parametrize("value", ["logits", "hidden", "mean", "doubt"])
def test_caches_filled_before_a_run(world: Path, value: str) -> None:
    """By the command: the teacher runs and the student does not; a second call finds everything, and so does the run."""
    path = spec(world, *VALUES[value], cached=True)
    first = command("cache", str(path))
    assert first.exit_code == 0, first.stderr
    assert first.stdout == "cache kept: 20 examples computed and written, 0 there before\n"
    again = command("cache", str(path))
    assert again.stdout == "cache kept: 0 examples computed and written, 20 there before\n"
    filled, said = run(path)
    assert said == ["cache kept: 0 examples computed and written, 40 read"]
    shutil.rmtree(world / "store")
    cold, _ = run(path, force=True)
    assert losses(filled) == losses(cold)


@pytest.fixture
def teachers_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Every teacher that reads its weights while the test runs, by its checkpoint."""
    monkeypatch.setenv("BREWGRAPH_FACTS", str(tmp_path / "facts"))
    loaded: list[str] = []

    def build(description: Any, *, frozen: bool = False, **more: Any) -> Any:
        if frozen:
            loaded.append(Path(description.checkpoint).name)
        return build_model(description, frozen=frozen, **more)

    monkeypatch.setattr("brewgraph.running.spec_builder.build_model", build)
    return loaded


@pytest.mark.parametrize("value", ["logits", "hidden", "mean"])
def test_a_teacher_whose_values_are_all_kept_is_not_loaded(world: Path, teachers_loaded: list[str], value: str) -> None:
    """Neither to fill a store that is full nor to train; losses are the same, also where one row is missing."""
    path = spec(world, *VALUES[value], cached=True)
    path.write_text(path.read_text().replace(', dev="dev.jsonl"', ""))
    first, _ = run(path)
    assert set(teachers_loaded) == ({"bert", "other"} if value == "mean" else {"bert"})
    teachers_loaded.clear()
    filled = command("cache", str(path))
    assert filled.stdout == "cache kept: 0 examples computed and written, 20 there before\n", filled.stderr
    again, said = run(path, force=True)
    assert teachers_loaded == []
    assert said == ["cache kept: 0 examples computed and written, 40 read"]
    assert losses(again) == losses(first)
    write_rows(world / "train.jsonl", [*rows(20, 0), *rows(1, 99)])
    _, said = run(path)
    assert "bert" in teachers_loaded
    assert said == ["cache kept: 1 examples computed and written, 38 read"]
    assert len(list((world / "store").glob("*.lmdb"))) == 1  # weights that were read later are the same weights


def test_a_scored_teacher_is_loaded_for_the_table(
    world: Path, teachers_loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is the same, and its order of classes is not tried again; other weights are loaded and tried at once."""
    path = spec(world, *VALUES["logits"], cached=True)
    first = bg.run(path)
    at_step: list[int] = []
    monkeypatch.setattr(Program, "run", counting(at_step, teachers_loaded))
    teachers_loaded.clear()
    second = bg.run(path, force=True)
    assert set(at_step) == {0}
    assert teachers_loaded == ["bert"]
    assert [row.scores for row in second.table] == [row.scores for row in first.table]
    save(world / "bert", width=32, seed=5)
    teachers_loaded.clear()
    at_step.clear()
    bg.run(path, force=True)
    assert set(at_step) == {1}


def counting(at_step: list[int], loaded: list[str]) -> Any:
    """`Program.run` that notes how many teachers are loaded before each batch."""
    run_program = Program.run

    def noted(program: Program, *args: Any, **more: Any) -> Any:
        at_step.append(len(loaded))
        return run_program(program, *args, **more)

    return noted


def test_nothing_to_fill(world: Path) -> None:
    """A spec without a cache: one line with the remedy."""
    path = spec(world, *VALUES["logits"], cached=False)
    result = command("cache", str(path))
    assert result.exit_code == 2
    assert "keeps nothing on disk: write `cache NAME" in result.stderr


def test_an_untrained_teacher(world: Path) -> None:
    """The remedy names what this command can do about it."""
    path = spec(world, *VALUES["logits"], cached=True)
    text = path.read_text()
    (world / "teacher.brew").write_text(PLAIN.format(loss="ce(d.labels -> tiny.logits)"))
    path.write_text(text.replace('hf("bert")', 'brew("teacher.brew")'))
    result = command("cache", str(path), "--runs", "elsewhere")
    assert result.exit_code == 2
    remedy = "no finished run of it is in elsewhere; `--runs` names another folder"
    assert f"`bert` is not trained yet: run `brewgraph run teacher.brew` first; {remedy}" in result.stderr


def test_values_kept_in_bf16(world: Path) -> None:
    """Half the bytes, rounded from the first epoch on, another hash: a second run reads the numbers of the first."""
    path = spec(world, *VALUES["hidden"], cached=True)
    exact = check(read_spec(path)).spec_hash
    first, _ = run(path)
    size = sum(file.stat().st_size for file in (world / "store").glob("*.lmdb"))
    shutil.rmtree(world / "store")
    path.write_text(path.read_text().replace('at "store"', 'at "store" as bf16'))
    assert check(read_spec(path)).spec_hash != exact
    assert "as bf16" in str(plan_of(check(read_spec(path)), cost=False))
    rounded, said = run(path)
    assert said == ["cache kept: 20 examples computed and written, 20 read"]
    again, _ = run(path, force=True)
    assert losses(again) == losses(rounded) != losses(first)
    assert losses(rounded) == pytest.approx(losses(first), rel=1e-2)
    assert sum(file.stat().st_size for file in (world / "store").glob("*.lmdb")) < size


def test_a_limit_that_is_reached(world: Path) -> None:
    """The folder stays within it, the rest is computed in each epoch, and numbers are those without a cache."""
    value, loss = VALUES["hidden"]
    plain, _ = run(spec(world, value, loss, cached=False, name="plain.brew"))
    path = spec(world, value, loss, cached=True)
    path.write_text(path.read_text().replace('at "store"', 'at "store" limit 100 KB'))
    limited, said = run(path)
    (file,) = (world / "store").glob("*.lmdb")
    assert file.stat().st_size <= 100_000
    assert said[0].endswith("computed and not written: the limit is reached")
    assert losses(limited) == pytest.approx(losses(plain), rel=2e-6)
    path.write_text(path.read_text().replace("100 KB", "10 KB"))
    with pytest.raises(RunError, match="set a larger limit"):
        run(path, force=True)


def test_a_store_of_an_earlier_version(world: Path) -> None:
    """The check names the file, and what to do."""
    (world / "store").mkdir()
    (world / "store" / "abc.sqlite").write_bytes(b"SQLite format 3\0")
    with pytest.raises(SpecError) as error:
        check(read_spec(spec(world, *VALUES["logits"], cached=True)))
    (found,) = error.value.diagnostics
    assert (found.code, found.help) == (
        "B244", "delete that file, or name another folder: its values are computed again",
    )  # fmt: skip
    assert "abc.sqlite in it was written by an earlier version" in found.message


@pytest.mark.parametrize(
    ("value", "loss", "code", "message"),
    [
        ("bert.hidden[1]", "mse({} -> tiny.hidden[1] via linear, mask=none)", "B241", "but `mask=none` counts it"),
        ("probabilities(bert.start)", "kl({} -> probabilities(tiny.start))", "B241", "ends at the longest example"),
    ],
)
def test_what_shapes_and_masks_forbid(world: Path, value: str, loss: str, code: str, message: str) -> None:
    """Padding is not kept, so it must not count."""
    with pytest.raises(SpecError) as error:
        check(read_spec(spec(world, value, loss, cached=True)))
    (found,) = [d for d in error.value.diagnostics if d.code == code]
    assert message in found.message


def test_a_batch_of_another_length(world: Path) -> None:
    """What is kept has no padding of its own: it is read into batches of any length, attention along both axes."""
    path = spec(world, *VALUES["attention"], cached=True)
    builder = SpecBuilder(check(read_spec(path)))
    (batch,) = whole(builder)
    plain = SpecBuilder(
        check(read_spec(spec(world, *VALUES["attention"], cached=False, name="plain.brew")))
    ).distiller()
    distiller = builder.distiller()
    wanted = plain(batch).loss
    assert torch.isclose(distiller(batch).loss, wanted, rtol=1e-6)
    longer = {
        k: {m: torch.nn.functional.pad(x, (0, 3)) if x.dim() == 2 else x for m, x in v.items()}
        if isinstance(v, dict)
        else (torch.nn.functional.pad(v, (0, 3)) if v.dim() == 2 else v)
        for k, v in batch.items()
    }
    assert torch.isclose(distiller(longer).loss, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("train.jsonl", "this is a file, but a cache is a folder"),
        ("train.jsonl/deeper", "{world}/train.jsonl is a file, but a cache is a folder"),
        ("foreign", "notes.lmdb in it is not a cache"),
        ("locked", "this user may not write to it"),
        ("locked/deeper/still", "this user may not create a folder in {world}/locked"),
    ],
)
def test_a_place_that_cannot_be_used(world: Path, monkeypatch: pytest.MonkeyPatch, where: str, message: str) -> None:
    """The check says so at the path, which a run would find out after the models are loaded; it makes no folder."""
    (world / "foreign").mkdir()
    (world / "foreign" / "notes.lmdb").write_text("these are notes of another kind")
    (world / "locked").mkdir(mode=0o500)
    allowed = os.access  # of those who may do anything, which tests are sometimes run by, too
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and allowed(path, mode))
    with pytest.raises(SpecError) as error:
        check(read_spec(spec(world, *VALUES["logits"], cached=True, where=where)))
    (found,) = error.value.diagnostics
    assert (found.code, found.span.text) == ("B244", f'"{where}"')
    assert found.message == f"`kept` cannot be kept here: {message.format(world=world)}"
    assert found.help.startswith("name another folder")


def test_a_place_that_can_be_used(world: Path) -> None:
    """One that is not there yet, one that is there, and one with a store in it."""
    for where in ("not/there/yet", "store"):
        check(read_spec(spec(world, *VALUES["logits"], cached=True, where=where)))
        assert not (world / where).exists()
    Store(world / "store", "an-older-value").close()
    (world / "store" / "new.lmdb").touch()
    check(read_spec(spec(world, *VALUES["logits"], cached=True)))
