"""What a run says where the machine fails it: a full disk, a folder that is gone, too little memory."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from brewgraph.diagnostics import RunError
from brewgraph.training.folder import RunFolder, display_path

_FULL = re.compile(r"no space left|file too large|unexpected pos|write failed|StreamWriter failed", re.IGNORECASE)
"""How torch and safetensors, which write files on their own, say that a disk is full."""
_OF_DISKS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EDQUOT, errno.EIO})
_NO_MEMORY = re.compile(
    r"out of memory|can(?:'t|not) allocate memory|not enough memory|bad_alloc"
    r"|could not (?:create|execute) a (?:primitive|memory)",
    re.IGNORECASE,
)
"""How torch says that there is no memory left, and oneDNN, which computes large products, that it got none."""
_REMEDIES = (
    "use smaller batches, `batch=…` of the data, and `accumulate = …` of them, which is the same step; "
    "`gradient_checkpointing = true`; shorter texts, `max_length=…`; or `precision = bf16`; `brewgraph plan` shows the "
    "bytes beforehand"
)


@contextmanager
def explained(folder: RunFolder) -> Iterator[None]:
    """Turns failures of the machine into a `RunError` of one line that says what to do and what is kept."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or _NO_MEMORY.search(first):
            raise RunError(f"out of memory: {_REMEDIES}; {_kept(folder)}") from error
        if (reason := unwritten(error, folder.path)) is None:
            raise
        shown = display_path(folder.path)
        raise RunError(f"the run folder `{shown}` cannot be written: {reason}; {_kept(folder)}") from error


def unwritten(error: Exception, folder: Path) -> str | None:
    """Why a file in a folder could not be written; None for any other error."""
    first = next(iter(str(error).strip().splitlines()), "")
    if not folder.is_dir():
        return "it is no longer there"
    if isinstance(error, OSError):
        inside = str(error.filename or "").startswith(str(folder))
        return (error.strerror or first) if inside or error.errno in _OF_DISKS else None
    return "no space left on the disk, or a limit on the size of files" if _FULL.search(first) else None


def _kept(folder: RunFolder) -> str:
    """What the same command does next."""
    saved = folder.complete_checkpoints() or folder.baseline.complete_checkpoints()
    return "the same command resumes from the last checkpoint" if saved else "the same command starts anew"
