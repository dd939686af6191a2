"""The anatomy of a model: its layers, its attention modules, and the place of each feature in a forward.

An anatomy is read off a model once (`read_class`); from then on it is a value that needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import chain
from typing import Literal, cast

from brewgraph.diagnostics import SourceFault, listing, suggest
from brewgraph.recipe.features import ROWS, Feature

RESULTS = {"logits": "logits", "start": "start_logits", "end": "end_logits"}
"""Features that are fields of the model's output."""

BACKEND_ROWS = ("attention", "scores", "query", "key", "value")
NO_BACKEND = "its attention does not go through transformers' attention interface"


@dataclass(frozen=True)
class Site:
    """The place of one feature in a forward.

    `kind` is `result`, the field `field` of the model's output; `field`, that of the output of the module at `path`;
    `input` or `output` of that module (`item` picks from a tuple); `recorded`, its output with `item` applied only to a
    tuple, as transformers' own recorders do; `attention`, the value `field` (query, key, value, scores, attention) of
    the attention function that the module calls. `call` counts the module's calls in one forward from 0. The `path` of
    a result is its head (empty without heads). `axes` permutes the axes of an output; `asks` is the argument of the
    base model that the feature needs.
    """

    kind: Literal["result", "field", "input", "output", "recorded", "attention"]
    path: str = ""
    field: str = ""
    item: int | None = None
    call: int = 0
    axes: tuple[int, ...] = ()
    asks: str = ""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of one model.

    `base` is the path of the base model (empty for a base model), `hidden` and `attention` the sites of the rows,
    `layer_paths` the layer modules in the order of the forward, each once (empty if the class records none), `backend`
    whether attention runs through transformers' attention interface, `lacking` the reason for each missing feature,
    `modules` the path of every module in the model's order with whether it can be called, `heads` the names of several
    heads on one trunk, `stacks` the layer paths of each stack (`encoder.block.*`) of a model with several, which has no
    rows.
    """

    name: str
    base: str = ""
    hidden: tuple[Site, ...] = ()
    attention: tuple[Site, ...] = ()
    layer_paths: tuple[str, ...] = ()
    backend: bool = False
    lacking: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, bool] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()

    @property
    def attention_paths(self) -> tuple[str, ...]:
        """The self-attention modules in the order of the forward, each once; empty where the class records none."""
        return tuple(dict.fromkeys(site.path for site in self.attention if site.kind != "field"))

    @property
    def every_layer(self) -> tuple[str, ...]:
        """The paths of the layers; of an encoder-decoder those of both stacks."""
        return self.layer_paths or tuple(chain.from_iterable(map(self.paths, self.stacks)))

    @property
    def padded_because(self) -> str:
        """Why the layers cannot run on packed tokens; empty where their class allows it."""
        if self.stacks:
            return f"it has {len(self.stacks)} stacks of layers"
        if not self.layer_paths:
            return "its class does not record its layers"
        return "" if self.backend else NO_BACKEND

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of the rows and single features below the head that this model has."""
        return tuple(name for name in (*ROWS, "embeddings", "pooled") if name not in self.lacking)

    def row_length(self, name: str) -> int:
        """How many members a row has (`hidden`: layers + 1). SourceFault B304 for a missing row."""
        return len(self._row(name))

    def site(self, feature: Feature) -> Site:
        """The place of a feature. SourceFault B301 to B304 for a feature that the model lacks."""
        if feature.head is not None and feature.head not in self.heads:
            raise self._no_head(f"{self.name} has no head `{feature.head}`")
        if feature.name == "tap":
            path = self.resolve(cast(str, feature.path), feature.head)
            return Site("input" if feature.input else "output", path, item=feature.item, call=feature.call)
        if feature.name in RESULTS:
            if self.heads and feature.head is None:
                raise self._no_head(f"`{feature.name}` is given by a head, and {self.name} has {len(self.heads)}")
            return Site("result", feature.head or "", field=RESULTS[feature.name])
        if feature.name == "pooled":
            self._require("pooled")
            return Site("field", self.base, "pooler_output")
        if feature.name == "embeddings":
            self._require("embeddings")
            return self.hidden[0]
        row, index = self._row(feature.name), cast(int, feature.index)
        if not -len(row) <= index < len(row):
            message = f"`{feature}` is out of range: {self.name} has {len(row)} of them"
            help = f"`{feature.name}` counts from 0 to {len(row) - 1}, or from -{len(row)} to -1"
            raise SourceFault("B303", message, help=help)
        site = row[index]
        return replace(site, field=feature.name) if site.kind == "attention" else site

    def resolve(self, path: str, head: str | None = None) -> str:
        """The full path of a module from its path in full, below the base model, or below a head.

        SourceFault B301 for a missing module, B302 for a container that never runs.
        """
        for full in (f"{head}.{path}",) if head else (path, f"{self.base}.{path}"):
            if full in self.modules:
                if self.modules[full]:
                    return full
                raise self._container(full)
        raise self._missing(f"{head}.{path}" if head else path)

    def paths(self, pattern: str) -> tuple[str, ...]:
        """The modules that match a pattern, in the model's order, without containers; `*` matches within one segment.

        Raises like `resolve` if nothing matches.
        """
        if not any(sign in pattern for sign in "*?["):
            return (self.resolve(pattern),)
        for full in (pattern, f"{self.base}.{pattern}"):
            segments = full.split(".")
            same_depth = [path for path in self.modules if path.count(".") == full.count(".")]
            matches = [path for path in same_depth if all(map(fnmatchcase, path.split("."), segments))]
            if runnable := tuple(path for path in matches if self.modules[path]):
                return runnable
            if matches:
                raise self._container(matches[0])
        raise self._missing(pattern)

    def _row(self, name: str) -> tuple[Site, ...]:
        self._require(name)
        return self.hidden if name == "hidden" else self.attention

    def _require(self, name: str) -> None:
        if name in self.lacking:
            others = f"it offers {listing(self.offered)}; " if self.offered else ""
            help = f'{others}any module can be tapped by its path: `tap t = model @ "path"`'
            raise SourceFault("B304", f"{self.name} has no `{name}`: {self.lacking[name]}", help=help)

    def _no_head(self, message: str) -> SourceFault:
        if not self.heads:
            return SourceFault("B304", message, help="remove the head: the model has a single head, or none")
        return SourceFault("B304", message, help=f"name one: it has the heads {listing(self.heads)}")

    def _children(self, prefix: str) -> list[str]:
        depth = prefix.count(".") + 1 if prefix else 0
        below = [path for path in self.modules if not prefix or path.startswith(prefix + ".")]
        return [path.split(".")[depth] for path in below if path.count(".") == depth]

    def _container(self, path: str) -> SourceFault:
        member = next(iter(self._children(path)), "0")
        message = f"`{path}` is a container that is never called, so it has no output"
        help = f'tap one of its members: "{path}.{member}", or all of them: "{path}.*"'
        return SourceFault("B302", message, help=help)

    def _missing(self, path: str) -> SourceFault:
        short = [full.removeprefix(self.base + ".") for full in self.modules] if self.base else []
        base = self.base if not path.startswith(self.base + ".") else ""
        longest = base
        for segment in path.split("."):
            further = f"{longest}.{segment}" if longest else segment
            if further not in self.modules:
                break
            longest = further
        children = self._children(longest)
        if children and all(child.isdigit() for child in children):
            inside = f"`{children[0]}` to `{children[-1]}`"
        else:
            inside = listing(children) or "no modules"
        inside = f"{f'`{longest}`' if longest else 'the model'} holds {inside}"
        near = suggest(path, [*short, *self.modules])
        return SourceFault("B301", f"{self.name} has no module `{path}`", help=f"{near} {inside}" if near else inside)
