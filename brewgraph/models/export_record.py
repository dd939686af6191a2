"""What an exported folder says of its model: `export.json`. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import UsageError
from brewgraph.paths import EXPORT_RECORD, is_file, read_json
from brewgraph.recipe.label_types import LABEL_TYPES

PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8-dynamic", "int8-static"),
    "openvino": ("fp32", "fp16", "int8-dynamic", "int8-static"),
    "torch": ("fp32", "fp16"),
}
"""The precisions of each target."""


@dataclass(frozen=True)
class ExportRecord:
    """How an exported model is run, and how it compares with the student that it was made from.

    `target` is the runtime, `file` the model's file in the folder, `opset` that of ONNX (None elsewhere). `inputs` are
    int64 tensors of (batch, length), `outputs` the tensors that the model gives, in order; `padding` is the side of
    padding, None if it is not known. `labels` are the classes in the order of the logits. `scores` have the metrics
    before and after on `examples` of the split or file `data` (empty without labels); `difference` is the largest
    absolute difference of an output there. `calibration` counts the rows that ranges of activations come from. `run` is
    what `open_run` needs: the spec's text, its folder, params and tasks. `max_length` is the number of tokens to which
    the student's texts are cut, None in a record of an earlier version.
    """

    target: str
    precision: str
    file: str
    opset: int | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    padding: str | None
    label_type: str
    labels: tuple[str, ...]
    data: str
    examples: int
    difference: float
    scores: Mapping[str, Mapping[str, float]]
    calibration: int
    versions: Mapping[str, str]
    task: str
    run: Mapping[str, Any]
    max_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "labels"):  # in a file, tuples are lists
            object.__setattr__(self, name, tuple(getattr(self, name)))


def _number(value: Any) -> Any:
    """What JSON has null for."""
    return math.nan if value is None else value


def unreadable(path: Path) -> UsageError:
    """The fault of a record that is broken."""
    return UsageError(f"`{path}` cannot be read, or is of another version of brewgraph: export the student again")


def read_record(folder: Path) -> ExportRecord | None:
    """The record of an exported model's folder; None for any other folder. Raises `UsageError` for a broken one."""
    path = folder / EXPORT_RECORD
    if not is_file(path):
        return None
    from pydantic import TypeAdapter

    try:
        content: Any = read_json(path)
        known = {field.name: content[field.name] for field in fields(ExportRecord) if field.name in content}
        known["difference"] = _number(known["difference"])
        known["scores"] = {when: {k: _number(x) for k, x in own.items()} for when, own in known["scores"].items()}
        record = TypeAdapter(ExportRecord).validate_python(known)  # a `ValidationError` is a `ValueError`
        if (
            {"spec", "folder", "params", "tasks"} - record.run.keys()
            or record.target not in PRECISIONS
            or record.label_type not in LABEL_TYPES
            or not record.file
            or Path(record.file).name != record.file
        ):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise unreadable(path) from None
    for name in (record.file, "config.json"):
        if not is_file(folder / name):
            raise UsageError(f"`{folder}` has no {name}: {restoring(folder)}")
    return record


def restoring(folder: Path) -> str:
    """What to do about a damaged file in a student's folder."""
    if is_file(folder / EXPORT_RECORD):
        return "copy the folder again, or export the student again"
    return "restore it, or begin anew by `brewgraph run SPEC --force`"
