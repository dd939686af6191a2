"""Captures features of a forward by hooks; no code of the model is changed or copied."""

from __future__ import annotations

import inspect
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from brewgraph.diagnostics import RunError, SourceFault, listing
from brewgraph.models.capture import attention
from brewgraph.models.heads import trunk_of
from brewgraph.models.structure.anatomy import Anatomy, ModuleValue, Site, tensor_place
from brewgraph.models.structure.read_class import FLAGS, dissect
from brewgraph.recipe.features import Feature

Place = tuple[str, str, int]
"""`input`, `output` or the name of an attention value; the module's path; the number of the call."""


class Finished(BaseException):
    """Ends a forward that has given all requested features. Not an Exception, so that models do not catch it."""


class Capture:
    """Catches `features` of `model` while armed.

        capture = Capture(bert, [Feature("hidden", 3), Feature("logits")])
        with capture.armed():
            output = bert(**inputs)
        values = capture.collect(output)       # {Feature: Tensor}, gradients intact
        capture.remove()

    Outside `armed()` the hooks do nothing. If the model is called several times inside the block, the last forward
    counts. Only for attention-like features the model's attention implementation is switched, until `remove()`: in the
    layers of these features, or with `all_eager` in every one. Raises SourceFault B301 to B304 for missing features.

    `anatomy` is that of the whole model, if this one has lost the layers behind the last feature.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Collection[Feature],
        anatomy: Anatomy | None = None,
        *,
        all_eager: bool = False,
    ):
        self.anatomy = anatomy or dissect(model)
        self._all_eager = all_eager
        self.features = tuple(dict.fromkeys(features))
        self._sites = {feature: self.anatomy.site(feature) for feature in self.features}
        self._seen: dict[Place, object] = {}
        self._calls: Counter[tuple[str, str]] = Counter()
        self._armed = False
        self._until: frozenset[Place] = frozenset()
        self._missing: set[Place] = set()
        self._wanted: frozenset[Place] = frozenset()
        self._undo: list[Callable[[], None]] = []
        try:
            self._install(model)
        except BaseException:
            self.remove()
            raise

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that must run for these features, in the model's order; empty where the model has none."""
        paths = [site.path for site in self._sites.values()]
        return tuple(h for h in self.anatomy.heads if any(p == h or p.startswith(f"{h}.") for p in paths))

    def can_stop(self, features: Collection[Feature]) -> bool:
        """Whether all these features are available before the model returns."""
        return bool(features) and all(self._sites[feature].kind != "result" for feature in features)

    @contextmanager
    def armed(self, until: Collection[Feature] = ()) -> Iterator[None]:
        """Capture the features of forwards inside the block; a block that raises leaves nothing behind.

        The forward ends once it has given the features `until`, none of which is its result, and so does the block.
        """
        if self._armed:
            raise RunError("this capture is already armed: collect the features of one forward before the next")
        self._clear()
        self._until = frozenset(_place(self._sites[feature]) for feature in until)
        self._armed = True
        try:
            yield
        except Finished:
            pass
        except BaseException:
            self._clear()
            raise
        finally:
            self._armed = False
            self._until = frozenset()

    def collect(self, output: Any, features: Collection[Feature] | None = None) -> dict[Feature, Tensor]:
        """The features, or those named, of the forward that returned `output`; the capture releases all of them.

        Raises RunError if a module did not run or gave no single tensor, SourceFault B304 if the model's output lacks
        the field.
        """
        try:
            wanted = (feature for feature in self.features if features is None or feature in features)
            return {feature: self.value(feature, output) for feature in wanted}
        finally:
            self._clear()

    def value(self, feature: Feature, output: Any) -> Tensor:
        """One feature of the forward that returned `output`, as `collect` gives it, without releasing it."""
        site = self._sites[feature]
        if site.kind == "result":
            if site.path and site.path not in output.heads:
                raise RunError(f"`{feature}`: the head `{site.path}` did not run in the forward")
            result = output.heads[site.path] if site.path else output
            tensor = getattr(result, site.field, None)
            if not isinstance(tensor, Tensor):
                fields = listing(result) if isinstance(result, Mapping) else f"a {type(result).__name__}"
                giver = f"the head `{site.path}`" if site.path else self.anatomy.name
                message = f"{giver} gives no `{feature.name}`: its output holds {fields}"
                raise SourceFault("B304", message, help="another head gives it: set `task=` on the model")
            return tensor
        key = _place(site)
        if key not in self._seen:
            calls = self._calls[key[0] if site.kind == "attention" else "module", site.path]
            what = "attention function of the module" if site.kind == "attention" else "module"
            times = f"called {calls} times in the forward, so it has no call {site.call}"
            times = times if calls else "not called in the forward"
            raise RunError(f"`{feature}`: the {what} `{site.path}` was {times}")
        tensor = _pick(self._seen[key], site, feature)
        return tensor.permute(site.axes).contiguous() if site.axes else tensor

    def remove(self) -> None:
        """Remove the hooks and restore the model's former attention implementation. Harmless when repeated."""
        while self._undo:
            self._undo.pop()()
        self._clear()

    def _clear(self) -> None:
        self._seen.clear()
        self._calls.clear()

    def _install(self, model: nn.Module) -> None:
        def start(args: tuple, kwargs: dict) -> None:
            self._clear()
            self._missing = set(self._until)

        self._before(model, start)
        sites = {site for site in self._sites.values() if site.kind != "result"}
        self._wanted = frozenset(map(_place, sites))
        watched: dict[str, set[str]] = {}
        for site in sites:
            if site.kind == "attention":
                watched.setdefault(site.path, set()).add(site.field)
        hooked = {site.path for site in sites if site.kind != "attention"}
        if watched and self._all_eager:
            present = dict(model.named_modules())
            for path in self.anatomy.attention_paths:
                if path in present:
                    watched.setdefault(path, set()).add("attention")
        if watched or any(site in self.anatomy.attention for site in sites):
            trunk = cast(PreTrainedModel, trunk_of(model))
            self._undo.append(attention.borrow(trunk, attention.NAME if watched else "eager"))
        for path in sorted(watched):
            self._undo.append(attention.watch(model.get_submodule(path), watched[path], self._recording(path)))
        for path in sorted(hooked):
            self._hook(model.get_submodule(path), path)
        if flags := {site.asks or FLAGS.get(site.field, "") for site in sites} - {""}:
            base = model.get_submodule(self.anatomy.base)
            self._before(base, lambda args, kwargs: (args, kwargs | dict.fromkeys(flags, True)))
        if not self.anatomy.backend and any(feature.name == "attention" for feature in self.features):
            self._before(model, lambda args, kwargs: self._refuse_dropped(model))

    # Hooks are closures, not bound methods: a deep copy of the model then shares them instead of copying this capture,
    # and `called is module` keeps them silent in the copy.

    def _before(self, module: nn.Module, act: Callable[[tuple, dict], tuple[tuple, dict] | None]) -> None:
        """Act on the arguments of each call of a module while armed."""

        def hook(called: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            return act(args, kwargs) if self._armed and called is module else None

        self._undo.append(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def _hook(self, module: nn.Module, path: str) -> None:
        """Take the wanted inputs and outputs of a module while armed."""
        first = first_argument(module)

        def enter(args: tuple, kwargs: dict) -> None:
            self._take(("input", path, self._calls["module", path]), args[0] if args else kwargs.get(first))

        def leave(called: nn.Module, args: tuple, output: object) -> None:
            if self._armed and called is module:
                self._take(("output", path, self._count("module", path)), output)

        self._undo.append(module.register_forward_hook(leave).remove)
        if any(side == "input" and at == path for side, at, _ in self._wanted):
            self._before(module, enter)

    def _recording(self, path: str) -> attention.Record:
        capture = weakref.ref(self)  # watched modules are kept in a global table, which must not keep this alive

        def record(values: dict[str, Tensor]) -> None:
            live = capture()
            if live is not None and live._armed:
                for name, value in values.items():
                    live._take((name, path, live._count(name, path)), value)

        return record

    def _count(self, kind: str, path: str) -> int:
        """Count a call; returns its number from 0."""
        self._calls[kind, path] += 1
        return self._calls[kind, path] - 1

    def _take(self, place: Place, value: object) -> None:
        """Keep a value if it is wanted; the forward ends with the last one of `until`."""
        if place in self._wanted:
            self._seen[place] = value
        if place in self._missing:
            self._missing.remove(place)
            if not self._missing:
                raise Finished

    def _refuse_dropped(self, model: nn.Module) -> None:
        """Refuse to train on attention from the model's own output, which comes after dropout."""
        if model.training and _drops(getattr(model, "config", None)):
            raise RunError(
                f"{self.anatomy.name} returns its attention only after dropout: "
                "set its attention dropout to 0 to train on it"
            )


def _place(site: Site) -> Place:
    """The key of a site's value; fields and recorded outputs are read from a module's output."""
    return {"input": "input", "attention": site.field}.get(site.kind, "output"), site.path, site.call


def _drops(config: object) -> bool:
    """Whether a configuration sets a dropout that may reach attention probabilities (T5 has one rate for all)."""
    rates = {name: rate for name, rate in vars(config).items() if "drop" in name and isinstance(rate, float)}
    of_attention = [rate for name, rate in rates.items() if "att" in name]
    return any(rate > 0 for rate in of_attention or rates.values())


def _pick(value: object, site: Site, feature: Feature) -> Tensor:
    """The one tensor of a site: a field, an element, or the value itself."""
    what = f"the {'input' if site.kind == 'input' else 'output'} of `{site.path}`" if site.path else "the output"
    item = site.item
    if site.kind == "field":
        if not hasattr(value, site.field):
            raise RunError(f"`{feature}`: {what} has no `{site.field}`; call the model with return_dict=True")
        value, what = getattr(value, site.field), f"`{site.field}` of {what}"
    if isinstance(value, Tensor) and (item is None or site.kind in ("recorded", "attention")):
        return value
    try:
        place = tensor_place(describe(value), item, what)
    except SourceFault as fault:
        raise RunError(f"`{feature}`: {fault.message}; {fault.help}") from fault
    assert place is not None
    return cast(Tensor, list(value.values() if isinstance(value, Mapping) else cast(tuple, value))[place])


def first_argument(module: nn.Module) -> str:
    """The name of the first argument of a module's forward, which taps call its input."""
    return next(iter(inspect.signature(module.forward).parameters), "")


def describe(value: object) -> ModuleValue:
    """What a module took or gave, with the sizes of its tensors."""
    if isinstance(value, Tensor):
        return ModuleValue("tensor", tuple(value.shape))
    if isinstance(value, Mapping):
        return ModuleValue(
            type(value).__name__, None, tuple(describe(element) for element in value.values()), tuple(map(str, value))
        )
    if isinstance(value, tuple | list):
        return ModuleValue("tuple", None, tuple(describe(element) for element in value))
    return ModuleValue("None" if value is None else type(value).__name__)
