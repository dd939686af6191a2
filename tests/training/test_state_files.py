"""States on disk: what is written is read, to the bit, whatever shares memory; nothing else is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from brewgraph.training.state_files import FILES, read_state, write_state


def same(x: Any, y: Any) -> bool:
    """Equal in type and value, tensors to the bit."""
    if type(x) is not type(y):
        return False
    if isinstance(x, torch.Tensor):
        return x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
    if isinstance(x, dict):
        return list(x) == list(y) and all(same(x[k], y[k]) for k in x)
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(same, x, y))
    return bool(x == y or (x != x and y != y))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Keys that are numbers, tuples, infinity, empty and scalar tensors, tied ones, views and slices of one storage."""
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "tied": [base, base],
        "views": (base.t(), base[1:], base.view(12)[:5]),
        0: {1: (0.9, 0.999), "step": torch.tensor(3.0), "none": None, "flag": True},
        "numbers": [math.inf, math.nan, -0.0, 1 / 3, 2**70],
        "types": [torch.ones(2, dtype=t) for t in (torch.bfloat16, torch.float16, torch.int64, torch.bool)],
        "empty": [torch.empty(0, 3), torch.empty(0), {}, [], ()],
        "tensor": {"tensor": "0", "items": [["a", 1]], "tuple": [1]},
    }
    write_state(state, tmp_path)
    assert same(read_state(tmp_path), state)


def test_an_optimizer_continues_to_the_bit(tmp_path: Path) -> None:
    """AdamW with groups, after a step."""
    weights = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(2))]
    optimizer = torch.optim.AdamW([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.1}], fused=True)
    sum(w.square().sum() for w in weights).backward()
    optimizer.step()
    write_state(optimizer.state_dict(), tmp_path)
    assert same(read_state(tmp_path), optimizer.state_dict())


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", len])
def test_other_values_are_refused(value: object, tmp_path: Path) -> None:
    """Rather than lost."""
    with pytest.raises(TypeError, match=f"a state cannot hold a value of type {type(value).__name__}"):
        write_state({"x": [value]}, tmp_path)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "text", ['{"tensor": "7"}', '{"tensor": 0}', '{"a": 1}', '{"items": [[1]]}', '{"items": [[[], 1]]}', "{"]
)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    """By an exception that a reader of checkpoints reports in a line."""
    write_state([torch.ones(1)], tmp_path)
    assert json.loads((tmp_path / FILES[1]).read_text()) == [{"tensor": "0"}]
    (tmp_path / FILES[1]).write_text(text)
    with pytest.raises((ValueError, KeyError, TypeError)):
        read_state(tmp_path)
