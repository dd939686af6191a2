"""What a new spec has to know of data: the source that reads them, columns of texts and labels, lengths."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from brewgraph.data.sources.examples import facts as facts_of
from brewgraph.data.sources.examples import read
from brewgraph.data.sources.reader import Contents, DataFacts, stamp
from brewgraph.data.sources.rows import FORMATS, Split, form_of_file, plain_suffix, read_table
from brewgraph.diagnostics import Collector, SourceFault, listing, suggest
from brewgraph.models.tokenization import Tokens
from brewgraph.paths import locate, nearby
from brewgraph.recipe.evaluate.elaborate import elaborate_data
from brewgraph.recipe.label_types import CLASS, CLASSES, LABEL_TYPES, MASKED, NONE, VALUE, Form, LabelType
from brewgraph.recipe.settings.data_sources import Conll, DataSource, Files, Squad, Text
from brewgraph.source import Source, is_call
from brewgraph.starters.models import SeenModel, WishFault
from brewgraph.syntax.parser import parse

HERE = Path(".")
GUESS: Literal["?"] = "?"
"""A label column that nobody named: to be found."""

_LABELS = (
    "label", "labels", "class", "classes", "category", "categories", "target", "sentiment", "intent", "topic", "tag",
    "tags", "score", "rating", "stars", "gold", "y",
)  # fmt: skip
_TEXTS = (
    "text", "sentence", "review", "content", "body", "document", "utterance", "comment", "message", "tweet", "question",
    "query", "title", "input",
)  # fmt: skip
_PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("text_a", "text_b"), ("text1", "text2"),
    ("sentence_a", "sentence_b"), ("question1", "question2"), ("question", "sentence"), ("query", "passage"),
    ("query", "document"), ("title", "body"), ("s1", "s2"), ("sent1", "sent2"), ("text", "text_pair"),
)  # fmt: skip
"""Names of columns as data sets have them, in the order in which they are taken."""
_SAMPLE = 2000
"""Rows of which the tokens are counted."""
_NEEDS = {
    "conll": "a word and its tag per line, with an empty line between sentences",
    "squad": "json in the form of SQuAD",
    "text": "plain text",
    "files": "rows with named columns, in csv, tsv, jsonl, json or parquet",
}
_HOLDS = {
    "conll": "words with tags",
    "squad": "questions with answers",
    "text": "plain text",
    "files": "rows with columns",
}


@dataclass(frozen=True)
class SeenData:
    """Data as their files show them. The paths of `source` are relative to the working directory.

    `contents` and `facts` are None for data that cannot be reached. `notes` say what was guessed, and which option says
    it instead.
    """

    source: DataSource
    contents: Contents | None
    facts: DataFacts | None
    notes: tuple[str, ...] = ()

    @property
    def label_type(self) -> LabelType:
        return self.source.label_type

    @property
    def classes(self) -> tuple[str, ...]:
        return self.facts.classes if self.facts is not None else ()

    @property
    def rows(self) -> int | None:
        """The training rows; None where they are unknown."""
        return self.facts.rows.get("train") if self.facts is not None else None

    @property
    def has_dev(self) -> bool:
        return self.facts is None or "dev" in self.facts.rows or bool(self.source.files.get("dev"))

    @property
    def is_call(self) -> bool:
        """Whether the user wrote the source as a call, or it is none that reads files of rows."""
        return not self.source.files

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The text columns of rows; empty for other data."""
        return self.source.text if isinstance(self.source, Files) else ()

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The label column of rows, or one for each class; empty without labels."""
        label = self.source.label if isinstance(self.source, Files) else None
        return (label,) if isinstance(label, str) else label or ()

    @property
    def about(self) -> str:
        """One line: rows, columns, labels."""
        rows = f"{self.rows:,} rows, " if self.rows is not None else ""
        columns = ""
        if self.text_columns:
            columns = f"text in {listing(self.text_columns)}, "
            columns += f"label in {listing(self.label_columns, 4)}, " if self.label_columns else ""
        classes = f" ({len(self.classes)} classes)" if self.classes else ""
        return f"{rows}{columns}{self.label_type.about}{classes}"


def look_at_data(
    name: str,
    dev: str | None,
    teacher: SeenModel,
    *,
    task: LabelType | None = None,
    text: Sequence[str] = (),
    label: str | tuple[str, ...] | None = GUESS,
) -> SeenData:
    """The data of a file, of a folder with a file of each split, or of a call as a spec has it.

    `task` is the type of the labels, else it follows from the teacher's head and from the file; `text` and `label` are
    columns, `label=None` says that there is none, several columns
    of 0 and 1 are a class each. Raises `WishFault` where the file, its columns, labels or their type
    are not found.
    """
    if is_call(name):
        return _of_call(name, dev, task)
    notes: list[str] = []
    path = _existing(name, "--data")
    if path.is_dir():
        name, dev = _files_in(name, path, dev)
        path = Path(name)
    if dev is None and (beside := _beside(path)) is not None:
        dev = str(beside)
        notes.append(f"evaluates on `{dev}`, which is beside the training file: --dev names another")
    if dev is not None:
        _existing(dev, "--dev")
    try:
        form = form_of_file(name, path, "train")
        kind = _kind(form, name, task, teacher)
        if form == "files":
            table = read_table(None, name, path, "train", stamp([path]))
            source: DataSource = _table(table, name, dev, kind, text, label, teacher, task, notes)
        else:
            source = _plain(form, name, dev, kind)
        contents, facts = read(source, HERE), facts_of(source, HERE)
    except SourceFault as fault:
        raise WishFault(_option(fault.field), f"{fault.message}: {fault.help}") from fault
    return SeenData(source, contents, facts, tuple(notes))


def lengths(data: SeenData, teacher: SeenModel) -> tuple[int, int] | None:
    """The most tokens of a training example, and the number that 99% do not exceed; None where it is unknown."""
    tokens: Tokens = teacher.facts.tokens
    if data.contents is None or tokens.name is None:
        return None
    train = data.contents.splits["train"]
    step = max(1, len(train) // _SAMPLE)
    sample = train[slice(0, len(train), step)]
    try:
        tokenizer = tokens.load()
    except SourceFault:
        return None
    if "words" in train.column_names:
        encoded = tokenizer(sample["words"], is_split_into_words=True, verbose=False)
    else:
        texts = [sample[name] for name in ("text_0", "text_1") if name in train.column_names]
        encoded = tokenizer(*texts, verbose=False)
    counts = sorted(map(len, encoded["input_ids"]))
    return counts[-1], counts[math.ceil(0.99 * len(counts)) - 1]


# ── which file, which source ─────────────────────────────────────────────────────────────────────────────────────────


def _existing(name: str, option: str) -> Path:
    try:
        path = locate(name, HERE)
    except SourceFault as fault:
        raise WishFault(option, f"{fault.message}: {fault.help}") from fault
    if not path.exists():
        raise WishFault(option, f"there is no file `{name}`: {nearby(path.resolve())}")
    return path


_TRAIN, _DEV = ("train", "training"), ("dev", "valid", "validation", "val", "eval")
"""How files of a split are called."""


def _stem(path: Path) -> str:
    return path.name.partition(".")[0].lower()


def _files_in(name: str, folder: Path, dev: str | None) -> tuple[str, str | None]:
    """The file of the training rows in a folder, and that of the dev rows."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    train = [path for path in files if _stem(path) in _TRAIN]
    if len(train) != 1:
        what = f"is a folder with {'several files' if train else 'no file'} called `train`"
        help = f"name one of its files: it holds {listing((x.name for x in files), 6) or 'none'}"
        raise WishFault("--data", f"`{name}` {what}: {help}")
    return str(train[0]), dev


def _beside(train: Path) -> Path | None:
    """The dev file beside a file called `train`: of the same form, else another table for a table."""
    if _stem(train) not in _TRAIN:
        return None
    rest = train.name[len(_stem(train)) :]
    alike = [train.with_name(stem + rest) for stem in _DEV]
    others = [path for path in sorted(train.parent.iterdir()) if _stem(path) in _DEV and _is_table(path)]
    return next((path for path in (*alike, *(others if _is_table(train) else ())) if path.is_file()), None)


def _is_table(path: Path) -> bool:
    return plain_suffix(path.name) in FORMATS


def _kind(form: str, name: str, task: LabelType | None, teacher: SeenModel) -> LabelType | None:
    """The type of the labels as far as the form of a file, the task and the teacher tell; None: rows must tell."""
    head = teacher.label_type
    if head.over_vocabulary and form != "text":
        head = NONE  # a pretrained model, which learns the labels first
    wanted = task if task is not None else head if head else None
    if wanted is None:
        if form == "text":
            help = "--task masked or --task next says what is learnt; rows of texts are csv, jsonl or parquet"
            raise WishFault("--data", f"`{name}` holds plain text: {help}")
        return next((x for x in LABEL_TYPES.values() if x.source == form), None) if form != "files" else None
    needs = wanted.source
    if needs != form:
        who = f"--task {wanted}" if task is not None else f"the head of `{teacher.name}`"
        help = f"--data names {_NEEDS[needs]}" + ("; or --teacher another model" if task is None else "")
        raise WishFault("--data", f"`{name}` holds {_HOLDS[form]}, and {who} learns {wanted.about}: {help}")
    return wanted


def _plain(form: str, name: str, dev: str | None, kind: LabelType | None) -> DataSource:
    if form == "conll":
        return Conll(train=name, dev=dev)
    if form == "squad":
        return Squad(train=name, dev=dev)
    return Text(train=name, dev=dev, mask=0.15) if kind == MASKED else Text(train=name, dev=dev)


def _of_call(call: str, dev: str | None, task: LabelType | None) -> SeenData:
    """The data of `glue("sst2")` or `hub("name", text=review)`."""
    if dev is not None:
        raise WishFault("--dev", f"a call names its dev split itself: `{call.rstrip().removesuffix(')')}, dev=…)`")
    source, collector = Source(f"data d = {call.strip()}\n", "--data"), Collector()
    spec = parse(source, collector)
    collector.raise_errors()
    declared = elaborate_data(spec, source, collector) if len(spec.statements) == 1 else None
    collector.raise_errors()
    if declared is None:
        raise WishFault("--data", 'expected one call: `hub("name", text=review, label=stars)`')
    data = declared.source
    if task is not None and task != data.label_type:
        raise WishFault("--task", f"the labels of `{call}` are {data.label_type.about}: change the call")
    try:
        facts = facts_of(data, HERE)
        return SeenData(data, None if data.hub_name or not data.files else read(data, HERE), facts)
    except SourceFault as fault:
        if fault.code == "B405":
            return SeenData(data, None, None, (f"columns and labels are unchecked: {fault.message}",))
        raise WishFault("--data", f"{fault.message}: {fault.help}") from fault


def _option(field: str | None) -> str:
    return {"dev": "--dev", "text": "--text", "label": "--label", "classes": "--label"}.get(field or "", "--data")


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(
    table: Split,
    name: str,
    dev: str | None,
    kind: LabelType | None,
    text: Sequence[str],
    label: str | tuple[str, ...] | None,
    teacher: SeenModel,
    task: LabelType | None,
    notes: list[str],
) -> Files:
    """The source of rows; columns that nobody named are found."""
    names = table.rows.column_names
    labelled = label if isinstance(label, tuple) else (label,) if label is not None and label != GUESS else ()
    for option, named in (("--text", text), ("--label", labelled)):
        for column in (x for x in named if x not in names):
            help = f"{suggest(column, names)} the columns are {listing(names, 12)}".strip()
            raise WishFault(option, f"`{name}` has no column `{column}`: {table.separator_help or help}")
    if len(text) > 2:
        raise WishFault("--text", f"it names {len(text)} columns: name one, or two whose texts are a pair")
    if both := [column for column in text if column in labelled]:
        raise WishFault("--label", f"`{both[0]}` is the text: name another column, or none")
    if not text and label == GUESS and (help := table.separator_help):
        raise WishFault("--data", f"`{name}` has one column, `{names[0]}`: {help}")
    guessed = label == GUESS
    if label == GUESS:
        label = _label_column(table, name, kind, text, teacher)
        notes.append(f"takes `{label}` for the label: --label names another, --label none says that there is none")
    if not text:
        text = _text_columns(table, name, labelled or (label,))
        notes.append(f"takes {listing(text)} for the text: --text names one column, or two as `--text first,second`")
        if guessed and not table.typed and len(text[0].split()) > 2 and label in table.rows[label][:_SAMPLE]:
            help = "write a first line with the names of the columns"
            raise WishFault("--data", f"`{name}` seems to have no header, and its first line is a row: {help}")
    plain: dict[str, Any] = {"train": name, "dev": dev, "text": tuple(text), "label": label}
    if label is None:
        return Files(**plain)
    if isinstance(label, tuple):
        return Files(**plain, problem_type=CLASSES.problem)
    values = [x for x in table.rows[label][:] if x is not None]
    if task is None and kind in (None, CLASS):  # a head for one class does not tell whether it may be several
        found = _kind_of_values(values, table.typed)
        kind = found if kind is None or found == CLASSES else kind
    if kind != CLASS and kind is not None and kind.problem:
        plain["problem_type"] = kind.problem
    return Files(**plain)


def _kind_of_values(values: Sequence[Any], typed: bool) -> LabelType:
    """The type of labels: a list is several classes, decimal numbers are values, all else is a class."""
    if values and isinstance(values[0], list):
        return CLASSES
    numbers = [number for x in values if (number := _number(x, typed)) is not None]
    return VALUE if len(numbers) == len(values) and any(x != int(x) for x in numbers) else CLASS


def _number(value: Any, typed: bool) -> float | None:
    if isinstance(value, str) and typed:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _label_column(table: Split, name: str, kind: LabelType | None, text: Iterable[str], teacher: SeenModel) -> str:
    """The column of the labels: one whose values are the teacher's classes, or that is called so, or the only one with
    few values.
    """
    rows: Any = table.rows
    columns: list[str] = [x for x in rows.column_names if x not in text]
    values = {column: [_written(x) for row in rows[column][:] for x in _members(row)] for column in columns}
    if teacher.classes:
        known = [column for column in columns if values[column] and set(values[column]) <= set(teacher.classes)]
        if len(known) == 1:
            return known[0]
    called = {column.lower(): column for column in reversed(columns)}
    if (column := next((called[x] for x in _LABELS if x in called), None)) is not None:
        return column
    few = [x for x in columns if 1 < len(set(values[x])) <= max(2, len(rows) // 4) and _words(values[x]) < 3]
    if len(few) == 1 and (kind is None or kind.form is not Form.NUMBER):
        return few[0]
    help = f"--label names it, --label none says that there is none; the columns are {listing(rows.column_names, 12)}"
    raise WishFault("--label", f"no column of `{name}` is clearly that of the labels: {help}")


def _text_columns(table: Split, name: str, labels: Collection[object]) -> tuple[str, ...]:
    """The columns of the texts: a pair or a name that data sets use, else the column of the longest texts."""
    rows = table.rows
    texts = [x for x in rows.column_names if x not in labels and all(isinstance(v, str) for v in rows[x][:_SAMPLE])]
    called = {column.lower(): column for column in reversed(texts)}
    for pair in _PAIRS:
        if all(x in called for x in pair):
            return tuple(called[x] for x in pair)
    if (column := next((called[x] for x in _TEXTS if x in called), None)) is not None:
        return (column,)
    if not texts:
        help = f"--text names it; the columns are {listing(rows.column_names, 12)}"
        raise WishFault("--text", f"no column of `{name}` holds a text in every row: {help}")
    return (max(texts, key=lambda x: _words(rows[x][:_SAMPLE])),)


def _members(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _written(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def _words(texts: Sequence[str]) -> float:
    """The mean number of words."""
    return sum(len(str(x).split()) for x in texts) / max(1, len(texts))


# ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_order_of(data: SeenData, teacher: SeenModel) -> SeenData:
    """The data with their classes named as the teacher orders them, where its head names them.

    Labels that are numbers take the teacher's names. Raises `WishFault` for labels that the teacher does not know, and
    for another number of them than its logits.
    """
    classes, known = data.classes, teacher.classes
    if not data.label_type.per_class or not classes or not teacher.known:
        return data
    seen = data.facts.seen if data.facts is not None and data.facts.seen else classes
    numbered = classes == tuple(map(str, range(len(classes))))
    counts = teacher.outputs in (None, len(seen)) and set(known or seen) == set(seen)
    if numbered and len(seen) < len(classes) and counts:  # numbers that do not count from 0 are names
        with suppress(WishFault):
            data = _named(data, known or seen)
            classes, numbered = data.classes, False
    if teacher.outputs is None:
        return data
    counted = f"`{teacher.name}` has {teacher.outputs} classes"
    names = len(classes)
    if not known:
        if names != teacher.outputs:
            raise WishFault("--teacher", f"{counted}, and the data have {names}: {listing(classes, 8)}")
        return data
    unknown = [x for x in classes if x not in known]
    missing = [x for x in seen if x not in known] or ([] if data.label_type.form is Form.TAGS else unknown)
    if missing and unknown and (not numbered or names > len(known)):
        help = "where it names the same classes otherwise, --labels names them in the order of its logits"
        message = f"the data have the label{'s' if len(missing) > 1 else ''} {listing(missing, 6)}"
        raise WishFault("--teacher", f"{message}, and `{teacher.name}` knows {listing(known, 6)}: {help}")
    if known == classes:
        return data
    several = isinstance(getattr(data.source, "label", None), tuple)  # a column for each class
    if several and len(known) > names:
        missing = [x for x in known if x not in classes]
        raise WishFault("--label", f"`{teacher.name}` also knows {listing(missing, 6)}: name a column for each class")
    return _named(data, known, "label" if several else "classes")


def _named(data: SeenData, names: tuple[str, ...], field: str = "classes") -> SeenData:
    """The data with names of classes, in this order. Raises `WishFault` where their rows have others."""
    source = data.source.model_copy(update={field: names})
    try:
        facts = facts_of(source, HERE)
    except SourceFault as fault:
        raise WishFault("--data", f"{fault.message}: {fault.help}") from fault
    return replace(data, source=source, facts=facts)
