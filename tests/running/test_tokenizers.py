"""Whose tokenizer a model has: its own, that of a folder, or that of another model of the spec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import brewgraph as bg
from brewgraph.checking.check import Checked, check, read_spec
from brewgraph.data.encoding.encode import train_wordpiece
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.models.tokenization import tokenizer_fingerprint
from brewgraph.running.spec_builder import SpecBuilder
from tests.data.texts import byte_level, spaced_bytes
from tests.small import save, write_data, write_rows

DATA = 'data d = files(train="train.jsonl", batch=4, max_length=16)\n'
SCRATCH = "hf(model_type='bert', hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8{more})"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Data, and two saved classifiers, `one` and `two`, with tokenizers of their own."""
    write_data(tmp_path)
    save(tmp_path / "one")
    save(tmp_path / "two")
    train_wordpiece(["a tale of other words altogether"], 100).save_pretrained(tmp_path / "two")
    return tmp_path


def whole(folder: Path, text: str) -> Checked:
    (folder / "spec.brew").write_text(f"brew 1\n{text.replace(chr(39), chr(34))}\n")
    return check(read_spec(folder / "spec.brew"))


def found(folder: Path, text: str) -> list[Diagnostic]:
    try:
        return list(whole(folder, text).warnings)
    except SpecError as error:
        return list(error.diagnostics)


def scratch(more: str = "") -> str:
    return SCRATCH.format(more=more)


@pytest.mark.parametrize(
    "models",
    [
        f"teacher t = hf('two')\nteacher u = hf('one')\nstudent s = {scratch(', tokenizer=u')}",
        f"teacher u = hf('one')\nstudent s = {scratch()}",
        f"teacher t = ema(s)\nteacher u = hf('one')\nstudent s = {scratch()}",
        f"teacher t = hf('two', pretrained=false, tokenizer=s)\nteacher u = hf('one')\nstudent s = {scratch()}",
        "teacher u = hf('two', tokenizer=s)\nstudent s = hf('one')",
        "student s = hf('two', tokenizer=u)\nteacher u = hf('one')",
    ],
)
def test_the_tokenizer_of_another_model(world: Path, models: str) -> None:
    """It is the same to the check and to the run, whichever of the two is declared first."""
    checked = whole(world, f"{models}\n{DATA}loss = kd(u.logits -> s.logits) + nst(u.hidden[1] -> s.hidden[1])")
    builder = SpecBuilder(checked)
    one, other = (tokenizer_fingerprint(builder.tokenizer(name)) for name in ("u", "s"))
    assert one == other == tokenizer_fingerprint(builder.tokenizer("u"))
    assert {checked.facts(checked.recipe.models[name]).tokenizer for name in ("u", "s")} == {one}  # type: ignore[union-attr]


def test_features_of_an_average_declared_first_are_checked(world: Path) -> None:
    """Its student has no other model to take a tokenizer from, and asks no one."""
    (fault,) = found(
        world, f"teacher t = ema(s)\nstudent s = {scratch()}\n{DATA}loss = nst(t.hidden[7] -> s.hidden[1])"
    )
    assert (fault.code, fault.span.text) == ("B206", "7")


def test_a_tokenizer_that_joins_given_words(world: Path) -> None:
    """W307 for tagged words under bytes without a space before them, and nowhere else; with and without the memory."""
    byte_level(["a b"], 300).save_pretrained(world / "bytes")
    spaced_bytes().save_pretrained(world / "spaced")
    (world / "tags.conll").write_text("a B-X\nb O\n\nc O\n")
    tags = 'data d = conll(train="tags.conll", batch=4, max_length=16)\n'
    learn = "loss = ce(d.labels -> s.logits)"
    for _ in range(2):
        (warning,) = found(world, f"student s = {scratch(', tokenizer=$bytes$')}\n{tags}{learn}".replace("$", "'"))
        assert (warning.code, warning.span.text) == ("W307", '"bytes"')
        for name, data in (("spaced", tags), ("one", tags), ("bytes", DATA)):
            more = f", tokenizer='{name}'"
            said = found(world, f"student s = {scratch(more)}\n{data}{learn}")
            assert [x.code for x in said if x.code == "W307"] == [], name


def test_pretrained_weights_under_another_tokenizer(world: Path) -> None:
    """W306 where the checkpoint came with another one; none where it is the same, or where weights begin at random."""
    loss = f"{DATA}loss = kd(t.logits -> s.logits)"
    for model in ("s", '"two"'):
        (warning,) = found(world, f"teacher t = hf('one', tokenizer={model})\nstudent s = hf('two')\n{loss}")
        assert (warning.code, warning.span.text) == ("W306", model)
    (warning,) = found(world, f"teacher t = hf('one')\nstudent s = hf('two', tokenizer=t)\n{loss}")
    assert (warning.code, warning.span.text) == ("W306", "t")
    train_wordpiece([" ".join(f"{a}{b}" for a in "abcdefghi" for b in "klmnopqrst")] * 3, 300).save_pretrained(
        world / "large"
    )
    for more in ("tokenizer='one'", "pretrained=false, tokenizer=t"):
        assert found(world, f"teacher t = hf('one')\nstudent s = hf('one', {more})\n{loss}") == []
    (fault,) = found(world, f"teacher t = hf('one')\nstudent s = hf('two', tokenizer='large')\n{loss}")
    assert (fault.code, fault.span.text) == ("B313", '"large"')
    for file in (world / "two").glob("*token*"):
        file.unlink()
    assert found(world, f"teacher t = hf('one')\nstudent s = hf('two', tokenizer=t)\n{loss}") == []


def test_weights_cannot_read_a_vocabulary_of_the_data(world: Path) -> None:
    """A student that trains its tokenizer has none to lend."""
    (fault,) = found(
        world, f"teacher t = hf('one', tokenizer=s)\nstudent s = {scratch()}\n{DATA}loss = kd(t.logits -> s.logits)"
    )
    assert (fault.code, fault.message) == (
        "B313",
        "the weights of `one` cannot read a vocabulary that is trained on the data",
    )


def test_no_remedy_spoils_pretrained_weights(world: Path) -> None:
    """Only a model that begins at random is told to take over the other's tokenizer."""
    loss = f"{DATA}loss = kd(t.logits -> s.logits) + mse(t.hidden[1] -> s.hidden[1])"
    (fault,) = found(world, f"teacher t = hf('one')\nstudent s = hf('two')\n{loss}")
    assert fault.code == "B214"
    assert fault.help.startswith("match words: ")
    assert "tokenizer" not in fault.help
    (fault,) = found(world, f"teacher t = hf('one')\nstudent s = hf('two', pretrained=false)\n{loss}")
    assert fault.help.startswith("give the student the teacher's tokenizer: tokenizer=t; match words: ")


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "electra"])
@pytest.mark.parametrize("left", ["", "tokenizer_config.json"])
def test_a_model_saved_without_its_tokenizer(world: Path, kind: str, left: str) -> None:
    """transformers would make up one that knows no word: B314, of a teacher as of a student."""
    save(world / "bare", kind)
    for file in (world / "bare").glob("*"):
        if file.name not in ("config.json", "model.safetensors", left):
            file.unlink()
    for models in ("teacher t = hf('bare')\nstudent s = hf('one')", "teacher t = hf('one')\nstudent s = hf('bare')"):
        faults = found(world, f"{models}\n{DATA}loss = kd(t.logits -> s.logits)")
        assert [d.code for d in faults] == ["B314"]
        assert "tokenizer=" in faults[0].help
    assert [
        d.code
        for d in found(
            world, f"teacher t = hf('one')\nstudent s = hf('bare', tokenizer=t)\n{DATA}loss = kd(t.logits -> s.logits)"
        )
    ] == []


@pytest.mark.parametrize("more", ["", ", tokenizer=u"])
def test_a_tokenizer_that_is_not_there_is_said_where_it_should_be(world: Path, more: str) -> None:
    """Once, at the model whose folder lacks it, and not at the student that would have taken it over."""
    for file in ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (world / "one" / file).unlink(missing_ok=True)
    models = f"teacher u = hf('one')\nstudent s = {scratch(more)}"
    said = found(world, f"{models}\n{DATA}loss = kd(u.logits -> s.logits)")
    assert [(d.code, d.span.position[0]) for d in said] == [("B314", 2)]
    assert "has no vocabulary of a tokenizer" in said[0].message


@pytest.mark.parametrize("tokenizer", ["", ", tokenizer=big", ", tokenizer=two"])
@pytest.mark.parametrize("path", ["../bank/", "{bank}/", "link/", "own/"])
def test_a_tokenizer_that_a_finished_teacher_trained(tmp_path: Path, path: str, tokenizer: str) -> None:
    """However its data are spelled, and whatever the student reads: the check says what runs, one tokenizer for both."""
    bank, use = tmp_path / "bank", tmp_path / "use"
    for folder, seed in ((bank, 0), (use / "own", 7)):
        write_data(folder, seed=seed)
    (use / "link").symlink_to(bank)
    own_words = (use / "own" / "train.jsonl").read_text().replace("tale", "zebra")
    (use / "own" / "train.jsonl").write_text(own_words)
    model = 'hf(model_type="bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32'
    data = 'data d = files(train="{}", text=text, label=label, batch={}, max_length=32)\n'
    for name, train, batch in (("a", "train.jsonl", 4), ("b", "./train.jsonl", 2)):
        text = f"student big = {model})\n{data.format(train, batch)}loss = ce(d.labels -> big.logits)\n"
        (bank / f"{name}.brew").write_text(text + "train { steps = 1 }\n")
    spec = use / "spec.brew"
    spec.write_text(
        'teacher big = brew("../bank/a.brew")\nteacher two = brew("../bank/b.brew")\n'
        f"student tiny = {model}{tokenizer})\n{data.format(path.format(bank=bank) + 'train.jsonl', 4)}"
        "loss = mse(big.hidden[1] -> tiny.hidden[1]) + mse(two.hidden[1] -> tiny.hidden[1])\ntrain { steps = 1 }\n"
    )
    assert "B214" not in [d.code for d in bg.check(spec)]
    if path == "own/":
        run = bg.run(spec)
        own = (run.folder / "student" / "tokenizer.json").read_text()
        lent = {path.parent.parent.name[0]: path.read_text() for path in bank.glob("runs/*/student/tokenizer.json")}
        assert json.loads(own)["model"] == json.loads(lent["b" if "two" in tokenizer else "a"])["model"]
        assert "zebra" not in json.loads(own)["model"]["vocab"]


KINDS = {
    "bert": "model_type='bert', hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8",
    "distilbert": "model_type='distilbert', dim=8, n_layers=1, n_heads=2, hidden_dim=8",
    "llama": "model_type='llama', hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8",
    "qwen2": "model_type='qwen2', hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2",
}


def trained(folder: Path, text: str, name: str = "spec") -> Path:
    """The student's folder after one step."""
    spec = folder / f"{name}.brew"
    spec.write_text(f"{text.replace(chr(39), chr(34))}train {{ steps = 1 }}\n")
    return Path(bg.run(spec).folder) / "student"


@pytest.mark.filterwarnings("ignore::brewgraph.BrewWarning")
@pytest.mark.parametrize("lent", ["", "teacher t = hf('one')\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_gives_what_its_model_takes(world: Path, kind: str, lent: str) -> None:
    """Whether the data or a BERT lent it: `model(**tokenizer(text))` runs in plain transformers."""
    loss = "loss = ce(d.labels -> s.logits)" + (" + kd(t.logits -> s.logits)\n" if lent else "\n")
    folder = trained(world, f"{lent}student s = hf({KINDS[kind]})\n{DATA}{loss}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = tokenizer("a b", "tale", return_tensors="pt")
    assert ("token_type_ids" in inputs) == (kind == "bert")
    assert model(**inputs).logits.shape == (1, 3)


@pytest.mark.filterwarnings("ignore::brewgraph.BrewWarning")
def test_heads_are_saved_with_a_tokenizer_of_their_trunk(world: Path) -> None:
    """Each in its own folder, with the inputs of the trunk."""
    folder = trained(
        world,
        f"student s = hf({KINDS['distilbert']}) {{ head mood = sequence_classifier() }}\n{DATA}"
        "loss = ce(d.labels -> s.mood.logits)\n",
    )
    inputs = AutoTokenizer.from_pretrained(folder / "mood")("a b", return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert AutoModelForSequenceClassification.from_pretrained(folder / "mood")(**inputs).logits.shape == (1, 3)


@pytest.mark.filterwarnings("ignore::brewgraph.BrewWarning")
@pytest.mark.parametrize("teacher", ["hf('runs/student', tokenizer='runs/student')", "brew('first.brew')"])
def test_token_types_go_to_whoever_takes_them(world: Path, teacher: str) -> None:
    """A BERT beside a DistilBERT with its tokenizer knows which of a pair's texts a token is in."""
    rows = [{"a": "a tale", "b": "of cities", "label": label} for label in ("bad", "good") * 4]
    write_rows(world / "pairs.jsonl", rows)
    pairs = DATA.replace("train.jsonl", "pairs.jsonl").replace("batch=4", "batch=4, text=[a, b]")
    first = trained(world, f"student t = hf({KINDS['distilbert']})\n{pairs}loss = ce(d.labels -> t.logits)\n", "first")
    (world / "runs" / "student").symlink_to(first)
    own = "" if "brew(" in teacher else ", tokenizer='one'"
    if own:  # of the same vocabulary, as the checkpoints of BERT and DistilBERT on the hub
        for file in first.glob("*token*"):
            (world / "one" / file.name).write_bytes(file.read_bytes())
        written = json.loads((world / "one" / "tokenizer_config.json").read_text())
        written["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        (world / "one" / "tokenizer_config.json").write_text(json.dumps(written))
    text = f"teacher t = {teacher}\nstudent s = hf({KINDS['bert']}{own})\n{pairs}loss = kd(t.logits -> s.logits)\n"
    (world / "second.brew").write_text(text.replace("'", '"'))
    batch = next(iter(bg.load(world / "second.brew").dataloaders()["train"]))
    assert batch["token_type_ids"].max() == 1
    assert set(batch) >= {"input_ids", "attention_mask", "labels"}
