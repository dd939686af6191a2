"""`Distiller`: student, projections and the compiled loss as one torch module that fits any training loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import networkx as nx
import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights
from transformers.utils import ModelOutput

from brewgraph.data.batching.order import derive_seed
from brewgraph.diagnostics import RunError, UsageError, listing
from brewgraph.digest import digest
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, Reached, info, of_kind
from brewgraph.graph.optimize import LOSS_ONLY, all_reached, drop_dead_terms, optimize, skip_scheduled_zeros
from brewgraph.graph.scalars import Horizon, objective_weights
from brewgraph.models.ema import EmaTeacher
from brewgraph.models.fake.shapes import Reach
from brewgraph.models.structure.anatomy import Anatomy
from brewgraph.recipe.features import Feature
from brewgraph.runtime.own_batches import BatchCheck
from brewgraph.runtime.program import Batch, Program

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
    the graphs after the others, if they are known. Folders of caches are relative to `folder`, that of the spec.
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
        self._teachers = tuple(model for name, model in models.items() if name != student)
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
        self.programs = {
            task: Program(graph, models, modules, parameters_of=self.parameters_of, anatomies=anatomies, folder=folder)
            for task, graph in optimized.items()
        }
        self.reports = {
            task: Program(optimize(graph, {*skip, *LOSS_ONLY}), models, modules, anatomies=anatomies, folder=folder)
            for task, graph in reported.items()
        }
        self._checks = {task: BatchCheck(graph, models) for task, graph in optimized.items()}
        self._averages = dict(averages or {})
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
        return self._teachers

    @property
    def identity(self) -> str:
        """A hash of what is computed: equal for equal losses, however they are written."""
        return digest(*(info(graph).objective for graph in self.graphs.values()))

    def forward(self, batch: Batch, counts: Tensor | None = None, task: str | None = None) -> DistillerOutput:
        """The loss on a batch. `counts`, as `count` gives them, divide its sums; by default those of the batch do.

        Raises `RunError` for a batch that is no dictionary of tensors of the right types and shapes, and warns once
        where it has no `attention_mask`.
        """
        name = self._task(task)
        self._checks[name].check(batch)
        try:
            loss, terms = self.programs[name].run(batch, self.progress, counts, self.horizon)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            if (reason := self._checks[name].explain(batch)) is None:
                raise
            raise RunError(reason) from error
        return DistillerOutput(loss=loss, terms=terms)

    # ── what a built loss cannot do ──────────────────────────────────────────────────────────────────────────────────

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("student", "projections") and getattr(self, "_built", False) and value is not getattr(self, name):
            raise UsageError(
                f"the loss was built around its `{name}`, and would keep using it: give another student to "
                "`recipe.build(…)`, or load its weights: `distiller.student.load_state_dict(…)`"
            )
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: Any) -> Self:
        raise UsageError(f"a distiller cannot be copied: {_ANOTHER}")

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

    def _task(self, task: str | None) -> str:
        if task is None and len(self.programs) == 1:
            return next(iter(self.programs))
        if task not in self.programs:
            if not any(self.programs):
                raise UsageError(f"the spec has no task `{task}`: it has none; leave `task` out: `distiller(batch)`")
            raise UsageError(f"name a task: `distiller(batch, task=…)`; there are {listing(self.programs)}")
        return task

    def count(self, batch: Batch, task: str | None = None) -> Tensor:
        """Units in the batch (examples, tokens, pairs, labels) that the losses are means over.

        Add them up over the parts of a split batch and give the sum to each part's forward: then the split does not
        change the loss.
        """
        self._checks[self._task(task)].check(batch)
        return self.programs[self._task(task)].count(batch)

    def report(self, batch: Batch, task: str | None = None) -> dict[str, Tensor]:
        """The values of `train { report = […] }` on one batch, without gradients; empty without that setting."""
        program = self.reports.get(self._task(task))
        if program is None:
            return {}
        with torch.no_grad():
            return program.run(batch, self.progress, None, self.horizon)[1]

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
            teacher._apply(fn)
        return self

    def release(self) -> None:
        """Remove all hooks from the models and restore their modes; teachers are no longer frozen."""
        for program in (*self.programs.values(), *self.reports.values()):
            program.remove()
        for modules, parameters in self._before:
            for module, training in modules:
                module.training = training
            for parameter, requires_grad in parameters:
                parameter.requires_grad_(requires_grad)


_ANOTHER = "build another from the recipe, and load its weights: `other.load_state_dict(distiller.state_dict())`"


def optimize_all(graphs: Mapping[Name, Graph], student: Reach, skip: Collection[str] = ()) -> dict[Name, Graph]:
    """The graphs after all passes except those that `skip` names.

    No term is left out where a run on fake tensors cannot tell which parameters that would leave without a gradient.
    """
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
