"""`brewgraph ops`: the table, and a page for everything in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brewgraph import loads
from brewgraph.cli.ops import EXAMPLES, example
from brewgraph.data.sources.python_docs import LABELS
from brewgraph.ops import KINDS, OPERATIONS, PROJECTIONS, TEMPERATURES, TRANSFORMS, UNITS, side_kinds
from brewgraph.ops import SCHEDULES as WEIGHTS
from brewgraph.recipe.evaluate.calls import FUNCTIONS
from brewgraph.recipe.settings.augmentations import AUGMENTATIONS
from brewgraph.recipe.settings.data_sources import DATA
from brewgraph.recipe.settings.model_sources import ADAPTERS, HEADS, MODELS
from brewgraph.recipe.settings.train import OPTIMIZERS, SCHEDULES, Train
from tests.cli.tiny import command

NAMES = [
    *OPERATIONS,
    *TRANSFORMS,
    *TEMPERATURES,
    *PROJECTIONS,
    *WEIGHTS,
    *FUNCTIONS,
    *MODELS,
    *HEADS,
    *ADAPTERS,
    *DATA,
    *AUGMENTATIONS,
    *OPTIMIZERS,
    *SCHEDULES,
    "train",
]


def page_of(name: str | None = None, columns: int = 400) -> str:
    """What the command prints of a name in a terminal of so many columns."""
    result = command("ops", *([name] if name else []), env={"COLUMNS": str(columns)})
    assert result.exit_code == 0
    return result.stdout


def test_the_table_lists_everything_with_a_line_each():
    """Every name of every registry has a summary behind it."""
    rows = [line.split(maxsplit=1) for line in page_of().splitlines() if line.startswith("  ")]
    assert [row[0] for row in rows] == NAMES
    assert all(len(row) == 2 for row in rows)


@pytest.mark.parametrize("name", dict.fromkeys(NAMES))
def test_everything_has_a_page(name: str):
    """The page begins with the name; in a terminal of 80 columns no line is longer, and nothing of it is lost."""
    page, narrow = page_of(name), page_of(name, columns=80)
    assert page.startswith(name)
    assert page.split() == narrow.split()
    assert max(map(len, narrow.splitlines())) <= 80


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_takes_and_where_it_comes_from(name: str):
    """Kinds with the meaning of their unit, options with their default, the source, an example."""
    operation, page = OPERATIONS[name], page_of(name)
    for (a, b), unit in operation.takes.items():
        line = next(line for line in page.splitlines() if line.startswith(f"  {a} -> {b} "))
        assert line.endswith(UNITS[unit])
        assert all(KINDS[kind] in page for side in (a, b) for kind in side_kinds(side))
    for option in operation.options:
        assert f"  {option.name} = {option.default:g}" in page
        assert option.text in page
    assert operation.summary in page
    assert page.endswith(f"source: {operation.source}\n")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_says_what_it_takes_and_gives(name: str):
    """Kinds with their meaning, options with their default, the source, an example."""
    transform, page = TRANSFORMS[name], page_of(name)
    for kinds, result in transform.takes.items():
        line = next(line for line in page.splitlines() if line.startswith(f"  {', '.join(kinds)} "))
        assert line.endswith(f"gives {result}")
        assert all(KINDS[kind] in page for kind in (*kinds, result))
    assert all(f"  {o.name} = {o.default:g}" in page and o.text in page for o in transform.options)
    assert ("  mask = …" in page) is transform.needs_layout
    assert transform.summary in page
    assert f"  {name}({', '.join(example(kind, 'big') for kind in next(iter(transform.takes)))})\n" in page
    assert page.endswith(f"source: {transform.source}\n")


@pytest.mark.parametrize("name", TEMPERATURES)
def test_a_temperature_says_what_it_does(name: str):
    """Options with their default, that it couples the batch, an example, the source."""
    temperature, page = TEMPERATURES[name], page_of(name)
    assert page.startswith(f"{name}(base, beta=1")
    assert all(f"  {o.name} = {o.default:g}" in page and o.text in page for o in temperature.options)
    assert "depends on the other examples of its batch" in page
    assert f"  soft = ce(big.logits -> small.logits, T={name}(4))\n" in page
    assert page.endswith(f"source: {temperature.source}\n")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("ramp", "ramp(1 -> 0)"),
        ("cosine", "cosine(1 -> 0)"),
        ("piecewise", "piecewise(0%: 1, 30%: 0.2)"),
        ("after", "after(30%)"),
    ],
)
def test_a_schedule_shows_how_it_is_written(name: str, call: str):
    """Each has arguments of its own."""
    assert f"  loss = {call} * soft + hard\n" in page_of(name)


def test_another_name_has_the_same_page():
    """Under its own heading; the table says whose name it is."""
    pages = [page_of(name) for name in ("fsp", "gram")]
    assert [page.splitlines()[0] for page in pages] == [
        "fsp(from -> to)   a loss, also called gram",
        "gram(from -> to)   a loss, also called fsp",
    ]
    assert pages[0].splitlines()[1:-4] == pages[1].splitlines()[1:-4]
    assert "  gram = gram((big.hidden[0], big.hidden[1]) -> (small.hidden[0], small.hidden[1]))\n" in pages[1]
    assert next(x for x in page_of().splitlines() if x.startswith("  mmd ")).endswith("another name of nst")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [(name, kinds) for name, operation in OPERATIONS.items() for kinds in list(operation.takes)[:1]],
)
def test_the_example_of_an_operation_is_sound(name: str, kinds: tuple[str, str]):
    """The line that a page prints checks in a spec."""
    line = f"{name} = {name}({example(kinds[0], 'big')} -> {example(kinds[1], 'small')})"
    assert f"  {line}\n" in page_of(name)
    model = 'hf(model_type="bert", num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=16{0})'
    labels = ", labels=[" + ", ".join(f'"{label}"' for label in LABELS) + "]"
    spec = f"""
    brew 1
    teacher big   = {model.format(labels)}
    student small = {model.format("")}
    data docs     = builtin("python-docs")
    {line}
    loss = {name}
    """
    assert [warning.code for warning in loads(spec).warnings] == ["W302"]  # its teacher is random


def test_every_kind_that_an_operation_takes_has_an_example():
    """A new kind needs its line in the table of examples."""
    sides = {side for operation in OPERATIONS.values() for pair in operation.takes for side in pair}
    sides |= {kind for transform in TRANSFORMS.values() for kinds in transform.takes for kind in kinds}
    taken = {kind for side in sides for kind in side_kinds(side)}
    assert taken <= EXAMPLES.keys()


def test_the_settings_of_train_are_published_with_type_default_and_meaning():
    """Two lines per setting, in the order of the model."""
    lines = page_of("train").splitlines()[4:]
    cells = {row.split()[0]: (row.strip(), words.strip()) for row, words in zip(lines[::2], lines[1::2], strict=True)}
    assert list(cells) == list(Train.model_fields)
    assert cells["seed"] == ("seed = 0   integer", "the seed of everything random")
    assert cells["precision"][0] == "precision = fp32   fp32 | bf16 | fp16"
    assert cells["eval_steps"][0] == "eval_steps = 1 epoch   length: 10%, 500 steps, 1 epochs"
    assert cells["optimizer"][0].startswith("optimizer = adamw()   ")
    assert (
        page_of("files").splitlines()[page_of("files").splitlines().index("  train   text; needed") + 1].strip()
        == "file with the training examples"
    )


def test_a_name_with_two_meanings_has_two_pages():
    """`linear` projects, and lets a learning rate fall."""
    page = page_of("linear")
    assert "linear   a projection: a linear map with bias" in page
    assert "linear   a learning rate's schedule" in page


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kdd", "there is no `kdd`: did you mean `kd`?"),
        ("zzzz", "there is no `zzzz`: `brewgraph ops` lists all names"),
        ("generate", "`generate` belongs to the language, but is not supported in this version"),
    ],
)
def test_an_unknown_name_ends_with_2(name: str, said: str):
    """With a suggestion where one is near."""
    result = command("ops", name)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {said}\n")


def test_the_page_of_settings_is_fresh() -> None:
    """docs/settings.md is what the command writes: the settings themselves are its one source."""
    from brewgraph.cli.ops import settings_page

    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == "\n".join(settings_page()) + "\n"


@pytest.mark.parametrize("name", dict.fromkeys(NAMES))
def test_every_page_is_markdown_too(name: str) -> None:
    """Under a title; the same arguments, source and example as in the terminal."""
    page = command("ops", name, "--format", "markdown").stdout
    assert page.startswith("# ")
    assert page.count("```") % 2 == 0
    if name in OPERATIONS:
        operation = OPERATIONS[name]
        assert page.startswith(f"# {name}\n\n`{name}(from -> to")
        assert f"\n{operation.summary}\n\n```math\n" in page
        assert all(f"| `{a} -> {b}` | {UNITS[unit]} |" in page for (a, b), unit in operation.takes.items())
        assert f"```brew fragment\n{name} = {name}(" in page
        assert page.endswith(f"## Source\n\n{operation.source}\n")


def test_the_table_is_markdown_too() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \|$", command("ops", "--format", "markdown").stdout, re.MULTILINE)
    assert rows == NAMES


def test_a_formula_is_printed_below_the_summary() -> None:
    """In a terminal as the declaration states it."""
    lines = page_of("relation").splitlines()
    assert lines[lines.index("    softmax(x xᵀ / √d)") - 2] == TRANSFORMS["relation"].summary


def test_every_call_that_a_page_takes_has_a_page():
    """`init = none   layers(…) | none` on the page of `hf` leads to `brewgraph ops layers`."""
    called = {word for name in NAMES for word in re.findall(r"(\w+)\(…\)", page_of(name))}
    assert {"layers", "lora"} <= called
    assert all(page_of(word).startswith(word) for word in called)
