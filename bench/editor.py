"""How long an editor waits: for the first diagnostics after a keystroke, and for completions.

    python bench/editor.py [--lines 300] [--keys 60]

A client speaks to `brewgraph lsp` over stdio, as editors do. It types a name into equations all over a spec of so many
lines, one character at a time: each makes a name that does not exist. Measured are, from the moment the change is sent,
the time until the diagnostics of that version are there (syntax, names and kinds), and from the moment it is asked for,
the time until a completion is there: once while nothing else is done, and once right behind a keystroke, while the text
is being read. Models are not looked at: the keys come faster than the pause after which they would be. Where other work
runs on the machine, the best values show what the server needs, the others what it had to wait for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.editor.client import Client

HEAD = """\
brew 1

# Two teachers into one student: a sum of many terms, as the papers on layer-wise distillation write it
param T = 4
param weight: float = 0.5

teacher big  = hf("bert-base")
teacher wide = hf("bert-large")
student tiny = hf("bert-base", num_hidden_layers=6, pretrained=false)
data d       = files(train="train.jsonl", dev="dev.jsonl", text=[premise, hypothesis], label=label, batch=32,
    max_length=128)

let map = [0, 2, 4, 6, 8, 10, 12] -> [0, 1, 2, 3, 4, 5, 6]
proj W  = linear(384 -> 768, lr=1e-3)

soften(x, scale=1) = scale * x

"""
GROUP = """\
# layer {n}: what this group of terms is for
soft_{n}   = kd(big.logits -> tiny.logits, T={t})
hidden_{n} = mse(big.hidden[{deep}] -> tiny.hidden[{flat}] via linear)
wide_{n}   = cos(
    wide.hidden[{deep}] -> tiny.hidden[{flat}] via linear
)
attn_{n}   = mse(big.attention[{layer}] -> tiny.attention[{flat}], mask=none)
gram_{n}   = nst(big.hidden[map] -> tiny.hidden[map])
group_{n}  = ramp(1 -> 0) * soft_{n} + weight * hidden_{n} + soften(wide_{n}, scale=0.1) + attn_{n} + mean(gram_{n})

"""
TAIL = """\
hard = ce(d.labels -> tiny.logits)
loss = hard + sum([{groups}])

train {{
    epochs = 3
    optimizer = adamw(lr=1e-4, weight_decay=0.01)
    schedule = linear(warmup=10%)
    precision = bf16
}}
"""


def spec(lines: int) -> str:
    """A spec of some `lines` lines."""
    count = max(1, (lines - HEAD.count("\n") - TAIL.count("\n")) // GROUP.count("\n"))
    groups = (
        GROUP.format(n=n, t=2 + n % 7, deep=n % 13, flat=n % 7, layer=n % 12).replace(
            "tiny.attention[6]", "tiny.attention[5]"
        )
        for n in range(count)
    )
    return HEAD + "".join(groups) + TAIL.format(groups=", ".join(f"group_{n}" for n in range(count)))


def report(what: str, seconds: list[float], bound: float) -> None:
    """A line of figures in milliseconds."""
    ms = sorted(1000 * x for x in seconds)
    late = ms[min(len(ms) - 1, round(0.95 * len(ms)))]
    print(f"{what:<44} {ms[0]:>7.1f} {statistics.median(ms):>8.1f} {late:>8.1f}   (bound: {bound:g} ms)")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lines", type=int, default=300)
    arguments.add_argument("--keys", type=int, default=60)
    options = arguments.parse_args()
    text = spec(options.lines)
    name, word = "spec.brew", "bigger"
    marks = [i for i in range(len(text)) if text.startswith("kd(big.", i)]
    with tempfile.TemporaryDirectory() as folder:
        client = Client(Path(folder))
        client.start()
        begin = time.perf_counter()
        assert client.open(name, text) == []
        opened = time.perf_counter() - begin
        server = psutil.Process(client.process.pid)
        used: list[float] = []
        completing: list[float] = []
        typed: list[float] = []
        beside: list[float] = []
        quiet: list[float] = []
        for key in range(options.keys):
            mark = marks[key * 7 % len(marks)] + len("kd(")
            new = text[:mark] + word[: 4 + key % 3] + text[mark + len("big") :]
            place = text.count("\n", 0, mark), mark + 3 - text.rfind("\n", 0, mark) - 1
            before = sum(server.cpu_times()[:2])
            begin = time.perf_counter()
            client.change(name, new)
            faults = client.next_diagnostics(name)
            typed.append(time.perf_counter() - begin)
            used.append(sum(server.cpu_times()[:2]) - before)
            assert [fault["code"] for fault in faults] == ["B101"]
            before = sum(server.cpu_times()[:2])
            begin = time.perf_counter()
            assert "big" in client.labels(name, place)
            quiet.append(time.perf_counter() - begin)
            completing.append(sum(server.cpu_times()[:2]) - before)
            client.change(name, text)
            begin = time.perf_counter()
            assert "big" in client.labels(name, place)
            beside.append(time.perf_counter() - begin)
            client.next_diagnostics(name)
        client.stop()
    print(f"{text.count(chr(10))} lines; load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'milliseconds':<44} {'best':>7} {'median':>8} {'95 of 100':>8}")
    print(f"{'diagnostics of the text when it is opened':<44} {1000 * opened:>7.1f}")
    report("diagnostics after a keystroke", typed, 100)
    print(f"{'  of it the processor of the server':<44} {'':>7} {1000 * statistics.mean(used):>8.1f}   (mean)")
    report("completion", quiet, 50)
    print(f"{'  of it the processor of the server':<44} {'':>7} {1000 * statistics.mean(completing):>8.1f}   (mean)")
    report("completion right behind a keystroke", beside, 50)


if __name__ == "__main__":
    main()
