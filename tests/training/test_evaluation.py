"""Evaluation of real, tiny models for every type of label, on one rank and on two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, PreTrainedModel

from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.training.evaluation import Scores, can_score, evaluate
from brewgraph.training.work import Material
from tests import warm

Batches = list[dict[str, Any]]

TAGS = ("O", "B-PER", "I-PER")
CLASSES = {"class": ("a", "b", "c"), "classes": ("a", "b", "c"), "tags": TAGS}
AUTO = {
    "class": "SequenceClassification",
    "classes": "SequenceClassification",
    "value": "SequenceClassification",
    "tags": "TokenClassification",
    "spans": "QuestionAnswering",
    "next": "CausalLM",
    "masked": "MaskedLM",
}
QUESTIONS = [
    {"index": i, "text_1": "abcdefgh" * 2, "answers": {"text": ["abcdefgh"[i % 8]], "start": [i % 8]}} for i in range(7)
]


def model(label_type: str, kind: str = "bert") -> PreTrainedModel:
    """A random model of two layers with the head for a type of label."""
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 30}
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 30, "n_positions": 20}
    elif kind == "bert":
        sizes |= {"intermediate_size": 16, "max_position_embeddings": 20}
    labels = {"num_labels": 1 if label_type == "value" else len(CLASSES.get(label_type, "ab"))}
    config = AutoConfig.for_model(kind, pad_token_id=0, **sizes, **labels)
    torch.manual_seed(0)
    made: PreTrainedModel = getattr(transformers, f"AutoModelFor{AUTO[label_type]}").from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(8)  # so that guesses differ
    return made.train()


def batches(label_type: str) -> Batches:
    """Seven examples in batches of 2, 3 and 2, with padding and labels of this type."""
    torch.manual_seed(1)
    ids, mask = torch.randint(1, 30, (7, 10)), torch.ones(7, 10, dtype=torch.int64)
    mask[::2, 7:] = 0
    ids[mask == 0] = 0
    whole: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "index": torch.arange(7)}
    off = torch.where(mask == 1, 0, -100)
    if label_type == "class":
        whole["labels"] = torch.randint(0, 3, (7,))
    elif label_type == "classes":
        whole["labels"] = torch.randint(0, 2, (7, 3)).float()
    elif label_type == "value":
        whole["labels"] = torch.rand(7) * 5
    elif label_type == "tags":
        whole["labels"] = torch.randint(0, 3, (7, 10)) + off
        whole["labels"][off < 0] = -100
        places = torch.where(off < 0, -1, torch.arange(10))  # every token is a word
        whole |= {"words": places, "first": torch.zeros(7, dtype=torch.int64)}
    elif label_type == "spans":
        place = torch.arange(10)
        offsets = torch.stack([place - 2, place - 1], -1).repeat(7, 1, 1)
        offsets[:, :2] = -1
        offsets[mask == 0] = -1
        places = {"start": torch.full((7,), 2), "end": torch.full((7,), 3), "null": torch.zeros(7, dtype=torch.int64)}
        whole |= {"offsets": offsets, **places}
    elif label_type == "next":
        whole["labels"] = functional.pad(ids[:, 1:], (0, 1), value=-100)
        whole["labels"][whole["labels"] == 0] = -100
    else:
        whole["labels"] = torch.where(torch.rand(7, 10) < 0.3, ids, -100)
    return [{key: value[a:b] for key, value in whole.items()} for a, b in ((0, 2), (2, 5), (5, 7))]


def tagged() -> datasets.Dataset:
    """The rows that the batches of tags are made of."""
    rows = [
        (int(i), row[row >= 0].tolist())
        for b in batches("tags")
        for i, row in zip(b["index"], b["labels"], strict=True)
    ]
    return datasets.Dataset.from_list([{"index": i, "tags": tags} for i, tags in rows])


def scores(made: nn.Module, label_type: str, classes: Sequence[str], head: str = "") -> bool:
    return can_score(made, LABEL_TYPES[label_type], classes, head)


def run(label_type: str, made: nn.Module, given: Batches | None = None, **options: Any) -> Scores:
    material = Material(
        {},
        label_type=LABEL_TYPES[label_type],
        classes=tuple(CLASSES.get(label_type, ())),
        examples=tagged() if label_type == "tags" else QUESTIONS,
        **options,
    )
    return evaluate(made, "tiny", batches(label_type) if given is None else given, material)


@torch.no_grad()
def logits(made: Any, label_type: str) -> torch.Tensor:
    """What the model gives on all batches, by hand."""
    made.eval()
    found = [made(b["input_ids"], attention_mask=b["attention_mask"]).logits for b in batches(label_type)]
    return torch.cat(found)


def labels(label_type: str) -> torch.Tensor:
    return torch.cat([batch["labels"] for batch in batches(label_type)])


@pytest.mark.parametrize("label_type", ["class", "classes", "value", "tags"])
def test_classifiers_and_regressors(label_type: str) -> None:
    """The scores are what the logits in eval mode come to, though the model was in train mode, and still is."""
    made = model(label_type)
    found = run(label_type, made)
    assert all(module.training for module in made.modules())
    assert found.examples == 7
    given, right = logits(made, label_type), labels(label_type)
    name, of = {
        "class": ("accuracy", lambda: given.argmax(-1) == right),
        "classes": ("exact_match", lambda: ((given > 0) == right.bool()).all(-1)),
        "value": ("mse", lambda: (given[:, 0] - right) ** 2),
        "tags": ("token_accuracy", lambda: (given.argmax(-1) == right)[right != -100]),
    }[label_type]
    assert found.values[name] == pytest.approx(float(of().float().mean()), rel=1e-5)


@pytest.mark.parametrize(("label_type", "kind"), [("masked", "bert"), ("next", "gpt2")])
def test_language_models(label_type: str, kind: str) -> None:
    """Perplexity is exp of the loss over all labelled tokens, whose labels stand at their logits: nothing is shifted."""
    made = model(label_type, kind)
    found = run(label_type, made).values
    given, right = logits(made, label_type), labels(label_type)
    loss = functional.cross_entropy(given.flatten(0, 1), right.flatten())
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    hits = (given.argmax(-1) == right)[right != -100]
    assert found["token_accuracy"] == pytest.approx(float(hits.float().mean()))


def test_answers() -> None:
    """Tokens are single characters here: an answer is right where the best span begins and ends at its character."""
    made = model("spans")
    found = run("spans", made)
    assert found.examples == 7
    made.eval()
    hits = 0
    with torch.no_grad():
        for batch in batches("spans"):
            out = made(batch["input_ids"], attention_mask=batch["attention_mask"])
            for start, end, offsets, index in zip(
                out.start_logits, out.end_logits, batch["offsets"], batch["index"], strict=True
            ):
                inside = [i for i in range(10) if offsets[i, 0] >= 0]
                best = max(
                    ((i, j) for i in inside for j in inside if i <= j), key=lambda ij: float(start[ij[0]] + end[ij[1]])
                )
                hits += best == (int(index) % 8 + 2, int(index) % 8 + 2)
    assert found.values["exact_match"] == pytest.approx(hits / 7)


def test_a_batch_may_hold_an_encoding_for_each_model() -> None:
    """What lies under the model's own name is read, labels of tokens too; the rest is another model's."""
    flat = batches("tags")
    other = {"input_ids": torch.zeros(1, 1, dtype=torch.int64), "labels": torch.zeros(1, 1, dtype=torch.int64)}
    nested = [{"index": b["index"], "big": other, "tiny": {k: v for k, v in b.items() if k != "index"}} for b in flat]
    made = model("tags")
    assert run("tags", made, nested).values == run("tags", made, flat).values


class Headed(nn.Module):
    """A model with heads, each a whole model."""

    def __init__(self, **heads: nn.Module):
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def forward(self, **inputs: Any) -> Any:
        raise AssertionError("only the head that is asked for runs")


def test_one_head_of_several() -> None:
    """A head scores as the model would alone, and its parts are in train mode as before."""
    alone = model("tags")
    both = Headed(ner=alone, topic=model("class"))
    assert run("tags", both, head="ner").values == run("tags", alone).values
    assert both.heads["ner"].training
    assert scores(both, "tags", TAGS, "ner")
    assert scores(both, "class", CLASSES["class"], "topic")
    assert not scores(both, "class", CLASSES["class"], "ner")
    assert not scores(both, "class", CLASSES["class"], "nor")
    assert not scores(both, "class", CLASSES["class"])


@pytest.mark.parametrize("label_type", AUTO)
def test_which_models_can_be_scored(label_type: str) -> None:
    """The head must be of the right kind, and have as many classes; another one's scores would be noise."""
    made = model(label_type, "gpt2" if label_type == "next" else "bert")
    for other in AUTO:
        same = AUTO[other] == AUTO[label_type] and (other == "value") == (label_type == "value")
        assert scores(made, other, CLASSES.get(other, ())) == same, other
    if label_type in CLASSES:
        assert not scores(made, label_type, (*CLASSES[label_type], "one more"))
    assert not scores(made, "", ())
    assert not scores(nn.Linear(2, 2), label_type, ("a", "b"))


@pytest.mark.parametrize("label_type", ["masked", "next"])
def test_a_language_model_that_guesses_either(label_type: str) -> None:
    """transformers loads the classes `…WithLMHeadModel` for masked words and for next ones."""
    sizes = {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 30, "pad_index": 0}
    made = getattr(transformers, f"AutoModelFor{AUTO[label_type]}").from_config(AutoConfig.for_model("xlm", **sizes))
    assert type(made).__name__ == "XLMWithLMHeadModel"
    assert scores(made, label_type, ())


def test_frozen_parts_stay_in_eval_mode() -> None:
    """A part that somebody keeps in eval mode is in eval mode afterwards, and no other is; also where a batch fails."""
    made = model("class")
    made.bert.embeddings.eval()
    run("class", made)
    assert not made.bert.embeddings.training
    assert made.bert.encoder.training
    with pytest.raises(IndexError):
        run("class", made, [{**batches("class")[0], "input_ids": torch.full((2, 10), 99)}])
    assert made.bert.encoder.training


def test_logits_never_leave_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes between ranks is small: counts and spans, whatever the size of the logits. A second rank, played here,
    sends what it saw; the scores are those of one rank that saw all."""
    from brewgraph.training import evaluation as module

    for label_type in AUTO:
        made = model(label_type, "gpt2" if label_type == "next" else "bert")
        given = batches(label_type)
        whole = run(label_type, made)
        sent: list[Any] = []

        def keep(objects: list[Any], into: list[Any] = sent) -> list[Any]:
            into += objects
            return objects

        def play(objects: list[Any], other: list[Any] = sent) -> list[Any]:
            return [*objects, *other]

        for rank, part, gather in ((1, given[2:], keep), (0, given[:2], play)):
            place = SimpleNamespace(num_processes=2, process_index=rank)
            monkeypatch.setattr(module, "this_process", lambda place=place: place)
            monkeypatch.setattr(module, "gather_object", gather)
            found = run(label_type, made, part)
        monkeypatch.undo()
        assert found.examples == 7
        assert found.values == pytest.approx(whole.values), label_type
        ((_, state, _),) = sent
        assert sum(part.numel() for part in state) <= 20, label_type


WORKER = """
import torch
torch.set_num_threads(1)
from accelerate import PartialState
from brewgraph.training.processes import this_process
from tests.training.test_evaluation import AUTO, batches, model, run
rank = this_process().process_index
assert this_process().num_processes == 2
for label_type in AUTO:
    given = batches(label_type)
    part = given[:2] if rank == 0 else given[2:]
    found = run(label_type, model(label_type, "gpt2" if label_type == "next" else "bert"), part)
    print(label_type, found.examples, sorted(found.values.items()))
PartialState().destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_score_as_one() -> None:
    """Two processes with a contiguous share each: both come to the scores of one process, for every type of label."""
    lines = sorted("".join(warm.start_ranks("-c", WORKER)).splitlines())
    assert len(lines) == 2 * len(AUTO)
    for label_type in AUTO:
        whole = run(label_type, model(label_type, "gpt2" if label_type == "next" else "bert")).values
        said = [line.split(" ", 2) for line in lines if line.split()[0] == label_type]
        assert [count for _, count, _ in said] == ["7", "7"]
        for _, _, values in said:
            found = {name: float(value) for name, value in pairs(values)}
            assert found == pytest.approx(whole, rel=1e-5), label_type


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Names and numbers of a printed list of pairs."""
    for piece in text.strip("[]()").split("), ("):
        name, value = piece.split(", ")
        yield name.strip("'"), value
