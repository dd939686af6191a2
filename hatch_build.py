"""What the wheel holds beside the package: the grammar and the specs, without the runs that were made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Beside(BuildHookInterface):
    """An editable install reads both from the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        files = [path.relative_to(root) for name in ("grammar", "specs") for path in sorted((root / name).rglob("*"))]
        build_data["force_include"] |= {
            str(root / path): f"brewgraph/{path.as_posix()}"
            for path in files
            if (root / path).is_file() and not {"runs", "node_modules"} & {*path.parts}
        }
