"""The laws of the house: who imports whom, what stays unloaded, how long a module may be, that names are true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import networkx as nx
import pytest

import brewgraph
from brewgraph.explanations import CODES, explained
from brewgraph.ops import OPERATIONS

PACKAGE = Path(brewgraph.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
CIRCLES_LEFT: list[set[str]] = []
"""Circles of modules that still wait to be opened; no others may come."""


@cache
def tree_of(path: Path) -> ast.Module:
    """A module's text, parsed once for all laws."""
    return ast.parse(path.read_text(encoding="utf-8"))


def room(module: str) -> str:
    """`syntax` for `brewgraph.syntax.parser`."""
    return [*module.split("."), ""][1]


def test_contracts_of_imports() -> None:
    """Laws 1 and 2, as pyproject.toml has them: the order of the rooms, and who needs neither torch nor transformers."""
    # in a process of its own: it sets up logging for all
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_circles() -> None:
    """Law 1: no module imports itself by any way round; deferred imports and those for type checkers count."""
    modules = grimp.build_graph("brewgraph", cache_dir=None)
    graph = nx.DiGraph((m, t) for m in modules.modules for t in modules.find_modules_directly_imported_by(m))
    assert [circle for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == CIRCLES_LEFT


LIGHT = sorted(
    m
    for m in MODULES
    if room(m)
    in {"source", "diagnostics", "explanations", "syntax", "ops", "recipe", "graph", "lints", "display", "api", ""}
)
HEAVY = ("torch", "transformers", "datasets", "accelerate", "torchmetrics", "tokenizers", "numpy.random")


def loaded_after(statements: str) -> set[str]:
    """Which heavy packages a fresh Python has loaded after these statements."""
    script = f"{statements}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(ast.literal_eval(done.stdout.strip()))


def test_the_light_rooms_stay_light() -> None:
    """Law 2: syntax, ops, recipe, graph, lints, and the package itself, load neither torch nor transformers."""
    assert loaded_after("import brewgraph") == set()
    assert loaded_after("\n".join(f"import {m}" for m in LIGHT)) == set()


def test_names_and_kinds_are_checked_without_torch() -> None:
    """Law 2: so is the part of `check` that needs no model, on a spec that is sound."""
    spec = 'student s = hf(model_type="bert")\\ndata d = files(train="t")\\nloss = ce(d.labels -> s.logits)\\n'
    imported = "from brewgraph.checking.check import check_names\nfrom brewgraph.source import Source\n"
    script = f'{imported}check_names(Source("""{spec}"""), {{}})'
    assert loaded_after(script) == set()


def test_the_test_of_lightness_can_fail() -> None:
    """What does load a heavy package is found."""
    assert loaded_after("import brewgraph, tokenizers") == {"tokenizers"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_hold_one_concept_and_say_what_they_are(module: str) -> None:
    """Law 10: a module of more than 800 lines is looked at again; each that holds anything begins with a docstring."""
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 800
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{module} has no docstring"


def test_public_functions_have_docstrings() -> None:
    """Whatever the package exports says what it does."""
    for name in brewgraph.__all__:
        assert getattr(brewgraph, name).__doc__, name


def test_all_is_true() -> None:
    """`__all__` names what is there, all of it, in order, and nothing that is not public."""
    names = brewgraph.__all__
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    public = {
        name
        for name, value in vars(brewgraph).items()
        if not name.startswith("_")
        and not isinstance(value, type(sys))
        and getattr(value, "__module__", "") != "__future__"
    }
    assert public == set(names)


def test_operations_are_documented() -> None:
    """Law 5: one declaration says all; none may leave its words out."""
    for name, operation in OPERATIONS.items():
        assert operation.summary, name
        assert operation.source, name
        assert all(option.text for option in operation.options), name


def test_nothing_pickles_or_evaluates_text() -> None:
    """No module reads pickles or runs text as Python: a spec and a checkpoint are data."""
    for module, path in MODULES.items():
        for call in (x for x in ast.walk(tree_of(path)) if isinstance(x, ast.Call)):
            name = ast.unparse(call.func)
            assert name not in {"eval", "exec", "pickle.load", "pickle.loads"}, f"{module}:{call.lineno} calls {name}"
            if name == "torch.load":
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)
                assert safe, f"{module}:{call.lineno} reads a pickle without weights_only=True"


def reported() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call that reports a fault of a spec: its module, itself, and its code, empty where it is no constant."""
    for module, path in MODULES.items():
        for call in (x for x in ast.walk(tree_of(path)) if isinstance(x, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            first = call.args[0] if call.args else None
            if name in ("add", "fault", "SourceFault", "Diagnostic"):
                yield module, call, str(first.value) if isinstance(first, ast.Constant) else ""


def test_every_fault_has_a_remedy() -> None:
    """Law 7: whatever is reported about a spec says what to do about it; B901 has one remedy for all."""
    for module, call, code in reported():
        if room(module) not in {"syntax", "recipe", "graph", "lints", "data", "models", "project"}:
            continue
        if not code.startswith(("B", "W")) or code == "B901":
            continue
        help = next((k.value for k in call.keywords if k.arg == "help"), None)
        if isinstance(call.func, ast.Name) and call.func.id == "Diagnostic":
            help = call.args[3] if len(call.args) > 3 else help
        assert help is not None, f"{module}:{call.lineno}: {code} has no help"
        assert not (isinstance(help, ast.Constant) and not help.value), f"{module}:{call.lineno}: {code}"


def test_every_code_is_in_the_list_and_every_warning_has_a_page() -> None:
    """`brewgraph explain` knows every code that something reports, and none that nothing does."""
    texts = "".join(path.read_text(encoding="utf-8") for m, path in MODULES.items() if room(m) != "explanations")
    assert set(CODES) <= set(re.findall(r'"([BW]\d{3})"', texts))
    used = {code for _, _, code in reported() if re.fullmatch(r"[BW]\d{3}", code)}
    assert used - set(CODES) == set(), "write a line for each in explanations/codes.toml"
    assert {code for code in CODES if code.startswith("W")} - set(explained()) == set(), "write a page for each"
