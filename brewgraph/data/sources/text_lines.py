"""Plain text for language models."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import datasets

from brewgraph.data.sources.file_forms import check_form
from brewgraph.data.sources.rows import find_file, read_text
from brewgraph.data.sources.source_facts import stamp
from brewgraph.recipe.settings.sources import Text


def read_plain(source: Text, folder: Path) -> dict[str, datasets.Dataset]:
    """Every split as its lines (`text_0`), empty ones left out. Raises `SourceFault` B401 and B404."""
    named = {"train": source.train, "dev": source.dev, "test": source.test}
    found = {}
    for field, name in named.items():
        if name is not None:
            path = find_file(name, folder, field)
            found[field] = _read(name, path, field, stamp([path]))
    return found


@lru_cache(maxsize=16)
def _read(name: str, path: Path, field: str, _stamp: object) -> datasets.Dataset:
    text = read_text(name, path, field)
    check_form(name, text, field, "text")
    lines = [line for line in text.split("\n") if line.strip()]
    return datasets.Dataset.from_dict({"text_0": lines})
