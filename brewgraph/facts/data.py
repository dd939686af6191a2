"""What is known of a data set before its rows are prepared: from memory, or from the head of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from brewgraph.data.sources.source_facts import DataFacts, stamp
from brewgraph.digest import digest
from brewgraph.facts.memory import Memory
from brewgraph.paths import locate
from brewgraph.recipe.settings.sources import Batches, DataSource, Glue, Hub, Join


def data_facts(source: DataSource | Join, folder: Path, memory: Memory) -> DataFacts:
    """The facts of a data set. Raises `SourceFault` if it does not match its source."""
    if isinstance(source, Batches):
        from brewgraph.data.sources.tensor_batches import ready_facts

        return ready_facts(source, folder)
    if augment := getattr(source, "augment", ()):
        from brewgraph.data.batching.augmentation import check_augmentations

        check_augmentations(source.label_type, augment)

    def find() -> DataFacts:
        from brewgraph.data.sources.examples import facts

        return facts(source, folder)

    return memory.recall(print_of_data(source, folder), DataFacts, find)


def print_of_data(source: DataSource | Join, folder: Path) -> str | None:
    """A fingerprint of the content of a data set's files; None if only the hub knows it."""
    parts = source.parts if isinstance(source, Join) else (source,)
    stamps: list[object] = []
    for part in parts:
        if isinstance(part, Batches) or (isinstance(part, Hub) and not locate(part.name, folder, "name").is_dir()):
            return None
        try:
            stamps.append(stamp(_files(part, folder)))
        except OSError:
            return None  # a missing file is reported by whoever reads it
    return digest(repr(source), *stamps)


def _files(source: DataSource, folder: Path) -> Iterator[Path]:
    """The local files of a data set."""
    if isinstance(source, Glue):
        return
    if isinstance(source, Hub):
        yield from sorted(path for path in locate(source.name, folder, "name").rglob("*") if path.is_file())
        return
    for field in ("train", "dev", "test"):
        if name := getattr(source, field, None):
            yield locate(name, folder, field).resolve()
