"""The head that a model needs for its features and labels, before it is built, and whether its checkpoint has it, which
the names of the saved tensors tell.
"""

from __future__ import annotations

import copy
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from pickletools import OpcodeInfo, genops
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile, ZipFile, is_zipfile

from safetensors import SafetensorError, safe_open

from brewgraph.diagnostics import SourceFault, listing
from brewgraph.paths import read_json
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


_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""Files with weights, or an index of several, in the order in which from_pretrained looks for them."""


def saved_names(checkpoint: str, revision: str | None = None) -> frozenset[str]:
    """The names of the tensors in a folder, or in the downloaded files of a hub name: from the header of
    model.safetensors, the index of several files, or the pickle of pytorch_model.bin, which is read and never run.

    Empty if they are unknown: not downloaded, an adapter's folder, a broken file.
    """
    folder = _folder_of(checkpoint, revision)
    if folder is None or (folder / "adapter_config.json").exists():
        return frozenset()
    one = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    try:
        if one is None:
            return frozenset()
        if one.suffix == ".safetensors":
            with safe_open(one, "np") as file:
                return frozenset(file.keys())
        if one.suffix == ".bin":
            return frozenset(argument for _, argument, _ in _operations(one) if isinstance(argument, str))
        index: Any = read_json(one)
        return frozenset(index["weight_map"])
    except (OSError, ValueError, KeyError, TypeError, BadZipFile, SafetensorError):
        return frozenset()


def check_pickles(checkpoint: str, revision: str | None = None) -> None:
    """SourceFault B315 if loading pickled weights (pytorch_model.bin, alone or in parts; adapter_model.bin) would need
    anything but tensors. The pickles are read and never run.
    """
    folder = _folder_of(checkpoint, revision)
    for path in _pickles(folder) if folder is not None else ():
        shown = f"`{path.name}` of `{checkpoint}`"
        try:
            for operation, argument, _ in _operations(path):
                if operation.name in _FOREIGN_OPERATIONS:
                    raise _foreign(f"{shown} is pickled in a way that torch does not load as weights")
                called = str(argument).replace(" ", ".")
                if operation.name == "GLOBAL" and not _OF_TENSORS.fullmatch(called):
                    raise _foreign(f"{shown} holds more than tensors: loading it would call `{called}`")
        except FileNotFoundError:
            continue  # which from_pretrained reports
        except (OSError, ValueError, KeyError, BadZipFile, EOFError, zlib.error, RuntimeError) as error:
            message = f"{shown} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            raise SourceFault("B315", message, field="name", help="copy the folder again, or save it again") from error


_OF_TENSORS = re.compile(
    r"collections\.(OrderedDict|Counter)|_codecs\.encode|torch\.(\w+\.)*\w+(Storage|Tensor)|torch\.(Tensor|Size|device)"
    r"|torch\.(q?u?int\d\w*|b?float\d\w*|complex\d+|bits\d\w*|bool|per_\w+)|torch\.serialization\._get_layout"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.Parameter"
    r"|builtins\.(bytearray|complex|set)"
)
"""What the pickle of a state dict calls: the part of torch's own list for `weights_only` that builds tensors."""
_FOREIGN_OPERATIONS = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"})
"""Operations of pickles that `weights_only` refuses and that can run something."""


def _pickles(folder: Path) -> list[Path]:
    """The pickled files that loading a folder would read."""
    name = next((name for name in _WEIGHTS if (folder / name).is_file()), "")
    names = [name] if name.endswith(".bin") else []
    if name.endswith(".bin.index.json"):
        try:
            index: Any = read_json(folder / name)
            names = sorted(set(index["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            names = []  # which from_pretrained reports
    if (folder / "adapter_model.bin").is_file() and not (folder / "adapter_model.safetensors").is_file():
        names.append("adapter_model.bin")
    return [folder / name for name in names if isinstance(name, str)]


def _foreign(message: str) -> SourceFault:
    help = (
        "convert it where you trust it: `torch.load(…, weights_only=False)`, then save the tensors alone with "
        "`safetensors.torch.save_file(state_dict, …)` as model.safetensors"
    )
    return SourceFault("B315", message, field="name", help=help)


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


_LARGEST_PICKLE = 32 << 20
"""Bytes: the pickle of a state dict names its tensors, whose numbers are elsewhere in the file."""


def _operations(path: Path) -> Iterator[tuple[OpcodeInfo, Any, int | None]]:
    """The operations of the pickles in a file that `torch.save` wrote, each with its argument; nothing is run.

    Since torch 1.6 a file is a zip with one of them; before, four stood one after the other in front of the numbers.
    Raises `ValueError` for any other file.
    """
    if is_zipfile(path):
        with ZipFile(path) as file:
            inside = next((x for x in file.infolist() if x.filename.endswith("/data.pkl")), None)
            if inside is None or inside.file_size > _LARGEST_PICKLE:
                raise ValueError("it is no file of `torch.save`")
            yield from genops(file.read(inside))
        return
    with path.open("rb") as plain:
        head = BytesIO(plain.read(_LARGEST_PICKLE))
    for _ in range(4):  # a magic number, the version, the machine's sizes, the objects
        yield from genops(head)


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
