"""Trackers of a run beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow and Trackio, by accelerate's classes.

Each part of a run (the student; the baseline before it) is one tracked run. It takes the numbers of each line of
metrics.jsonl under the names there, the resolved spec as its configuration, and the report as an artifact. A resumed
part continues its tracked run, whose id is in `trackers.json` until the part is finished, and records no point twice.
"""

from __future__ import annotations

import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
)

from brewgraph.diagnostics import RunError
from brewgraph.display.lines import one_line
from brewgraph.recipe.settings.train import TRACKERS, Train
from brewgraph.training.folder import TRACKED, RunFolder, read_object
from brewgraph.training.lock import one_at_a_time

Config: TypeAlias = Mapping[str, bool | int | float | str]


def trackers_of(settings: Train) -> tuple[str, ...]:
    """The trackers of a run: those of its settings; by default TensorBoard, if it is installed."""
    if settings.trackers is not None:
        return settings.trackers
    return ("tensorboard",) if find_spec("tensorboard") is not None else ()


def check_trackers(names: Iterable[str]) -> None:
    """Raise `RunError` if a tracker is not installed."""
    if missing := [name for name in names if find_spec(name) is None]:
        extras = ",".join("board" if name == "tensorboard" else name for name in missing)
        raise RunError(
            f"`trackers` names {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            f'pip install "brewgraph[{extras}]", or take it out of `trackers`'
        )


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested settings as trackers take them: `{"stages": {"": {"steps": 2}}}` is `{"stages.steps": 2}`; lists as JSON,
    None as `none`.
    """
    flattened: dict[str, bool | int | float | str] = {}
    for key, value in content.items():
        name = ".".join(filter(None, (prefix, str(key))))
        if isinstance(value, Mapping):
            flattened |= flat(value, name)
        elif isinstance(value, bool | int | float | str):
            flattened[name] = value
        else:
            flattened[name] = "none" if value is None else json.dumps(value, default=str)
    return flattened


# ── the trackers ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tracker(ABC):
    """A tracked run in one tool. `make` starts it, or continues the one of an id."""

    name: ClassVar[str]
    remedy: ClassVar[str]
    """What helps if it cannot start."""

    def __init__(self) -> None:
        self.tracker: Any = None

    def start(self, folder: RunFolder, project: str, title: str, id: str | None) -> None:
        """Start a run called `title` in a project, or continue the run with this id."""
        self.tracker = self.make(folder, project, title, id)
        self.tracker.start()

    @abstractmethod
    def make(self, folder: RunFolder, project: str, title: str, id: str | None) -> GeneralTracker: ...

    @property
    def id(self) -> str | None:
        """By what the run is found again; None where its folder is enough."""
        return None

    def configure(self, config: Config) -> None:
        self.tracker.store_init_configuration(dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.tracker.log(dict(values), step=step)

    reconfigures: ClassVar[bool] = True
    """Whether a run that is continued is configured again."""
    attaches: ClassVar[bool] = True
    """Whether it takes files."""

    def attach(self, path: Path) -> None:
        """Keep a file with the run."""
        raise NotImplementedError

    def end(self, *, finished: bool) -> None:
        """End the run, as finished or as failed."""
        self.tracker.finish()


class _TensorBoard(_Tracker):
    """Event files in the run's folder, where the report lies too."""

    name = "tensorboard"
    remedy = "free space where the run folder is"
    attaches = False

    def make(self, folder: RunFolder, project: str, title: str, id: str | None) -> GeneralTracker:
        return TensorBoardTracker(folder.board.name, folder.path)

    def configure(self, config: Config) -> None:
        # accelerate would write them to a folder of their own, which TensorBoard shows as a second run
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(config), {}):
            self.tracker.writer.file_writer.add_summary(summary)


class _Wandb(_Tracker):
    """The project is the spec's name unless WANDB_PROJECT names one; local files are in the run's folder."""

    name = "wandb"
    remedy = "log in with `wandb login`, or set WANDB_MODE=offline and `wandb sync` the run folder's wandb/ later"

    def make(self, folder: RunFolder, project: str, title: str, id: str | None) -> GeneralTracker:
        import wandb

        again: dict[str, Any] = {} if id is None else {"id": id, "resume": "allow"}
        # its capture of the console would take the progress line for output
        settings = wandb.Settings(console=os.environ.get("WANDB_CONSOLE", "off"))
        project = os.environ.get("WANDB_PROJECT", project)
        return WandBTracker(project, name=title, dir=str(folder.path), settings=settings, **again)

    @property
    def id(self) -> str | None:
        return str(self.tracker.tracker.id)

    def attach(self, path: Path) -> None:
        name = re.sub(r"[^\w.-]", "-", f"{self.tracker.tracker.name or self.id}-{path.name}")
        self.tracker.tracker.log_artifact(str(path), name=name, type=path.stem)

    def end(self, *, finished: bool) -> None:
        self.tracker.tracker.finish(exit_code=0 if finished else 1)


class _Mlflow(_Tracker):
    """The experiment is the spec's name unless MLFLOW_EXPERIMENT_NAME names one, where MLFLOW_TRACKING_URI says."""

    name = "mlflow"
    reconfigures = False  # it refuses another value, which a setting that trains nothing may have
    remedy = "set MLFLOW_TRACKING_URI to a server that answers, or to a file: sqlite:///mlflow.db"

    def start(self, folder: RunFolder, project: str, title: str, id: str | None) -> None:
        import mlflow

        # the first one makes the database and the experiment; of runs that begin at once, others would fail or spoil it
        scheme, _, path = str(mlflow.get_tracking_uri()).partition(":///")
        with one_at_a_time(Path(path).parent if scheme.startswith("sqlite") else folder.whole.path.parent):
            super().start(folder, project, title, id)

    def make(self, folder: RunFolder, project: str, title: str, id: str | None) -> GeneralTracker:
        # the run waits while a silent server is asked again: seven times, in growing pauses, unless told
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        return MLflowTracker(project, run_id=id, run_name=title)

    @property
    def id(self) -> str | None:
        return str(self.tracker.tracker.info.run_id)

    def configure(self, config: Config) -> None:
        super().configure({_allowed(name): value for name, value in config.items()})

    def log(self, values: Mapping[str, float], step: int) -> None:
        super().log({_allowed(name): value for name, value in values.items()}, step)

    def attach(self, path: Path) -> None:
        self.tracker.log_artifact(str(path))

    def end(self, *, finished: bool) -> None:
        import mlflow

        mlflow.end_run("FINISHED" if finished else "FAILED")


def _project_name(name: str) -> str:
    """A name that each tool takes for a project, as Weights & Biases refuses `a/b` and MLflow `bert's`."""
    return re.sub(r"""[^\w\-. ()+,=@]""", "-", name)


def _allowed(name: str) -> str:
    """A name in the characters that MLflow takes: `hidden[0]` is `hidden_0`."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("]", ""))


class _Trackio(_Tracker):
    """The project is the spec's name, on this machine or in the space that TRACKIO_SPACE_ID names."""

    name = "trackio"
    remedy = "unset TRACKIO_SPACE_ID and TRACKIO_SERVER_URL to record on this machine"

    def make(self, folder: RunFolder, project: str, title: str, id: str | None) -> GeneralTracker:
        return TrackioTracker(project, name=id or title, resume="never" if id is None else "allow", embed=False)

    @property
    def id(self) -> str | None:
        return str(self.tracker.tracker.name)

    def attach(self, path: Path) -> None:
        self.tracker.tracker.log_artifact(path, name=f"{self.id}-{path.name}", type=path.stem)

    def end(self, *, finished: bool) -> None:
        import trackio

        trackio.finish()  # `finish` of the run alone would be repeated, with its words on stdout, when Python ends


_KINDS: Mapping[str, type[_Tracker]] = {kind.name: kind for kind in (_TensorBoard, _Wandb, _Mlflow, _Trackio)}
assert _KINDS.keys() == set(TRACKERS)


# ── the trackers of a run ────────────────────────────────────────────────────────────────────────────────────────────


class Trackers:
    """The trackers of a run's parts, one part after the other. A tracker that fails while a part is trained is reported
    once and records no more of it; the run goes on.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        project: str = "",
        config: Config | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.names, self.project, self.config, self.say = names, _project_name(project), config or {}, say
        self.folder: RunFolder | None = None
        self.running: list[_Tracker] = []
        self._begun = False
        self._failed: set[str] = set()
        self._recorded: dict[str, set[tuple[int, str, bool]]] = {}

    @property
    def attaches(self) -> bool:
        """Whether a tracker takes files."""
        return any(tracker.attaches for tracker in self.running)

    def begin(self, folder: RunFolder) -> None:
        """Start the tracked run of a part, or continue it, unless it is on; that of the part before is ended. Raises
        `RunError` if a tracker cannot start for the first part, before which nothing is trained.
        """
        if self.folder == folder:
            return
        self.end(finished=True)
        if self.names:
            folder.prepare()
        self.folder, whole = folder, folder.whole
        title = whole.path.name if whole == folder else f"{whole.path.name}-{folder.path.name}"
        ids, self._recorded = _tracked(folder)
        for name in self.names:
            if name in self._failed:
                continue
            tracker = _KINDS[name]()
            try:
                with redirect_stdout(sys.stderr):
                    tracker.start(folder, self.project, title, ids.get(name))
                    if name not in ids or tracker.reconfigures:
                        tracker.configure(self.config)
            except Exception as error:
                if self._begun:
                    self._give_up(tracker, "to start", error)
                    continue
                self.end(finished=False)
                raise RunError(
                    f"the tracker `{name}` cannot start: {_reason(error)}; {tracker.remedy}; "
                    "or take it out of `trackers`"
                ) from error
            self.running.append(tracker)
        self._begun = True
        self._write()

    def already(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Lines of metrics.jsonl that a resumed run writes again: trackers that it had before have them."""
        keys = {_key(line) for line in lines}
        for recorded in self._recorded.values():
            recorded |= keys
        self._write()

    def _write(self) -> None:
        if self.folder is not None and self.running:
            ids = {tracker.name: tracker.id for tracker in self.running if tracker.id is not None}
            recorded = {tracker.name: sorted(self._recorded.get(tracker.name, ())) for tracker in self.running}
            self.folder.write_json(TRACKED, {"ids": ids, "recorded": recorded})

    def log(self, line: Mapping[str, Any]) -> None:
        """Record the numbers of a line of metrics.jsonl."""
        key, values = _key(line), dict(_numbers(line))

        def record(tracker: _Tracker) -> None:
            if key not in self._recorded.get(tracker.name, ()):
                tracker.log(values, line["step"])

        self._each(record, f"at step {line['step']:,}")

    def attach(self, path: Path) -> None:
        """Keep a file with the tracked runs."""
        self._each(lambda tracker: tracker.attach(path) if tracker.attaches else None, f"with {path.name}")

    def end(self, *, finished: bool) -> None:
        """End the tracked run that is on. Without it being `finished`, it can be continued."""
        self._each(lambda tracker: tracker.end(finished=finished), "at the end")
        if finished and self.folder is not None:
            with suppress(OSError):
                (self.folder.path / TRACKED).unlink(missing_ok=True)
        self.folder, self.running = None, []

    def _each(self, action: Callable[[_Tracker], None], when: str) -> None:
        for tracker in list(self.running):
            try:
                with redirect_stdout(sys.stderr):
                    action(tracker)
            except Exception as error:
                self.running.remove(tracker)
                self._give_up(tracker, when, error)

    def _give_up(self, tracker: _Tracker, when: str, error: Exception) -> None:
        self._failed.add(tracker.name)
        self.say(
            f"the tracker `{tracker.name}` failed {when} and records no more: {_reason(error)}; the run goes on, and "
            "metrics.jsonl has every line"
        )


def _tracked(folder: RunFolder) -> tuple[dict[str, str], dict[str, set[tuple[int, str, bool]]]]:
    """The ids of the tracked runs to continue, and the points that each tracker has; empty if that cannot be read."""
    state = read_object(folder.path / TRACKED) or {}
    try:
        recorded = {name: {(step, task, dev) for step, task, dev in x} for name, x in state["recorded"].items()}
        return dict(state["ids"]), recorded
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, {}


def _reason(error: Exception) -> str:
    return one_line(str(error)).strip() or type(error).__name__


def _key(line: Mapping[str, Any]) -> tuple[int, str, bool]:
    """What tells a line of metrics.jsonl from the others."""
    return line["step"], line.get("task", ""), "dev" in line


_PLACE = frozenset({"step", "stage", "stage_step", "epoch", "task"})
"""What a line says of where the training is."""


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line: those of a group as `group/name`, those of a task under its name."""
    task = line.get("task", "")
    for group, value in line.items():
        if group in _PLACE:
            continue
        if isinstance(value, Mapping):
            yield from ((f"{group}/{full_name(task, name)}", x) for name, x in value.items())
        else:
            yield full_name(task, group), value


def full_name(task: str, name: str) -> str:
    """A task's name for something, qualified by the task: `ner/soft`; unchanged if the task has no name."""
    return name if not task or name.startswith(f"{task}/") else f"{task}/{name}"
