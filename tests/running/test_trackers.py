"""Trackers with their real packages, each offline: points, configuration, resumption, the report, and what fails."""

from __future__ import annotations

import math
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import brewgraph as bg
from brewgraph.checking.check import check, read_spec
from brewgraph.diagnostics import RunError
from brewgraph.running import run as run_module
from brewgraph.training import trackers as module
from brewgraph.training.folder import RunFolder
from brewgraph.training.loop import train
from brewgraph.training.trackers import check_trackers, flat
from tests.cli.test_main import process
from tests.running.test_run import Steps
from tests.small import metrics, project

Points = list[tuple[str, int, float]]
TOOLS = ("tensorboard", "wandb", "mlflow", "trackio")

pytestmark = pytest.mark.filterwarnings("ignore:::(wandb|mlflow|trackio|pydantic|google|opentelemetry|sqlalchemy)")


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tracker records below the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio", raising=False) if find_spec(
        "trackio"
    ) else None


# ── what a tracker has, read back from its files ─────────────────────────────────────────────────────────────────────


def in_tensorboard(folder: Path, _: str) -> tuple[Points, dict[str, Any], list[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    points = [(tag, event.step, event.value) for tag in board.Tags()["scalars"] for event in board.Scalars(tag)]
    data = plugin_data_pb2.HParamsPluginData.FromString(
        board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    config = {name: getattr(value, value.WhichOneof("kind")) for name, value in data.session_start_info.hparams.items()}
    return points, config, []


def logged(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, behind wandb's header of seven bytes."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def in_wandb(folder: Path, _: str) -> tuple[Points, dict[str, Any], list[str]]:
    import json

    from wandb.proto import wandb_internal_pb2

    points, config, files = [], {}, []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in logged(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item
            }
            points += [(name, items["_step"], value) for name, value in items.items() if not name.startswith("_")]
            updates = [*record.run.config.update, *record.config.update]
            config |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in updates}
            files += [entry.path for entry in record.request.log_artifact.artifact.manifest.contents]
            files += [entry.path for entry in record.artifact.manifest.contents]
    return points, config, files


def in_mlflow(folder: Path, name: str) -> tuple[Points, dict[str, Any], list[str]]:
    from mlflow import MlflowClient

    client = MlflowClient()
    runs = client.search_runs([x.experiment_id for x in client.search_experiments()])
    (run,) = (run for run in runs if run.info.run_name == name)
    id, points = run.info.run_id, []
    for key in run.data.metrics:
        points += [(key, x.step, x.value) for x in client.get_metric_history(id, key)]
    return points, dict(run.data.params), [x.path for x in client.list_artifacts(id)]


def in_trackio(folder: Path, name: str) -> tuple[Points, dict[str, Any], list[str]]:
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("spec", name)
    points = [(key, row["step"], x) for row in rows for key, x in row.items() if key not in ("step", "timestamp")]
    config = SQLiteStorage.get_run_config("spec", name) or {}
    with closing(sqlite3.connect(SQLiteStorage.get_project_db_path("spec"))) as database:
        files = [row[0] for row in database.execute("SELECT name FROM artifacts")]
    return points, config, files


READ: Mapping[str, Callable[[Path, str], tuple[Points, dict[str, Any], list[str]]]] = {
    "tensorboard": in_tensorboard,
    "wandb": in_wandb,
    "mlflow": in_mlflow,
    "trackio": in_trackio,
}


def lines_as_points(lines: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """What metrics.jsonl has, by name and step."""
    points = {}
    for line in lines:
        for group, value in line.items():
            if group in ("step", "epoch"):
                continue
            values = value if isinstance(value, dict) else {"": value}
            points |= {(f"{group}/{name}".rstrip("/"), line["step"]): x for name, x in values.items()}
    return points


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tool", TOOLS)
def test_a_resumed_run_is_one_tracked_run_with_each_point_once(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every number of metrics.jsonl under its name, the resolved spec, and the report, over an interruption. Nothing of
    it is printed on stdout, where results go.
    """
    pytest.importorskip(tool)
    spec = project(tmp_path, train=f"steps = 4; save_steps = 2 steps; trackers = {tool}")

    def stop(*args: Any, **settings: Any) -> Any:
        train(*args, **settings, stop_after=3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("brewgraph.running.run.train", stop)
        with pytest.raises(KeyboardInterrupt):
            bg.run(spec)
    reporter = Steps()
    folder = bg.run(spec, reporter=reporter).folder
    assert not any("tracker" in said for said in reporter.said), reporter.said
    assert capsys.readouterr().out == ""
    points, config, files = READ[tool](folder, folder.name)
    expected = lines_as_points(metrics(folder))
    if tool == "mlflow":
        expected = {(module._allowed(name), step): x for (name, step), x in expected.items()}
    assert len(expected) > 10
    assert sorted((name, step) for name, step, _ in points) == sorted(expected)
    assert all(math.isclose(x, expected[name, step], rel_tol=1e-5) for name, step, x in points)
    assert str(config["stages.steps"]) in ("4", "4.0")
    assert float(config["params.T"]) == 4
    assert config["hash"] == (RunFolder(folder).resolved or {})["hash"]
    assert not (folder / "trackers.json").exists()
    if tool == "wandb":
        assert len({path.name for path in folder.glob("wandb/offline-run-*/*.wandb")}) == 1, "one id"
    if tool != "tensorboard" and find_spec("matplotlib") is not None:
        assert any("report.html" in name for name in files), files


def test_the_baseline_is_a_tracked_run_of_its_own(tmp_path: Path) -> None:
    """It ends before that of the student begins."""
    pytest.importorskip("mlflow")
    spec = project(tmp_path, train="steps = 2; baseline = true; trackers = [mlflow]")
    folder = bg.run(spec).folder
    for part, name in ((folder / "alone", f"{folder.name}-alone"), (folder, folder.name)):
        points, _, _ = in_mlflow(part, name)
        expected = sorted((module._allowed(name), step) for name, step in lines_as_points(metrics(part)))
        assert sorted((name, step) for name, step, _ in points) == expected


def test_a_dry_run_is_not_tracked(tmp_path: Path) -> None:
    """It keeps nothing, there neither."""
    pytest.importorskip("mlflow")
    spec = project(tmp_path, train="steps = 2; trackers = [mlflow]")
    bg.run(spec, dry_run=True)
    assert not (tmp_path / "mlruns").exists()


def test_a_missing_package_is_said_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; nothing is written but the reason."""
    spec = project(tmp_path, train="steps = 2; trackers = [tensorboard, wandb, mlflow]")
    missing = {"wandb", "mlflow"}
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in missing else find_spec(name))
    monkeypatch.setattr("brewgraph.running.run.DataCache", None)  # which a run makes before it loads weights
    with pytest.raises(RunError) as caught:
        bg.run(spec)
    assert str(caught.value) == (
        "`trackers` names wandb and mlflow, which are not installed: "
        'pip install "brewgraph[wandb,mlflow]", or take it out of `trackers`'
    )


@pytest.mark.parametrize(("main", "names"), [(True, ("wandb", "mlflow")), (False, ())])
def test_the_first_rank_alone_records(
    main: bool, names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others hold trackers that do nothing."""
    checked = check(read_spec(project(tmp_path, train="steps = 2; trackers = [wandb, mlflow]")))
    monkeypatch.setattr(run_module, "this_process", lambda: SimpleNamespace(is_main_process=main))
    trackers = run_module._trackers(checked, {"hash": "x", "folder": "/home/me"}, Steps())
    assert tuple(trackers.names) == names
    assert trackers.config == ({"hash": "x"} if main else {})


def test_trackers_change_no_hash(tmp_path: Path) -> None:
    """A finished run is found again whatever recorded it."""
    spec = project(tmp_path, train="steps = 2")
    before = check(read_spec(spec)).spec_hash
    spec.write_text(spec.read_text().replace("steps = 2", "steps = 2; trackers = [wandb, trackio]"))
    assert check(read_spec(spec)).spec_hash == before


# ── what fails ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Failing(module._Tracker):
    """A tracker that fails at a method."""

    name = "wandb"
    remedy = "log in"
    attaches = False
    at = ""

    def make(self, *arguments: Any) -> Any:
        if self.at == "make":
            raise OSError("no route\nto the host")
        return self

    def start(self, *arguments: Any) -> None:
        self.make()

    def configure(self, config: Any) -> None:
        pass

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self.at == "log":
            raise ConnectionError("the network is gone")

    def end(self, *, finished: bool) -> None:
        if self.at == "end":
            raise TimeoutError


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("log", "the tracker `wandb` failed at step 1 and records no more: the network is gone; the run goes on, and metrics.jsonl has every line"),
        ("end", "the tracker `wandb` failed at the end and records no more: TimeoutError; the run goes on, and metrics.jsonl has every line"),
    ],
)  # fmt: skip
def test_a_tracker_that_fails_is_reported_once(
    at: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is finished as without it."""
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "_KINDS", {"wandb": type("Broken", (Failing,), {"at": at})})
    spec, reporter = project(tmp_path, train="steps = 3; trackers = wandb"), Steps()
    result = bg.run(spec, reporter=reporter)
    assert [x for x in reporter.said if "tracker" in x] == [said]
    assert [line["step"] for line in metrics(result.folder) if "loss" in line] == [1, 2, 3]


def test_a_tracker_that_cannot_start_ends_the_run_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the remedy; the same command then starts."""
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "_KINDS", {"wandb": type("Broken", (Failing,), {"at": "make"})})
    spec, reporter = project(tmp_path, train="steps = 1; trackers = wandb"), Steps()
    with pytest.raises(RunError, match=r"^the tracker `wandb` cannot start: no route to the host; log in; or take"):
        bg.run(spec, reporter=reporter)
    assert reporter.trained == []
    monkeypatch.setattr(module, "_KINDS", {"wandb": Failing})
    assert bg.run(spec, reporter=reporter).fresh


def test_no_point_is_missing_or_twice_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are written again go to a tracker that was added since, not to those that have them. A damaged note of
    what they have begins tracked runs anew.
    """
    points: list[tuple[str, int]] = []

    class Keeps(Failing):
        def log(self, values: Mapping[str, float], step: int) -> None:
            points.append((self.name, step))

    kinds = {name: type(name, (Keeps,), {"name": name}) for name in ("wandb", "mlflow")}
    monkeypatch.setattr(module, "_KINDS", kinds)
    folder, lines = RunFolder(tmp_path / "run"), [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    killed = module.Trackers(["wandb"])
    killed.begin(folder)
    for line in lines[:2]:
        killed.log(line)
    resumed = module.Trackers(["wandb", "mlflow"])
    resumed.begin(folder)
    resumed.already(lines[1:2])
    for line in lines[1:]:
        resumed.log(line)
    assert points == [("wandb", 1), ("wandb", 2), ("mlflow", 2), ("wandb", 3), ("mlflow", 3)]
    for damage in ({"ids": [], "recorded": 5}, {"ids": {}, "recorded": {"wandb": [[1]]}}, {}):
        folder.write_json("trackers.json", damage)
        anew = module.Trackers(["wandb"])
        anew.begin(folder)
        anew.log(lines[0])
    assert points[5:] == [("wandb", 1)] * 3


def test_wandb_without_a_login_says_what_to_do(tmp_path: Path) -> None:
    """Online, with no key and no terminal to ask at. In a process of its own: wandb reads its settings once."""
    pytest.importorskip("wandb")
    code = """
from pathlib import Path
from accelerate import PartialState
from brewgraph.training.folder import RunFolder
from brewgraph.training.trackers import Trackers
PartialState(cpu=True)
Trackers(["wandb"], "p").begin(RunFolder(Path("run")))
"""
    gone = {"WANDB_API_KEY": "", "WANDB_MODE": "online", "NETRC": str(tmp_path / "netrc"), "HOME": str(tmp_path)}
    result = process(folder=tmp_path, code=code, **gone)
    last = result.stderr.strip().splitlines()[-1]
    assert "RunError: the tracker `wandb` cannot start: " in last
    assert "; log in with `wandb login`, or set WANDB_MODE=offline" in last


def test_runs_that_begin_at_once_share_a_new_database(tmp_path: Path) -> None:
    """MLflow makes it at the first start, as does Trackio; the spec's name has signs that no project may have."""
    tools = [tool for tool in ("mlflow", "trackio") if find_spec(tool) is not None]
    if not tools:
        pytest.skip("neither MLflow nor Trackio is installed")
    code = f"""
import sys
from pathlib import Path
from accelerate import PartialState
from brewgraph.training.folder import RunFolder
from brewgraph.training.trackers import Trackers
PartialState(cpu=True)
trackers = Trackers({tools}, "bert's a:b")
trackers.begin(RunFolder(Path("runs", sys.argv[1])))
trackers.log({{"step": 1, "loss": 0.5}})
trackers.end(finished=True)
"""
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    del here["MLFLOW_TRACKING_URI"]  # then it is a database in the working directory
    processes = [
        subprocess.Popen([sys.executable, "-c", code, f"run-{i}"], cwd=tmp_path, env=here, stdout=-1, stderr=-1)
        for i in range(3)
    ]
    assert [process.communicate()[1].decode()[-800:] * (process.returncode != 0) for process in processes] == [""] * 3


def test_names_and_values_as_trackers_take_them() -> None:
    """Nested settings are flat; MLflow's names have no brackets."""
    content = {"hash": "x", "stages": {"": {"lr": 0.1, "freeze": ["a"], "steps": None}}, "params": {"T": True}}
    assert flat(content) == {
        "hash": "x", "stages.lr": 0.1, "stages.freeze": '["a"]', "stages.steps": "none", "params.T": True,
    }  # fmt: skip
    assert module._allowed("terms/ner/hidden[0]") == "terms/ner/hidden_0"
    assert module._allowed("weighted/a -> b") == "weighted/a -_ b"
    check_trackers(())
