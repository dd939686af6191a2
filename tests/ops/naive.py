"""Every loss written plainly: loops over examples, tokens and heads, in Python floats."""

from __future__ import annotations

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


ROWS: dict[str, Callable[[list[float], list[float], float], float]] = {
    "ce": ce_row,
    "kl": kl_row,
    "kd": kd_row,
    "mse": mse_row,
    "cos": cos_row,
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


def attention_ce(source: Tensor, target: Tensor, mask: Mask) -> float:
    """Mean over heads and over real tokens of -Σ p log q, with a sum over all keys."""
    found, count = 0.0, 0
    for b, tokens in enumerate(mask):
        for i, real in enumerate(tokens):
            for head in range(source.shape[1]):
                if real:
                    p, q = source[b, head, i].tolist(), target[b, head, i].tolist()
                    found -= sum(x * math.log(max(y, 1e-300)) for x, y in zip(p, q, strict=True) if x > 0)
                    count += 1
    return found / count


def nst(source: Tensor, target: Tensor, mask: Mask) -> float:
    """Mean over the pairs of real tokens of (xᵢ·xⱼ/H - yᵢ·yⱼ/H')²."""
    found, count = 0.0, 0
    for b, tokens in enumerate(mask):
        for i, one in enumerate(tokens):
            for j, other in enumerate(tokens):
                if one and other:
                    x = float(source[b, i] @ source[b, j]) / source.shape[-1]
                    y = float(target[b, i] @ target[b, j]) / target.shape[-1]
                    found += (x - y) ** 2
                    count += 1
    return found / count
