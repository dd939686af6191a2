"""What is known of a spec's models before a weight is loaded: from configurations, tokenizers, and other specs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from pathlib import Path
from typing import Any, NamedTuple

from brewgraph.diagnostics import Collector, SourceFault, listing
from brewgraph.digest import digest
from brewgraph.facts.memory import Memory
from brewgraph.facts.model import Request, UnbuiltModelFacts
from brewgraph.models.structure.anatomy import RESULTS
from brewgraph.models.task_heads import AUTO_CLASSES, Head
from brewgraph.models.tokenization import Tokens, own_tokens
from brewgraph.paths import locate, near_folder
from brewgraph.recipe.label_types import NONE, LabelType
from brewgraph.recipe.needs import Lesson, data_used, features_used, lessons, partners
from brewgraph.recipe.recipe import Recipe
from brewgraph.recipe.settings.sources import DataSource, Hf, ModelSource
from brewgraph.recipe.values import ModelDeclaration


@dataclass(frozen=True)
class Facts:
    """What a check knows of a spec's models, by name; None of one that nothing is known of before it is loaded.

    `classes` are those of each data set, `data` the data sets that each model reads, `lessons` what each head of a
    model is matched with.
    """

    known: Mapping[str, UnbuiltModelFacts | None]
    classes: Mapping[str, tuple[str, ...]]
    data: Mapping[str, tuple[str, ...]]
    lessons: Mapping[tuple[str, str | None], tuple[Lesson, ...]]
    memory: Memory

    def __call__(self, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        return self.known[model.name]

    def learns(self, model: str, head: str | None = None) -> tuple[Lesson, ...]:
        """What a head is matched with; for a model without a match of its own the labels of the data it runs on."""
        found = self.lessons.get((model, head), ())
        if found or head is not None:
            return found
        return tuple(Lesson(NONE, data) for data in self.data.get(model, ())[:1])

    def classes_of(self, model: str, head: str | None = None) -> tuple[str, ...]:
        """The classes that a head learns."""
        return next((c for lesson in self.learns(model, head) if (c := self.classes.get(lesson.data, ()))), ())


class CheckContext(NamedTuple):
    """What each check of a spec looks at, and where it puts what it finds."""

    recipe: Recipe
    facts: FactsBook
    collector: Collector


@dataclass
class FactsBook:
    """The facts of every model of a recipe, each looked up once; faults become diagnostics at the model's source.

    `classes` are those of each data set. `other_spec` answers for `brew(...)`: the facts of that spec's student.
    """

    recipe: Recipe
    folder: Path
    classes: Mapping[str, tuple[str, ...]]
    collector: Collector
    other_spec: Callable[[ModelDeclaration], UnbuiltModelFacts]
    memory: Memory
    known: dict[str, UnbuiltModelFacts | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.features = features_used(self.recipe)
        self.data = data_used(self.recipe)
        self.partners = partners(self.recipe)
        self.facts = Facts(self.known, self.classes, self.data, lessons(self.recipe), self.memory)

    def __call__(self, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        if model.name not in self.known:
            self.known[model.name] = None
            try:
                self.known[model.name] = self._find(model)
            except SourceFault as fault:
                self.report(self._lender(self._first_lender(model) or model) if fault.code == "B314" else model, fault)
        return self.known[model.name]

    def settled(self) -> Facts:
        """What is known at the end of a check."""
        return replace(self.facts, known=dict(self.known))

    def report(self, model: ModelDeclaration, fault: SourceFault) -> None:
        """Say what is at fault with a model, where its source says so; a warning where only the network fails."""
        place = model.place(fault.field)
        if meant := self._meant(model, fault):
            kind = "tokenizer" if fault.code == "B314" else "model"
            help = f"did you mean `{meant}`? the folder holds a {kind}; a name on the hub could not be reached, either"
            self.collector.add("B310", f"there is no folder `{place.text.strip(chr(34))}`", place, help=help)
        elif fault.code == "B311" or (
            fault.code == "B314" and "/" in fault.message and not is_local(model, self.folder, fault.field)
        ):
            taken = listing(sorted(map(str, self.features[model.name]))[:6])
            unknown = f"whether it gives {taken} and of which shapes, " if taken else ""
            help = f"until then nobody checks {unknown}its classes, tokens and positions"
            help = f"{model.remedy(fault.help, fault.field)}; {help}"
            self.collector.add("W301", fault.message, place, help=help)
        else:
            self.collector.add(fault.code, fault.message, place, help=model.remedy(fault.help, fault.field))

    def _meant(self, model: ModelDeclaration, fault: SourceFault) -> str:
        """The folder on disk that a name which leads nowhere nearly is; empty where there is none."""
        source = model.source
        if not source.has_configuration or fault.code not in ("B310", "B311", "B314"):
            return ""
        tokens = source.tokenizer_name is not None and fault.code == "B314"
        name = source.tokenizer_name if tokens else source.checkpoint
        path = locate(name, self.folder) if name else None
        if path is None or path.is_dir():
            return ""
        near = near_folder(path, ("tokenizer.json", "tokenizer_config.json") if tokens else ("config.json",))
        return str(Path(name or "").with_name(near)) if near else ""

    def _find(self, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        return self._of(model.source, model)

    @singledispatchmethod
    def _of(self, source: ModelSource, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        """The facts of a model by its source; None where nothing is known before it is built."""
        if source.averaged is not None:
            return self(self._averaged(model))
        return self.other_spec(model) if source.spec is not None else None

    @_of.register(Hf)
    def _of_configuration(self, source: Hf, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        heads = {
            name: Head.of(settings, self.facts.classes_of(model.name, name), self._label_type(model.name, name))
            for name, settings in model.heads.items()
        }
        types = tuple(lesson.label_type for lesson in self.facts.learns(model.name) if lesson.label_type)
        classes = self.facts.classes_of(model.name)
        taken = self.features[model.name]
        inherited = self._inherited(model, source)
        if source.tokenizer in self.recipe.models:
            source = source.model_copy(update={"tokenizer": None})
        if not types and not heads and model.role == "student":
            source, classes, types = self._as_its_teacher(model, source, classes)
        request = Request(
            source,
            model.role,
            self.folder,
            frozenset(feature for feature in taken if feature.name in RESULTS),  # which head, nothing else tells
            classes,
            inherited,
            types,
            tuple(heads.items()),
        )
        read = [self.recipe.data[name].source for name in self.data[model.name]]
        names = frozenset(feature.name for feature in taken)
        lender = self._lends(model) if inherited is not None and inherited.name is None else None
        texts = digest(*(repr(_placed(x, self.folder)) for x in read)) if lender is None else lender.data
        found = UnbuiltModelFacts(request, self.memory, texts, names)
        _ = found.outline  # here, and not where it is asked for, is said what no such model can be
        if is_local(model, self.folder):
            _ = request.identity  # of the files as they are now
        return self._in_order(model, found) if model.role == "teacher" else found

    def _in_order(self, model: ModelDeclaration, found: UnbuiltModelFacts) -> UnbuiltModelFacts:
        """A teacher with its classes in the order of the data's, where they have the same names."""
        own, classes = found.labels, self.facts.classes_of(model.name)
        if own == classes or sorted(own) != sorted(classes) or len(set(own)) < len(own):
            return found
        message = f"`{model.name}` orders its classes differently from the data; its logits will be reordered"
        help = f"no action needed: {', '.join(own[:6])} becomes {', '.join(classes[:6])}"
        self.collector.add("W304", message, model.span, help=help)
        return replace(found, order=tuple(own.index(label) for label in classes))

    def _as_its_teacher(
        self, model: ModelDeclaration, source: Hf, classes: tuple[str, ...]
    ) -> tuple[Hf, tuple[str, ...], tuple[LabelType, ...]]:
        """The same source with its teacher's kind of head, classes and type of labels: a student that no labels are
        matched with has no other hint.

        What its checkpoint was made for, mostly to guess masked words, says nothing about it.
        """
        if source.task is not None or not any(feature.name == "logits" for feature in self.features[model.name]):
            return source, classes, ()
        others = (self.recipe.models[name] for name in self.partners.get(model.name, ()) if name != model.name)
        for teacher in (other for other in others if other.role == "teacher" and other.source.averaged is None):
            facts = self(teacher)
            task = _TASK_OF_CLASS.get(facts.auto_class) if facts is not None else None
            if facts is not None and task is not None and not facts.heads:
                own = source.model_copy(update={"task": task})
                return own, classes or facts.labels, tuple(filter(None, (facts.outline.label_type,)))
        return source, classes, ()

    def _averaged(self, model: ModelDeclaration) -> ModelDeclaration:
        """The student that an average follows."""
        name = model.source.averaged or ""
        student = self.recipe.models.get(name)
        if student is None or student.role != "student":
            help = f"write `ema({self.recipe.student.name})`"
            raise SourceFault("B331", f"`{name}` is no student to average", field="model", help=help)
        return student

    def _label_type(self, model: str, head: str | None) -> LabelType:
        return next((lesson.label_type for lesson in self.facts.learns(model, head) if lesson.label_type), NONE)

    def _inherited(self, model: ModelDeclaration, source: Hf) -> Tokens | None:
        """The tokenizer of the model that is named, or else, from scratch, of the first teacher with one of its own."""
        if source.tokenizer is not None:
            named = self.recipe.models.get(source.tokenizer)
            return self._tokens_of(named) if named is not None else None
        first = self._first_lender(model)
        return self._tokens_of(first) if first is not None and self(first) is not None else None

    def _lends(self, model: ModelDeclaration) -> UnbuiltModelFacts | None:
        """The facts of the finished teacher whose trained tokenizer a model takes, whatever data it reads itself."""
        lender = self.recipe.models.get(model.source.tokenizer_name or "") or self._first_lender(model)
        return self(lender) if lender is not None and lender.source.spec is not None else None

    def _first_lender(self, model: ModelDeclaration) -> ModelDeclaration | None:
        """The teacher whose tokenizer a student from scratch takes where the spec names none."""
        source = model.source
        from_scratch = source.has_configuration and source.checkpoint is None
        if model.role != "student" or not from_scratch or source.tokenizer_name:
            return None
        lending = (t for t in self.recipe.teachers if self._lender(t).name != model.name)
        return next((t for t in lending if t.source.is_known), None)

    def _lender(self, model: ModelDeclaration) -> ModelDeclaration:
        """Whose tokenizer a model has: its own, or that of another one which is named beside it."""
        lender = self.recipe.models.get(model.source.tokenizer_name or "")
        return self._lender(lender) if lender is not None else model

    def _tokens_of(self, model: ModelDeclaration) -> Tokens | None:
        """A model's tokenizer, of which its facts need not be known: they may wait for those of whoever asks."""
        source = model.source
        if source.averaged is not None:
            return self._tokens_of(self._averaged(model))
        if not source.is_known:
            help = "name another model, a folder, or a name on the hub"
            raise SourceFault("B319", f"`{model.name}` has no tokenizer", field="tokenizer", help=help)
        if isinstance(source, Hf):
            return own_tokens(source, self.folder, self._inherited(model, source))
        facts = self(model)
        return facts.tokens if facts is not None else None


_TASK_OF_CLASS = {auto_class: task for task, auto_class in AUTO_CLASSES.items()}


def is_local(model: ModelDeclaration, folder: Path, field: str | None = "name") -> bool:
    """Whether a model is read from a folder on this machine, or its tokenizer where that is the `field`."""
    source = model.source
    named = (source.checkpoint, source.tokenizer_name if field == "tokenizer" else None)
    return any(locate(name, folder).is_dir() for name in named if name)


_NO_TEXT = frozenset({"batch", "max_length", "stride"})
"""Settings of data that change nothing in its texts."""


def _placed(source: DataSource, folder: Path) -> dict[str, Any]:
    """What texts a data set holds: files by where they lie, however a spec spells their paths."""
    if source.sources != (source,):
        return {"parts": [_placed(part, folder) for part in source.sources]}
    found = {key: value for key, value in source.model_dump().items() if key not in _NO_TEXT}
    for key, value in found.items():
        if key in ("train", "dev", "test", "name", "folder") and isinstance(value, str):
            with suppress(SourceFault):  # what can be no path is said where data are read
                place = locate(value, folder).resolve()
                found[key] = str(place) if place.exists() else value
    return {"source": type(source).__name__, **found}


def _settled(source: ModelSource, identity: Callable[[str], str], names: Collection[str]) -> Any:
    """A model's source in which other models stand by what they are, and keyword arguments in one order."""
    own: dict[str, Any] = {
        key: dict(sorted(value.items()))
        for key in type(source).model_fields
        if isinstance(value := getattr(source, key), dict)
    }
    if source.start is not None:
        own["init"] = source.start.model_copy(update={"model": identity(source.start.model)})
    if source.tokenizer_name is not None and source.tokenizer_name in names:
        own["tokenizer"] = identity(source.tokenizer_name)
    return source.model_copy(update=own)


def identities(recipe: Recipe, other_spec: Callable[[ModelDeclaration], str]) -> Mapping[str, str]:
    """What each model and data set is, whatever it is called: for the graph's hashes."""
    # the batch size is no part of what data is: projections begin alike however a batch is split
    found: dict[str, str] = {
        name: digest("data", type(data.source).__name__, repr(data.source.content))
        for name, data in recipe.data.items()
    }
    visiting: set[str] = set()

    def identity(name: str) -> str:
        if name in found or name in visiting:
            return found.get(name, "circle")
        visiting.add(name)
        model = recipe.models[name]
        if model.source.spec is not None:
            found[name] = digest(model.role, other_spec(model))
        elif model.source.averaged is not None:
            source = model.source.model_dump(exclude={"model"})
            found[name] = digest(model.role, "ema", sorted(source.items()), identity(model.source.averaged))
        else:
            text = repr(_settled(model.source, identity, recipe.models))
            text += repr(sorted(model.heads.items())) if model.heads else ""
            found[name] = digest(model.role, text)
            # a factory that is called twice may give two models
            alike = [x for x in found if x != name and found[x] == found[name] and not model.source.is_known]
            if alike:
                found[name] = digest(model.role, text, len(alike))
        return found[name]

    for name in recipe.models:
        identity(name)
    return found
