"""Shapes from configurations alone against real forwards: every module of every architecture, and every named feature.

The real model is a tiny one on the processor, run on batches of other sizes than those that shapes are inferred from.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from brewgraph.diagnostics import SourceFault
from brewgraph.models.capture.capture import Capture
from brewgraph.models.fake.shapes import Shapes
from brewgraph.models.structure.anatomy import ModuleValue
from brewgraph.recipe.features import ROWS, Feature, Shape
from tests.models.tiny import SETTINGS, batch, tiny, tiny_config

ARCHITECTURES = (
    "bert", "roberta", "distilbert", "electra", "albert", "deberta-v2", "xlnet", "t5", "gpt2", "llama", "qwen2",
    "modernbert",
)  # fmt: skip
HALVES = ("t5", "xlnet", "deberta-v2")
"""Architectures that lack some of the named features."""
SIZES = ((3, 9, 4), (1, 6, 2))
"""Batch, length and length of a decoder: nothing that shapes are inferred from."""


def test_every_architecture_is_here() -> None:
    """A tiny configuration that is added is checked as well."""
    assert set(ARCHITECTURES) == set(SETTINGS)


def inputs_of(model: nn.Module, shapes: Shapes, size: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """A batch of these sizes, all of it real."""
    ids = {"input_ids": torch.randint(3, 60, size[:2]), "attention_mask": torch.ones(size[:2], dtype=torch.long)}
    return ids | ({"decoder_input_ids": torch.randint(3, 60, (size[0], size[2]))} if shapes.needs_decoder else {})


def real(model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, list[tuple[Any, Any]]]:
    """What every module takes first and gives, call by call."""
    seen: dict[str, list[tuple[Any, Any]]] = {path: [] for path, _ in model.named_modules() if path}

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen[path].append((args[0] if args else next(iter(kwargs.values()), None), output))

        return hook

    hooks = [m.register_forward_hook(note(p), with_kwargs=True) for p, m in model.named_modules() if p]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


def sizes_of(shape: Shape | None, size: tuple[int, int, int]) -> tuple[int, ...]:
    """A symbolic shape with numbers put in."""
    known = dict(zip(("batch", "length", "decoder_length"), size, strict=True))
    assert shape is not None
    return tuple(s if isinstance(s, int) else eval(s, {}, known) for s in shape)


def assert_same(value: ModuleValue, found: Any, size: tuple[int, int, int], where: str) -> None:
    """An inferred value says what the real one is: its shape, its elements one by one, or that it is None."""
    if isinstance(found, torch.Tensor):
        assert value.kind == "tensor", where
        assert sizes_of(value.shape, size) == tuple(found.shape), where
    elif found is None:
        assert value.kind == "None", where
    elif isinstance(found, tuple | list | dict):
        members = list(found.values()) if isinstance(found, dict) else list(found)
        assert len(value.elements) == len(members), where
        for i, (element, member) in enumerate(zip(value.elements, members, strict=True)):
            assert_same(element, member, size, f"{where}[{i}]")
    else:
        assert value.kind == type(found).__name__, where


@pytest.mark.parametrize(
    ("kind", "auto_class"),
    [
        *((kind, AutoModel) for kind in ARCHITECTURES),
        *((kind, AutoModelForSequenceClassification) for kind in ARCHITECTURES if kind != "t5"),
        ("t5", AutoModelForTokenClassification),
    ],
)
def test_every_module_takes_and_gives_what_was_inferred(kind: str, auto_class: Any) -> None:
    """Inputs, outputs, the elements of tuples, the number of calls, and which modules are never called."""
    shapes = Shapes.of(tiny_config(kind), auto_class)
    model = tiny(kind, auto_class)
    compared = 0
    for size in SIZES:
        seen = real(model, inputs_of(model, shapes, size))
        assert list(seen) == list(shapes.modules)
        for path, module in shapes.modules.items():
            assert module.calls == len(seen[path]), path
            for takes, gives, (taken, given) in zip(module.takes, module.gives, seen[path], strict=True):
                assert_same(takes, taken, size, f"the input of {path}")
                assert_same(gives, given, size, path)
                compared += 1
    assert compared > 50


def test_a_classifier_that_looks_for_the_end_of_a_text_has_modules() -> None:
    """T5's picks the last token of each text: one vector an example, before there are texts."""
    modules = Shapes.of(tiny_config("t5", decoder_start_token_id=0), AutoModelForSequenceClassification).modules
    (taken,), (given,) = (x[:1] for x in (modules["classification_head"].takes, modules["classification_head"].gives))
    assert (taken.shape, given.shape) == (("batch", 32), ("batch", 3))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_tap_is_caught_as_inferred(kind: str) -> None:
    """What `Capture` catches of every module has the shape that a tap was told, and where there is none, none."""
    shapes = Shapes.of(tiny_config(kind), AutoModel)
    model = tiny(kind)
    taps = [
        Feature("tap", path=path, input=side, item=item, call=call)
        for path, module in shapes.modules.items()
        for side, values in ((False, module.gives), (True, module.takes))
        for call, value in enumerate(values)
        for item in ([None] if not value.elements else range(len(value.elements)))
    ]
    told = shapes.infer(taps)
    sound = {tap: shape for tap, shape in told.items() if not isinstance(shape, SourceFault)}
    size = SIZES[0]
    capture = Capture(model, list(sound))
    with capture.armed(), torch.no_grad():
        output = model(**inputs_of(model, shapes, size))
    for tap, value in capture.collect(output).items():
        assert tuple(value.shape) == sizes_of(sound[tap], size), str(tap)
    capture.remove()
    refused = {fault.code for fault in told.values() if isinstance(fault, SourceFault)}
    assert refused <= {"B305"}
    assert len(sound) > 30


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "t5"])
def test_named_features_equal_the_models_own(kind: str) -> None:
    """Hidden states, eager attentions, logits and the pooled output, bit for bit where it is the same computation; and
    what is inferred is their shape.
    """
    auto_class = AutoModelForTokenClassification
    shapes = Shapes.of(tiny_config(kind), auto_class)
    size = SIZES[0]
    inputs = inputs_of(shapes.model, shapes, size)
    eager = tiny(kind, auto_class, **({} if kind == "xlnet" else {"attention": "eager"}))
    with torch.no_grad():
        own = eager(**inputs, output_hidden_states=True, output_attentions=True)
    expected = {Feature("logits"): own.logits, Feature("embeddings"): own.hidden_states[0]}
    expected |= {Feature("hidden", i): x for i, x in enumerate(own.hidden_states)}
    expected |= {Feature("attention", i): x for i, x in enumerate(own.attentions)}
    rows = {name: shapes.anatomy.row_length(name) for name in ("hidden", "attention")}
    assert rows == {"hidden": len(own.hidden_states), "attention": len(own.attentions)} == {"hidden": 4, "attention": 3}
    capture = Capture(eager, list(expected))
    with capture.armed(), torch.no_grad():
        values = capture.collect(eager(**inputs))
    for feature, value in values.items():
        assert torch.equal(value, expected[feature]), str(feature)
        assert tuple(value.shape) == sizes_of(shapes.shape(feature), size), str(feature)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_named_feature_has_a_shape_or_a_reason(kind: str) -> None:
    """Each is caught with the shape that was inferred; each that is not offered says why, and what to do instead."""
    shapes = Shapes.of(tiny_config(kind), AutoModel)
    model = tiny(kind)
    told = shapes.infer(shapes.every_feature())
    faults = {feature: fault for feature, fault in told.items() if isinstance(fault, SourceFault)}
    sound = {feature: shape for feature, shape in told.items() if not isinstance(shape, SourceFault)}
    capture = Capture(model, list(sound))
    size = SIZES[0]
    with capture.armed(), torch.no_grad():
        output = model(**inputs_of(model, shapes, size))
    for feature, value in capture.collect(output).items():
        assert tuple(value.shape) == sizes_of(sound[feature], size), str(feature)
    capture.remove()
    assert all(fault.code in ("B304", "B305") and fault.help for fault in faults.values())
    missing = [name for name in ROWS if name in shapes.anatomy.lacking]
    assert bool(missing) == (kind in HALVES)
    for name in missing:
        with pytest.raises(SourceFault) as caught:
            shapes.shape(Feature(name, 0))
        assert caught.value.code == "B304"
        assert "@" in caught.value.help


def test_pooled_equals_the_models_own() -> None:
    """The pooler's output, where the base model has one."""
    for kind in ("bert", "albert"):
        model = tiny(kind)
        capture = Capture(model, [Feature("pooled")])
        with capture.armed(), torch.no_grad():
            output = model(**batch(7, 4))
        assert torch.equal(capture.collect(output)[Feature("pooled")], output.pooler_output)
        capture.remove()
        assert isinstance(model, PreTrainedModel)
