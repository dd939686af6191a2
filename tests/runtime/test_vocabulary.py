"""Losses on logits over a vocabulary run a chunk of tokens at a time: loss and gradients are those of whole logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import brewgraph as bg
from brewgraph.inspect.plan_of import savings_of
from brewgraph.models.fake.shapes import Reach
from brewgraph.models.structure.decoder import Decoder
from brewgraph.runtime import vocabulary
from brewgraph.runtime.distiller import Distiller
from tests.small import tokenizer

V = 4200
_BERT = {
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 0,
    "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
_LLAMA = _BERT | {"num_key_value_heads": 2, "head_dim": 8}
_QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (AutoModelForCausalLM, {"n_head": 2, "bos_token_id": 2, "eos_token_id": 3,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "llama": (AutoModelForCausalLM, _LLAMA | {"tie_word_embeddings": False}),
    "gemma2": (AutoModelForCausalLM, _LLAMA | {"final_logit_softcapping": 2.0}),
    "granite": (AutoModelForCausalLM, _LLAMA | {"logits_scaling": 0.5}),
    "cohere": (AutoModelForCausalLM, _LLAMA | {"logit_scale": 0.5}),
    "bert": (AutoModelForMaskedLM, _BERT | _QUIET),
    "roberta": (AutoModelForMaskedLM, _BERT | _QUIET),
    "distilbert": (AutoModelForMaskedLM, {"n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40,
                   "dropout": 0.0, "attention_dropout": 0.0}),
    "mobilebert": (AutoModelForMaskedLM, _BERT | _QUIET | {"embedding_size": 8, "intra_bottleneck_size": 8,
                   "true_hidden_size": 8}),
    "opt": (AutoModelForCausalLM, _BERT | {"ffn_dim": 24, "dropout": 0.0, "attention_dropout": 0.0}),
}  # fmt: skip
"""Language models, without dropout: with tied and untied weights, heads that transform before, softcap and scales."""
_SIZES = {"gpt2": ("n_embd", "n_layer"), "distilbert": ("dim", "n_layers")}

SPEC = """brew 1
teacher big = hf("big")
teacher old = hf("old")
student tiny = hf("tiny")
data d = text(train="train.txt", dev="train.txt", {mask}batch=4, max_length=16)
soft = kd(big.logits -> tiny.logits, T={T})
hard = ce(d.labels -> tiny.logits)
loss = {loss}
train {{ steps = 4 }}
"""


def model(kind: str, seed: int, width: int = 16, layers: int = 1, **more: Any) -> PreTrainedModel:
    """A random language model whose logits are far from even."""
    made, settings = SETTINGS[kind]
    width_name, layers_name = _SIZES.get(kind, ("hidden_size", "num_hidden_layers"))
    sizes = {width_name: width, layers_name: layers, "vocab_size": V}
    if kind == "opt":
        sizes |= {"word_embed_proj_dim": width}
    torch.manual_seed(seed)
    net: PreTrainedModel = made.from_config(AutoConfig.for_model(kind, **(settings | sizes | more)))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(5) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn(parameter.shape))
            if name.endswith("bias"):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def project(folder: Path, kind: str, loss: str, T: str = "2", **more: Any) -> Path:
    """A spec with two teachers and a student of one architecture."""
    for name, seed, width in (("big", 1, 24), ("old", 3, 16), ("tiny", 2, 16)):
        if not (folder / name).exists():
            model(kind, seed, width, **more).save_pretrained(folder / name)
            tokenizer().save_pretrained(folder / name)
    (folder / "train.txt").write_text("a tale of two cities\nthe best of times\n" * 8)
    mask = "" if SETTINGS[kind][0] is AutoModelForCausalLM else "mask=15%, "
    spec = folder / "spec.brew"
    spec.write_text(SPEC.format(mask=mask, loss=loss, T=T))
    return spec


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Random tokens with padding, and labels of some of them."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[0, 4:] = 0
    ids = torch.randint(5, V, (3, 9), generator=generator) * mask
    labels = torch.where((torch.rand(3, 9, generator=generator) < 0.4) & mask.bool(), ids.flip(1), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def step(distiller: Distiller, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, terms and gradients of a batch."""
    distiller.zero_grad()
    distiller.progress = progress
    output = distiller(batch())
    output.loss.backward()
    grads = {name: p.grad.clone() for name, p in distiller.named_parameters() if p.grad is not None}
    return output.loss.detach(), output.terms, grads


def assert_same(one: Distiller, other: Distiller, *, progress: float = 0.0, close: float = 1e-6) -> None:
    """Loss, terms and gradients agree; lengths of differences, in parts of the gradient of all parameters."""
    (loss, terms, grads), (expected, others, wanted) = step(one, progress), step(other, progress)
    assert loss.item() == pytest.approx(expected.item(), rel=close)
    assert terms.keys() == others.keys()
    for name, term in terms.items():
        assert term.item() == pytest.approx(others[name].item(), rel=close), name
    assert grads.keys() == wanted.keys()
    length = torch.stack([x.norm() for x in wanted.values()]).norm()
    for name, gradient in grads.items():
        assert (gradient - wanted[name]).norm() <= close * length, name


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four tokens at a time."""
    monkeypatch.setattr(vocabulary, "CHUNK", 4 * V)


def both(spec: Path) -> tuple[Distiller, Distiller]:
    """The loss in chunks, and on whole logits."""
    return bg.load(spec).build(), bg.load(spec).build(skip=["split_vocabularies"])


@pytest.mark.parametrize("loss", ["soft", "soft + 0.5 * hard"])
@pytest.mark.parametrize("kind", sorted(SETTINGS.keys() - {"mobilebert"}))
def test_chunks_are_whole_logits(kind: str, loss: str, tmp_path: Path) -> None:
    """Every head, with one loss and with two on the same logits, in fp32."""
    chunks, whole = both(project(tmp_path, kind, loss))
    assert len(chunks.program.decoders) == 2
    assert_same(chunks, whole, close=3e-6)  # in fp32, by processor
    assert_same(chunks.double(), whole.double(), close=1e-12)


LOSSES = {
    "kl without a mask": "kl(big.logits -> tiny.logits, T=2, mask=none)",
    "soft cross-entropy": "ce(big.logits -> tiny.logits, T=2)",
    "cross-entropy of labels": "hard",
    "squared logits": "mse(big.logits -> tiny.logits, T=2)",
    "a mean of teachers": "kd((big.logits + old.logits) / 2 -> tiny.logits)",
    "a teacher put right": "kd(shift(big.logits, d.labels) -> tiny.logits)",
    "four losses": "soft + hard + 0.1 * mse(old.logits -> tiny.logits) + 2 * kl(old.logits -> tiny.logits, mask=labels)",
    "two passes": "hard + kl(tiny.logits -> tiny(pass=2).logits)",
    "a student that is stopped": "hard + kl(stop(tiny.logits) -> tiny(pass=2).logits, T=3)",
    "hidden states beside": "soft + mse(big.hidden[1] -> tiny.hidden[1] via linear)",
    "a schedule": "hard + after(50%) * soft",
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_losses_in_chunks(name: str, tmp_path: Path) -> None:
    """Each mask, several losses and teachers on the same logits, a loss that sleeps; every time its logits are split."""
    chunks, whole = both(project(tmp_path, "gpt2", LOSSES[name]))
    split = [model.split(":")[0] for model in chunks.program.decoders]
    assert len(split) == len(chunks.program.captures)
    for progress in (0.0, 0.75):
        assert_same(chunks, whole, progress=progress)


WHOLE = {
    "a loss for each token": 'batch_mean(kd(big.logits -> tiny.logits, reduce="none"))',
    "a temperature of the batch": "kd(big.logits -> tiny.logits, T=flsw(4))",
    "probabilities": "kl(probabilities(big.logits) -> probabilities(tiny.logits))",
}


@pytest.mark.parametrize("name", WHOLE)
def test_logits_that_something_else_reads_stay_whole(name: str, tmp_path: Path) -> None:
    """And give the same numbers."""
    chunks, whole = both(project(tmp_path, "gpt2", WHOLE[name]))
    student = [x for x in chunks.programs[""].decoders if chunks.program.graph.nodes[x]["node"].role == "student"]
    assert not student
    assert_same(chunks, whole)


def test_temperatures_may_follow_a_schedule(tmp_path: Path) -> None:
    """The temperature of the step counts."""
    chunks, whole = both(project(tmp_path, "gpt2", "soft", T="piecewise(0%: 1, 50%: 5)"))
    losses = set()
    for progress in (0.0, 0.5):
        assert_same(chunks, whole, progress=progress)
        losses.add(float(step(chunks, progress)[0]))
    assert len(losses) == 2


@pytest.mark.parametrize("loss", ["soft", "soft + 0.5 * hard"])
def test_no_tensor_has_the_size_of_all_logits(loss: str, tmp_path: Path) -> None:
    """Neither forward nor backward, of teacher or student: at most four tokens of 27 at a time."""
    chunks, whole = both(project(tmp_path, "gpt2", loss))

    class Largest(TorchDispatchMode):
        logits = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func is not torch.ops.aten.t.default:  # of weights
                sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, Tensor) and x.shape[-1:] == (V,)]
                self.logits = max([self.logits, *sizes])
            return out

    for distiller, tokens in ((chunks, 4), (whole, 27)):
        with Largest() as largest:
            step(distiller)
        assert largest.logits == tokens * V


def test_tokens_that_count_for_no_loss_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 27 places as many go through the last linear layer as have labels; none of them at all is a loss of zero."""
    chunks, whole = both(project(tmp_path, "bert", "hard"))
    rows: list[int] = []
    linear = vocabulary.F.linear

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rows.append(len(x) if weight.shape[0] == V and bias is not None else 0)
        return linear(x, weight, bias)

    monkeypatch.setattr(vocabulary, "F", SimpleNamespace(linear=noted))
    step(chunks)
    assert sum(rows) == int((batch()["labels"] >= 0).sum())
    empty = batch() | {"labels": torch.full((3, 9), -100)}
    for distiller in (chunks, whole):
        distiller.zero_grad()
        output = distiller(empty)
        output.loss.backward()
        assert output.loss == 0
        assert all(p.grad is None or not p.grad.any() for p in distiller.parameters())


def test_autocast(tmp_path: Path) -> None:
    """Products in bf16: no further from fp32 than whole logits are."""
    chunks, whole = both(project(tmp_path, "gemma2", "soft + 0.5 * hard"))
    exact, _, wanted = step(whole)

    def off(distiller: Distiller) -> tuple[float, float]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = distiller(batch()).loss
        distiller.zero_grad()
        loss.backward()
        grads = {name: p.grad for name, p in distiller.named_parameters() if p.grad is not None}
        difference = torch.stack([(grads[name] - x).norm() for name, x in wanted.items()]).norm()
        length = torch.stack([x.norm() for x in wanted.values()]).norm()
        assert {x.dtype for x in grads.values()} == {torch.float32}
        return abs(float(loss.detach() / exact) - 1), float(difference / length)

    for mine, theirs in zip(off(chunks), off(whole), strict=True):
        assert mine <= 1.2 * theirs + 1e-3


def test_a_teacher_in_bf16(tmp_path: Path) -> None:
    """Its logits are those of its own number format, brought to fp32 for the losses."""
    chunks, whole = both(project(tmp_path, "llama", "soft"))
    for distiller in (chunks, whole):
        for teacher in distiller.teachers:
            teacher.to(torch.bfloat16)
    assert_same(chunks, whole, close=1e-5)


def test_weights_that_are_frozen_get_no_gradient(tmp_path: Path) -> None:
    """Those of the last layer, which are those of the embeddings; the layers below learn as before."""
    chunks, whole = both(project(tmp_path, "gpt2", "soft"))
    for distiller in (chunks, whole):
        distiller.student.lm_head.weight.requires_grad_(False)
    assert_same(chunks, whole)
    assert chunks.student.lm_head.weight.grad is None


def test_batches_in_parts_and_graphs_that_are_kept(tmp_path: Path) -> None:
    """Gradients add up over two batches, and over two passes through one graph."""
    for loss in ("soft", "soft + hard"):
        chunks, whole = both(project(tmp_path, "gpt2", loss))
        for distiller in (chunks, whole):
            for seed in (0, 1):
                distiller(batch(seed)).loss.backward()
            kept = distiller(batch()).loss
            kept.backward(retain_graph=True)
            (3 * kept).backward()
        for name, parameter in chunks.named_parameters():
            other = whole.get_parameter(name)
            assert (parameter.grad - other.grad).norm() <= 2e-6 * other.grad.norm() + 1e-8, name


def test_a_student_draws_the_same_dropout(tmp_path: Path) -> None:
    """Its forward ends before the last layer, and nothing is drawn behind it."""
    chunks, whole = both(project(tmp_path, "gpt2", "soft + hard", resid_pdrop=0.3, embd_pdrop=0.3))
    draws = []
    for distiller in (chunks, whole):
        torch.manual_seed(5)
        draws.append((float(distiller(batch()).loss.detach()), float(torch.rand(()))))
    assert draws[0] == pytest.approx(draws[1], rel=1e-6)
    assert step(chunks)[0] != step(chunks)[0]


def test_padding_on_the_left(tmp_path: Path) -> None:
    """Hidden states are moved back as logits are."""
    chunks, whole = both(project(tmp_path, "gpt2", "soft + hard"))
    left = {name: torch.cat([x[:1].roll(5, 1), x[1:]]) for name, x in batch().items()}
    assert not left["attention_mask"][0, 0]
    assert chunks(left).loss.item() == pytest.approx(whole(left).loss.item(), rel=1e-6)


def test_kept_logits_stay_whole_and_the_students_are_split(tmp_path: Path) -> None:
    """A cache holds the teacher's; the second step reads them."""
    spec = project(tmp_path, "gpt2", "kd(kept -> tiny.logits)")
    text = spec.read_text().replace("soft =", f'cache kept = big.logits at "{tmp_path / "store"}"\nsoft =')
    spec.write_text(text)
    chunks, whole = both(spec)
    assert len(chunks.program.decoders) == 1
    for _ in range(2):
        assert_same(chunks, whole)


def test_reports_without_gradients(tmp_path: Path) -> None:
    """What a spec reports beside its loss."""
    spec = project(tmp_path, "gpt2", "hard")
    spec.write_text(spec.read_text().replace("steps = 4", "steps = 4; report = [soft]"))
    chunks, whole = both(spec)
    one, other = chunks.report(batch()), whole.report(batch())
    assert one["soft"].item() == pytest.approx(other["soft"].item(), rel=1e-6)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_hooks_on_the_last_layer_count(tmp_path: Path, role: str) -> None:
    """Also those that its user sets after the loss is built, of which no run on fake tensors knew."""
    one, other = both(project(tmp_path, "gpt2", "soft + hard"))
    before = step(one)[0]
    for distiller in (one, other):
        net: Any = distiller.student if role == "student" else distiller.teachers[0]
        net.lm_head.register_forward_hook(lambda module, args, output: 2 * output)
    assert not torch.isclose(step(one)[0], before)
    assert_same(one, other)


def test_decoders_that_are_not_found(tmp_path: Path) -> None:
    """A last layer with more behind it than functions of each logit keeps its logits whole, and the plan says why."""
    net = model("gpt2", 0)

    class Biased(torch.nn.Linear):
        """Not a plain linear layer."""

    net.lm_head.__class__ = Biased
    assert Reach(net).decoder == "its head does not end in a linear layer"
    net.lm_head.__class__ = torch.nn.Linear
    assert Reach(net).decoder == Decoder("lm_head")
    forward = type(net).forward

    class Shifted(type(net)):
        """Adds something to its logits."""

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = forward(self, *args, **kwargs)
            output.logits = output.logits + torch.ones(V)
            return output

    net.__class__ = Shifted
    assert "follows its last linear layer" in Reach(net).whole_because


def test_the_plan_says_whose_logits_are_split(tmp_path: Path) -> None:
    """And why the others are whole: what reads them, or their head."""

    def said(kind: str, loss: str) -> tuple[str, ...]:
        (saved,) = savings_of(bg.load(project(tmp_path / kind, kind, loss))._checked).values()
        return next(x.notes for x in saved if x.name == "split_vocabularies")

    for kind in ("gpt2", "mobilebert"):
        (tmp_path / kind).mkdir()
    assert said("gpt2", "soft") == ("the logits of `big` and `tiny` are computed a chunk of tokens at a time",)
    first, second = said("gpt2", WHOLE["probabilities"])
    assert first.startswith("the logits of big are held as a whole: something other than a mean over tokens reads them")
    assert second.startswith("the logits of tiny are held as a whole")
    assert said("mobilebert", "hard") == (
        "the logits of tiny are held as a whole: its logits are not the output of its last linear layer",
    )
