"""Every loss written plainly: loops over examples, tokens and heads, in Python floats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

Mask = list[list[bool]]


def softmax(scores: list[float], T: float) -> list[float]:
    """exp(x/T) / Σ exp(x/T)."""
    highest = max(scores)
    powers = [math.exp((x - highest) / T) for x in scores]
    return [p / sum(powers) for p in powers]


def ce_row(p: list[float], q: list[float], T: float) -> float:
    """-Σ softmax(p/T) log softmax(q/T)."""
    return -sum(a * math.log(b) for a, b in zip(softmax(p, T), softmax(q, T), strict=True))


def kl_row(p: list[float], q: list[float], T: float) -> float:
    """Σ softmax(p/T) log(softmax(p/T) / softmax(q/T))."""
    return sum(a * math.log(a / b) for a, b in zip(softmax(p, T), softmax(q, T), strict=True))


def kd_row(p: list[float], q: list[float], T: float) -> float:
    """T² · KL."""
    return T**2 * kl_row(p, q, T)


def mse_row(p: list[float], q: list[float], T: float) -> float:
    """Mean of ((p - q) / T)²."""
    return sum(((a - b) / T) ** 2 for a, b in zip(p, q, strict=True)) / len(p)


def cos_row(p: list[float], q: list[float], T: float) -> float:
    """1 - p·q / (|p| |q|)."""
    product = sum(a * b for a, b in zip(p, q, strict=True))
    return 1 - product / math.sqrt(sum(a * a for a in p) * sum(b * b for b in q))


def bce_row(p: list[float], q: list[float], T: float) -> float:
    """Mean of -(p log q + (1-p) log(1-q)), both sigmoids of x/T."""
    found = 0.0
    for a, b in zip(p, q, strict=True):
        yes, no = 1 / (1 + math.exp(-b / T)), 1 / (1 + math.exp(b / T))
        share = 1 / (1 + math.exp(-a / T))
        found -= share * math.log(yes) + (1 - share) * math.log(no)
    return found / len(p)


def pkd_row(p: list[float], q: list[float], T: float) -> float:
    """Σ (p/|p| - q/|q|)²."""
    long, wide = math.sqrt(sum(a * a for a in p)), math.sqrt(sum(b * b for b in q))
    return sum((a / long - b / wide) ** 2 for a, b in zip(p, q, strict=True))


ROWS: dict[str, Callable[[list[float], list[float], float], float]] = {
    "ce": ce_row,
    "kl": kl_row,
    "kd": kd_row,
    "mse": mse_row,
    "cos": cos_row,
    "bce": bce_row,
    "pkd": pkd_row,
}


def per_example(name: str, source: Tensor, target: Tensor, T: float = 1.0) -> float:
    """Mean over the examples of (B, C)."""
    rows = [ROWS[name](source[b].tolist(), target[b].tolist(), T) for b in range(len(source))]
    return sum(rows) / len(rows)


def per_token(name: str, source: Tensor, target: Tensor, mask: Mask, T: float = 1.0) -> float:
    """Mean over the real tokens of (B, L, C)."""
    rows = []
    for b, tokens in enumerate(mask):
        for i, real in enumerate(tokens):
            if real:
                rows.append(ROWS[name](source[b, i].tolist(), target[b, i].tolist(), T))
    return sum(rows) / len(rows)


def labels(target: Any, source: list[Any], T: float = 1.0) -> float:
    """Mean over the labels that are not -100 of -log softmax(x / T)[label]."""
    rows = []
    for scores, label in zip(target, source, strict=True):
        if label != -100:
            rows.append(-math.log(softmax(scores, T)[label]))
    return sum(rows) / len(rows)


def attention_mse(source: Tensor, target: Tensor, mask: Mask) -> float:
    """Mean over heads and over the pairs of real tokens of the squared difference."""
    found, count = 0.0, 0
    for b, tokens in enumerate(mask):
        for i, one in enumerate(tokens):
            for j, other in enumerate(tokens):
                if one and other:
                    for head in range(source.shape[1]):
                        found += (float(source[b, head, i, j]) - float(target[b, head, i, j])) ** 2
                        count += 1
    return found / count


def over_keys(name: str, source: Tensor, target: Tensor, mask: Mask, *, scores: bool) -> float:
    """Mean over heads and real tokens of -Σ p log q (`ce`) or Σ p log(p/q) (`kl`) over the real keys.

    Probabilities are taken as they are; of scores softmax over the real keys.
    """
    found, count = 0.0, 0
    for b, tokens in enumerate(mask):
        keys = [j for j, real in enumerate(tokens) if real]
        for i in keys:
            for head in range(source.shape[1]):
                p = [float(source[b, head, i, j]) for j in keys]
                q = [float(target[b, head, i, j]) for j in keys]
                if scores:
                    p, q = softmax(p, 1.0), softmax(q, 1.0)
                for x, y in zip(p, q, strict=True):
                    found -= x * math.log(y)
                    found += x * math.log(x) if name == "kl" else 0.0
                count += 1
    return found / count


def nst(source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], mask: Mask, *, by_length: bool = False) -> float:
    """Mean over the pairs of real tokens of (xᵢ·x'ⱼ/H - yᵢ·y'ⱼ/H')², or divided by the real length for H and H'."""
    found, count = 0.0, 0
    for b, tokens in enumerate(mask):
        for i, one in enumerate(tokens):
            for j, other in enumerate(tokens):
                if one and other:
                    length = sum(tokens)
                    x = float(source[0][b, i] @ source[1][b, j]) / (length if by_length else source[0].shape[-1])
                    y = float(target[0][b, i] @ target[1][b, j]) / (length if by_length else target[0].shape[-1])
                    found += (x - y) ** 2
                    count += 1
    return found / count


def fsp(source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], mask: Mask) -> float:
    """Mean over examples and entries of (Σ xₗᵢ x'ₗⱼ / length - Σ yₗᵢ y'ₗⱼ / length)², sums over real tokens."""
    found, count = 0.0, 0
    for b, tokens in enumerate(mask):
        real = [k for k, x in enumerate(tokens) if x]
        for i in range(source[0].shape[-1]):
            for j in range(source[1].shape[-1]):
                x = sum(float(source[0][b, k, i]) * float(source[1][b, k, j]) for k in real) / len(real)
                y = sum(float(target[0][b, k, i]) * float(target[1][b, k, j]) for k in real) / len(real)
                found += (x - y) ** 2
                count += 1
    return found / count


def targets(name: str, source: list[list[float]], target: list[list[float]]) -> float:
    """Mean over examples and outputs of (t - x)² (`mse`) or -(t log σ(x) + (1-t) log(1-σ(x))) (`bce`)."""
    found = []
    for wanted, outputs in zip(source, target, strict=True):
        for t, x in zip(wanted, outputs, strict=True):
            if name == "mse":
                found.append((t - x) ** 2)
            else:
                found.append(t * math.log1p(math.exp(-x)) + (1 - t) * math.log1p(math.exp(x)))
    return sum(found) / len(found)


def emd(source: list[Tensor], target: list[Tensor], mask: Mask) -> float:
    """The cheapest way to pair as many layers with as many others, by trying all: then flows are 1/n or 0."""
    n = len(source)
    cost = [[per_token("mse", a, b, mask) for b in target] for a in source]
    return min(sum(cost[i][order[i]] for i in range(n)) for order in itertools.permutations(range(n))) / n


def huber(x: float) -> float:
    """x²/2 up to one, |x| - 1/2 beyond."""
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


def rkd_distance(source: list[list[float]], target: list[list[float]]) -> float:
    """Mean over pairs of huber of the distances, each side's divided by their mean."""
    sides = [[math.dist(a, b) for a, b in itertools.combinations(x, 2)] for x in (source, target)]
    scaled = [[d / (sum(x) / len(x)) for d in x] for x in sides]
    return sum(huber(a - b) for a, b in zip(*scaled, strict=True)) / len(scaled[0])


def rkd_angle(source: list[list[float]], target: list[list[float]]) -> float:
    """Mean over ordered triples of huber of the cosines of the angle at the first."""
    triples = list(itertools.permutations(range(len(source)), 3))
    return sum(huber(angle(source, *t) - angle(target, *t)) for t in triples) / len(triples)


def angle(x: list[list[float]], corner: int, one: int, other: int) -> float:
    """The cosine of the angle at a corner."""
    a = [p - q for p, q in zip(x[one], x[corner], strict=True)]
    b = [p - q for p, q in zip(x[other], x[corner], strict=True)]
    return 1 - cos_row(a, b, 1.0)


def infonce(source: list[list[float]], target: list[list[float]], T: float) -> float:
    """Mean over i of -log softmax over j of cos(targetᵢ, sourceⱼ) / T, at j = i."""
    rows = [[1 - cos_row(x, y, 1.0) for y in source] for x in target]
    return -sum(math.log(softmax(row, T)[i]) for i, row in enumerate(rows)) / len(rows)


def relation(x: list[Tensor], mask: Mask, heads: int) -> list[list[list[list[float]]]]:
    """Softmax over the real keys of products of a token's parts, of x given as (L, H) per example."""
    found = []
    for states, tokens in zip(x, mask, strict=True):
        size = states.shape[-1] // heads
        example = []
        for head in range(heads):
            part = states[:, head * size : (head + 1) * size].tolist()
            rows = []
            for one in part:
                scores = [sum(a * b for a, b in zip(one, other, strict=True)) / math.sqrt(size) for other in part]
                real = softmax([s for s, keep in zip(scores, tokens, strict=True) if keep], 1.0)
                rows.append([real.pop(0) if keep else 0.0 for keep in tokens])
            example.append(rows)
        found.append(example)
    return found


def shift(logits: list[float], label: int) -> list[float]:
    """The label's logit and the highest one change places."""
    found = list(logits)
    if label >= 0:
        highest = found.index(max(found))
        found[label], found[highest] = found[highest], found[label]
    return found
