"""Step times beside other ways to train the same student: TextBrewer, torchdistill and loops written by hand.

    make bench                                        writes docs/speed.md
    python bench/race.py --workloads W1 W2 --batch 16 --steps 7
    python bench/race.py --check                      no dropout: losses must agree
    python bench/race.py --seconds 60                 fewer steps where they take long, three at least

All contestants train from the same weights on the same batches, one after the other for each batch, in one process.
TextBrewer runs its own `train`; its clock is that of the loader which it reads. Ratios are medians over steps of
TextBrewer's time divided by a contestant's. Weights are random, which changes no time. bf16 is raced where the
processor has instructions for it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import platform
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contestant import Contestant
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from brewgraph.data.encoding.texts import train_wordpiece

LONGEST, WARM, FEWEST, T = 128, 2, 3, 8
MARK = "<!-- Below this line everything is written by bench/race.py. -->"
SIZES: dict[str, dict[str, int]] = {
    "base": {"num_hidden_layers": 12},
    "T3": {"num_hidden_layers": 3},
    "T4tiny": {
        "num_hidden_layers": 4,
        "hidden_size": 312,
        "intermediate_size": 1200,
        "num_attention_heads": 12,
    },
}
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Workload:
    """A student, teachers, the layers that are matched by `mse` and `nst`, and whether logits are stored beforehand."""

    title: str
    student: str
    teachers: int = 1
    mse: tuple[tuple[int, int], ...] = ()
    nst: tuple[tuple[int, int], ...] = ()
    stored: bool = False

    @property
    def width(self) -> int:
        return SIZES[self.student].get("hidden_size", 768)


EVERY_4 = ((0, 0), (4, 1), (8, 2), (12, 3))
WORKLOADS = {
    "W1": Workload("BERT-base to 3 layers: kd, four mse, four nst", "T3", mse=EVERY_4, nst=EVERY_4),
    "W2": Workload(
        "BERT-base to 4 layers of width 312: kd, five projected mse, five nst", "T4tiny",
        mse=((0, 0), (3, 1), (6, 2), (9, 3), (12, 4)), nst=((0, 0), (3, 1), (6, 2), (9, 3), (12, 4)),
    ),
    "W3": Workload("two BERT-base, the mean of their logits, to 3 layers", "T3", teachers=2),
    "W4": Workload("stored logits of BERT-base to 3 layers", "T3", stored=True),
    "W4t": Workload("stored logits of BERT-base to 4 layers of width 312", "T4tiny", stored=True),
}  # fmt: skip


def build(size: str, seed: int, dropout: float) -> BertForSequenceClassification:
    """A classifier of three classes with random weights."""
    torch.manual_seed(seed)
    quiet = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForSequenceClassification(BertConfig(vocab_size=30522, num_labels=3, **SIZES[size], **quiet))


class Context:
    """What contestants start from: see `contestant.py`."""

    def __init__(self, workload: Workload, dropout: float):
        self.workload, self.dropout = workload, dropout
        self.w = {"student": workload.student, "cache": workload.stored}
        self.teachers = [build("base", 100 + i, 0.0).eval() for i in range(workload.teachers)]
        width = workload.width
        mapped = {} if width == 768 else {"proj": ["linear", width, 768]}
        self.ms: list[dict[str, Any]] = [
            {"layer_T": t, "layer_S": s, "feature": "hidden", "loss": "hidden_mse", "weight": 1, **mapped}
            for t, s in workload.mse
        ]
        self.ms += [
            {"layer_T": [t, t], "layer_S": [s, s], "feature": "hidden", "loss": "mmd", "weight": 1}
            for t, s in workload.nst
        ]

    def student(self) -> nn.Module:
        return build(self.workload.student, 7, self.dropout)

    def projs(self) -> list[nn.Linear | None]:
        torch.manual_seed(5)
        return [nn.Linear(*match["proj"][1:]) if "proj" in match else None for match in self.ms]


# ── losses of the loops by hand, as TextBrewer has them ──────────────────────────────────────────────────────────────


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    return -(F.softmax(teacher / T, -1) * F.log_softmax(student / T, -1)).sum(-1).mean()


def mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    real = mask.to(student)[..., None]
    return ((student - teacher).square() * real).sum() / (real.sum() * student.shape[-1])


def nst(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The squared distance of the Gram matrices of positions (Huang and Wang 2017)."""
    real = mask.to(student)
    one, other = (x @ x.transpose(1, 2) / x.shape[-1] for x in (student, teacher))
    pairs = real[:, :, None] * real[:, None]
    return ((one - other).square() * pairs).sum() / pairs.sum()


class Loop:
    """A loop as one writes it: padded batches, all hidden states, AdamW. `careful`: batches cut to their longest row,
    fused AdamW, and oneDNN for fp32 products; `precision` of autocast.
    """

    def __init__(self, context: Context, *, careful: bool = False, precision: str = "fp32"):
        self.context, self.careful, self.precision = context, careful, precision
        self.student, self.projections = context.student().train(), context.projs()
        parameters = [*self.student.parameters(), *(p for x in self.projections if x for p in x.parameters())]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=careful)
        self.cache: dict[Any, Tensor] = {}

    def step(self, batch: Batch, key: Any) -> float:
        if self.careful:
            longest = int(batch["attention_mask"].sum(1).max())
            batch = {name: x[:, :longest] for name, x in batch.items()}
        with _onednn() if self.careful else contextlib.nullcontext():
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
                loss = self._loss(batch, key)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def _loss(self, batch: Batch, key: Any) -> Tensor:
        context, features = self.context, bool(self.context.ms)
        if context.workload.stored:
            teacher, states = self.cache[key], ()
        else:
            with torch.no_grad():
                outputs = [model(**batch, output_hidden_states=features) for model in context.teachers]
            teacher, states = torch.stack([x.logits for x in outputs]).mean(0), outputs[0].hidden_states
        output = self.student(**batch, output_hidden_states=features)
        loss = kd(output.logits, teacher)
        for match, projection in zip(context.ms, self.projections, strict=True):
            t, s = (x[0] if isinstance(x, list) else x for x in (match["layer_T"], match["layer_S"]))
            own = output.hidden_states[s]
            of = nst if match["loss"] == "mmd" else mse
            loss = loss + of(projection(own) if projection else own, states[t], batch["attention_mask"])
        return loss


@contextlib.contextmanager
def _onednn() -> Iterator[None]:
    """fp32 products on oneDNN: asked for bf16, which a CPU without it computes in fp32."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"


class TorchDistill:
    """torchdistill's box with hooks on both models and the same losses."""

    def __init__(self, context: Context):
        for name in ("", ".models", ".models.densenet", ".models.resnet", ".transforms", ".datasets"):
            sys.modules.setdefault(f"torchvision{name}", _Stub(f"torchvision{name}"))  # it imports it for images
        from torchdistill.common.constant import def_logger
        from torchdistill.core.distillation import DistillationBox

        def_logger.setLevel(logging.ERROR)
        student, projections = context.student(), context.projs()
        path = lambda layer: f"bert.encoder.layer.{layer - 1}" if layer else "bert.embeddings"  # noqa: E731
        logits = lambda s, t, _: kd(s["."]["output"].logits, t["."]["output"].logits)  # noqa: E731
        terms: dict[str, Any] = {"kd": {"criterion": _Term(logits), "weight": 1.0}}
        layers: dict[str, set[str]] = {"T": set(), "S": set()}
        for i, (match, projection) in enumerate(zip(context.ms, projections, strict=True)):
            paths = {}
            for side in layers:
                layer = match[f"layer_{side}"]
                paths[side] = path(layer[0] if isinstance(layer, list) else layer)
                layers[side].add(paths[side])

            def term(s: Any, t: Any, mask: Tensor, *, paths=paths, match=match, projection=projection) -> Tensor:
                own, other = (
                    x[0] if isinstance(x := io[paths[k]]["output"], tuple) else x for io, k in ((s, "S"), (t, "T"))
                )
                of = nst if match["loss"] == "mmd" else mse
                return of(projection(own) if projection else own, other, mask)

            terms[f"match {i}"] = {"criterion": _Term(term), "weight": 1.0}
        sides = {
            name: {
                "forward_proc": "forward_batch_only_as_kwargs",
                "forward_hook": {"input": [], "output": sorted(layers[k])},
            }
            for name, k in (("teacher", "T"), ("student", "S"))
        }
        sides["teacher"]["requires_grad"] = False
        config = {
            "num_epochs": 1, **sides, "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
            "optimizer": {"key": "AdamW", "kwargs": {"lr": 1e-5}},
        }  # fmt: skip
        self.box = DistillationBox(context.teachers[0], student, {}, config, torch.device("cpu"), None, False, 1)
        for projection in filter(None, projections):
            self.box.optimizer.add_param_group({"params": list(projection.parameters())})
        self.box.teacher_model.eval()
        self.box.student_model.train()

    def step(self, batch: Batch, key: Any) -> float:
        loss = self.box.forward_process(batch, targets=batch["attention_mask"], supp_dict=None)
        self.box.post_forward_process(loss=loss)
        return float(loss.detach())


class _Term(nn.Module):
    def __init__(self, of: Callable[[Any, Any, Tensor], Tensor]):
        super().__init__()
        self.of = of

    def forward(self, student: Any, teacher: Any, targets: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.of(student, teacher, targets)


class _Stub(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (nn.Module,), {})


CONTESTANTS: dict[str, Callable[[Any], Any]] = {
    "torchdistill": TorchDistill,
    "plain loop": Loop,
    "careful loop": partial(Loop, careful=True),
    "careful loop, bf16": partial(Loop, careful=True, precision="bf16"),
    "brewgraph": Contestant,
    "brewgraph, padded": partial(Contestant, skip=("pack_tokens",)),
    "brewgraph, bf16": partial(Contestant, precision="bf16", teachers=torch.bfloat16),
    "brewgraph, from the store": partial(Contestant, store="bf16"),
    "brewgraph, bf16, from the store": partial(Contestant, precision="bf16", teachers=torch.bfloat16, store="bf16"),
}


# ── the race ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def batches(count: int, size: int, lengths: Callable[[int], list[int]]) -> list[Batch]:
    """Padded batches of random tokens."""
    draw = torch.Generator().manual_seed(3)
    result = []
    for _ in range(count):
        mask = (torch.arange(LONGEST) < torch.tensor(lengths(size))[:, None]).long()
        ids = torch.randint(1000, 30000, (size, LONGEST), generator=draw) * mask
        result.append({"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": mask})
    return result


def drawn_lengths() -> Callable[[int], list[int]]:
    """About 40 tokens on average, up to 128, as sentence pairs have them."""
    draw = torch.Generator().manual_seed(2)
    return lambda n: torch.exp(torch.randn(n, generator=draw) * 0.47 + 3.58).round().clamp(8, LONGEST).int().tolist()


def real_lengths(path: Path) -> Callable[[int], list[int]]:
    """Those of the rows of a jsonl file, all texts of a row together, by a vocabulary trained on them."""
    with path.open(encoding="utf-8") as file:
        rows = [
            " ".join(x for x in json.loads(line).values() if isinstance(x, str))
            for line, _ in zip(file, range(4000), strict=False)
        ]
    tokenizer = train_wordpiece(rows, 8000)
    known = [min(LONGEST, len(ids) + 1) for ids in tokenizer(rows)["input_ids"]]
    stream = iter(known * 1000)
    return lambda n: [next(stream) for _ in range(n)]


@dataclass
class Times:
    seconds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, name: str, of: str = "TextBrewer") -> float:
        """The median over steps of the time `of` one, divided by that of the other."""
        pairs = zip(self.seconds[of][WARM:], self.seconds[name][WARM:], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def gap(self, name: str) -> float:
        return max(abs(a - b) for a, b in zip(self.losses["TextBrewer"], self.losses[name], strict=True))


class Interleaved:
    """A loader that lets the others take a batch first and measures how long its reader keeps each. It ends when
    measured steps of all have taken `limit` seconds, after `FEWEST` of them at the earliest.
    """

    def __init__(self, content: list[Batch], before: Callable[[Batch, int], None], seconds: list[float], limit: float):
        self.content, self.before, self.seconds, self.limit = content, before, seconds, limit

    def __len__(self) -> int:
        return len(self.content)

    def __iter__(self) -> Iterator[Batch]:
        begin = time.perf_counter()
        for number, batch in enumerate(self.content):
            if number == WARM:
                begin = time.perf_counter()
            if number >= WARM + FEWEST and time.perf_counter() - begin > self.limit:
                return
            self.before(batch, number)
            start = time.perf_counter()
            yield batch
            self.seconds.append(time.perf_counter() - start)


def race(workload: Workload, content: list[Batch], names: list[str], dropout: float, limit: float) -> Times:
    """All contestants on the same batches, for about `limit` seconds."""
    context, times = Context(workload, dropout), Times()
    if workload.teachers > 1 or workload.stored:
        names = [name for name in names if name != "torchdistill"]
    if workload.stored:
        names = [name for name in names if not name.endswith("store")]
    contestants = {name: CONTESTANTS[name](context) for name in names}
    stored = {}
    if workload.stored:
        with torch.no_grad():
            stored = {i: context.teachers[0](**batch).logits for i, batch in enumerate(content)}
        for contestant in contestants.values():
            contestant.cache.update(stored)
    for name in ("TextBrewer", *names):
        times.seconds[name], times.losses[name] = [], []

    def others(batch: Batch, number: int) -> None:
        for name, contestant in contestants.items():
            if name.endswith("store"):
                contestant.fill(batch)
            start = time.perf_counter()
            loss = contestant.step(batch, number)
            times.seconds[name].append(time.perf_counter() - start)
            times.losses[name].append(loss)

    textbrewer(context, content, others, times, stored, limit)
    return times


def textbrewer(
    context: Context,
    content: list[Batch],
    others: Callable[[Batch, int], None],
    times: Times,
    stored: Mapping[int, Tensor],
    limit: float,
) -> None:
    """TextBrewer's own `train` on the batches; `others` run between its steps."""
    from textbrewer import (
        BasicDistiller,
        DistillationConfig,
        GeneralDistiller,
        MultiTeacherDistiller,
        TrainingConfig,
    )
    from textbrewer.presets import MATCH_LOSS_MAP

    logging.getLogger("Distillation").setLevel(logging.ERROR)
    MATCH_LOSS_MAP["mmd"] = lambda s, t, mask=None: nst(s[0], t[0], mask)
    features, student = bool(context.ms), context.student()
    keys = ("logits", "hidden", "inputs_mask") if features else ("logits",)

    def adaptor(batch: Batch, output: Any) -> dict[str, Any]:
        known = {"logits": output.logits, "hidden": output.hidden_states, "inputs_mask": batch["attention_mask"]}
        return {key: known[key] for key in keys}

    loader = Interleaved(content, others, times.seconds["TextBrewer"], limit)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        training = TrainingConfig(output_dir=folder, log_dir=None, device="cpu", ckpt_frequency=1)
        config = DistillationConfig(
            temperature=T, hard_label_weight=0, kd_loss_type="ce", is_caching_logits=context.workload.stored,
            intermediate_matches=copy.deepcopy(context.ms) or None,
        )  # fmt: skip
        several = len(context.teachers) > 1
        kind = BasicDistiller if context.workload.stored else MultiTeacherDistiller if several else GeneralDistiller
        teachers = context.teachers if several else context.teachers[0]
        distiller = kind(training, config, teachers, student, adaptor, adaptor)
        for own, given in zip(getattr(distiller, "projs", []), context.projs(), strict=False):
            if given is not None:
                own.load_state_dict(given.state_dict())
        distiller.save_and_callback = lambda *_, **__: None
        write = distiller.write_loss

        def written(total: Tensor, *rest: Any, **named: Any) -> Any:
            times.losses["TextBrewer"].append(float(total))
            return write(total, *rest, **named)

        distiller.write_loss = written
        if context.workload.stored:
            distiller.logits_cache = _Cached([(batch, stored[i]) for i, batch in enumerate(content)], loader)
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
        more = {"output_hidden_states": True} if features else {}
        shuffle = random.shuffle
        random.shuffle = lambda _: None  # it shuffles what it has kept
        try:
            with distiller:
                distiller.train(optimizer, content if stored else loader, num_epochs=1, **more)
        finally:
            random.shuffle = shuffle


class _Cached(list[Any]):
    """What TextBrewer has kept, read as its loader is; its first pass over the batches adds nothing."""

    def __init__(self, content: list[Any], loader: Interleaved):
        super().__init__(content)
        self.loader = loader

    def append(self, item: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        kept = list.__iter__(self)
        for _ in self.loader:
            yield next(kept)


# ── what the machine could do ────────────────────────────────────────────────────────────────────────────────────────


def peak() -> float:
    """The FLOPs per second of the fastest fp32 product of a BERT's shape here."""
    x, w = torch.randn(1024, 768), torch.randn(3072, 768)
    onednn = lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")  # noqa: E731
    best = float("inf")
    with torch.no_grad():
        for product in (lambda: F.linear(x, w), onednn):
            for _ in range(8):
                start = time.perf_counter()
                product()
                best = min(best, time.perf_counter() - start)
    return 2 * 1024 * 768 * 3072 / best


def floor(workload: Workload, content: list[Batch]) -> float:
    """The FLOPs of the matrix products of a step on real tokens alone, by BERT's sizes, on average over batches."""

    def layers(size: str, count: int, lengths: Tensor) -> float:
        width, inner = SIZES[size].get("hidden_size", 768), SIZES[size].get("intermediate_size", 3072)
        return count * float((lengths * (8 * width**2 + 4 * width * inner) + 4 * lengths**2 * width).sum())

    total = 0.0
    for batch in content:
        lengths = batch["attention_mask"].sum(1).double()
        if not workload.stored:
            total += workload.teachers * layers("base", 12, lengths)
        total += 3 * layers(workload.student, SIZES[workload.student]["num_hidden_layers"], lengths)
        total += 3 * len(workload.mse) * float(lengths.sum()) * 2 * workload.width * 768 * (workload.width != 768)
    return total / len(content)


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def processor() -> str:
    """Its name, as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", default=[*WORKLOADS], choices=[*WORKLOADS])
    parser.add_argument("--contestants", nargs="+", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    parser.add_argument("--batch", nargs="+", type=int, default=[16])
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="fewer steps of what takes longer")
    parser.add_argument("--full", action="store_true", help="batches without padding, too")
    parser.add_argument(
        "--texts", type=Path, help="a jsonl file whose lengths are raced, too, at the batch in the middle"
    )
    parser.add_argument("--check", action="store_true", help="no dropout; prints how far losses are off TextBrewer's")
    parser.add_argument("--out", type=Path, help="write the tables to this page, below its mark")
    options = parser.parse_args()
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        options.contestants = [name for name in options.contestants if "bf16" not in name]
    before = options.out.read_text(encoding="utf-8").partition(MARK)[0] if options.out else ""
    lengths: list[tuple[str, Callable[[], Callable[[int], list[int]]], list[int]]] = [
        ("about 40 real tokens of 128", drawn_lengths, options.batch)
    ]
    if options.full:
        lengths.append(("128 real tokens of 128", lambda: lambda n: [LONGEST] * n, options.batch))
    if options.texts:
        middle = options.batch[len(options.batch) // 2]
        lengths.append((f"lengths of {options.texts.parent.name}", partial(real_lengths, options.texts), [middle]))
    machine = f"{processor()} with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    lines = [f"{machine}, torch {torch.__version__}, batches padded to {LONGEST}"]
    for title, make, sizes in lengths:
        for size in sizes:
            lines += ["", f"### Batch {size}, {title}", ""]
            found: dict[str, Times] = {}
            products, fastest = {}, 0.0
            for name in options.workloads:
                content = batches(options.steps + WARM, size, make())
                found[name] = race(
                    WORKLOADS[name], content, options.contestants, 0.0 if options.check else 0.1, options.seconds
                )
                taken = content[WARM : len(found[name].seconds["TextBrewer"])]
                products[name], fastest = floor(WORKLOADS[name], taken), max(fastest, peak())
                print(
                    name, {k: round(found[name].ratio(k), 2) for k in found[name].seconds}, file=sys.stderr, flush=True
                )
            lines += [f"| | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
            for contestant in options.contestants:
                cells = [f"{x.ratio(contestant):.2f}" if contestant in x.seconds else "" for x in found.values()]
                lines.append(f"| {contestant} | {' | '.join(cells)} |")
            times = [
                statistics.median(x.seconds["brewgraph"][WARM:]) * fastest / products[k]
                for k, x in found.items()
                if "brewgraph" in x.seconds
            ]
            lines.append(f"| *brewgraph's time over the floor* | {' | '.join(f'{x:.2f}' for x in times)} |")
            if options.check:
                gaps = {c: [x.gap(c) for x in found.values() if c in x.losses] for c in options.contestants}
                worst = {c: max(values) for c, values in gaps.items() if values}
                lines += ["", "Losses off TextBrewer's: " + ", ".join(f"{c} {gap:.1e}" for c, gap in worst.items())]
            if options.out:  # after each table: one that is interrupted keeps what it has measured
                options.out.write_text(f"{before}{MARK}\n\n{chr(10).join(lines)}\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
