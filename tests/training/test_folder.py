"""Folders that take the place of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from brewgraph.training.folder import replacing


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """An interruption while the names change: the folder of before is whole and has its name."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("before")
    renames, rename = 0, Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == failing:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(folder) as temporary:
        (temporary / "weights").write_text("after")
    assert (folder / "weights").read_text() == "before"
    with replacing(folder) as temporary:
        (temporary / "weights").write_text("after")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "weights").read_text() == "after"
