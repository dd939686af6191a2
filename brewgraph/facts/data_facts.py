"""What is known of a data set before its rows are prepared: from memory, or from the head of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from brewgraph.data.sources.source_facts import DataFacts, stamp
from brewgraph.digest import digest
from brewgraph.facts.memory import Memory
from brewgraph.paths import locate
from brewgraph.recipe.settings.data_sources import Batches, DataSource


def data_facts(source: DataSource, folder: Path, memory: Memory) -> DataFacts:
    """The facts of a data set. Raises `SourceFault` if it does not match its source."""
    if isinstance(source, Batches):
        from brewgraph.data.sources.tensor_batches import batch_facts

        return batch_facts(source, folder)
    if augment := getattr(source, "augment", ()):
        from brewgraph.data.batching.augmentation import check_augmentations

        check_augmentations(source.label_type, augment)

    def find() -> DataFacts:
        from brewgraph.data.sources.examples import facts

        return facts(source, folder)

    return memory.recall(print_of_data(source, folder), DataFacts, find)


def print_of_data(source: DataSource, folder: Path) -> str | None:
    """A fingerprint of the content of a data set's files; None if only the hub knows it."""
    stamps: list[object] = []
    for part in source.sources:
        if part.holds_tensors or (part.hub_name and not locate(part.hub_name, folder, "name").is_dir()):
            return None
        try:
            stamps.append(stamp(_files(part, folder)))
        except OSError:
            return None  # a missing file is reported by whoever reads it
    return digest(repr(source), *stamps)


def _files(source: DataSource, folder: Path) -> Iterator[Path]:
    """The local files of a data set."""
    if source.hub_name:
        yield from sorted(path for path in locate(source.hub_name, folder, "name").rglob("*") if path.is_file())
    for field, name in source.files.items():
        yield locate(name, folder, field).resolve()
