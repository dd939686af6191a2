"""What each pass saves: the same loss with the pass and without it, step by step in turn, in one process.

    python bench/passes.py --write docs/passes.md

The teachers are BERTs of random weights with 12 layers; batches hold random tokens. Steps are forward and backward, on
one thread. Ratios are the time with the pass over the time without it, below 1 where it is a gain. `--steps` says how
often each side runs; a quiet machine needs fewer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.data.encoding.encode import train_wordpiece
from brewgraph.inspect.plan_of import savings_of
from brewgraph.runtime.distiller import Distiller
from brewgraph.training.work import unreached_frozen

WORDS = "a tale of two cities it was the best of times the worst age wisdom foolishness epoch belief season".split()  # noqa: SIM905
SPEC = """brew 1
{teachers}
student tiny = hf("student")
data d = files(train="train.jsonl", dev="train.jsonl", text=text, label=label, batch=4)
{equations}
loss = {loss}
train {{ steps = 10 }}
"""
SEVEN = "let map = [0, 2, 4, 6, 8, 10, 12] -> [0, 1, 2, 3, 4, 5, 6]\n"


@dataclass(frozen=True)
class Scenario:
    """A loss, the pass that it is about, and what its counters are called among those of `Saved`."""

    title: str
    rewrite: str
    equations: str
    loss: str
    teachers: Sequence[str] = ("big",)


SCENARIOS = (
    Scenario(
        "a stage on features alone, layer 4 of 12",
        "truncate_models",
        "rows = mse(big.hidden[4] -> tiny.hidden[2])",
        "rows",
        ["bare"],
    ),
    Scenario(
        "a term that is annealed to zero at 30 %",
        "skip_scheduled_zeros",
        "soft = kd(big.logits -> tiny.logits)\nhard = ce(d.labels -> tiny.logits)",
        "hard + piecewise(0%: 1, 30%: 0) * soft",
    ),
    Scenario(
        "three teachers, one of weight zero",
        "drop_dead_terms",
        "soft = kd(big.logits -> tiny.logits) + kd(two.logits -> tiny.logits) + 0 * kd(three.logits -> tiny.logits)",
        "soft",
        ["big", "two", "three"],
    ),
    Scenario(
        "attention of the last layer",
        "narrow_attention",
        "looks = mse(big.attention[11] -> tiny.attention[5])\nsoft = kd(big.logits -> tiny.logits)",
        "looks + soft",
    ),
    Scenario(
        "the same 14 matches, written twice",
        "merge_equal_nodes",
        SEVEN + "rows = mse(big.hidden[map] -> tiny.hidden[map])\nmore = mse(big.hidden[map] -> tiny.hidden[map])",
        "sum(rows) + 0.5 * sum(more)",
    ),
    Scenario(
        "a student of which the lower third is matched",
        "freeze_unreached",
        "rows = mse(big.hidden[4] -> tiny.hidden[2])",
        "rows",
    ),
    Scenario(
        "14 hidden states of each of three teachers",
        "release_values",
        "rows(t) = sum(mse(t.hidden[0:12] -> tiny.hidden[6])) + sum(mse(t.hidden[11, 12] -> tiny.hidden[5, 6]))",
        "rows(big) + rows(two) + rows(three)",
        ["big", "two", "three"],
    ),
)


def make_folder(folder: Path, width: int) -> None:
    """Models, data and a tokenizer: what the specs name."""
    tokenizer = train_wordpiece([" ".join(WORDS)], 100)
    rows = [{"text": " ".join(WORDS[i:]), "label": str(i % 3)} for i in range(9)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {i: str(i) for i in range(3)}
    made = {"big": 12, "two": 12, "three": 12, "bare": 12, "student": 6}
    for seed, (name, depth) in enumerate(made.items()):
        config = AutoConfig.for_model(
            "bert", hidden_size=width, num_hidden_layers=depth, num_attention_heads=width // 64 or 1,
            intermediate_size=4 * width, vocab_size=100, id2label=labels, label2id={v: k for k, v in labels.items()},
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        torch.manual_seed(seed)
        kind = AutoModel if name == "bare" else AutoModelForSequenceClassification
        kind.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def write_spec(folder: Path, scenario: Scenario) -> Path:
    """The spec of a scenario."""
    named = {name: f'teacher {"big" if name == "bare" else name} = hf("{name}")' for name in scenario.teachers}
    path = folder / "spec.brew"
    path.write_text(SPEC.format(teachers="\n".join(named.values()), equations=scenario.equations, loss=scenario.loss))
    return path


def batch_of(rows: int, length: int) -> dict[str, Tensor]:
    """Random tokens without padding, and labels."""
    ids = torch.randint(5, 50, (rows, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(rows) % 3}


class Counted:
    """Layers of teachers that run, and eager softmaxes, in all steps of one side."""

    def __init__(self, distiller: Distiller):
        self.layers = self.bytes = 0
        for teacher in distiller.teachers:
            for layer in getattr(teacher, "bert", teacher).encoder.layer:
                layer.register_forward_pre_hook(self._count)
        self._watch(distiller)

    def _count(self, *_: Any) -> None:
        self.layers += 1

    def _watch(self, distiller: Distiller) -> None:
        """Note the bytes that values hold at most, of one step, before it is timed."""
        program = distiller.program
        listing = program._list(())

        def noting(call: Any) -> Any:
            def run(step: Any) -> None:
                call(step)
                flat = [x for value in step.slots for x in (value if isinstance(value, tuple | list) else [value])]
                held = {x.data_ptr(): x.numel() * x.element_size() for x in flat if isinstance(x, Tensor)}
                self.bytes = max(self.bytes, sum(held.values()))

            return run

        steps = tuple((noting(call), cleared) for call, cleared in listing.steps)
        program._listings[(), ()] = type(listing)(steps, listing.terms, listing.zeros)

    def rest(self, distiller: Distiller) -> None:
        """Begin to count, and let go of the watch."""
        distiller.program._listings.clear()
        self.layers = 0


def seconds(distiller: Distiller, batch: Mapping[str, Tensor], progress: float) -> float:
    """The time of one step, forward and backward."""
    distiller.progress = progress
    begin = time.perf_counter()
    distiller(batch).loss.backward()
    spent = time.perf_counter() - begin
    distiller.zero_grad(set_to_none=True)
    return spent


def measure(folder: Path, scenario: Scenario, batch: Mapping[str, Tensor], steps: int) -> dict[str, Any]:
    """Both sides of a scenario in turn."""
    recipe = bg.load(write_spec(folder, scenario))
    sides = {"on": recipe.build(), "off": recipe.build(skip=(scenario.rewrite,))}
    counted = {name: Counted(side) for name, side in sides.items()}
    for name, side in sides.items():
        seconds(side, batch, 0.0)
        counted[name].rest(side)
    spent: dict[str, list[float]] = {name: [] for name in sides}
    with unreached_frozen(sides["on"]), unreached_frozen(sides["off"]):  # as training does
        for i in range(steps):
            for name, side in sides.items() if i % 2 else reversed(sides.items()):
                spent[name].append(seconds(side, batch, i / steps))
    ratios = [a / b for a, b in zip(spent["on"], spent["off"], strict=True)]
    (saved,) = savings_of(recipe._checked).values()
    weights = {name: sum(p.numel() for t in side.teachers for p in t.parameters()) for name, side in sides.items()}
    for side in sides.values():
        side.release()
    return {
        "title": scenario.title,
        "pass": scenario.rewrite,
        "whole": sum(spent["on"]) / sum(spent["off"]),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "layers": {name: c.layers for name, c in counted.items()},
        "bytes": {name: c.bytes for name, c in counted.items()},
        "weights": weights,
        "saved": str(next(x for x in saved if x.name == scenario.rewrite)),
    }


ENDS = (
    (
        "A forward stops at the last feature taken from it, and a teacher is built and read only up to there: BERT, "
        "RoBERTa, DistilBERT, ELECTRA, DeBERTa-v2, XLNet, GPT-2, Llama, Qwen2, ModernBERT, ALBERT and T5 "
        "(`tests/runtime/test_truncation.py`). ALBERT runs one layer several times, so it stops early but no layer is "
        "left out. T5 is tapped by paths, because it has two stacks; the decoder is left out after an encoder tap, "
        "though its inputs are still required. These are not truncated:"
    ),
    ("- a model whose logits a loss needs;"),
    (
        "- a teacher with a head that the closing table scores: it is loaded whole, and its forward stops early. A "
        "teacher is not scored without labels, without a dev split, with a head for other labels, or in "
        "`recipe.build()`;"
    ),
    (
        "- a teacher of random weights (they would change), a teacher whose layers another model starts from, and one "
        "with heads or an adapter: they are loaded whole, and their forward stops early;"
    ),
    (
        "- a model whose hidden states or attentions are not the output of a module (CANINE): `plan` says so; taps of "
        "its modules still stop it early;"
    ),
    ("- a student that draws dropout."),
)
"""Where a forward ends, and which models stay whole: a paragraph and its list."""


def paragraph(*lines: str) -> str:
    """Lines as one paragraph."""
    return textwrap.fill(" ".join(lines), 130)


def page(found: Sequence[Mapping[str, Any]], said: Mapping[str, Any]) -> Iterator[str]:
    """docs/passes.md."""
    yield "# What passes save\n"
    yield paragraph(
        f"Made by [`bench/passes.py`](../bench/passes.py): {said['machine']}, torch {version('torch')}.",
        f"Teachers are BERTs of random weights with 12 layers of width {said['width']}, the student has",
        f"six; batches hold {said['rows']} x {said['length']} tokens. One side skips a pass; both sides run",
        f"{said['steps']} steps in turn, forward and backward. A ratio is the time with the pass divided by the time",
        "without it: below 1 is a gain. `brewgraph run SPEC --skip-pass NAME` skips a pass; all trained weights stay",
        "equal bit for bit, or, where nodes are merged or attention is fused, up to rounding",
        "(`tests/runtime/test_passes.py`).",
    )
    yield "\n| loss | pass | ratio | of a step: median, least, most | teacher layers | plan |"
    yield "|---|---|---|---|---|---|"
    for row in found:
        low, high = row["spread"]
        yield (
            f"| {row['title']} | `{row['pass']}` | {row['whole']:.2f} | {row['ratio']:.2f}, {low:.2f}, {high:.2f} "
            f"| {row['layers']['on']}, {row['layers']['off']} | {row['saved']} |"
        )
    first, last = found[0], found[-1]
    yield "\n`teacher layers` counts the layers that ran in all steps, with and without the pass."
    yield paragraph(
        f"- The first teacher is loaded with {first['weights']['on']:,} parameters instead of",
        f"{first['weights']['off']:,}: later layers are not read from the file.",
    )
    yield paragraph(
        f"- The values of the last loss take {last['bytes']['on']:,} bytes at most, and {last['bytes']['off']:,} if",
        "none is released; torch keeps what the backward pass needs in both cases.",
    )
    yield paragraph(
        "- A student with dropout runs to its end, so that it draws the same random numbers; only the teachers are",
        "truncated. Freezing saves memory of the optimizer and of ranks, not time.",
    )
    yield "\n## Where a forward ends\n"
    yield from map(paragraph, ENDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--machine", default="a CPU, one thread", help="what the page says of the machine")
    parser.add_argument("--write", type=Path, help="where the page goes; left out, it is printed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = batch_of(options.rows, options.length)
    found = []
    with tempfile.TemporaryDirectory() as name:
        make_folder(Path(name), options.width)
        for scenario in SCENARIOS:
            found.append(measure(Path(name), scenario, batch, options.steps))
            print(f"{scenario.title}: {found[-1]['whole']:.2f}", flush=True)
    text = "\n".join(page(found, vars(options))) + "\n"
    if options.write:
        options.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
