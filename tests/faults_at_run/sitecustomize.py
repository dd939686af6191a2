"""Makes a machine fail in the process that a test starts: FAULT names how, and STEP when: a step of training, `rows`, the
moment after the check and before rows are read, `reading`, when a file of rows is open, `models`, before the first weights are
loaded, `weights`, when the first of their files is open, or `student`, before the finished student is written. Python imports
it by its name.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

FAULT, STEP = os.environ.get("FAULT", ""), os.environ.get("STEP", "4")


_BEFORE = {
    "models": ("brewgraph.running.spec_builder", "build_model"),
    "weights": ("transformers.modeling_utils", "convert_and_load_state_dict_in_model"),
    "rows": ("brewgraph.running.spec_builder", "open_examples"),
    "reading": ("brewgraph.data.sources.rows", "_check_depth"),
}
"""The function before which it happens, by the step."""
_happened: list[str] = []


def largest_file(size: int) -> None:
    """From now on no file of this process grows beyond that size: what the kernel refuses is like a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fill_the_disk(folder: Path) -> None:
    """Fill the disk that a folder lies on, to its last byte."""
    with open(folder / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break


def address_space() -> int:
    """Bytes of address space that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def fail(folder: Path, run: Any = None) -> None:
    """What happens to the machine at the moment, once; `run` is the stage in training."""
    if _happened:
        return
    _happened.append(FAULT)
    match FAULT:
        case "no room for metrics":
            largest_file((folder / "metrics.jsonl").stat().st_size)
        case "no room":
            largest_file(1000)
        case "a full disk":
            fill_the_disk(folder.parent)
        case "no permission":
            folder.chmod(0o555)
            if os.getuid() == 0:  # to whom permissions do not apply
                os.seteuid(65534)
        case "less memory":
            size = address_space() + (int(os.environ["MIB"]) << 20)
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        case "the folder is deleted":
            shutil.rmtree(folder)
        case "a file in place of the checkpoints":
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            (folder / "checkpoints").write_text("")
        case "no memory":
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines.")
        case "no memory on a CPU":
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried …"
            )
        case "no number":
            import torch

            with torch.no_grad():
                next(run.distiller.student.parameters()).fill_(float("nan"))
        case "infinity":
            import torch

            with torch.no_grad():
                next(run.distiller.student.parameters()).fill_(1e38)
        case "killed":
            os.kill(os.getpid(), 9)
        case "a tracker has no network":

            def no_network(*arguments: Any) -> None:
                raise ConnectionError("the network is gone")

            for tracker in run.trackers.running:
                tracker.log = no_network
        case "a teacher is written anew":
            path = Path("bert/model.safetensors")
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        case "a teacher is cut short":
            os.truncate("bert/model.safetensors", 100)
        case "a teacher is replaced":
            _replace(Path("bert/model.safetensors"), Path("bert/model.safetensors").read_bytes()[:-1] + b"?")
        case "a data file is cut short":
            os.truncate("train.jsonl", 10)
        case "a data file loses rows":
            os.truncate("train.jsonl", Path("train.jsonl").read_bytes().index(b"\n", 500) + 1)  # at the end of a row
        case "a data file grows":
            with open("train.jsonl", "a") as file:
                file.write('{"text": "winter", "label": "awful"}\n')
        case "a data file is replaced":
            _replace(Path("train.jsonl"), Path("train.jsonl").read_bytes().replace(b'"good"', b'"fair"'))


def _replace(path: Path, content: bytes) -> None:
    """Put another file in a file's place, as an editor or a download does."""
    other = path.with_name("other")
    other.write_bytes(content)
    os.replace(other, path)


class _Patch(MetaPathFinder):
    """Wraps a step of the training loop, or what writes the finished student, once it is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if STEP in _BEFORE:
            module, function = _BEFORE[STEP]
            _wrap(sys.modules.get(module), function, lambda *arguments, **options: fail(Path()))
        elif STEP == "student":
            running = sys.modules.get("brewgraph.running.run")
            _wrap(running, "save_student", lambda model, path, *rest: fail(path.parent))
        else:
            stage = getattr(sys.modules.get("brewgraph.training.loop"), "StageRun", None)
            _wrap(
                stage, "_step", lambda run, *rest: fail(run.folder.path, run) if run.state.step == int(STEP) else None
            )


def _wrap(owner: Any, name: str, before: Any) -> None:
    """Have something called before a function, with its arguments."""
    function = getattr(owner, name, None)
    if function is None or hasattr(function, "wrapped"):
        return

    def wrapped(*arguments: Any, **options: Any) -> Any:
        before(*arguments, **options)
        return function(*arguments, **options)

    wrapped.wrapped = function  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)


if FAULT:
    sys.meta_path.insert(0, _Patch())
