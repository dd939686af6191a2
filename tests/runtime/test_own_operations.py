"""Operations of the user's own: what they return must have one number for each of their units."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

import brewgraph as bg
from brewgraph.diagnostics import RunError
from brewgraph.ops import OPERATIONS, TRANSFORMS
from tests.cli.tiny import command
from tests.runtime.test_distiller import batch
from tests.small import save, write_data

MODULE = """from brewgraph.ops.registry import operation, transform

@operation(takes={{"{kinds}": "{unit}"}}, source="own")
def gap(source, target):
    \"\"\"A gap.\"\"\"
    return {body}

@transform(takes={{"logits": "logits"}}, source="own", shape=lambda shapes: shapes[0])
def halved(x):
    \"\"\"Half of it.\"\"\"
    return {made}
"""
SPEC = """brew 1
import {module}
teacher big = hf("bert")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=32)
loss = {module}.gap({sides})
train {{ steps = 1; optimizer = adamw(lr=1e-3) }}
"""
LOGITS, HIDDEN = "big.logits -> tiny.logits", "big.hidden[1] -> tiny.hidden[1]"
MAPS, LABELS = "big.attention[0] -> tiny.attention[0]", "d.labels -> tiny.logits"


@pytest.fixture
def own(tmp_path: Path, request: pytest.FixtureRequest):
    """Writes a spec that imports a module beside it; what the module declares is gone afterwards."""
    write_data(tmp_path)
    save(tmp_path / "bert", width=16, seed=1)
    save(tmp_path / "tiny", width=16, layers=1, seed=2)
    known = dict(OPERATIONS), dict(TRANSFORMS)

    def write(kinds: str, unit: str, body: str, sides: str, made: str = "x / 2") -> Path:
        module = f"own_{abs(hash((request.node.name, body, made)))}"
        (tmp_path / f"{module}.py").write_text(MODULE.format(kinds=kinds, unit=unit, body=body, made=made))
        path = tmp_path / "spec.brew"
        path.write_text(SPEC.format(module=module, sides=sides.replace("halved", f"{module}.halved")))
        return path

    yield write
    for registry, before in zip((OPERATIONS, TRANSFORMS), known, strict=True):
        registry.clear()
        registry.update(before)


SQUARES = "(source - target).square()"
CASES = {
    "example": ("logits -> logits", LOGITS, f"{SQUARES}.mean(-1)", f"{SQUARES}.mean()"),
    "token": ("hidden -> hidden", HIDDEN, f"{SQUARES}.mean(-1)", f"{SQUARES}.mean((1, 2))"),
    "word": (
        "hidden -> hidden",
        "words(big.hidden[1]) -> words(tiny.hidden[1])",
        f"{SQUARES}.mean(-1)",
        f"{SQUARES}.mean((1, 2))",
    ),
    "pair": ("attention -> attention", MAPS, f"{SQUARES}.mean(1)", f"{SQUARES}.mean((1, 3))"),
    "label": (
        "labels -> logits",
        LABELS,
        "(target.logsumexp(-1) - target.gather(1, source[:, None]).squeeze(1))",
        "target.logsumexp(-1).mean()",
    ),
    "batch": ("logits -> logits", LOGITS, f"{SQUARES}.mean()", f"{SQUARES}.mean(-1)"),
}


@pytest.mark.parametrize("unit", CASES)
def test_one_number_per_unit(own, unit: str) -> None:
    """What has the axes of its unit is trained; a mean over more of them is refused, by its name and its unit."""
    kinds, sides, right, wrong = CASES[unit]
    declared, given = "token" if unit == "word" else unit, batch()
    given["words"] = torch.where(given["attention_mask"] == 1, torch.arange(given["attention_mask"].shape[1]), -1)
    distiller = bg.load(own(kinds, declared, right, sides)).build(allow_python=True)
    assert torch.isfinite(distiller(given).loss)
    distiller = bg.load(own(kinds, declared, wrong, sides)).build(allow_python=True)
    with pytest.raises(RunError, match=rf":gap` returns a tensor of shape .*its unit is `{unit}`"):
        distiller(given)


def test_the_value_is_the_mean_over_examples(own) -> None:
    """Against torch; a scalar for each batch was too small by its size."""
    kinds, sides, right, _ = CASES["example"]
    distiller = bg.load(own(kinds, "example", right, sides)).build(allow_python=True).eval()
    given = batch()
    inputs = {k: x for k, x in given.items() if k != "labels"}
    with torch.no_grad():
        want = mse_loss(distiller.student(**inputs).logits, distiller.teachers[0](**inputs).logits)
    assert distiller(given).loss.item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize(("body", "said"), [("None", "NoneType"), ("(source > target).any(-1)", "torch.bool")])
def test_what_is_no_floating_point_tensor(own, body: str, said: str) -> None:
    """Refused by its type."""
    distiller = bg.load(own("logits -> logits", "example", body, LOGITS)).build(allow_python=True)
    with pytest.raises(RunError, match=f":gap` returns {said}"):
        distiller(batch())


def test_transforms_keep_the_axis_of_examples(own) -> None:
    """One that sums it up is refused."""
    sides = "halved(big.logits) -> halved(tiny.logits)"
    right = CASES["example"][2]
    assert bg.load(own("logits -> logits", "example", right, sides)).build(allow_python=True)(batch()).loss > 0
    distiller = bg.load(own("logits -> logits", "example", right, sides, made="x.mean()")).build(allow_python=True)
    with pytest.raises(RunError, match=":halved` returns a tensor of shape"):
        distiller(batch())


@pytest.mark.parametrize("memory", [True, False])
def test_every_command_reads_it_without_running_it(
    own, memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that import nothing know it by its text, with facts on disk and without."""
    monkeypatch.setenv("BREWGRAPH_FACTS", str(tmp_path / "facts") if memory else "off")
    spec = str(own("logits -> logits", "example", CASES["example"][2], "halved(big.logits) -> tiny.logits"))
    named = (["check"], ["plan"], ["plan", "--skip-pass", "merge_equal_nodes"], ["graph"], ["fmt"])
    for name, *options in named:
        result = command(name, spec, *options)
        assert result.exit_code == 0, (name, result.output)
    assert command("diff", spec, spec).exit_code == 0
    for name in ("loss", "big"):
        result = command("explain", name, spec)
        assert result.exit_code == 0, result.output
    assert "gap(" in command("explain", "loss", spec).output
    assert command("ops").exit_code == 0
    result = command("run", spec, "--dry-run", "--allow-python")
    assert result.exit_code == 0, result.output


def test_a_dry_run_finds_it(own) -> None:
    """A dry run trains on a batch, and so says what the run would."""
    kinds, sides, _, wrong = CASES["example"]
    result = command("run", str(own(kinds, "example", wrong, sides)), "--dry-run", "--allow-python")
    assert result.exit_code != 0
    assert "gap` returns a tensor of shape" in result.output + result.stderr
