"""The laws of the house: who may import whom, what stays unloaded, how long a module may be, that names are true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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
LAYERS = [
    {"source"},
    {"diagnostics"},
    {"paths", "digest"},
    {"explanations"},
    {"syntax"},
    {"ops"},
    {"recipe"},
    {"graph"},
    {"lints"},
    {"models", "data"},
    {"runtime"},
    {"training"},
    {"project"},
    {"api"},
    {"cli"},
]
"""The rooms from left to right; a room imports only from those further left, and from itself."""
HEIGHT = {room: i for i, layer in enumerate(LAYERS) for room in layer}
TOP = {"", "__main__"}
"""The package itself and its `python -m` entry, which may import everything."""


@cache
def tree_of(path: Path) -> ast.Module:
    """A module's text, parsed once for all laws."""
    return ast.parse(path.read_text(encoding="utf-8"))


def room(module: str) -> str:
    """`syntax` for `brewgraph.syntax.parser`."""
    return [*module.split("."), ""][1]


def imports(path: Path, *, deferred: bool = True) -> Iterator[tuple[str, int]]:
    """The brewgraph modules that a file imports, with their lines; without `deferred` those that run on import."""
    tree = tree_of(path)
    waiting: list[ast.AST] = [tree]
    while waiting:
        current = waiting.pop()
        if not deferred and isinstance(current, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not deferred and isinstance(current, ast.If) and "TYPE_CHECKING" in ast.unparse(current.test):
            waiting += current.orelse
            continue
        if isinstance(current, ast.Import):
            yield from ((alias.name, current.lineno) for alias in current.names if alias.name.startswith("brewgraph"))
        elif isinstance(current, ast.ImportFrom) and (current.module or "").startswith("brewgraph"):
            for alias in current.names:
                whole = f"{current.module}.{alias.name}"
                yield (whole if whole in MODULES else str(current.module), current.lineno)
        waiting += ast.iter_child_nodes(current)


def test_every_room_is_known() -> None:
    """A new room takes its place in the order before it is used."""
    assert {room(module) for module in MODULES} <= set(HEIGHT) | TOP


def test_no_relative_imports() -> None:
    """Every import says its whole name, so that the other laws can be read off."""
    for path in MODULES.values():
        tree = tree_of(path)
        relative = [x.lineno for x in ast.walk(tree) if isinstance(x, ast.ImportFrom) and x.level]
        assert not relative, f"{path}: relative imports in lines {relative}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_to_the_left(module: str) -> None:
    """Law 1: one import direction, inside functions and for type checkers too; models and data do not meet."""
    here = room(module)
    if here in TOP:
        return
    for target, line in imports(MODULES[module]):
        there = room(target)
        assert there == here or (there in HEIGHT and HEIGHT[there] < HEIGHT[here]), (
            f"{module}:{line} imports {target}: `{here}` must not import `{there}`"
        )


def test_no_cycles() -> None:
    """Law 1: no module imports itself by any way round, when modules are loaded."""
    graph = nx.DiGraph((m, t) for m, path in MODULES.items() for t, _ in imports(path, deferred=False) if t != m)
    assert list(nx.simple_cycles(graph)) == []


LIGHT = sorted(
    m
    for m in MODULES
    if room(m) in {"source", "diagnostics", "explanations", "syntax", "ops", "recipe", "graph", "lints", "api", ""}
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
    imported = "from brewgraph.project.check import check_names\nfrom brewgraph.source import Source\n"
    script = f'{imported}check_names(Source("""{spec}"""), {{}})'
    assert loaded_after(script) == set()


def test_the_test_of_lightness_can_fail() -> None:
    """What does load a heavy package is found."""
    assert loaded_after("import brewgraph, tokenizers") == {"tokenizers"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short_and_say_what_they_are(module: str) -> None:
    """No module has more than 400 lines, and each that holds anything begins with a docstring."""
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
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
    assert used - set(CODES) == set(), "write a line for each in explanations/codes.py"
    assert {code for code in CODES if code.startswith("W")} - set(explained()) == set(), "write a page for each"
