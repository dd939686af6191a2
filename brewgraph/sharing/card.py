"""The model card of a finished run: Markdown below the hub's metadata, from what the run's folder holds.

Names of specs, data and files are escaped. Folders of this machine do not appear: local models and data are called by
the last part of their path. What nobody stated, as the licence of local data, is said to be unstated.
"""

from __future__ import annotations

import csv
import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.repocard import metadata_load

from brewgraph.checking.check import check
from brewgraph.diagnostics import BrewError, SourceFault, UsageError
from brewgraph.display.equation import spell_out
from brewgraph.display.lines import number, one_line
from brewgraph.inspect.report_of import run_command
from brewgraph.paths import locate
from brewgraph.recipe.label_types import LABEL_TYPES, LOSS
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.settings.metric_names import metric_words
from brewgraph.recipe.values import DataDeclaration, ModelDeclaration
from brewgraph.running.finished import FinishedRun, FinishedTask, open_run
from brewgraph.running.scores import ScoreRow, cells_of
from brewgraph.training.folder import display_path, read_object
from brewgraph.training.reporter import duration

EMISSIONS = "emissions.csv"
"""The file that codecarbon writes; in a run's folder it is read for the card."""
TAGS = ("brewgraph", "knowledge-distillation")
_PIPELINES = {
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
}
"""The hub's name of what a model of a task does."""
_GLUE = "nyu-mll/glue"


def open_student(target: str) -> FinishedRun:
    """The finished run to share. Raises `UsageError` for a folder that holds another form of its student, and as
    `open_run`.
    """
    run = open_run(target)
    if run.exported:
        where = display_path(run.folder.path)
        raise UsageError(f"`{where}` holds an exported student, which has no card: name the run that it is of")
    return run


def card_of(run: FinishedRun, name: str) -> str:
    """The card of a run's student, which the card calls `name`: the name on the hub, or a folder to load it from."""
    facts = _Facts(run, name)
    head = facts.metadata().to_yaml(line_break="\n")
    return f"---\n{head}\n---\n\n" + "\n".join(facts.lines()).rstrip() + "\n"


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def printable(text: str) -> str:
    """A text in one line, without characters that command a terminal or that no file of text can hold."""
    return one_line("".join(x if x.isprintable() else " " for x in text))


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, in one line: no link, no emphasis, no HTML, no cell of a table."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(printable(text), quote=False))


def code(text: str) -> str:
    """A text as code within a line."""
    plain = printable(text)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    space = " " if "`" in plain else ""
    # a bar would end the cell of a table, also within code
    return f"{ticks}{space}{plain}{space}{ticks}".replace("|", "\\|")


def block(text: str, language: str = "") -> str:
    """A text as a block of code; its fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def markdown_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as a table, the first one its header; all columns but the first are aligned to the right."""
    yield f"| {' | '.join(map(escaped, rows[0]))} |"
    yield f"|:---|{'---:|' * (len(rows[0]) - 1)}"
    yield from (f"| {' | '.join(map(escaped, row))} |" for row in rows[1:])


# ── where models and data come from ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Origin:
    """A model or data set: its name on the hub, or the last part of its path on this machine (`hub` empty). `licence`
    is what its own card says, empty where it says nothing.
    """

    hub: str
    local: str
    licence: str = ""

    def link(self, kind: Literal["model", "dataset"]) -> str:
        """The name as Markdown: a link where it is on the hub."""
        if not self.hub:
            return f"{code(self.local)} (local)"
        place = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{self.hub}"
        return f"[{escaped(self.hub)}]({place})"


REPO = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
"""What may be the name of a repository."""


def origin(name: str, folder: Path, kind: Literal["model", "dataset"]) -> Origin:
    """What a name in a spec means, whose relative paths begin in `folder`."""
    path = _place(name, folder)
    is_name = REPO.fullmatch(name) is not None and not name.startswith(".")
    # a name without an owner may be a folder that is gone, unless the hub's cache has it
    if is_name and "/" not in name:
        is_name = (Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)).is_dir()
    if path is None or path.exists() or not is_name:
        return Origin("", Path(name).name or name, _licence(None if path is None else path / "README.md"))
    cached = try_to_load_from_cache(name, "README.md", repo_type=kind)
    return Origin(name, "", _licence(Path(cached)) if isinstance(cached, str) else "")


def _place(name: str, folder: Path) -> Path | None:
    """The file or folder that a name in a spec means; None for what is no path, or none that this user may look at."""
    with suppress(SourceFault):
        return locate(name, folder)
    return None


def _licence(card: Path | None) -> str:
    """The licence in the metadata of a card; empty without one."""
    metadata: Any = None
    with suppress(Exception):  # whatever others wrote there
        metadata = metadata_load(card) if card is not None else None
    licence = metadata.get("license") if isinstance(metadata, dict) else None
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence or "")


def _data_origins(data: DataDeclaration, folder: Path) -> Iterator[tuple[Origin, str]]:
    """The data sets that a declaration joins, each with its part (a subset, the names of files)."""
    for source in data.source.sources:
        if (name := source.hub_name) is not None:
            yield origin(name, folder, "dataset"), getattr(source, "subset", None) or ""
        elif (task := getattr(source, "task", None)) and type(source).__name__ == "Glue":
            yield origin(_GLUE, folder, "dataset"), task
        else:
            files = [Path(path).name for path in source.files.values()]
            place = _place(next(iter(source.files.values()), "x"), folder)
            what = ", ".join(files) or type(source).__name__.lower()
            yield Origin("", what, _licence(None if place is None else place.parent / "README.md")), ""


# ── the card ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Facts:
    """What a card says of a run."""

    def __init__(self, run: FinishedRun, name: str):
        self.run, self.name = run, printable(name)
        self.recipe: Recipe = run.recipe
        whole = run.folder.whole
        self.resolved: Mapping[str, Any] = whole.resolved or {}
        self.finished: Mapping[str, Any] = whole.finished or {}
        self.is_baseline = whole != run.folder
        self.folder = self.recipe.source.folder
        self.rows = tuple(ScoreRow(**row) for row in self.finished.get("table", ()))
        self.tasks: Sequence[FinishedTask] = tuple(run.tasks.values())
        self.emissions = read_emissions(whole.path / EMISSIONS)
        self.data = {
            task.data.name: list(_data_origins(task.data, self.folder)) for task in self.tasks if task.data is not None
        }

    @property
    def row(self) -> ScoreRow | None:
        """The row of the student that the folder holds."""
        wanted = f"{self.recipe.student.name}{' alone' if self.is_baseline else ''}"
        return next((row for row in self.rows if row.name == wanted), self.rows[-1] if self.rows else None)

    @property
    def start(self) -> ModelDeclaration | None:
        """The model whose weights the student began with: itself, that of its layers, or none."""
        student = self.recipe.student
        if (layers := student.source.start) is not None:
            return self.recipe.models.get(layers.model)
        return student if student.source.checkpoint and not student.source.is_random else None

    def model_origin(self, model: ModelDeclaration) -> Origin | None:
        """Where a model comes from; None for one that only code or another spec describes."""
        name = model.source.checkpoint
        return origin(name, self.folder, "model") if name else None

    @property
    def teachers(self) -> Sequence[ModelDeclaration]:
        return () if self.is_baseline else tuple(self.recipe.teachers)

    def metadata(self) -> ModelCardData:
        """The head of the card, as the hub reads it."""
        models = [*([self.start] if self.start is not None else []), *self.teachers]
        origins = [x for x in map(self.model_origin, models) if x is not None and x.hub]
        datasets = [x.hub for of in self.data.values() for x, _ in of if x.hub]
        pipelines = {_PIPELINES.get(task.label_type.task) for task in self.tasks if task.label_type} - {None}
        results = list(self._results())
        carbon: dict[str, Any] = {}
        if self.emissions is not None:
            carbon = {"co2_eq_emissions": {"emissions": round(self.emissions.grams, 3), "source": "codecarbon"}}
        return ModelCardData(
            library_name="transformers",
            tags=list(TAGS),
            base_model=list(dict.fromkeys(x.hub for x in origins)) or None,
            datasets=list(dict.fromkeys(datasets)) or None,
            pipeline_tag=next(iter(pipelines)) if len(pipelines) == 1 else None,
            metrics=list(dict.fromkeys(x.metric_type for x in results)) or None,
            model_name=self.name if results else None,
            eval_results=results or None,
            **carbon,
        )

    def _results(self) -> Iterator[EvalResult]:
        """The student's scores, task by task."""
        row = self.row
        for task in self.tasks if row is not None else ():
            assert row is not None
            prefix, of = f"{task.name}/" if task.name else "", self.data.get(task.data.name, ())
            first, part = next(iter(of), (Origin("", task.data.name), ""))
            for full in row.columns:
                metric, value = full.removeprefix(prefix), row.scores[full]
                if not full.startswith(prefix) or metric == LOSS or not math.isfinite(value):
                    continue
                yield EvalResult(
                    task_type=_PIPELINES.get(task.label_type.task, "other"),
                    dataset_type=first.hub or "local",
                    dataset_name=first.hub or first.local,
                    dataset_config=part or None,
                    dataset_split=row.splits.get(task.name),
                    metric_type=metric,
                    metric_name=metric_words(full),
                    metric_value=round(value, 6),
                )

    def lines(self) -> Iterator[str]:
        """The text of the card."""
        yield f"# {escaped(self.name)}"
        yield ""
        yield from self._about()
        if len(self.rows) > 0:
            splits = sorted({split for row in self.rows for split in row.splits.values()})
            yield from ("", "## Scores", "")
            yield from markdown_table(cells_of(self.rows))
            if splits:
                yield from ("", f"Scored on {' and '.join(map(escaped, splits))}.")
        yield from ("", "## How to load it", "")
        yield from loading(self.name, self.run.folder.student, [task.head for task in self.tasks])
        yield from ("", "## Loss", "")
        if equations := list(self._equations()):
            yield from (block("\n".join(equations)), "")
        yield from ("The whole spec:", "", block(self.recipe.source.text, "brew"))
        yield from ("", "## Training", "")
        yield from self._training()
        yield from ("", "## Data and licences", "")
        yield from self._licences()
        if self.emissions is not None:
            yield from ("", "## Carbon", "", self.emissions.text())

    def _about(self) -> Iterator[str]:
        student = code(self.recipe.student.name)
        if self.is_baseline:
            yield f"{student}, trained without a teacher, to compare with the same student that has one."
        elif self.teachers:
            names = " and ".join(self._named(model) for model in self.teachers)
            yield f"{student} is distilled from {names}."
        else:
            yield f"{student} is trained without a teacher."
        if self.start is not None and (self.start.role == "student" or self.start not in self.teachers):
            yield f"Its weights began as those of {self._named(self.start)}."
        elif self.recipe.student.source.start is not None and self.start is not None:
            yield f"Its weights began as layers of {code(self.start.name)}."
        else:
            yield "Its weights began at random."
        row = self.row
        if row is not None:
            yield f"It has {row.parameters:,} parameters."
        yield "It was trained with brewgraph: the spec below is the whole experiment."

    def _named(self, model: ModelDeclaration) -> str:
        if (of := self.model_origin(model)) is not None:
            return of.link("model")
        spec = model.source.spec
        return f"{code(model.name)} (trained by the spec {code(Path(spec).name)})" if spec else code(model.name)

    def _equations(self) -> Iterator[str]:
        """The loss of each task spelled out; nothing where the models can no longer be reached."""
        with suppress(BrewError):
            for (stage, task), graph in check(self.recipe.source, self.recipe.params).graphs.items():
                name = "/".join(filter(None, (stage, task)))
                terms = " + ".join(term.weighted for term in spell_out(graph))
                yield f"{f'{name}: ' if name else ''}{terms}"

    def _training(self) -> Iterator[str]:
        name = self.run.folder.whole.path.name
        spec = name.rpartition("-")[0] or name  # as `RunRecord.spec`
        yield block(run_command(f"{spec}.brew", self.recipe.params), "sh")
        yield ""
        lock = {"hash": self.resolved.get("hash", ""), **self.resolved.get("circumstances", {})}
        for name, value in lock.items():
            if str(value) not in ("none", ""):
                yield f"- {escaped(name)}: {code(str(value))}"
        took = self.finished.get("took", {})
        if isinstance(took.get("seconds"), int | float):
            yield f"- wall time: {duration(took['seconds'])}"
        if took.get("hardware"):
            yield f"- hardware: {escaped(str(took['hardware']))}"

    def _licences(self) -> Iterator[str]:
        rows = [("what", "where from", "licence by its own card")]
        models = {x.name: x for x in (self.start, *self.teachers) if x is not None}
        for model in models.values():
            if (of := self.model_origin(model)) is not None:
                rows.append((f"model {code(model.name)}", of.link("model"), escaped(of.licence or "not stated")))
        for name, parts in self.data.items():
            for of, part in parts:
                where = of.link("dataset") + (f", {code(part)}" if part else "")
                rows.append((f"data {code(name)}", where, escaped(of.licence or "not stated")))
        yield "| " + " | ".join(rows[0]) + " |"
        yield "|:---|:---|:---|"
        yield from ("| " + " | ".join(row) + " |" for row in rows[1:])
        yield ""
        yield "The licence of this model is not stated: whoever publishes it adds `license:` to the head of this card."


# ── how to load it ───────────────────────────────────────────────────────────────────────────────────────────────────


def loading(name: str, student: Path, heads: Iterable[str]) -> Iterator[str]:
    """How plain transformers loads the student in this folder, which is called `name` where the reader has it."""
    folders = list(dict.fromkeys(heads)) or [""]
    configs = {head: read_object(student / head / "config.json") for head in folders}
    known = {head: config for head, config in configs.items() if config is not None}
    if not known:
        yield "Its weights are in `model.safetensors`; the Python code of the model is not part of a run."
        return
    classes = {head: auto_class(config) for head, config in known.items()}
    tokenized = any((student / head / "tokenizer_config.json").is_file() for head in known)
    imports = sorted({*classes.values(), *(["AutoTokenizer"] if tokenized else [])})
    text = [f"from transformers import {', '.join(imports)}"]
    if any(config.get("model_type") == "bigru" for config in known.values()):
        text = ["import brewgraph.models.bigru  # pip install brewgraph: transformers has no such model", *text]
    for head, of in classes.items():
        subfolder = f", subfolder={head!r}" if head else ""
        variable = re.sub(r"\W", "_", head) or "model"
        text += ["", f"{variable} = {of}.from_pretrained({name!r}{subfolder})"]
        if tokenized:
            text.append(f"tokenizer = AutoTokenizer.from_pretrained({name!r}{subfolder})")
            text.append(f'output = {variable}(**tokenizer("A text.", return_tensors="pt"))')
    yield block("\n".join(text), "python")


def auto_class(config: Mapping[str, Any]) -> str:
    """The class of transformers that loads a model with this configuration."""
    architecture = str(next(iter(config.get("architectures") or ()), ""))
    for kind in LABEL_TYPES.values():
        if kind.ends and architecture.endswith(kind.ends):
            return kind.auto_class
    return "AutoModel"


# ── carbon ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Emissions:
    """What codecarbon measured: CO₂ equivalents in grams, energy in kWh, and where."""

    grams: float
    energy: float | None
    country: str

    def text(self) -> str:
        energy = f" from {number(self.energy)} kWh" if self.energy is not None else ""
        country = f" in {escaped(self.country)}" if self.country else ""
        return f"{number(self.grams)} g of CO₂ equivalents{energy}{country}, measured by codecarbon."


def read_emissions(path: Path) -> Emissions | None:
    """The sum of the rows in codecarbon's file; None without one that can be read."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        grams = sum(float(row["emissions"]) for row in rows) * 1000
        energies = [float(row["energy_consumed"]) for row in rows if row.get("energy_consumed")]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not rows or not math.isfinite(grams):
        return None
    return Emissions(grams, sum(energies) if energies else None, rows[-1].get("country_name") or "")
