"""`bench`: a run's teachers, its student and exported students on the same texts, taking turns."""

from __future__ import annotations

import ctypes
import gc
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import datasets
import numpy
import psutil
import torch
from torch import Tensor, nn

from brewgraph.checking.check import check
from brewgraph.data.encoding.encode import Collator, Encoding, encode, row_lengths
from brewgraph.diagnostics import BrewError, SourceFault, SpecError, UsageError, listing, suggest
from brewgraph.export.write import rows_of
from brewgraph.models.export_record import read_record
from brewgraph.models.exported import ExportedModel, load_exported
from brewgraph.paths import EXPORT_RECORD
from brewgraph.running.data_cache import token_limit
from brewgraph.running.finished import FinishedRun, FinishedTask, open_run
from brewgraph.running.predict import is_scored, load_student, load_unscored_student, student_of
from brewgraph.running.run_identity import finished_teachers
from brewgraph.running.spec_builder import SpecBuilder, models_of
from brewgraph.running.timing import TimedBatch, per_sentence, take_turns
from brewgraph.training.evaluation import model_inputs, own_view
from brewgraph.training.folder import put_back
from brewgraph.training.work import in_order

BUCKETS = (16, 32, 64, 128, 256, 512)
"""The most tokens of a text in each bucket of lengths; longer ones are in a last bucket."""
_SEED = 0


@dataclass(frozen=True)
class Options:
    """How to measure: `rows` texts of the split or file `data`, one by one and in batches of `batch`, for about
    `seconds` per model, on `device` with so many `threads` of the CPU. `models` are names of models of the spec, of
    exports of the run, or their folders; none for all.
    """

    models: tuple[str, ...] = ()
    data: str = "dev"
    rows: int = 200
    batch: int = 32
    seconds: float = 5.0
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """A model's measurements. `latencies` are seconds of one text at a time, `buckets` their medians by most tokens of
    a text, `fastest` those of each text in its fastest round; `batched` are mean seconds per text of each round in
    batches.
    `memory` counts the bytes by which the process grew at most while the model was loaded and ran a batch, None where
    that cannot be told; `size` those of its weights or files.
    """

    name: str
    place: str
    size: int
    memory: int | None
    latencies: tuple[float, ...]
    buckets: Mapping[int, float]
    fastest: tuple[float, ...]
    batched: tuple[float, ...]

    def percentile(self, q: float) -> float:
        """Seconds that q percent of the texts stay within."""
        return float(numpy.percentile(self.latencies, q))

    @property
    def per_second(self) -> float:
        """Texts per second in batches, at the median of the rounds."""
        return 1 / max(median(self.batched), 1e-9)

    def faster(self, than: Measured) -> float:
        """How many times faster than another model of the same call, one text at a time, each at its fastest: other
        load of the machine only ever adds to a time.
        """
        return sum(than.fastest) / max(sum(self.fastest), 1e-9)


@dataclass(frozen=True)
class BenchResult:
    """The models in the order of the table: teachers, student, exports. `lengths` are the tokens of each text, as the
    first model sees them, `left_out` are models that could not be measured, with the reason.
    """

    models: tuple[Measured, ...]
    lengths: tuple[int, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def bench(
    run: FinishedRun,
    task: FinishedTask,
    options: Options,
    *,
    allow_python: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> BenchResult:
    """Measure the models of a task. Raises `UsageError` for unknown names, a device that is not there, too few rows."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no GPU on this machine: leave out --device cuda")
    if task.data.source.holds_tensors:
        raise UsageError(f"`{task.data.name}` holds batches of tensors, and models are measured on texts")
    rows = rows_of(task, options.data)
    count = min(options.rows, len(rows))
    chosen = rows.select([i * len(rows) // count for i in range(count)])
    if not count:
        raise UsageError(f"`{options.data}` has no rows to measure on: name others with --data")
    loaders, left_out = _candidates(run, task, options, allow_python)
    say(f"measuring {', '.join(loaders)}: at most {2 * options.seconds * len(loaders):.0f} s, after they are loaded")
    with _threads(options.threads):
        ones: dict[str, list[TimedBatch]] = {}
        batches: dict[str, list[TimedBatch]] = {}
        facts: dict[str, tuple[str, int, int | None]] = {}
        kept: list[_Loaded] = []
        texts: _Texts | None = None
        for name, load in loaders.items():
            with _growth(options.device) as grown:
                try:
                    loaded = load()
                except BrewError as error:
                    if options.models:
                        raise UsageError(f"`{name}` cannot be measured: {_reason(error)}") from error
                    left_out[name] = _reason(error)
                    continue
                texts = texts or _Texts.of(loaded, task, chosen)
                if not texts.lengths:
                    raise UsageError(f"no text of `{options.data}` is long enough to measure: name others with --data")
                ones[name] = [loaded.timed(task, chosen, [i]) for i in texts.shuffled]
                batches[name] = [loaded.timed(task, chosen, part) for part in texts.by_length(options.batch)]
                if batches[name]:
                    batches[name][-1].run()  # of the longest texts
            facts[name] = loaded.place, loaded.size, grown()
            kept.append(loaded)
        if texts is None:
            raise UsageError(f"no model can be measured: {'; '.join(left_out.values())}")
        limit = options.seconds * len(loaders)
        alone = list(take_turns(ones, limit=limit))
        together = list(take_turns(batches, limit=limit))
    batched = per_sentence(together, batches)
    measured = []
    for name, (place, size, memory) in facts.items():
        by_text: dict[int, list[float]] = {}
        for x in alone:
            if x.name == name:
                by_text.setdefault(texts.shuffled[x.index], []).append(x.seconds)
        in_bucket: dict[int, list[float]] = {}
        for index, seconds in by_text.items():
            in_bucket.setdefault(bucket_of(texts.lengths[index]), []).extend(seconds)
        buckets = {most: median(seconds) for most, seconds in sorted(in_bucket.items())}
        latencies = tuple(x for seconds in by_text.values() for x in seconds)
        fastest = tuple(min(seconds) for seconds in by_text.values())
        measured.append(Measured(name, place, size, memory, latencies, buckets, fastest, batched[name]))
    return BenchResult(tuple(measured), tuple(texts.lengths.values()), left_out)


def bucket_of(tokens: int) -> int:
    """The bucket of a text: its most tokens, or its own power of two beyond the last bucket."""
    return next((most for most in BUCKETS if tokens <= most), 1 << (tokens - 1).bit_length())


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Loaded:
    """A model that is ready to run, with its encoding."""

    module: nn.Module
    encoding: Encoding
    device: torch.device
    size: int

    @property
    def place(self) -> str:
        return self.module.place if isinstance(self.module, ExportedModel) else self.device.type

    def timed(self, task: FinishedTask, rows: datasets.Dataset, indices: Sequence[int]) -> TimedBatch:
        """These texts as one batch."""
        source = task.data.source
        encoded = encode(rows.select(indices), [self.encoding], source=source, whole=True)
        batches = in_order(encoded, Collator([self.encoding], source=source), len(encoded))
        key = self.encoding.key
        inputs = [model_inputs(self.module, own_view(key, batch), self.device) for batch in batches]
        return TimedBatch(len(indices), partial(_run, self.module, inputs, self.device))


@torch.no_grad()
def _run(module: nn.Module, inputs: Sequence[Mapping[str, Tensor]], device: torch.device) -> None:
    for batch in inputs:
        module(**batch)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _candidates(
    run: FinishedRun, task: FinishedTask, options: Options, allow_python: bool
) -> tuple[dict[str, Callable[[], _Loaded]], dict[str, str]]:
    """What loads each model by its name, teachers first; and the models that cannot be loaded, with the reason."""
    device = torch.device(options.device)
    loaders: dict[str, Callable[[], _Loaded]] = {}
    left_out: dict[str, str] = {}
    if run.exported:
        loaders[run.folder.path.name] = partial(_exported, task, run.folder.path, options)
    else:
        teachers = [name for name in run.recipe.models if name != task.key]
        if set(teachers) & set(options.models or teachers):
            try:
                builder, names = _teachers(run, task, allow_python)
                loaders |= {name: partial(_teacher, builder, name, task, device) for name in names}
            except BrewError as error:
                left_out |= dict.fromkeys(teachers, _reason(error))
        loaders[task.key] = partial(_student, task, device)
        for folder in run.folder.exported():
            try:
                record = read_record(folder)
            except UsageError as error:
                left_out[folder.name] = str(error)
                continue
            if record is not None and record.task == task.name:
                loaders[folder.name] = partial(_exported, task, folder, options)
    if not options.models:
        return loaders, left_out
    wanted: dict[str, Callable[[], _Loaded]] = {}
    for name in options.models:
        put_back(Path(name))
        if name in loaders:
            wanted[name] = loaders[name]
        elif name in left_out:
            raise UsageError(f"`{name}` cannot be measured: {left_out[name]}")
        elif (Path(name) / EXPORT_RECORD).is_file():
            wanted[name] = partial(_exported, task, Path(name), options)
        else:
            help = suggest(name, loaders) or f"it has {listing(loaders)}"
            raise UsageError(f"the run has no model and no export `{name}`: {help}; or name an exported folder")
    return wanted, {}


def _reason(error: BrewError) -> str:
    return error.diagnostics[0].message if isinstance(error, SpecError) else str(error)


def _student(task: FinishedTask, device: torch.device) -> _Loaded:
    student = load_student(task) if is_scored(task) else load_unscored_student(task)
    module = student.model.to(device)
    return _Loaded(module, student.encoding, device, _bytes(module))


def _exported(task: FinishedTask, folder: Path, options: Options) -> _Loaded:
    other = open_run(folder).task(None)
    model = load_exported(folder, device=options.device, threads=options.threads)
    encoding = student_of(other, model).encoding
    size = sum(x.stat().st_size for x in folder.glob("model.*"))
    # its runtime copies inputs to where it runs
    return _Loaded(model, encoding, torch.device("cpu"), size)


def _teacher(builder: SpecBuilder, name: str, task: FinishedTask, device: torch.device) -> _Loaded:
    module = builder.model(name).to(device).eval()
    tokenizer = builder.tokenizer(name)
    encoding = Encoding(name, tokenizer, token_limit(tokenizer, module, task.data.source.max_length))
    return _Loaded(module, encoding, device, _bytes(module))


def _teachers(run: FinishedRun, task: FinishedTask, allow_python: bool) -> tuple[SpecBuilder, list[str]]:
    """The builder of the run's spec, and the teachers that the task had; averages of the student are not kept."""
    checked = check(run.recipe.source, run.recipe.params)
    home = run.folder.whole.path.parent
    teachers = finished_teachers(checked, (), home, option="", allow_python=allow_python)
    builder = SpecBuilder(checked, teachers=teachers, allow_python=allow_python)
    of_task = [models_of(graph) for (_, name), graph in checked.graphs.items() if name == task.name]
    used = dict.fromkeys(name for models in of_task for name in models if name != task.key)
    return builder, [name for name in used if not checked.recipe.models[name].source.averaged]


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Texts:
    """The tokens of each text, by its position, as one model sees it; of several windows, of all."""

    lengths: Mapping[int, int]

    @classmethod
    def of(cls, loaded: _Loaded, task: FinishedTask, rows: datasets.Dataset) -> _Texts:
        lengths = {}
        for i in range(len(rows)):
            with suppress(SourceFault):  # a line of plain text that is too short
                encoded = encode(rows.select([i]), [loaded.encoding], source=task.data.source, whole=True)
                lengths[i] = int(row_lengths(encoded).sum())
        return cls(lengths)

    @property
    def shuffled(self) -> list[int]:
        """The texts in a fixed random order, so that any first part has all lengths."""
        order = list(self.lengths)
        random.Random(_SEED).shuffle(order)
        return order

    def by_length(self, batch: int) -> Iterator[list[int]]:
        """Batches of texts of like lengths, the longest last."""
        order = sorted(self.lengths, key=lambda i: self.lengths[i])
        for begin in range(0, len(order), batch):
            yield order[begin : begin + batch]


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _growth(device: str) -> Iterator[Callable[[], int | None]]:
    """Gives a function that says by how many bytes the process, or its share of the GPU, grew at most in the block.

    On a CPU that is the peak of resident memory, which Linux alone lets a process reset; None elsewhere.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
        return
    peak: int | None = None
    known = sys.platform == "linux"
    if known:
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            known = False
    start = psutil.Process().memory_info().rss
    yield lambda: peak
    if known:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        peak = max(0, int(match[1]) * 1024 - start) if match else None
