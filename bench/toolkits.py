"""What side_by_side.py compares: its tasks, the two toolkits' trainings of the same student, and one exam for both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

import brewgraph as bg
from brewgraph.checking.check import Checked, check, read_spec
from brewgraph.data.batching.order import BatchOrder, loader
from brewgraph.data.encoding.encode import row_lengths
from brewgraph.models.loading import quiet_transformers
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder
from brewgraph.training.evaluation import evaluate, evaluating, model_inputs
from brewgraph.training.reporter import Reporter
from brewgraph.training.work import Material, micro_batches, place_stage

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
LAYERS = 3
MATCHES = ((2, 1), (4, 2), (6, 3))
"""Layers of teacher and student whose hidden states are matched; the specs have them as `map`."""
IGNORED = -100
HIDDEN = -1e4
"""A logit that has no share in a softmax, and of which the product with zero is zero."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


# ── what is trained ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Task:
    """A task: its teacher's spec, its folder of data, transformers' class for it, the score, TextBrewer's adaptors.

    `labels` maps the names of a batch's labels to those of the model's forward.
    """

    name: str
    folder: str
    auto_class: Any
    metric: str
    labels: Mapping[str, str]
    logits: Callable[[Mapping[str, Tensor], Any], list[Tensor]]
    hard: Callable[[Mapping[str, Tensor], list[Tensor]], Tensor]
    logits_mask: bool = False

    @property
    def spec(self) -> Path:
        return HERE / "specs" / f"{self.name}.brew"

    @property
    def teacher_spec(self) -> Path:
        return REPOSITORY / "specs" / "results" / f"{self.name}-teacher.brew"

    def adaptor(self, batch: Mapping[str, Tensor], outputs: Any) -> dict[str, Any]:
        """What TextBrewer is told of a forward, of teacher and student alike."""
        logits = self.logits(batch, outputs)
        told: dict[str, Any] = {
            "logits": logits,
            "hidden": outputs.hidden_states,
            "inputs_mask": batch["attention_mask"],
            "losses": [self.hard(batch, logits)],
        }
        if self.logits_mask:
            told["logits_mask"] = [batch["labels"] != IGNORED]
        return told


def class_logits(batch: Mapping[str, Tensor], outputs: Any) -> list[Tensor]:
    """The logits of a classifier, of examples or of tokens."""
    return [outputs.logits]


def class_loss(batch: Mapping[str, Tensor], logits: list[Tensor]) -> Tensor:
    """Cross-entropy with the labels, a mean over those that there are."""
    return F.cross_entropy(logits[0].flatten(0, -2), batch["labels"].flatten(), ignore_index=IGNORED)


def span_logits(batch: Mapping[str, Tensor], outputs: Any) -> list[Tensor]:
    """The scores of an answer's first and last token. Padding has no share in them, as in brewgraph: with it the loss
    of a batch would depend on its longest row.
    """
    padding_BL = batch["attention_mask"] == 0
    return [x.masked_fill(padding_BL, HIDDEN) for x in (outputs.start_logits, outputs.end_logits)]


def span_loss(batch: Mapping[str, Tensor], logits: list[Tensor]) -> Tensor:
    """The mean of both ends' cross-entropies, over windows with an answer; 0 where a batch has none (the model's own
    loss would be no number there, and would take -100 for the first token).
    """
    ends = [batch["start_positions"], batch["end_positions"]]
    losses = [
        F.cross_entropy(x_BL, at_B, ignore_index=IGNORED, reduction="sum") / (at_B != IGNORED).sum().clamp_min(1)
        for x_BL, at_B in zip(logits, ends, strict=True)
    ]
    return 0.5 * (losses[0] + losses[1])


_LABELS = {"labels": "labels"}
_ENDS = {"start": "start_positions", "end": "end_positions"}
TASKS = {
    task.name: task
    for task in (
        Task(
            "snli",
            "snli",
            transformers.AutoModelForSequenceClassification,
            "accuracy",
            _LABELS,
            class_logits,
            class_loss,
        ),
        Task(
            "wnut17",
            "wnut17",
            transformers.AutoModelForTokenClassification,
            "entity F1",
            _LABELS,
            class_logits,
            class_loss,
            logits_mask=True,
        ),
        Task("tydiqa", "tydiqa_en", transformers.AutoModelForQuestionAnswering, "F1", _ENDS, span_logits, span_loss),
    )
}


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Exam:
    """A task's dev split, or `limit` of its examples at even distances; the same for every model."""

    def __init__(self, checked: Checked, limit: int | None):
        material = material_of(checked)
        assert material.dev is not None
        self.classes, self.examples, self.collator = material.classes, material.examples, material.collator
        self.label_type, self.model = material.label_type, checked.recipe.student.name
        count = len(material.examples)
        kept = {i * count // limit for i in range(limit)} if limit is not None and limit < count else set(range(count))
        self.count = len(kept)
        indices = material.dev["index"][:]  # of an answer's several windows each has the question's
        self.rows = material.dev.select([row for row, index in enumerate(indices) if index in kept])

    def score(self, model: nn.Module) -> float:
        """Accuracy; F1 of entities by seqeval; F1 of answers by SQuAD's rules."""
        order = BatchOrder(len(self.rows), 64, shuffle=False, lengths=row_lengths(self.rows))
        batches = loader(self.rows, order, self.collator)
        if self.label_type == "tags":
            return self._entity_f1(model, batches)
        found = evaluate(
            model,
            self.model,
            batches,
            label_type=self.label_type,
            classes=self.classes,
            examples=self.examples,
        )
        return found.values["f1" if self.label_type == "spans" else "accuracy"]

    @torch.no_grad()
    def _entity_f1(self, model: nn.Module, batches: Any) -> float:
        from seqeval.metrics import f1_score

        true, said = [], []
        with evaluating(model):
            for batch in batches:
                guess_BL = model(**model_inputs(model, batch, "cpu")).logits.argmax(-1)
                for guess_L, labels_L in zip(guess_BL, batch["labels"], strict=True):
                    words_L = labels_L != IGNORED
                    true.append([self.classes[i] for i in labels_L[words_L].tolist()])
                    said.append([self.classes[i] for i in guess_L[words_L].tolist()])
        return float(f1_score(true, said, zero_division=0))


def material_of(checked: Checked) -> Material:
    """The encoded data of a spec with one task."""
    (stage,) = DataCache(SpecBuilder(checked)).stages(checked)
    (material,) = stage.materials.values()
    return material


# ── the two toolkits ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Clock(Reporter):
    """When training began, and when each optimizer step was done, in seconds; it is told by either toolkit."""

    began: float = 0.0
    done: list[float] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, name: str, steps: int, done: int) -> None:
        self.began = time.perf_counter()

    def step(self, step: int, loss: float | None, terms: Mapping[str, float]) -> None:
        self.done.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """From the beginning to the last step: not what comes before it, nor saving."""
        return self.done[-1] - self.began

    @property
    def per_step(self) -> float:
        """The median step."""
        return statistics.median(b - a for a, b in zip([self.began, *self.done], self.done, strict=False))


def by_brewgraph(task: Task, params: Mapping[str, Any], folder: Path) -> tuple[nn.Module, Clock]:
    """The student that brewgraph trains, as `brewgraph run` does."""
    clock = Clock()
    result = bg.run(task.spec, params=params, out=folder, force=True, reporter=clock)
    return load(task, result.folder / "student"), clock


class SameBatches:
    """The batches that brewgraph's run of a spec is trained on, in its order, as TextBrewer wants them: made when they
    are asked for, as a DataLoader would.
    """

    def __init__(self, task: Task, checked: Checked):
        (stage,) = DataCache(SpecBuilder(checked)).stages(checked)
        placed = place_stage(0, stage, 0, 1)
        (self.feeds,) = placed.feeds.values()
        self.length, self.names = placed.length, {name: name for name in INPUTS} | dict(task.labels)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for (batch,) in micro_batches(self.feeds, 1, 0):
            yield {theirs: batch[ours] for ours, theirs in self.names.items()}


def by_textbrewer(task: Task, params: Mapping[str, Any], folder: Path) -> tuple[nn.Module, Clock]:
    """The student that TextBrewer's GeneralDistiller trains with what the spec says."""
    import textbrewer

    checked = check(read_spec(task.spec), params)
    settings, said = checked.recipe.train, checked.recipe.params
    batches = SameBatches(task, checked)
    steps, warmup = batches.length.steps, settings.schedule.warmup.steps(batches.length.steps, batches.length.per_epoch)
    teacher, student = load(task, params["teacher"]), load(task, params["student"])
    decayed = [p for p in student.parameters() if p.ndim > 1]
    spared = [p for p in student.parameters() if p.ndim < 2]
    adamw = settings.optimizer
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": adamw.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        lr=adamw.lr,
        betas=adamw.betas,
        eps=adamw.eps,
    )
    distiller = textbrewer.GeneralDistiller(
        textbrewer.TrainingConfig(device="cpu", output_dir=str(folder), ckpt_steps=steps),
        textbrewer.DistillationConfig(
            temperature=said["T"],
            kd_loss_type="ce",
            kd_loss_weight=said["soft_weight"],
            hard_label_weight=said["hard_weight"],
            intermediate_matches=[
                {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": 1} for t, s in MATCHES
            ],
        ),
        teacher,
        student,
        task.adaptor,
        task.adaptor,
    )
    clock = Clock()
    optimizer.register_step_post_hook(lambda *_: clock.step(0, None, {}))
    torch.manual_seed(params["seed"])
    with distiller:
        clock.begin("", steps, 0)
        distiller.train(
            optimizer,
            batches,
            num_steps=steps,
            scheduler_class=transformers.get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": warmup, "num_training_steps": steps},
            max_grad_norm=settings.max_grad_norm,
            output_hidden_states=True,
        )
    return student, clock


def load(task: Task, folder: Path | str) -> nn.Module:
    """A model from its folder."""
    with quiet_transformers():
        model: nn.Module = task.auto_class.from_pretrained(folder)
    return model


def start_student(
    task: Task, base: str, teacher: Path, seed: int, dropout: float, folder: Path, *, of_teacher: bool = False
) -> None:
    """Write the student as it begins: the encoder's first layers and a head drawn from the seed, for the teacher's
    classes; or `of_teacher` the teacher's own first layers and head.
    """
    config = transformers.AutoConfig.from_pretrained(teacher)
    sizes = {"num_hidden_layers": LAYERS, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    classes = {"id2label": config.id2label, "label2id": config.label2id}
    torch.manual_seed(seed)
    with quiet_transformers():
        model = task.auto_class.from_pretrained(teacher if of_teacher else base, **classes, **sizes)
        model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
