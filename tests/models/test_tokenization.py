"""The folders of names."""

from __future__ import annotations

from pathlib import Path

from brewgraph.models.tokenization import local


def test_a_folder_is_named_without_dots_unless_links_lead_elsewhere(tmp_path: Path) -> None:
    """`..` behind a link is the folder above the one that it leads to."""
    for name in ("bert", "specs", "far/specs", "far/bert"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "far" / "specs")
    assert local("../bert", tmp_path / "specs") == str(tmp_path / "bert")
    assert local("../bert", tmp_path / "linked") == str(tmp_path / "linked" / ".." / "bert")
    assert local("bert", tmp_path) == str(tmp_path / "bert")
    assert local("owner/name", tmp_path) == "owner/name"
