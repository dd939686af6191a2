"""Two ranks train as one process does, whatever a step reaches and compares: gradients, losses and weights to 1e-6."""

from __future__ import annotations

import sys
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

import brewgraph as bg
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.loop import StageRun
from brewgraph.training.reporter import Reporter
from tests import warm
from tests.small import metrics, rows, save, write_data, write_rows

HEAD = """brew 1
import own_contrast
teacher bert = hf("bert")
student tiny = hf("tiny"){heads}
data d = files(train="train.jsonl", text=text, label=label, batch={batch}, max_length=32)
{body}
train {{ {train}; optimizer = sgd(lr=1e-2); logging_steps = 1 }}
"""
OWN = '''from brewgraph.ops.registry import operation

@operation(takes={"labels -> hidden": "batch"}, source="Khosla et al. 2020, arXiv:2004.11362, eq. 2")
def supcon(labels, hidden, *, layout):
    """Examples of one class attract each other."""
    x = layout.mean_over_tokens(hidden)
    x = x / x.norm(dim=-1, keepdim=True)
    same = labels[:, None] == labels[None, :]
    return -((x @ x.T).log_softmax(-1) * same / same.sum(-1, keepdim=True)).sum(-1).mean()
'''
KINDS = {
    "soft": "kd(bert.logits -> tiny.logits, T=4)",
    "hard": "0.3 * ce(d.labels -> tiny.logits)",
    "hidden": "mse(bert.hidden[2] -> tiny.hidden[1] via linear)",
    "contrast": "infonce(bert.hidden[2] -> tiny.hidden[1] via linear)",
}
COMPARING = {
    "distances": "rkd_distance(bert.hidden[2] -> tiny.hidden[1])",
    "angles of vectors": "rkd_angle(token_mean(bert.hidden[2]) -> token_mean(tiny.hidden[1]))",
    "layers": "emd(bert.hidden[:] -> tiny.hidden[:] via linear)",
    "focal": "kd(bert.logits -> tiny.logits, T=flsw(4))",
    "confident": "kd(bert.logits -> tiny.logits, T=cwsm(4))",
    "own": "own_contrast.supcon(d.labels -> tiny.hidden[1])",
}
TASKS = """
    task one { loss = kd(bert.logits -> tiny.a.logits, T=4) + infonce(bert.hidden[2] -> tiny.hidden[1] via linear) }
    task two { loss = ce(d.labels -> tiny.b.logits) + (1 - after(50%)) * mse(bert.hidden[1] -> tiny.hidden[0] via linear) }
    sample [one, two] ~ 1
"""
HEADS = " { head a = sequence_classifier(labels=3); head b = sequence_classifier(labels=3) }"


def _cases() -> dict[str, str]:
    """The text of each spec by its name."""

    def spec(body: str, train: str = "steps = 4", batch: str = "8", heads: str = "") -> str:
        return HEAD.format(body=body, train=train, batch=batch, heads=heads)

    subsets = [names for count in range(1, 5) for names in combinations(KINDS, count)]
    cases = {" + ".join(names): spec(f"loss = {' + '.join(KINDS[x] for x in names)}") for names in subsets}
    cases |= {name: spec(f"loss = {loss}") for name, loss in COMPARING.items()}
    everything = " + ".join([*KINDS.values(), *COMPARING.values()])
    for name in KINDS:
        rest = " + ".join(x for other, x in KINDS.items() if other != name)
        cases[f"{name} ends"] = spec(f"loss = (1 - after(50%)) * {KINDS[name]} + {rest}")
        cases[f"{name} begins"] = spec(f"loss = after(50%) * {KINDS[name]} + 0.1 * {KINDS['hard']}")
    return cases | {
        "all end": spec(f"loss = (1 - after(50%)) * ({everything})"),
        "reported": spec(f"loss = {everything}\nbeside = {KINDS['contrast']}", "steps = 4; report = [beside]"),
        "uneven": spec(f"loss = {everything}", batch="7"),
        "a last batch of one row": spec(f"loss = {everything}", "epochs = 2", batch="3"),
        "accumulated, a last batch of one row": spec(f"loss = {everything}", "epochs = 2; accumulate = 2", batch="3"),
        "by tokens": spec(f"loss = {everything}", batch="60 tokens"),
        "frozen": spec(f"loss = {everything}", 'steps = 4; freeze = [tiny @ "embeddings"]'),
        "tasks": spec(TASKS, "steps = 6", heads=HEADS),
        "by hand": spec(f"loss = {COMPARING['distances']} + {COMPARING['layers']} + {KINDS['contrast']}", "steps = 2"),
        "stages": spec(
            f"stage first {{ loss = {KINDS['contrast']} }}\nstage second {{ loss = {KINDS['hard']} }}", "steps = 2"
        ),
    }


CASES = _cases()
BY_HAND = "by hand"


def write(folder: Path) -> None:
    """Data of 19 rows, models, the operation, and the spec of each case."""
    write_data(folder)
    write_rows(folder / "train.jsonl", rows(19))
    save(folder / "bert", width=32, seed=1)
    save(folder / "tiny", width=16, layers=1, seed=2)
    (folder / "own_contrast.py").write_text(OWN)
    for i, text in enumerate(CASES.values()):
        (folder / f"case-{i}.brew").write_text(text)


def recorded(spec: Path, out: Path) -> dict[str, Any]:
    """Train a spec: the gradients of each step, whether ranks looked for unused parameters, and the weights."""
    steps: list[dict[str, Tensor]] = []
    looked: set[bool] = set()
    trained: list[Distiller] = []
    clip = StageRun._clip

    def noted(run: StageRun) -> None:
        trained.append(run.distiller)
        looked.add(getattr(run.wrapped, "find_unused_parameters", False))
        named = run.distiller.named_parameters()
        steps.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        clip(run)

    StageRun._clip = noted  # type: ignore[method-assign]
    try:
        bg.run(spec, out=out, reporter=Reporter(), allow_python=True)
    finally:
        StageRun._clip = clip  # type: ignore[method-assign]
    return {"gradients": steps, "looked": looked == {True}, "weights": trained[-1].state_dict()}


def by_hand(folder: Path, rank: int | None) -> dict[str, Tensor]:
    """Gradients of a user's own loop: on a batch, or on a rank's share of it under DistributedDataParallel."""
    spec = folder / f"case-{list(CASES).index(BY_HAND)}.brew"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Python sources that are not run
        distiller = bg.load(spec).build(allow_python=True)
    for parameter in distiller.unreached_by("") or ():
        parameter.requires_grad_(False)
    chance = torch.Generator().manual_seed(3)
    lengths = torch.tensor([3, 9, 5, 4, 2, 6, 3, 4])
    mask = torch.arange(9) < lengths[:, None]
    batch = {"input_ids": torch.randint(5, 30, (8, 9), generator=chance) * mask, "attention_mask": mask.long()}
    wrapped = distiller if rank is None else DistributedDataParallel(distiller)
    own = slice(0, 8) if rank is None else slice(0, 4) if rank == 0 else slice(4, 8)
    share = {name: x[own, : int(lengths[own].max())] for name, x in batch.items()}
    wrapped(share, gather=True).loss.backward()
    return {name: p.grad for name, p in distiller.named_parameters() if p.grad is not None}


def main(folder: Path) -> None:
    """What each of two ranks does."""
    torch.set_num_threads(1)
    rank = PartialState(cpu=True).process_index
    for i, name in enumerate(CASES):
        print(rank, name, flush=True)
        torch.save(recorded(folder / f"case-{i}.brew", folder / f"ranks-{i}"), folder / f"ranks-{i}-{rank}.pt")
    torch.save(by_hand(folder, rank), folder / f"by-hand-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases trained on two ranks."""
    path = tmp_path_factory.mktemp("ranks")
    write(path)
    warm.start_ranks("-m", "tests.training.test_ranks", str(path))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one_process(name: str, folder: Path) -> None:
    """Nothing hangs; gradients of every step, also which there are none of, losses, terms and weights are those of one
    process; ranks look for parameters without a gradient only where a draw decides which those are.
    """
    i = list(CASES).index(name)
    ends = [torch.load(folder / f"ranks-{i}-{rank}.pt", weights_only=True) for rank in range(2)]
    whole = recorded(folder / f"case-{i}.brew", folder / f"whole-{i}")
    assert [end["looked"] for end in ends] == [False, False]
    assert all(torch.equal(x, ends[1]["weights"][key]) for key, x in ends[0]["weights"].items())
    assert len(ends[0]["gradients"]) == len(whole["gradients"]) > 1
    for found, expected in zip(ends[0]["gradients"], whole["gradients"], strict=True):
        assert found.keys() == expected.keys()
        for key, x in expected.items():
            torch.testing.assert_close(found[key], x, atol=1e-5, rtol=1e-4, msg=lambda m, n=key: f"{n}: {m}")
    for key, x in whole["weights"].items():
        torch.testing.assert_close(ends[0]["weights"][key], x, atol=1e-6, rtol=1e-5, msg=lambda m, n=key: f"{n}: {m}")
    lines = [[x for x in metrics(folder / f"{one}-{i}") if "loss" in x] for one in ("ranks", "whole")]
    assert len(lines[0]) == len(lines[1])
    for line, other in zip(*lines, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-6, rel=2e-6)
        assert line["terms"] == pytest.approx(other["terms"], abs=1e-6, rel=2e-6)
        assert line.get("report", {}) == pytest.approx(other.get("report", {}), abs=1e-6, rel=2e-6)


@pytest.mark.slow
def test_a_loop_of_ones_own_gathers(folder: Path) -> None:
    """Under DistributedDataParallel, which averages, `gather=True` gives the gradients of one process, while lengths of
    ranks differ."""
    expected = by_hand(folder, None)
    for rank in range(2):
        found = torch.load(folder / f"by-hand-{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, x in expected.items():
            torch.testing.assert_close(found[name], x, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
