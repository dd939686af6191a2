"""`recipe.dataloaders()` and `recipe.collator()`: the batches of the run; what `docs/python.md` says of them holds."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import brewgraph as bg
from brewgraph.recipe.label_types import LABEL_TYPES
from brewgraph.training.optimizer import build_optimizer, build_schedule
from tests.conftest import REPOSITORY
from tests.small import classifier, metrics, project, save, tokenizer, write_data, write_rows

PAGE = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")

BERT = 'hf(model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2{rest})'
BOTH = "brew 1\nteacher bert = {big}\nstudent tiny = {small}\ndata d = {data}\nloss = {loss}\ntrain {{ steps = 2 }}\n"
KINDS: dict[str, tuple[str, str, str]] = {
    "class": ('files(train="train.jsonl", text=text, label=label, batch=4)', 'labels=["bad", "fair", "good"]', "ce(d.labels -> tiny.logits)"),
    "classes": ('files(train="several.jsonl", text=text, label=[a, b], problem_type=multi_label, batch=4)', 'labels=["a", "b"], problem_type="multi_label"', "bce(d.labels -> tiny.logits)"),
    "value": ('files(train="numbers.jsonl", text=text, label=number, problem_type=regression, batch=4)', 'problem_type="regression"', "mse(d.labels -> tiny.logits)"),
    "tags": ('conll(train="tags.txt", batch=4)', 'task="token-classification", labels=["O", "B-X", "I-X"]', "ce(d.labels -> tiny.logits)"),
    "spans": ('squad(train="answers.json", batch=4)', 'task="question-answering"', "ce(d.start -> tiny.start) + ce(d.end -> tiny.end)"),
    "masked": ('text(train="plain.txt", block=16, mask=0.3, batch=4)', 'task="masked-lm"', "ce(d.labels -> tiny.logits)"),
    "next": ('text(train="plain.txt", block=16, batch=4)', 'task="causal-lm"', "ce(d.labels -> tiny.logits)"),
    "": ('files(train="texts.jsonl", label=none, batch=4)', 'task="features"', "mse(bert.hidden[-1] -> tiny.hidden[-1])"),
}  # fmt: skip
"""For each type of labels the data, the settings of the models, and a loss on the labels."""


def write_all(folder: Path) -> None:
    """Small data of each kind."""
    write_data(folder)
    texts = [f"the best of times {number} was the age of wisdom" for number in range(6)]
    write_rows(folder / "several.jsonl", [{"text": x, "a": n % 2, "b": n % 3 == 0} for n, x in enumerate(texts)])
    write_rows(folder / "texts.jsonl", [{"text": x} for x in texts])
    write_rows(folder / "numbers.jsonl", [{"text": x, "number": n / 4} for n, x in enumerate(texts)])
    tagged = "\n\n".join(
        "\n".join(f"{word} {'B-X' if n == 2 else 'O'}" for n, word in enumerate(x.split())) for x in texts
    )
    (folder / "tags.txt").write_text(tagged + "\n")
    (folder / "plain.txt").write_text("\n".join(texts * 3) + "\n")
    asked = [
        {"id": str(n), "question": "what age", "answers": [{"text": "wisdom", "answer_start": x.index("wisdom")}]}
        for n, x in enumerate(texts)
    ]
    paragraphs = [{"context": x, "qas": [q]} for x, q in zip(texts, asked, strict=True)]
    (folder / "answers.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))


def recipe_of(folder: Path, kind: str) -> bg.Recipe:
    """A recipe on labels of a type."""
    write_all(folder)
    data, settings, loss = KINDS[kind]
    causal = kind == "next"
    base = BERT.replace("bert", "gpt2") if causal else BERT
    model = base.format(rest=f", {settings}")
    if causal:
        model = f'hf(model_type="gpt2", n_embd=16, n_layer=1, n_head=2, tokenizer="tokens", {settings})'
        tokenizer().save_pretrained(folder / "tokens")
    text = BOTH.format(
        big=model, small=model, data=data, loss=f"{loss} + 0.1 * mse(bert.hidden[-1] -> tiny.hidden[-1])"
    )
    path = folder / "spec.brew"
    path.write_text(text if kind else text.replace(" + 0.1 * mse(bert.hidden[-1] -> tiny.hidden[-1])", ""))
    return bg.load(path)


def table() -> dict[str, dict[str, tuple[str, str]]]:
    """The page's table of fields: by type of labels, or `all`, the shape and dtype of each field."""
    rows: dict[str, dict[str, tuple[str, str]]] = {}
    section = PAGE.partition("## What a batch is")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and cells[0] != "labels":
            for field in re.findall(r"\w+", cells[1]):
                rows.setdefault(cells[0], {})[field] = (cells[2], cells[3])
    return rows


def described(name: str, value: torch.Tensor, sizes: dict[str, int]) -> tuple[str, str]:
    """A tensor's shape in the letters of `sizes`, and its dtype."""
    letters = [next((k for k, size in sizes.items() if size == length), str(length)) for length in value.shape]
    if len(letters) > 1 and name == "labels" and value.dtype == torch.float32:
        letters[1] = "C"
    return f"({', '.join(letters)})", str(value.dtype).removeprefix("torch.")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_says_what_a_batch_is(kind: str, tmp_path: Path) -> None:
    """Every field of a batch is in the page's table with its shape and dtype, and no other; the loss takes the batch."""
    recipe = recipe_of(tmp_path, kind)
    batch = next(iter(recipe.dataloaders()["train"]))
    rows, length = batch["input_ids"].shape
    assert rows == 4
    assert rows != length
    found = {name: described(name, value, {"B": rows, "L": length}) for name, value in batch.items()}
    wanted = table()["all"] | table().get(kind or "none", {})
    if "token_type_ids" not in batch:
        del wanted["token_type_ids"]
    if kind == "tags":
        words = batch["words"].shape[1]
        assert tuple(batch["words"].shape) == (rows, words)
        found["words"] = ("(B, W)", found["words"][1])
    assert found == wanted
    assert torch.isfinite(recipe.build()(batch).loss)


def test_the_page_knows_every_type_of_labels() -> None:
    """A new type needs a row, and no row is of a type that is gone."""
    shown = set(table()) - {"all", "weights", "words", "columns"}
    for names in (shown | {""}, set(KINDS)):
        assert names <= set(LABEL_TYPES)
        assert {LABEL_TYPES[name].form for name in names} == {x.form for x in LABEL_TYPES.values()}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rows in batches of four: two epochs."""
    return project(tmp_path_factory.mktemp("loaders"), train="steps = 10")


def plain_loop(recipe: bg.Recipe, loader: Any, steps: int) -> list[float]:
    """The losses of a loop by hand with the run's optimizer."""
    torch.manual_seed(0)
    distiller, settings, losses = recipe.build(), recipe._checked.recipe.stages[0].train, []
    optimizer = build_optimizer(distiller, settings, distiller.optimizer_options())
    schedule = build_schedule(optimizer, settings, steps, len(loader))
    while len(losses) < steps:
        for batch in loader:
            distiller.progress = len(losses) / steps
            loss = distiller(batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(distiller.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def test_a_plain_loop_has_the_losses_of_the_run(spec: Path) -> None:
    """The same rows in the same order, epoch after epoch, encoded and collated alike."""
    recipe = bg.load(spec)
    run = [line["loss"] for line in metrics(recipe.run().folder) if "loss" in line]
    assert len(run) == 10
    assert plain_loop(recipe, recipe.dataloaders()["train"], 10) == run


def test_epochs_differ_and_are_found_again(spec: Path) -> None:
    """Each iteration is the next epoch; `set_epoch` goes back; the dev split stays in its order."""
    loaders = bg.load(spec).dataloaders()
    order = loaders["train"].batch_sampler
    first, second = ([batch["index"].tolist() for batch in loaders["train"]] for _ in range(2))
    assert first != second
    assert [sorted(itertools.chain(*epoch)) for epoch in (first, second)] == [list(range(20))] * 2
    order.set_epoch(0)
    assert [batch["index"].tolist() for batch in loaders["train"]] == first
    assert [batch["index"].tolist() for batch in loaders["dev"]] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_masks_are_drawn_anew_in_every_epoch(tmp_path: Path) -> None:
    """With the loader by itself, with a loader of one's own by `set_epoch`; never in evaluation."""
    recipe = recipe_of(tmp_path, "masked")
    train = recipe.dataloaders()["train"]
    drawn = [
        {int(i): x for batch in train for i, x in zip(batch["index"], batch["labels"] != -100, strict=True)}
        for _ in range(2)
    ]
    assert any(not torch.equal(drawn[0][i], drawn[1][i]) for i in drawn[0])
    rows = [train.dataset[i] for i in range(3)]
    collate, fixed = recipe.collator(), recipe.collator(training=False)
    masks = []
    for epoch in (0, 1):
        collate.set_epoch(epoch)
        fixed.set_epoch(epoch)
        masks.append((collate(rows)["labels"], fixed(rows)["labels"]))
        for row, labels in zip(rows, masks[-1][0], strict=True):
            kept = drawn[epoch][row["index"]]
            assert torch.equal(labels[: len(kept)] != -100, kept[: len(labels)])
    assert not torch.equal(masks[0][0], masks[1][0])
    assert torch.equal(masks[0][1], masks[1][1])


def test_models_with_tokenizers_of_their_own(tmp_path: Path) -> None:
    """Each has its inputs under its name, the labels of examples are at the top."""
    path = project(tmp_path)
    save(tmp_path / "bert", width=32, seed=1, vocab_size=60)
    path.write_text(
        path.read_text()
        .replace("hidden = mse(bert.hidden[map] -> tiny.hidden[map] via linear)\n", "")
        .replace("gram = nst(bert.hidden[map] -> tiny.hidden[map])\n", "")
        .replace("+ sum(hidden) + 0.5 * sum(gram)", "")
    )
    batch = next(iter(bg.load(path).dataloaders()["train"]))
    assert {"bert", "tiny", "labels", "index"} == batch.keys()
    assert set(batch["bert"]) == {"input_ids", "attention_mask", "token_type_ids"}
    assert batch["bert"]["input_ids"].shape[0] == batch["tiny"]["input_ids"].shape[0] == 4
    assert batch["bert"]["input_ids"].shape[1] > batch["tiny"]["input_ids"].shape[1]


def test_tasks_and_data_sets_are_named(tmp_path: Path) -> None:
    """Of several tasks one is named; what is not there is said; a loss on two data sets has batches of both."""
    path = project(tmp_path)
    head, _, rest = path.read_text().partition("data d = ")
    data = f"data d = {rest.partition(chr(10))[0]}"
    other = data.replace("d =", "e =").replace('train="train', 'train="dev').replace("batch=4", "batch=2")
    tasks = f"task one {{\n{data}\nloss = kd(bert.logits -> tiny.logits)\n}}\n"
    tasks += f"task two {{\n{other}\nloss = ce(e.labels -> tiny.logits)\n}}\n"
    path.write_text(f"{head}{tasks}sample [one, two] ~ size\ntrain {{ steps = 2 }}\n")
    recipe = bg.load(path)
    with pytest.raises(bg.UsageError, match="name a task: `task=…`; there are `one` and `two`"):
        recipe.dataloaders()
    assert {name: len(recipe.dataloaders(task=name)["train"]) for name in ("one", "two")} == {"one": 5, "two": 5}
    with pytest.raises(bg.UsageError, match="the loss reads no data `e`: it reads `one.d`"):
        recipe.collator("e", task="one")
    with pytest.raises(bg.UsageError, match="the spec has no stage `x`"):
        recipe.dataloaders(stage="x")
    loss = "loss = kd(bert(d).logits -> tiny(d).logits) + ce(e.labels -> tiny(e).logits)"
    path.write_text(f"{head}{data}\n{other}\n{loss}\ntrain {{ steps = 10; logging_steps = 1 }}\n")
    both = bg.load(path)
    (train,) = both.dataloaders().values()
    first, second = ([{name: x["index"].tolist() for name, x in batch.items()} for batch in train] for _ in range(2))
    assert [len(pair["d"]) for pair in first] == [4] * 5
    assert [len(pair["e"]) for pair in first] == [2, 2, 2, 2, 1]
    assert first != second
    run = [line["loss"] for line in metrics(both.run().folder) if "loss" in line]
    assert plain_loop(both, both.dataloaders()["train"], 10) == run


def test_batches_of_tensors(tmp_path: Path) -> None:
    """They come as they are, shuffled as the run shuffles them, with its losses; they are not collated."""
    path, ready = project(tmp_path, train="steps = 10"), tmp_path / "ready"
    ready.mkdir()
    generator = torch.Generator().manual_seed(0)
    fields: dict[str, torch.Tensor] = {}
    for n in range(5):
        ids = torch.randint(5, 60, (4, 7), generator=generator)
        fields |= {f"{n}.input_ids": ids, f"{n}.attention_mask": torch.ones_like(ids), f"{n}.labels": ids[:, 0] % 3}
    save_file(fields, ready / "batches.safetensors")
    save_file({name: x for name, x in fields.items() if name[0] in "01"}, ready / "dev.safetensors")
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("data d"))
    path.write_text(text.replace(line, 'data d = batches("ready", shuffle=true)'))
    recipe = bg.load(path)
    loaders = recipe.dataloaders()
    assert [len(loader) for loader in loaders.values()] == [5, 2]
    assert torch.equal(next(iter(loaders["dev"]))["input_ids"], fields["0.input_ids"])
    run = [line["loss"] for line in metrics(recipe.run().folder) if "loss" in line]
    assert plain_loop(recipe, loaders["train"], 10) == run
    again = [batch["index"].tolist() for batch in loaders["train"]]  # the third epoch
    loaders["train"].dataset.set_epoch(2)
    assert [batch["index"].tolist() for batch in loaders["train"]] == again
    with pytest.raises(bg.UsageError, match=r"`d` holds batches of tensors, which need no collator"):
        recipe.collator()


def test_rows_that_are_not_encoded(spec: Path) -> None:
    """Texts are no rows of token ids; the remedy names where those are."""
    with pytest.raises(
        bg.UsageError, match=r"no token ids for `bert`, only `text`: collate rows of `recipe.dataloaders\(\)"
    ):
        bg.load(spec).collator()([{"text": "the best of times"}])


def test_a_batch_needs_rows(spec: Path) -> None:
    """An empty list, and columns in place of rows, are no batch: each with the remedy."""
    recipe = bg.load(spec)
    collate, rows = recipe.collator(), recipe.dataloaders()["train"].dataset
    with pytest.raises(ValueError, match="there are no rows to make a batch of: skip empty batches"):
        collate([])
    with pytest.raises(ValueError, match=r"got a dictionary of columns: give `\[dataset\[n\] for n in range\(8\)\]`"):
        collate(rows[:2])
    assert len(collate([rows[n] for n in range(2)])["index"]) == len(collate(rows.select(range(2)))["index"]) == 2


def test_a_batch_without_a_field_points_to_the_collator(spec: Path) -> None:
    """Labels or inputs that are missing are named, with who makes whole batches."""
    recipe = bg.load(spec)
    distiller, batch = recipe.build(), next(iter(recipe.dataloaders()["dev"]))
    for missing in ("labels", "input_ids"):
        with pytest.raises(
            bg.RunError, match=rf"`{missing}`.*; `recipe.collator\(\)` and `recipe.dataloaders\(\)` make whole batches"
        ):
            distiller({name: value for name, value in batch.items() if name != missing})
    with pytest.raises(bg.UsageError, match="a batch and `labels` beside it"):
        distiller(batch, labels=batch["labels"])
    assert torch.equal(distiller.eval()(**batch).loss, distiller(batch).loss)


# ── transformers.Trainer as it stands ────────────────────────────────────────────────────────────────────────────────


def trainer(recipe: bg.Recipe, folder: Path, **settings: Any) -> Trainer:
    """A Trainer without a subclass, around the distiller and the run's rows."""
    loaders = recipe.dataloaders()
    quiet = {
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "per_device_eval_batch_size": 9,
    }
    arguments = TrainingArguments(str(folder), max_steps=3, **(quiet | {"per_device_train_batch_size": 4} | settings))
    rows = {"train_dataset": loaders["train"].dataset, "eval_dataset": loaders["dev"].dataset}
    return Trainer(recipe.build(), arguments, data_collator=recipe.collator(), **rows)


def test_a_trainer_takes_a_distiller(spec: Path, tmp_path: Path) -> None:
    """Without a subclass: it trains, also on accumulated batches, and evaluates the loss."""
    recipe = bg.load(spec)
    made = trainer(recipe, tmp_path, remove_unused_columns=False, label_names=["labels"], prediction_loss_only=True)
    made.train()
    losses = [line["loss"] for line in made.state.log_history if "loss" in line]
    assert len(losses) == 3
    assert losses[0] > 1
    options = {"remove_unused_columns": False, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    halves = trainer(recipe, tmp_path, **options)
    halves.train()
    (first, *_) = [line["loss"] for line in halves.state.log_history if "loss" in line]
    assert first == pytest.approx(losses[0], rel=0.05)  # a mean, not a sum, though `forward` takes any keyword
    whole = recipe.collator()([made.eval_dataset[i] for i in range(9)])
    made.model.eval()
    assert made.evaluate()["eval_loss"] == pytest.approx(float(made.model(whole).loss.detach()), rel=1e-4)


def test_a_trainer_that_takes_away_columns_or_labels(spec: Path, tmp_path: Path) -> None:
    """Defaults and options of Trainer that do not fit a distiller name the remedy."""
    recipe = bg.load(spec)
    with pytest.raises(bg.UsageError, match="remove_unused_columns=False"):
        trainer(recipe, tmp_path, remove_unused_columns=True).train()
    with pytest.raises(AttributeError, match="`distiller.student.config`; .*`label_smoothing_factor`.*leave that at 0"):
        trainer(recipe, tmp_path, remove_unused_columns=False, label_smoothing_factor=0.1)
    with pytest.raises(AttributeError, match="its student has: `distiller.student.save_pretrained`"):
        recipe.build().save_pretrained("x")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = recipe.build().nothing


def test_a_compiled_student(spec: Path) -> None:
    """What torch.compile returns is no transformers model; compiled in place it is one."""
    recipe, student = bg.load(spec), classifier(layers=1)
    with pytest.raises(bg.UsageError, match=r"pass the model itself, and `train \{ compile = true \}`"):
        recipe.build(tiny=torch.compile(student, backend="eager"))
    assert isinstance(recipe.dataloaders(tiny=student)["train"], DataLoader)
