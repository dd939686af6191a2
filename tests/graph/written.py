"""Specs as data, for property tests: written down in many ways that mean the same, changed in one field at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from brewgraph.display.diff import Side
from brewgraph.facts.models import identities
from brewgraph.graph.build import build_graph
from brewgraph.graph.canonical import canonical
from brewgraph.graph.identity import hash_spec
from tests.graph.graphs import SIZES, recipe_of


@dataclass(frozen=True)
class Term:
    """`weight * operation(teacher.feature -> student.feature via projection, options)`."""

    operation: str
    source: tuple[int, str]
    target: str
    weight: str = "1"
    via: str = ""
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Written:
    """A spec: models and data by what they are, never by name."""

    teachers: tuple[str, ...]
    student: tuple[tuple[str, str], ...]
    data: tuple[tuple[str, str], ...]
    terms: tuple[Term, ...]
    train: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Style:
    """How a spec is written down: what things are called, in which order statements stand, how they are spaced."""

    seed: int = 0
    names: tuple[str, ...] = ("big", "old", "tiny", "d")
    order: bool = False
    loose: bool = False
    terms: str = "t"
    param: bool = False
    let: bool = False


def text(spec: Written, style: Style = Style()) -> str:
    """The spec in this style."""
    dice = random.Random(style.seed)
    teachers, student, data = style.names[:2], style.names[2], style.names[3]
    statements = [f'teacher {teachers[i]} = hf("{where}")' for i, where in enumerate(spec.teachers)]
    statements.append(f"student {student} = hf({_arguments(spec.student, dice, style)})")
    statements.append(f"data {data} = files({_arguments(spec.data, dice, style)})")
    addends = []
    for i, term in enumerate(spec.terms):
        at, feature = term.source
        source = f"{data}.labels" if feature == "labels" else f"{teachers[at]}.{feature}"
        via = f" via {term.via}" if term.via else ""
        options = "".join(f", {name}={value}" for name, value in term.options)
        statements.append(f"{style.terms}{i} = {term.operation}({source} -> {student}.{term.target}{via}{options})")
        weight = term.weight
        if style.param and weight != "1" and weight.replace(".", "").isdigit():
            statements.append(f"param w{i} = {weight}")
            weight = f"w{i}"
        name = f"{style.terms}{i}"
        addends.append(name if weight == "1" else f"{name} * ({weight})" if style.loose else f"{weight} * {name}")
    if style.let:
        statements.append(f"everything = {addends[0]}")
        addends[0] = "everything"
    settings = list(spec.train)
    if style.order:
        dice.shuffle(addends)
        dice.shuffle(statements)
        dice.shuffle(settings)
    statements.append(f"loss = {' + '.join(addends)}")
    statements.append("train {\n" + "\n".join(f"  {name} = {value}" for name, value in settings) + "\n}")
    if style.order:
        last = statements[-2:]
        dice.shuffle(last)
        statements[-2:] = last
    whole = "brew 1\n" + "\n".join(statements) + "\n"
    if style.loose:
        whole = whole.replace(" = ", "=").replace(", ", " ,   ").replace("\n", "   # said in other words\n\n")
    return whole


def _arguments(given: tuple[tuple[str, str], ...], dice: random.Random, style: Style) -> str:
    listed = list(given)
    if style.order:
        dice.shuffle(listed)
    return ", ".join(f"{name}={value}" for name, value in listed)


def side(written: str) -> Side:
    """The spec checked against made-up models."""
    recipe, collector = recipe_of(written)
    facts = lambda model: SIZES[model.role]  # noqa: E731
    known = identities(recipe, lambda model: "another spec")
    graphs = {}
    for stage, task in recipe.tasks:
        built = build_graph(recipe, facts, collector, known, task)
        collector.raise_errors()
        assert built is not None
        graphs[stage.name, task.name] = canonical(built)
    return Side(recipe, graphs, known, {}, hash_spec(recipe, graphs, known, {}))


# ── any spec ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WEIGHTS = st.sampled_from(["1", "0.5", "0.25", "2", "ramp(1 -> 0)", "0.3 * cosine(1 -> 0)"])
LAYERS = st.integers(0, 3)


@st.composite
def logit_terms(draw: st.DrawFn, teachers: int) -> Term:
    """A match of logits."""
    options = draw(st.sampled_from([(), (("T", "2"),), (("T", "8"),), (("T", "ramp(8 -> 1)"),)]))
    operation = draw(st.sampled_from(["kd", "ce", "kl"]))
    source = (draw(st.integers(0, teachers - 1)), "logits")
    return Term(operation, source, "logits", draw(WEIGHTS), options=options)


@st.composite
def hidden_terms(draw: st.DrawFn, teachers: int) -> Term:
    """A match of hidden states through a projection, or of pairs of tokens without one."""
    source = (draw(st.integers(0, teachers - 1)), f"hidden[{draw(st.integers(0, 12))}]")
    operation = draw(st.sampled_from(["mse", "cos", "nst"]))
    via = "" if operation == "nst" else draw(st.sampled_from(["linear", "tanh", "linear(lr=0.001)"]))
    options = draw(st.sampled_from([(), (("mask", "none"),)]))
    return Term(operation, source, f"hidden[{draw(LAYERS)}]", draw(WEIGHTS), via, options)


@st.composite
def specs(draw: st.DrawFn) -> Written:
    """Specs of one or two teachers and up to six terms, no two of which are the same."""
    teachers = draw(st.integers(1, 2))
    any_term = st.one_of(logit_terms(teachers), hidden_terms(teachers))
    found = draw(
        st.lists(
            any_term, min_size=1, max_size=5, unique_by=lambda t: (t.operation, t.source, t.target, t.via, t.options)
        )
    )
    hard = [Term("ce", (0, "labels"), "logits", draw(WEIGHTS))] if draw(st.booleans()) else []
    return Written(
        teachers=("first", "second")[:teachers],
        student=(("model_type", '"bert"'), ("num_hidden_layers", "3"), ("hidden_size", "384")),
        data=(("train", '"train.jsonl"'), ("batch", str(draw(st.sampled_from([16, 32])))), ("max_length", "64")),
        terms=(*found, *hard),
        train=(
            ("epochs", "4"),
            ("optimizer", draw(st.sampled_from(["adamw(lr=0.0001)", "sgd(lr=0.1)"]))),
            ("schedule", draw(st.sampled_from(["linear(warmup=10%)", "cosine()"]))),
            ("seed", "3"),
        ),
    )


@st.composite
def styles(draw: st.DrawFn) -> Style:
    """Ways to write one spec down."""
    names = draw(st.permutations(["big", "old", "tiny", "d", "bert", "model_type", "linear", "T"]))
    return Style(
        draw(st.integers(0, 999)), tuple(names[:4]), draw(st.booleans()), draw(st.booleans()),
        draw(st.sampled_from(["t", "soft", "loss_"])), draw(st.booleans()), draw(st.booleans()),
    )  # fmt: skip


# ── one field changed ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Mutation:
    """A spec with one field changed, and what its diff has to say: kind of thing and aspect, and both values."""

    spec: Written
    subject: str
    aspect: str
    values: tuple[str, ...] = field(default=())


def mutations(spec: Written) -> Iterator[Mutation]:
    """Every change of a single field that there is."""
    yield from _declarations(spec)
    for i, term in enumerate(spec.terms):

        def put(i: int = i, term: Term = term, **changes: Any) -> Written:
            return replace(spec, terms=(*spec.terms[:i], replace(term, **changes), *spec.terms[i + 1 :]))

        yield from _of_term(spec, term, put)
        if len(spec.terms) > 1:
            yield Mutation(replace(spec, terms=(*spec.terms[:i], *spec.terms[i + 1 :])), "term", "removed")
    more = Term("pkd", (0, "hidden[7]"), "hidden[2]", via="linear")
    yield Mutation(replace(spec, terms=(*spec.terms, more)), "term", "added")


def _declarations(spec: Written) -> Iterator[Mutation]:
    used = {term.source[0] for term in spec.terms if term.source[1] != "labels"}
    for i in used:
        teachers = (*spec.teachers[:i], "elsewhere", *spec.teachers[i + 1 :])
        yield Mutation(replace(spec, teachers=teachers), "teacher", "name", (spec.teachers[i], "elsewhere"))
    student = (*spec.student, ("hidden_dropout_prob", "0.2"))
    yield Mutation(replace(spec, student=student), "student", "hidden_dropout_prob", ("none", "0.2"))
    student = tuple((k, '"roberta"' if k == "model_type" else v) for k, v in spec.student)
    yield Mutation(replace(spec, student=student), "student", "model_type", ("bert", "roberta"))
    for key, value in (("batch", "8"), ("max_length", "65"), ("train", '"other.jsonl"')):
        data = tuple((k, value if k == key else v) for k, v in spec.data)
        yield Mutation(replace(spec, data=data), "data", key)
    kept = dict(spec.train)
    changes = [("epochs", "5", "epochs"), ("seed", "4", "seed"), ("precision", "bf16", "precision")]
    changes += [("optimizer", kept["optimizer"].replace("1)", "2)"), "optimizer.lr"), ("accumulate", "2", "accumulate")]
    changes += [("schedule", "constant(warmup=10%)", "schedule"), ("max_grad_norm", "0.5", "max_grad_norm")]
    for name, value, aspect in changes:
        yield Mutation(replace(spec, train=tuple({**kept, name: value}.items())), "setting", aspect)


def _of_term(spec: Written, term: Term, put: Callable[..., Written]) -> Iterator[Mutation]:
    yield Mutation(put(weight="0.125"), "term", "weight", ("0.125",))
    if term.source[1].startswith("hidden"):
        layer = int(term.source[1][7:-1])
        source = f"hidden[{(layer + 1) % 13}]"
        yield Mutation(put(source=(term.source[0], source)), "term", "tap", (term.source[1], source))
        target = f"hidden[{(int(term.target[7:-1]) + 1) % 4}]"
        yield Mutation(put(target=target), "term", "tap", (term.target, target))
        masked = () if term.options else (("mask", "none"),)
        yield Mutation(put(options=masked), "term", "mask", ("none",))
        if term.via and "(" not in term.via:
            other = "relu" if term.via != "relu" else "tanh"
            yield Mutation(put(via=other), "term", "projection", (other,))
        if term.via == "linear":
            yield Mutation(put(via="linear(lr=0.1)"), "term", "projection's optimizer", ("lr=0.1",))
        operation = {"mse": "cos", "cos": "mse", "nst": "nst"}[term.operation]
    else:
        operation = {"kd": "kl", "kl": "kd", "ce": "ce"}[term.operation]
        if term.source[1] == "logits":
            yield Mutation(put(options=(("T", "3"),)), "term", "T", ("3",))
    if operation != term.operation:
        yield Mutation(put(operation=operation), "term", "operation", (term.operation, operation))
    if len(spec.teachers) > 1 and term.source[1] != "labels":
        yield Mutation(put(source=(1 - term.source[0], term.source[1])), "term", "tap")
