"""What `docs/security.md` says of specs, folders and files, sentence by sentence."""

from __future__ import annotations

import pytest

from brewgraph.checking.check import check_names
from brewgraph.diagnostics import SpecError
from brewgraph.source import Source
from brewgraph.syntax.format import format_source
from tests.faults.world import HEAD, LOSS

# ── a spec cannot exhaust time or memory ─────────────────────────────────────────────────────────────────────────────

CE = "ce(d.labels -> tiny.logits)"
DOUBLED = "f(x) = [x, x]\n"
BLOWUPS = {
    "lists in lists, by calls": (DOUBLED + f"let y = {'f(' * 30}1{')' * 30}\n", "B016"),
    "lists in lists, by functions": (
        DOUBLED.replace("f", "f0") + "".join(f"f{i}(x) = f{i - 1}([x, x])\n" for i in range(1, 30)) + "let y = f29(1)\n",
        "B016",
    ),
    "lists in lists, by names": ("let a0 = 1\n" + "".join(f"let a{i} = [a{i - 1}, a{i - 1}]\n" for i in range(1, 40)), "B016"),
    "features in lists": (DOUBLED + f"y = {'f(' * 30}big.hidden[0]{')' * 30}\n", "B016"),
    "sums of sums": (f"a0 = {CE}\n" + "".join(f"a{i} = a{i - 1} + a{i - 1}\n" for i in range(1, 40)), "B016"),
    "texts in texts": ('let s0 = "xxxxxxxxxx"\n' + "".join(f'let s{i} = "{{s{i - 1}}}{{s{i - 1}}}"\n' for i in range(1, 40)), "B016"),
    "a table of models and layers": (
        f"let m = [{', '.join(['big'] * 3000)}]\ny = sum(nst(m.hidden[0] -> tiny.hidden[{', '.join(['0'] * 3000)}]))\n",
        "B016",
    ),
    "layers of models": (f"let m = [{', '.join(['big'] * 3000)}]\ny = m.hidden[{', '.join(['0'] * 3000)}]\n", "B016"),
    "a chain of sums": (f"a0 = {CE}\n" + "".join(f"a{i} = a{i - 1} + a0\n" for i in range(1, 2000)), "B012"),
    "powers of powers": ("let y = 10 ** 10 ** 10\n", "B207"),
    "products of products": ("let a0 = 999999999999\n" + "".join(f"let a{i} = a{i - 1} * a{i - 1}\n" for i in range(1, 40)), "B207"),
    "a list of a million": (f"let y = [{','.join(['1'] * 10**6)}]\n", "B014"),
    "a layer map of a million": (f"let y = [{','.join(['1'] * 10**6)}] -> [{','.join(['1'] * 10**6)}]\n", "B014"),
    "a hundred thousand statements": ("".join(f"let v{i} = {i}\n" for i in range(10**5)), "B014"),
    "a long line": ("#" + "x" * 10**7 + "\n", "B014"),
    "empty lines": ("\n" * 10**6, "B014"),
    "brackets inside each other": (f"let y = {'[' * 10**4}1{']' * 10**4}\n", "B012"),
    "open brackets": ("let y = " + "([{" * 10**4 + "\n", "B012"),
    "blocks inside each other": ("task a {\n" * 5000 + "}\n" * 5000, "B012"),
    "signs": ("let y = " + "-" * 10**4 + "1\n", "B012"),
    "attributes": ("y = big" + ".a" * 10**4 + "\n", "B012"),
    "names of names": ("".join(f"let a{i} = a{i + 1} + 1\n" for i in range(2000)) + "let a2000 = 1\n", "B012"),
    "calls of calls": ("".join(f"f{i}(x) = f{i + 1}(x) + 1\n" for i in range(1500)) + "f1500(x) = x\nlet y = f0(1)\n", "B012"),
    "faults of syntax": ("let 1\n" * 8000, "B010"),
    "faults of names": ("".join(f"x{i} = bgi.logits\n" for i in range(5000)), "B101"),
    "unclosed comments": ("/*\n" * 9000, "B010"),
    "comments of another language": ("-- x\n" * 9000, "B010"),
    "unclosed texts": ('"\n' * 15000, "B003"),
    "closing brackets": (")\n" * 15000, "B002"),
    "a long unknown name": ("let y = " + "x" * 900_000 + "\n", "B101"),
}  # fmt: skip
"""Specs whose meaning, or whose faults, grow faster than their text, and the code of the first diagnostic."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", BLOWUPS)
def test_a_spec_that_blows_up_is_a_diagnostic(name: str) -> None:
    """One diagnostic, or as many as are listed; the formatter has the same one or a result that it keeps."""
    text, code = BLOWUPS[name]
    source = Source(HEAD + text + LOSS)
    with pytest.raises(SpecError) as caught:
        check_names(source, {})
    codes = [d.code for d in caught.value.diagnostics]
    assert code in codes
    assert len(codes) <= 101
    try:
        formatted = format_source(source)
    except SpecError as error:
        assert error.diagnostics[0].code in codes
    else:
        assert format_source(Source(formatted)) == formatted


def test_the_last_of_many_errors_says_that_there_are_more() -> None:
    """A hundred are listed, and the last diagnostic says that nothing behind them is checked."""
    with pytest.raises(SpecError) as caught:
        check_names(Source("let 1\n" * 300), {})
    diagnostics = caught.value.diagnostics
    assert [d.code for d in diagnostics] == ["B010"] * 100 + ["B015"]
    assert diagnostics[-1].help == "correct these errors first"


def test_large_specs_within_the_limits_are_read() -> None:
    """A thousand terms, their sum, and a list of ten thousand numbers."""
    terms = "".join(f"a{i} = {CE}\n" for i in range(1000))
    names, ones = ", ".join(f"a{i}" for i in range(1000)), ", ".join(["1"] * 1000)
    text = f"{HEAD}{terms}let n = [{', '.join(map(str, range(4000)))}]\nloss = sum([{names}] * [{ones}])\n"
    assert len(check_names(Source(text), {}).equations) == 1001
