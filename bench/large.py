"""Large inputs: what a check, the first step and the first epoch take, in seconds and peak memory.

    python bench/large.py --write docs/scaling.md [--rows 1000000]

Each case runs in a process of its own, with models of random weights so small that what is measured is not them. Peak
memory is what the process holds at most in a phase, mapped files included, without what it held when torch and
transformers were imported.
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
BOUNDS = {
    "rows": "the rows themselves, in memory, and one list of their texts; encodings are mapped, not loaded",
    "rows, again": "the same; nothing is tokenized",
    "terms": "the graph of the loss",
    "teachers": "the weights of ten teachers",
    "classes": "the weights and logits of 10,000 classes",
}


def memory(name: str) -> float:
    """A number of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


@contextmanager
def phase(name: str, into: dict[str, tuple[float, float]], base: float) -> Iterator[None]:
    """Measure the seconds and the peak memory of a block."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    begin = time.perf_counter()
    yield
    into[name] = time.perf_counter() - begin, memory("VmHWM") - base


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
    data = folder / f"{case.partition(',')[0]}.jsonl"
    if not data.exists():
        write_rows(data, rows if case.startswith("rows") else 20_000 if case == "classes" else 2_000, classes)
    teachers = 10 if case == "teachers" else 1
    labels = ", ".join(f'"c{n}"' for n in range(classes))
    lines = [f"teacher t{n} = {TEACHER[:-1]}, labels=[{labels}])" for n in range(teachers)]
    lines += [f"student tiny = {STUDENT}"]
    if not (folder / "tokens").exists():
        train_wordpiece(_words(), 8000).save_pretrained(folder / "tokens")
    lines += [f'data d = files(train="{data.name}", text=[a, b], label=label, batch=32, max_length=128)']
    terms = [f"kd(t{n}.logits -> tiny.logits)" for n in range(teachers)]
    if case == "terms":
        terms = [f"{1 + n / 1000:.3f} * kd(t0.logits -> tiny.logits, T={1 + n / 100:.2f})" for n in range(1000)]
    lines += [
        "loss = ce(d.labels -> tiny.logits) + " + " + ".join(terms),
        "train { steps = 100; group_by_length = true }",
    ]
    path = folder / "spec.brew"
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
    with phase("first step", measured, base):
        distiller = work.make()
        distiller.train()
        batches = feed.batches(0)
        distiller(next(batches)).loss.backward()
    with phase("epoch", measured, base):
        for number, batch in enumerate(batches):
            if number == 500:
                break
            assert len(batch["labels"])
    print(json.dumps(measured))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, default=Path("docs/scaling.md"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        return run_case(arguments.case, arguments.folder, arguments.rows)
    titles = {
        "rows": f"{arguments.rows:,} rows of jsonl, first run",
        "rows, again": f"{arguments.rows:,} rows of jsonl, second run",
        "terms": "a loss of 1,000 terms",
        "teachers": "10 teachers",
        "classes": "10,000 classes",
    }
    lines = ["", "## Large inputs", "", "| | check | data | first step | batches | what bounds the memory |"]
    lines.append("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        here = {"HF_DATASETS_CACHE": f"{name}/cache", "BREWGRAPH_FACTS": "off", "TOKENIZERS_PARALLELISM": "false"}
        for case, title in titles.items():
            command = [sys.executable, "-W", "ignore", __file__, "--case", case, "--folder", name]
            command += ["--rows", str(arguments.rows)]
            done = subprocess.run(command, env=os.environ | here, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            measured = json.loads(done.stdout.splitlines()[-1])
            cells = [f"{seconds:,.1f} s, {peak:,.0f} MB" for seconds, peak in measured.values()]
            lines.append(f"| {title} | " + " | ".join(cells) + f" | {BOUNDS[case]} |")
            print(lines[-1], flush=True)
    page = arguments.write
    head = page.read_text(encoding="utf-8").partition(MARKER)[0]
    page.write_text("\n".join([head + MARKER, *lines, ""]), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
