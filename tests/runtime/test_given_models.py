"""Modules of the caller's own in the place of a spec's models, against a loop written by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss, softmax
from transformers import AutoConfig

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import UsageError
from brewgraph.graph.container import info
from tests.runtime.test_distiller import batch
from tests.small import classifier, save, write_data

SPEC = """brew 1
teacher big = hf("bert")
teacher two = hf("bert")
student tiny = hf("tiny")
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=4, max_length=32)
loss = {loss}
train {{ steps = 2; optimizer = adamw(lr=1e-3); report = [{report}] }}
"""


def recipe(folder: Path, loss: str, report: str = "", cache: str = "") -> Any:
    """The spec of two teachers that are declared alike."""
    if not (folder / "bert").is_dir():
        write_data(folder)
        save(folder / "bert", width=32, seed=1)
        save(folder / "tiny", width=32, layers=1, seed=2)
    path = folder / "spec.brew"
    path.write_text(SPEC.format(loss=loss, report=report).replace("loss =", f"{cache}\nloss =", 1), encoding="utf-8")
    return bg.load(path)


def logits(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of one model in eval mode."""
    inputs = {k: x for k, x in given.items() if k != "labels"}
    with torch.no_grad():
        return model.eval()(**inputs).logits


MEAN = "ce(mean([big.logits, two.logits]) -> tiny.logits)"
SUM = "mse(big.logits -> tiny.logits) + 3 * mse(two.logits -> tiny.logits)"
SIDES = "mse(big.logits -> tiny.logits) + mse(two.hidden[1] -> tiny.hidden[1])"


@pytest.mark.parametrize("skip", [(), ("merge_equal_nodes",), ("truncate_models",)])
@pytest.mark.parametrize("loss", [MEAN, SUM, SIDES])
def test_two_modules_of_one_declaration(tmp_path: Path, loss: str, skip: tuple[str, ...]) -> None:
    """Each runs, with or without passes; what is reported reads them, too."""
    a, b, s = (classifier(width=32, layers=2 - (i == 2), seed=5 + i) for i in range(3))
    distiller = recipe(tmp_path, loss, MEAN).build(big=a, two=b, tiny=s, skip=skip)
    given = batch()
    distiller.eval()
    found = distiller(given).loss.item()
    inputs = {k: x for k, x in given.items() if k != "labels"}
    one, other, own = (logits(model, given) for model in (a, b, s))
    mean = cross_entropy(own, softmax((one + other) / 2, -1)).item()
    want = {MEAN: mean, SUM: (mse_loss(own, one) + 3 * mse_loss(own, other)).item()}
    if loss == SIDES:
        with torch.no_grad():
            high, low = (m(**inputs, output_hidden_states=True).hidden_states[1] for m in (b, s))
        real = inputs["attention_mask"].bool()
        want[SIDES] = (mse_loss(own, one) + mse_loss(low[real], high[real])).item()
    assert found == pytest.approx(want[loss], rel=1e-5)
    assert next(iter(distiller.report(given).values())).item() == pytest.approx(mean, rel=1e-5)


def test_one_object_is_one_forward(tmp_path: Path) -> None:
    """The same module given twice, as both loaded ones, runs once; one given beside a loaded one does not."""
    loaded, module = recipe(tmp_path, MEAN), classifier(width=32, seed=5)
    assert len(loaded.build(big=module, two=module).teachers) == 1
    assert len(loaded.build().teachers) == 1
    for name in ("big", "two"):
        distiller = loaded.build(**{name: module})
        assert len(distiller.teachers) == 2
        given = batch()
        distiller.eval()
        other = classifier(width=32, seed=1)  # as in the folder
        mean = (logits(module, given) + logits(other, given)) / 2
        own = logits(distiller.student, given)
        assert distiller(given).loss.item() == pytest.approx(cross_entropy(own, softmax(mean, -1)).item(), rel=1e-5)


def test_hashes_stay(tmp_path: Path) -> None:
    """What is given changes neither the hash of a spec nor graphs in which no two models are declared alike."""
    recipe(tmp_path, MEAN)
    checked = check(read_spec(tmp_path / "spec.brew"))
    apart = checked.with_modules({"big": object(), "two": object()})
    assert apart.identities == checked.identities
    assert apart.graph is not None
    assert checked.graph is not None
    assert info(apart.graph).objective != info(checked.graph).objective
    assert checked.with_modules({"tiny": object()}) is checked


def test_a_cache_knows_weights_that_change(tmp_path: Path) -> None:
    """Weights that are written in place behind the first batch are not those of the values on disk."""
    a, b, s = (classifier(width=32, layers=2 - (i == 2), seed=5 + i) for i in range(3))
    loss, kept = "mse(seen -> tiny.logits)", 'cache seen = mean([big.logits, two.logits]) at "kept"'
    distiller = recipe(tmp_path, loss, cache=kept).build(big=a, two=b, tiny=s)
    distiller.eval()
    given = batch()
    for _ in range(2):
        want = mse_loss(logits(s, given), (logits(a, given) + logits(b, given)) / 2).item()
        assert distiller(given).loss.item() == pytest.approx(want, rel=1e-5)
        assert distiller(given).loss.item() == pytest.approx(want, rel=1e-5)
        b.load_state_dict({name: x * 1.5 for name, x in b.state_dict().items()})


def test_classes_of_a_given_teacher_go_by_its_own_names(tmp_path: Path) -> None:
    """One that names the data's classes in another order than the folder does is put in the data's."""
    loaded = recipe(tmp_path, "mse(big.logits -> tiny.logits)")
    module, given = classifier(width=32, seed=5), batch()
    before = logits(module, given)
    names = ("good", "bad", "fair")
    module.config.id2label, module.config.label2id = dict(enumerate(names)), {x: i for i, x in enumerate(names)}
    for _ in range(2):  # the second time it has its new order already
        distiller = loaded.build(big=module).eval()
        own = logits(distiller.student, given)
        assert distiller(given).loss.item() == pytest.approx(mse_loss(own, before[:, [1, 2, 0]]).item(), rel=1e-5)


def test_what_cannot_take_the_place(tmp_path: Path) -> None:
    """A teacher of another depth whose layers are counted, and the student itself."""
    module = classifier(width=32, layers=4, seed=5)
    with pytest.raises(UsageError, match="declared with 3 members of `hidden`, but its module has 5"):
        recipe(tmp_path, "mse(big.hidden[-1] -> tiny.hidden[-1])").build(big=module)
    loaded = recipe(tmp_path, "mse(big.logits -> tiny.logits)")
    loaded.build(big=module)
    with pytest.raises(UsageError, match="are the same module"):
        loaded.build(big=module, tiny=module)
    loaded.build(big=module, tiny=copy.deepcopy(module))


@pytest.mark.parametrize(
    ("loss", "name", "settings", "words"),
    [
        ("mse(big.hidden[1] -> tiny.hidden[1] via linear)", "big", {"width": 16},
         r"`big` is declared with `hidden\[1\]` of shape \(batch, length, 32\).*gives \(batch, length, 16\)"),
        ("nst(big.hidden[1] -> tiny.hidden[1])", "tiny", {"width": 48, "layers": 1},
         r"`tiny` is declared with `hidden\[1\]` of shape \(batch, length, 32\).*gives \(batch, length, 48\)"),
        ("kd(big.logits -> tiny.logits)", "big", {"num_labels": 5},
         r"`big` is declared with `logits` of shape \(batch, 3\).*\(`BertForSequenceClassification`\) gives \(batch, 5\)"),
        ("ce(d.labels -> tiny.logits) + mse(big.logits -> tiny.logits)", "tiny", {"num_labels": 5},
         r"`tiny` is declared with `logits` of shape \(batch, 3\).*gives \(batch, 5\)"),
        ("mse(big.attention[0] -> tiny.attention[0])", "big", {"num_attention_heads": 4},
         r"of shape \(batch, 2, length, length\).*gives \(batch, 4, length, length\)"),
    ],
)  # fmt: skip
def test_other_sizes(tmp_path: Path, loss: str, name: str, settings: dict[str, Any], words: str) -> None:
    """A module of another width, of other classes or heads than declared is refused before it runs."""
    module = classifier(**{"width": 32, "seed": 5} | {k: x for k, x in settings.items() if k != "num_labels"})
    if count := settings.get("num_labels"):
        module.classifier = torch.nn.Linear(32, count)
        module.config.num_labels = count
    with pytest.raises(UsageError, match=words):
        recipe(tmp_path, loss).build(**{name: module})
    # where the spec does not take it, its size is no matter
    other = "mse(two.logits -> tiny.logits)"
    if name == "big":
        recipe(tmp_path, other).build(**{name: module})


@pytest.mark.parametrize("memory", [True, False])
def test_a_folder_that_changes_between_load_and_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    """Other weights are those that run, and that a cache goes by; another configuration is refused."""
    monkeypatch.setenv("BREWGRAPH_FACTS", str(tmp_path / "facts") if memory else "off")
    given, kept = batch(), 'cache seen = big.logits at "kept"'
    for seed in (1, 9):
        loaded = recipe(tmp_path, "mse(seen -> tiny.logits)", cache=kept)
        save(tmp_path / "bert", width=32, seed=seed)
        for _ in range(2):
            distiller = loaded.build().eval()
            want = mse_loss(logits(distiller.student, given), logits(classifier(width=32, seed=seed), given))
            assert distiller(given).loss.item() == pytest.approx(want.item(), rel=1e-5)
    loaded = recipe(tmp_path, "mse(big.logits -> tiny.logits)")
    names = ("good", "bad", "fair")
    AutoConfig.from_pretrained(tmp_path / "bert", id2label=dict(enumerate(names))).save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match="in the folder of `big` has changed since the spec was loaded"):
        loaded.build()
    loaded.build(big=classifier(width=32), two=classifier(width=32))
    recipe(tmp_path, "mse(big.logits -> tiny.logits)").build()


def test_factories_called_twice_give_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two teachers of one `python(…)` are two modules, as code may give another one at each call."""
    (tmp_path / "twice_made.py").write_text(
        "from tests.small import classifier\n"
        "made = []\n"
        "def make():\n"
        "    made.append(classifier(width=32, seed=5 + len(made)))\n"
        "    return made[-1]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe(tmp_path, MEAN)
    path = tmp_path / "spec.brew"
    path.write_text(path.read_text().replace('hf("bert")', 'python("twice_made:make")'))
    distiller = bg.load(path).build(allow_python=True).eval()
    given = batch()
    one, other = distiller.teachers
    mean = (logits(one, given) + logits(other, given)) / 2
    want = cross_entropy(logits(distiller.student, given), softmax(mean, -1)).item()
    assert not torch.equal(logits(one, given), logits(other, given))
    assert distiller(given).loss.item() == pytest.approx(want, rel=1e-5)
