"""Entities: equal to seqeval in every scheme, on sequences that are valid and on those that are not."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, IOBES, Entities

from brewgraph.recipe.tag_schemes import Scheme, find_scheme
from brewgraph.training.metrics import TagMetrics, entities

CLASSES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
MARKS = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
REFERENCES: dict[str, Any] = {"IOBES": IOBES, "BILOU": BILOU, "BMES": IOBES, "BMEWO": IOBES}
"""What seqeval has; in BMES and BMEWO other letters mean what they mean in IOBES."""
AS_IOBES = str.maketrans("MW", "IS")


def scheme_of(*tags: str) -> Scheme:
    """The scheme of tags that have one."""
    found = find_scheme(tags)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("tags", "default", "strict"),
    [
        ("O O", set(), set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}, {("PER", 0, 1), ("LOC", 3, 3)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}, {("PER", 0, 0), ("PER", 1, 1)}),
        ("I-PER I-PER O", {("PER", 0, 1)}, set()),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}, {("PER", 0, 0)}),
        ("O I-LOC B-LOC", {("LOC", 1, 1), ("LOC", 2, 2)}, {("LOC", 2, 2)}),
        ("B-PER O I-PER", {("PER", 0, 0), ("PER", 2, 2)}, {("PER", 0, 0)}),
        ("B-a-b I-a-b I-a", {("a-b", 0, 1), ("a", 2, 2)}, {("a-b", 0, 1)}),
        ("", set(), set()),
    ],
)
def test_entities_by_hand(tags: str, default: set[object], strict: set[object]) -> None:
    """Where they begin and end in IOB2, in both readings."""
    assert entities(tags.split(), scheme_of("B-x")) == default
    assert entities(tags.split(), scheme_of("B-x"), strict=True) == strict


def test_bare_marks_have_one_type() -> None:
    """As seqeval has it."""
    assert entities(["B", "I", "O", "I"], scheme_of("B", "I")) == {("_", 0, 1), ("_", 3, 3)}
    assert entities(["B", "M", "E", "S", "B", "M"], scheme_of("B", "M", "E", "S")) == {("_", 0, 2), ("_", 3, 3)}


@pytest.mark.parametrize("form", ["-", "_", "suffix"])
@pytest.mark.parametrize("name", MARKS)
def test_entities_equal_seqeval(name: str, form: str) -> None:
    """Two thousand random sequences, most of them invalid, written in every form: in IOB2 those of seqeval's default and
    of its strict mode, in schemes that mark the last word of its strict mode."""
    chance = random.Random(0)

    def written(tag: str) -> str:
        return tag if tag == "O" else f"{tag[2:]}-{tag[0]}" if form == "suffix" else tag.replace("-", form)

    tags = ["O", *(f"{mark}-{kind}" for mark in MARKS[name] for kind in ("X", "Y"))]
    scheme = find_scheme(map(written, tags))
    assert scheme is not None
    assert (scheme.name, scheme.closes) == (name, name != "IOB2")
    for _ in range(2000):
        row = chance.choices(tags, k=chance.randint(0, 9))
        own = [written(tag) for tag in row]
        told = [tag[0].translate(AS_IOBES if name.startswith("BM") else {}) + tag[1:] for tag in row]
        strict = {(e.tag, e.start, e.end - 1) for e in Entities([told], REFERENCES.get(name, IOB2)).entities[0]}
        assert entities(own, scheme, strict=True) == strict, row
        assert entities(own, scheme) == (set(get_entities(told)) if name == "IOB2" else strict), row


def gold(labels: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The rows of a split with these tags."""
    return [{"index": n, "tags": list(row)} for n, row in enumerate(labels)]


class Rows(list):
    """Rows that give their columns by name, as a data set does."""

    def __getitem__(self, name: Any) -> Any:
        return [row[name] for row in self] if isinstance(name, str) else super().__getitem__(name)


def metric_of(classes: Sequence[str], labels: Sequence[Sequence[int]]) -> TagMetrics:
    return TagMetrics(classes, Rows(gold(labels)))


def windows(guesses: Sequence[Sequence[int]], chance: random.Random) -> list[tuple[int, int, int]]:
    """Sentence, word and tag of each word, cut into windows that come in any order."""
    pieces = []
    for index, row in enumerate(guesses):
        cut = chance.randint(0, len(row))
        for words in (range(cut), range(cut, len(row))):
            pieces.append([(index, word, row[word]) for word in words])
    chance.shuffle(pieces)
    return [word for piece in pieces for word in piece]


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("seed", range(30))
def test_scores_equal_seqeval(name: str, seed: int) -> None:
    """Precision, recall, F1 and strict F1 over random sentences, guesses right in two of three; the windows of a sentence
    may be seen by two ranks, which both come to the scores of the whole."""
    chance = random.Random(seed)
    classes = ("O", *(f"{mark}-{kind}" for kind in ("PER", "LOC") for mark in MARKS[name]))
    labels = [chance.choices(range(len(classes)), k=chance.randint(1, 12)) for _ in range(8)]
    guesses = [[x if chance.random() < 0.66 else chance.randrange(len(classes)) for x in row] for row in labels]
    parts = windows(guesses, chance)
    here, there = metric_of(classes, labels), metric_of(classes, labels)
    half = len(parts) // 2
    here.update(*torch.tensor(parts[:half]).reshape(-1, 3).T)
    there.update(*torch.tensor(parts[half:]).reshape(-1, 3).T)
    state = here.state()
    here.merge(*there.state())
    there.merge(*state)
    tags = [
        [
            [classes[n][0].translate(AS_IOBES if name.startswith("BM") else {}) + classes[n][1:] for n in row]
            for row in x
        ]
        for x in (labels, guesses)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's complaints of what seqeval does with it
        strict = {"mode": "strict", "scheme": REFERENCES.get(name, IOB2)}
        how = {} if name == "IOB2" else strict
        expected = {
            "precision": precision_score(*tags, **how),
            "recall": recall_score(*tags, **how),
            "f1": f1_score(*tags, **how),
            "strict_f1": f1_score(*tags, **strict),
        }
    right = sum(a == b for one, two in zip(*tags, strict=True) for a, b in zip(one, two, strict=True))
    expected["token_accuracy"] = right / sum(map(len, labels))
    assert here.compute() == pytest.approx(expected)
    assert there.compute() == pytest.approx(expected)
    assert here.compute() == there.compute(), "to ask for them changes nothing"


def test_an_entity_without_its_end_is_none() -> None:
    """In IOBES: one of two is found, one is guessed and two are there."""
    classes = ("O", "B-PER", "I-PER", "E-PER", "S-PER")
    metric = metric_of(classes, [[1, 3, 0, 4]])
    metric.update(*torch.tensor([(0, 0, 1), (0, 1, 2), (0, 2, 0), (0, 3, 4)]).T)
    found = metric.compute()
    assert {name: found[name] for name in ("f1", "strict_f1", "precision", "recall")} == pytest.approx(
        {"f1": 2 / 3, "strict_f1": 2 / 3, "precision": 1.0, "recall": 0.5}
    )


def test_logits_become_tags_of_words() -> None:
    """The likeliest class at a word's place; words of another window, and padding, have none."""
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 0], [0, 3, 4, 0]]), 5).float()
    batch = {
        "words": torch.tensor([[1, 2, -1], [2, -1, -1]]),
        "index": torch.tensor([4, 7]),
        "first": torch.tensor([0, 5]),
    }
    found = torch.stack(TagMetrics.reduce(logits, batch))
    assert found.T.tolist() == [[4, 0, 1], [4, 1, 2], [7, 5, 4]]


def test_a_perfect_tagger_and_one_that_finds_nothing() -> None:
    """All scores 1, and all but the accuracy 0."""
    labels = [[1, 2, 0], [3, 4]]
    for guesses, expected in ((labels, {1.0}), ([[0, 0, 0], [0, 0]], {0.0, 1 / 5})):
        metric = metric_of(CLASSES, labels)
        metric.update(*torch.tensor(windows(guesses, random.Random(0))).T)
        assert set(metric.compute().values()) == expected


def test_words_that_nothing_tags_are_outside() -> None:
    """A word without a token counts as one that is taken for `O`, where there is such a tag; a sentence that was never
    seen does not count."""
    metric = metric_of(CLASSES, [[0, 1, 2, 0], [1]])
    metric.update(*torch.tensor([(0, 1, 1), (0, 2, 2)]).T)
    assert set(metric.compute().values()) == {1.0}
    metric = metric_of(("NOUN", "VERB"), [[0, 1, 1]])
    metric.update(*torch.tensor([(0, 1, 1)]).T)
    assert metric.compute() == {"token_accuracy": 1 / 3}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER", ("IOB2", "B-PER")),
        ("O B_PER I_PER", ("IOB2", "B_PER")),
        ("O PER-B PER-I", ("IOB2", "PER-B")),
        ("O PER_B PER_I", ("IOB2", "PER_B")),
        ("B-PER", ("IOB2", "B-PER")),
        ("O U-PER", ("BILOU", "B-PER")),
        ("O S-PER B-LOC", ("IOBES", "B-PER")),
        ("B M E S", ("BMES", "B")),
        ("O B-PER NOUN", ("IOB2", "B-PER")),
        ("NOUN VERB O", None),
        ("O B_PER I-PER", ("IOB2", "B-PER")),
        ("O B_PER I:PER", None),
        ("O B_PER NOUN", None),
        ("PART_I PART_M", None),
        ("NN-S VB-S NN", None),
        ("I PRON", None),
        ("I O", None),
        ("O", None),
        ("", None),
    ],
)
def test_what_marks_entities(tags: str, expected: tuple[str, str] | None) -> None:
    """Forms that are rare are marks only where all tags have them, and belong to one scheme."""
    found = find_scheme(tags.split())
    assert (None if found is None else (found.name, found.tag("B", "PER"))) == expected
    if found is not None:
        assert all(found.split(found.tag(mark, "LOC")) for mark in found.marks)
        assert found.split("O") is None
