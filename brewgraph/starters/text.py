"""The text of a new spec: a teacher, its student, data, and the loss that suits the labels."""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewgraph.diagnostics import UsageError
from brewgraph.paths import at_home
from brewgraph.recipe.label_types import Form, LabelType
from brewgraph.recipe.settings.base import Settings, setting_text
from brewgraph.recipe.settings.data_sources import DATA, Conll, DataSource, Files, Squad, Text
from brewgraph.source import Source
from brewgraph.starters.data import SeenData
from brewgraph.starters.models import WIDTH, SeenModel
from brewgraph.syntax.format import format_source

_STEPS = 2000
"""Optimizer steps that the epochs of a new spec add up to, about."""
_FEWEST_EPOCHS, _MOST_EPOCHS = 3, 20
_BATCH, _LONG_BATCH = 32, 16
"""Examples per step: of texts, and of answers and of plain text, whose examples are long."""
_LEARNING_RATE = 5e-5
"""The learning rate for weights as wide as BERT-base's; narrower models take a larger one."""
_LENGTH, _BLOCK = 128, 256
"""Tokens per example where they cannot be counted, and per block of plain text."""
_MULTIPLE = 8
"""A length is a multiple of it."""
_LINE = 110
_PIECE = re.compile(r'(?:"[^"]*"|[^",])+,?')
"""An argument, or a member of a list, up to its comma."""
_NAME, _WORDS = re.compile("[A-Za-z_][A-Za-z_0-9]*"), frozenset({"true", "false", "none"})
"""What stands bare in a spec as the name of a column, and what means something else there."""


@dataclass(frozen=True)
class Draft:
    """What a new spec says.

    Paths in `teacher`, `student` and `data` are relative to the working directory, those of the text to `folder`. The
    student is `student`, or else `layers` layers of the teacher. `tokens` are the most tokens of an example, and those
    that 99% do not exceed. `labels` name the teacher's classes where its configuration does not. `trains_teacher`: the
    teacher has no head for the labels, and is trained first. `hidden`: whether hidden states are matched.
    """

    folder: Path
    teacher: SeenModel
    student: SeenModel | None
    layers: int
    data: SeenData
    tokens: tuple[int, int] | None = None
    labels: tuple[str, ...] = ()
    trains_teacher: bool = False
    hidden: bool = True

    @property
    def shares_tokens(self) -> bool:
        """Whether teacher and student are known to split texts alike."""
        if self.student is None:
            return True
        return bool(self.teacher.tokenizer) and self.teacher.tokenizer == self.student.tokenizer

    @property
    def layer_map(self) -> tuple[list[int], list[int]]:
        """The hidden states that are matched, of the teacher and of the student: evenly spaced, the last with the last.
        Empty where they cannot be.
        """
        ours = self.student.layers if self.student is not None else self.layers
        theirs = self.teacher.layers
        whole = self.shares_tokens or self.data.label_type.form is Form.TAGS
        if not (self.hidden and whole and ours and theirs and ours <= theirs):
            return [], []
        return [round(n * theirs / ours) for n in range(1, ours + 1)], list(range(1, ours + 1))

    @property
    def kept_layers(self) -> list[int]:
        """The teacher's layers that the student starts from: evenly spaced, the first and the last among them."""
        count = self.teacher.layers or 1
        return [round(n * (count - 1) / max(1, self.layers - 1)) for n in range(self.layers)]


def student_text(draft: Draft) -> str:
    """The spec of the student, in its canonical layout."""
    kind = draft.data.label_type
    hidden, terms = _hidden(draft), _terms(draft)
    learnt = kind.learnt if kind else draft.teacher.label_type.learnt[:1]
    title = ", ".join([*learnt, *(["hidden states"] if hidden else [])])
    begins = f"{draft.layers} of the teacher's layers" if draft.student is None else "another model"
    lines = ["brew 1", "", *_comment(f"The student is {begins}. Its loss: {title}.")]
    lines += _comment("`brewgraph ops` lists what a loss can hold, `brewgraph ops kd` explains one of them.")
    lines.append("")
    if any("T=T" in line for line in terms):
        lines.append("param T = 2    # temperature: larger values flatten the teacher's distribution; try 1, 2, 4, 8")
    lines += ["param seed = 0", ""]
    lines += [_teacher(draft), _student(draft), _data(draft), ""]
    if hidden and not kind.over_vocabulary:
        left, right = draft.layer_map
        lines += [f"let map = {left} -> {right}    # hidden 0 is the embedding output, n the output of layer n", ""]
    lines += [*_aligned([*terms, *hidden]), "", _loss(kind, bool(hidden)), ""]
    lines += _train(draft, draft.student or draft.teacher, baseline=bool(kind))
    return format_source(Source("\n".join(lines) + "\n"))


def teacher_text(draft: Draft) -> str:
    """The spec of a teacher that is trained first."""
    name = _name(draft.data.source)
    lines = ["brew 1", "", *_comment("The teacher: it has no head for these labels yet, and is trained on them first.")]
    lines += ["", "param seed = 0", "", f"student big = hf({_model(draft.teacher, draft.folder)})", _data(draft), ""]
    lines.append(f"loss = {_hard(draft.data.label_type, name, 'big')}")
    return format_source(Source("\n".join([*lines, "", *_train(draft, draft.teacher, baseline=False)]) + "\n"))


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _teacher(draft: Draft) -> str:
    if draft.trains_teacher:
        return 'teacher big = brew("teacher.brew", seed=seed)'
    labels = [f"labels={_value(draft.labels)}"] if draft.labels else []
    return _wrapped("teacher big = hf(", [_model(draft.teacher, draft.folder), *labels])


def _student(draft: Draft) -> str:
    if draft.student is not None:
        return f"student small = hf({_model(draft.student, draft.folder)})"
    if draft.teacher.layers is None:
        return f"student small = hf({_model(draft.teacher, draft.folder)}, num_hidden_layers={draft.layers})"
    layers = f"big.layers{draft.kept_layers}"
    sizes = ["pretrained=false", f"num_hidden_layers={draft.layers}", f"init={layers}"]
    return _wrapped("student small = hf(", [_model(draft.teacher, draft.folder), *sizes])


def _data(draft: Draft) -> str:
    """The data set, with a size of batches and a length where the user's call has none."""
    source = draft.data.source
    arguments = [_argument(source, field, draft.folder) for field in _said(source)]
    if "batch" not in source.model_fields_set:
        arguments.append(f"batch={_batch(source)}")
    if "max_length" not in source.model_fields_set:
        arguments += _lengths(draft)
    return _wrapped(f"data {_name(source)} = {_word(source)}(", arguments)


def _terms(draft: Draft) -> list[str]:
    """The equations of what is compared at the student's end."""
    kind, name = draft.data.label_type, _name(draft.data.source)
    like = kind or draft.teacher.label_type
    soft = _mean(like.soft.format(source=f"big.{x}", target=f"small.{x}") for x in _outputs(like))
    if kind.form is Form.TAGS and not draft.shares_tokens:
        soft = "kd(words(big.logits) -> words(small.logits), T=T)"
    return [f"soft = {soft}", *([f"hard = {_hard(kind, name, 'small')}"] if kind else [])]


def _hard(kind: LabelType, data: str, model: str) -> str:
    """The usual loss of a model on the labels of data."""
    sides = zip(kind.fields, _outputs(kind), strict=True)
    return _mean(f"{kind.loss}({data}.{labels} -> {model}.{output})" for labels, output in sides)


def _outputs(kind: LabelType) -> list[str]:
    """The outputs of a model with such a head, by their names in a spec: `logits`, or `start` and `end`."""
    return [name.removesuffix("_logits") for name in kind.logits]


def _mean(terms: Iterable[str]) -> str:
    """The mean of terms, or one as it is."""
    terms = list(terms)
    return terms[0] if len(terms) == 1 else " + ".join(f"{1 / len(terms):g} * {term}" for term in terms)


def _hidden(draft: Draft) -> list[str]:
    """The equation of the hidden states; none where they are not matched."""
    if not draft.layer_map[0]:
        return []
    widths = draft.student is None or draft.student.width == draft.teacher.width
    big, small = ("big.hidden[map]", "small.hidden[map]")
    if draft.data.label_type.over_vocabulary:
        big, small = "big.hidden[-1]", "small.hidden[-1]"
    if not draft.shares_tokens:
        big, small = f"words({big})", f"words({small})"
    operation = "cos" if draft.data.label_type.over_vocabulary else "mse"
    return [f"hidden = {operation}({big} -> {small}{'' if widths else ' via linear'})"]


def _loss(kind: LabelType, hidden: bool) -> str:
    if kind.over_vocabulary:  # the weights of DistilBERT (Sanh et al. 2019, arXiv:1910.01108)
        return "loss = 5 * soft + 2 * hard" + (" + hidden" if hidden else "")
    soft = "0.7 * soft + 0.3 * hard" if kind else "soft"
    return f"loss = {soft}" + (" + mean(hidden)" if hidden else "")


def _train(draft: Draft, trained: SeenModel, *, baseline: bool) -> list[str]:
    """The settings that suit the data and the width of the model that is trained."""
    rows, batch = draft.data.rows, _batch(draft.data.source)
    epochs = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, math.ceil(_STEPS * batch / rows))) if rows else _FEWEST_EPOCHS
    rate = float(f"{min(1e-3, max(2e-5, _LEARNING_RATE * WIDTH / trained.width)):.0e}")
    mantissa, _, exponent = f"{rate:.0e}".partition("e")
    lines = [f"epochs = {epochs}", f"optimizer = adamw(lr={mantissa}e{int(exponent)})", "schedule = linear(warmup=10%)"]
    lines.append("seed = seed")
    if baseline:
        lines.append("baseline = true    # also trains the student without its teacher, to compare")
    lines = _aligned(lines)
    return ["train {", *lines, "}"] if _is_text(draft) else ["train {", *lines, "", "group_by_length = true", "}"]


def _aligned(equations: list[str]) -> list[str]:
    """Equations with their signs in one column."""
    sides = [line.split(" = ", 1) for line in equations]
    width = max(len(name) for name, _ in sides)
    return [f"{name:<{width}} = {value}" for name, value in sides]


def _is_text(draft: Draft) -> bool:
    return isinstance(draft.data.source, Text)


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────────


def path_from(name: str, folder: Path) -> str:
    """A path that is relative to the working directory as a spec in `folder` writes it."""
    if Path(name).is_absolute() or name.startswith("~"):
        return name
    return Path(os.path.relpath(name, folder)).as_posix()


def _model(model: SeenModel, folder: Path) -> str:
    name = path_from(model.name, folder) if at_home(model.name).is_dir() else model.name
    return _value(name)


def _word(source: DataSource) -> str:
    return next(word for word, kind in DATA.items() if type(source) is kind)


def _name(source: DataSource) -> str:
    names: dict[type[DataSource], str] = {Files: "texts", Conll: "sentences", Squad: "questions", Text: "corpus"}
    return names.get(type(source), "texts")


def _said(source: DataSource) -> list[str]:
    """The fields that differ from their defaults, and the columns in any case; files come first."""
    shown = ("text", "label") if isinstance(source, Files) else ()
    first = (*type(source).positional, "train", "dev", "test")
    fields = type(source).model_fields
    ordered = sorted(fields, key=lambda name: first.index(name) if name in first else len(first))
    said = {x for x in source.model_fields_set if getattr(source, x) != fields[x].default}
    return [name for name in ordered if name in shown or name in said]


def _argument(source: DataSource, field: str, folder: Path) -> str:
    value: Any = getattr(source, field)
    if field in source.files or (field == "name" and Path(str(value)).is_dir()):
        text = _value(path_from(value, folder))
    elif field in type(source).columns and value is not None:
        names = [x if _NAME.fullmatch(x) and x not in _WORDS else _value(x) for x in _several(value)]
        text = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
    elif field in getattr(type(source), "bare", ()):
        text = setting_text(value)
    elif field == "mask":
        text = f"{100 * value:g}%"
    elif isinstance(value, Settings) or (isinstance(value, tuple) and value and isinstance(value[0], Settings)):
        text = setting_text(value)
    else:
        text = _value(value)
    return text if field in type(source).positional else f"{field}={text}"


def _several(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _value(value: Any) -> str:
    """A value as a spec writes it. Raises `UsageError` for a text that no spec can hold."""
    if isinstance(value, str):
        if any(sign in value for sign in '"{}\n'):
            raise UsageError(f"a spec cannot hold `{value}`: rename it, without quotes and braces")
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return setting_text(value)


def _batch(source: DataSource) -> int:
    return _LONG_BATCH if isinstance(source, Squad | Text) else _BATCH


def _lengths(draft: Draft) -> list[str]:
    """The longest example in tokens, for answers also what windows share."""
    models = [model for model in (draft.teacher, draft.student) if model is not None]
    most = min((limit for model in models if (limit := model.positions)), default=None)
    if isinstance(draft.data.source, Squad):
        length = min(384, most or 384)
        return [f"max_length={length}", f"stride={length // 3}"]
    if isinstance(draft.data.source, Text):
        return [f"max_length={min(_BLOCK, most or _BLOCK)}"]
    longest, nearly_all = draft.tokens or (_LENGTH, _LENGTH)
    length = max(_MULTIPLE, math.ceil(min(longest, max(nearly_all, _MULTIPLE)) / _MULTIPLE) * _MULTIPLE)
    return [f"max_length={min(length, most or length)}"]


def _wrapped(begins: str, arguments: list[str]) -> str:
    """A call on as many lines as it needs."""
    whole = begins + ", ".join(arguments) + ")"
    if len(whole) <= _LINE:
        return whole
    lines = [""]
    for piece in _PIECE.findall(whole):
        if lines[-1] and len(lines[-1]) + len(piece) > _LINE:
            lines.append("   ")
        lines[-1] += piece
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE, initial_indent="# ", subsequent_indent="# ")
