"""What an export costs and saves, by kind of labels: a student of each kind, exported, compared on dev, timed in turns.

    python bench/exported.py --write docs/export.md

Students are BERTs of four layers of width 128 that learn made-up tasks from labels, on all cores; exports and the
student are then timed on one thread, one text at a time. Ratios are the student's time over the export's, above 1
where the export is faster. Scores are on 200 dev examples.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import brewgraph as bg
from brewgraph.cli.export import lost
from brewgraph.cli.output import hush
from brewgraph.display.cost import megabytes
from brewgraph.display.lines import number
from brewgraph.export import bench
from brewgraph.export.write import Exported, Options, export_student
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.recipe.settings.metric_names import metric_words
from brewgraph.running.finished import open_run

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
TOPICS = {
    "sport": "goal match league striker keeper stadium referee coach".split(),  # noqa: SIM905
    "food": "bread cheese olive lemon pepper butter garlic cherry".split(),  # noqa: SIM905
    "music": "violin chorus melody rhythm concert drummer opera sonata".split(),  # noqa: SIM905
    "travel": "train harbour ticket island airport luggage border museum".split(),  # noqa: SIM905
}
PLAIN = "the a of and in to was it for on with as his they at be this from had not are but were".split()  # noqa: SIM905
FIRST, LAST = ("anna", "boris", "clara", "zoe", "max"), ("stone", "hill", "rivers", "wood", "field")
TOWNS = ("Arles", "Basle", "Cadiz", "Delft", "Essen", "Faro", "Ghent", "Hull")
SPEC = """brew 1
student s = hf(model_type="bert", hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
    max_position_embeddings=128)
data d = {data}
loss = {loss}
train {{ steps = {steps}; optimizer = adamw(lr=1e-3); schedule = linear(warmup=10%) }}
"""
FILES = 'files(train="train.jsonl", dev="dev.jsonl", batch=16, max_length=96{})'


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def text_of(chance: random.Random, topics: Sequence[str], share: float = 0.3) -> list[str]:
    """8 to 64 words, a share of them of the topics, in turn."""
    count = chance.randint(8, 64)
    return [
        chance.choice(TOPICS[topics[i % len(topics)]]) if topics and chance.random() < share else chance.choice(PLAIN)
        for i in range(count)
    ]


def one_class(chance: random.Random) -> dict[str, Any]:
    """The topic with most words; another has some, too."""
    topic, other = chance.sample(list(TOPICS), 2)
    return {"text": " ".join(text_of(chance, [topic, topic, other])), "label": topic}


def several_labels(chance: random.Random) -> dict[str, Any]:
    """The topics that occur."""
    words = text_of(chance, chance.sample(list(TOPICS), chance.randint(0, 3)), share=0.2)
    return {"text": " ".join(words), "label": [name for name, own in TOPICS.items() if set(words) & set(own)]}


def a_number(chance: random.Random) -> dict[str, Any]:
    """Words of food less words of travel, of ten words."""
    words = text_of(chance, ["food", "travel", "food"], share=chance.random())
    count = sum((word in TOPICS["food"]) - (word in TOPICS["travel"]) for word in words)
    return {"text": " ".join(words), "label": 10 * count / len(words)}


def tagged(chance: random.Random) -> str:
    """Persons, of first and last names, among other words; a last name alone is none."""
    lines: list[tuple[str, str]] = []
    for word in text_of(chance, list(TOPICS), share=0.1):
        draw = chance.random()
        if draw < 0.1:
            lines += [(chance.choice(FIRST), "B-PER"), (chance.choice(LAST), "I-PER")]
        else:
            lines.append((chance.choice(LAST) if draw < 0.15 else word, "O"))
    return "".join(f"{word}\t{tag}\n" for word, tag in lines) + "\n"


def asked(chance: random.Random) -> dict[str, Any]:
    """Where one of three things is sold."""
    things = chance.sample(TOPICS["food"], 3)
    towns = chance.sample(TOWNS, 3)
    context = " ".join(
        f"{' '.join(chance.choices(PLAIN, k=chance.randint(1, 14)))} {thing} is sold in {town} ."
        for thing, town in zip(things, towns, strict=True)
    )
    which = chance.randrange(3)
    answer = {"text": towns[which], "answer_start": context.index(f"{things[which]} is sold") + len(things[which]) + 12}
    return {
        "context": context,
        "qas": [{"id": str(chance.random()), "question": f"where is {things[which]}", "answers": [answer]}],
    }


def write_rows(path: Path, row: Callable[[random.Random], dict[str, Any]], count: int, seed: int) -> None:
    chance = random.Random(seed)
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row(chance)) + "\n" for _ in range(count)))


def write_tags(path: Path, row: Callable[[random.Random], str], count: int, seed: int) -> None:
    chance = random.Random(seed)
    path.with_suffix(".conll").write_text("".join(row(chance) for _ in range(count)))


def write_questions(path: Path, row: Callable[[random.Random], dict[str, Any]], count: int, seed: int) -> None:
    chance = random.Random(seed)
    paragraphs = [row(chance) for _ in range(count)]
    path.with_suffix(".json").write_text(json.dumps({"data": [{"title": "", "paragraphs": paragraphs}]}))


KINDS: dict[str, tuple[Callable[..., None], Callable[..., Any], str, str]] = {
    "classes": (write_rows, one_class, FILES.format(""), "ce(d.labels -> s.logits)"),
    "several labels": (
        write_rows,
        several_labels,
        FILES.format(', problem_type="multi_label"'),
        "bce(d.labels -> s.logits)",
    ),
    "numbers": (write_rows, a_number, FILES.format(', problem_type="regression"'), "mse(d.labels -> s.logits)"),
    "tags": (
        write_tags,
        tagged,
        'conll(train="train.conll", dev="dev.conll", batch=16, max_length=96)',
        "ce(d.labels -> s.logits)",
    ),
    "spans": (
        write_questions,
        asked,
        'squad(train="train.json", dev="dev.json", batch=16, max_length=96, stride=16)',
        "ce(d.start -> s.start) + ce(d.end -> s.end)",
    ),
}


def trained(folder: Path, kind: str, steps: int) -> Path:
    """The folder of a run of a kind."""
    write, row, data, loss = KINDS[kind]
    for name, count, seed in (("train", 16 * min(steps, 200), 0), ("dev", 200, 1)):
        write(folder / name, row, count, seed)
    (folder / "spec.brew").write_text(SPEC.format(data=data, loss=loss, steps=steps))
    return bg.run(folder / "spec.brew").folder


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows_of(
    kind: str, run: Path, targets: Sequence[tuple[str, tuple[str, ...]]], seconds: float
) -> Iterator[list[str]]:
    """The rows of a kind: each export with its score, what it loses, how far its outputs are apart, size and speed."""
    finished = open_run(run)
    task = finished.task(None)
    made: list[Exported] = []
    for target, precisions in targets:
        made += export_student(finished, task, Options(target, precisions))
    measured = bench.bench(finished, task, bench.Options(rows=100, seconds=seconds, threads=1))
    by_name = {model.name: model for model in measured.models}
    student = by_name["s"]
    main = LABEL_TYPES[task.label_type].main
    for one in made:
        record, speed = one.record, by_name[one.folder.name].faster(student)
        yield [
            kind,
            f"{record.target} {record.precision}",
            f"{metric_words(main)} {number(record.scores['before'][main])}",
            lost(one),
            f"{record.difference:.1e}",
            f"{megabytes(student.size)} -> {megabytes(one.size)}",
            f"{speed:.2f}",
        ]
        kind = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", type=Path, help="the page whose figures to replace")
    parser.add_argument("--steps", type=int, default=600, help="steps of each training")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long each model is timed, twice")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--openvino", action="store_true", help="also OpenVINO")
    asked_for = parser.parse_args()
    hush()
    every = ("fp32", "fp16", "int8-dynamic", "int8-static")
    targets = [("onnx", every), ("torch", ("fp32",)), *([("openvino", every)] if asked_for.openvino else [])]
    header = ["labels", "export", "student's score", "lost", "largest difference", "size", "student's time / its time"]
    lines = [header, ["---"] * len(header)]
    for kind in asked_for.kinds:
        with tempfile.TemporaryDirectory() as scratch:
            run = trained(Path(scratch), kind, asked_for.steps)
            for row in rows_of(kind, run, targets, asked_for.seconds):
                print("  ".join(row), flush=True)
                lines.append(row)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    packages = ["torch", "onnx", "onnxruntime", *(["openvino"] if asked_for.openvino else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    arguments = " ".join(f"--{name} {getattr(asked_for, name)}" for name in ("steps", "seconds"))
    if asked_for.kinds != list(KINDS):
        arguments = " ".join(["--kinds", *map(repr, asked_for.kinds), arguments])
    command = (
        f"python bench/exported.py {arguments}{' --openvino' if asked_for.openvino else ''} --write docs/export.md"
    )
    text = f"`{command}`: one thread, {versions}.\n\n{table}\n"
    if asked_for.write:
        page = asked_for.write.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        asked_for.write.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
