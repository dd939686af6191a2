"""The Distiller as a module: teachers beside it, captures inside a step only, batches flat and nested."""

from __future__ import annotations

import copy
import gc
import warnings
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BatchEncoding

import brewgraph as bg
from brewgraph.training.work import unreached_frozen
from tests.small import LOSS, classifier, project, save


def batch(rows: int = 3, length: int = 6) -> dict[str, torch.Tensor]:
    """Random tokens with padding, and labels."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, length // 2 :] = 0
    ids = torch.randint(5, 60, (rows, length), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(rows) % 3}


def build(folder: Path, **settings: Any) -> Any:
    """The distiller of the spec of `small`."""
    return bg.load(project(folder, **settings)).build()


def test_teachers_stand_beside_the_module(tmp_path: Path) -> None:
    """Frozen, in eval mode, in no list of parameters and no state dict; moved with the module; they keep no graph."""
    distiller = build(tmp_path)
    (teacher,) = distiller.teachers
    distiller.train()
    assert distiller.student.training
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    own = {id(p) for p in distiller.parameters()}
    assert not own & {id(p) for p in teacher.parameters()}
    student = sum(p.numel() for p in distiller.student.parameters())
    projections = 2 * (16 * 32 + 32)
    assert sum(p.numel() for p in distiller.parameters()) == student + projections
    assert {key.split(".")[0] for key in distiller.state_dict()} == {"student", "projections"}
    distiller.to(torch.float64)
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}
    distiller.to(torch.float32)
    distiller(batch()).loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None for p in distiller.student.parameters())


@pytest.mark.parametrize("loss", ["soft + 0.3 * hard", "sum(hidden) + after(50%) * soft", "sum(hidden)"])
def test_ranks_look_for_unused_parameters_only_where_they_must(tmp_path: Path, loss: str) -> None:
    """What no term reaches is frozen, and a term that is off now gives zeros: then every step reaches everything that
    is trained, which a backward pass confirms. What is not frozen is known; not so where layers are left out at random.
    """
    distiller = build(tmp_path, loss=loss)
    with unreached_frozen(distiller):
        assert distiller.unreached_by("") == []
        distiller(batch()).loss.backward()
        assert all(p.grad is not None for p in distiller.parameters() if p.requires_grad)
        distiller.student.config.layerdrop = 0.1
        assert distiller.unreached_by("") is None
        shared, part = distiller.student.config, distiller.student.bert.pooler
        part.config = copy.copy(shared)
        part.config.layerdrop = 0.0  # of one part says nothing of the others
        assert distiller.unreached_by("") is None
        del part.config, shared.layerdrop
    unreached = distiller.unreached_by("")
    assert {id(p) for p in unreached} == {id(p) for p in distiller.parameters() if p.grad is None}
    assert bool(unreached) == (loss == "sum(hidden)")  # its pooler and classifier are in no term


def test_nothing_of_a_step_is_kept(tmp_path: Path) -> None:
    """After a step neither captures nor program hold tensors, so the graph of a step is freed with its loss."""
    distiller = build(tmp_path)
    gc.collect()
    before = {id(x) for x in gc.get_objects() if issubclass(type(x), torch.Tensor)}
    output = distiller(batch())
    assert output.loss.requires_grad
    del output
    gc.collect()
    kept = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor) and id(x) not in before]
    assert [tuple(x.shape) for x in kept] == []


def test_no_cache_of_keys_and_values(tmp_path: Path) -> None:
    """A causal model would fill one for a generation in each forward."""
    spec = project(tmp_path)
    save(tmp_path / "bert", "gpt2", width=32, seed=1)
    distiller, caches = bg.load(spec).build(), []
    (teacher,) = distiller.teachers
    teacher.register_forward_hook(lambda model, args, output: caches.append(output.past_key_values))
    distiller(batch())
    assert caches == [None]


def test_captures_are_armed_in_the_step_only(tmp_path: Path) -> None:
    """A forward outside leaves nothing behind; one inside is not disturbed by it."""
    distiller = build(tmp_path)
    inputs = {k: v for k, v in batch().items() if k != "labels"}
    distiller.student(**inputs)
    distiller.teachers[0](**inputs)
    assert all(not capture._seen and not capture._armed for capture in distiller.program.captures.values())
    assert distiller(batch()).loss.isfinite()


def test_release_gives_the_models_back(tmp_path: Path) -> None:
    """No hooks, the attention of before, and teachers trainable again where they were."""
    teacher, student = classifier(width=32, layers=2, seed=1).train(), classifier(width=16, layers=1)
    before = teacher.config._attn_implementation
    loss = "soft + mse(bert.attention[0] -> tiny.attention[0])"
    distiller = bg.load(project(tmp_path, loss=loss)).build(bert=teacher, tiny=student)
    assert distiller.teachers == (teacher,)
    assert distiller.student is student
    assert teacher.config._attn_implementation != before
    distiller.release()
    for model in (teacher, student):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert teacher.config._attn_implementation == before
    assert all(m.training for m in teacher.modules())
    assert all(p.requires_grad for p in teacher.parameters())


def test_dropout_of_the_student_is_active(tmp_path: Path) -> None:
    """A new distiller trains with dropout though its student came from a folder; in eval mode it has none."""
    distiller = build(tmp_path, dropout=True)
    assert distiller(batch()).loss != distiller(batch()).loss
    distiller.eval()
    assert torch.equal(distiller(batch()).loss, distiller(batch()).loss)


def test_building_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    """A program that draws numbers draws the same ones with a distiller as without."""
    recipe = bg.load(project(tmp_path))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    recipe.build()
    assert torch.equal(torch.rand(3), expected)


def test_batches_flat_and_nested(tmp_path: Path) -> None:
    """`batch["bert"]` is that model's own encoding; the others read the top."""
    distiller = build(tmp_path, loss="soft + 0.3 * hard")
    flat = batch()
    expected = distiller(flat)
    nested = {"bert": dict(flat), "tiny": dict(flat), "labels": flat["labels"]}
    assert torch.equal(distiller(nested).loss, expected.loss)
    longer = batch(length=9)
    mixed = {**flat, "bert": {k: longer[k] for k in ("input_ids", "attention_mask")}}
    found = distiller(mixed)
    assert torch.equal(found.terms["hard"], expected.terms["hard"])
    assert not torch.equal(found.terms["soft"], expected.terms["soft"])


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    """A batch without token ids, or without labels, says what is missing and what there is."""
    distiller = build(tmp_path)
    whole = batch()
    with pytest.raises(
        bg.RunError, match=r"the forward of `(bert|tiny)` needs `input_ids`, but the batch has `attention_mask`"
    ):
        distiller({k: v for k, v in whole.items() if k != "input_ids"})
    with pytest.raises(bg.RunError, match="the batch has no `labels`; it has `input_ids`"):
        distiller({k: v for k, v in whole.items() if k != "labels"})


WHOLE = batch()
IDS, MASK, LABELS = WHOLE["input_ids"], WHOLE["attention_mask"], WHOLE["labels"]
EXAMPLE = r'distiller\(\{"input_ids": ids, "attention_mask": mask, "labels": labels\}\)'
FAULTY: dict[str, tuple[Any, str]] = {
    "tuple": ((IDS, MASK, LABELS), f"a batch is a dictionary of tensors, got a tuple of 3: {EXAMPLE}"),
    "list": ([IDS, MASK, LABELS], f"got a list of 3: {EXAMPLE}"),
    "rows": ([{"input_ids": [5, 6]}], f"got a list of 1: {EXAMPLE}"),
    "tensor": (IDS, f"got a Tensor: {EXAMPLE}"),
    "none": (None, f"got a NoneType: {EXAMPLE}"),
    "nothing": ({}, "has no inputs for `(bert|tiny)`, neither at its top nor in .*: it has nothing"),
    "one model": ({"bert": {"input_ids": IDS, "attention_mask": MASK}, "labels": LABELS}, "no inputs for `tiny`"),
    "tuple of a model": ({"bert": (IDS, MASK), "tiny": WHOLE, "labels": LABELS}, r'`batch\["bert"\]` is a tuple'),
    "arrays": ({k: v.numpy() for k, v in WHOLE.items()}, "`input_ids` is a ndarray, not a tensor"),
    "lists": ({k: v.tolist() for k, v in WHOLE.items()}, "`input_ids` is a list, not a tensor"),
    "label list": (WHOLE | {"labels": LABELS.tolist()}, "`labels` is a list, not a tensor"),
    "float ids": (WHOLE | {"input_ids": IDS.float()}, "type torch.float32; token ids are whole numbers"),
    "float labels": (WHOLE | {"labels": LABELS.float()}, r"torch.float32; .* torch.int64, \(batch\): labels.long\(\)"),
    "as many floats as classes": (
        {k: v[:3] for k, v in (WHOLE | {"labels": LABELS.float()}).items()}, "`labels` has the type torch.float32"
    ),
    "one-hot": (WHOLE | {"labels": torch.eye(3)[LABELS]}, r"labels.argmax\(-1\); .*multi_label"),
    "short labels": (WHOLE | {"labels": LABELS.int()}, "`labels` has the type torch.int32"),
    "few labels": (WHOLE | {"labels": LABELS[:2]}, r"`labels` has the shape \(2,\), and this batch needs \(3,\)"),
    "labels per token": (WHOLE | {"labels": IDS}, r"`labels` has the shape \(3, 6\), and this batch needs \(3,\)"),
    "one label": (WHOLE | {"labels": torch.tensor(1)}, r"`labels` has the shape \(\), and this batch needs"),
    "other classes": (WHOLE | {"labels": LABELS + 5}, "`labels` holds 5, and there are 3 classes, from 0 to 2"),
    "negative": (WHOLE | {"labels": LABELS - 1}, "`labels` holds -1, and there are 3 classes"),
    "other tokens": (WHOLE | {"input_ids": IDS + 200}, "`input_ids` holds 2.., and `(bert|tiny)` has 120 tokens"),
    "one text": ({k: v[0] for k, v in WHOLE.items()}, r"shape \(6,\), not \(batch, length\): one text is ids\[None\]"),
    "no rows": ({k: v[:0] for k, v in WHOLE.items()}, r"has no rows: `input_ids` has the shape \(0, 6\)"),
    "no tokens": (WHOLE | {"input_ids": IDS[:, :0], "attention_mask": MASK[:, :0]}, "the batch has no tokens"),
    "short mask": (WHOLE | {"attention_mask": MASK[:, :3]}, r"`attention_mask` has the shape \(3, 3\), and the tokens"),
    "mask of one row": (WHOLE | {"attention_mask": MASK[:1]}, r"`attention_mask` has the shape \(1, 6\)"),
    "mask of pairs": (WHOLE | {"attention_mask": MASK[:, None, None]}, r"`attention_mask` has the shape \(3, 1, 1, 6\)"),
    "short types": (WHOLE | {"token_type_ids": MASK[:, :3]}, r"`token_type_ids` has the shape \(3, 3\)"),
    "long": ({k: v.repeat(1, 9) if v.dim() > 1 else v for k, v in WHOLE.items()}, "54 tokens a row, .* has 40 positions"),
    "elsewhere": (WHOLE | {"input_ids": IDS.to("meta")}, r'`input_ids` is on meta and .* on cpu: batch\["input_ids"\]'),
}  # fmt: skip


@pytest.fixture(scope="module")
def distiller(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A loss that reads labels, tokens and masks."""
    return build(tmp_path_factory.mktemp("batches"))


@pytest.mark.parametrize("name", FAULTY)
def test_a_batch_at_fault_is_explained(distiller: Any, name: str) -> None:
    """In the terms of the batch, with the remedy, and not in torch's words about sizes."""
    given, message = FAULTY[name]
    with pytest.raises(bg.RunError, match=message):
        distiller(given)


def test_other_dictionaries_and_types(distiller: Any) -> None:
    """What tokenizers give, masks of truth values and fractions, ids of 32 bits, labels in a column."""
    distiller.eval()
    expected = distiller(WHOLE).loss
    more = [BatchEncoding(WHOLE), UserDict(WHOLE), WHOLE | {"attention_mask": MASK.bool(), "input_ids": IDS.int()}]
    more += [WHOLE | {"attention_mask": MASK.float(), "labels": LABELS[:, None]}, WHOLE | {"names": ["a", "b", "c"]}]
    for given in more:
        assert torch.equal(distiller(given).loss, expected)


def test_a_missing_mask_is_said_once(tmp_path: Path) -> None:
    """Without it padding counts, and the loss is another one; a batch without padding needs one, too, of ones."""
    distiller = build(tmp_path).eval()
    without = {"input_ids": IDS, "labels": LABELS}
    with pytest.warns(UserWarning, match="has no `attention_mask` for `(bert|tiny)`: every token counts") as caught:
        loss = distiller(without).loss
    assert caught[0].filename == __file__
    assert not torch.isclose(loss, distiller(WHOLE).loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(distiller(without).loss, loss)
        assert torch.equal(build(tmp_path).eval()(without | {"attention_mask": torch.ones_like(IDS)}).loss, loss)


def test_an_error_of_another_cause_stays(distiller: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the batch does not explain is raised as it is."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(distiller.student, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        distiller(WHOLE)


def test_embeddings_in_place_of_ids(tmp_path: Path) -> None:
    """Token ids are not asked for where their embeddings are given."""
    distiller = build(tmp_path, loss="hard")
    whole = batch()
    ids = whole.pop("input_ids")
    whole["inputs_embeds"] = distiller.student.get_input_embeddings()(ids).detach()
    assert torch.equal(distiller(whole).loss, distiller({**whole, "input_ids": ids, "inputs_embeds": None}).loss)


def test_a_batch_without_a_label_that_counts(tmp_path: Path) -> None:
    """Labels of -100 everywhere give a loss of zero, no 0/0, and leave the other terms alone."""
    distiller = build(tmp_path, loss="soft + 0.3 * hard")
    whole = batch()
    whole["labels"] = torch.full_like(whole["labels"], -100)
    output = distiller(whole)
    assert output.terms["hard"] == 0
    assert torch.equal(output.loss, output.terms["soft"])


def test_weights_follow_schedules(tmp_path: Path) -> None:
    """`ramp(1 -> 0)` counts fully at first and is not yet zero at the last step; the loss has the same weights."""
    distiller = build(tmp_path, loss="ramp(1 -> 0) * soft + 0.3 * hard")
    assert distiller.weights() == {"soft": 1.0, "hard": 0.3}
    distiller.progress = 4 / 5
    assert distiller.weights()["soft"] == pytest.approx(0.2)
    output = distiller(batch())
    expected = 0.2 * output.terms["soft"] + 0.3 * output.terms["hard"]
    torch.testing.assert_close(output.loss, expected)


def test_split_batches_add_up(tmp_path: Path) -> None:
    """With the counts of the whole, the losses and gradients of its parts sum to those of the whole."""
    distiller = build(tmp_path, loss=LOSS)
    whole = batch(rows=4, length=8)
    whole["attention_mask"][0, 2:] = 0
    parts = [{k: v[rows] for k, v in whole.items()} for rows in (slice(0, 1), slice(1, 4))]
    expected = distiller(whole).loss
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in distiller.named_parameters() if p.grad is not None}
    distiller.zero_grad()
    counts = sum(distiller.count(part) for part in parts)
    assert torch.equal(counts, distiller.count(whole))
    losses = [distiller(part, counts).loss for part in parts]
    sum(losses).backward()
    torch.testing.assert_close(sum(losses), expected, atol=1e-6, rtol=1e-6)
    for name, p in distiller.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, gradients[name], atol=1e-6, rtol=1e-5)
    mean_of_means = sum(distiller(part).loss * len(part["labels"]) / 4 for part in parts)
    assert abs(mean_of_means - expected) > 1e-3


def test_two_places_never_share_a_projection(tmp_path: Path) -> None:
    """A projection named `hidden_0` and the first one of the equation `hidden` are two modules."""
    spec = project(tmp_path)
    text = spec.read_text().replace(
        "loss = ",
        "proj hidden_0 = linear(16 -> 32)\nother = mse(bert.hidden[0] -> tiny.hidden[0] via hidden_0)\nloss = other + ",
    )
    spec.write_text(text)
    distiller = bg.load(spec).build()
    assert len(distiller.projections) == 3
