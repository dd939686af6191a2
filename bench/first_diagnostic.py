"""How soon a spec of BERT-base's size gets its first diagnostic.

    python bench/first_diagnostic.py

A folder with a configuration and a small vocabulary stands for the model: no weights exist. Measured are, in this
process, the check of syntax, names and kinds; and in new processes the whole command, its imports included, for a fault
of names and for faults of shapes: of models that nobody has checked before, and of models of which the facts are
remembered from another check. Processor time stands beside the wall's, since other work on the machine delays only the
latter. The best of several runs counts.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = """\
brew 1
param T = 8
teacher bert = hf("bert")
student tiny = hf("bert", num_hidden_layers=3, hidden_size=384, intermediate_size=1536, pretrained=false)
data d = files(train="train.jsonl", batch=32, max_length=128)
let map = [0, 4, 8, 12] -> [0, 1, 2, 3]
soft   = ce(bert.logits -> tiny.logits, T=T)
hard   = ce(d.labels -> tiny.logits)
hidden = mse(bert.hidden[map] -> tiny.hidden[map] via linear)
gram   = nst(bert.hidden[map] -> tiny.hidden[map])
attn   = mse(bert.attention[3, 7, 11] -> tiny.attention[0, 1, 2])
loss   = soft + 0.3 * hard + sum(hidden) + sum(gram) + sum(attn)
train { epochs = 3; optimizer = adamw(lr=1e-4); schedule = linear(warmup=10%) }
"""
FAULTS = {
    "sound": ("", ""),
    "a name (B101)": ("bert.logits", "bart.logits"),
    "a shape (B204)": (" via linear", ""),
    "a layer (B206)": ("[0, 4, 8, 12]", "[0, 4, 8, 13]"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"syntax, names and kinds, in this process: {1000 * in_process():.1f} ms (bound: 100 ms)")
        facts = folder / "facts"
        for title, remembered in (("never checked before", False), ("facts remembered", True)):
            print(f"{title:<20} {'wall':>8} {'processor':>10}   (bound for shapes: 3 s)")
            for what, change in FAULTS.items():
                (folder / "spec.brew").write_text(SPEC.replace(*change) if change[0] else SPEC)
                wall, processor, first = min(cold(folder, facts=facts, forget=not remembered) for _ in range(3))
                print(f"{what:<20} {wall:>6.2f} s {processor:>8.2f} s   {first}")
        alone = ("-c", "import torch, transformers.modeling_utils")
        wall, processor, _ = min(cold(folder, *alone, facts=facts, forget=False) for _ in range(3))
        print(f"{'imports alone':<20} {wall:>6.2f} s {processor:>8.2f} s   torch and transformers' models")


def prepare(folder: Path) -> None:
    """A configuration of BERT-base's size, a tokenizer of few words, and a few rows."""
    from transformers import BertConfig

    from brewgraph.data.encoding.encode import train_wordpiece

    labels = {0: "no", 1: "yes"}
    config = BertConfig(id2label=labels, label2id={"no": 0, "yes": 1}, architectures=["BertForSequenceClassification"])
    config.save_pretrained(folder / "bert")
    train_wordpiece(["a few words are enough"] * 3, 60).save_pretrained(folder / "bert")
    rows = [f'{{"text": "a few words", "label": "{labels[i % 2]}"}}\n' for i in range(8)]
    (folder / "train.jsonl").write_text("".join(rows))


def in_process() -> float:
    """Seconds of a check of names; the median of twenty."""
    from brewgraph.checking.check import check_names
    from brewgraph.diagnostics import SpecError
    from brewgraph.source import Source

    took = []
    for _ in range(20):
        begin = time.perf_counter()
        try:
            check_names(Source(SPEC.replace("bert.logits", "bart.logits"), "spec.brew"), {})
        except SpecError:
            took.append(time.perf_counter() - begin)
    return statistics.median(took)


def cold(folder: Path, *call: str, facts: Path, forget: bool) -> tuple[float, float, str]:
    """Wall and processor seconds of a new process, and the first line that it prints."""
    if forget:
        shutil.rmtree(facts, ignore_errors=True)
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = call or ("-m", "brewgraph", "check", "spec.brew")
    environment = {**os.environ, "BREWGRAPH_FACTS": str(facts), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return wall, spent, next(iter((done.stdout or done.stderr).splitlines()), "")


if __name__ == "__main__":
    main()
