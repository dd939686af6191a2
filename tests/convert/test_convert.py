"""Configurations of TextBrewer as specs: the equations that they stand for, and the numbers that TextBrewer recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import brewgraph as bg
from brewgraph.convert.convert import Converted, Script, convert
from brewgraph.data.sources.tensor_batches import open_batches
from brewgraph.diagnostics import SpecError, UsageError
from brewgraph.display.equation import spell_out
from brewgraph.recipe.settings.data_sources import Batches
from brewgraph.source import Source

Json = dict[str, Any]
HIDDEN: Json = {"layer_T": 4, "layer_S": 1, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
ATTENTION: Json = {**HIDDEN, "feature": "attention", "loss": "attention_mse"}
PAIR: Json = {**HIDDEN, "layer_T": [0, 4], "layer_S": [0, 1], "loss": "fsp"}


def converted(value: Any, *chosen: str, script: Script | None = None, **adaptors: Any) -> Converted:
    """What a configuration becomes."""
    script = script or Script(**adaptors)
    return convert([Source(json.dumps(value), "c.json")], script, chosen)


def lines(found: Converted) -> dict[str, str]:
    """The statements of a spec with an `=`, by what stands before it, without comments; those that run on as one line."""
    joined = found.text.replace("\n    + ", " + ")
    pairs = (line.partition("=") for line in joined.splitlines() if "=" in line and not line.startswith("#"))
    return {" ".join(name.split()): value.partition("    #")[0].strip() for name, _, value in pairs}


# ── equations ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, {"param T": "4", "soft": "ce(big.logits -> tiny.logits, T=T)", "loss": "soft"}),
        ({"temperature": 8}, {"param T": "8"}),
        ({"temperature": 2.5}, {"param T": "2.5"}),
        ({"kd_loss_type": "mse"}, {"soft": "mse(big.logits -> tiny.logits, T=T)"}),
        ({"hard_label_weight": 0.3}, {"hard": "ce(d.labels -> tiny.logits)", "loss": "soft + 0.3 * hard"}),
        ({"kd_loss_weight": 0, "hard_label_weight": 1}, {"loss": "hard"}),
        ({"kd_loss_weight": 0.1, "hard_label_weight": -2}, {"loss": "0.1 * soft - 2 * hard"}),
        ({"probability_shift": True}, {"soft": "ce(shift(big.logits, d.labels) -> tiny.logits, T=T)"}),
        (
            {"temperature_scheduler": ["flsw", 1, 2]},
            {"soft": "ce(big.logits -> tiny.logits, T=flsw(T, beta=1, gamma=2))"},
        ),
        (
            {"temperature_scheduler": ["flsw", {"beta": 0.5, "gamma": 1}]},
            {"soft": "ce(big.logits -> tiny.logits, T=flsw(T, beta=0.5, gamma=1))"},
        ),
        ({"temperature_scheduler": ["cwsm", 1]}, {"soft": "ce(big.logits -> tiny.logits, T=cwsm(T, beta=1))"}),
        ({"temperature_scheduler": "constant"}, {"soft": "ce(big.logits -> tiny.logits, T=T)"}),
        (
            {"kd_loss_weight_scheduler": "linear_decay", "hard_label_weight_scheduler": "linear_growth"},
            {"loss": "ramp(1 -> 0) * soft + ramp(0 -> 1) * hard"},
        ),
        (
            {"kd_loss_weight": 5, "kd_loss_weight_scheduler": "linear_decay"},
            {"loss": "(ramp(1 -> 0) + 4 * (1 - after(1 steps))) * soft"},
        ),
        (
            {"kd_loss_weight": 0.5, "kd_loss_weight_scheduler": "linear_decay"},
            {"loss": "(ramp(1 -> 0) - 0.5 * (1 - after(1 steps))) * soft"},
        ),
    ],
)
def test_logits_and_labels(config: Json, wanted: dict[str, str]) -> None:
    """Losses, temperatures, weights and their schedules, each as TextBrewer defines it."""
    found = lines(converted(config))
    assert {name: found.get(name) for name in wanted} == wanted


def test_the_first_step_of_a_schedule_has_the_static_weight() -> None:
    """(5, 7), then (3/4, 1/4) of four steps, as TextBrewer: its schedule replaces the weight after the first step."""
    text = "ramp(1 -> 0) + 4 * (1 - after(1 steps))"
    config = {
        "kd_loss_weight": 5, "kd_loss_weight_scheduler": "linear_decay",
        "hard_label_weight": 7, "hard_label_weight_scheduler": "linear_growth",
    }  # fmt: skip
    loss = lines(converted(config))["loss"]
    assert loss == f"({text}) * soft + (ramp(0 -> 1) + 7 * (1 - after(1 steps))) * hard"
    from brewgraph.ops import SCHEDULES

    def weights(step: int) -> tuple[float, float]:
        x = step / 4
        first = 1 - SCHEDULES["after"](x, 1 / 4)
        return SCHEDULES["ramp"](x, 1, 0) + 4 * first, SCHEDULES["ramp"](x, 0, 1) + 7 * first

    assert [weights(step) for step in range(4)] == [(5, 7), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75)]


@pytest.mark.parametrize(
    ("matches", "wanted"),
    [
        ([HIDDEN], {"hidden": "mse(big.hidden[4] -> tiny.hidden[1])", "loss": "soft + hidden"}),
        ([{**HIDDEN, "layer_T": -1}], {"hidden": "mse(big.hidden[-1] -> tiny.hidden[1])"}),
        (
            [HIDDEN, {**HIDDEN, "layer_T": 8, "layer_S": 2}],
            {
                "let map": "[4, 8] -> [1, 2]",
                "hidden": "mse(big.hidden[map] -> tiny.hidden[map])",
                "loss": "soft + sum(hidden)",
            },
        ),
        ([HIDDEN, HIDDEN], {"let map": "[4, 4] -> [1, 1]", "loss": "soft + sum(hidden)"}),
        ([{**HIDDEN, "weight": 0.5}], {"loss": "soft + 0.5 * hidden"}),
        ([{**HIDDEN, "weight": 0}], {"loss": "soft"}),
        (
            [HIDDEN, {**HIDDEN, "weight": 2, "layer_T": 8}],
            {"hidden_2": "mse(big.hidden[8] -> tiny.hidden[1])", "loss": "soft + hidden + 2 * hidden_2"},
        ),
        (
            [{**HIDDEN, "proj": ["linear", 312, 768]}],
            {"hidden": "mse(big.hidden[4] -> tiny.hidden[1] via linear(312 -> 768))"},
        ),
        (
            [{**HIDDEN, "proj": ["relu", 312, 768, {"lr": 1e-3, "weight_decay": 0}]}],
            {"hidden": "mse(big.hidden[4] -> tiny.hidden[1] via relu(312 -> 768, lr=0.001, weight_decay=0))"},
        ),
        ([{**HIDDEN, "loss": "cos"}], {"cosine": "cos(big.hidden[4] -> tiny.hidden[1])"}),
        ([{**HIDDEN, "loss": "pkd"}], {"patient": "pkd(big.hidden[4] -> tiny.hidden[1])"}),
        (
            [{**PAIR, "loss": "nst", "layer_T": [4, 4], "layer_S": [1, 1]}],
            {"gram": "nst(big.hidden[4] -> tiny.hidden[1])"},
        ),
        (
            [{**PAIR, "loss": "mmd", "layer_T": [4, 4], "layer_S": [1, 2]}],
            {"gram": "nst((big.hidden[4], big.hidden[4]) -> (tiny.hidden[1], tiny.hidden[2]))"},
        ),
        ([PAIR], {"flow": "fsp((big.hidden[0], big.hidden[4]) -> (tiny.hidden[0], tiny.hidden[1]))"}),
        (
            [{**PAIR, "loss": "gram", "proj": ["tanh", 16, 32]}],
            {
                "proj W_flow": "tanh(16 -> 32)",
                "flow": "fsp((big.hidden[0], big.hidden[4]) -> (tiny.hidden[0] via W_flow, tiny.hidden[1] via W_flow))",
            },
        ),
        (
            [PAIR, {**PAIR, "layer_T": [4, 8]}],
            {
                "flow": "fsp((big.hidden[0], big.hidden[4]) -> (tiny.hidden[0], tiny.hidden[1]))"
                " + fsp((big.hidden[4], big.hidden[8]) -> (tiny.hidden[0], tiny.hidden[1]))",
                "loss": "soft + flow",
            },
        ),
    ],
)
def test_matches(matches: list[Json], wanted: dict[str, str]) -> None:
    """Layers, weights, projections of the student's side; what differs in its layers alone is one list."""
    found = lines(converted({"intermediate_matches": matches}))
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("loss", "adaptors", "wanted"),
    [
        ("attention_mse", {"first": 0}, "mse(big.attention[4] -> tiny.attention[1])"),
        ("attention_mse", {"first": 1}, "mse(big.attention[3] -> tiny.attention[0])"),
        ("attention_mse", {"first": 1, "attention": "scores"}, "mse(big.scores[3] -> tiny.scores[0])"),
        ("attention_mse_sum", {"first": 0}, "mse(head_sum(big.attention[4]) -> head_sum(tiny.attention[1]))"),
        (
            "attention_ce",
            {"first": 0},
            "ce(probabilities(big.attention[4], mask=none) -> probabilities(tiny.attention[1], mask=none))",
        ),
        ("attention_ce", {"first": 1, "attention": "scores"}, "ce(big.scores[3] -> tiny.scores[0])"),
        (
            "attention_ce_mean",
            {"first": 1, "attention": "scores"},
            "ce(head_mean(big.scores[3]) -> head_mean(tiny.scores[0]))",
        ),
        (
            "attention_mse",
            {"first": 0, "inputs_mask": False},
            "mse(big.attention[4] -> tiny.attention[1], mask=none)",
        ),
    ],
)
def test_attention(loss: str, adaptors: Json, wanted: str) -> None:
    """Both things that adaptors return as attention, both ways to count its layers, with and without a mask."""
    found = lines(converted({"intermediate_matches": [{**ATTENTION, "loss": loss}]}, **adaptors))
    assert wanted in found.values()


def test_layers_of_attention_are_never_guessed() -> None:
    """Without a layer 0 nothing says from where they count; with one they count from 0."""
    with pytest.raises(UsageError, match="add --attention-from 0 or --attention-from 1"):
        converted({"intermediate_matches": [ATTENTION]})
    zero = {"intermediate_matches": [ATTENTION, {**ATTENTION, "layer_S": 0}]}
    assert lines(converted(zero))["let map"] == "[4, 4] -> [1, 0]"
    with pytest.raises(UsageError, match="attention layers count from 0"):
        converted(zero, first=1)


@pytest.mark.parametrize(
    ("labels", "adaptors", "wanted"),
    [
        ("tags", {}, {"soft": "ce(big.logits -> tiny.logits, T=T)", "hard": "ce(d.labels -> tiny.logits)"}),
        ("tags", {"logits_mask": False}, {"soft": "ce(big.logits -> tiny.logits, T=T, mask=none)"}),
        ("class", {"logits_mask": False}, {"soft": "ce(big.logits -> tiny.logits, T=T)"}),
        (
            "spans",
            {},
            {
                "soft": "ce(big.start -> tiny.start, T=T, mask=none) + ce(big.end -> tiny.end, T=T, mask=none)",
                "hard": "0.5 * (ce(d.start -> tiny.start, mask=none) + ce(d.end -> tiny.end, mask=none))",
            },
        ),
    ],
)
def test_kinds_of_labels(labels: str, adaptors: Json, wanted: dict[str, str]) -> None:
    """Logits of tokens with their mask or without; of answers the sum over start and end, and the mean of the losses.

    That soft targets have no factor T² beside the labels is TextBrewer's, and no check warns of it.
    """
    made = converted({"hard_label_weight": 1}, labels=labels, **adaptors)
    found = lines(made)
    assert {name: found[name] for name in wanted} == wanted
    assert made.text.count("# brew: ignore[W213] TextBrewer has no T²\n") == 1
    assert bg.format_text(made.text) == made.text
    source = {"class": "files(", "tags": "conll(", "spans": "squad("}[labels]
    assert found["data d"].startswith(source)


# ── scripts around a configuration ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("distiller", ["BasicDistiller", "MultiTeacherDistiller"])
def test_matches_that_textbrewer_ignores_are_left_out(distiller: Any) -> None:
    """Two distillers know no intermediate matches; the spec has none either, and a note says so."""
    found = converted({"intermediate_matches": [HIDDEN, ATTENTION]}, script=Script(distiller, 2))
    assert lines(found)["loss"] == "soft"
    assert any(note.key == "intermediate_matches" and "silently" in note.text for note in found.notes)


def test_several_teachers_are_averaged() -> None:
    """One param and one teacher each; the mean of their logits, shifted after it."""
    found = lines(converted({"probability_shift": True}, script=Script("MultiTeacherDistiller", 3)))
    assert found["let teachers"] == "[big_1, big_2, big_3]"
    assert found["soft"] == "ce(shift(mean(teachers.logits), d.labels) -> tiny.logits, T=T)"
    assert found["teacher big_3"] == "hf(teacher_3)"


def test_several_tasks_share_the_settings() -> None:
    """A teacher, data and a loss for each; drawn by the number of batches to a power; counted in steps."""
    config = {"hard_label_weight": 0.5, "ckpt_steps": 100}
    found = converted(config, script=Script("MultiTaskDistiller", tasks=("ner", "nli")))
    assert found.text.count("soft = ce(big.logits -> tiny.logits, T=T)") == 2
    assert "sample [ner, nli] ~ batches ** tau" in found.text
    assert "teacher big = hf(teacher_nli)" in found.text
    assert lines(found)["save_steps"] == "100 steps"


def test_training_settings_alone_are_those_of_a_supervised_training() -> None:
    """BasicTrainer has no distillation: no teacher, the loss on the labels."""
    found = converted({"gradient_accumulation_steps": 2})
    assert "teacher" not in found.text.replace("# ", "")
    assert lines(found)["loss"] == "hard"
    assert lines(converted({"temperature": 4, "device": "cpu"}))["loss"] == "soft"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, {"max_grad_norm": "none", "accumulate": None, "save_steps": None, "precision": None}),
        ({"gradient_accumulation_steps": 4}, {"accumulate": "4", "normalise": "micro"}),
        ({"fp16": True}, {"precision": "fp16"}),
        ({"fp16": True, "fp16_opt_level": "O0"}, {"precision": None}),
        ({"ckpt_frequency": 2}, {"save_steps": "0.5 epochs", "eval_steps": "0.5 epochs"}),
        ({"ckpt_epoch_frequency": 3}, {"save_steps": "3 epochs"}),
        ({"ckpt_steps": 500}, {"save_steps": "500 steps", "steps": "steps", "epochs": None}),
    ],
)
def test_settings_of_training(config: Json, wanted: dict[str, str | None]) -> None:
    """What of a TrainingConfig a spec can say."""
    found = lines(converted({"distill_config": {}, "train_config": config}))
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"temperature_scheduler": ["cwsm", 1]}, "temperature_scheduler"),
        ({"temperature_scheduler": ["flsw", 1, 1, 0.1]}, "temperature_scheduler"),
        ({"kd_loss_weight": 2, "kd_loss_weight_scheduler": "linear_decay"}, "kd_loss_weight_scheduler"),
        ({"is_caching_logits": True}, "is_caching_logits"),
        ({"intermediate_matches": [{**HIDDEN, "proj": ["linear", 1, 2, {"betas": [0.9, 0.99]}]}]}, "proj"),
        ({"intermediate_matches": [{**HIDDEN, "loss": "pkd"}]}, "pkd"),
        ({"log_dir": "logs"}, "log_dir"),
        ({"output_dir": "out"}, "output_dir"),
        ({"device": "cpu"}, "device"),
        ({"fp16": True, "fp16_opt_level": "O2"}, "fp16_opt_level"),
        ({"data_parallel": True}, "data_parallel"),
        ({"local_rank": 0}, "local_rank"),
        ({"ckpt_frequency": 2, "ckpt_epoch_frequency": 2}, "ckpt_epoch_frequency"),
        ({"ckpt_frequency": 2, "ckpt_steps": 5}, "ckpt_frequency"),
    ],
)
def test_what_is_not_carried_over_is_said(config: Json, key: str) -> None:
    """As a note and as a comment of the spec; the plain configuration has no such note."""
    found = converted({"temperature": 4, **config})
    assert key in {note.key for note in found.notes}
    assert f"# - {key}: " in found.text
    assert key not in {note.key for note in converted({"temperature": 4}).notes}


def test_a_spec_is_formatted_and_keeps_every_digit() -> None:
    """Formatting changes nothing; a weight is written as it is, not rounded."""
    matches = [{**HIDDEN, "weight": 0.123456789}, PAIR, {**PAIR, "layer_T": [1, 2]}]
    text = converted({"intermediate_matches": matches, "hard_label_weight": 1e-7}).text
    assert bg.format_text(text) == text
    assert "0.123456789 * hidden" in text
    assert "1e-07 * hard" in text


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────

MODULE = """\
'''Matches, as people keep them.'''
import textbrewer
from textbrewer import DistillationConfig, TrainingConfig

base = [{"layer_T": 0, "layer_S": 0, "feature": "hidden", "loss": "hidden_mse", "weight": 1}]
more = base + [{"layer_T": 4, "layer_S": 1, "feature": "hidden", "loss": "hidden_mse", "weight": 1}]
"""


def python(text: str, *chosen: str) -> dict[str, str]:
    """What a Python file becomes."""
    return lines(convert([Source(text, "c.py")], Script(), chosen))


@pytest.mark.parametrize(
    "text",
    [
        "{'temperature': 8, 'probability_shift': True}",
        "dict(temperature=8, probability_shift=True)",
        "\n  {'temperature': 8,\n 'probability_shift': True,}\n",
        "config = {'temperature': 8, 'probability_shift': True}",
        "import textbrewer\nT = 8\nc = textbrewer.DistillationConfig(temperature=T, probability_shift=True)\n",
    ],
)
def test_literals_of_python(text: str) -> None:
    """A literal alone, one with a name, the call of a script."""
    text = text.lstrip("\n ") if text.startswith("\n") else text
    found = python(text)
    assert (found["param T"], found["soft"][:9]) == ("8", "ce(shift(")


def test_lists_of_matches_are_chosen_by_name() -> None:
    """A module of lists, a mapping of lists: one equation for each that is chosen, with its name."""
    found = python(MODULE, "more")
    assert found["more"] == "mse(big.hidden[map] -> tiny.hidden[map])"
    assert found["let map"] == "[0, 4] -> [0, 1]"
    both = lines(converted({"one": [HIDDEN], "two": [PAIR]}, "one", "two"))
    assert both["loss"] == "soft + one + two"
    assert lines(converted({"one": [HIDDEN]}))["one"].startswith("mse(")
    with pytest.raises(UsageError, match="choose with --matches, `one` and `two`"):
        converted({"one": [HIDDEN], "two": [PAIR]})
    with pytest.raises(UsageError, match="no list of matches `tow`: did you mean `two`"):
        converted({"one": [HIDDEN], "two": [PAIR]}, "tow")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("L3-mse", "L3_mse"), ("3l", "matches_3l"), ("loss", "matches_loss"), ("train", "matches_train")],
)
def test_the_name_of_a_list_becomes_one_of_an_equation(name: str, wanted: str) -> None:
    """Signs that no name has, keywords, and names that the spec has already."""
    found = lines(converted({name: [HIDDEN]}, name))
    assert found["loss"] == f"soft + {wanted}"
    assert found[wanted] == "mse(big.hidden[4] -> tiny.hidden[1])"


def test_a_script_s_calls_are_read_and_not_run(tmp_path: Path) -> None:
    """Both configurations of a script, with the lists that they name."""
    call = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    calls = "d = DistillationConfig(temperature=8, intermediate_matches=more)\nt = TrainingConfig(fp16=True)\n"
    found = python(MODULE + call + calls)
    assert (found["param T"], found["precision"]) == ("8", "fp16")
    assert found["hidden"] == "mse(big.hidden[map] -> tiny.hidden[map])"
    assert not (tmp_path / "ran").exists()


def test_several_files_make_one_spec() -> None:
    """Settings from one, lists from another; two of a kind are a fault of the call."""
    sources = [Source('{"temperature": 8}', "a.json"), Source(MODULE, "m.py"), Source('{"fp16": true}', "t.json")]
    found = lines(convert(sources, Script(), ["base"]))
    assert (found["param T"], found["precision"], found["loss"]) == ("8", "fp16", "soft + base")
    with pytest.raises(UsageError, match="several configurations of one kind, in a.json:1 and b.json:1"):
        convert([sources[0], Source('{"temperature": 9}', "b.json")], Script())


FAULTS: list[tuple[str, str, str, str]] = [
    # the text, the code, words of the message, words of the remedy; ⟨…⟩ marks the place
    ('{⟨"temprature"⟩: 8}', "B120", "there is no setting `temprature`", "did you mean `temperature`?"),
    ('{"temperature": ⟨"8"⟩}', "B122", "`temperature` cannot be `8`", "a number above zero"),
    ('{"temperature": ⟨0⟩}', "B122", "`temperature` cannot be `0`", "a number above zero"),
    ('{"probability_shift": ⟨1⟩}', "B122", "`probability_shift` cannot be `1`", "true or false"),
    ('{"kd_loss_type": ⟨"kl"⟩}', "B122", "`kd_loss_type` cannot be `kl`", "`ce` and `mse`"),
    ('{"kd_loss_weight_scheduler": ⟨"linear"⟩}', "B122", "cannot be `linear`", "did you mean `linear_decay`?"),
    ('{"temperature_scheduler": ⟨"flsw"⟩}', "B122", "`flsw` needs `beta` and `gamma`", 'write ["flsw", 1, 1]'),
    ('{"temperature_scheduler": ⟨["cwsm"]⟩}', "B122", "`cwsm` needs `beta`", 'write ["cwsm", 1]'),
    ('{"temperature_scheduler": ⟨["flws", 1]⟩}', "B122", "no temperature scheduler `flws`", "did you mean `flsw`?"),
    ('{⟨"custom_matches"⟩: []}', "B120", "`custom_matches`", "write a `tap`"),
    ('{⟨"num_epochs"⟩: 3}', "B120", "`num_epochs`", "`epochs` of the spec"),
    ('{"fp16": ⟨"yes"⟩}', "B122", "`fp16` cannot be `yes`", "true or false"),
    ('{"gradient_accumulation_steps": ⟨2.5⟩}', "B122", "cannot be `2.5`", "a whole number above zero"),
    ('{"intermediate_matches": ⟨3⟩}', "B122", "`intermediate_matches` cannot be `3`", "a list of matches"),
    ('{"intermediate_matches": [⟨4⟩]}', "B122", "`intermediate_matches[0]` cannot be `4`", "a match has `layer_T`"),
    (
        '{"intermediate_matches": [M{"loss": ⟨"hiden_mse"⟩}]}',
        "B122",
        "[0].loss` cannot be",
        "did you mean `hidden_mse`?",
    ),
    ('{"intermediate_matches": [M{"loss": ⟨"mine"⟩}]}', "B122", "[0].loss` cannot be `mine`", "import"),
    ('{"intermediate_matches": [M{"layer_T": ⟨"4"⟩}]}', "B122", "[0].layer_T`: a layer is an integer", "write 4"),
    ('{"intermediate_matches": [M{"layer_T": ⟨[1, 2, 3]⟩}]}', "B122", "layer_T`: a layer", "write 4"),
    ('{"intermediate_matches": [M{⟨"layerT"⟩: 4}]}', "B120", "[0].layerT`", "did you mean `layer_T`?"),
    ('{"intermediate_matches": [⟨M{"loss": "fsp"}⟩]}', "B122", "`fsp` takes two layers of each model", "[4, 4]"),
    ('{"intermediate_matches": [⟨M{"layer_S": [1, 2]}⟩]}', "B122", "`hidden_mse` takes one layer", "4"),
    ('{"intermediate_matches": [⟨M{"feature": "attention"}⟩]}', "B122", "compares hidden", '"feature": "hidden"'),
    (
        '{"intermediate_matches": [M{"proj": ⟨["linear", 384]⟩}]}',
        "B122",
        "a projection is written",
        "the student's width",
    ),
    ('{"intermediate_matches": [M{"proj": ⟨["linaer", 1, 2]⟩}]}', "B122", "no projection `linaer`", "`linear`?"),
    (
        '{"intermediate_matches": [M{"proj": ⟨["linear", 1, 2, {"lr": "x"}]⟩}]}',
        "B122",
        "must not be negative",
        "correct it",
    ),
    ('{"distill_config": {}, ⟨"tain_config"⟩: {}}', "B120", "`tain_config`", "did you mean `train_config`?"),
    ('{"train_config": ⟨[]⟩}', "B122", "`TrainingConfig` must be a mapping", "write"),
    ("⟨3⟩", "B020", "expected a configuration", "write"),
    ('{"temperature": ⟨8⟩ "fp16": true}', "B020", "neither JSON nor Python", "correct it"),
    ('{"temperature": 8, ⟨"temperature"⟩: 9}', "B125", "`temperature` is given twice", "remove one"),
    ("{'temperature': ⟨args.T⟩}", "B122", "`args.T` is not a literal", "write the value itself"),
    ("{'temperature': ⟨__import__('os').getcwd()⟩}", "B122", "is not a literal", "nothing"),
    ("{⟨4⟩: 8}", "B122", "a key must be a quoted text", "write"),
    ("c = {'temperature': ⟨[1] + 2⟩}", "B122", "`+` joins only lists", "write the value itself"),
]


def written(text: str) -> tuple[str, int, int]:
    """A text without its marks, and where they stood; `M{…}` is a whole match with something changed."""

    def whole(changed: str) -> str:
        rest = {k: v for k, v in HIDDEN.items() if f'"{k}"' not in changed}
        return "{" + "".join(f"{json.dumps(k)}: {json.dumps(v)}, " for k, v in rest.items()) + changed

    if "M{" in text:
        before, _, after = text.partition("M{")
        text = before + whole(after)
    start = text.index("⟨")
    end = text.index("⟩") - 1
    return text.replace("⟨", "").replace("⟩", ""), start, end


@pytest.mark.parametrize(("text", "code", "message", "help"), FAULTS)
def test_faults_name_the_key_its_place_and_a_remedy(text: str, code: str, message: str, help: str) -> None:
    """One diagnostic, under what is wrong in the user's own file."""
    text, start, end = written(text)
    with pytest.raises(SpecError) as raised:
        convert([Source(text, "c.txt")], Script())
    (found,) = raised.value.diagnostics
    assert found.code == code
    assert message in found.message
    assert help in found.help or help == "nothing"
    assert (found.span.start, found.span.end) == (start, end)


def test_all_faults_are_told_at_once() -> None:
    """Those of both configurations and of every match, in the order of the text."""
    config = {
        "distill_config": {"temperature": -1, "intermediate_matches": [{**HIDDEN, "loss": "x"}, {"layer_T": 1}]},
        "train_config": {"fp16": 3},
    }
    with pytest.raises(SpecError) as raised:
        converted(config)
    messages = [d.message for d in raised.value.diagnostics]
    assert len(messages) == 7
    assert messages[0].startswith("`temperature`")
    assert sum("is missing" in message for message in messages) == 4
    assert messages[-1].startswith("`fp16`")


@pytest.mark.parametrize(("text", "name"), [("", "c.json"), ("   \n", "c.py"), ("import os\n", "c.py")])
def test_files_without_a_configuration(text: str, name: str) -> None:
    """Empty, or a module that says nothing of one."""
    with pytest.raises(SpecError) as raised:
        convert([Source(text, name)], Script())
    assert raised.value.diagnostics[0].code == "B020"


def test_broken_json_is_shown_where_it_breaks() -> None:
    """A file that is called json gets json's words."""
    with pytest.raises(SpecError) as raised:
        convert([Source('{"temperature": 8,\n "fp16": tru}', "c.json")], Script())
    assert "cannot" in raised.value.diagnostics[0].message or "not a literal" in raised.value.diagnostics[0].message
    with pytest.raises(SpecError) as raised:
        convert([Source('{"temperature": 8\n "fp16": true}', "c.json")], Script())
    assert raised.value.diagnostics[0].message.startswith("this is not JSON")
    assert raised.value.diagnostics[0].span.position == (2, 2)


def test_a_loss_without_a_term_is_refused() -> None:
    """All weights zero."""
    with pytest.raises(UsageError, match="every weight of the loss is zero"):
        converted({"kd_loss_weight": 0})


# ── recorded runs ────────────────────────────────────────────────────────────────────────────────────────────────────

DISTILLERS = {
    "General": "GeneralDistiller", "Basic": "BasicDistiller", "MultiTeacher": "MultiTeacherDistiller",
    "MultiTask": "MultiTaskDistiller", "Trainer": "BasicTrainer",
}  # fmt: skip
LABELS = {"seq": "class", "tok": "tags", "qa": "spans"}
KD = "ce(big.logits -> tiny.logits, T={})"
CE = "ce(d.labels -> tiny.logits)"
VIA = " via linear(16 -> 32)"
FLAT = "ce(probabilities({0}big.attention[3]{1}, mask=none) -> probabilities({0}tiny.attention[1]{1}, mask=none))"
TERMS: Mapping[str, list[tuple[str, str]]] = {
    "accumulate_clip_warmup": [("1", KD.format(4)), ("1", f"mse(big.hidden[2] -> tiny.hidden[1]{VIA})")],
    "basic_ce": [("1", KD.format(4))],
    "basic_mse_scheduled": [("ramp(1 -> 0)", "mse(big.logits -> tiny.logits, T=1)"), ("ramp(0 -> 1)", CE)],
    "cwsm": [("1", KD.format("cwsm(4, beta=1)"))],
    "flsw": [("1", KD.format("flsw(4, beta=1, gamma=2)"))],
    "general_attention": [
        ("1", KD.format(4)),
        ("1", "mse(big.attention[1] -> tiny.attention[0])"),
        ("1", FLAT.format("", "")),
        ("0.1", "mse(head_sum(big.attention[1]) -> head_sum(tiny.attention[0]))"),
        ("2", FLAT.format("head_mean(", ")")),
        ("1", CE),
    ],
    "general_cos_pkd_fsp": [
        ("1", KD.format(2)),
        ("1", "cos(big.hidden[2] -> tiny.hidden[1] via relu(16 -> 32))"),
        ("1", "pkd(big.hidden[4] -> tiny.hidden[2] via tanh(16 -> 32))"),
        ("1", f"fsp((big.hidden[0], big.hidden[2]) -> (tiny.hidden[0]{VIA}, tiny.hidden[1]{VIA}))"),
    ],
    "general_hidden_projected": [
        ("1", KD.format(8)),
        *[("1", f"mse(big.hidden[{2 * i}] -> tiny.hidden[{i}]{VIA})") for i in range(3)],
        *[("1", f"nst(big.hidden[{2 * i}] -> tiny.hidden[{i}])") for i in range(3)],
    ],
    "multi_task": [("1", KD.format(4)), ("0.5", CE)],
    "multi_teacher": [
        ("1", "ce(mean([big_1.logits, big_2.logits, big_3.logits]) -> tiny.logits, T=8)"),
        ("0.3", CE),
    ],
    "probability_shift": [("1", "ce(shift(big.logits, d.labels) -> tiny.logits, T=4)")],
    "question_answering": [
        ("1", "ce(big.start -> tiny.start, T=8, mask=none)"),
        ("1", "ce(big.end -> tiny.end, T=8, mask=none)"),
        ("1", "nst(big.hidden[2] -> tiny.hidden[1])"),
        ("0.25", "ce(d.start -> tiny.start, mask=none)"),
        ("0.25", "ce(d.end -> tiny.end, mask=none)"),
    ],
    "supervised": [("1", CE)],
    "teacher_batch_differs": [("1", KD.format(4)), ("1", CE)],
    "token_classification_masked": [
        ("1", KD.format(8)),
        ("1", f"mse(big.hidden[4] -> tiny.hidden[2]{VIA})"),
        ("1", CE),
    ],
}  # fmt: skip
"""The terms of each recorded run with their weights, as a plan spells them."""
TERM_NAMES = {"unweighted_kd_loss": "soft", "unweighted_hard_label_loss": "hard"}
PROJECTIONS = {"general_cos_pkd_fsp": ["cosine", "patient", "W_flow"]}


@dataclass(frozen=True)
class Recorded:
    """A recorded run: its folder, its case, and the recipe that its configuration becomes, on its models and batches."""

    name: str
    folder: Path
    case: Json
    recipe: bg.Recipe


@pytest.fixture(scope="module", params=TERMS)
def run(request: pytest.FixtureRequest, shared: Path) -> Recorded:
    """Each recorded run in its turn."""
    folder = shared / request.param
    case = json.loads((folder / "case.json").read_text())
    tasks = ("task0", "task1") if case["distiller"] == "MultiTask" else ()
    adaptors = {"labels": LABELS[case["task"]], "logits_mask": case["logits_mask"]}
    script = Script(DISTILLERS[case["distiller"]], case["teachers"], tasks, **adaptors)  # type: ignore[arg-type]
    config = {"distill_config": case["distillation_config"], "train_config": case["training_config"]}
    text = converted(config, script=script).text
    params = {"student": str(folder / "student_init")}
    given = (line.split()[1] for line in text.splitlines() if line.startswith("param teacher"))
    params |= {param: str(folder / f"teacher{i}") for i, param in enumerate(given)}
    recipe = bg.loads("\n".join(on_batches(text, folder, case)) + "\n", **params)
    return Recorded(request.param, folder, case, recipe)


def on_batches(text: str, folder: Path, case: Json) -> Iterator[str]:
    """The spec with the recorded batches as its data; each task has its own half of them."""
    parts = iter([", first=0, last=2", ", first=3, last=5"] if case["distiller"] == "MultiTask" else [""])
    for line in text.splitlines():
        if line.strip().startswith("data d ="):
            yield f'data d = batches("{folder}", labels="{LABELS[case["task"]]}"{next(parts)})'
        elif not line.startswith(("param train", "param dev")):
            yield line


def test_every_recorded_run_is_converted(shared: Path) -> None:
    """None is left out."""
    assert {path.parent.name for path in shared.glob("*/case.json")} == set(TERMS)


def test_a_recorded_run_has_its_terms(run: Recorded) -> None:
    """The plan's terms, with their weights, in the order in which TextBrewer adds them.

    Teachers of one mean stand in the order of their hashes, which the folders decide.
    """
    for (_, task), graph in run.recipe.graphs.items():
        own = f"{task}." if task else ""
        found = [(term.weight, _in_order(term.equation.replace(own, ""))) for term in spell_out(graph)]
        assert found == TERMS[run.name]
    assert run.recipe._checked.recipe.train.accumulate == run.case["training_config"].get(
        "gradient_accumulation_steps", 1
    )


def _in_order(equation: str) -> str:
    """The equation with what a mean is over in the order of names."""
    return re.sub(r"mean\(\[(.*?)\]\)", lambda m: f"mean([{', '.join(sorted(m[1].split(', ')))}])", equation)


def test_a_recorded_run_begins_with_its_losses(run: Recorded) -> None:
    """On the first batch the loss and each of its terms are those that TextBrewer recorded, to a hundred-thousandth."""
    case, labels = run.case, LABELS[run.case["task"]]
    distiller = run.recipe.build().eval()
    initial = run.folder / "projections_init.safetensors"
    if initial.exists():
        saved = load_file(initial)
        modules = sorted({key.rpartition(".")[0] for key in saved})
        for site, module in zip(PROJECTIONS.get(run.name, list(distiller.projections)), modules, strict=True):
            own = distiller.projections[site].linear
            own.load_state_dict({part: saved[f"{module}.{part}"] for part in ("weight", "bias")})
    source = Batches(folder=str(run.folder), labels=labels)  # type: ignore[arg-type]
    batch: Json = dict(open_batches(source, run.folder).train[0])
    if case["teacher_batch_differs"]:
        batch["big"] = batch.pop("teacher")
    with torch.no_grad():
        found = distiller(batch, task=case["task_order"][0] if case["task_order"] else None)
    first = case["per_step_losses"][0]
    assert float(found.loss) == pytest.approx(first["total_loss"], rel=1e-5)
    terms = {key.rpartition("/")[2]: float(value) for key, value in found.terms.items()}
    told = {TERM_NAMES[key]: value for key, value in first.items() if TERM_NAMES.get(key) in terms}
    assert ("soft" in told) == (case["distiller"] != "Trainer")
    assert {key: terms[key] for key in told} == pytest.approx(told, rel=1e-5)
