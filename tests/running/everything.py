"""A project whose runs use everything that a resumed run must continue: two specs, and the spec of a teacher.

`student.brew`: a teacher that is trained first, a running average, a cache, projections with settings of their own,
dropout, augmentation, batches by tokens and by examples, accumulation, two stages, two tasks with a head each, schedules
that end terms, early stopping, the best student, a baseline. `words.brew`: masked words.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoModelForMaskedLM

from tests.small import WORDS, rows, save, tokenizer, write_data, write_rows

TEACHER = """brew 1
student big = hf("bert")
data d = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=6, max_length=16, augment=[short_disorder(p=20%)])
loss = ce(d.labels -> big.logits)
train {
    steps = 9; optimizer = sgd(lr=0.1, momentum=0.9); schedule = slanted(warmup=20%)
    save_steps = 2 steps; eval_steps = 3 steps; logging_steps = 2; group_by_length = true
}
"""
STUDENT = """brew 1
teacher big = brew("teacher.brew")
student net = hf("tiny") {
    head one = sequence_classifier()
    head two = sequence_classifier()
}
teacher average = ema(net, decay=0.7, warmup=true)
data a = files(train="train.jsonl", dev="dev.jsonl", text=text, label=label, batch=60 tokens, max_length=16,
    augment=[masking(p=20%), deleting(p=10%)])
data b = files(train="other.jsonl", dev="dev.jsonl", text=text, label=label, batch=5, max_length=16)
proj W = linear(16 -> 32, lr=3e-3)
cache kept = big(b).hidden[-1] at "store"

stage first {
    near = mse(average(a).hidden[1] -> net(a).hidden[1] via linear)
    loss = mse(kept -> net(b).hidden[-1] via W) + ramp(1 -> 0) * near
    train { steps = 5; optimizer = sgd(lr=0.02, momentum=0.9) }
}
stage second {
    task one {
        soft = kd(big(a).logits -> net(a).one.logits, T=2)
        loss = piecewise(0%: 1, 60%: 0) * soft + ce(a.labels -> net(a).one.logits) + mse(big(a).hidden[-1] -> net(a).hidden[-1] via W)
    }
    task two {
        near = mse(average(b).hidden[1] -> net(b).hidden[1] via linear)
        loss = ce(b.labels -> net(b).two.logits) + 0.1 * near + mse(kept -> net(b).hidden[-1] via W)
    }
    sample [one, two] ~ size ** 0.5
    train {
        steps = 30; accumulate = 2; optimizer = adamw(lr=5e-3, layerwise_decay=0.9); schedule = cosine(warmup=20%)
        metric_for_best_model = "one/accuracy"; early_stopping_patience = 3
    }
}
train { save_steps = 3 steps; eval_steps = 2 steps; logging_steps = 3; seed = 5; baseline = true }
"""
WORDS_SPEC = """brew 1
teacher big = hf("speaker")
student net = hf("speaker", pretrained=false, num_hidden_layers=2, init=big.layers[1, 0])
data t = text(train="words.txt", dev="words.txt", mask=15%, batch=4, max_length=16)
loss = kd(big.logits -> net.logits, T=2) + ce(t.labels -> net.logits)
train { steps = 6; optimizer = adamw(lr=5e-3, correct_bias=false); save_steps = 2 steps; eval_steps = 3 steps; logging_steps = 4 }
"""


def write_everything(folder: Path) -> tuple[Path, Path]:
    """Data, models and specs; gives the two specs to run."""
    write_data(folder, train=24)
    write_rows(folder / "other.jsonl", rows(17, seed=7))
    save(folder / "bert", width=32, seed=1, dropout=True)
    save(folder / "tiny", layers=2, seed=2, dropout=True)
    config = AutoConfig.from_pretrained(folder / "tiny", num_hidden_layers=2)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder / "speaker")
    tokenizer().save_pretrained(folder / "speaker")
    (folder / "words.txt").write_text("".join(" ".join(WORDS[i : i + 9]) + "\n" for i in range(12)))
    specs = {"teacher": TEACHER, "student": STUDENT, "words": WORDS_SPEC}
    for name, text in specs.items():
        (folder / f"{name}.brew").write_text(text)
    return folder / "student.brew", folder / "words.brew"
