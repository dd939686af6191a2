"""The head that a model needs for its features and labels, before it is built, and whether its checkpoint has it, which
the names of the saved tensors tell.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from pickletools import genops
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile, ZipFile

from safetensors import SafetensorError, safe_open

from brewgraph.diagnostics import SourceFault, listing
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import (
    CLASS,
    LABEL_TYPES,
    NONE,
    SPANS,
    VALUE,
    LabelType,
    ProblemType,
    of_architecture,
    of_problem,
)
from brewgraph.recipe.settings.base import Settings
from brewgraph.recipe.settings.model_sources import HEADS, SequenceClassifier, TokenClassifier

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

AUTO_CLASSES: dict[str, str] = {x.task: x.auto_class for x in LABEL_TYPES.values()}
"""transformers' auto class for each head, as `hf(…, task=…)` names it."""

_AUTO_CLASS_OF_HEAD = {HEADS[x.head]: x.auto_class for x in LABEL_TYPES.values() if x}


def task_of(
    features: Collection[Feature], label_types: Collection[LabelType] = (), architectures: Collection[str] = ()
) -> str:
    """The head that a model needs for these features.

    None if they need no head; otherwise that of the labels it is matched with, or of the checkpoint's architectures.
    SourceFault B333 for labels that need different heads.
    """
    names = {f.name for f in features}
    if names & {"start", "end"}:
        return SPANS.task
    if "logits" not in names:
        return NONE.task
    tasks = {kind.task: kind for kind in sorted(label_types) if kind}
    if len(tasks) > 1:
        message = f"labels of the types {listing(tasks.values())} need a head each"
        help = "give the student heads: { head ner = token_classifier()  head topic = sequence_classifier() }"
        raise SourceFault("B333", message, help=help)
    own_tasks = (kind.task for name in architectures if (kind := of_architecture(name)))
    return next(iter(tasks), None) or next(own_tasks, CLASS.task)


def has_classes(auto_class: str) -> bool:
    """Whether a head gives one logit per class of the data."""
    return any(x.per_class and x.auto_class == auto_class for x in LABEL_TYPES.values())


def with_problem(
    config: PreTrainedConfig, role: str, auto_class: str, label_types: Collection[LabelType]
) -> PreTrainedConfig:
    """Set the problem type for transformers' own losses, and the number of logits that follows from it."""
    if auto_class == SPANS.auto_class and config.num_labels != 2:
        config.num_labels = 2  # start and end; another number is left from a former head
    if auto_class == CLASS.auto_class and role == "student":
        problem = next((kind.problem_type for kind in label_types if kind.problem_type), None)
        if problem is not None:
            config.problem_type = problem
        if problem == VALUE.problem_type:
            config.num_labels = 1
    return config


def name_classes(config: PreTrainedConfig, labels: Sequence[str]) -> None:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}


def label_type_of(config: PreTrainedConfig) -> LabelType:
    """The label type of a text classifier: a value for one logit; `NONE` if its configuration does not tell."""
    return VALUE if config.num_labels == 1 else of_problem(config.problem_type)


def several_outputs(count: int) -> SourceFault:
    """The fault of a model with several outputs that learns one number per example."""
    help = "leave `labels` out, or name one; for several numbers write a task with a head for each"
    message = f"the labels are one number each, and `labels` asks for {count}"
    return SourceFault("B347", message, help=help, field="labels")


class Head(NamedTuple):
    """One head before it is built: transformers' auto class, its classes in order, and its problem type."""

    auto_class: str
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None

    @classmethod
    def of(cls, settings: Settings, classes: Sequence[str] = (), label_type: LabelType = NONE) -> Head:
        """The head of a spec's `token_classifier(...)` and the like.

        `classes` are those of its data, for a spec that names none; `label_type` tells one class, several, or a number.
        SourceFault B326 if the classes are unknown.
        """
        auto_class = _AUTO_CLASS_OF_HEAD[type(settings)]
        if not isinstance(settings, TokenClassifier | SequenceClassifier):
            return cls(auto_class)
        problem = None
        if isinstance(settings, SequenceClassifier):
            problem = of_problem(settings.problem_type).problem_type or label_type.problem_type
            if problem == VALUE.problem_type:
                count = settings.labels if isinstance(settings.labels, int) else len(settings.labels or " ")
                if count > 1:
                    raise several_outputs(count)
                return cls(auto_class, problem_type=problem)
        labels = settings.labels
        if isinstance(labels, int):  # a count alone: the data's names if there are as many
            labels = tuple(classes) if len(classes) == labels else tuple(f"LABEL_{i}" for i in range(labels))
        labels = labels or tuple(classes)
        if not labels:
            message = "the classes of this head are unknown"
            raise SourceFault("B326", message, field="labels", help="write how many: labels=9")
        return cls(auto_class, labels, problem)

    def config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """A copy of the trunk's configuration for this head."""
        head = copy.deepcopy(config)
        if self.problem_type == VALUE.problem_type:
            head.num_labels = 1
        elif self.auto_class == SPANS.auto_class:
            head.num_labels = 2  # two logits per token, whatever the checkpoint's former head had
        elif self.labels:
            name_classes(head, self.labels)
        if self.problem_type:
            head.problem_type = self.problem_type
        return head


# ── the head of a checkpoint ─────────────────────────────────────────────────────────────────────────────────────────


_LEGACY = {"gamma": "weight", "beta": "bias"}
"""Last parts of names that transformers renames when it loads them."""


def saved_names(checkpoint: str, revision: str | None = None) -> frozenset[str]:
    """The names of the tensors in a folder, or in the downloaded files of a hub name: from the header of
    model.safetensors, the index of several files, or the pickle of pytorch_model.bin, which is read and never run.

    Empty if they are unknown: not downloaded, an adapter's folder, a broken file.
    """
    folder = _folder_of(checkpoint, revision)
    if folder is None or (folder / "adapter_config.json").exists():
        return frozenset()
    try:
        # in the order in which from_pretrained looks for them
        if (one := folder / "model.safetensors").is_file():
            with safe_open(one, "np") as file:
                return frozenset(file.keys())
        if (folder / "model.safetensors.index.json").is_file():
            index = folder / "model.safetensors.index.json"
        elif (one := folder / "pytorch_model.bin").is_file():
            return _pickled_names(one)
        else:
            index = folder / "pytorch_model.bin.index.json"
        return frozenset(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration, BadZipFile, SafetensorError):
        return frozenset()


def _folder_of(checkpoint: str, revision: str | None) -> Path | None:
    """The folder itself, or that of the downloaded files of a hub name."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(checkpoint, "config.json", revision=revision)
    except HFValidationError:  # no name of the hub
        return None
    return Path(file).parent if isinstance(file, str) else None


def _pickled_names(path: Path) -> frozenset[str]:
    """The texts in the pickle of a file that `torch.save` wrote, which include the names of the tensors."""
    with ZipFile(path) as file:
        pickle = file.read(next(name for name in file.namelist() if name.endswith("/data.pkl")))
    return frozenset(argument for _, argument, _ in genops(pickle) if isinstance(argument, str))


def missing_head(model: nn.Module, names: frozenset[str]) -> str | None:
    """The first parameter of a transformers model's head, if tensors of these `names` hold its base and none of the
    head. None if they hold any of it, if it has no head of its own (a tied one belongs to the base), and if its
    architecture is saved under other names.
    """
    from transformers import PreTrainedModel
    from transformers.conversion_mapping import get_model_conversion_mapping

    if not isinstance(model, PreTrainedModel) or not hasattr(model, model.base_model_prefix):
        return None
    if get_model_conversion_mapping(model, add_legacy=False):
        return None
    prefix = model.base_model_prefix + "."
    every = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    head = [name for name in every if not name.startswith(prefix) and name not in model.all_tied_weights_keys]
    base = {name.removeprefix(prefix) for name in every if name.startswith(prefix)}
    ends = {end for name in names for end in _ends(name)}
    return head[0] if head and base & ends and not ends.intersection(head) else None


def _ends(name: str) -> list[str]:
    """The possible names of a tensor in a model: the name without each of its prefixes."""
    *path, last = name.split(".")
    path.append(_LEGACY.get(last, last))
    return [".".join(path[i:]) for i in range(len(path))]


def headless(checkpoint: str | None, name: str) -> SourceFault:
    """The fault of a teacher whose checkpoint lacks the parameter `name` of its head."""
    message = f"`{checkpoint}` has no trained head for this task: {name} would be random in the teacher"
    help = 'fine-tune it first, as the student of a spec of its own, and name that: brew("teacher.brew")'
    return SourceFault("B325", message, help=help, field="name")
