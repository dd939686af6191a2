"""How a step grows with real tokens, teachers and terms, and how long a spec takes to compile.

    python bench/scaling.py --write docs/scaling.md

Models are BERTs of random weights; batches hold random tokens of unequal lengths. A step is forward and backward on
one thread; the sides of a row take turns, and each number is the median over `--steps` of them. Times of steps are
said as multiples of the smallest side's, those of compiling in seconds of one core. The table of large inputs is
bench/large.py's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

import brewgraph as bg
from brewgraph.data.encoding.encode import train_wordpiece

HEAD = """{teachers}
student tiny = hf("student")
data d = files(train="train.jsonl", dev="train.jsonl", batch=4, max_length=256)
{equations}
train {{ steps = 10 }}
"""
WORDS = "a tale of two cities it was the best of times the worst age".split()  # noqa: SIM905
MARKER = "<!-- Below this line everything is written by bench/large.py. -->"
TOKENS, TEACHERS, TERMS, COMPILED = (256, 512, 1024, 2048), (1, 2, 4), (1, 4, 16, 64), (10, 100, 1000)
COLOUR, GREY = "#2a6f97", "#777777"


def save_models(folder: Path) -> None:
    """Data, four teachers of six layers and a student of three."""
    rows = [{"text": " ".join(WORDS), "label": label} for label in ("no", "yes")] * 4
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(max(TEACHERS) + 1):
        config = AutoConfig.for_model(
            "bert",
            hidden_size=128,
            num_hidden_layers=6 if number else 3,
            num_attention_heads=4,
            intermediate_size=512,
            vocab_size=200,
            max_position_embeddings=256,
            id2label={0: "no", 1: "yes"},
            label2id={"no": 0, "yes": 1},
        )
        torch.manual_seed(number)
        place = folder / (f"big{number}" if number else "student")
        AutoModelForSequenceClassification.from_config(config).save_pretrained(place)
        train_wordpiece(WORDS, 200).save_pretrained(place)


def term(number: int) -> str:
    """A loss that no other number gives; that of 0 reads all layers of the teacher."""
    if number % 2 or not number:
        return f"kd(big1.logits -> tiny.logits, T={1 + number / 100:.2f})"
    a, b, name = number // 2 % 7, number // 14 % 4, "cos" if number // 56 % 2 else "mse"
    return f"{name}(big1.hidden[{a}] -> tiny.hidden[{b}])"


def spec(folder: Path, teachers: int, equations: str) -> Path:
    """A spec beside its models."""
    path = folder / "spec.brew"
    named = "\n".join(f'teacher big{n} = hf("big{n}")' for n in range(1, teachers + 1))
    path.write_text(HEAD.format(teachers=named, equations=equations))
    return path


def batch(tokens: int) -> dict[str, torch.Tensor]:
    """Rows of 32 and 96 real tokens, this many in all."""
    generator = torch.Generator().manual_seed(tokens)
    mean, rows = 64, tokens // 64
    lengths = [mean + (mean // 2) * (1 if n % 2 else -1) for n in range(rows)]
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(10, 100, mask.shape, generator=generator) * mask
    labels = torch.randint(0, 2, (rows,), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0, "labels": labels}


def step_of(path: Path, tokens: int) -> Callable[[], None]:
    """A forward and backward pass of a spec."""
    distiller, rows = bg.load(path).build(), batch(tokens)
    distiller.train()

    def step() -> None:
        distiller.zero_grad()
        distiller(rows).loss.backward()

    return step


def medians(sides: Sequence[Callable[[], None]], steps: int) -> list[float]:
    """The seconds of a core that each side takes; they take turns."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(steps + 2):
        for side, seconds in zip(sides, times, strict=True):
            begin = time.process_time()
            side()
            seconds.append(time.process_time() - begin)
    return [statistics.median(seconds[2:]) for seconds in times]


def compile_times(path: Path) -> tuple[float, float]:
    """Seconds of one core from the text to a checked spec, and from there to a program."""
    begin = time.process_time()
    recipe = bg.load(path)
    middle = time.process_time()
    recipe.build()
    return middle - begin, time.process_time() - middle


def chart(title: str, axis: str, x: Sequence[float], y: Sequence[float], fit: tuple[float, float]) -> str:
    """Measured points and a fitted line as SVG."""
    width, height, left, bottom, right, top = 420, 260, 52, 44, 16, 34

    def place(a: float, b: float) -> tuple[float, float]:
        across = left + a / max(x) * (width - left - right)
        return across, height - bottom - b / (1.1 * max(y)) * (height - bottom - top)

    corner, end = place(0, 0), place(max(x), 0)
    line = [place(0, fit[1]), place(max(x), fit[0] * max(x) + fit[1])]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18" font-size="13">{escape(title)}</text>',
        f'<path d="M{corner[0]:.1f} {top} V{corner[1]:.1f} H{end[0]:.1f}" fill="none" stroke="{GREY}"/>',
        f'<path d="M{line[0][0]:.1f} {line[0][1]:.1f} L{line[1][0]:.1f} {line[1][1]:.1f}" stroke="{COLOUR}"/>',
        f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle">{escape(axis)}</text>',
    ]
    for a, b in zip(x, y, strict=True):
        across, up = place(a, b)
        parts.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3.5" fill="{COLOUR}"/>')
        parts.append(f'<text x="{across:.1f}" y="{corner[1] + 15:.1f}" text-anchor="middle">{a:g}</text>')
        parts.append(f'<text x="{left - 6}" y="{up + 4:.1f}" text-anchor="end">{b:.2f}</text>')
    return "\n".join([*parts, "</svg>", ""])


def series(name: str, axis: str, x: Sequence[int], seconds: Sequence[float], pictures: Path) -> list[str]:
    """A picture and the lines of the page about one row of measurements."""
    y = [value / seconds[0] for value in seconds]
    slope, start = numpy.polyfit(x, y, 1)
    error = max(abs(slope * a + start - b) / b for a, b in zip(x, y, strict=True))
    pictures.mkdir(parents=True, exist_ok=True)
    file = pictures / f"scaling-{name}.svg"
    title = f"step time, {x[0]} {axis} = 1"
    file.write_text(chart(title, axis, x, y, (float(slope), float(start))), encoding="utf-8")
    return [
        f"![{title}](pictures/{file.name})",
        "",
        f"| {axis} | " + " | ".join(f"{value:,}" for value in x) + " |",
        "|---" * (len(x) + 1) + "|",
        "| step | " + " | ".join(f"{value:.2f}" for value in y) + " |",
        "",
        f"Fit: {start:.2f} + {slope:.3g} for each of the {axis}; the points are within {error:.0%} of it.",
        "",
    ]


def measure(steps: int, pictures: Path) -> list[str]:
    """The page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder)
        plain = "loss = kd(big1.logits -> tiny.logits) + mse(big1.hidden[6] -> tiny.hidden[3])"
        by_tokens = [step_of(spec(folder, 1, plain), tokens) for tokens in TOKENS]
        lines = ["## Real tokens", "", *series("tokens", "real tokens", TOKENS, medians(by_tokens, steps), pictures)]
        each = "kd(big{0}.logits -> tiny.logits) + mse(big{0}.hidden[6] -> tiny.hidden[3])"
        losses = ["loss = " + " + ".join(each.format(n) for n in range(1, count + 1)) for count in TEACHERS]
        sides = [step_of(spec(folder, count, loss), 512) for count, loss in zip(TEACHERS, losses, strict=True)]
        lines += ["## Teachers", "", *series("teachers", "teachers", TEACHERS, medians(sides, steps), pictures)]
        losses = ["loss = " + " + ".join(map(term, range(count))) for count in TERMS]
        sides = [step_of(spec(folder, 1, loss), 512) for loss in losses]
        lines += ["## Terms", "", *series("terms", "terms", TERMS, medians(sides, steps), pictures)]
        lines += ["## Compiling", "", "| terms | check | check to program |", "|---|---|---|"]
        compile_times(spec(folder, 1, plain))
        for count in COMPILED:
            named = "\n".join(f"t{n} = {1 + n / 1000:.3f} * {term(n if n < 112 else 2 * n + 1)}" for n in range(count))
            path = spec(folder, 1, f"{named}\nloss = " + " + ".join(f"t{n}" for n in range(count)))
            loaded, built = map(statistics.median, zip(*(compile_times(path) for _ in range(3)), strict=True))
            lines.append(f"| {count:,} | {loaded:.2f} s | {built:.2f} s |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--write", type=Path, default=Path("docs/scaling.md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    page = arguments.write
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    head, _, large = before.partition(MARKER)
    head = head.partition("## Real tokens")[0]
    lines = measure(arguments.steps, page.parent / "pictures")
    page.write_text(head + "\n".join(lines) + f"\n{MARKER}{large or chr(10)}", encoding="utf-8")


if __name__ == "__main__":
    main()
