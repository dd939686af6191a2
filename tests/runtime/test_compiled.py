"""`compile = true`: layers are compiled one by one, and give taps and losses what they gave before."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError, SpecError
from brewgraph.models.capture import attention, compiled
from brewgraph.models.capture.compiled import is_compiled
from brewgraph.models.fake.shapes import Reach
from brewgraph.models.structure.decoder import Decoder
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.settings.train import COMPILED
from brewgraph.training.reporter import Reporter
from tests.models.tiny import RECORDED
from tests.runtime.test_packing import places_seen, step, whole
from tests.runtime.test_padding import project
from tests.runtime.test_recompute import ALONE, INSIDE, recomputed
from tests.small import project as small_project
from tests.small import save, write_data

FAST = ("bert", "gpt2", "albert")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch itself
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


def spec(tmp_path: Path, kind: str, more: str = "") -> Path:
    """A spec of two models of this architecture, without dropout."""
    path = project(tmp_path, kind, "right")
    if more:
        path.write_text(path.read_text().replace("+ sum(", f"+ {more} + sum("))
    return path


def compare(path: Path) -> tuple[Any, Any]:
    """Loss and gradients with the setting are those without it; both distillers."""
    plain, other = bg.load(path).build(), bg.load(recomputed(path, "compile = true")).build()
    other.load_state_dict(plain.state_dict())
    batch = whole("right")
    (loss, gradients), (again, others) = step(plain, batch), step(other, batch)
    assert again == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == others.keys()
    scale = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)
    return plain, other


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in RECORDED]
)
def test_nothing_changes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, forward and backward, without the compiler itself, with taps inside of layers, which then run as they
    are; all layers stay padded.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    _, distiller = compare(spec(tmp_path, kind, INSIDE.format(path=ALONE[kind]) if kind in ALONE else ""))
    layers = [distiller.student.get_submodule(path) for path in dissect(distiller.student).layer_paths]
    # attention is taken from the second layer, so that it runs as it is; ALBERT has one layer for all, and packs it
    assert [is_compiled(layer) for layer in layers] == ([False] if kind == "albert" else [True, False, True])
    assert places_seen(distiller, whole("right")) == {(1, 43) if kind == "albert" else (5, 16)}
    distiller.release()
    assert not any(map(is_compiled, (distiller.student, *distiller.teachers)))


@pytest.mark.slow
def test_the_compiler(tmp_path: Path) -> None:
    """The same, compiled."""
    compare(spec(tmp_path, "bert"))


@pytest.mark.slow
def test_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled anew after a break, a run ends with the weights of one without."""

    class Breaks(Reporter):
        def step(self, step: int, loss: float | None, terms: Any) -> None:
            if step == 3:
                raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    path = small_project(tmp_path, train="compile = true; steps = 5; save_steps = 1 steps")
    whole_run = bg.run(path, out="whole")
    with pytest.raises(KeyboardInterrupt):
        bg.run(path, out="parts", reporter=Breaks())
    parts = bg.run(path, out="parts")
    one, other = (run.folder / "student" / "model.safetensors" for run in (whole_run, parts))
    assert one.read_bytes() == other.read_bytes()


def test_whole_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is no part of the hash; a run evaluates and saves as ever."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    path = spec(tmp_path, "bert")
    other = recomputed(path, "compile = true")
    assert check(read_spec(path)).spec_hash == check(read_spec(other)).spec_hash
    said: list[str] = []

    class Says(Reporter):
        def say(self, text: str) -> None:
            said.append(text)

    names = [
        sorted(p.name for p in (bg.run(x, out=tmp_path / x.stem, reporter=Says()).folder / "student").iterdir())
        for x in (path, other)
    ]
    assert names[0] == names[1]
    assert [line for line in said if "compile" in line] == [f"`compile = true` gains nothing here: {COMPILED}"]
    plans = [" ".join(str(bg.load(x).plan(cost=False)).split()) for x in (path, other)]
    assert [COMPILED in plan for plan in plans] == [False, True]


def test_batches_of_several_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model's layers are compiled once for all of them: also those of a causal model, whose cache of keys and values
    would make each layer another.
    """
    compiled_graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        compiled_graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    save(tmp_path / "big", "gpt2", width=32, layers=3, seed=1)
    save(tmp_path / "tiny", "gpt2", layers=2, seed=2)
    (tmp_path / "spec.brew").write_text(
        'teacher big = hf("big")\nstudent tiny = hf("tiny")\ndata d = files(train="train.jsonl", batch=4, max_length=32)\n'
        "loss = kd(big.logits -> tiny.logits, T=1)\ntrain { compile = true }\n"
    )
    distiller, counts = bg.load("spec.brew").build(), []
    for count_of_examples, length in ((4, 10), (4, 12), (3, 9), (2, 11), (5, 8)):
        ids = torch.randint(5, 60, (count_of_examples, length))
        mask = torch.ones_like(ids)
        ids[0, -2:], mask[0, -2:] = 0, 0
        distiller({"input_ids": ids, "attention_mask": mask}).loss.backward()
        counts.append(len(compiled_graphs))
    assert counts == [2, 2, 2, 2, 2]


def test_other_models_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code compiled for one model depends on no other, be it watched, gone, or collected while this one is traced."""
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        others.clear()
        gc.collect()
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    config = AutoConfig.for_model(
        "gpt2", n_embd=16, n_layer=2, n_head=2, vocab_size=120, attn_implementation="brewgraph"
    )
    model, *others = (AutoModelForCausalLM.from_config(config) for _ in range(3))
    for other in others:
        attention.watch(other.transformer.h[0].attn, {"attention"}, lambda values: None)
    compiled.compile_layers(model, dissect(model).layer_paths)
    ids = torch.ones(2, 3, dtype=torch.long)
    model(ids, use_cache=False)
    others.append(AutoModelForCausalLM.from_config(config))
    attention.watch(others[0].transformer.h[0].attn, {"attention"}, lambda values: None)
    model(ids, use_cache=False)
    assert len(graphs) == 1


def test_the_limit_of_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several models of an architecture compile the same code more often than torch does by itself."""
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    models = [torch.nn.Sequential(torch.nn.Linear(width, width)) for width in range(2, 13)]
    for model in models:
        compiled.compile_layers(model, ["0"])
        model(torch.ones(3, model[0].in_features))
    assert len(graphs) == len(models) > torch._dynamo.config.recompile_limit


def test_fake_tensors_enter_no_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer of a language model is looked for on them; compiled code would read memory that is not there."""

    def enters(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("compiled code runs")

    monkeypatch.setattr(torch, "compile", lambda forward, **settings: enters)
    config = AutoConfig.for_model("gpt2", n_embd=16, n_layer=2, n_head=2, vocab_size=120)
    model = AutoModelForCausalLM.from_config(config)
    compiled.compile_layers(model, dissect(model).layer_paths)
    assert isinstance(Reach(model).decoder, Decoder)
    with pytest.raises(AssertionError):
        model(torch.ones(1, 2, dtype=torch.long))


def test_a_machine_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names what is missing and what to do."""

    class InductorError(Exception):
        __module__ = "torch._inductor.exc"

    def fail(*args: Any, **kwargs: Any) -> None:
        raise InductorError("No working C++ compiler found in cl: None\nand more")

    monkeypatch.setattr(torch, "compile", lambda forward, **settings: fail)
    distiller = bg.load(recomputed(spec(tmp_path, "bert"), "compile = true")).build()
    with pytest.raises(
        RunError, match=r"^torch cannot compile .*No working C\+\+ compiler found.*remove `compile = tr"
    ):
        distiller(whole("right"))
    assert not compiled._is_of_compiler(ValueError("of the model"))


def test_not_both(tmp_path: Path) -> None:
    """Layers that run again are not compiled."""
    path = recomputed(spec(tmp_path, "bert"), "compile = true; gradient_checkpointing = true")
    with pytest.raises(SpecError) as error:
        check(read_spec(path))
    (diagnostic,) = error.value.diagnostics
    assert "do not go together; remove one" in diagnostic.message
