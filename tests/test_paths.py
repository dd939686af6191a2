"""How files are written: whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brewgraph.diagnostics import UsageError
from brewgraph.paths import write_file


def test_a_disk_that_fills_leaves_the_old_file(tmp_path: Path):
    """One line with the remedy, and no part of the new file."""
    resource = pytest.importorskip("resource")
    page = tmp_path / "report.html"
    write_file(page, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(UsageError, match=r"report\.html` cannot be written: File too large; name another file"):
            write_file(page, "new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (page.read_text(), os.listdir(tmp_path)) == ("old", ["report.html"])


def test_a_link_and_a_device_stay_what_they_are(tmp_path: Path):
    """The file behind a link is written; permissions are kept."""
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert ((tmp_path / "real").read_text(), (tmp_path / "real").stat().st_mode & 0o777) == ("new", 0o640)
    write_file(Path(os.devnull), "new")
    assert not Path(os.devnull).is_file()
