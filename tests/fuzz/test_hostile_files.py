"""What stands where a file should: JSON without end, other bytes, folders, pipes, broken links. Each reader answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from brewgraph.convert.config import read_values
from brewgraph.diagnostics import Collector, RunError, SourceFault
from brewgraph.facts.memory import Memory, print_of_model, print_of_weights
from brewgraph.models.description import read_config
from brewgraph.models.heads import saved_heads
from brewgraph.models.task_heads import saved_names
from brewgraph.models.tokenization import load_tokenizer
from brewgraph.paths import read_json
from brewgraph.source import EncodingError, Source
from brewgraph.training.checkpoint import read_checkpoint
from brewgraph.training.folder import RunFolder, verify
from brewgraph.training.lock import Owner, is_owned
from brewgraph.training.state_files import FILES, write_state
from tests.small import save

pytestmark = pytest.mark.timeout(60)  # a reader that waits for a pipe is at fault

CONTENTS = {
    "lists without end": b"[" * 100_000,
    "objects without end": b'{"a":' * 100_000,
    "lists as deep as they can be read": b"[" * 900 + b"]" * 900,
    "a number of many digits": b'{"step": ' + b"9" * 10_000 + b"}",
    "no number": b"NaN",
    "infinity": b'{"step": Infinity, "files": Infinity, "weight_map": Infinity}',
    "another encoding": b'\xff\xfe{\x00"\x00',
    "a list": b"[1]",
    "a text": b'"x"',
    "nothing": b"",
    "zeros": bytes(100),
    "a header without end": (1 << 62).to_bytes(8, "little") + b"{}",
    "a header of lists": (50_000).to_bytes(8, "little") + b"[" * 50_000,
}
NO_FILES = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}
HOSTILE = (*CONTENTS, *NO_FILES)


def put(path: Path, kind: str) -> None:
    """Put something hostile in a file's place."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind])
    else:
        NO_FILES[kind](path)


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_files_of_a_run(kind: str, tmp_path: Path) -> None:
    """They count as missing or damaged; a lock is nobody's."""
    folder = RunFolder(tmp_path)
    for name in ("finished.json", "resolved.json", "complete.json", ".lock"):
        put(tmp_path / name, kind)
    assert isinstance(folder.finished, dict | None)
    assert not folder.has_progress or folder.finished is not None
    assert isinstance(folder.begun, bool)
    assert verify(tmp_path) == "is damaged: complete.json cannot be read"
    assert not is_owned(tmp_path)
    assert Owner.read(CONTENTS.get(kind, b"")[:4096].decode("utf-8", "replace")) is None


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_line_of_metrics_is_dropped(kind: str, tmp_path: Path) -> None:
    """The lines around it stay."""
    sound = b'{"step": 1}\n'
    (tmp_path / "metrics.jsonl").write_bytes(sound + CONTENTS[kind] + b"\n" + sound)
    RunFolder(tmp_path).truncate_log(3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == sound * 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_checkpoint_is_refused_in_a_line(kind: str, name: str, tmp_path: Path) -> None:
    """`RunError` names the checkpoint."""
    write_state({"stage": 0, "module": {"w": torch.arange(4.0)}}, tmp_path)
    put(tmp_path / name, kind)
    with pytest.raises(RunError, match="does not fit this run") as caught:
        read_checkpoint(tmp_path, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_fact_is_found_anew(kind: str, tmp_path: Path) -> None:
    """A fact that cannot be read is found again, and nobody waits for it."""
    memory = Memory(tmp_path)
    memory.recall("one", int, lambda: 3)
    (path,) = tmp_path.iterdir()
    put(path, kind)
    assert memory.recall("one", int, lambda: 4) == 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved model."""
    return save(tmp_path_factory.mktemp("models") / "sound", layers=1)


READERS: dict[str, Callable[[str], object]] = {
    "config.json": read_config,
    "tokenizer.json": load_tokenizer,
    "tokenizer_config.json": load_tokenizer,
    "special_tokens_map.json": load_tokenizer,
    "heads.json": saved_heads,
    "model.safetensors": saved_names,
    "model.safetensors.index.json": saved_names,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_model_folder(kind: str, name: str, model: Path, tmp_path: Path) -> None:
    """A file of it is left out or at fault; its print is made of what can be read."""
    folder = shutil.copytree(model, tmp_path / "model")
    if name.endswith(".index.json"):
        (folder / "model.safetensors").unlink()
    put(folder / name, kind)
    assert print_of_model(str(folder))
    code, said = "B310", ""
    try:
        assert print_of_weights(str(folder))
        READERS[name](str(folder))
    except SourceFault as fault:
        code, said = fault.code, fault.message
    assert code in ("B310", "B314", "B315")
    assert "\n" not in said


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_to_convert_or_a_spec(kind: str, tmp_path: Path) -> None:
    """A diagnostic, or an error of the file system, which the commands explain."""
    path = tmp_path / "config.json"
    put(path, kind)
    try:
        source = Source.read(path)
    except (OSError, EncodingError):
        return
    collector = Collector()
    read = read_values(source, collector)
    assert bool(read) != collector.failed


@pytest.mark.parametrize("kind", HOSTILE)
def test_json(kind: str, tmp_path: Path) -> None:
    """A value, `OSError` for no file, or `ValueError`."""
    put(tmp_path / "x.json", kind)
    sound = kind in ("lists as deep as they can be read", "no number", "infinity", "a list", "a text")
    with nullcontext() if sound else pytest.raises((OSError, ValueError)):
        read_json(tmp_path / "x.json")
