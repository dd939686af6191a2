"""What tests of several rooms share."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# before any library is imported, for this process and those that tests start: products this small gain nothing from
# threads, which wait for each other wherever the machine has other work
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("BREWGRAPH_FACTS", "off")  # what is known of a model is found out by every test for itself
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="brewgraph-datasets-")  # encodings are kept there
atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
os.environ.pop("BREWGRAPH_RUNS", None)
os.environ.pop("COLUMNS", None)  # which says that somebody looks at a terminal of this width

settings.register_profile("here", deadline=None)  # these machines are noisy, and no test is about time
settings.load_profile("here")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="module")
def _imports_are_no_garbage() -> Iterator[None]:
    """What a module's imports and its first test have loaded is left out when garbage is looked for.

    Every stage of a training ends with a collection, which would go through the millions of objects that torch and
    transformers consist of: that took longer than all training steps of these tests together.
    """
    gc.freeze()
    yield
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """By the processes that tests start, also where the tests are a background job of a shell, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded reference values: `golden` in `../shared`, or what BREWGRAPH_GOLDEN names.

    It does not come with the repository; tests that need it are skipped where it is absent.
    """
    named = os.environ.get("BREWGRAPH_GOLDEN")
    places = [Path(named)] if named else [REPOSITORY.parent / "shared" / "golden", REPOSITORY / "shared" / "golden"]
    for place in places:
        if (place / "ops.json").is_file():
            return place
    pytest.skip(f"no recorded values: there is no ops.json in {', '.join(map(str, places))} (set BREWGRAPH_GOLDEN)")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: `data` in `../shared`, or what BREWGRAPH_DATA names.

    It does not come with the repository; tests that need it are skipped where it is absent.
    """
    named = os.environ.get("BREWGRAPH_DATA")
    places = [Path(named)] if named else [REPOSITORY.parent / "shared" / "data", REPOSITORY / "shared" / "data"]
    for place in places:
        if (place / "README.md").is_file():
            return place
    pytest.skip(f"no real data: there is no README.md in {', '.join(map(str, places))} (set BREWGRAPH_DATA)")
