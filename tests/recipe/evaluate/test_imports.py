"""Imports: another spec's definitions, a Python module's operations; read, and never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import Diagnostic, SpecError
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.values import members
from brewgraph.source import Source
from tests.faults.meaning import add_files
from tests.recipe.specs import spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a spec and modules to import."""
    add_files(tmp_path)
    return tmp_path


def names(folder: Path, body: str) -> Recipe:
    """The recipe of a spec that stands in this folder."""
    return check_names(Source(spec(body), str(folder / "spec.brew")), {})


def fault(folder: Path, body: str) -> Diagnostic:
    """Its one fault."""
    with pytest.raises(SpecError) as error:
        names(folder, body)
    (found,) = error.value.diagnostics
    return found


def test_values_maps_and_functions_of_another_spec(folder: Path) -> None:
    """A function keeps the names of its own spec, and takes features of this one."""
    body = 'import "lib.brew" as lib\nx = lib.f(big.hidden[0], tiny.hidden[0])\ny = nst(big.hidden[lib.m] -> tiny.hidden[lib.m])'
    recipe = names(folder, body)
    assert recipe.equations["x"].operands[0].value == 4
    assert [(x.source.feature.index, x.target.feature.index) for x in members(recipe.equations["y"])] == [
        (0, 0),
        (2, 1),
    ]
    assert "lib/soft" not in recipe.equations  # what nobody asks for is not evaluated


def test_the_name_of_an_import_may_be_left_out(folder: Path) -> None:
    """Then it is that of the file, or of the module."""
    found = names(folder, 'import "lib.brew"\nimport mine\nx = lib.T * mine.huber(big.hidden[0] -> tiny.hidden[0])')
    assert found.equations["x"].kind == "loss"


def test_operations_of_a_module(folder: Path) -> None:
    """Its signature is enough: options have their defaults, and the module was never run."""
    recipe = names(folder, "import mine as my\nx = my.huber(big.hidden[0] -> tiny.hidden[0], delta=2)")
    found = recipe.equations["x"]
    assert (found.operation, dict(found.options)["delta"].value) == ("mine:huber", 2)
    assert recipe.modules == ("mine",)
    assert found.declared.function is None


def test_a_circle_and_what_cannot_be_read(folder: Path) -> None:
    """Each at the statement that imports, with what is there instead."""
    found = fault(folder, 'import "one_way.brew" as o')
    assert (found.code, Path(found.span.source.name).name) == ("B113", "other_way.brew")
    assert found.message.endswith("one_way.brew -> other_way.brew -> one_way.brew")
    assert (fault(folder, 'import "lbi.brew" as o').code, fault(folder, 'import "." as o').code) == ("B114", "B114")
    assert fault(folder, 'import "lbi.brew" as o').help == "did you mean `lib.brew`?"


def test_a_spec_with_a_fault_of_its_own(folder: Path) -> None:
    """Is shown where it lies."""
    (folder / "broken.brew").write_text("x = 2 2\n")
    found = fault(folder, 'import "broken.brew" as b')
    assert (found.code, Path(found.span.source.name).name, found.span.position) == ("B010", "broken.brew", (1, 7))


def test_a_missing_module_is_one_fault(folder: Path) -> None:
    """What is called of it is not reported too."""
    found = fault(folder, "import mien as my\nx = my.huber(big.hidden[0] -> tiny.hidden[0])")
    assert (found.code, found.span.position) == ("B114", (4, 1))


def test_names_of_imports_are_taken(folder: Path) -> None:
    """By whatever comes second."""
    for body in ('import "lib.brew" as big', "import mine as my\nmy = 3", "my = 3\nimport mine as my"):
        assert fault(folder, body).code == "B105"


CHOICE = 'param which = "lib"\nimport "{which}.brew" as chosen\nlet T = chosen.T\nx = T * nst(big.hidden[0] -> tiny.hidden[0])'


def test_a_param_chooses_what_is_imported(folder: Path) -> None:
    """By its default, or by what is given from outside; a number in a path is written out."""
    (folder / "lib-2.brew").write_text("param T = 9\n")

    def factor(body: str, **params: object) -> float:
        recipe = check_names(Source(spec(body), str(folder / "spec.brew")), params)
        return recipe.equations["x"].operands[0].value

    assert factor(CHOICE) == 4
    assert factor(CHOICE, which="lib-2") == 9
    numbered = CHOICE.replace('"lib"', "2").replace("{which}", "lib-{which}")
    assert factor(numbered) == 9


def test_what_a_param_cannot_choose(folder: Path) -> None:
    """One fault each, at the import: no such file, a name that is no param, one below, one without a value."""
    with pytest.raises(SpecError) as error:
        check_names(Source(spec(CHOICE), str(folder / "spec.brew")), {"which": "lbi"})
    (found,) = error.value.diagnostics
    assert (found.code, found.message, found.help) == (
        "B114", "`lbi.brew` cannot be read: No such file or directory", "did you mean `lib.brew`?"
    )  # fmt: skip
    first, second, *rest = CHOICE.splitlines()
    for lines in ([second, first, *rest], ["let which = 3", second, *rest], ["param which = [1]", second, *rest]):
        found = fault(folder, "\n".join(lines))
        assert (found.code, found.span.text) == ("B114", second)
        assert found.help == 'write `param which = "…"` above'
