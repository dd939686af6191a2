"""The plan of a checked spec: what follows from its recipe and graphs, and what only models and data can tell."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain

import networkx as nx
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from brewgraph.checking.check import Checked
from brewgraph.data.report import DataReport, data_report
from brewgraph.data.sources.tensor_batches import largest_batch
from brewgraph.display.cost import Cost, DeviceMemory, megabytes
from brewgraph.display.equation import in_spec_order, spell, spell_out
from brewgraph.display.lines import one_line
from brewgraph.display.plan import DataPlan, ForwardPlan, HeadPlan, ModelPlan, PartPlan, Plan, ProjectionPlan, StagePlan
from brewgraph.display.savings import UNPACKED, PassSavings, savings
from brewgraph.facts.models import UnbuiltModelFacts
from brewgraph.graph import nodes as n
from brewgraph.graph.container import Graph, Kept, execution_order, info, node, of_kind
from brewgraph.graph.cut import bytes_kept
from brewgraph.graph.optimize import check_names, drop_dead_terms, pack_tokens
from brewgraph.models.fake.shapes import Reach, empty_model
from brewgraph.models.loading import DTYPES, planned_copy
from brewgraph.models.quantizing import quantized_bytes
from brewgraph.recipe.length import Length
from brewgraph.recipe.recipe import Stage
from brewgraph.recipe.settings.base import setting_text
from brewgraph.recipe.settings.data_sources import LONGEST, Batches, DataSource
from brewgraph.recipe.settings.train import Train
from brewgraph.recipe.values import DataDeclaration, ModelDeclaration
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder, data_of, models_of
from brewgraph.runtime.count_cost import count_step, example_batch
from brewgraph.training.work import parameters_at


def plan_of(checked: Checked, *, cost: bool = True, skip: tuple[str, ...] = (), ranks: int = 1) -> Plan:
    """The plan; costs take a second or two for a large model. `skip` names passes to leave out; memory is that of one
    of so many `ranks` that shard (FSDP2). Raises `UsageError`.
    """
    check_names(skip)
    recipe, graphs = checked.recipe, checked.graphs
    forwards = {name: plan_forwards(graph, skip) for name, graph in graphs.items()}
    counted = costs(checked, skip) if cost else {}
    saved = savings_of(checked, skip)
    parts = []
    for name, graph in graphs.items():
        worth_saying = tuple((x.name, str(x)) for x in saved[name] if x.changes or x.skipped or x.notes)
        kept = info(graph).caches.items()
        caches = tuple(sorted((x.name, spell(graph, key), _kept(x, checked, graph, key)) for key, x in kept))
        parts.append(PartPlan(*name, spell_out(graph), forwards[name], counted.get(name), worth_saying, caches))
    data = {d.name: _data(checked, d) for d in recipe.data.values()}
    idle = _idle(checked, forwards) if graphs else {}
    return Plan(
        spec=recipe.source.name,
        params=tuple(recipe.params.items()),
        models=tuple(_model(checked, model, idle.get(model.name, "")) for model in recipe.models.values()),
        data=tuple(data.values()),
        parts=tuple(parts) if graphs else None,
        projections=_projections(graphs.values()) if graphs else None,
        stages=tuple(
            _stage(checked, stage, data, counted, [m for m in recipe.models if m not in idle], ranks)
            for stage in recipe.stages
        ),
    )


def _data(checked: Checked, data: DataDeclaration) -> DataPlan:
    facts, source = checked.facts.data_facts[data.name], data.source
    rows = facts.rows.get("train") if facts is not None else None
    classes = checked.classes[data.name]
    return DataPlan(data.name, one_line(data.span.text), source.batch, source.max_length, classes, rows)


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _model(checked: Checked, model: ModelDeclaration, idle: str) -> ModelPlan:
    facts, source = checked.facts(model), one_line(model.span.text)
    if facts is None:
        return ModelPlan(model.name, model.role, source, start=model.source.weights, used=not idle, idle=idle)
    description = facts.description
    config = description.config
    return ModelPlan(
        name=model.name,
        role=model.role,
        source=source,
        model_class=description.auto_class,
        architecture=str(config.model_type),
        layers=getattr(config, "num_hidden_layers", None),
        width=getattr(config, "hidden_size", None),
        classes=len(facts.labels) or None,
        parameters=facts.parameters,
        trainable=facts.trainable,
        estimated=description.tokens.name is None,
        tokens=_tokens(checked, model, facts),
        start=_copied(checked, facts) or model.source.weights,
        used=not idle,
        idle=idle,
        heads=tuple(HeadPlan(name, h.auto_class, len(h.labels) or None) for name, h in description.heads.items()),
    )


def _copied(checked: Checked, facts: UnbuiltModelFacts) -> str:
    """Of a model that starts from layers of another: what is copied and what is not; empty for any other."""
    init = facts.description.init
    donor = checked.facts(checked.recipe.models[init.model]) if init is not None else None
    if init is None or donor is None:
        return ""
    return f"a part of {init.model}: {planned_copy(facts.description, donor.description)}"


def _idle(checked: Checked, forwards: Mapping[tuple[str, str], tuple[ForwardPlan, ...]]) -> dict[str, str]:
    """Why models never run, by the names of those that do not."""
    models = checked.recipe.models
    planned = list(chain.from_iterable(forwards.values()))
    used = {forward.model for forward in planned if forward.features}
    used |= {x.model for graph in checked.reports.values() for _, x in of_kind(graph, n.Forward)}
    used |= {m.source.averaged for m in models.values() if m.source.averaged and m.name in used}
    dropped = {forward.model for forward in planned} - used
    why = ("the loss takes nothing from it", "whatever the loss takes from it has a weight of zero")
    started = {m.source.start.model: m.name for m in models.values() if m.source.start}
    return {
        name: f"{why[name in dropped]}, so it "
        + (f"is loaded only to begin {started[name]}" if name in started else "is never loaded")
        for name in models
        if name not in used
    }


def _tokens(checked: Checked, model: ModelDeclaration, facts: UnbuiltModelFacts) -> str:
    """Where a model's tokenizer comes from."""
    tokens = facts.description.tokens
    pretrained = tokens.name is not None and tokens.name == facts.description.checkpoint
    if not pretrained and model.role == "student":
        for other in checked.recipe.models.values():
            theirs = checked.facts(other) if other is not model else None
            if theirs is not None and theirs.description.tokens == tokens:
                return f"that of {other.name}"
    if tokens.name is None:
        return f"WordPiece, trained on the data, at most {tokens.vocab_size:,} pieces"
    return "its own" if pretrained else f"that of {tokens.name}"


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_forwards(graph: Graph, skip: Collection[str] = ()) -> tuple[ForwardPlan, ...]:
    """The forwards of a canonical graph, those of teachers first. `skip` are passes that are left out, by name."""
    live = graph if drop_dead_terms.__name__ in skip else drop_dead_terms(graph)
    plans = []
    for key, forward in of_kind(graph, n.Forward, execution_order(graph)):
        taps = [(used in live, tap.feature) for used, tap in of_kind(graph, n.Tap, graph.successors(key))]
        taps.sort(key=lambda x: (x[1].name, x[1].path or "", x[1].index or 0, str(x[1])))
        entry = node(graph, forward.entry)
        data = entry.data if isinstance(entry, n.Input) else ""
        taken, dropped = (tuple(str(x) for runs, x in taps if runs is wanted) for wanted in (True, False))
        plans.append(ForwardPlan(forward.model, forward.role, data, taken, forward.passing, dropped))
    return tuple(sorted(plans, key=lambda f: (f.role != "teacher", f.model, f.data, f.passing)))


def savings_of(checked: Checked, skip: Collection[str] = ()) -> Mapping[tuple[str, str], tuple[PassSavings, ...]]:
    """What each pass saves in the loss of each stage and task, before weights are loaded."""

    def reach(model: str) -> Reach | None:
        facts = checked.facts(checked.recipe.models[model])
        return facts.reach if facts is not None else None

    saved = {name: savings(graph, reach, skip) for name, graph in checked.unmerged.items()}
    compiled = {stage.name for stage in checked.recipe.stages if stage.train.compile}
    return {
        (stage, task): tuple(
            replace(x, notes=(UNPACKED,)) if stage in compiled and x.name == pack_tokens.__name__ else x for x in every
        )
        for (stage, task), every in saved.items()
    }


def _kept(x: Kept, checked: Checked, graph: nx.DiGraph, key: str) -> str:
    """Where a value is kept, and how many bytes it takes if every text is as long as it may be."""
    limit = "" if x.limit is None else f", limit {megabytes(x.limit)}"
    size = bytes_kept(graph, key, checked.recipe, checked.facts.rows)
    halves = x.dtype in ("bf16", "fp16")
    takes = f", {megabytes(size // 2 if halves else size)} at full length" if size and checked.facts.rows else ""
    return f'"{x.folder}"{f" as {x.dtype}" if x.dtype else ""}{takes}{limit}'


def _projections(graphs: Iterable[Graph]) -> tuple[ProjectionPlan, ...]:
    uses: dict[str, dict[str, n.Projection]] = {}
    for graph in graphs:
        for _, p in of_kind(graph, n.Projection, in_spec_order(graph, graph)):
            uses.setdefault(p.site, {}).setdefault(spell(graph, p.value), p)
    plans = []
    for site, values in sorted(uses.items()):
        p = next(iter(values.values()))
        kind = p.activation or "linear"
        plans.append(ProjectionPlan(site, kind, p.into, p.out, p.parameters, tuple(values), p.options))
    return tuple(plans)


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stage(
    checked: Checked,
    stage: Stage,
    data: Mapping[str, DataPlan],
    counted: Mapping[tuple[str, str], Cost | str],
    used: Collection[str],
    ranks: int,
) -> StagePlan:
    draws = ""
    if stage.sample is not None and len(stage.tasks) > 1:
        names = ", ".join(task.name for task in stage.tasks)
        order = stage.sample.order
        law = one_line(stage.sample.law.span.text) or "size"
        draws = f"in the order {', '.join(order)}" if order else f"of {names} in proportion to {law}"
    values = ((name, getattr(stage.train, name)) for name in type(stage.train).model_fields)
    settings = tuple((name, setting_text(value)) for name, value in values if value is not None and value != ())
    frozen = tuple(one_line(x.span.text) for x in stage.freeze)
    trainable = _trainable(checked, stage)
    costs = [cost for (name, _), cost in counted.items() if name == stage.name]
    memory = _memory(checked, stage, trainable, costs, used) if trainable is not None else ()
    if ranks > 1:
        memory = tuple(_of_one_rank(checked, stage, x, ranks) for x in memory)
    return StagePlan(stage.name, settings, _steps(stage, data), draws, frozen, trainable, memory)


def _memory(
    checked: Checked, stage: Stage, trainable: tuple[int, int], costs: Collection[Cost | str], used: Collection[str]
) -> tuple[DeviceMemory, ...]:
    """The memory of a stage by device, that of the student first. Gradients and optimizers are in fp32."""
    models = [checked.recipe.models[name] for name in used]
    devices = dict.fromkeys(["", *(model.source.device or "" for model in models)])
    known = [cost for cost in costs if isinstance(cost, Cost)]
    memories = []
    for device in devices:
        here = [model for model in models if (model.source.device or "") == device]
        weights = [(x.name, size) for x in here if (size := _weights(checked, x)) is not None]
        projections = sum(x.parameters or 0 for x in _projections(checked.graphs.values())) if not device else 0
        weights += [("projections", 4 * projections)] if projections else []
        learning = 4 * sum(trainable) if not device else 0
        peaks = [dict(cost.elsewhere).get(device, 0) if device else cost.peak for cost in known]
        memories.append(
            DeviceMemory(
                device,
                tuple(weights),
                learning,
                learning * stage.train.optimizer.means,
                max(peaks) if known and len(known) == len(costs) else None,
                tuple(x.name for x in here if _weights(checked, x) is None),
            )
        )
    return tuple(memories)


def _of_one_rank(checked: Checked, stage: Stage, memory: DeviceMemory, ranks: int) -> DeviceMemory:
    """The memory of one of the ranks that shard student, projections, averages, and frozen teachers if the stage says
    so. Each has an equal part of the batch.
    """
    activations = None if memory.activations is None else -(-memory.activations // ranks)
    if memory.device:
        return replace(memory, activations=activations, ranks=ranks)
    sources = {model.name: model.source for model in checked.recipe.teachers}
    trained = {name for name, _ in memory.weights} - sources.keys()
    whole = {
        name
        for name, source in sources.items()
        if source.quantization is not None or not (source.averaged is not None or stage.train.shard_teachers)
    }
    return replace(
        memory,
        weights=tuple((name, size if name in whole else -(-size // ranks)) for name, size in memory.weights),
        gradients=-(-memory.gradients // ranks),
        optimizer=-(-memory.optimizer // ranks),
        activations=activations,
        gathered=sum(size for name, size in memory.weights if name in trained),
        ranks=ranks,
    )


def _weights(checked: Checked, model: ModelDeclaration) -> int | None:
    """The bytes of a model's weights; None where nothing is known of it."""
    facts = checked.facts(model)
    dtype = DTYPES[model.source.number_format]
    if facts is None or model.source.quantization is None:
        return None if facts is None else facts.parameters * dtype.itemsize
    return quantized_bytes(facts.shapes.model, model.source.quantization, dtype)


def _steps(stage: Stage, data: Mapping[str, DataPlan]) -> int | None:
    """Optimizer steps of a stage, where the rows are known; an epoch of several tasks is as long as theirs together."""
    train = stage.train
    if train.steps is not None:
        return train.steps
    per_epoch = 0
    for task in stage.tasks:
        first = data[task.data[0]]
        if first.rows is None or not isinstance(first.batch, int):
            return None
        per_epoch += math.ceil(math.ceil(first.rows / first.batch) / train.accumulate)
    return train.total_steps(per_epoch)


def _trainable(checked: Checked, stage: Stage) -> tuple[int, int] | None:
    """The numbers of parameters of the student and of projections that a stage trains; None if unknown."""
    student = checked.facts(checked.recipe.student)
    if student is None or not checked.graphs:
        return None
    model = student.shapes.model
    frozen = {id(p) for x in stage.freeze if x.kind != "projection" for p in parameters_at(model, x.path)}
    trained = {id(p): p.numel() for p in model.parameters() if p.requires_grad and id(p) not in frozen}
    frozen_sites = {x.name for x in stage.freeze if x.kind == "projection"}
    graphs = [graph for (name, _), graph in checked.graphs.items() if name == stage.name]
    projections = {x.site: x.parameters for graph in graphs for _, x in of_kind(graph, n.Projection)}
    sizes = [size for site, size in projections.items() if site not in frozen_sites]
    known = [size for size in sizes if size is not None]
    return (sum(trained.values()), sum(known)) if len(known) == len(sizes) else None


# ── costs of a batch ──────────────────────────────────────────────────────────────────────────────────────────────────


PRECISIONS = {"fp16": torch.bfloat16, "bf16": torch.bfloat16}
"""The type that a CPU computes in for a precision; all of these take two bytes."""


def costs(checked: Checked, skip: Collection[str] = ()) -> Mapping[tuple[str, str], Cost | str]:
    """The cost of a batch of each task, or in words why it is unknown; `skip` names passes to leave out."""
    by_task: dict[tuple[str, str], Cost | str] = {}
    cache: dict[object, Cost | str] = {}
    settings = {stage.name: stage.train for stage in checked.recipe.stages}
    for name, graph in checked.graphs.items():
        sources, train = [checked.recipe.data[d].source for d in data_of(graph)], settings[name[0]]
        # the cost of a loss depends on batch sizes, precision and checkpointing, its hash does not
        sizes = [(source.batch, source.max_length) for source in sources]
        key = (info(graph).objective, train.precision, train.gradient_checkpointing, *sizes)
        if key not in cache:
            cache[key] = cost(checked, graph, train, skip)
        by_task[name] = cache[key]
    return by_task


def cost(checked: Checked, graph: nx.DiGraph, train: Train, skip: Collection[str] = ()) -> Cost | str:
    """The cost of a batch of this graph, the largest one of ready tensors, in a stage with these settings; if it is
    unknown, the reason in words.
    """
    recipe = checked.recipe
    names = list(dict.fromkeys([*models_of(graph), recipe.student.name]))
    sources = {name: recipe.data[name].source for name in data_of(graph)}
    ready = {name: source for name, source in sources.items() if isinstance(source, Batches)}
    if missing := [name for name in names if checked.facts(recipe.models[name]) is None]:
        return f"nothing is known of {missing[0]} before it is loaded"
    for module in recipe.modules:
        return f"operations of {module} run in training only"
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    models: dict[str, nn.Module] = {}
    for name in sorted(names, key=lambda m: recipe.models[m].source.averaged is not None):
        if (facts := checked.facts(recipe.models[name])) is not None:
            models[name] = empty_model(facts.description, mode)
    lengths = {d: _length(checked, d, names) for d in sources if d not in ready}
    shapes = {d: (_examples(sources[d].batch, length), length) for d, length in lengths.items()}
    types = {d: source.label_type for d, source in sources.items()}
    classes = {d: len(checked.classes.get(d, ())) for d in sources}
    with mode:
        largest = {d: largest_batch(source, checked.folder) for d, source in ready.items()}
        batch = example_batch(graph, models, types, classes, shapes, largest)
    student = checked.facts(recipe.student)
    reach, dtype = student.reach if student is not None else None, PRECISIONS.get(train.precision)
    again = train.gradient_checkpointing
    places = {name: place for name in names if (place := recipe.models[name].source.device) is not None}
    try:
        return count_step(
            graph, models, recipe.student.name, batch, mode, dtype, reach=reach, skip=skip, recompute=again,
            places=places,
        )  # fmt: skip
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return f"it does not run without weights ({type(error).__name__}: {first[:80]})"


def _examples(batch: int | Length, length: int) -> int:
    """The examples of a batch, each of full length."""
    return batch if isinstance(batch, int) else max(1, int(batch.value) // length)


def _length(checked: Checked, data: str, names: list[str]) -> int:
    """The number of tokens of the longest encoding that the data and the positions of its readers allow."""
    limits = [checked.recipe.data[data].source.max_length or LONGEST]
    for name in names:
        facts = checked.facts(checked.recipe.models[name])
        config = facts.description.config if facts is not None else None
        limits.append(getattr(config, "max_position_embeddings", None) or LONGEST)
    return min(limits)


# ── reports on data, row by row ───────────────────────────────────────────────────────────────────────────────────────


def data_reports(checked: Checked) -> dict[str, DataReport]:
    """A report on each data set of a spec, by name. Raises `SpecError` if one cannot be read.

    Lengths are those of the models whose tokenizer is known. An untrained teacher has none: a vocabulary is then learnt
    from this spec's data, as it will be from its own.
    """
    builder = SpecBuilder(checked)
    data_cache = DataCache(builder)
    reports: dict[str, DataReport] = {}
    for name, data in checked.recipe.data.items():
        if data.source.holds_tensors:
            continue  # the check has read their layout, and there is no text
        readers = [m for m, used in checked.facts.data.items() if name in used or not any(checked.facts.data.values())]
        known = {m: facts for m in readers if (facts := checked.facts(checked.recipe.models[m])) is not None}
        modules = {m: facts.shapes.model for m, facts in known.items()}
        encodings = data_cache.encodings(name, list(known), modules)[0] if known else []
        used = any(name in read for read in checked.facts.data.values())
        reports[name] = data_report(
            builder.examples(name),
            encodings,
            label_type=data.source.label_type,
            delimited=any(map(_is_delimited, data.source.sources)),
            batch=data.source.batch if used else None,  # a part of joined data has no batches of its own
        )
    return reports


def _is_delimited(source: DataSource) -> bool:
    """Whether a source is a file in which quotes may enclose fields."""
    may_quote = "quoting" in type(source).model_fields
    return may_quote and source.files["train"].removesuffix(".gz").lower().endswith((".csv", ".tsv"))
