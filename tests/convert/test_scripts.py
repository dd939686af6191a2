"""Scripts of TextBrewer are read and not run: what is only known when they run is a fault or a question, never a guess."""

from __future__ import annotations

import pytest

from brewgraph.convert.convert import Converted, Script, convert
from brewgraph.diagnostics import SpecError, UsageError
from brewgraph.source import Source

MATCH = '{"layer_T": 4, "layer_S": 1, "feature": "hidden", "loss": "hidden_mse", "weight": 1}'
MADE = "c = DistillationConfig(temperature=8, intermediate_matches=ms)"


def read(text: str, *others: Source) -> Converted:
    """What a script becomes, with other files beside it."""
    return convert([Source(text, "train.py"), *others], Script())


@pytest.mark.parametrize(
    "text",
    [
        f"ms = [{MATCH}]\n{MADE}",
        f"ms: list = [{MATCH}]\n{MADE}",
        f"def main(args):\n    ms = [{MATCH}]\n    {MADE}",
        f'c = DistillationConfig.from_dict({{"temperature": 8, "intermediate_matches": [{MATCH}]}})',
        f'd = dict(temperature=8, intermediate_matches=[{MATCH}])\nc = textbrewer.DistillationConfig.from_dict(d)',
    ],
)  # fmt: skip
def test_a_name_that_is_bound_once_is_its_value(text: str) -> None:
    """In a function, too, and however the configuration is made."""
    found = read(text).text
    assert "param T = 8\n" in found
    assert "hidden = mse(big.hidden[4] -> tiny.hidden[1])\n" in found


@pytest.mark.parametrize(
    "text",
    [
        f"ms = []\nms.append({MATCH})\n{MADE}",
        f"ms = []\nms += [{MATCH}]\n{MADE}",
        f"ms = None\nif args.matches:\n    ms = [{MATCH}]\n{MADE}",
        f"ms = [{MATCH}]\nms[0]['weight'] = 2\n{MADE}",
        f"ms = [{MATCH}]\ndel ms[0]\n{MADE}",
        f"ms = [{MATCH}]\ndef make(ms):\n    return DistillationConfig(temperature=8, intermediate_matches=ms)",
        f"ms = [{MATCH}]\nfrom mine import ms\n{MADE}",
        f"ms = {{}}\nms['L3_hidden_mse'] = [{MATCH}]",
    ],
)
def test_a_name_that_changes_is_no_value(text: str) -> None:
    """Once they were taken at their first or last binding, and matches were lost in silence."""
    with pytest.raises(SpecError) as raised:
        read(text)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "B122"
    assert "`ms` has several values in this file, or is changed" in diagnostic.message
    assert diagnostic.help


@pytest.mark.parametrize(
    ("after", "shown"),
    [
        ("c.temperature = 4", "c.temperature"),
        ("c.temperature += 1", "c.temperature"),
        ("distiller.d_config.kd_loss_weight = 0", "distiller.d_config.kd_loss_weight"),
    ],
)
def test_a_configuration_that_is_changed_afterwards_is_a_fault(after: str, shown: str) -> None:
    """What is set on it later would be lost."""
    with pytest.raises(SpecError) as raised:
        read(f"c = DistillationConfig(temperature=8)\n{after}\n")
    (diagnostic,) = raised.value.diagnostics
    assert f"`{shown}` changes a configuration after it is made" in diagnostic.message
    assert diagnostic.span.text == shown


def test_a_configuration_in_a_file_is_asked_for() -> None:
    """The script alone would look like supervised training; with the file that it reads it is whole."""
    script = "t = TrainingConfig(fp16=True)\nc = DistillationConfig.from_json_file(args.config)\n"
    with pytest.raises(UsageError, match="train.py:2 reads a DistillationConfig from a file"):
        read(script)
    found = read(script, Source('{"temperature": 8}', "distill.json")).text
    assert "param T = 8\n" in found
    assert "precision     = fp16\n" in found


@pytest.mark.parametrize(
    ("calls", "wanted"),
    [
        ("GeneralDistiller(t, c, a, b, f, g)", "as its GeneralDistiller computes it"),
        ("BasicDistiller(t, c, a, b, f, g)", "as its BasicDistiller computes it"),
        ("tb.BasicTrainer(t, a, f)", "as its BasicTrainer computes it"),
    ],
)
def test_a_script_says_its_distiller(calls: str, wanted: str) -> None:
    """Where it calls one, that is meant."""
    assert wanted in read(f"c = DistillationConfig()\nt = TrainingConfig()\nd = {calls}\n").text


@pytest.mark.parametrize(
    ("calls", "wanted"),
    [
        ("MultiTeacherDistiller(t, c, a, b, f, g)", "--distiller MultiTeacherDistiller --teachers 2"),
        ("MultiTaskDistiller(t, c, a, b, f, g)", "--distiller MultiTaskDistiller --task ner --task qa"),
        ("GeneralDistiller() if x else BasicDistiller()", "`GeneralDistiller` and `BasicDistiller`: choose one"),
    ],
)
def test_a_distiller_of_which_more_has_to_be_said_is_asked_for(calls: str, wanted: str) -> None:
    """How many teachers there are, which tasks, which of two classes: no file says that."""
    with pytest.raises(UsageError) as raised:
        read(f"c = DistillationConfig()\nd = {calls}\n")
    assert wanted in str(raised.value)


def test_places_that_a_script_computes_are_no_fault() -> None:
    """Folders, devices and ranks have no counterpart in a spec; every other value has to be there."""
    places = "output_dir=args.output_dir, log_dir=os.path.join(a, b), device=args.device, local_rank=args.local_rank"
    found = read(f"c = DistillationConfig(temperature=8)\nt = TrainingConfig({places}, fp16=True)\n")
    assert {"output_dir", "log_dir", "device", "local_rank"} <= {note.key for note in found.notes}
    with pytest.raises(SpecError, match=r"`args\.steps` is not a literal"):
        read(f"t = TrainingConfig({places}, gradient_accumulation_steps=args.steps)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"temperature": Infinity}', "a number above zero"),
        ('{"hard_label_weight": NaN}', "a number"),
        ('{"temperature_scheduler": ["cwsm", Infinity]}', 'write ["cwsm", 1]'),
        (f'{{"intermediate_matches": [{MATCH[:-1]}, "proj": ["linear", 1, 2, {{"lr": Infinity}}]}}]}}', "correct it"),
        (f'{{"intermediate_matches": [{MATCH.replace("hidden_mse", "nst")}]}}', 'write "layer_T": [4, 4]'),
        (f'{{"intermediate_matches": [{MATCH.replace("4", "[[0, 0], [4, 4]]")}]}}', "a match for each pair"),
        ('{\n  // as in the paper\n  "temperature": 8\n}', "JSON has no comments: remove it"),
    ],
)
def test_odd_values_have_a_remedy(text: str, words: str) -> None:
    """Numbers that are none, lists of lists, comments."""
    with pytest.raises(SpecError) as raised:
        convert([Source(text, "c.json")], Script())
    assert words in raised.value.diagnostics[0].help


def test_what_is_noted_is_what_is_written() -> None:
    """Apex's O0 is no half precision; the loss on the labels is an assumption about the adaptor."""
    found = convert([Source('{"fp16": true, "fp16_opt_level": "O0", "hard_label_weight": 1}', "c.json")], Script())
    notes = {note.key: note.text for note in found.notes}
    assert "precision" not in found.text.partition("train {")[2]
    assert notes["fp16_opt_level"] == "O0 is full precision, which is the default"
    assert "losses" in notes
    assert "losses" not in {note.key for note in convert([Source('{"temperature": 8}', "c.json")], Script()).notes}
