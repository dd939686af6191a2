"""A finished student beside its teachers: what both predict on the same held-out examples, and where they part.

Both run once over at most `ROWS` examples; language models over `TEXTS`, because every logit of both is compared, and
models without labels over `TEXTS`, because every pair of them is.

Shapes: N examples, C classes, L tokens, V vocabulary, H width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import datasets
import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from transformers import PreTrainedModel

from brewgraph.display.lines import one_line
from brewgraph.models.heads import evaluating, trunk_of
from brewgraph.models.standby import awake
from brewgraph.models.task_heads import label_type_of
from brewgraph.recipe.label_types import CLASS, NONE, Form, LabelType
from brewgraph.recipe.recipe import Task
from brewgraph.recipe.tag_schemes import OUTSIDE, find_scheme
from brewgraph.running.agreement import Agreement
from brewgraph.running.data_cache import DataCache, head_of
from brewgraph.running.finished import FinishedRun
from brewgraph.running.predict import Prediction, predictions, rebuilt
from brewgraph.running.spec_builder import SpecBuilder, closing_split, models_of
from brewgraph.training.checkpoint import load_student
from brewgraph.training.evaluation import can_score, logits_of, model_inputs, own_view
from brewgraph.training.metrics import IGNORED, correlation, entities, is_chinese, ranks
from brewgraph.training.metrics import agreement as answers_agree
from brewgraph.training.processes import this_process
from brewgraph.training.work import in_order

ROWS = 2000
"""The most examples that are compared."""
TEXTS = 128
"""The most texts whose logits over a vocabulary, or similarities to each other, are compared."""
BINS = 15
"""Bins of confidence, each 1/15 wide, as in Guo et al. 2017."""
PARTINGS = 12
"""The most examples that are shown where both part."""
_CLASSES = 16
"""The most rows and columns of a confusion; rarer classes are joined."""
_POINTS = 1000
_POSITIONS = 24
_BATCH = 64
_TEXT, _CELL = 240, 80
"""Characters that are shown of a text, and of what is predicted for it."""


@dataclass(frozen=True)
class _Pair:
    """A teacher and the student of one task: the modules that predict its labels, and the rows that both read.

    `label_type` is that of the labels; without labels that of two classifiers alike; NONE where one of both has no head
    for it.
    """

    task: str
    teacher: str
    student: str
    modules: Mapping[str, nn.Module]
    label_type: LabelType
    classes: Sequence[str]
    null_threshold: float | None
    rows: datasets.Dataset
    split: str
    data: str

    def agreement(self, **parts: Any) -> Agreement:
        """What all agreements have in common, and these parts."""
        kind = str(self.label_type)
        about = {"task": self.task, "teacher": self.teacher, "student": self.student, "kind": kind}
        return Agreement(**{**about, "data": self.data, "split": self.split, "examples": len(self.rows), **parts})


def compare_predictions(run: FinishedRun, say: Callable[[str], None], *, allow_python: bool = False) -> list[Agreement]:
    """The agreement of a run's student with each teacher that predicts what it does, by task.

    Runs both on the split that the closing table scores; `say` gets a line before that. Raises `UsageError` if a
    teacher or the data is gone.
    """
    checked, builder = rebuilt(run, allow_python=allow_python, scored=True)
    student = checked.recipe.student.name
    if not any(x.source.averaged is None for x in checked.recipe.teachers):
        return []
    data_cache = DataCache(builder, say)
    agreements = []
    for stage, task in {task.name: (stage, task) for stage, task in checked.recipe.tasks}.values():
        reads = models_of(checked.graphs[stage.name, task.name])
        for teacher in checked.recipe.teachers:
            if teacher.name not in reads or teacher.source.averaged is not None:
                continue
            if student not in builder.models:
                builder.models[student] = load_student(builder.model(student), run.folder.student)
            if (pair := _pair(data_cache, task, teacher.name)) is not None:
                say(f"{teacher.name} and {student} run on {len(pair.rows):,} examples of {task.data[0]}/{pair.split}")
                agreements.append(_agreement(data_cache, pair))
    return agreements


def _pair(data_cache: DataCache, task: Task, teacher: str) -> _Pair | None:
    """A teacher and the student of a task; None where they have nothing that could be compared."""
    builder, data = data_cache.builder, task.data[0]
    checked, source = builder.checked, data_cache.recipe.data[data].source
    student = checked.recipe.student.name
    if source.holds_tensors or (split := closing_split(builder.examples(data).splits)) is None:
        return None
    modules = {name: _on_device(builder, name) for name in (teacher, student)}
    if head := head_of(checked, task, data):
        modules[student] = cast(Mapping[str, nn.Module], modules[student].heads)[head]
    label_type, classes = source.label_type, tuple(builder.classes(data))
    if not label_type and all(hasattr(getattr(x, "config", None), "id2label") for x in modules.values()):
        label_type, classes = _of_two_classifiers(*modules.values())
    if not all(can_score(module, label_type, classes) for module in modules.values()):
        label_type, classes = NONE, ()
    if not label_type and not all(isinstance(trunk_of(x), PreTrainedModel) for x in modules.values()):
        return None  # a custom module has no hidden states that are known
    rows = builder.examples(data).splits[split]
    most = TEXTS if label_type.over_vocabulary or not label_type else ROWS
    rows = rows.select(range(min(most, len(rows))))
    threshold = builder.null_threshold(data)
    return _Pair(task.name, teacher, student, modules, label_type, classes, threshold, rows, split, data)


def _on_device(builder: SpecBuilder, name: str) -> nn.Module:
    """A model with its weights, on the device that it runs on."""
    module = awake(builder.model(name))
    return module if name in builder.places else module.to(this_process().device)


def _of_two_classifiers(one: nn.Module, other: nn.Module) -> tuple[LabelType, tuple[str, ...]]:
    """The label type and the classes of two text classifiers alike; of others no type, and no classes."""
    config: Any = one.config
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    label_type = label_type_of(config) or CLASS
    alike = all(can_score(x, label_type, names) for x in (one, other))
    return (label_type, names) if alike else (NONE, ())


def _agreement(data_cache: DataCache, pair: _Pair) -> Agreement:
    if pair.label_type.over_vocabulary:
        return _of_tokens(data_cache, pair)
    if not pair.label_type:
        return _of_similarities(data_cache, pair)
    both = [_predicted(data_cache, pair, name) for name in (pair.teacher, pair.student)]
    return _BY_FORM[pair.label_type.form](pair, *both)


def _predicted(data_cache: DataCache, pair: _Pair, name: str) -> list[Prediction]:
    """What a model predicts for each row, in order."""
    encodings, _ = data_cache.encodings(pair.data, [name], {name: pair.modules[name]})
    encoded = _first(data_cache.split(pair.data, pair.split, encodings), len(pair.rows))
    batches = in_order(encoded, data_cache.collator(pair.data, encodings, training=False), _BATCH)
    made = predictions(pair.modules[name], name, batches, pair.rows, pair.label_type, pair.classes, pair.null_threshold)
    return sorted(made, key=lambda prediction: int(prediction["index"]))


def _first(encoded: datasets.Dataset, rows: int) -> datasets.Dataset:
    """The encoded windows of the first rows."""
    return encoded.select([place for place, index in enumerate(encoded["index"][:]) if index < rows])


# ── classes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_classes(pair: _Pair, teacher: Sequence[Prediction], student: Sequence[Prediction]) -> Agreement:
    """One class per example: who is right, the classes that are confused, how far confidence can be trusted."""
    p_NC, q_NC = _probabilities(teacher), _probabilities(student)
    guess, other = p_NC.argmax(-1), q_NC.argmax(-1)
    log_p, log_q = (x.clamp_min(1e-30).log() for x in (p_NC, q_NC))
    scores = {
        "same class": _share(guess == other),
        "KL(teacher || student), nats": float((p_NC * (log_p - log_q)).sum(-1).mean()),
    }
    gold = _gold(pair)
    reliability: dict[str, list[tuple[float, float, int]]] = {}
    notes: list[str] = []
    if gold is not None and bool((known := gold >= 0).any()):
        right, too = (guess == gold)[known], (other == gold)[known]
        scores |= {
            "both right": _share(right & too),
            "only the teacher right": _share(right & ~too),
            "only the student right": _share(~right & too),
            "both wrong, the same class": _share(~right & ~too & (guess == other)[known]),
        }
        logits = {pair.teacher: log_p[known], pair.student: log_q[known]}
        calibrated = calibration(logits, gold[known], _top_class, _nll_of_classes)
        scores, reliability, notes = scores | calibrated[0], calibrated[1], calibrated[2]
    confident = (p_NC.max(-1).values * q_NC.max(-1).values).tolist()
    parted = sorted((guess != other).nonzero().flatten().tolist(), key=lambda i: -confident[i])[:PARTINGS]
    header = ["text", "label", pair.teacher, pair.student]
    sides = ((guess, p_NC), (other, q_NC))
    cells = [
        [
            text_of(pair.rows[i]),
            pair.classes[int(gold[i])] if gold is not None and gold[i] >= 0 else "-",
            *(f"{pair.classes[int(which[i])]} ({p[i].max():.0%})" for which, p in sides),
        ]
        for i in parted
    ]
    ours, theirs = ([pair.classes[i] for i in x.tolist()] for x in (guess, other))
    names, counts = confusion(ours, theirs, pair.classes)
    return pair.agreement(
        scores=scores, names=names, counts=counts, reliability=reliability, notes=notes,
        partings=[header, *cells] if cells else (),
    )  # fmt: skip


def _of_labels(pair: _Pair, teacher: Sequence[Prediction], student: Sequence[Prediction]) -> Agreement:
    """Any number of labels per example: each label by itself, and all of them together."""
    p_NC, q_NC = _probabilities(teacher), _probabilities(student)
    guess, other = p_NC > 0.5, q_NC > 0.5
    scores = {
        "same labels": _share((guess == other).all(-1)),
        "same decision, over all labels": _share(guess == other),
        **{f"same decision on {name}": _share(guess[:, i] == other[:, i]) for i, name in enumerate(pair.classes)},
    }
    gold = _gold(pair)
    reliability: dict[str, list[tuple[float, float, int]]] = {}
    notes: list[str] = []
    if gold is not None:
        sides = {pair.teacher: torch.logit(p_NC, 1e-12), pair.student: torch.logit(q_NC, 1e-12)}
        scores_, reliability, notes = calibration(sides, gold, _each_label, _nll_of_labels)
        scores |= scores_
    apart = (guess != other).sum(-1)
    size = ((p_NC - q_NC).abs() * (guess != other)).sum(-1)
    parted = sorted(apart.nonzero().flatten().tolist(), key=lambda i: -float(size[i]))[:PARTINGS]
    header = ["text", *(["labels"] if gold is not None else []), pair.teacher, pair.student]
    shown = [side for side in (gold, guess, other) if side is not None]
    cells = [
        [text_of(pair.rows[i]), *(", ".join(_chosen(side[i], pair.classes)) or "none" for side in shown)]
        for i in parted
    ]
    return pair.agreement(
        scores=scores, reliability=reliability, notes=notes, partings=[header, *cells] if cells else ()
    )


def _probabilities(side: Sequence[Prediction]) -> Tensor:
    """(N, C), in the order of the classes."""
    return torch.tensor([list(x["probabilities"].values()) for x in side], dtype=torch.float64)


def _chosen(row_C: Tensor, classes: Sequence[str]) -> list[str]:
    return [name for name, there in zip(classes, row_C.tolist(), strict=True) if there > 0.5]


def _gold(pair: _Pair) -> Tensor | None:
    """The labels of the rows; None without."""
    column = "label"
    return torch.tensor(pair.rows[column][:]) if column in pair.rows.column_names else None


def _share(x: Tensor) -> float:
    return float(x.double().mean()) if x.numel() else math.nan


def confusion(
    teacher: Iterable[str], student: Iterable[str], classes: Sequence[str]
) -> tuple[list[str], list[list[int]]]:
    """How often each pair of classes was predicted, by rows of the teacher and columns of the student; classes beyond
    the `_CLASSES` most frequent are joined.
    """
    pairs = Counter(zip(teacher, student, strict=True))
    seen = Counter[str]()
    for (one, other), count in pairs.items():
        seen.update({one: count})
        seen.update({other: count})
    present = [name for name in classes if name in seen] if len(classes) > _CLASSES else list(classes)
    if len(present) > _CLASSES:
        frequent = {name for name, _ in seen.most_common(_CLASSES - 1)}
        present = [name for name in present if name in frequent]
    names = [*present, "others"] if len(present) < sum(name in seen for name in classes) else present
    place = {name: i for i, name in enumerate(present)}
    counts = [[0] * len(names) for _ in names]
    for (one, other), count in pairs.items():
        counts[place.get(one, len(present))][place.get(other, len(present))] += count
    return names, counts


# ── calibration ───────────────────────────────────────────────────────────────────────────────────────────────────────

Confidences = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits and labels: how confident each prediction is, and whether it is right."""


def _top_class(logits_NC: Tensor, gold_N: Tensor) -> tuple[Tensor, Tensor]:
    confidence_N, guess_N = logits_NC.softmax(-1).max(-1)
    return confidence_N, guess_N == gold_N


def _nll_of_classes(logits_NC: Tensor, gold_N: Tensor) -> float:
    return float(nn.functional.cross_entropy(logits_NC, gold_N))


def _each_label(logits_NC: Tensor, gold_NC: Tensor) -> tuple[Tensor, Tensor]:
    return logits_NC.sigmoid().flatten(), gold_NC.flatten() > 0.5


def _nll_of_labels(logits_NC: Tensor, gold_NC: Tensor) -> float:
    return float(nn.functional.binary_cross_entropy_with_logits(logits_NC, gold_NC.double()))


def calibration(
    sides: Mapping[str, Tensor], gold: Tensor, confidences: Confidences, nll: Callable[[Tensor, Tensor], float]
) -> tuple[dict[str, float], dict[str, list[tuple[float, float, int]]], list[str]]:
    """The calibration error of each model before and after temperature scaling, the curves, and how they were measured.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599: eq. 3 and section 4.2. The
    temperature is fitted on a random half of the examples, and everything is measured on the others.
    """
    if len(gold) < 2:
        return {}, {}, []
    order = torch.randperm(len(gold), generator=torch.Generator().manual_seed(0))
    fitted, held = order[: len(gold) // 2], order[len(gold) // 2 :]
    scores: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float, int]]] = {}
    for name, logits in sides.items():
        temperature = fit_temperature(logits[fitted], gold[fitted], nll)
        before, after = (reliability(*confidences(x[held], gold[held])) for x in (logits, logits / temperature))
        curves |= {name: before, f"{name}, scaled": after}
        scores |= {
            f"ECE of {name}": calibration_error(before),
            f"ECE of {name}, scaled": calibration_error(after),
            f"temperature of {name}": temperature,
        }
    note = (
        "calibration before distillation is the teacher's, after it the student's; scaled: with logits divided by the "
        f"temperature that fits one half of the examples best; all is measured on the other {len(held):,}"
    )
    return scores, curves, [note]


def fit_temperature(logits: Tensor, gold: Tensor, nll: Callable[[Tensor, Tensor], float]) -> float:
    """The temperature from 0.05 to 20 that divides logits so that the labels are most likely."""
    found = minimize_scalar(
        lambda log: nll(logits / math.exp(log), gold), bounds=(math.log(0.05), math.log(20)), method="bounded"
    )
    return math.exp(float(found.x))


def reliability(confidence_N: Tensor, right_N: Tensor) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right predictions and examples of each bin of confidence that has any."""
    place_N = (confidence_N * BINS).ceil().clamp(1, BINS).long() - 1
    bins = ((confidence_N[place_N == i], right_N[place_N == i]) for i in range(BINS))
    return [(float(c.mean()), _share(right), len(c)) for c, right in bins if len(c)]


def calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    """The expected calibration error: the mean distance of confidence and accuracy over bins, by their examples.

    >>> calibration_error([(0.6, 0.5, 30), (0.9, 1.0, 10)])
    0.1
    """
    total = sum(count for _, _, count in bins)
    return (
        sum(abs(confidence - accuracy) * count for confidence, accuracy, count in bins) / total if total else math.nan
    )


# ── numbers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_values(pair: _Pair, teacher: Sequence[Prediction], student: Sequence[Prediction]) -> Agreement:
    """A number per example."""
    one, other = (torch.tensor([x["value"] for x in side]).double() for side in (teacher, student))
    gap = (one - other).abs()
    scores = {
        "Pearson": correlation(one, other),
        "Spearman": correlation(ranks(one), ranks(other)),
        "mean distance, in units of the label": float(gap.mean()),
    }
    gold = _gold(pair)
    parted = gap.argsort(descending=True)[:PARTINGS].tolist()
    header = ["text", *(["label"] if gold is not None else []), pair.teacher, pair.student]
    cells = [
        [text_of(pair.rows[i]), *(f"{side[i]:.4g}" for side in (gold, one, other) if side is not None)] for i in parted
    ]
    points = list(zip(one[:_POINTS].tolist(), other[:_POINTS].tolist(), strict=True))
    return pair.agreement(scores=scores, measured="prediction", points=points, partings=[header, *cells])


# ── tags and answers ──────────────────────────────────────────────────────────────────────────────────────────────────


def _of_tags(pair: _Pair, teacher: Sequence[Prediction], student: Sequence[Prediction]) -> Agreement:
    """A tag per word: words, entities with their borders, and the types that are confused."""
    scheme = find_scheme(pair.classes)

    def type_of(tag: str) -> str:
        split = scheme.split(tag) if scheme is not None else None
        return tag if split is None else split[1]

    gold = pair.rows["tags"][:] if "tags" in pair.rows.column_names else None
    words = same = 0
    kinds: tuple[list[str], list[str]] = ([], [])
    entities_3 = np.zeros(3, dtype=np.int64)
    parted: list[tuple[int, list[str]]] = []
    for i, (one, other) in enumerate(zip(teacher, student, strict=True)):
        tags = [[tag or OUTSIDE for tag in side["tags"]] for side in (one, other)]
        words += len(tags[0])
        differs = [k for k, (a, b) in enumerate(zip(*tags, strict=True)) if a != b]
        same += len(tags[0]) - len(differs)
        for own, side in zip(kinds, tags, strict=True):
            own += map(type_of, side)
        if scheme is not None:
            spans = [entities(side, scheme) for side in tags]
            entities_3 += [len(spans[0] & spans[1]), len(spans[0]), len(spans[1])]
        if differs:
            sides = [[pair.classes[n] if n >= 0 else OUTSIDE for n in gold[i]]] if gold is not None else []
            cells = [
                _cut(", ".join(f"{one['words'][k]} {side[k]}" for k in differs), _CELL) for side in (*sides, *tags)
            ]
            parted.append((len(differs), [_cut(" ".join(one["words"]), _TEXT), *cells]))
    scores = {"same tag, of words": same / words if words else math.nan}
    if scheme is not None:
        both, ours, theirs = entities_3.tolist()
        scores["same entity (F1)"] = 2 * both / (ours + theirs) if ours + theirs else math.nan
        scores["entities of the teacher that the student has"] = both / ours if ours else math.nan
    header = ["text", *(["tags"] if gold is not None else []), pair.teacher, pair.student]
    parted.sort(key=lambda row: -row[0])
    names, counts = confusion(*kinds, list(dict.fromkeys(map(type_of, pair.classes))))
    cells_ = [row for _, row in parted[:PARTINGS]]
    return pair.agreement(scores=scores, names=names, counts=counts, partings=[header, *cells_] if cells_ else ())


def _of_answers(pair: _Pair, teacher: Sequence[Prediction], student: Sequence[Prediction]) -> Agreement:
    """An answer in a text: whether both give the same one, or overlap, by the rules of the task's scores."""
    gold = [row["text"] for row in pair.rows["answers"][:]]
    chinese = is_chinese(text for texts in gold for text in texts)
    pairs = [(one["answer"], other["answer"]) for one, other in zip(teacher, student, strict=True)]
    agreements = [answers_agree(other, [one], chinese=chinese) for one, other in pairs]
    count = max(1, len(pairs))
    scores = {
        "same answer (exact match)": sum(exact for exact, _ in agreements) / count,
        "overlap (F1)": sum(f1 for _, f1 in agreements) / count,
    }
    if pair.null_threshold is not None:
        scores["same decision that there is an answer"] = sum(bool(a) == bool(b) for a, b in pairs) / count
    parted = sorted((f1, i) for i, (exact, f1) in enumerate(agreements) if not exact)[:PARTINGS]
    header = ["question", "answers", pair.teacher, pair.student]
    cells = [
        [
            _cut(pair.rows[i]["text_0"], _TEXT),
            *(_cut(x, _CELL) or "no answer" for x in (" / ".join(dict.fromkeys(gold[i])), *pairs[i])),
        ]
        for _, i in parted
    ]
    return pair.agreement(scores=scores, partings=[header, *cells] if cells else ())


_BY_FORM: Mapping[Form, Callable[[_Pair, Sequence[Prediction], Sequence[Prediction]], Agreement]] = {
    Form.CLASS: _of_classes, Form.CLASSES: _of_labels, Form.NUMBER: _of_values, Form.TAGS: _of_tags,
    Form.SPANS: _of_answers,
}  # fmt: skip
"""What is compared of predictions. Language models are compared by tokens, models without labels by similarities."""


# ── language models, and models without labels ────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def _of_tokens(data_cache: DataCache, pair: _Pair) -> Agreement:
    """Distributions over a vocabulary at each token that counts, by place in the text."""
    names = (pair.teacher, pair.student)
    gaps: list[Tensor] = []
    same: list[Tensor] = []
    places: list[Tensor] = []
    for batch in _joint_batches(data_cache, pair, 1):
        views = [own_view(name, batch) for name in names]
        if not torch.equal(views[0]["input_ids"], views[1]["input_ids"]):
            note = "both read other tokens, so that their distributions cannot be compared"
            return pair.agreement(examples=0, notes=[note])
        logits = [_logits(pair, name, view) for name, view in zip(names, views, strict=True)]
        counted_BL = views[1]["labels"] != IGNORED
        size = min(x.shape[-1] for x in logits)  # one may have more embeddings than tokens
        log_p, log_q = (x[..., :size].cpu()[counted_BL].float().log_softmax(-1) for x in logits)
        gaps.append((log_p.exp() * (log_p - log_q)).sum(-1))
        same.append(log_p.argmax(-1) == log_q.argmax(-1))
        places.append(counted_BL.nonzero()[:, 1])
    if not places or not sum(map(len, places)):
        return pair.agreement(examples=0, notes=["no token of these texts has a label"])
    gap, equal, place = torch.cat(gaps), torch.cat(same), torch.cat(places)
    width = max(1, math.ceil((int(place.max()) + 1) / _POSITIONS))
    bins = [(int(b) * width, place // width == b) for b in (place // width).unique()]
    scores = {
        "same most likely token": _share(equal),
        "KL(teacher || student), nats": float(gap.mean()),
        "perplexity of the divergence, exp(KL)": math.exp(min(float(gap.mean()), 700.0)),
    }
    positions = {
        "same most likely token": [(at, _share(equal[chosen])) for at, chosen in bins],
        "KL, nats": [(at, float(gap[chosen].mean())) for at, chosen in bins],
    }
    return pair.agreement(scores=scores, positions=positions)


@torch.no_grad()
def _of_similarities(data_cache: DataCache, pair: _Pair) -> Agreement:
    """How alike two texts are, by the cosine of the means of last hidden states, for every pair of texts."""
    names = (pair.teacher, pair.student)
    vectors: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in _joint_batches(data_cache, pair, _BATCH):
        for name in names:
            view, trunk = own_view(name, batch), trunk_of(pair.modules[name])
            inputs = model_inputs(trunk, view, _device(trunk))
            with evaluating(trunk):
                output = trunk(**inputs, output_hidden_states=True)
            hidden = output.hidden_states[-1].float().cpu()
            mask_BL1 = view["attention_mask"][..., None].float()
            vectors[name].append((hidden * mask_BL1).sum(1) / mask_BL1.sum(1).clamp_min(1))
    sides = {}
    for name in names:
        unit_NH = nn.functional.normalize(torch.cat(vectors[name]).double(), dim=-1)
        above = torch.triu_indices(len(unit_NH), len(unit_NH), 1)
        sides[name] = (unit_NH @ unit_NH.T)[above[0], above[1]]
    one, other = sides[pair.teacher], sides[pair.student]
    scores = {
        "Pearson of similarities": correlation(one, other),
        "Spearman of similarities": correlation(ranks(one), ranks(other)),
        "cosine of similarities": float(nn.functional.cosine_similarity(one, other, dim=0)),
    }
    step = max(1, len(one) // _POINTS)
    points = list(zip(one[::step][:_POINTS].tolist(), other[::step][:_POINTS].tolist(), strict=True))
    note = "a text is the mean of the last hidden states of its tokens; similarities are cosines of all pairs of texts"
    return pair.agreement(scores=scores, measured="cosine of two texts", points=points, notes=[note])


def _joint_batches(data_cache: DataCache, pair: _Pair, size: int) -> Iterator[Mapping[str, Any]]:
    """Batches of the first texts, which both models read alike."""
    names = [pair.teacher, pair.student]
    encodings, keys = data_cache.encodings(pair.data, names, pair.modules)
    encoded = data_cache.split(pair.data, pair.split, encodings)
    encoded = encoded.select(range(min(TEXTS, len(encoded))))
    yield from in_order(encoded, data_cache.collator(pair.data, encodings, keys, training=False), size)


def _logits(pair: _Pair, name: str, view: Mapping[str, Any]) -> Tensor:
    module = pair.modules[name]
    with evaluating(module):
        logits: Tensor = logits_of(module, model_inputs(module, view, _device(module)), pair.label_type)
    return logits


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def text_of(row: Mapping[str, Any]) -> str:
    """The text of a row, or both of a pair, cut."""
    texts = [str(row[name]) for name in ("text_0", "text_1") if row.get(name)]
    return " / ".join(_cut(text, _TEXT // len(texts)) for text in texts)


def _cut(text: str, length: int) -> str:
    text = one_line(text)
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"
