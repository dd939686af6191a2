"""Python modules that a spec names: found and read without running anything, imported only where that is allowed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brewgraph.diagnostics import RunError, SourceFault
from brewgraph.ops import OPERATIONS, TRANSFORMS, DeclaredTransform, Operation
from brewgraph.ops.python_files import declared, find_source, load_declared, module_print

LOSSES = '''"""Losses of our own."""

import brewgraph.ops as bg
from brewgraph.ops import operation as loss, transform
import torch.nn.functional as F

register = bg.operation


@loss(
    takes={"hidden -> hidden": "token", "(hidden,hidden) -> (hidden,hidden)": "example"},
    same=("width",),
    source="Huber 1964, "
    "eq. 2.3",
    also=("bend",),
    beta=("number", "where the square ends"),
)
def huber(source, target, *, beta=1.5, layout):
    """Huber's loss.

    More of it.
    """
    return F.huber_loss(target, source, reduction="none", delta=beta).mean(-1)


if True:

    @register(takes={"logits -> logits": "position"}, source="nobody")
    def soft_(source, target, *, kinds=tuple(["logits"])):
        """Nothing."""


@bg.transform(takes={"logits, labels": "logits"}, shape=lambda shapes: shapes[0], source="nobody")
def mixed(logits, labels):
    """A mixture."""
    return logits


@F.operation(takes={})
def foreign():
    """No operation of ours."""


def plain():
    """No operation at all."""
'''
BOOM = 'raise RuntimeError("this module was run")\n'


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Imported modules, their paths and what they register are gone afterwards."""
    registries: tuple[dict[str, Any], ...] = (OPERATIONS, TRANSFORMS)
    known, path, modules = [dict(x) for x in registries], list(sys.path), set(sys.modules)
    yield
    for registry, before in zip(registries, known, strict=True):
        registry.clear()
        registry.update(before)
    sys.path[:] = path
    for module in set(sys.modules) - modules:
        if module.startswith("own_"):
            del sys.modules[module]


def write(folder: Path, files: dict[str, str]) -> None:
    """Files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("own_single", "own_single.py"),
        ("own_package", "own_package/__init__.py"),
        ("own_package.losses", "own_package/losses.py"),
        ("own_package.deep.losses", "own_package/deep/losses.py"),
        ("own_space.losses", "own_space/losses.py"),
        ("own_space", None),
        ("own_package.nothing", None),
        ("own_single.nothing", None),
        ("own_nothing", None),
        ("own single", None),
        ("..own_single", None),
    ],
)
def test_a_module_is_found_beside_the_spec(module: str, file: str | None, tmp_path: Path) -> None:
    """Files, packages, and folders without an `__init__.py`; all of them raise when they are run."""
    write(
        tmp_path,
        dict.fromkeys(
            (
                "own_single.py",
                "own_package/__init__.py",
                "own_package/losses.py",
                "own_package/deep/__init__.py",
                "own_package/deep/losses.py",
                "own_space/losses.py",
            ),
            BOOM,
        ),
    )
    assert find_source(module, tmp_path) == (tmp_path / file if file else None)


def test_what_is_installed_comes_first(tmp_path: Path) -> None:
    """A file beside the spec takes the place of no package."""
    write(tmp_path, {"brewgraph/ops/__init__.py": BOOM, "json.py": BOOM})
    assert find_source("brewgraph.ops.soft", tmp_path) == Path(inspect.getfile(OPERATIONS["ce"].function))
    assert find_source("json", tmp_path) != tmp_path / "json.py"
    assert find_source("math", tmp_path) is None, "a module without text"


def test_the_print_of_a_module_follows_all_that_it_runs(tmp_path: Path) -> None:
    """Its text, its package's, and what either imports beside it, relatively too; not what is installed, nor others."""
    files = {
        "own_package/__init__.py": BOOM,
        "own_package/losses.py": BOOM + "from . import maths\nimport json, numpy\n\ndef f():\n    import own_single\n",
        "own_package/maths.py": BOOM + "from .deep.more import x\n",
        "own_package/deep/more.py": "x = 1\n",
        "own_package/other.py": "",
        "own_single.py": "import own_package.losses, own_package.nothing\n",
    }
    write(tmp_path, files)
    prints = [module_print("own_package.losses", tmp_path)]
    assert prints[0] == module_print("own_package.losses", tmp_path)
    for name in files:
        write(tmp_path, {name: files[name] + "# changed\n"})
        found = module_print("own_package.losses", tmp_path)
        assert (found in prints) is (name == "own_package/other.py"), name
        prints.append(found)
    write(tmp_path, {"own_single.py": "this is no Python"})
    assert module_print("own_package.losses", tmp_path) not in prints
    assert module_print("own_nothing", tmp_path) == module_print("own_nowhere", tmp_path)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_declarations_are_read_off_the_text() -> None:
    """Under whatever name the decorator was imported; others are passed over."""
    found = declared(LOSSES, "own_losses")
    assert list(found) == ["huber", "bend", "soft", "mixed"]
    huber, mixed = found["huber"], found["mixed"]
    assert isinstance(huber, Operation)
    assert isinstance(mixed, DeclaredTransform)
    assert found["bend"] is huber
    assert (huber.key, huber.summary, huber.text) == ("own_losses:huber", "Huber's loss.", "More of it.")
    assert huber.source == "Huber 1964, eq. 2.3"
    assert huber.takes[("(hidden, hidden)", "(hidden, hidden)")] == "example"
    assert huber.same == {"width"}
    assert [(o.name, o.default, o.kind, o.text) for o in huber.options] == [
        ("beta", 1.5, "number", "where the square ends")
    ]
    assert huber.needs_layout
    assert found["soft"].needs_layout is False
    assert isinstance(soft := found["soft"], Operation)
    assert soft.needs_kinds
    assert mixed.result("logits", "labels") == "logits"
    assert [x.function for x in (huber, mixed)] == [None, None]
    assert mixed.shape is None


def test_reading_says_what_importing_says(tmp_path: Path) -> None:
    """The declarations of the text and of the imported module are equal but for what only running gives."""
    write(tmp_path, {"own_losses.py": LOSSES.replace("@F.operation(takes={})\n", "")})
    read = declared((tmp_path / "own_losses.py").read_text(), "own_losses")
    loaded = load_declared("own_losses", tmp_path, True)
    assert loaded.keys() == read.keys()
    for name, declaration in read.items():
        others = {k: v for k, v in vars(loaded[name]).items() if k not in ("function", "shape")}
        assert {k: v for k, v in vars(declaration).items() if k not in ("function", "shape")} == others
        assert callable(loaded[name].function)


def test_reading_runs_nothing() -> None:
    """Not a module that raises, nor what stands in a decorator's place, nor in a default."""
    text = (
        f"from brewgraph.ops import operation\n{BOOM}" + '@operation(takes={"hidden -> hidden": "token"}, source="x")'
    )
    found = declared(f'{text}\ndef calm(source, target):\n    """Nothing."""\n', "own_boom")
    assert list(found) == ["calm"]
    script = f"""
import sys
from brewgraph.ops.python_files import declared
declared({text!r} + '\\ndef calm(source, target):\\n    "Nothing."\\n', "own_boom")
assert "torch" not in sys.modules and "own_boom" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


HEAD = "import brewgraph.ops as bg\nKINDS = {}\n"


@pytest.mark.parametrize(
    ("decorator", "signature", "message", "help"),
    [
        ('takes=KINDS, source="x"', "", "`takes` is no literal", "write it out: `KINDS` is known only when"),
        ('takes={"hidden -> hidden": "token"}, source="x" + name()', "", "`source` is no literal", "`'x' + name()`"),
        ('takes={"hidden -> hidden": "token"}, source="x", T=("number", "t")', "T=float(1)", "the default of `T` is no", "`float(1)`"),
        ('takes={"hidden -> hidden": "token"}', "", "`source` is missing", "write `takes="),
        ('{"hidden -> hidden": "token"}', "", "its arguments are not all keywords", "name=…"),
        ('takes={"hidden -> hidden": "token"}, source="x", **KINDS', "", "its arguments are not all", "name=…"),
        ('takes=["hidden"], source="x"', "", "a keyword is not of its type", "strings to strings"),
        ('takes={"hidden -> hidden": "token"}, source="x", T=3', "T=1.0", "a keyword is not of its type", "strings"),
    ],
)  # fmt: skip
def test_what_is_no_literal_is_said(decorator: str, signature: str, message: str, help: str) -> None:
    """With the function, its line, and what to write."""
    arguments = "source, target" + (f", *, {signature}" if signature else "")
    text = f'{HEAD}@bg.operation({decorator})\ndef odd({arguments}):\n    """Nothing."""\n'
    with pytest.raises(SourceFault) as caught:
        declared(text, "own_odd")
    assert caught.value.code == "B330"
    assert str(caught.value).startswith(f"the declaration of `odd` in line 4 of `own_odd` cannot be read: {message}")
    assert help in caught.value.help


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "`own_odd` is not valid Python: "),
        (f'{HEAD}@bg.operation\ndef odd(a, b):\n    """X."""\n', "the decorator has no keywords"),
        (
            f'{HEAD}@bg.operation(takes={{"hiden -> hidden": "token"}}, source="x")\ndef odd(a, b):\n    """X."""\n',
            "unknown kind in hiden -> hidden",
        ),
        (
            f'{HEAD}@bg.operation(takes={{"hidden -> hidden": "token"}}, source="x")\ndef odd(a, b):\n    pass\n',
            "it has no docstring",
        ),
    ],
)
def test_other_faults_of_a_module(text: str, message: str) -> None:
    """Broken text, and what the decorator itself would refuse."""
    with pytest.raises(SourceFault) as caught:
        declared(text, "own_odd")
    assert caught.value.code == "B330"
    assert message in str(caught.value)
    assert caught.value.help


# ── importing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_module_beside_the_spec_is_imported_only_where_allowed(tmp_path: Path) -> None:
    """The words are those for a model's factory."""
    write(tmp_path, {"own_losses.py": LOSSES.replace("@F.operation(takes={})\n", "")})
    with pytest.raises(RunError, match=r"`own_losses` is in no installed package; .*--allow-python"):
        load_declared("own_losses", tmp_path, False)
    assert "own_losses" not in sys.modules
    found = load_declared("own_losses", tmp_path, True)
    assert OPERATIONS["own_losses:huber"] is found["huber"] is OPERATIONS["bend"]
    assert TRANSFORMS["own_losses:mixed"].shape((("batch", 3), ("batch",))) == ("batch", 3)


def test_an_installed_module_is_imported_without_asking(tmp_path: Path) -> None:
    """It may declare nothing."""
    assert load_declared("networkx", tmp_path, False) == {}


def test_a_module_that_fails_is_a_fault_of_the_spec(tmp_path: Path) -> None:
    """One that is not there, and one that raises."""
    write(tmp_path, {"own_boom.py": BOOM})
    with pytest.raises(
        SourceFault, match=r"`own_boom` cannot be imported: RuntimeError: this module was run"
    ) as caught:
        load_declared("own_boom", tmp_path, True)
    assert (caught.value.code, bool(caught.value.help)) == ("B317", True)
    with pytest.raises(SourceFault, match="`own_absent` cannot be imported: No module named"):
        load_declared("own_absent", tmp_path, True)
