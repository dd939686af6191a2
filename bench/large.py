"""Large inputs: what a check, the first step and an epoch take, in seconds and peak memory.

    python bench/large.py --write docs/scaling.md [--rows 1000000] [--case vocabulary]

Each case runs in a process of its own, with models of random weights so small that what is measured is not them. Peak
memory is what the process holds at most in a phase, mapped files included, without what it held when torch and
transformers were imported. Seconds are those of the processor, on one thread. A step is forward, backward and AdamW; an
epoch is extrapolated from some steps, where it has more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = "<!-- Below this line everything is written by bench/large.py. -->"
STUDENT = 'hf(model_type="bert", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)'
TEACHER = STUDENT.replace("num_hidden_layers=1", "num_hidden_layers=2")
DECODER = (
    'hf(model_type="gpt2", n_embd=64, n_layer=1, n_head=2, n_positions=256, vocab_size=150000, tokenizer="tokens")'
)
BOUNDS = {
    "rows": "the rows themselves, in memory, and one list of their texts; encodings are mapped, not loaded",
    "rows, again": "the same; nothing is tokenized",
    "terms": "the graph of the loss",
    "teachers": "the weights of ten teachers",
    "classes": "the weights and logits of 10,000 classes",
    "vocabulary": "weights of the vocabulary with gradient and AdamW's two moments; logits are taken in chunks",
}
STEPS = {"vocabulary": 3}
"""Steps after the first that an epoch is measured by; 50 where none are given."""


def memory(name: str) -> float:
    """A number of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


@contextmanager
def phase(name: str, into: dict[str, tuple[float, float]], base: float) -> Iterator[None]:
    """Measure the processor's seconds and the peak memory of a block."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    begin = time.process_time()
    yield
    into[name] = time.process_time() - begin, memory("VmHWM") - base


def _words() -> list[str]:
    chance = random.Random(0)
    return ["".join(chance.choices("abcdefghijklmnoprstuvwy", k=chance.randint(2, 9))) for _ in range(6000)]


def write_rows(path: Path, count: int, classes: int) -> None:
    """Pairs of some 40 words of a vocabulary of 6,000, each with a label."""
    chance, words = random.Random(1), _words()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text, other = (" ".join(chance.choices(words, k=chance.randint(5, 20))) for _ in range(2))
            file.write(json.dumps({"a": text, "b": other, "label": f"c{number % classes}"}) + "\n")


def spec_of(case: str, folder: Path, rows: int) -> Path:
    """The spec and the data of a case."""
    from brewgraph.data.encoding.encode import train_wordpiece

    classes = 10_000 if case == "classes" else 3
    if not (folder / "tokens").exists():
        train_wordpiece(_words(), 8000).save_pretrained(folder / "tokens")
    path = folder / "spec.brew"
    if case == "vocabulary":
        chance, words = random.Random(2), _words()
        (folder / "lines.txt").write_text("".join(" ".join(chance.choices(words, k=50)) + "\n" for _ in range(2_000)))
        path.write_text(
            f"teacher t0 = {DECODER}\nstudent tiny = {DECODER}\n"
            'data d = text(train="lines.txt", batch=8, max_length=256)\n'
            "loss = ce(d.labels -> tiny.logits) + kd(t0.logits -> tiny.logits)\ntrain { steps = 100 }\n"
        )
        return path
    data = folder / f"{case.partition(',')[0]}.jsonl"
    if not data.exists():
        write_rows(data, rows if case.startswith("rows") else 20_000 if case == "classes" else 2_000, classes)
    teachers = 10 if case == "teachers" else 1
    labels = ", ".join(f'"c{n}"' for n in range(classes))
    lines = [f"teacher t{n} = {TEACHER[:-1]}, labels=[{labels}])" for n in range(teachers)]
    lines += [f"student tiny = {STUDENT}"]
    lines += [f'data d = files(train="{data.name}", text=[a, b], label=label, batch=32, max_length=128)']
    terms = [f"kd(t{n}.logits -> tiny.logits)" for n in range(teachers)]
    if case == "terms":
        terms = [f"{1 + n / 1000:.3f} * kd(t0.logits -> tiny.logits, T={1 + n / 100:.2f})" for n in range(1000)]
    lines += [
        "loss = ce(d.labels -> tiny.logits) + " + " + ".join(terms),
        "train { steps = 100; group_by_length = true }",
    ]
    lines = [line.replace('model_type="bert"', 'model_type="bert", tokenizer="tokens"') for line in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_case(case: str, folder: Path, rows: int) -> None:
    """Measure one case in this process, and print it as JSON."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import torch
    import transformers  # noqa: F401

    from brewgraph.checking.check import check, read_spec
    from brewgraph.running.data_cache import DataCache
    from brewgraph.running.spec_builder import SpecBuilder

    torch.set_num_threads(1)
    path = spec_of(case, folder, rows)
    measured: dict[str, tuple[float, float]] = {}
    base = memory("VmRSS")
    with phase("check", measured, base):
        checked = check(read_spec(path))
    with phase("data", measured, base):
        builder = SpecBuilder(checked, scored=False)
        (work,) = DataCache(builder, print).stages(checked)
    (material,) = work.materials.values()
    feed = material.feeds["d"]

    def step() -> None:
        distiller(next(batches)).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with phase("first step", measured, base):
        distiller = work.make()
        distiller.train()
        optimizer = torch.optim.AdamW(distiller.parameters())
        batches = feed.batches(0)
        step()
    steps = min(STEPS.get(case, 50), len(feed) - 1)
    with phase("epoch", measured, base):
        for _ in range(steps):
            step()
    seconds, peak = measured["epoch"]
    measured["epoch"] = seconds / steps * len(feed), peak
    print(json.dumps(measured))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, default=Path("docs/scaling.md"))
    parser.add_argument("--case", choices=BOUNDS, help="print this case alone")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return run_case(arguments.case, arguments.folder, arguments.rows)
    titles = {
        "rows": f"{arguments.rows:,} rows of jsonl, first run",
        "rows, again": f"{arguments.rows:,} rows of jsonl, second run",
        "terms": "a loss of 1,000 terms",
        "teachers": "10 teachers",
        "classes": "10,000 classes",
        "vocabulary": "a vocabulary of 150,000 at 8 x 256",
    }
    if arguments.case:
        titles = {arguments.case: titles[arguments.case]}
    lines = ["", "## Large inputs", "", "| | check | data | first step | an epoch | what bounds the memory |"]
    lines.append("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        here = {"HF_DATASETS_CACHE": f"{name}/cache", "BREWGRAPH_FACTS": "off", "TOKENIZERS_PARALLELISM": "false"}
        for case, title in titles.items():
            command = [sys.executable, "-W", "ignore", __file__, "--child", "--case", case, "--folder", name]
            command += ["--rows", str(arguments.rows)]
            done = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            measured = json.loads(done.stdout.splitlines()[-1])
            cells = [f"{seconds:,.1f} s, {peak:,.0f} MB" for seconds, peak in measured.values()]
            lines.append(f"| {title} | " + " | ".join(cells) + f" | {BOUNDS[case]} |")
            print(lines[-1], flush=True)
    if arguments.case:
        return None
    page = arguments.write
    head = page.read_text(encoding="utf-8").partition(MARKER)[0]
    page.write_text("\n".join([head + MARKER, *lines, ""]), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
