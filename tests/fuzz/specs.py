"""Specs to try: written from the grammar, from what means something, and real ones with pieces changed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from tests.faults.classes import classes
from tests.faults.world import HEAD, LOSS
from tests.syntax.strategies import Written, specs

REPOSITORY = Path(__file__).parents[2]


@cache
def seeds() -> tuple[str, ...]:
    """The specs of the repository, and every fault of the tables with its right neighbour."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "specs").rglob("*.brew"))]
    for entry in (entry for c in classes() for entry in c.entries):
        texts += [f"{HEAD}{lines}\n{LOSS}" for lines in (entry.wrong, entry.right)]
    return tuple(texts)


@cache
def pieces() -> tuple[str, ...]:
    """The words and signs of these specs."""
    found = (re.findall(r'"[^"\n]*"|[A-Za-z_]\w*|[0-9.]+%?|->|\*\*|\s+|.', text) for text in seeds())
    return tuple(dict.fromkeys(piece for words in found for piece in words))


HOSTILE = (
    "\0", "\x1b[2J", "\ufeff", "\u202e", "é", "\r", "\t", '"', "#", "/*", "--", "{", "}", "((((", "]]]]", "->", "**",
    "1e999", "9" * 40, "-1", "0", "none", "true", "{x}", '"{x}"', "../../x", "x" * 300, "import", "stage s { ", "\n\n",
)  # fmt: skip


def mutate(text: str, chance: random.Random) -> str:
    """A spec with one to five pieces, mostly one, deleted, doubled, swapped, replaced or put in, or a stretch of another one."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        words = re.findall(r'"[^"\n]*"|[A-Za-z_]\w*|[0-9.]+%?|->|\*\*|\s+|.', text)
        if not words:
            return chance.choice(HOSTILE)
        at, kind = chance.randrange(len(words)), chance.randrange(8)
        other = chance.randrange(len(words))
        if kind == 0:
            del words[at : at + chance.randint(1, 3)]
        elif kind == 1:
            words[at:at] = words[at : at + chance.randint(1, 8)]
        elif kind == 2:
            words[at], words[other] = words[other], words[at]
        elif kind == 3:
            words[at] = chance.choice(pieces())
        elif kind == 4:
            words.insert(at, chance.choice(pieces()))
        elif kind == 5:
            words.insert(at, chance.choice(HOSTILE))
        elif kind == 6:
            donor = chance.choice(seeds()).splitlines(keepends=True)
            words.insert(at, "\n" + chance.choice(donor or [""]))
        else:
            words[min(at, other) : max(at, other)] = []
        text = "".join(words)
    return text


FEATURES = (
    "big.logits", "tiny.logits", "big.hidden[0]", "tiny.hidden[0]", "big.hidden[m]", "tiny.hidden[m]", "big.hidden[:]",
    "big.hidden", "tiny.attention[0]", "big.pooled", "tiny.pooled", "d.labels", "big.hidden[0, 1]", "t", "big(d).logits",
    "big", "d", "m", "w", "n", "s", "ls", 'big @ "encoder.layer.0"', "[big, big].logits", "f(n)", "g(big.logits)",
)  # fmt: skip
CALLS = (
    "kd",
    "ce",
    "mse",
    "nst",
    "cos",
    "sum",
    "mean",
    "max",
    "softmax",
    "stop",
    "f",
    "g",
    "ramp",
    "after",
    "piecewise",
    "flsw",
)
NUMBERS = ("0", "1", "2", "0.5", "30%", "1e-4", "3 steps", "1 epochs", "-1", "n")


def living(chance: random.Random) -> str:
    """A spec whose names mean something: models, data, lists, maps, functions, and equations over them."""

    def expression(depth: int) -> str:
        kind = chance.randrange(10 if depth > 0 else 2)
        inner = depth - 1
        match kind:
            case 0:
                return chance.choice(FEATURES)
            case 1:
                return chance.choice(NUMBERS)
            case 2 | 3 | 4:
                arrow = f"{expression(inner)} -> {expression(inner)}"
                option = chance.choice(("", "", ", T=2", ", mask=none", f", T={expression(0)}", ", over=ls"))
                return f"{chance.choice(CALLS)}({arrow}{option})"
            case 5:
                return f"{chance.choice(CALLS)}({', '.join(expression(inner) for _ in range(chance.randint(1, 3)))})"
            case 6:
                return f"{expression(inner)} {chance.choice(('+', '-', '*', '/', '**'))} {expression(inner)}"
            case 7:
                return f"[{', '.join(expression(inner) for _ in range(chance.randint(1, 3)))}]"
            case 8:
                return f"({expression(inner)} via {chance.choice(('linear', 'relu', 'linear(16 -> 8)', 'P'))})"
            case _:
                return f"{expression(inner)}[{chance.choice(('0', '-1', ':', '::2', 'm', '0, 1', 'ls', '1:2'))}]"

    lines = [
        "let n = 2", 'let s = "a{n}"', "let m = [0, 2] -> [0, 1]", "let ls = [1, 2, 3]", "let w = ramp(1 -> 0)",
        'tap t = big @ "encoder.layer.1"', "proj P = linear(16 -> 8)", "f(x) = x + 1", "g(x, y=2) = kd(x -> tiny.logits, T=y)",
    ]  # fmt: skip
    chance.shuffle(lines)
    lines = lines[: chance.randint(3, 9)]
    for i in range(chance.randint(1, 4)):
        keyword = chance.choice(("", "", "", "let ", "tap "))
        lines.insert(chance.randrange(len(lines) + 1), f"{keyword}e{i} = {expression(3)}")
    if chance.random() < 0.3:
        body = f"loss = {expression(2)}"
        lines.append(
            chance.choice(
                (f"task a {{ {body} }}", f"stage a for 30% {{ {body} }}", f'cache c = {expression(2)} at "c"')
            )
        )
    loss = chance.choice((LOSS, f"loss = {expression(3)}\n", f"loss = sum([{expression(1)}, e0])\n"))
    return HEAD + "\n".join(lines) + "\n" + loss


by_meaning = st.integers(0, 2**48).map(lambda seed: living(random.Random(seed)))


def mutated(seed: int) -> str:
    """A mutation of one of the seeds."""
    chance = random.Random(seed)
    return mutate(chance.choice(seeds()), chance)


mutations = st.integers(0, 2**48).map(mutated)
from_the_grammar: st.SearchStrategy[str] = specs().map(lambda written: written.text)

STRATEGIES: dict[str, st.SearchStrategy[str]] = {
    "grammar": from_the_grammar,
    "meaning": by_meaning,
    "mutations": mutations,
}
Judge = Callable[[str], None]
__all__ = ["STRATEGIES", "Judge", "Written", "living", "mutate", "mutated", "seeds"]
