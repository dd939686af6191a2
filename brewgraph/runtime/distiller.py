"""`Distiller`: student, projections and the compiled loss as one torch module that fits any training loop, and what is
wrong with a batch of a user's own loop, before torch fails or after.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeGuard, TypeVar

import networkx as nx
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers.initialization import no_init_weights
from transformers.utils import ModelOutput

from brewgraph.data.batching.order import derive_seed
from brewgraph.diagnostics import RunError, UsageError, listing
from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, Reached, info, nodes_of, of_kind
from brewgraph.graph.garbage import no_collections
from brewgraph.graph.optimize import LOSS_ONLY, all_reached, drop_dead_terms, optimize, skip_scheduled_zeros
from brewgraph.graph.scalars import Horizon, objective_weights
from brewgraph.models.capture.compiled import compile_layers
from brewgraph.models.capture.recompute import recompute_layers
from brewgraph.models.ema import EmaTeacher
from brewgraph.models.fake.shapes import Reach, accepted, positions
from brewgraph.models.heads import trunk_of
from brewgraph.models.standby import awake, changes_format, stands_by
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.models.structure.read_class import dissect
from brewgraph.recipe.features import Feature
from brewgraph.runtime.instructions import WHOLE_BATCHES, Batch, base_of
from brewgraph.runtime.program import Program

Name = TypeVar("Name", bound=Hashable)


@dataclass
class DistillerOutput(ModelOutput):
    """The result of a forward: the scalar `loss`, and `terms`, its named equations without their weights."""

    loss: Tensor | None = None
    terms: dict[str, Tensor] | None = None


class Projected(nn.Module):
    """A linear map with bias, then an activation. Weights begin at N(0, 0.02), biases at zero."""

    def __init__(self, projection: n.Projection, seed: int):
        super().__init__()
        if projection.into is None or projection.out is None:
            raise UsageError(f"the sizes of projection `{projection.site}` are not known: write `linear(in -> out)`")
        with no_init_weights():  # torch's initialisation would draw from the global generator
            self.linear = nn.Linear(projection.into, projection.out)
        self.activation = projection.activation
        generator = torch.Generator().manual_seed(derive_seed(seed, projection.seed))
        with torch.no_grad():
            self.linear.weight.normal_(0.0, 0.02, generator=generator)
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return x if not self.activation else getattr(torch, self.activation)(x)


class Distiller(nn.Module):
    """The student, its projections and the losses between them and the teachers.

        out = distiller(batch)
        out.loss.backward()

    `batch` is one dictionary: the inputs of a model, under its name (`batch["bert"]`) where it has its own, else at the
    top, and `labels`; with several data sets, one such dictionary under the name of each. Teachers are beside the
    module: moved with it, always in eval mode, never in its parameters or state dict, and run without gradients. The
    module begins in train mode, with the student, which transformers loads in eval mode, without dropout.

    `graphs` are the losses by task, or the only one; `reports` what each task reports beside. `projections` are modules
    that an earlier stage has trained; by default they are made from `seed`. `averages` are the teachers that follow the
    student, by name. `anatomies` are those of teachers that were loaded without unneeded layers, as they are with them;
    `reach` tells what of the student a feature reaches. `skip` are passes that are left out, by name; `optimized` are
    the graphs after the others, if they are known. Folders of caches are relative to `folder`, that of the spec. With
    `recompute` the student's layers run again in the backward pass, which saves memory. `places` are the devices of
    teachers that stay where they are when the module is moved. With `compiled` the layers of all models are compiled.
    """

    def __init__(
        self,
        graphs: Graph | Mapping[str, Graph],
        models: Mapping[str, nn.Module],
        student: str,
        *,
        seed: int = 0,
        projections: nn.ModuleDict | None = None,
        reports: Mapping[str, Graph] | None = None,
        averages: Mapping[str, EmaTeacher] | None = None,
        anatomies: Mapping[str, Anatomy] | None = None,
        reach: Reach | None = None,
        skip: Collection[str] = (),
        optimized: Mapping[str, Graph] | None = None,
        folder: Path = Path(),
        recompute: bool = False,
        places: Mapping[str, torch.device] | None = None,
        compiled: bool = False,
    ):
        super().__init__()
        self.graphs: dict[str, Graph] = {"": graphs} if isinstance(graphs, nx.DiGraph) else dict(graphs)
        reported = dict(reports or {})
        self.student = models[student]
        nodes = projection_nodes((*self.graphs.values(), *reported.values()))
        self.projections = make_projections(nodes, seed) if projections is None else projections
        self.progress = 0.0
        """The progress of training, k/N, for schedules of weights. A loop of your own sets it before each step."""
        self.horizon = Horizon()
        """The steps of training and of an epoch, for schedules that count steps or epochs."""
        self._named_teachers = {name: model for name, model in models.items() if name != student}
        self._teachers = tuple(self._named_teachers.values())
        places = dict(places or {})
        self._places = {id(models[name]): place for name, place in places.items()}
        self._before = [
            ([(m, m.training) for m in teacher.modules()], [(p, p.requires_grad) for p in teacher.parameters()])
            for teacher in self._teachers
        ]
        for teacher in self._teachers:
            teacher.requires_grad_(False).eval()
        modules = {site: self.projections[parameter_name(site)] for site in nodes}
        self._reach = reach or Reach(self.student)
        optimized = optimized or optimize_all(self.graphs, self._reach, skip)
        self.frozen = any(info(graph).frozen for graph in optimized.values())
        graphs_run = (*optimized.values(), *reported.values())
        self._undo = [self._compile(name, model, graphs_run, anatomies) for name, model in models.items() if compiled]
        shared: dict[str, Any] = {"anatomies": anatomies, "folder": folder, "places": places}
        self.programs = {
            task: Program(graph, models, modules, parameters_of=self.parameters_of, **shared)
            for task, graph in optimized.items()
        }
        self.reports = {
            task: Program(optimize(graph, {*skip, *LOSS_ONLY}), models, modules, **shared)
            for task, graph in reported.items()
        }
        self._checks = {task: BatchCheck(graph, models, places) for task, graph in optimized.items()}
        self._averages = dict(averages or {})
        self._undo += [recompute_layers(self.student)] if recompute else []
        self.train()
        self._built = True

    @property
    def graph(self) -> Graph:
        """The graph of the first task, or the only one."""
        return next(iter(self.graphs.values()))

    @property
    def program(self) -> Program:
        """The program of the first task."""
        return next(iter(self.programs.values()))

    @property
    def teachers(self) -> tuple[nn.Module, ...]:
        """The teachers, with the weights of those that stand by."""
        return tuple(map(awake, self._teachers))

    @property
    def identity(self) -> str:
        """A hash of what is computed: equal for equal losses, however they are written."""
        return digest(*(info(graph).objective for graph in self.graphs.values()))

    accepts_loss_kwargs = False
    """For `transformers.Trainer`: the loss is a mean over the batch, not yet over accumulated ones."""

    def forward(
        self,
        batch: Batch | None = None,
        counts: Tensor | None = None,
        task: str | None = None,
        *,
        gather: bool = False,
        **fields: Any,
    ) -> DistillerOutput:
        """The loss on a batch, or on its `fields` as keywords: `distiller(**batch)`, as `transformers.Trainer` calls
        it, is `distiller(batch)`. `docs/python.md` says what a batch is. `counts`, as `count` gives them, divide its
        sums; by default those of the batch do.

        With `gather` all processes of the default group run this forward on their shares of one batch, whose examples
        losses of unit `batch` compare; ranks average gradients, as `DistributedDataParallel` does. Without, each
        compares those of its own share.

        Raises `RunError` for a batch that is no dictionary of tensors of the right types and shapes, and warns once
        where it has no `attention_mask`.
        """
        if fields and batch is not None:
            raise UsageError(f"a batch and {listing(fields)} beside it: give one dictionary, or only keywords")
        name, batch = self._task(task), fields or batch
        self._checks[name].check(batch)
        assert batch is not None
        try:
            loss, terms = self.programs[name].run(batch, self.progress, counts, self.horizon, gather=gather)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            if (reason := self._checks[name].explain(batch)) is None:
                raise
            raise RunError(reason) from error
        return DistillerOutput(loss=loss, terms=terms)

    def _compile(
        self, name: str, model: nn.Module, graphs: Iterable[Graph], anatomies: Mapping[str, Anatomy] | None
    ) -> Callable[[], None]:
        """Compile the layers of a model that no feature is taken inside of."""
        anatomy = (anatomies or {}).get(name) or dissect(model)
        features = {x.feature for graph in graphs for _, x in of_kind(graph, n.Tap) if x.model == name}
        present = dict(model.named_modules())
        tapped = [anatomy.site(feature).path for feature in features]
        return compile_layers(model, [path for path in anatomy.every_layer if path in present], tapped)

    # ── what a built loss cannot do ──────────────────────────────────────────────────────────────────────────────────

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("student", "projections") and getattr(self, "_built", False) and value is not getattr(self, name):
            raise UsageError(
                f"the loss was built around its `{name}`, and would keep using it: give another student to "
                "`recipe.build(…)`, or load its weights: `distiller.student.load_state_dict(…)`"
            )
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self.__dict__.get("_modules", {}).get("student")
            if name.startswith("_") or not hasattr(student, name):
                raise
            smoothing = "; transformers' `label_smoothing_factor` asks for it: leave that at 0, the spec is the loss"
            raise AttributeError(
                f"a distiller has no `{name}`, its student has: `distiller.student.{name}`"
                f"{smoothing if name == 'config' else ''}"
            ) from None

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError(f"a distiller cannot be copied or pickled: {_ANOTHER}")

    def _replicate_for_data_parallel(self) -> Self:
        raise UsageError("`DataParallel` would run one student for all of its copies: use `DistributedDataParallel`")

    # ── what gradients reach ─────────────────────────────────────────────────────────────────────────────────────────

    def parameters_of(self, goal: Reached) -> dict[str, nn.Parameter]:
        """The parameters that gradients of these features and projections reach; all of the student's, where a run on
        fake tensors does not tell."""
        names = self._reach.parameters(goal.features)
        students = self.student.named_parameters()
        reached = {f"student.{name}": p for name, p in students if names is None or name in names}
        for site in map(parameter_name, goal.sites):
            reached |= {f"projections.{site}.{k}": p for k, p in self.projections[site].named_parameters()}
        return reached

    def unreached(self) -> list[nn.Parameter]:
        """Parameters to freeze while this loss is trained: no term of any task can reach them."""
        if not self.frozen:
            return []
        live: set[int] = set()
        for program in self.programs.values():
            live |= {id(p) for p in self.parameters_of(all_reached(program.graph)).values()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in live]

    def unreached_by(self, task: str) -> list[nn.Parameter] | None:
        """The trained parameters that no step of a task gives a gradient, as heads of other tasks, so that ranks need
        not look for them. None where that depends on a draw or a batch: layers left out at random, experts chosen by a
        router.
        """
        goal = all_reached(self.programs[task].graph)
        if self.draws_reach() or self._reach.parameters(goal.features) is None:
            return None
        live = {id(p) for p in self.parameters_of(goal).values()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in live]

    def draws_reach(self) -> tuple[str, ...]:
        """The settings of the student's configuration by which a draw or a batch decides what a step reaches."""
        configs = (getattr(module, "config", None) for module in self.student.modules())
        active = (k for config in configs if config is not None for k, x in vars(config).items() if x and k[0] != "_")
        return tuple(dict.fromkeys(name for name in active if "layerdrop" in name or "expert" in name))

    def forget_parameters(self) -> None:
        """Look parameters up anew: after the modules got others of the same names."""
        for program in self.programs.values():
            program.forget_parameters()

    def _task(self, task: str | None) -> str:
        if task is None and len(self.programs) == 1:
            return next(iter(self.programs))
        if task not in self.programs:
            if not any(self.programs):
                raise UsageError(f"the spec has no task `{task}`: it has none; leave `task` out: `distiller(batch)`")
            raise UsageError(f"name a task: `distiller(batch, task=…)`; there are {listing(self.programs)}")
        return task

    def count(self, batch: Batch, task: str | None = None, *, gather: bool = False) -> Tensor:
        """Units in the batch (examples, tokens, pairs, labels) that the losses are means over.

        Add them up over the parts of a split batch and give the sum to each part's forward: then the split does not
        change the loss. `gather` is that of the forward.
        """
        self._checks[self._task(task)].check(batch)
        return self.programs[self._task(task)].count(batch, gather=gather)

    def compares_examples(self, task: str | None = None) -> bool:
        """Whether a task's loss or reports compare the examples of a batch with each other."""
        name = self._task(task)
        return any(programs[name].compares_examples for programs in (self.programs, self.reports) if name in programs)

    def report(self, batch: Batch, task: str | None = None, *, gather: bool = False) -> dict[str, Tensor]:
        """The values of `train { report = […] }` on one batch, without gradients; empty without that setting. `gather`
        is that of the forward.
        """
        program = self.reports.get(self._task(task))
        if program is None:
            return {}
        with torch.no_grad():
            return program.run(batch, self.progress, None, self.horizon, gather=gather)[1]

    def terms(self, task: str | None = None) -> tuple[str, ...]:
        """The names of a task's terms."""
        return tuple(info(self.graphs[self._task(task)]).terms)

    def weights(self, task: str | None = None) -> dict[str, float]:
        """The weight of each named term in the loss now."""
        graph = self.graphs[self._task(task)]
        weights = objective_weights(graph, self.progress, self.horizon)
        return {name: weights[key] for name, key in info(graph).terms.items()}

    def fill_caches(self, batch: Batch, task: str | None = None) -> None:
        """Write what a task's loss and reports keep of this batch on disk. Neither student nor losses run."""
        for programs in (self.programs, self.reports):
            if (program := programs.get(self._task(task))) is not None:
                program.fill(batch)

    def cached(self) -> dict[str, tuple[int, int, int]]:
        """For each `cache` how many examples this process computed and wrote, how many it read instead, and how many it
        computed and did not write, since the limit of the folder left no room.
        """
        counts: dict[str, tuple[int, int, int]] = {}
        for value in (value for program in self.programs.values() for value in program.caches):
            written, read, left_out = counts.get(value.kept.name, (0, 0, 0))
            counts[value.kept.name] = written + value.written, read + value.read, left_out + value.left_out
        return counts

    # ── teachers that follow the student ─────────────────────────────────────────────────────────────────────────────

    def after_step(self) -> None:
        """Update the teachers that are averages of the student; a loop of your own calls this after each step."""
        for average in self._averages.values():
            average.update(self.student)

    @property
    def averages(self) -> tuple[nn.Module, ...]:
        """The modules of the teachers that follow the student."""
        return tuple(average.module for average in self._averages.values())

    def shardable_teachers(self) -> tuple[list[nn.Module], tuple[str, ...]]:
        """The frozen teachers that may be sharded over ranks, and the names of those that may not: they have a device
        of their own, are quantized, have a parameter without an axis, or wait for their weights.
        """
        frozen = {name: x for name, x in self._named_teachers.items() if name not in self._averages}
        whole = tuple(name for name, model in frozen.items() if id(model) in self._places or not _is_plain(model))
        return [model for name, model in frozen.items() if name not in whole], whole

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the module: the averages of the student."""
        return {name: average.state() for name, average in self._averages.items()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `extra_state` gave."""
        for name, average in self._averages.items():
            average.load_state(state[name])

    def optimizer_options(self) -> dict[str, dict[str, float]]:
        """The optimizer settings of projections in the spec, by parameter prefix."""
        nodes = projection_nodes(self.graphs.values())
        return {f"projections.{parameter_name(site)}.": dict(p.options) for site, p in nodes.items() if p.options}

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for teacher in self._teachers:
            if id(teacher) not in self._places:
                teacher._apply(fn)
            elif changes_format(fn, teacher):
                teacher._apply(partial(_without_moving, fn))
        return self

    def release(self) -> None:
        """Remove all hooks from the models and restore their modes; teachers are no longer frozen."""
        for program in (*self.programs.values(), *self.reports.values()):
            program.remove()
        while self._undo:
            self._undo.pop()()
        for modules, parameters in self._before:
            for module, training in modules:
                module.training = training
            for parameter, requires_grad in parameters:
                parameter.requires_grad_(requires_grad)


def _is_plain(model: nn.Module) -> bool:
    """Whether all weights of a model are there, as numbers along at least one axis."""
    return not stands_by(model) and all(p.is_floating_point() and p.ndim for p in model.parameters())


def _without_moving(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A tensor in the type that `fn` gives it, on its own device."""
    return x.to(fn(x.new_empty(0, device="cpu")).dtype)


_ANOTHER = "build another from the recipe, and load its weights: `other.load_state_dict(distiller.state_dict())`"


def optimize_all(graphs: Mapping[Name, Graph], student: Reach, skip: Collection[str] = ()) -> dict[Name, Graph]:
    """The graphs after all passes except those that `skip` names.

    No term is left out where a run on fake tensors cannot tell which parameters that would leave without a gradient.
    """
    with no_collections():
        optimized = {task: optimize(graph, skip) for task, graph in graphs.items()}
    partial = [graph for graph in optimized.values() if info(graph).kept is not None or info(graph).guards]
    features = frozenset[Feature]().union(*(all_reached(graph).features for graph in partial))
    if partial and student.parameters(features) is None:
        unsafe = {*skip, drop_dead_terms.__name__, skip_scheduled_zeros.__name__}
        return {task: optimize(graph, unsafe) for task, graph in graphs.items()}
    return optimized


def parameter_name(site: str) -> str:
    """A projection's name among the module's parameters: without dots, and unique to its site."""
    return site.replace(".", ":")


def projection_nodes(graphs: Iterable[Graph]) -> dict[str, n.Projection]:
    """The projections of some graphs by their sites, in their order."""
    return dict(sorted({p.site: p for graph in graphs for _, p in of_kind(graph, n.Projection)}.items()))


def make_projections(nodes: Mapping[str, n.Projection], seed: int) -> nn.ModuleDict:
    """A module for each projection; its weights follow from the seed and from what it maps to what."""
    return nn.ModuleDict({parameter_name(site): Projected(p, seed) for site, p in nodes.items()})


# ── the batches of a user's own loop ──────────────────────────────────────────────────────────────────────────────────


_EXAMPLE = 'distiller({"input_ids": ids, "attention_mask": mask, "labels": labels})'
_IDS = "input_ids"
_MASK = "attention_mask"
_TOKENS = (_IDS, "inputs_embeds", _MASK, "token_type_ids", "position_ids")


class BatchCheck:
    """What the batches of a graph must be, given its models.

    `inputs` are the data sets as models read them, each with whether a loss asks which of its tokens are real;
    `classes` the columns that losses take as class indices, each with the number of classes. Batches are moved to
    models that are `placed` on a device of their own.
    """

    def __init__(self, graph: Graph, models: Mapping[str, nn.Module], placed: Collection[str] = ()):
        self.models, self.nodes, self.placed = models, nodes_of(graph), placed
        nodes = self.nodes.values()
        masked = {used for x in nodes if isinstance(x, n.Mask) and x.which != "labels" for used in x.inputs}
        read = masked | {x.entry for x in nodes if isinstance(x, n.Forward)}
        self.inputs = [(x, key in masked) for key, x in self.nodes.items() if isinstance(x, n.Input) and key in read]
        self.classes: dict[n.Column, int | str | None] = {}
        for loss in (x for x in nodes if isinstance(x, n.Loss) and x.kinds[0] == "labels"):
            shape = self.nodes[loss.target].shape
            for column in map(self.nodes.__getitem__, loss.inputs):
                if isinstance(column, n.Column) and column.column in ("labels", "start", "end"):
                    self.classes[column] = shape[-1] if shape else None
        self._warned = False

    # ── before the forward ───────────────────────────────────────────────────────────────────────────────────────────

    def check(self, batch: object) -> None:
        """Raise `RunError` for a batch that is no dictionary of tensors of the right types and shapes, and warn once of
        a missing mask. No value of a tensor is read.
        """
        if not isinstance(batch, Mapping):
            size = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
            raise RunError(f"a batch is a dictionary of tensors, got a {type(batch).__name__}{size}: {_EXAMPLE}")
        for entry, masked in self.inputs:
            self._check_input(batch, entry, masked)
        for column in self.classes:
            self._check_classes(batch, column)

    def _check_input(self, batch: Batch, entry: n.Input, masked: bool) -> None:
        name, encoding = entry.model, _encoding(batch, entry)
        if not isinstance(encoding, Mapping):
            kind = type(encoding).__name__
            raise RunError(
                f'`batch["{name}"]` is a {kind}; it is a dictionary of the inputs of `{name}`: {{"{_IDS}": …}}'
            )
        if _MASK in encoding and encoding[_MASK] is None:
            raise RunError(f"`{_MASK}` is None: leave it out, or give torch.ones_like(ids) if nothing is padded")
        for key in _TOKENS:
            if encoding.get(key) is not None:
                _check_tensor(key, encoding[key])
        first = next((encoding[key] for key in _TOKENS[:2] if encoding.get(key) is not None), None)
        if first is None:
            # other inputs than tokens are the model's own business
            if any(isinstance(x, Tensor) and x.dim() > masked for x in encoding.values()):
                return
            raise RunError(
                f'the batch has no inputs for `{name}`, neither at its top nor in `batch["{name}"]`: '
                f"it has {listing(batch) or 'nothing'}; {WHOLE_BATCHES}"
            )
        shape = tuple(first.shape)
        if encoding.get(_IDS) is not None:
            if first.is_floating_point() or first.is_complex() or first.dtype == torch.bool:
                raise RunError(f"`{_IDS}` has the type {first.dtype}; token ids are whole numbers: ids.long()")
            if first.dim() != 2:
                raise RunError(f"`{_IDS}` has the shape {shape}, not (batch, length): one text is ids[None], of 1 row")
        rows, length = shape[:2]
        if not rows or not length:
            missing = "tokens" if rows else "rows"
            raise RunError(f"the batch has no {missing}: `{_IDS}` has the shape {shape}; leave such a batch out")
        for key in _TOKENS[2:]:
            value = encoding.get(key)
            if value is None or (key == _MASK and value.dim() > 2 and not masked):
                continue  # a mask of pairs is the model's own business where no loss asks which tokens are real
            fits = value.dim() == 2 and value.shape[1] == length and value.shape[0] in (rows, key == "position_ids")
            if not fits:
                raise RunError(
                    f"`{key}` has the shape {tuple(value.shape)}, and the tokens of `{name}` have ({rows}, {length}): "
                    "both are (batch, length)"
                )
        if encoding.get(_MASK) is None and not self._warned:
            self._warn(name, masked)

    def _check_classes(self, batch: Batch, column: n.Column) -> None:
        name, (labels, tokens) = column.column, self._labels(batch, column)
        if labels is None:
            return  # the program reports it
        _check_tensor(name, labels)
        per_token = "length" in (column.shape or ())
        axes = "(batch, length)" if per_token else "(batch)"
        if labels.dtype != torch.int64:
            hint = "labels.argmax(-1)" if labels.dim() == 2 and not per_token else "labels.long()"
            raise RunError(
                f"`{name}` has the type {labels.dtype}; classes are of the type torch.int64, {axes}: {hint}; "
                'for several classes at once or for numbers the data says `problem_type="multi_label"` or "regression"'
            )
        if tokens is not None:
            wanted = tuple(tokens.shape[:2]) if per_token else (len(tokens),)
            if tuple(labels.shape) != wanted and (per_token or tuple(labels.shape) != (len(tokens), 1)):
                shape = tuple(labels.shape)
                raise RunError(f"`{name}` has the shape {shape}, and this batch needs {wanted}: {axes}")

    def _labels(self, batch: Batch, column: n.Column) -> tuple[Any, Tensor | None]:
        """Labels as the program finds them, and the tokens of the model that they belong to, or of any."""
        base = base_of(batch, column.data)
        entries = [self.nodes[key] for key in column.inputs] or [x for x, _ in self.inputs if x.data == column.data]
        encodings = [_encoding(batch, entry) for entry in entries if isinstance(entry, n.Input)]
        first = next((x for x in encodings if isinstance(x, Mapping)), base)
        labels = first.get(column.column) if column.inputs else None
        tokens = next((x for name in _TOKENS[:2] if isinstance(x := first.get(name), Tensor)), None)
        return (base.get(column.column) if labels is None else labels), tokens

    def _warn(self, name: str, masked: bool) -> None:
        if masked or (name in self.models and _MASK in accepted(self.models[name])[0]):
            self._warned = True
            message = f"the batch has no `{_MASK}` for `{name}`: every token counts, padding too; give one, "
            warnings.warn(message + "torch.ones_like(ids) where nothing is padded", UserWarning, stacklevel=7)

    # ── after an error ───────────────────────────────────────────────────────────────────────────────────────────────

    def explain(self, batch: Batch) -> str | None:
        """Why a forward on this batch has failed, where its values tell."""
        return next(self._reasons(batch), None)

    def _reasons(self, batch: Batch) -> Iterator[str]:
        for entry, _ in self.inputs:
            name, model, encoding = entry.model, self.models.get(entry.model), _encoding(batch, entry)
            if model is None:
                continue
            ids = encoding.get(_IDS)
            device = next((p.device for p in model.parameters() if not p.is_meta), None)  # of one that stands by none
            for key in (*_TOKENS, "labels"):
                value = encoding.get(key)
                moved = name in self.placed or device is None
                if isinstance(value, Tensor) and not moved and value.device != device:
                    yield f'`{key}` is on {value.device} and `{name}` on {device}: batch["{key}"].to("{device}")'
            if not _readable(ids):
                continue
            table = getattr(trunk_of(model), "get_input_embeddings", lambda: None)()
            size, least, most = getattr(table, "num_embeddings", None), int(ids.min()), int(ids.max())
            if size is not None and not 0 <= least <= most < size:
                wrong = least if least < 0 else most
                yield f"`{_IDS}` holds {wrong}, and `{name}` has {size} tokens, from 0 to {size - 1}"
            limit = positions(model)
            if limit is not None and ids.shape[1] > limit:
                yield f"the batch has {ids.shape[1]} tokens a row, and `{name}` has {limit} positions: cut it"
        for column, count in self.classes.items():
            labels, _ = self._labels(batch, column)
            if not isinstance(count, int) or not _readable(labels):
                continue
            outside = labels[((labels < 0) & (labels != -100)) | (labels >= count)]
            if outside.numel():
                classes = f"there are {count} classes, from 0 to {count - 1} (-100 for none)"
                yield f"`{column.column}` holds {int(outside[0])}, and {classes}"


def _check_tensor(key: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise RunError(f"`{key}` is a {type(value).__name__}, not a tensor: torch.as_tensor(batch[{key!r}])")


def _encoding(batch: Batch, entry: n.Input) -> Any:
    """What a model reads of a batch; also a tuple or list under its name, which is a fault."""
    base = base_of(batch, entry.data)
    encoding = base.get(entry.model)
    return encoding if isinstance(encoding, Mapping | tuple | list) else base


def _readable(x: object) -> TypeGuard[Tensor]:
    """Whether the values of a tensor can be read after an error, which may leave a GPU out of order."""
    return isinstance(x, Tensor) and x.device.type == "cpu" and not isinstance(x, FakeTensor) and bool(x.numel())
