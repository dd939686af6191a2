"""The page for those who come from TextBrewer keeps its word: no cell is empty, its specs are sound, its tests exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import pytest

from brewgraph.checking.check import check_names
from brewgraph.cli.main import COMMANDS
from brewgraph.convert.config import DistillationConfig, MatchEntry, TrainingConfig
from brewgraph.convert.convert import NAMES
from brewgraph.diagnostics import Collector
from brewgraph.ops.projections import PROJECTIONS
from brewgraph.source import Source
from brewgraph.syntax.parser import parse
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "from-textbrewer.md").read_text(encoding="utf-8")
SPAN = re.compile(r"`([^`]+)`")
GIVEN = {
    "T": "param T = 4",
    "bert": 'teacher bert = hf("x/bert")',
    "a": 'teacher a = hf("x/a")',
    "b": 'teacher b = hf("x/b")',
    "tiny": 'student tiny = hf("x/tiny")',
    "d": 'data d = files(train="train.jsonl", dev="dev.jsonl")',
    "map": "let map = [0, 4] -> [0, 1]",
    "teachers": "let teachers = [a, b]",
}
"""What the page says that its fragments stand on, by name."""


def rows() -> list[tuple[str, ...]]:
    """The cells of every row of its tables, without the titles."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return [row for row in cells if not set("".join(row)) <= {"-"} and row[2:3] != ("test",)]


def fragments() -> Iterator[str]:
    """What its second column says in the language: neither a command nor Python."""
    for row in rows():
        yield from (span for span in SPAN.findall(row[1]) if not span.startswith(("brewgraph ", "accelerate ", "bg.")))


def test_no_cell_is_empty() -> None:
    """Four cells in every row, each with words in it; what it is and the test are named exactly."""
    assert len(rows()) > 90
    for row in rows():
        assert len(row) == 4, row
        assert all(len(cell.strip("` ")) > 1 for cell in row), row
        assert SPAN.findall(row[1]), row


@pytest.mark.parametrize("fragment", sorted(set(fragments())))
def test_a_fragment_parses_and_its_names_are_sound(fragment: str) -> None:
    """On the models and data that the page names, none of its names, options and kinds is at fault."""
    collector = Collector()
    parse(Source(f"brew 1\n{fragment}\n", "fragment"), collector)
    assert collector.diagnostics == []
    own = {name for name, line in GIVEN.items() if re.search(rf"\b{line.split()[0]} {name}\b", fragment)}
    lines = [line for name, line in GIVEN.items() if name not in own]
    if re.search(r"\bstudent net\b", fragment):
        lines = [line.replace("student tiny", "teacher tiny") for line in lines]
    if re.search(r"\bdata other\b", fragment) or re.match(r"task ", fragment):
        lines = [line for line in lines if not line.startswith("data d")]
    if not re.search(r"\bloss = ", fragment):
        student = "net" if re.search(r"\bstudent net\b", fragment) else "tiny"
        data = "other" if re.search(r"\bdata other\b", fragment) else "d"
        lines.append(f"loss = mse(bert({data}).hidden[0] -> {student}({data}).hidden[0] via linear)")
    if fragment.startswith("import "):
        return  # what it names is not there; it has parsed
    check_names(Source("\n".join(["brew 1", *lines, fragment, ""]), "page"), {})


def test_fragments_can_fail() -> None:
    """The check above finds an option that is none."""
    with pytest.raises(Exception, match="no option `temp`"):
        test_a_fragment_parses_and_its_names_are_sound("x = ce(bert.logits -> tiny.logits, temp=4)")


@pytest.mark.parametrize("named", sorted({span for row in rows() for span in SPAN.findall(row[2])}))
def test_a_named_test_exists(named: str) -> None:
    """The file is there, and the function stands in it."""
    path, _, name = named.partition("::")
    assert path.startswith("tests/")
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    assert name
    assert re.search(rf"^def {name}\(", text, re.M)


def test_named_files_and_commands_exist() -> None:
    """What its paragraphs name, and every `brewgraph VERB`."""
    for path in set(re.findall(r"`((?:tests|specs|docs)/[\w./-]+)`", PAGE)):
        assert (REPOSITORY / path).exists(), path
    verbs = set(re.findall(r"(?:`|\$ )brewgraph ([a-z]+)", PAGE))
    assert {"convert", "params", "run", "check"} <= verbs <= set(COMMANDS)


@cache
def _first_column() -> str:
    return " ".join(row[0] for row in rows())


@pytest.mark.parametrize(
    "notion",
    sorted({
        *DistillationConfig.model_fields, *TrainingConfig.model_fields, *MatchEntry.model_fields, *NAMES, *PROJECTIONS,
        "GeneralDistiller", "BasicDistiller", "MultiTeacherDistiller", "MultiTaskDistiller", "BasicTrainer",
        "AbstractDistiller", "CustomMatch", "add_match", "BasicAdaptor", "TrainingConfig", "DistillationConfig",
        "logits", "logits_mask", "losses", "inputs_mask", "labels", "hidden", "attention", "teacher_cache", "ADAPTOR_KEYS",
        "FEATURES", "KD_LOSS_MAP", "MATCH_LOSS_MAP", "PROJ_MAP", "WEIGHT_SCHEDULER", "TEMPERATURE_SCHEDULER", "MAPS",
        "register_new", "linear_decay", "linear_growth", "constant", "flsw", "cwsm", "EMD", "kd_ce_loss", "kd_mse_loss",
        "display_parameters", "masking", "deleting", "n_gram_sampling", "short_disorder", "long_disorder",
        "batch_postprocessor", "callback", "tau", "max_grad_norm", "num_epochs", "num_steps", "scheduler_class",
        "custom_matches", "dataloaders", "batch_postprocessors", "BERTAdam", "optimizer", "dataloader", "TensorBoard", "DDP", "BiGRU", "matches.py", "from_json_file", "from_dict",
    }),
)  # fmt: skip
def test_every_notion_has_a_row(notion: str) -> None:
    """Each class, option, loss, schedule, projection, key and utility stands in a first column."""
    assert re.search(rf"(?<![\w]){re.escape(notion)}(?![\w])", _first_column())
