"""What a new spec has to know of a teacher or a student in a folder or on the hub. No weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from brewgraph.diagnostics import SourceFault, UsageError
from brewgraph.facts.memory import Memory
from brewgraph.facts.models import Request, UnbuiltModelFacts
from brewgraph.models.description import read_config
from brewgraph.models.task_heads import has_classes, label_type_of
from brewgraph.models.tokenization import local
from brewgraph.paths import at_home, near_folder, nearby
from brewgraph.recipe.features import Feature
from brewgraph.recipe.label_types import CLASS, NONE, LabelType, of_architecture
from brewgraph.recipe.settings.model_sources import Hf

WIDTH = 768
"""The width of a model of which nothing is known: that of BERT-base."""


class WishFault(UsageError):
    """A wish that cannot be fulfilled, or is missing: `option` names it, `--teacher` for one."""

    def __init__(self, option: str, message: str):
        self.option = option
        super().__init__(f"{option}: {message}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.option, str(self).removeprefix(f"{self.option}: "))


@dataclass(frozen=True)
class SeenModel:
    """A model as its configuration describes it.

    `name` is as the user wrote it, relative to the working directory. `label_type` is that of its head, `NONE` without
    one. `classes` are in the order of its logits, empty where its configuration does not name them; `outputs` counts
    the logits of such a head, None without one. `layers` is None for a model whose layers are not one row. `known` is
    false for a model on the hub that could not be reached, of which only the name is known.
    """

    name: str
    facts: UnbuiltModelFacts
    label_type: LabelType = NONE
    classes: tuple[str, ...] = ()
    outputs: int | None = None
    layers: int | None = None
    width: int = WIDTH
    known: bool = True

    @property
    def tokenizer(self) -> str:
        """A fingerprint of its tokenizer; empty if it cannot be loaded."""
        return self.facts.tokenizer

    @property
    def positions(self) -> int | None:
        """The most tokens that it reads; None if it is unknown or has no limit."""
        try:
            return self.facts.positions if self.known else None
        except SourceFault:
            return None


def look_at_model(name: str, option: str) -> SeenModel:
    """The model in a folder, relative to the working directory, or on the hub; `option` is the one that names it.

    Raises `WishFault` for a folder without a model.
    """
    here, place = Path("."), at_home(name)
    request = Request(Hf(name=name), "teacher", here, frozenset([Feature("logits")]))
    facts = UnbuiltModelFacts(request, Memory.of_user())
    try:
        config = read_config(local(name, here))
    except SourceFault as fault:
        if fault.code != "B311" and (place.exists() or not place.parent.is_dir()):
            raise WishFault(option, f"{fault.message}: {fault.help}") from fault
        near = near_folder(place, ("config.json",))
        if near or (len(place.parts) > 1 and place.parent.is_dir()):
            help = f"did you mean `{place.parent / near}`?" if near else nearby(place)
            raise WishFault(option, f"there is no folder `{name}`: {help}") from fault
        return SeenModel(name, facts, known=False)
    kind = next((x for word in config.architectures or () if (x := of_architecture(word))), NONE)
    if kind == CLASS:
        kind = label_type_of(config) or CLASS
    named = tuple(str(label) for _, label in sorted((config.id2label or {}).items()))
    classifies = has_classes(kind.auto_class) and kind.per_class
    generic = set(named) == {f"LABEL_{i}" for i in range(len(named))}
    layers = None if config.is_encoder_decoder else getattr(config, "num_hidden_layers", None)
    return SeenModel(
        name,
        facts,
        kind,
        classes=named if classifies and not generic else (),
        outputs=len(named) if classifies else None,
        layers=layers if isinstance(layers, int) and layers > 0 else None,
        width=getattr(config, "hidden_size", None) or WIDTH,
    )
