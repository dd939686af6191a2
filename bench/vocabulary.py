"""Peak memory and time of a distillation step over a large vocabulary, with logits in chunks and as a whole.

    python bench/vocabulary.py [--write docs/speed.md]

Teacher and student are causal models of random weights (Llama) with tied embeddings; a step is forward and backward on
one batch. Each side runs in a process of its own, both in turn: its peak is the most memory that the steps take beside
what the process holds before them (models, libraries and a step on four tokens), its time that of the processor, on
one thread. Ratios are chunks over whole logits.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

REWRITE = "split_vocabularies"
MARK = "<!-- bench/vocabulary.py -->"
SPEC = """brew 1
teacher big = hf("teacher")
student tiny = hf("student")
data d = text(train="train.txt", dev="train.txt", batch=8, max_length=512)
loss = {loss}
train {{ steps = 4; precision = {precision} }}
"""
KD = "kd(big.logits -> tiny.logits, T=2)"
LOSSES = {"kd": KD, "kd and cross-entropy": f"{KD} + 0.5 * ce(d.labels -> tiny.logits)"}
WORDS = "a tale of two cities it was the best of times the worst age wisdom foolishness epoch belief season".split()  # noqa: SIM905


def make_folder(folder: Path, vocabulary: int) -> None:
    """Models, data and a tokenizer: what the specs name."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from brewgraph.data.encoding.encode import train_wordpiece

    tokenizer = train_wordpiece([" ".join(WORDS)], 100)
    (folder / "train.txt").write_text(f"{' '.join(WORDS)}\n" * 9)
    for seed, (name, width, depth) in enumerate([("teacher", 512, 6), ("student", 256, 3)]):
        config = AutoConfig.for_model(
            "llama", hidden_size=width, num_hidden_layers=depth, num_attention_heads=width // 64, head_dim=64,
            num_key_value_heads=width // 64, intermediate_size=4 * width, vocab_size=vocabulary,
            max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def child(options: argparse.Namespace) -> None:
    """One side: its steps, their losses, and the most memory that they take."""
    import torch

    import brewgraph as bg

    torch.set_num_threads(1)
    torch.manual_seed(0)
    skip = (REWRITE,) if options.side == "whole" else ()
    distiller = bg.load(options.folder / "spec.brew").build(skip=skip)
    ids = torch.randint(5, options.vocabulary, (options.rows, options.length))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.roll(-1, 1)}

    def step(batch: Mapping[str, Any]) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            loss = distiller(batch).loss
        loss.backward()
        distiller.zero_grad(set_to_none=True)
        return float(loss.detach())

    step({name: x[:1, :4] for name, x in batch.items()})
    before, spent, losses = peak(), list[float](), list[float]()
    for _ in range(options.steps):
        begin = time.process_time()
        losses.append(step(batch))
        spent.append(time.process_time() - begin)
    print(json.dumps({"bytes": peak() - before, "seconds": statistics.median(spent), "loss": losses[0]}))


def peak() -> int:
    """The most bytes that this process has held in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(folder: Path, options: argparse.Namespace, loss: str, precision: str) -> dict[str, float]:
    """Both sides in turn; ratios are medians over rounds."""
    (folder / "spec.brew").write_text(SPEC.format(loss=loss, precision=precision))
    sides: dict[str, list[dict[str, float]]] = {"chunks": [], "whole": []}
    for i in range(options.rounds):
        for side in sides if i % 2 else reversed(sides):
            command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--precision", precision]
            for name in ("vocabulary", "rows", "length", "steps"):
                command += [f"--{name}", str(getattr(options, name))]
            sides[side].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    pairs = list(zip(*sides.values(), strict=True))
    return {
        "time": statistics.median(a["seconds"] / b["seconds"] for a, b in pairs),
        "memory": statistics.median(a["bytes"] / b["bytes"] for a, b in pairs),
        "apart": max(abs(a["loss"] / b["loss"] - 1) for a, b in pairs),
        **{side: statistics.median(run["bytes"] for run in runs) / 1e9 for side, runs in sides.items()},
    }


def page(found: Mapping[tuple[str, str], Mapping[str, float]], options: argparse.Namespace) -> Iterator[str]:
    """The section of docs/speed.md."""
    yield f"Llamas of 6 and 3 layers, V = {options.vocabulary:,}, {options.rows} x {options.length} tokens, forward and"
    yield f"backward, on one thread, torch {version('torch')}. Steps of each side: {options.rounds * options.steps}."
    yield "Ratios are chunks over whole logits.\n"
    yield "| loss | | memory | processor time | peak of chunks, of whole logits | losses apart |"
    yield "|---|---|---|---|---|---|"
    for (loss, precision), x in found.items():
        sizes = f"{x['chunks']:.2f} GB, {x['whole']:.2f} GB"
        yield f"| {loss} | {precision} | {x['memory']:.2f} | {x['time']:.2f} | {sizes} | {x['apart']:.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="the page whose section is written; left out, it is printed")
    parser.add_argument("--side", choices=("chunks", "whole"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="fp32", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        child(options)
        return
    found = {}
    with tempfile.TemporaryDirectory() as name:
        make_folder(Path(name), options.vocabulary)
        for precision in ("fp32", "bf16"):
            for title, loss in LOSSES.items():
                found[title, precision] = measure(Path(name), options, loss, precision)
                print(title, precision, found[title, precision], flush=True)
    text = "\n".join(page(found, options))
    if options.write:
        before, mark, rest = options.write.read_text().partition(MARK)
        _, end, after = rest.partition(MARK)
        assert mark, f"{options.write} lacks the line {MARK}"
        assert end, f"{options.write} lacks the second line {MARK}"
        options.write.write_text(f"{before}{MARK}\n\n{text}\n\n{MARK}{after}")
    else:
        print(text)


if __name__ == "__main__":
    main()
