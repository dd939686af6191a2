"""Which architectures can be exported: what the page says of each is what `export` does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.tiny import command
from tests.conftest import REPOSITORY
from tests.export.kinds import finished, record
from tests.models.tiny import SETTINGS

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package)

PAGE = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
TABLE = {
    cells[0].strip(" `"): {"onnx": cells[1].strip(), "torch": cells[2].strip()}
    for line in PAGE.partition("## By architecture")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| `") and (cells := line.strip("| ").split(" | "))
}
"""What the page says of each architecture: `yes`, or the reason why not."""
_OF_CONFIGURATION = ("vocab_size", "num_labels", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id",
    "position_buckets")  # fmt: skip
"""Settings of the tiny models that a spec has from its data."""


def student(kind: str) -> str:
    """A tiny student of an architecture, as a spec has it."""
    if kind == "bigru":
        settings: dict[str, Any] = {"hidden_size": 8, "embedding_size": 8}
    else:
        settings = {name: x for name, x in SETTINGS[kind].items() if name not in _OF_CONFIGURATION}
    words = (f"{name}={str(x).replace(chr(39), chr(34)).replace('True', 'true')}" for name, x in settings.items())
    return f'hf(model_type="{kind}", {", ".join(words)})'


def test_the_page_has_every_architecture() -> None:
    """Those of the tiny models, and the one of brewgraph."""
    assert TABLE.keys() == SETTINGS.keys() | {"bigru"}


@pytest.mark.parametrize("kind", [x if x == "bert" else pytest.param(x, marks=pytest.mark.slow) for x in TABLE])
def test_an_architecture_is_exported_or_refused_as_the_page_says(kind: str, tmp_path: Path) -> None:
    """Equal outputs, and a README whose lines run; or the reason of the page, and nothing left."""
    run = finished(tmp_path, "tags" if kind == "t5" else "class", student=student(kind))
    for target in ("torch",) if kind == "bert" else ("torch", "onnx"):
        out = tmp_path / target
        result = command("export", str(run), "-q", "--to", target, "--out", str(out))
        if (said := TABLE[kind][target]) != "yes":
            assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
            assert f"cannot express {said.removeprefix('no: ').replace(chr(92), '')}" in result.stderr
            assert not out.exists()
            continue
        assert result.exit_code == 0, result.output
        assert record(out)["difference"] < 1e-4
        readme(out)


def readme(folder: Path) -> None:
    """Run the lines of Python in an exported folder's README there."""
    match = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert match is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(match[1], {})
