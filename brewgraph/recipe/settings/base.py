"""The base of the pydantic models that calls in a spec become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
)


class Settings(BaseModel):
    """The base of whatever a call in a spec becomes: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    positional: ClassVar[tuple[str, ...]] = ()
    extras: ClassVar[str | None] = None
    """Name of the field that collects keyword arguments which are no field, or None where they are a fault."""
    bare: ClassVar[frozenset[str]] = frozenset()
    """Fields that are words and may stand bare: `problem_type=regression`."""
    placing: ClassVar[frozenset[str]] = frozenset()
    """Fields that say how or where something is computed, not what."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # hashes are made of it
        return [(name, value) for name, value in super().__repr_args__() if name not in self.placing]


NumberFormat = Literal["fp32", "bf16", "fp16"]
"""Number formats of models, of what is computed, and of what is kept on disk."""


DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu", "mlu", "musa")
"""Types of devices, by torch's names."""


def _device(value: Any) -> Any:
    """A device as torch spells it. Whether a machine has it, only a run on that machine can tell."""
    kind, colon, number = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in DEVICES or (colon and not number.isdecimal()):
        raise ValueError(f"unknown device `{value}`; torch has {', '.join(DEVICES)}, each with a number or without")
    return value


DeviceName = Annotated[str, BeforeValidator(_device)]
"""A device by its type, and behind a colon its number."""


def setting_text(value: Any) -> str:
    """A setting as a spec writes it."""
    if isinstance(value, Settings):
        values = ((name, getattr(value, name)) for name in type(value).model_fields)
        inner = ", ".join(f"{name}={setting_text(x)}" for name, x in values if x is not None)
        return f"{type(value).__name__.lower()}({inner})"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(setting_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def each_once(value: Any) -> Any:
    """A list of names: at least one, none twice."""
    if isinstance(value, tuple | list):
        counts = Counter(x if isinstance(x, str) else repr(x) for x in value)
        twice = next((x for x, count in counts.items() if count > 1), None)
        if twice is not None or not value:
            raise ValueError("the list is empty" if twice is None else f"`{twice}` is named twice")
    return value


EachOnce = BeforeValidator(each_once)
"""For an argument that may be a list of names."""


def _share(value: Any) -> Any:
    """`15%` is 0.15. A length's module imports this one, so that it is known by its unit."""
    unit = getattr(value, "unit", None)
    if unit is not None and unit != "share":
        raise ValueError("expected a number or a percentage: 0.1 or 10%")
    return value if unit is None else value.value


Share = BeforeValidator(_share)
"""For an argument that may be a percentage."""
