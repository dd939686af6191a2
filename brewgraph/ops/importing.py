"""Which Python may be imported for a spec: installed packages, and what lies beside it where a person allows that."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType

from brewgraph.diagnostics import BrewError, RunError, SourceFault


def import_allowed(module: str, folder: Path, *, allow: bool, shown: str = "", field: str | None = None) -> ModuleType:
    """Import a module by its dotted name: of an installed package, or, where `allow` says so, from a spec's folder.

    `shown` is how the spec names it, `field` the argument that does. A `RunError` where it may not be imported, a
    `SourceFault` where it cannot be.
    """
    if not allow and not is_installed(module.partition(".")[0]):
        raise RunError(
            f"`{shown or module}` is in no installed package; "
            "run with --allow-python to import it from the spec's folder"
        )
    place = str(folder.resolve())
    if allow and place not in sys.path:
        # behind everything else, as `find_source` looks: a file beside a spec takes the place of no package
        sys.path.append(place)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except BrewError:
        raise
    except ImportError as error:
        raise SourceFault("B317", f"`{module}` cannot be imported: {error}", field=field, help="install it") from error
    except Exception as error:  # a module runs what it likes when it is imported
        message = f"`{module}` cannot be imported: {type(error).__name__}: {error}"
        raise SourceFault("B317", message, field=field, help=f"`python -c 'import {module}'` shows where") from error


def is_installed(top: str) -> bool:
    """Whether a package of this name is installed; one installed in place lists no modules, its own name has to do."""
    if top in importlib.metadata.packages_distributions():
        return True
    try:
        importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
