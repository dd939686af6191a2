"""The recipes under specs/textbrewer: every command of their README checks, plans, and trains on tiny stand-ins."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.cli.options import parse_sets
from brewgraph.display.plan import Plan
from brewgraph.inspect.plan_of import plan_of
from tests.small import metrics, rows, tokenizer, write_rows

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "specs" / "textbrewer"
LINE = re.compile(r"^\| (?P<name>[^|]+) \| `brewgraph run (?P<command>[^`]+)` \| (?P<score>[^|]+) \| [^|]* \|$", re.M)
COMMANDS = {found["command"]: found["score"] for found in LINE.finditer((RECIPES / "README.md").read_text())}
"""The commands of the README's table, and what was published for each."""

WIDTH, NARROW, INNER = 24, 12, 32
LAYERS = {"t6": 6, "t3": 3, "t3-small": 3, "t4-tiny": 4, "t12-nano": 12, "electra-small": 12}
PAIRS = {"t6": 7, "t3": 4, "t3-small": 4, "t4-tiny": 5, "t12-nano": 7, "electra-small": 7}
"""Pairs of layers of each student's policy: as many terms of `mse`, and as many of `nst`."""
WITHOUT_STUDENT = {
    # terms by operation
    "mnli-t4-tiny": {"ce": 1, "mse": 5, "nst": 5},
    "mnli-emd": {"ce": 1, "mse": 1, "emd": 1},
    "mnli-multi-teacher": {"ce": 1},
    "mnli-t4-tiny-attention": {"ce": 1, "mse": 5 + 4, "nst": 5},
    "mnli-t4-tiny-attention-multi-teacher": {"ce": 1, "mse": 3 * (5 + 4), "nst": 3 * 5},
    "squad-multi-teacher": {"ce": 2},
    "squad-notebook": {"ce": 2, "nst": 4},
    "conll-t3": {"ce": 1},
    "conll-bigru": {"ce": 1},
    "msra-electra-small": {"ce": 1},
    "msra-notebook": {"ce": 1, "mse": 4},
    "sst2-notebook": {"ce": 1, "mse": 2},
    "random-tokens": {"ce": 1, "mse": 2, "nst": 2},
}


def parts(command: str) -> tuple[Path, dict[str, Any]]:
    """The spec and the params of a command."""
    path, *rest = shlex.split(command)
    return REPOSITORY / path, parse_sets([word for word in rest if word != "--set"])


def student_of(path: Path, params: Mapping[str, Any]) -> str:
    """Which of the students a recipe trains; empty where it has one of its own."""
    found = re.search(r'^param student = "([\w-]+)"', path.read_text(), re.M)
    return str(params.get("student", found[1] if found else ""))


# ── stand-ins ────────────────────────────────────────────────────────────────────────────────────────────────────────


def language_model(folder: Path, kind: str, width: int, heads: int, *, weights: bool, seed: int) -> None:
    """A pretrained model of 12 layers, or its configuration alone, with its tokenizer."""
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": INNER, "num_hidden_layers": 12}
    more = {"vocab_size": 120, "pad_token_id": 0, "max_position_embeddings": 160}
    config = AutoConfig.for_model(kind, **sizes, **more, **({"embedding_size": 8} if kind == "electra" else {}))
    config.architectures = [f"{'Bert' if kind == 'bert' else 'Electra'}ForMaskedLM"]  # as those on the hub say
    torch.manual_seed(seed)
    (AutoModelForMaskedLM.from_config(config) if weights else config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def make_world(folder: Path, *, weights: bool) -> Path:
    """Models and data for all recipes: pairs and single texts, tagged words, questions, ready tensors."""
    language_model(folder / "bert", "bert", WIDTH, 12, weights=weights, seed=1)
    language_model(folder / "electra", "electra", WIDTH, 12, weights=weights, seed=2)
    language_model(folder / "small", "electra", NARROW, 4, weights=weights, seed=3)
    for split, count, seed in (("train", 12, 1), ("validation", 6, 2)):
        texts = rows(count, seed)
        others = [row["text"] for row in rows(count, seed + 10)]
        for name, (first, second, label) in {
            "pairs": ("premise", "hypothesis", "label"),
            "lcqmc": ("sentence1", "sentence2", "score"),
            "sst2": ("sentence", "", "label"),
        }.items():
            made = [{first: r["text"], second: o, label: r["label"]} for r, o in zip(texts, others, strict=True)]
            write_rows(folder / name / f"{split}.jsonl", [{k: v for k, v in row.items() if k} for row in made])
        for name, part in (("", texts), ("half-", texts[: count // 2]), ("more-", rows(count // 2, seed + 20))):
            (folder / f"{name}{split}.txt").write_text("\n".join(map(_tagged, part)))
            (folder / f"{name}{split}.json").write_text(json.dumps({"data": [{"paragraphs": list(map(_asked, part))}]}))
    (folder / "tensors").mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for i in range(3):
        tensors[f"{i}.input_ids"] = torch.randint(5, 100, (4, 16))
        tensors[f"{i}.attention_mask"] = torch.ones(4, 16, dtype=torch.int64)
        tensors[f"{i}.labels"] = torch.randint(0, 2, (4,))
    save_file(tensors, folder / "tensors" / "batches.safetensors")
    return folder


def _tagged(row: Mapping[str, str]) -> str:
    """A sentence of one word per line, where long words are names of persons."""
    return "".join(f"{word} {'B-PER' if len(word) > 5 else 'O'}\n" for word in row["text"].split())


def _asked(row: Mapping[str, str]) -> dict[str, Any]:
    """A paragraph whose last word is the answer."""
    start = row["text"].rfind(" ") + 1
    answers = [{"text": row["text"][start:], "answer_start": start}]
    return {"context": row["text"], "qas": [{"id": row["text"], "question": "what light", "answers": answers}]}


def on_stand_ins(path: Path, given: Mapping[str, Any], world: Path) -> dict[str, Any]:
    """The params of a command that runs on stand-ins: folders, small widths, three steps."""
    declared = set(re.findall(r"^param (\w+)", path.read_text(), re.M))
    student, name = student_of(path, given), path.stem
    electra = student == "electra-small" or name in ("msra", "msra-electra-small")
    table = "sst2" if "sst2" in name else "lcqmc" if name == "lcqmc" else "pairs"
    form = "txt" if name.startswith(("conll", "msra")) else "json"
    half = "half-" if "more" in declared else ""
    values = {
        "base": world / ("electra" if electra else "bert"),
        "model": world / ("small" if electra else "bert"),
        "data": world / ("tensors" if name == "random-tokens" else table),
        "subset": "default",
        "train": world / f"{half}train.{form}",
        "more": world / f"more-train.{form}",
        "dev": world / f"validation.{form}" if "train" in declared else "validation",
        "test": "validation",
        "width": WIDTH if student in ("t6", "t3") else NARROW,
        "inner": INNER,
        "max_length": 32,
        "stride": 4,
        "teacher_stride": 4,
        "batch": 4,
        "precision": "fp32",
        "epochs": 1 if "batch" in declared or name == "random-tokens" else 3,
        "teacher_epochs": 1,
    }
    kept = {key: str(value) if isinstance(value, Path) else value for key, value in values.items() if key in declared}
    return {**given, **kept}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations, tokenizers and data; no weights."""
    return make_world(tmp_path_factory.mktemp("world"), weights=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with weights, and a folder of runs, where a teacher is trained once for all who have it."""
    return make_world(tmp_path_factory.mktemp("trained"), weights=True)


# ── what the files say ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_readme_names_every_recipe_and_the_recipe_its_score() -> None:
    """No spec without a command, and the comment of each holds what the table says was published."""
    named = {parts(command)[0] for command in COMMANDS}
    of_notebooks = {RECIPES / "teachers" / f"{name}-notebook.brew" for name in ("msra", "sst2", "squad")}
    there = {path for path in RECIPES.glob("**/*.brew") if not {"lib", "runs"} & set(path.relative_to(RECIPES).parts)}
    assert there - named == of_notebooks
    assert len(COMMANDS) == 59
    for command, score in COMMANDS.items():
        said = " ".join(line.lstrip("# ") for line in parts(command)[0].read_text().splitlines())
        assert score == "–" or score in said, command


@pytest.mark.parametrize("name", ["mnli-t4-tiny-attention", "mnli-t4-tiny-attention-multi-teacher"])
def test_fourteen_terms_beside_the_logits_in_25_lines(name: str, world: Path) -> None:
    """Hidden states, Gram matrices and attention of both T4-tiny specs; neither imports anything."""
    lines = [line.strip() for line in (RECIPES / f"{name}.brew").read_text().splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    assert len(code) <= 25
    assert not any(line.startswith("import") for line in code)
    checked, plan = planned(RECIPES / f"{name}.brew", {}, world)
    teachers = len(checked.recipe.teachers)
    (part,) = plan.parts or ()
    between = [term for term in part.terms if "soft" not in term.names]
    assert len(part.terms) - len(between) == 1
    assert len(between) == 14 * teachers
    assert len(plan.projections or ()) == 5  # a teacher more brings no projection more
    assert {term.weight for term in between} == ({"1"} if teachers == 1 else {between[0].weight})


# ── check and plan ───────────────────────────────────────────────────────────────────────────────────────────────────


def planned(path: Path, given: Mapping[str, Any], world: Path) -> tuple[Any, Plan]:
    """The checked recipe on stand-ins, of which there is nothing to say, and its plan."""
    checked = check(read_spec(path), on_stand_ins(path, given, world))
    untrained = ["the teacher `bert` keeps random weights: teachers are never trained"]
    assert [warning.message for warning in checked.warnings] == (untrained if path.stem == "random-tokens" else [])
    return checked, plan_of(checked, cost=False)


def operations(plan: Plan) -> Counter[str]:
    """How many terms of each operation the loss has."""
    (part,) = plan.parts or ()
    return Counter(re.match(r"\w+", term.equation)[0] for term in part.terms)  # type: ignore[index]


def once_quickly() -> Iterator[Any]:
    """All commands; the first of each spec is not slow, its other students are."""
    seen: set[Path] = set()
    for command in COMMANDS:
        path, _ = parts(command)
        yield pytest.param(command, marks=[pytest.mark.slow] if path in seen else [])
        seen.add(path)


@pytest.mark.parametrize("command", list(once_quickly()))
def test_every_command_checks_and_plans(command: str, world: Path) -> None:
    """On models of 12 layers without weights: each policy has its terms, each student its layers."""
    path, given = parts(command)
    checked, plan = planned(path, given, world)
    student, spans = student_of(path, given), path.stem.startswith(("squad", "cmrc", "drcd"))
    if path.parent.name == "teachers":
        assert operations(plan) == {"ce": 2 if spans else 1}
        return
    wanted = WITHOUT_STUDENT.get(path.stem) or {"ce": 1 + spans, "mse": PAIRS[student], "nst": PAIRS[student]}
    assert operations(plan) == wanted
    if student:
        assert plan.student.layers == LAYERS[student]
        projected = student not in ("t6", "t3")
        assert len(plan.projections or ()) == (PAIRS[student] if projected else 0)
    # most are matched with logits alone, which say no more of a head than the teacher does
    heads = {
        checked.facts(model).description.auto_class for model in (checked.recipe.student, *checked.recipe.teachers)
    }
    if path.stem != "random-tokens":
        kind = "Question" if spans else "Token" if path.stem.startswith(("conll", "msra")) else "Sequence"
        assert [name.removeprefix("AutoModelFor").startswith(kind) for name in heads] == [True]


@pytest.mark.parametrize(
    ("name", "without_padding"),
    [("squad-notebook", 0), ("msra-notebook", 0), ("sst2-notebook", 1), ("random-tokens", 5)],
)
def test_what_notebooks_leave_to_defaults_is_theirs(name: str, without_padding: int, world: Path) -> None:
    """`train` of TextBrewer clips nothing by itself, and transformers' former AdamW decays nothing; adaptors of notebooks
    give no mask, so that padding counts in every term, but for logits of whole examples, which have none."""
    checked, plan = planned(RECIPES / f"{name}.brew", {}, world)
    settings = checked.recipe.train
    assert settings.max_grad_norm is None
    assert (settings.optimizer.eps, settings.optimizer.weight_decay) == (1e-6, 0)
    (part,) = plan.parts or ()
    assert sum("mask=none" not in term.equation for term in part.terms) == without_padding


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_trains(command: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps with a finite loss, which move the student; teachers are trained before where they are specs."""
    path, given = parts(command)
    if path.stem == "mnli-emd":
        pytest.importorskip("ot")
    monkeypatch.chdir(trained)
    monkeypatch.setenv("BREWGRAPH_RUNS", "runs")
    result = bg.run(path, params=on_stand_ins(path, given, trained))
    lines = [line for line in metrics(result.folder) if "loss" in line]
    assert lines[-1]["step"] == 3
    assert 0 < lines[-1]["loss"] < 1e6
    assert load_file(result.folder / "student" / "model.safetensors")
    if path.stem not in ("random-tokens",):
        assert result.table[-1].scores
